/* Answers that a far side may give, over a pair of sockets: all of them end, within bounds. */
#include "doctor/talk.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/bug.h"
#include "rt/clock.h"
#include "rt/fdx.h"

struct far_side {
    pthread_t thread;
    int fd;
    struct view says;
    unsigned times;
    bool stays; /* until the near side is gone */
};

static void *far_main(void *arg)
{
    struct far_side *f = arg;
    char asked[4096];
    unsigned i;

    if (read(f->fd, asked, sizeof(asked)) > 0) {
        for (i = 0; i < f->times; i++) {
            if (send(f->fd, f->says.p, f->says.n, MSG_NOSIGNAL) < 0)
                break;
        }
        if (f->stays)
            while (read(f->fd, asked, sizeof(asked)) > 0)
                ;
    }
    close(f->fd);
    return NULL;
}

/* One request to a far side that answers so. */
static int ask(struct view says, unsigned times, bool stays, struct talk_answer *a, struct err *e)
{
    struct far_side f = {.says = says, .times = times, .stays = stays};
    struct line line = LINE_INIT;
    struct str request = STR_INIT;
    int fds[2], rc;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    line.fd = fds[0];
    f.fd = fds[1];
    assert_int_equal(fd_set_nonblock(line.fd, true, NULL), 0);
    assert_int_equal(pthread_create(&f.thread, NULL, far_main, &f), 0);
    talk_begin(&request, "GET", VIEW_LIT("/x?y"), "h.example:8443");
    talk_end(&request, VIEW_NONE, false);
    line_allow(&line, 200);
    e->code = ERR_NONE;
    rc = talk(&line, &request, a, e);
    line_close(&line);
    pthread_join(f.thread, NULL);
    str_fini(&request);
    return rc;
}

static void test_answers(void **state)
{
    static const struct view whole = VIEW_LIT("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                                              "HTTP/1.1 200 OK\r\nServer: a\tb\r\n"
                                              "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                                              "Content-Type: Text/HTML; x\r\n"
                                              "Transfer-Encoding: chunked\r\n\r\n"
                                              "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    struct talk_answer a;
    struct err e;

    assert_int_equal(ask(whole, 1, true, &a, &e), 0);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.date, 784111777);
    assert_string_equal(a.server, "a?b");
    assert_string_equal(str_c(&a.body), "abcde");
    assert_true(a.html && a.keep_alive && !a.location);
    talk_answer_fini(&a);
}

static void test_until_the_end(void **state)
{
    struct talk_answer a;
    struct err e;

    assert_int_equal(
        ask(VIEW_LIT("HTTP/1.0 302 Found\r\nLocation: /\r\n\r\nabc"), 1, false, &a, &e), 0);
    assert_int_equal(a.status, 302);
    assert_true(a.location && !a.keep_alive);
    assert_int_equal(a.date, -1);
    assert_string_equal(str_c(&a.body), "abc");
    talk_answer_fini(&a);
}

/* More than anybody needs is neither kept nor waited for. */
static void test_a_body_without_end(void **state)
{
    static char piece[8192];
    static const char head[] = "HTTP/1.1 200 OK\r\n\r\n";
    struct talk_answer a;
    struct err e;

    memset(piece, 'x', sizeof(piece));
    memcpy(piece, head, sizeof(head) - 1);
    assert_int_equal(ask(view_of(piece, sizeof(piece)), 1000000, true, &a, &e), 0);
    assert_int_equal(a.status, 200);
    assert_false(a.keep_alive);
    assert_true(a.body.n <= 64 << 10);
    talk_answer_fini(&a);
}

static void test_what_is_no_answer(void **state)
{
    static const struct {
        struct view says;
        bool stays;
        enum err_code code;
    } rows[] = {
        {VIEW_LIT("220 mail.example ESMTP\r\n\r\n"), true, ERR_INVALID},
        {VIEW_LIT("HTTP/1.1 200 OK\r\nA : b\r\n\r\n"), true, ERR_INVALID},
        {VIEW_LIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"), false, ERR_CLOSED},
        {VIEW_LIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"), true, ERR_TIMEOUT},
        {VIEW_LIT("HTTP/1.1 1"), true, ERR_TIMEOUT},
        {VIEW_LIT(""), false, ERR_CLOSED},
    };
    struct talk_answer a;
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(ask(rows[i].says, 1, rows[i].stays, &a, &e), -1);
        assert_int_equal(e.code, rows[i].code);
        talk_answer_fini(&a);
    }
}

/* One interim answer after the other keeps nobody waiting longer than he allowed. */
static void test_interim_answers_without_end(void **state)
{
    int64_t began = clock_mono_ns();
    struct talk_answer a;
    struct err e;

    assert_int_equal(ask(VIEW_LIT("HTTP/1.1 100 Continue\r\n\r\n"), 100000000, true, &a, &e), -1);
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_true(clock_mono_ns() - began < 10 * NS_PER_SEC);
    talk_answer_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_until_the_end),
        cmocka_unit_test(test_a_body_without_end),
        cmocka_unit_test(test_what_is_no_answer),
        cmocka_unit_test(test_interim_answers_without_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
