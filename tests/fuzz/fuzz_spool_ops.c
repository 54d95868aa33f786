/*
 * The spool as a whole: transactions, groups, failing writes, clean closes and kills, in the order
 * that the input says.
 *
 * Oracle: a model in memory to which every acknowledged transaction is applied and no other. After
 * each close or kill the spool holds what the model holds, its ledger balances, and no id or number
 * comes back. Sealed and in clear.
 */
#include "fuzz/target.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/xmem.h"
#include "crypto/envelope.h"
#include "rt/fdx.h"
#include "spool/spool_priv.h"

enum { STREAMS = 4, RECORDS = 256, BLOBS = 16, PIECES = 4, VALUES = 4, TXNS = 64, OPS = 8 };

/* --- the model -------------------------------------------------------------------------- */

enum where { NOWHERE, LIVE, DEAD };

struct m_record {
    struct spool_record r;
    enum where where;
    int stream;
    int64_t stream_id;
    size_t size;
    int blob; /* index + 1, or 0 */
};

struct m_stream {
    struct spool_stream st;
    bool there;
    int64_t id;
    uint64_t next;
    uint8_t state;
};

struct m_blob {
    int64_t id;
    size_t piece[PIECES]; /* length + 1, or 0 */
    bool claimed;
};

static struct model {
    struct m_record record[RECORDS];
    int n_records;
    struct m_stream stream[STREAMS];
    struct m_blob blob[BLOBS];
    int n_blobs;
    int value[VALUES]; /* -1: not there */
    int64_t ledger[LEDGER_N];
    int64_t last_record, last_stream;
} m;

/* What a transaction will have done to the model. */
enum change_type { C_STREAM, C_DROP, C_RECORD, C_DELETE, C_BURY, C_PIECE, C_BLOB_DROP, C_VALUE };

struct change {
    enum change_type type;
    int what, value;
    size_t size;
};

struct m_txn {
    struct change c[OPS];
    int n;
    int64_t lines;
    bool busy;
};

static struct m_txn txns[TXNS];
static char bytes[70000];
static char dir[64], copy[72];
static struct spool *s;
/* The second run of each input is sealed, with another key from start to start. */
static struct envelope *envelope;
enum { GENERATIONS = 255 }; /* of keys; divisible by three, see take_next_key */
static uint8_t generation;
static bool sealed;

static size_t blob_total(const struct m_blob *b)
{
    size_t total = 0, i;

    for (i = 0; i < PIECES; i++)
        total += b->piece[i] ? b->piece[i] - 1 : 0;
    return total;
}

static void free_blob(struct m_record *r)
{
    if (r->blob)
        memset(m.blob[r->blob - 1].piece, 0, sizeof(m.blob[r->blob - 1].piece));
}

/* The owner shows what it is at the end of the transaction. */
static bool dropped_later(const struct m_txn *t, int from, int stream)
{
    int i;

    for (i = from; i < t->n; i++)
        if (t->c[i].type == C_DROP && t->c[i].what == stream)
            return true;
    return false;
}

static void apply_stream(struct m_stream *st, int state)
{
    if (!st->there) {
        ASSERT(st->st.id > m.last_stream);
        m.last_stream = st->st.id;
        st->there = true;
        st->id = st->st.id;
        st->next = 0;
    }
    ASSERT(st->id == st->st.id);
    st->state = (uint8_t)state;
}

static void apply_record(struct m_record *r)
{
    struct m_stream *st = &m.stream[r->stream];

    ASSERT(st->there && r->r.id > m.last_record);
    m.last_record = r->r.id;
    ASSERT(r->r.number == st->next);
    st->next++;
    r->where = LIVE;
    r->stream_id = st->id;
    if (r->blob) {
        m.blob[r->blob - 1].claimed = true;
        r->size = blob_total(&m.blob[r->blob - 1]);
    }
}

static void apply(const struct m_txn *t, int at)
{
    const struct change *c = &t->c[at];
    struct m_record *r = &m.record[c->what % RECORDS];

    switch (c->type) {
    case C_STREAM:
        if (!dropped_later(t, at, c->what))
            apply_stream(&m.stream[c->what], c->value);
        break;
    case C_DROP:
        m.stream[c->what].there = false;
        m.stream[c->what].id = 0;
        break;
    case C_RECORD:
        apply_record(r);
        break;
    case C_DELETE:
        free_blob(r);
        r->where = NOWHERE;
        break;
    case C_BURY:
        if (r->where == LIVE)
            r->where = DEAD;
        break;
    case C_PIECE:
        m.blob[c->what].piece[c->value] = c->size + 1;
        break;
    case C_BLOB_DROP:
        memset(m.blob[c->what].piece, 0, sizeof(m.blob[c->what].piece));
        break;
    case C_VALUE:
        m.value[c->what] = c->value;
        break;
    }
}

