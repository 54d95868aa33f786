#include "logs/shard.h"

#include "base/bug.h"
#include "base/hash.h"
#include "base/xmem.h"
#include "logs/barrier.h"
#include "logs/dead.h"
#include "logs/deliver.h"
#include "logs/intake.h"
#include "logs/logs_priv.h"
#include "logs/queue.h"
#include "logs/readback.h"
#include "logs/replay.h"
#include "logs/report.h"
#include "logs/store.h"
#include "logs/tail.h"
#include "rt/clock.h"
#include "rt/fault.h"
#include "rt/log.h"

enum { SWEEP_MS = 1000, REPEAT_MS = 100, STOP_TICK_MS = 10 };

struct stream_now shard_now(const struct shard *sh)
{
    return (struct stream_now){ev_now_ns(sh->loop), clock_wall_ns()};
}

/* --- submissions -------------------------------------------------------------------------- */

struct submission *submission_new(struct shard *from, enum call_kind kind)
{
    struct submission *s = XNEW(struct submission);

    s->from = from;
    s->call.kind = kind;
    list_init(&s->call.link);
    list_init(&s->call.records);
    list_init(&s->turn);
    return s;
}

void submission_free(struct submission *s)
{
    struct list *it, *tmp;

    list_each (it, tmp, &s->call.records)
        record_free(list_entry(it, struct record, link));
    str_fini(&s->account);
    str_fini(&s->key);
    str_fini(&s->prefix);
    str_fini(&s->query);
    xfree(s->parts);
    xfree(s);
}

static void submission_run(struct ev_task *task);
static void stream_remove(struct shard *sh, struct stream *s);

static void submission_return(struct ev_task *task)
{
    struct submission *s = container_of(task, struct submission, task);

    if (s->ingest)
        s->answered(s->ingest, s->ok);
    submission_free(s);
}

static uint64_t name_hash(struct view account, struct view key)
{
    return hash_bytes(account.p, account.n) * 0x9e3779b97f4a7c15ULL + hash_bytes(key.p, key.n);
}

struct shard *shard_owner(struct logs *logs, struct view account, struct view key)
{
    return logs->shards[(name_hash(account, key) >> 32) % logs->n_shards];
}

void submission_send(struct submission *s)
{
    struct list *it, *tmp;

    list_each (it, tmp, &s->call.records)
        s->bytes += list_entry(it, struct record, link)->size;
    s->owner = shard_owner(s->from->logs, str_view(&s->account), str_view(&s->key));
    s->task.run = submission_run;
    ev_post(s->owner->loop, &s->task);
}

struct stream *shard_find(struct shard *sh, struct view account, struct view key)
{
    uint64_t h = name_hash(account, key);
    struct hnode *n;

    for (n = hmap_first(&sh->streams, h); n; n = hmap_next(n, h)) {
        struct stream *s = hmap_entry(n, struct stream, place.node);

        if (view_eq(s->account_v, account) && view_eq(s->key_v, key))
            return s;
    }
    return NULL;
}

static struct stream *stream_add(struct shard *sh, struct view account, struct view key)
{
    struct stream *s = stream_new(&sh->env, account, key);

    s->place.owner = sh;
    s->place.account = account_get(sh->logs->accounts, account);
    stream_turns_init(&s->place.turns);
    hmap_insert(&sh->streams, &s->place.node, name_hash(account, key));
    atomic_fetch_add(&sh->n_streams, 1);
    return s;
}

static void env_answer(struct stream_env *env, struct call *call, bool ok)
{
    struct submission *s = container_of(call, struct submission, call);

    turn_over(container_of(env, struct shard, env), s);
    s->ok = ok;
    s->task.run = submission_return;
    ev_post(s->from->loop, &s->task);
}

/* What never became the machine's. */
static void release_records(struct shard *sh, struct call *call)
{
    struct list *it, *tmp;

    list_each (it, tmp, &call->records) {
        list_remove(it);
        sh->env.release(&sh->env, list_entry(it, struct record, link));
    }
}

