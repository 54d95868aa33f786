#include "bed.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/xmem.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

int bed_setup(void **state)
{
    struct bed *b = XNEW(struct bed);
    const char *tmp = getenv("TMPDIR");

    snprintf(b->root, sizeof(b->root), "%s/spool-test-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(b->root))
        return -1;
    snprintf(b->dir, sizeof(b->dir), "%s/spool", b->root);
    b->opts = (struct spool_opts){.directory = b->dir, .limit = 64 << 20};
    *state = b;
    return 0;
}

int bed_teardown(void **state)
{
    struct bed *b = *state;

    if (b->s)
        spool_close(&b->s);
    bed_remove_tree(b->root);
    str_fini(&b->note);
    xfree(b);
    return 0;
}

void bed_remove_tree(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        char path[512];
        struct stat st;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
            bed_remove_tree(path);
        else
            unlink(path);
    }
    if (d)
        closedir(d);
    rmdir(dir);
}

void bed_open_only(struct bed *b)
{
    str_clear(&b->note);
    b->s = spool_open(&b->opts, &b->note, &b->err);
    if (!b->s)
        fail_msg("cannot open: %s", b->err.text);
}

void bed_open(struct bed *b)
{
    bed_open_only(b);
    if (spool_start(b->s, &b->err) < 0)
        fail_msg("cannot start: %s", b->err.text);
}

void bed_close(struct bed *b)
{
    spool_close(&b->s);
    assert_null(b->s);
}

void bed_add(int *n, int by)
{
    pthread_mutex_lock(&lock);
    *n += by;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void bed_wait(int *n, int want)
{
    struct timespec until;
    int rc = 0, seen;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += BED_WAIT_S;
    pthread_mutex_lock(&lock);
    while (*n != want && rc == 0)
        rc = pthread_cond_timedwait(&changed, &lock, &until);
    seen = *n;
    pthread_mutex_unlock(&lock);
    if (seen != want)
        fail_msg("waited for %d, there were %d", want, seen);
}

int bed_wait_change(int *n)
{
    struct timespec until;
    int rc = 0, seen;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += BED_WAIT_S;
    pthread_mutex_lock(&lock);
    while (*n == 0 && rc == 0)
        rc = pthread_cond_timedwait(&changed, &lock, &until);
    seen = *n;
    pthread_mutex_unlock(&lock);
    return seen;
}

void bed_count(void *ctx, const struct err *err)
{
    bed_add(ctx, err ? 1001 : 1);
}

struct one {
    int done;
    struct err err;
};

static void on_one(void *ctx, const struct err *err)
{
    struct one *o = ctx;

    if (err)
        o->err = *err;
    bed_add(&o->done, 1);
}

enum err_code bed_commit(struct bed *b, struct spool_txn *t)
{
    struct one o = {0};

    spool_submit(b->s, t, on_one, &o);
    bed_wait(&o.done, 1);
    b->err = o.err;
    return o.err.code;
}

struct one_read {
    struct spool_read r;
    int done;
};

static void on_read(struct spool_read *r)
{
    bed_add(&((struct one_read *)(void *)r)->done, 1);
}

static enum err_code read_one(struct bed *b, struct one_read *o, struct str *out)
{
    o->r.done = on_read;
    spool_read(b->s, &o->r);
    bed_wait(&o->done, 1);
    str_clear(out);
    str_addv(out, str_view(&o->r.data));
    str_fini(&o->r.data);
    b->err = o->r.err;
    return o->r.err.code;
}

enum err_code bed_read_record(struct bed *b, int64_t id, struct str *out)
{
    struct one_read o = {.r = {.record = id}};

    return read_one(b, &o, out);
}

enum err_code bed_read_piece(struct bed *b, int64_t blob, uint32_t seq, struct str *out)
{
    struct one_read o = {.r = {.blob = blob, .seq = seq}};

    return read_one(b, &o, out);
}

void bed_stream(struct bed *b, struct spool_stream *st, const char *key)
{
    struct spool_txn *t = spool_txn_new();

    spool_txn_stream(t, st, VIEW_LIT("account"), view_str(key), VIEW_LIT("state"));
    assert_int_equal(bed_commit(b, t), ERR_NONE);
}

enum err_code bed_record(struct bed *b, struct spool_stream *st, struct spool_record *r,
                         struct view body)
{
    struct spool_txn *t = spool_txn_new();

    r->body = body;
    spool_txn_record(t, st, r);
    return bed_commit(b, t);
}

enum err_code bed_delete(struct bed *b, int64_t id)
{
    struct spool_txn *t = spool_txn_new();

    spool_txn_delete(t, id);
    return bed_commit(b, t);
}

static int count_one(void *ctx, const struct spool_record_row *row)
{
    (void)row;
    ++*(int *)ctx;
    return 0;
}

int bed_count_records(struct bed *b)
{
    int n = 0;

    assert_int_equal(spool_each_record(b->s, count_one, &n, &b->err), 0);
    return n;
}

int64_t bed_ask(struct bed *b, const char *sql)
{
    char path[300];
    sqlite3 *db = NULL;
    sqlite3_stmt *q = NULL;
    int64_t n;

    snprintf(path, sizeof(path), "%s/spool.db", b->dir);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    n = sqlite3_step(q) == SQLITE_ROW ? sqlite3_column_int64(q, 0) : -1;
    sqlite3_finalize(q);
    sqlite3_close(db);
    return n;
}

bool bed_exists(struct bed *b, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", b->dir, name);
    return access(path, F_OK) == 0;
}

int bed_files_like(struct bed *b, const char *part)
{
    DIR *d = opendir(b->dir);
    struct dirent *e;
    int n = 0;

    while (d && (e = readdir(d)))
        n += strstr(e->d_name, part) != NULL;
    if (d)
        closedir(d);
    return n;
}

void bed_unseal_format(struct bed *b)
{
    static const char *const sql[] = {
        "DROP VIEW backlog",
        "DROP VIEW dead_letters",
        "DROP VIEW pieces",
        "DROP VIEW ledger_view",
        "DROP TABLE epoch",
        "ALTER TABLE stream DROP COLUMN sealed",
        "ALTER TABLE record DROP COLUMN sealed",
        "ALTER TABLE piece DROP COLUMN sealed",
        "ALTER TABLE dead DROP COLUMN sealed",
        "ALTER TABLE value DROP COLUMN sealed",
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(sql); i++)
        assert_int_equal(bed_ask(b, sql[i]), -1);
}