static void on_done(void *ctx, const struct err *err)
{
    struct m_txn *t = ctx;
    int i;

    t->busy = false;
    if (err)
        return;
    for (i = 0; i < t->n; i++)
        apply(t, i);
    m.ledger[LEDGER_LINES_ACCEPTED] += t->lines;
    m.ledger[LEDGER_LINES_SPOOLED] += t->lines;
}

/* --- comparing -------------------------------------------------------------------------- */

static int seen;

static int see_stream(void *ctx, const struct spool_stream_row *row)
{
    struct m_stream *st;

    (void)ctx;
    ASSERT(row->key.n == 1 && row->state.n == 1);
    st = &m.stream[row->key.p[0] - 'A'];
    ASSERT(st->there && st->id == row->id && st->state == (uint8_t)row->state.p[0]);
    ASSERT(row->next == st->next);
    seen++;
    return 0;
}

static void same_record(const struct spool_record_row *row, enum where where)
{
    struct m_record *r;

    ASSERT(row->kind >= 0 && row->kind < m.n_records);
    r = &m.record[row->kind];
    ASSERT(r->where == where && r->r.id == row->id && r->r.number == row->number);
    ASSERT(r->stream_id == row->stream);
    ASSERT(r->size == row->size);
    ASSERT(r->r.blob == row->blob);
    seen++;
}

static int see_record(void *ctx, const struct spool_record_row *row)
{
    (void)ctx;
    same_record(row, LIVE);
    return 0;
}

static int see_dead(void *ctx, const struct spool_dead_row *row)
{
    (void)ctx;
    same_record(&row->record, DEAD);
    return 0;
}

static int see_value(void *ctx, struct view name, struct view value)
{
    (void)ctx;
    ASSERT(name.n == 1 && value.n == 1 && m.value[name.p[0] - 'a'] == (uint8_t)value.p[0]);
    seen++;
    return 0;
}

static void expect_seen(int want)
{
    ASSERT(seen == want);
    seen = 0;
}

static int count_where(enum where where)
{
    int i, n = 0;

    for (i = 0; i < m.n_records; i++)
        n += m.record[i].where == where;
    return n;
}

static void compare(void)
{
    int64_t ledger[LEDGER_N];
    struct err e;
    int i, n;

    seen = 0;
    ASSERT(spool_each_stream(s, see_stream, NULL, &e) == 0);
    for (i = n = 0; i < STREAMS; i++)
        n += m.stream[i].there;
    expect_seen(n);
    ASSERT(spool_each_record(s, see_record, NULL, &e) == 0);
    expect_seen(count_where(LIVE));
    ASSERT(spool_each_dead(s, see_dead, NULL, &e) == 0);
    expect_seen(count_where(DEAD));
    ASSERT(spool_each_value(s, "v", see_value, NULL, &e) == 0);
    for (i = n = 0; i < VALUES; i++)
        n += m.value[i] >= 0;
    expect_seen(n);
    spool_ledger(s, ledger);
    ASSERT(memcmp(ledger, m.ledger, sizeof(ledger)) == 0);
}

/* --- what the input may do ---------------------------------------------------------------------
 */

/* The key before opens what is there; each third start has none to seal with. */
static void take_next_key(void)
{
    struct aead_key keys[3];
    size_t i;

    generation = (uint8_t)((generation + 1) % GENERATIONS);
    for (i = 0; i < ARRAY_LEN(keys); i++)
        memset(&keys[i], (int)((generation + GENERATIONS - i) % GENERATIONS), sizeof(keys[i]));
    envelope_free(&envelope);
    envelope = envelope_new(generation % 3 ? &keys[0] : NULL, &keys[1], 2);
}

static void open_spool(void)
{
    struct spool_opts o = {.directory = dir, .limit = 2 << 20, .sync = SPOOL_SYNC_NORMAL};
    struct str note = STR_INIT;
    struct err e = {0};

    if (sealed) {
        take_next_key();
        o.box = envelope_box(envelope);
    }
    s = spool_open(&o, &note, &e);
    if (!s || note.n)
        fprintf(stderr, "%s%s\n", s ? "" : e.text, str_c(&note));
    ASSERT(s && note.n == 0);
}

