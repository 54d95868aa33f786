/*
 * A heap of objects by a key of time, linked through a member of their own: the smallest first, any
 * one removable.
 */
#ifndef TR_BASE_HEAP_H
#define TR_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    int64_t key;
    size_t at; /* index + 1 in the heap; 0: in none. Begin with 0 */
};

struct heap {
    struct heap_node **nodes;
    size_t n, cap;
};

#define HEAP_INIT ((struct heap){NULL, 0, 0})

void heap_fini(struct heap *h); /* frees the table, not the objects */
void heap_insert(struct heap *h, struct heap_node *n, int64_t key); /* in none before */
void heap_remove(struct heap *h, struct heap_node *n);              /* in none: nothing happens */

static inline struct heap_node *heap_first(const struct heap *h)
{
    return h->n ? h->nodes[0] : NULL;
}

static inline bool heap_has(const struct heap_node *n)
{
    return n->at != 0;
}

#endif
