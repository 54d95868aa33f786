/* Metrics looked at by name, and JSON that is made of them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "rt/json.h"
#include "rt/metric_look.h"

static void sum_up(void *ctx, const char *const *values, double value)
{
    struct str *out = ctx;

    str_addf(out, "%s/%s=%g ", values[0], values[1], value);
}

static void test_look(void **state)
{
    struct metric_family *f = metric_family(METRIC_COUNTER, "look_calls", "call,code", "Calls");
    struct str out = STR_INIT;

    (void)state;
    metric_add(metric_series(f, "put", "204"), 3);
    metric_add(metric_series(f, "put", "503"), 1);
    metric_set(metric_series(metric_family(METRIC_GAUGE, "look_size", "", "Size")), 1.5);
    assert_true(metric_look("look_calls", "put", "204") == 3);
    assert_true(metric_look("look_calls", "get", "204") == 0);
    assert_true(metric_look("look_size") == 1.5);
    assert_true(metric_look("look_nothing") == 0);
    assert_true(metric_total("look_calls") == 4);
    assert_true(metric_total("look_nothing") == 0);
    metric_each("look_calls", sum_up, &out);
    assert_string_equal(str_c(&out), "put/204=3 put/503=1 ");
    str_fini(&out);
}

static void set_gauge(void *ctx)
{
    metric_set(ctx, 7);
}

static void test_collect(void **state)
{
    struct metric *m = metric_series(metric_family(METRIC_GAUGE, "look_collected", "", "x"));

    (void)state;
    metric_collector_add(set_gauge, m);
    assert_true(metric_look("look_collected") == 0);
    metric_collect();
    assert_true(metric_look("look_collected") == 7);
    metric_collector_remove(set_gauge, m);
}

static void test_quantiles(void **state)
{
    static const double bounds[] = {1, 2, 4};
    static const char *const both[] = {"a", "b"};
    struct metric_family *f = metric_family(METRIC_HISTOGRAM, "look_seconds", "call", "x");
    const struct metric_counts none = {.n = 0};
    struct metric_counts before, now;
    int i;

    (void)state;
    metric_buckets(f, bounds, 3);
    metric_look_counts("look_seconds", both, 2, &before);
    assert_true(isnan(metric_quantile(&none, &before, 0.5)));
    for (i = 0; i < 10; i++)
        metric_observe(metric_series(f, i % 2 ? "a" : "b"), 1.5);
    for (i = 0; i < 10; i++)
        metric_observe(metric_series(f, "c"), 3); /* another call */
    metric_look_counts("look_seconds", both, 2, &now);
    assert_true(metric_quantile(&before, &now, 0.5) == 1.5);
    assert_true(metric_quantile(&none, &now, 1) == 2);
    assert_true(isnan(metric_quantile(&now, &now, 0.5)));
    before = now;
    metric_observe(metric_series(f, "a"), 100);
    metric_look_counts("look_seconds", both, 2, &now);
    assert_true(metric_quantile(&before, &now, 0.5) == 4); /* the last bound that is one */
    metric_look_counts("look_nothing", both, 2, &now);
    assert_true(isnan(metric_quantile(&none, &now, 0.5)));
}

static void test_json(void **state)
{
    struct str out = STR_INIT;
    struct json j = json_to(&out);

    (void)state;
    json_open(&j, NULL, '{');
    json_open(&j, "a", '[');
    json_uint(&j, NULL, 1);
    json_int(&j, NULL, -2);
    json_close(&j, ']');
    json_open(&j, "o", '{');
    json_close(&j, '}');
    json_num(&j, "n", 0.1);
    json_num(&j, "big", 1e15);
    json_num(&j, "nan", (double)NAN);
    json_num(&j, "inf", (double)INFINITY);
    json_text(&j, "t", VIEW_LIT("a\"\n<\xff"));
    json_text(&j, "none", VIEW_NONE);
    json_bool(&j, "b", true);
    json_time(&j, "when", 1700000000123456789LL);
    json_time(&j, "never", 0);
    json_seconds(&j, "s", 1234567890);
    json_seconds(&j, "unknown", -1);
    json_name(&j, "own");
    str_adds(&out, "[]");
    json_close(&j, '}');
    assert_string_equal(str_c(&out),
                        "{\"a\":[1,-2],\"o\":{},\"n\":0.1,\"big\":1000000000000000,\"nan\":null,\"inf\":null,"
                        "\"t\":\"a\\\"\\n<\xef\xbf\xbd\",\"none\":null,\"b\":true,"
                        "\"when\":\"2023-11-14T22:13:20.123Z\",\"never\":null,\"s\":1.234,"
                        "\"unknown\":null,\"own\":[]}");
    str_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_look),
        cmocka_unit_test(test_collect),
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
