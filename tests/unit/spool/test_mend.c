/* What the spool does about syncs that fail and about damage, while it runs. */
#include "bed.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/xmem.h"

static char body[3000];

static struct spool_txn *insertion(struct spool_stream *st, struct spool_record *r)
{
    struct spool_txn *t = spool_txn_new();

    r->body = view_of(body, sizeof(body));
    r->lines = 1;
    spool_txn_record(t, st, r);
    spool_txn_ledger(t, LEDGER_LINES_ACCEPTED, 1);
    spool_txn_ledger(t, LEDGER_LINES_SPOOLED, 1);
    return t;
}

static void fail_next(struct bed *b, int64_t at, int code)
{
    atomic_store(&b->s->vfs.fail_stays, false);
    atomic_store(&b->s->vfs.fail_code, code);
    atomic_store(&b->s->vfs.fail_at, at);
}

/* The database as a crash would leave it now, in a directory of its own. */
static int64_t count_after_crash(struct bed *b)
{
    struct bed copy = *b;
    char cmd[1500];
    int n;

    snprintf(copy.dir, sizeof(copy.dir), "%s/crash", b->root);
    snprintf(cmd, sizeof(cmd),
             "rm -rf '%s'; mkdir -m 700 '%s'; cp '%s'/spool.db* '%s'; rm -f '%s'/*-shm", copy.dir,
             copy.dir, b->dir, copy.dir, copy.dir);
    assert_int_equal(system(cmd), 0);
    copy.opts.directory = copy.dir;
    copy.s = NULL;
    copy.note = STR_INIT;
    bed_open_only(&copy);
    assert_int_equal(copy.note.n, 0);
    n = bed_count_records(&copy);
    bed_close(&copy);
    str_fini(&copy.note);
    return n;
}

/* Whichever write or sync of a commit fails: it has failed for good, also after a crash; its
 * descriptors are replaced if it was a sync; and the next one succeeds. */
static void a_commit_that_failed_does_not_come_to_life(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    int64_t at, good = 0, failed = 0, mended = 0;

    bed_open(b);
    bed_stream(b, &st, "k");
    for (at = 1; at <= 12; at++) {
        struct spool_record r = {0}, again = {0};
        int before = sqlite3_total_changes(b->s->db); /* a connection's own: a new one has few */

        fail_next(b, at, SQLITE_IOERR_FSYNC);
        if (bed_commit(b, insertion(&st, &r)) == ERR_NONE)
            good++;
        else
            failed++;
        fail_next(b, 0, 0);
        assert_int_equal(count_after_crash(b), good);
        assert_int_equal(bed_commit(b, insertion(&st, &again)), ERR_NONE);
        good++;
        mended += sqlite3_total_changes(b->s->db) < before;
        assert_false(b->s->vfs.sync_failed);
        assert_int_equal(count_after_crash(b), good);
    }
    assert_true(failed >= 2);
    assert_true(mended >= 1);
}

/* Checkpoints copy to the database, and one whose sync fails must not be believed by the next. */
static void after_a_failed_sync_the_log_is_copied_again(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    int64_t at;
    int i, n = 0;

    b->opts.limit = 4 << 20; /* a log of 128 pages */
    bed_open(b);
    bed_stream(b, &st, "k");
    for (at = 1; at < 400; at += 7) {
        fail_next(b, at, SQLITE_IOERR_FSYNC);
        for (i = 0; i < 8; i++) {
            struct spool_record r = {0};

            n += bed_commit(b, insertion(&st, &r)) == ERR_NONE;
        }
        fail_next(b, 0, 0);
    }
    assert_true(n > 300);
    assert_int_equal(count_after_crash(b), n);
    bed_close(b);
    bed_open_only(b);
    assert_int_equal(b->note.n, 0);
    assert_int_equal(bed_count_records(b), n);
}

