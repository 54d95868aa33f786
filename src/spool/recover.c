#include "spool/spool_priv.h"

#include "base/bug.h"
#include "base/xmem.h"
#include "spool/dead_priv.h"
#include "rt/fault.h"

static const char *const ledger_names[] = {
/* NOLINTNEXTLINE(bugprone-macro-parentheses): an element of a table */
#define X(e, name, family, state, help) [LEDGER_##e] = name,
    LEDGER_ROWS(X)
#undef X
};

/* --- loading the writer's memory --------------------------------------------------------- */

/* Run `sql` and call `row` for each row; 0, or -1 with `e` filled. */
static int each(struct spool *s, const char *sql, int (*row)(struct spool *, sqlite3_stmt *),
                struct err *e)
{
    sqlite3_stmt *q = NULL;
    int rc;

    if (sql_prepare(s->db, sql, &q, e) < 0)
        return -1;
    while ((rc = sqlite3_step(q)) == SQLITE_ROW)
        if (row(s, q) < 0)
            break;
    if (rc != SQLITE_DONE)
        sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot read", e);
    sqlite3_finalize(q);
    return rc == SQLITE_DONE ? 0 : -1;
}

static int load_ledger_row(struct spool *s, sqlite3_stmt *q)
{
    struct view name = sql_view(q, 1);
    size_t i;

    for (i = 0; i < LEDGER_N; i++) {
        if (!view_is(name, ledger_names[i]))
            continue;
        s->ledger_id[i] = sqlite3_column_int64(q, 0);
        s->ledger[i] = sqlite3_column_int64(q, 2);
    }
    return 0;
}

/* Rows are found by name, so that a version with more of them takes the old ones over. */
static int load_ledger(struct spool *s, struct err *e)
{
    int64_t top = 0;
    size_t i;

    memset(s->ledger, 0, sizeof(s->ledger));
    memset(s->ledger_id, 0, sizeof(s->ledger_id));
    if (each(s, "SELECT id,name,value FROM ledger", load_ledger_row, e) < 0 ||
        sql_int(s->db, "SELECT coalesce(max(id),0) FROM ledger", 0, &top, e) < 0)
        return -1;
    for (i = 0; i < LEDGER_N; i++) {
        if (s->ledger_id[i])
            continue;
        s->ledger_id[i] = ++top;
        if (sql_execf(s->db, e, "INSERT INTO ledger VALUES(%lld,'%s',0)", (long long)top,
                      ledger_names[i]) < 0)
            return -1;
    }
    memcpy(s->pub_ledger, s->ledger, sizeof(s->ledger));
    return 0;
}

int recover_carry(struct spool *s, struct err *e)
{
    const struct id_space *ids[] = {&s->record_ids, &s->stream_ids, &s->blob_ids};
    int64_t keep[LEDGER_N];
    size_t i;
    int rc;

    memcpy(keep, s->ledger, sizeof(keep));
    rc = sql_exec(s->db, "BEGIN IMMEDIATE", e);
    if (rc == 0)
        rc = load_ledger(s, e);
    memcpy(s->ledger, keep, sizeof(keep));
    for (i = 0; rc == 0 && i < LEDGER_N; i++)
        rc = sql_execf(s->db, e, "UPDATE ledger SET value=%lld WHERE id=%lld", (long long)keep[i],
                       (long long)s->ledger_id[i]);
    for (i = 0; rc == 0 && i < ARRAY_LEN(ids); i++)
        rc = sql_execf(s->db, e, "INSERT INTO counter VALUES('%s',%lld)", ids[i]->name,
                       (long long)ids[i]->reserved);
    if (rc == 0)
        rc = seal_carry(s, e);
    return rc == 0 ? sql_exec(s->db, "COMMIT", e) : -1;
}

static int load_ids(struct spool *s, struct id_space *ids, const char *name, const char *sql,
                    struct err *e)
{
    char counter[80];
    int64_t top = 0, known = 0;

