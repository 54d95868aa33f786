#include "net/proxied.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include "rt/metric.h"
#include "net_test.h"

#define V2_HEADER "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\xc7\x38\x01\xbb"
#define V2_CHECK  "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"

static struct net_proxied *stage;
static bool trust = true;

/* The last connection that was handed on. */
static struct {
    int fd;
    unsigned calls;
    char client[NET_ADDR_TEXT];
} got;

static bool trusted(void *ctx, const struct net_addr *sender)
{
    (void)sender;
    return *(bool *)ctx;
}

static void on_accepted(void *ctx, int fd, const struct net_addr *peer)
{
    assert_ptr_equal(ctx, &got);
    got.fd = fd;
    got.calls++;
    net_addr_text(peer, got.client);
}

static int setup(void **state)
{
    nt_setup(state);
    got.fd = -1;
    got.calls = 0;
    trust = true;
    return 0;
}

static void start(unsigned timeout_ms, unsigned max_waiting)
{
    struct net_proxied_opts o = {.loop = loop,
                                 .trusted = trusted,
                                 .trusted_ctx = &trust,
                                 .fn = on_accepted,
                                 .ctx = &got,
                                 .timeout_ms = timeout_ms,
                                 .max_waiting = max_waiting};

    stage = net_proxied_new(&o);
}

static int teardown(void **state)
{
    net_proxied_free(&stage);
    return nt_teardown(state);
}

/* A connection whose other end the stage has; the sender is 198.51.100.9:7. */
static int sender(void)
{
    struct net_addr from;
    int fd[2];

    assert_int_equal(net_addr_literal(VIEW_LIT("198.51.100.9"), 7, &from), 0);
    nt_tcp_pair(fd);
    net_proxied_accepted(stage, fd[1], &from);
    return fd[0];
}

static bool handed_on(void *ctx)
{
    (void)ctx;
    return got.calls > 0;
}

static bool is_closed(void *ctx)
{
    char c;
    ssize_t n = recv(*(int *)ctx, &c, 1, MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno == ECONNRESET);
}

static double counted(const char *result)
{
    return metric_value(
        metric_series(metric_family(METRIC_COUNTER, "proxy_headers", "result", ""), result));
}

static void send_all(int fd, struct view v)
{
    assert_int_equal(send(fd, v.p, v.n, MSG_NOSIGNAL), (ssize_t)v.n);
}

static struct view rest(char *out, size_t room)
{
    ssize_t n = recv(got.fd, out, room, MSG_DONTWAIT);

    return view_of(out, TR_MAX(n, 0));
}

/* The header cut at every byte, with bytes of the client right behind it. */
static void cut_everywhere(struct view header, const char *client)
{
    char out[64];
    int fd;

    for (size_t k = 0; k <= header.n; k++) {
        got.calls = 0;
        fd = sender();
        send_all(fd, view_of(header.p, k));
        if (k < header.n) {
            nt_run_ms(1);
            assert_int_equal(got.calls, 0);
        }
        send_all(fd, view_from(header, k));
        send_all(fd, VIEW_LIT("the client's"));
        nt_run_until(handed_on, NULL);
        assert_string_equal(got.client, client);
        assert_true(view_is(rest(out, sizeof(out)), "the client's"));
        close(got.fd);
        close(fd);
    }
}

static void clients_are_told_by_trusted_senders(void **state)
{
    (void)state;
    start(0, 0);
    cut_everywhere(VIEW_LIT("PROXY TCP4 192.0.2.1 198.51.100.2 51000 443\r\n"), "192.0.2.1:51000");
    cut_everywhere(VIEW_LIT("PROXY TCP6 2001:db8::1 ::1 51000 443\r\n"), "[2001:db8::1]:51000");
    cut_everywhere(VIEW_LIT(V2_HEADER), "192.0.2.1:51000");
    cut_everywhere(VIEW_LIT(V2_CHECK), "198.51.100.9:7");
    cut_everywhere(VIEW_LIT("PROXY UNKNOWN\r\n"), "198.51.100.9:7");
}

