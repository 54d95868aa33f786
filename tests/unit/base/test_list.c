#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

struct item {
    char name;
    struct list link;
};

static struct list head, other;
static struct item a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'};

static int setup(void **state)
{
    (void)state;
    list_init(&head);
    list_init(&other);
    list_init(&a.link);
    list_init(&b.link);
    list_init(&c.link);
    return 0;
}

/* The names forwards; the links backwards must say the same. */
static void assert_list(struct list *l, const char *names)
{
    size_t n = 0, len = strlen(names);
    struct list *it, *tmp, *back = l;
    char text[8];

    list_each(it, tmp, l)
        text[n++] = list_entry(it, struct item, link)->name;
    text[n] = '\0';
    assert_string_equal(text, names);
    while (len) {
        back = back->prev;
        assert_int_equal(list_entry(back, struct item, link)->name, names[--len]);
    }
    assert_ptr_equal(back->prev, l);
}

static void test_order(void **state)
{
    (void)state;
    assert_true(list_empty(&head));
    assert_null(list_first(&head, struct item, link));
    assert_null(list_last(&head, struct item, link));
    list_append(&head, &b.link);
    list_append(&head, &c.link);
    list_prepend(&head, &a.link);
    assert_list(&head, "abc");
    assert_ptr_equal(list_first(&head, struct item, link), &a);
    assert_ptr_equal(list_last(&head, struct item, link), &c);
    assert_ptr_equal(list_next(&head, &a, struct item, link), &b);
    assert_null(list_next(&head, &c, struct item, link));
    list_remove(&b.link);
    list_remove(&b.link); /* twice is harmless */
    assert_list(&head, "ac");
    list_insert_before(&c.link, &b.link);
    assert_list(&head, "abc");
}

static void test_remove_while_walking(void **state)
{
    struct list *it, *tmp;

    (void)state;
    list_append(&head, &a.link);
    list_append(&head, &b.link);
    list_append(&head, &c.link);
    list_each(it, tmp, &head) {
        if (it != &b.link)
            list_remove(it);
    }
    assert_list(&head, "b");
}

static void test_move_all(void **state)
{
    (void)state;
    list_move_all(&head, &other);
    assert_true(list_empty(&head));
    list_append(&other, &b.link);
    list_append(&other, &c.link);
    list_append(&head, &a.link);
    list_move_all(&head, &other);
    assert_list(&head, "abc");
    assert_true(list_empty(&other));
    list_move_all(&other, &head);
    assert_list(&other, "abc");
    assert_list(&head, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_order, setup),
        cmocka_unit_test_setup(test_remove_while_walking, setup),
        cmocka_unit_test_setup(test_move_all, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
