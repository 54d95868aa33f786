/* A sealed spool: what its files show, which keys open it, and what becomes of changed rows. */
#include "bed.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/xmem.h"
#include "crypto/envelope.h"
#include "rt/fdx.h"
#include "spool/inspect.h"

enum { PARTS = 8 };

/* Words that must not be found in any file of a sealed spool. */
static const char *const secrets[PARTS] = {"SECRET-account", "SECRET-key",   "SECRET-state",
                                           "SECRET-meta",    "SECRET-body",  "SECRET-piece",
                                           "SECRET-value",   "SECRET-second"};

static struct envelope *envelope;

/* Keys by a number; 0: none. */
static void use_keys(struct bed *b, int current, int old)
{
    struct aead_key now, before;

    memset(&now, current, sizeof(now));
    memset(&before, old, sizeof(before));
    envelope_free(&envelope);
    if (current || old)
        envelope = envelope_new(current ? &now : NULL, &before, old ? 1 : 0);
    b->opts.box = envelope ? envelope_box(envelope) : NULL;
}

static int setup(void **state)
{
    return bed_setup(state);
}

static int teardown(void **state)
{
    int rc = bed_teardown(state);

    envelope_free(&envelope);
    return rc;
}

struct filled {
    struct spool_stream st;
    struct spool_record r, dead, with_blob;
    int64_t blob;
};

static void fill(struct bed *b, struct filled *f)
{
    struct spool_txn *t = spool_txn_new();

    *f = (struct filled){.r = {.kind = 2, .lines = 7, .meta = VIEW_LIT("SECRET-meta")},
                         .dead = {.kind = 2, .lines = 9, .meta = VIEW_LIT("SECRET-meta")},
                         .with_blob = {.kind = 3, .meta = VIEW_LIT("SECRET-meta")}};
    f->r.body = VIEW_LIT("SECRET-body");
    f->dead.body = VIEW_LIT("SECRET-body");
    f->blob = f->with_blob.blob = spool_blob_id(b->s);
    spool_txn_stream(t, &f->st, VIEW_LIT("SECRET-account"), VIEW_LIT("SECRET-key"),
                     VIEW_LIT("SECRET-state"));
    spool_txn_record(t, &f->st, &f->r);
    spool_txn_record(t, &f->st, &f->dead);
    spool_txn_piece(t, f->blob, 0, VIEW_LIT("SECRET-piece"));
    spool_txn_piece(t, f->blob, 1, VIEW_LIT("SECRET-second"));
    spool_txn_record(t, &f->st, &f->with_blob);
    spool_txn_value(t, "cred", VIEW_LIT("1"), VIEW_LIT("SECRET-value"));
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    t = spool_txn_new();
    spool_txn_bury(t, f->dead.id, "reason");
    assert_int_equal(bed_commit(b, t), ERR_NONE);
}

/* How many of the words stand in the files of the spool. */
static int shown(struct bed *b)
{
    DIR *d = opendir(b->dir);
    struct dirent *e;
    bool found[PARTS] = {false};
    int i, n = 0;

    while (d && (e = readdir(d))) {
        struct str data = STR_INIT;
        char path[600];

        snprintf(path, sizeof(path), "%s/%s", b->dir, e->d_name);
        if (e->d_name[0] != '.' && file_read(path, 64 << 20, &data, NULL) == 0) {
            for (i = 0; i < PARTS; i++)
                found[i] = found[i] || memmem(data.p, data.n, secrets[i], strlen(secrets[i]));
        }
        str_fini(&data);
    }
    if (d)
        closedir(d);
    for (i = 0; i < PARTS; i++)
        n += found[i];
    return n;
}

struct seen {
    int streams, records, values, dead, damaged;
};

static int see_stream(void *ctx, const struct spool_stream_row *row)
{
    struct seen *n = ctx;

    n->damaged += row->damaged;
    if (row->damaged)
        return 0;
    assert_true(view_is(row->account, "SECRET-account"));
    assert_true(view_is(row->key, "SECRET-key"));
    assert_true(view_is(row->state, "SECRET-state") || row->state.n == 0);
    n->streams++;
    return 0;
}

static int see_record(void *ctx, const struct spool_record_row *row)
{
    struct seen *n = ctx;

    n->damaged += row->damaged;
    n->records += !row->damaged && view_is(row->meta, "SECRET-meta");
    return 0;
}

