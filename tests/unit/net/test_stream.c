#include "net/stream.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include "rt/rng.h"
#include "net_test.h"

enum { BIG = 6000000 };

static struct nt_end a, b; /* a connects, b accepts */
static uint8_t big[2][BIG];

static int setup(void **state)
{
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    return nt_setup(state);
}

static int teardown(void **state)
{
    nt_end_fini(&a);
    nt_end_fini(&b);
    return nt_teardown(state);
}

static int group_setup(void **state)
{
    struct rng rng;

    rng_seed(&rng, 3);
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < BIG; i++)
            big[side][i] = (uint8_t)rng_next(&rng);
    return nt_group_setup(state);
}

static void open_pair(bool tls)
{
    int fd[2];

    nt_tcp_pair(fd);
    nt_end_connect(&a, fd[0], tls ? client_tls : NULL, "a.example", VIEW_LIT("\x02h2"));
    nt_end_accept(&b, fd[1], tls ? server_tls : NULL);
}

static bool both_ready(void *ctx)
{
    (void)ctx;
    return a.ready && b.ready;
}

static bool both_ended(void *ctx)
{
    (void)ctx;
    return a.ended && b.ended;
}

static void give(struct nt_end *x, const void *p, size_t n)
{
    x->out = p;
    x->out_n = n;
    x->out_at = 0;
    nt_end_write(x);
}

static void assert_got(const struct nt_end *x, const void *p, size_t n)
{
    assert_int_equal(x->in.n, n);
    assert_memory_equal(x->in.p, p, n);
}

static void ready_comes_later_and_once(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        open_pair(tls);
        assert_false(a.ready || b.ready);
        nt_run_until(both_ready, NULL);
        assert_int_equal(net_is_tls(a.s), tls);
        assert_true(view_is(net_alpn(a.s), tls ? "h2" : ""));
        assert_true(view_is(net_alpn(b.s), tls ? "h2" : ""));
        assert_true(view_is(net_server_name(b.s), tls ? "a.example" : ""));
        assert_ptr_equal(net_loop(a.s), loop);
        nt_run_ms(5);
        assert_int_equal(a.ready_calls, 1);
        assert_int_equal(b.ready_calls, 1);
        assert_int_equal(b.readable_calls, 0);
        nt_end_fini(&a);
        nt_end_fini(&b);
    }
}

/* Both ways at once, with reads and writes of odd sizes; then both end. */
static void much_goes_both_ways(bool tls, size_t piece, bool one_read, bool toggle)
{
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    a.out = big[0];
    b.out = big[1];
    a.out_n = b.out_n = piece && piece < 100 ? 50000 : BIG;
    a.fin_after_out = b.fin_after_out = true;
    a.piece = b.piece = piece;
    a.one_read = b.one_read = one_read;
    a.toggle = b.toggle = toggle;
    open_pair(tls);
    nt_run_until(both_ended, NULL);
    assert_got(&a, big[1], b.out_n);
    assert_got(&b, big[0], a.out_n);
    assert_false(a.failed || a.read_failed || a.write_failed);
    assert_false(b.failed || b.read_failed || b.write_failed);
    nt_end_fini(&a);
    nt_end_fini(&b);
}

static void much_goes_both_ways_in_clear(void **state)
{
    (void)state;
    much_goes_both_ways(false, 0, false, false);
    much_goes_both_ways(false, 4099, true, false);
    much_goes_both_ways(false, 7, true, true);
}

static void much_goes_both_ways_over_tls(void **state)
{
    (void)state;
    much_goes_both_ways(true, 0, false, false);
    much_goes_both_ways(true, 4099, true, false);
    much_goes_both_ways(true, 7, true, true);
    much_goes_both_ways(true, 16000, false, true);
}

static bool a_fell_short(void *ctx)
{
    (void)ctx;
    return a.ready && a.out_at < a.out_n && a.writable_calls == *(unsigned *)ctx;
}

static bool b_has_all(void *ctx)
{
    (void)ctx;
    return b.in.n == a.out_n;
}

