#include "base/xmem.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/bug.h"

static void test_allocation(void **state)
{
    char *p = xmalloc(0);
    int *zeroed = xcalloc(4, sizeof(*zeroed));

    (void)state;
    assert_non_null(p);
    p = xrealloc(p, 10);
    memcpy(p, "123456789", 10);
    p = xrealloc(p, 100);
    assert_string_equal(p, "123456789");
    assert_int_equal(zeroed[3], 0);
    XFREE(p);
    assert_null(p);
    xfree(NULL);
    xfree(zeroed);
    p = xmemdup0("a\0b", 3);
    assert_memory_equal(p, "a\0b", 4);
    xfree_secret(p, 3);
    p = xmemdup0(NULL, 0);
    assert_string_equal(p, "");
    xfree(p);
    xfree_secret(NULL, 5);
}

/* Run in a child with its standard error in a pipe: it must abort, and say this. */
static void assert_aborts(void (*fn)(void), const char *text)
{
    char said[512] = "";
    int fds[2], status;
    size_t n = 0;
    ssize_t got;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct sigaction plain = {.sa_handler = SIG_DFL};

        sigaction(SIGABRT, &plain, NULL);
        dup2(fds[1], STDERR_FILENO);
        fn();
        _exit(0);
    }
    close(fds[1]);
    while ((got = read(fds[0], said + n, sizeof(said) - 1 - n)) > 0)
        n += (size_t)got;
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    if (!strstr(said, text))
        fail_msg("said: %s", said);
}

static void fail_assertion(void)
{
    ASSERT(1 + 1 == 3);
}

static void reach_bug(void)
{
    BUG("not here");
}

struct thing {
    unsigned magic;
};

static void use_after_end(void)
{
    struct thing t;

    OBJ_INIT(&t, 0x1234u);
    OBJ_CHECK(&t, 0x1234u);
    OBJ_FINI(&t);
    OBJ_CHECK(&t, 0x1234u);
}

static void run_out(void)
{
    volatile size_t most = SIZE_MAX / 2;

    xfree(xmalloc(most));
}

static void test_bugs_bark(void **state)
{
    (void)state;
    assert_aborts(fail_assertion, "test_xmem.c:");
    assert_aborts(fail_assertion, ": 1 + 1 == 3\n");
    assert_aborts(reach_bug, ": not here\n");
    assert_aborts(use_after_end, "->magic == (0x1234u)");
}

static void test_out_of_memory(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* the sanitizer's allocator ends the program by itself */
#endif
    assert_aborts(run_out, "out of memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocation),
        cmocka_unit_test(test_bugs_bark),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
