#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void test_set(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(err_set(&e, ERR_LIMIT, "%d of %s", 3, "x"), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    assert_string_equal(e.text, "3 of x");
    assert_int_equal(err_errno(&e, ERR_IO, ENOSPC, "cannot write %s", "f"), -1);
    assert_string_equal(e.text, "cannot write f: No space left on device");
    assert_int_equal(err_prefix(&e, "spool %d", 1), -1);
    assert_int_equal(e.code, ERR_IO);
    assert_string_equal(e.text, "spool 1: cannot write f: No space left on device");
}

static void test_null(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, ERR_IO, "x"), -1);
    assert_int_equal(err_errno(NULL, ERR_IO, 1, "x"), -1);
    assert_int_equal(err_prefix(NULL, "x"), -1);
}

/* Too long is cut, never overrun. */
static void test_cut(void **state)
{
    char big[1000];
    struct err e;

    (void)state;
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    err_set(&e, ERR_INVALID, "%s", big);
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    err_errno(&e, ERR_IO, ENOENT, "%s", big);
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    err_prefix(&e, "head");
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    assert_memory_equal(e.text, "head: xxx", 9);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(err_code_name(ERR_NONE), "none");
    assert_string_equal(err_code_name(ERR_UNAVAIL), "unavailable");
    assert_string_equal(err_code_name((enum err_code)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_null),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
