#include "spool/spool.h"

#include "spool/spool_priv.h"
#include "spool/txn_priv.h"
#include "base/bug.h"
#include "base/xmem.h"
#include <signal.h>

enum { LIMIT_MIN = 1 << 20 };

static void library_init(void)
{
    /* The counters of memory in use cost a global lock per allocation. Refused, and not needed, if
     * somebody has started the library before. */
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    sqlite3_initialize();
}

static void locks_init(struct spool *s)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attr);
    pthread_cond_init(&s->r_wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->r_lock, NULL);
    pthread_mutex_init(&s->pub_lock, NULL);
    pthread_mutex_init(&s->rdb_lock, NULL);
}

struct spool *spool_alloc(const struct spool_opts *o)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    uint64_t limit = TR_MAX(o->limit, (uint64_t)LIMIT_MIN);
    struct spool *s = XNEW(struct spool);

    pthread_once(&once, library_init);
    OBJ_INIT(s, SPOOL_MAGIC);
    s->lock_fd = -1;
    s->dir = xstrdup(o->directory);
    s->sync = o->sync;
    s->box = o->box;
    s->limit = limit;
    s->max_pages = (uint32_t)TR_MIN(limit / SPOOL_PAGE, (uint64_t)1073741823);
    /* The log counts too: with a small limit it is kept to an eighth of it. */
    s->checkpoint_frames = TR_MIN((uint32_t)CHECKPOINT_FRAMES, s->max_pages / 8);
    s->max_pages -= s->checkpoint_frames;
    s->streams = (struct hmap)HMAP_INIT;
    list_init(&s->leaving);
    s->recent = xcalloc(RECENT, sizeof(*s->recent));
    s->queue.tail = &s->queue.head;
    s->r_tail = &s->r_head;
    s->pub.limit_bytes = limit;
    s->pub.log_bytes = (uint64_t)s->checkpoint_frames * SPOOL_PAGE;
    locks_init(s);
    return s;
}

static void database_close(struct spool *s)
{
    size_t i;

    if (s->vfs_ready && mend_is_due(s))
        database_disconnect(s);
    for (i = 0; i < ST_N; i++) {
        sqlite3_finalize(s->st[i]);
        s->st[i] = NULL;
    }
    sqlite3_close(s->db);
    s->db = NULL;
    streams_free(s);
}

void spool_free(struct spool *s)
{
    if (!s)
        return;
    database_close(s);
    if (s->vfs_ready)
        spool_vfs_fini(&s->vfs);
    place_leave(s);
    pthread_cond_destroy(&s->wake);
    pthread_cond_destroy(&s->r_wake);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->r_lock);
    pthread_mutex_destroy(&s->pub_lock);
    pthread_mutex_destroy(&s->rdb_lock);
    seal_room_fini(&s->room);
    str_fini(&s->epoch_key);
    xfree(s->recent);
    xfree(s->dir);
    OBJ_FINI(s);
    xfree(s);
}

int database_prepare(struct spool *s, struct err *e)
{
    static const char *const texts[] = {
/* NOLINTNEXTLINE(bugprone-macro-parentheses): an element of a table */
#define X(name, sql) [ST_##name] = sql,
        SPOOL_STATEMENTS(X) /* NOLINT(bugprone-suspicious-missing-comma): texts of many lines */
#undef X
    };
    size_t i;

    for (i = 0; i < ST_N; i++)
        if (sql_prepare(s->db, texts[i], &s->st[i], e) < 0)
            return -1;
    return 0;
}

/* 0: open; 1: the database is damaged; -1: cannot be opened. */
static int database_open(struct spool *s, struct err *e)
{
    int there = place_look(s, e);
    int rc;

    if (there < 0)
        return 1;
    /* A log without its database must not be taken for the new one's. */
    if (there == 0 && (place_clear(s, e) < 0 || place_create(s, e) < 0))
        return -1;
    rc = schema_open(s, there == 0, e);
    if (rc == 0)
        rc = seal_load(s, e);
    if (rc == 0)
        rc = recover_load(s, e);
    if (rc == 0 && database_prepare(s, e) < 0)
        rc = -1;
    if (rc != 0)
        database_close(s);
    return rc;
}

