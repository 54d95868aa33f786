/* What spool.h promises while nothing goes wrong. */
#include "bed.h"

#include <stdio.h>
#include <string.h>
#include "base/xmem.h"

/* --- records and streams ----------------------------------------------------------------- */

static void numbers_are_dense_and_ids_rise(void **state)
{
    struct bed *b = *state;
    struct spool_stream a = {0}, c = {0};
    struct spool_record r[6] = {{0}};
    int i;

    bed_open(b);
    bed_stream(b, &a, "a");
    bed_stream(b, &c, "c");
    assert_true(a.id > 0 && c.id > a.id);
    assert_int_equal(a.next, 0);
    for (i = 0; i < 6; i++)
        assert_int_equal(bed_record(b, i % 2 ? &c : &a, &r[i], VIEW_LIT("body")), ERR_NONE);
    for (i = 0; i < 6; i++) {
        assert_int_equal(r[i].number, i / 2);
        assert_true(i == 0 || r[i].id > r[i - 1].id);
    }
    assert_int_equal(a.next, 3);
    assert_int_equal(c.next, 3);
}

static void a_stream_and_its_records_in_one_transaction(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[2] = {{.kind = 7}, {.kind = 8}};
    struct spool_txn *t = spool_txn_new();

    bed_open(b);
    assert_true(spool_txn_empty(t));
    spool_txn_stream(t, &st, VIEW_LIT("acc"), VIEW_LIT("key"), VIEW_LIT("s0"));
    spool_txn_record(t, &st, &r[0]);
    spool_txn_record(t, &st, &r[1]);
    assert_false(spool_txn_empty(t));
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    assert_int_equal(r[0].number, 0);
    assert_int_equal(r[1].number, 1);
    assert_int_equal(st.next, 2);
}

struct seen {
    int streams, records, values, dead;
    struct spool_stream_row stream;
    struct spool_record_row record;
    char account[64], key[64], state[64], meta[64], name[64], value[64], reason[64], dead_key[64];
    int64_t dead_id, last_id;
    int stop_after;
};

static void text_of(char out[64], struct view v)
{
    snprintf(out, 64, "%.*s", (int)v.n, v.p ? v.p : "");
}

static int see_stream(void *ctx, const struct spool_stream_row *row)
{
    struct seen *n = ctx;

    n->streams++;
    n->stream = *row;
    text_of(n->account, row->account);
    text_of(n->key, row->key);
    text_of(n->state, row->state);
    return n->stop_after && n->streams >= n->stop_after;
}

static int see_record(void *ctx, const struct spool_record_row *row)
{
    struct seen *n = ctx;

    n->records++;
    assert_true(row->id > n->last_id);
    n->last_id = row->id;
    n->record = *row;
    text_of(n->meta, row->meta);
    return n->stop_after && n->records >= n->stop_after;
}

static int see_value(void *ctx, struct view name, struct view value)
{
    struct seen *n = ctx;

    n->values++;
    text_of(n->name, name);
    text_of(n->value, value);
    return 0;
}

static int see_dead(void *ctx, const struct spool_dead_row *row)
{
    struct seen *n = ctx;

    n->dead++;
    n->dead_id = row->record.id;
    text_of(n->reason, row->reason);
    text_of(n->dead_key, row->key);
    assert_true(row->buried_ns > 0);
    return 0;
}

static void look(struct bed *b, struct seen *n)
{
    *n = (struct seen){.stop_after = n->stop_after};
    assert_int_equal(spool_each_stream(b->s, see_stream, n, &b->err), 0);
    assert_int_equal(spool_each_record(b->s, see_record, n, &b->err), 0);
    assert_int_equal(spool_each_value(b->s, "space", see_value, n, &b->err), 0);
    assert_int_equal(spool_each_dead(b->s, see_dead, n, &b->err), 0);
}

