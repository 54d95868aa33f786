#include "spool/txn_priv.h"

#include "base/bug.h"
#include "base/xmem.h"
#include "spool/dead_priv.h"

enum { TXN_MAGIC = 0x74786e31, CHUNK_MIN = 4096, ALIGN = 16 };

_Static_assert(sizeof(struct txn_chunk) <= ALIGN, "a chunk begins ALIGN bytes into its block");

struct spool_txn *spool_txn_new(void)
{
    struct spool_txn *t = xmalloc(sizeof(*t));

    memset(t, 0, offsetof(struct spool_txn, room));
    OBJ_INIT(t, TXN_MAGIC);
    t->last = &t->first;
    t->at = t->room;
    t->end = t->room + sizeof(t->room);
    return t;
}

void spool_txn_free(struct spool_txn **pt)
{
    struct spool_txn *t = *pt;

    *pt = NULL;
    if (!t)
        return;
    OBJ_CHECK(t, TXN_MAGIC);
    while (t->chunks) {
        struct txn_chunk *c = t->chunks;

        t->chunks = c->next;
        if (t->secret)
            explicit_bzero((char *)c + ALIGN, c->size);
        xfree(c);
    }
    if (t->secret)
        explicit_bzero(t->room, sizeof(t->room));
    OBJ_FINI(t);
    xfree(t);
}

static void *cut(struct spool_txn *t, size_t n)
{
    void *p;

    n = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if ((size_t)(t->end - t->at) < n) {
        size_t size = TR_MAX(n, (size_t)CHUNK_MIN);
        struct txn_chunk *c = xmalloc(ALIGN + size);

        c->next = t->chunks;
        c->size = size;
        t->chunks = c;
        t->at = (char *)c + ALIGN;
        t->end = t->at + size;
    }
    p = t->at;
    t->at += n;
    return p;
}

static struct op *op_add(struct spool_txn *t, enum op_type type)
{
    struct op *op = cut(t, sizeof(*op));

    OBJ_CHECK(t, TXN_MAGIC);
    op->next = NULL;
    op->type = type;
    *t->last = op;
    t->last = &op->next;
    return op;
}

/* A view that has bytes keeps a pointer, also an empty one: NULL means absent to the database. */
static struct view keep(struct spool_txn *t, struct view v)
{
    char *p;

    if (!v.p)
        return v;
    p = cut(t, v.n ? v.n : 1);
    if (v.n)
        memcpy(p, v.p, v.n);
    t->bytes += v.n;
    return view_of(p, v.n);
}

static const char *keep_text(struct spool_txn *t, const char *text)
{
    return keep(t, view_of(text, strlen(text) + 1)).p;
}

void spool_txn_stream(struct spool_txn *t, struct spool_stream *st, struct view account,
                      struct view key, struct view state)
{
    struct op *op = op_add(t, OP_STREAM);

    op->stream.st = st;
    op->stream.account = keep(t, account);
    op->stream.key = keep(t, key);
    op->stream.state = keep(t, state);
}

void spool_txn_stream_drop(struct spool_txn *t, struct spool_stream *st)
{
    op_add(t, OP_STREAM_DROP)->stream.st = st;
}

void spool_txn_record(struct spool_txn *t, struct spool_stream *st, struct spool_record *r)
{
    struct op *op = op_add(t, OP_RECORD);

    op->record.st = st;
    op->record.r = r;
    t->bytes += r->body.n + r->meta.n;
    t->grows = t->grows || r->body.n > 0; /* a mark without a body must get in when lines do not */
}

void spool_txn_delete(struct spool_txn *t, int64_t record_id)
{
    op_add(t, OP_DELETE)->del.id = record_id;
}

void spool_txn_bury(struct spool_txn *t, int64_t record_id, const char *reason)
{
    struct op *op = op_add(t, OP_BURY);

    op->del.id = record_id;
    op->del.reason = keep_text(t, reason);
}

void spool_txn_piece(struct spool_txn *t, int64_t blob, uint32_t seq, struct view piece)
{
    struct op *op = op_add(t, OP_PIECE);

    op->piece.blob = blob;
    op->piece.seq = seq;
    op->piece.data = piece;
    t->bytes += piece.n;
    t->grows = true;
}

void spool_txn_blob_drop(struct spool_txn *t, int64_t blob)
{
    op_add(t, OP_BLOB_DROP)->piece.blob = blob;
}

void spool_txn_ledger(struct spool_txn *t, enum ledger_row row, int64_t delta)
{
    OBJ_CHECK(t, TXN_MAGIC);
    ASSERT((unsigned)row < LEDGER_N);
    t->delta[row] += delta;
    t->ledger_rows |= 1U << row;
}

void spool_txn_value(struct spool_txn *t, const char *space, struct view name, struct view value)
{
    struct op *op = op_add(t, OP_VALUE);

    t->secret = true;
    op->value.space = keep_text(t, space);
    op->value.name = keep(t, name);
    op->value.value = keep(t, value);
}

void spool_txn_dead_note(struct spool_txn *t, int64_t record_id, struct view note)
{
    uint8_t name[8];

    dead_note_name(record_id, name);
    spool_txn_value(t, DEAD_NOTES, view_of(name, sizeof(name)), note);
}

void spool_txn_keep(struct spool_txn *t)
{
    t->kept = true;
}

bool spool_txn_empty(const struct spool_txn *t)
{
    return !t->first && t->ledger_rows == 0;
}
