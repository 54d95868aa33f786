/* Starting on what a crash, an admin or a bad disk left behind, and being refused. */
#include "bed.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/xmem.h"
#include "rt/rng.h"

static void path_of(struct bed *b, const char *name, char out[512])
{
    snprintf(out, 512, "%s/%s", b->dir, name);
}

static void overwrite(struct bed *b, const char *name, long at, const void *p, size_t n)
{
    char path[512];
    int fd;

    path_of(b, name, path);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, p, n, at), n);
    close(fd);
}

static long size_of(struct bed *b, const char *name)
{
    char path[512];
    struct stat st;

    path_of(b, name, path);
    return stat(path, &st) == 0 ? (long)st.st_size : -1;
}

static void cut(struct bed *b, const char *name, long size)
{
    char path[512];

    path_of(b, name, path);
    assert_int_equal(truncate(path, size), 0);
}

/* A spool with `n` records of 3,000 bytes, closed. */
static void fill(struct bed *b, int n)
{
    struct spool_stream st = {0};
    struct spool_record *r = xcalloc((size_t)n, sizeof(*r));
    char body[3000];
    int i, done = 0;

    memset(body, 'b', sizeof(body));
    bed_open(b);
    bed_stream(b, &st, "k");
    for (i = 0; i < n; i++) {
        struct spool_txn *t = spool_txn_new();

        r[i].body = view_of(body, sizeof(body));
        spool_txn_record(t, &st, &r[i]);
        spool_submit(b->s, t, bed_count, &done);
    }
    bed_wait(&done, n);
    bed_close(b);
    xfree(r);
}

/* It was set aside, said so, and the fresh one works. */
static void expect_fresh(struct bed *b)
{
    struct spool_stream st = {0};

    bed_open_only(b);
    assert_non_null(strstr(str_c(&b->note), "spool.db.damaged-"));
    assert_int_equal(bed_files_like(b, "spool.db.damaged-") > 0, 1);
    assert_int_equal(bed_count_records(b), 0);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    bed_stream(b, &st, "new");
    bed_close(b);
    bed_open_only(b);
    assert_int_equal(b->note.n, 0);
    bed_close(b);
}

static void random_bytes_are_set_aside(void **state)
{
    struct bed *b = *state;
    char junk[20000];

    rng_bytes(junk, sizeof(junk));
    fill(b, 1);
    overwrite(b, "spool.db", 0, junk, sizeof(junk));
    expect_fresh(b);
}

static void a_short_file_is_set_aside(void **state)
{
    struct bed *b = *state;

    fill(b, 1);
    cut(b, "spool.db", 50);
    expect_fresh(b);
}

static void a_cut_file_is_set_aside(void **state)
{
    struct bed *b = *state;

    fill(b, 50);
    assert_true(size_of(b, "spool.db") > 100000);
    cut(b, "spool.db", 60000);
    expect_fresh(b);
}

static void a_damaged_page_is_found_by_the_check(void **state)
{
    struct bed *b = *state;
    char junk[4096];

    rng_bytes(junk, sizeof(junk));
    fill(b, 50);
    overwrite(b, "spool.db", 4096 * 2, junk, sizeof(junk)); /* the root of a table */
    expect_fresh(b);
}

static void a_foreign_database_is_set_aside(void **state)
{
    struct bed *b = *state;

    fill(b, 1);
    bed_ask(b, "PRAGMA application_id=7");
    expect_fresh(b);
    assert_int_equal(bed_files_like(b, "damaged"), 1);
}

static void a_missing_table_is_damage(void **state)
{
    struct bed *b = *state;

    fill(b, 1);
    bed_ask(b, "DROP TABLE piece");
    expect_fresh(b);
}

static void a_newer_format_is_refused_and_untouched(void **state)
{
    struct bed *b = *state;

    fill(b, 3);
    bed_ask(b, "PRAGMA user_version=4");
    assert_null(spool_open(&b->opts, &b->note, &b->err));
    assert_int_equal(b->err.code, ERR_INVALID);
    assert_non_null(strstr(b->err.text, "format 4"));
    assert_int_equal(bed_files_like(b, "damaged"), 0);
    bed_ask(b, "PRAGMA user_version=3");
    bed_open_only(b);
    assert_int_equal(bed_count_records(b), 3);
}

