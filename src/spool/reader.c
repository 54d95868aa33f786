#include "spool/spool_priv.h"

#include "base/bug.h"
#include "spool/dead_priv.h"

/*
 * Reads have a connection and a thread of their own, so that a slow disk read holds up no commit.
 * A read transaction is short: as long as it lasts the log cannot start over.
 */

int reader_open(struct spool *s, struct err *e)
{
    if (schema_connect(s, &s->rdb, true, e) < 0)
        return -1;
    if (sql_prepare(s->rdb,
                    "SELECT body,sealed,stream,number FROM record WHERE id=?1 AND id NOT IN gone",
                    &s->r_body, e) < 0 ||
        sql_prepare(s->rdb, "SELECT body,sealed&1,stream,number FROM dead WHERE id=?1", &s->r_dead,
                    e) < 0 ||
        sql_prepare(s->rdb,
                    "SELECT " SPOOL_RECORD_COLUMNS " FROM record WHERE id=?1 AND id NOT IN gone",
                    &s->r_row, e) < 0 ||
        sql_prepare(s->rdb,
                    "SELECT " SPOOL_DEAD_COLUMNS " FROM dead WHERE id>=?1 ORDER BY id LIMIT ?2",
                    &s->r_letters, e) < 0 ||
        sql_prepare(s->rdb,
                    "SELECT value,sealed FROM value WHERE space='" DEAD_NOTES "' AND name=?1",
                    &s->r_note, e) < 0)
        return -1;
    return sql_prepare(s->rdb, "SELECT data,sealed FROM piece WHERE id=?1", &s->r_piece, e);
}

void reader_close(struct spool *s)
{
    sqlite3_finalize(s->r_body);
    sqlite3_finalize(s->r_dead);
    sqlite3_finalize(s->r_piece);
    sqlite3_finalize(s->r_row);
    sqlite3_finalize(s->r_letters);
    sqlite3_finalize(s->r_note);
    s->r_body = s->r_dead = s->r_piece = s->r_row = s->r_letters = s->r_note = NULL;
    sqlite3_close(s->rdb);
    s->rdb = NULL;
    seal_room_fini(&s->r_room);
}

/* A row's value, opened. */
static void take(struct spool *s, sqlite3_stmt *q, int64_t id, struct spool_read *r)
{
    if (q == s->r_piece)
        seal_about(&s->r_room, SEAL_PIECE, &id, 1);
    else
        seal_about_record(&s->r_room, SEAL_BODY, id, sqlite3_column_int64(q, 2),
                          (uint64_t)sqlite3_column_int64(q, 3));
    if (seal_open(s, &s->r_room, sqlite3_column_int(q, 1) != 0, sql_view(q, 0), &r->data) < 0)
        err_set(&r->err, ERR_INVALID, "spool: the seal of what is stored is broken");
}

