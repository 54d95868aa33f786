/*
 * Turns: line calls on their way to the disk. Each stream, and each shard, may have so many bytes
 * of lines under way; who has more waits until some are durable, streams taking turns. So one that
 * sends as fast as it can is slowed to what the disk takes, and others hardly notice. Opens,
 * uploads and closes never wait here. All in the shard's own thread.
 */
#ifndef TR_LOGS_TURNS_H
#define TR_LOGS_TURNS_H

#include <stdbool.h>
#include <stddef.h>
#include "base/list.h"
#include "ev/loop.h"

struct shard;
struct stream;
struct submission;

/* struct shard.turns */
struct turns {
    struct list streams; /* struct stream_turns.link: with calls that wait */
    size_t bytes;        /* under way */
    struct ev_task task;
    bool due;
};

/* struct stream.place.turns */
struct stream_turns {
    struct list link;
    struct list calls; /* struct submission.turn */
    size_t bytes, waiting;
};

void turns_init(struct turns *t);
void stream_turns_init(struct stream_turns *t);

/* May the call run now? False: it waits, and will be run by submission_go; or it was refused, since
 * too much of its stream waits already. */
bool turn_take(struct shard *sh, struct stream *s, struct submission *sub);

/* The call was answered. */
void turn_over(struct shard *sh, struct submission *sub);

/* Refuse what has waited for so long that its client is about to give up; once a second. */
void turns_sweep(struct shard *sh);

/* The stream is forgotten: what waits finds itself another of that name. */
void turns_leave(struct stream_turns *st);

/* The shard ends: refuse all that wait. */
void turns_end(struct shard *sh);

#endif
