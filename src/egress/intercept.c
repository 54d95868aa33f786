#include "egress/intercept.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/list.h"
#include "base/xmem.h"
#include "codec/client_hello.h"
#include "rt/clock.h"
#include "rt/fdx.h"
#include "rt/log.h"
#include "rt/metric.h"

/* A client that says nothing holds a descriptor and little else for so long. */
enum { PEEK_MS = 10 * 1000, LOG_SECONDS = 10 };

/* What a client was found to want. */
enum seen {
    SEEN_LISTED,
    SEEN_OTHER,   /* another name */
    SEEN_NO_NAME, /* TLS, but no name */
    SEEN_NO_TLS,
    SEEN_BROKEN,     /* a ClientHello that is none */
    SEEN_LATE,       /* nothing, or no whole one, in time */
    SEEN_NO_HTTP,    /* a listed host, but protocols that we do not speak */
    SEEN_UNNAMEABLE, /* a listed host for which there is no certificate to be had */
    SEEN_KINDS
};

static const char *const seen_names[SEEN_KINDS] = {
    [SEEN_LISTED] = "listed",   [SEEN_OTHER] = "other",
    [SEEN_NO_NAME] = "no_name", [SEEN_NO_TLS] = "no_tls",
    [SEEN_BROKEN] = "broken",   [SEEN_LATE] = "late",
    [SEEN_NO_HTTP] = "no_http", [SEEN_UNNAMEABLE] = "no_certificate",
};

/* For audit entries, where it is refused. */
static const char *const seen_reasons[SEEN_KINDS] = {
    [SEEN_NO_NAME] = "no name in the ClientHello",
    [SEEN_NO_TLS] = "not TLS",
    [SEEN_BROKEN] = "ClientHello not understood",
    [SEEN_LATE] = "no ClientHello in time",
};

struct intercept {
    struct intercept_opts o;
    struct http_service service;
    struct http_server *server; /* of what is inside */
    struct list peeks;          /* that wait for a hello, oldest first */
    struct list dialling;
    struct list insides;
    size_t n_peeks; /* of both */
    struct list listeners;
    struct ev_timer *late;
    bool draining;
    struct metric *seen[SEEN_KINDS];
    struct metric *rejected, *misdirected;
};

struct intercept_listener {
    struct list link;
    struct intercept *i;
    const char *name;
    uint16_t port;
};

/* A client that has not been handed on yet. */
struct peek {
    struct list link;
    struct intercept *i;
    struct intercept_listener *by; /* NULL: behind a CONNECT */
    struct net_stream *client;
    struct buf in;           /* what it said so far */
    struct passage *passage; /* NULL: it is not known yet where to */
    struct net_addr local;   /* where it came in; of a listener's */
    int64_t due;
};

/* A connection whose TLS ends here. */
struct inside {
    struct list link;
    struct intercept *i;
    struct passage *passage; /* NULL: a tunnel has it */
    char *host;
    uint16_t port;
    bool harness;
    bool over;           /* a policy came that would not let it in any more */
    struct tls_ctx *tls; /* to the host, if it is another; a reload may have no more of it */
    char *identity;
    uint64_t in_before, out_before; /* of its socket, before it was taken */
};

/* --- inside ------------------------------------------------------------------------------- */

static struct passage *open_inside(struct inside *in, const struct http_request *req,
                                   struct view authority, const char *refused_by)
{
    const struct passage_opts o = {
        .kind = "relay",
        .listener = req->listener,
        .from = req->peer,
        .identity = req->identity,
        .authority = authority,
        .port = in->port,
        .refused_by = refused_by,
    };
    struct passage *p = passage_open(in->i->o.gate, &o);
    bool path = req->target.n && req->target.p[0] == '/';

    passage_set_request(p, req->method, path ? req->target : VIEW_NONE);
    return p;
}

/* A name was judged, and another is asked for: policy and certificate were for the first. */
static bool is_for(const struct inside *in, const struct http_request *req)
{
    struct dest d;
    struct err e;

    return dest_parse(req->authority, in->port, &d, &e) == 0 && d.port == in->port &&
           strcmp(d.host, in->host) == 0;
}

