#include "codec/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

static void assert_view(struct view got, const char *want, const char *what)
{
    if (!view_is(got, want))
        fail_msg("%s: got \"%.*s\", wanted \"%s\"", what, (int)got.n, got.p ? got.p : "", want);
}

static void test_split(void **state)
{
    struct view path, query;

    url_split_target(VIEW_LIT("/stream?a=1?b"), &path, &query);
    assert_view(path, "/stream", "path");
    assert_view(query, "a=1?b", "query");
    url_split_target(VIEW_LIT("/x"), &path, &query);
    assert_view(path, "/x", "path");
    assert_null(query.p);
    url_split_target(VIEW_LIT("?"), &path, &query);
    assert_int_equal(path.n, 0);
    assert_int_equal(query.n, 0);
    assert_non_null(query.p);
    url_split_target(VIEW_NONE, &path, &query);
    assert_int_equal(path.n + query.n, 0);
}

static void test_query(void **state)
{
    struct view rest = VIEW_LIT("&accountID=acct0&key=a:b/c;d=e&&flag&=x&"), name, value;

    assert_int_equal(url_query_next(&rest, &name, &value), 1);
    assert_view(name, "accountID", "name");
    assert_view(value, "acct0", "value");
    assert_int_equal(url_query_next(&rest, &name, &value), 1);
    assert_view(name, "key", "name");
    assert_view(value, "a:b/c;d=e", "value"); /* HP §7 item 8: no split at ; */
    assert_int_equal(url_query_next(&rest, &name, &value), 1);
    assert_view(name, "flag", "name");
    assert_view(value, "", "value");
    assert_int_equal(url_query_next(&rest, &name, &value), 1);
    assert_view(name, "", "name");
    assert_view(value, "x", "value");
    assert_int_equal(url_query_next(&rest, &name, &value), 0);
    rest = VIEW_NONE;
    assert_int_equal(url_query_next(&rest, &name, &value), 0);
}

static void test_decode(void **state)
{
    static const struct {
        const char *in;
        bool plus;
        const char *want; /* NULL: refused */
    } rows[] = {
        {"", false, ""},        {"accountId%3Aacct0%2forg", false, "accountId:acct0/org"},
        {"a+b", true, "a b"},   {"a+b", false, "a+b"},
        {"a%2Bb", true, "a+b"}, {"%e2%82%AC", false, "\xe2\x82\xac"},
        {"%", false, NULL},     {"a%2", false, NULL},
        {"%zz", false, NULL},   {"%2", false, NULL},
        {"%-1", false, NULL},
    };
    struct str out = STR_INIT;
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        int r;

        str_clear(&out);
        str_adds(&out, "pre:");
        r = url_decode(view_str(rows[i].in), rows[i].plus, &out);
        assert_int_equal(r, rows[i].want ? 0 : -1);
        assert_memory_equal(out.p, "pre:", 4);
        assert_string_equal(out.p + 4, rows[i].want ? rows[i].want : "");
        assert_int_equal(out.n, strlen(out.p));
    }
    str_fini(&out);
}

static void test_encode_round_trip(void **state)
{
    struct str text = STR_INIT, coded = STR_INIT, back = STR_INIT;
    int i;

    for (i = 0; i < 256; i++)
        str_addc(&text, (char)i);
    url_encode(str_view(&text), &coded);
    assert_int_equal(coded.n, 66 + (256 - 66) * 3);
    assert_int_equal(url_decode(str_view(&coded), true, &back), 0);
    assert_true(view_eq(str_view(&back), str_view(&text)));
    str_clear(&coded);
    url_encode(VIEW_LIT("a b/c~_-.+"), &coded);
    assert_string_equal(str_c(&coded), "a%20b%2Fc~_-.%2B");
    str_fini(&text);
    str_fini(&coded);
    str_fini(&back);
}

