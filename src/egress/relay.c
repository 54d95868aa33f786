#include "egress/relay.h"

#include "base/bug.h"
#include "base/str.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "rt/clock.h"
#include "rt/log.h"
#include "rt/metric.h"

struct relays {
    struct gate *gate;
    struct http_client *client;
    struct metric_family *requests;
};

struct relay_service {
    struct http_service service;
    struct relays *relays;
    struct relay_target target;
};

struct relay {
    struct relays *all;
    struct passage *passage;
    struct http_exchange *ex; /* NULL once it is gone */
    struct http_call *call;   /* NULL once it is over */
    bool tunnel;
    bool answered;  /* the head of an answer went to the client */
    size_t held_up; /* bytes of the client's body not yet given back: upstream is slow */
    size_t held_down;
    const char *end; /* what ended it; NULL: nothing yet */
    struct ev_timer
        *idle;      /* of a tunnel; looks at `active` when due, so that a byte costs nothing */
    int64_t active; /* when the last byte passed, on the loop's clock */
};

/* Harness's edge adds a field that says which mTLS authority a client was verified by; nobody else
 * may (HP §4.6). */
static bool speaks_of_mtls(struct view name)
{
    size_t i;

    for (i = 0; i + 4 <= name.n; i++) {
        if (strncasecmp(name.p + i, "mtls", 4) == 0)
            return true;
    }
    return false;
}

static size_t pass_fields(const struct h1_field *in, size_t n, bool request, struct h1_field *out)
{
    size_t i, kept = 0;

    for (i = 0; i < n; i++) {
        struct view name = in[i].name;

        if (http_is_hop_field(in, n, name) || view_ieq(name, VIEW_LIT("content-length")))
            continue;
        if (request && (view_ieq(name, VIEW_LIT("host")) || view_ieq(name, VIEW_LIT("expect")) ||
                        speaks_of_mtls(name)))
            continue;
        if (!request && view_ieq(name, VIEW_LIT("date")))
            continue;
        out[kept++] = in[i];
    }
    return kept;
}

static void release(struct relay *r)
{
    if (r->ex || r->call)
        return;
    ev_timer_free(&r->idle);
    passage_end(&r->passage, r->end ? r->end : "client");
    xfree(r);
}

static void end_call(struct relay *r)
{
    if (r->call)
        http_call_free(&r->call);
    r->call = NULL;
}

static struct ev_loop *loop_of(const struct relay *r)
{
    return gate_loop(r->all->gate);
}

static void moved(struct relay *r, size_t up, size_t down)
{
    passage_add(r->passage, up, down);
    r->active = ev_now_ns(loop_of(r));
}

static void tell_activity(void *ctx)
{
    struct relay *r = ctx;

    passage_active(r->passage, r->active);
}

/* Silence in both directions: TCP keep-alive has found both sides alive, but nobody there cares. */
static void on_idle(void *ctx)
{
    struct relay *r = ctx;
    int64_t limit = passage_idle_ms(r->passage);
    int64_t silent = (ev_now_ns(loop_of(r)) - r->active) / NS_PER_MS;

    if (silent < limit) {
        ev_timer_arm(r->idle, limit - silent);
        return;
    }
    r->end = "idle";
    end_call(r);
    if (r->ex)
        http_abort(r->ex); /* the client is gone with it, and the relay */
}

/* --- from the client ---------------------------------------------------------------------- */

static void client_body(void *ctx, struct view piece)
{
    struct relay *r = ctx;

    if (!r->call) {
        http_consumed(r->ex, piece.n);
        return;
    }
    moved(r, piece.n, 0);
    if (http_call_write(r->call, piece) > HTTP_WRITE_HIGH)
        r->held_up += piece.n;
    else
        http_consumed(r->ex, piece.n);
}

static void client_end(void *ctx)
{
    struct relay *r = ctx;

    if (r->call)
        http_call_finish(r->call);
}

static void client_drain(void *ctx)
{
    struct relay *r = ctx;
    size_t n = r->held_down;

    r->held_down = 0;
    if (r->call && n)
        http_call_consumed(r->call, n);
}

static void client_gone(void *ctx, bool complete)
{
    struct relay *r = ctx;

    if (!r->end)
        r->end = complete ? "done" : "client";
    r->ex = NULL;
    end_call(r); /* a tail that nobody reads must end upstream at once (HP §7 item 27) */
    release(r);
}

static const struct http_handler client_handler = {
    .on_body = client_body,
    .on_end = client_end,
    .on_drain = client_drain,
    .on_gone = client_gone,
};

/* --- from upstream ------------------------------------------------------------------------ */

static void count(struct relay *r, int status)
{
    passage_set_status(r->passage, status);
    char text[8];
    unsigned s = status >= 100 && status <= 599 ? (unsigned)status : 0;

    text[0] = (char)('0' + s / 100);
    text[1] = (char)('0' + s / 10 % 10);
    text[2] = (char)('0' + s % 10);
    text[3] = '\0';
    metric_add(metric_series(r->all->requests, text), 1);
}

