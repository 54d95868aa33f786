#include "http/server.h"

#include <unistd.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "http/server_priv.h"
#include "net/seats.h"
#include "rt/clock.h"
#include "rt/log.h"
#include "rt/overload.h"

/* A client that has just been answered is likely to ask again. */
#define IDLE_LEAST_NS (2 * NS_PER_SEC)

static struct {
    struct metric *connections[2]; /* h1, h2 */
    struct metric *requests[2];
    struct metric *glitches[GLITCH_KINDS];
} metrics;

static const char *const glitch_names[GLITCH_KINDS] = {
    [GLITCH_BAD_REQUEST] = "bad_request",
    [GLITCH_CUT_REQUEST] = "cut_request",
    [GLITCH_SLOW_HEAD] = "slow_head",
    [GLITCH_SLOW_BODY] = "slow_body",
    [GLITCH_SLOW_READER] = "slow_reader",
    [GLITCH_HANDSHAKE] = "handshake",
    [GLITCH_H2_PROTOCOL] = "h2_protocol",
    [GLITCH_H2_FLOOD] = "h2_flood",
    [GLITCH_CONNECTION_LIMIT] = "connection_limit",
};

static void metrics_register(void)
{
    static const char *const protocols[2] = {"http/1.1", "h2"};
    struct metric_family *conns = metric_family(METRIC_GAUGE, "http_connections", "protocol",
                                                "Client connections open, by protocol.");
    struct metric_family *reqs =
        metric_family(METRIC_COUNTER, "http_requests", "protocol", "Requests taken, by protocol.");
    struct metric_family *odd = metric_family(METRIC_COUNTER, "http_glitches", "kind",
                                              "Clients that broke a rule or a limit, by kind.");

    for (int i = 0; i < 2; i++) {
        metrics.connections[i] = metric_series(conns, protocols[i]);
        metrics.requests[i] = metric_series(reqs, protocols[i]);
    }
    for (int i = 0; i < GLITCH_KINDS; i++)
        metrics.glitches[i] = metric_series(odd, glitch_names[i]);
}

void http_glitch(enum http_glitch kind)
{
    metric_add(metrics.glitches[kind], 1);
}

void http_count_request(const struct http_exchange *ex)
{
    metric_add(metrics.requests[ex->req.version == 20], 1);
}

/* --- connections --- */

static void count_held(struct http_conn *c, size_t held)
{
    if (held == c->held)
        return;
    buffers_shift((int64_t)held - (int64_t)c->held);
    c->held = held;
}

static void conn_close(struct http_conn *c)
{
    struct http_server *s = c->srv;

    list_remove(&c->link);
    list_remove(&c->dirty);
    s->n_conns--;
    c->running = true; /* whatever the handlers do in on_gone does not bring it back */
    c->over = true;
    if (c->ops)
        c->ops->gone(c);
    http_wait_off(&c->rd);
    http_wait_off(&c->wr);
    list_remove(&c->dirty);
    if (c->on_closed)
        c->on_closed(c->tag, c->s);
    net_stream_close(&c->s, c->hard);
    if (c->gauge)
        metric_shift(c->gauge, -1);
    count_held(c, 0);
    OBJ_FINI(c);
    xfree(c);
}

/* Every callback of a connection is between these two. */
static void conn_enter(struct http_conn *c)
{
    OBJ_CHECK(c, HTTP_CONN_MAGIC);
    ASSERT(!c->running);
    c->running = true;
}

static void conn_leave(struct http_conn *c)
{
    if (!c->over && !c->lingering && c->ops)
        c->ops->settle(c);
    c->running = false;
    if (c->over)
        conn_close(c);
    else if (c->ops)
        count_held(c, c->ops->held(c));
}

static void server_post(struct http_server *s)
{
    if (!s->task_posted) {
        s->task_posted = true;
        ev_defer(s->loop, &s->task);
    }
}

void http_conn_dirty(struct http_conn *c)
{
    if (c->running || !list_empty(&c->dirty))
        return;
    list_append(&c->srv->dirty, &c->dirty);
    server_post(c->srv);
}

void http_conn_fail(struct http_conn *c, bool hard)
{
    c->hard = c->hard || hard;
    if (!c->over) {
        c->over = true;
        http_conn_dirty(c);
    }
}

static void server_free_now(struct http_server *s)
{
    http_spares_free(s);
    http_waits_fini(&s->waits);
    xfree(s->scratch);
    xfree(s);
}

