#include "egress/proxy.h"

#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "egress/relay.h"
#include "rt/log.h"

struct proxy_service {
    struct http_service service;
    struct proxy_opts o;
    struct relays *relays;
};

/* A CONNECT whose destination is being dialled. */
struct asked {
    struct proxy_service *ps;
    struct http_exchange *ex; /* NULL: gone */
    struct passage *passage;
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

static void take_connect(struct proxy_service *ps, struct http_exchange *ex,
                         const struct http_request *req, struct passage *p)
{
    struct asked *a;

    if (!passage_dest(p)) {
        refuse(ex, 400, p, "denied");
        return;
    }
    if (!host_agrees(req, passage_dest(p))) {
        passage_deny(p, "bad-host", "Host and target disagree");
        refuse(ex, 400, p, "denied");
        return;
    }
    if (!passage_verdict(p)->allow) {
        refuse(ex, 403, p, "denied");
        return;
    }
    a = XNEW(struct asked);
    a->ps = ps;
    a->ex = ex;
    a->passage = p;
    http_bind(ex, &asked_handler, a);
    if (ps->o.intercept && intercept_wants(ps->o.intercept, passage_dest(p)))
        hand_to_intercept(a);
    else
        passage_dial(p, NULL, VIEW_NONE, on_connected, a);
}

/* --- absolute URLs ------------------------------------------------------------------------ */

static void take_absolute(struct proxy_service *ps, struct http_exchange *ex,
                          const struct http_request *req, const struct url *url, struct passage *p)
{
    struct relay_to to = {
        .host = passage_dest(p) ? passage_dest(p)->host : NULL,
        .port = url->port,
        .authority = url->authority, /* Host of the request does not count (RFC 9112 §3.2.2) */
        .target = url->path,
    };

    passage_set_request(p, req->method, url->path);
    if (!to.host)
        refuse(ex, 400, p, "denied");
    else if (!passage_verdict(p)->allow)
        refuse(ex, 403, p, "denied");
    else
        relay_exchange(ps->relays, ex, req, &to, p);
}

/* --- the service -------------------------------------------------------------------------- */

static struct passage *open_passage(struct proxy_service *ps, const struct http_request *req,
                                    const char *kind, struct view authority, uint16_t port,
                                    const char *refused_by)
{
    return passage_open(ps->o.gate, &(struct passage_opts){.kind = kind,
                                                           .listener = ps->o.listener,
                                                           .from = req->peer,
                                                           .identity = req->identity,
                                                           .authority = authority,
                                                           .port = port,
                                                           .refused_by = refused_by});
}

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct proxy_service *ps = ctx;
    struct passage *p;
    struct url url;
    struct err e;

    if (view_is(req->method, "CONNECT")) {
        p = open_passage(ps, req, "tunnel", req->target, 0, NULL);
        take_connect(ps, ex, req, p);
    } else if (url_parse(req->target, &url, &e) == 0 && !url.https) {
        p = open_passage(ps, req, "relay", url.authority, 80, NULL);
        take_absolute(ps, ex, req, &url, p);
    } else {
        /* A path: this is no server; https: no client asks a proxy so, the request would be in
         * clear. */
        p = open_passage(ps, req, "relay", req->authority, 80, "proxy-only");
        passage_set_request(p, req->method, VIEW_NONE);
        refuse(ex, 400, p, "denied");
    }
}

struct proxy_service *proxy_service_new(const struct proxy_opts *o)
{
    struct proxy_service *ps = XNEW(struct proxy_service);

    ps->service = (struct http_service){take, ps};
    ps->o = *o;
    ps->relays = relays_new(o->gate, o->client);
    return ps;
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
    relays_free(&s->relays);
    xfree(s);
}