static void relay_inside(struct inside *in, struct http_exchange *ex,
                         const struct http_request *req)
{
    bool path = req->target.n && req->target.p[0] == '/';
    struct passage *p = open_inside(in, req, view_str(in->host), path ? NULL : "upstream-only");
    const struct relay_to to = {
        .host = in->host,
        .port = in->port,
        .tls = in->tls,
        .authority = req->authority,
        .target = req->target,
    };

    if (!path)
        relay_refuse(ex, 400, "targets here are paths that begin with a slash", p, "denied");
    else if (!passage_verdict(p)->allow)
        relay_refuse(ex, 403, "this destination is not allowed", p, "denied");
    else
        relay_exchange(in->i->o.relays, ex, req, &to, p);
}

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct intercept *i = ctx;
    struct inside *in = req->tag;
    struct passage *p;

    if (in->over) {
        p = open_inside(in, req, view_str(in->host), "policy");
        passage_deny(p, "policy", "its connection would not be let in any more");
        relay_refuse(ex, 403, "this destination is not allowed any more", p, "denied");
    } else if (!is_for(in, req)) {
        metric_add(i->misdirected, 1);
        p = open_inside(in, req, req->authority, "misdirected");
        passage_deny(p, "misdirected", "Host is not the name of the ClientHello");
        relay_refuse(ex, 421, "this connection is for another host", p, "denied");
    } else if (in->harness) {
        i->o.harness->take(i->o.harness->ctx, ex, req);
    } else {
        relay_inside(in, ex, req);
    }
}

static void tell_rejected(const struct inside *in, const struct net_stream *s)
{
    static struct log_rate rate;
    uint64_t left_out;
    char client[NET_ADDR_TEXT];

    metric_add(in->i->rejected, 1);
    if (log_rate_ok(&rate, LOG_SECONDS, &left_out))
        log_event(LOG_WARN, "intercept",
                  "a client rejects the minted certificate: install the CA of intercept.ca on it, "
                  "or take the host off intercept.hosts",
                  LF_STR("host", in->host), LF_STR("client", net_addr_text(net_peer(s), client)),
                  LF_UINT("suppressed", left_out));
}

static void inside_free(struct inside *in)
{
    list_remove(&in->link);
    xfree(in->host);
    xfree(in->identity);
    xfree(in);
}

static void inside_closed(void *tag, const struct net_stream *s)
{
    struct inside *in = tag;
    bool rejected = s && net_refused_certificate(s);
    uint64_t up, down;

    if (rejected)
        tell_rejected(in, s);
    if (in->passage && s && fd_tcp_bytes(net_fd(s), &up, &down) == 0)
        passage_add(in->passage, up - in->in_before, down - in->out_before);
    passage_end(&in->passage, rejected ? "rejected" : in->i->draining ? "drain" : "client");
    inside_free(in);
}

/* --- handing on --------------------------------------------------------------------------- */

static void peek_free(struct peek *pk)
{
    list_remove(&pk->link);
    pk->i->n_peeks--;
    buf_fini(&pk->in);
    xfree(pk);
}

static void give_up(struct peek *pk, const char *why)
{
    passage_end(&pk->passage, why);
    net_stream_close(&pk->client, true);
    peek_free(pk);
}

/* Tell a TLS client why, in its own words (RFC 8446 §6.2): a fatal alert in clear. */
static void refuse(struct peek *pk)
{
    static const unsigned char access_denied[] = {21, 3, 3, 0, 2, 2, 49};
    struct client_hello hello;

    if (client_hello_parse(buf_view(&pk->in), &hello) != CLIENT_HELLO_OK) {
        give_up(pk, "denied");
        return;
    }
    (void)net_write(pk->client, access_denied, sizeof(access_denied), NULL);
    net_shutdown_write(pk->client);
    passage_end(&pk->passage, "denied");
    net_stream_close(&pk->client, false);
    peek_free(pk);
}

static bool same_place(const struct net_addr *a, const struct net_addr *b)
{
    char ta[NET_ADDR_TEXT], tb[NET_ADDR_TEXT];

    return strcmp(net_addr_text(a, ta), net_addr_text(b, tb)) == 0;
}