static void everything_is_there_again_after_a_reopen(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r = {
        .kind = 3, .lines = 23, .at_ns = 1234567890123456789, .meta = VIEW_LIT("meta\0data")};
    struct spool_txn *t;
    struct seen n = {0};
    struct str body = STR_INIT;

    bed_open(b);
    bed_stream(b, &st, "the/key");
    assert_int_equal(bed_record(b, &st, &r, VIEW_LIT("a body\0with zeros")), ERR_NONE);
    t = spool_txn_new();
    spool_txn_stream(t, &st, VIEW_NONE, VIEW_NONE, VIEW_LIT("new state"));
    spool_txn_value(t, "space", VIEW_LIT("name"), VIEW_LIT("value"));
    spool_txn_value(t, "other", VIEW_LIT("name"), VIEW_LIT("x"));
    spool_txn_ledger(t, LEDGER_LINES_ACCEPTED, 23);
    spool_txn_ledger(t, LEDGER_LINES_SPOOLED, 23);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    bed_close(b);

    bed_open_only(b);
    look(b, &n);
    assert_int_equal(n.streams, 1);
    assert_string_equal(n.account, "account");
    assert_string_equal(n.key, "the/key");
    assert_string_equal(n.state, "new state");
    assert_int_equal(n.stream.id, st.id);
    assert_int_equal(n.stream.next, 1);
    assert_int_equal(n.records, 1);
    assert_int_equal(n.record.id, r.id);
    assert_int_equal(n.record.stream, st.id);
    assert_int_equal(n.record.kind, 3);
    assert_int_equal(n.record.lines, 23);
    assert_true(n.record.at_ns == 1234567890123456789);
    assert_int_equal(n.record.size, 17);
    assert_int_equal(n.record.blob, 0);
    assert_string_equal(n.meta, "meta");
    assert_int_equal(n.values, 1);
    assert_string_equal(n.value, "value");
    assert_int_equal(spool_start(b->s, &b->err), 0);
    assert_int_equal(bed_read_record(b, r.id, &body), ERR_NONE);
    assert_true(view_eq(str_view(&body), VIEW_LIT("a body\0with zeros")));
    str_fini(&body);
}

struct rows_read {
    struct spool_read r;
    int done, n;
    size_t at[8];
    uint64_t lines[8];
    char meta[8][64];
};

static void on_row(struct spool_read *r, size_t i, const struct spool_record_row *row)
{
    struct rows_read *o = (void *)r;

    assert_int_equal(row->id, r->ids[i]);
    o->at[o->n] = i;
    o->lines[o->n] = row->lines;
    text_of(o->meta[o->n++], row->meta);
}

static void on_rows(struct spool_read *r)
{
    bed_add(&((struct rows_read *)(void *)r)->done, 1);
}

static void rows_are_read_by_their_ids(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[4] = {{.lines = 1, .meta = VIEW_LIT("m0")},
                                {.lines = 2, .meta = VIEW_LIT("m1")},
                                {.lines = 3, .meta = VIEW_LIT("m2")},
                                {.lines = 4, .meta = VIEW_LIT("m3")}};
    struct spool_txn *t = spool_txn_new();
    struct rows_read o = {.done = 0};
    int64_t ids[6];
    int i;

    bed_open(b);
    bed_stream(b, &st, "a");
    for (i = 0; i < 4; i++)
        assert_int_equal(bed_record(b, &st, &r[i], VIEW_LIT("body")), ERR_NONE);
    assert_int_equal(bed_delete(b, r[1].id), ERR_NONE);
    spool_txn_bury(t, r[2].id, "dead");
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    ids[0] = r[3].id; /* in any order; deleted, dead and unknown ones are left out */
    ids[1] = r[1].id;
    ids[2] = r[2].id;
    ids[3] = INT64_MAX;
    ids[4] = r[0].id;
    ids[5] = -1;
    o.r = (struct spool_read){.ids = ids, .n_ids = 6, .row = on_row, .done = on_rows};
    spool_read(b->s, &o.r);
    bed_wait(&o.done, 1);
    assert_int_equal(o.r.err.code, ERR_NONE);
    assert_int_equal(o.n, 2);
    assert_int_equal(o.at[0], 0);
    assert_int_equal(o.lines[0], 4);
    assert_string_equal(o.meta[0], "m3");
    assert_int_equal(o.at[1], 4);
    assert_string_equal(o.meta[1], "m0");
}

static void a_walk_ends_when_the_callback_says_so(void **state)
{
    struct bed *b = *state;
    struct spool_stream st[3] = {{0}};
    struct seen n = {.stop_after = 2};
    int i;

    bed_open(b);
    for (i = 0; i < 3; i++)
        bed_stream(b, &st[i], "k");
    bed_close(b);
    bed_open_only(b);
    assert_int_equal(spool_each_stream(b->s, see_stream, &n, &b->err), -1);
    assert_int_equal(n.streams, 2);
}

