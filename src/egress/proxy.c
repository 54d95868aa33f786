#include "egress/proxy.h"

#include <string.h>
#include "base/bug.h"
#include "base/list.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "egress/relay.h"
#include "rt/log.h"

struct proxy_service {
    struct http_service service;
    struct proxy_opts o;
    struct relays *relays;
    struct basic *basic; /* NULL: nobody is asked */
    struct list waiting; /* struct admission */
};

/* A CONNECT whose destination is being dialled. */
struct asked {
    struct proxy_service *ps;
    struct http_exchange *ex; /* NULL: gone */
    struct passage *passage;
};

/* A request whose credential is being checked. */
struct admission {
    struct list link;
    struct proxy_service *ps;
    struct http_exchange *ex;
    struct basic_ask *ask;
    struct buf body; /* what came meanwhile */
    bool ended;
};

/* A request by whoever it turned out to be by. */
struct request {
    struct http_exchange *ex;
    const struct http_request *req;
    struct view identity;
    struct admission *waited; /* NULL: it did not have to wait for its credential to be checked */
};

/* --- answers ------------------------------------------------------------------------------ */

/* Without a body: some clients show it to their users, others read it as the tunnel's first bytes
 * (HP §7 item 44). */
static void refuse(struct http_exchange *ex, int status, struct passage *p, const char *why)
{
    passage_set_status(p, status);
    passage_end(&p, why);
    http_reply(ex, status, NULL, 0, VIEW_NONE);
}

/* --- CONNECT ------------------------------------------------------------------------------ */

static void asked_gone(void *ctx, bool complete)
{
    struct asked *a = ctx;

    (void)complete;
    passage_end(&a->passage, "client");
    xfree(a);
}

/* A client that speaks before it has its answer: held in the connection, and handed over with it.
 */
static const struct http_handler asked_handler = {.on_gone = asked_gone};

/* The passage is over, and so is the exchange once the answer has gone out. */
static void asked_failed(struct asked *a, int status, const char *why)
{
    passage_set_status(a->passage, status);
    passage_end(&a->passage, why);
    http_reply(a->ex, status, NULL, 0, VIEW_NONE);
}

static void start_tunnel(struct asked *a, struct net_stream *upstream)
{
    struct proxy_service *ps = a->ps;
    struct buf early = BUF_INIT;
    struct tunnel_opts t = {.upstream = upstream, .to_upstream = &early};

    t.client = http_detach(a->ex, 200, NULL, 0, &early);
    if (!t.client) {
        net_stream_close(&upstream, true);
        asked_failed(a, 501, "refused");
        return;
    }
    passage_set_status(a->passage, 200);
    t.passage = a->passage;
    xfree(a);
    tunnel_start(ps->o.tunnels, &t);
    buf_fini(&early);
}

static void log_failure(const struct asked *a, const struct err *e)
{
    static struct log_rate rate;
    uint64_t left_out;

    if (log_rate_ok(&rate, 5, &left_out))
        log_event(LOG_WARN, "proxy", "the destination of a tunnel cannot be reached",
                  LF_STR("asked", passage_asked(a->passage)), LF_ERR(e),
                  LF_UINT("suppressed", left_out));
}

static void on_connected(void *ctx, struct net_stream *s, const struct err *e)
{
    struct asked *a = ctx;

    if (s) {
        start_tunnel(a, s);
        return;
    }
    if (!passage_verdict(a->passage)->allow) {
        asked_failed(a, 403, "denied");
        return;
    }
    log_failure(a, e);
    if (e->code == ERR_TIMEOUT)
        asked_failed(a, 504, "timeout");
    else
        asked_failed(a, 502, "unreachable");
}

/* Answered before anything is dialled: what the client says first decides what happens. */
static void hand_to_intercept(struct asked *a)
{
    struct proxy_service *ps = a->ps;
    struct buf early = BUF_INIT;
    struct net_stream *client = http_detach(a->ex, 200, NULL, 0, &early);

    if (!client) {
        asked_failed(a, 501, "refused");
        return;
    }
    passage_set_status(a->passage, 200);
    intercept_take(ps->o.intercept, client, &early, a->passage);
    buf_fini(&early);
    xfree(a);
}

/* RFC 9112 §3.2: Host says the same as the target. One that does not is an attempt to be judged by
 * one name and served by another. */
