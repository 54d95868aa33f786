/* What is wrong, as the metrics say it: when it begins to be told, and when it ends. */
#include "app/problems.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "rt/clock.h"
#include "rt/metric.h"

enum { MINUTE = 60, HOUR = 3600 };

static struct ev_loop *loop;
static struct problems *problems;
static int64_t now_s;
static struct str told;

static void at(int64_t seconds)
{
    now_s = seconds;
    clock_fake((1000 + seconds) * NS_PER_SEC, (1767323045 + seconds) * NS_PER_SEC);
}

/* As the timer does, each five seconds. */
static void pass(int64_t seconds)
{
    const int64_t until = now_s + seconds;

    while (now_s < until) {
        at(TR_MIN(now_s + 5, until));
        problems_look(problems, clock_mono_ns(), clock_wall_ns());
    }
}

static const char *report(void)
{
    struct json j = json_to(&told);

    str_clear(&told);
    j.out = &told;
    problems_report(problems, NULL, &j);
    return str_c(&told);
}

static bool is_told(const char *name)
{
    struct str quoted = STR_INIT;
    bool found;

    str_addf(&quoted, "\"name\":\"%s\"", name);
    found = strstr(report(), str_c(&quoted)) != NULL;
    str_fini(&quoted);
    return found;
}

static struct metric *gauge(const char *name, const char *label, const char *value)
{
    return metric_series(metric_family(METRIC_GAUGE, name, label, "h"), value);
}

static struct metric *counter(const char *name, const char *label, const char *value)
{
    return metric_series(metric_family(METRIC_COUNTER, name, label, "h"), value);
}

static void set(const char *name, double value)
{
    metric_set(gauge(name, "", NULL), value);
}

static int set_up(void **state)
{
    (void)state;
    set("spool_limit_bytes", 1000);
    set("spool_room_bytes", 1000);
    set("spool_full_in_seconds", __builtin_inf());
    at(0);
    loop = ev_loop_new("test");
    problems = problems_new(loop);
    pass(5);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    problems_free(&problems);
    ev_loop_free(&loop);
    clock_fake(-1, -1);
    str_fini(&told);
    return 0;
}

static void test_none(void **state)
{
    (void)state;
    assert_string_equal(report(), "[]");
}

static void test_all_of_one(void **state)
{
    struct metric *m = gauge("upstream_state", "upstream", "harness");

    (void)state;
    metric_set(m, 2);
    report();
    pass(12 * MINUTE);
    assert_string_equal(
        report(),
        "[{\"name\":\"TailraceUpstreamDown\",\"severity\":\"warning\",\"since\":\"2026-01-02T03:04:"
        "10.000Z\",\"text\":\"Upstream, the log service, has been down for 12 min. Builds go "
        "on and do not notice: what they send waits in the spool while it has room, and is "
        "delivered as soon as upstream is back.\",\"runbook\":\"#tailraceupstreamdown\"}]");
    metric_set(m, 0);
    assert_string_equal(report(), "[]");
}

/* It has to be slow all the time. */
static void test_slow_for_half_an_hour(void **state)
{
    struct metric *m = gauge("upstream_state", "upstream", "a"),
                  *other = gauge("upstream_state", "upstream", "b");

    (void)state;
    metric_set(m, 1);
    pass(20 * MINUTE);
    assert_false(is_told("TailraceUpstreamSlow"));
    metric_set(m, 0);
    pass(5);
    metric_set(other, 1);
    report();
    pass(29 * MINUTE);
    assert_false(is_told("TailraceUpstreamSlow"));
    pass(2 * MINUTE);
    assert_true(is_told("TailraceUpstreamSlow"));
    assert_non_null(strstr(str_c(&told), "Upstream, b, has been slowed down for 31 min"));
    assert_non_null(strstr(str_c(&told), "\"#tailraceupstreamdown\""));
    metric_set(other, 0);
}

static void test_what_grew_in_its_window(void **state)
{
    struct metric *full = counter("lines_refused", "reason", "full");

    (void)state;
    metric_add(full, 3);
    assert_true(is_told("TailraceLinesRefused"));
    assert_non_null(strstr(str_c(&told), "(full)"));
    pass(9 * MINUTE);
    assert_true(is_told("TailraceLinesRefused"));
    pass(2 * MINUTE);
    assert_false(is_told("TailraceLinesRefused"));
    metric_add(counter("lines_refused", "reason", "failing"), 1);
    assert_true(is_told("TailraceLinesRefused"));
    assert_non_null(strstr(str_c(&told), "(failing)"));
}

/* More than one a second over ten minutes, by one rule. */
static void test_denials(void **state)
{
    struct metric *m = counter("denied", "rule", "default");

    (void)state;
    metric_add(m, 600);
    metric_add(counter("denied", "rule", "address"), 600);
    assert_false(is_told("TailraceDenials"));
    metric_add(m, 1);
    assert_true(is_told("TailraceDenials"));
    assert_non_null(strstr(str_c(&told), "by rule default: "));
    pass(11 * MINUTE);
    assert_false(is_told("TailraceDenials"));
}

static void test_would_deny_for_an_hour(void **state)
{
    (void)state;
    metric_add(counter("would_deny", "rule", "default"), 1);
    pass(59 * MINUTE);
    assert_true(is_told("TailraceWouldDeny"));
    pass(3 * MINUTE);
    assert_false(is_told("TailraceWouldDeny"));
}

