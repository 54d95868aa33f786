/* Tunnels of several workers, told as one answer. */
#include "egress/tunnel_report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "rt/clock.h"
#include "rt/metric_look.h"

enum { WORKERS = 2, PASSAGES_MAX = TUNNEL_GROUPS_MAX + 100 };

static struct ev_loop *loop;
static struct gate *gates[WORKERS];
static struct passage *passages[PASSAGES_MAX];
static size_t n_passages;
static struct str told;

static struct passage *open_one(size_t worker, const char *kind, const char *where,
                                const char *identity)
{
    struct net_addr from;
    struct err e;

    assert_int_equal(net_addr_parse(VIEW_LIT("192.0.2.7:5000"), &from, &e), 0);
    return passages[n_passages++] =
               passage_open(gates[worker], &(struct passage_opts){.kind = kind,
                                                                  .listener = "l",
                                                                  .from = &from,
                                                                  .identity = view_str(identity),
                                                                  .authority = view_str(where),
                                                                  .fixed_rule = "forward:l"});
}

static struct passage *stand(size_t worker, const char *where, const char *identity)
{
    struct passage *p = open_one(worker, "tunnel", where, identity);

    passage_started(p);
    return p;
}

static const char *ask(enum tunnel_by by, const char *search, size_t limit)
{
    const struct tunnel_ask a = {by, search, limit};
    struct tunnel_part *parts[WORKERS + 1];
    size_t i;

    for (i = 0; i < WORKERS; i++)
        parts[i] = tunnel_report_take(gates[i], &a);
    parts[WORKERS] = NULL; /* a worker that is gone */
    str_clear(&told);
    tunnel_report_join(parts, ARRAY_LEN(parts), &a, &told);
    for (i = 0; i < WORKERS; i++)
        tunnel_part_free(&parts[i]);
    return str_c(&told);
}

static int set_up(void **state)
{
    const struct audit_opts audit = {.to = AUDIT_NONE};
    struct err e;
    size_t i;

    (void)state;
    assert_int_equal(audit_open(&audit, &e), 0);
    clock_fake(100 * NS_PER_SEC, 1767323045678 * NS_PER_MS);
    loop = ev_loop_new("test");
    for (i = 0; i < WORKERS; i++)
        gates[i] = gate_new(loop, NULL, &(struct gate_settings){.policy = NULL});
    return 0;
}

static int tear_down(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < n_passages; i++)
        passage_end(&passages[i], "client");
    n_passages = 0;
    for (i = 0; i < WORKERS; i++)
        gate_free(&gates[i]);
    ev_loop_free(&loop);
    str_fini(&told);
    clock_fake(-1, -1);
    assert_true(metric_total("tunnels") == 0 && metric_total("tunnels_by_kind") == 0);
    return 0;
}

static void test_none(void **state)
{
    (void)state;
    open_one(0, "tunnel", "a.example:443", NULL); /* does not stand yet */
    assert_string_equal(ask(TUNNEL_EACH, NULL, 10), "{\"open\":0,\"matched\":0,\"tunnels\":[]}");
    assert_string_equal(ask(TUNNEL_BY_RULE, NULL, 10), "{\"open\":0,\"matched\":0,\"groups\":[]}");
}

static void test_all_of_one(void **state)
{
    struct passage *p;

    (void)state;
    p = stand(0, "A.example:443", NULL);
    passage_add(p, 12, 34);
    passage_active(p, 105 * NS_PER_SEC);
    clock_fake(107 * NS_PER_SEC, 1767323052678 * NS_PER_MS);
    ask(TUNNEL_EACH, NULL, 10);
    assert_non_null(strstr(str_c(&told),
                           "\"kind\":\"tunnel\",\"listener\":\"l\",\"client\":\"192.0.2.7:5000\","
                           "\"identity\":null,\"destination\":\"a.example:443\",\"dialled\":null,"
                           "\"via\":null,\"rule\":\"forward:l\",\"started\":\"2026-01-02T03:04:05."
                           "678Z\",\"age_seconds\":7,\"bytes_up\":12,\"bytes_down\":34,"
                           "\"idle_seconds\":2}"));
}

static void on_look(void *ctx)
{
    passage_add(ctx, 5, 0);
}

static void test_is_brought_up_to_date(void **state)
{
    struct passage *p;

    (void)state;
    p = stand(0, "a.example:443", NULL);
    passage_on_look(p, on_look, p);
    assert_non_null(strstr(ask(TUNNEL_EACH, NULL, 1), "\"bytes_up\":5,"));
    assert_non_null(strstr(ask(TUNNEL_BY_CLIENT, NULL, 1), "\"bytes_up\":10,"));
}