void shard_refuse_lines(struct shard *sh, uint64_t lines)
{
    struct spool_txn *t = spool_txn_new();

    spool_txn_ledger(t, LEDGER_LINES_ACCEPTED, (int64_t)lines);
    spool_txn_ledger(t, LEDGER_LINES_REFUSED, (int64_t)lines);
    spool_submit(sh->logs->spool, t, NULL, NULL);
}

void submission_refuse(struct submission *sub, enum overload_reason why)
{
    struct shard *sh = sub->owner;

    sub->why = why;
    sub->refused = true;
    if (sub->call.lines)
        shard_refuse_lines(sh, sub->call.lines);
    release_records(sh, &sub->call);
    env_answer(&sh->env, &sub->call, false);
}

void submission_again(struct submission *sub)
{
    sub->task.run = submission_run;
    ev_post(sub->owner->loop, &sub->task);
}

void submission_go(struct submission *sub)
{
    sub->call.prefix = str_view(&sub->prefix);
    sub->call.query = str_view(&sub->query);
    stream_call(sub->stream, &sub->call, shard_now(sub->owner));
}

/* A client that invents names: each costs a kilobyte or two, and a row in the spool. Uploads and
 * closes are let go a little further, as their clients would lose a log. */
static struct stream *stream_admit(struct shard *sh, struct submission *sub)
{
    struct stream *s = stream_add(sh, str_view(&sub->account), str_view(&sub->key));
    bool yields = sub->call.kind == CALL_OPEN || sub->call.kind == CALL_LINES;
    enum overload_reason why;

    if (account_add_stream(s->place.account, !yields, &why)) {
        s->place.counted = true;
        return s;
    }
    stream_remove(sh, s);
    submission_refuse(sub, why);
    return NULL;
}

/* In the owner's loop. */
static void submission_run(struct ev_task *task)
{
    struct submission *sub = container_of(task, struct submission, task);
    struct shard *sh = sub->owner;
    struct stream *s = shard_find(sh, str_view(&sub->account), str_view(&sub->key));

    if (!s)
        s = stream_admit(sh, sub);
    if (!s)
        return;
    sub->stream = s;
    if (sub->call.kind != CALL_LINES || turn_take(sh, s, sub))
        submission_go(sub);
}

/* --- commits ------------------------------------------------------------------------------ */

struct shard_commit {
    struct ev_task task;
    struct list link; /* shard.unsaved */
    struct shard *sh;
    struct commit *c;
    struct spool_txn *txn; /* under way */
    struct err err;
    bool ok, forgets;
    unsigned generation; /* of the spool's database, when it was submitted */
};

static void commit_run(struct ev_task *task);

/* The spool's thread. */
static void commit_done(void *ctx, const struct err *err)
{
    struct shard_commit *sc = ctx;

    sc->ok = !err;
    if (err)
        sc->err = *err;
    sc->task.run = commit_run;
    ev_post(sc->sh->loop, &sc->task);
}

static void fill_records(struct spool_txn *t, struct commit *c)
{
    struct list *it, *tmp;

    list_each (it, tmp, &c->records) {
        struct record *r = list_entry(it, struct record, commit_link);

        r->row.body = str_view(&r->frame);
        if (r->kind == RECORD_BLOB && r->piece.n)
            spool_txn_piece(t, r->row.blob, r->pieces - 1, str_view(&r->piece));
        spool_txn_record(t, &c->stream->row, &r->row);
    }
}

/* Make it a dead letter, with what will be needed to send it again. */
static void fill_dead(struct spool_txn *t, const struct commit *c, int64_t id, uint32_t cred)
{
    const struct stream *s = c->stream;
    const struct shard *sh = s->place.owner;
    const struct dead_note note = {
        .status = c->dead_status,
        .said = view_str(c->dead_said ? c->dead_said : ""),
        .prefix = str_view(&s->prefix),
        .query = str_view(&s->query),
        .proven = cred_known_good(sh->logs->creds, cred),
    };
    struct str text = STR_INIT;

    spool_txn_bury(t, id, c->dead);
    dead_note_encode(&note, &text);
    spool_txn_dead_note(t, id, str_view(&text));
    str_fini(&text);
}

