/*
 * Direct calls: while the spool cannot commit but upstream answers, a call is passed on as it is
 * and its client gets upstream's own answer (architecture, invariant 10). Only for streams of which
 * nothing waits in the spool, so that no order is broken.
 */
#ifndef TR_LOGS_DIRECT_H
#define TR_LOGS_DIRECT_H

#include "logs/ingest_priv.h"

/* True if the call was taken over: an answer follows. Its body, if it has one, is in->body. */
bool direct_start(struct ingest *in);

#endif
