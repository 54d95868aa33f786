/* The exhaustive search: depth first, each state once, saved and restored as a block of memory. */
#include "explore_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include "arena.h"
#include "base/bug.h"

enum { TABLE_BITS = 23, TABLE_BITS_MORE = 27 };

struct level {
    unsigned char *saved;
    size_t room;
    uint64_t hash;
    struct event events[RUN_EVENTS];
    unsigned n, next;
};

static struct level levels[RUN_DEPTH];
static uint64_t *table;
static size_t in_table;
static unsigned table_bits;

/* True if it was not there before. */
static bool remember(uint64_t h)
{
    size_t mask = ((size_t)1 << table_bits) - 1, at = (size_t)(h >> 20) & mask;

    h |= 1;
    while (table[at]) {
        if (table[at] == h)
            return false;
        at = (at + 1) & mask;
    }
    ASSERT(in_table < mask / 4 * 3);
    table[at] = h;
    in_table++;
    return true;
}

static struct run *begin(const struct scenario *sc)
{
    arena_reset();
    return run_new(sc);
}

static void save(struct level *l)
{
    if (l->room < arena_used()) {
        l->room = 2 * arena_used();
        l->saved = realloc(l->saved, l->room);
        ASSERT(l->saved);
    }
    arena_save(l->saved);
}

/* The world may be anything afterwards; the level has what it was. */
static void enter(struct run *r, unsigned depth, struct explored *out)
{
    struct level *l = &levels[depth];
    bool progress;

    ASSERT(depth + 1 < RUN_DEPTH);
    l->hash = run_hash(r);
    l->next = 0;
    save(l);
    l->n = run_events(r, l->events, &progress);
    out->states++;
    if (progress)
        return;
    out->ends++;
    explore_path.n = depth;
    explore_path.finish = true;
    world_finish(r->w);
    explore_path.finish = false;
}

static void check_progress(const struct run *r, unsigned depth, uint64_t h)
{
    unsigned i;

    for (i = 0; i <= depth; i++)
        RULE(r->w, levels[i].hash != h, "it goes round in circles");
}

void explore(const struct scenario *sc, struct explored *out)
{
    struct run *r = begin(sc);
    int depth = 0;

    *out = (struct explored){0};
    free(table);
    table_bits = getenv("EXPLORE_MORE") ? TABLE_BITS_MORE : TABLE_BITS;
    table = calloc((size_t)1 << table_bits, sizeof(*table));
    ASSERT(table);
    in_table = 0;
    explore_path = (struct path){.begin = begin, .sc = sc};
    remember(run_hash(r));
    enter(r, 0, out);
    while (depth >= 0) {
        struct level *l = &levels[depth];
        struct event e;
        uint64_t h;

        if (l->next == l->n) {
            depth--;
            continue;
        }
        e = l->events[l->next++];
        arena_restore(l->saved);
        explore_path.events[depth] = e;
        explore_path.n = (unsigned)depth + 1;
        run_apply(r, e);
        out->transitions++;
        h = run_hash(r);
        if (!remember(h)) {
            check_progress(r, (unsigned)depth, h);
            continue;
        }
        enter(r, (unsigned)++depth, out);
    }
    free(table);
    table = NULL;
    explore_path.begin = NULL;
}
