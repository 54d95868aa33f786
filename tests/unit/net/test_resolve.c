#include "net/resolve.h"

#include <stdio.h>
#include <unistd.h>
#include "rt/clock.h"
#include "fake_dns.h"
#include "net_test.h"

static struct fake_dns dns;
static struct net_resolver *resolver;

static struct dns_row rows[] = {
    {.name = "one.example", .addrs = "192.0.2.1", .ttl = 60},
    {.name = "both.example", .addrs = "192.0.2.2 2001:db8::2 192.0.2.3", .ttl = 60},
    {.name = "short.example", .addrs = "192.0.2.4", .ttl = 0},
    {.name = "long.example", .addrs = "192.0.2.5", .ttl = 86400},
    {.name = "empty.example"},
    {.name = "servfail.example", .rcode = 2},
    {.name = "refused.example", .rcode = 5},
    {.name = "silent.example", .silent = true},
    {.name = "garbage.example", .addrs = "192.0.2.6", .garbage = true},
    {.name = "many.example",
     .ttl = 60,
     .addrs = "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7 192.0.2.8 "
              "192.0.2.9 192.0.2.10 192.0.2.11 192.0.2.12 192.0.2.13 192.0.2.14 192.0.2.15 "
              "192.0.2.16 192.0.2.17 192.0.2.18 192.0.2.19 192.0.2.20"},
    {.name = "one.example.trap.example", .addrs = "203.0.113.66", .ttl = 60},
};

static const struct dns_row *const trap = &rows[ARRAY_LEN(rows) - 1];

static int setup(void **state)
{
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        rows[i].asked = 0;
    nt_setup(state);
    fake_dns_start(&dns, loop, rows, ARRAY_LEN(rows));
    resolver = net_resolver_new(loop, dns.server, &e);
    if (!resolver)
        fail_msg("%s", e.text);
    return 0;
}

static int teardown(void **state)
{
    net_resolver_free(&resolver);
    fake_dns_stop(&dns);
    clock_fake(-1, -1);
    return nt_teardown(state);
}

static unsigned asked(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return rows[i].asked;
    fail_msg("no row %s", name);
    return 0;
}

struct answer_seen {
    bool done;
    unsigned calls;
    size_t n;
    struct net_addr addrs[NET_RESOLVE_MAX];
    struct err e;
    struct net_lookup *lookup;
    struct net_lookup **cancel_also; /* in the call-back */
};

static void on_resolved(void *ctx, const struct net_addr *addrs, size_t n, const struct err *e)
{
    struct answer_seen *a = ctx;

    a->done = true;
    a->calls++;
    a->n = n;
    for (size_t i = 0; i < n; i++)
        a->addrs[i] = addrs[i];
    if (n)
        assert_null(e);
    else
        a->e = *e;
    if (a->cancel_also)
        net_lookup_cancel(a->cancel_also);
}

static void start(struct answer_seen *a, const char *host, uint16_t port)
{
    memset(a, 0, sizeof(*a));
    a->lookup = net_resolve(resolver, host, port, on_resolved, a);
    assert_false(a->done);
}

static struct answer_seen look_up(const char *host, uint16_t port)
{
    struct answer_seen a;

    start(&a, host, port);
    nt_run_until(nt_flag, &a.done);
    assert_int_equal(a.calls, 1);
    return a;
}

static bool has(const struct answer_seen *a, const char *text)
{
    char buf[NET_ADDR_TEXT];

    for (size_t i = 0; i < a->n; i++)
        if (strcmp(net_addr_text(&a->addrs[i], buf), text) == 0)
            return true;
    return false;
}

static void names_become_addresses(void **state)
{
    struct answer_seen a = look_up("one.example", 443);

    (void)state;
    assert_int_equal(a.n, 1);
    assert_true(has(&a, "192.0.2.1:443"));
    a = look_up("both.example", 80);
    assert_int_equal(a.n, 3);
    assert_true(has(&a, "192.0.2.2:80"));
    assert_true(has(&a, "192.0.2.3:80"));
    assert_true(has(&a, "[2001:db8::2]:80"));
    a = look_up("many.example", 1);
    assert_int_equal(a.n, NET_RESOLVE_MAX);
}

