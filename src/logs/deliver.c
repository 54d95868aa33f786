#include "logs/deliver.h"

#include <stdio.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/retry_after.h"
#include "codec/zcodec.h"
#include "logs/dead.h"
#include "logs/logs_priv.h"
#include "rt/clock.h"
#include "rt/fault.h"
#include "rt/log.h"

#define LOST_RETRY_NS (2 * NS_PER_SEC)

enum { CHECK_EVERY_S = 30, HUB_LEVEL = 3, ZSTD_LEAST = 512 };

static const char *const call_names[] = {
    [OP_OPEN] = "open", [OP_LINES] = "lines",   [OP_CLOSE] = "close",
    [OP_BLOB] = "blob", [OP_SETTLE] = "settle", [OP_CHECK] = "check",
};

static const char said_unreadable[] = "it cannot be read from the spool";

/* --- parts -------------------------------------------------------------------------------- */

void delivery_url(struct delivery *d, const char *path, struct view query)
{
    struct str secret = STR_INIT;

    str_clear(&d->url);
    str_clear(&d->field);
    str_adds(&d->url, d->settings->base);
    str_addv(&d->url, str_view(&d->s->prefix));
    str_adds(&d->url, path);
    str_addc(&d->url, '?');
    str_addv(&d->url, query);
    cred_apply(d->sh->logs->creds, d->cred, &d->field, &secret);
    str_addv(&d->url, str_view(&secret));
    str_fini(&secret);
}

static bool is_trouble(const struct fetch_result *r)
{
    if (r->outcome != FETCH_ANSWERED)
        return true;
    return r->status == 429 || r->status == 502 || r->status == 503 || r->status == 504;
}

/* Keep for people what the host did. That it refuses is the request's fault, and stands with its
 * stream. */
static void note_news(struct limiter *l, const struct fetch_result *r, const char *meaning)
{
    char text[LIMITER_SAID];

    if (r->outcome != FETCH_ANSWERED) {
        limiter_heard(l, r->err.text[0] ? r->err.text : "no answer", clock_wall_ns());
    } else if (is_trouble(r)) {
        snprintf(text, sizeof(text), "answered %d%s%s", r->status, meaning && *meaning ? ": " : "",
                 meaning ? meaning : "");
        limiter_heard(l, text, clock_wall_ns());
    } else if (r->status < 400) {
        limiter_heard(l, NULL, clock_wall_ns());
    }
}

static int64_t retry_after(const struct fetch_result *r)
{
    if (!r->retry_after.n)
        return 0;
    return retry_after_seconds(r->retry_after, clock_wall_ns() / NS_PER_SEC) * NS_PER_SEC;
}

static bool is_harness_blob(const struct delivery *d)
{
    return d->limiter == &d->sh->harness && d->op.lane == LANE_BLOBS;
}

void delivery_begins(struct delivery *d, struct limiter *l)
{
    d->limiter = l;
    d->request_started = ev_now_ns(d->sh->loop);
    d->sh->harness_blobs += is_harness_blob(d);
}

void delivery_request(struct delivery *d, struct fetch_opts *o, const char *call,
                      fetch_done_fn done)
{
    const char *fields[8];
    size_t n = 0;

    (void)call;
    if (d->field.n)
        fields[n++] = str_c(&d->field);
    if (d->id_field.n)
        fields[n++] = str_c(&d->id_field);
    if (d->zstd)
        fields[n++] = "Content-Encoding: zstd";
    fields[n] = NULL;
    o->url = str_c(&d->url);
    o->peer = &d->settings->harness;
    o->fields = fields;
    if (!o->timeout_ms)
        o->timeout_ms = d->settings->timeout_ms;
    o->done = done;
    if (!o->ctx)
        o->ctx = d;
    limiter_start(&d->sh->harness);
    delivery_begins(d, &d->sh->harness);
    d->fetch = fetch_start(d->sh->pool, o);
}

/* Which connections lead to a tailrace that takes zstd: their own answers said so. The newest are
 * remembered. */
static bool takes_zstd(const struct shard *sh, int64_t connection)
{
    size_t i;

    for (i = 0; i < ARRAY_LEN(sh->zstd_connections); i++) {
        if (sh->zstd_connections[i] == connection)
            return true;
    }
    return false;
}