static int see_value(void *ctx, struct view name, struct view value)
{
    assert_true(view_is(name, "1"));
    assert_true(view_is(value, "SECRET-value"));
    ((struct seen *)ctx)->values++;
    return 0;
}

static int see_dead(void *ctx, const struct spool_dead_row *row)
{
    struct seen *n = ctx;

    n->damaged += row->record.damaged;
    n->dead += view_is(row->record.meta, "SECRET-meta") &&
               view_is(row->account, "SECRET-account") && view_is(row->key, "SECRET-key") &&
               view_is(row->reason, "reason");
    return 0;
}

static struct seen look(struct bed *b)
{
    struct seen n = {0};

    assert_int_equal(spool_each_stream(b->s, see_stream, &n, &b->err), 0);
    assert_int_equal(spool_each_record(b->s, see_record, &n, &b->err), 0);
    assert_int_equal(spool_each_value(b->s, "cred", see_value, &n, &b->err), 0);
    assert_int_equal(spool_each_dead(b->s, see_dead, &n, &b->err), 0);
    return n;
}

static void expect_body(struct bed *b, int64_t id, const char *want)
{
    struct str body = STR_INIT;

    assert_int_equal(bed_read_record(b, id, &body), ERR_NONE);
    assert_string_equal(str_c(&body), want);
    str_fini(&body);
}

static void expect_piece(struct bed *b, int64_t blob, uint32_t seq, const char *want)
{
    struct str piece = STR_INIT;

    assert_int_equal(bed_read_piece(b, blob, seq, &piece), ERR_NONE);
    assert_string_equal(str_c(&piece), want);
    str_fini(&piece);
}

/* All that `fill` wrote is there, and unharmed. */
static void expect_filled(struct bed *b, const struct filled *f)
{
    struct seen n = look(b);

    assert_int_equal(n.streams, 1);
    assert_int_equal(n.records, 2);
    assert_int_equal(n.values, 1);
    assert_int_equal(n.dead, 1);
    assert_int_equal(n.damaged, 0);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    expect_body(b, f->r.id, "SECRET-body");
    expect_body(b, f->dead.id, "SECRET-body");
    expect_piece(b, f->blob, 0, "SECRET-piece");
    expect_piece(b, f->blob, 1, "SECRET-second");
}

static void expect_refused(struct bed *b, const char *why)
{
    int64_t records = bed_ask(b, "SELECT count(*) FROM record");

    assert_null(spool_open(&b->opts, &b->note, &b->err));
    assert_int_equal(b->err.code, ERR_DENIED);
    if (!strstr(b->err.text, why))
        fail_msg("\"%s\" says nothing of %s", b->err.text, why);
    assert_int_equal(bed_files_like(b, "damaged"), 0);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM record"), records);
}

/* --- tests ---------------------------------------------------------------------------------- */

static void files_of_a_sealed_spool_show_nothing(void **state)
{
    struct bed *b = *state;
    struct filled f;

    bed_open(b);
    fill(b, &f);
    assert_int_equal(shown(b), PARTS); /* without a key they do: the words can be found */
    bed_close(b);
    bed_remove_tree(b->dir);

    use_keys(b, 1, 0);
    bed_open(b);
    fill(b, &f);
    assert_int_equal(shown(b), 0); /* in the log */
    bed_close(b);
    assert_int_equal(shown(b), 0); /* in the database */
    bed_open_only(b);
    expect_filled(b, &f);
    assert_int_equal(shown(b), 0);
}

static void lengths_are_those_of_what_was_sealed(void **state)
{
    struct bed *b = *state;
    struct filled f;

    use_keys(b, 1, 0);
    bed_open(b);
    fill(b, &f);
    bed_close(b);
    assert_int_equal(bed_ask(b, "SELECT size FROM record WHERE blob=0"), 11);
    assert_int_equal(bed_ask(b, "SELECT size FROM record WHERE blob<>0"), 12 + 13);
    assert_int_equal(bed_ask(b, "SELECT length(body) FROM record WHERE blob=0"), 11 + BOX_OVERHEAD);
}

static void without_a_key_nothing_grows(void **state)
{
    struct bed *b = *state;
    struct filled f;

    bed_open(b);
    fill(b, &f);
    bed_close(b);
    assert_int_equal(bed_ask(b, "SELECT length(body) FROM record WHERE blob=0"), 11);
    assert_int_equal(bed_ask(b, "SELECT sum(sealed) FROM record"), 0);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM epoch"), 0);
}