#define LABEL63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_authority(void **state)
{
    static const struct {
        const char *in, *host; /* host NULL: refused */
        int port;
    } rows[] = {
        {"app.harness.io", "app.harness.io", 443},
        {"app.harness.io:8443", "app.harness.io", 8443},
        {"127.0.0.1:80", "127.0.0.1", 80},
        {"[::1]:9", "::1", 9},
        {"[fe80::1]", "fe80::1", 443},
        {"under_score.x", "under_score.x", 443},
        {"dot.end.", "dot.end.", 443},
        {"h:65535", "h", 65535},
        {LABEL63 ".x", LABEL63 ".x", 443},
        {LABEL63 "a.x", NULL, 0},
        {LABEL63 "." LABEL63 "." LABEL63 "." LABEL63, NULL, 0},
        {"", NULL, 0},
        {":80", NULL, 0},
        {"h:", NULL, 0},
        {"h:0", NULL, 0},
        {"h:65536", NULL, 0},
        {"h:000080", NULL, 0},
        {"h:+80", NULL, 0},
        {"h:80 ", NULL, 0},
        {"h:8:0", NULL, 0},
        {"user@h", NULL, 0},
        {"a..b", NULL, 0},
        {".a", NULL, 0},
        {".", NULL, 0},
        {"a b", NULL, 0},
        {"a%41", NULL, 0},
        {"a/b", NULL, 0},
        {"\xc3\xa4.de", NULL, 0},
        {"::1", NULL, 0},
        {"[::1", NULL, 0},
        {"[::1]80", NULL, 0},
        {"[::1%25lo]", NULL, 0},
        {"[127.0.0.1]", NULL, 0},
        {"[]", NULL, 0},
        {"[1:2:3:4:5:6:7:8:9]", NULL, 0},
        {"[::ffff:1.2.3.4]:1", "::ffff:1.2.3.4", 1},
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct view host;
        uint16_t port;
        struct err e = {ERR_NONE, ""};
        int r = url_parse_authority(view_str(rows[i].in), 443, &host, &port, &e);

        if (r != (rows[i].host ? 0 : -1))
            fail_msg("\"%s\": %d %s", rows[i].in, r, e.text);
        if (r != 0)
            continue;
        assert_view(host, rows[i].host, rows[i].in);
        assert_int_equal(port, rows[i].port);
    }
}

static void test_parse(void **state)
{
    static const struct {
        const char *in, *host, *authority, *path;
        int https, port, given;
    } rows[] = {
        {"https://h/p?q=%2F", "h", "h", "/p?q=%2F", 1, 443, 0},
        {"HTTP://h:80", "h", "h:80", "/", 0, 80, 1},
        {"http://[::1]:8080/", "::1", "[::1]:8080", "/", 0, 8080, 1},
        {"http://[::1]/", "::1", "[::1]", "/", 0, 80, 0},
    };
    static const char *const bad[] = {
        "",
        "h",
        "ftp://h/",
        "http:/h",
        "http://",
        "http:///x",
        "http://u@h",
        "http://u:p@h/",
        "http://h/#f",
        "http://h#f",
        "http://h?q",
        "http://h/a b",
        "http://h/\x7f",
        "http://h/\xc3\xa4",
        "http://h:x/",
        "http://h/\n",
        "https://[::1/",
    };
    struct url u;
    struct err e;
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(url_parse(view_str(rows[i].in), &u, NULL), 0);
        assert_view(u.host, rows[i].host, rows[i].in);
        assert_view(u.authority, rows[i].authority, rows[i].in);
        assert_view(u.path, rows[i].path, rows[i].in);
        assert_int_equal(u.https, rows[i].https);
        assert_int_equal(u.port, rows[i].port);
        assert_int_equal(u.port_given, rows[i].given);
    }
    assert_int_equal(url_parse(VIEW_LIT("http://u:p@h/"), &u, &e), -1);
    assert_string_equal(e.text, "the URL has a user name");
    for (i = 0; i < ARRAY_LEN(bad); i++)
        if (url_parse(view_str(bad[i]), &u, NULL) == 0)
            fail_msg("accepted: %s", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),     cmocka_unit_test(test_query),
        cmocka_unit_test(test_decode),    cmocka_unit_test(test_encode_round_trip),
        cmocka_unit_test(test_authority), cmocka_unit_test(test_parse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
