#include "http/client.h"

#include <errno.h>
#include <sys/socket.h>
#include "base/bug.h"
#include "base/hash.h"
#include "base/xmem.h"
#include "http/client_priv.h"

static void call_dial(struct http_call *call);
static void call_drop_dial(struct http_call *call);

/* --- origins --- */

static uint64_t origin_hash(const struct http_call_opts *o)
{
    return hash_bytes(o->host, strlen(o->host)) ^ o->port ^ (uint64_t)(uintptr_t)o->tls << 16;
}

/* By the parent, and without a tunnel through it? */
static bool asks_absolute(const struct http_call_opts *o)
{
    return o->parent && !o->tls && !o->upgrade && !view_is(o->method, "CONNECT");
}

/* `parent` of `o` is the one that is to be taken. */
static bool is_origin_of(const struct client_origin *origin, const struct http_call_opts *o)
{
    return origin->port == o->port && origin->tls == o->tls && origin->parent == o->parent &&
           origin->absolute == asks_absolute(o) && !strcmp(origin->host, o->host);
}

static struct client_origin *origin_get(struct http_client *c, const struct http_call_opts *o)
{
    uint64_t hash = origin_hash(o);
    struct client_origin *origin;

    for (struct hnode *n = hmap_first(&c->origins, hash); n; n = hmap_next(n, hash)) {
        origin = hmap_entry(n, struct client_origin, node);
        if (is_origin_of(origin, o)) {
            origin->refs++;
            return origin;
        }
    }
    origin = XNEW(struct client_origin);
    origin->host = xstrdup(o->host);
    origin->port = o->port;
    origin->tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
    origin->parent = o->parent;
    origin->absolute = asks_absolute(o);
    origin->refs = 1;
    list_init(&origin->idle);
    hmap_insert(&c->origins, &origin->node, hash);
    return origin;
}

void client_origin_unref(struct http_client *c, struct client_origin **op)
{
    struct client_origin *origin = *op;

    *op = NULL;
    ASSERT(origin->refs > 0);
    if (--origin->refs)
        return;
    ASSERT(list_empty(&origin->idle));
    hmap_remove(&c->origins, &origin->node);
    if (origin->tls)
        tls_ctx_unref(&origin->tls);
    xfree(origin->host);
    xfree(origin);
}

/* --- the pool --- */

static void client_free_now(struct http_client *c)
{
    http_waits_fini(&c->waits);
    hmap_fini(&c->origins);
    xfree(c->scratch);
    xfree(c);
}

static void client_run(struct ev_task *task)
{
    struct http_client *c = container_of(task, struct http_client, task);
    struct list now;

    c->task_posted = false;
    if (c->freed) {
        client_free_now(c);
        return;
    }
    list_init(&now);
    list_move_all(&now, &c->dirty);
    while (!list_empty(&now)) {
        struct client_conn *cc = list_entry(now.next, struct client_conn, dirty);

        list_remove(&cc->dirty);
        client_conn_settle(cc);
    }
}

void client_conn_dirty(struct client_conn *cc)
{
    struct http_client *c = cc->client;

    if (cc->running || !list_empty(&cc->dirty))
        return;
    list_append(&c->dirty, &cc->dirty);
    if (!c->task_posted) {
        c->task_posted = true;
        ev_defer(c->loop, &c->task);
    }
}

void client_conn_fail(struct client_conn *cc, bool hard)
{
    cc->hard = cc->hard || hard;
    if (!cc->over) {
        cc->over = true;
        client_conn_dirty(cc);
    }
}

/* Without a byte, an end or an error waiting: a connection that upstream has closed meanwhile
 * would lose the request on it. */
