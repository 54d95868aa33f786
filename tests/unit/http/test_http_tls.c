/* Server and client against each other over TLS and loopback, with the real listener and dialler.
 */
#include "rig.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "../crypto/certs.h"
#include "base/xmem.h"
#include "http/client.h"
#include "net/listen.h"
#include "rt/metric.h"

static struct certs certs;
static struct rig r;
static struct net_listener *listener;
static struct net_resolver *resolver;
static struct http_client *client;
static struct tls_ctx *server_tls, *client_tls;
static struct net_addr where;

static void open_all(unsigned head_timeout_ms)
{
    struct tls_server_opts so = {.certificate = certs_path(&certs, "server.pem"),
                                 .key = certs_path(&certs, "server.key"),
                                 .http2 = true};
    struct tls_client_opts co = {.ca = certs_path(&certs, "ca.pem")};
    struct http_server_opts o = {.head_timeout_ms = head_timeout_ms};
    struct http_client_opts cl = {0};
    struct err e;
    int fd;

    server_tls = tls_ctx_server(&so, &e);
    client_tls = tls_ctx_client(&co, &e);
    assert_true(server_tls && client_tls);
    o.tls = server_tls;
    rig_open(&r, &o);
    assert_int_equal(net_addr_parse(VIEW_LIT("127.0.0.1:0"), &where, &e), 0);
    fd = net_listen_fd(&where, 16, &where, &e);
    assert_true(fd >= 0);
    listener = net_listener_new(r.loop, fd, http_server_accepted, r.server);
    resolver = net_resolver_new(r.loop, NULL, &e);
    cl.resolver = resolver;
    client = http_client_new(r.loop, &cl);
}

static void close_all(void)
{
    net_listener_free(&listener);
    http_client_free(&client);
    net_resolver_free(&resolver);
    rig_close(&r);
    tls_ctx_unref(&server_tls);
    tls_ctx_unref(&client_tls);
}

struct got {
    struct http_call *call;
    int status;
    struct str body;
    bool ended, failed;
    const char *up;
    size_t up_n, up_off, held;
};

static void send_up(struct got *g)
{
    while (g->up_off < g->up_n) {
        size_t n = TR_MIN(g->up_n - g->up_off, (size_t)30000);
        size_t queued = http_call_write(g->call, view_of(g->up + g->up_off, n));

        g->up_off += n;
        if (queued > HTTP_WRITE_HIGH)
            return;
    }
    if (g->up_n) {
        g->up_n = 0;
        http_call_finish(g->call);
    }
}

static void on_head(void *ctx, int status, const struct h1_field *f, size_t n, int64_t length)
{
    ((struct got *)ctx)->status = status;
}

static void on_body(void *ctx, struct view piece)
{
    struct got *g = ctx;

    str_addv(&g->body, piece);
    http_call_consumed(g->call, piece.n);
}

static void on_end(void *ctx)
{
    ((struct got *)ctx)->ended = true;
}

static void on_drain(void *ctx)
{
    send_up(ctx);
}

static void on_error(void *ctx, const struct err *e, bool sent)
{
    ((struct got *)ctx)->failed = true;
}

static const struct http_call_ops ops = {on_head, on_body, on_end, on_drain, on_error};

static bool is_over(void *ctx)
{
    struct got *g = ctx;

    return g->ended || g->failed;
}

static void call(struct got *g, const char *method, const char *target, int64_t length)
{
    struct http_call_opts o = {.host = "localhost",
                               .port = net_addr_port(&where),
                               .tls = client_tls,
                               .method = view_str(method),
                               .target = view_str(target),
                               .authority = VIEW_LIT("localhost"),
                               .length = length};

    g->call = http_call_start(client, &o, &ops, g);
}

static void calls_over_tls(void **state)
{
    size_t total = 3000000;
    char *p = xmalloc(total);
    struct got g = {0}, h = {.up = p, .up_n = total};

    for (size_t i = 0; i < total; i++)
        p[i] = (char)(i * 7 + i / 1000);
    open_all(0);
    call(&g, "GET", "/now", 0);
    rig_until(&r, is_over, &g);
    assert_true(g.ended);
    assert_string_equal(str_c(&g.body), "hello");
    call(&h, "POST", "/echo", -1);
    send_up(&h);
    rig_until(&r, is_over, &h);
    assert_true(h.ended);
    assert_int_equal(h.body.n, total);
    assert_int_equal(memcmp(h.body.p, p, total), 0);
    assert_int_equal(http_server_connections(r.server), 1); /* one for both */
    http_call_free(&g.call);
    http_call_free(&h.call);
    str_fini(&g.body);
    str_fini(&h.body);
    close_all();
    xfree(p);
}

/* --- by ALPN --- */

struct probe {
    struct net_stream *s;
    bool ready, over;
    struct str got;
};

static void probe_ready(void *ctx)
{
    struct probe *p = ctx;
    struct err e;

    p->ready = true;
    net_want_read(p->s, true);
    assert_true(net_write(p->s, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33, &e) ==
                33);
}

static void probe_readable(void *ctx)
{
    struct probe *p = ctx;
    char bytes[1000];
    struct err e;
    ssize_t n = net_read(p->s, bytes, sizeof bytes, &e);

    if (n > 0)
        str_add(&p->got, bytes, (size_t)n);
    else if (n != NET_AGAIN)
        p->over = true;
}

static void probe_failed(void *ctx, const struct err *e)
{
    ((struct probe *)ctx)->over = true;
}