static void the_wrong_key_or_none_is_refused(void **state)
{
    struct bed *b = *state;
    struct filled f;

    use_keys(b, 1, 0);
    bed_open(b);
    fill(b, &f);
    bed_close(b);
    use_keys(b, 2, 0);
    expect_refused(b, "spool.old-keys");
    use_keys(b, 0, 2);
    expect_refused(b, "spool.old-keys");
    use_keys(b, 0, 0);
    expect_refused(b, "give spool.key");
    use_keys(b, 1, 0);
    bed_open_only(b);
    expect_filled(b, &f);
}

static void after_one_start_the_old_key_may_go(void **state)
{
    struct bed *b = *state;
    struct filled f;

    use_keys(b, 1, 0);
    bed_open(b);
    fill(b, &f);
    bed_close(b);
    use_keys(b, 2, 1);
    bed_open_only(b);
    expect_filled(b, &f);
    bed_close(b);
    use_keys(b, 1, 0);
    expect_refused(b, "spool.old-keys"); /* it is not the key of this spool any more */
    use_keys(b, 2, 0);
    bed_open_only(b);
    expect_filled(b, &f);
}

static void plain_rows_from_before_are_read(void **state)
{
    struct bed *b = *state;
    struct spool_record late = {.kind = 2, .meta = VIEW_LIT("SECRET-meta")};
    struct filled f;

    bed_open(b);
    fill(b, &f);
    bed_close(b);
    use_keys(b, 1, 0);
    bed_open_only(b);
    expect_filled(b, &f);
    assert_int_equal(bed_record(b, &f.st, &late, VIEW_LIT("late")), ERR_NONE);
    bed_close(b);
    assert_int_equal(bed_ask(b, "SELECT sum(sealed) FROM record"), 1);
    /* Small rows are brought in line at once. */
    assert_int_equal(bed_ask(b, "SELECT min(sealed) FROM stream"), 1);
    assert_int_equal(bed_ask(b, "SELECT min(sealed) FROM value"), 1);
    bed_open_only(b);
    assert_int_equal(look(b).records, 3);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    expect_body(b, late.id, "late");
    expect_body(b, f.r.id, "SECRET-body");
}

static void a_key_is_given_up_by_way_of_the_old_keys(void **state)
{
    struct bed *b = *state;
    struct filled f;
    struct spool_txn *t;

    use_keys(b, 1, 0);
    bed_open(b);
    fill(b, &f);
    bed_close(b);
    use_keys(b, 0, 1);
    bed_open_only(b);
    expect_filled(b, &f); /* opened, and new ones would be plain */
    bed_close(b);
    use_keys(b, 0, 0);
    expect_refused(b, "give spool.key"); /* records still wait sealed */
    use_keys(b, 0, 1);
    bed_open(b);
    t = spool_txn_new();
    spool_txn_delete(t, f.r.id);
    spool_txn_delete(t, f.dead.id);
    spool_txn_delete(t, f.with_blob.id);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    bed_close(b);
    bed_open(b); /* sees that the data keys are needed no more */
    bed_close(b);
    use_keys(b, 0, 0);
    bed_open_only(b);
    assert_int_equal(look(b).streams, 1);
    assert_int_equal(look(b).values, 1);
    assert_int_equal(look(b).damaged, 0);
}

static void data_keys_nobody_needs_are_dropped(void **state)
{
    struct bed *b = *state;
    struct filled f;
    int i;

    use_keys(b, 1, 0);
    bed_open(b);
    fill(b, &f);
    bed_close(b);
    for (i = 0; i < 3 * EPOCHS_KEPT; i++) {
        bed_open(b);
        bed_close(b);
    }
    assert_in_range(bed_ask(b, "SELECT count(*) FROM epoch"), 2, EPOCHS_KEPT + 2);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM epoch WHERE id=1"), 1); /* it is needed */
    use_keys(b, 1, 0);
    bed_open_only(b);
    expect_filled(b, &f);
}

/* One bit, in the last byte but one of the value. */
static void flip(struct bed *b, const char *table, const char *column, const char *where)
{
    char path[300], sql[400];
    sqlite3 *db = NULL;
    sqlite3_stmt *q = NULL;
    uint8_t bytes[256];
    int n;

    snprintf(path, sizeof(path), "%s/spool.db", b->dir);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    snprintf(sql, sizeof(sql), "SELECT %s FROM %s WHERE %s", column, table, where);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    n = sqlite3_column_bytes(q, 0);
    assert_in_range(n, BOX_OVERHEAD, sizeof(bytes));
    memcpy(bytes, sqlite3_column_blob(q, 0), (size_t)n);
    sqlite3_finalize(q);
    bytes[n - 2] ^= 1;
    snprintf(sql, sizeof(sql), "UPDATE %s SET %s=?1 WHERE %s", table, column, where);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &q, NULL), SQLITE_OK);
    sqlite3_bind_blob(q, 1, bytes, n, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(q), SQLITE_DONE);
    sqlite3_finalize(q);
    sqlite3_close(db);
}

