#include "egress/grpc.h"

#include "base/bug.h"
#include "base/str.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "rt/log.h"
#include "rt/metric.h"

/* https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
enum { GRPC_UNAVAILABLE = 14, GRPC_STATUS_MAX = 16 };

struct grpc_service {
    struct http_service service;
    struct grpc_opts o; /* without `to` and `tls` */
    char *rule;
    char *host, *authority;
    uint16_t port;
    struct tls_ctx *tls;
    struct metric_family *calls;
};

struct relayed {
    struct grpc_service *s;
    struct passage *passage;
    struct http_exchange *ex; /* NULL once it is gone */
    struct rpc_call *call;    /* NULL once it is over */
    bool grpc;                /* by its content type */
    bool answered;            /* the head of an answer went to the client */
    bool finished;            /* and the end of it */
    size_t held_up, held_down;
    const char *end; /* what ended it; NULL: nothing yet */
    int status;      /* of the call; -1: not seen */
};

static void release(struct relayed *r)
{
    if (r->ex || r->call)
        return;
    passage_set_grpc_status(r->passage, r->status);
    passage_end(&r->passage, r->end ? r->end : "client");
    xfree(r);
}

static void count(const struct relayed *r, const char *how)
{
    char text[4];

    text[0] = (char)('0' + r->status / 10);
    text[1] = (char)('0' + r->status % 10);
    text[2] = '\0';
    metric_add(metric_series(r->s->calls, r->status < 0    ? how
                                          : r->status < 10 ? text + 1
                                                           : text),
               1);
}

/* --- from the client ---------------------------------------------------------------------- */

static void client_body(void *ctx, struct view piece)
{
    struct relayed *r = ctx;

    if (!r->call) {
        http_consumed(r->ex, piece.n);
        return;
    }
    passage_add(r->passage, piece.n, 0);
    if (rpc_call_write(r->call, piece) > HTTP_WRITE_HIGH)
        r->held_up += piece.n;
    else
        http_consumed(r->ex, piece.n);
}

/* They are the end of the request, too; what follows says so again. */
static void client_trailers(void *ctx, const struct h1_field *fields, size_t n)
{
    struct relayed *r = ctx;

    if (r->call)
        rpc_call_finish(r->call, fields, n);
}

static void client_end(void *ctx)
{
    struct relayed *r = ctx;

    if (r->call)
        rpc_call_finish(r->call, NULL, 0);
}

static void client_drain(void *ctx)
{
    struct relayed *r = ctx;
    size_t n = r->held_down;

    r->held_down = 0;
    if (r->call && n)
        rpc_call_consumed(r->call, n);
}

static void client_gone(void *ctx, bool complete)
{
    struct relayed *r = ctx;
    uint32_t code = http_reset_code(r->ex);

    if (!r->end) {
        r->end = complete ? "done" : "client";
        if (!complete)
            count(r, "cancelled");
    }
    r->ex = NULL;
    rpc_call_free(&r->call, code ? code : H2_CANCEL);
    release(r);
}

static const struct http_handler client_handler = {
    .on_body = client_body,
    .on_end = client_end,
    .on_drain = client_drain,
    .on_gone = client_gone,
    .on_trailers = client_trailers,
};

/* --- from upstream ------------------------------------------------------------------------ */

static size_t pass_fields(const struct h1_field *in, size_t n, struct h1_field *out)
{
    size_t i, kept = 0;

    for (i = 0; i < n; i++) {
        if (!http_is_hop_field(in, n, in[i].name))
            out[kept++] = in[i];
    }
    return kept;
}

static void see_status(struct relayed *r, const struct h1_field *fields, size_t n)
{
    struct view v = http_field(fields, n, "grpc-status");
    int status;

    if (v.n < 1 || v.n > 2 || v.p[0] < '0' || v.p[0] > '9' ||
        (v.n == 2 && (v.p[1] < '0' || v.p[1] > '9')))
        return;
    status = v.n == 1 ? v.p[0] - '0' : (v.p[0] - '0') * 10 + v.p[1] - '0';
    if (status <= GRPC_STATUS_MAX)
        r->status = status;
}

static void upstream_begin(void *ctx, const struct net_addr *peer)
{
    struct relayed *r = ctx;
    const struct net_parent *parent = gate_settings_of(r->s->o.gate)->parent;
    bool direct =
        !parent || (parent->bypass && parent->bypass(parent->bypass_ctx, r->s->host, r->s->port));

    passage_reached(r->passage, peer, direct ? NULL : parent->host);
}

