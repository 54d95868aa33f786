/* Uploads: POST /blob and the PUT to a ticket. Pieces go into the spool as they come, two at most under way, so that a blob of any size
 * needs little memory; the record that makes them count is written when the body is complete. */
#include "logs/ingest_priv.h"

#include <xxhash.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "logs/logs_priv.h"
#include "rt/clock.h"

enum { BLOB_PIECE = 256 * 1024, BLOB_AHEAD = 2 };

struct blob_in {
    int64_t id;
    bool by_link;
    XXH3_state_t *hash;
    uint64_t size;
    char head[4];         /* its first bytes */
    struct str piece;     /* decoded, not yet in the spool */
    uint32_t pieces;
    unsigned writing;     /* pieces under way to the spool */
    size_t unconsumed;    /* bytes of the exchange not yet given back: its sender waits */
    bool over;            /* the ingest is done with it: freed with the last write */
    bool lost;            /* a piece could not be written */
    struct ingest *in;
};

struct piece_write {
    struct ev_task task;
    struct blob_in *blob;
    struct ev_loop *loop;
    struct str frame;
    bool ok;
};

static void blob_complete(struct ingest *in);

static void blob_drop(struct ingest *in)
{
    struct spool_txn *t;

    if (!in->blob->pieces)
        return;
    t = spool_txn_new();
    spool_txn_blob_drop(t, in->blob->id);
    spool_submit(in->sh->logs->spool, t, NULL, NULL);
}

static void blob_free(struct blob_in *b)
{
    if (!b->over || b->writing)
        return;
    XXH3_freeState(b->hash);
    str_fini(&b->piece);
    xfree(b);
}

void ingest_blob_free(struct ingest *in)
{
    struct blob_in *b = in->blob;

    if (!b)
        return;
    if (!in->complete || b->lost)
        blob_drop(in);
    in->blob = NULL;
    b->over = true;
    b->in = NULL;
    blob_free(b);
}

/* --- pieces ------------------------------------------------------------------------------- */

static void give_back(struct blob_in *b)
{
    size_t n = b->unconsumed;

    if (b->in && b->in->ex && n && b->writing < BLOB_AHEAD) {
        b->unconsumed = 0;
        http_consumed(b->in->ex, n);
    }
}

static void piece_written(struct ev_task *task)
{
    struct piece_write *w = container_of(task, struct piece_write, task);
    struct blob_in *b = w->blob;

    b->writing--;
    if (!w->ok)
        b->lost = true;
    str_fini(&w->frame);
    xfree(w);
    if (b->over) {
        blob_free(b);
        return;
    }
    if (b->lost && b->in->ex && !b->in->failed) {
        /* Not an answer: a client takes any status below 500 for success and repeats after 5xx with less (HP §2.6). */
        b->in->failed = true;
        http_abort(b->in->ex);
        return;
    }
    give_back(b);
    if (b->in->complete && !b->writing && !b->in->sub && !b->in->failed)
        blob_complete(b->in);
}

/* The spool's thread. */
static void piece_done(void *ctx, const struct err *err)
{
    struct piece_write *w = ctx;

    w->ok = !err;
    w->task.run = piece_written;
    ev_post(w->loop, &w->task);
}

static void write_piece(struct ingest *in)
{
    struct blob_in *b = in->blob;
    struct piece_write *w = XNEW(struct piece_write);
    struct spool_txn *t = spool_txn_new();

    w->blob = b;
    w->loop = in->sh->loop;
    zframe_pack(str_view(&b->piece), &w->frame);
    str_clear(&b->piece);
    spool_txn_piece(t, b->id, b->pieces++, str_view(&w->frame));
    b->writing++;
    spool_submit(in->sh->logs->spool, t, piece_done, w);
}

/* --- the body ----------------------------------------------------------------------------- */

static void note_bytes(struct blob_in *b, struct view fresh)
{
    size_t i;

    for (i = 0; b->size + i < sizeof(b->head) && i < fresh.n; i++)
        b->head[b->size + i] = fresh.p[i];
    b->size += fresh.n;
    XXH3_128bits_update(b->hash, fresh.p, fresh.n);
}

