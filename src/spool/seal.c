#include "spool/spool_priv.h"

#include "base/bug.h"
#include "base/wire.h"
#include "base/xmem.h"
#include "rt/log.h"

/*
 * Values between memory and the tables: sealed on their way in and opened on their way out, if the
 * spool was given a box. Everything that says what was logged, by whom or with which credential
 * passes here; ids, numbers, times, sizes, the ledger and the reasons of dead letters stay plain.
 *
 * Rows say by themselves whether they are sealed. What waits in `record`, `dead` and `piece` stays
 * as it was written; `stream` and `value` are small, live long, and are brought in line at each
 * start.
 */

bool seal_on(const struct spool *s)
{
    return s->box && s->box->seals;
}

/* --- values --------------------------------------------------------------------------------- */

void seal_about(struct seal_room *room, enum seal_what what, const int64_t *numbers, size_t n)
{
    str_clear(&room->aad);
    wire_put_u8(&room->aad, (uint8_t)what);
    for (; n; n--)
        wire_put_u64(&room->aad, (uint64_t)*numbers++);
}

void seal_about_record(struct seal_room *room, enum seal_what what, int64_t id, int64_t stream,
                       uint64_t number)
{
    const int64_t at[] = {id, stream, (int64_t)number};

    seal_about(room, what, at, ARRAY_LEN(at));
}

void seal_about_meta(struct seal_room *room, const struct spool_record_row *row)
{
    const int64_t at[] = {row->id,
                          row->stream,
                          (int64_t)row->number,
                          row->kind,
                          (int64_t)row->lines,
                          row->at_ns,
                          (int64_t)row->size,
                          row->blob};

    seal_about(room, SEAL_META, at, ARRAY_LEN(at));
}

void seal_about_value(struct seal_room *room, struct view space, struct view name)
{
    seal_about(room, SEAL_VALUE, NULL, 0);
    wire_put_view(&room->aad, space);
    wire_put_view(&room->aad, name);
}

struct view seal_put(struct spool *s, struct seal_room *room, int i, struct view plain)
{
    struct str *out = &room->value[i];

    if (!seal_on(s))
        return plain;
    str_clear(out);
    s->box->seal(s->box->ctx, str_view(&room->aad), plain, out);
    return str_view(out);
}

static const char *name_of(uint8_t what)
{
    switch (what) {
    case SEAL_META:
        return "record";
    case SEAL_BODY:
        return "body";
    case SEAL_PIECE:
        return "piece";
    case SEAL_VALUE:
        return "value";
    default:
        return "stream";
    }
}

static void say_broken(struct spool *s, const struct seal_room *room)
{
    static struct log_rate rate;
    struct wire w = wire_of(str_view(&room->aad));
    const uint8_t what = wire_u8(&w);
    uint64_t left_out;

    pthread_mutex_lock(&s->pub_lock);
    s->pub.damaged++;
    pthread_mutex_unlock(&s->pub_lock);
    if (log_rate_ok(&rate, 10, &left_out))
        log_event(
            LOG_ERROR, "spool", "a sealed value does not open: damaged, or changed by somebody",
            LF_STR("what", name_of(what)), LF_UINT("id", what == SEAL_VALUE ? 0 : wire_u64(&w)),
            LF_UINT("suppressed", left_out));
}

int seal_open(struct spool *s, struct seal_room *room, bool sealed, struct view stored,
              struct str *out)
{
    if (!sealed)
        str_addv(out, stored);
    else if (!s->box || s->box->open(s->box->ctx, str_view(&room->aad), stored, out) < 0) {
        say_broken(s, room);
        return -1;
    }
    return 0;
}

int seal_get(struct spool *s, struct seal_room *room, int i, bool sealed, struct view stored,
             struct view *plain)
{
    struct str *out = &room->value[i];

    *plain = VIEW_NONE;
    if (!sealed) {
        *plain = stored;
        return 0;
    }
    str_clear(out);
    if (seal_open(s, room, true, stored, out) < 0)
        return -1;
    *plain = str_view(out);
    return 0;
}

void seal_room_fini(struct seal_room *room)
{
    int i;

    str_fini(&room->aad);
    for (i = 0; i < SEAL_VIEWS; i++)
        str_wipe(&room->value[i]);
}

/* --- data keys ------------------------------------------------------------------------------ */

struct epoch_row {
    uint32_t id;
    bool used;
    struct str renewed; /* the data key sealed anew, if it has to be */
};

struct epochs {
    struct epoch_row *rows;
    size_t n, closed; /* closed: no key opens them */
    uint32_t last;
};

static void epochs_free(struct epochs *all)
{
    while (all->n)
        str_fini(&all->rows[--all->n].renewed);
    xfree(all->rows);
}

static void epoch_take(struct spool *s, struct epochs *all, sqlite3_stmt *q)
{
    struct epoch_row *row;

    all->rows = xrealloc(all->rows, (all->n + 1) * sizeof(*all->rows));
    row = &all->rows[all->n++];
    *row = (struct epoch_row){.id = (uint32_t)sqlite3_column_int64(q, 0)};
    all->last = TR_MAX(all->last, row->id);
    if (!s->box || s->box->take(s->box->ctx, row->id, sql_view(q, 1), &row->renewed) < 0)
        all->closed++;
}