/* Fill a fresh sealed spool, change it, and open it. */
static struct filled changed(struct bed *b, const char *table, const char *column,
                             const char *where)
{
    struct filled f;

    if (b->s)
        bed_close(b);
    bed_remove_tree(b->dir);
    use_keys(b, 1, 0);
    bed_open(b);
    fill(b, &f);
    bed_close(b);
    if (table)
        flip(b, table, column, where);
    else
        bed_ask(b, where);
    bed_open_only(b);
    return f;
}

static uint64_t damage_seen(struct bed *b)
{
    struct spool_stats st;

    spool_stats(b->s, &st);
    return st.damaged;
}

static void a_changed_bit_is_found(void **state)
{
    struct bed *b = *state;
    struct str data = STR_INIT;
    struct filled f = changed(b, "record", "meta", "blob=0");

    assert_int_equal(look(b).damaged, 1);
    assert_int_equal(look(b).records, 1);
    f = changed(b, "stream", "account", "1");
    assert_int_equal(look(b).damaged, 1);
    assert_int_equal(look(b).streams, 0);
    changed(b, "stream", "key", "1");
    assert_int_equal(look(b).damaged, 1);
    changed(b, "stream", "state", "1"); /* its records can still be delivered */
    assert_int_equal(look(b).streams, 1);
    assert_int_equal(look(b).damaged, 0);
    changed(b, "value", "value", "1");
    assert_int_equal(look(b).values, 0);
    assert_true(damage_seen(b) > 0);
    changed(b, "dead", "account", "1");
    assert_int_equal(look(b).dead, 0);

    f = changed(b, "record", "body", "blob=0");
    assert_int_equal(look(b).damaged, 0);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    assert_int_equal(bed_read_record(b, f.r.id, &data), ERR_INVALID);
    assert_int_equal(data.n, 0);
    assert_int_equal(damage_seen(b), 1);
    f = changed(b, "piece", "data", "id&1=1");
    assert_int_equal(spool_start(b->s, &b->err), 0);
    expect_piece(b, f.blob, 0, "SECRET-piece");
    assert_int_equal(bed_read_piece(b, f.blob, 1, &data), ERR_INVALID);
    assert_int_equal(data.n, 0);
    str_fini(&data);
}

static void what_a_row_says_of_itself_is_sealed_too(void **state)
{
    static const char *const forged[] = {
        "UPDATE record SET lines=8 WHERE blob=0", "UPDATE record SET number=9 WHERE blob=0",
        "UPDATE record SET kind=1 WHERE blob=0",  "UPDATE record SET at=1 WHERE blob=0",
        "UPDATE record SET size=1 WHERE blob=0",  "UPDATE record SET stream=7 WHERE blob=0",
        "UPDATE record SET blob=0 WHERE blob<>0",
    };
    struct bed *b = *state;
    size_t i;

    for (i = 0; i < ARRAY_LEN(forged); i++) {
        changed(b, NULL, NULL, forged[i]);
        if (look(b).damaged != 1)
            fail_msg("not found: %s", forged[i]);
    }
}

static void swapped_rows_are_found(void **state)
{
    struct bed *b = *state;
    struct str data = STR_INIT;
    struct filled f = changed(
        b, NULL, NULL, "UPDATE record SET body=(SELECT body FROM dead LIMIT 1) WHERE blob=0");

    assert_int_equal(spool_start(b->s, &b->err), 0);
    assert_int_equal(bed_read_record(b, f.r.id, &data), ERR_INVALID);
    f = changed(b, NULL, NULL,
                "UPDATE piece SET data=(SELECT data FROM piece p WHERE p.id<>piece.id)");
    assert_int_equal(spool_start(b->s, &b->err), 0);
    assert_int_equal(bed_read_piece(b, f.blob, 0, &data), ERR_INVALID);
    changed(b, NULL, NULL, "UPDATE stream SET account=key");
    assert_int_equal(look(b).damaged, 1);
    changed(b, NULL, NULL, "UPDATE value SET name=x'32'");
    assert_int_equal(look(b).values, 0);
    str_fini(&data);
}

