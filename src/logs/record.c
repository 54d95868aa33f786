#include "logs/record.h"

#include "base/bug.h"
#include "base/wire.h"
#include "base/xmem.h"

enum { META_VERSION = 1, META_USUAL = 96 };
enum {
    META_HASHED = 1 << 0,
    META_BY_LINK = 1 << 1,
    META_COMPRESSED = 1 << 2,
    META_SNAPSHOT = 1 << 3,
    META_COVERS = 1 << 4,
    META_LOG = 1 << 5,
    META_EDGE = 1 << 6,
};

struct record *record_new(enum record_kind kind)
{
    struct record *r = XNEW(struct record);

    list_init(&r->link);
    list_init(&r->commit_link);
    list_init(&r->waiters);
    r->kind = kind;
    r->row.kind = (int)kind;
    return r;
}

void record_free(struct record *r)
{
    if (!r)
        return;
    ASSERT(list_empty(&r->waiters));
    list_remove(&r->link);
    list_remove(&r->commit_link);
    str_fini(&r->meta);
    str_fini(&r->frame);
    str_fini(&r->text);
    if (r->kind == RECORD_BLOB)
        str_fini(&r->piece);
    else if (r->kind != RECORD_LINES)
        str_fini(&r->query);
    xfree(r);
}

void record_encode(struct record *r)
{
    bool edge = r->kind == RECORD_LINES && r->edge;
    unsigned flags = (r->hashed ? META_HASHED : 0) | (r->by_link ? META_BY_LINK : 0) |
                     (r->compressed ? META_COMPRESSED : 0) | (r->snapshot ? META_SNAPSHOT : 0) |
                     (r->covers ? META_COVERS : 0) | (r->log ? META_LOG : 0) |
                     (edge ? META_EDGE : 0);
    struct str *m = &r->meta;

    str_clear(m);
    str_reserve(m, META_USUAL);
    wire_put_u8(m, META_VERSION);
    wire_put_u8(m, (uint8_t)flags);
    wire_put_u64(m, r->life);
    wire_put_u32(m, r->cred);
    wire_put_u32(m, r->ahead);
    if (r->ahead)
        wire_put_u64(m, r->ahead_above);
    if (r->hashed) {
        wire_put_u64(m, r->hash.lo);
        wire_put_u64(m, r->hash.hi);
    }
    if (edge) {
        wire_put_u64(m, r->edge);
        wire_put_u64(m, r->edge_life);
        wire_put_u64(m, r->edge_number);
    }
    if (r->kind == RECORD_LINES) {
        wire_put_u32(m, r->size);
        wire_put_u64(m, (uint64_t)r->pos_min);
        wire_put_u64(m, (uint64_t)r->pos_max);
    } else if (r->kind == RECORD_BLOB) {
        wire_put_u64(m, r->blob_size);
        wire_put_u32(m, r->pieces);
    } else {
        wire_put_view(m, str_view(&r->query));
    }
    r->row.meta = str_view(m);
}

int record_decode(struct record *r, struct view meta)
{
    struct wire w = wire_of(meta);
    unsigned flags;

    if (wire_u8(&w) != META_VERSION)
        return -1;
    flags = wire_u8(&w);
    r->hashed = (flags & META_HASHED) != 0;
    r->by_link = (flags & META_BY_LINK) != 0;
    r->compressed = (flags & META_COMPRESSED) != 0;
    r->snapshot = (flags & META_SNAPSHOT) != 0;
    r->covers = (flags & META_COVERS) != 0;
    r->log = (flags & META_LOG) != 0;
    r->life = wire_u64(&w);
    r->cred = wire_u32(&w);
    r->ahead = (uint16_t)wire_u32(&w);
    if (r->ahead)
        r->ahead_above = wire_u64(&w);
    if (r->hashed) {
        r->hash.lo = wire_u64(&w);
        r->hash.hi = wire_u64(&w);
    }
    if ((flags & META_EDGE) && r->kind != RECORD_LINES)
        return -1;
    if (flags & META_EDGE) {
        r->edge = wire_u64(&w);
        r->edge_life = wire_u64(&w);
        r->edge_number = wire_u64(&w);
    }
    if (r->kind == RECORD_LINES) {
        r->size = wire_u32(&w);
        r->pos_min = (int64_t)wire_u64(&w);
        r->pos_max = (int64_t)wire_u64(&w);
    } else if (r->kind == RECORD_BLOB) {
        r->blob_size = wire_u64(&w);
        r->pieces = wire_u32(&w);
    } else {
        str_addv(&r->query, wire_view(&w));
    }
    return w.failed ? -1 : 0;
}