static bool is_fresh(const struct client_conn *cc)
{
    char byte;
    ssize_t n = recv(net_fd(cc->s), &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    return n < 0 && errno == EAGAIN;
}

static struct client_conn *idle_take(struct http_call *call)
{
    struct client_origin *origin = call->origin;
    struct client_conn *cc;

    while ((cc = list_first(&origin->idle, struct client_conn, idle))) {
        list_remove(&cc->idle);
        origin->n_idle--;
        http_wait_off(&cc->wait);
        if (!cc->over && is_fresh(cc) &&
            (!call->allow || origin->parent || call->allow(call->allow_ctx, net_peer(cc->s))))
            return cc;
        client_conn_fail(cc, false);
    }
    return NULL;
}

void client_conn_release(struct client_conn *cc)
{
    struct client_origin *origin = cc->origin;
    struct http_client *c = cc->client;

    cc->reused = true;
    if (cc->only || origin->n_idle >= c->o.max_idle) {
        client_conn_fail(cc, false);
        return;
    }
    list_prepend(&origin->idle, &cc->idle);
    origin->n_idle++;
    http_wait_put(&c->waits, CWAIT_IDLE, &cc->wait);
}

static void wait_due(void *ctx, struct http_wait *w)
{
    struct client_conn *cc = container_of(w, struct client_conn, wait);

    client_conn_fail(cc, false);
    client_conn_settle(cc);
}

static void head_due(void *ctx, struct http_wait *w)
{
    struct client_conn *cc = container_of(w, struct client_conn, wait);
    struct err e;

    err_set(&e, ERR_TIMEOUT, "no answer in time");
    if (cc->call)
        cc->call->repeatable = false;
    client_call_failed(cc, &e);
    client_conn_settle(cc);
}

struct http_client *http_client_new(struct ev_loop *loop, const struct http_client_opts *o)
{
    struct http_client *c = XNEW(struct http_client);

    c->loop = loop;
    c->o = *o;
    if (!c->o.idle_timeout_ms)
        c->o.idle_timeout_ms = 15000;
    if (!c->o.max_idle)
        c->o.max_idle = 32;
    if (!c->o.head_timeout_ms)
        c->o.head_timeout_ms = 330000;
    c->task.run = client_run;
    list_init(&c->conns);
    list_init(&c->calls);
    list_init(&c->dirty);
    http_waits_init(&c->waits, loop, c);
    http_waits_kind(&c->waits, CWAIT_HEAD, c->o.head_timeout_ms, head_due);
    http_waits_kind(&c->waits, CWAIT_IDLE, c->o.idle_timeout_ms, wait_due);
    http_waits_kind(&c->waits, CWAIT_LAST, CLIENT_LAST_MS, wait_due);
    return c;
}

void http_client_free(struct http_client **cp)
{
    struct http_client *c = *cp;
    struct list *it, *tmp;

    if (!c)
        return;
    *cp = NULL;
    list_each (it, tmp, &c->calls) { /* their owners free them later */
        struct http_call *call = list_entry(it, struct http_call, link);

        call_drop_dial(call);
        call->conn = NULL;
        call->done = true;
        client_origin_unref(c, &call->origin);
        list_remove(&call->link);
        call->client = NULL;
    }
    while (!list_empty(&c->conns)) {
        struct client_conn *cc = list_entry(c->conns.next, struct client_conn, link);

        ASSERT(!cc->running);
        cc->call = NULL;
        client_conn_close(cc);
    }
    if (c->task_posted)
        c->freed = true;
    else
        client_free_now(c);
}

/* --- calls --- */

/* What we say ourselves or what concerns the hop before. */
static bool is_left_out(const struct http_call_opts *o, struct view name)
{
    static const struct view ours[] = {
        {"host", 4},        {"content-length", 14}, {"transfer-encoding", 17},
        {"connection", 10}, {"keep-alive", 10},     {"expect", 6},
    };

    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        if (view_ieq(name, ours[i]))
            return true;
    }
    return !o->upgrade && view_ieq(name, VIEW_LIT("upgrade"));
}

static bool says_length_zero(struct view method)
{
    return view_is(method, "POST") || view_is(method, "PUT") || view_is(method, "PATCH");
}

/* The target for a parent: "*" becomes a URL without a path (RFC 9112 §3.2.4). */
static void write_absolute(const struct http_call_opts *o, struct str *out)
{
    struct str url = STR_INIT;

    str_adds(&url, "http://");
    str_addv(&url, o->authority);
    if (!view_is(o->target, "*"))
        str_addv(&url, o->target);
    h1_write_request(out, o->method, str_view(&url));
    str_fini(&url);
}

static void write_head(const struct http_call_opts *o, struct str *out)
{
    str_reserve(out, 1024);
    if (asks_absolute(o))
        write_absolute(o, out);
    else
        h1_write_request(out, o->method, o->target);
    h1_write_field(out, VIEW_LIT("Host"), o->authority);
    if (asks_absolute(o) && o->parent->authorization)
        h1_write_field(out, VIEW_LIT("Proxy-Authorization"), view_str(o->parent->authorization));
    for (size_t i = 0; i < o->n_fields; i++) {
        if (!is_left_out(o, o->fields[i].name))
            h1_write_field(out, o->fields[i].name, o->fields[i].value);
    }
    if (o->length < 0)
        str_adds(out, "Transfer-Encoding: chunked\r\n");
    else if (o->length > 0 || says_length_zero(o->method))
        str_addf(out, "Content-Length: %lld\r\n", (long long)o->length);
    if (o->upgrade)
        str_adds(out, "Connection: upgrade\r\n");
    h1_write_end(out);
}

