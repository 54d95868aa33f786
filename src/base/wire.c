#include "base/wire.h"

#include <endian.h>

void wire_put_u8(struct str *out, uint8_t v)
{
    str_addc(out, (char)v);
}

void wire_put_u32(struct str *out, uint32_t v)
{
    v = htole32(v);
    str_add(out, &v, sizeof(v));
}

void wire_put_u64(struct str *out, uint64_t v)
{
    v = htole64(v);
    str_add(out, &v, sizeof(v));
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