    ids->name = name;
    sqlite3_snprintf(sizeof(counter), counter, "SELECT value FROM counter WHERE name='%s'", name);
    if (sql_int(s->db, counter, 1, &known, e) < 0 || sql_int(s->db, sql, 0, &top, e) < 0)
        return -1;
    ids->next = TR_MAX(TR_MAX(known, top + 1), 1);
    ids->undo_next = ids->next;
    ids->reserved = ids->undo_reserved = known;
    return 0;
}

static int load_stream(struct spool *s, sqlite3_stmt *q)
{
    uint64_t next = (uint64_t)sqlite3_column_int64(q, 1);

    streams_add(s, sqlite3_column_int64(q, 0), next, next);
    return 0;
}

static int load_number(struct spool *s, sqlite3_stmt *q)
{
    struct wstream *ws = streams_find(s, sqlite3_column_int64(q, 0));
    uint64_t number = (uint64_t)sqlite3_column_int64(q, 1);

    if (ws && number >= ws->next)
        ws->next = number + 1;
    return 0;
}

/* What the last run had not swept out: the first group of this one will. */
static int load_gone(struct spool *s, sqlite3_stmt *q)
{
    struct wstream *ws = streams_find(s, sqlite3_column_int64(q, 0));

    s->undo_gone.records++;
    s->undo_gone.bytes += (uint64_t)sqlite3_column_int64(q, 1);
    if (ws)
        exec_leaves(s, ws);
    return 0;
}

/*
 * After a clean close the rows of the streams say it all, otherwise newer records say more. The
 * walk also finds damage in a database that is too large to be checked.
 */
static int load_streams(struct spool *s, struct err *e)
{
    int64_t clean = 0;

    if (each(s, "SELECT id,next FROM stream", load_stream, e) < 0 ||
        sql_int(s->db, "SELECT value FROM counter WHERE name='clean'", 0, &clean, e) < 0)
        return -1;
    s->clean = clean == 1;
    if (s->clean && s->checked)
        return 0;
    if (each(s, "SELECT stream,number FROM record", load_number, e) < 0)
        return -1;
    if (each(s, "SELECT stream,number FROM dead", load_number, e) < 0)
        return -1;
    s->undo_gone = (struct pending){0};
    if (each(s, "SELECT r.stream,r.size FROM gone g JOIN record r ON r.id=g.id", load_gone, e) < 0)
        return -1;
    s->gone = s->undo_gone;
    return 0;
}

/* Pieces whose upload never became a record; one look per blob, whatever its number of pieces. */
static int drop_orphans(struct spool *s, struct err *e)
{
    int64_t at = 0, piece = 0, known = 0;

    for (;;) {
        char sql[96];

        sqlite3_snprintf(sizeof(sql), sql,
                         "SELECT id FROM piece WHERE id>=%lld ORDER BY id LIMIT 1", (long long)at);
        if (sql_int(s->db, sql, -1, &piece, e) < 0)
            return -1;
        if (piece < 0)
            return 0;
        at = (piece >> PIECE_SHIFT) << PIECE_SHIFT;
        sqlite3_snprintf(sizeof(sql), sql, "SELECT 1 FROM blob WHERE id=%lld",
                         (long long)(piece >> PIECE_SHIFT));
        if (sql_int(s->db, sql, 0, &known, e) < 0)
            return -1;
        if (!known && sql_execf(s->db, e, "DELETE FROM piece WHERE id BETWEEN %lld AND %lld",
                                (long long)at, (long long)(at | PIECE_SEQ_MAX)) < 0)
            return -1;
        if (at >> PIECE_SHIFT >= BLOB_ID_MAX)
            return 0;
        at += (int64_t)1 << PIECE_SHIFT;
    }
}