static void overwrite_database(struct bed *b)
{
    char path[400];
    char junk[4096];
    int fd, i;

    assert_int_equal(bed_ask(b, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    memset(junk, 0x5a, sizeof(junk));
    snprintf(path, sizeof(path), "%s/spool.db", b->dir);
    fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    for (i = 0; i < 60; i++)
        assert_int_equal(pwrite(fd, junk, sizeof(junk), i * 4096L), sizeof(junk));
    close(fd);
}

/* Its owners go on with the ids they know; what they add without the stream's row is refused once.
 */
static void damage_is_set_aside_while_it_runs(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[3] = {{0}};
    struct spool_txn *t;
    struct str text = STR_INIT;
    int64_t blob, ledger[LEDGER_N];
    struct spool_stats x;
    int i;

    bed_open(b);
    bed_stream(b, &st, "k");
    blob = spool_blob_id(b->s);
    for (i = 0; i < 60; i++) {
        struct spool_record filler = {0};

        assert_int_equal(bed_commit(b, insertion(&st, i ? &filler : &r[0])), ERR_NONE);
    }
    overwrite_database(b);
    assert_int_not_equal(bed_read_record(b, r[0].id + 30, &text),
                         ERR_NONE); /* the reader sees it */
    for (i = 0; i < 500 && spool_generation(b->s) == 0; i++)
        usleep(10000);
    assert_int_equal(spool_generation(b->s), 1);
    assert_int_equal(bed_files_like(b, "spool.db.damaged-") >= 1, 1);
    spool_stats(b->s, &x);
    assert_int_equal(x.set_aside, 1);
    assert_int_equal(bed_commit(b, insertion(&st, &r[1])), ERR_IO); /* no row of its stream */
    t = spool_txn_new();
    spool_txn_stream(t, &st, VIEW_LIT("account"), VIEW_LIT("k"), VIEW_LIT("state"));
    spool_txn_record(t, &st, &r[1]);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    assert_int_equal(r[1].number, 60);
    assert_true(r[1].id > r[0].id + 59);
    t = spool_txn_new();
    spool_txn_piece(t, blob, 0, VIEW_LIT("x"));
    assert_int_equal(bed_commit(b, t), ERR_IO); /* an upload that had begun */
    t = spool_txn_new();
    spool_txn_blob_drop(t, blob);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    assert_int_equal(bed_delete(b, r[0].id), ERR_NONE); /* it is not there: fine */
    str_clear(&text);
    assert_int_equal(bed_read_record(b, r[0].id, &text), ERR_NOTFOUND);
    spool_ledger(b->s, ledger);
    assert_int_equal(ledger[LEDGER_LINES_ACCEPTED], 60);
    bed_close(b);
    bed_open_only(b);
    assert_int_equal(b->note.n, 0);
    assert_int_equal(bed_count_records(b), 1);
    spool_ledger(b->s, ledger);
    assert_int_equal(ledger[LEDGER_LINES_ACCEPTED], 60);
    str_fini(&text);
}

/* A sound database is not set aside because somebody says that it is damaged. */
static void a_false_alarm_is_none(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r = {0};
    int i;

    bed_open(b);
    bed_stream(b, &st, "k");
    for (i = 0; i < 3; i++) {
        atomic_store(&b->s->damaged, true);
        assert_int_equal(bed_commit(b, insertion(&st, &r)), ERR_NONE);
        assert_false(atomic_load(&b->s->damaged));
    }
    assert_int_equal(bed_files_like(b, "damaged"), 0);
    assert_int_equal(spool_generation(b->s), 0);
}

/* Nobody sends anything while it fails, since the gateway says that it is not ready. */
static void trouble_ends_without_a_transaction(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r = {0};
    struct spool_stats x;
    int i;

    bed_open(b);
    bed_stream(b, &st, "k");
    atomic_store(&b->s->vfs.fail_stays, true);
    atomic_store(&b->s->vfs.fail_code, SQLITE_IOERR_WRITE);
    atomic_store(&b->s->vfs.fail_at, 1);
    assert_int_equal(bed_commit(b, insertion(&st, &r)), ERR_IO);
    spool_stats(b->s, &x);
    assert_true(x.failing);
    fail_next(b, 0, 0);
    for (i = 0; i < 500 && x.failing; i++) {
        usleep(10000);
        spool_stats(b->s, &x);
    }
    assert_false(x.failing);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bed_setup, bed_teardown)
    const struct CMUnitTest tests[] = {
        T(a_commit_that_failed_does_not_come_to_life),
        T(after_a_failed_sync_the_log_is_copied_again),
        T(damage_is_set_aside_while_it_runs),
        T(a_false_alarm_is_none),
        T(trouble_ends_without_a_transaction),
    };

    memset(body, 'x', sizeof(body));
    return cmocka_run_group_tests_name("spool mend", tests, NULL, NULL);
}
