#include "spool/spool_priv.h"

#include "spool/dead_priv.h"
#include "spool/txn_priv.h"
#include "base/bug.h"
#include "base/xmem.h"
#include "rt/fault.h"

/*
 * Transactions as SQL, and the writer's memory that goes with it. Everything here runs inside one
 * database transaction, the group. What it changes in memory can be taken back until exec_keep.
 */

/* --- streams in memory ------------------------------------------------------------------- */

static uint64_t id_hash(int64_t id)
{
    return (uint64_t)id * 0x9e3779b97f4a7c15ULL;
}

struct wstream *streams_find(struct spool *s, int64_t id)
{
    struct hnode *n;

    for (n = hmap_first(&s->streams, id_hash(id)); n; n = hmap_next(n, id_hash(id))) {
        struct wstream *ws = hmap_entry(n, struct wstream, node);

        if (ws->id == id)
            return ws;
    }
    return NULL;
}

struct wstream *streams_add(struct spool *s, int64_t id, uint64_t next, uint64_t saved)
{
    struct wstream *ws = XNEW(struct wstream);

    ws->id = id;
    ws->next = next;
    ws->saved = saved;
    list_init(&ws->leaving);
    hmap_insert(&s->streams, &ws->node, id_hash(id));
    return ws;
}

static void streams_remove(struct spool *s, struct wstream *ws)
{
    hmap_remove(&s->streams, &ws->node);
    list_remove(&ws->leaving);
    xfree(ws);
}

void streams_free(struct spool *s)
{
    size_t slot = 0;
    struct hnode *n = hmap_walk(&s->streams, &slot, NULL);

    while (n) {
        struct wstream *ws = hmap_entry(n, struct wstream, node);

        n = hmap_walk(&s->streams, &slot, n);
        xfree(ws);
    }
    hmap_fini(&s->streams);
    list_init(&s->leaving);
    s->gone = s->undo_gone = (struct pending){0};
}

static void touch(struct spool *s, struct wstream *ws)
{
    if (ws->touched)
        return;
    ws->touched = true;
    ws->undo_next = ws->next;
    ws->undo_saved = ws->saved;
    ws->undo_lost = ws->lost;
    ws->touched_next = s->touched;
    s->touched = ws;
}

/* The owner's side changes at once, for what follows in the group. */
static void set_owner(struct wstream *ws, struct spool_stream *st, struct spool_stream now)
{
    if (!ws->owner) {
        ws->owner = st;
        ws->owner_was = *st;
    }
    *st = now;
}

/* --- steps ------------------------------------------------------------------------------- */

int exec_step(struct spool *s, enum spool_statement which, struct err *e)
{
    sqlite3_stmt *q = s->st[which];
    int rc = sqlite3_step(q);

    if (TR_LIKELY(rc == SQLITE_DONE)) {
        sqlite3_reset(q);
        return 0;
    }
    rc = sqlite3_reset(q);
    return sql_error(s->db, rc, "cannot write", e);
}

static sqlite3_stmt *bind_id(struct spool *s, enum spool_statement which, int64_t id)
{
    sqlite3_bind_int64(s->st[which], 1, id);
    return s->st[which];
}

static void bind_view(sqlite3_stmt *q, int at, struct view v)
{
    if (v.p)
        sqlite3_bind_blob64(q, at, v.p, v.n, SQLITE_STATIC);
    else
        sqlite3_bind_null(q, at);
}

static int64_t id_take(struct id_space *ids)
{
    int64_t id = ids->next++;

    if (ids->next > ids->reserved)
        ids->reserved = ids->next + 4096;
    return id;
}

static void blob_seen(struct spool *s, int64_t blob)
{
    struct id_space *ids = &s->blob_ids;

    if (blob >= ids->next)
        ids->next = blob + 1;
    if (ids->next > ids->reserved)
        ids->reserved = ids->next + 1024;
}

static int check_blob(int64_t blob, struct err *e)
{
    return blob > 0 && blob <= BLOB_ID_MAX ? 0 : err_set(e, ERR_INVALID, "spool: no such blob id");
}

/* May pieces be added, or the blob be completed? */
static int check_whole(const struct spool *s, int64_t blob, struct err *e)
{
    if (check_blob(blob, e) < 0)
        return -1;
    if (blob < s->blob_floor)
        return err_set(e, ERR_IO, "spool: the database with the upload's begin was set aside");
    return 0;
}

static int64_t piece_key(int64_t blob, uint32_t seq)
{
    return (int64_t)((uint64_t)blob << PIECE_SHIFT | seq);
}

