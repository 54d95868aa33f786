/* Size: large blobs in bounded memory, reads beside writes, a long backlog at start. */
#include "bed.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include "base/xmem.h"
#include "rt/rng.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* --- blobs ------------------------------------------------------------------------------- */

enum { PIECE = 64 << 10, PIECES = 800 }; /* 50 MiB */

static void fill_piece(char *p, uint32_t seq)
{
    memset(p, 'a' + (int)(seq % 26), PIECE);
    memcpy(p, &seq, sizeof(seq));
}

static void a_large_blob_in_little_memory(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r = {0};
    char *piece = xmalloc(PIECE), *want = xmalloc(PIECE);
    struct str got = STR_INIT;
    int64_t most = 0;
    uint32_t i;

    b->opts.limit = 256 << 20;
    bed_open(b);
    bed_stream(b, &st, "k");
    r.blob = spool_blob_id(b->s);
    for (i = 0; i < PIECES; i++) {
        struct spool_txn *t = spool_txn_new();
        struct mallinfo2 m;

        fill_piece(piece, i);
        spool_txn_piece(t, r.blob, i, view_of(piece, PIECE));
        assert_int_equal(bed_commit(b, t), ERR_NONE);
        m = mallinfo2();
        most = TR_MAX(most, (int64_t)(m.uordblks + m.hblkhd));
    }
    if (!SANITIZED)
        assert_true(most < 8 << 20);
    assert_int_equal(bed_record(b, &st, &r, VIEW_NONE), ERR_NONE);
    bed_close(b);
    bed_open(b);
    for (i = 0; i < PIECES; i++) {
        fill_piece(want, i);
        assert_int_equal(bed_read_piece(b, r.blob, i, &got), ERR_NONE);
        assert_true(view_eq(str_view(&got), view_of(want, PIECE)));
    }
    assert_int_equal(bed_read_piece(b, r.blob, PIECES, &got), ERR_NOTFOUND);
    assert_int_equal(bed_ask(b, "SELECT size FROM record"), (int64_t)PIECE * PIECES);
    assert_int_equal(bed_delete(b, r.id), ERR_NONE);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM piece"), 0);
    str_fini(&got);
    xfree(piece);
    xfree(want);
}

/* A deleted blob's pages are used again: the file does not grow with what passes through it. */
static void space_is_used_again(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    char *piece = xcalloc(1, PIECE);
    struct spool_stats x;
    int round;
    uint32_t i;

    b->opts.limit = 20 << 20;
    bed_open(b);
    bed_stream(b, &st, "k");
    for (round = 0; round < 10; round++) {
        struct spool_record r = {.blob = spool_blob_id(b->s)};

        for (i = 0; i < 128; i++) {
            struct spool_txn *t = spool_txn_new();

            spool_txn_piece(t, r.blob, i, view_of(piece, PIECE));
            assert_int_equal(bed_commit(b, t), ERR_NONE);
        }
        assert_int_equal(bed_record(b, &st, &r, VIEW_NONE), ERR_NONE);
        assert_int_equal(bed_delete(b, r.id), ERR_NONE);
    }
    spool_stats(b->s, &x);
    assert_true(x.used_bytes < 20 << 20);
    assert_true(x.written_bytes > 80 << 20);
    xfree(piece);
}

/* --- reads beside writes ----------------------------------------------------------------- */

enum { WRITES = 4000 };

struct reads {
    struct spool_read r;
    uint64_t number;
};

static int reads_left;
static bool read_wrong;

static void on_read(struct spool_read *r)
{
    uint64_t number = ((struct reads *)(void *)r)->number;
    char want[32];

    snprintf(want, sizeof(want), "body %llu", (unsigned long long)number);
    if (r->err.code != ERR_NONE || strncmp(str_c(&r->data), want, strlen(want)) != 0)
        read_wrong = true;
    str_fini(&r->data);
    bed_add(&reads_left, -1);
}

/* Each record is read as soon as it is acknowledged, while the next ones are written. */
struct write {
    struct bed *b;
    struct spool_record r;
    struct reads read;
    char body[600];
    int *done;
};