static void learn_connection(struct shard *sh, const struct fetch_result *r)
{
    bool zstd = r->gateway.n && r->accept_encoding.n &&
                memmem(r->accept_encoding.p, r->accept_encoding.n, "zstd", 4);
    size_t i;

    if (zstd && !takes_zstd(sh, r->connection))
        sh->zstd_connections[sh->zstd_at++ % ARRAY_LEN(sh->zstd_connections)] = r->connection;
    for (i = 0; !zstd && i < ARRAY_LEN(sh->zstd_connections); i++) {
        if (sh->zstd_connections[i] == r->connection)
            sh->zstd_connections[i] = 0;
    }
}

/* An answer from another tailrace says so; only then do zstd and delivery ids go to it. */
static void learn_hub(struct shard *sh, const struct fetch_result *r)
{
    /* What stands between an edge and its hub answers 5xx in its own name. */
    if (r->outcome != FETCH_ANSWERED || (!r->gateway.n && r->status >= 500))
        return;
    logs_learn_hub(sh->logs, r->gateway.n > 0);
    learn_connection(sh, r);
}

void delivery_released(struct delivery *d, const char *call, const struct fetch_result *r)
{
    struct shard *sh = d->sh;

    d->fetch = NULL;
    d->status = r->outcome == FETCH_ANSWERED ? r->status : 0;
    d->said = d->status ? dead_meaning(d->status, r->body) : NULL;
    if (d->limiter) {
        sh->harness_blobs -= is_harness_blob(d);
        note_news(d->limiter, r, d->said);
        limiter_end(d->limiter, is_trouble(r) ? LIMITER_TROUBLE : LIMITER_GOOD, d->request_started,
                    retry_after(r), &sh->rng, ev_now_ns(sh->loop));
        d->limiter = NULL;
        shard_wake(sh); /* the delivery may go on elsewhere for long: others can have its place */
    }
    metric_code(sh->logs->metrics.upstream, call, r->outcome == FETCH_ANSWERED ? r->status : 0);
}

void delivery_answered(struct delivery *d, const char *call, const struct fetch_result *r)
{
    struct shard *sh = d->sh;

    delivery_released(d, call, r);
    learn_hub(sh, r);
    if (r->outcome == FETCH_ANSWERED && r->status >= 200 && r->status < 300)
        shard_cred_proven(sh, d->cred);
    if (r->outcome != FETCH_ANSWERED) {
        static struct log_rate rate;
        uint64_t left_out;

        if (log_rate_ok(&rate, 10, &left_out))
            log_event(LOG_WARN, "delivery",
                      "the log service cannot be reached; records wait in the spool",
                      LF_STR("call", call), LF_ERR(&r->err), LF_UINT("suppressed", left_out));
    }
}

struct op_result delivery_outcome(const struct fetch_result *r)
{
    struct op_result out = {.retry_after_ns = retry_after(r)};

    if (r->outcome == FETCH_NOT_SENT)
        out.outcome = OUT_NOT_SENT;
    else if (r->outcome == FETCH_UNKNOWN)
        out.outcome = OUT_UNKNOWN;
    else if (r->status >= 200 && r->status < 300)
        out.outcome = OUT_OK;
    else if (r->status == 429 || r->status == 503 || r->status == 408)
        out.outcome = OUT_BUSY;
    else if (r->status == 413)
        out.outcome = OUT_TOO_LARGE;
    else if (r->status >= 400 && r->status < 500)
        out.outcome = OUT_REJECTED;
    else
        out.outcome = OUT_PARTIAL;
    return out;
}

/* They will be read again: what is only waiting must not hold more memory than it may. */
static void forget_texts(struct delivery *d)
{
    struct logs *logs = d->sh->logs;
    size_t i;

    for (i = 0; i < d->op.n_records; i++) {
        struct record *r = d->op.records[i];

        if (!r->text.p || atomic_load(&logs->memory_used) <= d->settings->memory)
            continue;
        atomic_fetch_sub(&logs->memory_used, r->text.cap);
        str_fini(&r->text);
    }
}

