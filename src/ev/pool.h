/*
 * Threads for work that would block a loop: compression of large bodies, key operations, file
 * reads. A job's `work` runs in a pool thread, then its `done` in the loop that submitted it.
 */
#ifndef TR_EV_POOL_H
#define TR_EV_POOL_H

#include <stddef.h>
#include "ev/loop.h"

struct ev_pool;

struct ev_job {
    struct ev_task task;              /* ours */
    struct ev_loop *loop;             /* ours */
    void (*work)(struct ev_job *job); /* pool thread: touch nothing but the job */
    void (*done)(struct ev_job *job); /* loop thread; may free the job */
};

/* The threads are started by the first job. */
struct ev_pool *ev_pool_new(unsigned threads, size_t max_queued);

/* Finishes what is queued, then posts it to its loops, which must still be alive. Not from a pool
 * thread; blocks until all is worked off. */
void ev_pool_free(struct ev_pool **pool);

/* 0, or -1 if max_queued jobs are waiting: the caller does without or tells its peer to wait. */
int ev_pool_submit(struct ev_pool *pool, struct ev_loop *loop, struct ev_job *job) TR_MUST_USE;

/* The same, ahead of the others: somebody waits for its outcome. */
int ev_pool_submit_first(struct ev_pool *pool, struct ev_loop *loop,
                         struct ev_job *job) TR_MUST_USE;

#endif
