/* Full and failing disks: what fails, what still works, and that memory follows the disk. */
#include "bed.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/xmem.h"

enum { BODY = 20000 };

static char body[BODY];

static void check_books(struct bed *b)
{
    assert_int_equal(bed_ask(b, "SELECT coalesce(sum(lines),0) FROM record WHERE id NOT IN gone"),
                     bed_ask(b, "SELECT value FROM ledger WHERE name='lines_spooled'"));
    assert_int_equal(bed_ask(b, "SELECT sum(value) FROM ledger_view WHERE state='(missing)'"), 0);
}

static struct spool_txn *insertion(struct spool_stream *st, struct spool_record *r)
{
    struct spool_txn *t = spool_txn_new();

    r->lines = 1;
    r->body = view_of(body, sizeof(body));
    spool_txn_record(t, st, r);
    spool_txn_ledger(t, LEDGER_LINES_ACCEPTED, 1);
    spool_txn_ledger(t, LEDGER_LINES_SPOOLED, 1);
    return t;
}

static struct spool_txn *deletion(int64_t id)
{
    struct spool_txn *t = spool_txn_new();

    spool_txn_delete(t, id);
    spool_txn_ledger(t, LEDGER_LINES_SPOOLED, -1);
    spool_txn_ledger(t, LEDGER_LINES_DELIVERED, 1);
    return t;
}

/* Insert until it fails; the number that succeeded. */
static int insert_until_full(struct bed *b, struct spool_stream *st, struct spool_record *r,
                             int max)
{
    int n;

    for (n = 0; n < max; n++)
        if (bed_commit(b, insertion(st, &r[n])) != ERR_NONE)
            return n;
    return n;
}

enum { MANY = 4000 };

static void the_limit_holds_and_deletes_make_room(void **state)
{
    struct bed *b = *state;
    struct spool_record *r = xcalloc(MANY, sizeof(*r)), more = {0};
    struct spool_stream st = {0};
    struct spool_stats x;
    int n, i;

    b->opts.limit = 4 << 20;
    bed_open(b);
    bed_stream(b, &st, "k");
    n = insert_until_full(b, &st, r, MANY);
    assert_int_equal(b->err.code, ERR_FULL);
    assert_true(n > 100 && n < 183); /* 4 MiB without the log's eighth hold 183 bodies */
    spool_stats(b->s, &x);
    assert_true(x.failing);
    assert_true(x.used_bytes <= 4 << 20);
    assert_int_equal(r[n].id, 0);
    assert_int_equal(st.next, n);
    for (i = 0; i < n; i++)
        assert_int_equal(bed_commit(b, deletion(r[i].id)), ERR_NONE);
    spool_stats(b->s, &x);
    assert_false(x.failing);
    assert_int_equal(bed_commit(b, insertion(&st, &more)), ERR_NONE);
    assert_int_equal(more.number, n); /* no gap where the failed one would have been */
    check_books(b);
    xfree(r);
}

static void one_that_is_too_large_fails_alone(void **state)
{
    struct bed *b = *state;
    struct spool_record r[3] = {{0}}, big = {0};
    char *huge = xcalloc(1, 8 << 20);
    struct spool_stream st = {0};
    struct spool_txn *t;
    int good = 0, bad = 0, i;

    b->opts.limit = 4 << 20;
    bed_open_only(b);
    t = spool_txn_new();
    spool_txn_stream(t, &st, VIEW_LIT("a"), VIEW_LIT("k"), VIEW_LIT("s"));
    spool_submit(b->s, t, bed_count, &good);
    for (i = 0; i < 3; i++) {
        spool_submit(b->s, insertion(&st, &r[i]), bed_count, &good);
        if (i != 1)
            continue;
        t = spool_txn_new();
        big.body = view_of(huge, 8 << 20);
        spool_txn_record(t, &st, &big);
        spool_txn_ledger(t, LEDGER_LINES_ACCEPTED, 1000000);
        spool_submit(b->s, t, bed_count, &bad);
    }
    assert_int_equal(spool_start(b->s, &b->err), 0);
    bed_wait(&good, 4);
    bed_wait(&bad, 1001);
    for (i = 0; i < 3; i++)
        assert_int_equal(r[i].number, i);
    assert_int_equal(st.next, 3);
    check_books(b);
    xfree(huge);
}

