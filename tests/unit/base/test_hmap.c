#include "base/hmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/hash.h"

enum { MANY = 5000 };

struct item {
    int value;
    bool seen;
    struct hnode node;
};

static struct item items[MANY];

static struct item *find(const struct hmap *m, uint64_t hash, int value)
{
    struct hnode *n;

    for (n = hmap_first(m, hash); n; n = hmap_next(n, hash)) {
        struct item *it = hmap_entry(n, struct item, node);

        if (it->value == value)
            return it;
    }
    return NULL;
}

static void test_many(void **state)
{
    struct hmap m = HMAP_INIT;
    struct hnode *n = NULL;
    size_t slot = 0, count = 0;
    int i;

    (void)state;
    assert_null(hmap_first(&m, 1));
    assert_null(hmap_walk(&m, &slot, NULL));
    for (i = 0; i < MANY; i++) {
        items[i].value = i;
        hmap_insert(&m, &items[i].node, hash_bytes(&i, sizeof(i)));
    }
    assert_int_equal(m.count, MANY);
    for (i = 0; i < MANY; i += 2)
        hmap_remove(&m, &items[i].node);
    for (i = 0; i < MANY; i++)
        assert_ptr_equal(find(&m, hash_bytes(&i, sizeof(i)), i), i % 2 ? &items[i] : NULL);
    slot = 0;
    while ((n = hmap_walk(&m, &slot, n)) != NULL) {
        struct item *it = hmap_entry(n, struct item, node);

        assert_false(it->seen);
        it->seen = true;
        count++;
    }
    assert_int_equal(count, MANY / 2);
    hmap_fini(&m);
    assert_null(hmap_first(&m, 1));
}

/* All in one slot, some with the same hash: the worst that a peer could do. */
static void test_collisions(void **state)
{
    struct hmap m = HMAP_INIT;
    int i;

    (void)state;
    for (i = 0; i < 100; i++) {
        items[i].value = i;
        hmap_insert(&m, &items[i].node, (uint64_t)(i % 10) << 32);
    }
    for (i = 0; i < 100; i += 3)
        hmap_remove(&m, &items[i].node);
    for (i = 0; i < 100; i++)
        assert_ptr_equal(find(&m, (uint64_t)(i % 10) << 32, i), i % 3 ? &items[i] : NULL);
    assert_null(hmap_first(&m, (uint64_t)11 << 32));
    hmap_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_collisions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
