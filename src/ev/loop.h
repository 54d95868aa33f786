/*
 * libevent, wrapped once. One loop belongs to one thread; everything here is for that thread only,
 * but for ev_post, ev_loop_stop and the pool, which any thread may call.
 *
 * Words: a *turn* is one round of the loop; a *task* is a function to be run later by a loop.
 */
#ifndef TR_EV_LOOP_H
#define TR_EV_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"

struct ev_loop;
struct ev_io;
struct ev_timer;
struct ev_signal;

/* A new loop for the calling or a later thread. Never NULL: aborts if the system has none. From the
 * first loop on the process ignores SIGPIPE. */
struct ev_loop *ev_loop_new(const char *name);

/* After ev_loop_run has returned; tasks still waiting are run first, here, so that what they are
 * about is freed. Watchers and timers must be gone. */
void ev_loop_free(struct ev_loop **loop);

void ev_loop_run(struct ev_loop *loop);  /* until ev_loop_stop; runs in the calling thread */
void ev_loop_stop(struct ev_loop *loop); /* any thread; tasks posted before are still run */
bool ev_loop_is_current(const struct ev_loop *loop); /* called from the loop's own thread? */

/* Monotonic time as of the beginning of this turn: cheap, good enough for timeouts. */
int64_t ev_now_ns(const struct ev_loop *loop);

/*
 * Tasks. The struct is embedded in what the task is about and belongs to the loop from the call
 * until `run` is called; it may be freed or posted again from within `run`.
 */
struct ev_task {
    struct ev_task *next;
    void (*run)(struct ev_task *task);
};

/* Run the task in the loop's thread. Any thread. Order between two posts of one thread is kept.
 * One wake-up serves all posts that arrive before the loop gets to them. */
void ev_post(struct ev_loop *loop, struct ev_task *task);

/* Run the task at the end of the current turn (own thread only): deferred frees, batching. */
void ev_defer(struct ev_loop *loop, struct ev_task *task);

/* Watch a descriptor. Level-triggered. The callback gets what happened (EV_CAN_*). */
enum { EV_CAN_READ = 1, EV_CAN_WRITE = 2 };
typedef void (*ev_io_fn)(void *ctx, unsigned what);
struct ev_io *ev_io_new(struct ev_loop *loop, int fd, ev_io_fn fn, void *ctx);
void ev_io_want(struct ev_io *io, unsigned what); /* 0 watches nothing; cheap if unchanged */
/* Does not close the descriptor (call this before the close); safe in its own callback. */
void ev_io_free(struct ev_io **io);

/* Timers fire once; arm again from the callback for a period. Durations in milliseconds. */
typedef void (*ev_timer_fn)(void *ctx);
struct ev_timer *ev_timer_new(struct ev_loop *loop, ev_timer_fn fn, void *ctx);
/* Replaces an earlier arming; 0 is "next turn". */
void ev_timer_arm(struct ev_timer *timer, int64_t ms);
void ev_timer_disarm(struct ev_timer *timer);
bool ev_timer_armed(const struct ev_timer *timer);
void ev_timer_free(struct ev_timer **timer); /* safe in its own callback */

/* Unix signals, delivered as loop callbacks (one loop only in the process). */
typedef void (*ev_signal_fn)(void *ctx, int signo);
struct ev_signal *ev_signal_new(struct ev_loop *loop, int signo, ev_signal_fn fn, void *ctx);
void ev_signal_free(struct ev_signal **sig);

#endif