/* End of the turn: settle what handlers touched from outside their connections' callbacks. */
static void server_run(struct ev_task *task)
{
    struct http_server *s = container_of(task, struct http_server, task);
    struct list now;

    s->task_posted = false;
    if (s->freed) {
        server_free_now(s);
        return;
    }
    list_init(&now);
    list_move_all(&now, &s->dirty);
    while (!list_empty(&now)) {
        struct http_conn *c = list_entry(now.next, struct http_conn, dirty);

        list_remove(&c->dirty);
        conn_enter(c);
        conn_leave(c);
    }
}

void http_conn_blocked(struct http_conn *c, size_t moved)
{
    struct http_waits *ws = &c->srv->waits;

    c->blocked_ns += http_wait_ns(ws, WAIT_WRITE, &c->wr);
    c->blocked_bytes += moved;
    if (c->blocked_ns >
        ws->kinds[WAIT_WRITE].after_ns + http_least_rate_ns(c->srv, c->blocked_bytes))
        http_wait_now(ws, WAIT_WRITE, &c->wr);
    else
        http_wait_put(ws, WAIT_WRITE, &c->wr);
}

void http_conn_unblocked(struct http_conn *c)
{
    http_wait_off(&c->wr);
    c->blocked_ns = 0;
    c->blocked_bytes = 0;
}

void http_conn_want_read(struct http_conn *c, bool on)
{
    if (c->reading != on) {
        c->reading = on;
        net_want_read(c->s, on);
    }
}

void http_conn_linger(struct http_conn *c)
{
    net_shutdown_write(c->s);
    c->lingering = true;
    c->dropped = 0;
    http_wait_put(&c->srv->waits, WAIT_LINGER, &c->rd);
    http_conn_want_read(c, true);
}

static void linger_readable(struct http_conn *c)
{
    struct err e;
    ssize_t n = net_read(c->s, http_scratch(c->srv), HTTP_SCRATCH, &e);

    if (n == NET_AGAIN)
        return;
    if (n > 0)
        c->dropped += (size_t)n;
    if (n <= 0 || c->dropped > HTTP_DROP_MAX)
        http_conn_fail(c, false);
}

uint8_t *http_scratch(struct http_server *s)
{
    if (!s->scratch)
        s->scratch = xmalloc(HTTP_SCRATCH);
    return s->scratch;
}

void http_taken_in(const struct http_server *s, uint64_t heads, void *p, size_t n)
{
    if (s->heads != heads)
        explicit_bzero(p, n);
}

void http_conn_protocol(struct http_conn *c, const struct http_conn_ops *ops)
{
    c->ops = ops;
    if (c->gauge)
        metric_shift(c->gauge, -1);
    c->gauge = metrics.connections[ops == &http_h2_ops];
    metric_shift(c->gauge, 1);
}

static void on_ready(void *ctx)
{
    struct http_conn *c = ctx;

    conn_enter(c);
    c->ready = true;
    http_wait_put(&c->srv->waits, WAIT_IDLE, &c->rd);
    if (net_is_tls(c->s) && view_is(net_alpn(c->s), "h2")) {
        http_h2_start(c, VIEW_NONE);
    } else {
        c->sniffing = !net_is_tls(c->s);
        http_conn_protocol(c, &http_h1_ops);
    }
    http_conn_want_read(c, true);
    conn_leave(c);
}

static void on_readable(void *ctx)
{
    struct http_conn *c = ctx;

    conn_enter(c);
    if (c->lingering)
        linger_readable(c);
    else if (c->ops)
        c->ops->readable(c);
    conn_leave(c);
}

static void on_writable(void *ctx)
{
    struct http_conn *c = ctx;

    conn_enter(c);
    c->blocked = false;
    conn_leave(c);
}

static void on_failed(void *ctx, const struct err *e)
{
    struct http_conn *c = ctx;

    conn_enter(c);
    if (!c->ready) {
        http_glitch(GLITCH_HANDSHAKE);
        log_event(LOG_DEBUG, "http", "handshake failed", LF_ERR(e));
    }
    http_conn_fail(c, false);
    conn_leave(c);
}

static const struct net_stream_ops stream_ops = {
    .on_ready = on_ready,
    .on_readable = on_readable,
    .on_writable = on_writable,
    .on_failed = on_failed,
};

/* --- timeouts --- */

