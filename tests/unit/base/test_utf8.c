#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

/* Encode any number up to 0x1fffff in `len` bytes, right or not. */
static void encode(uint32_t c, size_t len, char out[4])
{
    static const unsigned char marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t i;

    for (i = len; i > 1; i--, c >>= 6)
        out[i - 1] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(marks[len] | c);
}

static size_t right_length(uint32_t c)
{
    if (c >= 0xd800 && c <= 0xdfff)
        return 0;
    return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : c < 0x110000 ? 4 : 0;
}

/* Every number in every form: only the shortest form of a character is valid. */
static void test_all(void **state)
{
    static const uint32_t most[] = {0, 0x80, 0x800, 0x10000, 0x200000};
    char text[4];
    uint32_t c;
    size_t len;

    (void)state;
    for (len = 1; len <= 4; len++) {
        for (c = 0; c < most[len]; c++) {
            size_t want = right_length(c) == len ? len : 0;

            encode(c, len, text);
            if (utf8_length(text, len) != want)
                fail_msg("U+%04X in %zu bytes", c, len);
        }
    }
}

static void test_broken(void **state)
{
    static const char *const rows[] = {
        "\x80",     "\xbf",         "\xc3(",         "\xe2\x82(",        "\xe2(\x82",
        "\xf8\x88\x80\x80\x80", "\xff", "\xfe", "\xf0\x9f\x98(", "\xf0(\x98\x80", "\xf5\x80\x80\x80",
    };
    size_t i, n;

    (void)state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(utf8_length(rows[i], strlen(rows[i])), 0);
    for (n = 0; n < 4; n++)
        assert_int_equal(utf8_length("\xf0\x9f\x98\x80", n), 0);
    assert_int_equal(utf8_length("\xf0\x9f\x98\x80", 4), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all), cmocka_unit_test(test_broken)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