static bool host_agrees(const struct http_request *req, const struct dest *d)
{
    struct view host = http_field(req->fields, req->n_fields, "host");
    struct dest other;
    struct err e;

    if (!host.n)
        return true;
    if (dest_parse(host, d->port, &other, &e) < 0)
        return false;
    return strcmp(other.host, d->host) == 0 && other.port == d->port;
}

/* The exchange is that handler's now. */
static void hand_over(const struct request *r, const struct http_handler *handler, void *ctx)
{
    if (r->waited)
        http_rebind(r->ex, handler, ctx);
    else
        http_bind(r->ex, handler, ctx);
}

static void take_connect(struct proxy_service *ps, const struct request *r, struct passage *p)
{
    struct http_exchange *ex = r->ex;
    struct asked *a;

    if (!passage_dest(p)) {
        refuse(ex, 400, p, "denied");
        return;
    }
    if (!host_agrees(r->req, passage_dest(p))) {
        passage_deny(p, "bad-host", "Host and target disagree");
        refuse(ex, 400, p, "denied");
        return;
    }
    if (!passage_verdict(p)->allow) {
        refuse(ex, 403, p, "denied");
        return;
    }
    /* They have left the server, which counts its connections. */
    if (tunnels_full(ps->o.tunnels, 0, ps->o.max_connections, ps->o.listener)) {
        refuse(ex, 503, p, "refused");
        return;
    }
    a = XNEW(struct asked);
    a->ps = ps;
    a->ex = ex;
    a->passage = p;
    hand_over(r, &asked_handler, a);
    if (ps->o.intercept && intercept_wants(ps->o.intercept, passage_dest(p)))
        hand_to_intercept(a);
    else
        passage_dial(p, NULL, VIEW_NONE, on_connected, a);
}

/* --- absolute URLs ------------------------------------------------------------------------ */

static void take_absolute(struct proxy_service *ps, const struct request *r, const struct url *url,
                          struct passage *p)
{
    struct relay_to to = {
        .host = passage_dest(p) ? passage_dest(p)->host : NULL,
        .port = url->port,
        .authority = url->authority, /* Host of the request does not count (RFC 9112 §3.2.2) */
        .target = url->path,
    };

    if (r->waited) {
        to.bound = true;
        to.early = buf_view(&r->waited->body);
        to.ended = r->waited->ended;
    }
    if (!to.host)
        refuse(r->ex, 400, p, "denied");
    else if (!passage_verdict(p)->allow)
        refuse(r->ex, 403, p, "denied");
    else
        relay_exchange(ps->relays, r->ex, r->req, &to, p);
}

/* --- the service -------------------------------------------------------------------------- */

static struct passage *open_passage(struct proxy_service *ps, const struct request *r,
                                    const char *kind, struct view authority, uint16_t port,
                                    const char *refused_by)
{
    return passage_open(ps->o.gate, &(struct passage_opts){.kind = kind,
                                                           .listener = ps->o.listener,
                                                           .from = r->req->peer,
                                                           .identity = r->identity,
                                                           .authority = authority,
                                                           .port = port,
                                                           .refused_by = refused_by});
}

/* What it wants. Of which passage the refusal must be told, too: `refused_by`, or NULL. */
static struct passage *passage_for(struct proxy_service *ps, const struct request *r,
                                   const char *refused_by, struct url *url)
{
    const struct http_request *req = r->req;
    struct passage *p;
    struct err e;

    *url = (struct url){.https = false};
    if (view_is(req->method, "CONNECT"))
        return open_passage(ps, r, "tunnel", req->target, 0, refused_by);
    if (url_parse(req->target, url, &e) == 0 && !url->https) {
        p = open_passage(ps, r, "relay", url->authority, 80, refused_by);
        passage_set_request(p, req->method, url->path);
        return p;
    }
    /* A path: this is no server; https: no client asks a proxy so, the request would be in clear.
     */
    url->authority = VIEW_NONE;
    p = open_passage(ps, r, "relay", req->authority, 80, refused_by ? refused_by : "proxy-only");
    passage_set_request(p, req->method, VIEW_NONE);
    return p;
}

static void go(struct proxy_service *ps, const struct request *r)
{
    struct url url;
    struct passage *p = passage_for(ps, r, NULL, &url);

    if (view_is(r->req->method, "CONNECT"))
        take_connect(ps, r, p);
    else if (url.authority.n)
        take_absolute(ps, r, &url, p);
    else
        refuse(r->ex, 400, p, "denied");
}

/* --- credentials -------------------------------------------------------------------------- */

