/* Uploads: POST /blob and the PUT to a ticket. Pieces go into the spool as they come, two at most
 * under way, so that a blob of any size needs little memory; the record that makes them count is
 * written when the body is complete. */
#include "logs/ingest_priv.h"

#include <xxhash.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "logs/direct.h"
#include "logs/logs_priv.h"
#include "rt/clock.h"

enum {
    BLOB_PIECE = 128 * 1024,
    BLOB_SHORT_PIECE = 16 * 1024, /* while memory for bodies is short */
    BLOB_AHEAD = 2,
    /* Kept beside the pieces while memory for bodies is not short, for the case that the spool
     * fails under them: then the whole goes upstream as it came. More once it does fail. */
    BLOB_KEEP = 1 << 20,
    BLOB_KEEP_FAILING = 64 << 20,
};

struct blob_in {
    int64_t id;
    bool by_link;
    XXH3_state_t *hash;
    uint64_t size;
    char head[4];     /* its first bytes */
    struct str piece; /* decoded, not yet in the spool */
    struct str whole; /* all that came, if `keeps` */
    bool keeps, failing;
    uint32_t pieces;
    unsigned writing;  /* pieces under way to the spool */
    uint64_t unproven; /* bytes of pieces that count as of a credential upstream has never taken */
    struct str late; /* came while too much was on its way to the spool; a window's worth at most */
    bool more;       /* the decoder has more to give: a few bytes may expand to gigabytes */
    bool given;      /* to the stream, with the call that makes the pieces count */
    bool over;       /* the ingest is done with it: freed with the last write */
    bool lost;       /* a piece could not be written */
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
    str_fini(&b->whole);
    str_fini(&b->late);
    xfree(b);
}

void ingest_blob_free(struct ingest *in)
{
    struct blob_in *b = in->blob;

    if (!b)
        return;
    if (!b->given || b->lost)
        blob_drop(in);
    atomic_fetch_sub(&in->sh->logs->unproven_used, b->unproven);
    in->blob = NULL;
    b->over = true;
    b->in = NULL;
    blob_free(b);
}

/* --- pieces ------------------------------------------------------------------------------- */

static void give_back(struct ingest *in)
{
    size_t n = in->held;

    in->held = 0;
    if (in->ex && n)
        http_consumed(in->ex, n);
}

static void blob_go_on(struct ingest *in);

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
    if (b->lost && !b->keeps && b->in->ex && !b->in->failed) {
        /* Not an answer: a client takes any status below 500 for success and repeats after 5xx with
         * less (HP §2.6). */
        b->in->failed = true;
        http_abort(b->in->ex);
        return;
    }
    blob_go_on(b->in);
}

/* The spool's thread. */
static void piece_done(void *ctx, const struct err *err)
{
    struct piece_write *w = ctx;

    w->ok = !err;
    w->task.run = piece_written;
    ev_post(w->loop, &w->task);
}

/* Bytes that go into the spool count toward the share of the credentials that upstream has never
 * taken, if this is one: until the upload is given up, or its record leaves the spool. */
static void count_unproven(struct ingest *in, size_t bytes)
{
    if (cred_known_good(in->sh->logs->creds, in->cred))
        return;
    in->blob->unproven += bytes;
    atomic_fetch_add(&in->sh->logs->unproven_used, bytes);
}

static bool has_room(const struct ingest *in)
{
    return ingest_unproven_room(in, !cred_known_good(in->sh->logs->creds, in->cred));
}

