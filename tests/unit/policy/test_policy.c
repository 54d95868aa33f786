#include "policy/policy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#define LIST(...)                                                                                  \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define COUNT(...)     (sizeof(LIST(__VA_ARGS__)) / sizeof(char *))
#define HOSTS(...)     .hosts = LIST(__VA_ARGS__), .n_hosts = COUNT(__VA_ARGS__)
#define PORTS(...)     .ports = LIST(__VA_ARGS__), .n_ports = COUNT(__VA_ARGS__)
#define ADDRESSES(...) .addresses = LIST(__VA_ARGS__), .n_addresses = COUNT(__VA_ARGS__)
#define FROM(...)      .from = LIST(__VA_ARGS__), .n_from = COUNT(__VA_ARGS__)
#define WHO(...)       .identities = LIST(__VA_ARGS__), .n_identities = COUNT(__VA_ARGS__)
#define POLICY(...)                                                                                \
    make(POLICY_ENFORCE, (struct policy_rule_opts[]){__VA_ARGS__},                                 \
         sizeof((struct policy_rule_opts[]){__VA_ARGS__}) / sizeof(struct policy_rule_opts))

static struct policy *make(enum policy_mode mode, const struct policy_rule_opts *rules, size_t n)
{
    struct err e = {0};
    struct policy *p =
        policy_new(&(struct policy_opts){.mode = mode, .rules = rules, .n_rules = n}, &e);

    if (!p)
        fail_msg("%s", e.text);
    return p;
}

static void address(const char *text, struct sockaddr_storage *ss)
{
    struct dest d;
    char authority[80];

    snprintf(authority, sizeof(authority), strchr(text, ':') ? "[%s]:1" : "%s:1", text);
    memset(ss, 0, sizeof(*ss));
    if (strncmp(text, "::ffff:", 7) == 0) { /* dest_parse would unmap it */
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)ss;

        in->sin6_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &in->sin6_addr), 1);
        return;
    }
    assert_int_equal(dest_parse(view_str(authority), 0, &d, NULL), 0);
    assert_true(d.literal);
    *ss = d.addr;
}

/* Ask from an address (NULL: none) as somebody (NULL: nobody); `resolved` NULL: the name only. */
static struct policy_verdict ask(const struct policy *p, const char *where, const char *resolved,
                                 const char *from, const char *who)
{
    struct sockaddr_storage client, addr;
    struct dest d;
    struct policy_query q = {.dest = &d, .identity = view_str(who)};
    struct policy_verdict v;

    assert_int_equal(dest_parse(view_str(where), 0, &d, NULL), 0);
    if (from) {
        address(from, &client);
        q.from = (const struct sockaddr *)&client;
    }
    v = policy_decide(p, &q);
    assert_non_null(v.rule);
    assert_non_null(v.reason);
    if (!resolved)
        return v;
    address(resolved, &addr);
    return policy_check_address(p, &q, &v, (const struct sockaddr *)&addr);
}

static void expect(struct policy_verdict v, const char *where, bool allow, const char *rule)
{
    if (v.allow != allow || strcmp(v.rule, rule) != 0)
        fail_msg("%s: %s by %s (%s)", where, v.allow ? "allowed" : "denied", v.rule, v.reason);
}

#define ALLOWED(p, where, rule) expect(ask(p, where, NULL, NULL, NULL), where, true, rule)
#define DENIED(p, where, rule)  expect(ask(p, where, NULL, NULL, NULL), where, false, rule)
#define RESOLVES(p, where, to, allow, rule)                                                        \
    expect(ask(p, where, to, NULL, NULL), where " at " to, allow, rule)

static void test_default(void **state)
{
    struct policy *p = make(POLICY_ENFORCE, NULL, 0);
    struct policy_verdict v = ask(p, "github.com:443", "8.8.8.8", NULL, NULL);

    expect(v, "github.com:443", false, "default");
    assert_string_equal(v.reason, "no rule allows it");
    assert_int_equal(v.index, -1);
    DENIED(p, "8.8.8.8:443", "default");
    policy_free(&p);
    assert_null(p);
    policy_free(&p);
}