static void ids_and_numbers_never_come_back(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0}, other = {0}, later = {0};
    struct spool_record r[5] = {{0}}, after = {0};
    struct seen n = {0};
    int64_t blob;
    int i;

    bed_open(b);
    bed_stream(b, &st, "k");
    bed_stream(b, &other, "other");
    for (i = 0; i < 5; i++)
        assert_int_equal(bed_record(b, &st, &r[i], VIEW_LIT("x")), ERR_NONE);
    blob = spool_blob_id(b->s);
    for (i = 0; i < 5; i++)
        assert_int_equal(bed_delete(b, r[i].id), ERR_NONE);
    {
        struct spool_txn *t = spool_txn_new();

        spool_txn_stream_drop(t, &other);
        assert_int_equal(bed_commit(b, t), ERR_NONE);
        assert_int_equal(other.id, 0);
    }
    bed_close(b);
    bed_open_only(b);
    look(b, &n);
    assert_int_equal(n.records, 0);
    assert_int_equal(n.streams, 1);
    assert_int_equal(n.stream.next, 5);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    assert_true(spool_blob_id(b->s) > blob);
    st = (struct spool_stream){.id = n.stream.id, .next = n.stream.next};
    assert_int_equal(bed_record(b, &st, &after, VIEW_LIT("x")), ERR_NONE);
    assert_int_equal(after.number, 5);
    assert_true(after.id > r[4].id);
    bed_stream(b, &later, "later");
    assert_true(later.id > st.id + 1);
}

static void a_dropped_stream_can_be_inserted_again(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r = {0};
    struct spool_txn *t = spool_txn_new();
    int64_t before;

    bed_open(b);
    bed_stream(b, &st, "k");
    assert_int_equal(bed_record(b, &st, &r, VIEW_LIT("x")), ERR_NONE);
    before = st.id;
    spool_txn_delete(t, r.id);
    spool_txn_stream_drop(t, &st);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    assert_int_equal(st.id, 0);
    bed_stream(b, &st, "k");
    assert_true(st.id > before);
    assert_int_equal(st.next, 0);
    assert_int_equal(bed_record(b, &st, &r, VIEW_LIT("x")), ERR_NONE);
    assert_int_equal(r.number, 0);
}

/* The owner does not wait between dropping and inserting; how the groups fall does not matter. */
static void a_drop_and_a_new_insertion_in_one_group(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[3] = {{0}};
    struct spool_txn *t;
    int i, done = 0;

    bed_open_only(b);
    for (i = 0; i < 3; i++) {
        t = spool_txn_new();
        spool_txn_stream(t, &st, VIEW_LIT("a"), VIEW_LIT("k"), VIEW_LIT("s"));
        spool_txn_record(t, &st, &r[i]);
        spool_submit(b->s, t, bed_count, &done);
        t = spool_txn_new();
        spool_txn_delete(t, i + 1);
        spool_txn_stream_drop(t, &st);
        if (i == 1) { /* also within one transaction */
            spool_txn_stream(t, &st, VIEW_LIT("a"), VIEW_LIT("k"), VIEW_LIT("s"));
            spool_txn_stream_drop(t, &st);
        }
        spool_submit(b->s, t, bed_count, &done);
    }
    t = spool_txn_new();
    spool_txn_stream(t, &st, VIEW_LIT("a"), VIEW_LIT("k"), VIEW_LIT("s"));
    spool_submit(b->s, t, bed_count, &done);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    bed_wait(&done, 7);
    for (i = 0; i < 3; i++)
        assert_int_equal(r[i].number, 0);
    assert_int_equal(st.id, 5);
    assert_int_equal(bed_ask(b, "SELECT count(*)*100+max(id) FROM stream"), 105);
}

/* The same, but nothing of it comes to pass. */
static void a_failed_group_leaves_the_owner_as_it_was(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r = {0};
    struct spool_txn *t;
    int64_t id;

    bed_open(b);
    bed_stream(b, &st, "k");
    assert_int_equal(bed_record(b, &st, &r, VIEW_LIT("x")), ERR_NONE);
    id = st.id;
    t = spool_txn_new();
    spool_txn_delete(t, r.id);
    spool_txn_stream_drop(t, &st);
    spool_txn_stream(t, &st, VIEW_LIT("a"), VIEW_LIT("k"), VIEW_LIT("s"));
    spool_txn_piece(t, 0, 0, VIEW_LIT("impossible"));
    assert_int_equal(bed_commit(b, t), ERR_INVALID);
    assert_int_equal(st.id, id);
    assert_int_equal(st.next, 1);
    assert_int_equal(bed_record(b, &st, &r, VIEW_LIT("x")), ERR_NONE);
    assert_int_equal(r.number, 1);
}

static void a_record_needs_its_stream(void **state)
{
    struct bed *b = *state;
    struct spool_stream none = {0}, gone = {.id = 4711};
    struct spool_record r = {0};
    struct spool_stats st;

    bed_open(b);
    assert_int_equal(bed_record(b, &none, &r, VIEW_LIT("x")), ERR_INVALID);
    assert_int_equal(bed_record(b, &gone, &r, VIEW_LIT("x")), ERR_INVALID);
    assert_int_equal(r.id, 0);
    spool_stats(b->s, &st);
    assert_int_equal(st.failed, 2);
    assert_false(st.failing);
}

/* --- values ------------------------------------------------------------------------------ */

