/*
 * A queue of bytes in one contiguous block: added at the end, taken from the front.
 *
 *     base ......[ off ---- readable ---- len )...... cap
 *
 * Pointers into it are valid until the next call that adds.
 */
#ifndef TR_BASE_BUF_H
#define TR_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>
#include "base/bug.h"
#include "base/view.h"

struct buf {
    uint8_t *base;
    size_t off;
    size_t len;
    size_t cap;
};

#define BUF_INIT ((struct buf){NULL, 0, 0, 0})

void buf_fini(struct buf *b); /* frees; empty and usable again */

/* Room for at least `n` more bytes; returns where to write. Follow with buf_commit. */
uint8_t *buf_reserve(struct buf *b, size_t n);
void buf_add(struct buf *b, const void *p, size_t n);

/* Give the memory back when nothing is in it; idle connections hold none. */
void buf_release_if_empty(struct buf *b);

static inline size_t buf_len(const struct buf *b)
{
    return b->len - b->off;
}

static inline const uint8_t *buf_data(const struct buf *b)
{
    return b->base + b->off;
}

static inline struct view buf_view(const struct buf *b)
{
    return view_of(b->base ? b->base + b->off : NULL, buf_len(b));
}

/* `n` bytes were written at the place buf_reserve returned. */
static inline void buf_commit(struct buf *b, size_t n)
{
    ASSERT(n <= b->cap - b->len);
    b->len += n;
}

/* Drop `n` bytes (at most buf_len) from the front. */
static inline void buf_consume(struct buf *b, size_t n)
{
    ASSERT(n <= buf_len(b));
    b->off += n;
    if (b->off == b->len)
        b->off = b->len = 0;
}

static inline void buf_clear(struct buf *b)
{
    b->off = b->len = 0;
}

#endif