/* A reader that does not read stops the writer, and the writer is not called meanwhile. */
static void back_pressure(bool tls)
{
    unsigned calls = 0;

    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    open_pair(tls);
    nt_run_until(both_ready, NULL);
    net_want_read(b.s, false);
    give(&a, big[0], BIG);
    nt_run_ms(50); /* the system's buffers fill */
    calls = a.writable_calls;
    nt_run_until(a_fell_short, &calls);
    nt_run_ms(50);
    assert_int_equal(a.writable_calls, calls);
    assert_true(a.out_at < BIG);
    assert_int_equal(b.in.n, 0);
    net_want_read(b.s, true);
    nt_run_until(b_has_all, NULL);
    assert_got(&b, big[0], BIG);
    nt_end_fini(&a);
    nt_end_fini(&b);
}

static void a_reader_that_rests_stops_the_writer(void **state)
{
    (void)state;
    back_pressure(false);
    back_pressure(true);
}

static bool a_has_big(void *ctx)
{
    (void)ctx;
    return a.in.n == BIG;
}

/* Our end is not the peer's: it can still send, however much. */
static void one_side_may_end_first(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        struct err e;

        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        a.out = (const uint8_t *)"request";
        a.out_n = 7;
        a.fin_after_out = true;
        open_pair(tls);
        nt_run_until(nt_flag, &b.ended);
        assert_got(&b, "request", 7);
        assert_int_equal(net_write(a.s, "x", 1, &e), NET_ERROR);
        nt_run_ms(20);
        assert_true(b.readable_calls < 5); /* no spinning at the end */
        nt_end_fini(&a);
        nt_end_fini(&b);
    }
    for (int tls = 0; tls < 2; tls++) {
        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        a.fin_after_out = true;
        open_pair(tls);
        nt_run_until(nt_flag, &b.ended);
        b.fin_after_out = true;
        give(&b, big[1], BIG);
        nt_run_until(a_has_big, NULL);
        nt_run_until(nt_flag, &a.ended);
        assert_got(&a, big[1], BIG);
        assert_false(b.write_failed);
        nt_end_fini(&a);
        nt_end_fini(&b);
    }
}

/* The end waits behind what the system's buffers do not take yet. */
static void an_end_waits_for_room(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        ssize_t rc;
        struct err e;
        size_t put = 0;

        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        open_pair(tls);
        nt_run_until(both_ready, NULL);
        net_want_read(b.s, false);
        while ((rc = net_write(a.s, big[0] + put % 4096, 4096, &e)) > 0)
            put += (size_t)rc;
        assert_int_equal(rc, NET_AGAIN);
        net_shutdown_write(a.s);
        nt_run_ms(10);
        net_want_read(b.s, true);
        nt_run_until(nt_flag, &b.ended);
        assert_true(b.in.n >= put);
        assert_false(b.read_failed);
        nt_end_fini(&a);
        nt_end_fini(&b);
    }
}

/* An end that is asked for during the handshake does not break it. */
static void an_end_waits_for_the_handshake(void **state)
{
    (void)state;
    open_pair(true);
    net_shutdown_write(a.s);
    nt_run_until(nt_flag, &b.ended);
    assert_true(a.ready && b.ready);
    assert_false(a.failed || b.failed);
    give(&b, "bye", 3);
    nt_run_ms(5);
    assert_got(&a, "bye", 3);
}

static bool b_is_over(void *ctx)
{
    (void)ctx;
    return b.ended || b.read_failed || b.failed;
}

static void the_end_of_clear_text_is_an_end(void **state)
{
    (void)state;
    a.close_at_ready = 1;
    open_pair(false);
    nt_run_until(b_is_over, NULL);
    assert_true(b.ended);
    assert_false(b.read_failed);
}

