/*
 * Server and client back to back, as the relays use them: raw client, server, client, server that echoes. Nothing may stand
 * still, get lost or be told twice, however the ends behave.
 */
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "base/xmem.h"
#include "http/client.h"
#include "rt/clock.h"
#include "rt/rng.h"

enum { RAWS = 12 };

static struct rig r; /* its own server is the one behind */
static struct http_server *front;
static struct http_client *client;
static struct rng rng;
static struct raw raws[RAWS];
static size_t relays;

/* --- dialling is being accepted by the server behind --- */

struct net_connect {
    struct ev_task task;
    struct ev_loop *loop;
    net_connected_fn fn;
    void *ctx;
};

static void dialled(struct ev_task *task)
{
    struct net_connect *c = container_of(task, struct net_connect, task);
    struct net_addr peer;
    struct err e;
    int fds[2];

    if (c->fn) {
        assert_int_equal(net_addr_parse(VIEW_LIT("192.0.2.9:80"), &peer, &e), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        http_server_accepted(r.server, fds[1], &peer);
        c->fn(c->ctx, net_stream_connected(c->loop, fds[0], NULL, NULL, VIEW_NONE, &peer), NULL);
    }
    xfree(c);
}

struct net_connect *net_connect_start(struct net_resolver *resolver, struct ev_loop *loop,
                                      const struct net_connect_opts *o, net_connected_fn fn,
                                      void *ctx)
{
    struct net_connect *c = XNEW(struct net_connect);

    c->task.run = dialled;
    c->loop = loop;
    c->fn = fn;
    c->ctx = ctx;
    ev_defer(loop, &c->task);
    return c;
}

void net_connect_cancel(struct net_connect **c)
{
    if (*c)
        (*c)->fn = NULL;
    *c = NULL;
}

/* --- the relay --- */

struct relay {
    struct http_exchange *ex;
    struct http_call *call;
    bool answered, tunnel;
    size_t held_up, held_down;
};

static void maybe_free(struct relay *y)
{
    if (y->ex || y->call)
        return;
    relays--;
    xfree(y);
}

static void down_body(void *ctx, struct view piece)
{
    struct relay *y = ctx;

    if (!y->call)
        http_consumed(y->ex, piece.n);
    else if (http_call_write(y->call, piece) > HTTP_WRITE_HIGH)
        y->held_up += piece.n;
    else
        http_consumed(y->ex, piece.n);
}

static void down_end(void *ctx)
{
    struct relay *y = ctx;

    if (y->call)
        http_call_finish(y->call);
}

static void down_drain(void *ctx)
{
    struct relay *y = ctx;

    if (y->call && y->held_down)
        http_call_consumed(y->call, y->held_down);
    y->held_down = 0;
}

static void down_gone(void *ctx, bool complete)
{
    struct relay *y = ctx;

    y->ex = NULL;
    http_call_free(&y->call);
    maybe_free(y);
}

static const struct http_handler down = {
    .on_body = down_body, .on_end = down_end, .on_drain = down_drain, .on_gone = down_gone};

static void up_head(void *ctx, int status, const struct h1_field *f, size_t n, int64_t length)
{
    struct relay *y = ctx;

    y->answered = true;
    y->tunnel = status == 101;
    if (y->tunnel)
        http_switch(y->ex, 101, NULL, 0);
    else
        http_reply_start(y->ex, status, NULL, 0, length);
}

static void up_body(void *ctx, struct view piece)
{
    struct relay *y = ctx;

    if (http_write(y->ex, piece) > HTTP_WRITE_HIGH)
        y->held_down += piece.n;
    else
        http_call_consumed(y->call, piece.n);
}

static void up_end(void *ctx)
{
    struct relay *y = ctx;

    http_finish(y->ex);
    if (!y->tunnel)
        http_call_free(&y->call);
}

static void up_drain(void *ctx)
{
    struct relay *y = ctx;

    if (y->held_up)
        http_consumed(y->ex, y->held_up);
    y->held_up = 0;
}

static void up_error(void *ctx, const struct err *e, bool sent)
{
    struct relay *y = ctx;

    http_call_free(&y->call);
    if (y->answered)
        http_abort(y->ex);
    else
        http_reply(y->ex, 502, NULL, 0, VIEW_NONE);
}

static const struct http_call_ops up = {up_head, up_body, up_end, up_drain, up_error};

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct relay *y = XNEW(struct relay);
    struct http_call_opts o = {.host = "behind", .port = 80, .method = req->method,
                               .target = req->target, .authority = VIEW_LIT("behind"),
                               .fields = req->fields, .n_fields = req->n_fields,
                               .upgrade = req->upgrade,
                               .length = req->has_body ? req->content_length : 0};

    relays++;
    y->ex = ex;
    http_bind(ex, &down, y);
    y->call = http_call_start(client, &o, &up, y);
}