static int epochs_read(struct spool *s, struct epochs *all, struct err *e)
{
    sqlite3_stmt *q = NULL;
    int rc;

    if (sql_prepare(s->db, "SELECT id,key FROM epoch ORDER BY id", &q, e) < 0)
        return -1;
    while ((rc = sqlite3_step(q)) == SQLITE_ROW)
        epoch_take(s, all, q);
    if (rc != SQLITE_DONE)
        sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot read the data keys", e);
    sqlite3_finalize(q);
    return rc == SQLITE_DONE ? 0 : -1;
}

/* A spool that is sealed stays as it is until somebody brings the key: what is in it was
 * acknowledged. */
static int epochs_check(const struct spool *s, const struct epochs *all, struct err *e)
{
    if (!all->closed)
        return 0;
    if (!s->box)
        return err_set(e, ERR_DENIED,
                       "spool: %s is sealed and there is no key: give spool.key the one that it "
                       "was sealed with",
                       s->path);
    return err_set(
        e, ERR_DENIED,
        "spool: spool.key does not open %s (%zu of its %zu data keys): name the key that "
        "it was sealed with in spool.old-keys",
        s->path, all->closed, all->n);
}

static void mark_used(struct epochs *all, struct view first)
{
    struct wire w = wire_of(first);
    uint32_t id = wire_u32(&w);
    size_t i;

    for (i = 0; i < all->n; i++)
        all->rows[i].used = all->rows[i].used || (!w.failed && all->rows[i].id == id);
}

/* Which data keys rows need: sealed values begin with the number of theirs. A record's body and
 * pieces have the one of its meta: they came in the same run, since pieces without a record are
 * dropped at each start. */
static int find_used(struct spool *s, struct epochs *all, struct err *e)
{
    static const char *const sources[] = {
        "SELECT DISTINCT substr(account,1,4) FROM stream WHERE sealed",
        "SELECT DISTINCT substr(state,1,4) FROM stream WHERE sealed",
        "SELECT DISTINCT substr(meta,1,4) FROM record WHERE sealed",
        "SELECT DISTINCT substr(meta,1,4) FROM dead WHERE sealed&1",
        "SELECT DISTINCT substr(account,1,4) FROM dead WHERE sealed&2",
        "SELECT DISTINCT substr(value,1,4) FROM value WHERE sealed",
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(sources); i++) {
        sqlite3_stmt *q = NULL;
        int rc;

        if (sql_prepare(s->db, sources[i], &q, e) < 0)
            return -1;
        while ((rc = sqlite3_step(q)) == SQLITE_ROW)
            mark_used(all, sql_view(q, 0));
        if (rc != SQLITE_DONE)
            sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot look for data keys", e);
        sqlite3_finalize(q);
        if (rc != SQLITE_DONE)
            return -1;
    }
    return 0;
}

/* Run a statement about one data key. */
static int epoch_write(struct spool *s, const char *sql, uint32_t id, struct view key,
                       struct err *e)
{
    sqlite3_stmt *q = NULL;
    int rc;

    if (sql_prepare(s->db, sql, &q, e) < 0)
        return -1;
    sqlite3_bind_int64(q, 1, id);
    if (key.p)
        sqlite3_bind_blob64(q, 2, key.p, key.n, SQLITE_STATIC);
    rc = sqlite3_step(q);
    if (rc != SQLITE_DONE)
        sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot keep a data key", e);
    sqlite3_finalize(q);
    return rc == SQLITE_DONE ? 0 : -1;
}

static int epochs_write(struct spool *s, struct epochs *all, struct err *e)
{
    bool look = all->n > EPOCHS_KEPT || !seal_on(s);
    size_t i;

    if (look && find_used(s, all, e) < 0)
        return -1;
    for (i = 0; i < all->n; i++) {
        struct epoch_row *row = &all->rows[i];
        int rc = 0;

        if (look && !row->used)
            rc = epoch_write(s, "DELETE FROM epoch WHERE id=?1", row->id, VIEW_NONE, e);
        else if (row->renewed.n)
            rc = epoch_write(s, "UPDATE epoch SET key=?2 WHERE id=?1", row->id,
                             str_view(&row->renewed), e);
        if (rc < 0)
            return -1;
    }
    return 0;
}

int seal_carry(struct spool *s, struct err *e)
{
    if (!seal_on(s))
        return 0;
    return epoch_write(s, "INSERT INTO epoch VALUES(?1,?2)", (uint32_t)s->epoch,
                       str_view(&s->epoch_key), e);
}

/* A new one at each start, so that no counter goes on from before a crash. */
static int epoch_begin(struct spool *s, uint32_t id, struct err *e)
{
    str_clear(&s->epoch_key);
    s->box->make(s->box->ctx, id, &s->epoch_key);
    s->epoch = id;
    return seal_carry(s, e);
}