static void a_damaged_data_key_stops_the_start(void **state)
{
    struct bed *b = *state;
    struct filled f;

    use_keys(b, 1, 0);
    bed_open(b);
    fill(b, &f);
    bed_close(b);
    flip(b, "epoch", "key", "id=1");
    expect_refused(b, "1 of its 1 data keys");
}

/* The fresh database has the data key, so that what is sealed from then on can be opened. */
static void a_database_set_aside_while_it_runs_has_a_sealed_successor(void **state)
{
    struct bed *b = *state;
    struct filled f;
    struct spool_txn *t;
    struct spool_record r = {.kind = 2, .meta = VIEW_LIT("SECRET-meta"), .body = VIEW_LIT("after")};
    static const char junk[8192];
    char path[400];
    int fd, i;

    use_keys(b, 1, 0);
    bed_open(b);
    envelope_settle(envelope); /* the keys are not there any more, as in a gateway */
    fill(b, &f);
    assert_int_equal(bed_ask(b, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    snprintf(path, sizeof(path), "%s/spool.db", b->dir);
    fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, junk, sizeof(junk), 4096), sizeof(junk));
    close(fd);
    atomic_store(&b->s->damaged, true);
    for (i = 0; i < 3000 && spool_generation(b->s) == 0; i++) {
        bed_delete(b, 1000); /* the writer looks between transactions */
        usleep(10000);
    }
    assert_int_equal(spool_generation(b->s), 1);
    t = spool_txn_new();
    spool_txn_stream(t, &f.st, VIEW_LIT("SECRET-account"), VIEW_LIT("SECRET-key"),
                     VIEW_LIT("SECRET-state"));
    spool_txn_record(t, &f.st, &r);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    bed_close(b);
    assert_int_equal(shown(b), 0);
    use_keys(b, 1, 0);
    bed_open_only(b);
    assert_int_equal(look(b).streams, 1);
    assert_int_equal(look(b).records, 1);
    assert_int_equal(look(b).damaged, 0);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    expect_body(b, r.id, "after");
}

/* The data key was committed at the start; what is made void after a failure comes behind it. */
static void a_first_commit_that_fails_takes_no_data_key_with_it(void **state)
{
    struct bed *b = *state;
    struct filled f;
    int at, failed = 0;

    for (at = 1; at <= 4; at++) {
        struct spool_txn *t = spool_txn_new();

        use_keys(b, 1, 0);
        bed_open(b);
        spool_txn_value(t, "cred", VIEW_LIT("1"), VIEW_LIT("SECRET-value"));
        atomic_store(&b->s->vfs.fail_code, SQLITE_IOERR_FSYNC);
        atomic_store(&b->s->vfs.fail_at, at);
        failed += bed_commit(b, t) != ERR_NONE;
        atomic_store(&b->s->vfs.fail_at, 0);
        fill(b, &f);
        bed_close(b);
        use_keys(b, 1, 0);
        bed_open_only(b);
        assert_int_equal(b->note.n, 0);
        expect_filled(b, &f);
        bed_close(b);
        bed_remove_tree(b->dir);
    }
    assert_true(failed > 0);
}

static void see_inside(void *ctx, const struct spool_record_row *row)
{
    see_record(ctx, row);
}

/* Tools that look in from outside: with the key, without, and at a file of the format before. */
static void tools_see_what_their_keys_open(void **state)
{
    struct bed *b = *state;
    struct str note = STR_INIT;
    struct seen n = {0};
    struct spool_read r = {0};
    struct spool *s;
    struct filled f;
    uint64_t lost = 0;
    char path[400];

    use_keys(b, 1, 0);
    bed_open(b);
    fill(b, &f);
    bed_close(b);
    snprintf(path, sizeof(path), "%s/spool.db", b->dir);
    use_keys(b, 0, 1);
    s = spool_inspect(path, envelope_box(envelope), &note, &b->err);
    assert_non_null(s);
    assert_int_equal(note.n, 0);
    spool_inspect_records(s, see_inside, &n, &lost, &b->err);
    assert_int_equal(n.records, 2);
    r.record = f.r.id;
    spool_inspect_read(s, &r);
    assert_string_equal(str_c(&r.data), "SECRET-body");
    str_fini(&r.data);
    spool_inspect_end(&s);

    s = spool_inspect(path, NULL, &note, &b->err);
    assert_non_null(s);
    assert_non_null(strstr(str_c(&note), "data keys"));
    n = (struct seen){0};
    spool_inspect_records(s, see_inside, &n, &lost, &b->err);
    assert_int_equal(n.records, 0);
    assert_int_equal(n.damaged, 2);
    spool_inspect_end(&s);
    str_fini(&note);
}

