#include "spool/spool_priv.h"

#include "base/bug.h"
#include "rt/log.h"
#include <errno.h>
#include <unistd.h>

enum { DOUBTS_MAX = 3 };

/*
 * What the writer does about a bad disk, between transactions.
 *
 * A sync that failed is never repeated on the same descriptor: the system reports a failed
 * write-back once and may drop the bytes, and a second sync then says yes to what is not on the
 * disk. The commit has failed, its frames are made void, and both connections are closed. The next
 * attempt opens new ones: SQLite reads the log again, checking every frame's sum, and a checkpoint
 * copies all of it to the database, whatever an earlier one had copied (recovery starts at the
 * first frame). So whatever the failed sync may have lost is written once more.
 *
 * A damaged database is set aside while the gateway runs, and a fresh one is begun with the ids and
 * the ledger that are in memory: the ids of streams and records stay what their owners know, so
 * what is still in memory can be delivered. Rows of streams come back with their owners' next
 * transactions (spool_generation), uploads that had begun are refused (blob_floor).
 */

void database_disconnect(struct spool *s)
{
    size_t i;

    for (i = 0; i < ST_N; i++) {
        sqlite3_finalize(s->st[i]);
        s->st[i] = NULL;
    }
    if (s->db) /* no checkpoint by a connection that is not trusted */
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(s->db);
    s->db = NULL;
    s->vfs.log_good = -1;
    s->vfs.log_end = 0;
}

static void disconnect_all(struct spool *s)
{
    reader_close(s);
    database_disconnect(s);
}

/* How many frames of the log were committed, as far as this process knows; -1: it does not. */
static int64_t known_frames(const struct spool *s)
{
    int64_t end = s->vfs.log_good;

    return end < 0 ? -1 : end == 0 ? 0 : (end - WAL_HEAD) / FRAME_BYTES;
}

/* Copy the log to the database; if it holds less than was committed the disk has lost some: 1. */
static int write_again(struct spool *s, int64_t want, struct err *e)
{
    int frames = 0, done = 0;
    int rc = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames, &done);

    if (sql_is_corrupt(rc) || (rc == SQLITE_OK && want > 0 && frames < want)) {
        err_set(e, ERR_IO, "spool: the disk has lost %lld pages that were committed",
                (long long)(want - frames));
        return 1;
    }
    if (s->vfs.sync_failed || (rc != SQLITE_OK && rc != SQLITE_BUSY && rc != SQLITE_LOCKED))
        return sql_error(s->db, rc, "cannot copy the log", e);
    s->wal_frames = s->checkpointed_at = (uint32_t)TR_MAX(frames, 0);
    return 0;
}

/*
 * SQLite reads the log anew only if nobody else has its index, and an admin's shell may. Without
 * the index it must. Such a shell keeps the old one, and may read nonsense until it ends: it is the
 * spool that counts.
 */
static void drop_index(const struct spool *s)
{
    struct str path = STR_INIT;

    str_addf(&path, "%s-shm", s->path);
    unlink(str_c(&path));
    str_fini(&path);
}

/* 1: damaged. After a failure nothing is open. */
static int open_again(struct spool *s, struct err *e)
{
    int64_t want = known_frames(s);
    int rc;

    disconnect_all(s);
    drop_index(s);
    s->vfs.sync_failed = false;
    rc = schema_reconnect(s, e);
    if (rc == 0 && (database_prepare(s, e) < 0 || (s->started && reader_open(s, e) < 0)))
        rc = -1;
    if (rc == 0)
        rc = write_again(s, want, e);
    if (rc != 0) {
        disconnect_all(s);
        /* What was known of the log is needed by the next attempt. */
        s->vfs.log_good = want <= 0 ? want : WAL_HEAD + want * FRAME_BYTES;
    }
    return rc;
}

/* Wrong bytes may have come from the disk or from memory once only: look again, a few times. */
static int look_again(struct spool *s, struct err *e)
{
    int rc = open_again(s, e);

    if (rc == 0)
        rc = schema_check(s, e);
    if (rc != 0 || ++s->doubts > DOUBTS_MAX)
        return rc < 0 ? -1 : 1;
    atomic_store(&s->damaged, false);
    log_event(LOG_ERROR, "spool",
              "the spool looked damaged, and is sound now that its log was copied again: the disk "
              "or the memory of this machine returns wrong bytes",
              LF_STR("directory", s->dir));
    return 0;
}