/* The writer is told of damage: it sets the database aside (mend.c). */
static void read_failed(struct spool *s, struct spool_read *r)
{
    int rc = sqlite3_extended_errcode(s->rdb);

    sql_error(s->rdb, rc, "cannot read", &r->err);
    if (!sql_is_corrupt(rc) || atomic_exchange(&s->damaged, true))
        return;
    pthread_mutex_lock(&s->lock);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

/* True: a row was found or the read failed for good. */
static bool look(struct spool *s, sqlite3_stmt *q, int64_t id, struct spool_read *r)
{
    int rc;

    sqlite3_bind_int64(q, 1, id);
    rc = sqlite3_step(q);
    if (rc == SQLITE_ROW) {
        take(s, q, id, r);
    } else if (rc != SQLITE_DONE) {
        read_failed(s, r);
    }
    sqlite3_reset(q);
    return rc != SQLITE_DONE;
}

static void serve_rows(struct spool *s, struct spool_read *r)
{
    size_t i;

    for (i = 0; i < r->n_ids && r->err.code == ERR_NONE; i++) {
        int rc;

        sqlite3_bind_int64(s->r_row, 1, r->ids[i]);
        rc = sqlite3_step(s->r_row);
        if (rc == SQLITE_ROW) {
            struct spool_record_row row = recover_row(s, &s->r_room, s->r_row);

            if (!row.damaged)
                r->row(r, i, &row);
        } else if (rc != SQLITE_DONE) {
            read_failed(s, r);
        }
        sqlite3_reset(s->r_row);
    }
}

static void serve_letter(struct spool *s, struct spool_read *r)
{
    struct spool_dead_row row = recover_dead_row(s, &s->r_room, s->r_letters);
    uint8_t name[8];

    dead_note_name(row.record.id, name);
    sqlite3_bind_blob(s->r_note, 1, name, sizeof(name), SQLITE_STATIC);
    if (sqlite3_step(s->r_note) == SQLITE_ROW) {
        seal_about_value(&s->r_room, VIEW_LIT(DEAD_NOTES), view_of((char *)name, sizeof(name)));
        if (seal_get(s, &s->r_room, 3, sqlite3_column_int(s->r_note, 1) != 0,
                     sql_view(s->r_note, 0), &row.note) < 0)
            row.note = VIEW_NONE;
    }
    r->dead(r, &row);
    sqlite3_reset(s->r_note);
}

static void serve_letters(struct spool *s, struct spool_read *r)
{
    int rc;

    sqlite3_bind_int64(s->r_letters, 1, r->dead_from);
    sqlite3_bind_int64(s->r_letters, 2, (int64_t)r->dead_max);
    while ((rc = sqlite3_step(s->r_letters)) == SQLITE_ROW)
        serve_letter(s, r);
    if (rc != SQLITE_DONE)
        read_failed(s, r);
    sqlite3_reset(s->r_letters);
}

void reader_serve(struct spool *s, struct spool_read *r)
{
    r->err = (struct err){0};
    str_clear(&r->data);
    if (!s->rdb) {
        err_set(&r->err, ERR_IO, "spool: the database cannot be opened");
        return;
    }
    if (r->dead) {
        serve_letters(s, r);
        return;
    }
    if (r->ids) {
        serve_rows(s, r);
        return;
    }
    if (r->record) {
        if (look(s, s->r_body, r->record, r) || look(s, s->r_dead, r->record, r))
            return;
    } else if (r->blob > 0 && r->blob <= BLOB_ID_MAX && r->seq <= PIECE_SEQ_MAX) {
        if (look(s, s->r_piece, (int64_t)((uint64_t)r->blob << PIECE_SHIFT | r->seq), r))
            return;
    }
    err_set(&r->err, ERR_NOTFOUND, "spool: not there");
}

/* The first few of the list in one transaction; returns the rest. */
static struct spool_read *serve_batch(struct spool *s, struct spool_read *r)
{
    struct spool_read *first = r, *rest;
    size_t n, bytes = 0;

    pthread_mutex_lock(&s->rdb_lock);
    if (s->rdb)
        sqlite3_exec(s->rdb, "BEGIN", NULL, NULL, NULL);
    for (n = 0; r && n < READ_BATCH && bytes < READ_BATCH_BYTES; n++, r = r->next) {
        reader_serve(s, r);
        bytes += r->data.n + (r->n_ids + r->dead_max) * READ_ROW_BYTES;
    }
    rest = r;
    if (s->rdb && !sqlite3_get_autocommit(s->rdb))
        sqlite3_exec(s->rdb, "COMMIT", NULL, NULL, NULL);
    pthread_mutex_unlock(&s->rdb_lock);
    while (first != rest) {
        struct spool_read *next = first->next;

        first->next = NULL;
        first->done(first);
        first = next;
    }
    return rest;
}

void *reader_main(void *arg)
{
    struct spool *s = arg;
    struct spool_read *r;

    do {
        pthread_mutex_lock(&s->r_lock);
        while (!s->r_head && !s->r_stopping)
            pthread_cond_wait(&s->r_wake, &s->r_lock);
        r = s->r_head;
        s->r_head = NULL;
        s->r_tail = &s->r_head;
        pthread_mutex_unlock(&s->r_lock);
        while (r)
            r = serve_batch(s, r);
        pthread_mutex_lock(&s->r_lock);
        r = s->r_head;
        pthread_mutex_unlock(&s->r_lock);
    } while (r || !s->r_stopping);
    return NULL;
}