/* Bytes, then the end of TLS, arriving together: first the bytes, then the end. */
static void a_tls_end_behind_bytes(void **state)
{
    (void)state;
    open_pair(true);
    nt_run_until(both_ready, NULL);
    net_want_read(b.s, false);
    b.one_read = true;
    nt_run_ms(5); /* unread tickets of the server would make the close a reset */
    give(&a, "last words", 10);
    net_stream_close(&a.s, false);
    nt_run_ms(5);
    net_want_read(b.s, true);
    nt_run_until(b_is_over, NULL);
    assert_got(&b, "last words", 10);
    assert_true(b.ended);
    assert_false(b.read_failed);
}

static unsigned segments_of(const struct nt_end *x)
{
    struct tcp_info info = {0};
    socklen_t n = sizeof(info);

    assert_int_equal(getsockopt(net_fd(x->s), IPPROTO_TCP, TCP_INFO, &info, &n), 0);
    return info.tcpi_data_segs_out;
}

static bool b_has_two_records(void *ctx)
{
    (void)ctx;
    return b.in.n == 20000;
}

/* Loopback has segments of 64 KiB. */
static void records_of_one_write_leave_together(void **state)
{
    unsigned before;
    int corked = -1;
    socklen_t n = sizeof(corked);

    (void)state;
    open_pair(true);
    nt_run_until(both_ready, NULL);
    before = segments_of(&a);
    a.piece = 20000;
    give(&a, big[0], 20000);
    assert_int_equal(a.out_at, 20000);
    assert_int_equal(getsockopt(net_fd(a.s), IPPROTO_TCP, TCP_CORK, &corked, &n), 0);
    assert_int_equal(corked, 0);
    nt_run_until(b_has_two_records, NULL);
    assert_got(&b, big[0], 20000);
    assert_int_equal(segments_of(&a) - before, 1);
}

/* OpenSSL has read no further than the end of the second: the third is the socket's still. */
static void full_records_are_read_at_once(void **state)
{
    static uint8_t in[4 * 16384];

    (void)state;
    open_pair(true);
    nt_run_until(both_ready, NULL);
    net_want_read(b.s, false);
    a.piece = 3 * 16384;
    give(&a, big[0], 3 * 16384);
    assert_int_equal(a.out_at, 3 * 16384);
    assert_int_equal(net_read(b.s, in, sizeof(in), NULL), 3 * 16384);
    assert_memory_equal(in, big[0], 3 * 16384);
    assert_int_equal(net_read(b.s, in, sizeof(in), NULL), NET_AGAIN);
}

/* Bytes, then a bare FIN: first the bytes, then an error. */
static void a_cut_is_not_an_end_of_tls(void **state)
{
    (void)state;
    open_pair(true);
    nt_run_until(both_ready, NULL);
    net_want_read(b.s, false);
    b.one_read = true;
    give(&a, "last words", 10);
    shutdown(net_fd(a.s), SHUT_WR);
    nt_run_ms(5);
    net_want_read(b.s, true);
    nt_run_until(b_is_over, NULL);
    assert_got(&b, "last words", 10);
    assert_true(b.read_failed);
    assert_int_equal(b.e.code, ERR_CLOSED);
    nt_assert_contains(b.e.text, "without ending TLS");
}

static void a_hard_close_is_a_reset(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        open_pair(tls);
        nt_run_until(both_ready, NULL);
        net_stream_close(&a.s, true);
        assert_null(a.s);
        nt_run_until(b_is_over, NULL);
        assert_true(b.read_failed);
        assert_int_equal(b.e.code, ERR_CLOSED);
        nt_assert_contains(b.e.text, "reset by peer");
        assert_int_equal(net_read(b.s, big[0], 1, &b.e), NET_ERROR);
        assert_int_equal(net_write(b.s, big[0], 1, &b.e), NET_ERROR);
        nt_end_fini(&b);
    }
}

static bool b_write_failed(void *ctx)
{
    (void)ctx;
    return b.write_failed;
}