/* A stream whose insertion fails is not there; what names it fails too, until one inserts it. */
static void a_stream_that_failed_can_come_later(void **state)
{
    struct bed *b = *state;
    char *huge = xcalloc(1, 8 << 20);
    struct spool_stream st = {0};
    struct spool_record big = {.body = view_of(huge, 8 << 20)}, r = {0}, ok = {0};
    struct spool_txn *t;
    int first = 0, second = 0, third = 0;

    b->opts.limit = 4 << 20;
    bed_open_only(b);
    t = spool_txn_new();
    spool_txn_stream(t, &st, VIEW_LIT("a"), VIEW_LIT("k"), VIEW_LIT("s"));
    spool_txn_record(t, &st, &big);
    spool_submit(b->s, t, bed_count, &first);
    spool_submit(b->s, insertion(&st, &r), bed_count, &second);
    t = spool_txn_new();
    spool_txn_stream(t, &st, VIEW_LIT("a"), VIEW_LIT("k"), VIEW_LIT("s"));
    spool_txn_record(t, &st, &ok);
    spool_submit(b->s, t, bed_count, &third);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    bed_wait(&first, 1001);
    bed_wait(&second, 1001);
    bed_wait(&third, 1);
    assert_int_equal(ok.number, 0);
    assert_int_equal(st.next, 1);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM stream"), 1);
    xfree(huge);
}

/* --- a disk that fails ------------------------------------------------------------------- */

static void fail_next(struct bed *b, int64_t at, int code, bool stays)
{
    atomic_store(&b->s->vfs.fail_stays, stays);
    atomic_store(&b->s->vfs.fail_code, code);
    atomic_store(&b->s->vfs.fail_at, at);
}

static void errors_are_reported_and_pass(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[4] = {{0}};
    struct spool_stats x;

    bed_open(b);
    bed_stream(b, &st, "k");
    assert_int_equal(bed_commit(b, insertion(&st, &r[0])), ERR_NONE);
    fail_next(b, 1, SQLITE_IOERR_WRITE, true);
    assert_int_equal(bed_commit(b, insertion(&st, &r[1])), ERR_IO);
    assert_int_equal(bed_commit(b, deletion(r[0].id)), ERR_IO);
    spool_stats(b->s, &x);
    assert_true(x.failing);
    assert_int_equal(x.failed, 2);
    fail_next(b, 1, SQLITE_FULL, true);
    assert_int_equal(bed_commit(b, insertion(&st, &r[1])), ERR_FULL);
    assert_int_equal(bed_commit(b, deletion(r[0].id)), ERR_FULL);
    fail_next(b, 0, 0, false);
    assert_int_equal(bed_commit(b, insertion(&st, &r[2])), ERR_NONE);
    assert_int_equal(r[2].number, 1);
    assert_true(r[2].id > r[0].id);
    spool_stats(b->s, &x);
    assert_false(x.failing);
    check_books(b);
}

static void between_failures_it_waits(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[4] = {{0}};
    int64_t start;
    int i;

    bed_open(b);
    bed_stream(b, &st, "k");
    fail_next(b, 1, SQLITE_IOERR_WRITE, true);
    start = clock_mono_ns();
    for (i = 0; i < 4; i++)
        assert_int_equal(bed_commit(b, insertion(&st, &r[i])), ERR_IO);
    assert_true(clock_mono_ns() - start >= 3 * FAIL_PAUSE_MS * NS_PER_MS - NS_PER_MS);
    fail_next(b, 0, 0, false);
}

