/* Connecting through a parent: one in this process, which joins its client to the end `b`. */
#include "net/connect.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include "net/listen.h"
#include "rt/rng.h"
#include "fake_dns.h"
#include "net_test.h"

enum { BIG = 3000000 };

static struct fake_dns dns;
static struct net_resolver *resolver;
static struct net_listener *listener;
static struct net_parent parent;
static struct nt_end a, b; /* a connects; b is the destination */
static uint8_t big[2][BIG];

static struct dns_row rows[] = {{.name = "parent.example", .addrs = "127.0.0.1", .ttl = 60},
                                {.name = "a.example", .addrs = "127.0.0.1", .ttl = 60}};

/* One side of the parent's joint: what it read and the other side has not taken. */
struct half {
    struct net_stream *s;
    struct half *other;
    uint8_t held[20000];
    size_t n;
    bool ended;
};

static struct {
    struct tls_ctx *tls;     /* of the parent itself */
    struct tls_ctx *far_tls; /* of the destination */
    const char *answer;
    bool joins;
    unsigned accepted;
    struct half client, far;
    struct str head;
} px;

static struct {
    bool done;
    unsigned calls;
    struct err e;
    struct net_connect *c;
} got;

/* --- the parent --------------------------------------------------------------------------- */

static void px_close(void)
{
    net_stream_close(&px.client.s, true);
    net_stream_close(&px.far.s, true);
}

static void half_pump(struct half *h)
{
    ssize_t n;

    while (h->s && h->other->s && !h->ended) {
        if (!h->n) {
            n = net_read(h->s, h->held, sizeof(h->held), NULL);
            if (n == NET_ERROR) {
                px_close();
                return;
            }
            if (n == NET_AGAIN)
                break;
            h->ended = n == 0;
            h->n = (size_t)n;
            if (h->ended)
                net_shutdown_write(h->other->s);
        }
        n = h->n ? net_write(h->other->s, h->held, h->n, NULL) : 0;
        if (n == NET_ERROR) {
            px_close();
            return;
        }
        if (n > 0) {
            h->n -= (size_t)n;
            memmove(h->held, h->held + n, h->n);
        }
        if (h->n)
            break;
    }
    if (h->s)
        net_want_read(h->s, !h->n && !h->ended);
}

static void half_readable(void *ctx)
{
    half_pump(ctx);
}

static void half_writable(void *ctx)
{
    half_pump(((struct half *)ctx)->other);
}

static void half_ready(void *ctx)
{
    half_pump(ctx);
}

static void half_failed(void *ctx, const struct err *e)
{
    px_close();
}

static const struct net_stream_ops half_ops = {half_ready, half_readable, half_writable,
                                               half_failed};

static void px_join(void)
{
    struct net_addr nobody = {.len = 0};
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    nt_end_accept(&b, fd[1], px.far_tls);
    px.client.other = &px.far;
    px.far.other = &px.client;
    px.far.s = net_stream_connected(loop, fd[0], NULL, NULL, VIEW_NONE, &nobody);
    net_stream_bind(px.far.s, &half_ops, &px.far);
    net_stream_bind(px.client.s, &half_ops, &px.client);
    net_want_read(px.client.s, true);
}

static void px_readable(void *ctx)
{
    char c;

    /* Not a byte more than the head: the rest is the destination's. */
    while (net_read(px.client.s, &c, 1, NULL) == 1) {
        str_addc(&px.head, c);
        if (px.head.n < 4 || strcmp(px.head.p + px.head.n - 4, "\r\n\r\n") != 0)
            continue;
        net_want_read(px.client.s, false);
        if (px.answer)
            net_write(px.client.s, px.answer, strlen(px.answer), NULL);
        if (px.joins)
            px_join();
        return;
    }
}

static void px_ready(void *ctx)
{
    net_want_read(px.client.s, true);
}

static void px_failed(void *ctx, const struct err *e)
{
    px_close();
}

static const struct net_stream_ops px_ops = {px_ready, px_readable, NULL, px_failed};

