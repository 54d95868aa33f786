/* Records that a stream keeps in the spool only (queue.h), read back for it. */
#ifndef TR_LOGS_READBACK_H
#define TR_LOGS_READBACK_H

#include "logs/shard.h"

/* struct stream_env.load, in the shard's own thread. */
void readback_start(struct stream_env *env, struct reload *l);
/* Ask for what was wanted while the shard was stopping. */
void readback_resume(struct shard *sh);
/* What never came back, when the loop and the spool have ended. */
void readback_free_all(struct shard *sh);

/* A record as its row says; NULL: not understood. Any thread. */
struct record *record_from_row(const struct spool_record_row *row);

#endif
