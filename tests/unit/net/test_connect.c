#include "net/connect.h"

#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include "crypto/tls_impl.h"
#include "net/listen.h"
#include "rt/clock.h"
#include "fake_dns.h"
#include "net_test.h"

static struct fake_dns dns;
static struct net_resolver *resolver;
static struct nt_end a, b; /* a connects, b is what the listener took */
static struct net_listener *listener;
static struct net_addr at;
static unsigned accepted;
static struct tls_ctx *listener_tls;
static bool listener_is_mute;
static bool takes_all; /* b is always the last one accepted */

static struct dns_row rows[] = {
    {.name = "a.example", .addrs = "127.0.0.1", .ttl = 60},
    {.name = "two.example", .addrs = "127.0.0.2 127.0.0.1", .ttl = 60},
    {.name = "refusing.example", .addrs = "127.0.0.2 127.0.0.3", .ttl = 60},
    {.name = "silent.example", .silent = true},
};

/* What net_connect_start said. */
static struct {
    bool done;
    unsigned calls;
    struct net_stream *s;
    struct err e;
    struct net_connect *c;
} got;

static int mute_fd[16];

static void on_accept(void *ctx, int fd, const struct net_addr *peer)
{
    (void)ctx;
    (void)peer;
    if (takes_all) {
        nt_end_fini(&b);
        memset(&b, 0, sizeof(b));
    }
    if (!takes_all && (listener_is_mute || accepted))
        mute_fd[accepted] = fd;
    else
        nt_end_accept(&b, fd, listener_tls);
    accepted++;
}

static int listen_at(const char *text, struct net_addr *bound, int backlog)
{
    struct net_addr addr;
    struct err e;
    int fd;

    assert_int_equal(net_addr_parse(view_str(text), &addr, &e), 0);
    fd = net_listen_fd(&addr, backlog, bound, &e);
    if (fd < 0)
        fail_msg("%s", e.text);
    return fd;
}

static int setup(void **state)
{
    struct err e;

    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    memset(&got, 0, sizeof(got));
    accepted = 0;
    listener_tls = NULL;
    listener_is_mute = false;
    takes_all = false;
    nt_setup(state);
    fake_dns_start(&dns, loop, rows, ARRAY_LEN(rows));
    resolver = net_resolver_new(loop, dns.server, &e);
    assert_non_null(resolver);
    listener = net_listener_new(loop, listen_at("127.0.0.1:0", &at, 64), on_accept, NULL);
    return 0;
}

static int teardown(void **state)
{
    nt_end_fini(&a);
    nt_end_fini(&b);
    for (unsigned i = 0; i < accepted; i++)
        if (mute_fd[i])
            close(mute_fd[i]);
    memset(mute_fd, 0, sizeof(mute_fd));
    net_listener_free(&listener);
    net_resolver_free(&resolver);
    fake_dns_stop(&dns);
    return nt_teardown(state);
}

static void on_connected(void *ctx, struct net_stream *s, const struct err *e)
{
    (void)ctx;
    got.done = true;
    got.calls++;
    got.s = s;
    got.c = NULL;
    if (s)
        nt_end_bind(&a, s);
    else
        got.e = *e;
}

static void start(struct net_connect_opts o)
{
    if (!o.port)
        o.port = net_addr_port(&at);
    got.done = false;
    got.c = net_connect_start(resolver, loop, &o, on_connected, NULL);
    assert_non_null(got.c);
    assert_false(got.done);
}

static void must_connect(struct net_connect_opts o)
{
    start(o);
    nt_run_until(nt_flag, &got.done);
    if (!got.s)
        fail_msg("%s", got.e.text);
}

static void must_fail(struct net_connect_opts o, enum err_code code, const char *part)
{
    start(o);
    nt_run_until(nt_flag, &got.done);
    assert_null(got.s);
    if (got.e.code != code)
        fail_msg("%s: %s", err_code_name(got.e.code), got.e.text);
    nt_assert_contains(got.e.text, part);
}

#define TO(h, ...) ((struct net_connect_opts){.host = (h), ##__VA_ARGS__})

static bool b_has_hello(void *ctx)
{
    (void)ctx;
    return view_is(str_view(&b.in), "hello");
}