/* Every write and sync of a small history fails once, in turn, in groups and alone. */
static void run_history(struct bed *b, struct spool_stream *st, int64_t at, bool stays)
{
    struct spool_record r[12] = {{0}};
    int done[12] = {0}, gone[12] = {0}, i, dense = (int)st->next;

    fail_next(b, at, SQLITE_IOERR_WRITE, stays);
    for (i = 0; i < 12; i++)
        spool_submit(b->s, insertion(st, &r[i]), bed_count, &done[i]);
    for (i = 0; i < 12; i++)
        if (bed_wait_change(&done[i]) == 1)
            assert_int_equal(r[i].number, dense++);
    fail_next(b, 0, 0, false);
    for (i = 0; i < 12; i++)
        if (done[i] == 1)
            spool_submit(b->s, deletion(r[i].id), bed_count, &gone[i]);
    for (i = 0; i < 12; i++)
        if (done[i] == 1)
            bed_wait(&gone[i], 1);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM record WHERE id NOT IN gone"), 0);
    check_books(b);
}

static void every_write_may_fail(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    int64_t n;

    bed_open(b);
    bed_stream(b, &st, "k");
    for (n = 1; n <= 60; n++)
        run_history(b, &st, n, false);
    for (n = 1; n <= 30; n += 7)
        run_history(b, &st, n, true);
    bed_close(b);
    bed_open_only(b);
    assert_int_equal(b->note.n, 0);
    assert_int_equal(bed_count_records(b), 0);
}

static void a_checkpoint_that_fails_loses_nothing(void **state)
{
    struct bed *b = *state;
    struct spool_record *r = xcalloc(MANY, sizeof(*r));
    struct spool_stream st = {0};
    int i, good = 0;

    b->opts.limit = 32 << 20;
    bed_open(b);
    bed_stream(b, &st, "k");
    for (i = 0; i < 600; i++) {
        /* Some of these hit the log, some the database during a checkpoint. */
        if (i % 50 == 49)
            fail_next(b, 1 + i % 13, SQLITE_IOERR_FSYNC, false);
        good += bed_commit(b, insertion(&st, &r[i])) == ERR_NONE;
    }
    assert_true(good >= 580);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM record"), good);
    check_books(b);
    bed_close(b);
    bed_open_only(b);
    assert_int_equal(bed_count_records(b), good);
    xfree(r);
}

