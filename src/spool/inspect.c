#include "spool/inspect.h"

#include "spool/dead_priv.h"
#include "spool/spool_priv.h"
#include "base/xmem.h"
#include "rt/fdx.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

/* Ids between the last readable row and the end that are tried one by one, after damage. */
enum { TRY_MAX = 5000000, BAD_MAX = 100 };

/* --- opening ------------------------------------------------------------------------------ */

/* Without the log and without locks: all that is left where nothing can be written. */
static char *immutable_uri(const char *file)
{
    struct str uri = STR_INIT;
    const char *p;

    str_adds(&uri, "file:");
    for (p = file; *p; p++) {
        if (strchr("?#% ", *p))
            str_addf(&uri, "%%%02X", (unsigned char)*p);
        else
            str_addc(&uri, *p);
    }
    str_adds(&uri, "?immutable=1");
    return str_take(&uri);
}

static int try_open(struct spool *s, const char *name, int flags, struct err *e)
{
    int64_t n;
    int rc = sqlite3_open_v2(name, &s->db, SQLITE_OPEN_READONLY | flags, s->vfs.name);

    if (rc != SQLITE_OK)
        sql_error(s->db, rc, "cannot open the database", e);
    else
        sqlite3_busy_timeout(s->db, BUSY_MS);
    if (rc == SQLITE_OK && sql_int(s->db, "SELECT count(*) FROM sqlite_schema", 0, &n, e) == 0)
        return 0;
    rc = sqlite3_errcode(s->db);
    sqlite3_close(s->db);
    s->db = NULL;
    return rc == SQLITE_CANTOPEN || rc == SQLITE_READONLY ? 1 : -1;
}

static int open_file(struct spool *s, struct str *note, struct err *e)
{
    int rc = try_open(s, s->path, 0, e);
    char *uri;

    if (rc == 1) {
        uri = immutable_uri(s->path);
        rc = try_open(s, uri, SQLITE_OPEN_URI, e);
        if (rc == 0) {
            str_adds(note, "its directory cannot be written to: what is in the log only is not "
                           "seen. Copy the file and its -wal elsewhere to see all");
            xfree(s->path);
            s->path = uri;
            s->by_uri = true;
        } else {
            xfree(uri);
        }
    }
    if (rc != 0)
        return err_prefix(e, "%s", s->path);
    sqlite3_extended_result_codes(s->db, 1);
    return 0;
}

static int is_ours(struct spool *s, struct err *e)
{
    int64_t application = 0, format = 0;

    if (sql_int(s->db, "PRAGMA application_id", 0, &application, e) < 0 ||
        sql_int(s->db, "PRAGMA user_version", 0, &format, e) < 0)
        return -1;
    if (application != SPOOL_APPLICATION_ID)
        return err_set(e, ERR_INVALID, "%s is no spool of ours", s->path);
    if (format > SPOOL_FORMAT)
        return err_set(e, ERR_INVALID, "%s has format %lld and this program knows %d", s->path,
                       (long long)format, SPOOL_FORMAT);
    s->format = (int)format;
    return schema_shim(s, s->db, e);
}

/* What cannot be opened does not keep all else from being seen. */
static void take_keys(struct spool *s, struct str *note)
{
    struct err ignored;
    int64_t closed = s->format < SPOOL_FORMAT ? 0 : seal_look(s, &ignored);

    if (closed < 0)
        str_addf(note, "%sits data keys cannot be read: what is sealed is not seen",
                 note->n ? "; " : "");
    else if (closed > 0)
        str_addf(note,
                 "%s%lld of its data keys are not opened by the keys that were given: what is "
                 "sealed with them is not seen",
                 note->n ? "; " : "", (long long)closed);
}

struct spool *spool_inspect(const char *file, const struct box *box, struct str *note,
                            struct err *e)
{
    struct spool *s = spool_alloc(&(struct spool_opts){.directory = "", .limit = 0, .box = box});

    if (access(file, R_OK) < 0) {
        err_errno(e, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, errno, "%s", file);
        goto fail;
    }
    s->path = xstrdup(file);
    if (spool_vfs_init(&s->vfs, e) < 0)
        goto fail;
    s->vfs_ready = true;
    if (open_file(s, note, e) < 0 || is_ours(s, e) < 0)
        goto fail;
    take_keys(s, note);
    if (reader_open(s, e) < 0) {
        err_prefix(e, "%s", file);
        goto fail;
    }
    return s;
fail:
    spool_inspect_end(&s);
    return NULL;
}

void spool_inspect_end(struct spool **s)
{
    if (*s)
        reader_close(*s);
    spool_free(*s);
    *s = NULL;
}

