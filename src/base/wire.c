#include "base/wire.h"

static void put_le(struct str *out, uint64_t v, size_t n)
{
    char bytes[8];
    size_t i;

    for (i = 0; i < n; i++)
        bytes[i] = (char)(v >> (8 * i));
    str_add(out, bytes, n);
}

void wire_put_u8(struct str *out, uint8_t v)
{
    put_le(out, v, 1);
}

void wire_put_u32(struct str *out, uint32_t v)
{
    put_le(out, v, 4);
}

void wire_put_u64(struct str *out, uint64_t v)
{
    put_le(out, v, 8);
}

void wire_put_view(struct str *out, struct view v)
{
    wire_put_u32(out, (uint32_t)v.n);
    str_addv(out, v);
}

struct view wire_bytes(struct wire *w, size_t n)
{
    struct view v = {w->left.p, n};

    if (w->failed || w->left.n < n) {
        w->failed = true;
        return VIEW_NONE;
    }
    w->left = view_from(w->left, n);
    return v;
}

static uint64_t get_le(struct wire *w, size_t n)
{
    struct view v = wire_bytes(w, n);
    uint64_t out = 0;
    size_t i;

    for (i = 0; i < v.n; i++)
        out |= (uint64_t)(unsigned char)v.p[i] << (8 * i);
    return out;
}

uint8_t wire_u8(struct wire *w)
{
    return (uint8_t)get_le(w, 1);
}

uint32_t wire_u32(struct wire *w)
{
    return (uint32_t)get_le(w, 4);
}

uint64_t wire_u64(struct wire *w)
{
    return get_le(w, 8);
}

struct view wire_view(struct wire *w)
{
    return wire_bytes(w, wire_u32(w));
}
