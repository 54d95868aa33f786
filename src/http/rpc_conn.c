/* One connection of the client for remote calls. */
#include "http/rpc_priv.h"

#include "base/bug.h"
#include "base/xmem.h"

enum { SETTLE_ROUNDS = 4 };

static const struct net_stream_ops stream_ops;
static const struct h2_ops session_ops;

bool rpc_conn_lives(const struct rpc_conn *c)
{
    return !c->over && !c->closing && (!c->h || h2_accepts(c->h));
}

void rpc_conn_fail(struct rpc_conn *c, const struct err *e)
{
    if (c->over)
        return;
    c->over = true;
    c->why = *e;
    rpc_conn_dirty(c);
}

void rpc_conn_close(struct rpc_conn *c)
{
    struct rpc_origin *o = c->origin;
    bool stood = c->h && h2_ready(c->h);
    struct err why = c->why;

    OBJ_CHECK(c, RPC_CONN_MAGIC);
    ASSERT(!c->running);
    c->over = c->running = true; /* whatever calls do does not bring it back */
    while (!list_empty(&c->calls)) {
        struct rpc_call *call = list_entry(c->calls.next, struct rpc_call, link);

        rpc_conn_leave(call);
        rpc_call_failed(call, &why, RPC_LOST, 0);
    }
    net_connect_cancel(&c->connect);
    list_remove(&c->link);
    o->n_conns--;
    list_remove(&c->dirty);
    http_wait_off(&c->wait);
    if (c->s)
        net_stream_close(&c->s, false);
    h2_free(&c->h);
    hmap_fini(&c->by_id);
    OBJ_FINI(c);
    xfree(c);
    if (!stood)
        rpc_origin_unreached(o, &why);
    else if (!list_empty(&o->waiting))
        rpc_origin_wake(o);
    else
        rpc_origin_tidy(o);
}

/* --- calls on it --- */

static struct rpc_call *find(const struct rpc_conn *c, int32_t id)
{
    struct hnode *n = hmap_first(&c->by_id, (uint64_t)id);

    return n ? hmap_entry(n, struct rpc_call, node) : NULL;
}

void rpc_conn_leave(struct rpc_call *call)
{
    hmap_remove(&call->conn->by_id, &call->node);
    list_remove(&call->link);
    call->conn = NULL;
}

/* Send it, with what has come of its body. */
static void begin(struct rpc_conn *c, struct rpc_call *call)
{
    struct h2_head head = call->head;
    struct view body = buf_view(&call->out);

    list_remove(&call->link);
    list_append(&c->calls, &call->link);
    call->conn = c;
    call->tries++;
    head.end_stream = call->finished && !body.n && !call->trailers.n;
    call->id = h2_request(c->h, &head);
    hmap_insert(&c->by_id, &call->node, (uint64_t)call->id);
    if (!head.end_stream) {
        h2_write(c->h, call->id, body, call->finished && !call->trailers.n);
        if (call->trailers.n)
            h2_trailers(c->h, call->id, call->trailers.f, call->trailers.n);
    }
    if (body.n > RPC_KEEP)
        rpc_call_forget_body(call);
    if (call->ops.on_begin)
        call->ops.on_begin(call->ctx, net_peer(c->s));
}

static void take_waiting(struct rpc_conn *c)
{
    struct list *waiting = &c->origin->waiting;

    while (!c->closing && !list_empty(waiting) && h2_may_request(c->h))
        begin(c, list_entry(waiting->next, struct rpc_call, link));
}

static void on_response(void *ctx, int32_t id, const struct h2_head *head)
{
    struct rpc_call *call = find(ctx, id);

    if (!call)
        return;
    rpc_call_forget_body(call);
    call->ops.on_head(call->ctx, head);
}

static void on_body(void *ctx, int32_t id, struct view piece)
{
    struct rpc_conn *c = ctx;
    struct rpc_call *call = find(c, id);

    if (call)
        call->ops.on_body(call->ctx, piece);
    else
        h2_consumed(c->h, id, piece.n);
}

static void on_trailers(void *ctx, int32_t id, const struct h1_field *fields, size_t n)
{
    struct rpc_call *call = find(ctx, id);

    if (call && call->ops.on_trailers)
        call->ops.on_trailers(call->ctx, fields, n);
}

static void on_end(void *ctx, int32_t id)
{
    struct rpc_conn *c = ctx;
    struct rpc_call *call = find(c, id);

    if (!call)
        return;
    rpc_conn_leave(call);
    h2_give_up(c->h, id);
    call->done = true;
    call->ops.on_end(call->ctx);
}

/* Before its end: it was reset, by whomever. */
static void on_closed(void *ctx, int32_t id, uint32_t code)
{
    struct rpc_conn *c = ctx;
    struct rpc_call *call = find(c, id);
    struct err e;

    if (!call)
        return;
    rpc_conn_leave(call);
    if (code == H2_REFUSED_STREAM && call->kept && call->tries < RPC_TRIES) {
        list_prepend(&c->origin->waiting, &call->link);
        return; /* the end of the turn finds it a place */
    }
    err_set(&e, ERR_CLOSED, "%s reset the call with code %u", c->origin->host, code);
    rpc_call_failed(call, &e, code == H2_REFUSED_STREAM ? RPC_UNREACHED : RPC_RESET, code);
}

static void on_drain(void *ctx, int32_t id)
{
    struct rpc_call *call = find(ctx, id);

    if (!call || !call->high)
        return;
    call->high = false;
    if (call->ops.on_drain)
        call->ops.on_drain(call->ctx);
}