static void tell_unreachable(const struct peek *pk, const struct err *e)
{
    static struct log_rate rate;
    uint64_t left_out;

    if (log_rate_ok(&rate, LOG_SECONDS, &left_out))
        log_event(LOG_WARN, "intercept", "a destination cannot be reached",
                  LF_STR("asked", passage_asked(pk->passage)), LF_ERR(e),
                  LF_UINT("suppressed", left_out));
}

static void on_connected(void *ctx, struct net_stream *s, const struct err *e)
{
    struct peek *pk = ctx;

    if (s && pk->by && same_place(net_peer(s), &pk->local)) {
        /* The name leads here for us, too: without an end, one connection after the other. */
        net_stream_close(&s, true);
        passage_deny(pk->passage, "loop", "leads back to this listener: see upstream.resolvers");
        refuse(pk);
    } else if (s) {
        const struct tunnel_opts t = {
            .client = pk->client, .upstream = s, .to_upstream = &pk->in, .passage = pk->passage};
        struct tunnels *tunnels = pk->i->o.tunnels;

        tunnel_start(tunnels, &t);
        peek_free(pk);
    } else if (!passage_verdict(pk->passage)->allow) {
        refuse(pk);
    } else {
        tell_unreachable(pk, e);
        give_up(pk, e->code == ERR_TIMEOUT ? "timeout" : "unreachable");
    }
}

/* Its bytes wait in the socket; a client that leaves meanwhile is found out later. */
static const struct net_stream_ops dialling_ops = {0};

static void splice_on(struct peek *pk)
{
    passage_set_kind(pk->passage, "splice");
    list_remove(&pk->link);
    list_append(&pk->i->dialling, &pk->link);
    net_want_read(pk->client, false);
    net_stream_bind(pk->client, &dialling_ops, pk);
    passage_dial(pk->passage, NULL, VIEW_NONE, on_connected, pk);
}

static struct inside *inside_new(struct peek *pk, const struct dest *d)
{
    struct inside *in = XNEW(struct inside);
    struct passage_opts who = {0};

    passage_asker(pk->passage, &who);
    in->i = pk->i;
    list_append(&pk->i->insides, &in->link);
    in->tls = pk->i->o.tls;
    in->host = xstrdup(d->host);
    in->port = d->port;
    in->harness = strcmp(d->host, pk->i->o.harness_host) == 0 && d->port == pk->i->o.harness_port;
    in->identity = xmemdup0(who.identity.p, who.identity.n);
    return in;
}

/* The descriptor to serve TLS on. Where the client speaks TLS to the proxy already it is one end of
 * a pair, whose other end is `*bridge`, to be joined to the client. -1: none to be had. */
static int serving_fd(struct peek *pk, struct net_stream **bridge)
{
    struct net_addr peer = *net_peer(pk->client);
    int fds[2];

    if (!net_is_tls(pk->client))
        return net_stream_release(&pk->client);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
        return -1;
    *bridge = net_stream_accepted(pk->i->o.loop, fds[0], NULL, &peer);
    return fds[1];
}

static void serve_here(struct peek *pk, struct tls_ctx *tls, struct inside *in)
{
    struct passage_opts who = {0};
    struct net_stream *bridge = NULL;
    struct net_addr peer = *net_peer(pk->client);
    int fd = serving_fd(pk, &bridge);
    struct http_conn_opts o = {
        .tls = tls,
        .early = &pk->in,
        .identity = view_str(in->identity),
        .tag = in,
        .on_closed = inside_closed,
    };

    passage_asker(pk->passage, &who);
    o.listener = who.listener;
    passage_set_kind(pk->passage, "intercept");
    if (fd >= 0 && !bridge)
        (void)fd_tcp_bytes(fd, &in->in_before, &in->out_before);
    /* TCP_INFO counts what is in the hello as come before, but it is the connection's. */
    in->in_before -= TR_MIN(in->in_before, (uint64_t)buf_len(&pk->in));
    if (fd < 0 || http_server_accepted_as(pk->i->server, fd, &peer, &o) < 0) {
        net_stream_close(&bridge, true);
        inside_free(in);
        give_up(pk, "refused");
        return;
    }
    if (bridge) {
        tunnel_start(pk->i->o.tunnels, &(struct tunnel_opts){.client = pk->client,
                                                             .upstream = bridge,
                                                             .passage = pk->passage});
    } else {
        in->passage = pk->passage;
        passage_started(in->passage);
    }
    peek_free(pk);
}