static void on_write(void *ctx, const struct err *err)
{
    struct write *w = ctx;

    if (err) {
        read_wrong = true;
        bed_add(&reads_left, -1);
    } else {
        w->read.r.record = w->r.id;
        w->read.number = w->r.number;
        w->read.r.done = on_read;
        spool_read(w->b->s, &w->read.r);
    }
    bed_add(w->done, 1);
}

static void what_is_acknowledged_can_be_read_at_once(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct write *w = xcalloc(WRITES, sizeof(*w));
    struct spool_stats x;
    int i, done = 0;

    reads_left = WRITES;
    read_wrong = false;
    bed_open(b);
    bed_stream(b, &st, "k");
    for (i = 0; i < WRITES; i++) {
        struct spool_txn *t = spool_txn_new();

        w[i].b = b;
        w[i].done = &done;
        w[i].r.body = view_of(w[i].body, sizeof(w[i].body));
        snprintf(w[i].body, sizeof(w[i].body), "body %d ", i);
        spool_txn_record(t, &st, &w[i].r);
        spool_submit(b->s, t, on_write, &w[i]);
        if (i % 40 == 39)
            bed_wait(&done, i + 1);
    }
    bed_wait(&reads_left, 0);
    assert_false(read_wrong);
    spool_stats(b->s, &x);
    /* Readers do not make the log grow without end. */
    assert_true(x.used_bytes < 24 << 20);
    xfree(w);
}

static void reads_under_way_are_answered_at_close(void **state)
{
    struct bed *b = *state;
    static struct reads r[200];
    struct spool_stream st = {0};
    struct spool_record rec = {0};
    int i;

    bed_open(b);
    bed_stream(b, &st, "k");
    assert_int_equal(bed_record(b, &st, &rec, VIEW_LIT("body 0")), ERR_NONE);
    reads_left = ARRAY_LEN(r);
    read_wrong = false;
    for (i = 0; i < (int)ARRAY_LEN(r); i++) {
        r[i].r.record = rec.id;
        r[i].r.done = on_read;
        spool_read(b->s, &r[i].r);
    }
    bed_close(b);
    assert_int_equal(reads_left, 0);
    assert_false(read_wrong);
}

/* --- a long backlog ---------------------------------------------------------------------- */

enum { BACKLOG = 100000, BATCH = 100 };

static int count_row(void *ctx, const struct spool_record_row *row)
{
    uint64_t *n = ctx;

    if (row->number != *n)
        return 1;
    ++*n;
    return 0;
}

static void a_hundred_thousand_records_come_back_quickly(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record *r = xcalloc(BATCH, sizeof(*r));
    static char body[800];
    uint64_t n = 0;
    int64_t start, took;
    int i, k, done;

    b->opts.limit = 512 << 20;
    bed_open(b);
    bed_stream(b, &st, "k");
    for (i = 0; i < BACKLOG / BATCH; i++) {
        done = 0;
        for (k = 0; k < BATCH; k++) {
            struct spool_txn *t = spool_txn_new();

            r[k].body = view_of(body, sizeof(body));
            r[k].meta = view_of(body, 30);
            spool_txn_record(t, &st, &r[k]);
            spool_submit(b->s, t, bed_count, &done);
        }
        bed_wait(&done, BATCH);
    }
    bed_close(b);
    /* As after a crash: numbers are counted, the file is checked. */
    assert_int_equal(bed_ask(b, "UPDATE counter SET value=0 WHERE name='clean'"), -1);
    start = clock_mono_ns();
    bed_open_only(b);
    assert_int_equal(spool_each_record(b->s, count_row, &n, &b->err), 0);
    took = clock_mono_ns() - start;
    assert_int_equal(n, BACKLOG);
    print_message("100,000 records: %lld ms\n", (long long)(took / NS_PER_MS));
    assert_true(took < (SANITIZED ? 30 : 3) * NS_PER_SEC);
    xfree(r);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bed_setup, bed_teardown)
    const struct CMUnitTest tests[] = {
        T(a_large_blob_in_little_memory),
        T(space_is_used_again),
        T(what_is_acknowledged_can_be_read_at_once),
        T(reads_under_way_are_answered_at_close),
        T(a_hundred_thousand_records_come_back_quickly),
    };

    return cmocka_run_group_tests_name("spool load", tests, NULL, NULL);
}
