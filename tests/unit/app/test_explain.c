/* Why a destination is allowed or not. */
#include "app/explain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static struct policy *policy;
static struct explain x;
static struct str told;

static int set_up(void **state)
{
    static const char *const hosts[] = {"*.example", "10.0.0.0/8"};
    static const char *const ranges[] = {"192.168.0.0/16"};
    static const char *const from[] = {"192.0.2.0/24"};
    const struct policy_rule_opts rule = {.name = "r",
                                          .hosts = hosts,
                                          .n_hosts = 2,
                                          .addresses = ranges,
                                          .n_addresses = 1,
                                          .from = from,
                                          .n_from = 1};
    struct err e;

    (void)state;
    policy = policy_new(&(struct policy_opts){.rules = &rule, .n_rules = 1}, &e);
    assert_non_null(policy);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    policy_free(&policy);
    str_fini(&told);
    return 0;
}

static void begin(const char *to, const struct net_parent *parent)
{
    const struct explain_ask ask = {.to = to, .from = "192.0.2.1"};
    struct err e;

    assert_int_equal(explain_begin(&x, policy, parent, &ask, &e), 0);
}

static void resolved(const char *first, const char *second)
{
    struct net_addr a[2];
    struct err e;

    assert_int_equal(net_addr_literal(view_str(first), 443, &a[0]), 0);
    if (second)
        assert_int_equal(net_addr_literal(view_str(second), 443, &a[1]), 0);
    explain_resolved(&x, a, second ? 2 : 1, &e);
}

static const char *report(void)
{
    str_clear(&told);
    explain_report(&x, &told);
    return str_c(&told);
}

static void test_literal(void **state)
{
    (void)state;
    begin("10.1.2.3:443", NULL);
    assert_false(x.lookup);
    assert_string_equal(explain_word(&x.verdict), "allow");
    assert_int_equal(x.n, 1);
    assert_string_equal(x.addresses[0].ip, "10.1.2.3");
    begin("11.1.2.3:443", NULL);
    assert_string_equal(explain_word(&x.verdict), "deny");
}

static void test_denied_name_is_not_looked_up(void **state)
{
    (void)state;
    begin("a.test:443", NULL);
    assert_false(x.lookup);
    assert_string_equal(report(), "{\"destination\":\"a.test:443\",\"verdict\":\"deny\",\"rule\":"
                                  "\"default\",\"reason\":\"no rule allows it\",\"addresses\":[],"
                                  "\"resolving\":null,\"parent\":null}");
}

/* One address that may be dialled is enough. */
static void test_addresses(void **state)
{
    (void)state;
    begin("a.example:443", NULL);
    assert_true(x.lookup);
    resolved("172.16.0.1", "192.168.1.1");
    assert_true(x.verdict.allow);
    assert_false(x.addresses[0].verdict.allow);
    assert_true(x.addresses[1].verdict.allow);
    assert_non_null(strstr(report(), "{\"address\":\"172.16.0.1\",\"class\":\"private\","
                                     "\"verdict\":\"deny\",\"rule\":\"address\""));
    begin("a.example:443", NULL);
    resolved("172.16.0.1", NULL);
    assert_false(x.verdict.allow);
    assert_string_equal(x.verdict.rule, "address");
}

static void test_no_address(void **state)
{
    struct err e;

    (void)state;
    begin("a.example:443", NULL);
    err_set(&e, ERR_UNAVAIL, "no such \"name\"");
    explain_resolved(&x, NULL, 0, &e);
    assert_true(x.verdict.allow); /* the policy has nothing against it */
    assert_non_null(strstr(report(), "\"resolving\":\"no such \\\"name\\\"\""));
}

static bool bypass(void *ctx, const char *host, uint16_t port)
{
    (void)ctx;
    (void)port;
    return strcmp(host, "near.example") == 0;
}

static void test_parent(void **state)
{
    const struct net_parent parent = {.host = "2001:db8::1", .port = 3128, .bypass = bypass};

    (void)state;
    begin("a.example:443", &parent);
    assert_false(x.lookup); /* the parent does that */
    assert_non_null(strstr(report(), "\"parent\":\"[2001:db8::1]:3128\""));
    begin("near.example:443", &parent);
    assert_true(x.lookup);
    assert_non_null(strstr(report(), "\"parent\":null"));
}

static void test_not_understood(void **state)
{
    const struct explain_ask bad = {.to = "a.example:443", .from = "a.example"};
    struct err e;

    (void)state;
    begin("a b:443", NULL);
    assert_string_equal(x.verdict.rule, "bad-authority");
    assert_non_null(strstr(report(), "{\"destination\":null,\"verdict\":\"deny\""));
    assert_int_equal(explain_begin(&x, policy, NULL, &bad, &e), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_literal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_denied_name_is_not_looked_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_address, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_parent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_not_understood, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
