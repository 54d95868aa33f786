#include "logs/blob_body.h"

#include <stdatomic.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/zcodec.h"
#include "crypto/digest.h"
#include "net/fetch.h"

/* One piece being read; outlives its body if that is freed meanwhile. */
struct piece_read {
    struct spool_read read;
    struct ev_task task;
    struct ev_loop *loop;
    struct blob_body *body; /* NULL: nobody wants it any more */
};

struct blob_body {
    struct spool *spool; /* NULL: all is in `now` */
    struct ev_loop *loop;
    int64_t blob;
    uint64_t size;
    uint32_t pieces;
    size_t taken;       /* of the memory budget */
    bool keeps_all;     /* `now` is, or will be, the whole body */
    struct str now;     /* being handed out */
    size_t off;         /* in `now` */
    struct str ahead;   /* the piece after it, when `have_ahead` */
    bool have_ahead;
    uint32_t next;      /* piece to be read from the spool next */
    uint64_t got;       /* raw bytes that came from the spool since the start */
    struct piece_read *reading;
    uint64_t sent;
    uint32_t crc;
    bool waiting;       /* `ready` is owed */
    void (*ready)(void *ctx);
    void *ctx;
    struct err err;
};

/* --- memory --------------------------------------------------------------------------------- */

static atomic_size_t memory_used;

bool blob_memory_take(size_t n)
{
    size_t used = atomic_fetch_add(&memory_used, n);

    if (used + n <= BLOB_MEMORY_MAX)
        return true;
    atomic_fetch_sub(&memory_used, n);
    return false;
}

void blob_memory_give(size_t n)
{
    size_t used = atomic_fetch_sub(&memory_used, n);

    ASSERT(used >= n);
}

/* --- life ----------------------------------------------------------------------------------- */

struct blob_body *blob_body_new(struct spool *spool, struct ev_loop *loop, const struct record *r)
{
    struct blob_body *b = XNEW(struct blob_body);

    ASSERT(r->kind == RECORD_BLOB);
    b->spool = spool;
    b->loop = loop;
    b->blob = r->row.blob;
    b->size = r->blob_size;
    b->pieces = r->pieces;
    return b;
}

struct blob_body *blob_body_of(struct str *bytes)
{
    struct blob_body *b = XNEW(struct blob_body);

    b->now = *bytes;
    *bytes = STR_INIT;
    b->size = b->now.n;
    b->keeps_all = true;
    return b;
}

static void forget_reading(struct blob_body *b)
{
    if (b->reading)
        b->reading->body = NULL;
    b->reading = NULL;
}

void blob_body_free(struct blob_body **bp)
{
    struct blob_body *b = *bp;

    if (!b)
        return;
    forget_reading(b);
    str_fini(&b->now);
    str_fini(&b->ahead);
    if (b->taken)
        blob_memory_give(b->taken);
    XFREE(*bp);
}

/* --- reading the spool ---------------------------------------------------------------------- */

static void piece_came(struct ev_task *task);

/* The spool's reader. */
static void piece_read_done(struct spool_read *read)
{
    struct piece_read *pr = container_of(read, struct piece_read, read);

    ev_post(pr->loop, &pr->task);
}

static void read_piece(struct blob_body *b)
{
    struct piece_read *pr = XNEW(struct piece_read);

    ASSERT(!b->reading && b->next < b->pieces);
    pr->body = b;
    pr->loop = b->loop;
    pr->task.run = piece_came;
    pr->read.blob = b->blob;
    pr->read.seq = b->next++;
    pr->read.done = piece_read_done;
    b->reading = pr;
    spool_read(b->spool, &pr->read);
}

static void tell(struct blob_body *b)
{
    if (!b->waiting)
        return;
    b->waiting = false;
    b->ready(b->ctx); /* may free the body */
}