/* Over all workers, and no more than were asked for. */
static void test_the_newest_first(void **state)
{
    const char *a, *b;

    (void)state;
    stand(0, "first.example:443", NULL);
    stand(1, "second.example:443", NULL);
    stand(0, "third.example:443", NULL);
    ask(TUNNEL_EACH, NULL, 2);
    a = strstr(str_c(&told), "third.example");
    b = strstr(str_c(&told), "second.example");
    assert_true(a && b && a < b);
    assert_null(strstr(str_c(&told), "first.example"));
    assert_true(view_starts(str_view(&told), VIEW_LIT("{\"open\":3,\"matched\":3,")));
}

static void test_search(void **state)
{
    (void)state;
    stand(0, "a.example:443", "Runner-7");
    stand(1, "b.example:443", NULL);
    ask(TUNNEL_EACH, "runner-7", 10);
    assert_true(view_starts(str_view(&told), VIEW_LIT("{\"open\":2,\"matched\":1,")));
    assert_non_null(strstr(str_c(&told), "a.example"));
    assert_null(strstr(str_c(&told), "b.example"));
    ask(TUNNEL_BY_DESTINATION, "b.example", 10);
    assert_non_null(strstr(str_c(&told), "\"matched\":1,\"groups\":[{\"name\":\"b.example:443\""));
    assert_non_null(strstr(ask(TUNNEL_EACH, "192.0.2.7:5000", 10), "\"matched\":2"));
}

static void test_groups_of_several_workers(void **state)
{
    struct passage *p;

    (void)state;
    p = stand(0, "a.example:443", "one");
    passage_add(p, 1, 2);
    clock_fake(103 * NS_PER_SEC, 1767323048678 * NS_PER_MS);
    p = stand(1, "a.example:443", NULL);
    passage_add(p, 10, 20);
    stand(1, "b.example:443", NULL);
    assert_string_equal(ask(TUNNEL_BY_DESTINATION, NULL, 10),
                        "{\"open\":3,\"matched\":3,\"groups\":["
                        "{\"name\":\"a.example:443\",\"open\":2,\"bytes_up\":11,\"bytes_down\":22,"
                        "\"oldest_seconds\":3},"
                        "{\"name\":\"b.example:443\",\"open\":1,\"bytes_up\":0,\"bytes_down\":0,"
                        "\"oldest_seconds\":0}]}");
    ask(TUNNEL_BY_IDENTITY, NULL, 10);
    assert_non_null(strstr(str_c(&told), "[{\"name\":null,\"open\":2,"));
    assert_non_null(strstr(str_c(&told), "{\"name\":\"one\",\"open\":1,"));
    assert_non_null(
        strstr(ask(TUNNEL_BY_CLIENT, NULL, 10), "[{\"name\":\"192.0.2.7\",\"open\":3,"));
    assert_null(strstr(ask(TUNNEL_BY_DESTINATION, NULL, 1), "b.example"));
}

/* A tunnel to a place of its own each: memory is bounded, and none is left out of the count. */
static void test_too_many_groups(void **state)
{
    char where[40];
    int i;

    (void)state;
    for (i = 0; i < TUNNEL_GROUPS_MAX + 50; i++) {
        snprintf(where, sizeof(where), "n%d.example:443", i);
        stand(0, where, NULL);
    }
    ask(TUNNEL_BY_DESTINATION, NULL, 1);
    assert_non_null(strstr(str_c(&told), "[{\"name\":\"(others)\",\"open\":50,"));
}

static void test_kinds(void **state)
{
    struct passage *p;

    (void)state;
    p = open_one(0, "intercept", "a.example:443", NULL);
    passage_started(p); /* what it carries are passages of their own */
    p = open_one(0, "relay", "b.example:443", NULL);
    passage_upgraded(p);
    assert_true(metric_look("tunnels_by_kind", "websocket") == 1);
    assert_true(metric_total("tunnels") == 1);
    ask(TUNNEL_EACH, NULL, 10);
    assert_non_null(strstr(str_c(&told), "{\"open\":1,\"matched\":1,"));
    assert_non_null(strstr(str_c(&told), "\"kind\":\"websocket\""));
}

static void test_by(void **state)
{
    enum tunnel_by by;

    (void)state;
    assert_int_equal(tunnel_by_parse(NULL, &by), 0);
    assert_int_equal(by, TUNNEL_EACH);
    assert_int_equal(tunnel_by_parse("rule", &by), 0);
    assert_int_equal(by, TUNNEL_BY_RULE);
    assert_int_equal(tunnel_by_parse("", &by), -1);
    assert_int_equal(tunnel_by_parse("port", &by), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_all_of_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_is_brought_up_to_date, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_newest_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_search, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_groups_of_several_workers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_many_groups, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kinds, set_up, tear_down),
        cmocka_unit_test(test_by),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
