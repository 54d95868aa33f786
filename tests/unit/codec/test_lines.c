#include "codec/lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/xmem.h"

#define LINE(pos)                                                                                  \
    "{\"level\":\"info\",\"pos\":" #pos ",\"out\":\"+ make\\n\","                                  \
    "\"time\":\"2026-08-21T09:56:10.123456789Z\",\"args\":null}"

/* On a block of its own, so that a sanitizer sees a read beyond it. */
static int scan(struct view text, struct lines_info *info, struct err *e)
{
    char *copy = xmalloc(text.n ? text.n : 1);
    int r;

    memcpy(copy, text.p, text.n);
    r = lines_scan(view_of(copy, text.n), info, e);
    if (r == 0)
        info->inner.p = text.p + (info->inner.p - copy);
    xfree(copy);
    return r;
}

static void test_accepted(void **state)
{
    static const struct {
        const char *in;
        int count;
        int64_t min, max;
        const char *inner;
    } rows[] = {
        {"[]", 0, 0, 0, ""},
        {" \t\r\n[ \n ] trailing", 0, 0, 0, ""},
        {"null", 0, 0, 0, ""},
        {" nullx", 0, 0, 0, ""},
        {"[" LINE(0) "]\n", 1, 0, 0, LINE(0)},
        {"[" LINE(7) "," LINE(3) " , " LINE(5) " ]", 3, 3, 7, LINE(7) "," LINE(3) " , " LINE(5)},
        {"[ null ,null]", 2, 0, 0, "null ,null"},
        {"[{}]", 1, 0, 0, "{}"},
        {"[{ }][garbage", 1, 0, 0, "{ }"},
        {"[{\"pos\":-9223372036854775808},{\"pos\":9223372036854775807}]", 2, INT64_MIN, INT64_MAX,
         NULL},
        {"[{\"pos\":-0}]", 1, 0, 0, NULL},
        {"[{\"pos\":4,\"pos\":9}]", 1, 9, 9, NULL},
        {"[{\"pos\":4,\"POS\":null}]", 1, 4, 4, NULL},
        {"[{\"Pos\":4},{\"poS\":6}]", 2, 4, 6, NULL},
        {"[{\"po\xc5\xbf\":4}]", 1, 4, 4, NULL},
        {"[{\"\\u0070o\\u017F\":4}]", 1, 4, 4, NULL},
        {"[{\"\\u0050OS\" : 4}]", 1, 4, 4, NULL},
        {"[{\"position\":\"x\",\"po\":[],\"p\\u006fsx\":{}}]", 1, 0, 0, NULL},
        {"[{\"level\":null,\"pos\":null,\"out\":null,\"time\":null,\"args\":null}]", 1, 0, 0, NULL},
        {"[{\"args\":{}},{\"args\":{\"a\":\"b\",\"c\":null}}, {\"args\": { \"a\" : \"\\u0000\" } "
         "}]",
         3, 0, 0, NULL},
        {"[{\"x\":[1,-2.5e+3,0.1,1E9,{\"pos\":\"no\"},[[]],{}],\"y\":true,\"z\":false}]", 1, 0, 0,
         NULL},
        {"[{\"out\":\"\xff\xfe\xc0\"}]", 1, 0, 0, NULL},
        {"[{\"\xff\":1}]", 1, 0, 0, NULL},
        {"[{\"out\":\"\\ud800 \\uDFFF\\\"\\\\\\/\\b\\f\\n\\r\\t\x7f\"}]", 1, 0, 0, NULL},
        {"[{\"\":1}]", 1, 0, 0, NULL},
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct lines_info info;
        struct err e = {ERR_NONE, ""};

        if (scan(view_str(rows[i].in), &info, &e) != 0)
            fail_msg("refused %s: %s", rows[i].in, e.text);
        assert_int_equal(info.count, rows[i].count);
        assert_true(info.pos_min == rows[i].min);
        assert_true(info.pos_max == rows[i].max);
        if (rows[i].inner && !view_is(info.inner, rows[i].inner))
            fail_msg("%s: inner is \"%.*s\"", rows[i].in, (int)info.inner.n, info.inner.p);
    }
}