static void open_all(void)
{
    static const struct http_service service = {.take = take};
    struct http_server_opts o = {.service = &service};
    struct http_client_opts co = {0};

    rig_open(&r, NULL);
    front = http_server_new(r.loop, &o);
    client = http_client_new(r.loop, &co);
}

static void close_all(void)
{
    http_server_free(&front);
    http_client_free(&client);
    assert_int_equal(relays, 0);
    rig_close(&r);
}

static void connect_front(struct raw *raw)
{
    struct net_addr peer;
    struct err e;
    int fds[2];

    assert_int_equal(net_addr_parse(VIEW_LIT("192.0.2.1:1234"), &peer, &e), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    rig_adopt(&r, raw, fds[0]);
    http_server_accepted(front, fds[1], &peer);
}

static char *bytes(size_t n)
{
    char *p = xmalloc(n);

    for (size_t i = 0; i < n; i++)
        p[i] = (char)(i * 31 + i / 4096);
    return p;
}

/* --- tests --- */

static void much_both_ways(const char *head, size_t total, bool chunk)
{
    char *p = bytes(total), text[200];

    open_all();
    connect_front(&raws[0]);
    snprintf(text, sizeof text, "%s%s: ", head, chunk ? "Transfer-Encoding" : "Content-Length");
    raw_send(&raws[0], text);
    if (chunk)
        snprintf(text, sizeof text, "chunked\r\n\r\n%zx\r\n", total);
    else
        snprintf(text, sizeof text, "%zu\r\n\r\n", total);
    raw_send(&raws[0], text);
    raw_send_n(&raws[0], p, total);
    raw_send(&raws[0], chunk ? "\r\n0\r\n\r\n" : "");
    for (int i = 0; i < 10; i++) { /* now and then it does not read */
        raws[0].deaf = i % 2;
        rig_turns(&r, 10);
    }
    raws[0].deaf = false;
    raw_expect_eof(&r, &raws[0]); /* HTTP/1.0: the end is the connection's */
    assert_true(raws[0].got.n > total);
    assert_int_equal(memcmp(raws[0].got.p + raws[0].got.n - total, p, total), 0);
    close_all();
    xfree(p);
}

static void echo_through(void **state)
{
    much_both_ways("PUT /echo HTTP/1.0\r\n", 4000000, false);
    much_both_ways("PUT /echo HTTP/1.0\r\n", 1, false);
}

static void chunks_through(void **state)
{
    size_t total = 2000000;
    char *p = bytes(total), text[100];

    open_all();
    connect_front(&raws[0]);
    raw_send(&raws[0], "PUT /end HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (size_t at = 0, n; at < total; at += n) {
        n = TR_MIN(total - at, at % 5000 + 1);
        snprintf(text, sizeof text, "%zx\r\n", n);
        raw_send(&raws[0], text);
        raw_send_n(&raws[0], p + at, n);
        raw_send(&raws[0], "\r\n");
    }
    raw_send(&raws[0], "0\r\n\r\nGET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_expect(&r, &raws[0], "hello");
    assert_int_equal(raw_count(&raws[0], "HTTP/1.1 204"), 1);
    assert_int_equal(r.seen[0].body.n, total);
    assert_int_equal(memcmp(r.seen[0].body.p, p, total), 0);
    assert_int_equal(http_server_connections(r.server), 1);
    close_all();
    xfree(p);
}

static void tunnel_through(void **state)
{
    size_t total = 12000000;
    char *p = bytes(total);

    open_all();
    connect_front(&raws[0]);
    raw_send(&raws[0], "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    raw_send_n(&raws[0], p, total);
    raws[0].deaf = true; /* though a little was read by now */
    rig_turns(&r, 100);
    assert_true(raws[0].sent_total < 5000000); /* nobody buffers without end */
    raws[0].deaf = false;
    while (raws[0].todo_off < raws[0].todo.n)
        rig_turns(&r, 1);
    shutdown(raws[0].fd, SHUT_WR);
    raw_expect_eof(&r, &raws[0]); /* the echo ends when we do, through both */
    assert_int_equal(memcmp(raws[0].got.p, "HTTP/1.1 101 ", 13), 0);
    assert_int_equal(memcmp(raws[0].got.p + raws[0].got.n - total, p, total), 0);
    while (relays)
        rig_turns(&r, 1);
    close_all();
    xfree(p);
}

static void early_answer_through(void **state)
{
    size_t total = 3000000;
    char *p = bytes(total);

    open_all();
    connect_front(&raws[0]);
    raw_send(&raws[0], "PUT /early HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n");
    raw_send_n(&raws[0], p, total);
    raw_expect(&r, &raws[0], "too large");
    assert_int_equal(memcmp(raws[0].got.p, "HTTP/1.1 413 ", 13), 0);
    raw_expect_eof(&r, &raws[0]);
    close_all();
    xfree(p);
}

static void upstream_breaks_off(void **state)
{
    open_all();
    connect_front(&raws[0]);
    connect_front(&raws[1]);
    raw_send(&raws[0], "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_expect_seen(&r, 1);
    http_abort(r.seen[0].ex);
    raw_expect(&r, &raws[0], "HTTP/1.1 502 ");
    raw_send(&raws[1], "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_expect_seen(&r, 2);
    http_reply_start(r.seen[1].ex, 200, NULL, 0, 1000);
    http_write(r.seen[1].ex, VIEW_LIT("some"));
    raw_expect(&r, &raws[1], "some");
    http_abort(r.seen[1].ex);
    raw_expect_eof(&r, &raws[1]);
    assert_true(raws[1].got.n < 1000);
    close_all();
}

static void client_that_leaves_ends_the_call(void **state)
{
    open_all();
    connect_front(&raws[0]);
    raw_send(&raws[0], "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_expect_seen(&r, 1);
    raw_close(&r, &raws[0]);
    rig_expect_gone(&r, 0);
    assert_int_equal(relays, 0);
    close_all();
}

/* --- at random --- */

static bool step(void *ctx)
{
    static const char *const texts[] = {
        "GET /now HTTP/1.1\r\nHost: h\r\n\r\n",
        "PUT /end HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde",
        "PUT /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "GET /big?700000 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw",
        "PUT /early HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nabcde",
        "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n",
    };
    struct raw *raw = &raws[rng_below(&rng, RAWS)];
    size_t which = rng_below(&rng, ARRAY_LEN(texts));

    if (raw->fd >= 0 && (raw->eof || rng_below(&rng, 12) == 0)) {
        raw_close(&r, raw);
    } else if (raw->fd >= 0 && r.n_seen < RIG_EXCHANGES - RAWS * 2) {
        size_t n = strlen(texts[which]);

        raw_send_n(raw, texts[which], rng_below(&rng, 5) ? n : rng_below(&rng, n));
        raw->deaf = rng_below(&rng, 8) == 0;
    }
    for (size_t i = 0; i < r.n_seen; i++) {
        if (r.seen[i].ex && rng_below(&rng, 30) == 0 && !strcmp(r.seen[i].target, "/wait"))
            http_abort(r.seen[i].ex);
    }
    return --*(int *)ctx <= 0;
}

static void anything_goes(void **state)
{
    const char *seed = getenv("CHAOS_SEED"), *rounds = getenv("CHAOS_ROUNDS");
    uint64_t first = seed ? strtoull(seed, NULL, 10) : (uint64_t)clock_mono_ns();
    int n = rounds ? atoi(rounds) : 4;

    for (int i = 0; i < n; i++) {
        int steps = 150;

        print_message("seed %llu\n", (unsigned long long)first + (unsigned)i);
        rng_seed(&rng, first + (uint64_t)i);
        open_all();
        for (int k = 0; k < RAWS; k++)
            connect_front(&raws[k]);
        rig_until(&r, step, &steps);
        if (rng_below(&rng, 2)) {
            for (int k = 0; k < RAWS; k++) {
                if (raws[k].fd >= 0)
                    raw_close(&r, &raws[k]);
            }
            while (relays || http_server_connections(front))
                rig_turns(&r, 1);
        }
        close_all();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echo_through),
        cmocka_unit_test(chunks_through),
        cmocka_unit_test(tunnel_through),
        cmocka_unit_test(early_answer_through),
        cmocka_unit_test(upstream_breaks_off),
        cmocka_unit_test(client_that_leaves_ends_the_call),
        cmocka_unit_test(anything_goes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