static void fill_page(struct spool_txn *t, const struct page *p, const struct commit *c)
{
    int64_t *ids = xmalloc(p->n * sizeof(*ids));
    uint32_t i;

    page_ids(p, ids);
    for (i = 0; i < p->n; i++) {
        if (c->dead)
            fill_dead(t, c, ids[i], c->stream->cred);
        else
            spool_txn_delete(t, ids[i]);
    }
    xfree(ids);
}

static void fill_gone(struct spool_txn *t, struct commit *c)
{
    struct list *it, *tmp;
    size_t i;

    for (i = 0; i < c->n_gone; i++) {
        if (c->dead)
            fill_dead(t, c, c->gone[i]->row.id, c->gone[i]->cred);
        else
            spool_txn_delete(t, c->gone[i]->row.id);
    }
    list_each (it, tmp, &c->pages)
        fill_page(t, list_entry(it, struct page, link), c);
}

static bool brings_cred(const struct commit *c)
{
    return c->call && container_of(c->call, struct submission, call)->cred_fresh;
}

static void commit_submit(struct shard_commit *sc)
{
    struct commit *c = sc->c;
    struct stream *s = c->stream;
    struct spool_txn *t = spool_txn_new();
    bool moved;
    int i;

    /* In a database that was begun anew the stream has no row yet, nor has its credential. */
    sc->generation = spool_generation(sc->sh->logs->spool);
    moved = sc->generation != s->place.generation;
    if (c->state || !s->place.stored || moved) {
        struct str state = STR_INIT;

        stream_encode(s, &state);
        spool_txn_stream(t, &s->row, s->account_v, s->key_v, str_view(&state));
        str_fini(&state);
    }
    if (brings_cred(c) || (moved && c->call && c->call->cred))
        cred_store(sc->sh->logs->creds, c->call->cred, t);
    fill_records(t, c);
    fill_gone(t, c);
    for (i = 0; i < LEDGER_N; i++) {
        if (c->ledger[i])
            spool_txn_ledger(t, (enum ledger_row)i, c->ledger[i]);
    }
    if (c->drop_blob)
        spool_txn_blob_drop(t, c->drop_blob);
    sc->forgets = c->forget;
    if (c->forget) {
        spool_txn_stream_drop(t, &s->row);
        s->place.stored = false;
    }
    if (!c->call)
        fault_point(c->dead ? "logs-before-dead" : "logs-before-mark");
    sc->sh->commits++;
    sc->txn = t;
    spool_txn_keep(t);
    spool_submit(sc->sh->logs->spool, t, commit_done, sc);
}

static void env_commit(struct stream_env *env, struct commit *c)
{
    struct shard_commit *sc = XNEW(struct shard_commit);

    sc->sh = container_of(env, struct shard, env);
    sc->c = c;
    list_init(&sc->link);
    commit_submit(sc);
}

static void stream_remove(struct shard *sh, struct stream *s)
{
    int lane;

    for (lane = 0; lane < LANE_COUNT; lane++) {
        list_remove(&s->place.ready[lane]);
        heap_remove(&sh->later[lane], &s->place.later[lane]);
    }
    barrier_forget(sh, s);
    tail_forgotten(sh, s);
    turns_leave(&s->place.turns);
    if (s->place.counted)
        account_drop_stream(s->place.account);
    account_put(&s->place.account);
    hmap_remove(&sh->streams, &s->place.node);
    atomic_fetch_sub(&sh->n_streams, 1);
    stream_free(s);
}