static void use_it(void)
{
    struct err e;

    assert_int_equal(net_write(a.s, "hello", 5, &e), 5);
    net_want_read(a.s, true);
    nt_run_until(b_has_hello, NULL);
    b.out = (const uint8_t *)"bye";
    b.out_n = 3;
    b.fin_after_out = true;
    nt_end_write(&b);
    nt_run_until(nt_flag, &a.ended);
    assert_true(view_is(str_view(&a.in), "bye"));
    assert_int_equal(a.ready_calls, 0);
}

static void an_address_in_clear(void **state)
{
    char text[NET_ADDR_TEXT];

    (void)state;
    must_connect(TO("127.0.0.1"));
    assert_string_equal(net_addr_ip(net_peer(a.s), text), "127.0.0.1");
    assert_int_equal(net_addr_port(net_peer(a.s)), net_addr_port(&at));
    use_it();
}

static void a_name_over_tls(void **state)
{
    (void)state;
    listener_tls = server_tls;
    must_connect(TO("a.example", .tls = client_tls, .alpn = VIEW_LIT("\x02h2")));
    assert_true(view_is(net_alpn(a.s), "h2"));
    use_it();
    assert_true(view_is(net_server_name(b.s), "a.example"));
}

static void another_name_is_verified_if_asked(void **state)
{
    (void)state;
    listener_tls = server_tls;
    must_connect(TO("127.0.0.1", .tls = client_tls, .server_name = "x.wild.example"));
    use_it();
    assert_true(view_is(net_server_name(b.s), "x.wild.example"));
}

static bool was_accepted(void *ctx)
{
    (void)ctx;
    return accepted > 0;
}

static void a_refusing_address_is_passed_over(void **state)
{
    int64_t best = INT64_MAX;

    (void)state;
    /* Without waiting for the stagger; but the machine may be busy, so the best of some counts. */
    for (int i = 0; i < 5 && best >= 200 * NS_PER_MS; i++) {
        int64_t begin = clock_mono_ns();

        nt_end_fini(&a);
        nt_end_fini(&b);
        must_connect(TO("two.example"));
        best = TR_MIN(best, clock_mono_ns() - begin);
        nt_run_until(was_accepted, NULL);
        if (best >= 200 * NS_PER_MS)
            accepted = 0;
    }
    assert_true(best < 200 * NS_PER_MS);
    use_it();
}

/* A listener whose queue is full: the system drops what would connect, as a firewall does. */
struct hole {
    int listener;
    int fill[8];
};

static void hole_open(struct hole *h, const char *ip)
{
    char text[40];
    struct net_addr addr;

    snprintf(text, sizeof(text), "%s:%u", ip, net_addr_port(&at));
    h->listener = listen_at(text, &addr, 1);
    listen(h->listener, 0);
    for (size_t i = 0; i < ARRAY_LEN(h->fill); i++) {
        h->fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(h->fill[i], (struct sockaddr *)&addr.ss, addr.len);
    }
}

static void hole_close(struct hole *h)
{
    for (size_t i = 0; i < ARRAY_LEN(h->fill); i++)
        close(h->fill[i]);
    close(h->listener);
}

static void a_silent_address_does_not_hold_up_the_next(void **state)
{
    int64_t begin = clock_mono_ns(), took;
    struct hole hole;

    (void)state;
    hole_open(&hole, "127.0.0.2");
    must_connect(TO("two.example"));
    took = clock_mono_ns() - begin;
    assert_true(took >= 240 * NS_PER_MS && took < 2000 * NS_PER_MS);
    use_it();
    hole_close(&hole);
}

static void refusals_are_named(void **state)
{
    char where[64];

    (void)state;
    snprintf(where, sizeof(where), "cannot connect to refusing.example:%u: 127.0.0.",
             net_addr_port(&at));
    must_fail(TO("refusing.example"), ERR_UNAVAIL, where);
    nt_assert_contains(got.e.text, "Connection refused");
    must_fail(TO("none.example", .port = 443), ERR_NOTFOUND,
              "cannot connect to none.example:443: cannot resolve none.example: no such name");
    must_fail(TO("a b\n\x80", .port = 1), ERR_INVALID, "cannot connect to a?b??:1: ");
    must_fail(TO("::1", .port = 1), ERR_UNAVAIL, "cannot connect to [::1]:1: ");
}

static unsigned allow_calls;

static bool allow_none(void *ctx, const struct net_addr *addr)
{
    (void)ctx;
    (void)addr;
    allow_calls++;
    return false;
}

