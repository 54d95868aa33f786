#include "rt/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/str.h"
#include "rt/clock.h"
#include "rt/fdx.h"

static char dir[] = "/tmp/test_log.XXXXXX";
static char path[64];

static int setup(void **state)
{
    struct err e;

    (void)state;
    memcpy(dir + sizeof(dir) - 7, "XXXXXX", 6);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/log", dir);
    clock_fake(1000 * NS_PER_SEC, 1767323045678 * NS_PER_MS);
    log_configure(LOG_INFO, LOG_LOGFMT);
    return log_open(path, &e);
}

static int teardown(void **state)
{
    struct err e;

    (void)state;
    clock_fake(-1, -1);
    unlink(path);
    rmdir(dir);
    return log_open(NULL, &e);
}

/* What is in the log file now; the caller's string is replaced. */
static const char *logged(struct str *out)
{
    struct err e;

    str_clear(out);
    assert_int_equal(file_read(path, 1 << 20, out, &e), 0);
    return str_c(out);
}

#define HEAD "time=2026-01-02T03:04:05.678Z level="

static void test_logfmt(void **state)
{
    struct str out = STR_INIT;

    (void)state;
    log_event(LOG_WARN, "spool", "disk is full", LF_STR("path", "/var/x"), LF_INT("free", -3),
              LF_UINT("n", UINT64_MAX), LF_BOOL("ok", true), LF_DOUBLE("s", 0.25));
    assert_string_equal(logged(&out),
                        HEAD "warn component=spool msg=\"disk is full\" path=/var/x free=-3 "
                             "n=18446744073709551615 ok=true s=0.25\n");
    str_fini(&out);
}

static void test_no_fields(void **state)
{
    struct str out = STR_INIT;

    (void)state;
    log_event(LOG_ERROR, "app", "stopped");
    assert_string_equal(logged(&out), HEAD "error component=app msg=stopped\n");
    str_fini(&out);
}

/* A peer's text can neither end the line nor look like another field. */
static void test_hostile_text(void **state)
{
    struct str out = STR_INIT;

    (void)state;
    log_event(LOG_INFO, "http", "x", LF_STR("a", "1 level=error"), LF_STR("b", "\n\x01\"\\"),
              LF_STR("c", ""), LF_STR("d", "\xff\xc3\xa9"), LF_VIEW("e", view_of("p\0q", 3)));
    assert_string_equal(logged(&out),
                        HEAD "info component=http msg=x a=\"1 level=error\" "
                             "b=\"\\n\\u0001\\\"\\\\\" c=\"\" d=\"\xef\xbf\xbd\xc3\xa9\" "
                             "e=\"p\\u0000q\"\n");
    str_fini(&out);
}

static void test_json(void **state)
{
    struct str out = STR_INIT;

    (void)state;
    log_configure(LOG_INFO, LOG_JSON);
    log_event(LOG_NOTICE, "app", "say \"hi\"", LF_STR("a", "b\tc"), LF_INT("n", 7),
              LF_DOUBLE("bad", strtod("nan", NULL)), LF_BOOL("f", false));
    assert_string_equal(logged(&out),
                        "{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"notice\","
                        "\"component\":\"app\",\"msg\":\"say \\\"hi\\\"\",\"a\":\"b\\tc\",\"n\":7,"
                        "\"bad\":null,\"f\":false}\n");
    str_fini(&out);
}

