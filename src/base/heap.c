#include "base/heap.h"

#include "base/bug.h"
#include "base/xmem.h"

void heap_fini(struct heap *h)
{
    xfree(h->nodes);
    *h = HEAP_INIT;
}

static void put(struct heap *h, size_t i, struct heap_node *n)
{
    h->nodes[i] = n;
    n->at = i + 1;
}

static void rise(struct heap *h, size_t i, struct heap_node *n)
{
    while (i > 0 && h->nodes[(i - 1) / 2]->key > n->key) {
        put(h, i, h->nodes[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(h, i, n);
}

static void sink(struct heap *h, size_t i, struct heap_node *n)
{
    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->nodes[child + 1]->key < h->nodes[child]->key)
            child++;
        if (h->nodes[child]->key >= n->key)
            break;
        put(h, i, h->nodes[child]);
        i = child;
    }
    put(h, i, n);
}

void heap_insert(struct heap *h, struct heap_node *n, int64_t key)
{
    ASSERT(!n->at);
    if (h->n == h->cap) {
        h->cap = h->cap ? 2 * h->cap : 16;
        h->nodes = xrealloc(h->nodes, h->cap * sizeof(struct heap_node *));
    }
    n->key = key;
    rise(h, h->n++, n);
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    size_t i = n->at - 1;
    struct heap_node *last;

    if (!n->at)
        return;
    ASSERT(i < h->n && h->nodes[i] == n);
    n->at = 0;
    last = h->nodes[--h->n];
    if (last == n)
        return;
    if (i > 0 && h->nodes[(i - 1) / 2]->key > last->key)
        rise(h, i, last);
    else
        sink(h, i, last);
}
