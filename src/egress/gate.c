#include "egress/gate.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>
#include "base/bug.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/str.h"
#include "base/xmem.h"
#include "egress/denials.h"
#include "net/self.h"
#include "rt/clock.h"
#include "rt/log.h"
#include "rt/metric.h"

enum {
    CONNECT_MS = 10 * 1000,
    IDLE_MS = 2 * 3600 * 1000,
    INTERVAL_MS = 600 * 1000,
    LOOKS = 8,          /* at the passages in each interval */
    RESOLVED_MAX = 512, /* bytes of addresses that an entry shows */
    PATH_SHOWN = 256,
    /* A client that asks for what is denied, again and again, fills the disk with entries: so many
     * at once and then so many a second of each address, on each worker. All are counted. */
    DENY_SLOTS = 256,
    DENY_BURST = 500,
    DENY_EACH_MS = 50,
    DENY_LOG_S = 10,
    KINDS = 8, /* of tunnels whose gauges are kept at hand */
};

/* Of the addresses that share it: entries that may be written. */
struct denials {
    int64_t since_ns; /* until when those that came back are counted */
    unsigned used;
    uint64_t suppressed;
};

struct gate {
    struct ev_loop *loop;
    struct net_resolver *resolver;
    struct gate_settings settings;
    struct list passages;
    size_t n_passages;
    struct ev_timer *look; /* for those that last */
    struct metric_family *denied, *would_deny, *total, *bytes, *by_kind;
    struct {
        const char *kind; /* static */
        struct metric *open;
    } kinds[KINDS];
    struct metric *connect_seconds, *tunnels, *suppressed;
    struct denials denials[DENY_SLOTS];
};

/* What is needed until it has started. */
struct asking {
    struct dest dest;
    bool understood;
    const struct policy *policy; /* whose verdict it is, and whose rules its index counts */
    struct policy_verdict
        refused; /* of the last address that may not be dialled; rule NULL: none */
    struct net_connect *connect;
    net_connected_fn fn;
    void *ctx;
    int64_t dial_mono;
};

struct passage {
    struct list link;
    struct gate *g;
    const char *kind, *listener;
    struct net_addr from;
    struct policy_verdict verdict;
    struct asking *asking; /* NULL: it has started */
    char *asked;           /* as normalised, or as much as was understood */
    char *identity;        /* or NULL */
    char *server_name, *method, *path;
    struct str resolved;
    char *dialled;
    char *error; /* or NULL */
    const char *via;
    bool fixed;
    struct metric *tunnels_of_kind; /* in which it is counted as a tunnel; NULL: it is none */
    int status, grpc_status;
    uint64_t id, up, down;
    uint64_t counted_up, counted_down; /* in the metrics already */
    int64_t start_wall, start_mono, entry_mono;
    int64_t active_mono;        /* when the last byte was counted */
    void (*on_look)(void *ctx); /* or NULL */
    void *look_ctx;
    void (*on_revoked)(void *ctx);
    void *revoked_ctx;
};

/* --- entries ------------------------------------------------------------------------------ */

static void count_bytes(struct passage *p)
{
    metric_add(metric_series(p->g->bytes, p->kind, "up"), p->up - p->counted_up);
    metric_add(metric_series(p->g->bytes, p->kind, "down"), p->down - p->counted_down);
    p->counted_up = p->up;
    p->counted_down = p->down;
}

static struct view view_or_none(const char *s)
{
    return s ? view_str(s) : VIEW_NONE;
}

/* Of an address without its port; of IPv6 the network that one subscriber has. */
static struct denials *denials_of(struct gate *g, const struct net_addr *a)
{
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->ss;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->ss;
    uint64_t hash = 0;

    if (a->ss.ss_family == AF_INET6)
        hash = hash_bytes(&v6->sin6_addr, 8);
    else if (a->ss.ss_family == AF_INET)
        hash = hash_bytes(&v4->sin_addr, 4);
    return &g->denials[hash % DENY_SLOTS];
}

