#include "logs/limiter.h"

#include <stdio.h>
#include "base/bug.h"
#include "rt/clock.h"

#define LIMIT_FIRST      32.0
#define LIMIT_MOST       256.0
#define PAUSE_FIRST      (100 * NS_PER_MS)
#define PAUSE_MOST       (5 * NS_PER_SEC) /* an outage's end is noticed within seconds */
#define RETRY_AFTER_MOST (300 * NS_PER_SEC)
#define NEWS_FOR         (60 * NS_PER_SEC)

void limiter_init(struct limiter *l)
{
    *l = (struct limiter){.limit = LIMIT_FIRST, .threshold = LIMIT_MOST};
}

int64_t limiter_ready(const struct limiter *l, int64_t now)
{
    if ((double)l->in_flight + 1 > l->limit)
        return INT64_MAX;
    return l->not_before > now ? l->not_before : 0;
}

void limiter_start(struct limiter *l)
{
    l->in_flight++;
}

static void cut(struct limiter *l, int64_t started, struct rng *rng, int64_t now)
{
    int64_t pause = PAUSE_FIRST;
    unsigned i;

    l->failures++;
    l->failed = now;
    /* Requests that were under way together fail together: one cut for all of them. */
    if (started >= l->decreased) {
        l->limit = TR_MAX(1.0, l->limit / 2);
        l->threshold = TR_MAX(2.0, l->limit);
        l->decreased = now;
    }
    if (l->limit > 1.0 && l->failures < 8)
        return;
    l->limit = 1.0;
    for (i = 8; i < l->failures && pause < PAUSE_MOST; i++)
        pause *= 2;
    pause = TR_MIN(pause, PAUSE_MOST);
    l->not_before = now + pause / 2 + (int64_t)rng_below(rng, (uint64_t)pause / 2 + 1);
}

void limiter_end(struct limiter *l, enum limiter_verdict v, int64_t started, int64_t retry_after_ns,
                 struct rng *rng, int64_t now)
{
    ASSERT(l->in_flight > 0);
    l->in_flight--;
    if (v == LIMITER_TROUBLE) {
        cut(l, started, rng, now);
    } else {
        l->failures = 0;
        l->not_before = 0;
        l->limit += l->limit < l->threshold ? 1.0 : 1.0 / l->limit;
        l->limit = TR_MIN(l->limit, LIMIT_MOST);
    }
    if (retry_after_ns > 0 && v == LIMITER_TROUBLE)
        l->not_before = TR_MAX(l->not_before, now + TR_MIN(retry_after_ns, RETRY_AFTER_MOST));
}

void limiter_heard(struct limiter *l, const char *said, int64_t wall)
{
    if (!said) {
        l->news.good_at = wall;
        return;
    }
    l->news.bad_at = wall;
    snprintf(l->news.said, sizeof(l->news.said), "%s", said);
}

void limiter_leave(struct limiter *l)
{
    ASSERT(l->in_flight > 0);
    l->in_flight--;
}

enum limiter_state limiter_state(const struct limiter *l, int64_t now)
{
    if (l->in_flight == 0 && now - TR_MAX(l->failed, l->not_before) > NEWS_FOR)
        return LIMITER_HEALTHY;
    if (l->failures >= 3 && l->limit <= 1.0)
        return LIMITER_DOWN;
    return l->failures ? LIMITER_SLOWED : LIMITER_HEALTHY;
}