static void literals_are_not_asked_for(void **state)
{
    struct answer_seen a = look_up("192.0.2.9", 443);

    (void)state;
    assert_true(a.n == 1 && has(&a, "192.0.2.9:443"));
    a = look_up("2001:db8::9", 8443);
    assert_true(a.n == 1 && has(&a, "[2001:db8::9]:8443"));
    assert_int_equal(dns.asked, 0);
}

static void what_is_no_name_is_not_asked_for(void **state)
{
    static const char *const bad[] = {
        "",           ".",         "a..b",   ".a",           "127.1",     "0x7f000001", "0x7f.1",
        "2130706433", "1.2.3.4.5", "a.0x7f", "a b",          "a\nb",      "a/b",        "[::1]",
        "fe80::1%lo", "1.2.3.256", "a:b",    "xn--\xc3\xa9", "0177.0.0.1"};
    char label[65], name[256];
    struct answer_seen a;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        a = look_up(bad[i], 1);
        assert_int_equal(a.n, 0);
        assert_int_equal(a.e.code, ERR_INVALID);
    }
    memset(label, 'a', 64);
    label[64] = '\0';
    a = look_up(label, 1);
    assert_int_equal(a.e.code, ERR_INVALID);
    memset(name, 'a', 255);
    for (int i = 50; i < 255; i += 50)
        name[i] = '.';
    name[254] = '\0';
    a = look_up(name, 1);
    assert_int_equal(a.e.code, ERR_INVALID);
    assert_int_equal(dns.asked, 0);
}

static void answers_are_kept_for_their_ttl(void **state)
{
    int64_t now = clock_mono_ns();
    unsigned first;

    (void)state;
    clock_fake(now, -1);
    look_up("one.example", 443);
    first = asked("one.example");
    assert_true(first > 0);
    clock_fake(now + 59 * NS_PER_SEC, -1);
    assert_true(look_up("ONE.example.", 80).n == 1);
    assert_int_equal(asked("one.example"), first);
    clock_fake(now + 60 * NS_PER_SEC, -1);
    assert_true(look_up("one.example", 443).n == 1);
    assert_int_equal(asked("one.example"), 2 * first);
}

static void ttls_have_bounds(void **state)
{
    int64_t now = clock_mono_ns();
    unsigned first;

    (void)state;
    clock_fake(now, -1);
    look_up("short.example", 1);
    look_up("long.example", 1);
    first = asked("short.example");
    clock_fake(now + NS_PER_SEC - 1, -1);
    look_up("short.example", 1);
    assert_int_equal(asked("short.example"), first);
    clock_fake(now + NS_PER_SEC, -1);
    look_up("short.example", 1);
    assert_int_equal(asked("short.example"), 2 * first);
    first = asked("long.example");
    clock_fake(now + 299 * NS_PER_SEC, -1);
    look_up("long.example", 1);
    assert_int_equal(asked("long.example"), first);
    clock_fake(now + 300 * NS_PER_SEC, -1);
    look_up("long.example", 1);
    assert_int_equal(asked("long.example"), 2 * first);
}

static void one_failure(const char *name, enum err_code code, const char *part)
{
    struct answer_seen a = look_up(name, 1);

    assert_int_equal(a.n, 0);
    if (a.e.code != code)
        fail_msg("%s: %s", err_code_name(a.e.code), a.e.text);
    nt_assert_contains(a.e.text, name);
    nt_assert_contains(a.e.text, part);
}