static void tell_suppressed(struct passage *p)
{
    static struct log_rate rate;
    char client[NET_ADDR_TEXT];
    uint64_t left_out;

    metric_add(p->g->suppressed, 1);
    if (log_rate_ok(&rate, DENY_LOG_S, &left_out))
        log_event(LOG_WARN, "egress",
                  "a client is denied so often that the audit trail leaves it out",
                  LF_STR("client", net_addr_ip(&p->from, client)), LF_UINT("suppressed", left_out));
}

/* May one more denial of that client be written? `*suppressed`: how many were not, before it. */
static bool may_write_denial(struct passage *p, uint64_t *suppressed)
{
    struct denials *d = denials_of(p->g, &p->from);
    const int64_t each = DENY_EACH_MS * NS_PER_MS, now = clock_mono_ns();
    const int64_t back = (now - d->since_ns) / each;

    d->since_ns = back >= d->used ? now : d->since_ns + back * each;
    d->used -= (unsigned)TR_MIN(back, (int64_t)d->used);
    if (d->used >= DENY_BURST) {
        d->suppressed++;
        tell_suppressed(p);
        return false;
    }
    d->used++;
    *suppressed = d->suppressed;
    d->suppressed = 0;
    return true;
}

static void write_entry(struct passage *p, enum audit_event event, const char *end)
{
    char client[NET_ADDR_TEXT];
    int64_t now = clock_mono_ns();
    struct audit_entry a = {
        .event = event,
        .id = p->id,
        .kind = p->kind,
        .listener = p->listener,
        .client = net_addr_text(&p->from, client),
        .identity = view_or_none(p->identity),
        .asked = p->asked,
        .server_name = view_or_none(p->server_name),
        .method = view_or_none(p->method),
        .path = view_or_none(p->path),
        .resolved = p->resolved.n ? str_c(&p->resolved) : NULL,
        .dialled = p->dialled,
        .via = p->via,
        .verdict = p->verdict.would_deny ? "would-deny"
                   : p->verdict.allow    ? "allow"
                                         : "deny",
        .rule = p->verdict.rule,
        .reason = p->verdict.reason,
        .status = p->status,
        .grpc_status = p->grpc_status,
        .bytes_up = p->up,
        .bytes_down = p->down,
        .start_ns = p->start_wall,
        .duration_ns = now - p->start_mono,
        .end = end,
        .error = p->error,
    };

    p->entry_mono = now;
    count_bytes(p);
    if (event != AUDIT_DENY || may_write_denial(p, &a.suppressed))
        audit_write(&a);
}

static unsigned interval_ms(const struct gate *g)
{
    return g->settings.audit_interval_ms ? g->settings.audit_interval_ms : INTERVAL_MS;
}

static void on_look(void *ctx)
{
    struct gate *g = ctx;
    int64_t due = clock_mono_ns() - interval_ms(g) * NS_PER_MS;
    struct list *it, *tmp;

    list_each (it, tmp, &g->passages) {
        struct passage *p = list_entry(it, struct passage, link);

        if (p->on_look)
            p->on_look(p->look_ctx);
        count_bytes(p);
        if (p->entry_mono <= due)
            write_entry(p, AUDIT_INTERVAL, NULL);
    }
    ev_timer_arm(g->look, interval_ms(g) / LOOKS + 1);
}

/* --- the gate ----------------------------------------------------------------------------- */

struct gate *gate_new(struct ev_loop *loop, struct net_resolver *resolver,
                      const struct gate_settings *s)
{
    struct gate *g = XNEW(struct gate);
    struct metric_family *connect;

    g->loop = loop;
    g->resolver = resolver;
    list_init(&g->passages);
    g->denied = metric_family(METRIC_COUNTER, "denied", "rule", "Passages refused, by rule");
    (void)metric_series(g->denied, "default"); /* there from the start, for those who alert on it */
    g->would_deny = metric_family(METRIC_COUNTER, "would_deny", "rule",
                                  "Passages let through in report mode only, by rule");
    g->total = metric_family(METRIC_COUNTER, "passages", "kind", "Passages begun");
    g->bytes = metric_family(METRIC_COUNTER, "passage_bytes", "kind,direction",
                             "Bytes that passed, up (to upstream) and down");
    connect = metric_family(METRIC_HISTOGRAM, "connect_seconds", "",
                            "From asking for a destination to a connection that stands");
    metric_buckets(connect, metric_latency_buckets, metric_latency_buckets_n);
    g->connect_seconds = metric_series(connect);
    g->tunnels = metric_series(metric_family(METRIC_GAUGE, "tunnels", "", "Tunnels open now"));
    g->by_kind =
        metric_family(METRIC_GAUGE, "tunnels_by_kind", "kind", "Tunnels open now, by their kind");
    g->suppressed = metric_series(
        metric_family(METRIC_COUNTER, "audit_suppressed", "",
                      "Denials left out of the audit trail, their client had too many"));
    g->look = ev_timer_new(loop, on_look, g);
    gate_configure(g, s);
    return g;
}

