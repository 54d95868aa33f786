#include "codec/retry_after.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

enum { NOV_6_1994 = 784111777 }; /* "Sun, 06 Nov 1994 08:49:37 GMT", the example of RFC 9110 */

static int after(const char *text, int64_t wall_s)
{
    return retry_after_seconds(view_str(text), wall_s);
}

static void test_seconds(void **state)
{
    assert_int_equal(after("0", 0), 0);
    assert_int_equal(after("1", 0), 1);
    assert_int_equal(after("0120", 0), 120);
    assert_int_equal(after("3600", 0), RETRY_AFTER_MOST_S);
    assert_int_equal(after("99999999999999999999999999", 0), RETRY_AFTER_MOST_S);
}

static void test_dates(void **state)
{
    static const char date[] = "Sun, 06 Nov 1994 08:49:37 GMT";

    assert_int_equal(after(date, NOV_6_1994 - 7), 7);
    assert_int_equal(after(date, NOV_6_1994 - 86400), RETRY_AFTER_MOST_S);
    assert_int_equal(after(date, NOV_6_1994), 0);
    assert_int_equal(after(date, NOV_6_1994 + 86400), 0);
    assert_int_equal(after("Thu, 01 Jan 1970 00:00:09 GMT", 2), 7);
    assert_int_equal(after("Fri, 31 Dec 9999 23:59:59 GMT", NOV_6_1994), RETRY_AFTER_MOST_S);
}

static void test_nonsense(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "-5",
        "+5",
        "1.5",
        "5 ",
        "5s",
        "soon",
        "1e3",
        "0x10",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 06 ovD 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 199x 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT, 5",
    };
    size_t i;

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (after(texts[i], 0))
            fail_msg("\"%s\" is taken for a time", texts[i]);
    }
    assert_int_equal(retry_after_seconds(VIEW_NONE, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seconds),
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