void delivery_end(struct delivery *d, const struct op_result *r)
{
    struct shard *sh = d->sh;
    struct stream *s = d->s;
    enum stream_lane lane = d->op.lane;
    void (*ended)(void *ctx, const struct op_result *r) = d->ended;
    void *ended_ctx = d->ended_ctx;
    struct op_result result = *r;

    if (r->outcome == OUT_OK || !result.said) {
        result.status = d->status;
        result.said = d->said;
    }

    if (r->outcome == OUT_OK)
        metric_seconds(sh->logs->metrics.delivery, call_names[d->op.kind],
                       ev_now_ns(sh->loop) - d->started);
    if (r->outcome != OUT_OK)
        forget_texts(d);
    if (d->url.p)
        explicit_bzero(d->url.p, d->url.n); /* a token may be in it */
    str_fini(&d->url);
    str_fini(&d->body);
    if (d->field.p)
        explicit_bzero(d->field.p, d->field.n);
    str_fini(&d->field);
    str_fini(&d->id_field);
    fault_point(d->op.kind == OP_OPEN     ? "logs-after-open"
                : d->op.kind == OP_BLOB   ? "logs-after-blob"
                : d->op.kind == OP_CLOSE  ? "logs-after-close"
                : d->op.kind == OP_SETTLE ? "logs-after-settle"
                                          : "logs-after-delivery");
    xfree(d);
    if (ended)
        ended(ended_ctx, &result);
    else
        shard_result(sh, s, lane, &result);
}

/* --- bodies that are in the spool only ------------------------------------------------------ */

struct load {
    struct spool_read read;
    struct ev_task task;
    struct delivery *d;
    struct record *r;
    void (*then)(struct delivery *d);
};

static void lost(struct delivery *d, const struct err *e)
{
    static struct log_rate rate;
    uint64_t left_out;

    d->lost = true;
    d->damaged |= e->code == ERR_INVALID || e->code == ERR_NOTFOUND || e->code == ERR_LIMIT;
    if (log_rate_ok(&rate, 10, &left_out))
        log_event(LOG_ERROR, "delivery", "lines cannot be read from the spool",
                  LF_VIEW("account", d->s->account_v), LF_VIEW("key", d->s->key_v), LF_ERR(e),
                  LF_UINT("suppressed", left_out));
}

/* What is damaged becomes a dead letter, record by record; what cannot be read now is tried again.
 */
void delivery_lost(struct delivery *d)
{
    delivery_end(d, &(struct op_result){.outcome = d->damaged ? OUT_TOO_LARGE : OUT_NOT_SENT,
                                        .retry_after_ns = d->damaged ? 0 : LOST_RETRY_NS,
                                        .said = said_unreadable});
}

static void load_done(struct ev_task *task)
{
    struct load *l = container_of(task, struct load, task);
    struct delivery *d = l->d;
    struct err e;

    if (l->read.err.code != ERR_NONE)
        lost(d, &l->read.err);
    else if (zframe_unpack(str_view(&l->read.data), (size_t)l->r->size + 2, &l->r->text, &e) < 0)
        lost(d, &e);
    if (d->lost && !l->r->text.n)
        str_fini(&l->r->text);
    atomic_fetch_add(&d->sh->logs->memory_used, l->r->text.cap);
    str_fini(&l->read.data);
    if (--d->loading == 0)
        l->then(d);
    xfree(l);
}

/* The spool's reader. */
static void load_read(struct spool_read *read)
{
    struct load *l = container_of(read, struct load, read);

    ev_post(l->d->sh->loop, &l->task);
}

void delivery_load(struct delivery *d, void (*then)(struct delivery *d))
{
    size_t i;

    d->loading = 1;
    for (i = 0; i < d->op.n_records; i++) {
        struct record *r = d->op.records[i];
        struct load *l;

        if (r->text.p)
            continue;
        l = XNEW(struct load);
        l->d = d;
        l->r = r;
        l->then = then;
        l->task.run = load_done;
        l->read.record = r->row.id;
        l->read.done = load_read;
        d->loading++;
        spool_read(d->sh->logs->spool, &l->read);
    }
    if (--d->loading == 0)
        then(d);
}

/* --- lines -------------------------------------------------------------------------------- */

