/* Signed links: what answers hold, and what stores say. */
#include "logs/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include "crypto/digest.h"

static void assert_link(const char *body, const char *expected)
{
    struct str s = STR_INIT;

    assert_int_equal(link_of_answer(view_str(body), &s), expected ? 0 : -1);
    assert_string_equal(str_c(&s), expected ? expected : "");
    str_fini(&s);
}

static void test_link_of_answer(void **state)
{
    assert_link("{\n  \"link\": \"https://s.example/b/o%2Fk?X=1\\u0026Y=a%2Fb\",\n"
                "  \"expires\": 3600000000000\n}\n",
                "https://s.example/b/o%2Fk?X=1&Y=a%2Fb");
    assert_link("{\"expires\":1,\"link\":\"http:\\/\\/127.0.0.1:9\\/x\"}", "http://127.0.0.1:9/x");
}

static void test_no_link(void **state)
{
    assert_link("", NULL);
    assert_link("{", NULL);
    assert_link("[]", NULL);
    assert_link("\"https://s.example/\"", NULL);
    assert_link("{\"link\": 5}", NULL);
    assert_link("{\"link\": \"\"}", NULL);
    assert_link("{\"link\": \"/relative\"}", NULL);
    assert_link("{\"link\": \"https://s.example/a b\"}", NULL);
    assert_link("{\"link\": \"https://s.example/a\\r\\nX: y\"}", NULL);
    assert_link("{\"link\": \"https://s.example/\\u0000\"}", NULL);
    assert_link("{\"link\": \"https://s.example/\xc3\xa9\"}", NULL);
    assert_link("{\"link\": \"https://u:p@s.example/\"}", NULL);
    assert_link("{\"link\": \"https://s.example/\"} trailing", NULL);
}

static void test_long_link(void **state)
{
    struct str body = STR_INIT, link = STR_INIT;
    size_t i;

    str_adds(&body, "{\"link\": \"https://s.example/");
    for (i = 0; i < LINK_MAX; i++)
        str_addc(&body, 'a');
    str_adds(&body, "\"}");
    assert_int_equal(link_of_answer(str_view(&body), &link), -1);
    str_fini(&body);
    str_fini(&link);
}

static void test_same_place(void **state)
{
    const struct view base = VIEW_LIT("https://a.example");

    assert_true(link_same_place(VIEW_LIT("https://A.example:443/x"), base));
    assert_true(link_same_place(base, VIEW_LIT("https://a.example/y?z")));
    assert_false(link_same_place(VIEW_LIT("http://a.example/x"), base));
    assert_false(link_same_place(VIEW_LIT("https://a.example:8443/"), base));
    assert_false(link_same_place(VIEW_LIT("https://b.example/"), base));
}

static void test_refused_links(void **state)
{
    assert_true(link_is_refused(401, VIEW_NONE));
    assert_true(link_is_refused(403, VIEW_NONE));
    assert_true(link_is_refused(400, VIEW_LIT("<Error><Code>ExpiredToken</Code></Error>")));
    assert_false(link_is_refused(400, VIEW_LIT("<Error><Code>BadDigest</Code></Error>")));
    assert_false(link_is_refused(400, VIEW_LIT("expire")));
    assert_false(link_is_refused(404, VIEW_LIT("expired")));
    assert_false(link_is_refused(200, VIEW_NONE));
}

static void test_hashes(void **state)
{
    const struct view body = VIEW_LIT("123456789"); /* crc32c e3069283, RFC 3720's check value */
    uint32_t crc = crc32c(0, body.p, body.n);

    assert_true(goog_hash_agrees(VIEW_NONE, crc, body));
    assert_true(goog_hash_agrees(VIEW_LIT("crc32c=4waSgw=="), crc, VIEW_NONE));
    assert_true(goog_hash_agrees(VIEW_LIT("md5=nonsense, crc32c=4waSgw=="), crc, body));
    assert_false(goog_hash_agrees(VIEW_LIT("crc32c=4waSgg=="), crc, body));
    assert_true(goog_hash_agrees(VIEW_LIT("md5=JfnnlDI7RTiF9RgfGwR6mw=="), crc, VIEW_NONE));
    assert_true(goog_hash_agrees(VIEW_LIT("MD5=JfnnlDI7RTiF9RgfG2JNCw=="), crc, body));
    assert_false(goog_hash_agrees(VIEW_LIT("md5=JfnnlDI7RTiF9RgfG2JNCg=="), crc, body));
    assert_true(goog_hash_agrees(VIEW_LIT("sha=abc,,=,crc32c="), crc, body));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link_of_answer), cmocka_unit_test(test_no_link),
        cmocka_unit_test(test_long_link),      cmocka_unit_test(test_same_place),
        cmocka_unit_test(test_refused_links),  cmocka_unit_test(test_hashes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
