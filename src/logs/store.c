#include "logs/store.h"

#include "base/bug.h"
#include "base/xmem.h"
#include "rt/clock.h"

struct store_host {
    struct list link; /* shard.stores, the one used last at the end */
    struct shard *sh;
    char *authority;
    struct limiter limiter;
    struct list waiting; /* struct store_wait */
    size_t n_waiting;
    struct ev_timer *timer;
};

static void host_free(struct store_host *h)
{
    list_remove(&h->link);
    ev_timer_free(&h->timer);
    xfree(h->authority);
    xfree(h);
}

/* Forget the one whose use is longest ago, if nobody is at it. */
static void trim(struct shard *sh)
{
    struct list *it, *tmp;
    size_t n = 0;

    list_each (it, tmp, &sh->stores)
        n++;
    list_each (it, tmp, &sh->stores) {
        struct store_host *h = list_entry(it, struct store_host, link);

        if (n < STORE_HOSTS_MAX)
            return;
        if (h->limiter.in_flight || h->n_waiting)
            continue;
        host_free(h);
        n--;
    }
}

static void pump(struct store_host *h)
{
    while (h->n_waiting) {
        int64_t now = ev_now_ns(h->sh->loop);
        int64_t at = limiter_ready(&h->limiter, now);
        struct store_wait *w = list_first(&h->waiting, struct store_wait, link);

        if (at == INT64_MAX)
            return; /* one under way will make room */
        if (at) {
            ev_timer_arm(h->timer, (at - now) / NS_PER_MS + 1);
            return;
        }
        list_remove(&w->link);
        h->n_waiting--;
        limiter_start(&h->limiter);
        w->go(w);
    }
}

static void timer_due(void *ctx)
{
    pump(ctx);
}

struct store_host *store_get(struct shard *sh, struct view authority)
{
    struct store_host *h;
    struct list *it, *tmp;

    list_each (it, tmp, &sh->stores) {
        h = list_entry(it, struct store_host, link);
        if (view_ieq(view_str(h->authority), authority)) {
            list_remove(it);
            list_append(&sh->stores, it);
            return h;
        }
    }
    trim(sh);
    h = XNEW(struct store_host);
    h->sh = sh;
    h->authority = xmemdup0(authority.p, authority.n);
    limiter_init(&h->limiter);
    list_init(&h->link);
    list_init(&h->waiting);
    h->timer = ev_timer_new(sh->loop, timer_due, h);
    list_append(&sh->stores, &h->link);
    return h;
}

void store_enter(struct store_host *h, struct store_wait *w)
{
    list_init(&w->link);
    list_append(&h->waiting, &w->link);
    h->n_waiting++;
    pump(h);
}

void store_enter_now(struct store_host *h)
{
    limiter_start(&h->limiter);
}

struct limiter *store_limiter(struct store_host *h)
{
    return &h->limiter;
}

void store_left(struct store_host *h)
{
    pump(h);
}

void store_give_back(struct store_host *h)
{
    limiter_leave(&h->limiter);
    pump(h);
}

bool store_is_crowded(const struct shard *sh)
{
    const struct store_host *h = list_last(&sh->stores, struct store_host, link);

    return h && h->n_waiting >= STORE_WAITING_MAX;
}

void store_each(const struct shard *sh,
                void (*fn)(void *ctx, const char *authority, const struct limiter *l), void *ctx)
{
    const struct list *it;

    for (it = sh->stores.next; it != &sh->stores; it = it->next) {
        const struct store_host *h = list_entry(it, struct store_host, link);

        fn(ctx, h->authority, &h->limiter);
    }
}

void store_free_all(struct shard *sh)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sh->stores)
        host_free(list_entry(it, struct store_host, link));
}