static void head_due(void *ctx, struct http_wait *w)
{
    struct http_conn *c = container_of(w, struct http_conn, rd);

    conn_enter(c);
    http_glitch(GLITCH_SLOW_HEAD);
    if (c->ops)
        c->ops->timeout(c, WAIT_HEAD);
    else
        http_conn_fail(c, true); /* the handshake was not done in time */
    conn_leave(c);
}

static void idle_due(void *ctx, struct http_wait *w)
{
    struct http_conn *c = container_of(w, struct http_conn, rd);

    conn_enter(c);
    c->ops->timeout(c, WAIT_IDLE);
    conn_leave(c);
}

static void linger_due(void *ctx, struct http_wait *w)
{
    struct http_conn *c = container_of(w, struct http_conn, rd);

    conn_enter(c);
    http_conn_fail(c, false);
    conn_leave(c);
}

static void write_due(void *ctx, struct http_wait *w)
{
    struct http_conn *c = container_of(w, struct http_conn, wr);

    conn_enter(c);
    http_glitch(GLITCH_SLOW_READER);
    http_conn_fail(c, true);
    conn_leave(c);
}

static void body_due(void *ctx, struct http_wait *w)
{
    struct http_exchange *ex = container_of(w, struct http_exchange, body);
    struct http_conn *c = ex->conn;

    conn_enter(c);
    c->ops->body_late(ex);
    conn_leave(c);
}

static void stall_due(void *ctx, struct http_wait *w)
{
    struct http_exchange *ex = container_of(w, struct http_exchange, stall);
    struct http_conn *c = ex->conn;

    conn_enter(c);
    c->ops->stall_late(ex, WAIT_STALL);
    conn_leave(c);
}

static void drop_due(void *ctx, struct http_wait *w)
{
    struct http_exchange *ex = container_of(w, struct http_exchange, stall);
    struct http_conn *c = ex->conn;

    conn_enter(c);
    c->ops->stall_late(ex, WAIT_DROP);
    conn_leave(c);
}

static unsigned or_default(unsigned value, unsigned def)
{
    return value ? value : def;
}

static void waits_set_up(struct http_server *s)
{
    struct http_waits *ws = &s->waits;
    unsigned write_ms = or_default(s->o.write_timeout_ms, 60000);

    http_waits_init(ws, s->loop, s);
    http_waits_kind(ws, WAIT_HEAD, or_default(s->o.head_timeout_ms, 10000), head_due);
    http_waits_kind(ws, WAIT_IDLE, or_default(s->o.idle_timeout_ms, 75000), idle_due);
    http_waits_kind(ws, WAIT_LINGER, HTTP_DROP_MS, linger_due);
    http_waits_kind(ws, WAIT_FIRST, HTTP_FIRST_MS, linger_due);
    http_waits_kind(ws, WAIT_WRITE, write_ms, write_due);
    http_waits_kind(ws, WAIT_BODY, or_default(s->o.body_timeout_ms, 30000), body_due);
    http_waits_kind(ws, WAIT_STALL, write_ms, stall_due);
    http_waits_kind(ws, WAIT_DROP, HTTP_DROP_MS, drop_due);
}

/* --- the server --- */

struct http_server *http_server_new(struct ev_loop *loop, const struct http_server_opts *o)
{
    struct http_server *s = XNEW(struct http_server);

    ASSERT(o->service && o->service->take);
    metrics_register();
    s->loop = loop;
    s->o = *o;
    s->o.max_connections = or_default(o->max_connections, 10000);
    s->o.least_rate = or_default(o->least_rate, HTTP_LEAST_RATE);
    if (o->tls)
        s->o.tls = tls_ctx_ref(o->tls);
    s->task.run = server_run;
    list_init(&s->conns);
    list_init(&s->dirty);
    waits_set_up(s);
    return s;
}

void http_server_accepted(void *server, int fd, const struct net_addr *peer)
{
    (void)http_server_accepted_as(server, fd, peer, &(struct http_conn_opts){0});
}

