/* Takes the place of base/xmem.c in the programs that link it: size classes over one static
 * block. */
#include "arena.h"

#include <stdint.h>
#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"

enum { CLASSES = 18, FREED = 0xDD };

struct chunk {
    uint32_t class;
    uint32_t live;
    struct chunk *next; /* when free; the caller's bytes begin here */
};

#define HEAD offsetof(struct chunk, next)

static struct {
    size_t used;
    struct chunk *free[CLASSES];
    _Alignas(16) unsigned char bytes[ARENA_SIZE];
} arena;

void arena_reset(void)
{
    memset(&arena, 0, offsetof(__typeof__(arena), bytes));
}

size_t arena_used(void)
{
    return offsetof(__typeof__(arena), bytes) + arena.used;
}

void arena_save(void *to)
{
    memcpy(to, &arena, arena_used());
}

void arena_restore(const void *from)
{
    size_t used;

    memcpy(&used, from, sizeof(used));
    memcpy(&arena, from, offsetof(__typeof__(arena), bytes) + used);
}

static uint32_t class_of(size_t n)
{
    uint32_t c = 0;

    while (((size_t)16 << c) < n)
        c++;
    ASSERT(c < CLASSES);
    return c;
}

void *xmalloc(size_t n)
{
    uint32_t c = class_of(n);
    struct chunk *m = arena.free[c];
    size_t size = ((size_t)16 << c) + HEAD;

    if (m) {
        arena.free[c] = m->next;
    } else {
        size = (size + 15) & ~(size_t)15;
        ASSERT(arena.used + size <= ARENA_SIZE);
        m = (struct chunk *)(void *)(arena.bytes + arena.used);
        arena.used += size;
        m->class = c;
    }
    m->live = 1;
    return (char *)m + HEAD;
}

void *xcalloc(size_t count, size_t size)
{
    void *p = xmalloc(count * size);

    memset(p, 0, count * size);
    return p;
}

static struct chunk *chunk_of(void *p)
{
    struct chunk *m = (struct chunk *)(void *)((char *)p - HEAD);

    ASSERT(m->live == 1);
    return m;
}

void *xrealloc(void *p, size_t n)
{
    struct chunk *m;
    void *q;

    if (!p)
        return xmalloc(n);
    m = chunk_of(p);
    if (n <= (size_t)16 << m->class)
        return p;
    q = xmalloc(n);
    memcpy(q, p, (size_t)16 << m->class);
    xfree(p);
    return q;
}

char *xstrdup(const char *s)
{
    return xmemdup0(s, strlen(s));
}

char *xmemdup0(const void *p, size_t n)
{
    char *copy = xmalloc(n + 1);

    if (n)
        memcpy(copy, p, n);
    copy[n] = '\0';
    return copy;
}

void xfree(void *p)
{
    struct chunk *m;

    if (!p)
        return;
    m = chunk_of(p);
    m->live = 0;
    memset(p, FREED, (size_t)16 << m->class);
    m->next = arena.free[m->class];
    arena.free[m->class] = m;
}

void xfree_secret(void *p, size_t n)
{
    (void)n;
    xfree(p);
}
