#include "http/rpc_priv.h"

#include "base/bug.h"
#include "base/xmem.h"

enum { MAX_CONNECTIONS = 32, IDLE_MS = 600 * 1000, CONNECT_MS = 10 * 1000 };

/* --- origins --- */

static struct rpc_origin *origin_get(struct rpc_client *c, const struct rpc_call_opts *o)
{
    struct rpc_origin *origin;

    for (struct list *it = c->origins.next; it != &c->origins; it = it->next) {
        origin = list_entry(it, struct rpc_origin, link);
        if (origin->port == o->port && origin->tls == o->tls && origin->parent == o->parent &&
            !strcmp(origin->host, o->host))
            return origin;
    }
    origin = XNEW(struct rpc_origin);
    origin->client = c;
    origin->host = xstrdup(o->host);
    origin->port = o->port;
    origin->tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
    origin->parent = o->parent;
    list_init(&origin->conns);
    list_init(&origin->waiting);
    list_append(&c->origins, &origin->link);
    return origin;
}

void rpc_origin_tidy(struct rpc_origin *o)
{
    if (o->n_conns || o->n_calls)
        return;
    list_remove(&o->link);
    if (o->tls)
        tls_ctx_unref(&o->tls);
    xfree(o->host);
    xfree(o);
}

void rpc_origin_wake(struct rpc_origin *o)
{
    unsigned living = 0;

    if (list_empty(&o->waiting))
        return;
    for (struct list *it = o->conns.next; it != &o->conns; it = it->next) {
        struct rpc_conn *c = list_entry(it, struct rpc_conn, link);

        if (!rpc_conn_lives(c))
            continue;
        living++;
        if (!c->h || !h2_ready(c->h))
            return; /* it will look when it stands */
        if (h2_may_request(c->h)) {
            rpc_conn_dirty(c);
            return;
        }
    }
    if (living < o->client->o.max_connections)
        rpc_conn_dial(o);
}

void rpc_origin_unreached(struct rpc_origin *o, const struct err *e)
{
    struct list now;

    for (struct list *it = o->conns.next; it != &o->conns; it = it->next) {
        if (rpc_conn_lives(list_entry(it, struct rpc_conn, link)))
            return; /* a stream may become free there */
    }
    list_init(&now);
    list_move_all(&now, &o->waiting);
    o->n_calls++; /* it stays until we are done */
    while (!list_empty(&now)) {
        struct rpc_call *call = list_entry(now.next, struct rpc_call, link);

        list_remove(&call->link);
        rpc_call_failed(call, e, RPC_UNREACHED, 0);
    }
    o->n_calls--;
    rpc_origin_wake(o); /* for calls that came meanwhile */
    rpc_origin_tidy(o);
}

/* --- the client --- */

static void client_free_now(struct rpc_client *c)
{
    http_waits_fini(&c->waits);
    xfree(c->scratch);
    xfree(c);
}

static void client_run(struct ev_task *task)
{
    struct rpc_client *c = container_of(task, struct rpc_client, task);
    struct list now;

    c->task_posted = false;
    if (c->freed) {
        client_free_now(c);
        return;
    }
    list_init(&now);
    list_move_all(&now, &c->dirty);
    while (!list_empty(&now)) {
        struct rpc_conn *conn = list_entry(now.next, struct rpc_conn, dirty);

        list_remove(&conn->dirty);
        rpc_conn_settle(conn);
    }
}

void rpc_conn_dirty(struct rpc_conn *conn)
{
    struct rpc_client *c = conn->client;

    if (conn->running || !list_empty(&conn->dirty))
        return;
    list_append(&c->dirty, &conn->dirty);
    if (!c->task_posted) {
        c->task_posted = true;
        ev_defer(c->loop, &c->task);
    }
}

static void ready_due(void *ctx, struct http_wait *w)
{
    struct rpc_conn *c = container_of(w, struct rpc_conn, wait);
    struct err e;

    (void)ctx;
    err_set(&e, ERR_TIMEOUT, "%s does not begin to speak HTTP/2", c->origin->host);
    rpc_conn_fail(c, &e);
}

static void idle_due(void *ctx, struct http_wait *w)
{
    struct rpc_conn *c = container_of(w, struct rpc_conn, wait);

    (void)ctx;
    c->closing = true;
    h2_goaway(c->h);
    rpc_conn_dirty(c);
}

struct rpc_client *rpc_client_new(struct ev_loop *loop, const struct rpc_client_opts *o)
{
    struct rpc_client *c = XNEW(struct rpc_client);

    c->loop = loop;
    c->o = *o;
    if (!c->o.idle_timeout_ms)
        c->o.idle_timeout_ms = IDLE_MS;
    if (!c->o.connect_ms)
        c->o.connect_ms = CONNECT_MS;
    if (!c->o.max_connections)
        c->o.max_connections = MAX_CONNECTIONS;
    c->task.run = client_run;
    list_init(&c->origins);
    list_init(&c->dirty);
    http_waits_init(&c->waits, loop, c);
    http_waits_kind(&c->waits, RWAIT_READY, c->o.connect_ms, ready_due);
    http_waits_kind(&c->waits, RWAIT_IDLE, c->o.idle_timeout_ms, idle_due);
    return c;
}

static void orphan(struct list *calls)
{
    struct list *it, *tmp;

    list_each (it, tmp, calls) { /* their owners free them later */
        struct rpc_call *call = list_entry(it, struct rpc_call, link);

        call->done = true;
        call->origin->n_calls--;
        call->origin = NULL;
        call->conn = NULL;
        list_remove(&call->link);
    }
}