static const struct h2_ops session_ops = {
    .on_response = on_response,
    .on_body = on_body,
    .on_trailers = on_trailers,
    .on_end = on_end,
    .on_closed = on_closed,
    .on_drain = on_drain,
};

/* --- bytes --- */

static void flush(struct rpc_conn *c)
{
    struct view v;
    struct err e;

    while (!c->blocked && !c->over && (v = h2_pull(c->h)).n) {
        ssize_t n = net_write(c->s, v.p, v.n, &e);

        if (n == NET_ERROR) {
            rpc_conn_fail(c, &e);
            return;
        }
        if (n == NET_AGAIN || (size_t)n < v.n)
            c->blocked = true;
        if (n > 0)
            h2_sent(c->h, (size_t)n);
    }
}

static void set_wait(struct rpc_conn *c)
{
    if (!h2_ready(c->h))
        return; /* RWAIT_READY runs */
    if (!h2_idle(c->h))
        http_wait_off(&c->wait);
    else if (!http_wait_is_on(&c->wait))
        http_wait_put(&c->client->waits, RWAIT_IDLE, &c->wait);
}

void rpc_conn_settle(struct rpc_conn *c)
{
    struct err e;

    OBJ_CHECK(c, RPC_CONN_MAGIC);
    ASSERT(!c->running);
    if (c->h && !c->over) {
        c->running = true;
        take_waiting(c);
        flush(c);
        set_wait(c);
        c->running = false;
        if (!c->blocked && (c->closing || !h2_accepts(c->h)) && h2_idle(c->h)) {
            err_set(&e, ERR_CLOSED, "the connection has ended");
            rpc_conn_fail(c, &e);
        }
    }
    if (c->over)
        rpc_conn_close(c);
    else
        rpc_origin_wake(c->origin);
}

static void feed(struct rpc_conn *c, struct view in)
{
    bool stood = h2_ready(c->h);
    struct err e;

    if (h2_feed(c->h, in, ev_now_ns(c->client->loop), &e) != 0) {
        err_prefix(&e, "%s", stood ? "HTTP/2" : "it does not speak HTTP/2");
        flush(c); /* our GOAWAY says why */
        rpc_conn_fail(c, &e);
    } else if (!stood && h2_ready(c->h)) {
        http_wait_off(&c->wait);
    }
}

static void on_readable(void *ctx)
{
    struct rpc_conn *c = ctx;
    struct rpc_client *client = c->client;
    struct err e;
    ssize_t n;

    OBJ_CHECK(c, RPC_CONN_MAGIC);
    if (!client->scratch)
        client->scratch = xmalloc(RPC_SCRATCH);
    c->running = true;
    n = net_read(c->s, client->scratch, RPC_SCRATCH, &e);
    if (n == 0)
        err_set(&e, ERR_CLOSED, "%s closed the connection", c->origin->host);
    if (n == 0 || n == NET_ERROR)
        rpc_conn_fail(c, &e);
    else if (n > 0)
        feed(c, view_of(client->scratch, (size_t)n));
    c->running = false;
    rpc_conn_settle(c);
}

static void on_writable(void *ctx)
{
    struct rpc_conn *c = ctx;

    OBJ_CHECK(c, RPC_CONN_MAGIC);
    c->blocked = false;
    rpc_conn_settle(c);
}

static void on_failed(void *ctx, const struct err *e)
{
    struct rpc_conn *c = ctx;

    OBJ_CHECK(c, RPC_CONN_MAGIC);
    rpc_conn_fail(c, e);
    rpc_conn_settle(c);
}

static const struct net_stream_ops stream_ops = {
    .on_readable = on_readable,
    .on_writable = on_writable,
    .on_failed = on_failed,
};

/* --- connecting --- */

static void on_connected(void *ctx, struct net_stream *s, const struct err *e)
{
    struct rpc_conn *c = ctx;
    struct err other;

    OBJ_CHECK(c, RPC_CONN_MAGIC);
    c->connect = NULL;
    if (!s) {
        c->over = true;
        c->why = *e;
        rpc_conn_close(c);
        return;
    }
    c->s = s;
    net_stream_bind(s, &stream_ops, c);
    net_want_read(s, true);
    if (net_is_tls(s) && !view_is(net_alpn(s), "h2")) {
        err_set(&other, ERR_INVALID, "%s does not speak HTTP/2", c->origin->host);
        rpc_conn_fail(c, &other);
        return;
    }
    c->h = h2_client_new(&session_ops, c);
    http_wait_put(&c->client->waits, RWAIT_READY, &c->wait);
    rpc_conn_settle(c);
}

void rpc_conn_dial(struct rpc_origin *o)
{
    struct rpc_conn *c = XNEW(struct rpc_conn);
    const struct net_connect_opts opts = {
        .host = o->host,
        .port = o->port,
        .tls = o->tls,
        .alpn = VIEW_LIT("\x02h2"),
        .timeout_ms = o->client->o.connect_ms,
        .parent = o->parent,
    };

    OBJ_INIT(c, RPC_CONN_MAGIC);
    c->client = o->client;
    c->origin = o;
    list_append(&o->conns, &c->link);
    o->n_conns++;
    list_init(&c->dirty);
    list_init(&c->calls);
    http_wait_init(&c->wait);
    c->connect = net_connect_start(o->client->o.resolver, o->client->loop, &opts, on_connected, c);
}