/* Somebody holds the write lock for longer than we wait: everything fails, once, not one by one. */
static void a_foreign_lock_is_waited_for_once(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[20] = {{0}}, ok = {0};
    char path[300];
    sqlite3 *db = NULL;
    int64_t start;
    int done = 0, i;

    bed_open(b);
    bed_stream(b, &st, "k");
    snprintf(path, sizeof(path), "%s/spool.db", b->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    start = clock_mono_ns();
    for (i = 0; i < 20; i++)
        spool_submit(b->s, insertion(&st, &r[i]), bed_count, &done);
    bed_wait(&done, 20 * 1001);
    assert_true(clock_mono_ns() - start < 4LL * BUSY_MS * NS_PER_MS);
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(bed_commit(b, insertion(&st, &ok)), ERR_NONE);
    assert_int_equal(ok.number, 0);
}

/* A shell left open in a read transaction: the log grows, but not for ever. */
static void a_reader_that_stays_does_not_fill_the_disk(void **state)
{
    struct bed *b = *state;
    struct spool_record *r = xcalloc(MANY, sizeof(*r)), after = {0};
    struct spool_stream st = {0};
    struct spool_stats x;
    char path[300];
    sqlite3 *db = NULL;
    int n = 0;

    b->opts.limit = 4 << 20;
    bed_open(b);
    bed_stream(b, &st, "k");
    snprintf(path, sizeof(path), "%s/spool.db", b->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN; SELECT * FROM stream", NULL, NULL, NULL), SQLITE_OK);
    /* Inserted and deleted: the database stays small and the log does not. */
    while (n < MANY && bed_commit(b, insertion(&st, &r[n])) == ERR_NONE &&
           bed_commit(b, deletion(r[n].id)) == ERR_NONE)
        n++;
    assert_true(n < MANY);
    assert_int_equal(b->err.code, ERR_FULL);
    spool_stats(b->s, &x);
    assert_true(x.used_bytes < 8 << 20);
    assert_int_equal(bed_delete(b, 1), ERR_NONE);
    assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    if (bed_commit(b, insertion(&st, &after)) != ERR_NONE) /* the log starts over after this one */
        assert_int_equal(bed_commit(b, insertion(&st, &after)), ERR_NONE);
    assert_int_equal(after.number, n);
    check_books(b);
    xfree(r);
}

/* --- really full ------------------------------------------------------------------------- */

/* Fill the file system that holds the spool: inserts fail, deletes work; go on after. */
static int full_disk_story(struct bed *b, bool other_fills)
{
    struct spool_record *r = xcalloc(MANY, sizeof(*r)), after = {0};
    struct spool_stream st = {0};
    char path[600];
    int n, i, fd = -1;

    bed_open(b);
    bed_stream(b, &st, "k");
    n = insert_until_full(b, &st, r, other_fills ? 100 : MANY);
    if (other_fills) {
        static char block[1 << 16];

        assert_int_equal(n, 100);
        snprintf(path, sizeof(path), "%s/other", b->root);
        fd = open(path, O_WRONLY | O_CREAT, 0600);
        for (i = (int)sizeof(block); i >= 512; i /= 2)
            while (write(fd, block, (size_t)i) > 0)
                ;
        n += insert_until_full(b, &st, r + n, MANY - n);
    }
    assert_int_equal(b->err.code, ERR_FULL);
    assert_true(n >= 50 && n < MANY);
    for (i = 0; i < n; i++)
        assert_int_equal(bed_commit(b, deletion(r[i].id)), ERR_NONE);
    for (i = 0; i < n / 2; i++) /* into the pages that became free */
        assert_int_equal(bed_commit(b, insertion(&st, &r[i])), ERR_NONE);
    check_books(b);
    bed_close(b);
    bed_open_only(b); /* the disk is still full */
    assert_int_equal(b->note.n, 0);
    assert_int_equal(bed_count_records(b), n / 2);
    bed_close(b);
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    bed_open(b);
    st.id = 1;
    assert_int_equal(bed_commit(b, insertion(&st, &after)), ERR_NONE);
    assert_int_equal(after.number, n + n / 2);
    bed_close(b);
    xfree(r);
    return 0;
}

static void on_tmpfs(struct bed *b, bool other_fills)
{
    if (getuid() != 0 || mount("tmpfs", b->root, "tmpfs", 0, "size=24m") < 0)
        skip();
    full_disk_story(b, other_fills);
    assert_int_equal(umount(b->root), 0);
}

static void a_full_file_system(void **state)
{
    on_tmpfs(*state, false);
}

static void a_file_system_that_others_fill(void **state)
{
    on_tmpfs(*state, true);
}

static int file_size_limit(struct bed *b)
{
    struct spool_record *r = xcalloc(MANY, sizeof(*r));
    struct rlimit lim = {3 << 20, 3 << 20};
    struct spool_stream st = {0};
    int n, i;

    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &lim) < 0)
        return 10;
    bed_open(b);
    bed_stream(b, &st, "k");
    n = insert_until_full(b, &st, r, MANY);
    if (n < 20 || n >= MANY || b->err.code != ERR_FULL)
        return 11;
    for (i = 0; i < n; i++)
        if (bed_commit(b, deletion(r[i].id)) != ERR_NONE)
            return 12;
    return 0;
}

/* EFBIG is a full disk too. Alone in a child, as the limit is the process's. */
static void a_file_size_limit(void **state)
{
    struct bed *b = *state;
    pid_t child = fork();
    int status;

    if (child == 0)
        _exit(file_size_limit(b));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bed_setup, bed_teardown)
    const struct CMUnitTest tests[] = {
        T(the_limit_holds_and_deletes_make_room),
        T(one_that_is_too_large_fails_alone),
        T(a_stream_that_failed_can_come_later),
        T(errors_are_reported_and_pass),
        T(between_failures_it_waits),
        T(every_write_may_fail),
        T(a_checkpoint_that_fails_loses_nothing),
        T(a_foreign_lock_is_waited_for_once),
        T(a_reader_that_stays_does_not_fill_the_disk),
        T(a_full_file_system),
        T(a_file_system_that_others_fill),
        T(a_file_size_limit),
    };

    memset(body, 'x', sizeof(body));
    return cmocka_run_group_tests_name("spool full", tests, NULL, NULL);
}
