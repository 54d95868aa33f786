/*
 * The reference of the manual: options as mdoc(7), written from their rows, so that a page and the
 * program cannot differ. A build tool and unit tests use it; the gateway does not.
 */
#ifndef TR_CONF_MANUAL_H
#define TR_CONF_MANUAL_H

#include <stdbool.h>
#include "base/str.h"
#include "conf/rows.h"

/* Append a list with every option whose path is `group` or begins with it and a dot ("spool",
 * "listen"): sentence, kind of value, limits, default, and what a change takes. False if there is
 * no such option. */
bool conf_manual(const struct conf_spec *spec, const char *group, struct str *out);

/* Append the name of each group, in the order of the rows, one on each line. */
void conf_manual_groups(const struct conf_spec *spec, struct str *out);

/* Append a sentence or more as lines of mdoc(7): nothing in them means something to it, words
 * between backquotes are set in bold, and a new sentence begins a new line. */
void manual_text(struct str *out, const char *text);

/* Append a word with nothing in it that means something to mdoc(7). */
void manual_word(struct str *out, const char *word);

#endif