static void upstream_head(void *ctx, const struct h2_head *head)
{
    struct relayed *r = ctx;
    struct h1_field kept[H1_MAX_FIELDS];
    size_t n = pass_fields(head->fields, head->n_fields, kept);

    r->answered = true;
    passage_set_status(r->passage, head->status);
    if (head->end_stream) {
        see_status(r, head->fields, head->n_fields);
        r->finished = true;
        http_reply_head(r->ex, head->status, kept, n);
    } else {
        http_reply_start(r->ex, head->status, kept, n, head->content_length);
    }
}

static void upstream_body(void *ctx, struct view piece)
{
    struct relayed *r = ctx;

    passage_add(r->passage, 0, piece.n);
    if (http_write(r->ex, piece) > HTTP_WRITE_HIGH)
        r->held_down += piece.n;
    else
        rpc_call_consumed(r->call, piece.n);
}

static void upstream_trailers(void *ctx, const struct h1_field *fields, size_t n)
{
    struct relayed *r = ctx;
    struct h1_field kept[H1_MAX_FIELDS];

    see_status(r, fields, n);
    r->finished = true;
    http_finish_trailers(r->ex, kept, pass_fields(fields, n, kept));
}

/* The request is not wanted any more, whatever is left of it. */
static void give_up_rest(struct relayed *r)
{
    size_t n = r->held_up;

    r->held_up = 0;
    if (r->ex && n)
        http_consumed(r->ex, n);
}

static void upstream_end(void *ctx)
{
    struct relayed *r = ctx;

    r->end = "done";
    count(r, "none");
    rpc_call_free(&r->call, H2_CANCEL);
    if (!r->finished)
        http_finish(r->ex);
    give_up_rest(r);
}

static void upstream_drain(void *ctx)
{
    give_up_rest(ctx); /* to be sent, in this case */
}

/* --- failures ----------------------------------------------------------------------------- */

static void log_failure(const struct relayed *r, const struct err *e, enum rpc_failure how)
{
    static struct log_rate rate;
    uint64_t left_out;

    if (log_rate_ok(&rate, 5, &left_out))
        log_event(LOG_WARN, "grpc", "a call to upstream failed",
                  LF_STR("listener", r->s->o.listener), LF_STR("asked", passage_asked(r->passage)),
                  LF_BOOL("sent", how != RPC_UNREACHED), LF_ERR(e),
                  LF_UINT("suppressed", left_out));
}

/* Tell the client that upstream failed, in the way it understands. */
static void tell_unavailable(struct relayed *r, const char *text, int status)
{
    const struct http_request *req = http_request_of(r->ex);
    const struct h1_field fields[] = {
        {VIEW_LIT("content-type"), http_field(req->fields, req->n_fields, "content-type")},
        {VIEW_LIT("grpc-status"), VIEW_LIT("14")},
        {VIEW_LIT("grpc-message"), view_str(text)},
    };
    const struct h1_field plain = {VIEW_LIT("content-type"), VIEW_LIT("text/plain")};

    if (r->grpc)
        r->status = GRPC_UNAVAILABLE;
    if (r->grpc && r->answered) {
        http_finish_trailers(r->ex, fields + 1, 2);
    } else if (r->answered) {
        http_abort(r->ex);
    } else if (r->grpc) {
        passage_set_status(r->passage, 200);
        http_reply_head(r->ex, 200, fields, ARRAY_LEN(fields));
    } else {
        passage_set_status(r->passage, status);
        http_reply(r->ex, status, &plain, 1, view_str(text));
    }
}

static void upstream_error(void *ctx, const struct err *e, enum rpc_failure how, uint32_t code)
{
    struct relayed *r = ctx;
    bool late = how == RPC_UNREACHED && e->code == ERR_TIMEOUT;

    r->end = how != RPC_UNREACHED ? "upstream" : late ? "timeout" : "unreachable";
    passage_failed(r->passage, e);
    rpc_call_free(&r->call, H2_CANCEL);
    if (how == RPC_RESET || code == H2_REFUSED_STREAM) {
        http_reset(r->ex, code);
    } else {
        log_failure(r, e, how);
        tell_unavailable(r,
                         how == RPC_LOST ? "the connection to upstream was lost"
                         : late          ? "upstream did not answer in time"
                                         : "upstream cannot be reached",
                         late ? 504 : 502);
    }
    count(r, "reset");
    give_up_rest(r);
}

