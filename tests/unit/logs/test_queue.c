/* A queue whose middle is not in memory. */
#include "logs/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include "base/bug.h"
#include "base/xmem.h"

static struct queue q, other;

static int set_up(void **state)
{
    (void)state;
    queue_init(&q);
    queue_init(&other);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    queue_fini(&q);
    queue_fini(&other);
    return 0;
}

static void add(struct queue *to, int64_t id)
{
    struct record *r = record_new(RECORD_LINES);

    r->row.id = id;
    r->row.number = (uint64_t)id;
    r->row.at_ns = id;
    r->row.lines = 1;
    r->size = 10;
    r->state = RECORD_WAITING;
    queue_append(to, r);
}

static struct record *at(const struct list *head, unsigned n)
{
    const struct list *it = head->next;

    while (n--)
        it = it->next;
    return list_entry(it, struct record, link);
}

static void page_out(struct record *first, uint32_t n)
{
    struct list out, *it, *tmp;

    list_init(&out);
    queue_page_out(&q, first, n, &out);
    list_each (it, tmp, &out)
        record_free(list_entry(it, struct record, link));
}

static void test_ids_come_back_in_their_order(void **state)
{
    static const int64_t sets[][5] = {{1, 2, 3, 4, 5},
                                      {INT64_MAX, 1, INT64_MAX - 1, 2, 3},
                                      {1000, 998, 1003, 1001, 999},
                                      {1, 100, 10000, 1000000, 10000000000},
                                      {5, 4, 3, 2, 1}};
    int64_t got[5];
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(sets); i++) {
        struct page *p = page_of_ids(sets[i], 5);

        page_ids(p, got);
        assert_memory_equal(got, sets[i], sizeof(got));
        page_free(p);
    }
}

static void test_the_middle_leaves_memory(void **state)
{
    struct page *p;
    int64_t ids[3];
    int i;

    (void)state;
    for (i = 1; i <= 10; i++)
        add(&q, i * 7);
    page_out(at(&q.front, 2), 3);
    assert_int_equal(q.n_front, 2);
    assert_int_equal(q.n_paged, 3);
    assert_int_equal(q.n_tail, 5);
    assert_int_equal(queue_count(&q), 10);
    assert_int_equal(queue_lines(&q), 10);
    p = list_first(&q.pages, struct page, link);
    page_ids(p, ids);
    assert_int_equal(ids[0], 21);
    assert_int_equal(ids[2], 35);
    assert_int_equal(p->low, 21);
    assert_int_equal(p->high, 35);
    assert_int_equal(p->low_id, 21);
    assert_int_equal(p->oldest_ns, 21);
    assert_int_equal(p->bytes, 30);
    assert_ptr_equal(queue_end(&q), &q.tail);
    add(&q, 77);
    assert_int_equal(q.n_tail, 6);
}

static void test_what_is_oldest_wherever_it_is(void **state)
{
    int i;

    (void)state;
    assert_int_equal(queue_oldest_ns(&q), 0);
    for (i = 1; i <= 6; i++)
        add(&q, i);
    page_out(at(&q.front, 1), 3);
    assert_int_equal(queue_oldest_ns(&q), 1);
    assert_true(queue_older(&q, 2));
    assert_false(queue_older(&q, 1));
    record_free(at(&q.front, 0)); /* as a release does, after it was taken out */
    list_init(&q.front);
    q.n_front = 0;
    assert_int_equal(queue_oldest_ns(&q), 2);
    assert_true(queue_older(&q, 3));
    assert_false(queue_older(&q, 2));
    page_free(list_first(&q.pages, struct page, link));
    q.n_paged = 0;
    assert_int_equal(queue_oldest_ns(&q), 5);
}

static void test_the_tail_ends_with_the_last_page(void **state)
{
    struct record *last;
    struct page *p;
    int i;

    (void)state;
    for (i = 1; i <= 8; i++)
        add(&q, i);
    page_out(at(&q.front, 1), 2);
    page_out(at(&q.tail, 0), 2);
    p = list_first(&q.pages, struct page, link);
    queue_drop_page(&q, p);
    page_free(p);
    assert_int_equal(q.n_tail, 3);
    p = list_first(&q.pages, struct page, link);
    queue_drop_page(&q, p);
    page_free(p);
    assert_int_equal(q.n_tail, 0);
    assert_int_equal(q.n_front, 4);
    assert_int_equal(at(&q.front, 1)->row.id, 6);
    last = at(&q.front, 3);
    queue_remove(&q, last);
    record_free(last);
    assert_int_equal(q.n_front, 3);
}

static void test_the_first_part_moves_to_another(void **state)
{
    int i;

    (void)state;
    for (i = 1; i <= 9; i++)
        add(&q, i);
    page_out(at(&q.front, 2), 2);
    page_out(at(&q.tail, 0), 2);
    queue_move(&other, &q, 4);
    assert_int_equal(queue_count(&other), 4);
    assert_int_equal(other.n_front, 2);
    assert_int_equal(other.n_paged, 2);
    assert_int_equal(q.n_front, 0);
    assert_int_equal(q.n_paged, 2);
    assert_int_equal(q.n_tail, 3);
    queue_move(&other, &q, SIZE_MAX);
    assert_true(queue_empty(&q));
    assert_int_equal(queue_count(&other), 9);
    assert_int_equal(other.n_tail, 3);
    assert_int_equal(at(&other.tail, 2)->row.id, 9);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_ids_come_back_in_their_order),    T(test_the_middle_leaves_memory),
        T(test_what_is_oldest_wherever_it_is),   T(test_the_tail_ends_with_the_last_page),
        T(test_the_first_part_moves_to_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
