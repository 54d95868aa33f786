/* Notes on dead letters, and what an answer is taken to mean. Replays are tested whole, in
 * tests/integration/test_dead.py. */
#include "logs/dead.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static void assert_text(struct view v, const char *want)
{
    if (!view_is(v, want))
        fail_msg("\"%.*s\" is not \"%s\"", (int)v.n, v.p, want);
}

static void test_note(void **state)
{
    const struct dead_note in = {
        .status = 400,
        .said = VIEW_LIT("said"),
        .prefix = VIEW_LIT("/gateway/log-service"),
        .query = VIEW_LIT("accountID=a&key=k"),
        .proven = true,
        .replays = 3,
        .replayed_ns = INT64_C(1700000000000000001),
        .replay_status = 413,
        .replay_said = VIEW_LIT("again"),
    };
    struct dead_note out;
    struct str text = STR_INIT;
    size_t n;

    (void)state;
    dead_note_encode(&in, &text);
    assert_int_equal(dead_note_decode(str_view(&text), &out), 0);
    assert_int_equal(out.status, 400);
    assert_text(out.said, "said");
    assert_text(out.prefix, "/gateway/log-service");
    assert_text(out.query, "accountID=a&key=k");
    assert_true(out.proven);
    assert_int_equal(out.replays, 3);
    assert_true(out.replayed_ns == in.replayed_ns);
    assert_int_equal(out.replay_status, 413);
    assert_text(out.replay_said, "again");
    /* Cut anywhere, or of a later version: nothing of it is believed. */
    for (n = 0; n < text.n; n++) {
        assert_int_equal(dead_note_decode(view_of(text.p, n), &out), -1);
        assert_int_equal(out.status, 0);
        assert_int_equal(out.query.n, 0);
        assert_false(out.proven);
    }
    text.p[0]++;
    assert_int_equal(dead_note_decode(str_view(&text), &out), -1);
    str_fini(&text);
}

static void test_meaning(void **state)
{
    static const struct {
        int status;
        const char *body, *meaning;
    } rows[] = {
        {204, "", ""},
        {400, "", ""},
        {400, "{\"error_msg\":\"no account ID in query params\"}", ""},
        {400, "{\"error_msg\":\"invalid character 'x' looking for beginning of value\"}",
         "the body was not understood"},
        {400, "{\"error_msg\":\"unexpected end of JSON input\"}", "the body was not understood"},
        {400, "{\"error_msg\":\"Invalid token\"}", "the credential was not accepted"},
        {400, "{\"error_msg\":\"Unauthorized\"}", "the credential was not accepted"},
        {401, "{\"error_msg\":\"invalid character\"}", "the credential was not accepted"},
        {413, "whatever", "it is too large"},
        {400, "{\"error_msg\":\"stream: not found\"}", "the stream was not found"},
        {500, "<html>", "it was in trouble itself"},
    };
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++)
        assert_string_equal(dead_meaning(rows[i].status, view_str(rows[i].body)), rows[i].meaning);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_note),
        cmocka_unit_test(test_meaning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