static void writing_to_a_reset_is_an_error(void **state)
{
    (void)state;
    open_pair(false);
    nt_run_until(both_ready, NULL);
    net_want_read(a.s, false);
    net_want_read(b.s, false);
    give(&b, big[1], BIG);
    nt_run_ms(10);
    assert_true(b.out_at < BIG);
    net_stream_close(&a.s, true);
    nt_run_until(b_write_failed, NULL);
    assert_int_equal(b.e.code, ERR_CLOSED);
}

static bool both_failed(void *ctx)
{
    (void)ctx;
    return a.failed && b.failed;
}

static void a_failed_handshake_is_told(void **state)
{
    int fd[2];

    (void)state;
    nt_tcp_pair(fd);
    nt_end_connect(&a, fd[0], client_tls, "wrong.example", VIEW_NONE);
    nt_end_accept(&b, fd[1], server_tls);
    nt_run_until(both_failed, NULL);
    assert_false(a.ready || b.ready);
    assert_int_equal(a.e.code, ERR_DENIED);
    nt_assert_contains(a.e.text, "it is not for wrong.example");
    nt_assert_contains(b.e.text, "the peer refused it");
}

static void garbage_instead_of_a_handshake(void **state)
{
    int fd[2];

    (void)state;
    nt_tcp_pair(fd);
    nt_end_accept(&b, fd[1], server_tls);
    b.close_at_failed = true;
    assert_int_equal(write(fd[0], "\x16\x03\x01\xff\xff garbage", 13), 13);
    nt_run_until(nt_flag, &b.failed);
    assert_null(b.s);
    close(fd[0]);
}

static bool a_closed(void *ctx)
{
    (void)ctx;
    return !a.s;
}

/* In every call-back the stream may be closed; the sanitizers watch. */
static void closing_is_possible_everywhere(void **state)
{
    (void)state;
    for (int i = 0; i < 16; i++) {
        bool tls = i & 1;

        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        a.close_hard = i & 2;
        a.close_at_ready = i / 4 == 0;
        a.close_at_readable = i / 4 == 1;
        a.close_at_writable = i / 4 == 2;
        if (i / 4 == 3)
            a.close_at_readable = 3;
        a.piece = i / 4 == 3 ? 5 : 0;
        a.one_read = true;
        open_pair(tls);
        b.out = big[1];
        b.out_n = BIG;
        if (i / 4 == 2) {
            a.out = big[0];
            a.out_n = BIG;
        }
        nt_run_until(a_closed, NULL);
        nt_end_fini(&a);
        nt_end_fini(&b);
    }
}

static void a_stream_may_be_closed_before_it_began(void **state)
{
    struct net_addr nobody = {.len = 0};
    struct net_stream *s;
    int fd[2];

    (void)state;
    nt_tcp_pair(fd);
    s = net_stream_accepted(loop, fd[0], server_tls, &nobody);
    net_stream_close(&s, false);
    s = net_stream_accepted(loop, fd[1], NULL, &nobody);
    net_stream_close(&s, true);
    nt_run_ms(2);
}

static void buf_of(struct buf *out, struct view v)
{
    *out = BUF_INIT;
    buf_add(out, v.p, v.n);
}

static bool b_has(void *ctx)
{
    return b.in.n >= *(size_t *)ctx;
}

static bool b_ended(void *ctx)
{
    (void)ctx;
    return b.ended || b.read_failed || b.failed;
}

/* In clear: what came early is read first, in any pieces, though the socket is quiet. */
static void early_bytes_come_first(void **state)
{
    static const struct view all = {"hello, world", 12};
    struct net_addr nobody = {.len = 0};
    struct buf early;
    int fd[2];

    (void)state;
    for (size_t k = 0; k <= all.n; k++) {
        memset(&b, 0, sizeof(b));
        nt_tcp_pair(fd);
        buf_of(&early, view_of(all.p, k));
        b.piece = k % 4;
        b.one_read = k & 1;
        b.toggle = k & 2;
        nt_end_bind(&b, net_stream_accepted_early(loop, fd[1], NULL, &nobody, &early));
        assert_null(early.base);
        nt_run_until(b_has, &k);
        assert_int_equal(write(fd[0], all.p + k, all.n - k), all.n - k);
        shutdown(fd[0], SHUT_WR);
        nt_run_until(b_ended, NULL);
        assert_true(b.ended);
        assert_true(view_eq(str_view(&b.in), all));
        nt_end_fini(&b);
        close(fd[0]);
    }
}