static void tell_no_certificate(const char *host, const struct err *e)
{
    static struct log_rate rate;
    uint64_t left_out;

    if (log_rate_ok(&rate, LOG_SECONDS, &left_out))
        log_event(LOG_WARN, "intercept",
                  "no certificate can be made: the host is passed on untouched",
                  LF_STR("host", host), LF_ERR(e), LF_UINT("suppressed", left_out));
}

/* A listed host: serve it, or pass it on after all. */
static void serve_or_splice(struct peek *pk, enum seen seen)
{
    const struct dest *d = passage_dest(pk->passage);
    struct tls_ctx *tls = NULL;
    struct err e;

    if (seen == SEEN_LISTED && !(tls = mint_server_ctx(pk->i->o.mint, d->host, &e))) {
        tell_no_certificate(d->host, &e);
        seen = SEEN_UNNAMEABLE;
    }
    metric_add(pk->i->seen[seen], 1);
    if (!tls) {
        splice_on(pk);
        return;
    }
    serve_here(pk, tls, inside_new(pk, d));
    tls_ctx_unref(&tls);
}

/* --- looking ------------------------------------------------------------------------------ */

/* The list of protocols of a hello; without one it is HTTP/1.1. */
static bool speaks_http(struct view alpn)
{
    if (!alpn.n)
        return true;
    while (alpn.n) {
        size_t n = (unsigned char)alpn.p[0];
        struct view name = view_of(alpn.p + 1, n);

        if (view_is(name, "h2") || view_is(name, "http/1.1"))
            return true;
        alpn = view_from(alpn, n + 1);
    }
    return false;
}

bool intercept_wants(const struct intercept *i, const struct dest *d)
{
    const struct policy_query q = {.dest = d};

    return i->o.mint && !d->literal && policy_decide(i->o.hosts, &q).allow;
}

/* Behind a CONNECT to a listed host: it has been let through, whatever it says now. */
static void judge_connect(struct peek *pk, const struct client_hello *hello, enum seen seen)
{
    const struct dest *d = passage_dest(pk->passage);
    struct dest named;
    struct err e;

    if (hello) {
        passage_set_server_name(pk->passage, hello->server_name);
        if (dest_parse(hello->server_name, d->port, &named, &e) < 0 ||
            strcmp(named.host, d->host) != 0)
            seen = hello->server_name.n ? SEEN_OTHER : SEEN_NO_NAME;
        else
            seen = speaks_http(hello->alpn) ? SEEN_LISTED : SEEN_NO_HTTP;
    }
    serve_or_splice(pk, seen);
}

static void open_listed(struct peek *pk, const struct dest *d, const char *kind,
                        const char *refused_by)
{
    char text[DEST_TEXT_MAX];
    bool harness = strcmp(d->host, pk->i->o.harness_host) == 0;
    const struct passage_opts o = {
        .kind = kind,
        .listener = pk->by->name,
        .from = net_peer(pk->client),
        .authority = view_str(dest_text(d, text)),
        .fixed_rule = harness ? "upstream" : NULL,
        .refused_by = refused_by,
    };

    pk->passage = passage_open(pk->i->o.gate, &o);
}

/* It does not say where to. What it is asked about is where it came in. */
static void refuse_nameless(struct peek *pk, enum seen seen)
{
    char text[NET_ADDR_TEXT];
    const struct passage_opts o = {
        .kind = "splice",
        .listener = pk->by->name,
        .from = net_peer(pk->client),
        .authority = view_str(net_addr_text(&pk->local, text)),
        .refused_by = "no-server-name",
    };

    metric_add(pk->i->seen[seen], 1);
    pk->passage = passage_open(pk->i->o.gate, &o);
    passage_deny(pk->passage, "no-server-name", seen_reasons[seen]);
    refuse(pk);
}

