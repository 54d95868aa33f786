/* Hosts and names: which request goes when, over which way, and to which addresses. */
#include "net/fetch_priv.h"
#include "base/bug.h"
#include "base/hash.h"
#include "base/xmem.h"
#include "codec/url.h"
#include <arpa/inet.h>
#include <ctype.h>

/* ---- names */

static bool is_literal(const char *host)
{
    unsigned char a[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, host, a) == 1 || inet_pton(AF_INET6, host, a) == 1;
}

/* "host:port:addr,[addr6],...": curl asks no resolver for that name any more. */
static void name_pin(struct fetch_name *name)
{
    struct str s = STR_INIT;

    str_addf(&s, "%s:%u:", name->host, name->port);
    for (size_t i = 0; i < name->n; i++) {
        char ip[NET_ADDR_TEXT];
        const char *text = net_addr_ip(&name->addr[i], ip);
        bool bare6 = name->addr[i].ss.ss_family == AF_INET6 && text[0] != '[';

        str_addf(&s, bare6 ? "%s[%s]" : "%s%s", i ? "," : "", text);
    }
    xfree(name->pin);
    name->pin = str_take(&s);
    name->changes++;
    name->pinned = false;
}

static bool name_same(const struct fetch_name *name, const struct net_addr *addrs, size_t n)
{
    if (n != name->n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (addrs[i].len != name->addr[i].len ||
            memcmp(&addrs[i].ss, &name->addr[i].ss, addrs[i].len) != 0)
            return false;
    return true;
}

static void name_fail_waiting(struct fetch_name *name, const struct err *e)
{
    struct list *it, *tmp;

    list_each (it, tmp, &name->pool->queued) {
        struct fetch *f = list_entry(it, struct fetch, link);

        if (f->host->name != name)
            continue;
        err_set(&f->early, e->code ? e->code : ERR_UNAVAIL, "%s: cannot resolve %s: %s",
                f->host->text, name->host, e->text);
        fetch_fail(f);
    }
}

static void name_resolved(void *ctx, const struct net_addr *addrs, size_t n, const struct err *e)
{
    struct fetch_name *name = ctx;
    struct fetch_pool *p = name->pool;
    size_t slot = 0;

    name->lookup = NULL;
    if (n == 0) {
        name_fail_waiting(name, e);
        return;
    }
    n = TR_MIN(n, (size_t)NET_RESOLVE_MAX);
    if (!name_same(name, addrs, n)) {
        memcpy(name->addr, addrs, n * sizeof(*addrs));
        name->n = n;
        name_pin(name);
    }
    name->good_until_ns = ev_now_ns(p->loop) + FETCH_NS(FETCH_NAME_MS);
    for (struct hnode *at = hmap_walk(&p->hosts, &slot, NULL); at;
         at = hmap_walk(&p->hosts, &slot, at))
        if (hmap_entry(at, struct fetch_host, node)->name == name)
            fetch_host_pump(hmap_entry(at, struct fetch_host, node));
    fetch_pool_post(p);
}

static struct fetch_name *name_get(struct fetch_pool *p, const char *host, uint16_t port)
{
    char key[300];
    uint64_t hash = hash_bytes(key, (size_t)snprintf(key, sizeof(key), "%s:%u", host, port));
    struct fetch_name *name;

    for (struct hnode *n = hmap_first(&p->names, hash); n; n = hmap_next(n, hash)) {
        name = hmap_entry(n, struct fetch_name, node);
        if (name->port == port && strcmp(name->host, host) == 0) {
            name->users++;
            return name;
        }
    }
    name = XNEW(struct fetch_name);
    name->pool = p;
    name->host = xstrdup(host);
    name->port = port;
    name->users = 1;
    hmap_insert(&p->names, &name->node, hash);
    return name;
}

static void name_put(struct fetch_name *name)
{
    if (!name || --name->users)
        return;
    if (name->lookup)
        net_lookup_cancel(&name->lookup);
    hmap_remove(&name->pool->names, &name->node);
    xfree(name->pin);
    xfree(name->host);
    xfree(name);
}

/* True if there are addresses; otherwise they are being asked for. */
static bool name_is_good(struct fetch_name *name)
{
    if (!name || (name->n && ev_now_ns(name->pool->loop) < name->good_until_ns))
        return true;
    if (!name->lookup)
        name->lookup =
            net_resolve(name->pool->o.resolver, name->host, name->port, name_resolved, name);
    return false;
}

/* ---- hosts */

static void lower(char *to, struct view from)
{
    for (size_t i = 0; i < from.n; i++)
        to[i] = (char)tolower((unsigned char)from.p[i]);
    to[from.n] = '\0';
}

static void host_free(struct fetch_host *host)
{
    struct list *it, *tmp;

    list_each (it, tmp, &host->idle)
        fetch_easy_free(list_entry(it, struct fetch_easy, link));
    hmap_remove(&host->pool->hosts, &host->node);
    name_put(host->name);
    xfree(host->url);
    xfree(host->text);
    xfree(host->parent);
    xfree(host);
}

/* Signed links may name any number of hosts: forget those nobody uses when there are many. */
static void hosts_trim(struct fetch_pool *p)
{
    struct fetch_host *old[FETCH_HOSTS_MAX];
    size_t n = 0, slot = 0;

    if (p->hosts.count < FETCH_HOSTS_MAX)
        return;
    for (struct hnode *at = hmap_walk(&p->hosts, &slot, NULL); at && n < ARRAY_LEN(old);
         at = hmap_walk(&p->hosts, &slot, at)) {
        struct fetch_host *host = hmap_entry(at, struct fetch_host, node);

        if (host->users == 0)
            old[n++] = host;
    }
    while (n)
        host_free(old[--n]);
}

void fetch_host_free_all(struct fetch_pool *p)
{
    size_t slot = 0;
    struct hnode *at;

    while ((at = hmap_walk(&p->hosts, &slot, NULL)) != NULL) {
        host_free(hmap_entry(at, struct fetch_host, node));
        slot = 0;
    }
    hmap_fini(&p->hosts);
    hmap_fini(&p->names);
}

/*
 * The parent's URL may hold a user and password, which go to the parent but never into a text.
 * Its port is spelled out, as curl's default for proxies is none of the usual ones.
 */
static int host_parent(struct fetch_host *host, struct str *bare, struct url *u, struct err *e)
{
    const char *text = host->peer->parent;
    const char *authority = strstr(text, "://");
    const char *at;
    struct str s = STR_INIT;

    if (!authority)
        return err_set(e, ERR_INVALID, "the parent is not an http or https URL");
    authority += 3;
    at = memrchr(authority, '@', strcspn(authority, "/?#"));
    str_add(bare, text, (size_t)(authority - text));
    str_adds(bare, at ? at + 1 : authority);
    if (url_parse(str_view(bare), u, e) != 0)
        return err_prefix(e, "parent");
    str_adds(&s, u->https ? "https://" : "http://");
    if (at)
        str_add(&s, authority, (size_t)(at + 1 - authority));
    str_addv(&s, u->authority);
    if (!u->port_given)
        str_addf(&s, ":%u", u->port);
    host->parent = str_take(&s);
    return 0;
}

static bool goes_by_parent(const struct fetch_peer *p, const char *host, uint16_t port)
{
    return p->parent && !(p->bypass && p->bypass(p->bypass_ctx, host, port));
}

/* What curl will dial, and so look up: the host, or the parent in its place. */
static int host_dial(struct fetch_host *host, const struct url *u, struct err *e)
{
    struct str bare = STR_INIT, text = STR_INIT;
    struct url parent;
    char name[256];
    const struct url *dial = u;

    str_addf(&text, "%.*s:%u", (int)u->host.n, u->host.p, u->port);
    ASSERT(u->host.n < sizeof(name)); /* url_parse sees to it */
    lower(name, u->host);
    if (goes_by_parent(host->peer, name, u->port)) {
        if (host_parent(host, &bare, &parent, e) != 0) {
            str_fini(&bare);
            str_fini(&text);
            return -1;
        }
        dial = &parent;
        str_addf(&text, " through %.*s:%u", (int)parent.host.n, parent.host.p, parent.port);
    }
    ASSERT(dial->host.n < sizeof(name)); /* url_parse sees to it */
    lower(name, dial->host);
    if (!is_literal(name))
        host->name = name_get(host->pool, name, dial->port);
    host->text = str_take(&text);
    str_fini(&bare);
    return 0;
}

static struct fetch_host *host_new(struct fetch_pool *p, const struct fetch_peer *peer, bool https,
                                   const char *url)
{
    struct fetch_host *host = XNEW(struct fetch_host);

    host->pool = p;
    host->peer = peer;
    host->https = https;
    host->url = xstrdup(url);
    host->h2c = fetch_led_h2c(host);
    for (int w = 0; w < WAYS; w++)
        list_init(&host->queue[w]);
    list_init(&host->idle);
    return host;
}

static struct fetch_host *host_get(struct fetch_pool *p, const struct fetch_peer *peer,
                                   const struct url *u, struct err *e)
{
    char url[320];
    struct fetch_host *host;
    uint64_t hash;
    int len = snprintf(url, sizeof(url), "%s://%.*s/", u->https ? "https" : "http",
                       (int)u->authority.n, u->authority.p);

    if (len < 0 || (size_t)len >= sizeof(url)) {
        err_set(e, ERR_INVALID, "the authority of a URL is too long");
        return NULL;
    }
    hash = hash_bytes(url, (size_t)len) ^ (uintptr_t)peer;
    for (struct hnode *n = hmap_first(&p->hosts, hash); n; n = hmap_next(n, hash)) {
        host = hmap_entry(n, struct fetch_host, node);
        if (host->peer == peer && strcmp(host->url, url) == 0)
            return host;
    }
    hosts_trim(p);
    host = host_new(p, peer, u->https, url);
    hmap_insert(&p->hosts, &host->node, hash);
    if (host_dial(host, u, e) != 0) {
        host_free(host);
        return NULL;
    }
    return host;
}

/* ---- ways */

static void learned_expire(struct fetch_host *host)
{
    int64_t now = ev_now_ns(host->pool->loop);

    if (host->speaks == SPEAKS_H1 && now - host->learned_ns > FETCH_NS(FETCH_LEARNED_MS))
        host->speaks = SPEAKS_UNKNOWN;
}

static enum fetch_way way_of(const struct fetch *f)
{
    const struct fetch_host *host = f->host;

    if (f->o.http_1_1 || f->o.fresh || host->peer->http == FETCH_HTTP_1_1)
        return WAY_SINGLE;
    if (host->peer->http == FETCH_HTTP_2)
        return WAY_SHARED;
    return host->https && host->speaks != SPEAKS_H1 ? WAY_SHARED : WAY_SINGLE;
}

static unsigned slots(const struct fetch_host *host, enum fetch_way way)
{
    unsigned max = host->pool->o.max_connections_per_host;

    if (way == WAY_SINGLE)
        return max ? max : FETCH_SINGLE_MAX;
    if (host->h2c)
        return host->h2c_up ? FETCH_STREAMS_MAX : 1;
    if (host->speaks == SPEAKS_UNKNOWN && host->peer->http == FETCH_HTTP_AUTO)
        return 2 * (max ? max : FETCH_SHARED_MAX); /* the first ones find out */
    return (max ? max : FETCH_SHARED_MAX) * FETCH_STREAMS_MAX;
}

/* An answer has come: is this host worth sharing connections with? */
void fetch_host_learn(struct fetch_host *host, const struct fetch *f)
{
    struct list *it, *tmp;

    if (f->way != WAY_SHARED || f->r.http_version == 0)
        return;
    host->learned_ns = ev_now_ns(host->pool->loop);
    host->speaks = f->r.http_version >= 20 ? SPEAKS_H2 : SPEAKS_H1;
    if (host->speaks == SPEAKS_H2 || host->peer->http == FETCH_HTTP_2)
        return;
    list_each (it, tmp, &host->queue[WAY_SHARED])
        list_entry(it, struct fetch, wait)->way = WAY_SINGLE;
    list_move_all(&host->queue[WAY_SINGLE], &host->queue[WAY_SHARED]);
}

/* ---- queues */

static struct fetch_easy *easy_get(struct fetch_host *host)
{
    struct fetch_easy *e = list_last(&host->idle, struct fetch_easy, link);

    if (!e)
        return fetch_easy_new(host);
    list_remove(&e->link);
    host->n_idle--;
    return e;
}

static void run(struct fetch *f)
{
    struct fetch_host *host;

    ASSERT(f);
    host = f->host;
    list_remove(&f->wait);
    list_remove(&f->link);
    if (fetch_easy_start(easy_get(host), f, &f->early) != 0) {
        fetch_fail(f);
        return;
    }
    f->state = FETCH_S_RUNNING;
    list_append(&host->pool->running, &f->link);
}

/* Run what may run. Not from within curl. */
void fetch_host_pump(struct fetch_host *host)
{
    ASSERT(host->pool->in_curl == 0);
    if (list_empty(&host->queue[WAY_SINGLE]) && list_empty(&host->queue[WAY_SHARED]))
        return;
    if (!name_is_good(host->name))
        return;
    for (int w = 0; w < WAYS; w++)
        while (!list_empty(&host->queue[w]) && host->inflight[w] < slots(host, (enum fetch_way)w))
            run(list_first(&host->queue[w], struct fetch, wait));
}

void fetch_host_take(struct fetch *f)
{
    struct url u;

    if (f->early.code != ERR_NONE || url_parse(view_str(f->url), &u, &f->early) != 0 ||
        (f->host = host_get(f->pool, f->o.peer, &u, &f->early)) == NULL) {
        fetch_fail(f);
        return;
    }
    f->target = xmemdup0(u.path.p, u.path.n);
    f->host->users++;
    learned_expire(f->host);
    f->way = way_of(f);
    list_remove(&f->link);
    f->state = FETCH_S_QUEUED;
    list_append(&f->pool->queued, &f->link);
    list_append(&f->host->queue[f->way], &f->wait);
    fetch_host_pump(f->host);
}

void fetch_host_requeue(struct fetch *f)
{
    ASSERT(!f->sent);
    fetch_easy_stop(f);
    f->lost = false;
    f->state = FETCH_S_QUEUED;
    list_remove(&f->link);
    list_append(&f->pool->queued, &f->link);
    list_prepend(&f->host->queue[f->way], &f->wait);
}

void fetch_host_release(struct fetch_host *host)
{
    ASSERT(host->users > 0);
    host->users--;
}