/* A body is what its record says, to the byte: one that is not is never sent. */
static int take_piece(struct blob_body *b, const struct spool_read *read)
{
    struct str *to = b->keeps_all ? &b->now : &b->ahead;
    size_t before = to->n;

    if (read->err.code != ERR_NONE) {
        b->err = read->err;
        return -1;
    }
    if (zframe_unpack(str_view(&read->data), BLOB_PIECE_MAX, to, &b->err) < 0)
        return err_prefix(&b->err, "piece %u of an upload", (unsigned)read->seq);
    b->got += to->n - before;
    if (b->got > b->size || (b->got == b->size) != (b->next == b->pieces) || to->n == before)
        return err_set(&b->err, ERR_INVALID, "an upload in the spool has not the size it should");
    return 0;
}

/* Make the piece ahead the one at hand, and read the next one meanwhile. */
static void advance(struct blob_body *b)
{
    struct str empty = b->now;

    ASSERT(b->have_ahead && b->off == b->now.n);
    b->now = b->ahead;
    b->off = 0;
    str_clear(&empty);
    b->ahead = empty;
    b->have_ahead = false;
    if (b->next < b->pieces)
        read_piece(b);
}

static void piece_came(struct ev_task *task)
{
    struct piece_read *pr = container_of(task, struct piece_read, task);
    struct blob_body *b = pr->body;
    bool more;

    if (b) {
        b->reading = NULL;
        if (take_piece(b, &pr->read) == 0 && !b->keeps_all)
            b->have_ahead = true;
        more = b->keeps_all && b->err.code == ERR_NONE && b->next < b->pieces;
    }
    str_fini(&pr->read.data);
    xfree(pr);
    if (!b)
        return;
    if (more) {
        read_piece(b);
        return;
    }
    if (b->have_ahead && b->off == b->now.n)
        advance(b);
    tell(b);
}

/* --- handing out ---------------------------------------------------------------------------- */

static void rewind_pieces(struct blob_body *b, size_t whole_max)
{
    forget_reading(b);
    str_clear(&b->now);
    str_clear(&b->ahead);
    b->have_ahead = false;
    b->next = 0;
    b->got = 0;
    if (b->size <= whole_max && b->size <= BLOB_WHOLE_MAX && blob_memory_take((size_t)b->size)) {
        b->taken = (size_t)b->size;
        b->keeps_all = true;
        str_reserve(&b->now, (size_t)b->size);
    }
    if (b->size == 0)
        return;
    if (b->pieces)
        read_piece(b);
    else
        err_set(&b->err, ERR_INVALID, "an upload in the spool has no pieces");
}

static bool has_all(const struct blob_body *b)
{
    return b->keeps_all && b->now.n == b->size && !b->reading;
}

void blob_body_start(struct blob_body *b, size_t whole_max, void (*ready)(void *ctx), void *ctx)
{
    b->ready = ready;
    b->ctx = ctx;
    b->off = 0;
    b->sent = 0;
    b->crc = 0;
    b->waiting = true;
    if (!has_all(b)) {
        if (b->taken)
            blob_memory_give(b->taken);
        b->taken = 0;
        b->keeps_all = false;
        b->err = (struct err){.code = ERR_NONE};
        rewind_pieces(b, whole_max);
    }
    if (!b->reading)
        tell(b);
}

long blob_body_read(struct blob_body *b, void *p, size_t n)
{
    size_t left;

    if (b->err.code != ERR_NONE)
        return -1;
    if (b->sent == b->size)
        return 0;
    if (b->off == b->now.n && b->have_ahead)
        advance(b);
    left = b->now.n - b->off;
    if (left == 0) {
        b->waiting = true;
        return FETCH_PAUSE;
    }
    n = TR_MIN(n, left);
    memcpy(p, b->now.p + b->off, n);
    b->crc = crc32c(b->crc, p, n);
    b->off += n;
    b->sent += n;
    return (long)n;
}

uint64_t blob_body_size(const struct blob_body *b)
{
    return b->size;
}

bool blob_body_whole(const struct blob_body *b, struct view *out)
{
    if (!has_all(b) || b->err.code != ERR_NONE)
        return false;
    *out = str_view(&b->now);
    return true;
}

bool blob_body_sent(const struct blob_body *b)
{
    return b->err.code == ERR_NONE && b->sent == b->size;
}

uint32_t blob_body_crc32c(const struct blob_body *b)
{
    return b->crc;
}

const struct err *blob_body_error(const struct blob_body *b)
{
    return b->err.code == ERR_NONE ? NULL : &b->err;
}