static void test_refused(void **state)
{
    static const char *const rows[] = {
        "",
        " ",
        "{}",
        "\"x\"",
        "1",
        "true",
        "nul",
        "[",
        "[{",
        "[{}",
        "[{}}",
        "[,]",
        "[{},]",
        "[{},,{}]",
        "[{} {}]",
        "[1]",
        "[\"x\"]",
        "[[]]",
        "[true]",
        "[nulL]",
        "\xef\xbb\xbf[]",
        "[{\"pos\"}]",
        "[{\"pos\":}]",
        "[{\"pos\":1,}]",
        "[{pos:1}]",
        "[{'pos':1}]",
        "[{1:1}]",
        "[{\"pos\":\"1\"}]",
        "[{\"pos\":1.0}]",
        "[{\"pos\":1e3}]",
        "[{\"pos\":1E3}]",
        "[{\"pos\":01}]",
        "[{\"pos\":-}]",
        "[{\"pos\":+1}]",
        "[{\"pos\":- 1}]",
        "[{\"pos\":true}]",
        "[{\"pos\":9223372036854775808}]",
        "[{\"pos\":-9223372036854775809}]",
        "[{\"pos\":99999999999999999999999}]",
        "[{\"pos\":[]}]",
        "[{\"pos\":{}}]",
        "[{\"PO\xc5\xbf\":\"1\"}]",
        "[{\"\\u0070os\":\"1\"}]",
        "[{\"out\":1}]",
        "[{\"out\":{}}]",
        "[{\"OUT\":1}]",
        "[{\"out\":\"a\nb\"}]",
        "[{\"out\":\"a\x1f\"}]",
        "[{\"out\":\"\\x\"}]",
        "[{\"out\":\"\\u12g4\"}]",
        "[{\"out\":\"\\u12\"}]",
        "[{\"out\":\"\\\"}]",
        "[{\"out\":\"\\",
        "[{\"out\":\"\\u",
        "[{\"out\":\"\\u00",
        "[{\"level\":[\"info\"]}]",
        "[{\"LeVeL\":0}]",
        "[{\"args\":[]}]",
        "[{\"args\":\"x\"}]",
        "[{\"args\":{\"a\":1}}]",
        "[{\"args\":{\"a\":{}}}]",
        "[{\"args\":{\"a\":\"b\",}}]",
        "[{\"args\":{a:1}}]",
        "[{\"arg\xc5\xbf\":1}]",
        "[{\"x\":01}]",
        "[{\"x\":1.}]",
        "[{\"x\":.5}]",
        "[{\"x\":1e}]",
        "[{\"x\":nan}]",
        "[{\"x\":[1,]}]",
        "[{\"x\":[}]}]",
        "[{\"x\":{\"a\":1]}]",
        "[{\"x\":[1 2]}]",
        "[{\"x\":tru}]",
        "[{\"x\":\"a\tb\"}]",
        "[{\"x\":1 \"y\":2}]",
        "[{}\x00]",
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct lines_info info;
        struct err e = {ERR_NONE, ""};

        if (scan(view_str(rows[i]), &info, &e) == 0)
            fail_msg("accepted %s", rows[i]);
        assert_int_equal(e.code, ERR_INVALID);
        assert_non_null(strstr(e.text, " at byte "));
    }
}

static void test_times(void **state)
{
    static const char *const good[] = {
        "2026-08-21T09:56:10Z",
        "2026-08-21T09:56:10.1Z",
        "2026-08-21T09:56:10.123456789Z",
        "2026-08-21T09:56:10.12345678901234567890Z",
        "2026-08-21T09:56:10+02:00",
        "2026-08-21T09:56:10.5-23:59",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2024-02-29T00:00:00Z",
        "2000-02-29T00:00:00Z",
        "2026-04-30T00:00:00Z",
        /* what Go takes beside */
        "2026-08-21T9:56:10Z",
        "2026-08-21T09:56:10,5Z",
        "2026-08-21T09:56:10+24:60",
    };
    static const char *const bad[] = {
        "",
        "x",
        "2026-08-21",
        "2026-08-21T09:56:10",
        "2026-08-21T09:56:60Z",
        "2026-08-21T09:60:10Z",
        "2026-08-21T24:56:10Z",
        "2026-08-32T09:56:10Z",
        "2026-08-00T09:56:10Z",
        "2026-13-21T09:56:10Z",
        "2026-00-21T09:56:10Z",
        "2026-02-29T09:56:10Z",
        "1900-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-08-21 09:56:10Z",
        "2026-08-21t09:56:10Z",
        "2026-08-21T09:56:10z",
        "2026-08-21T09:56:10.Z",
        "2026-08-21T09:56:10Z ",
        " 2026-08-21T09:56:10Z",
        "2026-08-21T09:56:10+0200",
        "2026-08-21T09:56:10+02",
        "2026-08-21T09:56:10+25:00",
        "2026-08-21T09:56:10+02:61",
        "2026-08-21T09:56:10+2:000",
        "2026-8-21T09:56:10Z",
        "26-08-21T09:56:10Z",
        "02026-08-21T09:56:10Z",
        "-026-08-21T09:56:10Z",
        "2026-08-21T09:56:1Z",
        "2026-08-21T009:56:10Z",
        "2026-08-21T09:56:10.5.5Z",
        "2026-08-21T09:56:10ZZ",
        "202\\u0036-08-21T09:56:10Z",
    };
    struct str s = STR_INIT;
    size_t i;
    int warm;

    /* Cold, and behind a line that left its minute in the scanner. */
    for (warm = 0; warm < 2; warm++) {
        const char *before = warm ? "[{\"time\":\"2026-08-21T09:56:10Z\"}," : "[";
        struct lines_info info;

        for (i = 0; i < ARRAY_LEN(good) + ARRAY_LEN(bad); i++) {
            bool want = i < ARRAY_LEN(good);
            const char *text = want ? good[i] : bad[i - ARRAY_LEN(good)];

            str_clear(&s);
            str_addf(&s, "%s{\"time\":\"%s\",\"pad\":\"ddddddddddddddddddddd\"}]", before, text);
            if (scan(str_view(&s), &info, NULL) != (want ? 0 : -1))
                fail_msg("%s: %s", want ? "refused" : "accepted", str_c(&s));
        }
        str_clear(&s);
        str_addf(&s, "%s{\"time\":20260821}]", before);
        assert_int_equal(scan(str_view(&s), &info, NULL), -1);
    }
    str_fini(&s);
}