/* A value of a stream or a blob, which its id says where it stands. */
static void bind_sealed(struct spool *s, sqlite3_stmt *q, int at, enum seal_what what, int64_t id,
                        struct view v)
{
    seal_about(&s->room, what, &id, 1);
    bind_view(q, at, seal_put(s, &s->room, at % SEAL_VIEWS, v));
}

/* --- operations -------------------------------------------------------------------------- */

static int stream_insert(struct spool *s, struct op *op, struct err *e)
{
    struct spool_stream *st = op->stream.st;
    int64_t id = id_take(&s->stream_ids);
    sqlite3_stmt *q = bind_id(s, ST_STREAM_ADD, id);
    struct wstream *ws;

    sqlite3_bind_int64(q, 2, (int64_t)st->next);
    bind_sealed(s, q, 3, SEAL_ACCOUNT, id, op->stream.account);
    bind_sealed(s, q, 4, SEAL_KEY, id, op->stream.key);
    bind_sealed(s, q, 5, SEAL_STATE, id, op->stream.state);
    sqlite3_bind_int(q, 6, seal_on(s));
    if (exec_step(s, ST_STREAM_ADD, e) < 0)
        return -1;
    ws = streams_add(s, id, st->next, st->next);
    touch(s, ws);
    ws->fresh = true;
    set_owner(ws, st, (struct spool_stream){.id = id, .next = st->next});
    return 0;
}

static int stream_update(struct spool *s, struct op *op, struct wstream *ws, struct err *e)
{
    enum spool_statement which = ws->lost ? ST_STREAM_ADD : ST_STREAM_STATE;
    sqlite3_stmt *q = bind_id(s, which, ws->id);

    touch(s, ws);
    sqlite3_bind_int64(q, 2, (int64_t)ws->next);
    if (ws->lost) {
        bind_sealed(s, q, 3, SEAL_ACCOUNT, ws->id, op->stream.account);
        bind_sealed(s, q, 4, SEAL_KEY, ws->id, op->stream.key);
        sqlite3_bind_int(q, 6, seal_on(s));
    }
    bind_sealed(s, q, 5, SEAL_STATE, ws->id, op->stream.state);
    if (exec_step(s, which, e) < 0)
        return -1;
    ws->saved = ws->next;
    ws->lost = false;
    return 0;
}

/* The stream an operation names, or NULL with `e` filled. */
static struct wstream *stream_of(struct spool *s, const struct spool_stream *st, struct err *e)
{
    struct wstream *ws = st->id ? streams_find(s, st->id) : NULL;

    if (ws && !ws->dropped)
        return ws;
    err_set(e, ERR_INVALID, "spool: the stream is not in the spool");
    return NULL;
}

static int do_stream(struct spool *s, struct op *op, struct err *e)
{
    struct wstream *ws;

    if (op->stream.st->id == 0) {
        if (stream_insert(s, op, e) < 0)
            return -1;
    } else {
        ws = stream_of(s, op->stream.st, e);
        if (!ws || stream_update(s, op, ws, e) < 0)
            return -1;
    }
    ws = streams_find(s, op->stream.st->id);
    op->stream.id = ws->id;
    op->stream.next = ws->next;
    return 0;
}

/* Of one that never came to be (its insertion failed): nothing to do. */
static int do_stream_drop(struct spool *s, struct op *op, struct err *e)
{
    struct wstream *ws = op->stream.st->id ? streams_find(s, op->stream.st->id) : NULL;

    if (!ws || ws->dropped)
        return 0;
    bind_id(s, ST_STREAM_DROP, ws->id);
    if (exec_step(s, ST_STREAM_DROP, e) < 0)
        return -1;
    touch(s, ws);
    ws->dropped = true;
    set_owner(ws, op->stream.st, (struct spool_stream){0});
    return 0;
}

/* What all pieces of the blob add up to; the lengths stand in the rows' heads. */
static int blob_size(struct spool *s, int64_t blob, int64_t *size, struct err *e)
{
    sqlite3_stmt *q = bind_id(s, ST_BLOB_SIZE, piece_key(blob, 0));
    int rc;

    sqlite3_bind_int64(q, 2, piece_key(blob, PIECE_SEQ_MAX));
    rc = sqlite3_step(q);
    if (rc == SQLITE_ROW)
        *size = sqlite3_column_int64(q, 0);
    if (sqlite3_reset(q) != SQLITE_OK || rc != SQLITE_ROW)
        return sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot read a blob's size", e);
    return 0;
}