static int database_open_or_begin(struct spool *s, struct str *note, struct err *e)
{
    struct str aside = STR_INIT;
    int rc = database_open(s, e);

    /* On a full disk SQLite cannot even make its index of the log. */
    if (rc < 0 && e->code == ERR_FULL && place_give_reserve(s))
        rc = database_open(s, e);
    if (rc != 1)
        return rc;
    if (place_set_aside(s, &aside, e) < 0) {
        str_fini(&aside);
        return -1;
    }
    if (note)
        str_addf(note, "%s; it was set aside as %s and a fresh one begun", e->text, str_c(&aside));
    str_fini(&aside);
    rc = database_open(s, e);
    return rc == 1 ? -1 : rc;
}

struct spool *spool_open(const struct spool_opts *o, struct str *note, struct err *e)
{
    struct spool *s = spool_alloc(o);
    struct err local = {0};

    if (!e)
        e = &local;
    if (place_take(s, e) < 0)
        goto fail;
    if (spool_vfs_init(&s->vfs, e) < 0)
        goto fail;
    s->vfs_ready = true;
    if (database_open_or_begin(s, note, e) < 0)
        goto fail;
    place_reserve(s);
    place_count_all(s);
    writer_stats(s);
    return s;
fail:
    spool_free(s);
    return NULL;
}

/* Signals are for the threads that ask for them. */
static int thread_start(pthread_t *t, void *(*fn)(void *), void *arg, const char *name,
                        struct err *e)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(t, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return err_errno(e, ERR_IO, rc, "spool: cannot start a thread");
    pthread_setname_np(*t, name);
    return 0;
}

static void writer_stop(struct spool *s)
{
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->writer, NULL);
}

static void reader_stop(struct spool *s)
{
    pthread_mutex_lock(&s->r_lock);
    s->r_stopping = true;
    pthread_cond_signal(&s->r_wake);
    pthread_mutex_unlock(&s->r_lock);
    pthread_join(s->reader, NULL);
}

int spool_start(struct spool *s, struct err *e)
{
    OBJ_CHECK(s, SPOOL_MAGIC);
    ASSERT(!s->started);
    if (reader_open(s, e) < 0 || thread_start(&s->reader, reader_main, s, "spool-read", e) < 0) {
        reader_close(s);
        return -1;
    }
    if (thread_start(&s->writer, writer_main, s, "spool", e) < 0) {
        reader_stop(s);
        reader_close(s);
        s->r_stopping = false;
        return -1;
    }
    s->started = true;
    return 0;
}

void spool_close(struct spool **ps)
{
    struct spool *s = *ps;
    struct err ignored;

    *ps = NULL;
    if (!s)
        return;
    OBJ_CHECK(s, SPOOL_MAGIC);
    if (s->started) {
        writer_stop(s);
        reader_stop(s);
        reader_close(s);
    }
    writer_drain(s);
    /* If it fails the next start counts the numbers anew. */
    if (mend(s, &ignored) < 0 || writer_goodbye(s, &ignored) < 0)
        s->clean = false;
    spool_free(s);
}

void spool_submit(struct spool *s, struct spool_txn *t, spool_done_fn done, void *ctx)
{
    bool wake;

    t->done = done;
    t->ctx = ctx;
    t->next = NULL;
    pthread_mutex_lock(&s->lock);
    *s->queue.tail = t;
    s->queue.tail = &t->next;
    wake = s->writer_waits;
    s->writer_waits = false;
    pthread_mutex_unlock(&s->lock);
    if (wake)
        pthread_cond_signal(&s->wake);
}

int64_t spool_blob_id(struct spool *s)
{
    return atomic_fetch_add_explicit(&s->next_blob, 1, memory_order_relaxed);
}

void spool_read(struct spool *s, struct spool_read *r)
{
    bool wake;

    r->next = NULL;
    pthread_mutex_lock(&s->r_lock);
    wake = s->r_head == NULL;
    *s->r_tail = r;
    s->r_tail = &r->next;
    pthread_mutex_unlock(&s->r_lock);
    if (wake)
        pthread_cond_signal(&s->r_wake);
}

unsigned spool_generation(const struct spool *s)
{
    return atomic_load_explicit(&s->generation, memory_order_acquire);
}

void spool_ledger(struct spool *s, int64_t out[LEDGER_N])
{
    pthread_mutex_lock(&s->pub_lock);
    memcpy(out, s->pub_ledger, sizeof(s->pub_ledger));
    pthread_mutex_unlock(&s->pub_lock);
}

void spool_stats(struct spool *s, struct spool_stats *out)
{
    pthread_mutex_lock(&s->pub_lock);
    *out = s->pub;
    pthread_mutex_unlock(&s->pub_lock);
    out->written_bytes = atomic_load_explicit(&s->vfs.written, memory_order_relaxed);
}