static void upstream_head(void *ctx, int status, const struct h1_field *fields, size_t n,
                          int64_t length)
{
    struct relay *r = ctx;
    struct h1_field kept[H1_MAX_FIELDS + 1];
    size_t n_kept = pass_fields(fields, n, false, kept);

    count(r, status);
    r->answered = true;
    if (status == 101) {
        struct view upgrade = http_field(fields, n, "upgrade");

        if (upgrade.n)
            kept[n_kept++] = (struct h1_field){VIEW_LIT("Upgrade"), upgrade};
        r->tunnel = true;
        passage_upgraded(r->passage);
        passage_on_look(r->passage, tell_activity, r);
        r->active = ev_now_ns(loop_of(r));
        r->idle = ev_timer_new(loop_of(r), on_idle, r);
        ev_timer_arm(r->idle, passage_idle_ms(r->passage));
        http_switch(r->ex, 101, kept, n_kept);
        return;
    }
    http_reply_start(r->ex, status, kept, n_kept, length);
}

static void upstream_body(void *ctx, struct view piece)
{
    struct relay *r = ctx;

    if (!r->ex)
        return;
    moved(r, 0, piece.n);
    if (http_write(r->ex, piece) > HTTP_WRITE_HIGH)
        r->held_down += piece.n;
    else
        http_call_consumed(r->call, piece.n);
}

/* The answer is complete before the request is: what was held for a slow upstream is not wanted any
 * more, and the client must not wait for it to be. */
static void give_up_rest(struct relay *r)
{
    size_t n = r->held_up;

    r->held_up = 0;
    if (r->ex && n)
        http_consumed(r->ex, n);
}

static void upstream_end(void *ctx)
{
    struct relay *r = ctx;

    if (r->tunnel && !r->end)
        r->end = "upstream";
    if (r->ex)
        http_finish(r->ex);
    if (!r->tunnel) {
        end_call(r);
        give_up_rest(r);
        release(r);
    }
}

static void upstream_drain(void *ctx)
{
    struct relay *r = ctx;
    size_t n = r->held_up;

    r->held_up = 0;
    if (r->ex && n)
        http_consumed(r->ex, n);
}

static void reply(struct http_exchange *ex, int status, const char *text)
{
    const struct h1_field fields[] = {{VIEW_LIT("Content-Type"), VIEW_LIT("application/json")}};
    struct str body = STR_INIT;

    str_addf(&body, "{\n  \"error_msg\": \"%s\"\n}\n", text);
    http_reply(ex, status, fields, 1, str_view(&body));
    str_fini(&body);
}

static void log_failure(const struct relay *r, const struct err *e, bool sent)
{
    static struct log_rate rate;
    uint64_t left_out;

    if (log_rate_ok(&rate, 5, &left_out))
        log_event(LOG_WARN, "relay", "an exchange with upstream failed",
                  LF_STR("asked", passage_asked(r->passage)), LF_BOOL("sent", sent), LF_ERR(e),
                  LF_UINT("suppressed", left_out));
}

static void upstream_error(void *ctx, const struct err *e, bool sent)
{
    struct relay *r = ctx;
    bool denied = passage_denied(r->passage, e);
    int status = denied ? 403 : e->code == ERR_TIMEOUT ? 504 : 502;

    if (!denied) {
        passage_failed(r->passage, e);
        log_failure(r, e, sent);
    }
    r->end = denied                   ? "denied"
             : sent                   ? "upstream"
             : e->code == ERR_TIMEOUT ? "timeout"
                                      : "unreachable";
    end_call(r);
    if (r->ex && r->answered) {
        http_abort(r->ex);
    } else if (r->ex) {
        count(r, status);
        reply(r->ex, status,
              denied                   ? "this destination is not allowed"
              : e->code == ERR_TIMEOUT ? "upstream did not answer in time"
                                       : "upstream cannot be reached");
    }
    release(r);
}

/* By a reload: a WebSocket may last for days, and a request waits for its answer for minutes. */
static void on_revoked(void *ctx)
{
    struct relay *r = ctx;

    r->end = "policy";
    end_call(r);
    if (r->ex && r->answered) {
        http_abort(r->ex);
    } else if (r->ex) {
        count(r, 403);
        reply(r->ex, 403, "this destination is not allowed");
    }
    release(r);
}

static const struct http_call_ops upstream_ops = {
    .on_head = upstream_head,
    .on_body = upstream_body,
    .on_end = upstream_end,
    .on_drain = upstream_drain,
    .on_error = upstream_error,
};

/* --- one exchange ------------------------------------------------------------------------- */

/* The only protocol that is passed on. Another one would be bytes that nobody looks at: with h2c
 * whole requests, past what is taken out of them here. */