long spool_used_by(const char *directory)
{
    struct str path = STR_INIT;
    char pid[32] = "";
    long out = 0;
    int fd;

    str_addf(&path, "%s/spool.lock", directory);
    fd = open(str_c(&path), O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        out = read(fd, pid, sizeof(pid) - 1) > 0 ? strtol(pid, NULL, 10) : -1;
    fd_close(&fd);
    str_fini(&path);
    return out;
}

/* --- structure ---------------------------------------------------------------------------- */

int spool_inspect_check(struct spool *s, void (*bad)(void *ctx, const char *text), void *ctx,
                        struct err *e)
{
    sqlite3_stmt *q = NULL;
    int rc, n = 0;

    if (sql_prepare(s->db, "PRAGMA integrity_check(100)", &q, e) < 0)
        return -1;
    while ((rc = sqlite3_step(q)) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(q, 0);

        if (!text || strcmp(text, "ok") == 0)
            continue;
        bad(ctx, text);
        n++;
    }
    if (rc != SQLITE_DONE) {
        bad(ctx, sqlite3_errmsg(s->db));
        n++;
    }
    sqlite3_finalize(q);
    return n;
}

/* --- rows --------------------------------------------------------------------------------- */

struct walk {
    struct spool *s;
    const char *columns, *table;
    void (*row)(struct walk *w, sqlite3_stmt *q);
    union {
        spool_stream_fn stream;
        spool_record_fn record;
        spool_dead_fn dead;
    } fn;
    void *ctx;
    uint64_t *lost;
    struct err *e;
};

/* Rows with ids above `at`, until the end (true) or an error; `at` is the last one's. */
static bool walk_on(struct walk *w, sqlite3_stmt *q, int64_t *at)
{
    int rc;

    sqlite3_bind_int64(q, 1, *at);
    while ((rc = sqlite3_step(q)) == SQLITE_ROW) {
        *at = sqlite3_column_int64(q, 0);
        w->row(w, q);
    }
    if (rc != SQLITE_DONE)
        sql_error(w->s->db, sqlite3_extended_errcode(w->s->db), w->table, w->e);
    sqlite3_reset(q);
    return rc == SQLITE_DONE;
}

/* Is there a readable row of that id? It is not given: the walk goes on just before it. */
static bool is_there(sqlite3_stmt *q, int64_t id)
{
    bool found;

    sqlite3_bind_int64(q, 1, id);
    found = sqlite3_step(q) == SQLITE_ROW;
    sqlite3_reset(q);
    return found;
}

/* Where to stop looking: ids from there on were never used, as far as the database says. */
static int64_t last_id(const struct walk *w)
{
    char sql[128];
    int64_t top = 0, known = 0;
    struct err ignored;

    sqlite3_snprintf(sizeof(sql), sql, "SELECT coalesce(max(id),0) FROM %s", w->table);
    if (sql_int(w->s->db, sql, 0, &top, &ignored) < 0)
        top = 0;
    sqlite3_snprintf(sizeof(sql), sql, "SELECT value FROM counter WHERE name='%s'",
                     strcmp(w->table, "stream") == 0 ? "stream" : "record");
    if (sql_int(w->s->db, sql, 0, &known, &ignored) < 0)
        known = 0;
    return TR_MAX(top, known);
}

static void walk_table(struct walk *w)
{
    sqlite3_stmt *next = NULL, *one = NULL;
    char sql[300];
    int64_t at = INT64_MIN, top;
    struct err ignored;

    if (!w->e) {
        /* cppcheck-suppress autoVariables ; until the end, where it is taken back */
        w->e = &ignored;
    }
    sqlite3_snprintf(sizeof(sql), sql, "SELECT %s FROM %s WHERE id>?1 ORDER BY id", w->columns,
                     w->table);
    if (sql_prepare(w->s->db, sql, &next, w->e) < 0) {
        (*w->lost)++;
        goto out;
    }
    sqlite3_snprintf(sizeof(sql), sql, "SELECT %s FROM %s WHERE id=?1", w->columns, w->table);
    if (!walk_on(w, next, &at) && sql_prepare(w->s->db, sql, &one, w->e) == 0) {
        (*w->lost)++;
        at = TR_MAX(at, 0);
        top = TR_MIN(last_id(w), at + TRY_MAX);
        while (++at <= top) {
            int64_t before = at - 1;

            if (!is_there(one, at))
                continue;
            if (walk_on(w, next, &before))
                break;
            (*w->lost)++;
            at = TR_MAX(before, at);
        }
    }
out:
    sqlite3_finalize(one);
    sqlite3_finalize(next);
    if (w->e == &ignored)
        w->e = NULL;
}

static void stream_row(struct walk *w, sqlite3_stmt *q)
{
    struct spool_stream_row row = recover_stream_row(w->s, q);

    w->fn.stream(w->ctx, &row);
}

void spool_inspect_streams(struct spool *s, spool_stream_fn fn, void *ctx, uint64_t *lost,
                           struct err *e)
{
    struct walk w = {s, SPOOL_STREAM_COLUMNS, "stream", stream_row, {.stream = fn}, ctx, lost, e};

    walk_table(&w);
}

static bool is_gone(struct spool *s, int64_t id)
{
    char sql[64];
    int64_t gone = 0;
    struct err ignored;

    sqlite3_snprintf(sizeof(sql), sql, "SELECT 1 FROM gone WHERE id=%lld", (long long)id);
    return sql_int(s->db, sql, 0, &gone, &ignored) == 0 && gone;
}

static void record_row(struct walk *w, sqlite3_stmt *q)
{
    struct spool_record_row row = recover_row(w->s, &w->s->room, q);

    if (!is_gone(w->s, row.id))
        w->fn.record(w->ctx, &row);
}

void spool_inspect_records(struct spool *s, spool_record_fn fn, void *ctx, uint64_t *lost,
                           struct err *e)
{
    struct walk w = {s, SPOOL_RECORD_COLUMNS, "record", record_row, {.record = fn}, ctx, lost, e};

    walk_table(&w);
}

static void dead_row(struct walk *w, sqlite3_stmt *q)
{
    struct spool_dead_row row = recover_dead_row(w->s, &w->s->room, q);

    w->fn.dead(w->ctx, &row);
}

void spool_inspect_dead(struct spool *s, spool_dead_fn fn, void *ctx, uint64_t *lost, struct err *e)
{
    struct walk w = {s, SPOOL_DEAD_COLUMNS, "dead", dead_row, {.dead = fn}, ctx, lost, e};

    walk_table(&w);
}

/* --- sums --------------------------------------------------------------------------------- */

const char *spool_ledger_name(enum ledger_row row)
{
    static const char *const names[] = {
/* NOLINTNEXTLINE(bugprone-macro-parentheses): an element of a table */
#define X(e, name, family, state, help) [LEDGER_##e] = name,
        LEDGER_ROWS(X)
#undef X
    };

    return names[row];
}

static int read_sums(struct spool *s, struct spool_sums *o, struct err *e)
{
    static const char waits[] = " FROM record WHERE id NOT IN gone";
    const struct {
        const char *what, *from;
        int64_t *to;
    } sums[] = {
        {"sum(lines)", waits, &o->lines},
        {"sum(blob<>0)", waits, &o->blobs},
        {"count(*)", waits, &o->records},
        {"sum(size)", waits, &o->bytes},
        {"min(at)", waits, &o->oldest_ns},
        {"count(*)", " FROM stream", &o->streams},
        {"count(*)", " FROM dead", &o->dead},
        {"sum(lines)", " FROM dead", &o->dead_lines},
        {"sum(blob<>0)", " FROM dead", &o->dead_blobs},
        {"count(*)", " FROM piece WHERE id>>24 NOT IN (SELECT id FROM blob)", &o->loose_pieces},
        {"user_version", " FROM pragma_user_version", &o->format},
        {"page_count", " FROM pragma_page_count", &o->pages},
    };
    char sql[128];
    size_t i;

    for (i = 0; i < ARRAY_LEN(sums); i++) {
        sqlite3_snprintf(sizeof(sql), sql, "SELECT coalesce(%s,0)%s", sums[i].what, sums[i].from);
        if (sql_int(s->db, sql, 0, sums[i].to, e) < 0)
            return -1;
    }
    for (i = 0; i < LEDGER_N; i++) {
        sqlite3_snprintf(sizeof(sql), sql, "SELECT value FROM ledger WHERE name='%s'",
                         spool_ledger_name((enum ledger_row)i));
        if (sql_int(s->db, sql, 0, &o->ledger[i], e) < 0)
            return -1;
    }
    return 0;
}

int spool_inspect_sums(struct spool *s, struct spool_sums *out, struct err *e)
{
    int rc;

    *out = (struct spool_sums){0};
    if (sql_exec(s->db, "BEGIN", e) < 0)
        return -1;
    rc = read_sums(s, out, e);
    sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    return rc;
}

void spool_inspect_read(struct spool *s, struct spool_read *r)
{
    reader_serve(s, r);
}