/* However long the fields are, the line is bounded and still well formed. */
static void test_long_fields(void **state)
{
    struct str out = STR_INIT;
    char big[3000];
    int i;

    (void)state;
    memset(big, '"', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    for (i = 0; i < 2; i++) {
        log_configure(LOG_INFO, i ? LOG_JSON : LOG_LOGFMT);
        log_event(LOG_INFO, "t", "m", LF_STR("a", big), LF_STR("b", big), LF_STR("c", big),
                  LF_INT("d", 1));
    }
    logged(&out);
    assert_true(out.n < 2 * 4096);
    assert_non_null(strstr(str_c(&out), "...\" b=\""));
    assert_non_null(strstr(str_c(&out), "\"\n{\"time\""));
    assert_string_equal(str_c(&out) + out.n - 3, "\"}\n");
    str_fini(&out);
}

static void test_levels(void **state)
{
    struct str out = STR_INIT;
    enum log_level level;
    enum log_format format;

    (void)state;
    log_configure(LOG_WARN, LOG_LOGFMT);
    assert_false(log_enabled(LOG_NOTICE));
    assert_true(log_enabled(LOG_WARN));
    log_event(LOG_NOTICE, "app", "not shown");
    assert_string_equal(logged(&out), "");
    assert_int_equal(log_level_now(), LOG_WARN);
    log_set_level(LOG_DEBUG);
    assert_true(log_enabled(LOG_DEBUG));
    assert_string_equal(log_level_name(log_level_now()), "debug");
    assert_int_equal(log_level_parse("debug", &level), 0);
    assert_int_equal(level, LOG_DEBUG);
    assert_int_equal(log_level_parse("DEBUG", &level), -1);
    assert_int_equal(log_format_parse("json", &format), 0);
    assert_int_equal(format, LOG_JSON);
    assert_int_equal(log_format_parse("", &format), -1);
    str_fini(&out);
}

static void test_reopen(void **state)
{
    struct str out = STR_INIT;
    char old[80];
    struct err e;

    (void)state;
    log_event(LOG_INFO, "app", "one");
    snprintf(old, sizeof(old), "%s.1", path);
    assert_int_equal(rename(path, old), 0);
    log_event(LOG_INFO, "app", "two");
    assert_int_equal(log_open(path, &e), 0);
    log_event(LOG_INFO, "app", "three");
    assert_string_equal(logged(&out), HEAD "info component=app msg=three\n");
    str_clear(&out);
    assert_int_equal(file_read(old, 1 << 20, &out, &e), 0);
    assert_non_null(strstr(str_c(&out), "msg=two"));
    assert_int_equal(unlink(old), 0);
    str_fini(&out);
}

static void test_open_fails(void **state)
{
    struct str out = STR_INIT;
    struct err e = {0};

    (void)state;
    assert_int_equal(log_open("/nonexistent/log", &e), -1);
    assert_int_equal(e.code, ERR_IO);
    assert_string_equal(e.text,
                        "cannot open the log file /nonexistent/log: No such file or directory");
    log_event(LOG_INFO, "app", "still here");
    assert_non_null(strstr(logged(&out), "still here"));
    str_fini(&out);
}

static void test_keeps_errno(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(log_open("/dev/full", &e), 0);
    errno = EAGAIN;
    log_event(LOG_INFO, "app", "lost");
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(log_open(path, &e), 0);
}

static void test_rate(void **state)
{
    struct log_rate rate = {0};
    uint64_t left = 99;

    (void)state;
    assert_true(log_rate_ok(&rate, 10, &left));
    assert_int_equal(left, 0);
    assert_false(log_rate_ok(&rate, 10, &left));
    assert_false(log_rate_ok(&rate, 10, &left));
    clock_fake(1010 * NS_PER_SEC, 0);
    assert_true(log_rate_ok(&rate, 10, &left));
    assert_int_equal(left, 2);
    assert_false(log_rate_ok(&rate, 10, &left));
}

enum { WRITERS = 4, LINES = 500 };

static void *writer(void *arg)
{
    int i;

    for (i = 0; i < LINES; i++)
        log_event(LOG_INFO, "t", "line", LF_STR("pad", arg), LF_INT("i", i));
    return NULL;
}

/* Lines of different threads stay whole, also while the target is being reopened. */
static void test_threads(void **state)
{
    struct str out = STR_INIT;
    char pad[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    pthread_t t[WRITERS];
    const char *at, *end;
    int i, lines = 0;
    struct err e;

    (void)state;
    for (i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, writer, pad), 0);
    for (i = 0; i < 50; i++)
        assert_int_equal(log_open(path, &e), 0);
    for (i = 0; i < WRITERS; i++)
        pthread_join(t[i], NULL);
    for (at = logged(&out); *at; at = end + 1, lines++) {
        end = strchr(at, '\n');
        assert_non_null(end);
        assert_memory_equal(at, HEAD "info", strlen(HEAD "info"));
        assert_null(memmem(at + 5, (size_t)(end - at - 5), "time=", 5));
    }
    assert_int_equal(lines, WRITERS * LINES);
    str_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_logfmt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_json, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reopen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keeps_errno, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