void gate_configure(struct gate *g, const struct gate_settings *s)
{
    g->settings = *s;
    if (!g->settings.connect_ms)
        g->settings.connect_ms = CONNECT_MS;
    if (!g->settings.idle_ms)
        g->settings.idle_ms = IDLE_MS;
    ev_timer_arm(g->look, interval_ms(g) / LOOKS + 1);
}

void gate_free(struct gate **gp)
{
    struct gate *g = *gp;

    *gp = NULL;
    if (!g)
        return;
    ASSERT(list_empty(&g->passages));
    ev_timer_free(&g->look);
    xfree(g);
}

struct ev_loop *gate_loop(const struct gate *g)
{
    return g->loop;
}

const struct gate_settings *gate_settings_of(const struct gate *g)
{
    return &g->settings;
}

size_t gate_passages(const struct gate *g)
{
    return g->n_passages;
}

/* --- passages ----------------------------------------------------------------------------- */

/* What is not understood may be anything, a token among it: it is shown if it looks like the
 * attempt at a host, and otherwise not at all. */
static char *odd_authority(struct view v)
{
    static const char fine[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]";
    size_t i;

    for (i = 0; i < v.n; i++) {
        if (!memchr(fine, v.p[i], sizeof(fine) - 1))
            return xstrdup("-");
    }
    return v.n && v.n <= DEST_HOST_MAX ? xmemdup0(v.p, v.n) : xstrdup("-");
}

static struct policy_query query_of(const struct passage *p, const struct dest *d)
{
    return (struct policy_query){
        .dest = d,
        .from = p->from.len ? (const struct sockaddr *)&p->from.ss : NULL,
        .identity = view_or_none(p->identity),
    };
}

static void decide(struct passage *p, const struct passage_opts *o)
{
    struct policy_query q = query_of(p, passage_dest(p));

    p->asking->policy = p->g->settings.policy;
    if (o->refused_by)
        p->verdict = (struct policy_verdict){
            .rule = o->refused_by, .reason = "not on this listener", .index = -1};
    else if (!passage_dest(p))
        p->verdict = (struct policy_verdict){
            .rule = "bad-authority", .reason = "destination not understood", .index = -1};
    else if (o->fixed_rule)
        p->verdict = (struct policy_verdict){.allow = true,
                                             .rule = o->fixed_rule,
                                             .reason = "fixed by the configuration",
                                             .index = -1};
    else
        p->verdict = policy_decide(p->asking->policy, &q);
}

/* For those who ask what was denied; who is let through costs nothing. */
static void note_denial(const struct passage *p)
{
    char client[NET_ADDR_TEXT];
    const struct denial d = {
        .client = net_addr_ip(&p->from, client),
        .identity = p->identity,
        .listener = p->listener,
        .kind = p->kind,
        .destination = p->asked,
        .rule = p->verdict.rule,
        .reason = p->verdict.reason,
        .would = p->verdict.allow,
    };

    denials_note(&d);
}

static void count_verdict(struct passage *p)
{
    if (p->verdict.allow && !p->verdict.would_deny)
        return;
    metric_add(metric_series(p->verdict.allow ? p->g->would_deny : p->g->denied, p->verdict.rule),
               1);
    note_denial(p);
}

struct passage *passage_open(struct gate *g, const struct passage_opts *o)
{
    static _Atomic uint64_t last_id;
    struct passage *p = XNEW(struct passage);
    char text[DEST_TEXT_MAX];
    struct err e;