static void test_names(void **state)
{
    struct policy *p = POLICY({.name = "git", HOSTS("GitHub.com.", "b\xc3\xbc\x63her.example")});

    ALLOWED(p, "github.com:443", "git");
    ALLOWED(p, "GITHUB.com.:443", "git");
    ALLOWED(p, "xn--bcher-kva.example:443", "git");
    DENIED(p, "www.github.com:443", "default");
    DENIED(p, "evilgithub.com:443", "default");
    DENIED(p, "github.com.evil.example:443", "default");
    DENIED(p, "github.co:443", "default");
    DENIED(p, "com:443", "default");
    policy_free(&p);
}

/* Whole labels only. */
static void test_wildcards(void **state)
{
    struct policy *p =
        POLICY({.name = "corp", HOSTS("*.x.example")}, {.name = "names", HOSTS("*:8443")});

    ALLOWED(p, "a.x.example:443", "corp");
    ALLOWED(p, "a.b.c.x.example:443", "corp");
    DENIED(p, "x.example:443", "default");
    DENIED(p, "evilx.example:443", "default");
    DENIED(p, "a.evilx.example:443", "default");
    DENIED(p, "x.example.evil:443", "default");
    DENIED(p, "a.x.example.evil:443", "default");
    ALLOWED(p, "anything:8443", "names");
    DENIED(p, "8.8.8.8:8443", "default"); /* no name */
    policy_free(&p);
}

static void test_order(void **state)
{
    struct policy *p = POLICY({.name = "not-this", .deny = true, HOSTS("evil.corp.example")},
                              {.name = "corp", HOSTS("*.corp.example"), PORTS("443", "80")},
                              {.name = "late", .deny = true, HOSTS("good.corp.example")},
                              {.name = "any", HOSTS("*")});

    DENIED(p, "evil.corp.example:443", "not-this");
    DENIED(p, "evil.corp.example:80", "not-this"); /* a denial is for any port */
    ALLOWED(p, "good.corp.example:443", "corp");
    DENIED(p, "good.corp.example:8080", "late");
    ALLOWED(p, "x.example:443", "any");
    assert_int_equal(ask(p, "x.example:443", NULL, NULL, NULL).index, 3);
    policy_free(&p);
}

static void test_ports(void **state)
{
    struct policy *p =
        POLICY({.name = "a", HOSTS("a.example")},
               {.name = "b", HOSTS("b.example", "c.example:22"), PORTS("80", "8000-8100")},
               {.name = "d", HOSTS("d.example:5000-5010")},
               {.name = "six", HOSTS("[2a00::/16]:25", "2a01::/16")});

    ALLOWED(p, "a.example:443", "a");
    DENIED(p, "a.example:80", "default");
    assert_string_equal(ask(p, "a.example:80", NULL, NULL, NULL).reason,
                        "no rule allows this port");
    ALLOWED(p, "b.example:80", "b");
    ALLOWED(p, "b.example:8000", "b");
    ALLOWED(p, "b.example:8100", "b");
    DENIED(p, "b.example:8101", "default");
    DENIED(p, "b.example:443", "default");
    ALLOWED(p, "c.example:22", "b");
    DENIED(p, "c.example:80", "default"); /* its own port only */
    ALLOWED(p, "d.example:5010", "d");
    DENIED(p, "d.example:5011", "default");
    ALLOWED(p, "[2a00::1]:25", "six");
    DENIED(p, "[2a00::1]:443", "default");
    ALLOWED(p, "[2a01::1]:443", "six");
    policy_free(&p);
}