/* Back in the owner's loop. */
static void commit_run(struct ev_task *task)
{
    struct shard_commit *sc = container_of(task, struct shard_commit, task);
    struct shard *sh = sc->sh;
    struct stream *s = sc->c->stream;

    sh->commits--;
    spool_txn_free(&sc->txn);
    fault_point(sc->c->call   ? "logs-before-ack"
                : sc->c->dead ? "logs-after-dead"
                              : "logs-after-mark");
    if (!sc->ok && !sc->c->call && (!sh->stopping || sh->still)) {
        list_append(&sh->unsaved, &sc->link);
        return;
    }
    if (sc->ok && !sc->forgets && !s->forgetting)
        s->place.stored = true;
    if (sc->ok && !sc->forgets)
        s->place.generation = sc->generation;
    if (sc->ok) {
        report_note_commit(sc->c);
        if (TR_UNLIKELY(!list_empty(&sh->tails)))
            tail_committed(sh, sc->c);
        shard_weigh_commit(sc->c);
        shard_pay_owed(sh);
    }
    if (sc->ok && brings_cred(sc->c))
        cred_stored(sh->logs->creds, sc->c->call->cred);
    stream_committed(s, sc->c, sc->ok || !sc->c->call, shard_now(sh));
    xfree(sc);
    if (stream_unused(s))
        stream_remove(sh, s);
    barrier_check(sh);
}

static void repeat_commits(struct shard *sh)
{
    struct list again;
    struct list *it, *tmp;

    list_init(&again);
    list_move_all(&again, &sh->unsaved);
    list_each (it, tmp, &again) {
        list_remove(it);
        commit_submit(list_entry(it, struct shard_commit, link));
    }
}

/* --- memory ------------------------------------------------------------------------------- */

static void env_release(struct stream_env *env, struct record *r)
{
    struct shard *sh = container_of(env, struct shard, env);

    atomic_fetch_sub(&sh->logs->memory_used, r->text.cap);
    atomic_fetch_sub(&sh->logs->unproven_used, r->unproven);
    record_free(r);
}

static void env_discharge(struct stream_env *env, uint64_t unproven)
{
    atomic_fetch_sub(&container_of(env, struct shard, env)->logs->unproven_used, unproven);
}

/* --- what is ready ------------------------------------------------------------------------ */

static void pump_run(struct ev_task *task);

void shard_wake(struct shard *sh)
{
    if (sh->pumping || sh->stopping || sh->holding)
        return;
    sh->pumping = true;
    sh->pump.run = pump_run;
    ev_defer(sh->loop, &sh->pump);
}

static void env_wake(struct stream_env *env, struct stream *s)
{
    struct shard *sh = container_of(env, struct shard, env);
    int lane;

    for (lane = 0; lane < LANE_COUNT; lane++) {
        heap_remove(&sh->later[lane], &s->place.later[lane]);
        if (list_empty(&s->place.ready[lane]))
            list_append(&sh->ready[lane], &s->place.ready[lane]);
    }
    shard_wake(sh);
}

static void send_one(struct shard *sh, struct stream *s, enum stream_lane lane)
{
    struct op op;

    stream_take(s, lane, &op);
    sh->deliveries++;
    deliver_start(sh, s, &op);
}

/* Those whose time has come join the queue. Returns when the next one's comes. */
static int64_t take_due(struct shard *sh, enum stream_lane lane, int64_t now)
{
    struct heap_node *n;

    while ((n = heap_first(&sh->later[lane])) != NULL && n->key <= now) {
        struct stream *s = container_of(n, struct stream, place.later[lane]);

        heap_remove(&sh->later[lane], n);
        list_append(&sh->ready[lane], &s->place.ready[lane]);
    }
    return n ? n->key : INT64_MAX;
}

/* Large uploads last, and lines must not wait for them: a quarter of the requests is theirs. */
static bool blobs_have_enough(const struct shard *sh)
{
    double limit = sh->harness.limit;

    return limit >= 4 && (sh->harness_blobs + 1) * 4.0 > limit * 3;
}