static void a_long_header_byte_by_byte(void **state)
{
    static char header[16 + 2048];
    int fd;

    (void)state;
    start(0, 0);
    memcpy(header, V2_HEADER, sizeof(V2_HEADER) - 1);
    header[14] = 8; /* 2048 bytes in all behind the first 16 */
    header[15] = 0;
    header[28] = 4; /* a no-op of the rest */
    header[29] = (2048 - 12 - 3) >> 8;
    header[30] = (char)(2048 - 12 - 3);
    fd = sender();
    for (size_t i = 0; i < sizeof(header); i += 97) {
        assert_int_equal(got.calls, 0);
        send_all(fd, view_of(header + i, TR_MIN(sizeof(header) - i, 97u)));
        nt_run_ms(1);
    }
    nt_run_until(handed_on, NULL);
    assert_string_equal(got.client, "192.0.2.1:51000");
    close(got.fd);
    close(fd);
}

static void from_others_nothing_is_looked_for(void **state)
{
    char out[64];
    int fd;

    (void)state;
    start(0, 0);
    trust = false;
    fd = sender();
    assert_int_equal(got.calls, 1); /* at once */
    assert_string_equal(got.client, "198.51.100.9:7");
    send_all(fd, VIEW_LIT("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n"));
    nt_run_ms(1);
    assert_true(view_is(rest(out, sizeof(out)), "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n"));
    close(got.fd);
    close(fd);
}

static void closed_for(struct view bytes, bool fin, const char *result)
{
    double before = counted(result);
    int fd = sender();

    send_all(fd, bytes);
    if (fin)
        shutdown(fd, SHUT_WR);
    nt_run_until(is_closed, &fd);
    assert_int_equal(got.calls, 0);
    assert_int_equal((int)(counted(result) - before), 1);
    close(fd);
}

static void without_a_header_it_is_closed(void **state)
{
    (void)state;
    start(30, 0);
    closed_for(VIEW_LIT("GET / HTTP/1.1\r\n\r\n"), false, "bad");
    closed_for(VIEW_LIT("\x16\x03\x01\x02"), false, "bad");
    closed_for(VIEW_LIT("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n"), false, "bad");
    closed_for(VIEW_LIT("PROXY TCP4"), true, "bad");
    closed_for(VIEW_NONE, true, "gone");
    closed_for(VIEW_NONE, false, "late");
    closed_for(VIEW_LIT("PROXY TCP4"), false, "late");
}

static void slow_ones_do_not_hold_up_others(void **state)
{
    int slow, fd;

    (void)state;
    start(60, 0);
    slow = sender();
    fd = sender();
    send_all(fd, VIEW_LIT("PROXY UNKNOWN\r\n"));
    nt_run_until(handed_on, NULL);
    got.calls = 0;
    nt_run_until(is_closed, &slow);
    assert_int_equal(got.calls, 0);
    close(slow);
    close(fd);
    close(got.fd);
}

static void only_so_many_wait(void **state)
{
    int fd[3];

    (void)state;
    start(0, 2);
    for (int i = 0; i < 3; i++)
        fd[i] = sender();
    nt_run_until(is_closed, &fd[2]);
    assert_false(is_closed(&fd[0]));
    assert_int_equal((int)counted("too_many"), 1);
    send_all(fd[0], VIEW_LIT("PROXY UNKNOWN\r\n"));
    nt_run_until(handed_on, NULL);
    close(got.fd);
    net_proxied_free(&stage); /* closes the one that waits */
    nt_run_until(is_closed, &fd[1]);
    for (int i = 0; i < 3; i++)
        close(fd[i]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(clients_are_told_by_trusted_senders), T(a_long_header_byte_by_byte),
        T(from_others_nothing_is_looked_for),   T(without_a_header_it_is_closed),
        T(slow_ones_do_not_hold_up_others),     T(only_so_many_wait),
    };

    return cmocka_run_group_tests_name("net/proxied", tests, nt_group_setup, nt_group_teardown);
}
