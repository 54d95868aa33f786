/* The last denials: what repeats is counted, and nobody pushes out those of all others. */
#include "egress/denials.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "rt/clock.h"

static struct str told;

static void note(const char *client, const char *destination, bool would)
{
    denials_note(&(struct denial){.client = client,
                                  .listener = "proxy",
                                  .kind = "tunnel",
                                  .destination = destination,
                                  .rule = "default",
                                  .reason = "no rule",
                                  .would = would});
}

static const char *report(const char *search, size_t limit)
{
    str_clear(&told);
    denials_report(&told, search, limit);
    return str_c(&told);
}

static size_t times(const char *needle)
{
    const char *at = str_c(&told);
    size_t n = 0;

    for (; (at = strstr(at, needle)) != NULL; at++)
        n++;
    return n;
}

static int set_up(void **state)
{
    (void)state;
    denials_clear();
    clock_fake(1, 1767323045678 * NS_PER_MS);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    clock_fake(-1, -1);
    str_fini(&told);
    return 0;
}

static void test_none(void **state)
{
    (void)state;
    assert_string_equal(report(NULL, 10), "{\"denied\":0,\"would_deny\":0,\"denials\":[]}");
}

static void test_all_of_one(void **state)
{
    (void)state;
    note("192.0.2.1", "a.example:443", false);
    assert_string_equal(report(NULL, 10),
                        "{\"denied\":1,\"would_deny\":0,\"denials\":[{\"time\":"
                        "\"2026-01-02T03:04:05.678Z\",\"client\":\"192.0.2.1\",\"identity\":null,"
                        "\"listener\":\"proxy\",\"kind\":\"tunnel\",\"destination\":\"a.example:"
                        "443\",\"rule\":\"default\",\"reason\":\"no rule\",\"verdict\":\"deny\","
                        "\"count\":1}]}");
}

static void test_repeated_are_counted(void **state)
{
    (void)state;
    note("192.0.2.1", "a.example:443", false);
    note("192.0.2.1", "b.example:443", false);
    note("192.0.2.1", "a.example:443", false);
    note("192.0.2.1", "a.example:443", true); /* what was let through is another */
    report(NULL, 10);
    assert_int_equal(times("\"time\""), 3);
    assert_int_equal(times("\"count\":2"), 1);
    assert_int_equal(times("\"would-deny\""), 1);
    assert_true(view_starts(str_view(&told), VIEW_LIT("{\"denied\":3,\"would_deny\":1,")));
    /* The one that was seen again comes before those that were not. */
    assert_true(strstr(str_c(&told), "\"count\":2") < strstr(str_c(&told), "b.example"));
}

static void test_limit_and_search(void **state)
{
    (void)state;
    note("192.0.2.1", "a.example:443", false);
    note("192.0.2.2", "b.example:443", false);
    report(NULL, 1);
    assert_int_equal(times("\"time\""), 1);
    assert_non_null(strstr(str_c(&told), "b.example"));
    report("A.EXAMPLE", 10);
    assert_int_equal(times("\"time\""), 1);
    assert_non_null(strstr(str_c(&told), "192.0.2.1"));
    report("nowhere", 10);
    assert_int_equal(times("\"time\""), 0);
}

static void test_one_client_has_its_part(void **state)
{
    char where[32];
    int i;

    (void)state;
    note("192.0.2.1", "quiet.example:443", false);
    for (i = 0; i < 2 * DENIALS_KEPT; i++) {
        snprintf(where, sizeof(where), "n%d.example:443", i);
        note("192.0.2.2", where, false);
    }
    report(NULL, DENIALS_KEPT);
    assert_int_equal(times("192.0.2.2"), DENIALS_OF_CLIENT);
    assert_int_equal(times("quiet.example"), 1);
    assert_non_null(strstr(str_c(&told), "n511.example")); /* its newest */
    assert_null(strstr(str_c(&told), "n447.example"));
}

static void test_many_clients_leave_the_newest(void **state)
{
    char client[32];
    int i;

    (void)state;
    for (i = 0; i < DENIALS_KEPT + 10; i++) {
        snprintf(client, sizeof(client), "<%d>", i);
        note(client, "a.example:443", false);
    }
    report(NULL, DENIALS_KEPT);
    assert_int_equal(times("\"time\""), DENIALS_KEPT);
    assert_null(strstr(str_c(&told), "<9>"));
    assert_non_null(strstr(str_c(&told), "<10>"));
}

static void test_hostile_texts(void **state)
{
    (void)state;
    denials_note(&(struct denial){.client = "c", .identity = "\"},\xff\n", .rule = "r"});
    assert_non_null(strstr(report(NULL, 1), "\"identity\":\"\\\"},\xef\xbf\xbd\\n\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_all_of_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_repeated_are_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_limit_and_search, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_client_has_its_part, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_clients_leave_the_newest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hostile_texts, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
