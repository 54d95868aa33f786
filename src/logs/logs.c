#include "logs/logs_priv.h"

#include "base/bug.h"
#include "base/hash.h"
#include "base/wire.h"
#include "base/xmem.h"
#include "logs/dead.h"
#include "logs/ingest.h"
#include "logs/readback.h"
#include "logs/report.h"
#include "logs/ticket.h"
#include "rt/clock.h"
#include "rt/log.h"
#include "rt/rng.h"

/* How far back growth is looked at, once and twice; and sooner than the second nothing is said: the
 * write-ahead log grows to its size first. */
#define GROWTH_NS       (30 * NS_PER_SEC)
#define GROWTH_KNOWN_NS (10 * NS_PER_SEC)

/* There may be credentials in it. */
static void wipe_url(char *url)
{
    xfree_secret(url, url ? strlen(url) : 0);
}

void logs_settings_free(struct logs_settings *s)
{
    if (!s)
        return;
    wipe_url((char *)s->harness.parent);
    wipe_url((char *)s->store.parent);
    xfree(s->base);
    xfree(s->public_url);
    xfree((char *)s->harness.ca);
    xfree((char *)s->harness.certificate);
    xfree((char *)s->harness.key);
    xfree((char *)s->harness.min_version);
    xfree((char *)s->store.ca);
    xfree((char *)s->store.min_version);
    xfree(s);
}

/* --- metrics ------------------------------------------------------------------------------ */

/* A series by its labels is looked up under a lock. Each thread remembers the newest. */
struct known_series {
    const struct metric_family *family;
    const char *call;
    int code;
    struct metric *series;
};

enum { KNOWN_SERIES = 32, NO_CODE = -1 };

static struct known_series *known_series(const struct metric_family *f, const char *call, int code)
{
    static _Thread_local struct known_series known[KNOWN_SERIES];
    uintptr_t h = (uintptr_t)f / 64 + (uintptr_t)call + (unsigned)code;
    struct known_series *k = &known[h % KNOWN_SERIES];

    if (k->family != f || k->call != call || k->code != code)
        *k = (struct known_series){f, call, code, NULL};
    return k;
}

void metric_seconds(struct metric_family *f, const char *call, int64_t ns)
{
    struct known_series *k = known_series(f, call, NO_CODE);

    if (!k->series)
        k->series = metric_series(f, call);
    metric_observe(k->series, (double)ns / NS_PER_SEC);
}

void metric_code(struct metric_family *f, const char *call, int code)
{
    struct known_series *k = known_series(f, call, code);
    char text[8] = "none";

    if (TR_LIKELY(k->series != NULL)) {
        metric_add(k->series, 1);
        return;
    }

    if (code > 0 && code < 1000) {
        text[0] = (char)('0' + code / 100);
        text[1] = (char)('0' + code / 10 % 10);
        text[2] = (char)('0' + code % 10);
        text[3] = '\0';
    }
    k->series = metric_series(f, call, text);
    metric_add(k->series, 1);
}

void logs_metrics_init(struct logs_metrics *m)
{
    struct metric_family *memory, *refused;
    int i;

    m->requests = metric_family(METRIC_COUNTER, "client_requests", "call,code",
                                "Log calls answered, by status");
    m->upstream = metric_family(
        METRIC_COUNTER, "upstream_requests", "call,code",
        "Requests to the log service and the object store, by status; none: no answer");
    m->ack = metric_family(METRIC_HISTOGRAM, "ack_seconds", "call",
                           "From the last byte of a log call to its answer");
    m->delivery = metric_family(METRIC_HISTOGRAM, "delivery_seconds", "call",
                                "From the start of a delivery to upstream's confirmation");
    metric_buckets(m->ack, metric_latency_buckets, metric_latency_buckets_n);
    metric_buckets(m->delivery, metric_latency_buckets, metric_latency_buckets_n);
    m->notes = metric_family(METRIC_COUNTER, "stream_events", "event",
                             "What happened to streams out of the ordinary");
    for (i = 0; i < NOTE_N; i++)
        m->note[i] = metric_series(m->notes, shard_note_event((enum stream_note)i));
    memory = metric_family(METRIC_GAUGE, "memory_bytes", "",
                           "Bodies of accepted records kept in memory");
    m->memory = metric_series(memory);
    refused = metric_family(METRIC_COUNTER, "lines_refused", "reason",
                            "Lines refused with 503, since the spool is full or cannot commit");
    m->refused_full = metric_series(refused, "full");
    m->refused_failing = metric_series(refused, "failing");
    m->slowed = metric_series(metric_family(METRIC_COUNTER, "line_calls_slowed", "",
                                            "Line calls answered late since the spool fills up"));
    m->direct = metric_series(
        metric_family(METRIC_COUNTER, "direct_calls", "",
                      "Calls passed on as they were since the spool could not commit"));
}