static void values_are_set_replaced_and_deleted(void **state)
{
    struct bed *b = *state;
    struct spool_txn *t = spool_txn_new();
    struct seen n = {0};
    char name[16] = "copied";

    bed_open(b);
    spool_txn_value(t, "space", view_str(name), VIEW_LIT("1"));
    memset(name, 'x', 6);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    t = spool_txn_new();
    spool_txn_value(t, "space", VIEW_LIT("copied"), VIEW_LIT("2"));
    spool_txn_value(t, "space", VIEW_LIT("b"), VIEW_LIT(""));
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    bed_close(b);
    bed_open_only(b);
    look(b, &n);
    assert_int_equal(n.values, 2);
    assert_string_equal(n.name, "copied"); /* by name: the second */
    assert_string_equal(n.value, "2");
    assert_int_equal(spool_start(b->s, &b->err), 0);
    t = spool_txn_new();
    spool_txn_value(t, "space", VIEW_LIT("copied"), VIEW_NONE);
    spool_txn_value(t, "space", VIEW_LIT("never was"), VIEW_NONE);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    bed_close(b);
    bed_open_only(b);
    look(b, &n);
    assert_int_equal(n.values, 1);
    assert_string_equal(n.name, "b");
}

/* --- blobs ------------------------------------------------------------------------------- */

static enum err_code put_piece(struct bed *b, int64_t blob, uint32_t seq, struct view data)
{
    struct spool_txn *t = spool_txn_new();

    spool_txn_piece(t, blob, seq, data);
    return bed_commit(b, t);
}

static void a_blob_in_pieces(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r = {.meta = VIEW_LIT("m")};
    struct seen n = {0};
    struct str data = STR_INIT;

    bed_open(b);
    bed_stream(b, &st, "k");
    r.blob = spool_blob_id(b->s);
    assert_true(r.blob > 0);
    assert_int_equal(put_piece(b, r.blob, 0, VIEW_LIT("first,")), ERR_NONE);
    assert_int_equal(put_piece(b, r.blob, 1, VIEW_LIT("wrong")), ERR_NONE);
    assert_int_equal(put_piece(b, r.blob, 1, VIEW_LIT("second")), ERR_NONE);
    assert_int_equal(bed_record(b, &st, &r, VIEW_NONE), ERR_NONE);
    assert_int_equal(bed_read_piece(b, r.blob, 1, &data), ERR_NONE);
    assert_string_equal(str_c(&data), "second");
    assert_int_equal(bed_read_piece(b, r.blob, 2, &data), ERR_NOTFOUND);
    bed_close(b);
    bed_open_only(b);
    look(b, &n);
    assert_int_equal(n.record.blob, r.blob);
    assert_int_equal(n.record.size, 12);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    assert_int_equal(bed_read_piece(b, r.blob, 0, &data), ERR_NONE);
    assert_string_equal(str_c(&data), "first,");
    assert_int_equal(bed_delete(b, r.id), ERR_NONE);
    assert_int_equal(bed_read_piece(b, r.blob, 0, &data), ERR_NOTFOUND);
    assert_int_equal(bed_read_record(b, r.id, &data), ERR_NOTFOUND);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM piece"), 0);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM blob"), 0);
    str_fini(&data);
}

static void pieces_without_a_record_go_at_the_next_start(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r = {0};
    struct spool_txn *t;
    int64_t orphan, dropped;
    struct str data = STR_INIT;

    bed_open(b);
    bed_stream(b, &st, "k");
    orphan = spool_blob_id(b->s);
    r.blob = spool_blob_id(b->s);
    dropped = spool_blob_id(b->s);
    assert_int_equal(put_piece(b, orphan, 0, VIEW_LIT("o0")), ERR_NONE);
    assert_int_equal(put_piece(b, orphan, 1, VIEW_LIT("o1")), ERR_NONE);
    assert_int_equal(put_piece(b, r.blob, 0, VIEW_LIT("kept")), ERR_NONE);
    assert_int_equal(put_piece(b, dropped, 5, VIEW_LIT("given up")), ERR_NONE);
    assert_int_equal(bed_record(b, &st, &r, VIEW_NONE), ERR_NONE);
    t = spool_txn_new();
    spool_txn_blob_drop(t, dropped);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM piece"), 3);
    bed_close(b);
    bed_open(b);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM piece"), 1);
    assert_int_equal(bed_read_piece(b, r.blob, 0, &data), ERR_NONE);
    assert_string_equal(str_c(&data), "kept");
    assert_int_equal(bed_read_piece(b, orphan, 0, &data), ERR_NOTFOUND);
    assert_true(spool_blob_id(b->s) > dropped);
    str_fini(&data);
}