static void failures_are_told_with_their_cause_and_kept_shortly(void **state)
{
    int64_t now = clock_mono_ns();
    unsigned before;

    (void)state;
    clock_fake(now, -1);
    one_failure("none.example", ERR_NOTFOUND, "no such name");
    one_failure("empty.example", ERR_NOTFOUND, "has no address");
    one_failure("servfail.example", ERR_UNAVAIL, "");
    one_failure("refused.example", ERR_UNAVAIL, "");
    before = dns.asked;
    one_failure("none.example", ERR_NOTFOUND, "no such name");
    assert_int_equal(dns.asked, before);
    clock_fake(now + NS_PER_SEC, -1);
    one_failure("none.example", ERR_NOTFOUND, "no such name");
    assert_true(dns.asked > before);
}

static void garbage_is_a_failure(void **state)
{
    struct answer_seen a = look_up("garbage.example", 1);

    (void)state;
    assert_int_equal(a.n, 0);
    assert_true(a.e.text[0] != '\0');
}

static void a_dead_server_is_noticed(void **state)
{
    struct answer_seen a;

    (void)state;
    ev_io_want(dns.io, 0);
    close(dns.fd); /* questions are refused by the system now */
    a = look_up("one.example", 1);
    assert_int_equal(a.n, 0);
    assert_true(a.e.code == ERR_TIMEOUT || a.e.code == ERR_UNAVAIL);
    nt_assert_contains(a.e.text, "no name server");
    dns.fd = -1;
}

static bool all_done(void *ctx)
{
    struct answer_seen *a = ctx;

    return a[0].done && a[1].done && a[2].done;
}

static void equal_questions_are_asked_once(void **state)
{
    struct answer_seen a[3];
    unsigned one;

    (void)state;
    look_up("both.example", 1);
    one = asked("both.example"); /* A and AAAA */
    start(&a[0], "one.example", 1);
    start(&a[1], "one.example", 2);
    start(&a[2], "One.Example", 3);
    nt_run_until(all_done, a);
    assert_int_equal(asked("one.example"), one);
    assert_true(has(&a[0], "192.0.2.1:1") && has(&a[1], "192.0.2.1:2") &&
                has(&a[2], "192.0.2.1:3"));
}

static void cancelled_lookups_are_silent(void **state)
{
    struct answer_seen a, b, c;

    (void)state;
    start(&a, "one.example", 1);
    start(&b, "one.example", 1);
    start(&c, "192.0.2.1", 1);
    net_lookup_cancel(&a.lookup); /* being asked for */
    net_lookup_cancel(&c.lookup); /* answered, about to be told */
    assert_null(a.lookup);
    nt_run_until(nt_flag, &b.done);
    nt_run_ms(2);
    assert_false(a.done || c.done);
    /* one is told and cancels the other in its call-back */
    start(&a, "192.0.2.1", 1);
    start(&b, "192.0.2.1", 1);
    a.cancel_also = &b.lookup;
    nt_run_until(nt_flag, &a.done);
    nt_run_ms(2);
    assert_false(b.done);
}

static void a_resolver_may_go_while_it_works(void **state)
{
    struct answer_seen a, b;

    (void)state;
    start(&a, "silent.example", 1);
    start(&b, "192.0.2.1", 1);
    net_resolver_free(&resolver);
    nt_run_ms(5);
    assert_false(a.done || b.done);
}

/* Names that clients make up don't stay for ever: old ones make room. */
static void the_cache_has_a_limit(void **state)
{
    struct answer_seen a;
    char name[40];
    unsigned first;

    (void)state;
    clock_fake(clock_mono_ns(), -1);
    look_up("one.example", 1);
    first = asked("one.example");
    for (int i = 0; i < 4096; i++) {
        snprintf(name, sizeof(name), "%d.made-up.example", i);
        start(&a, name, 1);
        if (i % 64 == 0)
            nt_run_until(nt_flag, &a.done);
        else
            net_lookup_cancel(&a.lookup);
    }
    look_up("4095.made-up.example", 1);
    look_up("one.example", 1);
    assert_int_equal(asked("one.example"), 2 * first);
}