static void the_first_format_is_taken_over(void **state)
{
    struct bed *b = *state;

    fill(b, 3);
    bed_unseal_format(b);
    bed_ask(b, "DROP TABLE gone");
    bed_ask(b, "PRAGMA user_version=1");
    bed_open_only(b);
    assert_int_equal(b->note.n, 0);
    assert_int_equal(bed_count_records(b), 3);
    assert_int_equal(bed_ask(b, "PRAGMA user_version"), 3);
    assert_int_equal(bed_ask(b, "SELECT sum(records) FROM backlog"), 3);
}

static void a_log_without_its_database_is_not_taken_over(void **state)
{
    struct bed *b = *state;
    char junk[8192];

    rng_bytes(junk, sizeof(junk));
    fill(b, 1);
    cut(b, "spool.db", 0);
    overwrite(b, "spool.db-wal", 0, junk, sizeof(junk));
    bed_open_only(b);
    assert_true(bed_files_like(b, "-wal") >= 1);
    assert_int_equal(bed_files_like(b, "damaged"), 2); /* the empty file and the log */
    assert_int_equal(bed_count_records(b), 0);
}

static void an_empty_file_is_a_new_spool(void **state)
{
    struct bed *b = *state;

    fill(b, 1);
    cut(b, "spool.db", 0);
    bed_open_only(b);
    assert_int_equal(bed_files_like(b, "damaged"), 0);
    assert_int_equal(bed_count_records(b), 0);
}

/* Whatever is changed in the file, opening it ends, and either the file is set aside or its walks
 * end and new records can be written. */
static void single_changes_are_survived(void **state)
{
    struct bed *b = *state;
    struct rng rng;
    char copy[300], db[512], cmd[2400];
    long size;
    int i;

    fill(b, 30);
    path_of(b, "spool.db", db);
    snprintf(copy, sizeof(copy), "%s/copy", b->root);
    snprintf(cmd, sizeof(cmd), "cp '%s' '%s'", db, copy);
    assert_int_equal(system(cmd), 0);
    size = size_of(b, "spool.db");
    rng_seed(&rng, 42);
    snprintf(cmd, sizeof(cmd), "rm -f '%s'*; cp '%s' '%s'", db, copy, db);
    for (i = 0; i < 150; i++) {
        uint64_t junk = rng_next(&rng);
        long page = (long)rng_below(&rng, (uint64_t)(size / 4096));
        long at = page * 4096 + (long)rng_below(&rng, i % 2 ? 4088 : 100);
        struct spool_stream st = {0};

        assert_int_equal(system(cmd), 0);
        overwrite(b, "spool.db", at, &junk, sizeof(junk));
        str_clear(&b->note);
        b->s = spool_open(&b->opts, &b->note, &b->err);
        if (!b->s) { /* only a version from the future may stop the start */
            if (b->err.code != ERR_INVALID)
                fail_msg("change %d at %ld: %s", i, at, b->err.text);
            continue;
        }
        assert_int_equal(spool_start(b->s, &b->err), 0);
        bed_stream(b, &st, "new");
        bed_close(b);
    }
}

/* --- places ------------------------------------------------------------------------------ */

