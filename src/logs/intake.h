/*
 * Bodies being received, over all connections: they share a budget of memory. Past it bodies wait,
 * by not being read on (http_consumed); nothing is refused unless that takes so long that an answer
 * within 10 s (HP §2.4) would become impossible. One body of each worker goes on whatever the
 * budget says, so that there is progress.
 */
#ifndef TR_LOGS_INTAKE_H
#define TR_LOGS_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/list.h"

struct ingest;
struct shard;

/* struct ingest.intake */
struct intake {
    struct list link; /* shard.intake_waiting */
    size_t charged;
    int64_t since; /* waiting without getting anywhere; 0: it is not */
    void (*resume)(struct ingest *in);
    void (*late)(struct ingest *in);
};

/* `late`: it has waited so long that it must be answered now, or holds others up too long. May be
 * NULL for one that never waits. May free the ingest, as `resume` may. */
void intake_init(struct ingest *in, void (*late)(struct ingest *in));

/* The ingest holds `bytes` of body now. */
void intake_charge(struct ingest *in, size_t bytes);

/* Is there memory for more of it? */
bool intake_may_grow(struct ingest *in);
/* Is there not enough for all? Who can give some back should. */
bool intake_is_short(const struct ingest *in);

/* Call `resume` soon, when it may grow: from the loop, never from within. */
void intake_wait(struct ingest *in, void (*resume)(struct ingest *in));
void intake_wait_no_more(struct ingest *in);

/* The ingest goes: what it held is free, and so is its place in the queue. */
void intake_fini(struct ingest *in);

void intake_shard_init(struct shard *sh);
void intake_shard_fini(struct shard *sh);

#endif