    p->g = g;
    p->kind = o->kind;
    p->listener = o->listener;
    if (o->from)
        p->from = *o->from;
    if (o->identity.n)
        p->identity = xmemdup0(o->identity.p, o->identity.n);
    p->fixed = o->fixed_rule != NULL;
    p->grpc_status = -1;
    p->id = atomic_fetch_add(&last_id, 1) + 1;
    p->start_wall = clock_wall_ns();
    p->start_mono = p->entry_mono = p->active_mono = clock_mono_ns();
    p->asking = XNEW(struct asking);
    p->asking->understood = dest_parse(o->authority, o->port, &p->asking->dest, &e) == 0;
    p->asked = p->asking->understood ? xstrdup(dest_text(&p->asking->dest, text))
                                     : odd_authority(o->authority);
    list_append(&g->passages, &p->link);
    g->n_passages++;
    metric_add(metric_series(g->total, p->kind), 1);
    decide(p, o);
    count_verdict(p);
    return p;
}

const struct policy_verdict *passage_verdict(const struct passage *p)
{
    return &p->verdict;
}

const char *passage_asked(const struct passage *p)
{
    return p->asked;
}

const struct dest *passage_dest(const struct passage *p)
{
    return p->asking && p->asking->understood ? &p->asking->dest : NULL;
}

void passage_asker(const struct passage *p, struct passage_opts *out)
{
    out->listener = p->listener;
    out->from = &p->from;
    out->identity = view_or_none(p->identity);
}

void passage_set_kind(struct passage *p, const char *kind)
{
    p->kind = kind;
}

void passage_set_request(struct passage *p, struct view method, struct view target)
{
    size_t n = 0;

    while (n < target.n && n < PATH_SHOWN && target.p[n] != '?' && target.p[n] != '#')
        n++;
    xfree(p->method);
    xfree(p->path);
    p->method = xmemdup0(method.p, method.n);
    p->path = n ? xmemdup0(target.p, n) : NULL;
}

void passage_set_server_name(struct passage *p, struct view name)
{
    xfree(p->server_name);
    p->server_name = name.n ? xmemdup0(name.p, name.n) : NULL;
}

void passage_set_status(struct passage *p, int status)
{
    p->status = status;
}

void passage_set_grpc_status(struct passage *p, int status)
{
    p->grpc_status = status;
}

void passage_reached(struct passage *p, const struct net_addr *peer, const char *via)
{
    char text[NET_ADDR_TEXT];

    xfree(p->dialled);
    p->dialled = xstrdup(net_addr_text(peer, text));
    p->via = via;
}

/* An intercepted connection is none: what it carries passes by requests, each a passage. */
static bool is_tunnel(const struct passage *p)
{
    return strcmp(p->kind, "intercept") != 0;
}

/* Without the registry's lock, but for the first of a kind. */
static struct metric *open_of_kind(struct gate *g, const char *kind)
{
    size_t i;

    for (i = 0; i < KINDS && g->kinds[i].kind; i++) {
        if (g->kinds[i].kind == kind)
            return g->kinds[i].open;
    }
    if (i == KINDS)
        return metric_series(g->by_kind, kind);
    g->kinds[i].kind = kind;
    g->kinds[i].open = metric_series(g->by_kind, kind);
    return g->kinds[i].open;
}

static void count_tunnel(const struct passage *p, int by)
{
    if (!p->tunnels_of_kind)
        return;
    metric_shift(p->g->tunnels, by);
    metric_shift(p->tunnels_of_kind, by);
}

void passage_started(struct passage *p)
{
    ASSERT(!p->asking || !p->asking->connect);
    XFREE(p->asking);
    p->tunnels_of_kind = is_tunnel(p) ? open_of_kind(p->g, p->kind) : NULL;
    count_tunnel(p, 1);
    write_entry(p, AUDIT_START, NULL);
}

void passage_upgraded(struct passage *p)
{
    p->kind = "websocket";
    passage_started(p);
}

void passage_add(struct passage *p, uint64_t up, uint64_t down)
{
    p->up += up;
    p->down += down;
}

static void remember_address(struct passage *p, const struct net_addr *addr)
{
    char ip[NET_ADDR_TEXT];

    if (p->resolved.n < RESOLVED_MAX)
        str_addf(&p->resolved, "%s%s", p->resolved.n ? "," : "", net_addr_ip(addr, ip));
}