static int blob_claim(struct spool *s, int64_t blob, int64_t record, int64_t *size, struct err *e)
{
    if (check_whole(s, blob, e) < 0 || blob_size(s, blob, size, e) < 0)
        return -1;
    blob_seen(s, blob);
    sqlite3_bind_int64(bind_id(s, ST_BLOB_ADD, blob), 2, record);
    return exec_step(s, ST_BLOB_ADD, e);
}

static void remember(struct spool *s, int64_t id, struct wstream *ws, uint64_t number, int64_t blob,
                     int64_t size)
{
    s->recent[(uint64_t)id % RECENT] =
        (struct recent){.id = id, .stream = ws->id, .number = number, .blob = blob, .size = size};
}

static void record_seal(struct spool *s, sqlite3_stmt *q, const struct spool_record_row *row,
                        struct view body)
{
    if (seal_on(s)) {
        seal_about_meta(&s->room, row);
        bind_view(q, 9, seal_put(s, &s->room, 0, row->meta));
        seal_about_record(&s->room, SEAL_BODY, row->id, row->stream, row->number);
        bind_view(q, 10, seal_put(s, &s->room, 1, body));
    } else {
        bind_view(q, 9, row->meta);
        bind_view(q, 10, body);
    }
    sqlite3_bind_int(q, 11, seal_on(s));
}

static int do_record(struct spool *s, struct op *op, struct err *e)
{
    struct wstream *ws = stream_of(s, op->record.st, e);
    struct spool_record *r = op->record.r;
    int64_t size = (int64_t)r->body.n;
    int64_t id;
    sqlite3_stmt *q;

    if (!ws)
        return -1;
    if (ws->lost) /* whoever sends this did not know yet: it comes again, with the stream's row */
        return err_set(e, ERR_IO, "spool: the database was set aside meanwhile");
    touch(s, ws);
    id = id_take(&s->record_ids);
    if (r->blob && blob_claim(s, r->blob, id, &size, e) < 0)
        return -1;
    q = bind_id(s, ST_RECORD_ADD, id);
    sqlite3_bind_int64(q, 2, ws->id);
    sqlite3_bind_int64(q, 3, (int64_t)ws->next);
    sqlite3_bind_int(q, 4, r->kind);
    sqlite3_bind_int64(q, 5, (int64_t)r->lines);
    sqlite3_bind_int64(q, 6, r->at_ns);
    sqlite3_bind_int64(q, 7, size);
    sqlite3_bind_int64(q, 8, r->blob);
    record_seal(s, q,
                &(struct spool_record_row){.id = id,
                                           .stream = ws->id,
                                           .number = ws->next,
                                           .kind = r->kind,
                                           .lines = r->lines,
                                           .at_ns = r->at_ns,
                                           .size = (uint64_t)size,
                                           .blob = r->blob,
                                           .meta = r->meta},
                r->body);
    if (exec_step(s, ST_RECORD_ADD, e) < 0)
        return -1;
    op->record.id = id;
    op->record.number = ws->next++;
    remember(s, id, ws, op->record.number, r->blob, size);
    return 0;
}

/* It will not be there when it is asked for again. If the group fails that costs a look. */
static void forget(struct spool *s, int64_t id)
{
    struct recent *known = &s->recent[(uint64_t)id % RECENT];

    if (known->id == id)
        known->id = 0;
}

/* 1: found, 0: no such record. A look into the table for those that are not in memory any more. */
static int record_what(struct spool *s, int64_t id, struct recent *out, struct err *e)
{
    const struct recent *known = &s->recent[(uint64_t)id % RECENT];
    sqlite3_stmt *q;
    int rc;

    if (known->id == id) {
        *out = *known;
        return 1;
    }
    q = bind_id(s, ST_RECORD_WHAT, id);
    rc = sqlite3_step(q);
    if (rc == SQLITE_ROW)
        *out = (struct recent){.id = id,
                               .stream = sqlite3_column_int64(q, 0),
                               .number = (uint64_t)sqlite3_column_int64(q, 1),
                               .blob = sqlite3_column_int64(q, 2),
                               .size = sqlite3_column_int64(q, 3)};
    if (sqlite3_reset(q) != SQLITE_OK) {
        (void)sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot read a record", e);
        return -1;
    }
    return rc == SQLITE_ROW;
}