/* `[a,b,c]`: the clients' bytes, spliced (HP §1.7: one array, never several). */
static void splice(struct delivery *d)
{
    size_t i, n = 2;

    for (i = 0; i < d->op.n_records; i++)
        n += d->op.records[i]->text.n + 1;
    str_reserve(&d->body, n);
    str_addc(&d->body, '[');
    for (i = 0; i < d->op.n_records; i++) {
        const struct record *r = d->op.records[i];

        if (i && r->text.n && d->body.n > 1)
            str_addc(&d->body, ',');
        str_addv(&d->body, str_view(&r->text));
    }
    str_addc(&d->body, ']');
}

/* Tailrace-Delivery: EDGE-LIFE NUMBER:LINES,... lets a hub take each record once though answers get
 * lost. */
static void add_delivery_id(struct delivery *d)
{
    size_t i;

    str_addf(&d->id_field, "Tailrace-Delivery: %016llx-%016llx ",
             (unsigned long long)d->sh->logs->edge_id, (unsigned long long)d->op.life);
    for (i = 0; i < d->op.n_records; i++) {
        const struct record *r = d->op.records[i];

        str_addf(&d->id_field, "%s%llu:%llu", i ? "," : "", (unsigned long long)r->row.number,
                 (unsigned long long)r->row.lines);
    }
}

static void compress_for_hub(struct delivery *d)
{
    struct zencoder *z = zencoder_new(Z_ZSTD, HUB_LEVEL);
    struct str out = STR_INIT;

    zencoder_feed(z, str_view(&d->body), true, &out);
    zencoder_free(&z);
    str_fini(&d->body);
    d->body = out;
    d->zstd = true;
}

/* Only on a connection whose own earlier answers announced zstd may it be used. */
static bool connection_takes_zstd(void *ctx, int64_t connection)
{
    struct delivery *d = ctx;

    d->declined = !takes_zstd(d->sh, connection);
    return !d->declined;
}

static void lines_done(void *ctx, const struct fetch_result *r);

static void lines_request(struct delivery *d)
{
    struct fetch_opts o = {.method = "PUT", .body = str_view(&d->body)};

    if (d->zstd)
        o.connection_ok = connection_takes_zstd;
    delivery_url(d, "/stream", str_view(&d->s->query));
    fault_point("logs-before-lines");
    delivery_request(d, &o, "lines", lines_done);
    fault_point("logs-lines-sent");
}

/* This connection has not announced zstd (it may be new): the same lines again, as they are. */
static void send_plainly(struct delivery *d)
{
    d->zstd = false;
    str_clear(&d->body);
    splice(d);
    lines_request(d);
}

static void lines_done(void *ctx, const struct fetch_result *r)
{
    struct delivery *d = ctx;
    struct op_result out = delivery_outcome(r);

    if (d->declined && r->outcome == FETCH_NOT_SENT) {
        d->declined = false;
        d->fetch = NULL;
        limiter_leave(d->limiter);
        send_plainly(d);
        return;
    }
    delivery_answered(d, "lines", r);
    if (out.outcome == OUT_OK && r->status != 204)
        out.outcome = OUT_ABSENT; /* only 204 is success (HP §1.5) */
    if (out.outcome == OUT_OK)
        d->sh->lines_taken = ev_now_ns(d->sh->loop);
    out.failed = r->outcome == FETCH_ANSWERED && r->status == 500;
    out.others_at = d->sh->lines_taken;
    if (d->zstd && r->outcome == FETCH_ANSWERED && r->status == 415) {
        send_plainly(d);
        return;
    }
    delivery_end(d, &out);
}

static void lines_send(struct delivery *d)
{
    if (d->lost) {
        delivery_lost(d);
        return;
    }
    splice(d);
    if (d->sh->logs->hub) {
        add_delivery_id(d);
        if (d->body.n >= ZSTD_LEAST)
            compress_for_hub(d);
    }
    lines_request(d);
}

/* --- open, close, check --------------------------------------------------------------------- */

static void open_done(void *ctx, const struct fetch_result *r)
{
    struct delivery *d = ctx;
    struct op_result out = delivery_outcome(r);

    delivery_answered(d, "open", r);
    /* A 500 is the service's own word that it could not create the stream (HP §1.2); a gateway's
     * 502 or 504 says nothing of what happened behind it. */
    if (out.outcome == OUT_PARTIAL && r->outcome == FETCH_ANSWERED)
        out.outcome = r->status == 500 ? OUT_BUSY : OUT_UNKNOWN;
    out.failed = r->outcome == FETCH_ANSWERED && r->status == 500;
    out.others_at = d->sh->lines_taken;
    delivery_end(d, &out);
}

