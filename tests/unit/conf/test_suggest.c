#include "conf/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/attrs.h"

static void test_distance(void **state)
{
    static const struct {
        const char *a, *b;
        size_t want;
    } rows[] = {
        {"", "", 0},         {"", "abc", 3},        {"abc", "", 3},     {"limit", "limit", 0},
        {"limt", "limit", 1}, {"limitt", "limit", 1}, {"limut", "limit", 1}, {"limti", "limit", 1},
        {"ca", "abc", 3},    {"kitten", "sitting", 3},
    };
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(conf_distance(rows[i].a, rows[i].b), rows[i].want);
        assert_int_equal(conf_distance(rows[i].b, rows[i].a), rows[i].want);
    }
}

static void test_long_names(void **state)
{
    char a[200], b[200];

    (void)state;
    memset(a, 'a', sizeof(a) - 1);
    memset(b, 'b', sizeof(b) - 1);
    a[sizeof(a) - 1] = b[sizeof(b) - 1] = '\0';
    assert_int_equal(conf_distance(a, b), 48);
}

static void test_guess(void **state)
{
    struct conf_guess g = {.wrong = "adress"};

    (void)state;
    conf_guess_offer(&g, VIEW_LIT("mode"));
    assert_string_equal(g.best, "");
    conf_guess_offer(&g, VIEW_LIT("addrezz"));
    assert_string_equal(g.best, ""); /* too far */
    conf_guess_offer(&g, VIEW_LIT("dress"));
    assert_string_equal(g.best, "dress");
    conf_guess_offer(&g, VIEW_LIT("address"));
    assert_string_equal(g.best, "dress"); /* as near: the first stays */
    conf_guess_offer(&g, VIEW_LIT("adress"));
    assert_string_equal(g.best, "adress");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_guess),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