static void on_accept(void *ctx, int fd, const struct net_addr *peer)
{
    px.accepted++;
    net_stream_close(&px.client.s, true);
    px.client.s = net_stream_accepted(loop, fd, px.tls, peer);
    net_stream_bind(px.client.s, &px_ops, NULL);
}

/* --- set-up ------------------------------------------------------------------------------- */

static int setup(void **state)
{
    struct net_addr at;
    struct err e;
    int fd;

    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    memset(&got, 0, sizeof(got));
    memset(&px, 0, sizeof(px));
    nt_setup(state);
    fake_dns_start(&dns, loop, rows, ARRAY_LEN(rows));
    resolver = net_resolver_new(loop, dns.server, &e);
    assert_non_null(resolver);
    assert_int_equal(net_addr_parse(VIEW_LIT("127.0.0.1:0"), &at, &e), 0);
    fd = net_listen_fd(&at, 16, &at, &e);
    assert_true(fd >= 0);
    listener = net_listener_new(loop, fd, on_accept, NULL);
    parent = (struct net_parent){.host = "parent.example", .port = net_addr_port(&at)};
    px.answer = "HTTP/1.1 200 OK\r\n\r\n";
    px.joins = true;
    return 0;
}

static int teardown(void **state)
{
    nt_end_fini(&a);
    nt_end_fini(&b);
    px_close();
    str_fini(&px.head);
    net_listener_free(&listener);
    net_resolver_free(&resolver);
    fake_dns_stop(&dns);
    return nt_teardown(state);
}

static int group_setup(void **state)
{
    struct rng rng;

    rng_seed(&rng, 5);
    for (size_t i = 0; i < BIG; i++) {
        big[0][i] = (uint8_t)rng_next(&rng);
        big[1][i] = (uint8_t)rng_next(&rng);
    }
    return nt_group_setup(state);
}

static void on_connected(void *ctx, struct net_stream *s, const struct err *e)
{
    got.done = true;
    got.calls++;
    got.c = NULL;
    if (!s) {
        got.e = *e;
        return;
    }
    nt_end_bind(&a, s);
    net_want_read(s, true);
}

static void start(struct net_connect_opts o)
{
    o.parent = &parent;
    if (!o.port)
        o.port = 443;
    got.done = false;
    got.c = net_connect_start(resolver, loop, &o, on_connected, NULL);
    assert_false(got.done);
}

static void must_connect(struct net_connect_opts o)
{
    start(o);
    nt_run_until(nt_flag, &got.done);
    if (!a.s)
        fail_msg("%s", got.e.text);
}

static void must_fail(struct net_connect_opts o, enum err_code code, const char *part)
{
    start(o);
    nt_run_until(nt_flag, &got.done);
    assert_null(a.s);
    if (got.e.code != code)
        fail_msg("%s: %s", err_code_name(got.e.code), got.e.text);
    nt_assert_contains(got.e.text, part);
}

#define TO(h, ...) ((struct net_connect_opts){.host = (h), ##__VA_ARGS__})

static void set_tls(bool of_parent, bool of_destination)
{
    px.tls = of_parent ? server_tls : NULL;
    parent.tls = of_parent ? client_tls : NULL;
    parent.host = of_parent ? "a.example" : "parent.example"; /* which the certificate names */
    px.far_tls = of_destination ? server_tls : NULL;
}

static struct tls_ctx *tls_if(bool on)
{
    return on ? client_tls : NULL;
}

static bool both_ended(void *ctx)
{
    return a.ended && b.ended;
}

static void again(void)
{
    nt_end_fini(&a);
    nt_end_fini(&b);
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    px_close();
    memset(&px.client, 0, sizeof(px.client));
    memset(&px.far, 0, sizeof(px.far));
    str_clear(&px.head);
}

/* --- tests -------------------------------------------------------------------------------- */

static void the_question(void **state)
{
    parent.authorization = "Basic c2VjcmV0";
    must_connect(TO("x.wild.example", .port = 8443));
    assert_string_equal(str_c(&px.head),
                        "CONNECT x.wild.example:8443 HTTP/1.1\r\nHost: x.wild.example:8443\r\n"
                        "Proxy-Authorization: Basic c2VjcmV0\r\n\r\n");
    again();
    parent.authorization = NULL;
    must_connect(TO("2001:db8::1"));
    assert_string_equal(str_c(&px.head),
                        "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n");
    assert_int_equal(net_addr_port(net_peer(a.s)), parent.port);
}

