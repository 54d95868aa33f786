/*
 * Direct calls: while the spool cannot commit but upstream answers, a call is passed on as it is
 * and its client gets upstream's own answer (architecture, invariant 10). Only for streams of which
 * nothing waits in the spool, so that no order is broken; the stream's owner decides, and is told
 * what came of it (stream_direct.c).
 */
#ifndef TR_LOGS_DIRECT_H
#define TR_LOGS_DIRECT_H

#include "logs/ingest_priv.h"

/* True if the call was taken over: an answer follows, never from within. Its body, if it has one,
 * is in->body; `sub` is its submission, which was not committed. The ingest's thread. */
bool direct_start(struct ingest *in, const struct submission *sub);

/* Nobody waits for the answer any more. in->direct is NULL afterwards. */
void direct_cancel(struct ingest *in);

#endif