static void hosts_files_count(void **state)
{
    struct answer_seen a = look_up("localhost", 7);

    (void)state;
    assert_true(has(&a, "127.0.0.1:7") || has(&a, "[::1]:7"));
}

static void bad_server_lists_are_refused(void **state)
{
    static const char *const bad[] = {
        "",           "not an address", "127.0.0.1:99999999", "dns.example", "127.0.0.1,",
        ",127.0.0.1", "::1]:53"};
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct net_resolver *r = net_resolver_new(loop, bad[i], &e);

        if (r)
            fail_msg("\"%s\" was accepted", bad[i]);
        assert_int_equal(e.code, ERR_INVALID);
    }
}

static void the_systems_servers_are_the_default(void **state)
{
    struct err e;
    struct net_resolver *r = net_resolver_new(loop, NULL, &e);

    (void)state;
    assert_non_null(r);
    net_resolver_free(&r);
    assert_null(r);
}

/* --- resolv.conf --------------------------------------------------------------------------- */

static char conf_path[64];
static struct dns_row elsewhere[] = {
    {.name = "one.example", .addrs = "198.51.100.1", .ttl = 60},
    {.name = "moved.example", .addrs = "198.51.100.2", .ttl = 60},
};
static struct fake_dns other; /* the servers after a change */

/* As those who write the file do: a new one in the place of the old. */
static void write_conf(const char *server)
{
    char text[80], temp[80];
    FILE *f;

    snprintf(temp, sizeof(temp), "%s.new", conf_path);
    snprintf(text, sizeof(text), "search invalid\nnameserver %s\n", server);
    f = fopen(temp, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(temp, conf_path), 0);
}

static int setup_conf(void **state)
{
    struct err e;

    setup(state);
    for (size_t i = 0; i < ARRAY_LEN(elsewhere); i++)
        elsewhere[i].asked = 0;
    fake_dns_start_at(&other, loop, "127.0.0.2", dns.port, elsewhere, ARRAY_LEN(elsewhere));
    snprintf(conf_path, sizeof(conf_path), "/tmp/test_resolve.%d", (int)getpid());
    write_conf("127.0.0.1");
    net_resolver_free(&resolver);
    clock_fake(clock_mono_ns(), -1);
    resolver = net_resolver_new_file(loop, conf_path, dns.port, &e);
    if (!resolver)
        fail_msg("%s", e.text);
    return 0;
}

static int teardown_conf(void **state)
{
    unlink(conf_path);
    fake_dns_stop(&other);
    return teardown(state);
}

static void later(int64_t ms)
{
    clock_fake(clock_mono_ns() + ms * NS_PER_MS, -1);
}

static struct answer_seen must_find(const char *name, const char *addr)
{
    struct answer_seen a = look_up(name, 1);

    if (!has(&a, addr))
        fail_msg("%s: no %s; %s", name, addr, a.n ? "another" : a.e.text);
    return a;
}

/* Kubernetes writes ndots:5: then every name would be looked for under the search domains first. */
static void a_name_with_a_dot_is_no_beginning_of_another(void **state)
{
    struct err e;
    FILE *f;

    (void)state;
    net_resolver_free(&resolver);
    f = fopen(conf_path, "w");
    assert_non_null(f);
    assert_true(fputs("nameserver 127.0.0.1\nsearch trap.example\noptions ndots:5\n", f) >= 0);
    assert_int_equal(fclose(f), 0);
    resolver = net_resolver_new_file(loop, conf_path, dns.port, &e);
    assert_non_null(resolver);
    must_find("one.example", "192.0.2.1:1");
    assert_int_equal(trap->asked, 0);
}