static void much(bool outer, bool inner, size_t piece, bool one_read)
{
    set_tls(outer, inner);
    a.out = big[0];
    b.out = big[1];
    a.out_n = b.out_n = piece && piece < 100 ? 30000 : BIG;
    a.fin_after_out = b.fin_after_out = true;
    a.piece = b.piece = piece;
    a.one_read = b.one_read = one_read;
    must_connect(
        TO("x.wild.example", .tls = tls_if(inner), .alpn = inner ? VIEW_LIT("\x02h2") : VIEW_NONE));
    assert_int_equal(net_is_tls(a.s), inner || outer);
    nt_end_write(&a);
    nt_run_until(both_ended, NULL);
    assert_int_equal(a.in.n, b.out_n);
    assert_memory_equal(a.in.p, big[1], b.out_n);
    assert_int_equal(b.in.n, a.out_n);
    assert_memory_equal(b.in.p, big[0], a.out_n);
    assert_false(a.failed || a.read_failed || a.write_failed);
    assert_false(b.failed || b.read_failed || b.write_failed);
    if (inner) {
        assert_true(view_is(net_server_name(b.s), "x.wild.example"));
        assert_true(view_is(net_alpn(a.s), "h2"));
    }
    again();
}

static void much_goes_both_ways(void **state)
{
    for (int way = 0; way < 4; way++) {
        much(way & 1, way & 2, 0, false);
        much(way & 1, way & 2, 4099, true);
        much(way & 1, way & 2, 7, true);
    }
}

static bool a_read_failed(void *ctx)
{
    return a.read_failed || a.failed;
}

static bool b_is_told(void *ctx)
{
    return b.read_failed || b.failed || b.ended;
}

static void it_breaks_off(void **state)
{
    for (int way = 0; way < 4; way++) {
        set_tls(way & 1, way & 2);
        must_connect(TO("x.wild.example", .tls = tls_if(way & 2)));
        net_stream_close(&px.client.s, true);
        nt_run_until(a_read_failed, NULL);
        again();
        must_connect(TO("x.wild.example", .tls = tls_if(way & 2)));
        net_stream_close(&a.s, true);
        nt_run_until(b_is_told, NULL);
        assert_true(!(way & 2) || !b.ended); /* cut off is no end */
        again();
    }
}

static bool a_has_greeting(void *ctx)
{
    return view_is(str_view(&a.in), "220 ready");
}

static void words_behind_the_answer(void **state)
{
    px.joins = false;
    px.answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 Fine\r\nX: y\r\n\r\n220 ready";
    for (int outer = 0; outer < 2; outer++) {
        set_tls(outer, false);
        must_connect(TO("x.wild.example"));
        nt_run_until(a_has_greeting, NULL);
        again();
        must_fail(TO("x.wild.example", .tls = client_tls), ERR_INVALID, "before TLS began");
        again();
    }
}

static void refusals(void **state)
{
    static const struct {
        const char *answer;
        enum err_code code;
        const char *part;
    } cases[] = {
        {"HTTP/1.1 407 No\r\n\r\n", ERR_UNAVAIL, "answered CONNECT with status 407 (it asks for"},
        {"HTTP/1.1 302 No\r\n\r\n", ERR_UNAVAIL, "answered CONNECT with status 302"},
        {"HTTP/1.1 101 No\r\n\r\n", ERR_UNAVAIL, "answered CONNECT with status 101"},
        {"HTTP/1.1 200 OK\nX: y\n\n", ERR_INVALID, "malformed answer to CONNECT"},
        {"220 smtp.example ready\r\n\r\n", ERR_INVALID, "malformed answer to CONNECT"},
    };

    px.joins = false;
    parent.authorization = "Basic c2VjcmV0";
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        px.answer = cases[i].answer;
        must_fail(TO("x.wild.example"), cases[i].code, cases[i].part);
        nt_assert_contains(got.e.text,
                           "cannot connect to x.wild.example:443: the parent parent.example:");
        assert_null(strstr(got.e.text, "c2VjcmV0"));
        again();
    }
}