static void write_piece(struct ingest *in)
{
    struct blob_in *b = in->blob;
    struct piece_write *w = XNEW(struct piece_write);
    struct spool_txn *t = spool_txn_new();

    w->blob = b;
    w->loop = in->sh->loop;
    zframe_pack(str_view(&b->piece), &w->frame);
    count_unproven(in, w->frame.n);
    if (intake_is_short(in))
        str_fini(&b->piece);
    else
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

/* Memory that it takes up. */
static void charge_memory(struct ingest *in)
{
    intake_charge(in, in->body.cap + in->blob->piece.cap + in->blob->whole.cap);
}

static int64_t keep_most(const struct blob_in *b)
{
    return b->failing ? BLOB_KEEP_FAILING : BLOB_KEEP;
}

static void keep_bytes(struct ingest *in, struct view fresh)
{
    struct blob_in *b = in->blob;
    if (!b->keeps)
        return;
    if (b->whole.n + fresh.n > (size_t)keep_most(b) || intake_is_short(in)) {
        b->keeps = false;
        str_fini(&b->whole);
        return;
    }
    str_addv(&b->whole, fresh);
}

/* Decode what makes one piece at most. */
static int take_bytes(struct ingest *in, struct view bytes, struct err *e)
{
    struct blob_in *b = in->blob;
    size_t before = b->piece.n;
    int more = zdecoder_feed(in->decoder, bytes, BLOB_PIECE - before, &b->piece, e);

    if (more < 0)
        return -1;
    b->more = more > 0;
    note_bytes(b, view_of(b->piece.p + before, b->piece.n - before));
    keep_bytes(in, view_of(b->piece.p + before, b->piece.n - before));
    if (b->lost && !b->keeps)
        return err_set(e, ERR_IO, INGEST_CANNOT);
    if (b->lost) {
        str_clear(&b->piece);
    } else if (b->piece.n >= BLOB_PIECE ||
               (b->piece.n >= BLOB_SHORT_PIECE && intake_is_short(in))) {
        if (!has_room(in))
            return err_set(e, ERR_FULL, INGEST_FULL);
        write_piece(in);
    }
    charge_memory(in);
    return 0;
}

/* What came late, and what the decoder still holds, as far as the spool keeps up. */
static int catch_up(struct ingest *in, struct err *e)
{
    struct blob_in *b = in->blob;

    while (b->writing < BLOB_AHEAD && (b->more || b->late.n)) {
        struct str bytes = STR_INIT;
        int rc;

        if (!b->more) {
            bytes = b->late;
            b->late = STR_INIT;
        }
        rc = take_bytes(in, str_view(&bytes), e);
        str_fini(&bytes);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static void fail(struct ingest *in, const struct err *e)
{
    struct blob_in *b = in->blob;
    bool limit = e->code == ERR_LIMIT;

    if (e->code == ERR_IO) { /* as in piece_written */
        in->failed = true;
        http_abort(in->ex);
        return;
    }
    if (e->code == ERR_FULL)
        ingest_overload(in, OVERLOAD_SPOOL_UNPROVEN);
    ingest_reply(in,
                 limit                 ? 413
                 : e->code == ERR_FULL ? 503
                                       : 400,
                 limit ? "the body is larger than this gateway takes" : e->text);
    b->more = false;
    str_fini(&b->late);
    str_fini(&b->piece);
    intake_charge(in, 0);
    give_back(in);
}

static void blob_go_on(struct ingest *in)
{
    struct blob_in *b = in->blob;
    struct err e;

    if (in->failed)
        return;
    if (catch_up(in, &e) < 0) {
        fail(in, &e);
        return;
    }
    if (b->writing >= BLOB_AHEAD)
        return;
    give_back(in);
    if (!in->ended || b->more || b->given)
        return;
    if (!zdecoder_complete(in->decoder)) {
        ingest_reply(in, 400, "the compressed body is cut short");
        return;
    }
    in->complete = true;
    if (!b->writing)
        blob_complete(in);
}

static void blob_body(void *ctx, struct view piece)
{
    struct ingest *in = ctx;
    struct blob_in *b = in->blob;
    struct err e;

    in->held += piece.n;
    if (in->failed) {
        give_back(in);
        return;
    }
    if (b->more || b->late.n || b->writing >= BLOB_AHEAD) {
        str_addv(&b->late, piece);
    } else if (take_bytes(in, piece, &e) < 0) {
        fail(in, &e);
        return;
    }
    blob_go_on(in);
}

static bool looks_compressed(const char head[4])
{
    static const char *const marks[] = {"\x1f\x8b", "\x28\xb5\x2f\xfd", "PK\x03\x04", "\xfd\x37zX",
                                        "BZh"};
    size_t i;

    for (i = 0; i < ARRAY_LEN(marks); i++) {
        if (memcmp(head, marks[i], TR_MIN(strlen(marks[i]), 4)) == 0)
            return true;
    }
    return false;
}

/* The spool has failed under its pieces: nothing of it is to be committed any more. */
static void relay_whole(struct ingest *in, struct submission *sub)
{
    sub->owner = shard_owner(in->sh->logs, str_view(&sub->account), str_view(&sub->key));
    if (!direct_start(in, sub))
        ingest_cannot(in, 0, INGEST_CANNOT);
    submission_free(sub);
}

static void blob_complete(struct ingest *in)
{
    struct blob_in *b = in->blob;
    struct submission *sub = ingest_submission(in, CALL_BLOB);
    XXH128_hash_t h = XXH3_128bits_digest(b->hash);
    struct record *r;

    b->given = true;
    sub->call.hash = (struct body_hash){h.low64, h.high64};
    sub->call.empty = b->size == 0;
    sub->call.begins_line = b->head[0] == '{';
    if (b->keeps) {
        in->body = b->whole; /* until it is durable */
        b->whole = STR_INIT;
    }
    if (b->lost) {
        relay_whole(in, sub);
        return;
    }
    r = record_new(RECORD_BLOB);
    if (b->piece.n) {
        zframe_pack(str_view(&b->piece), &r->piece);
        count_unproven(in, r->piece.n);
        str_fini(&b->piece);
        b->pieces++;
    }
    r->row.at_ns = clock_wall_ns();
    r->row.blob = b->id;
    r->unproven = b->unproven;
    b->unproven = 0;
    r->blob_size = b->size;
    r->pieces = b->pieces;
    r->by_link = b->by_link;
    r->compressed = looks_compressed(b->head);
    r->hashed = true;
    r->hash = sub->call.hash;
    list_append(&sub->call.records, &r->link);
    charge_memory(in);
    ingest_submit(in, sub);
}

void ingest_blob_lost(struct ingest *in)
{
    if (in->blob)
        in->blob->lost = true;
}

static void blob_end(void *ctx)
{
    struct ingest *in = ctx;

    in->ended = true;
    in->end_ns = ev_now_ns(in->sh->loop);
    blob_go_on(in);
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
    struct spool_stats st;

    b->id = spool_blob_id(in->sh->logs->spool);
    b->by_link = by_link;
    spool_stats(in->sh->logs->spool, &st);
    b->failing = st.failing;
    b->keeps = req->content_length <= keep_most(b); /* -1: not known */
    b->hash = XXH3_createState();
    b->in = in;
    if (!b->hash)
        BUG("out of memory");
    XXH3_128bits_reset(b->hash);
    in->blob = b;
    if (!has_room(in)) { /* before a byte of it is taken: its client may send all of it again */
        ingest_overload(in, OVERLOAD_SPOOL_UNPROVEN);
        ingest_reply(in, 503, INGEST_FULL);
    } else {
        ingest_decoding(in, req, in->sh->settings->blob_max, in->sh->settings->blob_max);
    }
    http_bind(in->ex, &ingest_blob_handler, in);
}
