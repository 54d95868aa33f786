#include "base/hmap.h"

#include "base/bug.h"
#include "base/xmem.h"

enum { HMAP_FIRST = 16 };

void hmap_fini(struct hmap *m)
{
    xfree(m->slots);
    *m = HMAP_INIT;
}

static void hmap_resize(struct hmap *m, size_t n_slots)
{
    struct hnode **slots = xcalloc(n_slots, sizeof(*slots));
    size_t i;

    for (i = 0; i < m->n_slots; i++) {
        struct hnode *n = m->slots[i];

        while (n) {
            struct hnode *next = n->next;
            struct hnode **slot = &slots[n->hash & (n_slots - 1)];

            n->next = *slot;
            *slot = n;
            n = next;
        }
    }
    xfree(m->slots);
    m->slots = slots;
    m->n_slots = n_slots;
}

void hmap_insert(struct hmap *m, struct hnode *n, uint64_t hash)
{
    struct hnode **slot;

    if (m->count >= m->n_slots)
        hmap_resize(m, m->n_slots ? m->n_slots * 2 : HMAP_FIRST);
    slot = &m->slots[hash & (m->n_slots - 1)];
    n->hash = hash;
    n->next = *slot;
    *slot = n;
    m->count++;
}

void hmap_remove(struct hmap *m, struct hnode *n)
{
    struct hnode **at;

    ASSERT(m->n_slots);
    for (at = &m->slots[n->hash & (m->n_slots - 1)]; *at; at = &(*at)->next) {
        if (*at == n) {
            *at = n->next;
            n->next = NULL;
            m->count--;
            return;
        }
    }
    BUG("hmap_remove of a node that is not there");
}

static struct hnode *match(struct hnode *n, uint64_t hash)
{
    while (n && n->hash != hash)
        n = n->next;
    return n;
}

struct hnode *hmap_first(const struct hmap *m, uint64_t hash)
{
    return m->n_slots ? match(m->slots[hash & (m->n_slots - 1)], hash) : NULL;
}

struct hnode *hmap_next(const struct hnode *n, uint64_t hash)
{
    return match(n->next, hash);
}

struct hnode *hmap_walk(const struct hmap *m, size_t *slot, struct hnode *at)
{
    if (at && at->next)
        return at->next;
    while (*slot < m->n_slots) {
        struct hnode *n = m->slots[(*slot)++];

        if (n)
            return n;
    }
    return NULL;
}
