/* From a configuration to its policy. */
#include "app/egress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define LISTEN "listen: {upstream: {address: 127.0.0.1:0}}\n"
#define BASE   "harness: {url: https://app.harness.io}\n" LISTEN

static struct config config;

static struct policy *load(const char *text)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct err e = {0};
    struct policy *p;

    if (conf_load_text("t", "/", view_str(text), &config_spec, &config, &errors) < 0)
        fail_msg("%s", errors.lines[0]);
    p = egress_policy(&config, &e);
    if (!p)
        fail_msg("%s", e.text);
    return p;
}

static void drop(struct policy *p)
{
    policy_free(&p);
    conf_clear(&config_spec, &config);
}

static const char *rule_for(const struct policy *p, const char *where)
{
    struct dest d;
    struct policy_query q = {.dest = &d};

    assert_int_equal(dest_parse(view_str(where), 0, &d, NULL), 0);
    return policy_decide(p, &q).rule;
}

static void test_defaults(void **state)
{
    struct policy *p = load(BASE);

    assert_string_equal(rule_for(p, "app.harness.io:443"), "harness");
    assert_string_equal(rule_for(p, "storage.googleapis.com:443"), "googleapis");
    assert_string_equal(rule_for(p, "github.com:443"), "default");
    assert_false(egress_is_used(&config));
    drop(p);
}

/* Rules, egress.allow, the profile. */
static void test_order(void **state)
{
    struct policy *p = load(BASE "egress: {allow: [one.example, app.harness.io]}\n"
                                 "rules:\n"
                                 "  no-one: {action: deny, hosts: [one.example]}\n"
                                 "  two: {hosts: [two.example], ports: [80]}\n");

    assert_string_equal(rule_for(p, "one.example:443"), "no-one");
    assert_string_equal(rule_for(p, "two.example:80"), "two");
    assert_string_equal(rule_for(p, "app.harness.io:443"), "egress.allow");
    assert_string_equal(rule_for(p, "app3.harness.io:443"), "harness");
    drop(p);
}

static void test_profile(void **state)
{
    struct policy *p = load(BASE "egress: {profile: none}\n");

    assert_string_equal(rule_for(p, "app.harness.io:443"), "default");
    drop(p);
    p = load("harness: {url: https://Acme.harness.io:8443, upload-logs: harness}\n" LISTEN);
    assert_string_equal(rule_for(p, "acme.harness.io:8443"), "harness");
    assert_string_equal(rule_for(p, "storage.googleapis.com:443"), "default");
    drop(p);
    p = load("harness: {url: \"http://[::1]:8080\"}\n" LISTEN);
    assert_string_equal(rule_for(p, "[::1]:8080"), "harness");
    drop(p);
}

static void test_report(void **state)
{
    struct policy *p = load(BASE "egress: {mode: report}\n");
    struct dest d;
    struct policy_query q = {.dest = &d};

    assert_int_equal(dest_parse(VIEW_LIT("x.example:1"), 0, &d, NULL), 0);
    assert_true(policy_decide(p, &q).would_deny);
    drop(p);
}

static bool bypasses(const struct policy *p, const char *where)
{
    struct dest d;
    struct policy_query q = {.dest = &d};

    assert_int_equal(dest_parse(view_str(where), 0, &d, NULL), 0);
    return policy_decide(p, &q).allow;
}

static void test_bypass(void **state)
{
    struct policy *p = load(BASE "upstream: {parent: \"http://proxy:3128\", parent-bypass: "
                                 "[\"*.corp.example\", 10.0.0.0/8, one:80]}\n");
    struct policy *bypass = egress_bypass(&config, NULL);

    assert_true(bypasses(bypass, "git.corp.example:22"));
    assert_true(bypasses(bypass, "10.1.1.1:5432"));
    assert_true(bypasses(bypass, "one:80"));
    assert_false(bypasses(bypass, "one:81"));
    assert_false(bypasses(bypass, "corp.example:22"));
    assert_false(bypasses(bypass, "8.8.8.8:443"));
    policy_free(&bypass);
    drop(p);
    p = load(BASE);
    bypass = egress_bypass(&config, NULL);
    assert_false(bypasses(bypass, "github.com:443"));
    policy_free(&bypass);
    drop(p);
}

static void test_used(void **state)
{
    struct policy *p = load("harness: {url: https://app.harness.io}\n"
                            "listen: {proxy: {address: 127.0.0.1:0}}\n");

    assert_true(egress_is_used(&config));
    drop(p);
}

/* Whatever this machine is called by, it is its own. */
static void test_own_addresses(void **state)
{
    struct dest d;

    egress_own_addresses();
    assert_int_equal(dest_parse(VIEW_LIT("127.0.0.1:1"), 0, &d, NULL), 0);
    assert_int_equal(addr_class((const struct sockaddr *)&d.addr, NULL), ADDR_LOOPBACK);
    policy_own_addresses(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_order),
        cmocka_unit_test(test_profile),       cmocka_unit_test(test_report),
        cmocka_unit_test(test_bypass),        cmocka_unit_test(test_used),
        cmocka_unit_test(test_own_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