static void collect_ledger(struct logs *l)
{
    static const struct {
        const char *family, *state;
    } rows[LEDGER_N] = {
#define X(e, name, family, state, help) [LEDGER_##e] = {family, state},
        LEDGER_ROWS(X)
#undef X
    };
    struct metric_family *lines =
        metric_family(METRIC_GAUGE, "ledger_lines", "state",
                      "Lines by what became of them: accepted is the sum of the others");
    struct metric_family *blobs =
        metric_family(METRIC_GAUGE, "ledger_blobs", "state",
                      "Blobs by what became of them: accepted is the sum of the others");
    struct metric_family *resent = metric_family(METRIC_COUNTER, "lines_resent", "",
                                                 "Lines sent again because an answer was lost");
    int64_t now[LEDGER_N];
    int i;

    spool_ledger(l->spool, now);
    for (i = 0; i < LEDGER_N; i++) {
        if (rows[i].family[0] == 'l')
            metric_set(metric_series(lines, rows[i].state), (double)now[i]);
        else if (rows[i].family[0] == 'b')
            metric_set(metric_series(blobs, rows[i].state), (double)now[i]);
    }
    metric_add(metric_series(resent), (uint64_t)(now[LEDGER_LINES_RESENT] - l->last_resent));
    l->last_resent = now[LEDGER_LINES_RESENT];
}

/* Time to full, from how fast the spool has grown in the last half minute or minute, however often
 * somebody looks; +Inf while it does not grow. */
static double full_in(struct logs *l, const struct spool_stats *st)
{
    const struct spool_growth now = {st->used_bytes, clock_mono_ns()};
    const struct spool_growth *from;
    int64_t took;
    double grown;

    if (!l->growth[0].at || now.at - l->growth[0].at >= GROWTH_NS) {
        l->growth[1] = l->growth[0];
        l->growth[0] = now;
    }
    from = &l->growth[l->growth[1].at != 0];
    took = now.at - from->at;
    grown = (double)now.used - (double)from->used;
    if (st->room_bytes == 0)
        return 0;
    if (took < GROWTH_KNOWN_NS || grown <= 0)
        return __builtin_inf();
    return (double)st->room_bytes / grown * ((double)took / NS_PER_SEC);
}

static void set_gauge(const char *name, const char *help, double v)
{
    metric_set(metric_series(metric_family(METRIC_GAUGE, name, "", help)), v);
}

/* The spool counts since start, and so do these. */
static void count_up(const char *name, const char *help, uint64_t now, uint64_t *last)
{
    metric_add(metric_series(metric_family(METRIC_COUNTER, name, "", help)), now - *last);
    *last = now;
}

static void collect_written(struct logs *l, const struct spool_stats *st)
{
    count_up("spool_written_bytes", "Bytes handed to the disk", st->written_bytes,
             &l->last_written);
    count_up("spool_commits", "Groups made durable, one sync each", st->commits, &l->last_commits);
    count_up("spool_transactions", "Transactions in them", st->transactions, &l->last_transactions);
    count_up("spool_damaged_values", "Values whose seal was found broken", st->damaged,
             &l->last_damaged);
}