static int pieces_delete(struct spool *s, int64_t blob, struct err *e)
{
    sqlite3_bind_int64(bind_id(s, ST_PIECES_DELETE, piece_key(blob, 0)), 2,
                       piece_key(blob, PIECE_SEQ_MAX));
    return exec_step(s, ST_PIECES_DELETE, e);
}

static int blob_delete(struct spool *s, int64_t blob, struct err *e)
{
    if (pieces_delete(s, blob, e) < 0)
        return -1;
    bind_id(s, ST_BLOB_DELETE, blob);
    return exec_step(s, ST_BLOB_DELETE, e);
}

void exec_leaves(struct spool *s, struct wstream *ws)
{
    if (list_empty(&ws->leaving))
        list_append(&s->leaving, &ws->leaving);
}

/* A number that is gone from the records must be known by its stream's row. */
static void number_leaves(struct spool *s, const struct recent *what)
{
    struct wstream *ws = streams_find(s, what->stream);

    if (!ws || what->number < ws->saved)
        return;
    touch(s, ws);
    ws->save = true;
}

static int note_delete(struct spool *s, int64_t id, struct err *e)
{
    uint8_t name[8];

    dead_note_name(id, name);
    sqlite3_bind_text(s->st[ST_VALUE_DELETE], 1, DEAD_NOTES, -1, SQLITE_STATIC);
    bind_view(s->st[ST_VALUE_DELETE], 2, view_of(name, sizeof(name)));
    return exec_step(s, ST_VALUE_DELETE, e);
}

static int dead_delete(struct spool *s, int64_t id, struct err *e)
{
    sqlite3_stmt *q = bind_id(s, ST_DEAD_WHAT, id);
    int rc = sqlite3_step(q);
    int64_t blob = rc == SQLITE_ROW ? sqlite3_column_int64(q, 0) : 0;

    if (sqlite3_reset(q) != SQLITE_OK)
        return sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot read a dead letter", e);
    if (rc != SQLITE_ROW)
        return 0;
    if (blob && blob_delete(s, blob, e) < 0)
        return -1;
    s->dead--;
    bind_id(s, ST_DEAD_DELETE, id);
    return exec_step(s, ST_DEAD_DELETE, e) < 0 ? -1 : note_delete(s, id, e);
}

/* With its blob, at once: pieces are large. 1: it was there. */
static int delete_now(struct spool *s, const struct recent *what, struct err *e)
{
    bind_id(s, ST_RECORD_DELETE, what->id);
    if (exec_step(s, ST_RECORD_DELETE, e) < 0)
        return -1;
    if (sqlite3_changes(s->db) == 0)
        return 0;
    number_leaves(s, what);
    return blob_delete(s, what->blob, e) < 0 ? -1 : 1;
}

/*
 * A row that is deleted changes its page, and those beside it when they are merged, and at last
 * the list of free pages: one delivery's records lie on as many pages as it has records, and of
 * what a busy spool wrote two thirds were such pages. So a record that is done with is only noted
 * in the table `gone`, all ids of a group on one page, and the rows go together later: most pages
 * are empty then. 1: it was there and not gone.
 */
static int delete_later(struct spool *s, const struct recent *what, struct err *e)
{
    struct wstream *ws = streams_find(s, what->stream);

    bind_id(s, ST_GONE_ADD, what->id);
    if (exec_step(s, ST_GONE_ADD, e) < 0)
        return -1;
    if (sqlite3_changes(s->db) == 0)
        return 0;
    s->gone.records++;
    s->gone.bytes += (uint64_t)what->size;
    if (ws && what->number >= ws->saved)
        exec_leaves(s, ws);
    return 1;
}

static int do_delete(struct spool *s, struct op *op, struct err *e)
{
    struct recent what;
    int found = record_what(s, op->del.id, &what, e);

    if (found > 0)
        found = what.blob ? delete_now(s, &what, e) : delete_later(s, &what, e);
    if (found < 0)
        return -1;
    forget(s, op->del.id);
    return found ? 0 : dead_delete(s, op->del.id, e);
}

static int do_bury(struct spool *s, struct op *op, struct err *e)
{
    sqlite3_stmt *q = bind_id(s, ST_DEAD_ADD, op->del.id);
    struct recent what;
    int found = record_what(s, op->del.id, &what, e);

    if (found <= 0)
        return found;
    sqlite3_bind_text(q, 2, op->del.reason, -1, SQLITE_STATIC);
    sqlite3_bind_int64(q, 3, clock_wall_ns());
    if (exec_step(s, ST_DEAD_ADD, e) < 0)
        return -1;
    s->dead += sqlite3_changes(s->db);
    bind_id(s, ST_RECORD_DELETE, op->del.id);
    if (exec_step(s, ST_RECORD_DELETE, e) < 0)
        return -1;
    number_leaves(s, &what);
    forget(s, op->del.id);
    return 0;
}