static void impossible_pieces_are_refused_alone(void **state)
{
    struct bed *b = *state;

    bed_open(b);
    assert_int_equal(put_piece(b, 0, 0, VIEW_LIT("x")), ERR_INVALID);
    assert_int_equal(put_piece(b, -1, 0, VIEW_LIT("x")), ERR_INVALID);
    assert_int_equal(put_piece(b, BLOB_ID_MAX + 1, 0, VIEW_LIT("x")), ERR_INVALID);
    assert_int_equal(put_piece(b, 1, PIECE_SEQ_MAX + 1, VIEW_LIT("x")), ERR_LIMIT);
    assert_int_equal(put_piece(b, 1, PIECE_SEQ_MAX, VIEW_LIT("x")), ERR_NONE);
}

/* --- dead letters ------------------------------------------------------------------------ */

static void a_dead_letter_stays_out_of_sight(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[2] = {{.at_ns = 1}, {.at_ns = 2}};
    struct spool_txn *t = spool_txn_new();
    struct seen n = {0};
    struct str body = STR_INIT;

    bed_open(b);
    bed_stream(b, &st, "k");
    r[1].blob = spool_blob_id(b->s);
    assert_int_equal(put_piece(b, r[1].blob, 0, VIEW_LIT("piece")), ERR_NONE);
    assert_int_equal(bed_record(b, &st, &r[0], VIEW_LIT("live")), ERR_NONE);
    assert_int_equal(bed_record(b, &st, &r[1], VIEW_LIT("dead")), ERR_NONE);
    spool_txn_bury(t, r[1].id, "upstream said 400");
    spool_txn_bury(t, 987654, "never was");
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    t = spool_txn_new();
    spool_txn_bury(t, r[1].id, "again");
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    bed_close(b);

    bed_open_only(b);
    look(b, &n);
    assert_int_equal(n.records, 1);
    assert_int_equal(n.record.id, r[0].id);
    assert_int_equal(n.stream.next, 2);
    assert_int_equal(n.dead, 1);
    assert_int_equal(n.dead_id, r[1].id);
    assert_string_equal(n.reason, "upstream said 400");
    assert_string_equal(n.dead_key, "k");
    assert_int_equal(spool_start(b->s, &b->err), 0);
    assert_int_equal(bed_read_record(b, r[1].id, &body), ERR_NONE);
    assert_string_equal(str_c(&body), "dead");
    assert_int_equal(bed_read_piece(b, r[1].blob, 0, &body), ERR_NONE);
    assert_int_equal(bed_delete(b, r[1].id), ERR_NONE);
    assert_int_equal(bed_read_record(b, r[1].id, &body), ERR_NOTFOUND);
    assert_int_equal(bed_read_piece(b, r[1].blob, 0, &body), ERR_NOTFOUND);
    str_fini(&body);
}

struct letters_read {
    struct spool_read r;
    int64_t ids[4];
    char note[64], key[64], reason[64];
    size_t n;
    int done;
};

static void on_letter(struct spool_read *r, const struct spool_dead_row *row)
{
    struct letters_read *o = (void *)r;

    assert_true(o->n < ARRAY_LEN(o->ids));
    o->ids[o->n++] = row->record.id;
    text_of(o->note, row->note);
    text_of(o->key, row->key);
    text_of(o->reason, row->reason);
}

static void on_letters(struct spool_read *r)
{
    bed_add(&((struct letters_read *)(void *)r)->done, 1);
}

static void read_letters(struct bed *b, struct letters_read *o, int64_t from, size_t max)
{
    memset(o, 0, sizeof(*o));
    o->r = (struct spool_read){
        .dead_from = from, .dead_max = max, .dead = on_letter, .done = on_letters};
    spool_read(b->s, &o->r);
    bed_wait(&o->done, 1);
    assert_int_equal(o->r.err.code, ERR_NONE);
}

static uint64_t letters(struct bed *b)
{
    struct spool_stats st;

    spool_stats(b->s, &st);
    return st.dead;
}

