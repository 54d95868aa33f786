/* What is in a spool as files, or as lines of JSON. */
#ifndef TR_APP_SPOOL_EXPORT_H
#define TR_APP_SPOOL_EXPORT_H

#include "spool/inspect.h"

/*
 * Into the directory `to`, which is made and must be empty:
 *
 *   index.jsonl        one object for each record that waits and each dead letter, in order of
 *                      arrival, with account and key of its stream and the file that has its
 * content stream-ID.jsonl    its lines as clients sent them, one a line, in order blob-RECORD a
 * finished log, byte by byte
 *
 * Names are made of numbers only; what clients named is inside index.jsonl. With `to` NULL all goes
 * to standard output, one object for each record, with "lines" or "base64". What cannot be read is
 * in the index with an "error", and on standard error. How many records that were, or -1: the
 * directory cannot be used, `e` says why.
 */
long spool_export(struct spool *s, const char *to, struct err *e) TR_MUST_USE;

/*
 * The content of a record: its lines (without the brackets around them) or its whole blob. -1: it
 * cannot be read, or is not what its record says.
 */
int spool_content(struct spool *s, const struct spool_record_row *row, struct str *out,
                  struct err *e) TR_MUST_USE;

#endif