static void a_changed_file_is_read_again(void **state)
{
    (void)state;
    must_find("one.example", "192.0.2.1:1");
    write_conf("127.0.0.2");
    later(4999); /* not looked at so soon, and the answer is kept */
    must_find("one.example", "192.0.2.1:1");
    assert_int_equal(other.asked, 0);
    later(1);
    must_find("one.example", "198.51.100.1:1"); /* answers of other servers are forgotten */
    must_find("moved.example", "198.51.100.2:1");
    write_conf("127.0.0.1");
    later(5000);
    must_find("one.example", "192.0.2.1:1");
}

static void an_unchanged_file_changes_nothing(void **state)
{
    unsigned before;

    (void)state;
    must_find("one.example", "192.0.2.1:1");
    before = dns.asked;
    later(5000);
    must_find("one.example", "192.0.2.1:1");
    assert_int_equal(dns.asked, before);
}

static void a_reload_looks_at_once(void **state)
{
    unsigned before;

    (void)state;
    must_find("one.example", "192.0.2.1:1");
    before = dns.asked;
    net_resolver_reload(resolver); /* the same servers, but asked again */
    must_find("one.example", "192.0.2.1:1");
    assert_true(dns.asked > before);
    write_conf("127.0.0.2");
    net_resolver_reload(resolver);
    must_find("one.example", "198.51.100.1:1");
}

static void what_was_asked_before_is_answered_by_the_old_servers(void **state)
{
    struct dns_row *silent = &rows[7];
    struct answer_seen slow;

    (void)state;
    assert_string_equal(silent->name, "silent.example");
    start(&slow, "silent.example", 1);
    nt_run_ms(5);
    write_conf("127.0.0.2");
    later(5000);
    must_find("moved.example", "198.51.100.2:1");
    assert_false(slow.done);
    silent->silent = false; /* the next try finds it awake */
    silent->addrs = "192.0.2.7";
    nt_run_until(nt_flag, &slow.done);
    silent->silent = true;
    silent->addrs = NULL;
    assert_true(has(&slow, "192.0.2.7:1"));
    assert_int_equal(slow.calls, 1);
    must_find("one.example", "198.51.100.1:1");
}

static void a_resolver_may_go_while_old_servers_are_asked(void **state)
{
    struct answer_seen a, b;

    (void)state;
    start(&a, "silent.example", 1);
    nt_run_ms(2);
    write_conf("127.0.0.2");
    net_resolver_reload(resolver);
    start(&b, "moved.example", 1);
    net_resolver_free(&resolver);
    nt_run_ms(5);
    assert_false(a.done || b.done);
}

static void a_file_may_come_later(void **state)
{
    struct err e;

    (void)state;
    net_resolver_free(&resolver);
    unlink(conf_path);
    resolver = net_resolver_new_file(loop, conf_path, dns.port, &e);
    assert_non_null(resolver);
    write_conf("127.0.0.2");
    later(5000);
    must_find("moved.example", "198.51.100.2:1");
}

int main(void)
{
#define C(name) cmocka_unit_test_setup_teardown(name, setup_conf, teardown_conf)
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(names_become_addresses),
        T(literals_are_not_asked_for),
        T(what_is_no_name_is_not_asked_for),
        T(answers_are_kept_for_their_ttl),
        T(ttls_have_bounds),
        T(failures_are_told_with_their_cause_and_kept_shortly),
        T(garbage_is_a_failure),
        T(a_dead_server_is_noticed),
        T(equal_questions_are_asked_once),
        T(cancelled_lookups_are_silent),
        T(a_resolver_may_go_while_it_works),
        T(the_cache_has_a_limit),
        T(hosts_files_count),
        T(bad_server_lists_are_refused),
        T(the_systems_servers_are_the_default),
        C(a_name_with_a_dot_is_no_beginning_of_another),
        C(a_changed_file_is_read_again),
        C(an_unchanged_file_changes_nothing),
        C(a_reload_looks_at_once),
        C(what_was_asked_before_is_answered_by_the_old_servers),
        C(a_resolver_may_go_while_old_servers_are_asked),
        C(a_file_may_come_later),
    };

    return cmocka_run_group_tests_name("net/resolve", tests, NULL, NULL);
}
