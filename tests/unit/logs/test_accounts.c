#include "logs/accounts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static enum overload_reason why;

static unsigned add(struct account *a, unsigned n)
{
    unsigned i = 0;

    while (i < n && account_add_stream(a, false, &why))
        i++;
    return i;
}

static void drop(struct account *a, unsigned n)
{
    while (n--)
        account_drop_stream(a);
}

static void one_alone_may_have_all_streams(void **state)
{
    struct accounts *as = accounts_new(100, 50);
    struct account *a = account_get(as, VIEW_LIT("one"));

    assert_ptr_equal(account_get(as, VIEW_LIT("one")), a);
    assert_int_equal(add(a, 200), 100);
    assert_int_equal(why, OVERLOAD_STREAMS);
    assert_true(accounts_crowded(as));
    assert_true(account_add_stream(a, true, &why)); /* an upload */
    drop(a, 101);
    assert_int_equal(accounts_streams(as), 0);
    assert_false(accounts_crowded(as));
    account_put(&(struct account *){a});
    account_put(&a);
    accounts_free(&as);
}

static void of_two_each_has_a_share(void **state)
{
    struct accounts *as = accounts_new(100, 50);
    struct account *a = account_get(as, VIEW_LIT("one")), *b = account_get(as, VIEW_LIT("two"));

    assert_int_equal(add(b, 1), 1);
    assert_int_equal(add(a, 200), 89);
    assert_int_equal(why, OVERLOAD_STREAMS_SHARE);
    assert_int_equal(add(b, 200), 10);
    assert_int_equal(why, OVERLOAD_STREAMS);
    drop(a, 89);
    drop(b, 11);
    account_put(&a);
    account_put(&b);
    accounts_free(&as);
}

static void an_upload_is_let_go_an_eighth_further(void **state)
{
    struct accounts *as = accounts_new(16, 50);
    struct account *a = account_get(as, VIEW_LIT("one"));

    assert_int_equal(add(a, 20), 16);
    assert_true(account_add_stream(a, true, &why));
    assert_true(account_add_stream(a, true, &why));
    assert_false(account_add_stream(a, true, &why));
    assert_int_equal(why, OVERLOAD_STREAMS);
    drop(a, 18);
    account_put(&a);
    accounts_free(&as);
}

static void of_the_spool_what_waits_counts(void **state)
{
    struct accounts *as = accounts_new(100, 50);
    struct account *a = account_get(as, VIEW_LIT("one")), *b = account_get(as, VIEW_LIT("two"));

    assert_int_equal(add(a, 1), 1);
    account_shift_waiting(a, 1000);
    assert_false(account_spool_share_used(a)); /* nobody else is there */
    assert_int_equal(add(b, 1), 1);
    assert_true(account_spool_share_used(a));
    assert_false(account_spool_share_used(b));
    account_shift_waiting(b, 1500);
    assert_false(account_spool_share_used(a));
    assert_true(account_spool_share_used(b));
    account_shift_waiting(a, -1000);
    account_shift_waiting(b, -1500);
    assert_false(account_spool_share_used(b));
    drop(a, 1);
    drop(b, 1);
    account_put(&a);
    account_put(&b);
    accounts_free(&as);
}

static void of_memory_too(void **state)
{
    struct accounts *as = accounts_new(100, 50);
    struct account *a = account_get(as, VIEW_LIT("one")), *b = account_get(as, VIEW_LIT("two"));

    assert_int_equal(add(a, 1) + add(b, 1), 2);
    account_shift_intake(a, 900);
    assert_false(account_may_take_in(a, 1000));
    assert_true(account_may_take_in(b, 1000));
    account_shift_intake(b, 100);
    assert_false(account_may_take_in(b, 1000));
    assert_int_equal(accounts_intake(as), 1000);
    account_shift_intake(a, -900);
    account_shift_intake(b, -100);
    assert_int_equal(accounts_intake(as), 0);
    drop(a, 1);
    drop(b, 1);
    account_put(&a);
    account_put(&b);
    accounts_free(&as);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_alone_may_have_all_streams),
        cmocka_unit_test(of_two_each_has_a_share),
        cmocka_unit_test(an_upload_is_let_go_an_eighth_further),
        cmocka_unit_test(of_the_spool_what_waits_counts),
        cmocka_unit_test(of_memory_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