static void dead_letters_are_counted_and_read_with_their_notes(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[3] = {{.at_ns = 1}, {.at_ns = 2}, {.at_ns = 3}};
    struct spool_txn *t = spool_txn_new();
    struct letters_read o;
    int i;

    bed_open(b);
    bed_stream(b, &st, "k");
    for (i = 0; i < 3; i++) {
        assert_int_equal(bed_record(b, &st, &r[i], VIEW_LIT("body")), ERR_NONE);
        spool_txn_bury(t, r[i].id, "why");
    }
    spool_txn_dead_note(t, r[1].id, VIEW_LIT("a note"));
    assert_int_equal(letters(b), 0);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    assert_int_equal(letters(b), 3);
    read_letters(b, &o, 0, 2);
    assert_int_equal(o.n, 2);
    assert_int_equal(o.ids[0], r[0].id);
    assert_string_equal(o.note, "a note");
    read_letters(b, &o, r[1].id + 1, 2);
    assert_int_equal(o.n, 1);
    assert_int_equal(o.ids[0], r[2].id);
    assert_string_equal(o.note, "");
    assert_string_equal(o.key, "k");
    assert_string_equal(o.reason, "why");
    /* A transaction that fails buries nothing, and takes nothing away. */
    t = spool_txn_new();
    spool_txn_delete(t, r[0].id);
    spool_txn_piece(t, -1, 0, VIEW_LIT("x"));
    assert_int_not_equal(bed_commit(b, t), ERR_NONE);
    assert_int_equal(letters(b), 3);
    bed_close(b);

    bed_open(b);
    assert_int_equal(letters(b), 3);
    assert_int_equal(bed_delete(b, r[1].id), ERR_NONE);
    assert_int_equal(letters(b), 2);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM value WHERE space='dead'"), 0);
    assert_int_equal(bed_delete(b, r[1].id), ERR_NONE);
    assert_int_equal(letters(b), 2);
}

/* --- ledger and statistics --------------------------------------------------------------- */

static void the_ledger_adds_up_and_survives(void **state)
{
    struct bed *b = *state;
    int64_t ledger[LEDGER_N];
    struct spool_txn *t;
    int i;

    bed_open(b);
    for (i = 0; i < 3; i++) {
        t = spool_txn_new();
        spool_txn_ledger(t, LEDGER_LINES_ACCEPTED, 10);
        spool_txn_ledger(t, LEDGER_LINES_SPOOLED, 10);
        spool_txn_ledger(t, LEDGER_LINES_SPOOLED, -4);
        spool_txn_ledger(t, LEDGER_LINES_DELIVERED, 4);
        assert_int_equal(bed_commit(b, t), ERR_NONE);
    }
    bed_close(b);
    bed_open_only(b);
    spool_ledger(b->s, ledger);
    assert_int_equal(ledger[LEDGER_LINES_ACCEPTED], 30);
    assert_int_equal(ledger[LEDGER_LINES_SPOOLED], 18);
    assert_int_equal(ledger[LEDGER_LINES_DELIVERED], 12);
    assert_int_equal(ledger[LEDGER_BLOBS_DEAD], 0);
    assert_int_equal(bed_ask(b, "SELECT value FROM ledger_view WHERE family='lines' AND "
                                "state='(missing)'"),
                     0);
}

static void wait_oldest(struct bed *b, int64_t want)
{
    int64_t until = clock_mono_ns() + BED_WAIT_S * NS_PER_SEC;
    struct spool_stats st;

    do {
        spool_stats(b->s, &st);
        if (st.oldest_at_ns == want)
            return;
    } while (clock_mono_ns() < until);
    fail_msg("the oldest record is %lld", (long long)st.oldest_at_ns);
}

static void statistics_follow(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[2] = {{.at_ns = 1111}, {.at_ns = 2222}};
    struct spool_stats x;

    bed_open(b);
    wait_oldest(b, 0);
    bed_stream(b, &st, "k");
    assert_int_equal(bed_record(b, &st, &r[0], VIEW_LIT("1")), ERR_NONE);
    assert_int_equal(bed_record(b, &st, &r[1], VIEW_LIT("2")), ERR_NONE);
    wait_oldest(b, 1111);
    spool_stats(b->s, &x);
    assert_int_equal(x.transactions, 3);
    assert_true(x.commits >= 1 && x.commits <= 3);
    assert_int_equal(x.failed, 0);
    assert_int_equal(x.limit_bytes, 64 << 20);
    assert_true(x.used_bytes > 4096 && x.used_bytes < (1 << 20));
    assert_true(x.written_bytes >= 3 * 4096);
    assert_int_equal(bed_delete(b, r[0].id), ERR_NONE);
    wait_oldest(b, 2222);
    assert_int_equal(bed_delete(b, r[1].id), ERR_NONE);
    wait_oldest(b, 0);
}

/* --- sweeping ---------------------------------------------------------------------------- */

static void wait_ask(struct bed *b, const char *sql, int64_t want)
{
    int64_t until = clock_mono_ns() + BED_WAIT_S * NS_PER_SEC;

    while (bed_ask(b, sql) != want)
        if (clock_mono_ns() > until)
            fail_msg("%s is never %lld", sql, (long long)want);
}

