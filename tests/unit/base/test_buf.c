#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

static void assert_holds(const struct buf *b, const char *text)
{
    assert_int_equal(buf_len(b), strlen(text));
    assert_memory_equal(buf_data(b), text, strlen(text));
}

static void test_queue(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    assert_int_equal(buf_len(&b), 0);
    buf_add(&b, "abc", 3);
    buf_add(&b, "", 0);
    buf_add(&b, "defg", 4);
    assert_holds(&b, "abcdefg");
    buf_consume(&b, 3);
    assert_holds(&b, "defg");
    assert_int_equal(buf_view(&b).n, 4);
    buf_consume(&b, 4);
    assert_int_equal(b.off, 0);
    buf_add(&b, "x", 1);
    assert_holds(&b, "x");
    buf_clear(&b);
    assert_int_equal(buf_len(&b), 0);
    buf_fini(&b);
}

/* Room at the front is used before the block grows. */
static void test_moves_instead_of_growing(void **state)
{
    struct buf b = BUF_INIT;
    char piece[500];
    size_t cap;

    (void)state;
    memset(piece, 'p', sizeof(piece));
    buf_add(&b, piece, sizeof(piece));
    cap = b.cap;
    buf_consume(&b, 490);
    buf_add(&b, piece, 100);
    assert_int_equal(b.cap, cap);
    assert_int_equal(b.off, 0);
    assert_int_equal(buf_len(&b), 110);
    buf_fini(&b);
}

static void test_grows_with_offset(void **state)
{
    struct buf b = BUF_INIT;
    char piece[4000];

    (void)state;
    memset(piece, 'p', sizeof(piece));
    buf_add(&b, "0123456789", 10);
    buf_consume(&b, 4);
    buf_add(&b, piece, sizeof(piece));
    assert_int_equal(buf_len(&b), 4006);
    assert_memory_equal(buf_data(&b), "456789pp", 8);
    buf_fini(&b);
}

static void test_release(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    buf_add(&b, "ab", 2);
    buf_release_if_empty(&b);
    assert_holds(&b, "ab");
    buf_consume(&b, 2);
    buf_release_if_empty(&b);
    assert_null(b.base);
    assert_int_equal(b.cap, 0);
}

/* Against a model that keeps everything: random adds and takes. */
static void test_model(void **state)
{
    static char model[1 << 20];
    size_t from = 0, to = 0;
    struct buf b = BUF_INIT;
    unsigned seed = 7;

    (void)state;
    while (to < sizeof(model) - 2000) {
        size_t n = (size_t)rand_r(&seed) % 2000, take, i;

        for (i = 0; i < n; i++)
            model[to + i] = (char)rand_r(&seed);
        memcpy(buf_reserve(&b, n), model + to, n);
        buf_commit(&b, n);
        to += n;
        take = (size_t)rand_r(&seed) % (to - from + 1);
        assert_int_equal(buf_len(&b), to - from);
        assert_memory_equal(buf_data(&b), model + from, to - from);
        buf_consume(&b, take);
        from += take;
    }
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue),   cmocka_unit_test(test_moves_instead_of_growing),
        cmocka_unit_test(test_release), cmocka_unit_test(test_grows_with_offset),
        cmocka_unit_test(test_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
