/*
 * The log path: terminates log streams, keeps them in the spool and delivers them. One `struct
 * logs` for the process, with one part for each worker.
 */
#ifndef TR_LOGS_LOGS_H
#define TR_LOGS_LOGS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "crypto/aead.h"
#include "ev/loop.h"
#include "ev/pool.h"
#include "http/server.h"
#include "logs/settings.h"
#include "net/fetch.h"
#include "spool/spool.h"

struct logs;
struct shard;

struct logs_opts {
    struct spool *spool;            /* opened, not started */
    struct ev_pool *pool;           /* for large bodies */
    const char *ticket_key;         /* path */
    struct logs_settings *settings; /* taken over */
    unsigned workers;
};

struct logs *logs_new(const struct logs_opts *o, struct err *e) TR_MUST_USE;
void logs_free(struct logs **l);

/* One for each worker, before logs_recover. `fallback` gets what is not for the log path. */
struct shard *logs_add_worker(struct logs *l, struct ev_loop *loop, struct fetch_pool *pool,
                              const struct http_service *fallback);
/* Take up what the spool holds; then the loops may run and the spool start. */
int logs_recover(struct logs *l, struct err *e) TR_MUST_USE;

const struct http_service *logs_service(struct shard *sh);

/* Replace the settings (taken over); each worker takes them up in its own time. The control thread
 * only. */
void logs_configure(struct logs *l, struct logs_settings *settings);

/* What is known of the log service and object stores, as of a second ago: append a JSON array. */
void logs_upstreams(struct logs *l, struct str *out);

/*
 * For drain, to be called every now and then by the control thread once no client is left: true
 * when nothing goes on any more that waits for nothing but upstream's answers, by `until`
 * (monotonic). What is left then waits for something else: lines for the end of their stream, a
 * held credential for a better one, all of it for an upstream that is down, or for the disk. It
 * takes two rounds of asking every worker, since what one has done with may just have begun in
 * another.
 */
bool logs_drained(struct logs *l, int64_t until);

/*
 * For handing over to another process, in the worker's loop. What of that worker is under way;
 * begin no delivery (while client calls are still taken and answered); nothing at all any more, as
 * logs_worker_quiesce but to be taken back by `on` false. When nothing is under way anywhere after
 * that the spool may be closed; then logs_gave_up, in the control thread, and nothing but
 * logs_free may follow.
 */
struct logs_going_on {
    size_t calls;      /* of clients */
    size_t deliveries; /* requests of ours */
    size_t commits;    /* on their way to the spool, and reads */
};
struct logs_going_on logs_worker_going_on(const struct shard *sh);
void logs_worker_hold(struct shard *sh, bool on);
void logs_worker_still(struct shard *sh, bool on);
void logs_gave_up(struct logs *l);

/*
 * At the end, in the worker's loop, when its server is gone: send nothing more. Once all workers
 * have done so: call `then` with the worker's loop when its calls and commits are done. logs_idle
 * tells afterwards whether every delivery had ended by itself.
 */
void logs_worker_quiesce(struct shard *sh);
void logs_worker_stop(struct shard *sh, void (*then)(struct ev_loop *loop));
bool logs_idle(struct logs *l);

#endif
