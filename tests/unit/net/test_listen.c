#include "net/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "net_test.h"

enum { MANY = 8 };

static struct net_addr at;
static struct net_listener *listener;
static int taken[MANY * 2];
static struct net_addr peers[MANY * 2];
static unsigned n_taken;
static int clients[MANY];
static bool free_in_callback;

static void on_accept(void *ctx, int fd, const struct net_addr *peer)
{
    assert_string_equal(ctx, "context");
    assert_true(n_taken < ARRAY_LEN(taken));
    peers[n_taken] = *peer;
    taken[n_taken++] = fd;
    if (free_in_callback && listener)
        net_listener_free(&listener);
}

static int open_fd(const char *text, struct net_addr *bound)
{
    struct net_addr addr;
    struct err e;
    int fd;

    assert_int_equal(net_addr_parse(view_str(text), &addr, &e), 0);
    fd = net_listen_fd(&addr, 64, bound, &e);
    if (fd < 0)
        fail_msg("%s", e.text);
    return fd;
}

static int setup(void **state)
{
    static char context[] = "context";

    nt_setup(state);
    n_taken = 0;
    free_in_callback = false;
    for (int i = 0; i < MANY; i++)
        clients[i] = -1;
    listener = net_listener_new(loop, open_fd("127.0.0.1:0", &at), on_accept, context);
    return 0;
}

static int teardown(void **state)
{
    net_listener_free(&listener);
    for (unsigned i = 0; i < n_taken; i++)
        close(taken[i]);
    for (int i = 0; i < MANY; i++)
        if (clients[i] >= 0)
            close(clients[i]);
    return nt_teardown(state);
}

static void connect_clients(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(clients[i] >= 0);
        assert_int_equal(connect(clients[i], (struct sockaddr *)&at.ss, at.len), 0);
    }
}

static bool taken_at_least(void *ctx)
{
    return n_taken >= *(unsigned *)ctx;
}

static void wait_taken(unsigned n)
{
    nt_run_until(taken_at_least, &n);
}

static int option(int fd, int level, int name)
{
    int v = -1;
    socklen_t len = sizeof(v);

    assert_int_equal(getsockopt(fd, level, name, &v, &len), 0);
    return v;
}

static void connections_come_ready_for_use(void **state)
{
    struct sockaddr_in mine;
    socklen_t len = sizeof(mine);

    (void)state;
    assert_true(net_addr_port(&at) != 0);
    connect_clients(1);
    wait_taken(1);
    assert_true(fcntl(taken[0], F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(taken[0], F_GETFD) & FD_CLOEXEC);
    assert_true(option(taken[0], IPPROTO_TCP, TCP_NODELAY));
    getsockname(clients[0], (struct sockaddr *)&mine, &len);
    assert_int_equal(net_addr_port(&peers[0]), ntohs(mine.sin_port));
}

static void a_port_may_have_several_listeners(void **state)
{
    char text[NET_ADDR_TEXT];
    int second;

    (void)state;
    second = open_fd(net_addr_text(&at, text), NULL);
    close(second);
}

static void a_failure_names_the_address(void **state)
{
    struct net_addr addr;
    struct err e;

    (void)state;
    assert_int_equal(net_addr_parse(VIEW_LIT("192.0.2.1:80"), &addr, &e), 0);
    assert_int_equal(net_listen_fd(&addr, 1, NULL, &e), -1);
    nt_assert_contains(e.text, "cannot listen at 192.0.2.1:80: ");
}

static void a_pause_leaves_them_in_the_queue(void **state)
{
    (void)state;
    net_listener_pause(listener, true);
    connect_clients(3);
    nt_run_ms(20);
    assert_int_equal(n_taken, 0);
    net_listener_pause(listener, false);
    wait_taken(3);
}

static void closing_takes_what_is_queued(void **state)
{
    (void)state;
    connect_clients(MANY);
    net_listener_free(&listener);
    assert_int_equal(n_taken, MANY);
}

static void a_listener_may_be_freed_in_its_callback(void **state)
{
    (void)state;
    free_in_callback = true;
    connect_clients(MANY);
    wait_taken(MANY);
    assert_null(listener);
    nt_run_ms(2);
}

/* From now on no further descriptor can be had. Returns the old limit. */
static struct rlimit starve(void)
{
    struct rlimit old, now;
    int next = dup(0);

    assert_true(next >= 0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    now = old;
    now.rlim_cur = (rlim_t)next;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    assert_int_equal(dup(0), -1);
    return old;
}

static void without_descriptors_it_waits_and_goes_on(void **state)
{
    struct rlimit old;
    char byte;

    (void)state;
    connect_clients(3);
    old = starve();
    nt_run_ms(40); /* the first shortage: wait */
    assert_int_equal(n_taken, 0);
    assert_int_equal(recv(clients[0], &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    setrlimit(RLIMIT_NOFILE, &old);
    wait_taken(3);
}

static bool first_is_refused(void *ctx)
{
    char byte;

    (void)ctx;
    return recv(clients[0], &byte, 1, MSG_DONTWAIT) == -1 && errno == ECONNRESET;
}

static void those_who_wait_longer_are_refused_one_by_one(void **state)
{
    struct rlimit old;
    char byte;

    (void)state;
    connect_clients(3);
    old = starve();
    nt_run_until(first_is_refused, NULL);
    assert_int_equal(recv(clients[2], &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    setrlimit(RLIMIT_NOFILE, &old);
    wait_taken(1);
    assert_true(n_taken < 3);
    /* good again: the next shortage begins with a wait */
    nt_run_ms(5);
}

static void closing_without_descriptors_refuses_the_queue(void **state)
{
    struct rlimit old;
    char byte;

    (void)state;
    connect_clients(3);
    old = starve();
    net_listener_free(&listener);
    setrlimit(RLIMIT_NOFILE, &old);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(recv(clients[i], &byte, 1, 0), -1);
        assert_int_equal(errno, ECONNRESET);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(connections_come_ready_for_use),
        T(a_port_may_have_several_listeners),
        T(a_failure_names_the_address),
        T(a_pause_leaves_them_in_the_queue),
        T(closing_takes_what_is_queued),
        T(a_listener_may_be_freed_in_its_callback),
        T(without_descriptors_it_waits_and_goes_on),
        T(those_who_wait_longer_are_refused_one_by_one),
        T(closing_without_descriptors_refuses_the_queue),
    };

    return cmocka_run_group_tests_name("net/listen", tests, NULL, NULL);
}