static void collect(void *ctx)
{
    struct logs *l = ctx;
    struct metric_family *state;
    struct spool_stats st;
    size_t streams = 0, waiting = 0;
    unsigned i;

    collect_ledger(l);
    spool_stats(l->spool, &st);
    set_gauge("spool_bytes", "Bytes in use in the spool", (double)st.used_bytes);
    set_gauge("spool_room_bytes", "Bytes that it may still take, by the limit and by the disk",
              (double)st.room_bytes);
    set_gauge("spool_disk_free_bytes", "Bytes free on the spool's file system",
              (double)st.free_bytes);
    set_gauge("spool_set_aside", "Damaged databases set aside in the spool's directory",
              st.set_aside);
    set_gauge("spool_set_aside_bytes", "Bytes of those; they count against no limit",
              (double)st.set_aside_bytes);
    set_gauge("spool_limit_bytes", "Bytes the spool may use", (double)st.limit_bytes);
    collect_written(l, &st);
    set_gauge("spool_failing", "1 while commits fail", st.failing);
    set_gauge("dead_letters", "Dead letters in the spool: tailracectl dead list", (double)st.dead);
    set_gauge("spool_oldest_seconds", "Age of the oldest record that waits",
              st.oldest_at_ns ? (double)(clock_wall_ns() - st.oldest_at_ns) / NS_PER_SEC : 0);
    set_gauge("spool_full_in_seconds", "Time until the spool is full at the present rate",
              full_in(l, &st));
    set_gauge("credentials_refused", "Credentials that the log service refuses",
              (double)creds_refused_count(l->creds));
    for (i = 0; i < l->n_shards; i++) {
        streams += atomic_load(&l->shards[i]->n_streams);
        waiting += atomic_load(&l->shards[i]->n_waiting);
    }
    set_gauge("streams", "Streams known", (double)streams);
    set_gauge("streams_waiting",
              "Streams of which something waits to be delivered, as of a second ago",
              (double)waiting);
    state = metric_family(METRIC_GAUGE, "upstream_state", "upstream",
                          "0 healthy, 1 slowed, 2 down: single probes only");
    metric_set(metric_series(state, "harness"), (double)upstreams_state(l, false));
    metric_set(metric_series(state, "object-store"), (double)upstreams_state(l, true));
    metric_set(l->metrics.memory, (double)atomic_load(&l->memory_used));
}

/* --- life-cycle --------------------------------------------------------------------------- */

struct logs *logs_new(const struct logs_opts *o, struct err *e)
{
    struct logs *l = XNEW(struct logs);

    ASSERT(o->workers > 0 && o->workers <= LOGS_MAX_WORKERS);
    l->spool = o->spool;
    l->pool = o->pool;
    if (ticket_key_load(o->ticket_key, &l->ticket_key, e) < 0) {
        err_prefix(e, "ticket key");
        xfree(l);
        return NULL;
    }
    l->settings = o->settings;
    l->creds = creds_new();
    l->accounts = accounts_new(o->settings->streams_max, o->settings->share);
    l->shapes = shapes_new();
    logs_metrics_init(&l->metrics);
    return l;
}

struct shard *logs_add_worker(struct logs *l, struct ev_loop *loop, struct fetch_pool *pool,
                              const struct http_service *fallback)
{
    unsigned i = l->n_shards++;

    ASSERT(i < LOGS_MAX_WORKERS);
    l->shards[i] = shard_new(l, i, loop, pool, l->settings);
    l->services[i] = ingest_service_new(l->shards[i], fallback);
    return l->shards[i];
}

const struct http_service *logs_service(struct shard *sh)
{
    return ingest_http(sh->logs->services[sh->index]);
}

/* --- recovery ----------------------------------------------------------------------------- */

struct recovery {
    struct logs *logs;
    struct hmap by_id; /* struct recovered.node */
    uint64_t records, lines;
    size_t streams;
    uint64_t damaged;      /* records that were buried, */
    struct spool_txn *end; /* by this transaction */
};

struct recovered {
    struct hnode node;
    int64_t id;
    struct stream *stream; /* NULL: its row does not say any more which one it was */
};

static uint64_t id_hash(int64_t id)
{
    return (uint64_t)id * 0x9e3779b97f4a7c15ULL;
}

static int recover_stream(void *ctx, const struct spool_stream_row *row)
{
    struct recovery *rec = ctx;
    struct recovered *r = XNEW(struct recovered);

    r->id = row->id;
    if (!row->damaged)
        r->stream = shard_recover_stream(shard_owner(rec->logs, row->account, row->key), row);
    hmap_insert(&rec->by_id, &r->node, id_hash(row->id));
    rec->streams++;
    return 0;
}

static struct recovered *find_recovered(const struct recovery *rec, int64_t id)
{
    struct hnode *n;

    for (n = hmap_first(&rec->by_id, id_hash(id)); n; n = hmap_next(n, id_hash(id))) {
        struct recovered *r = hmap_entry(n, struct recovered, node);

        if (r->id == id)
            return r;
    }
    return NULL;
}

