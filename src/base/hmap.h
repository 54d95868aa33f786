/*
 * A hash table of objects linked through a member of their own. The caller hashes and compares:
 *
 *     for (n = hmap_first(&map, h); n; n = hmap_next(n, h)) if (same(n, wanted)) ...
 */
#ifndef TR_BASE_HMAP_H
#define TR_BASE_HMAP_H

#include <stddef.h>
#include <stdint.h>
#include "base/attrs.h"

struct hnode {
    struct hnode *next;
    uint64_t hash;
};

struct hmap {
    struct hnode **slots;
    size_t n_slots; /* a power of two, or 0 before the first insert */
    size_t count;
};

#define HMAP_INIT ((struct hmap){NULL, 0, 0})
#define hmap_entry(node, type, member) container_of(node, type, member)

void hmap_fini(struct hmap *m); /* frees the table, not the objects */
void hmap_insert(struct hmap *m, struct hnode *n, uint64_t hash);
void hmap_remove(struct hmap *m, struct hnode *n); /* must be in it */

/* First node with that hash, and the next one; NULL at the end. */
struct hnode *hmap_first(const struct hmap *m, uint64_t hash);
struct hnode *hmap_next(const struct hnode *n, uint64_t hash);

/* Walk all: *slot starts at 0, node at NULL; NULL at the end. Don't change the map meanwhile. */
struct hnode *hmap_walk(const struct hmap *m, size_t *slot, struct hnode *at);

#endif