static void copy_file(const char *name)
{
    char from[128], to[128];
    struct str data = STR_INIT;
    struct err e;

    snprintf(from, sizeof(from), "%s/%s", dir, name);
    snprintf(to, sizeof(to), "%s/%s", copy, name);
    if (file_read(from, 64 << 20, &data, &e) == 0)
        ASSERT(file_write_durable(to, data.p, data.n, 0600, &e) == 0);
    str_fini(&data);
}

static void clear(const char *where)
{
    static const char *const names[] = {"spool.db",   "spool.db-wal",  "spool.db-shm",
                                        "spool.lock", "spool.reserve", "spool.db-journal"};
    char path[128];
    size_t i;

    for (i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", where, names[i]);
        unlink(path);
    }
}

/* Pieces of blobs that never got their record are gone after a start. */
static void model_restarts(void)
{
    int i;

    for (i = 0; i < m.n_blobs; i++) {
        if (!m.blob[i].claimed)
            memset(m.blob[i].piece, 0, sizeof(m.blob[i].piece));
        m.blob[i].claimed = true; /* nobody remembers its id, which may come again if never used */
    }
    for (i = 0; i < STREAMS; i++)
        m.stream[i].st = (struct spool_stream){m.stream[i].id, m.stream[i].next};
    for (i = 0; i < STREAMS; i++)
        if (!m.stream[i].there)
            m.stream[i].st = (struct spool_stream){0};
}

/* The files as they are, without what the program would still do to them. */
static void kill_and_restart(void)
{
    char swap[72];

    writer_drain(s);
    ASSERT(mkdir(copy, 0700) == 0);
    copy_file("spool.db");
    copy_file("spool.db-wal");
    spool_close(&s);
    clear(dir);
    rmdir(dir);
    snprintf(swap, sizeof(swap), "%s", dir);
    ASSERT(rename(copy, swap) == 0);
    open_spool();
    compare();
    model_restarts();
}

static void close_and_open(void)
{
    spool_close(&s);
    open_spool();
    compare();
    model_restarts();
}

static struct change *change(struct m_txn *t, enum change_type type, int what)
{
    struct change *c = &t->c[t->n++];

    *c = (struct change){.type = type, .what = what};
    return c;
}

static void add_record(struct view *in, struct spool_txn *t, struct m_txn *mt)
{
    struct m_record *r = &m.record[m.n_records];
    uint8_t how = fuzz_byte(in);
    size_t size = (size_t)fuzz_byte(in) * (how & 64 ? 250 : 3);

    if (m.n_records == RECORDS)
        return;
    *r = (struct m_record){.stream = how % STREAMS, .size = size};
    r->r.kind = m.n_records;
    r->r.lines = 1;
    r->r.body = view_of(bytes, size);
    if (how & 128 && m.n_blobs && !m.blob[m.n_blobs - 1].claimed) {
        r->blob = m.n_blobs;
        r->r.blob = m.blob[m.n_blobs - 1].id;
        m.blob[m.n_blobs - 1].claimed = true; /* tried once; a failure leaves it an orphan */
    }
    spool_txn_record(t, &m.stream[r->stream].st, &r->r);
    spool_txn_ledger(t, LEDGER_LINES_ACCEPTED, 1);
    spool_txn_ledger(t, LEDGER_LINES_SPOOLED, 1);
    mt->lines++;
    change(mt, C_RECORD, m.n_records++);
}

static void add_piece(struct view *in, struct spool_txn *t, struct m_txn *mt)
{
    uint8_t how = fuzz_byte(in);
    struct change *c;

    if (how & 128 && m.n_blobs < BLOBS)
        m.blob[m.n_blobs++] = (struct m_blob){.id = spool_blob_id(s)};
    if (m.n_blobs == 0 || m.blob[m.n_blobs - 1].claimed)
        return;
    c = change(mt, C_PIECE, m.n_blobs - 1);
    c->value = how % PIECES;
    c->size = (size_t)fuzz_byte(in) * 200;
    spool_txn_piece(t, m.blob[c->what].id, (uint32_t)c->value, view_of(bytes, c->size));
}

