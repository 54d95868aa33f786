/* The body of a blob: whole and in pieces, from the spool and from memory, again, and damaged. */
#include "logs/blob_body.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "codec/zcodec.h"
#include "crypto/digest.h"
#include "net/fetch.h"

struct bed {
    char root[64];
    struct spool *spool;
    struct ev_loop *loop;
    struct ev_timer *limit;
    struct record r;
    struct str bytes;
    unsigned readies;
    bool in_loop;
};

static void too_long(void *ctx)
{
    fail_msg("nothing happened for 10 s");
}

static int setup(void **state)
{
    struct bed *b = calloc(1, sizeof(*b));
    struct spool_opts o;
    struct err e;

    snprintf(b->root, sizeof(b->root), "/tmp/blob-test-XXXXXX");
    assert_non_null(mkdtemp(b->root));
    o = (struct spool_opts){.directory = b->root, .limit = 256 << 20};
    b->spool = spool_open(&o, NULL, &e);
    assert_non_null(b->spool);
    assert_int_equal(spool_start(b->spool, &e), 0);
    b->loop = ev_loop_new("test");
    b->limit = ev_timer_new(b->loop, too_long, b);
    b->r.kind = RECORD_BLOB;
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bed *b = *state;
    char command[96];

    spool_close(&b->spool);
    ev_timer_free(&b->limit);
    ev_loop_free(&b->loop);
    str_fini(&b->bytes);
    snprintf(command, sizeof(command), "rm -rf %s", b->root);
    free(b);
    return system(command);
}

static sem_t commits;

static void stored(void *ctx, const struct err *e)
{
    str_fini(ctx);
    free(ctx);
    sem_post(&commits);
}

/* A blob of n bytes in the spool, in pieces of at most `piece`. */
static void store(struct bed *b, size_t n, size_t piece)
{
    size_t i, at = 0;

    b->r.row.blob = spool_blob_id(b->spool);
    b->r.blob_size = n;
    b->r.pieces = 0;
    str_clear(&b->bytes);
    for (i = 0; i < n; i++)
        str_addc(&b->bytes, (char)(i * 31 + i / 1000));
    while (at < n) {
        size_t len = TR_MIN(piece, n - at);
        struct spool_txn *t = spool_txn_new();
        struct str *frame = calloc(1, sizeof(*frame)); /* borrowed until it is stored */

        zframe_pack(view_of(b->bytes.p + at, len), frame);
        spool_txn_piece(t, b->r.row.blob, b->r.pieces++, str_view(frame));
        spool_submit(b->spool, t, stored, frame);
        at += len;
    }
    for (i = 0; i < b->r.pieces; i++)
        sem_wait(&commits);
}

static void ready(void *ctx)
{
    struct bed *b = ctx;

    b->readies++;
    if (b->in_loop)
        ev_loop_stop(b->loop);
}

static void wait_ready(struct bed *b)
{
    unsigned before = b->readies;

    b->in_loop = true;
    while (b->readies == before) {
        ev_timer_arm(b->limit, 10000);
        ev_loop_run(b->loop);
    }
    ev_timer_disarm(b->limit);
    b->in_loop = false;
}

static void start(struct bed *b, struct blob_body *body, size_t whole_max)
{
    unsigned before = b->readies;

    blob_body_start(body, whole_max, ready, b);
    if (b->readies == before)
        wait_ready(b);
}

/* All of it, in reads of `n` bytes; returns how often it paused. */
static unsigned assert_reads_as(struct bed *b, struct blob_body *body, size_t n)
{
    char *chunk = malloc(n);
    struct str got = STR_INIT;
    unsigned pauses = 0;
    long len;

    while ((len = blob_body_read(body, chunk, n)) != 0) {
        if (len == FETCH_PAUSE) {
            pauses++;
            wait_ready(b);
            continue;
        }
        assert_true(len > 0);
        str_add(&got, chunk, (size_t)len);
    }
    assert_true(view_eq(str_view(&got), str_view(&b->bytes)));
    assert_true(blob_body_sent(body));
    assert_int_equal(blob_body_crc32c(body), crc32c(0, got.p, got.n));
    str_fini(&got);
    free(chunk);
    return pauses;
}

static void test_whole(void **state)
{
    struct bed *b = *state;
    struct blob_body *body;
    struct view v;

    store(b, 1000 * 1000, BLOB_PIECE_MAX);
    body = blob_body_new(b->spool, b->loop, &b->r);
    start(b, body, BLOB_WHOLE_MAX);
    assert_null(blob_body_error(body));
    assert_true(blob_body_whole(body, &v));
    assert_true(view_eq(v, str_view(&b->bytes)));
    assert_int_equal(assert_reads_as(b, body, 64 * 1024), 0);
    start(b, body, BLOB_WHOLE_MAX); /* again, without the spool */
    assert_int_equal(assert_reads_as(b, body, 17777), 0);
    blob_body_free(&body);
}

static void test_in_pieces(void **state)
{
    struct bed *b = *state;
    struct blob_body *body;
    struct view v;

    store(b, 3 * 1000 * 1000, BLOB_PIECE_MAX);
    body = blob_body_new(b->spool, b->loop, &b->r);
    start(b, body, 64 * 1024);
    assert_false(blob_body_whole(body, &v));
    assert_true(assert_reads_as(b, body, 16 * 1024) > 0);
    start(b, body, 64 * 1024);
    assert_true(assert_reads_as(b, body, 1000 * 1000) > 0);
    start(b, body, BLOB_WHOLE_MAX); /* now whole */
    assert_true(blob_body_whole(body, &v));
    assert_int_equal(assert_reads_as(b, body, 64 * 1024), 0);
    blob_body_free(&body);
}

