/* The last hour, in steps. */
#include "app/history.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "rt/clock.h"

static struct metric *accepted, *delivered, *superseded;
static struct metric *ack;
static int64_t now;

static void step(struct history *h, double in, double out)
{
    now += 10 * NS_PER_SEC;
    clock_fake(now, 1700000000 * NS_PER_SEC + now);
    metric_set(accepted, metric_value(accepted) + in);
    metric_set(delivered, metric_value(delivered) + out / 2);
    metric_set(superseded, metric_value(superseded) + out / 2);
    history_step(h);
}

static int set_up(void **state)
{
    struct metric_family *lines = metric_family(METRIC_GAUGE, "ledger_lines", "state", "x");

    (void)state;
    accepted = metric_series(lines, "accepted");
    delivered = metric_series(lines, "delivered");
    superseded = metric_series(lines, "superseded");
    ack = metric_series(metric_family(METRIC_HISTOGRAM, "ack_seconds", "call", "x"), "lines");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    clock_fake(-1, -1);
    return 0;
}

static void test_rates(void **state)
{
    static struct history h;
    const struct history_point *p;

    (void)state;
    step(&h, 100, 0); /* what was before does not count */
    assert_null(history_newest(&h));
    metric_observe(ack, 0.003);
    step(&h, 50, 40);
    p = history_newest(&h);
    assert_true(p->lines_in == 5 && p->lines_out == 4);
    assert_true(p->ack_p50 > 0.0025 && p->ack_p50 < 0.005 && p->ack_p99 <= 0.005);
    step(&h, 0, 0);
    p = history_newest(&h);
    assert_true(p->lines_in == 0 && p->lines_out == 0 && isnan(p->ack_p50));
    step(&h, -1000, 0); /* another spool: no negative rate */
    assert_true(history_newest(&h)->lines_in == 0);
}

static size_t count(const struct history *h, size_t last, const char *part)
{
    struct str out = STR_INIT;
    struct json j = json_to(&out);
    const char *at;
    size_t n = 0;

    history_json(h, last, &j);
    for (at = str_c(&out); (at = strstr(at, part)) != NULL; at++)
        n++;
    str_fini(&out);
    return n;
}

static void test_ring(void **state)
{
    static struct history h;
    int i;

    (void)state;
    assert_int_equal(count(&h, 10, "\"points\":[]"), 1);
    for (i = 0; i <= HISTORY_POINTS + 5; i++)
        step(&h, 10 * i, 0);
    assert_int_equal(h.n, HISTORY_POINTS);
    assert_int_equal(count(&h, 1000, "\"lines_in\""), HISTORY_POINTS);
    assert_int_equal(count(&h, 3, "\"lines_in\""), 3);
    assert_int_equal(count(&h, 1000, "\"lines_in\":5,"), 0); /* the oldest have made room */
    assert_int_equal(count(&h, 1000, "\"lines_in\":6,"), 1);
    assert_int_equal(count(&h, 1, "\"lines_in\":365,"), 1);
    assert_int_equal(count(&h, 1, "\"ack_p50_seconds\":null"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_ring),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