static int do_piece(struct spool *s, struct op *op, struct err *e)
{
    sqlite3_stmt *q;

    if (fault_point("spool-piece"))
        return err_set(e, ERR_IO, "spool: a test wants this piece to fail");
    if (check_whole(s, op->piece.blob, e) < 0)
        return -1;
    if (op->piece.seq > PIECE_SEQ_MAX)
        return err_set(e, ERR_LIMIT, "spool: a blob has more than %u pieces", PIECE_SEQ_MAX);
    blob_seen(s, op->piece.blob);
    q = bind_id(s, ST_PIECE_ADD, piece_key(op->piece.blob, op->piece.seq));
    bind_sealed(s, q, 2, SEAL_PIECE, piece_key(op->piece.blob, op->piece.seq),
                op->piece.data.p ? op->piece.data : VIEW_LIT(""));
    sqlite3_bind_int(q, 3, seal_on(s));
    return exec_step(s, ST_PIECE_ADD, e);
}

static int do_value(struct spool *s, struct op *op, struct err *e)
{
    enum spool_statement which = op->value.value.p ? ST_VALUE_SET : ST_VALUE_DELETE;
    sqlite3_stmt *q = s->st[which];

    sqlite3_bind_text(q, 1, op->value.space, -1, SQLITE_STATIC);
    bind_view(q, 2, op->value.name.p ? op->value.name : VIEW_LIT(""));
    if (op->value.value.p) {
        seal_about_value(&s->room, view_str(op->value.space), op->value.name);
        bind_view(q, 3, seal_put(s, &s->room, 0, op->value.value));
        sqlite3_bind_int(q, 4, seal_on(s));
    }
    return exec_step(s, which, e);
}

static int exec_op(struct spool *s, struct op *op, struct err *e)
{
    switch (op->type) {
    case OP_STREAM:
        return do_stream(s, op, e);
    case OP_STREAM_DROP:
        return do_stream_drop(s, op, e);
    case OP_RECORD:
        return do_record(s, op, e);
    case OP_DELETE:
        return do_delete(s, op, e);
    case OP_BURY:
        return do_bury(s, op, e);
    case OP_PIECE:
        return do_piece(s, op, e);
    case OP_BLOB_DROP:
        return check_blob(op->piece.blob, e) < 0 ? -1 : pieces_delete(s, op->piece.blob, e);
    case OP_VALUE:
        return do_value(s, op, e);
    }
    BUG("unknown operation");
}

int exec_txn(struct spool *s, struct spool_txn *t, struct err *e)
{
    struct op *op;
    size_t i;

    for (op = t->first; op; op = op->next)
        if (exec_op(s, op, e) < 0)
            return -1;
    for (i = 0; t->ledger_rows >> i; i++)
        s->delta[i] += t->delta[i];
    return 0;
}

/* --- the end of a group ------------------------------------------------------------------ */

static int set_counter(struct spool *s, const char *name, int64_t value, struct err *e)
{
    sqlite3_bind_text(s->st[ST_COUNTER_SET], 1, name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s->st[ST_COUNTER_SET], 2, value);
    return exec_step(s, ST_COUNTER_SET, e);
}

static int save_ids(struct spool *s, struct id_space *ids, struct err *e)
{
    return ids->reserved == ids->undo_reserved ? 0 : set_counter(s, ids->name, ids->reserved, e);
}

static int save_numbers(struct spool *s, struct err *e)
{
    struct wstream *ws;

    for (ws = s->touched; ws; ws = ws->touched_next) {
        if (!ws->save || ws->dropped || ws->lost || ws->saved == ws->next)
            continue;
        sqlite3_bind_int64(bind_id(s, ST_STREAM_NEXT, ws->id), 2, (int64_t)ws->next);
        if (exec_step(s, ST_STREAM_NEXT, e) < 0)
            return -1;
        ws->saved = ws->next;
    }
    return 0;
}

static bool sweep_is_due(const struct spool *s)
{
    return s->gone.records > 0 &&
           (s->sweep_now || s->gone.records >= SWEEP_RECORDS ||
            s->gone.bytes >= TR_MIN((uint64_t)SWEEP_BYTES, s->limit / SWEEP_PART));
}

