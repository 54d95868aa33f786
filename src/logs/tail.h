/*
 * Following a stream: the lines that clients send, as they become durable, for somebody who looks
 * on (the command `tail`). A reader costs the stream's worker a copy of the text, and the stream
 * nothing: what a reader does not take in time is left out and counted.
 */
#ifndef TR_LOGS_TAIL_H
#define TR_LOGS_TAIL_H

#include "logs/shard.h"

struct command_call;

enum {
    TAILS_MAX = 16,            /* readers at a time, in the whole process */
    TAIL_QUEUE = 1024 * 1024,  /* bytes kept for one that is slow */
    TAIL_LAST_MAX = 10 * 1000, /* lines from before it came */
};

/* The command; `ctx` is struct logs. */
void tail_run(void *ctx, struct command_call *call);

/* All for the owner's thread. A commit is durable, and about to be reported to the machine. */
void tail_committed(struct shard *sh, const struct commit *c);
/* The stream is about to be forgotten. */
void tail_forgotten(struct shard *sh, const struct stream *s);
/* Let go of those who have left. */
void tail_sweep(struct shard *sh);
void tail_free_all(struct shard *sh);

#endif