static void forget_rows(struct spool *s)
{
    size_t slot = 0;
    struct hnode *n;

    for (n = hmap_walk(&s->streams, &slot, NULL); n; n = hmap_walk(&s->streams, &slot, n)) {
        struct wstream *ws = hmap_entry(n, struct wstream, node);

        ws->lost = true;
        list_remove(&ws->leaving);
        list_init(&ws->leaving);
    }
    list_init(&s->leaving);
    s->gone = s->undo_gone = (struct pending){0};
    s->dead = s->undo_dead = 0;
    memset(s->recent, 0, RECENT * sizeof(*s->recent));
    s->blob_floor = atomic_load(&s->next_blob);
    s->wal_frames = s->checkpointed_at = 0;
    s->clean = false;
}

static int begin_anew(struct spool *s, struct err *e)
{
    struct str aside = STR_INIT;
    int rc;

    disconnect_all(s);
    s->vfs.sync_failed = false;
    if (place_look(s, e) != 0 && place_set_aside(s, &aside, e) < 0) {
        str_fini(&aside);
        return -1;
    }
    if (aside.n) {
        log_event(LOG_ERROR, "spool",
                  "the spool was found damaged and set aside; a fresh one is used. What waited in "
                  "it and is not in memory is not delivered: tailrace spool export reads it",
                  LF_VIEW("kept", str_view(&aside)));
        place_count(s, str_c(&aside));
    }
    str_fini(&aside);
    rc = place_create(s, e) < 0 || schema_open(s, true, e) != 0 || recover_carry(s, e) < 0 ||
                 database_prepare(s, e) < 0 || (s->started && reader_open(s, e) < 0)
             ? -1
             : 0;
    if (rc < 0) {
        disconnect_all(s);
        return -1;
    }
    forget_rows(s);
    atomic_fetch_add(&s->generation, 1);
    atomic_store(&s->damaged, false);
    return 0;
}

bool mend_is_due(const struct spool *s)
{
    return !s->db || s->vfs.sync_failed || atomic_load(&s->damaged);
}

int mend(struct spool *s, struct err *e)
{
    int rc;

    if (TR_LIKELY(!mend_is_due(s)))
        return 0;
    ASSERT(!s->touched);
    pthread_mutex_lock(&s->rdb_lock);
    rc = atomic_load(&s->damaged) ? look_again(s, e) : open_again(s, e);
    if (rc == 1) {
        atomic_store(&s->damaged, true); /* until a fresh one is there */
        rc = begin_anew(s, e);
    }
    pthread_mutex_unlock(&s->rdb_lock);
    return rc;
}

/* --- words -------------------------------------------------------------------------------- */

struct words {
    const char *what, *remedy;
};

static struct words words_for(const struct spool *s, const struct err *e)
{
    int why = atomic_load(&s->vfs.why);

    if (why == EROFS)
        return (struct words){"the spool's file system is read-only",
                              "see the kernel's log, repair the disk, remount it for writing"};
    if (why == EDQUOT)
        return (struct words){"the spool's disk quota is used up", "raise the quota"};
    if (e->code == ERR_FULL && why)
        return (struct words){"the spool's disk is full", "free space on this file system"};
    if (e->code == ERR_FULL)
        return (struct words){"the spool is full",
                              "wait for upstream to take what waits, or raise spool.limit"};
    return (struct words){"the spool's disk fails",
                          "see the kernel's log (dmesg); replace or repair the disk"};
}

void mend_say(struct spool *s, bool failing, const struct err *e)
{
    struct spool_stats st;

    int64_t now = clock_mono_ns();

    if (failing)
        s->failed_ns = now;
    /* Where deletes succeed and additions fail every other commit would end the trouble. */
    if (failing == (s->trouble_ns != 0) || (!failing && now - s->failed_ns < WELL_MS * NS_PER_MS))
        return;
    spool_stats(s, &st);
    if (failing) {
        struct words w = words_for(s, e);

        s->trouble_ns = now;
        s->trouble_failed = st.failed;
        log_event(LOG_ERROR, "spool", "cannot make records durable", LF_STR("what", w.what),
                  LF_STR("directory", s->dir), LF_ERR(e), LF_UINT("used_bytes", st.used_bytes),
                  LF_UINT("limit_bytes", st.limit_bytes), LF_UINT("disk_free_bytes", st.free_bytes),
                  LF_UINT("needed_bytes", RESERVE_BYTES), LF_STR("remedy", w.remedy),
                  LF_STR("meanwhile", "calls are passed on to the log service while it answers, "
                                      "else refused with 503; nothing acknowledged is given up"));
        return;
    }
    log_event(LOG_NOTICE, "spool", "records are made durable again", LF_STR("directory", s->dir),
              LF_DOUBLE("after_s", (double)(s->failed_ns - s->trouble_ns) / NS_PER_SEC),
              LF_UINT("failed", st.failed - s->trouble_failed));
    s->trouble_ns = 0;
    atomic_store(&s->vfs.why, 0);
}