static void test_five_rejections_are_nothing(void **state)
{
    struct metric *m = counter("intercept_rejected", "", NULL);

    (void)state;
    metric_add(m, 5);
    assert_false(is_told("TailraceInterceptRejected"));
    metric_add(m, 1);
    assert_true(is_told("TailraceInterceptRejected"));
}

static void test_the_worse_one_says_it(void **state)
{
    (void)state;
    set("spool_oldest_seconds", 121);
    assert_true(is_told("TailraceOldestUndelivered"));
    assert_non_null(strstr(str_c(&told), "\"warning\""));
    set("spool_oldest_seconds", 3601);
    assert_true(is_told("TailraceOldestUndeliveredForLong"));
    assert_false(is_told("TailraceOldestUndelivered"));
    assert_non_null(strstr(str_c(&told), "\"#tailraceoldestundelivered\""));
    set("spool_oldest_seconds", 0);
}

static void test_the_spool_fills_up(void **state)
{
    (void)state;
    set("spool_full_in_seconds", 3 * HOUR);
    report();
    pass(2 * MINUTE);
    assert_true(is_told("TailraceSpoolFillsSoon"));
    assert_non_null(strstr(str_c(&told), "full in 3 h 0 min at this rate"));
    set("spool_full_in_seconds", 600);
    report();
    pass(MINUTE);
    assert_true(is_told("TailraceSpoolNearlyFull"));
    assert_false(is_told("TailraceSpoolFillsSoon"));
    assert_non_null(strstr(str_c(&told), "full in 10 min at this rate"));
    set("spool_full_in_seconds", __builtin_inf());
    set("spool_room_bytes", 199);
    report();
    pass(MINUTE);
    assert_true(is_told("TailraceSpoolNearlyFull"));
    assert_non_null(strstr(str_c(&told), "less than a fifth"));
}

/* Two collectors may see a commit between them; a minute is no such moment. */
static void test_ledger(void **state)
{
    struct metric *accepted = gauge("ledger_lines", "state", "accepted"),
                  *delivered = gauge("ledger_lines", "state", "delivered"),
                  *dead = gauge("ledger_lines", "state", "dead");

    (void)state;
    metric_set(accepted, 10);
    metric_set(delivered, 6);
    metric_set(dead, 1);
    pass(30);
    assert_false(is_told("TailraceLedgerImbalance"));
    pass(MINUTE);
    assert_true(is_told("TailraceLedgerImbalance"));
    assert_non_null(strstr(str_c(&told), "ledger_lines by 3"));
    assert_true(view_starts(str_view(&told), VIEW_LIT("[{\"name\":\"TailraceLedgerImbalance\"")));
    metric_set(dead, 4);
    assert_false(is_told("TailraceLedgerImbalance"));
    metric_set(accepted, 0);
    metric_set(delivered, 0);
    metric_set(dead, 0);
}

static void test_counts_in_words(void **state)
{
    (void)state;
    set("dead_letters", 1);
    assert_true(is_told("TailraceDeadLetters"));
    assert_non_null(strstr(str_c(&told), "take 1 record as"));
    set("dead_letters", 2);
    assert_non_null(strstr(report(), "take 2 records as"));
    set("dead_letters", 0);
    set("credentials_refused", 1);
    assert_true(is_told("TailraceCredentialRefused"));
    assert_non_null(strstr(str_c(&told), "has refused 1 credential for 1 s"));
    set("credentials_refused", 0);
}

static void test_slow_answers(void **state)
{
    struct metric_family *f = metric_family(METRIC_HISTOGRAM, "ack_seconds", "call", "h");
    int i;

    (void)state;
    for (i = 0; i < 100; i++)
        metric_observe(metric_series(f, "lines"), 0.001);
    metric_observe(metric_series(f, "blob"), 20);
    assert_false(is_told("TailraceSlowAnswers"));
    for (i = 0; i < 10; i++)
        metric_observe(metric_series(f, "lines"), 0.9);
    assert_true(is_told("TailraceSlowAnswers"));
    pass(11 * MINUTE);
    assert_false(is_told("TailraceSlowAnswers"));
}

static void test_rest_of_the_gauges(void **state)
{
    (void)state;
    set("spool_failing", 1);
    set("spool_set_aside", 2);
    metric_set(gauge("sandbox", "feature", "landlock"), 0);
    metric_set(gauge("sandbox", "feature", "not_root"), 1);
    assert_true(is_told("TailraceSpoolFailing"));
    assert_non_null(strstr(str_c(&told), "\"severity\":\"critical\""));
    assert_true(is_told("TailraceSpoolSetAside"));
    assert_true(is_told("TailraceSandboxMissing"));
    assert_non_null(strstr(str_c(&told), "it may reach any file (landlock)."));
    set("spool_failing", 0);
    set("spool_set_aside", 0);
    metric_set(gauge("sandbox", "feature", "landlock"), 1);
    assert_string_equal(report(), "[]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_all_of_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slow_for_half_an_hour, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rest_of_the_gauges, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_worse_one_says_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_spool_fills_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ledger, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_counts_in_words, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slow_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_grew_in_its_window, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_denials, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_would_deny_for_an_hour, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_five_rejections_are_nothing, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
