#include "ctl/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/utf8.h"

static const char *harmless(const char *text)
{
    static struct str out;

    str_clear(&out);
    text_add_harmless(&out, text, NULL);
    return str_c(&out);
}

static const char *as_log(const char *text)
{
    static struct str out;

    str_clear(&out);
    text_add_log(&out, text);
    return str_c(&out);
}

static const char *cut(const char *text, size_t columns, enum text_cut how)
{
    static struct str out;

    str_clear(&out);
    text_add_cut(&out, text, columns, how, "\xe2\x80\xa6");
    return str_c(&out);
}

static void test_harmless(void **state)
{
    (void)state;
    assert_string_equal(harmless(""), "");
    assert_string_equal(harmless("plain \xe2\x82\xac \xe6\x97\xa5 e\xcc\x81"),
                        "plain \xe2\x82\xac \xe6\x97\xa5 e\xcc\x81");
    assert_string_equal(harmless("\x1b[2J\x07\x7f\r\n\t"), "?[2J?????");
    assert_string_equal(harmless("\xc2\x9b"
                                 "31m\xc2\x9d"),
                        "?31m?"); /* U+009B, U+009D */
    assert_string_equal(harmless("a\xe2\x80\xae"
                                 "b\xe2\x81\xa6"
                                 "c\xd8\x9c"
                                 "d\xe2\x80\x8f"),
                        "a?b?c?d?"); /* directions */
    assert_string_equal(harmless("\xe2\x80\x8b\xe2\x80\xa8\xef\xbb\xbf\xf3\xa0\x81\x81"), "????");
    assert_string_equal(harmless("\xff\xc3\xed\xa0\x80\xc0\xaf"), "???????"); /* no UTF-8 */
}

/* What comes out is valid, and going through it again changes nothing. */
static void test_harmless_of_any_bytes(void **state)
{
    uint32_t seed = 1;
    int round;

    (void)state;
    for (round = 0; round < 2000; round++) {
        char text[24];
        struct str once = STR_INIT, twice = STR_INIT;
        size_t i, n;

        for (i = 0; i + 1 < sizeof(text); i++) {
            seed = seed * 1664525 + 1013904223;
            text[i] = (char)(seed >> 24);
        }
        text[sizeof(text) - 1] = '\0';
        text_add_harmless(&once, text, NULL);
        for (i = 0; i < once.n; i += n) {
            n = utf8_length(once.p + i, once.n - i);
            assert_true(n > 0);
            assert_true((unsigned char)once.p[i] >= ' ');
        }
        text_add_harmless(&twice, str_c(&once), NULL);
        assert_string_equal(str_c(&once), str_c(&twice));
        str_fini(&once);
        str_fini(&twice);
    }
}

static void test_log(void **state)
{
    (void)state;
    assert_string_equal(as_log("\x1b[1;31mred\x1b[0m\tand\nmore\x1b[K"), "red\tand\nmore");
    assert_string_equal(as_log("\x1b[2J\x1b]0;title\x07"), "?[2J?]0;title?");
    assert_string_equal(as_log("\x1b["), "?[");
    assert_string_equal(as_log("\x1b[1;"), "?[1;");
    assert_string_equal(as_log("a\x1b"), "a?");
}

static void test_width(void **state)
{
    size_t used;

    (void)state;
    assert_int_equal(text_width(""), 0);
    assert_int_equal(text_width("abc"), 3);
    assert_int_equal(text_width("\xe6\x97\xa5\xe6\x9c\xac"), 4);
    assert_int_equal(text_width("e\xcc\x81"), 1);
    assert_int_equal(text_fit("\xe6\x97\xa5\xe6\x9c\xac", 3, &used), 3);
    assert_int_equal(used, 2);
    assert_int_equal(text_fit("abc", 9, NULL), 3);
}

static void test_cut(void **state)
{
    (void)state;
    assert_string_equal(cut("abcdef", 6, TEXT_CUT_MIDDLE), "abcdef");
    assert_string_equal(cut("abcdefghij", 7, TEXT_CUT_MIDDLE), "ab\xe2\x80\xa6ghij");
    assert_string_equal(cut("abcdefghij", 7, TEXT_CUT_END), "abcdef\xe2\x80\xa6");
    assert_string_equal(cut("abc", 1, TEXT_CUT_MIDDLE), "\xe2\x80\xa6");
    assert_string_equal(cut("abc", 0, TEXT_CUT_END), "");
}

/* However it is cut, it fits. */
static void test_cut_fits(void **state)
{
    static const char text[] = "a\xe6\x97\xa5"
                               "b\xe6\x9c\xac"
                               "ce\xcc\x81\xe8\xaa\x9e"
                               "d";
    size_t columns;

    (void)state;
    for (columns = 0; columns < 16; columns++) {
        assert_true(text_width(cut(text, columns, TEXT_CUT_MIDDLE)) <= columns);
        assert_true(text_width(cut(text, columns, TEXT_CUT_END)) <= columns);
    }
}

static void test_has(void **state)
{
    (void)state;
    assert_true(text_has("Level6:Step", "level6:s"));
    assert_true(text_has("x", ""));
    assert_false(text_has("x", "xx"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_harmless), cmocka_unit_test(test_harmless_of_any_bytes),
        cmocka_unit_test(test_log),      cmocka_unit_test(test_width),
        cmocka_unit_test(test_cut),      cmocka_unit_test(test_cut_fits),
        cmocka_unit_test(test_has),
    };

    text_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
