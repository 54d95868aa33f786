/*
 * How many requests may be under way to one upstream host: additive increase, multiplicative
 * decrease. At its floor a single probe at a time goes out, with growing pauses; that is what
 * others call an open breaker. One for each host and worker.
 */
#ifndef TR_LOGS_LIMITER_H
#define TR_LOGS_LIMITER_H

#include <stdbool.h>
#include <stdint.h>
#include "rt/rng.h"

enum limiter_state { LIMITER_HEALTHY, LIMITER_SLOWED, LIMITER_DOWN };

enum limiter_verdict {
    LIMITER_GOOD,    /* the host answered in a way that says nothing against it */
    LIMITER_TROUBLE, /* refused, timed out, 429, 502, 503, 504 */
};

enum { LIMITER_SAID = 160 };

/* What was last heard of the host, for people. */
struct limiter_news {
    int64_t good_at;         /* wall time: it did what it was asked to; 0: never */
    int64_t bad_at;          /* wall time: it was in trouble, or did not answer; 0: never */
    char said[LIMITER_SAID]; /* what that was, in words of ours */
};

struct limiter {
    double limit;
    double threshold; /* below it the limit doubles in a round instead of growing by one */
    unsigned in_flight;
    unsigned failures;  /* in a row */
    int64_t not_before; /* no request before this monotonic time */
    int64_t decreased;  /* when the limit was last cut */
    int64_t failed;     /* when a request last failed */
    struct limiter_news news;
};

void limiter_init(struct limiter *l);

/* 0: a request may start now; INT64_MAX: when another ends; else the time to ask again. */
int64_t limiter_ready(const struct limiter *l, int64_t now);
void limiter_start(struct limiter *l);
/* A request that began at `started` ended. `retry_after_ns` is obeyed up to five minutes. */
void limiter_end(struct limiter *l, enum limiter_verdict v, int64_t started, int64_t retry_after_ns,
                 struct rng *rng, int64_t now);
/* Keep what was heard, at this wall time. `said`: the trouble, copied and cut; NULL: there was
 * none.
 */
void limiter_heard(struct limiter *l, const char *said, int64_t wall);
/* It was not tried after all: that says nothing about the host. */
void limiter_leave(struct limiter *l);
/* Trouble that nothing was heard of for a minute, since nothing is sent, is over for all we know.
 */
enum limiter_state limiter_state(const struct limiter *l, int64_t now);

#endif