static void test_clients(void **state)
{
    struct policy *p =
        POLICY({.name = "pods", HOSTS("a.example"), FROM("10.0.0.0/8", "fd00::/8")},
               {.name = "team", HOSTS("b.example"), WHO("build-7", "*.corp.example")},
               {.name = "both", HOSTS("c.example"), FROM("10.0.0.0/8"), WHO("x")},
               {.name = "known", HOSTS("d.example"), WHO("*")});

    expect(ask(p, "a.example:443", NULL, "10.1.1.1", NULL), "a", true, "pods");
    expect(ask(p, "a.example:443", NULL, "::ffff:10.1.1.1", NULL), "a", true, "pods");
    expect(ask(p, "a.example:443", NULL, "fd00::9", NULL), "a", true, "pods");
    expect(ask(p, "a.example:443", NULL, "11.1.1.1", NULL), "a", false, "default");
    assert_string_equal(ask(p, "a.example:443", NULL, "11.1.1.1", NULL).reason,
                        "no rule allows this client");
    expect(ask(p, "a.example:443", NULL, NULL, NULL), "a", false, "default");
    expect(ask(p, "b.example:443", NULL, NULL, "build-7"), "b", true, "team");
    expect(ask(p, "b.example:443", NULL, NULL, "Agent.Corp.Example"), "b", true, "team");
    expect(ask(p, "b.example:443", NULL, NULL, "corp.example"), "b", false, "default");
    expect(ask(p, "b.example:443", NULL, NULL, ".corp.example"), "b", false, "default");
    expect(ask(p, "b.example:443", NULL, NULL, "evilcorp.example"), "b", false, "default");
    expect(ask(p, "b.example:443", NULL, NULL, "build-77"), "b", false, "default");
    expect(ask(p, "b.example:443", NULL, NULL, NULL), "b", false, "default");
    expect(ask(p, "c.example:443", NULL, "10.1.1.1", "x"), "c", true, "both");
    expect(ask(p, "c.example:443", NULL, "10.1.1.1", "y"), "c", false, "default");
    expect(ask(p, "c.example:443", NULL, "11.1.1.1", "x"), "c", false, "default");
    expect(ask(p, "d.example:443", NULL, NULL, "who"), "d", true, "known");
    expect(ask(p, "d.example:443", NULL, NULL, ""), "d", false, "default");
    policy_free(&p);
}

/* ---- addresses ---------------------------------------------------------------------------- */

static void test_addresses(void **state)
{
    struct policy *p = POLICY({.name = "plain", HOSTS("a.example")},
                              {.name = "intern",
                               HOSTS("*.corp.example"),
                               ADDRESSES("10.0.0.0/8", "fd00::/8", "64:ff9b::/96")});
    static const char *const inside[] = {
        "0.0.0.0",
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "198.51.100.1",
        "::1",
        "::",
        "fd00::1",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::a00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::808:808",
        "2002:a00:1::1",
        "2002:808:808::1",
        "2001:0:808:808::f7f7:f7f7",
        "2a00::5efe:808:808",
        "::808:808",
    };
    size_t i;

    RESOLVES(p, "a.example:443", "8.8.8.8", true, "plain");
    RESOLVES(p, "a.example:443", "2a00::1", true, "plain");
    for (i = 0; i < ARRAY_LEN(inside); i++)
        expect(ask(p, "a.example:443", inside[i], NULL, NULL), inside[i], false, "address");
    assert_string_equal(ask(p, "a.example:443", "169.254.169.254", NULL, NULL).reason,
                        "cloud metadata address");
    assert_string_equal(ask(p, "a.example:443", "64:ff9b::808:808", NULL, NULL).reason,
                        "IPv4 address inside IPv6");
    RESOLVES(p, "git.corp.example:443", "8.8.8.8", true, "intern");
    RESOLVES(p, "git.corp.example:443", "10.1.2.3", true, "intern");
    RESOLVES(p, "git.corp.example:443", "::ffff:10.1.2.3", true, "intern");
    RESOLVES(p, "git.corp.example:443", "fd00::1", true, "intern");
    RESOLVES(p, "git.corp.example:443", "64:ff9b::808:808", true, "intern");
    RESOLVES(p, "git.corp.example:443", "64:ff9b::a00:1", false, "address");
    RESOLVES(p, "git.corp.example:443", "192.168.0.1", false, "address");
    RESOLVES(p, "git.corp.example:443", "fd00:ec2::254", false, "address"); /* metadata */
    RESOLVES(p, "git.corp.example:443", "127.0.0.1", false, "address");
    RESOLVES(p, "x.example:443", "8.8.8.8", false, "default"); /* the name was denied already */
    policy_free(&p);
}

