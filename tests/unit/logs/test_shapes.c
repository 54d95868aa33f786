/* Which object stores take gzip: shapes of links, their states, and what the spool keeps. */
#include "logs/shapes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "rt/clock.h"
#include "rt/metric.h"

#define LINK                                                                                       \
    "https://storage.googleapis.com/b/logs/acct/key%3Aa?X-Amz-Algorithm=AWS4-HMAC-SHA256"          \
    "&X-Amz-Credential=G%2F20260821%2Fauto%2Fs3%2Faws4_request&X-Amz-Date=20260821T000000Z"        \
    "&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=00"

static void assert_shape(const char *link, const char *expected)
{
    struct str s = STR_INIT;
    int rc = shape_of_link(view_str(link), &s);

    assert_int_equal(rc, expected ? 0 : -1);
    assert_string_equal(str_c(&s), expected ? expected : "");
    str_fini(&s);
}

static void test_link_shapes(void **state)
{
    assert_shape(LINK, "storage.googleapis.com host");
    assert_shape("http://127.0.0.1:8080/o?X-Goog-SignedHeaders=host%3Bcontent-type&x=1",
                 "127.0.0.1:8080 content-type;host");
    assert_shape("https://S.example/o?x-amz-signedheaders=Host;X-Amz-Meta;a",
                 "s.example a;host;x-amz-meta");
    assert_shape("https://s.example/o?sig=1", "s.example ");
    assert_shape("https://s.example/o", "s.example ");
}

static void test_bad_links(void **state)
{
    struct str many = STR_INIT;
    int i;

    assert_shape("", NULL);
    assert_shape("ftp://s.example/o", NULL);
    assert_shape("https://user@s.example/o", NULL);
    assert_shape("https://s.example/o?X-Amz-SignedHeaders=host&X-Amz-SignedHeaders=host", NULL);
    assert_shape("https://s.example/o?X-Amz-SignedHeaders=host%0aevil", NULL);
    assert_shape("https://s.example/o?X-Amz-SignedHeaders=host%", NULL);
    assert_shape("https://s.example/o?X-Amz-SignedHeaders=host;;b", NULL);
    str_adds(&many, "https://s.example/o?X-Amz-SignedHeaders=h");
    for (i = 0; i < SHAPE_NAMES_MAX; i++)
        str_adds(&many, ";h");
    assert_shape(str_c(&many), NULL);
    str_fini(&many);
}

static const struct view one = VIEW_LIT("one.example host");
static const struct view two = VIEW_LIT("two.example host");

static void test_one_trial_at_a_time(void **state)
{
    struct shapes *s = shapes_new();

    assert_int_equal(shapes_ask(s, one, false, 0), SHAPE_PLAIN);
    assert_int_equal(shapes_state(s, one), SHAPE_UNKNOWN);
    assert_int_equal(shapes_ask(s, one, true, 0), SHAPE_TRY);
    assert_int_equal(shapes_ask(s, one, true, 0), SHAPE_PLAIN);
    assert_int_equal(shapes_ask(s, two, true, 0), SHAPE_TRY);
    shapes_tell(s, one, SHAPE_UNTRIED, NULL, 0);
    assert_int_equal(shapes_ask(s, one, true, 0), SHAPE_TRY);
    shapes_tell(s, one, SHAPE_EQUAL, NULL, 0);
    assert_int_equal(shapes_ask(s, one, false, 0), SHAPE_GZIP);
    assert_int_equal(shapes_ask(s, one, true, 0), SHAPE_GZIP);
    shapes_free(&s);
}

static void test_refused_stays_refused(void **state)
{
    struct shapes *s = shapes_new();

    assert_int_equal(shapes_ask(s, one, true, 0), SHAPE_TRY);
    shapes_tell(s, one, SHAPE_DIFFERENT, NULL, 0);
    assert_int_equal(shapes_ask(s, one, true, 1LL << 62), SHAPE_PLAIN);
    shapes_tell(s, one, SHAPE_EQUAL, NULL, 0);
    assert_int_equal(shapes_state(s, one), SHAPE_REFUSED);
    shapes_free(&s);
}

static void test_trusted_can_be_lost(void **state)
{
    struct shapes *s = shapes_new();

    shapes_ask(s, one, true, 0);
    shapes_tell(s, one, SHAPE_EQUAL, NULL, 0);
    shapes_tell(s, one, SHAPE_UNSURE, NULL, 0);
    assert_int_equal(shapes_state(s, one), SHAPE_TRUSTED);
    shapes_tell(s, one, SHAPE_DIFFERENT, NULL, 0);
    assert_int_equal(shapes_state(s, one), SHAPE_REFUSED);
    shapes_free(&s);
}

