#include "policy/flows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static const struct flows_setting saas = {"app.harness.io", 443, true};

/* The profile behind the rules given. */
static struct policy *profile(const struct flows_setting *s, const struct policy_rule_opts *own,
                              size_t n_own)
{
    struct policy_rule_opts rules[FLOWS_MAX_RULES + 4];
    struct flows_profile *f = flows_profile_new(s);
    struct policy *p;
    struct err e = {0};
    size_t i;

    for (i = 0; i < n_own; i++)
        rules[i] = own[i];
    n_own += flows_profile_rules(f, rules + n_own);
    p = policy_new(&(struct policy_opts){.rules = rules, .n_rules = n_own}, &e);
    if (!p)
        fail_msg("%s", e.text);
    flows_profile_free(&f);
    assert_null(f);
    return p;
}

static const char *rule_of(const struct policy *p, const char *where)
{
    struct dest d;
    struct policy_query q = {.dest = &d};
    struct policy_verdict v;

    assert_int_equal(dest_parse(view_str(where), 0, &d, NULL), 0);
    v = policy_decide(p, &q);
    return v.allow ? v.rule : "denied";
}

static void test_profile(void **state)
{
    static const struct flows_setting vanity = {"acme.harness.io", 8443, false};
    static const struct flows_setting hub = {"::1", 8080, false};
    struct policy *p = profile(&saas, NULL, 0);

    assert_string_equal(rule_of(p, "app.harness.io:443"), "harness");
    assert_string_equal(rule_of(p, "app3.harness.io:443"), "harness");
    assert_string_equal(rule_of(p, "accounts.eu.harness.io:443"), "harness");
    assert_string_equal(rule_of(p, "acme.agent.harness.io:443"), "harness-mtls");
    assert_string_equal(rule_of(p, "acme.harness.io:8443"), "harness-mtls");
    assert_string_equal(rule_of(p, "static.harness.io:443"), "ui");
    assert_string_equal(rule_of(p, "storage.googleapis.com:443"), "googleapis");
    assert_string_equal(rule_of(p, "logging.googleapis.com:443"), "delegate-logging");
    assert_string_equal(rule_of(p, "app.harness.io:80"), "denied");
    assert_string_equal(rule_of(p, "agent.harness.io:443"), "denied");
    assert_string_equal(rule_of(p, "app.harness.io.evil.example:443"), "denied");
    assert_string_equal(rule_of(p, "evilapp.harness.io:443"), "denied");
    assert_string_equal(rule_of(p, "bucket.storage.googleapis.com:443"), "denied");
    assert_string_equal(rule_of(p, "github.com:443"), "denied");
    policy_free(&p);
    p = profile(&vanity, NULL, 0);
    assert_string_equal(rule_of(p, "acme.harness.io:8443"), "harness");
    assert_string_equal(rule_of(p, "acme.harness.io:443"), "harness");
    assert_string_equal(rule_of(p, "other.harness.io:443"), "denied");
    assert_string_equal(rule_of(p, "storage.googleapis.com:443"), "denied");
    assert_string_equal(rule_of(p, "logging.googleapis.com:443"), "denied");
    policy_free(&p);
    p = profile(&hub, NULL, 0);
    assert_string_equal(rule_of(p, "[::1]:8080"), "harness");
    policy_free(&p);
}

struct broken {
    char names[512];
    char rule[32];
};

static void add(void *ctx, const struct flow *f, const char *destination,
                const struct policy_verdict *v)
{
    struct broken *b = ctx;

    assert_non_null(destination);
    assert_non_null(f->breaks);
    strncat(b->names, f->name, sizeof(b->names) - strlen(b->names) - 1);
    strncat(b->names, f->required ? "! " : " ", sizeof(b->names) - strlen(b->names) - 1);
    strncpy(b->rule, v->rule, sizeof(b->rule) - 1);
}

static void test_broken(void **state)
{
    static const char *const storage[] = {"storage.googleapis.com"};
    static const char *const app[] = {"app.harness.io"};
    static const char *const pods[] = {"10.0.0.0/8"};
    const struct policy_rule_opts no_storage = {
        .name = "no-storage", .deny = true, .hosts = storage, .n_hosts = 1};
    const struct policy_rule_opts pods_only = {
        .name = "pods", .hosts = app, .n_hosts = 1, .from = pods, .n_from = 1};
    const struct policy_rule_opts not_pods = {
        .name = "not-pods", .deny = true, .hosts = app, .n_hosts = 1, .from = pods, .n_from = 1};
    struct flows_setting via_harness = saas;
    struct policy_rule_opts own[2];
    struct broken b = {0};
    struct policy *p = profile(&saas, NULL, 0);

    assert_int_equal(flows_broken(p, &saas, add, &b), 0);
    policy_free(&p);
    p = profile(&saas, &no_storage, 1);
    assert_int_equal(flows_broken(p, &saas, add, &b), 1);
    assert_string_equal(b.names, "log-upload ");
    assert_string_equal(b.rule, "no-storage");
    via_harness.googleapis = false; /* nobody needs it then */
    assert_int_equal(flows_broken(p, &via_harness, add, &b), 0);
    policy_free(&p);
    p = profile(&saas, &not_pods, 1); /* others still may */
    assert_int_equal(flows_broken(p, &saas, add, &b), 0);
    policy_free(&p);
    memset(&b, 0, sizeof(b));
    own[0] = pods_only; /* somebody may */
    own[1] = no_storage;
    p = policy_new(&(struct policy_opts){.rules = own, .n_rules = 2}, NULL);
    assert_int_equal(flows_broken(p, &saas, add, &b), 4);
    assert_string_equal(b.names, "delegate-mtls ui-static log-upload delegate-logging ");
    policy_free(&p);
    memset(&b, 0, sizeof(b));
    p = policy_new(&(struct policy_opts){.mode = POLICY_REPORT}, NULL);
    assert_int_equal(flows_broken(p, &saas, add, &b), 12);
    assert_non_null(strstr(b.names, "delegate-wss! delegate-manager! log-service! ui-gateway "));
    assert_string_equal(b.rule, "default");
    policy_free(&p);
}

/* Each flow has what a line about it needs, and its destination can be asked for. */
static void test_table(void **state)
{
    struct dest d;
    size_t i, k;

    for (i = 0; i < n_flows; i++) {
        assert_true(flows[i].name && flows[i].who && flows[i].breaks);
        if (flows[i].destination && strcmp(flows[i].destination, "%h") != 0)
            assert_int_equal(dest_parse(view_str(flows[i].destination), 0, &d, NULL), 0);
        for (k = 0; k < i; k++)
            assert_string_not_equal(flows[i].name, flows[k].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
