/* Which call a request is, of which stream, with which credential. */
#include "logs/target.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void assert_kind(const char *method, const char *target, enum target_kind kind, const char *prefix)
{
    struct view p = VIEW_NONE, ticket = VIEW_NONE;

    assert_int_equal(target_kind(view_str(method), view_str(target), &p, &ticket), kind);
    if (prefix) {
        assert_int_equal(p.n, strlen(prefix));
        assert_memory_equal(p.p, prefix, p.n);
    }
    if (kind == TARGET_TICKET)
        assert_true(view_is(ticket, "abc"));
}

static void test_kinds(void **state)
{
    assert_kind("POST", "/log-service/stream?accountID=a", TARGET_OPEN, "/log-service");
    assert_kind("PUT", "/gateway/log-service/stream", TARGET_LINES, "/gateway/log-service");
    assert_kind("PUT", "/log-service//stream/", TARGET_LINES, "/log-service");
    assert_kind("DELETE", "/log-service/stream?x", TARGET_CLOSE, "/log-service");
    assert_kind("POST", "/log-service/blob", TARGET_BLOB, NULL);
    assert_kind("POST", "/log-service/blob/link/upload", TARGET_LINK, NULL);
    assert_kind("PUT", "/log-service/tickets/abc", TARGET_TICKET, "/log-service");
    assert_kind("GET", "/log-service/stream", TARGET_OTHER, NULL);
    assert_kind("PUT", "/log-service", TARGET_OTHER, NULL);
    assert_kind("PUT", "/log-services/stream", TARGET_OTHER, NULL);
    assert_kind("PUT", "/log-service/stream/x", TARGET_OTHER, NULL);
    assert_kind("PUT", "/x?u=/log-service/stream", TARGET_OTHER, NULL);
    assert_kind("POST", "/log-service/blob/link/download", TARGET_OTHER, NULL);
    assert_kind("PUT", "*", TARGET_OTHER, NULL);
}

static const struct h1_field token = {VIEW_LIT("X-Harness-Token"), VIEW_LIT("tok")};
static const struct h1_field api = {VIEW_LIT("X-API-Key"), VIEW_LIT("pat")};

static int parse(const char *target, const struct h1_field *fields, size_t n, struct target *t, struct err *e)
{
    const struct http_request req = {.target = view_str(target), .fields = fields, .n_fields = n};

    memset(t, 0, sizeof(*t));
    return target_parse(&req, t, e);
}

static void test_names_are_decoded_and_queries_kept(void **state)
{
    struct target t;
    struct err e;

    assert_int_equal(parse("/log-service/stream?accountID=a%2Db&key=x%2Fy+z%3b&foo=1;2", &token, 1, &t, &e), 0);
    assert_string_equal(str_c(&t.account), "a-b");
    assert_string_equal(str_c(&t.key), "x/y z;");
    assert_string_equal(str_c(&t.query), "accountID=a%2Db&key=x%2Fy+z%3b&foo=1%3B2");
    assert_string_equal(str_c(&t.secret), "tok");
    assert_int_equal(t.cred_kind, CRED_TOKEN_HEADER);
    assert_false(t.snapshot || t.covers);
    target_fini(&t);
}

static void test_closes(void **state)
{
    struct target t;
    struct err e;

    assert_int_equal(
        parse("/log-service/stream?accountID=a&key=k&snapshot=true&prefix=true&X-Harness-Token=q", NULL, 0, &t, &e), 0);
    assert_true(t.snapshot && t.covers);
    assert_string_equal(str_c(&t.query), "accountID=a&key=k");
    assert_string_equal(str_c(&t.close_query), "accountID=a&key=k&snapshot=true&prefix=true");
    assert_int_equal(t.cred_kind, CRED_TOKEN_QUERY);
    target_fini(&t);
    assert_int_equal(parse("/log-service/stream?accountID=a&key=k&keys=k1,k2", &token, 1, &t, &e), 0);
    assert_true(t.covers);
    target_fini(&t);
    assert_int_equal(parse("/log-service/stream?accountID=a&key=k&prefix=false", &token, 1, &t, &e), 0);
    assert_false(t.covers);
    target_fini(&t);
}

static void test_one_credential_goes_on(void **state)
{
    const struct h1_field both[] = {token, api};
    struct target t;
    struct err e;

    assert_int_equal(parse("/s?accountID=a&key=k&X-Harness-Token=q", both, 2, &t, &e), 0);
    assert_int_equal(t.cred_kind, CRED_API_KEY);
    assert_string_equal(str_c(&t.secret), "pat");
    target_fini(&t);
    assert_int_equal(parse("/s?accountID=a&key=k&X-Harness-Token=q", &token, 1, &t, &e), 0);
    assert_int_equal(t.cred_kind, CRED_TOKEN_HEADER);
    assert_null(strstr(str_c(&t.query), "Harness"));
    target_fini(&t);
}

/* Refused, and the text does not repeat what the client sent. */
static void assert_refused(const char *target, const char *says)
{
    struct target t;
    struct err e;

    assert_int_equal(parse(target, &token, 1, &t, &e), -1);
    assert_non_null(strstr(e.text, says));
    assert_null(strstr(e.text, "secret"));
    target_fini(&t);
}

static void test_refusals(void **state)
{
    static char query[3 * TARGET_MAX_KEY];
    struct target t;
    struct err e;

    assert_refused("/s?key=secret", "no account ID in query params");
    assert_refused("/s?accountID=&key=secret", "accountID");
    assert_refused("/s?accountID=a", "no key in query params");
    assert_refused("/s?accountID=a&key=", "no key");
    assert_refused("/s?accountID=a&accountID=secret&key=k", "twice");
    assert_refused("/s?accountID=a&key=secret&key=k", "twice");
    assert_refused("/s?accountID=a&key=secret%zz", "percent");
    assert_refused("/s?accountID=a&key=secret%00", "control");
    assert_refused("/s?accountID=a&key=secret%0a", "control");
    assert_refused("/s?accountID=a&key=secret/../b", "\"..\"");
    assert_refused("/s?accountID=..&key=secret", "\"..\"");
    assert_refused("/s?accountID=a%2fb&key=secret", "slash");
    strcpy(query, "/s?accountID=a&key=");
    memset(query + strlen(query), 'k', TARGET_MAX_KEY + 1);
    assert_refused(query, "longer");
    query[strlen(query) - 1] = '\0';
    assert_int_equal(parse(query, &token, 1, &t, &e), 0);
    target_fini(&t);
    assert_int_equal(parse("/s?accountID=a&key=k..d/..e", &token, 1, &t, &e), 0); /* no segment */
    target_fini(&t);
    assert_int_equal(parse("/s?accountID=a&key=k", NULL, 0, &t, &e), -1);
    assert_non_null(strstr(e.text, "no token"));
    target_fini(&t);
}

static void test_a_huge_credential_is_refused(void **state)
{
    static char value[CRED_MAX_SIZE + 1];
    const struct h1_field field = {VIEW_LIT("X-Harness-Token"), view_of(value, sizeof(value))};
    struct target t;
    struct err e;

    memset(value, 's', sizeof(value));
    assert_int_equal(parse("/s?accountID=a&key=k", &field, 1, &t, &e), -1);
    assert_null(strstr(e.text, "sss"));
    target_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_names_are_decoded_and_queries_kept),
        cmocka_unit_test(test_closes),
        cmocka_unit_test(test_one_credential_goes_on),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_a_huge_credential_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