/* A time that Go takes but RFC 3339 does not must not make a worse one pass behind it. */
static void test_time_behind_odd_time(void **state)
{
    struct lines_info info;

    assert_int_equal(
        lines_scan(VIEW_LIT("[{\"time\":\"2026-08-21T9:56:10Z\"},"
                            "{\"time\":\"2026-08-21T9:56::10Z\",\"out\":\"padding\"}]"),
                   &info, NULL),
        -1);
}

static void test_depth(void **state)
{
    struct str s = STR_INIT;
    int over, i, kind;

    for (kind = 0; kind < 2; kind++)
        for (over = 0; over < 2; over++) {
            int depth = LINES_MAX_DEPTH - 2 + over;
            struct lines_info info;
            struct err e = {ERR_NONE, ""};

            str_clear(&s);
            str_adds(&s, "[{\"x\":");
            for (i = 0; i < depth; i++)
                str_adds(&s, kind ? "[" : "{\"a\":");
            str_adds(&s, "1");
            for (i = 0; i < depth; i++)
                str_adds(&s, kind ? "]" : "}");
            str_adds(&s, "}]");
            assert_int_equal(scan(str_view(&s), &info, &e), over ? -1 : 0);
            assert_int_equal(e.code, over ? ERR_LIMIT : ERR_NONE);
        }
    str_fini(&s);
}

/* A text cut anywhere is refused, and nothing behind the cut is looked at. */
static void test_every_cut(void **state)
{
    static const struct view whole = VIEW_LIT(
        "[" LINE(1) ",{\"x\":[1.5e3,{\"y\":\"\\u00e9\"},true],\"args\":{\"a\":null}}," LINE(2) "]");
    struct lines_info info;
    size_t n;

    assert_int_equal(scan(whole, &info, NULL), 0);
    for (n = 0; n < whole.n; n++)
        if (scan(view_of(whole.p, n), &info, NULL) == 0)
            fail_msg("accepted when cut at %zu", n);
}

/* A control character is found wherever it is in a string of any length. */
static void test_specials_anywhere(void **state)
{
    char text[128];
    size_t n, at;

    for (n = 1; n < 70; n++)
        for (at = 0; at < n; at++) {
            struct lines_info info;
            int len;

            len = snprintf(text, sizeof(text), "[{\"out\":\"%0*d\"}]", (int)n, 0);
            assert_int_equal(scan(view_of(text, (size_t)len), &info, NULL), 0);
            text[9 + at] = 0x1f;
            assert_int_equal(scan(view_of(text, (size_t)len), &info, NULL), -1);
            text[9 + at] = '"';
            assert_int_equal(scan(view_of(text, (size_t)len), &info, NULL), -1);
            text[9 + at] = (char)0xff;
            assert_int_equal(scan(view_of(text, (size_t)len), &info, NULL), 0);
        }
}