/* There may have been a reload since it was asked for: then the new policy decides, and with a
 * verdict of its own on the name. False: not any more. */
static bool renew(struct passage *p, const struct policy_query *q)
{
    struct asking *a = p->asking;
    struct policy_verdict v;

    if (a->policy == p->g->settings.policy)
        return true;
    v = policy_decide(p->g->settings.policy, q);
    if (!v.allow) {
        a->refused = v;
        return false;
    }
    a->policy = p->g->settings.policy;
    p->verdict = v;
    count_verdict(p);
    return true;
}

bool gate_leads_back(const struct net_addr *to)
{
    static struct log_rate rate;
    char text[NET_ADDR_TEXT];
    uint64_t left_out;

    if (!net_leads_back(to))
        return false;
    if (log_rate_ok(&rate, DENY_LOG_S, &left_out))
        log_event(LOG_ERROR, "egress",
                  "the name in harness.url leads back to this gateway: give name servers that know "
                  "its real address in upstream.resolvers",
                  LF_STR("address", net_addr_text(to, text)), LF_UINT("suppressed", left_out));
    return true;
}

bool passage_allow(void *ctx, const struct net_addr *addr)
{
    struct passage *p = ctx;
    const struct policy_query q = query_of(p, passage_dest(p));
    struct policy_verdict v;

    remember_address(p, addr);
    if (p->fixed) /* decided when it was asked for */
        return strcmp(p->verdict.rule, "upstream") != 0 || !gate_leads_back(addr);
    if (!renew(p, &q))
        return false;
    ASSERT(q.dest);
    if (q.dest->literal)
        return true;
    v = policy_check_address(p->asking->policy, &q, &p->verdict,
                             (const struct sockaddr *)&addr->ss);
    if (v.would_deny && !p->verdict.would_deny) {
        p->verdict = v;
        count_verdict(p);
    } else if (!v.allow) {
        p->asking->refused = v; /* another address may do */
    }
    return v.allow;
}

bool passage_denied(struct passage *p, const struct err *e)
{
    if (e->code != ERR_DENIED || !p->asking || !p->asking->refused.rule || !p->verdict.allow)
        return !p->verdict.allow;
    p->verdict = p->asking->refused;
    count_verdict(p);
    return true;
}

void passage_deny(struct passage *p, const char *rule, const char *reason)
{
    bool counted = !p->verdict.allow;

    p->verdict = (struct policy_verdict){.rule = rule, .reason = reason, .index = -1};
    if (!counted)
        count_verdict(p);
}

/* What that policy says of where it has come to. */
static struct policy_verdict judge_again(const struct passage *p, const struct policy *policy)
{
    struct policy_verdict v = p->verdict;
    struct net_addr dialled;
    struct dest d;
    struct err e;
    struct policy_query q = query_of(p, &d);

    if (p->fixed || !v.allow || dest_parse(view_str(p->asked), 0, &d, &e) < 0)
        return v;
    v = policy_decide(policy, &q);
    /* The parent looked the name up; its address is nobody's business. */
    if (!v.allow || p->via || !p->dialled || net_addr_parse(view_str(p->dialled), &dialled, &e) < 0)
        return v;
    return policy_check_address(policy, &q, &v, (const struct sockaddr *)&dialled.ss);
}

bool passage_still_allowed(const struct passage *p, const struct policy *policy)
{
    return judge_again(p, policy).allow;
}

void passage_on_revoked(struct passage *p, void (*fn)(void *ctx), void *ctx)
{
    p->on_revoked = fn;
    p->revoked_ctx = ctx;
}

void gate_recheck(struct gate *g)
{
    struct list *it, *tmp;

    list_each (it, tmp, &g->passages) {
        struct passage *p = list_entry(it, struct passage, link);

        if (p->on_revoked && !passage_still_allowed(p, g->settings.policy))
            p->on_revoked(p->revoked_ctx);
    }
}

void passage_active(struct passage *p, int64_t mono_ns)
{
    p->active_mono = mono_ns;
}