/* Nothing is remembered: a name that moves inside is refused the second time. */
static void test_rebinding(void **state)
{
    struct policy *p = POLICY({.name = "a", HOSTS("a.example")});

    RESOLVES(p, "a.example:443", "8.8.8.8", true, "a");
    RESOLVES(p, "a.example:443", "127.0.0.1", false, "address");
    RESOLVES(p, "a.example:443", "8.8.8.8", true, "a");
    policy_free(&p);
}

static void test_literals(void **state)
{
    struct policy *p = POLICY({.name = "db", HOSTS("10.0.0.0/8:5432", "[fd00::/8]:5432")},
                              {.name = "wide", HOSTS("0.0.0.0/0:9000", "::/0")},
                              {.name = "meta", HOSTS("169.254.169.254:80")},
                              {.name = "anywhere", PORTS("25"), ADDRESSES("192.168.0.0/16")});

    ALLOWED(p, "10.1.2.3:5432", "db");
    ALLOWED(p, "[::ffff:10.1.2.3]:5432", "db");
    ALLOWED(p, "0xa.1.2.3:5432", "db");
    ALLOWED(p, "[fd00::1]:5432", "db");
    DENIED(p, "11.1.2.3:5432", "default");
    ALLOWED(p, "8.8.8.8:9000", "wide");
    DENIED(p, "10.1.2.3:9000", "address"); /* 0.0.0.0/0 opens nothing */
    DENIED(p, "127.0.0.1:9000", "address");
    DENIED(p, "169.254.169.254:9000", "address");
    DENIED(p, "[::1]:443", "address");
    DENIED(p, "[64:ff9b::808:808]:443", "address");
    ALLOWED(p, "169.254.169.254:80", "meta");
    ALLOWED(p, "2852039166:80", "meta");
    ALLOWED(p, "8.8.8.8:25", "anywhere");
    ALLOWED(p, "192.168.3.4:25", "anywhere");
    DENIED(p, "10.1.2.3:25", "address");
    ALLOWED(p, "mail.example:25", "anywhere");
    RESOLVES(p, "mail.example:25", "192.168.3.4", true, "anywhere");
    /* A literal's own address has been judged; another one has not. */
    RESOLVES(p, "10.1.2.3:5432", "10.1.2.3", true, "db");
    RESOLVES(p, "8.8.8.8:9000", "127.0.0.1", false, "address");
    policy_free(&p);
}

/* A range that is denied cannot be reached by a name either. */
static void test_denied_range(void **state)
{
    struct policy *p = POLICY({.name = "block", .deny = true, HOSTS("45.0.0.0/8:443", "2a0f::/16")},
                              {.name = "names", HOSTS("*"), PORTS("443", "80")},
                              {.name = "late", .deny = true, HOSTS("46.0.0.0/8")});

    DENIED(p, "45.1.1.1:443", "block");
    RESOLVES(p, "a.example:443", "45.1.1.1", false, "block");
    RESOLVES(p, "a.example:80", "45.1.1.1", true, "names");
    RESOLVES(p, "a.example:443", "2a0f::1", false, "block");
    RESOLVES(p, "a.example:443", "46.1.1.1", true, "names"); /* comes too late */
    policy_free(&p);
}

