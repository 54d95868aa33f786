#include "rt/metric.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* The registry lives as long as the process: each test uses names of its own and looks for its own
 * part of the exposition. */
static void assert_exposed(enum metric_format format, const char *text)
{
    struct str out = STR_INIT;

    metric_expose(&out, format);
    if (!strstr(str_c(&out), text))
        fail_msg("not in the exposition:\n%s\n--- which is:\n%s", text, str_c(&out));
    str_fini(&out);
}

static void test_counter(void **state)
{
    struct metric_family *f =
        metric_family(METRIC_COUNTER, "c_requests", "call,code", "Calls\\of\n\"x\".");
    struct metric *a = metric_series(f, "put", "204");

    (void)state;
    metric_add(a, 2);
    metric_add(a, 1);
    metric_add(metric_series(f, "a\"b\\c\nd", "\xff"), 1);
    assert_ptr_equal(metric_series(f, "put", "204"), a);
    assert_ptr_equal(metric_family(METRIC_COUNTER, "c_requests", "call,code", "again"), f);
    assert_true(metric_value(a) == 3.0);
    assert_exposed(METRIC_PROMETHEUS,
                   "# HELP tailrace_c_requests_total Calls\\\\of\\n\"x\".\n"
                   "# TYPE tailrace_c_requests_total counter\n"
                   "tailrace_c_requests_total{call=\"put\",code=\"204\"} 3\n"
                   "tailrace_c_requests_total{call=\"a\\\"b\\\\c\\nd\",code=\"\xef\xbf\xbd\"} 1\n");
    assert_exposed(METRIC_OPENMETRICS,
                   "# HELP tailrace_c_requests Calls\\\\of\\n\\\"x\\\".\n"
                   "# TYPE tailrace_c_requests counter\n"
                   "tailrace_c_requests_total{call=\"put\",code=\"204\"} 3\n");
}

static void test_gauge(void **state)
{
    struct metric *g = metric_series(metric_family(METRIC_GAUGE, "g_tunnels", "", "Open tunnels."));

    (void)state;
    metric_shift(g, 3);
    metric_shift(g, -1);
    assert_true(metric_value(g) == 2.0);
    assert_exposed(METRIC_PROMETHEUS, "# HELP tailrace_g_tunnels Open tunnels.\n"
                                      "# TYPE tailrace_g_tunnels gauge\ntailrace_g_tunnels 2\n");
    metric_set(g, 0.1);
    assert_exposed(METRIC_OPENMETRICS, "\ntailrace_g_tunnels 0.1\n");
    metric_set(g, 0.1 + 0.2);
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_g_tunnels 0.30000000000000004\n");
    metric_set(g, (double)INFINITY);
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_g_tunnels +Inf\n");
    metric_set(g, (double)NAN);
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_g_tunnels NaN\n");
    metric_set(g, 10737418240.0);
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_g_tunnels 10737418240\n");
}

static void test_histogram(void **state)
{
    static const double bounds[] = {0.5, 1, 10};
    struct metric_family *f = metric_family(METRIC_HISTOGRAM, "h_seconds", "call", "Time.");
    struct metric *m;

    (void)state;
    metric_buckets(f, bounds, 3);
    m = metric_series(f, "put");
    metric_observe(m, 0.5); /* a bound belongs to its bucket */
    metric_observe(m, 0.75);
    metric_observe(m, 99);
    metric_observe(m, 1);
    assert_int_equal(metric_count(m), 4);
    assert_exposed(METRIC_PROMETHEUS, "# TYPE tailrace_h_seconds histogram\n"
                                      "tailrace_h_seconds_bucket{call=\"put\",le=\"0.5\"} 1\n"
                                      "tailrace_h_seconds_bucket{call=\"put\",le=\"1\"} 3\n"
                                      "tailrace_h_seconds_bucket{call=\"put\",le=\"10\"} 3\n"
                                      "tailrace_h_seconds_bucket{call=\"put\",le=\"+Inf\"} 4\n"
                                      "tailrace_h_seconds_sum{call=\"put\"} 101.25\n"
                                      "tailrace_h_seconds_count{call=\"put\"} 4\n");
    assert_exposed(METRIC_OPENMETRICS, "{call=\"put\",le=\"1.0\"} 3\n");
}