static void judge_listener(struct peek *pk, const struct client_hello *hello, enum seen seen)
{
    uint16_t port = pk->by->port ? pk->by->port : net_addr_port(&pk->local);
    struct dest d;
    struct err e;

    if (!hello || !hello->server_name.n) {
        refuse_nameless(pk, hello ? SEEN_NO_NAME : seen);
        return;
    }
    if (dest_parse(hello->server_name, port, &d, &e) < 0 || d.literal) {
        refuse_nameless(pk, SEEN_NO_NAME);
        return;
    }
    if (strcmp(d.host, pk->i->o.harness_host) == 0)
        d.port = pk->i->o.harness_port;
    seen = !intercept_wants(pk->i, &d) ? SEEN_OTHER
           : !speaks_http(hello->alpn) ? SEEN_NO_HTTP
                                       : SEEN_LISTED;
    open_listed(pk, &d, seen == SEEN_LISTED ? "intercept" : "splice", NULL);
    passage_set_server_name(pk->passage, hello->server_name);
    if (passage_verdict(pk->passage)->allow) {
        serve_or_splice(pk, seen);
    } else {
        metric_add(pk->i->seen[seen], 1);
        refuse(pk);
    }
}

static void judge(struct peek *pk, const struct client_hello *hello, enum seen seen)
{
    if (pk->by)
        judge_listener(pk, hello, seen);
    else
        judge_connect(pk, hello, seen);
}

/* What came so far may be enough. The peek may be gone afterwards. */
static void look(struct peek *pk)
{
    struct client_hello hello;

    switch (client_hello_parse(buf_view(&pk->in), &hello)) {
    case CLIENT_HELLO_MORE:
        break;
    case CLIENT_HELLO_OK:
        judge(pk, &hello, SEEN_LISTED);
        break;
    case CLIENT_HELLO_NOT_TLS:
        judge(pk, NULL, SEEN_NO_TLS);
        break;
    case CLIENT_HELLO_BAD:
        judge(pk, NULL, SEEN_BROKEN);
        break;
    }
}

/* It ends before it has said anything, as the probes of load balancers do, or in the middle. */
static void peek_ended(struct peek *pk)
{
    if (pk->by && buf_len(&pk->in))
        refuse_nameless(pk, SEEN_BROKEN);
    else
        give_up(pk, "client");
}

static void peek_readable(void *ctx)
{
    struct peek *pk = ctx;
    size_t have = buf_len(&pk->in);
    char piece[CLIENT_HELLO_MAX];
    ssize_t n = net_read(pk->client, piece, sizeof(piece) - TR_MIN(have, sizeof(piece) - 1), NULL);

    if (n == NET_AGAIN)
        return;
    if (n <= 0) {
        peek_ended(pk);
        return;
    }
    buf_add(&pk->in, piece, (size_t)n);
    look(pk);
}

static void peek_failed(void *ctx, const struct err *e)
{
    (void)e;
    give_up(ctx, "client");
}

static const struct net_stream_ops peek_ops = {.on_readable = peek_readable,
                                               .on_failed = peek_failed};

static void on_late(void *ctx)
{
    struct intercept *i = ctx;
    int64_t now = clock_mono_ns();
    struct peek *pk;

    while (!list_empty(&i->peeks)) {
        pk = list_first(&i->peeks, struct peek, link);
        if (pk->due > now) {
            ev_timer_arm(i->late, (pk->due - now) / NS_PER_MS + 1);
            return;
        }
        judge(pk, NULL, SEEN_LATE);
    }
}

static struct peek *peek_new(struct intercept *i, struct net_stream *client)
{
    struct peek *pk = XNEW(struct peek);

    pk->i = i;
    pk->client = client;
    pk->due = clock_mono_ns() + PEEK_MS * NS_PER_MS;
    list_append(&i->peeks, &pk->link);
    i->n_peeks++;
    net_stream_bind(client, &peek_ops, pk);
    net_want_read(client, true);
    if (!ev_timer_armed(i->late))
        ev_timer_arm(i->late, PEEK_MS);
    return pk;
}

void intercept_take(struct intercept *i, struct net_stream *client, struct buf *early,
                    struct passage *passage)
{
    struct peek *pk;

    if (i->draining || i->n_peeks >= i->o.max_connections) {
        passage_end(&passage, i->draining ? "drain" : "refused");
        net_stream_close(&client, true);
        buf_fini(early);
        return;
    }
    pk = peek_new(i, client);
    pk->passage = passage;
    pk->in = *early;
    *early = BUF_INIT;
    look(pk);
}

