#include "logs/direct.h"

#include "base/bug.h"
#include "base/xmem.h"
#include "logs/deliver.h"
#include "logs/logs_priv.h"
#include "logs/replay.h"
#include "rt/metric.h"

/*
 * Goes to the stream's owner to ask, comes back to send, and goes there again with the outcome. The
 * outcome is on its way before the client has its answer, so that whatever the client does next
 * finds the stream as it is then.
 */
struct direct {
    struct ev_task task;
    struct ingest *in; /* NULL once it is gone; the thread of `from` only */
    struct shard *from, *owner;
    struct str account, key;
    struct direct_call call;
    enum direct_way way;
    enum op_outcome outcome;
};

static void direct_free(struct direct *d)
{
    str_fini(&d->account);
    str_fini(&d->key);
    xfree(d);
}

/* --- the owner's thread --------------------------------------------------------------------- */

static void direct_asked(struct ev_task *task);

static void direct_ask(struct ev_task *task)
{
    struct direct *d = container_of(task, struct direct, task);
    struct stream *s = shard_find(d->owner, str_view(&d->account), str_view(&d->key));
    int64_t ledger[LEDGER_N] = {0};

    if (s && replay_holds(d->owner, s)) {
        d->way = DIRECT_NO;
    } else if (s) {
        d->way = stream_direct_begin(s, &d->call, shard_now(d->owner), ledger);
        shard_owe(d->owner, ledger);
    }
    d->task.run = direct_asked;
    ev_post(d->from->loop, &d->task);
}

static void direct_over(struct ev_task *task)
{
    struct direct *d = container_of(task, struct direct, task);
    struct stream *s = shard_find(d->owner, str_view(&d->account), str_view(&d->key));
    int64_t ledger[LEDGER_N] = {0};

    ASSERT(s); /* it is not forgotten while a call is under way */
    stream_direct_end(s, &d->call, d->outcome, shard_now(d->owner), ledger);
    shard_owe(d->owner, ledger);
    shard_wake(d->owner);
    direct_free(d);
}

/* --- the client's thread -------------------------------------------------------------------- */

static void report(struct direct *d, enum op_outcome outcome)
{
    if (d->in)
        d->in->direct = NULL;
    d->in = NULL;
    d->outcome = outcome;
    d->task.run = direct_over;
    ev_post(d->owner->loop, &d->task);
}

/* What the answer says of the call's effect (HP §1.2, §1.5). */
static enum op_outcome outcome_of(const struct ingest *in, const struct fetch_result *r)
{
    enum op_outcome out = delivery_outcome(r).outcome;

    if (in->kind == TARGET_LINES && out == OUT_OK && r->status != 204)
        return OUT_ABSENT; /* only 204 is success */
    if (in->kind == TARGET_OPEN && out == OUT_PARTIAL && r->status == 500)
        return OUT_BUSY; /* the service's own word that it did not open it */
    return out;
}

/* Upstream's own, but for an upload by link: its client takes any status below 500 for success
 * (HP §2.6), and expects what a store would say. */
static void answer(struct ingest *in, const struct fetch_result *r)
{
    if (in->kind == TARGET_TICKET && r->status < 300) {
        ingest_taken(in);
    } else if (in->kind == TARGET_TICKET) {
        ingest_cannot(in, 0, "the gateway's spool cannot take this now, nor does the log service");
    } else {
        ingest_reply_json(in, r->status, r->body);
        in->failed = r->status >= 300;
    }
}

static void direct_done(void *ctx, const struct fetch_result *r)
{
    struct ingest *in = ctx;
    enum op_outcome outcome = outcome_of(in, r);
    uint64_t lines = in->direct->call.lines;

    in->fetch = NULL;
    report(in->direct, outcome);
    if (r->outcome != FETCH_ANSWERED) {
        ingest_cannot(in, lines,
                      "the gateway's spool cannot take this now, nor can the log service");
    } else if (outcome == OUT_ABSENT) {
        /* Not stored, though its client would take it for success (HP §1.5). */
        ingest_cannot(in, lines,
                      "the gateway's spool cannot take this now, nor has the log service");
    } else {
        metric_add(in->sh->logs->metrics.direct, 1);
        answer(in, r);
    }
}