static void what_goes_wrong_with_tls_is_told_apart(void **state)
{
    set_tls(false, true);
    must_fail(TO("other.example", .tls = client_tls), ERR_DENIED,
              "cannot connect to other.example:443: by the parent parent.example:");
    nt_assert_contains(got.e.text, "it is not for other.example");
    again();
    set_tls(true, true);
    parent.host = "parent.example";
    must_fail(TO("x.wild.example", .tls = client_tls), ERR_DENIED,
              ": the parent proxy: cannot connect to parent.example:");
    nt_assert_contains(got.e.text, "it is not for parent.example");
}

static void every_stage_has_the_time_limit(void **state)
{
    px.joins = false;
    px.answer = "HTTP/1.1 200";
    must_fail(TO("x.wild.example", .timeout_ms = 100), ERR_TIMEOUT,
              "took longer than 100 ms to answer CONNECT");
    again();
    px.answer = "HTTP/1.1 200 OK\r\n\r\n";
    must_fail(TO("x.wild.example", .timeout_ms = 100, .tls = client_tls), ERR_TIMEOUT,
              "TLS handshake by the parent parent.example:");
    again();
    set_tls(true, true);
    px.tls = NULL; /* it will wait for a head for ever */
    must_fail(TO("x.wild.example", .timeout_ms = 100), ERR_TIMEOUT, "TLS handshake took longer");
}

static bool allow_none(void *ctx, const struct net_addr *addr)
{
    *(bool *)ctx = true;
    return false;
}

static bool bypass_literals(void *ctx, const char *host, uint16_t port)
{
    return strcmp(host, "127.0.0.1") == 0 && port == parent.port;
}

static void allow_and_bypass(void **state)
{
    bool asked = false;

    must_connect(TO("x.wild.example", .allow = allow_none, .allow_ctx = &asked));
    assert_false(
        asked); /* neither the parent's address nor the destination's, which nobody knows */
    again();
    parent.bypass = bypass_literals;
    must_fail(TO("127.0.0.1", .port = parent.port, .allow = allow_none, .allow_ctx = &asked),
              ERR_DENIED, "no address");
    assert_true(asked);
    must_connect(TO("x.wild.example", .port = parent.port));
}

static void names_that_cannot_be_asked_for(void **state)
{
    must_fail(TO("a\r\nHost: b"), ERR_INVALID, "no parent can be asked for such a name");
    must_fail(TO(""), ERR_INVALID, "no parent can be asked for such a name");
    assert_int_equal(px.accepted, 0);
}

static bool has_asked(void *ctx)
{
    return px.head.n > 4;
}

static void cancelling_is_possible_at_every_stage(void **state)
{
    px.joins = false;
    start(TO("x.wild.example"));
    net_connect_cancel(&got.c);
    px.answer = NULL;
    start(TO("x.wild.example"));
    nt_run_until(has_asked, NULL);
    net_connect_cancel(&got.c);
    for (int outer = 0; outer < 2; outer++) {
        again();
        set_tls(outer, true);
        px.answer = "HTTP/1.1 200 OK\r\n\r\n";
        start(TO("x.wild.example", .tls = client_tls));
        nt_run_until(has_asked, NULL);
        nt_run_ms(20);
        net_connect_cancel(&got.c);
    }
    nt_run_ms(10);
    assert_int_equal(got.calls, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_question),
        T(much_goes_both_ways),
        T(it_breaks_off),
        T(words_behind_the_answer),
        T(refusals),
        T(what_goes_wrong_with_tls_is_told_apart),
        T(every_stage_has_the_time_limit),
        T(allow_and_bypass),
        T(names_that_cannot_be_asked_for),
        T(cancelling_is_possible_at_every_stage),
    };

    return cmocka_run_group_tests_name("net/through", tests, group_setup, nt_group_teardown);
}