static void test_own_address(void **state)
{
    struct policy *p = POLICY(
        {.name = "a", HOSTS("a.example", "10.0.0.0/8"), ADDRESSES("10.0.0.0/8", "10.9.9.9")});
    struct sockaddr_storage own[2];
    const struct sockaddr *list[] = {(const struct sockaddr *)&own[0],
                                     (const struct sockaddr *)&own[1]};

    address("10.1.2.3", &own[0]);
    address("10.9.9.9", &own[1]);
    policy_own_addresses(list, 2);
    RESOLVES(p, "a.example:443", "10.1.2.3", false, "address");
    assert_string_equal(ask(p, "a.example:443", "10.1.2.3", NULL, NULL).reason,
                        "address of this machine");
    DENIED(p, "10.1.2.3:443", "address");
    RESOLVES(p, "a.example:443", "10.1.2.4", true, "a");
    RESOLVES(p, "a.example:443", "10.9.9.9", true, "a"); /* named as it is */
    policy_own_addresses(NULL, 0);
    RESOLVES(p, "a.example:443", "10.1.2.3", true, "a");
    policy_free(&p);
}

static void test_report(void **state)
{
    const struct policy_rule_opts rules[] = {{.name = "no", .deny = true, HOSTS("no.example")},
                                             {.name = "yes", HOSTS("yes.example")}};
    struct policy *p = make(POLICY_REPORT, rules, 2);
    struct policy_verdict v;

    v = ask(p, "no.example:443", "8.8.8.8", NULL, NULL);
    assert_true(v.allow && v.would_deny);
    assert_string_equal(v.rule, "no");
    v = ask(p, "other.example:443", "10.0.0.1", NULL, NULL);
    assert_true(v.allow && v.would_deny);
    assert_string_equal(v.rule, "default");
    v = ask(p, "yes.example:443", "8.8.8.8", NULL, NULL);
    assert_true(v.allow && !v.would_deny);
    v = ask(p, "yes.example:443", "10.0.0.1", NULL, NULL);
    assert_true(v.allow && v.would_deny);
    assert_string_equal(v.rule, "address");
    policy_free(&p);
}

/* Cloud metadata and this machine: a rule has to open them in report mode, too, whether the name is
 * allowed, denied, or named by nobody. */
static void test_report_insists(void **state)
{
    static const char *const never[] = {"169.254.169.254",
                                        "fd00:ec2::254",
                                        "127.0.0.1",
                                        "127.9.9.9",
                                        "0.0.0.0",
                                        "::1",
                                        "::",
                                        "::ffff:7f00:1",
                                        "64:ff9b::a9fe:a9fe",
                                        "2002:7f00:1::1",
                                        "168.63.129.16"};
    static const char *const names[] = {"no.example:443", "yes.example:443", "other.example:443"};
    const struct policy_rule_opts rules[] = {
        {.name = "no", .deny = true, HOSTS("no.example")},
        {.name = "yes", HOSTS("yes.example")},
        {.name = "opened", HOSTS("opened.example", "127.0.0.1"), ADDRESSES("127.0.0.1")}};
    struct policy *p = make(POLICY_REPORT, rules, 3);
    struct policy_verdict v;
    size_t i, k;

    for (i = 0; i < ARRAY_LEN(never); i++) {
        char literal[64];

        for (k = 0; k < ARRAY_LEN(names); k++) {
            v = ask(p, names[k], never[i], NULL, NULL);
            assert_false(v.allow || v.would_deny);
            assert_string_equal(v.rule, "address");
        }
        snprintf(literal, sizeof(literal), strchr(never[i], ':') ? "[%s]:80" : "%s:80", never[i]);
        v = ask(p, literal, NULL, NULL, NULL);
        assert_false(v.allow || v.would_deny);
    }
    v = ask(p, "opened.example:443", "127.0.0.1", NULL, NULL);
    assert_true(v.allow && !v.would_deny);
    v = ask(p, "127.0.0.1:443", NULL, NULL, NULL);
    assert_true(v.allow && !v.would_deny);
    policy_free(&p);
}