static void gone_is_gone_before_the_sweep_and_after(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[3] = {{0}};
    struct spool_txn *t = spool_txn_new();
    struct str body = STR_INIT;
    int i;

    bed_open(b);
    bed_stream(b, &st, "k");
    for (i = 0; i < 3; i++)
        assert_int_equal(bed_record(b, &st, &r[i], VIEW_LIT("x")), ERR_NONE);
    spool_txn_delete(t, r[1].id);
    spool_txn_delete(t, r[2].id);
    spool_txn_delete(t, r[2].id);
    spool_txn_bury(t, r[2].id, "too late");
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    assert_int_equal(bed_read_record(b, r[1].id, &body), ERR_NOTFOUND);
    assert_int_equal(bed_read_record(b, r[0].id, &body), ERR_NONE);
    assert_int_equal(bed_ask(b, "SELECT sum(records) FROM backlog"), 1);
    wait_ask(b, "SELECT count(*) FROM gone", 0); /* a quiet spool sweeps by itself */
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM record"), 1);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM dead"), 0);
    assert_int_equal(bed_ask(b, "SELECT next FROM stream"), 3);
    assert_int_equal(bed_delete(b, r[2].id), ERR_NONE);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM gone"), 0);
    str_fini(&body);
}

static void many_are_swept_under_load(void **state)
{
    enum { N = SWEEP_RECORDS + 10 };
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record *r = xcalloc(N, sizeof(*r));
    struct spool_txn *t = spool_txn_new();
    int i;

    bed_open(b);
    bed_stream(b, &st, "k");
    for (i = 0; i < N; i++)
        spool_txn_record(t, &st, &r[i]);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    t = spool_txn_new();
    for (i = 0; i < N; i++)
        spool_txn_delete(t, r[i].id);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM record"), 0);
    assert_int_equal(bed_ask(b, "SELECT next FROM stream"), N);
    xfree(r);
}

/* As a crash leaves it: the rows are there, and so are their ids in `gone`. */
static void what_was_not_swept_stays_gone(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[3] = {{0}}, after = {0};
    struct seen n = {0};
    int i;

    bed_open(b);
    bed_stream(b, &st, "k");
    for (i = 0; i < 3; i++)
        assert_int_equal(bed_record(b, &st, &r[i], VIEW_LIT("x")), ERR_NONE);
    bed_close(b);
    bed_ask(b, "INSERT INTO gone SELECT id FROM record WHERE number>0");
    bed_ask(b, "UPDATE counter SET value=0 WHERE name='clean'");
    bed_ask(b, "UPDATE stream SET next=0");
    bed_open_only(b);
    look(b, &n);
    assert_int_equal(n.records, 1);
    assert_int_equal(n.record.id, r[0].id);
    assert_int_equal(n.stream.next, 3);
    assert_int_equal(spool_start(b->s, &b->err), 0);
    st = (struct spool_stream){.id = n.stream.id, .next = n.stream.next};
    assert_int_equal(bed_record(b, &st, &after, VIEW_LIT("x")), ERR_NONE);
    assert_int_equal(after.number, 3);
    wait_ask(b, "SELECT count(*) FROM gone", 0);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM record"), 2);
    assert_int_equal(bed_delete(b, after.id), ERR_NONE);
    wait_ask(b, "SELECT next FROM stream", 4);
}

/* --- order ------------------------------------------------------------------------------- */

enum { ORDER_N = 3000 };

struct order {
    int done;
    int next; /* the writer thread's */
    bool wrong;
};

struct order_item {
    struct order *o;
    int at;
    struct spool_record r;
};

static void on_order(void *ctx, const struct err *err)
{
    struct order_item *it = ctx;

    if (err || it->at != it->o->next || it->r.number != (uint64_t)it->at)
        it->o->wrong = true;
    it->o->next = it->at + 1;
    bed_add(&it->o->done, 1);
}

static void callbacks_come_in_order_and_groups_form(void **state)
{
    struct bed *b = *state;
    struct order_item *items = xcalloc(ORDER_N, sizeof(*items));
    struct order o = {0};
    struct spool_stream st = {0};
    struct spool_stats x;
    int i;

    bed_open_only(b);
    /* Queued before there is a thread: the groups are as large as they may be. */
    for (i = 0; i < ORDER_N; i++) {
        struct spool_txn *t = spool_txn_new();

        items[i].o = &o;
        items[i].at = i;
        if (i == 0)
            spool_txn_stream(t, &st, VIEW_LIT("a"), VIEW_LIT("k"), VIEW_LIT("s"));
        spool_txn_record(t, &st, &items[i].r);
        spool_submit(b->s, t, on_order, &items[i]);
    }
    assert_int_equal(spool_start(b->s, &b->err), 0);
    bed_wait(&o.done, ORDER_N);
    assert_false(o.wrong);
    spool_stats(b->s, &x);
    assert_int_equal(x.transactions, ORDER_N);
    assert_int_equal(x.commits, (ORDER_N + GROUP_TXNS - 1) / GROUP_TXNS);
    xfree(items);
}