static void test_walk_and_splice(void **state)
{
    static const struct view a = VIEW_LIT("[ null , {\"out\":\"]},{[\\\"\"} ,{\"x\":[{}]}\n]");
    static const char *const want[] = {"null", "{\"out\":\"]},{[\\\"\"}", "{\"x\":[{}]}"};
    struct lines_info ia, ib, both;
    struct view rest, element;
    struct str s = STR_INIT;
    size_t i = 0;

    assert_int_equal(lines_scan(a, &ia, NULL), 0);
    rest = ia.inner;
    while (lines_next(&rest, &element)) {
        assert_true(i < ARRAY_LEN(want));
        assert_true(view_is(element, want[i]));
        i++;
    }
    assert_int_equal(i, ia.count);
    assert_int_equal(lines_scan(VIEW_LIT("[" LINE(8) "]"), &ib, NULL), 0);
    str_addc(&s, '[');
    str_addv(&s, ia.inner);
    str_addc(&s, ',');
    str_addv(&s, ib.inner);
    str_addc(&s, ']');
    assert_int_equal(lines_scan(str_view(&s), &both, NULL), 0);
    assert_int_equal(both.count, ia.count + ib.count);
    assert_true(both.pos_min == 8 && both.pos_max == 8);
    rest = VIEW_NONE;
    assert_int_equal(lines_next(&rest, &element), 0);
    str_fini(&s);
}

/* The text of an error says where, and never what was there: it may be a secret of the build's. */
static void test_numbers_of_any_length(void **state)
{
    static const char *const behind[] = {"", " ", ",\"out\":\"some text that is long enough\""};
    static const char *const bad[] = {".5", "e1", "E1", "x", "-", "\""};
    char text[128];
    int64_t want = 0;
    unsigned n;
    size_t i;

    for (n = 1; n <= 18; n++) {
        want = want * 10 + (n % 9) + 1;
        for (i = 0; i < ARRAY_LEN(behind); i++) {
            struct lines_info info;
            struct err e;

            snprintf(text, sizeof(text), "[{\"pos\":%lld%s}]", (long long)want, behind[i]);
            assert_int_equal(scan(view_str(text), &info, &e), 0);
            assert_true(info.pos_min == want && info.pos_max == want);
            snprintf(text, sizeof(text), "[{\"pos\":-%lld%s}]", (long long)want, behind[i]);
            assert_int_equal(scan(view_str(text), &info, &e), 0);
            assert_true(info.pos_min == -want);
            snprintf(text, sizeof(text), "[{\"pos\":0%lld%s}]", (long long)want, behind[i]);
            assert_int_equal(scan(view_str(text), &info, &e), -1);
        }
        for (i = 0; i < ARRAY_LEN(bad); i++) {
            struct lines_info info;
            struct err e;

            snprintf(text, sizeof(text), "[{\"pos\":%lld%s,\"out\":\"some text\"}]", (long long)want,
                     bad[i]);
            assert_int_equal(scan(view_str(text), &info, &e), -1);
        }
    }
}

static void test_fractions_of_any_length(void **state)
{
    static const char digits[] = "12345678901234567890123456789";
    char text[256];
    int n;

    for (n = 0; n <= 28; n++) {
        struct lines_info info;
        struct err e;

        snprintf(text, sizeof(text),
                 "[{\"time\":\"2026-05-11T12:00:01Z\"},{\"time\":\"2026-05-11T12:00:02%s%.*sZ\",\"out\":\"\"}]",
                 n ? "." : "", n, digits);
        assert_int_equal(scan(view_str(text), &info, &e), 0);
        assert_int_equal(info.count, 2);
        snprintf(text, sizeof(text),
                 "[{\"time\":\"2026-05-11T12:00:01Z\"},{\"time\":\"2026-05-11T12:00:02.%.*sx\",\"out\":\"\"}]",
                 n, digits);
        assert_int_equal(scan(view_str(text), &info, &e), -1);
    }
}

static void test_error_text(void **state)
{
    struct lines_info info;
    struct err e;

    assert_int_equal(lines_scan(VIEW_LIT("[{\"out\":\"s3cret\n\"}]"), &info, &e), -1);
    assert_string_equal(e.text, "control character in a string at byte 15");
    assert_int_equal(lines_scan(VIEW_LIT("[{\"s3cret\" 1}]"), &info, &e), -1);
    assert_string_equal(e.text, "a colon was expected at byte 11");
    assert_int_equal(lines_scan(VIEW_LIT("[{\"pos\":1"), &info, &e), -1);
    assert_string_equal(e.text, "the text ends too early at byte 9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_time_behind_odd_time),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_specials_anywhere),
        cmocka_unit_test(test_walk_and_splice),
        cmocka_unit_test(test_numbers_of_any_length),
        cmocka_unit_test(test_fractions_of_any_length),
        cmocka_unit_test(test_error_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