static void tools_read_the_formats_before(void **state)
{
    struct bed *b = *state;
    struct str note = STR_INIT;
    struct seen n = {0};
    struct spool *s;
    struct filled f;
    uint64_t lost = 0;
    char path[400];
    int format;

    bed_open(b);
    fill(b, &f);
    bed_close(b);
    bed_unseal_format(b);
    snprintf(path, sizeof(path), "%s/spool.db", b->dir);
    for (format = 2; format >= 1; format--) {
        bed_ask(b, format == 2 ? "PRAGMA user_version=2" : "PRAGMA user_version=1");
        if (format == 1)
            bed_ask(b, "DROP TABLE gone");
        s = spool_inspect(path, NULL, &note, &b->err);
        if (!s)
            fail_msg("format %d: %s", format, b->err.text);
        n = (struct seen){0};
        spool_inspect_records(s, see_inside, &n, &lost, &b->err);
        assert_int_equal(n.records, 2);
        assert_int_equal(lost, 0);
        spool_inspect_end(&s);
    }
    assert_int_equal(note.n, 0);
    str_fini(&note);
}

/* --- the step from the format before --------------------------------------------------------- */

static void copy(struct bed *b, const char *from, const char *to)
{
    struct str data = STR_INIT;
    char a[400], z[400];

    snprintf(a, sizeof(a), "%s/%s", b->dir, from);
    snprintf(z, sizeof(z), "%s/%s", b->dir, to);
    assert_int_equal(file_read(a, 64 << 20, &data, NULL), 0);
    assert_int_equal(file_write_durable(z, data.p, data.n, 0600, &b->err), 0);
    str_fini(&data);
}

/* Opens the spool in a process that is killed when a file would grow past `size`. True: it was. */
static bool killed_at(struct bed *b, rlim_t size)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        const struct rlimit limit = {size, size}, none = {0, 0};
        struct err e;

        setrlimit(RLIMIT_CORE, &none);
        setrlimit(RLIMIT_FSIZE, &limit);
        _exit(spool_open(&b->opts, NULL, &e) ? 0 : 1);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status);
}

static void a_crash_in_the_upgrade_leaves_one_format_or_the_other(void **state)
{
    struct bed *b = *state;
    struct filled f;
    rlim_t size;
    int kills = 0;
    bool killed = true;

    bed_open(b);
    fill(b, &f);
    bed_close(b);
    bed_unseal_format(b);
    bed_ask(b, "PRAGMA user_version=2");
    bed_ask(b, "PRAGMA wal_checkpoint(TRUNCATE)");
    copy(b, "spool.db", "before");
    for (size = 3000; killed; size += 4096) {
        char wal[400];

        use_keys(b, 1, 0);
        copy(b, "before", "spool.db");
        snprintf(wal, sizeof(wal), "%s/spool.db-wal", b->dir);
        unlink(wal);
        killed = killed_at(b, size);
        kills += killed;
        bed_open_only(b);
        assert_int_equal(b->note.n, 0);
        expect_filled(b, &f);
        bed_close(b);
        assert_int_equal(bed_ask(b, "PRAGMA user_version"), SPOOL_FORMAT);
    }
    assert_true(kills > 3);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(files_of_a_sealed_spool_show_nothing),
        TEST(lengths_are_those_of_what_was_sealed),
        TEST(without_a_key_nothing_grows),
        TEST(the_wrong_key_or_none_is_refused),
        TEST(after_one_start_the_old_key_may_go),
        TEST(plain_rows_from_before_are_read),
        TEST(a_key_is_given_up_by_way_of_the_old_keys),
        TEST(data_keys_nobody_needs_are_dropped),
        TEST(a_changed_bit_is_found),
        TEST(what_a_row_says_of_itself_is_sealed_too),
        TEST(swapped_rows_are_found),
        TEST(a_damaged_data_key_stops_the_start),
        TEST(a_database_set_aside_while_it_runs_has_a_sealed_successor),
        TEST(a_first_commit_that_fails_takes_no_data_key_with_it),
        TEST(tools_see_what_their_keys_open),
        TEST(tools_read_the_formats_before),
        TEST(a_crash_in_the_upgrade_leaves_one_format_or_the_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
