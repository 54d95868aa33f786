#include "base/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void test_round_trip(void **state)
{
    struct str out = STR_INIT;
    struct wire w;

    (void)state;
    wire_put_u8(&out, 0xfe);
    wire_put_u32(&out, 0x01020304);
    wire_put_u64(&out, 0x1122334455667788ULL);
    wire_put_view(&out, VIEW_LIT("a\0b"));
    wire_put_view(&out, VIEW_NONE);
    str_adds(&out, "rest");
    assert_memory_equal(out.p, "\xfe\x04\x03\x02\x01\x88\x77\x66\x55\x44\x33\x22\x11\x03\0\0\0a\0b",
                        20);
    w = wire_of(str_view(&out));
    assert_int_equal(wire_u8(&w), 0xfe);
    assert_int_equal(wire_u32(&w), 0x01020304);
    assert_true(wire_u64(&w) == 0x1122334455667788ULL);
    assert_true(view_eq(wire_view(&w), VIEW_LIT("a\0b")));
    assert_int_equal(wire_view(&w).n, 0);
    assert_true(view_is(wire_bytes(&w, 4), "rest"));
    assert_false(w.failed);
    assert_int_equal(w.left.n, 0);
    str_fini(&out);
}

/* Cut anywhere, reading fails, never runs over, and stays failed. */
static void test_cut(void **state)
{
    struct str out = STR_INIT;
    size_t n;

    (void)state;
    wire_put_u8(&out, 1);
    wire_put_u32(&out, 2);
    wire_put_u64(&out, 3);
    wire_put_view(&out, VIEW_LIT("text"));
    for (n = 0; n <= out.n; n++) {
        struct str cut = STR_INIT;
        struct wire w;

        str_add(&cut, out.p, n);
        w = wire_of(str_view(&cut));
        wire_u8(&w);
        wire_u32(&w);
        wire_u64(&w);
        wire_view(&w);
        assert_int_equal(w.failed, n < out.n);
        if (w.failed) {
            assert_int_equal(wire_u8(&w), 0);
            assert_int_equal(wire_bytes(&w, 0).n, 0);
            assert_true(w.failed);
        }
        str_fini(&cut);
    }
    str_fini(&out);
}

/* A length that is a lie. */
static void test_huge_length(void **state)
{
    struct wire w = wire_of(VIEW_LIT("\xff\xff\xff\xff"
                                     "abc"));

    (void)state;
    assert_int_equal(wire_view(&w).n, 0);
    assert_true(w.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_huge_length),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
