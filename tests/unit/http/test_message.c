/* Fields of messages, and the queues of timeouts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/attrs.h"
#include "base/bug.h"
#include "http/message.h"
#include "http/waits.h"
#include "rt/clock.h"

static const struct h1_field fields[] = {
    {VIEW_LIT("Connection"), VIEW_LIT("close, X-Mine ,,\tx-other")},
    {VIEW_LIT("X-Mine"), VIEW_LIT("1")},
    {VIEW_LIT("x-mine"), VIEW_LIT("2")},
    {VIEW_LIT("X-Empty"), VIEW_LIT("")},
    {VIEW_LIT("CONNECTION"), VIEW_LIT("x-third")},
    {VIEW_LIT("Upgrade"), VIEW_LIT("websocket")},
};

static void fields_are_found(void **state)
{
    size_t n = ARRAY_LEN(fields);

    assert_true(view_is(http_field(fields, n, "x-MINE"), "1"));
    assert_non_null(http_field(fields, n, "x-empty").p);
    assert_null(http_field(fields, n, "x-min").p);
    assert_null(http_field(NULL, 0, "x").p);
}

static void tokens_are_found(void **state)
{
    static const struct {
        const char *name, *token;
        bool found;
    } rows[] = {
        {"connection", "close", true},    {"connection", "CLOSE", true},
        {"connection", "x-mine", true},   {"connection", "x-other", true},
        {"connection", "x-third", true},  {"connection", "x-", false},
        {"connection", "", false},        {"upgrade", "websocket", true},
        {"x-empty", "websocket", false},  {"nothing", "close", false},
        {"connection", "clos", false},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (http_field_has_token(fields, ARRAY_LEN(fields), rows[i].name, rows[i].token) !=
            rows[i].found)
            fail_msg("row %zu", i);
    }
}

static void hop_fields_are_known(void **state)
{
    static const struct {
        const char *name;
        bool hop;
    } rows[] = {
        {"Connection", true}, {"keep-alive", true},         {"TE", true},
        {"UPGRADE", true},    {"Transfer-Encoding", true},  {"Proxy-Authorization", true},
        {"proxy-x", true},    {"HTTP2-Settings", true},     {"X-Mine", true},
        {"x-OTHER", true},    {"x-third", true},            {"close", true},
        {"Trailer", false},   {"Content-Length", false},    {"X-Empty", false},
        {"proxy", false},     {"Authorization", false},     {"", false},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (http_is_hop_field(fields, ARRAY_LEN(fields), view_str(rows[i].name)) != rows[i].hop)
            fail_msg("%s", rows[i].name);
    }
}

/* --- timeouts --- */

static struct http_waits ws;
static struct http_wait waits[4];
static struct ev_loop *loop;
static int order[8], n_order;
static int64_t at[8];

static void due(void *ctx, struct http_wait *w)
{
    int i = (int)(w - waits);

    assert_ptr_equal(ctx, &ws);
    assert_false(http_wait_is_on(w));
    at[n_order] = clock_mono_ns();
    order[n_order++] = i;
    if (i == 1)
        http_wait_off(&waits[2]); /* another one, from within */
    if (i == 3)
        ev_loop_stop(loop);
}

static void waits_fall_due_in_order(void **state)
{
    int64_t begin;

    loop = ev_loop_new("waits");
    http_waits_init(&ws, loop, &ws);
    http_waits_kind(&ws, 0, 40, due);
    http_waits_kind(&ws, 3, 20, due);
    for (int i = 0; i < 4; i++)
        http_wait_init(&waits[i]);
    begin = clock_mono_ns();
    http_wait_put(&ws, 0, &waits[2]);
    http_wait_put(&ws, 0, &waits[0]);
    http_wait_put(&ws, 0, &waits[3]);
    http_wait_put(&ws, 3, &waits[1]); /* shorter, though put later */
    http_wait_put(&ws, 0, &waits[2]); /* again: behind the others */
    http_wait_put(&ws, 0, &waits[3]);
    ev_loop_run(loop);
    assert_int_equal(n_order, 3);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 0);
    assert_int_equal(order[2], 3);
    assert_true(at[0] - begin >= 19 * NS_PER_MS);
    assert_true(at[1] - begin >= 39 * NS_PER_MS);
    http_waits_fini(&ws);
    ev_loop_free(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_found),
        cmocka_unit_test(tokens_are_found),
        cmocka_unit_test(hop_fields_are_known),
        cmocka_unit_test(waits_fall_due_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