static bool allow_odd(void *ctx, const struct net_addr *addr)
{
    char text[NET_ADDR_TEXT];

    allow_calls++;
    assert_string_equal(ctx, "context");
    return strcmp(net_addr_ip(addr, text), "127.0.0.1") == 0;
}

static void addresses_that_are_not_allowed_are_not_dialled(void **state)
{
    char context[] = "context";

    (void)state;
    allow_calls = 0;
    must_fail(TO("a.example", .allow = allow_none), ERR_DENIED, "no address of it is allowed");
    must_fail(TO("127.0.0.1", .allow = allow_none), ERR_DENIED, "no address of it is allowed");
    assert_int_equal(allow_calls, 2);
    nt_run_ms(10);
    assert_int_equal(accepted, 0);
    allow_calls = 0;
    must_connect(TO("two.example", .allow = allow_odd, .allow_ctx = context));
    assert_true(allow_calls >= 1);
    use_it();
}

static void every_stage_has_the_time_limit(void **state)
{
    struct hole hole;

    (void)state;
    must_fail(TO("silent.example", .timeout_ms = 60), ERR_TIMEOUT,
              "looking up the name took longer than 60 ms");
    hole_open(&hole, "127.0.0.9");
    must_fail(TO("127.0.0.9", .timeout_ms = 60), ERR_TIMEOUT, "connecting took longer than 60 ms");
    hole_close(&hole);
    listener_is_mute = true;
    must_fail(TO("a.example", .tls = client_tls, .timeout_ms = 600), ERR_TIMEOUT,
              "TLS handshake took longer than 600 ms");
    assert_int_equal(accepted, 1);
}

/* A server that takes no session back: OpenSSL's with client certificates and no context for them.
 */
static void a_server_that_fails_to_resume_is_dialled_once_more(void **state)
{
    struct tls_server_opts o = {.certificate = certs_path(&certs, "server.pem"),
                                .key = certs_path(&certs, "server.key"),
                                .client_ca = certs_path(&certs, "ca.pem")};
    struct tls_ctx *forgetful;
    struct err e;

    (void)state;
    forgetful = tls_ctx_server(&o, &e);
    assert_non_null(forgetful);
    SSL_CTX_set_session_id_context(forgetful->ssl, NULL, 0);
    listener_tls = forgetful;
    takes_all = true;
    for (unsigned i = 0; i < 4; i++) {
        must_connect(TO("a.example", .tls = client_tls));
        assert_false(net_tls_offered(a.s));
        use_it(); /* which brings a ticket */
        assert_int_equal(got.calls, i + 1);
        assert_int_equal(accepted, 1 + 2 * i);
        nt_end_fini(&a);
        memset(&a, 0, sizeof(a));
    }
    tls_ctx_unref(&forgetful);
}

/* A second listener, at 127.0.0.2 and the same port: its connections get `greeting`, which is no
 * TLS, or nothing at all. */
struct stranger {
    struct net_listener *listener;
    const char *greeting;
    unsigned accepted;
    int fd[4];
};

static void stranger_accept(void *ctx, int fd, const struct net_addr *peer)
{
    struct stranger *x = ctx;

    (void)peer;
    assert_true(x->accepted < ARRAY_LEN(x->fd));
    x->fd[x->accepted++] = fd;
    if (x->greeting)
        assert_int_equal(write(fd, x->greeting, strlen(x->greeting)), strlen(x->greeting));
}

static void stranger_open(struct stranger *x, const char *greeting)
{
    struct net_addr bound;
    char text[40];

    memset(x, 0, sizeof(*x));
    x->greeting = greeting;
    snprintf(text, sizeof(text), "127.0.0.2:%u", net_addr_port(&at));
    x->listener = net_listener_new(loop, listen_at(text, &bound, 64), stranger_accept, x);
}

static void stranger_close(struct stranger *x)
{
    net_listener_free(&x->listener);
    for (unsigned i = 0; i < x->accepted; i++)
        close(x->fd[i]);
}

#define NO_TLS "HTTP/1.1 400 Bad Request\r\n\r\n"

static void an_address_without_tls_is_passed_over(void **state)
{
    struct stranger x;
    char text[NET_ADDR_TEXT];

    (void)state;
    stranger_open(&x, NO_TLS);
    listener_tls = server_tls;
    must_connect(TO("two.example", .tls = client_tls, .server_name = "x.wild.example"));
    assert_string_equal(net_addr_ip(net_peer(a.s), text), "127.0.0.1");
    assert_int_equal(x.accepted, 1);
    assert_int_equal(got.calls, 1);
    use_it();
    stranger_close(&x);
}