/* What the caller decided itself stays. */
static void test_fixed(void **state)
{
    struct policy *p = make(POLICY_ENFORCE, NULL, 0);
    const struct policy_verdict fixed = {true, false, "harness.url", "configured", -1};
    struct sockaddr_storage inside;
    struct dest d;
    struct policy_query q = {.dest = &d};
    struct policy_verdict v;

    assert_int_equal(dest_parse(VIEW_LIT("hub.corp.example:443"), 0, &d, NULL), 0);
    address("10.0.0.1", &inside);
    v = policy_check_address(p, &q, &fixed, (const struct sockaddr *)&inside);
    assert_true(v.allow);
    assert_string_equal(v.rule, "harness.url");
    policy_free(&p);
}

/* ---- bad rules ---------------------------------------------------------------------------- */

static void test_bad_rules(void **state)
{
    static const char hint[] = "use a name, *.NAME or a range of addresses, each perhaps with "
                               ":PORT, such as github.com:443";
    static const char labels[] =
        "use * for whole labels at the beginning only, such as *.corp.example";
    static const char ports[] = "use a port or a range of them, such as 443 or 8000-8100";
    static const struct {
        const char *host, *want;
    } rows[] = {
        {"https://github.com", "use a host and perhaps a port, not a URL: github.com:443"},
        {"", hint},
        {"git hub.com", hint},
        {"user@github.com", hint},
        {"github..com", hint},
        {"[github.com]", hint},
        {"[10.0.0.0/8]:443", hint},
        {"[::1]443", hint},
        {"github.com:", ports},
        {"github.com:0", ports},
        {"github.com:99999", ports},
        {"github.com:90-80", ports},
        {"github.com:https", ports},
        {"git*.example", labels},
        {"*github.com", labels},
        {"**.github.com", labels},
        {"*.*.github.com", labels},
        {"a.*.github.com", labels},
        {"*.", hint},
        {"*.10.0.0.1", "use 10.0.0.1"},
        {"0x7f.1", "use 127.0.0.1"},
        {"2130706433:80", "use 127.0.0.1"},
        {"10.0.0.1/8", "use 10.0.0.0/8, or a longer prefix"},
        {"10.0.0.0/8/8", "use a range of addresses, such as 10.0.0.0/8"},
        {"github.com/path", "use a range of addresses, such as 10.0.0.0/8"},
        {"fe80::1%eth0", "use a range of addresses, such as 10.0.0.0/8"},
    };
    struct err e;
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        if (policy_check_host(rows[i].host, &e) == 0)
            fail_msg("\"%s\" was taken", rows[i].host);
        if (strcmp(e.text, rows[i].want) != 0)
            fail_msg("\"%s\": %s", rows[i].host, e.text);
    }
}

static void expect_bad(struct policy_rule_opts o, const char *want)
{
    struct err e = {0};
    const struct policy_rule_opts rules[] = {
        {.name = "good", HOSTS("a.example", "*.b", "10.0.0.0/8")}, o};

    assert_null(policy_new(&(struct policy_opts){.rules = rules, .n_rules = 2}, &e));
    assert_string_equal(e.text, want);
}