/* --- small rows, as the configuration has it now --------------------------------------------- */

static int bind_again(struct spool *s, sqlite3_stmt *to, int at, bool was_sealed,
                      struct view stored)
{
    struct view v;

    if (seal_get(s, &s->room, 0, was_sealed, stored, &v) < 0)
        return -1;
    v = seal_put(s, &s->room, 1, v);
    sqlite3_bind_blob64(to, at, v.p ? v.p : "", v.n, SQLITE_TRANSIENT);
    return 0;
}

/* What cannot be opened stays as it is; recovery reports it. */
static bool stream_again(struct spool *s, sqlite3_stmt *from, sqlite3_stmt *to)
{
    static const enum seal_what what[] = {SEAL_ACCOUNT, SEAL_KEY, SEAL_STATE};
    int64_t id = sqlite3_column_int64(from, 0);
    int i;

    sqlite3_bind_int64(to, 1, id);
    for (i = 0; i < 3; i++) {
        seal_about(&s->room, what[i], &id, 1);
        if (bind_again(s, to, 3 + i, !seal_on(s), sql_view(from, 1 + i)) < 0)
            return false;
    }
    return true;
}

static bool value_again(struct spool *s, sqlite3_stmt *from, sqlite3_stmt *to)
{
    struct view space = sql_view(from, 0), name = sql_view(from, 1);

    sqlite3_bind_text(to, 1, space.p, (int)space.n, SQLITE_TRANSIENT);
    sqlite3_bind_blob64(to, 2, name.p ? name.p : "", name.n, SQLITE_TRANSIENT);
    seal_about_value(&s->room, space, name);
    return bind_again(s, to, 4, !seal_on(s), sql_view(from, 2)) == 0;
}

struct again {
    const char *read, *write;
    bool (*fill)(struct spool *s, sqlite3_stmt *from, sqlite3_stmt *to);
};

static int restate(struct spool *s, const struct again *a, struct err *e)
{
    sqlite3_stmt *from = NULL, *to = NULL;
    int rc = SQLITE_ERROR;

    if (sql_prepare(s->db, a->read, &from, e) < 0 || sql_prepare(s->db, a->write, &to, e) < 0)
        goto out;
    sqlite3_bind_int(from, 1, seal_on(s));
    while ((rc = sqlite3_step(from)) == SQLITE_ROW) {
        if (!a->fill(s, from, to))
            continue;
        sqlite3_bind_int(to, a->fill == stream_again ? 2 : 3, seal_on(s));
        rc = sqlite3_step(to);
        sqlite3_reset(to);
        if (rc != SQLITE_DONE)
            break;
    }
    if (rc != SQLITE_DONE)
        sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot seal what is there", e);
out:
    sqlite3_finalize(from);
    sqlite3_finalize(to);
    return rc == SQLITE_DONE ? 0 : -1;
}

static int bring_in_line(struct spool *s, struct err *e)
{
    static const struct again streams = {
        "SELECT id,account,key,state FROM stream WHERE sealed<>?1",
        "UPDATE stream SET account=?3,key=?4,state=?5,sealed=?2 WHERE id=?1", stream_again};
    static const struct again values = {
        "SELECT space,name,value FROM value WHERE sealed<>?1",
        "UPDATE value SET value=?4,sealed=?3 WHERE space=?1 AND name=?2", value_again};

    return restate(s, &streams, e) < 0 || restate(s, &values, e) < 0 ? -1 : 0;
}

/* --- at the start ---------------------------------------------------------------------------- */

static int change_keys(struct spool *s, struct err *e)
{
    struct epochs all = {0};
    int rc = epochs_read(s, &all, e);

    if (rc == 0)
        rc = epochs_check(s, &all, e);
    if (rc == 0 && seal_on(s))
        rc = epoch_begin(s, all.last + 1, e);
    if (rc == 0 && (s->box || all.n))
        rc = bring_in_line(s, e);
    if (rc == 0)
        rc = epochs_write(s, &all, e);
    epochs_free(&all);
    seal_room_fini(&s->room);
    return rc;
}

int64_t seal_look(struct spool *s, struct err *e)
{
    struct epochs all = {0};
    int rc = epochs_read(s, &all, e);
    int64_t closed = (int64_t)all.closed;

    epochs_free(&all);
    return rc < 0 ? -1 : closed;
}

int seal_load(struct spool *s, struct err *e)
{
    int rc;

    /* A spool at its limit must still be able to start. */
    if (sql_execf(s->db, e, "PRAGMA max_page_count=%u", s->max_pages + SLACK_PAGES) < 0)
        return -1;
    e->code = ERR_NONE;
    rc = recover_run(s, change_keys, e);
    if (rc == 1 && e->code == ERR_DENIED)
        rc = -1;
    if (sql_execf(s->db, NULL, "PRAGMA max_page_count=%u", s->max_pages) < 0 && rc == 0)
        rc = -1;
    return rc;
}
