/*
 * Barriers: a close with `prefix=true` or a list of keys ends many streams at once (HP §1.5), so it
 * waits until what was accepted for those of them that are known here, on any worker, has gone.
 */
#ifndef TR_LOGS_BARRIER_H
#define TR_LOGS_BARRIER_H

#include "logs/shard.h"

/* stream_env.barrier. */
void barrier_ask(struct stream_env *env, struct stream *s, struct record *close);

/* Something moved in this shard: is one of the barriers that watch it satisfied? Looked at once, at
 * the end of the turn. */
void barrier_check(struct shard *sh);
void barrier_forget(struct shard *sh, const struct stream *s); /* it is about to be freed */

/* Does this parameter of a close make it one? */
bool barrier_param(struct view name, struct view value);

void barrier_free_all(struct shard *sh);

#endif