/* The end of a call that failed. */
static void call_error(struct http_call *call, const struct err *e, bool sent)
{
    ASSERT(!call->done);
    call->done = true;
    if (call->ops.on_error)
        call->ops.on_error(call->ctx, e, sent);
}

void client_call_failed(struct client_conn *cc, const struct err *e)
{
    struct http_call *call = cc->call;

    client_conn_fail(cc, true);
    if (!call)
        return;
    cc->call = NULL;
    call->conn = NULL;
    if (call->repeatable && cc->reused && !cc->begun) {
        call->repeatable = false; /* RFC 9110 §9.2.2: once, and on a connection of its own */
        str_addv(&call->out, str_view(&call->head));
        call_dial(call);
        return;
    }
    call_error(call, e, cc->sent);
}

static void on_connected(void *ctx, struct net_stream *s, const struct err *e)
{
    struct http_call *call = ctx;
    struct err why;

    OBJ_CHECK(call, CLIENT_CALL_MAGIC);
    call->connect = NULL;
    if (s) {
        client_conn_attach(client_conn_new(call, s), call);
        return;
    }
    ASSERT(e);
    why = *e;
    if (call->origin->absolute)
        err_prefix(&why, "the parent proxy");
    call_error(call, &why, false);
}

/* --- connections that are given instead of dialled --- */

static void on_given(void *ctx)
{
    struct http_call *call = ctx;
    struct net_stream *s = call->given;

    call->given = NULL;
    on_connected(call, s, NULL);
    call->conn->only = true;
}

static void on_given_failed(void *ctx, const struct err *e)
{
    struct http_call *call = ctx;

    net_stream_close(&call->given, true);
    call_error(call, e, false);
}

static const struct net_stream_ops given_ops = {.on_ready = on_given, .on_failed = on_given_failed};

static void tell_not_given(void *ctx)
{
    struct http_call *call = ctx;

    ev_timer_free(&call->not_given_timer);
    call_error(call, &call->not_given, false);
}

static void call_take_given(struct http_call *call, const struct http_call_opts *o)
{
    const struct net_addr nowhere = {.len = sizeof(sa_family_t)};
    int fd = o->dial(o->dial_ctx, &call->not_given);

    call->repeatable = false;
    if (fd >= 0) {
        call->given = net_stream_connected(call->client->loop, fd, NULL, NULL, VIEW_NONE, &nowhere);
        net_stream_bind(call->given, &given_ops, call);
        return;
    }
    call->not_given_timer = ev_timer_new(call->client->loop, tell_not_given, call);
    ev_timer_arm(call->not_given_timer, 0);
}

static void call_drop_dial(struct http_call *call)
{
    if (call->connect)
        net_connect_cancel(&call->connect);
    if (call->given)
        net_stream_close(&call->given, true);
    ev_timer_free(&call->not_given_timer);
}

static void call_dial(struct http_call *call)
{
    const struct client_origin *origin = call->origin;
    struct net_connect_opts o = {
        .host = origin->absolute ? origin->parent->host : origin->host,
        .port = origin->absolute ? origin->parent->port : origin->port,
        .tls = origin->absolute ? origin->parent->tls : origin->tls,
        .alpn = VIEW_LIT("\x08http/1.1"),
        .allow = origin->parent ? NULL : call->allow,
        .allow_ctx = call->allow_ctx,
        .parent = origin->absolute ? NULL : origin->parent,
    };

    call->connect =
        net_connect_start(call->client->o.resolver, call->client->loop, &o, on_connected, call);
}

