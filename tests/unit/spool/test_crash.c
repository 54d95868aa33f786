/*
 * Killed at named points and at any moment, and the machine's power lost: what was acknowledged is
 * there, what was not happened wholly or not at all, the ledger balances, ids and numbers go on.
 *
 * The victim is this program again ("victim DIRECTORY SEED FAULT"). It writes what it knows into a
 * file that parent and child map, so that a kill takes nothing of it away.
 */
#include "bed.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/xmem.h"
#include "rt/fault.h"
#include "rt/rng.h"

enum { SEQS = 20000, STREAMS = 8, WINDOW = 64, PIECES = 3 };

enum phase { PH_NONE, PH_SENT, PH_ACKED, PH_DELETING, PH_DELETED, PH_FAILED };

/* One record as the victim knows it. */
struct item {
    _Atomic int phase;
    int32_t stream;
    int64_t id;
    uint64_t number;
    int64_t blob;
};

struct knowledge {
    _Atomic int n;       /* items used, over all rounds */
    _Atomic int acked;   /* in this round */
    int64_t stream_id[STREAMS];
    uint64_t next[STREAMS];    /* as of the newest acknowledged record */
    struct item items[SEQS];
};

static struct knowledge *map_knowledge(const char *root)
{
    char path[512];
    void *p;
    int fd;

