#include "spool/spool_priv.h"

#include "spool/txn_priv.h"
#include "rt/fault.h"
#include <errno.h>
#include <time.h>

/*
 * The writer thread: takes the whole queue, commits it as one group and calls back in order. A
 * group that fails is rolled back and its transactions are tried one by one, so that one that is
 * poisoned or too large fails alone.
 */

static void rollback(struct spool *s)
{
    if (sql_is_corrupt(sqlite3_errcode(s->db)))
        atomic_store(&s->damaged, true);
    /* SQLite has rolled back by itself after some errors. */
    if (!sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    (void)spool_vfs_forget(&s->vfs, s->db); /* what it cannot void, the next commit overwrites */
    exec_undo(s);
}

static int commit(struct spool *s, struct err *e)
{
    fault_point("spool-before-commit");
    if (fault_point("spool-commit"))
        return err_set(e, ERR_IO, "spool: a test wants this commit to fail");
    if (exec_step(s, ST_COMMIT, e) < 0)
        return -1;
    fault_point("spool-after-commit");
    return 0;
}

/* Commit `n` transactions from `t` on as one; -1: nothing of them happened. */
static int commit_run(struct spool *s, struct spool_txn *t, size_t n, struct err *e)
{
    s->locked_out = false;
    if (mend(s, e) < 0)
        return -1;
    if (exec_step(s, ST_BEGIN, e) < 0) {
        s->locked_out = (sqlite3_errcode(s->db) & 0xff) == SQLITE_BUSY;
        if (sql_is_corrupt(sqlite3_errcode(s->db)))
            atomic_store(&s->damaged, true);
        return -1;
    }
    for (; n; n--, t = t->next) {
        fault_point("spool-in-group");
        if (exec_txn(s, t, e) < 0)
            goto fail;
        s->bytes_since_stats += t->bytes;
    }
    if (exec_group_end(s, e) < 0 || commit(s, e) < 0)
        goto fail;
    exec_keep(s);
    s->stats_due = true;
    return 0;
fail:
    rollback(s);
    return -1;
}

/* --- making room ------------------------------------------------------------------------- */

static int checkpoint(struct spool *s, int mode)
{
    int frames = 0, done = 0, rc;

    if (mend_is_due(s))
        return SQLITE_IOERR;
    fault_point("spool-before-checkpoint");
    sqlite3_busy_timeout(s->db, LOG_WAIT_MS);
    rc = sqlite3_wal_checkpoint_v2(s->db, NULL, mode, &frames, &done);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    fault_point("spool-after-checkpoint");
    if (sql_is_corrupt(rc))
        atomic_store(&s->damaged, true);
    s->checkpointed_at = s->wal_frames;
    if (rc == SQLITE_OK && mode != SQLITE_CHECKPOINT_PASSIVE)
        s->wal_frames = s->checkpointed_at = 0;
    return rc;
}

static void set_max_pages(struct spool *s, uint32_t pages)
{
    char sql[64];

    sqlite3_snprintf(sizeof(sql), sql, "PRAGMA max_page_count=%u", pages);
    if (s->db)
        sqlite3_exec(s->db, sql, NULL, NULL, NULL);
}

/*
 * Sweep in a transaction of its own, which may go a little over the limit. False: nothing was gone,
 * or it could not be done and stays noted for the next group.
 */
static bool sweep_alone(struct spool *s)
{
    struct err ignored;
    int rc;

    if (s->gone.records == 0)
        return false;
    s->sweep_now = true;
    set_max_pages(s, s->max_pages + SLACK_PAGES);
    rc = commit_run(s, NULL, 0, &ignored);
    set_max_pages(s, s->max_pages);
    s->sweep_now = false;
    return rc == 0;
}

/*
 * The disk or the limit is full. What is gone makes room in the database. The log starts over once
 * it is copied there, for which the database may have to grow: that is what the reserve is for.
 */
static void make_room(struct spool *s)
{
    int rc;

    sweep_alone(s);
    rc = checkpoint(s, SQLITE_CHECKPOINT_RESTART);
    if (rc != SQLITE_OK && rc != SQLITE_BUSY && place_give_reserve(s))
        checkpoint(s, SQLITE_CHECKPOINT_RESTART);
}

/* Somebody reads for so long that the log grows without end. */
static bool log_is_overgrown(const struct spool *s)
{
    return s->wal_frames >= 4 * LOG_LONG * s->checkpoint_frames ||
           (uint64_t)s->wal_frames * FRAME_BYTES > s->limit;
}

/* One alone. What makes room may go a little over the limit, or nothing would ever be deleted. */
static int commit_single(struct spool *s, struct spool_txn *t, struct err *e)
{
    int rc;

    if (t->grows && log_is_overgrown(s))
        return err_set(e, ERR_FULL, "spool: the log is too long: somebody reads the database");
    rc = commit_run(s, t, 1, e);
    if (rc < 0 && e->code == ERR_FULL && sweep_alone(s))
        rc = commit_run(s, t, 1, e);
    if (rc == 0 || e->code != ERR_FULL || t->grows)
        return rc;
    make_room(s);
    set_max_pages(s, s->max_pages + SLACK_PAGES);
    rc = commit_run(s, t, 1, e);
    set_max_pages(s, s->max_pages);
    return rc;
}

/* --- groups ------------------------------------------------------------------------------ */

static void publish(struct spool *s, uint64_t committed, uint64_t failed, const struct err *why)
{
    const bool failing = why != NULL;

    pthread_mutex_lock(&s->pub_lock);
    memcpy(s->pub_ledger, s->ledger, sizeof(s->ledger));
    s->pub.commits += committed > 0;
    s->pub.transactions += committed;
    s->pub.failed += failed;
    s->pub.failing = failing;
    s->pub.dead = (uint64_t)s->undo_dead;
    pthread_mutex_unlock(&s->pub_lock);
    if (why)
        s->trouble = why->code;
    mend_say(s, failing, why);
}

static void finish(struct spool_txn *t, const struct err *err)
{
    bool kept = t->kept;

    if (!err)
        exec_publish(t);
    if (t->done)
        t->done(t->ctx, err);
    if (!kept) /* one that is kept may be gone by now */
        spool_txn_free(&t);
}

static void finish_all(struct spool_txn *t, size_t n)
{
    for (; n; n--) {
        struct spool_txn *next = t->next;

        finish(t, NULL);
        fault_point("spool-between-callbacks");
        t = next;
    }
}

/* Whether the spool is in trouble, and not just that transaction. */
static bool is_trouble(const struct err *e)
{
    return e->code == ERR_FULL || e->code == ERR_IO;
}

/* False: nothing could be committed. A foreign lock has been waited for once: that is enough. */
static bool run_singles(struct spool *s, struct spool_txn *t, size_t n, struct err *why)
{
    bool any = false;
    struct err trouble = {0};

    for (; n; n--) {
        struct spool_txn *next = t->next;
        struct err err = *why;

        if (!s->locked_out && commit_single(s, t, &err) == 0) {
            any = true;
            publish(s, 1, 0, trouble.code ? &trouble : NULL);
            finish(t, NULL);
        } else {
            if (is_trouble(&err))
                trouble = err;
            publish(s, 0, 1, trouble.code ? &trouble : NULL);
            finish(t, &err);
        }
        t = next;
    }
    return any || !trouble.code;
}

/* False: nothing could be committed. */
static bool run_group(struct spool *s, struct spool_txn *t, size_t n)
{
    struct err err = {0};

    s->locked_out = false;
    if (n > 1 && !log_is_overgrown(s) && commit_run(s, t, n, &err) == 0) {
        publish(s, n, 0, NULL);
        finish_all(t, n);
        return true;
    }
    if (err.code == ERR_FULL)
        make_room(s);
    return run_singles(s, t, n, &err);
}

/* How many from `t` on make up the next group. */
static size_t group_size(struct spool_txn *t)
{
    size_t n = 0, bytes = 0;

    for (; t && n < GROUP_TXNS; t = t->next, n++) {
        bytes += t->bytes;
        if (n > 0 && bytes > GROUP_BYTES)
            break;
    }
    return n;
}

/* After the callbacks, so that nobody's acknowledgement waits for it but the next group's. */
static void maybe_checkpoint(struct spool *s)
{
    if (s->wal_frames < s->checkpointed_at)
        s->checkpointed_at = 0;
    if (log_is_overgrown(s))
        checkpoint(s, SQLITE_CHECKPOINT_RESTART);
    else if (s->wal_frames - s->checkpointed_at >= s->checkpoint_frames)
        checkpoint(s, s->wal_frames >= LOG_LONG * s->checkpoint_frames ? SQLITE_CHECKPOINT_RESTART
                                                                       : SQLITE_CHECKPOINT_PASSIVE);
}

/* --- what others may see ----------------------------------------------------------------- */

static int64_t ask(struct spool *s, enum spool_statement which)
{
    sqlite3_stmt *q = s->st[which];
    int64_t n = sqlite3_step(q) == SQLITE_ROW ? sqlite3_column_int64(q, 0) : 0;

    sqlite3_reset(q);
    return n;
}

void writer_stats(struct spool *s)
{
    uint64_t limit = s->limit - (uint64_t)s->checkpoint_frames * SPOOL_PAGE;
    uint64_t room, disk = place_free(s);
    int64_t used, oldest, unused;

    if (!s->db || sqlite3_exec(s->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
        return;
    unused = ask(s, ST_PAGES_FREE) * SPOOL_PAGE;
    used = ask(s, ST_PAGES) * SPOOL_PAGE - unused;
    oldest = ask(s, ST_OLDEST);
    sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    used += (int64_t)s->wal_frames * FRAME_BYTES;
    room = (uint64_t)used < limit ? limit - (uint64_t)used : 0;
    pthread_mutex_lock(&s->pub_lock);
    s->pub.used_bytes = (uint64_t)used;
    s->pub.oldest_at_ns = oldest;
    s->pub.free_bytes = disk;
    s->pub.room_bytes = disk < room ? TR_MIN(room, disk + (uint64_t)unused) : room;
    pthread_mutex_unlock(&s->pub_lock);
    s->stats_due = false;
    s->stats_ns = clock_mono_ns();
    s->bytes_since_stats = 0;
}

/* The reserve was given away on a full disk; when that has passed it is made again. */
static void maybe_reserve(struct spool *s)
{
    int64_t now;

    if (s->reserve_there || s->pub.failing)
        return;
    now = clock_mono_ns();
    if (now - s->reserve_tried_ns < RESERVE_AGAIN_S * NS_PER_SEC)
        return;
    s->reserve_tried_ns = now;
    place_reserve(s);
}

static void maybe_stats(struct spool *s)
{
    /* Who is to leave room must know of what was taken before a small spool is full. */
    if (s->stats_due && (s->bytes_since_stats >= TR_MIN((uint64_t)1 << 20, s->limit / 64) ||
                         clock_mono_ns() - s->stats_ns >= STATS_MS * NS_PER_MS))
        writer_stats(s);
}

/* --- the thread -------------------------------------------------------------------------- */

static struct timespec deadline(int64_t ms)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_nsec += ms % 1000 * NS_PER_MS;
    ts.tv_sec += ms / 1000 + ts.tv_nsec / NS_PER_SEC;
    ts.tv_nsec %= NS_PER_SEC;
    return ts;
}

/* Nothing could be committed: give the disk a moment. */
static void pause_after_failure(struct spool *s)
{
    struct timespec until = deadline(FAIL_PAUSE_MS);

    pthread_mutex_lock(&s->lock);
    while (!s->stopping && pthread_cond_timedwait(&s->wake, &s->lock, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&s->lock);
}

/* How many transactions that were. */
static size_t run_all(struct spool *s, struct spool_txn *t, bool pause)
{
    size_t total = 0;

    while (t) {
        size_t n = group_size(t), i;
        struct spool_txn *rest = t;
        bool ok;

        for (i = 0; i < n; i++)
            rest = rest->next;
        ok = run_group(s, t, n);
        maybe_checkpoint(s);
        maybe_stats(s);
        maybe_reserve(s);
        if (!ok && pause)
            pause_after_failure(s);
        t = rest;
        total += n;
    }
    return total;
}

static struct spool_txn *take_all(struct spool *s)
{
    struct spool_txn *t = s->queue.head;

    s->queue.head = NULL;
    s->queue.tail = &s->queue.head;
    return t;
}

/* Is there room for more than a probe? Else `failing` would come and go on a full disk. */
static bool has_some_room(const struct spool *s)
{
    return s->trouble != ERR_FULL || s->pub.room_bytes >= s->limit / PROBE_ROOM;
}

/*
 * Commits fail, and nobody sends any, perhaps just because the gateway says that it is not ready:
 * try one. Holds the lock on entry and return.
 */
static void recover_idle(struct spool *s, int64_t ms)
{
    struct timespec until = deadline(atomic_load(&s->damaged) && !s->pub.failing ? 0 : ms);
    struct err e = {0};

    s->writer_waits = true;
    while (!s->queue.head && !s->stopping &&
           pthread_cond_timedwait(&s->wake, &s->lock, &until) != ETIMEDOUT)
        ;
    if (s->queue.head || s->stopping)
        return;
    pthread_mutex_unlock(&s->lock);
    if (!mend_is_due(s) && !s->pub.failing) {
        mend_say(s, false, NULL);
        pthread_mutex_lock(&s->lock);
        return;
    }
    s->clean = true; /* so that there is something to write: the mark that says it is not */
    if (commit_run(s, NULL, 0, &e) < 0) {
        publish(s, 0, 0, &e);
    } else {
        writer_stats(s);
        if (has_some_room(s))
            publish(s, 0, 0, NULL);
    }
    s->clean = false;
    pthread_mutex_lock(&s->lock);
}

/* The queue as one list, or NULL when the thread is to stop. */
static struct spool_txn *wait_for_work(struct spool *s)
{
    struct spool_txn *t;

    pthread_mutex_lock(&s->lock);
    while (!s->queue.head && !s->stopping) {
        struct timespec until = deadline(STATS_MS);

        if (atomic_load(&s->damaged) || s->pub.failing || s->trouble_ns) {
            recover_idle(s, PROBE_MS);
            continue;
        }
        s->writer_waits = true;
        if (!s->stats_due) {
            pthread_cond_wait(&s->wake, &s->lock);
        } else if (pthread_cond_timedwait(&s->wake, &s->lock, &until) == ETIMEDOUT) {
            pthread_mutex_unlock(&s->lock);
            sweep_alone(s);
            writer_stats(s);
            s->stats_due = false; /* also if it failed: the next commit asks again */
            pthread_mutex_lock(&s->lock);
        }
    }
    s->writer_waits = false;
    t = take_all(s);
    pthread_mutex_unlock(&s->lock);
    return t;
}

/*
 * Under load a group fills itself while the one before it is written, but on a fast disk it does
 * not fill much: a sync, the ledger's page and the wake-ups are then paid for a handful of records.
 * So groups begin PACE_US apart at least, once there are several transactions in one.
 */
static void pace(int64_t began, size_t n)
{
    int64_t left = began + PACE_US * 1000LL - clock_mono_ns();
    struct timespec ts = {0, left};

    if (n >= PACE_TXNS && left > 0)
        nanosleep(&ts, NULL);
}

void *writer_main(void *arg)
{
    struct spool *s = arg;
    struct spool_txn *t;

    while ((t = wait_for_work(s))) {
        int64_t began = clock_mono_ns();
        size_t n = run_all(s, t, true);

        pace(began, n);
    }
    return NULL;
}

void writer_drain(struct spool *s)
{
    struct spool_txn *t;

    for (;;) {
        pthread_mutex_lock(&s->lock);
        t = take_all(s);
        pthread_mutex_unlock(&s->lock);
        if (!t)
            return;
        run_all(s, t, false);
    }
}

/* --- the end ----------------------------------------------------------------------------- */

static void want_exact(struct spool *s)
{
    size_t slot = 0;
    struct hnode *n;

    for (n = hmap_walk(&s->streams, &slot, NULL); n; n = hmap_walk(&s->streams, &slot, n)) {
        struct wstream *ws = hmap_entry(n, struct wstream, node);

        if (ws->saved == ws->next || ws->lost)
            continue;
        ws->undo_next = ws->next;
        ws->undo_saved = ws->saved;
        ws->undo_lost = ws->lost;
        ws->touched = ws->save = true;
        ws->touched_next = s->touched;
        s->touched = ws;
    }
    s->record_ids.reserved = s->record_ids.next;
    s->stream_ids.reserved = s->stream_ids.next;
    s->blob_ids.reserved = TR_MAX(s->blob_ids.next, atomic_load(&s->next_blob));
}

int writer_goodbye(struct spool *s, struct err *e)
{
    if (exec_step(s, ST_BEGIN, e) < 0)
        return -1;
    s->clean = false;
    s->sweep_now = true;
    want_exact(s);
    sqlite3_bind_text(s->st[ST_COUNTER_SET], 1, "clean", -1, SQLITE_STATIC);
    sqlite3_bind_int64(s->st[ST_COUNTER_SET], 2, 1);
    fault_point("spool-goodbye");
    if (exec_step(s, ST_COUNTER_SET, e) < 0 || exec_group_end(s, e) < 0 ||
        exec_step(s, ST_COMMIT, e) < 0) {
        rollback(s);
        return -1;
    }
    exec_keep(s);
    checkpoint(s, SQLITE_CHECKPOINT_TRUNCATE); /* what cannot be copied now, the next start will */
    return 0;
}