struct http_call *http_call_start(struct http_client *c, const struct http_call_opts *opts,
                                  const struct http_call_ops *ops, void *ctx)
{
    struct http_call *call = XNEW(struct http_call);
    struct http_call_opts by_way = *opts;
    const struct http_call_opts *o = &by_way;
    struct client_conn *cc;

    by_way.parent = net_parent_for(opts->parent, opts->host, opts->port);

    OBJ_INIT(call, CLIENT_CALL_MAGIC);
    call->client = c;
    call->ops = *ops;
    call->ctx = ctx;
    call->allow = o->allow;
    call->allow_ctx = o->allow_ctx;
    call->left = o->length;
    call->upgrade = o->upgrade;
    call->head_method = view_is(o->method, "HEAD");
    call->connect_method = view_is(o->method, "CONNECT");
    call->finished = o->length == 0;
    call->repeatable =
        o->length == 0 && !o->upgrade && (call->head_method || view_is(o->method, "GET"));
    call->origin = origin_get(c, o);
    list_append(&c->calls, &call->link);
    write_head(o, &call->out);
    if (o->dial) {
        call_take_given(call, o);
    } else if ((cc = idle_take(call))) {
        if (call->repeatable)
            str_addv(&call->head, str_view(&call->out));
        client_conn_attach(cc, call);
    } else {
        call_dial(call);
    }
    return call;
}

/* Where the bytes of the request are queued. */
static struct str *call_out(struct http_call *call)
{
    return call->conn ? &call->conn->out : &call->out;
}

static size_t call_queued(const struct http_call *call)
{
    return call->conn ? client_queued(call->conn) : call->out.n;
}

/* Large pieces go to the socket as they are if nothing is before them. Returns what was taken. */
static size_t write_direct(struct client_conn *cc, struct view piece)
{
    struct err e;
    ssize_t n;

    if (piece.n < CLIENT_DIRECT || client_queued(cc) || cc->blocked || cc->over || !cc->tunnel)
        return 0;
    n = net_write(cc->s, piece.p, piece.n, &e);
    if (n < 0 || (size_t)n < piece.n)
        cc->blocked = n != NET_ERROR; /* an error comes again at the end of the turn */
    if (n > 0)
        cc->sent = true;
    return n > 0 ? (size_t)n : 0;
}

size_t http_call_write(struct http_call *call, struct view piece)
{
    bool chunked = call->left < 0 && !(call->conn && call->conn->tunnel);
    size_t queued;

    OBJ_CHECK(call, CLIENT_CALL_MAGIC);
    if (call->done || !piece.n)
        return 0;
    if (call->conn && call->conn->tunnel) {
        ASSERT(!call->fin);
        piece = view_from(piece, write_direct(call->conn, piece));
    } else if (!chunked) {
        ASSERT(piece.n <= (uint64_t)call->left);
        call->left -= (int64_t)piece.n;
    }
    if (chunked)
        h1_write_chunk_head(call_out(call), piece.n);
    if (piece.n)
        str_addv(call_out(call), piece);
    if (chunked)
        str_add(call_out(call), "\r\n", 2);
    queued = call_queued(call);
    if (call->conn) {
        call->conn->high = call->conn->high || queued > HTTP_WRITE_HIGH;
        client_conn_dirty(call->conn);
    }
    return queued;
}

void http_call_finish(struct http_call *call)
{
    OBJ_CHECK(call, CLIENT_CALL_MAGIC);
    if (call->conn && call->conn->tunnel) {
        call->fin = true;
        client_conn_dirty(call->conn);
        return;
    }
    if (call->done || call->finished)
        return;
    ASSERT(call->left <= 0);
    call->finished = true;
    if (call->left < 0)
        str_addv(call_out(call), h1_last_chunk);
    if (call->conn)
        client_conn_dirty(call->conn);
}

void http_call_consumed(struct http_call *call, size_t n)
{
    OBJ_CHECK(call, CLIENT_CALL_MAGIC);
    if (!call->conn)
        return;
    ASSERT(n <= call->conn->unconsumed);
    call->conn->unconsumed -= n;
    client_conn_dirty(call->conn);
}

void http_call_free(struct http_call **callp)
{
    struct http_call *call = *callp;
    struct client_conn *cc;

    if (!call)
        return;
    *callp = NULL;
    OBJ_CHECK(call, CLIENT_CALL_MAGIC);
    call_drop_dial(call);
    if ((cc = call->conn)) {
        cc->call = NULL;
        if (cc->eof_given && client_queued(cc)) {
            cc->last = true;
            http_wait_put(&cc->client->waits, CWAIT_LAST, &cc->wait);
            client_conn_dirty(cc);
        } else {
            client_conn_fail(cc, !cc->eof_given);
        }
    }
    if (call->client) {
        list_remove(&call->link);
        client_origin_unref(call->client, &call->origin);
    }
    str_fini(&call->out);
    str_fini(&call->head);
    OBJ_FINI(call);
    xfree(call);
}