/* It can never be delivered: a dead letter for somebody to look at, and on the books as one. */
static void bury(struct recovery *rec, const struct spool_record_row *row)
{
    if (!rec->end)
        rec->end = spool_txn_new();
    spool_txn_bury(rec->end, row->id, "the record is damaged");
    if (row->lines) {
        spool_txn_ledger(rec->end, LEDGER_LINES_SPOOLED, -(int64_t)row->lines);
        spool_txn_ledger(rec->end, LEDGER_LINES_DEAD, (int64_t)row->lines);
    }
    if (row->blob) {
        spool_txn_ledger(rec->end, LEDGER_BLOBS_SPOOLED, -1);
        spool_txn_ledger(rec->end, LEDGER_BLOBS_DEAD, 1);
    }
    rec->damaged++;
}

static int recover_record(void *ctx, const struct spool_record_row *row)
{
    struct recovery *rec = ctx;
    struct recovered *of = find_recovered(rec, row->stream);
    struct stream *s = of ? of->stream : NULL;
    struct record *r;

    if (row->damaged || (of && !s)) {
        bury(rec, row);
        return 0;
    }
    r = record_from_row(row);
    if (!s || !r) {
        log_event(LOG_ERROR, "spool", "a record is not understood; it stays in the spool",
                  LF_INT("record", row->id));
        record_free(r);
        return 0;
    }
    shard_weigh(s, r);
    stream_recover_record(s, r);
    rec->records++;
    rec->lines += row->lines;
    return 0;
}

static void free_index(struct recovery *rec)
{
    size_t i;

    for (i = 0; i < rec->by_id.n_slots; i++) {
        while (rec->by_id.slots[i]) {
            struct hnode *n = rec->by_id.slots[i];

            rec->by_id.slots[i] = n->next;
            xfree(hmap_entry(n, struct recovered, node));
        }
    }
    hmap_fini(&rec->by_id);
}

static int read_edge_id(void *ctx, struct view name, struct view value)
{
    struct logs *l = ctx;
    struct wire w = wire_of(value);

    if (view_is(name, "edge"))
        l->edge_id = wire_u64(&w);
    if (view_is(name, "hub"))
        l->hub = wire_u8(&w) != 0;
    return 0;
}

/* Our name towards a hub: drawn once, kept in the spool whose records it speaks of. */
static int recover_edge_id(struct logs *l, struct err *e)
{
    struct spool_txn *t;
    struct str value = STR_INIT;

    if (spool_each_value(l->spool, "self", read_edge_id, l, e) < 0)
        return -1;
    if (l->edge_id)
        return 0;
    do
        rng_bytes(&l->edge_id, sizeof(l->edge_id));
    while (!l->edge_id);
    t = spool_txn_new();
    wire_put_u64(&value, l->edge_id);
    spool_txn_value(t, "self", VIEW_LIT("edge"), str_view(&value));
    spool_submit(l->spool, t, NULL, NULL);
    str_fini(&value);
    return 0;
}

int logs_recover(struct logs *l, struct err *e)
{
    struct recovery rec = {.logs = l};
    unsigned i;
    int rc = -1;

    if (creds_recover(l->creds, l->spool, e) < 0 || shapes_recover(l->shapes, l->spool, e) < 0 ||
        recover_edge_id(l, e) < 0 || spool_each_stream(l->spool, recover_stream, &rec, e) < 0 ||
        spool_each_record(l->spool, recover_record, &rec, e) < 0)
        goto out;
    if (rec.end) {
        log_event(LOG_ERROR, "spool", "damaged records are dead letters now",
                  LF_UINT("records", rec.damaged));
        spool_submit(l->spool, rec.end, NULL, NULL);
        rec.end = NULL;
    }
    for (i = 0; i < l->n_shards; i++)
        shard_recovered(l->shards[i]);
    if (rec.streams)
        log_event(LOG_NOTICE, "spool", "taken up again", LF_UINT("streams", rec.streams),
                  LF_UINT("records", rec.records), LF_UINT("lines", rec.lines));
    metric_collector_add(collect, l);
    dead_commands_add(l);
    report_commands_add(l);
    rc = 0;
out:
    spool_txn_free(&rec.end);
    free_index(&rec);
    return rc;
}

void logs_learn_hub(struct logs *l, bool hub)
{
    struct str value = STR_INIT;
    struct spool_txn *t;

    if (atomic_exchange(&l->hub, hub) == hub)
        return;
    t = spool_txn_new();
    wire_put_u8(&value, hub);
    spool_txn_value(t, "self", VIEW_LIT("hub"), str_view(&value));
    spool_submit(l->spool, t, NULL, NULL);
    str_fini(&value);
}

