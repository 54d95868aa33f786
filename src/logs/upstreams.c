#include "logs/upstreams.h"

#include <stdio.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "logs/logs_priv.h"
#include "logs/store.h"
#include "rt/clock.h"
#include "rt/json.h"

/* Of all shards: whatever links name beyond that is left out. */
enum { HOSTS_SHOWN = 64 };

void upstreams_init(struct upstreams_told *t)
{
    pthread_mutex_init(&t->lock, NULL);
    t->hosts = xcalloc(UPSTREAMS_MAX, sizeof(*t->hosts));
    t->n = 0;
}

void upstreams_fini(struct upstreams_told *t)
{
    pthread_mutex_destroy(&t->lock);
    xfree(t->hosts);
}

/* --- telling ------------------------------------------------------------------------------ */

static void tell_one(struct shard *sh, const char *name, bool store, const struct limiter *l)
{
    struct upstreams_told *t = &sh->upstreams;
    struct upstream_told *u = &t->hosts[t->n];

    if (t->n == UPSTREAMS_MAX)
        return;
    t->n++;
    snprintf(u->name, sizeof(u->name), "%s", name);
    u->store = store;
    u->state = limiter_state(l, ev_now_ns(sh->loop));
    u->limit = (unsigned)l->limit;
    u->in_flight = l->in_flight;
    u->not_before = l->not_before;
    u->news = l->news;
}

static void tell_store(void *ctx, const char *authority, const struct limiter *l)
{
    tell_one(ctx, authority, true, l);
}

/* "host:port" of harness.url. */
static void harness_name(const struct shard *sh, char out[UPSTREAM_NAME])
{
    struct url u;
    struct err e;

    if (url_parse(view_str(sh->settings->base), &u, &e) < 0)
        snprintf(out, UPSTREAM_NAME, "%s", sh->settings->base);
    else if (memchr(u.host.p, ':', u.host.n))
        snprintf(out, UPSTREAM_NAME, "[%.*s]:%u", (int)u.host.n, u.host.p, u.port);
    else
        snprintf(out, UPSTREAM_NAME, "%.*s:%u", (int)u.host.n, u.host.p, u.port);
}

void upstreams_tell(struct shard *sh)
{
    char name[UPSTREAM_NAME];

    harness_name(sh, name);
    pthread_mutex_lock(&sh->upstreams.lock);
    sh->upstreams.n = 0;
    tell_one(sh, name, false, &sh->harness);
    store_each(sh, tell_store, sh);
    pthread_mutex_unlock(&sh->upstreams.lock);
}

/* --- reading ------------------------------------------------------------------------------ */

struct gathered {
    struct upstream_told hosts[HOSTS_SHOWN];
    size_t n;
};

static struct upstream_told *host_of(struct gathered *g, const struct upstream_told *u)
{
    size_t i;

    for (i = 0; i < g->n; i++) {
        if (g->hosts[i].store == u->store &&
            view_ieq(view_str(g->hosts[i].name), view_str(u->name)))
            return &g->hosts[i];
    }
    return NULL;
}

static void add(struct gathered *g, const struct upstream_told *u)
{
    struct upstream_told *h = host_of(g, u);

    if (!h && g->n < HOSTS_SHOWN) {
        g->hosts[g->n++] = *u;
        return;
    }
    if (!h)
        return;
    h->state = TR_MAX(h->state, u->state);
    h->limit += u->limit;
    h->in_flight += u->in_flight;
    /* the first worker that may try again */
    h->not_before = TR_MIN(h->not_before, u->not_before);
    h->news.good_at = TR_MAX(h->news.good_at, u->news.good_at);
    if (u->news.bad_at > h->news.bad_at) {
        h->news.bad_at = u->news.bad_at;
        memcpy(h->news.said, u->news.said, sizeof(h->news.said));
    }
}

static void gather(struct logs *l, struct gathered *g)
{
    unsigned i;
    size_t k;

    g->n = 0;
    for (i = 0; i < l->n_shards; i++) {
        struct upstreams_told *t = &l->shards[i]->upstreams;

        pthread_mutex_lock(&t->lock);
        for (k = 0; k < t->n; k++)
            add(g, &t->hosts[k]);
        pthread_mutex_unlock(&t->lock);
    }
}

enum limiter_state upstreams_state(struct logs *l, bool store)
{
    enum limiter_state worst = LIMITER_HEALTHY;
    unsigned i;
    size_t k;

    for (i = 0; i < l->n_shards; i++) {
        struct upstreams_told *t = &l->shards[i]->upstreams;

        pthread_mutex_lock(&t->lock);
        for (k = 0; k < t->n; k++) {
            if (t->hosts[k].store == store)
                worst = TR_MAX(worst, t->hosts[k].state);
        }
        pthread_mutex_unlock(&t->lock);
    }
    return worst;
}

static void add_host(struct json *j, const struct upstream_told *u, int64_t now)
{
    static const char *const states[] = {
        [LIMITER_HEALTHY] = "healthy", [LIMITER_SLOWED] = "slowed", [LIMITER_DOWN] = "down"};

    json_open(j, NULL, '{');
    json_text(j, "host", view_str(u->name));
    json_text(j, "kind", view_str(u->store ? "object-store" : "log-service"));
    json_text(j, "state", view_str(states[u->state]));
    json_uint(j, "limit", u->limit);
    json_uint(j, "in_flight", u->in_flight);
    json_seconds(j, "waiting_for_seconds", u->not_before > now ? u->not_before - now : -1);
    json_time(j, "last_success", u->news.good_at);
    if (u->news.bad_at) {
        json_open(j, "last_error", '{');
        json_time(j, "time", u->news.bad_at);
        json_text(j, "text", view_str(u->news.said));
        json_close(j, '}');
    } else {
        json_nothing(j, "last_error");
    }
    json_close(j, '}');
}

void upstreams_json(struct logs *l, struct str *out)
{
    struct gathered *g = XNEW(struct gathered);
    struct json j = json_to(out);
    int64_t now = clock_mono_ns();
    size_t i;

    gather(l, g);
    json_open(&j, NULL, '[');
    for (i = 0; i < g->n; i++)
        add_host(&j, &g->hosts[i], now);
    json_close(&j, ']');
    xfree(g);
}