enum { UPLOAD_MS = 9000 }; /* of the 10 s that clients wait (HP §2.4) */

struct way {
    const char *method, *path;
    enum call_kind kind;
};

/* Method and path upstream of what can go directly, or NULL. An upload by ticket goes as one
 * through the service: a link would be one more request that the client has to wait for. One that
 * is too large is no longer in memory. */
static const struct way *way_of(const struct ingest *in)
{
    static const struct way ways[] = {
        [TARGET_OPEN] = {"POST", "/stream?", CALL_OPEN},
        [TARGET_LINES] = {"PUT", "/stream?", CALL_LINES},
        [TARGET_CLOSE] = {"DELETE", "/stream?", CALL_CLOSE},
        [TARGET_BLOB] = {"POST", "/blob?", CALL_BLOB},
        [TARGET_TICKET] = {"POST", "/blob?", CALL_BLOB},
    };

    if ((size_t)in->kind >= ARRAY_LEN(ways) || !ways[in->kind].method ||
        ((in->kind == TARGET_BLOB || in->kind == TARGET_TICKET) && !in->body.n))
        return NULL;
    return &ways[in->kind];
}

static void send_it(struct ingest *in)
{
    const struct way *way = way_of(in);
    const struct str *query =
        in->kind == TARGET_CLOSE ? &in->target.close_query : &in->target.query;
    struct fetch_opts o = {.method = way->method, .body = str_view(&in->body), .done = direct_done};

    if (way->kind == CALL_BLOB)
        o.timeout_ms = UPLOAD_MS;

    ingest_fetch(in, &o, way->path, str_view(query));
}

/* The owner has said whether it may go. */
static void direct_asked(struct ev_task *task)
{
    struct direct *d = container_of(task, struct direct, task);
    struct ingest *in = d->in;

    if (d->way == DIRECT_SEND) {
        if (in)
            send_it(in);
        else
            report(d, OUT_NOT_SENT);
        return;
    }
    if (in) {
        in->direct = NULL;
        if (d->way == DIRECT_DONE)
            ingest_taken(in);
        else
            ingest_cannot(in, d->call.lines, INGEST_CANNOT);
    }
    direct_free(d);
}

/* A hub refuses an edge's delivery also while an earlier one of the same lines is being committed:
 * sent on without its id it would arrive twice. The edge sends it again. */
static bool from_edge(const struct ingest *in)
{
    const struct http_request *req = http_request_of(in->ex);

    return http_field(req->fields, req->n_fields, "tailrace-delivery").n > 0;
}

bool direct_start(struct ingest *in, const struct submission *sub)
{
    const struct way *way = way_of(in);
    struct direct *d;

    if (!in->ex || !way || from_edge(in) ||
        limiter_state(&in->sh->harness, ev_now_ns(in->sh->loop)) == LIMITER_DOWN)
        return false;
    d = in->direct = XNEW(struct direct);
    d->in = in;
    d->from = sub->from;
    d->owner = sub->owner;
    str_addv(&d->account, str_view(&sub->account));
    str_addv(&d->key, str_view(&sub->key));
    d->call = (struct direct_call){
        .kind = way->kind,
        .hash = sub->call.hash,
        .lines = sub->call.lines,
        .start_ns = sub->call.start_ns,
        .empty = sub->call.empty,
        .begins_line = sub->call.begins_line,
        .covers = in->target.covers,
        .snapshot = in->target.snapshot,
    };
    d->task.run = direct_ask;
    ev_post(d->owner->loop, &d->task);
    return true;
}

void direct_cancel(struct ingest *in)
{
    struct direct *d = in->direct;

    in->direct = NULL;
    d->in = NULL;
    if (in->fetch) {
        fetch_cancel(&in->fetch);
        report(d, OUT_UNKNOWN);
    }
}