static const struct net_stream_ops probe_ops = {
    .on_ready = probe_ready, .on_readable = probe_readable, .on_failed = probe_failed};

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&where.ss, where.len), 0);
    return fd;
}

static bool has_frame(void *ctx)
{
    struct probe *p = ctx;

    return p->over || p->got.n >= 9;
}

static void alpn_chooses(const char *alpn, bool h2)
{
    struct probe p = {0};
    int fd;

    open_all(0);
    fd = dial();
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    p.s = net_stream_connected(r.loop, fd, client_tls, "localhost", view_str(alpn), &where);
    net_stream_bind(p.s, &probe_ops, &p);
    rig_until(&r, has_frame, &p);
    assert_true(p.ready && p.got.n >= 9);
    if (h2)
        assert_int_equal(p.got.p[3], 4); /* SETTINGS */
    else
        assert_int_equal(memcmp(p.got.p, "HTTP/1.1 ", 9), 0); /* 505: not what was agreed */
    net_stream_close(&p.s, false);
    str_fini(&p.got);
    rig_turns(&r, 2);
    close_all();
}

static void protocol_by_alpn(void **state)
{
    alpn_chooses("\x02h2\x08http/1.1", true);
    alpn_chooses("\x08http/1.1", false);
    alpn_chooses("", false);
}

/* --- handshakes that go nowhere --- */

static double handshakes(void)
{
    return metric_value(
        metric_series(metric_family(METRIC_COUNTER, "http_glitches", "kind", ""), "handshake"));
}

static void bad_handshakes(void **state)
{
    struct raw silent, noisy;
    double before;

    open_all(60);
    before = handshakes();
    rig_adopt(&r, &silent, dial());
    rig_adopt(&r, &noisy, dial());
    raw_send(&noisy, "GET / HTTP/1.1\r\nHost: this is not TLS\r\n\r\n");
    raw_expect_eof(&r, &noisy);
    raw_expect_eof(&r, &silent);
    assert_int_equal(http_server_connections(r.server), 0);
    assert_int_equal(handshakes() - before, 1);
    close_all();
}

static int group_setup(void **state)
{
    certs_init(&certs);
    certs_make_usual(&certs);
    return 0;
}

static int group_teardown(void **state)
{
    certs_remove(&certs);
    return 0;
}

/* Give the server a connection whose first bytes were read before. */
static void give(int fd, struct tls_ctx *tls, struct view early_bytes)
{
    struct buf early = BUF_INIT;
    struct net_addr peer;

    assert_int_equal(net_addr_literal(VIEW_LIT("192.0.2.1"), 1234, &peer), 0);
    buf_add(&early, early_bytes.p, early_bytes.n);
    assert_int_equal(http_server_accepted_as(r.server, fd, &peer,
                                             &(struct http_conn_opts){.tls = tls, .early = &early}),
                     0);
    assert_null(early.base);
}

static void requests_begin_with_early_bytes(void **state)
{
    static const char request[] = "GET /now HTTP/1.1\r\nHost: x\r\n\r\n";
    struct view all = view_str(request);
    static struct raw raws[sizeof(request)]; /* the rig keeps them */
    int fds[2];

    (void)state;
    rig_open(&r, NULL);
    for (size_t k = 0; k <= all.n; k++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
        rig_adopt(&r, &raws[k], fds[0]);
        give(fds[1], NULL, view_of(all.p, k));
        rig_turns(&r, 3);
        assert_int_equal(raw_count(&raws[k], "hello"), k == all.n);
        raw_send_n(&raws[k], all.p + k, all.n - k);
        raw_expect(&r, &raws[k], "hello");
        raw_close(&r, &raws[k]);
    }
    rig_close(&r);
}

/* The server is in clear, this connection is not; the first 5 bytes of the hello came early. */
static void one_connection_has_tls_of_its_own(void **state)
{
    static const char request[] = "GET /now HTTP/1.1\r\nHost: x\r\n\r\n";
    struct tls_session *s;
    enum tls_want want = TLS_WANT_READ;
    struct err e;
    char first[5], out[1000] = "";
    size_t n = 0;
    ssize_t rc;
    int fds[2];

    (void)state;
    open_all(0);
    http_server_set_tls(r.server, NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    s = tls_connect(client_tls, fds[0], "localhost", VIEW_NONE);
    assert_int_equal(tls_handshake(s, &e), TLS_WANT_READ);
    assert_int_equal(recv(fds[1], first, sizeof(first), 0), sizeof(first));
    give(fds[1], server_tls, view_of(first, sizeof(first)));
    for (int i = 0; i < 1000 && want != TLS_DONE; i++) {
        rig_turns(&r, 1);
        want = tls_handshake(s, &e);
        assert_int_not_equal(want, TLS_FAILED);
    }
    assert_int_equal(want, TLS_DONE);
    assert_int_equal(tls_write(s, request, sizeof(request) - 1, &want, &e), sizeof(request) - 1);
    for (int i = 0; i < 1000 && !strstr(out, "hello"); i++) {
        rig_turns(&r, 1);
        rc = tls_read(s, out + n, sizeof(out) - 1 - n, &want, &e);
        n += rc > 0 ? (size_t)rc : 0;
    }
    assert_non_null(strstr(out, "hello"));
    tls_free(&s);
    close(fds[0]);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_over_tls),
        cmocka_unit_test(protocol_by_alpn),
        cmocka_unit_test(bad_handshakes),
        cmocka_unit_test(requests_begin_with_early_bytes),
        cmocka_unit_test(one_connection_has_tls_of_its_own),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