/* An attempt that ends in the middle, with a piece still on its way. */
static void test_begun_again_in_the_middle(void **state)
{
    struct bed *b = *state;
    struct blob_body *body;
    char chunk[1000];
    int i;

    store(b, 2 * 1000 * 1000, 100 * 1000);
    body = blob_body_new(b->spool, b->loop, &b->r);
    for (i = 0; i < 5; i++) {
        start(b, body, 0);
        assert_int_equal(blob_body_read(body, chunk, sizeof(chunk)), sizeof(chunk));
        assert_false(blob_body_sent(body));
    }
    start(b, body, 0);
    assert_reads_as(b, body, 5000);
    blob_body_free(&body);
}

static void test_freed_while_reading(void **state)
{
    struct bed *b = *state;
    struct blob_body *body;

    store(b, 2 * 1000 * 1000, 100 * 1000);
    body = blob_body_new(b->spool, b->loop, &b->r);
    blob_body_start(body, 0, ready, b);
    blob_body_free(&body);
    body = blob_body_new(b->spool, b->loop, &b->r);
    start(b, body, 0);
    assert_int_equal(b->readies, 1);
    blob_body_free(&body);
}

static void test_empty(void **state)
{
    struct bed *b = *state;
    struct blob_body *body;
    struct view v;
    char c;

    store(b, 0, 1);
    body = blob_body_new(b->spool, b->loop, &b->r);
    start(b, body, 0);
    assert_int_equal(blob_body_read(body, &c, 1), 0);
    assert_true(blob_body_sent(body) && blob_body_whole(body, &v) && v.n == 0);
    blob_body_free(&body);
}

static void test_of_memory(void **state)
{
    struct bed *b = *state;
    struct str bytes = STR_INIT;
    struct blob_body *body;

    store(b, 100 * 1000, BLOB_PIECE_MAX);
    str_addv(&bytes, str_view(&b->bytes));
    body = blob_body_of(&bytes);
    assert_null(bytes.p);
    start(b, body, 0);
    assert_int_equal(assert_reads_as(b, body, 999), 0);
    start(b, body, 0);
    assert_int_equal(assert_reads_as(b, body, 9999), 0);
    blob_body_free(&body);
}

static void assert_fails(struct bed *b, enum err_code code, size_t whole_max)
{
    struct blob_body *body = blob_body_new(b->spool, b->loop, &b->r);
    char chunk[65536];
    long n;

    start(b, body, whole_max);
    do {
        n = blob_body_read(body, chunk, sizeof(chunk));
        if (n == FETCH_PAUSE)
            wait_ready(b);
    } while (n > 0 || n == FETCH_PAUSE);
    assert_int_equal(n, -1);
    assert_false(blob_body_sent(body));
    assert_non_null(blob_body_error(body));
    assert_int_equal(blob_body_error(body)->code, code);
    blob_body_free(&body);
}

/* Never are other bytes sent than those that were accepted. */
static void test_damage(void **state)
{
    struct bed *b = *state;

    store(b, 600 * 1000, BLOB_PIECE_MAX);
    b->r.pieces++;
    assert_fails(b, ERR_INVALID, BLOB_WHOLE_MAX);
    b->r.blob_size++;
    assert_fails(b, ERR_NOTFOUND, 0);
    assert_fails(b, ERR_NOTFOUND, BLOB_WHOLE_MAX);
    b->r.blob_size--;
    b->r.pieces -= 2;
    assert_fails(b, ERR_INVALID, 0);
    assert_fails(b, ERR_INVALID, BLOB_WHOLE_MAX);
    b->r.pieces++;
    b->r.blob_size--;
    assert_fails(b, ERR_INVALID, 0);
    b->r.blob_size += 2;
    assert_fails(b, ERR_INVALID, 0);
    assert_fails(b, ERR_INVALID, BLOB_WHOLE_MAX);
    b->r.pieces = 0;
    assert_fails(b, ERR_INVALID, 0);
}

static void test_memory_is_bounded(void **state)
{
    struct bed *b = *state;
    struct blob_body *body;
    struct view v;

    store(b, 1000 * 1000, BLOB_PIECE_MAX);
    assert_true(blob_memory_take(BLOB_MEMORY_MAX - 1000));
    body = blob_body_new(b->spool, b->loop, &b->r);
    start(b, body, BLOB_WHOLE_MAX);
    assert_false(blob_body_whole(body, &v)); /* in pieces then */
    assert_reads_as(b, body, 64 * 1024);
    blob_memory_give(BLOB_MEMORY_MAX - 1000);
    start(b, body, BLOB_WHOLE_MAX);
    assert_true(blob_body_whole(body, &v));
    assert_false(blob_memory_take(BLOB_MEMORY_MAX));
    blob_body_free(&body);
    assert_true(blob_memory_take(BLOB_MEMORY_MAX)); /* all of it came back */
    blob_memory_give(BLOB_MEMORY_MAX);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_whole),
        TEST(test_in_pieces),
        TEST(test_begun_again_in_the_middle),
        TEST(test_freed_while_reading),
        TEST(test_empty),
        TEST(test_of_memory),
        TEST(test_damage),
        TEST(test_memory_is_bounded),
    };

    sem_init(&commits, 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