void intercept_accepted(void *listener, int fd, const struct net_addr *peer)
{
    struct intercept_listener *l = listener;
    struct intercept *i = l->i;
    struct peek *pk;

    if (i->draining ||
        tunnels_full(i->o.tunnels, intercept_connections(i), i->o.max_connections, l->name)) {
        close(fd);
        return;
    }
    pk = peek_new(i, net_stream_accepted(i->o.loop, fd, NULL, peer));
    pk->by = l;
    pk->local.len = sizeof(pk->local.ss);
    if (getsockname(fd, (struct sockaddr *)&pk->local.ss, &pk->local.len) < 0)
        give_up(pk, "error");
}

/* --- the whole ---------------------------------------------------------------------------- */

static void register_metrics(struct intercept *i)
{
    struct metric_family *f = metric_family(METRIC_COUNTER, "intercept_hellos", "seen",
                                            "Clients whose first bytes were looked at, by what "
                                            "they were");
    int k;

    for (k = 0; k < SEEN_KINDS; k++)
        i->seen[k] = metric_series(f, seen_names[k]);
    i->rejected = metric_series(metric_family(METRIC_COUNTER, "intercept_rejected", "",
                                              "Clients that did not believe a minted "
                                              "certificate"));
    i->misdirected = metric_series(metric_family(METRIC_COUNTER, "intercept_misdirected", "",
                                                 "Requests inside for another host than the "
                                                 "ClientHello's"));
}

struct intercept *intercept_new(const struct intercept_opts *o)
{
    struct intercept *i = XNEW(struct intercept);
    struct http_server_opts so = {.max_connections = o->max_connections};

    i->o = *o;
    i->service = (struct http_service){take, i};
    so.service = &i->service;
    i->server = http_server_new(o->loop, &so);
    list_init(&i->peeks);
    list_init(&i->dialling);
    list_init(&i->insides);
    list_init(&i->listeners);
    i->late = ev_timer_new(o->loop, on_late, i);
    register_metrics(i);
    return i;
}

void intercept_configure(struct intercept *i, const struct intercept_opts *o)
{
    i->o.mint = o->mint;
    i->o.hosts = o->hosts;
    i->o.harness_host = o->harness_host;
    i->o.harness_port = o->harness_port;
    i->o.tls = o->tls;
}

void intercept_recheck(struct intercept *i, const struct policy *p)
{
    struct list *it, *tmp;

    list_each (it, tmp, &i->insides) {
        struct inside *in = list_entry(it, struct inside, link);

        in->over = in->passage && !passage_still_allowed(in->passage, p);
        if (in->over) /* requests are answered with that; WebSockets may last for days */
            http_server_end_tunnels(i->server, in);
    }
}

static void give_up_all(struct list *peeks, const char *why)
{
    struct list *it, *tmp;

    list_each (it, tmp, peeks)
        give_up(list_entry(it, struct peek, link), why);
}

void intercept_drain(struct intercept *i)
{
    i->draining = true;
    give_up_all(&i->peeks, "drain");
    http_server_drain(i->server);
}

void intercept_hold(struct intercept *i, bool on)
{
    http_server_hold(i->server, on);
}

size_t intercept_connections(const struct intercept *i)
{
    return i->n_peeks + http_server_connections(i->server);
}

void intercept_free(struct intercept **ip)
{
    struct intercept *i = *ip;
    struct list *it, *tmp;

    *ip = NULL;
    if (!i)
        return;
    i->draining = true;
    give_up_all(&i->peeks, "shutdown");
    give_up_all(&i->dialling, "shutdown");
    http_server_free(&i->server);
    list_each (it, tmp, &i->listeners)
        xfree(list_entry(it, struct intercept_listener, link));
    ev_timer_free(&i->late);
    xfree(i);
}

struct intercept_listener *intercept_listener_new(struct intercept *i, const char *name,
                                                  uint16_t port)
{
    struct intercept_listener *l = XNEW(struct intercept_listener);

    l->i = i;
    l->name = name;
    l->port = port;
    list_append(&i->listeners, &l->link);
    return l;
}

void intercept_listener_configure(struct intercept_listener *l, uint16_t port)
{
    l->port = port;
}
