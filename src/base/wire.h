/*
 * Small binary encodings: little-endian numbers and counted bytes, read through a bounded cursor
 * whose error is sticky and is tested once at the end.
 */
#ifndef TR_BASE_WIRE_H
#define TR_BASE_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"
#include "base/view.h"

void wire_put_u8(struct str *out, uint8_t v);
void wire_put_u32(struct str *out, uint32_t v);
void wire_put_u64(struct str *out, uint64_t v);
void wire_put_view(struct str *out, struct view v); /* length (u32) and bytes */

struct wire {
    struct view left;
    bool failed; /* something was asked for that is not there; every later answer is 0 or empty */
};

static inline struct wire wire_of(struct view v)
{
    return (struct wire){v, false};
}

uint8_t wire_u8(struct wire *w);
uint32_t wire_u32(struct wire *w);
uint64_t wire_u64(struct wire *w);
struct view wire_view(struct wire *w); /* points into the input */
struct view wire_bytes(struct wire *w, size_t n);

#endif