static void refuse_stranger(struct proxy_service *ps, const struct request *r,
                            enum basic_result result)
{
    static const struct h1_field ask = {VIEW_LIT("Proxy-Authenticate"),
                                        VIEW_LIT("Basic realm=\"tailrace\", charset=\"UTF-8\"")};
    static const struct h1_field later = {VIEW_LIT("Retry-After"), VIEW_LIT("10")};
    bool busy = result == BASIC_BUSY;
    int status = busy ? 429 : 407;
    struct url url;
    struct passage *p = passage_for(ps, r, "credentials", &url);

    passage_deny(p, "credentials",
                 busy                      ? "too many attempts"
                 : result == BASIC_MISSING ? "no credential"
                                           : "wrong credential");
    passage_set_status(p, status);
    passage_end(&p, "denied");
    http_reply(r->ex, status, busy ? &later : &ask, 1, VIEW_NONE);
}

static void waiting_body(void *ctx, struct view piece)
{
    struct admission *a = ctx;

    buf_add(&a->body, piece.p, piece.n); /* no more than the server's window */
}

static void waiting_end(void *ctx)
{
    struct admission *a = ctx;

    a->ended = true;
}

static void admission_free(struct admission *a)
{
    basic_cancel(&a->ask);
    list_remove(&a->link);
    buf_fini(&a->body);
    xfree(a);
}

static void waiting_gone(void *ctx, bool complete)
{
    (void)complete;
    admission_free(ctx);
}

static const struct http_handler waiting_handler = {
    .on_body = waiting_body, .on_end = waiting_end, .on_gone = waiting_gone};

static const struct http_handler refused_handler = {0};

static void on_checked(void *ctx, enum basic_result result, struct view user)
{
    struct admission *a = ctx;
    const struct request r = {
        .ex = a->ex,
        .req = http_request_of(a->ex),
        .identity = result == BASIC_GOOD ? user : VIEW_NONE,
        .waited = a,
    };

    a->ask = NULL;
    http_rebind(a->ex, &refused_handler, NULL);
    if (result == BASIC_GOOD)
        go(a->ps, &r);
    else
        refuse_stranger(a->ps, &r, result);
    admission_free(a);
}

static void ask_who(struct proxy_service *ps, struct request *r)
{
    struct view field = http_field(r->req->fields, r->req->n_fields, "proxy-authorization");
    struct admission *a = XNEW(struct admission);
    enum basic_result result;

    a->ps = ps;
    a->ex = r->ex;
    list_init(&a->link);
    result = basic_check(ps->basic, field, r->req->peer, &r->identity, &a->ask, a);
    if (result == BASIC_ASKED) {
        list_append(&ps->waiting, &a->link);
        http_bind(r->ex, &waiting_handler, a);
        return;
    }
    admission_free(a);
    if (result == BASIC_GOOD)
        go(ps, r);
    else
        refuse_stranger(ps, r, result);
}

/* --- the service -------------------------------------------------------------------------- */

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct proxy_service *ps = ctx;
    struct request r = {.ex = ex, .req = req, .identity = req->identity};

    if (ps->basic)
        ask_who(ps, &r);
    else
        go(ps, &r);
}

struct proxy_service *proxy_service_new(const struct proxy_opts *o)
{
    struct proxy_service *ps = XNEW(struct proxy_service);

    ps->service = (struct http_service){take, ps};
    ps->o = *o;
    ps->relays = relays_new(o->gate, o->client);
    list_init(&ps->waiting);
    proxy_service_set_users(ps, o->users);
    return ps;
}

/* Those that wait for an answer of a checker that is no more are told to come again. */
static void drop_checker(struct proxy_service *ps)
{
    struct list *it, *tmp;

    basic_free(&ps->basic);
    list_each (it, tmp, &ps->waiting) {
        struct admission *a = list_entry(it, struct admission, link);

        a->ask = NULL;
        http_abort(a->ex);
    }
}

void proxy_service_set_users(struct proxy_service *ps, const struct basic_users *users)
{
    if (!users)
        drop_checker(ps);
    else if (ps->basic)
        basic_configure(ps->basic, users);
    else
        ps->basic = basic_new(ps->o.loop, ps->o.pool, users, on_checked);
}

const struct http_service *proxy_http(struct proxy_service *s)
{
    return &s->service;
}

void proxy_service_free(struct proxy_service **sp)
{
    struct proxy_service *s = *sp;

    *sp = NULL;
    if (!s)
        return;
    basic_free(&s->basic);
    relays_free(&s->relays);
    xfree(s);
}
