#include "ctl/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "ctl/table.h"

static const struct look plain = {.utf8 = true}, painted = {.utf8 = true, .colour = true};

static const char *line(const struct page *p, size_t i)
{
    return page_text(p, i);
}

static void test_lines(void **state)
{
    struct page *p = page_new(&plain, 10);

    (void)state;
    page_add(p, PLAIN, "abc");
    page_to(p, 5);
    page_addf(p, RED, "%d", 7);
    page_to(p, 3);
    page_add(p, PLAIN, "");
    page_end(p);
    page_line(p, BOLD, "0123456789a");
    page_line(p, PLAIN, "\x1b[2J");
    assert_int_equal(page_lines(p), 3);
    assert_string_equal(line(p, 0), "abc  7");
    assert_string_equal(line(p, 1), "012345678\xe2\x80\xa6");
    assert_string_equal(line(p, 2), "?[2J");
    assert_string_equal(line(p, 3), "");
    page_free(&p);
    p = page_new(&painted, 0);
    page_line(p, RED, "x");
    assert_string_equal(line(p, 0), "\033[31mx\033[0m");
    page_free(&p);
}

static void test_words(void **state)
{
    struct page *p = page_new(&plain, 12);

    (void)state;
    page_add(p, PLAIN, "ab: ");
    page_words(p, PLAIN, "one two three averyveryverylongword z");
    assert_int_equal(page_lines(p), 5);
    assert_string_equal(line(p, 0), "ab: one two");
    assert_string_equal(line(p, 1), "    three");
    assert_string_equal(line(p, 2), "    averyver");
    assert_string_equal(line(p, 3), "    yverylon");
    assert_string_equal(line(p, 4), "    gword z");
    page_free(&p);
    p = page_new(&plain, 5); /* as wide as what stands before */
    page_add(p, PLAIN, "abcde");
    page_words(p, PLAIN, "\xe6\x97\xa5\xe6\x97\xa5\xe6\x97\xa5");
    assert_int_equal(page_lines(p), 3);
    assert_string_equal(line(p, 1), "\xe6\x97\xa5\xe6\x97\xa5");
    page_free(&p);
}

static void test_beside(void **state)
{
    struct page *left = page_new(&plain, 0), *right = page_new(&plain, 0);
    struct page *wide = page_new(&plain, 20), *narrow = page_new(&plain, 6);

    (void)state;
    page_line(left, PLAIN, "aaaa");
    page_line(left, PLAIN, "b");
    page_line(right, PLAIN, "x");
    page_line(right, PLAIN, "y");
    page_line(right, PLAIN, "z");
    page_beside(wide, left, right, 2);
    assert_int_equal(page_lines(wide), 3);
    assert_string_equal(line(wide, 1), "b     y");
    assert_string_equal(line(wide, 2), "      z");
    page_beside(narrow, left, right, 2);
    assert_int_equal(page_lines(narrow), 5);
    page_free(&left);
    page_free(&right);
    page_free(&wide);
    page_free(&narrow);
}

static struct page *table(size_t width, const char *name, const char *extra)
{
    static const struct column columns[] = {{"NAME", TABLE_CUT},
                                            {"N", TABLE_RIGHT},
                                            {"NEVER", TABLE_FILLED},
                                            {"EXTRA", TABLE_EXTRA},
                                            {"WHY", TABLE_PROSE}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    struct page *p = page_new(&plain, width);

    table_add(t, PLAIN, name);
    table_add_int(t, 1234);
    table_add(t, PLAIN, "-");
    table_add(t, PLAIN, extra);
    table_add(t, PLAIN, "because of it");
    assert_int_equal(table_rows(t), 1);
    table_show(&t, p, 0);
    assert_null(t);
    assert_int_equal(page_lines(p), 2);
    return p;
}

static void test_table(void **state)
{
    struct page *p = table(0, "name", "extra-ordinary");
    size_t width;

    (void)state;
    assert_string_equal(line(p, 0), "NAME     N  EXTRA           WHY");
    assert_string_equal(line(p, 1), "name  1234  extra-ordinary  because of it");
    page_free(&p);
    p = table(40, "a/very/long/name/with/its/end", "extra");
    assert_null(strstr(line(p, 0), "EXTRA"));
    page_free(&p);
    for (width = 1; width < 80; width++) {
        p = table(width, "a/very/long/name/\xe6\x97\xa5\xe6\x9c\xac/its/end", "extra");
        assert_true(text_width(line(p, 0)) <= width);
        assert_true(text_width(line(p, 1)) <= width);
        page_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_beside),
        cmocka_unit_test(test_table),
    };

    text_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