static bool hello_is_there(void *ctx)
{
    int *fd = ctx;
    char c;

    return recv(*fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

/* With TLS: the first `k` bytes of the handshake are read by somebody else. */
static bool early_handshake(size_t k)
{
    struct net_addr nobody = {.len = 0};
    struct buf early = BUF_INIT;
    ssize_t n;
    int fd[2];

    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    nt_tcp_pair(fd);
    nt_end_connect(&a, fd[0], client_tls, "localhost", VIEW_NONE);
    nt_run_until(hello_is_there, &fd[1]);
    n = recv(fd[1], buf_reserve(&early, k), k, 0);
    assert_true(n > 0);
    buf_commit(&early, (size_t)n);
    nt_end_bind(&b, net_stream_accepted_early(loop, fd[1], server_tls, &nobody, &early));
    assert_null(early.base);
    a.out = big[0];
    a.out_n = b.out_n = 100000;
    b.out = big[1];
    a.fin_after_out = b.fin_after_out = true;
    nt_run_until(both_ended, NULL);
    assert_true(view_eq(str_view(&b.in), view_of(big[0], 100000)));
    assert_true(view_eq(str_view(&a.in), view_of(big[1], 100000)));
    nt_end_fini(&a);
    nt_end_fini(&b);
    return (size_t)n == k;
}

static void early_handshakes_go_on(void **state)
{
    size_t k = 1;

    (void)state;
    while (early_handshake(k))
        k += k < 12 ? 1 : 31;
    assert_true(k > 100);
}

/* The descriptor goes on as if nothing had been. */
static void a_stream_gives_its_descriptor_back(void **state)
{
    size_t three = 3;
    int fd[2], back;

    (void)state;
    for (int i = 0; i < 3; i++) {
        memset(&b, 0, sizeof(b));
        nt_tcp_pair(fd);
        nt_end_accept(&b, fd[1], NULL);
        if (i > 0) {
            nt_run_until(nt_flag, &b.ready);
            net_want_read(b.s, i == 2);
        }
        assert_int_equal(write(fd[0], "one", 3), 3);
        if (i == 2)
            nt_run_until(b_has, &three);
        back = net_stream_release(&b.s);
        assert_null(b.s);
        assert_int_equal(back, fd[1]);
        nt_end_accept(&b, back, NULL); /* in the same turn */
        assert_int_equal(write(fd[0], "two", 3), 3);
        shutdown(fd[0], SHUT_WR);
        nt_run_until(b_ended, NULL);
        assert_true(view_is(str_view(&b.in), "onetwo"));
        nt_end_fini(&b);
        close(fd[0]);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(ready_comes_later_and_once),
        T(much_goes_both_ways_in_clear),
        T(much_goes_both_ways_over_tls),
        T(a_reader_that_rests_stops_the_writer),
        T(one_side_may_end_first),
        T(an_end_waits_for_room),
        T(an_end_waits_for_the_handshake),
        T(the_end_of_clear_text_is_an_end),
        T(a_tls_end_behind_bytes),
        T(records_of_one_write_leave_together),
        T(full_records_are_read_at_once),
        T(a_cut_is_not_an_end_of_tls),
        T(a_hard_close_is_a_reset),
        T(writing_to_a_reset_is_an_error),
        T(a_failed_handshake_is_told),
        T(garbage_instead_of_a_handshake),
        T(closing_is_possible_everywhere),
        T(a_stream_may_be_closed_before_it_began),
        T(early_bytes_come_first),
        T(early_handshakes_go_on),
        T(a_stream_gives_its_descriptor_back),
    };

    return cmocka_run_group_tests_name("net/stream", tests, group_setup, nt_group_teardown);
}