static void test_default_buckets(void **state)
{
    struct metric *m = metric_series(metric_family(METRIC_HISTOGRAM, "d_seconds", "", "Time."));

    (void)state;
    metric_observe(m, 0.0005);
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_d_seconds_bucket{le=\"0.0005\"} 1\n");
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_d_seconds_bucket{le=\"60\"} 1\n");
}

static void test_series_cap(void **state)
{
    struct metric_family *f = metric_family(METRIC_COUNTER, "many", "name", "Many.");
    struct metric *last = NULL, *over;
    char name[16];
    int i;

    (void)state;
    for (i = 0; i < METRIC_SERIES_MAX - 1; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        last = metric_series(f, name);
    }
    over = metric_series(f, "one too many");
    assert_ptr_not_equal(over, last);
    assert_ptr_equal(metric_series(f, "another"), over);
    assert_ptr_equal(metric_series(f, "other"), over);
    assert_ptr_equal(metric_series(f, name), last);
    metric_add(over, 5);
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_many_total{name=\"other\"} 5\n");
}

static void test_order_and_end(void **state)
{
    struct str out = STR_INIT;
    const char *a, *b;

    (void)state;
    metric_set(metric_series(metric_family(METRIC_GAUGE, "zz_last", "", "Z.")), 1);
    metric_set(metric_series(metric_family(METRIC_GAUGE, "aa_first", "", "A.")), 1);
    metric_family(METRIC_GAUGE, "no_series", "x", "Nothing yet.");
    metric_expose(&out, METRIC_OPENMETRICS);
    a = strstr(str_c(&out), "tailrace_aa_first 1");
    b = strstr(str_c(&out), "tailrace_zz_last 1");
    assert_true(a && b && a < b);
    assert_null(strstr(str_c(&out), "no_series"));
    assert_string_equal(str_c(&out) + out.n - 6, "# EOF\n");
    str_clear(&out);
    metric_expose(&out, METRIC_PROMETHEUS);
    assert_null(strstr(str_c(&out), "# EOF"));
    str_fini(&out);
}

static void collect(void *ctx)
{
    metric_shift(ctx, 1);
}

static void test_collectors(void **state)
{
    struct metric *g = metric_series(metric_family(METRIC_GAUGE, "collected", "", "C."));

    (void)state;
    metric_collector_add(collect, g);
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_collected 1\n");
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_collected 2\n");
    metric_collector_remove(collect, g);
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_collected 2\n");
    metric_collector_remove(collect, g);
}

enum { THREADS = 4, TURNS = 20000 };

static void *hammer(void *arg)
{
    struct metric *const *m = arg;
    int i;

    for (i = 0; i < TURNS; i++) {
        metric_add(m[0], 1);
        metric_shift(m[1], i % 2 ? -1 : 2);
        metric_observe(m[2], 0.5);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct metric *m[] = {
        metric_series(metric_family(METRIC_COUNTER, "t_c", "", "T.")),
        metric_series(metric_family(METRIC_GAUGE, "t_g", "", "T.")),
        metric_series(metric_family(METRIC_HISTOGRAM, "t_h", "", "T.")),
    };
    pthread_t t[THREADS];
    int i;

    (void)state;
    for (i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, hammer, m), 0);
    for (i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    assert_true(metric_value(m[0]) == THREADS * TURNS);
    assert_true(metric_value(m[1]) == THREADS * TURNS / 2);
    assert_int_equal(metric_count(m[2]), THREADS * TURNS);
    assert_exposed(METRIC_PROMETHEUS, "\ntailrace_t_h_sum 40000\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counter),       cmocka_unit_test(test_gauge),
        cmocka_unit_test(test_histogram),     cmocka_unit_test(test_default_buckets),
        cmocka_unit_test(test_series_cap),    cmocka_unit_test(test_order_and_end),
        cmocka_unit_test(test_collectors),    cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
