#include "base/buf.h"

#include <string.h>
#include "base/xmem.h"

enum { BUF_FIRST = 512 };

void buf_fini(struct buf *b)
{
    xfree(b->base);
    *b = BUF_INIT;
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
    size_t held = buf_len(b);
    size_t cap;

    ASSERT(n < SIZE_MAX / 4);
    if (b->cap - b->len >= n)
        return b->base + b->len;
    if (b->cap - held >= n && b->off >= held) {
        memcpy(b->base, b->base + b->off, held);
        b->off = 0;
        b->len = held;
        return b->base + b->len;
    }
    cap = b->cap ? b->cap : BUF_FIRST;
    while (cap < held + n)
        cap *= 2;
    if (b->off) {
        uint8_t *fresh = xmalloc(cap);

        if (held)
            memcpy(fresh, b->base + b->off, held);
        xfree(b->base);
        b->base = fresh;
        b->off = 0;
        b->len = held;
    } else {
        b->base = xrealloc(b->base, cap);
    }
    b->cap = cap;
    return b->base + b->len;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    if (!n)
        return;
    memcpy(buf_reserve(b, n), p, n);
    buf_commit(b, n);
}

void buf_release_if_empty(struct buf *b)
{
    if (buf_len(b) == 0)
        buf_fini(b);
}