int http_server_accepted_as(struct http_server *s, int fd, const struct net_addr *peer,
                            const struct http_conn_opts *o)
{
    struct http_conn *c;

    if (s->draining || s->n_conns >= s->o.max_connections) {
        if (!s->draining)
            http_glitch(GLITCH_CONNECTION_LIMIT);
        seat_give_back(fd);
        close(fd);
        if (o->early)
            buf_fini(o->early);
        return -1;
    }
    c = XNEW(struct http_conn);
    OBJ_INIT(c, HTTP_CONN_MAGIC);
    c->srv = s;
    list_append(&s->conns, &c->link);
    list_init(&c->dirty);
    http_wait_init(&c->rd);
    http_wait_init(&c->wr);
    s->n_conns++;
    c->listener = o->listener ? o->listener : s->o.listener;
    c->identity = o->identity;
    c->secure = o->secure;
    c->tag = o->tag;
    c->on_closed = o->on_closed;
    c->s = net_stream_accepted_early(s->loop, fd, o->tls ? o->tls : s->o.tls, peer, o->early);
    net_stream_bind(c->s, &stream_ops, c);
    http_wait_put(&s->waits, WAIT_HEAD, &c->rd);
    return 0;
}

void http_server_set_tls(struct http_server *s, struct tls_ctx *tls)
{
    struct tls_ctx *old = s->o.tls;

    s->o.tls = tls ? tls_ctx_ref(tls) : NULL;
    if (old)
        tls_ctx_unref(&old);
}

static void settle_all(struct http_server *s)
{
    struct list *it, *tmp;

    list_each (it, tmp, &s->conns)
        http_conn_dirty(list_entry(it, struct http_conn, link));
}

void http_server_drain(struct http_server *s)
{
    s->draining = true;
    settle_all(s);
}

void http_server_hold(struct http_server *s, bool on)
{
    s->held = on;
    settle_all(s);
}

void http_server_end_tunnels(struct http_server *s, const void *tag)
{
    struct list *it, *tmp;

    list_each (it, tmp, &s->conns) {
        struct http_conn *c = list_entry(it, struct http_conn, link);

        if (c->tag == tag && c->ops && !c->over)
            c->ops->end_tunnels(c);
    }
}

void http_server_last(struct http_server *s)
{
    s->last = true;
}

unsigned http_server_close_idle(struct http_server *s, unsigned n)
{
    struct list *idle = &s->waits.kinds[WAIT_IDLE].queue;
    int64_t until = ev_now_ns(s->loop) + s->waits.kinds[WAIT_IDLE].after_ns - IDLE_LEAST_NS;
    unsigned closed = 0;

    for (; closed < n && !list_empty(idle); closed++) {
        struct http_wait *w = list_first(idle, struct http_wait, link);
        struct http_conn *c = container_of(w, struct http_conn, rd);

        if (w->due_ns > until || c->running)
            break;
        conn_enter(c);
        http_conn_fail(c, false);
        conn_leave(c);
    }
    return closed;
}

/* Does it hold memory for a client that takes nothing? Of HTTP/2 only the whole is looked at. */
static bool is_stuck(const struct http_conn *c)
{
    const int64_t blocked = http_wait_ns(&c->srv->waits, WAIT_WRITE, &c->wr);

    return c->held >= HTTP_SHED_LEAST && !c->running &&
           (blocked >= NS_PER_SEC || (c->h2 && c->held >= HTTP_WRITE_HIGH) ||
            (c->blocked && !http_wait_is_on(&c->wr))); /* a tunnel: no timeout of ours */
}

unsigned http_server_shed(struct http_server *s)
{
    struct list *it, *tmp;
    unsigned n = 0;

    list_each (it, tmp, &s->conns) {
        struct http_conn *c = list_entry(it, struct http_conn, link);
        char text[NET_ADDR_TEXT];

        if (buffers_eased())
            break;
        if (!is_stuck(c))
            continue;
        overload_refused(OVERLOAD_BUFFERS, net_addr_ip(net_peer(c->s), text), VIEW_NONE);
        conn_enter(c);
        http_conn_fail(c, true);
        conn_leave(c);
        n++;
    }
    return n;
}

size_t http_server_connections(const struct http_server *s)
{
    return s->n_conns;
}

void http_server_free(struct http_server **sp)
{
    struct http_server *s = *sp;

    if (!s)
        return;
    *sp = NULL;
    s->draining = true;
    while (!list_empty(&s->conns)) {
        struct http_conn *c = list_entry(s->conns.next, struct http_conn, link);

        ASSERT(!c->running);
        conn_close(c);
    }
    if (s->o.tls)
        tls_ctx_unref(&s->o.tls);
    if (s->task_posted)
        s->freed = true;
    else
        server_free_now(s);
}