/* A trial that told nothing is not repeated with the next blob. */
static void test_unsure_pauses(void **state)
{
    struct shapes *s = shapes_new();
    int64_t now = 1000 * NS_PER_SEC, pause = 60 * NS_PER_SEC;
    int i;

    for (i = 0; i < 10; i++) {
        assert_int_equal(shapes_ask(s, one, true, now), SHAPE_TRY);
        shapes_tell(s, one, SHAPE_UNSURE, NULL, now);
        assert_int_equal(shapes_ask(s, one, true, now + pause - 1), SHAPE_PLAIN);
        now += pause;
        pause = TR_MIN(2 * pause, 3600 * NS_PER_SEC);
    }
    shapes_free(&s);
}

static void test_table_is_bounded(void **state)
{
    struct shapes *s = shapes_new();
    char name[32];
    int i;

    for (i = 0; i < SHAPES_MAX; i++) {
        snprintf(name, sizeof(name), "h%d host", i);
        assert_int_equal(shapes_ask(s, view_str(name), true, 0), SHAPE_TRY);
    }
    assert_int_equal(shapes_ask(s, one, true, 0), SHAPE_PLAIN);
    shapes_tell(s, one, SHAPE_EQUAL, NULL, 0); /* nothing is known of it */
    assert_int_equal(shapes_ask(s, one, true, 0), SHAPE_PLAIN);
    shapes_free(&s);
}

static double gauge(const char *state)
{
    struct metric_family *f = metric_family(METRIC_GAUGE, "gzip_shapes", "state", "");

    return metric_value(metric_series(f, state));
}

static void test_gauge(void **state)
{
    struct shapes *s = shapes_new();

    shapes_ask(s, one, true, 0);
    shapes_ask(s, two, false, 0);
    assert_true(gauge("trying") == 1 && gauge("unknown") == 1);
    shapes_tell(s, one, SHAPE_EQUAL, NULL, 0);
    assert_true(gauge("trying") == 0 && gauge("trusted") == 1 && gauge("refused") == 0);
    shapes_free(&s);
}

/* --- with a spool --------------------------------------------------------------------------- */

static char root[64];

static int make_root(void **state)
{
    snprintf(root, sizeof(root), "/tmp/shapes-test-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int drop_root(void **state)
{
    char command[96];

    snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

static struct spool *open_spool(void)
{
    struct spool_opts o = {.directory = root, .limit = 64 << 20};
    struct err e;
    struct spool *spool = spool_open(&o, NULL, &e);

    assert_non_null(spool);
    return spool;
}

static void test_kept_over_a_restart(void **state)
{
    struct spool *spool = open_spool();
    struct shapes *s = shapes_new();
    struct err e;

    assert_int_equal(spool_start(spool, &e), 0);
    shapes_ask(s, one, true, 0);
    shapes_tell(s, one, SHAPE_EQUAL, spool, 0);
    shapes_ask(s, two, true, 0);
    shapes_tell(s, two, SHAPE_DIFFERENT, spool, 0);
    shapes_ask(s, VIEW_LIT("three.example host"), true, 0); /* killed in the middle of its trial */
    shapes_free(&s);
    spool_close(&spool);

    spool = open_spool();
    s = shapes_new();
    assert_int_equal(shapes_recover(s, spool, &e), 0);
    assert_int_equal(shapes_state(s, one), SHAPE_TRUSTED);
    assert_int_equal(shapes_state(s, two), SHAPE_REFUSED);
    assert_int_equal(shapes_ask(s, VIEW_LIT("three.example host"), true, 0), SHAPE_TRY);
    shapes_free(&s);
    spool_close(&spool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link_shapes),
        cmocka_unit_test(test_bad_links),
        cmocka_unit_test(test_one_trial_at_a_time),
        cmocka_unit_test(test_refused_stays_refused),
        cmocka_unit_test(test_trusted_can_be_lost),
        cmocka_unit_test(test_unsure_pauses),
        cmocka_unit_test(test_table_is_bounded),
        cmocka_unit_test(test_gauge),
        cmocka_unit_test_setup_teardown(test_kept_over_a_restart, make_root, drop_root),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