static void a_group_is_bounded_in_bytes(void **state)
{
    struct bed *b = *state;
    struct spool_stream st = {0};
    struct spool_record r[9] = {{0}};
    char *body = xcalloc(1, 3 << 20);
    struct spool_stats x;
    int i, done = 0;

    bed_open_only(b);
    for (i = 0; i < 9; i++) {
        struct spool_txn *t = spool_txn_new();

        if (i == 0)
            spool_txn_stream(t, &st, VIEW_LIT("a"), VIEW_LIT("k"), VIEW_LIT("s"));
        r[i].body = view_of(body, 3 << 20);
        spool_txn_record(t, &st, &r[i]);
        spool_submit(b->s, t, bed_count, &done);
    }
    assert_int_equal(spool_start(b->s, &b->err), 0);
    bed_wait(&done, 9);
    spool_stats(b->s, &x);
    assert_true(x.commits >= 4); /* two of 3 MiB are 6, three are 9: over 8 */
    xfree(body);
}

struct chain {
    struct spool *s;
    int left, done;
};

static void on_chain(void *ctx, const struct err *err)
{
    struct chain *c = ctx;
    struct spool_txn *t;

    if (!err && --c->left > 0) {
        t = spool_txn_new();
        spool_txn_ledger(t, LEDGER_LINES_LATE, 1);
        spool_submit(c->s, t, on_chain, c);
        return;
    }
    bed_add(&c->done, 1);
}

static void a_callback_may_submit_also_during_close(void **state)
{
    struct bed *b = *state;
    struct chain c = {.left = 50};
    int64_t ledger[LEDGER_N];
    struct spool_txn *t = spool_txn_new();

    bed_open(b);
    c.s = b->s;
    spool_txn_ledger(t, LEDGER_LINES_LATE, 1);
    spool_submit(b->s, t, on_chain, &c);
    bed_close(b);
    assert_int_equal(c.done, 1);
    bed_open_only(b);
    spool_ledger(b->s, ledger);
    assert_int_equal(ledger[LEDGER_LINES_LATE], 50);
}

static void close_commits_what_was_never_started(void **state)
{
    struct bed *b = *state;
    struct spool_txn *t = spool_txn_new();
    int done = 0;

    bed_open_only(b);
    spool_txn_value(t, "space", VIEW_LIT("n"), VIEW_LIT("v"));
    spool_submit(b->s, t, bed_count, &done);
    bed_close(b);
    assert_int_equal(done, 1);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM value"), 1);
}

static void an_empty_transaction_and_a_large_one(void **state)
{
    struct bed *b = *state;
    struct spool_txn *t = spool_txn_new();
    struct spool_txn *unused = spool_txn_new();
    char name[32];
    int i;

    bed_open(b);
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    t = spool_txn_new();
    for (i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "name %d", i);
        spool_txn_value(t, "many", view_str(name), view_str(name));
    }
    assert_int_equal(bed_commit(b, t), ERR_NONE);
    assert_int_equal(bed_ask(b, "SELECT count(*) FROM value WHERE CAST(name AS TEXT)="
                                "CAST(value AS TEXT)"),
                     5000);
    spool_txn_value(unused, "s", VIEW_LIT("n"), VIEW_LIT("v"));
    spool_txn_free(&unused);
    assert_null(unused);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bed_setup, bed_teardown)
    const struct CMUnitTest tests[] = {
        T(numbers_are_dense_and_ids_rise),
        T(a_stream_and_its_records_in_one_transaction),
        T(everything_is_there_again_after_a_reopen),
        T(rows_are_read_by_their_ids),
        T(a_walk_ends_when_the_callback_says_so),
        T(ids_and_numbers_never_come_back),
        T(a_dropped_stream_can_be_inserted_again),
        T(a_drop_and_a_new_insertion_in_one_group),
        T(a_failed_group_leaves_the_owner_as_it_was),
        T(a_record_needs_its_stream),
        T(values_are_set_replaced_and_deleted),
        T(a_blob_in_pieces),
        T(pieces_without_a_record_go_at_the_next_start),
        T(impossible_pieces_are_refused_alone),
        T(a_dead_letter_stays_out_of_sight),
        T(dead_letters_are_counted_and_read_with_their_notes),
        T(the_ledger_adds_up_and_survives),
        T(gone_is_gone_before_the_sweep_and_after),
        T(many_are_swept_under_load),
        T(what_was_not_swept_stays_gone),
        T(statistics_follow),
        T(callbacks_come_in_order_and_groups_form),
        T(a_group_is_bounded_in_bytes),
        T(a_callback_may_submit_also_during_close),
        T(close_commits_what_was_never_started),
        T(an_empty_transaction_and_a_large_one),
    };

    return cmocka_run_group_tests_name("spool", tests, NULL, NULL);
}