/* Delete the rows that are gone. Their streams' rows take over what they knew of numbers. */
static int sweep(struct spool *s, struct err *e)
{
    struct list *it, *tmp;

    if (exec_step(s, ST_SWEEP, e) < 0)
        return -1;
    fault_point("spool-sweep");
    if (exec_step(s, ST_SWEPT, e) < 0)
        return -1;
    list_each (it, tmp, &s->leaving) {
        struct wstream *ws = list_entry(it, struct wstream, leaving);

        touch(s, ws);
        ws->save = true;
    }
    s->swept = true;
    return 0;
}

int exec_group_end(struct spool *s, struct err *e)
{
    size_t i;

    if (sweep_is_due(s) && sweep(s, e) < 0)
        return -1;
    for (i = 0; i < LEDGER_N; i++) {
        if (s->delta[i] == 0)
            continue;
        sqlite3_bind_int64(bind_id(s, ST_LEDGER_SET, s->ledger_id[i]), 2,
                           s->ledger[i] + s->delta[i]);
        if (exec_step(s, ST_LEDGER_SET, e) < 0)
            return -1;
    }
    if (save_numbers(s, e) < 0 || save_ids(s, &s->record_ids, e) < 0 ||
        save_ids(s, &s->stream_ids, e) < 0 || save_ids(s, &s->blob_ids, e) < 0)
        return -1;
    if (s->clean && set_counter(s, "clean", 0, e) < 0)
        return -1;
    return 0;
}

static void ids_keep(struct id_space *ids)
{
    ids->undo_next = ids->next;
    ids->undo_reserved = ids->reserved;
}

static void ids_undo(struct id_space *ids)
{
    ids->next = ids->undo_next;
    ids->reserved = ids->undo_reserved;
}

static void touched_end(struct wstream *ws)
{
    ws->touched = ws->fresh = ws->dropped = ws->save = false;
    ws->owner = NULL;
}

static void sweep_keep(struct spool *s)
{
    struct list *it, *tmp;

    if (s->swept) {
        list_each (it, tmp, &s->leaving) {
            list_remove(it);
            list_init(it);
        }
        s->gone = (struct pending){0};
    }
    s->undo_gone = s->gone;
    s->swept = false;
}

/* Streams stay on the list: it does no harm to save a number that need not be. */
static void sweep_undo(struct spool *s)
{
    s->gone = s->undo_gone;
    s->swept = false;
}

void exec_keep(struct spool *s)
{
    struct wstream *ws, *next;
    size_t i;

    sweep_keep(s);

    for (ws = s->touched; ws; ws = next) {
        next = ws->touched_next;
        if (ws->dropped)
            streams_remove(s, ws);
        else
            touched_end(ws);
    }
    s->touched = NULL;
    for (i = 0; i < LEDGER_N; i++)
        s->ledger[i] += s->delta[i];
    memset(s->delta, 0, sizeof(s->delta));
    s->undo_dead = s->dead;
    ids_keep(&s->record_ids);
    ids_keep(&s->stream_ids);
    ids_keep(&s->blob_ids);
    s->clean = false;
}

void exec_undo(struct spool *s)
{
    struct wstream *ws, *next;

    /* Newest first: an owner that was deleted and inserted again gets its first value back. */
    for (ws = s->touched; ws; ws = next) {
        next = ws->touched_next;
        ws->next = ws->undo_next;
        ws->saved = ws->undo_saved;
        ws->lost = ws->undo_lost;
        if (ws->owner)
            *ws->owner = ws->owner_was;
        if (ws->fresh) {
            streams_remove(s, ws);
        } else {
            touched_end(ws);
        }
    }
    s->touched = NULL;
    sweep_undo(s);
    memset(s->delta, 0, sizeof(s->delta));
    s->dead = s->undo_dead;
    ids_undo(&s->record_ids);
    ids_undo(&s->stream_ids);
    ids_undo(&s->blob_ids);
}

/* As of this transaction, whatever came after it in the same group. */
void exec_publish(struct spool_txn *t)
{
    struct op *op;

    for (op = t->first; op; op = op->next) {
        if (op->type == OP_STREAM) {
            *op->stream.st = (struct spool_stream){op->stream.id, op->stream.next};
        } else if (op->type == OP_STREAM_DROP) {
            *op->stream.st = (struct spool_stream){0};
        } else if (op->type == OP_RECORD) {
            op->record.r->id = op->record.id;
            op->record.r->number = op->record.number;
            op->record.st->next = op->record.number + 1;
        }
    }
}