/* Decode into pieces. A decoder may have more to give than fits into one. */
static int take_bytes(struct ingest *in, struct view piece, struct err *e)
{
    struct blob_in *b = in->blob;
    int more;

    do {
        size_t before = b->piece.n;

        more = zdecoder_feed(in->decoder, piece, BLOB_PIECE - before, &b->piece, e);
        if (more < 0)
            return -1;
        note_bytes(b, view_of(b->piece.p + before, b->piece.n - before));
        if (b->piece.n >= BLOB_PIECE)
            write_piece(in);
        piece = VIEW_NONE;
    } while (more);
    return 0;
}

static void blob_body(void *ctx, struct view piece)
{
    struct ingest *in = ctx;
    struct err e;

    if (in->failed) {
        http_consumed(in->ex, piece.n);
        return;
    }
    if (take_bytes(in, piece, &e) < 0) {
        ingest_reply(in, e.code == ERR_LIMIT ? 413 : 400,
                     e.code == ERR_LIMIT ? "the body is larger than this gateway takes" : e.text);
        if (in->ex)
            http_consumed(in->ex, piece.n);
        return;
    }
    in->blob->unconsumed += piece.n;
    give_back(in->blob);
}

static bool looks_compressed(const char head[4])
{
    static const char *const marks[] = {"\x1f\x8b", "\x28\xb5\x2f\xfd", "PK\x03\x04", "\xfd" "7zX", "BZh"};
    size_t i;

    for (i = 0; i < ARRAY_LEN(marks); i++) {
        if (memcmp(head, marks[i], TR_MIN(strlen(marks[i]), 4)) == 0)
            return true;
    }
    return false;
}

static void blob_complete(struct ingest *in)
{
    struct blob_in *b = in->blob;
    struct submission *sub = ingest_submission(in, CALL_BLOB);
    struct record *r = record_new(RECORD_BLOB);
    XXH128_hash_t h = XXH3_128bits_digest(b->hash);

    if (b->piece.n) {
        zframe_pack(str_view(&b->piece), &r->piece);
        if (!b->pieces) {
            in->body = b->piece; /* all of it, until it is durable */
            b->piece = STR_INIT;
        }
        str_fini(&b->piece);
        b->pieces++;
    }
    r->row.at_ns = clock_wall_ns();
    r->row.blob = b->id;
    r->blob_size = b->size;
    r->pieces = b->pieces;
    r->by_link = b->by_link;
    r->compressed = looks_compressed(b->head);
    r->hashed = true;
    r->hash = sub->call.hash = (struct body_hash){h.low64, h.high64};
    sub->call.empty = b->size == 0;
    sub->call.begins_line = b->head[0] == '{';
    list_append(&sub->call.records, &r->link);
    ingest_submit(in, sub);
}

static void blob_end(void *ctx)
{
    struct ingest *in = ctx;

    if (in->failed)
        return;
    if (!zdecoder_complete(in->decoder)) {
        ingest_reply(in, 400, "the compressed body is cut short");
        return;
    }
    in->complete = true;
    if (!in->blob->writing)
        blob_complete(in);
}

static void blob_gone(void *ctx, bool complete)
{
    struct ingest *in = ctx;

    (void)complete;
    in->ex = NULL;
    ingest_cancel(in);
    ingest_release(in);
}

const struct http_handler ingest_blob_handler = {
    .on_body = blob_body,
    .on_end = blob_end,
    .on_gone = blob_gone,
};

void ingest_blob_begin(struct ingest *in, const struct http_request *req, bool by_link)
{
    struct blob_in *b = XNEW(struct blob_in);

    b->id = spool_blob_id(in->sh->logs->spool);
    b->by_link = by_link;
    b->hash = XXH3_createState();
    b->in = in;
    if (!b->hash)
        BUG("out of memory");
    XXH3_128bits_reset(b->hash);
    in->blob = b;
    ingest_decoding(in, req, in->sh->settings->blob_max, in->sh->settings->blob_max);
    http_bind(in->ex, &ingest_blob_handler, in);
}