static bool is_websocket(const struct http_request *req)
{
    return req->upgrade &&
           view_ieq(http_field(req->fields, req->n_fields, "upgrade"), VIEW_LIT("websocket"));
}

static struct http_call *start_call(struct relay *r, const struct http_request *req,
                                    const struct relay_to *to)
{
    struct h1_field kept[H1_MAX_FIELDS + 1];
    struct str target = STR_INIT;
    struct http_call_opts o = {
        .host = to->host,
        .port = to->port,
        .tls = to->tls,
        .allow = passage_allow,
        .allow_ctx = r->passage,
        .parent = to->dial ? NULL : passage_parent(r->passage),
        .method = req->method,
        .authority = to->authority,
        .fields = kept,
        .upgrade = is_websocket(req),
        .dial = to->dial,
        .dial_ctx = to->dial_ctx,
        .length = req->has_body ? req->content_length : 0,
    };
    struct http_call *call;

    o.n_fields = pass_fields(req->fields, req->n_fields, true, kept);
    if (o.upgrade)
        kept[o.n_fields++] = (struct h1_field){VIEW_LIT("Upgrade"), VIEW_LIT("websocket")};
    str_addv(&target, to->base);
    str_addv(&target, to->target);
    o.target = str_view(&target);
    call = http_call_start(r->all->client, &o, &upstream_ops, r);
    str_fini(&target);
    return call;
}

void relay_exchange(struct relays *all, struct http_exchange *ex, const struct http_request *req,
                    const struct relay_to *to, struct passage *passage)
{
    struct relay *r;

    /* With HTTP/1.1 the field may be ignored (RFC 9110 §7.8); here it is all that is wanted. */
    if (req->upgrade && req->version == 20 && !is_websocket(req)) {
        relay_refuse(ex, 501, "only the protocol websocket is known here", passage, "refused");
        return;
    }
    r = XNEW(struct relay);
    r->all = all;
    r->ex = ex;
    r->passage = passage;
    passage_set_request(passage, req->method, to->target);
    passage_on_revoked(passage, on_revoked, r);
    if (to->bound)
        http_rebind(ex, &client_handler, r);
    else
        http_bind(ex, &client_handler, r);
    r->call = start_call(r, req, to);
    if (to->early.n)
        client_body(r, to->early);
    if (to->ended)
        client_end(r);
}

void relay_refuse(struct http_exchange *ex, int status, const char *text, struct passage *passage,
                  const char *why)
{
    passage_set_status(passage, status);
    passage_end(&passage, why);
    reply(ex, status, text);
}

struct relays *relays_new(struct gate *gate, struct http_client *client)
{
    struct relays *all = XNEW(struct relays);

    all->gate = gate;
    all->client = client;
    all->requests =
        metric_family(METRIC_COUNTER, "relay_requests", "code", "Relayed exchanges, by status");
    return all;
}

void relays_free(struct relays **r)
{
    XFREE(*r);
}

/* --- the service -------------------------------------------------------------------------- */

/* Where somebody wants to go who gave no path: that of a CONNECT or of a URL; for the audit. */
static struct view wanted_instead(const struct http_request *req)
{
    struct url url;
    struct err e;

    if (view_is(req->method, "CONNECT"))
        return req->target;
    return url_parse(req->target, &url, &e) == 0 ? url.authority : req->authority;
}

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct relay_service *rs = ctx;
    const struct relay_target *t = &rs->target;
    struct relay_to to = {
        .host = t->host,
        .port = t->port,
        .tls = t->tls,
        .authority = t->authority,
        .base = t->base,
        .target = req->target,
    };
    bool path = req->target.n && req->target.p[0] == '/';
    struct passage_opts o = {
        .kind = "relay",
        .listener = req->listener,
        .from = req->peer,
        .identity = req->identity,
        .authority = path ? t->authority : wanted_instead(req),
        .port = t->port,
        .fixed_rule = path ? "upstream" : NULL,
    };
    struct passage *p;

    if (!path)
        o.refused_by = "upstream-only"; /* CONNECT and absolute targets: this leads to one place */
    p = passage_open(rs->relays->gate, &o);
    passage_set_request(p, req->method, path ? req->target : VIEW_NONE);
    if (!path)
        relay_refuse(ex, 400, "this listener takes paths that begin with a slash", p, "denied");
    else
        relay_exchange(rs->relays, ex, req, &to, p);
}

struct relay_service *relay_service_new(struct relays *r, const struct relay_target *target)
{
    struct relay_service *rs = XNEW(struct relay_service);

    rs->service = (struct http_service){take, rs};
    rs->relays = r;
    rs->target = *target;
    return rs;
}

const struct http_service *relay_http(struct relay_service *s)
{
    return &s->service;
}

void relay_configure(struct relay_service *s, const struct relay_target *target)
{
    s->target = *target;
}

void relay_service_free(struct relay_service **s)
{
    XFREE(*s);
}
