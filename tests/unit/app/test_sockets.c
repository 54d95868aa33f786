/* Descriptors that were there before us, by name, by address, and as many as are wanted. */
#include "app/sockets.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/listen.h"

static int listener(struct net_addr *at)
{
    struct net_addr any;
    int fd;

    assert_int_equal(net_addr_parse(VIEW_LIT("127.0.0.1:0"), &any, NULL), 0);
    fd = net_listen_fd(&any, 5, at, NULL);
    assert_true(fd >= 0);
    return fd;
}

static ino_t inode(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static struct config_listen at_address(const char *name, const char *address)
{
    return (struct config_listen){.name = (char *)name, .address = (char *)address};
}

static void test_of_a_process(void **state)
{
    struct sockets s = {0};
    struct sockets_found f;
    struct net_addr at[3];
    struct err e;
    char text[NET_ADDR_TEXT];
    struct config_listen l = at_address("a", "127.0.0.1:0");
    int i;

    (void)state;
    for (i = 0; i < 3; i++)
        assert_int_equal(sockets_add(&s, view_str(i < 2 ? "a" : "b"), VIEW_LIT("127.0.0.1:0"),
                                     listener(&at[i]), false, &e),
                         0);
    /* By name, with the address as it was configured; all of them. */
    assert_int_equal(sockets_open(&s, &l, &f, &e), 0);
    assert_int_equal(f.n, 2);
    assert_false(f.only);
    assert_int_equal(net_addr_port(&f.at), net_addr_port(&at[0]));
    sockets_found_fini(&f);
    /* Renamed, but at the same place. */
    l = at_address("c", net_addr_text(&at[2], text));
    assert_int_equal(sockets_open(&s, &l, &f, &e), 0);
    assert_int_equal(f.n, 1);
    assert_int_equal(f.had, 1);
    sockets_found_fini(&f);
    /* Nobody's any more. */
    l = at_address("b", "127.0.0.1:0");
    assert_int_equal(sockets_open(&s, &l, &f, &e), 0);
    assert_int_equal(f.had, 0);
    assert_int_not_equal(net_addr_port(&f.at), net_addr_port(&at[2]));
    sockets_found_fini(&f);
    sockets_fini(&s, false);
}

static void test_moved(void **state)
{
    struct sockets s = {0};
    struct sockets_found f;
    struct net_addr at;
    struct err e;
    struct config_listen l = at_address("a", "127.0.0.2:0");

    (void)state;
    assert_int_equal(
        sockets_add(&s, VIEW_LIT("a"), VIEW_LIT("127.0.0.1:0"), listener(&at), false, &e), 0);
    assert_int_equal(sockets_open(&s, &l, &f, &e), 0);
    assert_int_equal(f.had, 0);
    assert_true(s.had[0].fd >= 0);
    sockets_found_fini(&f);
    sockets_fini(&s, false);
}

static void test_more_of_them(void **state)
{
    struct sockets s = {0};
    struct sockets_found f;
    struct net_addr at;
    struct err e;
    struct config_listen l = at_address("a", "127.0.0.1:0");
    int only;

    (void)state;
    for (only = 0; only < 2; only++) {
        assert_int_equal(
            sockets_add(&s, VIEW_LIT("a"), VIEW_LIT("127.0.0.1:0"), listener(&at), only, &e), 0);
        assert_int_equal(sockets_open(&s, &l, &f, &e), 0);
        assert_int_equal(sockets_widen(&f, 3, &e), 0);
        assert_int_equal(f.n, 3);
        /* A queue for each of them, or one for all. */
        assert_int_equal(inode(f.fds[2]) == inode(f.fds[0]), only);
        assert_int_equal(sockets_widen(&f, 1, &e), 0);
        assert_int_equal(f.n, 3);
        sockets_found_fini(&f);
        sockets_fini(&s, false);
    }
}

static void test_of_a_supervisor(void **state)
{
    struct sockets s = {0};
    struct net_addr at;
    struct err e;
    char pid[24];
    int fd = listener(&at), other = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    assert_int_equal(sockets_add(&s, VIEW_NONE, VIEW_NONE, other, true, &e), -1);
    close(other);
    assert_true(dup2(fd, 3) == 3 || fd == 3);
    if (fd != 3)
        close(fd);
    snprintf(pid, sizeof(pid), "%ld", (long)getpid() + 1);
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "upstream", 1);
    sockets_from_supervisor(&s); /* somebody else's */
    assert_int_equal(s.n, 0);
    assert_null(getenv("LISTEN_FDS"));

    snprintf(pid, sizeof(pid), "%ld", (long)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "upstream", 1);
    sockets_from_supervisor(&s);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.had[0].name, "upstream");
    assert_true(s.had[0].only);
    assert_true(fcntl(3, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(3, F_GETFL) & O_NONBLOCK);
    sockets_fini(&s, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_of_a_supervisor), /* first: it wants descriptor 3 */
        cmocka_unit_test(test_of_a_process),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_more_of_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