static const struct rpc_call_ops upstream_ops = {
    .on_begin = upstream_begin,
    .on_head = upstream_head,
    .on_body = upstream_body,
    .on_trailers = upstream_trailers,
    .on_end = upstream_end,
    .on_drain = upstream_drain,
    .on_error = upstream_error,
};

/* --- one call ----------------------------------------------------------------------------- */

static void start(struct relayed *r, const struct http_request *req)
{
    struct h1_field kept[H1_MAX_FIELDS + 1];
    struct rpc_call_opts o = {
        .host = r->s->host,
        .port = r->s->port,
        .tls = r->s->tls,
        .parent = passage_parent(r->passage),
        .method = req->method,
        .target = req->target,
        .authority = view_str(r->s->authority),
        .fields = kept,
        .n_fields = pass_fields(req->fields, req->n_fields, kept),
        .no_body = !req->has_body,
    };

    /* gRPC servers refuse calls without it; RFC 9113 §8.2.2 lets it pass with this value only. */
    if (http_field_has_token(req->fields, req->n_fields, "te", "trailers"))
        kept[o.n_fields++] = (struct h1_field){VIEW_LIT("te"), VIEW_LIT("trailers")};
    r->call = rpc_call_start(r->s->o.client, &o, &upstream_ops, r);
}

static void refuse(struct http_exchange *ex, struct passage *p, int status, const char *text)
{
    const struct h1_field plain = {VIEW_LIT("content-type"), VIEW_LIT("text/plain")};

    passage_set_status(p, status);
    passage_end(&p, "refused");
    http_reply(ex, status, &plain, 1, view_str(text));
}

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct grpc_service *s = ctx;
    bool path = req->target.n && req->target.p[0] == '/' && !req->upgrade;
    bool ok = path && req->version == 20;
    struct passage *p =
        passage_open(s->o.gate, &(struct passage_opts){.kind = "grpc",
                                                       .listener = s->o.listener,
                                                       .from = req->peer,
                                                       .identity = req->identity,
                                                       .authority = view_str(s->authority),
                                                       .port = s->port,
                                                       .fixed_rule = s->rule,
                                                       .refused_by = ok ? NULL : "grpc-only"});
    struct view type = http_field(req->fields, req->n_fields, "content-type");
    struct relayed *r;

    passage_set_request(p, req->method, path ? req->target : VIEW_NONE);
    if (!passage_verdict(p)->allow) {
        refuse(ex, p, path && !ok ? 505 : 400,
               path && !ok ? "this listener speaks HTTP/2 only\n"
                           : "this listener takes paths that begin with a slash\n");
        return;
    }
    r = XNEW(struct relayed);
    r->s = s;
    r->ex = ex;
    r->passage = p;
    r->status = -1;
    r->grpc = view_starts(type, VIEW_LIT("application/grpc"));
    http_bind(ex, &client_handler, r);
    start(r, req);
}

/* --- the service -------------------------------------------------------------------------- */

void grpc_configure(struct grpc_service *s, const char *to, struct tls_ctx *tls)
{
    struct url u;
    struct err e;

    if (url_parse(view_str(to), &u, &e) < 0)
        BUG("a destination that was checked");
    xfree(s->host);
    xfree(s->authority);
    s->host = xmemdup0(u.host.p, u.host.n);
    s->authority = xmemdup0(u.authority.p, u.authority.n);
    s->port = u.port;
    s->tls = u.https ? tls : NULL;
}

struct grpc_service *grpc_service_new(const struct grpc_opts *o)
{
    struct grpc_service *s = XNEW(struct grpc_service);
    struct str rule = STR_INIT;

    s->service = (struct http_service){take, s};
    s->o = *o;
    str_addf(&rule, "grpc:%s", o->listener);
    s->rule = str_take(&rule);
    s->calls = metric_family(METRIC_COUNTER, "grpc_calls", "status",
                             "Remote calls relayed, by their status as gRPC counts");
    grpc_configure(s, o->to, o->tls);
    return s;
}

const struct http_service *grpc_http(struct grpc_service *s)
{
    return &s->service;
}

void grpc_service_free(struct grpc_service **sp)
{
    struct grpc_service *s = *sp;

    *sp = NULL;
    if (!s)
        return;
    xfree(s->rule);
    xfree(s->host);
    xfree(s->authority);
    xfree(s);
}