/* --- settings ----------------------------------------------------------------------------- */

struct configure {
    struct ev_task task;
    struct shard *sh;
    const struct logs_settings *settings;
};

static void configure_run(struct ev_task *task)
{
    struct configure *c = container_of(task, struct configure, task);

    shard_configure(c->sh, c->settings);
    xfree(c);
}

void logs_configure(struct logs *l, struct logs_settings *settings)
{
    unsigned i;

    /* Requests under way may still read the old ones: they are kept until the end. */
    l->old = xrealloc(l->old, (l->n_old + 1) * sizeof(*l->old));
    l->old[l->n_old++] = l->settings;
    l->settings = settings;
    for (i = 0; i < l->n_shards; i++) {
        struct configure *c = XNEW(struct configure);

        c->sh = l->shards[i];
        c->settings = settings;
        c->task.run = configure_run;
        ev_post(c->sh->loop, &c->task);
    }
}

void logs_upstreams(struct logs *l, struct str *out)
{
    upstreams_json(l, out);
}

static bool upstream_down(struct logs *l)
{
    bool down = false;
    unsigned i;

    for (i = 0; i < l->n_shards; i++) {
        if (!atomic_load(&l->shards[i]->n_streams))
            continue;
        if (atomic_load(&l->shards[i]->state) != LIMITER_DOWN)
            return false;
        down = true;
    }
    return down;
}

static bool still_looking(const struct logs *l)
{
    unsigned i;

    for (i = 0; i < l->n_shards; i++) {
        if (atomic_load(&l->shards[i]->looking))
            return true;
    }
    return false;
}

static bool round_was_idle(const struct logs *l)
{
    unsigned i;

    for (i = 0; i < l->n_shards; i++) {
        if (atomic_load(&l->shards[i]->goes_on))
            return false;
    }
    return true;
}

bool logs_drained(struct logs *l, int64_t until)
{
    unsigned i;

    if (upstream_down(l))
        return true;
    if (still_looking(l))
        return false;
    l->idle_rounds = l->asked_round && round_was_idle(l) ? l->idle_rounds + 1 : 0;
    if (l->idle_rounds >= DRAIN_ROUNDS)
        return true;
    l->asked_round = true;
    for (i = 0; i < l->n_shards; i++)
        shard_ask_goes_on(l->shards[i], until);
    return false;
}

struct logs_going_on logs_worker_going_on(const struct shard *sh)
{
    return (struct logs_going_on){
        .calls = sh->ingests,
        .deliveries = sh->deliveries,
        .commits = sh->commits + sh->n_readbacks + !list_empty(&sh->unsaved),
    };
}

void logs_worker_hold(struct shard *sh, bool on)
{
    shard_hold(sh, on);
}

void logs_worker_still(struct shard *sh, bool on)
{
    if (on)
        shard_quiesce(sh);
    else
        shard_resume(sh);
    sh->still = on;
}

void logs_gave_up(struct logs *l)
{
    metric_collector_remove(collect, l);
    dead_commands_remove(l); /* who is still connected may ask */
    l->spool = NULL;
}

void logs_worker_quiesce(struct shard *sh)
{
    shard_quiesce(sh);
}

void logs_worker_stop(struct shard *sh, void (*then)(struct ev_loop *loop))
{
    shard_stop(sh, then);
}

bool logs_idle(struct logs *l)
{
    unsigned i;

    for (i = 0; i < l->n_shards; i++) {
        if (l->shards[i]->deliveries || l->shards[i]->commits)
            return false;
    }
    return true;
}

void logs_free(struct logs **lp)
{
    struct logs *l = *lp;
    unsigned i;

    if (!l)
        return;
    metric_collector_remove(collect, l);
    dead_fini(l);
    report_commands_remove(l);
    for (i = 0; i < l->n_shards; i++) {
        ingest_service_free(&l->services[i]);
        shard_free(&l->shards[i]);
    }
    for (i = 0; i < l->n_old; i++)
        logs_settings_free(l->old[i]);
    xfree(l->old);
    logs_settings_free(l->settings);
    shapes_free(&l->shapes);
    creds_free(&l->creds);
    accounts_free(&l->accounts);
    explicit_bzero(&l->ticket_key, sizeof(l->ticket_key));
    XFREE(*lp);
}
