/* How many requests may be under way to a host: growth, cuts, pauses, Retry-After. */
#include "logs/limiter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/attrs.h"
#include "rt/clock.h"

static struct rng rng;

static int seed(void **state)
{
    rng_seed(&rng, 7);
    return 0;
}

static void one(struct limiter *l, enum limiter_verdict v, int64_t started, int64_t retry_after, int64_t now)
{
    limiter_start(l);
    limiter_end(l, v, started, retry_after, &rng, now);
}

static void fail_until_down(struct limiter *l, int64_t *now)
{
    int i;

    for (i = 0; i < 100 && limiter_state(l, *now) != LIMITER_DOWN; i++) {
        *now += NS_PER_SEC;
        one(l, LIMITER_TROUBLE, *now, 0, *now);
    }
    assert_int_equal(limiter_state(l, *now), LIMITER_DOWN);
}

static void test_full_host_waits_for_an_end(void **state)
{
    struct limiter l;
    unsigned n = 0;

    limiter_init(&l);
    while (limiter_ready(&l, 1) == 0) {
        limiter_start(&l);
        n++;
    }
    assert_in_range(n, 2, 256);
    assert_int_equal(limiter_ready(&l, 1), INT64_MAX);
    limiter_end(&l, LIMITER_GOOD, 0, 0, &rng, 1);
    assert_int_equal(limiter_ready(&l, 1), 0);
}

static void test_grows_to_a_bound(void **state)
{
    struct limiter l;
    int i;

    limiter_init(&l);
    for (i = 0; i < 100000; i++)
        one(&l, LIMITER_GOOD, i, 0, i);
    assert_true(l.limit <= 256.0 && l.limit > 255.0);
    assert_int_equal(limiter_state(&l, i), LIMITER_HEALTHY);
}

static void test_one_cut_for_those_that_fail_together(void **state)
{
    struct limiter l;
    double before;
    int i;

    limiter_init(&l);
    before = l.limit;
    for (i = 0; i < 6; i++)
        limiter_start(&l);
    for (i = 0; i < 6; i++)
        limiter_end(&l, LIMITER_TROUBLE, 10, 0, &rng, 20 + i);
    assert_true(l.limit == before / 2);
    one(&l, LIMITER_TROUBLE, 100, 0, 101); /* began after the cut: a new one */
    assert_true(l.limit == before / 4);
}

static void test_floor_is_a_probe_with_pauses(void **state)
{
    struct limiter l;
    int64_t now = NS_PER_SEC, at, longest = 0;
    int i;

    limiter_init(&l);
    fail_until_down(&l, &now);
    for (i = 0; i < 40; i++) {
        at = limiter_ready(&l, now);
        assert_true(at == 0 || (at > now && at - now <= 5 * NS_PER_SEC));
        longest = TR_MAX(longest, at ? at - now : 0);
        now = TR_MAX(at, now);
        limiter_start(&l);
        assert_int_equal(limiter_ready(&l, now), INT64_MAX); /* a single one */
        limiter_end(&l, LIMITER_TROUBLE, now, 0, &rng, now);
    }
    assert_true(longest >= 2 * NS_PER_SEC);
    one(&l, LIMITER_GOOD, now, 0, now);
    assert_int_equal(limiter_state(&l, now), LIMITER_HEALTHY);
    assert_int_equal(limiter_ready(&l, now), 0);
}

static void test_retry_after_is_obeyed_within_bounds(void **state)
{
    struct limiter l;
    int64_t now = NS_PER_SEC;

    limiter_init(&l);
    one(&l, LIMITER_TROUBLE, now, 60 * NS_PER_SEC, now);
    assert_int_equal(limiter_ready(&l, now), now + 60 * NS_PER_SEC);
    limiter_init(&l);
    one(&l, LIMITER_TROUBLE, now, 86400 * NS_PER_SEC, now);
    assert_int_equal(limiter_ready(&l, now), now + 300 * NS_PER_SEC);
    limiter_init(&l);
    one(&l, LIMITER_GOOD, now, 60 * NS_PER_SEC, now); /* said by an answer that is no trouble */
    assert_int_equal(limiter_ready(&l, now), 0);
}

static void test_leaving_says_nothing(void **state)
{
    struct limiter l;
    double before;

    limiter_init(&l);
    one(&l, LIMITER_TROUBLE, 5, 0, 6);
    before = l.limit;
    limiter_start(&l);
    limiter_leave(&l);
    assert_int_equal(l.in_flight, 0);
    assert_true(l.limit == before);
    assert_int_equal(limiter_state(&l, 6), LIMITER_SLOWED);
}

/* Every third request fails, for a long time: it goes on all the while, and is well soon after. */
static void test_flapping_does_not_wedge(void **state)
{
    struct limiter l;
    int64_t now = NS_PER_SEC, at;
    int i;

    limiter_init(&l);
    for (i = 0; i < 10000; i++) {
        at = limiter_ready(&l, now);
        assert_true(at <= now + 5 * NS_PER_SEC);
        now = TR_MAX(at, now) + NS_PER_MS;
        one(&l, i % 3 ? LIMITER_GOOD : LIMITER_TROUBLE, now - NS_PER_MS, 0, now);
    }
    assert_int_equal(l.in_flight, 0);
    one(&l, LIMITER_GOOD, now, 0, now);
    assert_int_equal(limiter_state(&l, now), LIMITER_HEALTHY);
    assert_int_equal(limiter_ready(&l, now), 0);
    assert_true(l.limit >= 2.0);
}

static void test_old_trouble_is_no_news(void **state)
{
    struct limiter l;
    int64_t now = NS_PER_SEC;

    limiter_init(&l);
    fail_until_down(&l, &now);
    assert_int_equal(limiter_state(&l, now + 59 * NS_PER_SEC), LIMITER_DOWN);
    assert_int_equal(limiter_state(&l, now + 70 * NS_PER_SEC), LIMITER_HEALTHY);
    limiter_start(&l);
    assert_int_equal(limiter_state(&l, now + 70 * NS_PER_SEC), LIMITER_DOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_full_host_waits_for_an_end, seed),
        cmocka_unit_test_setup(test_grows_to_a_bound, seed),
        cmocka_unit_test_setup(test_one_cut_for_those_that_fail_together, seed),
        cmocka_unit_test_setup(test_floor_is_a_probe_with_pauses, seed),
        cmocka_unit_test_setup(test_retry_after_is_obeyed_within_bounds, seed),
        cmocka_unit_test_setup(test_leaving_says_nothing, seed),
        cmocka_unit_test_setup(test_flapping_does_not_wedge, seed),
        cmocka_unit_test_setup(test_old_trouble_is_no_news, seed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