    snprintf(path, sizeof(path), "%s/knowledge", root);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(struct knowledge)) < 0)
        return NULL;
    p = mmap(NULL, sizeof(struct knowledge), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

/* --- the victim -------------------------------------------------------------------------- */

struct job {
    struct item *it;
    struct spool_record r;
    char meta[16], body[1024];
    bool deleting;
};

static struct knowledge *know;
static struct spool_stream streams[STREAMS];
static struct spool *spool;
static int in_flight;

static void on_job(void *ctx, const struct err *err)
{
    struct job *j = ctx;
    struct item *it = j->it;

    if (j->deleting) {
        if (!err)
            it->phase = PH_DELETED;
        else
            it->phase = PH_ACKED;
    } else if (err) {
        it->phase = PH_FAILED;
    } else {
        it->id = j->r.id;
        it->number = j->r.number;
        know->next[it->stream] = it->number + 1;
        know->stream_id[it->stream] = streams[it->stream].id;
        it->phase = PH_ACKED;
        know->acked++;
    }
    xfree(j);
    bed_add(&in_flight, -1);
}

/* Body and meta of a record follow from its place in the knowledge. */
static size_t body_of(int seq, char out[1024])
{
    size_t n = 100 + (size_t)seq * 37 % 900;

    memset(out, 'a' + seq % 26, n);
    return n;
}

static void send_insertion(struct rng *rng, int seq)
{
    struct job *j = XNEW(struct job);
    struct spool_txn *t = spool_txn_new();
    struct spool_stream *st;
    uint32_t i;

    j->it = &know->items[seq];
    j->it->stream = (int32_t)rng_below(rng, STREAMS);
    st = &streams[j->it->stream];
    j->r.lines = 1 + (uint64_t)seq % 5;
    j->r.kind = j->it->stream;
    j->r.body = view_of(j->body, body_of(seq, j->body));
    j->r.meta = view_of(j->meta, (size_t)snprintf(j->meta, sizeof(j->meta), "%d", seq));
    if (seq % 50 == 7) {
        j->r.blob = j->it->blob = spool_blob_id(spool);
        for (i = 0; i < PIECES; i++)
            spool_txn_piece(t, j->r.blob, i, j->r.body);
    }
    j->it->phase = PH_SENT;
    spool_txn_record(t, st, &j->r);
    spool_txn_ledger(t, LEDGER_LINES_ACCEPTED, (int64_t)j->r.lines);
    spool_txn_ledger(t, LEDGER_LINES_SPOOLED, (int64_t)j->r.lines);
    bed_add(&in_flight, 1);
    spool_submit(spool, t, on_job, j);
}

static void send_deletion(int seq)
{
    struct item *it = &know->items[seq];
    struct spool_txn *t = spool_txn_new();
    struct job *j = XNEW(struct job);
    int64_t lines = 1 + seq % 5;

    j->it = it;
    j->deleting = true;
    it->phase = PH_DELETING;
    spool_txn_delete(t, it->id);
    spool_txn_ledger(t, LEDGER_LINES_SPOOLED, -lines);
    spool_txn_ledger(t, LEDGER_LINES_DELIVERED, lines);
    bed_add(&in_flight, 1);
    spool_submit(spool, t, on_job, j);
}

static int delete_acked(int seq)
{
    if (know->items[seq].phase != PH_ACKED)
        return 0;
    send_deletion(seq);
    return 1;
}

static int victim_stream(void *ctx, const struct spool_stream_row *row)
{
    int i = row->key.p[0] - 'A';

    (void)ctx;
    streams[i] = (struct spool_stream){.id = row->id, .next = row->next};
    return 0;
}

static int victim(const char *root, uint64_t seed)
{
    char dir[512];
    struct spool_opts o = {.directory = dir, .limit = 16 << 20, .sync = seed % 2};
    struct err e = {0};
    struct rng rng;
    int i, oldest = 0, quiet = 0;

    snprintf(dir, sizeof(dir), "%s/spool", root);
    know = map_knowledge(root);
    rng_seed(&rng, seed);
    spool = spool_open(&o, NULL, &e);
    if (!know || !spool || spool_each_stream(spool, victim_stream, NULL, &e) < 0 ||
        spool_start(spool, &e) < 0)
        return 3;
    for (i = 0; i < STREAMS; i++) {
        struct spool_txn *t = spool_txn_new();
        char key[2] = {(char)('A' + i), '\0'};

        if (streams[i].id == 0)
            spool_txn_stream(t, &streams[i], VIEW_LIT("acc"), view_str(key), VIEW_LIT("s"));
        bed_add(&quiet, 1);
        spool_submit(spool, t, bed_count, &quiet);
    }
    bed_wait(&quiet, 2 * STREAMS);
    while (know->n < SEQS) {
        bed_wait(&in_flight, 0);
        if (rng_below(&rng, 6) == 0) { /* all go, also the newest: its number must not come back */
            for (oldest = 0; oldest < know->n; oldest++)
                delete_acked(oldest);
            bed_wait(&in_flight, 0);
        }
        for (i = (int)rng_below(&rng, WINDOW) + 1; i > 0 && know->n < SEQS; i--)
            send_insertion(&rng, know->n++);
        /* Some of the old ones go, beside the new ones; a few stay for longer. */
        for (i = 0; i < WINDOW && oldest < know->n - WINDOW; oldest++)
            if (rng_below(&rng, 20) != 0)
                i += delete_acked(oldest);
    }
    bed_wait(&in_flight, 0);
    spool_close(&spool);
    return 0;
}

/* --- the judge --------------------------------------------------------------------------- */

struct judge {
    struct knowledge *k;
    bool *there; /* by seq */
    int64_t lines;
    uint64_t next[STREAMS];
    uint64_t last_number[STREAMS];
    int64_t stream_id[STREAMS];
    bool any[STREAMS];
    int64_t last_id;
    struct bed *b;
};

static int judge_stream(void *ctx, const struct spool_stream_row *row)
{
    struct judge *j = ctx;
    int i = row->key.p[0] - 'A';

    assert_true(i >= 0 && i < STREAMS);
    assert_int_equal(j->stream_id[i], 0);
    j->stream_id[i] = row->id;
    j->next[i] = row->next;
    /* Of an acknowledged number never again. */
    assert_true(row->next >= j->k->next[i]);
    if (j->k->stream_id[i])
        assert_int_equal(row->id, j->k->stream_id[i]);
    return 0;
}

static int judge_record(void *ctx, const struct spool_record_row *row)
{
    struct judge *j = ctx;
    char text[32];
    int seq, s = row->kind;
    struct item *it;

    snprintf(text, sizeof(text), "%.*s", (int)row->meta.n, row->meta.p);
    seq = atoi(text);
    assert_true(seq >= 0 && seq < j->k->n);
    it = &j->k->items[seq];
    assert_false(j->there[seq]);
    j->there[seq] = true;
    assert_true(row->id > j->last_id);
    j->last_id = row->id;
    assert_int_equal(row->stream, j->stream_id[s]);
    assert_int_equal(s, it->stream);
    assert_true(row->number < j->next[s]);
    assert_true(!j->any[s] || row->number > j->last_number[s]);
    j->any[s] = true;
    j->last_number[s] = row->number;
    j->lines += (int64_t)row->lines;
    assert_int_equal(row->lines, 1 + seq % 5);
    /* It may be there if it was sent; not if it failed or its deletion was acknowledged. */
    assert_true(it->phase == PH_SENT || it->phase == PH_ACKED || it->phase == PH_DELETING);
    if (it->phase != PH_SENT) {
        assert_int_equal(row->id, it->id);
        assert_int_equal(row->number, it->number);
    }
    if (it->phase == PH_SENT) { /* now we know */
        it->id = row->id;
        it->number = row->number;
    }
    assert_int_equal(row->blob != 0, seq % 50 == 7);
    return 0;
}

static void judge_bodies(struct judge *j)
{
    struct str got = STR_INIT;
    char want[1024];
    uint32_t i;
    int seq;

    for (seq = 0; seq < j->k->n; seq++) {
        struct item *it = &j->k->items[seq];
        size_t n = body_of(seq, want);

        if (!j->there[seq] || seq % 7 != 0)
            continue;
        assert_int_equal(bed_read_record(j->b, it->id, &got), ERR_NONE);
        assert_true(view_eq(str_view(&got), view_of(want, n)));
        for (i = 0; it->blob && i < PIECES; i++) {
            assert_int_equal(bed_read_piece(j->b, it->blob, i, &got), ERR_NONE);
            assert_true(view_eq(str_view(&got), view_of(want, n)));
        }
    }
    str_fini(&got);
}

static void judge_all(struct bed *b, struct knowledge *k)
{
    struct judge j = {.k = k, .b = b, .there = xcalloc(SEQS, sizeof(bool))};
    int64_t ledger[LEDGER_N], id = 0;
    int seq;

    bed_open_only(b);
    assert_int_equal(b->note.n, 0);
    assert_int_equal(spool_each_stream(b->s, judge_stream, &j, &b->err), 0);
    assert_int_equal(spool_each_record(b->s, judge_record, &j, &b->err), 0);
    for (seq = 0; seq < k->n; seq++)
        if (k->items[seq].phase == PH_ACKED && !j.there[seq])
            fail_msg("record %d was acknowledged and is lost", seq);
    /* One thread sent them all: ids rise, over all rounds, also those of records long gone. */
    for (seq = 0; seq < k->n; seq++)
        if (k->items[seq].id) {
            assert_true(k->items[seq].id > id);
            id = k->items[seq].id;
        }
    spool_ledger(b->s, ledger);
    assert_int_equal(ledger[LEDGER_LINES_SPOOLED], j.lines);
    assert_int_equal(ledger[LEDGER_LINES_ACCEPTED],
                     ledger[LEDGER_LINES_SPOOLED] + ledger[LEDGER_LINES_DELIVERED]);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    judge_bodies(&j);
    /* What the crash left undecided is decided now. */
    for (seq = 0; seq < k->n; seq++)
        if (k->items[seq].phase == PH_SENT || k->items[seq].phase == PH_DELETING)
            k->items[seq].phase = j.there[seq] ? PH_ACKED : PH_DELETED;
    xfree(j.there);
}

/* --- kills ------------------------------------------------------------------------------- */

static pid_t start_victim(struct bed *b, uint64_t seed, const char *fault)
{
    pid_t pid = fork();
    char text[32];

    if (pid != 0)
        return pid;
    snprintf(text, sizeof(text), "%llu", (unsigned long long)seed);
    if (fault)
        setenv("TAILRACE_FAULT", fault, 1);
    execl("/proc/self/exe", "test_crash", "victim", b->root, text, (char *)NULL);
    _exit(99);
}

/* Kill it once it has had `acks` more acknowledgements, or see it die by itself. */
static void kill_after(struct knowledge *k, pid_t pid, int acks)
{
    int64_t until = clock_mono_ns() + BED_WAIT_S * NS_PER_SEC;
    int status;

    while (k->acked < acks && clock_mono_ns() < until && waitpid(pid, &status, WNOHANG) == 0)
        usleep(50);
    if (kill(pid, SIGKILL) == 0)
        waitpid(pid, &status, 0);
}

static void killed_at_any_moment(void **state)
{
    struct bed *b = *state;
    struct knowledge *k = map_knowledge(b->root);
    struct rng rng;
    int round;

    b->opts.limit = 16 << 20;
    rng_seed(&rng, 7);
    for (round = 0; round < 25 && k->n < SEQS - 2000; round++) {
        k->acked = 0;
        kill_after(k, start_victim(b, rng_next(&rng), NULL), (int)rng_below(&rng, 1500));
        judge_all(b, k);
        bed_close(b);
    }
    assert_true(round >= 10);
    assert_true(k->n > 1000);
    munmap(k, sizeof(*k));
}

/* Records, a stream and a blob are gone, and so is the process: nothing of theirs comes back. */
static int vanish(struct bed *b)
{
    struct spool_stream st = {0}, gone = {0};
    struct spool_record r[3] = {{0}};
    struct spool_txn *t;
    int i;

    bed_open(b);
    bed_stream(b, &st, "A");
    bed_stream(b, &gone, "B");
    r[2].blob = spool_blob_id(b->s);
    for (i = 0; i < 3; i++)
        if (bed_record(b, &st, &r[i], VIEW_LIT("x")) != ERR_NONE)
            return 1;
    t = spool_txn_new();
    for (i = 0; i < 3; i++)
        spool_txn_delete(t, r[i].id);
    spool_txn_stream_drop(t, &gone);
    if (bed_commit(b, t) != ERR_NONE)
        return 1;
    return st.id == 1 && r[2].id == 3 && r[2].blob == 1 ? 0 : 2;
}

static void what_is_gone_is_not_counted_again(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {.id = 1}, other = {0};
    struct spool_record r = {0};
    pid_t pid = fork();
    int status;

    if (pid == 0)
        _exit(vanish(b));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    bed_open(b);
    assert_int_equal(bed_record(b, &st, &r, VIEW_LIT("x")), ERR_NONE);
    assert_int_equal(r.number, 3);
    assert_true(r.id > 3);
    bed_stream(b, &other, "C");
    assert_true(other.id > 2);
    assert_true(spool_blob_id(b->s) > 1);
}

/* A start that is killed right after a killed run, again and again. */
static void killed_while_it_starts(void **state)
{
    struct bed *b = *state;
    struct knowledge *k = map_knowledge(b->root);
    int round;

    b->opts.limit = 16 << 20;
    for (round = 0; round < 12; round++) {
        pid_t pid = start_victim(b, (uint64_t)round, NULL);

        if (round % 4 == 0) {
            kill_after(k, pid, 300);
            k->acked = 0;
        } else {
            usleep((useconds_t)round * 400);
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
        }
    }
    judge_all(b, k);
    munmap(k, sizeof(*k));
}

#ifdef ENABLE_FAULT_POINTS
static void killed_at_named_points(void **state)
{
    static const char *const faults[] = {
        "spool-before-commit:1:kill",  "spool-before-commit:2:kill",  "spool-before-commit:40:kill",
        "spool-after-commit:1:kill",   "spool-after-commit:3:kill",   "spool-after-commit:45:kill",
        "spool-piece:1:kill",          "spool-piece:5:kill",          "spool-commit:5:kill",
    };
    struct bed *b = *state;
    struct knowledge *k = map_knowledge(b->root);
    size_t i;
    int status;

    b->opts.limit = 16 << 20;
    for (i = 0; i < ARRAY_LEN(faults); i++) {
        pid_t pid = start_victim(b, i, faults[i]);

        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSIGNALED(status))
            fail_msg("%s: exit %d", faults[i], WEXITSTATUS(status));
        assert_int_equal(WTERMSIG(status), SIGKILL);
        judge_all(b, k);
        bed_close(b);
    }
    munmap(k, sizeof(*k));
}