/* Streams take turns: each that is ready sends one request and goes to the end of the queue when it
 * has more. Returns the time at which the host may be asked again, if it was what stopped us. */
static int64_t pump_lane(struct shard *sh, enum stream_lane lane, struct stream_now now)
{
    while (!list_empty(&sh->ready[lane])) {
        struct list *it = sh->ready[lane].next;
        struct stream *s = container_of(it, struct stream, place.ready[lane]);
        int64_t at = replay_holds(sh, s) ? INT64_MAX : stream_ready(s, lane, now);
        int64_t host;

        if (at == 0) {
            host = lane == LANE_BLOBS && blobs_have_enough(sh)
                       ? INT64_MAX
                       : limiter_ready(&sh->harness, now.mono);
            if (host)
                return host;
        }
        list_remove(it);
        if (at == 0)
            send_one(sh, s, lane);
        else if (at != INT64_MAX) /* otherwise it wakes us when it has something */
            heap_insert(&sh->later[lane], &s->place.later[lane], at);
    }
    return INT64_MAX;
}

static void arm_retry(struct shard *sh, int64_t at, int64_t now)
{
    if (at >= sh->retry_at)
        return;
    sh->retry_at = at;
    ev_timer_arm(sh->retry, TR_MAX((at - now) / NS_PER_MS, 1));
}

static void pump_run(struct ev_task *task)
{
    struct shard *sh = container_of(task, struct shard, pump);
    struct stream_now now = shard_now(sh);
    static const enum stream_lane order[] = {LANE_BLOBS, LANE_LINES}; /* blobs ahead of backlog */
    size_t i;

    sh->pumping = false;
    if (sh->stopping || sh->holding)
        return;
    for (i = 0; i < ARRAY_LEN(order); i++) {
        take_due(sh, order[i], now.mono);
        arm_retry(sh, pump_lane(sh, order[i], now), now.mono);
        arm_retry(sh, take_due(sh, order[i], now.mono), now.mono);
    }
}

static void retry_due(void *ctx)
{
    struct shard *sh = ctx;

    sh->retry_at = INT64_MAX;
    shard_wake(sh);
}

void shard_result(struct shard *sh, struct stream *s, enum stream_lane lane,
                  const struct op_result *r)
{
    ASSERT(sh->deliveries > 0);
    sh->deliveries--;
    report_note_result(s, r, clock_wall_ns());
    stream_result(s, lane, r, shard_now(sh));
    barrier_check(sh);
    shard_wake(sh);
}

void shard_loaded(struct shard *sh, struct reload *l, bool ok)
{
    struct stream *s = l->stream;

    stream_loaded(s, l, ok, shard_now(sh));
    if (stream_unused(s))
        stream_remove(sh, s);
    shard_wake(sh);
}

void shard_cred_proven(struct shard *sh, uint32_t cred)
{
    struct spool_txn *t;

    if (!cred_proven(sh->logs->creds, cred, ev_now_ns(sh->loop)))
        return;
    t = spool_txn_new();
    cred_store(sh->logs->creds, cred, t);
    spool_submit(sh->logs->spool, t, NULL, NULL);
}

/* --- time --------------------------------------------------------------------------------- */

/* Tell which credentials are still needed; one shard then clears the others away. */
static void sweep_creds(struct shard *sh, int64_t now)
{
    struct hnode *n = NULL;
    struct spool_txn *t;
    size_t slot = 0;

    if (now < sh->touch_at)
        return;
    sh->touch_at = now + CREDS_TOUCH_NS;
    while ((n = hmap_walk(&sh->streams, &slot, n)) != NULL)
        cred_touch(sh->logs->creds, hmap_entry(n, struct stream, place.node)->cred, now);
    if (sh->index != 0)
        return;
    t = spool_txn_new();
    creds_sweep(sh->logs->creds, now, t);
    if (spool_txn_empty(t))
        spool_txn_free(&t);
    else
        spool_submit(sh->logs->spool, t, NULL, NULL);
}