void rpc_client_free(struct rpc_client **cp)
{
    struct rpc_client *c = *cp;

    if (!c)
        return;
    *cp = NULL;
    while (!list_empty(&c->origins)) {
        struct rpc_origin *o = list_entry(c->origins.next, struct rpc_origin, link);

        orphan(&o->waiting);
        o->n_calls++; /* it stays until its connections are gone */
        while (!list_empty(&o->conns)) {
            struct rpc_conn *conn = list_entry(o->conns.next, struct rpc_conn, link);

            ASSERT(!conn->running);
            orphan(&conn->calls);
            rpc_conn_close(conn);
        }
        o->n_calls = 0;
        rpc_origin_tidy(o);
    }
    if (c->task_posted)
        c->freed = true;
    else
        client_free_now(c);
}

/* --- calls --- */

static struct view copy(char **to, struct view v)
{
    struct view out = {*to, v.n};

    if (v.n)
        memcpy(*to, v.p, v.n);
    *to += v.n;
    return out;
}

/* `more` gets room behind the fields; returns where. */
static char *fields_copy(struct rpc_fields *to, const struct h1_field *f, size_t n, size_t more)
{
    size_t room = n * sizeof(*f) + more;
    char *at;

    for (size_t i = 0; i < n; i++)
        room += f[i].name.n + f[i].value.n;
    to->f = xmalloc(room + 1);
    to->n = n;
    at = (char *)(to->f + n);
    for (size_t i = 0; i < n; i++) {
        to->f[i].name = copy(&at, f[i].name);
        to->f[i].value = copy(&at, f[i].value);
    }
    return at;
}

static void head_copy(struct rpc_call *call, const struct rpc_call_opts *o)
{
    char *at =
        fields_copy(&call->mem, o->fields, o->n_fields, o->method.n + o->target.n + o->authority.n);

    call->head = (struct h2_head){
        .scheme = o->tls ? VIEW_LIT("https") : VIEW_LIT("http"),
        .fields = call->mem.f,
        .n_fields = call->mem.n,
        .content_length = -1,
        .end_stream = o->no_body,
    };
    call->head.method = copy(&at, o->method);
    call->head.path = copy(&at, o->target);
    call->head.authority = copy(&at, o->authority);
}

struct rpc_call *rpc_call_start(struct rpc_client *c, const struct rpc_call_opts *o,
                                const struct rpc_call_ops *ops, void *ctx)
{
    struct rpc_call *call = XNEW(struct rpc_call);

    OBJ_INIT(call, RPC_CALL_MAGIC);
    call->ops = *ops;
    call->ctx = ctx;
    call->kept = true;
    call->finished = o->no_body;
    head_copy(call, o);
    call->origin = origin_get(c, o);
    call->origin->n_calls++;
    list_append(&call->origin->waiting, &call->link);
    rpc_origin_wake(call->origin);
    return call;
}

void rpc_call_forget_body(struct rpc_call *call)
{
    if (!call->conn)
        return; /* it waits: all of it is still needed */
    call->kept = false;
    buf_fini(&call->out);
}

size_t rpc_call_write(struct rpc_call *call, struct view piece)
{
    size_t queued;

    OBJ_CHECK(call, RPC_CALL_MAGIC);
    if (call->done || !piece.n)
        return 0;
    ASSERT(!call->finished);
    if (call->kept)
        buf_add(&call->out, piece.p, piece.n);
    if (!call->conn) {
        queued = buf_len(&call->out);
    } else {
        if (call->kept && buf_len(&call->out) > RPC_KEEP)
            rpc_call_forget_body(call);
        queued = h2_write(call->conn->h, call->id, piece, false);
        rpc_conn_dirty(call->conn);
    }
    call->high = call->high || queued > HTTP_WRITE_HIGH;
    return queued;
}

void rpc_call_finish(struct rpc_call *call, const struct h1_field *trailers, size_t n)
{
    OBJ_CHECK(call, RPC_CALL_MAGIC);
    if (call->done || call->finished)
        return;
    call->finished = true;
    if (n)
        fields_copy(&call->trailers, trailers, n, 0);
    if (!call->conn)
        return;
    if (n)
        h2_trailers(call->conn->h, call->id, trailers, n);
    else
        h2_write(call->conn->h, call->id, VIEW_NONE, true);
    rpc_conn_dirty(call->conn);
}

void rpc_call_consumed(struct rpc_call *call, size_t n)
{
    OBJ_CHECK(call, RPC_CALL_MAGIC);
    if (!call->conn)
        return; /* given back already */
    h2_consumed(call->conn->h, call->id, n);
    rpc_conn_dirty(call->conn);
}

void rpc_call_failed(struct rpc_call *call, const struct err *e, enum rpc_failure how,
                     uint32_t code)
{
    ASSERT(!call->done && !call->conn);
    call->done = true;
    call->ops.on_error(call->ctx, e, how, code);
}

void rpc_call_free(struct rpc_call **callp, uint32_t code)
{
    struct rpc_call *call = *callp;
    struct rpc_conn *conn;

    if (!call)
        return;
    *callp = NULL;
    OBJ_CHECK(call, RPC_CALL_MAGIC);
    if ((conn = call->conn)) {
        rpc_conn_leave(call);
        h2_reset(conn->h, call->id, code);
        rpc_conn_dirty(conn);
    }
    list_remove(&call->link);
    if (call->origin) {
        call->origin->n_calls--;
        rpc_origin_tidy(call->origin);
    }
    buf_fini(&call->out);
    xfree(call->mem.f);
    xfree(call->trailers.f);
    OBJ_FINI(call);
    xfree(call);
}