static int load_all(struct spool *s, struct err *e)
{
    if (load_ledger(s, e) < 0 || load_streams(s, e) < 0 ||
        sql_int(s->db, "SELECT count(*) FROM dead", 0, &s->dead, e) < 0)
        return -1;
    s->undo_dead = s->dead;
    s->pub.dead = (uint64_t)s->dead;
    if (load_ids(s, &s->record_ids, "record",
                 "SELECT max(coalesce((SELECT max(id) FROM record),0),"
                 "coalesce((SELECT max(id) FROM dead),0))",
                 e) < 0 ||
        load_ids(s, &s->stream_ids, "stream", "SELECT coalesce(max(id),0) FROM stream", e) < 0)
        return -1;
    if (load_ids(s, &s->blob_ids, "blob",
                 "SELECT max(coalesce((SELECT max(id) FROM blob),0),"
                 "coalesce((SELECT max(id)>>24 FROM piece),0))",
                 e) < 0)
        return -1;
    atomic_store(&s->next_blob, s->blob_ids.next);
    return 0;
}

int recover_run(struct spool *s, int (*fn)(struct spool *, struct err *), struct err *e)
{
    bool damage;

    if (sql_exec(s->db, "BEGIN IMMEDIATE", e) == 0 && fn(s, e) == 0) {
        fault_point("spool-recover"); /* twice in a start */
        if (sql_exec(s->db, "COMMIT", e) == 0)
            return 0;
    }
    damage = sql_is_damage(sqlite3_errcode(s->db));
    if (!sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return damage ? 1 : -1;
}

int recover_load(struct spool *s, struct err *e)
{
    /* Room that cannot be made on a full disk is no reason not to start. */
    if (recover_run(s, drop_orphans, e) == 1)
        return 1;
    return recover_run(s, load_all, e);
}

/* --- the caller's walks ------------------------------------------------------------------ */

struct spool_stream_row recover_stream_row(struct spool *s, sqlite3_stmt *q)
{
    struct spool_stream_row row = {.id = sqlite3_column_int64(q, 0),
                                   .next = (uint64_t)sqlite3_column_int64(q, 1)};
    bool sealed = sqlite3_column_int(q, 5) != 0;

    seal_about(&s->room, SEAL_ACCOUNT, &row.id, 1);
    row.damaged = seal_get(s, &s->room, 0, sealed, sql_view(q, 2), &row.account) < 0;
    seal_about(&s->room, SEAL_KEY, &row.id, 1);
    row.damaged |= seal_get(s, &s->room, 1, sealed, sql_view(q, 3), &row.key) < 0;
    if (row.damaged)
        row.account = row.key = VIEW_NONE;
    seal_about(&s->room, SEAL_STATE, &row.id, 1);
    if (seal_get(s, &s->room, 2, sealed, sql_view(q, 4), &row.state) < 0)
        row.state = VIEW_NONE;
    return row;
}

int spool_each_stream(struct spool *s, int (*fn)(void *ctx, const struct spool_stream_row *row),
                      void *ctx, struct err *e)
{
    sqlite3_stmt *q = NULL;
    int rc, stop = 0;

    ASSERT(!s->started);
    if (sql_prepare(s->db, "SELECT " SPOOL_STREAM_COLUMNS " FROM stream ORDER BY id", &q, e) < 0)
        return -1;
    while (!stop && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        struct spool_stream_row row = recover_stream_row(s, q);
        const struct wstream *ws = streams_find(s, row.id);

        row.next = ws ? ws->next : 0;
        stop = fn(ctx, &row);
    }
    if (!stop && rc != SQLITE_DONE)
        stop = sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot read the streams", e);
    sqlite3_finalize(q);
    return stop ? -1 : 0;
}

struct spool_record_row recover_row(struct spool *s, struct seal_room *room, sqlite3_stmt *q)
{
    struct spool_record_row row = {
        .id = sqlite3_column_int64(q, 0),
        .stream = sqlite3_column_int64(q, 1),
        .number = (uint64_t)sqlite3_column_int64(q, 2),
        .kind = sqlite3_column_int(q, 3),
        .lines = (uint64_t)sqlite3_column_int64(q, 4),
        .at_ns = sqlite3_column_int64(q, 5),
        .size = (uint64_t)sqlite3_column_int64(q, 6),
        .blob = sqlite3_column_int64(q, 7),
    };

    seal_about_meta(room, &row);
    row.damaged =
        seal_get(s, room, 0, sqlite3_column_int(q, 9) != 0, sql_view(q, 8), &row.meta) < 0;
    return row;
}

int spool_each_record(struct spool *s, int (*fn)(void *ctx, const struct spool_record_row *row),
                      void *ctx, struct err *e)
{
    sqlite3_stmt *q = NULL;
    int rc, stop = 0;

    ASSERT(!s->started);
    if (sql_prepare(s->db,
                    "SELECT " SPOOL_RECORD_COLUMNS " FROM record WHERE id NOT IN gone"
                    " ORDER BY id",
                    &q, e) < 0)
        return -1;
    while (!stop && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        struct spool_record_row row = recover_row(s, &s->room, q);

        stop = fn(ctx, &row);
    }
    if (!stop && rc != SQLITE_DONE)
        stop = sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot read the records", e);
    sqlite3_finalize(q);
    return stop ? -1 : 0;
}

/* Its name may be lost and the letter good, and the other way round. */
struct spool_dead_row recover_dead_row(struct spool *s, struct seal_room *room, sqlite3_stmt *q)
{
    const int at = RECORD_COLUMNS;
    struct spool_dead_row row = {
        .record = recover_row(s, room, q),
        .reason = sql_view(q, at),
        .buried_ns = sqlite3_column_int64(q, at + 1),
    };
    bool sealed = sqlite3_column_int(q, at + 4) != 0;

    seal_about(room, SEAL_ACCOUNT, &row.record.stream, 1);
    if (seal_get(s, room, 1, sealed, sql_view(q, at + 2), &row.account) < 0)
        row.account = VIEW_NONE;
    seal_about(room, SEAL_KEY, &row.record.stream, 1);
    if (seal_get(s, room, 2, sealed, sql_view(q, at + 3), &row.key) < 0)
        row.key = VIEW_NONE;
    return row;
}

void dead_note_name(int64_t record_id, uint8_t out[8])
{
    int i;

    for (i = 0; i < 8; i++)
        out[i] = (uint8_t)((uint64_t)record_id >> (56 - 8 * i));
}

int spool_each_dead(struct spool *s, int (*fn)(void *ctx, const struct spool_dead_row *row),
                    void *ctx, struct err *e)
{
    sqlite3_stmt *q = NULL;
    int rc, stop = 0;

    ASSERT(!s->started);
    if (sql_prepare(s->db, "SELECT " SPOOL_DEAD_COLUMNS " FROM dead ORDER BY id", &q, e) < 0)
        return -1;
    while (!stop && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        struct spool_dead_row row = recover_dead_row(s, &s->room, q);

        stop = fn(ctx, &row);
    }
    if (!stop && rc != SQLITE_DONE)
        stop = sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot read the dead letters", e);
    sqlite3_finalize(q);
    return stop ? -1 : 0;
}

int spool_each_value(struct spool *s, const char *space,
                     int (*fn)(void *ctx, struct view name, struct view value), void *ctx,
                     struct err *e)
{
    sqlite3_stmt *q = NULL;
    int rc, stop = 0;

    ASSERT(!s->started);
    if (sql_prepare(s->db, "SELECT name,value,sealed FROM value WHERE space=?1 ORDER BY name", &q,
                    e) < 0)
        return -1;
    sqlite3_bind_text(q, 1, space, -1, SQLITE_STATIC);
    while (!stop && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        struct view value;

        seal_about_value(&s->room, view_str(space), sql_view(q, 0));
        if (seal_get(s, &s->room, 0, sqlite3_column_int(q, 2) != 0, sql_view(q, 1), &value) == 0)
            stop = fn(ctx, sql_view(q, 0), value);
    }
    seal_room_fini(&s->room); /* credentials went through it */
    if (!stop && rc != SQLITE_DONE)
        stop = sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot read the values", e);
    sqlite3_finalize(q);
    return stop ? -1 : 0;
}