static void sweep_streams(struct shard *sh)
{
    struct stream_now now = shard_now(sh);
    struct hnode *n = NULL;
    size_t slot = 0, waiting = 0;

    while ((n = hmap_walk(&sh->streams, &slot, n)) != NULL) {
        struct stream *s = hmap_entry(n, struct stream, place.node);

        stream_sweep(s, now);
        waiting += stream_waits(s);
    }
    atomic_store(&sh->n_waiting, waiting);
}

static void sweep_due(void *ctx)
{
    struct shard *sh = ctx;
    struct stream_now now = shard_now(sh);

    repeat_commits(sh);
    shard_pay_owed(sh);
    turns_sweep(sh);
    tail_sweep(sh);
    sh->env.crowded = accounts_crowded(sh->logs->accounts);
    atomic_store(&sh->state, (unsigned)limiter_state(&sh->harness, now.mono));
    upstreams_tell(sh);
    sweep_streams(sh);
    sweep_creds(sh, now.mono);
    if (sh->index == 0)
        space_watch(sh->logs);
    barrier_check(sh);
    ev_timer_arm(sh->sweep, list_empty(&sh->unsaved) ? SWEEP_MS : REPEAT_MS);
}

/* --- life-cycle --------------------------------------------------------------------------- */

struct shard *shard_new(struct logs *logs, unsigned index, struct ev_loop *loop,
                        struct fetch_pool *pool, const struct logs_settings *settings)
{
    struct shard *sh = XNEW(struct shard);
    int lane;

    sh->logs = logs;
    sh->index = index;
    sh->loop = loop;
    sh->pool = pool;
    rng_seed_random(&sh->rng);
    sh->env = (struct stream_env){
        .rng = &sh->rng,
        .commit = env_commit,
        .answer = env_answer,
        .load = readback_start,
        .release = env_release,
        .discharge = env_discharge,
        .wake = env_wake,
        .barrier = barrier_ask,
        .note = shard_note,
    };
    shard_configure(sh, settings);
    sh->retry_at = INT64_MAX;
    for (lane = 0; lane < LANE_COUNT; lane++)
        list_init(&sh->ready[lane]);
    list_init(&sh->stores);
    list_init(&sh->barriers);
    list_init(&sh->unsaved);
    list_init(&sh->readbacks);
    list_init(&sh->replays);
    list_init(&sh->tails);
    limiter_init(&sh->harness);
    turns_init(&sh->turns);
    upstreams_init(&sh->upstreams);
    sh->retry = ev_timer_new(loop, retry_due, sh);
    sh->sweep = ev_timer_new(loop, sweep_due, sh);
    ev_timer_arm(sh->sweep, SWEEP_MS);
    intake_shard_init(sh);
    upstreams_tell(sh);
    return sh;
}

void shard_configure(struct shard *sh, const struct logs_settings *settings)
{
    sh->settings = settings;
    sh->env.rules = &settings->rules;
}

struct stream *shard_recover_stream(struct shard *sh, const struct spool_stream_row *row)
{
    struct stream *s = stream_add(sh, row->account, row->key);

    if (stream_decode(s, row) < 0)
        log_event(LOG_WARN, "spool",
                  "the stored state of a stream is not understood; its records are delivered",
                  LF_VIEW("account", row->account), LF_VIEW("key", row->key));
    s->place.stored = true;
    account_keep_stream(s->place.account);
    s->place.counted = true;
    return s;
}

void shard_recovered(struct shard *sh)
{
    struct stream_now now = {clock_mono_ns(), clock_wall_ns()};
    struct hnode *n = NULL;
    size_t slot = 0;

    while ((n = hmap_walk(&sh->streams, &slot, n)) != NULL)
        stream_recovered(hmap_entry(n, struct stream, place.node), now);
}