static void an_address_that_never_shakes_hands_leaves_time_for_the_next(void **state)
{
    struct stranger x;

    (void)state;
    stranger_open(&x, NULL);
    listener_tls = server_tls;
    must_connect(
        TO("two.example", .tls = client_tls, .server_name = "x.wild.example", .timeout_ms = 4000));
    assert_int_equal(x.accepted, 1);
    use_it();
    stranger_close(&x);
}

static void if_no_address_does_better_the_error_is_about_tls(void **state)
{
    struct stranger x;

    (void)state;
    net_listener_free(&listener); /* 127.0.0.1 refuses, which says less */
    stranger_open(&x, NO_TLS);
    must_fail(TO("two.example", .tls = client_tls), ERR_INVALID,
              "127.0.0.2: TLS handshake failed: the server does not speak TLS");
    stranger_close(&x);
    stranger_open(&x, NULL);
    must_fail(TO("two.example", .tls = client_tls, .timeout_ms = 600), ERR_TIMEOUT,
              "127.0.0.2: TLS handshake took longer than its share of 600 ms");
    stranger_close(&x);
}

/* The attempts that were given up for the one that connected first are made again. */
static void given_up_addresses_come_again(void **state)
{
    int64_t begin = clock_mono_ns();
    struct hole hole;

    (void)state;
    hole_open(&hole, "127.0.0.2");
    listener_tls = server_tls;
    must_fail(TO("two.example", .tls = client_tls, .timeout_ms = 1500), ERR_DENIED,
              "127.0.0.1: the server's certificate is refused: it is not for two.example");
    assert_true(clock_mono_ns() - begin >= 1490 * NS_PER_MS); /* it was the time that ended it */
    assert_int_equal(accepted, 1);
    assert_int_equal(got.calls, 1);
    hole_close(&hole);
}

static void a_failing_handshake_is_not_tried_again_with_the_same_address(void **state)
{
    (void)state;
    listener_tls = server_tls;
    must_fail(TO("two.example", .tls = client_tls), ERR_DENIED, "it is not for two.example");
    assert_int_equal(accepted, 1);
    nt_run_ms(300);
    assert_int_equal(accepted, 1);
}

static void plain_text_from_a_tls_peer(void **state)
{
    (void)state;
    b.out = (const uint8_t *)"HTTP/1.1 400 Bad Request\r\n\r\n";
    b.out_n = 28;
    must_fail(TO("a.example", .tls = client_tls), ERR_INVALID, "the server does not speak TLS");
}

static void cancelling_is_possible_at_every_stage(void **state)
{
    struct hole hole;

    (void)state;
    start(TO("a.example"));
    net_connect_cancel(&got.c);
    assert_null(got.c);
    start(TO("silent.example"));
    nt_run_ms(5);
    net_connect_cancel(&got.c);
    hole_open(&hole, "127.0.0.9");
    start(TO("127.0.0.9"));
    nt_run_ms(5);
    net_connect_cancel(&got.c);
    hole_close(&hole);
    listener_is_mute = true;
    start(TO("a.example", .tls = client_tls));
    nt_run_until(was_accepted, NULL);
    net_connect_cancel(&got.c);
    nt_run_ms(10);
    assert_int_equal(got.calls, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(an_address_in_clear),
        T(a_name_over_tls),
        T(another_name_is_verified_if_asked),
        T(a_refusing_address_is_passed_over),
        T(a_silent_address_does_not_hold_up_the_next),
        T(refusals_are_named),
        T(addresses_that_are_not_allowed_are_not_dialled),
        T(every_stage_has_the_time_limit),
        T(a_server_that_fails_to_resume_is_dialled_once_more),
        T(an_address_without_tls_is_passed_over),
        T(an_address_that_never_shakes_hands_leaves_time_for_the_next),
        T(if_no_address_does_better_the_error_is_about_tls),
        T(given_up_addresses_come_again),
        T(a_failing_handshake_is_not_tried_again_with_the_same_address),
        T(plain_text_from_a_tls_peer),
        T(cancelling_is_possible_at_every_stage),
    };

    return cmocka_run_group_tests_name("net/connect", tests, nt_group_setup, nt_group_teardown);
}
