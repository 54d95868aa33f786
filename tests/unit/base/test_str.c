#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/xmem.h"

static void test_build(void **state)
{
    struct str s = STR_INIT;

    (void)state;
    assert_string_equal(str_c(&s), "");
    str_adds(&s, "a");
    str_addc(&s, 'b');
    str_add(&s, "c\0d", 3);
    str_addf(&s, "%d-%s", 42, "x");
    str_addv(&s, VIEW_LIT("!"));
    str_addv(&s, VIEW_NONE);
    assert_int_equal(s.n, 10);
    assert_memory_equal(s.p, "abc\0d42-x!", 11);
    assert_true(view_eq(str_view(&s), view_of("abc\0d42-x!", 10)));
    str_clear(&s);
    assert_string_equal(str_c(&s), "");
    str_fini(&s);
    str_clear(&s);
    assert_null(s.p);
}

static void test_grows(void **state)
{
    struct str s = STR_INIT;
    int i;

    (void)state;
    for (i = 0; i < 10000; i++)
        str_addf(&s, "%04d", i);
    assert_int_equal(s.n, 40000);
    assert_memory_equal(s.p + 4 * 1234, "12341235", 8);
    assert_int_equal(s.p[s.n], 0);
    str_fini(&s);
}

static void test_take(void **state)
{
    struct str s = STR_INIT;
    char *p;

    (void)state;
    p = str_take(&s);
    assert_string_equal(p, "");
    xfree(p);
    str_adds(&s, "text");
    p = str_take(&s);
    assert_string_equal(p, "text");
    assert_null(s.p);
    assert_int_equal(s.n, 0);
    xfree(p);
}

static void test_json(void **state)
{
    static const struct {
        struct view in;
        const char *want;
    } rows[] = {
        {VIEW_LIT(""), ""},
        {VIEW_LIT("plain"), "plain"},
        {VIEW_LIT("\"\\/"), "\\\"\\\\/"},
        {VIEW_LIT("\n\r\t"), "\\n\\r\\t"},
        {VIEW_LIT("\0\x1f\x7f"), "\\u0000\\u001f\\u007f"},
        {VIEW_LIT("\xc3\xa9\xf0\x9f\x98\x80"), "\xc3\xa9\xf0\x9f\x98\x80"},
        {VIEW_LIT("a\xff\xc3"), "a\xef\xbf\xbd\xef\xbf\xbd"},
        {VIEW_LIT("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    struct str s = STR_INIT;
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        str_clear(&s);
        str_add_json(&s, rows[i].in);
        assert_string_equal(str_c(&s), rows[i].want);
    }
    str_fini(&s);
}

static void test_view(void **state)
{
    (void)state;
    assert_true(view_is(VIEW_LIT("ab"), "ab"));
    assert_false(view_is(VIEW_LIT("ab"), "abc"));
    assert_true(view_eq(VIEW_NONE, VIEW_LIT("")));
    assert_true(view_ieq(VIEW_LIT("Content-Type"), VIEW_LIT("content-tYPE")));
    assert_false(view_ieq(VIEW_LIT("a"), VIEW_LIT("ab")));
    assert_true(view_starts(VIEW_LIT("abc"), VIEW_LIT("ab")));
    assert_true(view_starts(VIEW_LIT("abc"), VIEW_NONE));
    assert_false(view_starts(VIEW_LIT("a"), VIEW_LIT("ab")));
    assert_true(view_ends(VIEW_LIT("abc"), VIEW_LIT("bc")));
    assert_false(view_ends(VIEW_LIT("c"), VIEW_LIT("bc")));
    assert_true(view_is(view_from(VIEW_LIT("abc"), 1), "bc"));
    assert_int_equal(view_from(VIEW_LIT("abc"), 3).n, 0);
    assert_int_equal(view_str(NULL).n, 0);
}

static void test_found(void **state)
{
    (void)state;
    assert_true(str_found("Runner-7.example", "ner-7.EX"));
    assert_false(str_found("Runner-7.example", "ner-8"));
    assert_true(str_found("a", ""));
    assert_true(str_found("a", NULL));
    assert_true(str_found(NULL, ""));
    assert_true(str_found(NULL, NULL));
    assert_false(str_found(NULL, "a"));
    assert_false(str_found("", "a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_build), cmocka_unit_test(test_grows), cmocka_unit_test(test_take),
        cmocka_unit_test(test_json),  cmocka_unit_test(test_view),  cmocka_unit_test(test_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