/* Commits count unless it is the spool itself that they wait for. */
static bool goes_on(struct shard *sh)
{
    struct stream_now now = shard_now(sh);
    struct hnode *n = NULL;
    struct spool_stats st;
    size_t slot = 0;

    spool_stats(sh->logs->spool, &st);
    if (sh->deliveries || sh->ingests || (sh->commits && !st.failing))
        return true;
    while ((n = hmap_walk(&sh->streams, &slot, n)) != NULL) {
        if (stream_goes_on(hmap_entry(n, struct stream, place.node), now, sh->drain_until))
            return true;
    }
    return false;
}

static void drain_look(struct ev_task *task)
{
    struct shard *sh = container_of(task, struct shard, drain_look);

    atomic_store(&sh->goes_on, goes_on(sh));
    atomic_store(&sh->looking, false);
}

void shard_ask_goes_on(struct shard *sh, int64_t until)
{
    ASSERT(!atomic_load(&sh->looking));
    atomic_store(&sh->looking, true);
    sh->drain_until = until;
    sh->drain_look.run = drain_look;
    ev_post(sh->loop, &sh->drain_look);
}

static void stop_due(void *ctx)
{
    struct shard *sh = ctx;

    if (sh->commits || sh->ingests || sh->n_readbacks || sh->reports)
        ev_timer_arm(sh->stop, STOP_TICK_MS);
    else
        sh->stopped(sh->loop);
}

void shard_hold(struct shard *sh, bool on)
{
    sh->holding = on;
    shard_wake(sh);
}

void shard_resume(struct shard *sh)
{
    sh->stopping = sh->still = false;
    sh->holding = false;
    sh->retry_at = INT64_MAX;
    ev_timer_arm(sh->sweep, 0);
    readback_resume(sh);
    barrier_check(sh);
    shard_wake(sh);
}

void shard_quiesce(struct shard *sh)
{
    sh->stopping = true;
    shard_pay_owed(sh);
    turns_end(sh);
    ev_timer_disarm(sh->sweep);
    ev_timer_disarm(sh->retry);
}

void shard_stop(struct shard *sh, void (*then)(struct ev_loop *loop))
{
    ASSERT(sh->stopping);
    sh->stopped = then;
    sh->stop = ev_timer_new(sh->loop, stop_due, sh);
    ev_timer_arm(sh->stop, STOP_TICK_MS);
}

/* What could not be made durable: the records that were to leave the spool are still in it. */
static void free_unsaved(struct shard *sh)
{
    struct list *it, *tmp;
    size_t i;

    list_each (it, tmp, &sh->unsaved) {
        struct shard_commit *sc = list_entry(it, struct shard_commit, link);

        list_remove(it);
        for (i = 0; i < sc->c->n_gone; i++)
            record_free(sc->c->gone[i]);
        while (!list_empty(&sc->c->pages))
            page_free(list_first(&sc->c->pages, struct page, link));
        xfree(sc->c->gone);
        xfree(sc->c);
        xfree(sc);
    }
}

void shard_free(struct shard **shp)
{
    struct shard *sh = *shp;
    size_t slot;

    if (!sh)
        return;
    tail_free_all(sh);
    free_unsaved(sh);
    readback_free_all(sh);
    for (slot = 0; slot < sh->streams.n_slots; slot++) {
        while (sh->streams.slots[slot]) {
            struct stream *s = hmap_entry(sh->streams.slots[slot], struct stream, place.node);

            s->commits = 0; /* what was not answered is in the spool, or was never promised */
            stream_remove(sh, s);
        }
    }
    barrier_free_all(sh);
    store_free_all(sh);
    upstreams_fini(&sh->upstreams);
    hmap_fini(&sh->streams);
    heap_fini(&sh->later[LANE_LINES]);
    heap_fini(&sh->later[LANE_BLOBS]);
    ev_timer_free(&sh->retry);
    ev_timer_free(&sh->sweep);
    intake_shard_fini(sh);
    if (sh->stop)
        ev_timer_free(&sh->stop);
    XFREE(*shp);
}
