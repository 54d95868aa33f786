/* Messages between two processes, whole, in pieces, and broken. */
#include "app/passing.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct pair {
    int fd[2];
    struct passing_in in;
    struct passing_message m;
    struct err e;
};

static int set_up(void **state)
{
    static struct pair p;

    p = (struct pair){0};
    *state = &p;
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p.fd);
}

static int tear_down(void **state)
{
    struct pair *p = *state;

    passing_fini(&p->in);
    close(p->fd[0]);
    if (p->fd[1] >= 0)
        close(p->fd[1]);
    return 0;
}

static ino_t inode(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static void test_messages_and_descriptors(void **state)
{
    struct pair *p = *state;
    int fds[PASSING_FDS], i;

    for (i = 0; i < PASSING_FDS; i++)
        fds[i] = p->fd[1];
    assert_int_equal(
        passing_send(p->fd[1], PASSING_LISTENERS, VIEW_LIT("many"), fds, PASSING_FDS, &p->e), 0);
    assert_int_equal(passing_send(p->fd[1], PASSING_CONNECTION, VIEW_LIT("one"), fds, 1, &p->e), 0);
    assert_int_equal(passing_send(p->fd[1], PASSING_OFFERED, VIEW_NONE, NULL, 0, &p->e), 0);

    assert_int_equal(passing_wait(&p->in, p->fd[0], 1000, &p->m, &p->e), 0);
    assert_int_equal(p->m.type, PASSING_LISTENERS);
    assert_int_equal(p->m.n_fds, PASSING_FDS);
    assert_true(view_is(p->m.payload, "many"));
    assert_int_equal(inode(p->m.fds[PASSING_FDS - 1]), inode(p->fd[1]));
    assert_true(fcntl(p->m.fds[0], F_GETFD) & FD_CLOEXEC);
    passing_close_fds(&p->m);
    assert_int_equal(passing_wait(&p->in, p->fd[0], 1000, &p->m, &p->e), 0);
    assert_int_equal(p->m.n_fds, 1);
    assert_true(view_is(p->m.payload, "one"));
    passing_close_fds(&p->m);
    assert_int_equal(passing_wait(&p->in, p->fd[0], 1000, &p->m, &p->e), 0);
    assert_int_equal(p->m.type, PASSING_OFFERED);
    assert_int_equal(passing_wait(&p->in, p->fd[0], 1, &p->m, &p->e), -1);
    assert_int_equal(p->e.code, ERR_TIMEOUT);
}

static void test_in_pieces(void **state)
{
    static const char bytes[] = "\x05\0\0\0\x05\0hello\0\0\0\0\x04";
    struct pair *p = *state;
    size_t i, n = 0;

    for (i = 0; i < sizeof(bytes); i++) { /* the last one is the literal's own zero */
        assert_int_equal(write(p->fd[1], bytes + i, 1), 1);
        assert_int_equal(passing_read(&p->in, p->fd[0], &p->e), 1);
        n += passing_next(&p->in, &p->m, &p->e) == 1;
        if (i == 10)
            assert_true(n == 1 && view_is(p->m.payload, "hello"));
    }
    assert_int_equal(n, 2);
    assert_int_equal(p->m.type, PASSING_OFFERED);
    assert_int_equal(passing_read(&p->in, p->fd[0], &p->e), 0);
}

static void test_nonsense(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        {"\xff\xff\xff\xff\x01\0", 6}, /* too long */
        {"\x01\0\x01\0\x01\0", 6},
        {"\0\0\0\0\x01\xff", 6}, /* more descriptors than there may be */
        {"\0\0\0\0\x08\x01", 6}, /* one that did not come */
    };
    struct pair *p = *state;
    size_t i;

    for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(write(p->fd[1], bad[i].bytes, bad[i].n), (ssize_t)bad[i].n);
        assert_int_equal(passing_wait(&p->in, p->fd[0], 1000, &p->m, &p->e), -1);
        assert_int_not_equal(p->e.code, ERR_TIMEOUT);
        assert_int_equal(p->m.n_fds, 0);
        passing_fini(&p->in);
    }
}

static void test_the_end(void **state)
{
    struct pair *p = *state;

    assert_int_equal(passing_send(p->fd[1], PASSING_FAILED, VIEW_LIT("x"), &p->fd[0], 1, &p->e), 0);
    close(p->fd[1]);
    p->fd[1] = -1;
    assert_int_equal(passing_wait(&p->in, p->fd[0], 1000, &p->m, &p->e), 0);
    passing_close_fds(&p->m);
    assert_int_equal(passing_wait(&p->in, p->fd[0], 1000, &p->m, &p->e), -1);
    assert_int_equal(p->e.code, ERR_CLOSED);
    assert_int_equal(passing_send(p->fd[0], PASSING_FAILED, VIEW_NONE, NULL, 0, &p->e), -1);
    assert_int_equal(p->e.code, ERR_CLOSED);
}

static void test_hello(void **state)
{
    struct str payload = STR_INIT;
    struct passing_hello h;
    struct wire rest;
    struct err e;

    (void)state;
    passing_put_hello(&payload);
    wire_put_u8(&payload, 7);
    assert_int_equal(passing_get_hello(str_view(&payload), &h, &rest, &e), 0);
    assert_int_equal(h.pid, getpid());
    assert_int_equal(wire_u8(&rest), 7);
    assert_int_equal(passing_get_hello(view_of(payload.p, 10), &h, NULL, &e), -1);
    payload.p[0] = 99;
    assert_int_equal(passing_get_hello(str_view(&payload), &h, NULL, &e), -1);
    assert_non_null(strstr(e.text, "in another way"));
    str_fini(&payload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_messages_and_descriptors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_in_pieces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nonsense, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_end, set_up, tear_down),
        cmocka_unit_test(test_hello),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
