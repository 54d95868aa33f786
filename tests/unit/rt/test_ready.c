#include "rt/ready.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static bool check(void *ctx, struct err *why)
{
    const char *reason = ctx;

    if (*reason)
        err_set(why, ERR_UNAVAIL, "%s", reason);
    return *reason == '\0';
}

static bool silent(void *ctx, struct err *why)
{
    (void)ctx;
    (void)why;
    return false;
}

static void test_ready(void **state)
{
    struct str out = STR_INIT;
    char disk[16] = "", loop[16] = "";

    (void)state;
    assert_true(ready_check(&out));
    ready_add("spool", check, disk);
    ready_add("worker", check, loop);
    assert_true(ready_check(&out));
    assert_string_equal(str_c(&out), "");
    memcpy(loop, "stuck", 6);
    assert_false(ready_check(&out));
    assert_string_equal(str_c(&out), "worker: stuck\n");
    str_clear(&out);
    memcpy(disk, "is full", 8);
    assert_false(ready_check(NULL));
    assert_false(ready_check(&out));
    assert_string_equal(str_c(&out), "spool: is full\nworker: stuck\n");
    str_clear(&out);
    ready_remove(check, disk);
    ready_remove(check, disk);
    assert_false(ready_check(&out));
    assert_string_equal(str_c(&out), "worker: stuck\n");
    str_clear(&out);
    ready_remove(check, loop);
    ready_add("mute", silent, NULL);
    assert_false(ready_check(&out));
    assert_string_equal(str_c(&out), "mute: not ready\n");
    ready_remove(silent, NULL);
    assert_true(ready_check(&out));
    str_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ready)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