static void add_gone(struct view *in, struct spool_txn *t, struct m_txn *mt, bool bury)
{
    int i = fuzz_byte(in);

    /* Of one that was acknowledged, whether it is still there or not. */
    if (i >= m.n_records || m.record[i].r.id == 0)
        return;
    if (bury)
        spool_txn_bury(t, m.record[i].r.id, "reason");
    else
        spool_txn_delete(t, m.record[i].r.id);
    change(mt, bury ? C_BURY : C_DELETE, i);
}

static void add_stream(struct view *in, struct spool_txn *t, struct m_txn *mt, bool drop)
{
    uint8_t how = fuzz_byte(in);
    int i = how % STREAMS, k;
    char key = (char)('A' + i), state = (char)how;

    for (k = 0; drop && k < m.n_records; k++) /* the contract: its records must be gone */
        if (m.record[k].stream == i && (m.record[k].where == LIVE || m.record[k].r.id == 0))
            return;
    if (drop)
        spool_txn_stream_drop(t, &m.stream[i].st);
    else
        spool_txn_stream(t, &m.stream[i].st, VIEW_LIT("a"), view_of(&key, 1), view_of(&state, 1));
    change(mt, drop ? C_DROP : C_STREAM, i)->value = how;
}

static void add_value(struct view *in, struct spool_txn *t, struct m_txn *mt)
{
    uint8_t how = fuzz_byte(in);
    char name = (char)('a' + how % VALUES), value = (char)how;

    spool_txn_value(t, "v", view_of(&name, 1), how & 128 ? VIEW_NONE : view_of(&value, 1));
    change(mt, C_VALUE, how % VALUES)->value = how & 128 ? -1 : how;
}

static void add_op(struct view *in, struct spool_txn *t, struct m_txn *mt)
{
    switch (fuzz_byte(in) % 8) {
    case 0:
    case 1:
        add_record(in, t, mt);
        break;
    case 2:
        add_gone(in, t, mt, false);
        break;
    case 3:
        add_gone(in, t, mt, true);
        break;
    case 4:
        add_stream(in, t, mt, false);
        break;
    case 5:
        add_stream(in, t, mt, true);
        break;
    case 6:
        add_piece(in, t, mt);
        break;
    default:
        add_value(in, t, mt);
    }
}

static void submit_one(struct view *in)
{
    struct spool_txn *t;
    size_t i;
    int n;

    for (i = 0; i < TXNS && txns[i].busy; i++)
        ;
    if (i == TXNS)
        return;
    txns[i] = (struct m_txn){.busy = true};
    t = spool_txn_new();
    for (n = fuzz_byte(in) % OPS; n >= 0; n--)
        add_op(in, t, &txns[i]);
    spool_submit(s, t, on_done, &txns[i]);
}

static void steer(struct view *in)
{
    uint8_t b = fuzz_byte(in);

    switch (b % 16) {
    case 0:
        atomic_store(&s->vfs.fail_code, b & 32 ? SQLITE_FULL : SQLITE_IOERR_WRITE);
        atomic_store(&s->vfs.fail_stays, (b & 64) != 0);
        atomic_store(&s->vfs.fail_at, 1 + fuzz_byte(in) % 64);
        break;
    case 1:
        atomic_store(&s->vfs.fail_at, 0);
        break;
    case 2:
        atomic_store(&s->vfs.fail_at, 0);
        kill_and_restart();
        break;
    case 3:
        atomic_store(&s->vfs.fail_at, 0);
        close_and_open();
        break;
    case 4:
    case 5:
    case 6:
        writer_drain(s);
        break;
    default:
        submit_one(in);
    }
}

static void run(struct view in)
{
    int i;

    snprintf(dir, sizeof(dir), "%s/spool-fuzz-%ld",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ".", (long)getpid());
    snprintf(copy, sizeof(copy), "%s-copy", dir);
    memset(&m, 0, sizeof(m));
    memset(txns, 0, sizeof(txns));
    for (i = 0; i < VALUES; i++)
        m.value[i] = -1;
    clear(dir);
    generation = 0;
    open_spool();
    while (in.n)
        steer(&in);
    atomic_store(&s->vfs.fail_at, 0);
    kill_and_restart();
    close_and_open();
    spool_close(&s);
    clear(dir);
    rmdir(dir);
    envelope_free(&envelope);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    sealed = false;
    run(view_of(data, n));
    sealed = true;
    run(view_of(data, n));
    return 0;
}
