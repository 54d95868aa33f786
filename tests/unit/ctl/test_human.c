#include "ctl/human.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/attrs.h"

struct row {
    double value;
    const char *text;
};

static void check(const struct row *rows, size_t n, struct human (*show)(double))
{
    size_t i;

    for (i = 0; i < n; i++)
        assert_string_equal(show(rows[i].value).text, rows[i].text);
}

static void test_counts(void **state)
{
    static const struct row rows[] = {
        {0, "0"},         {9999, "9999"},   {9999.5, "10.0k"},    {12345, "12.3k"},
        {99949, "99.9k"}, {123456, "123k"}, {999499, "999k"},     {999500, "1.0M"},
        {1.25e6, "1.2M"}, {7e9, "7.0G"},    {9.99e20, "999000P"}, {-1, "-"},
        {NAN, "-"},
    };

    (void)state;
    check(rows, ARRAY_LEN(rows), human_count_of);
}

static void test_bytes(void **state)
{
    static const struct row rows[] = {
        {0, "0 B"},           {1023, "1023 B"},         {1024, "1.0 KiB"}, {10240, "10 KiB"},
        {1 << 20, "1.0 MiB"}, {1023 * 1024, "1.0 MiB"}, {NAN, "-"},
    };

    (void)state;
    check(rows, ARRAY_LEN(rows), human_bytes_of);
}

static void test_seconds(void **state)
{
    static const struct row rows[] = {
        {0, "0s"},
        {0.0004, "0.4ms"},
        {0.25, "250ms"},
        {0.9996, "1.0s"},
        {1.5, "1.5s"},
        {42, "42s"},
        {59.6, "1m00s"},
        {725, "12m05s"},
        {3599.6, "1h00m"},
        {12000, "3h20m"},
        {86399, "1d00h"},
        {187200, "2d04h"},
        {100 * 86400.0, "100d"},
        {1e30, "ages"},
        {-1, "-"},
        {NAN, "-"},
    };

    (void)state;
    check(rows, ARRAY_LEN(rows), human_seconds_of);
}

static void test_exact(void **state)
{
    static const struct {
        json_int_t value;
        const char *text;
    } rows[] = {{0, "0"},
                {999, "999"},
                {1000, "1,000"},
                {12345678, "12,345,678"},
                {-1000, "-1,000"},
                {-100, "-100"},
                {INT64_MAX, "9,223,372,036,854,775,807"}};
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *v = json_integer(rows[i].value);

        assert_string_equal(human_exact(v).text, rows[i].text);
        json_decref(v);
    }
    assert_string_equal(human_exact(NULL).text, "-");
}

static void test_times(void **state)
{
    static const char now[] = "2026-03-04T05:06:07.000Z";
    static const struct {
        const char *time, *text, *age;
    } rows[] = {
        {"2026-03-04T01:02:03.456Z", "01:02:03", "4h04m"},
        {"2026-02-03T01:02:03.456Z", "Feb 3 01:02", "29d04h"},
        {"2025-02-03T01:02:03.456Z", "2025-02-03", "394d"},
        {"2027-02-03T01:02:03.456Z", "2027-02-03", "0s"},
        {"2026-99-99T01:02:03.456Z", "2026-99-99T01:02:03.456Z", "-"},
        {"", "", "-"},
        {"nonsense that is longer than there is room for", "nonsense that is longer than th", "-"}};
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *v = json_string(rows[i].time);

        assert_string_equal(human_time(v, now).text, rows[i].text);
        assert_string_equal(human_age(v, now).text, rows[i].age);
        json_decref(v);
    }
    assert_string_equal(human_time(NULL, now).text, "-");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts), cmocka_unit_test(test_bytes), cmocka_unit_test(test_seconds),
        cmocka_unit_test(test_exact),  cmocka_unit_test(test_times),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