static bool says_not_found(struct view body)
{
    static const char word[] = "not found";

    return body.n && memmem(body.p, body.n, word, sizeof(word) - 1) != NULL;
}

static void close_done(void *ctx, const struct fetch_result *r)
{
    struct delivery *d = ctx;
    struct op_result out = delivery_outcome(r);

    delivery_answered(d, "close", r);
    if (r->outcome == FETCH_ANSWERED && (r->status == 500 || r->status == 404) &&
        says_not_found(r->body))
        out.outcome = OUT_ABSENT;
    delivery_end(d, &out);
}

static void close_send(struct delivery *d)
{
    struct fetch_opts o = {.method = "DELETE"};
    struct str query = STR_INIT;

    fault_point("logs-before-close");
    str_addv(&query, str_view(&d->op.close->query));
    if (d->op.snapshot)
        str_adds(&query, "&snapshot=true");
    delivery_url(d, "/stream", str_view(&query));
    str_fini(&query);
    delivery_request(d, &o, "close", close_done);
    fault_point("logs-close-sent");
}

/* GET /blob/exists changes nothing and tells whether the credential is taken (HP §7a). */
static void check_done(void *ctx, const struct fetch_result *r)
{
    struct delivery *d = ctx;
    struct op_result out = delivery_outcome(r);
    struct shard *sh = d->sh;

    delivery_answered(d, "check", r);
    if (out.outcome == OUT_REJECTED) {
        static struct log_rate rate;
        uint64_t left_out;

        cred_refused(sh->logs->creds, d->cred, ev_now_ns(sh->loop));
        if (log_rate_ok(&rate, 10, &left_out))
            log_event(LOG_ERROR, "delivery",
                      "the log service refuses this account's credential; its streams are held",
                      LF_VIEW("account", d->s->account_v), LF_UINT("suppressed", left_out));
        if (!cred_usable(sh->logs->creds, d->s->cred))
            stream_hold(d->s, ev_now_ns(sh->loop) + CHECK_EVERY_S * NS_PER_SEC);
    }
    delivery_end(d, &out);
}

static void plain_send(struct delivery *d, const char *method, const char *path, const char *call,
                       fetch_done_fn done)
{
    struct fetch_opts o = {.method = method};

    delivery_url(d, path, str_view(&d->s->query));
    delivery_request(d, &o, call, done);
}

/* The stream's own credential, or one that is known to be good in its place. */
static uint32_t choose_cred(struct shard *sh, const struct stream *s)
{
    uint32_t id = cred_usable(sh->logs->creds, s->cred);

    return id ? id : s->cred;
}

static struct delivery *delivery_new(struct shard *sh, struct stream *s, const struct op *op)
{
    struct delivery *d = XNEW(struct delivery);

    d->sh = sh;
    d->s = s;
    d->op = *op;
    d->settings = sh->settings;
    d->started = ev_now_ns(sh->loop);
    d->cred = choose_cred(sh, s);
    return d;
}

void deliver_replay(struct shard *sh, struct stream *s, const struct op *op,
                    void (*ended)(void *ctx, const struct op_result *r), void *ctx)
{
    struct delivery *d = delivery_new(sh, s, op);

    d->ended = ended;
    d->ended_ctx = ctx;
    if (op->kind == OP_BLOB)
        blob_out_start(d);
    else
        settle_start(d);
}

void deliver_start(struct shard *sh, struct stream *s, const struct op *op)
{
    struct delivery *d = delivery_new(sh, s, op);

    switch (op->kind) {
    case OP_OPEN:
        fault_point("logs-before-open");
        plain_send(d, "POST", "/stream", "open", open_done);
        fault_point("logs-open-sent");
        break;
    case OP_LINES:
        delivery_load(d, lines_send);
        break;
    case OP_CLOSE:
        close_send(d);
        break;
    case OP_CHECK:
        plain_send(d, "GET", "/blob/exists", "check", check_done);
        break;
    case OP_BLOB:
        blob_out_start(d);
        break;
    case OP_SETTLE:
        settle_start(d);
        break;
    case OP_NONE:
        BUG("nothing to deliver");
    }
}