/* Commits and pieces that fail: it goes on, and says nothing that is not so. */
static void disturbed_at_named_points(void **state)
{
    static const char *const faults[] = {"spool-commit:20:once", "spool-commit:30:fail",
                                         "spool-piece:4:once", "spool-piece:10:fail"};
    struct bed *b = *state;
    struct knowledge *k = map_knowledge(b->root);
    size_t i;
    int seq, failed = 0;

    b->opts.limit = 16 << 20;
    for (i = 0; i < ARRAY_LEN(faults); i++) {
        k->acked = 0;
        kill_after(k, start_victim(b, i, faults[i]), i == 1 ? 150 : 1500);
        judge_all(b, k);
        bed_close(b);
    }
    for (seq = 0; seq < k->n; seq++)
        failed += k->items[seq].phase == PH_FAILED;
    assert_true(failed > 0);
    munmap(k, sizeof(*k));
}
#endif

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bed_setup, bed_teardown)
    const struct CMUnitTest tests[] = {
        T(killed_at_any_moment),
        T(what_is_gone_is_not_counted_again),
        T(killed_while_it_starts),
#ifdef ENABLE_FAULT_POINTS
        T(killed_at_named_points),
        T(disturbed_at_named_points),
#endif
    };

    if (argc == 4 && strcmp(argv[1], "victim") == 0)
        return victim(argv[2], strtoull(argv[3], NULL, 10));
    return cmocka_run_group_tests_name("spool crash", tests, NULL, NULL);
}