static void the_directory_is_made_and_private(void **state)
{
    struct bed *b = *state;
    struct stat st;
    char path[512];

    bed_open(b);
    assert_int_equal(stat(b->dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    path_of(b, "spool.db", path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    path_of(b, "spool.db-wal", path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_second_process_is_refused(void **state)
{
    struct bed *b = *state;
    char pid[32];
    int status;
    pid_t child;

    bed_open(b);
    child = fork();
    if (child == 0) {
        struct err e = {0};
        struct spool *s = spool_open(&b->opts, NULL, &e);
        char want[40];

        snprintf(want, sizeof(want), "process %ld", (long)getppid());
        _exit(s ? 1 : e.code != ERR_UNAVAIL ? 2 : strstr(e.text, want) ? 0 : 3);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    /* The same process cannot open it twice either, and the first goes on. */
    assert_null(spool_open(&b->opts, NULL, &b->err));
    snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
    assert_non_null(strstr(b->err.text, pid));
    assert_int_equal(bed_delete(b, 1), ERR_NONE);
    bed_close(b);
    bed_open(b); /* the lock went with it */
}

/* In a child without root's rights; its exit status tells. */
static int as_nobody(struct bed *b, int (*fn)(struct bed *))
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        if (getuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
            _exit(99);
        _exit(fn(b));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int open_is_refused(struct bed *b)
{
    struct err e = {0};
    struct spool *s = spool_open(&b->opts, NULL, &e);

    if (s)
        return 1;
    return e.code == ERR_IO && strstr(e.text, "spool") ? 0 : 2;
}

static void a_directory_without_write_permission_is_refused(void **state)
{
    struct bed *b = *state;

    assert_int_equal(mkdir(b->dir, 0755), 0);
    assert_int_equal(chmod(b->root, 0755), 0);
    assert_int_equal(chmod(b->dir, 0555), 0);
    assert_int_equal(as_nobody(b, open_is_refused), 0);
    assert_int_equal(chmod(b->dir, 0755), 0);
}

static void a_database_of_somebody_else_is_refused_and_untouched(void **state)
{
    struct bed *b = *state;
    char path[512];

    if (getuid() != 0)
        skip();
    fill(b, 1);
    assert_int_equal(chmod(b->root, 0755), 0);
    assert_int_equal(chmod(b->dir, 0777), 0);
    path_of(b, "spool.lock", path);
    assert_int_equal(chmod(path, 0666), 0);
    assert_int_equal(as_nobody(b, open_is_refused), 0);
    assert_int_equal(bed_files_like(b, "damaged"), 0);
    bed_open_only(b);
    assert_int_equal(bed_count_records(b), 1);
}

static void a_path_through_a_file_is_refused(void **state)
{
    struct bed *b = *state;
    struct spool_opts o = b->opts;
    char under[600];

    fill(b, 1);
    snprintf(under, sizeof(under), "%s/spool.db/sub", b->dir);
    o.directory = under;
    assert_null(spool_open(&o, NULL, &b->err));
    assert_int_equal(b->err.code, ERR_IO);
    assert_null(spool_open(&o, NULL, NULL)); /* the reason need not be asked for */
}

static void an_admin_can_read_while_it_runs(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r = {.lines = 7, .at_ns = 1700000000LL * NS_PER_SEC};

    bed_open(b);
    bed_stream(b, &st, "some/key");
    assert_int_equal(bed_record(b, &st, &r, VIEW_LIT("12345")), ERR_NONE);
    assert_int_equal(bed_ask(b, "SELECT records*1000+lines*100+bytes FROM backlog "
                                "WHERE account='account' AND key='some/key' "
                                "AND oldest='2023-11-14 22:13:20'"),
                     1705);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM dead_letters"), 0);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM pieces"), 0);
    assert_int_equal(bed_delete(b, r.id), ERR_NONE);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bed_setup, bed_teardown)
    const struct CMUnitTest tests[] = {
        T(random_bytes_are_set_aside),
        T(a_short_file_is_set_aside),
        T(a_cut_file_is_set_aside),
        T(a_damaged_page_is_found_by_the_check),
        T(a_foreign_database_is_set_aside),
        T(a_missing_table_is_damage),
        T(a_newer_format_is_refused_and_untouched),
        T(the_first_format_is_taken_over),
        T(a_log_without_its_database_is_not_taken_over),
        T(an_empty_file_is_a_new_spool),
        T(single_changes_are_survived),
        T(the_directory_is_made_and_private),
        T(a_second_process_is_refused),
        T(a_directory_without_write_permission_is_refused),
        T(a_database_of_somebody_else_is_refused_and_untouched),
        T(a_path_through_a_file_is_refused),
        T(an_admin_can_read_while_it_runs),
    };

    return cmocka_run_group_tests_name("spool damage", tests, NULL, NULL);
}