static void show(const struct passage *p, struct passage_shown *out)
{
    *out = (struct passage_shown){
        .id = p->id,
        .kind = p->kind,
        .listener = p->listener,
        .from = &p->from,
        .identity = p->identity,
        .destination = p->asked,
        .dialled = p->dialled,
        .via = p->via,
        .rule = p->verdict.rule,
        .up = p->up,
        .down = p->down,
        .start_wall_ns = p->start_wall,
        .start_mono_ns = p->start_mono,
        .active_mono_ns = p->active_mono,
    };
}

void gate_each_tunnel(struct gate *g, void (*fn)(void *ctx, const struct passage_shown *p),
                      void *ctx)
{
    struct passage_shown shown;
    struct list *it;

    for (it = g->passages.prev; it != &g->passages; it = it->prev) {
        struct passage *p = list_entry(it, struct passage, link);

        if (!p->tunnels_of_kind)
            continue;
        if (p->on_look)
            p->on_look(p->look_ctx);
        show(p, &shown);
        fn(ctx, &shown);
    }
}

void passage_on_look(struct passage *p, void (*fn)(void *ctx), void *ctx)
{
    p->on_look = fn;
    p->look_ctx = ctx;
}

unsigned passage_idle_ms(const struct passage *p)
{
    return p->g->settings.idle_ms;
}

/* The policy was changed while it was being dialled, and what stands now may not. */
static bool is_outdated(struct passage *p, struct err *e)
{
    struct policy_verdict v;

    if (p->asking->policy == p->g->settings.policy)
        return false;
    v = judge_again(p, p->g->settings.policy);
    if (v.allow)
        return false;
    p->verdict = v;
    count_verdict(p);
    err_set(e, ERR_DENIED, "the policy does not allow it any more");
    return true;
}

static void on_connected(void *ctx, struct net_stream *s, const struct err *e)
{
    struct passage *p = ctx;
    struct asking *a = p->asking;
    char text[NET_ADDR_TEXT];
    struct err outdated;

    a->connect = NULL;
    if (s) {
        metric_observe(p->g->connect_seconds,
                       (double)(clock_mono_ns() - a->dial_mono) / NS_PER_SEC);
        p->dialled = xstrdup(net_addr_text(net_peer(s), text));
    }
    if (s && is_outdated(p, &outdated)) {
        net_stream_close(&s, true);
        e = &outdated;
    } else if (!s && !passage_denied(p, e)) {
        passage_failed(p, e);
    }
    a->fn(a->ctx, s, e);
}

const struct net_parent *passage_parent(struct passage *p)
{
    const struct net_parent *parent = p->g->settings.parent;

    if (passage_dest(p))
        parent = net_parent_for(parent, passage_dest(p)->host, passage_dest(p)->port);

    p->via = parent ? parent->host : NULL;
    return parent;
}

void passage_failed(struct passage *p, const struct err *e)
{
    xfree(p->error);
    p->error = xstrdup(e->text);
}

void passage_dial(struct passage *p, struct tls_ctx *tls, struct view alpn, net_connected_fn fn,
                  void *ctx)
{
    const struct gate_settings *s = &p->g->settings;
    struct asking *a = p->asking;
    struct net_connect_opts o = {
        .host = a->dest.host,
        .port = a->dest.port,
        .tls = tls,
        .alpn = alpn,
        .timeout_ms = s->connect_ms,
        .allow = passage_allow,
        .allow_ctx = p,
        .parent = passage_parent(p),
    };

    ASSERT(p->verdict.allow && !a->connect);
    a->fn = fn;
    a->ctx = ctx;
    a->dial_mono = clock_mono_ns();
    a->connect = net_connect_start(p->g->resolver, p->g->loop, &o, on_connected, p);
}

void passage_end(struct passage **pp, const char *why)
{
    struct passage *p = *pp;

    *pp = NULL;
    if (!p)
        return;
    if (p->asking)
        net_connect_cancel(&p->asking->connect);
    write_entry(p, p->verdict.allow ? AUDIT_END : AUDIT_DENY, why);
    count_tunnel(p, -1);
    list_remove(&p->link);
    p->g->n_passages--;
    str_fini(&p->resolved);
    xfree(p->asking);
    xfree(p->asked);
    xfree(p->identity);
    xfree(p->server_name);
    xfree(p->method);
    xfree(p->path);
    xfree(p->dialled);
    xfree(p->error);
    xfree(p);
}
