/*
 * Timeouts for very many connections: every kind of timeout has one duration, so a queue in the
 * order of arming is in the order of falling due, and arming is a list operation instead of a
 * timer. One timer serves all queues.
 */
#ifndef TR_HTTP_WAITS_H
#define TR_HTTP_WAITS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/list.h"
#include "ev/loop.h"

enum { HTTP_WAITS_MAX = 8 };

/* Embedded in what waits; in at most one queue. */
struct http_wait {
    struct list link;
    int64_t due_ns;
};

/* The time of `w` is up; it is in no queue now. */
typedef void (*http_wait_fn)(void *ctx, struct http_wait *w);

struct http_waits {
    struct ev_loop *loop;
    struct ev_timer *timer;
    void *ctx;
    int64_t armed_ns; /* when the timer fires; 0: it is not armed */
    struct {
        struct list queue;
        int64_t after_ns;
        http_wait_fn due;
    } kinds[HTTP_WAITS_MAX];
};

/* The struct must not move between init and fini. Loop's thread only, like all here. */
void http_waits_init(struct http_waits *ws, struct ev_loop *loop, void *ctx);
void http_waits_fini(struct http_waits *ws); /* nobody waits any more */

/* Say how long `kind` waits and what happens then. Before its first use. */
void http_waits_kind(struct http_waits *ws, unsigned kind, unsigned after_ms, http_wait_fn due);

void http_wait_init(struct http_wait *w);
void http_wait_put(struct http_waits *ws, unsigned kind, struct http_wait *w); /* from now on */
/* As http_wait_put, but due at once: from the timer, not from within. */
void http_wait_now(struct http_waits *ws, unsigned kind, struct http_wait *w);
/* How long it has waited; 0 if it does not. */
int64_t http_wait_ns(const struct http_waits *ws, unsigned kind, const struct http_wait *w);
void http_wait_off(struct http_wait *w);
bool http_wait_is_on(const struct http_wait *w);

#endif