static void test_bad_policies(void **state)
{
    expect_bad((struct policy_rule_opts){.name = "r", HOSTS("a.example", "*a")},
               "rule r: hosts: \"*a\": use * for whole labels at the beginning only, such as "
               "*.corp.example");
    expect_bad((struct policy_rule_opts){.name = "r", PORTS("443", "x")},
               "rule r: ports: \"x\": use a port or a range of them, such as 443 or 8000-8100");
    expect_bad((struct policy_rule_opts){.name = "r", ADDRESSES("corp.example")},
               "rule r: addresses: \"corp.example\": use a range of addresses, such as 10.0.0.0/8");
    expect_bad((struct policy_rule_opts){.name = "r", FROM("10.0.0.1/8")},
               "rule r: from: \"10.0.0.1/8\": use 10.0.0.0/8, or a longer prefix");
    expect_bad((struct policy_rule_opts){.name = "r", WHO("x", "a*")},
               "rule r: identity: \"a*\": use the name of a client, such as build-7 or "
               "*.corp.example");
    expect_bad((struct policy_rule_opts){.name = "r", WHO("two words")},
               "rule r: identity: \"two words\": use the name of a client, such as build-7 or "
               "*.corp.example");
    expect_bad((struct policy_rule_opts){.name = "r", .deny = true, ADDRESSES("10.0.0.0/8")},
               "rule r: addresses: a rule that denies has none; use a range in hosts");
}

/* ---- many rules --------------------------------------------------------------------------- */

enum { MANY = 1000, EACH = 6 };

static double ns_for(const struct policy *p, const char *where, const char *rule)
{
    enum { ROUNDS = 20000 };
    struct timespec from, to;
    struct dest d;
    struct policy_query q = {.dest = &d};
    struct policy_verdict v = {0};
    int i;

    assert_int_equal(dest_parse(view_str(where), 0, &d, NULL), 0);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (i = 0; i < ROUNDS; i++)
        v = policy_decide(p, &q);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    assert_string_equal(v.rule, rule);
    return ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / ROUNDS;
}

/* 1,000 rules with six hosts each: what is asked must not grow with them. */
static void test_many(void **state)
{
    static struct policy_rule_opts rules[MANY];
    static char text[MANY][EACH][40], names[MANY][16];
    static const char *list[MANY][EACH];
    static const char *const asked[][2] = {
        {"h999-0.example:443", "r999"},
        {"deep.er.w500-3.example:443", "r500"},
        {"not.in.any.rule.example:443", "default"},
        {"20.3.231.1:443", "r999"},
        {"200.1.1.1:443", "default"},
    };
    struct policy *p;
    size_t i, k;

    for (i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "r%zu", i);
        for (k = 0; k < EACH; k++) {
            if (k < 3)
                snprintf(text[i][k], sizeof(text[i][k]), "h%zu-%zu.example", i, k);
            else if (k < 5)
                snprintf(text[i][k], sizeof(text[i][k]), "*.w%zu-%zu.example", i, k);
            else
                snprintf(text[i][k], sizeof(text[i][k]), "20.%zu.%zu.0/24", i / 256, i % 256);
            list[i][k] = text[i][k];
        }
        rules[i] = (struct policy_rule_opts){.name = names[i], .hosts = list[i], .n_hosts = EACH};
    }
    p = make(POLICY_ENFORCE, rules, MANY);
    for (i = 0; i < ARRAY_LEN(asked); i++) {
        double ns = ns_for(p, asked[i][0], asked[i][1]);

        print_message("%s: %.0f ns\n", asked[i][0], ns);
        if (ns > 20000) /* a walk over all hosts takes more, also on a machine under load */
            fail_msg("%s takes %.0f ns", asked[i][0], ns);
    }
    policy_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default),        cmocka_unit_test(test_names),
        cmocka_unit_test(test_wildcards),      cmocka_unit_test(test_order),
        cmocka_unit_test(test_ports),          cmocka_unit_test(test_clients),
        cmocka_unit_test(test_addresses),      cmocka_unit_test(test_rebinding),
        cmocka_unit_test(test_literals),       cmocka_unit_test(test_denied_range),
        cmocka_unit_test(test_own_address),    cmocka_unit_test(test_report),
        cmocka_unit_test(test_report_insists), cmocka_unit_test(test_fixed),
        cmocka_unit_test(test_bad_rules),      cmocka_unit_test(test_bad_policies),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
