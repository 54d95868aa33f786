/* PUT /stream: the body is collected, decoded, checked and made into records; a large one in the pool. */
#include "logs/ingest_priv.h"

#include "base/xmem.h"
#include "logs/body.h"
#include "logs/logs_priv.h"
#include "rt/clock.h"

enum { LARGE_BODY = 256 * 1024 }; /* longer than this would hold the loop up for milliseconds */

struct lines_job {
    struct ev_job job;
    struct ingest *in;
    struct submission *sub;
    struct body_rules rules;
    struct str body;
    struct err err;
    int rc;
};

/* Lines yield first: a tenth of the spool is kept for opens, closes, links and blobs (architecture, invariant 10). */
static bool spool_has_room(struct ingest *in)
{
    struct spool_stats st;

    spool_stats(in->sh->logs->spool, &st);
    return st.used_bytes < st.limit_bytes - st.log_bytes - st.limit_bytes / 10;
}

static void count_refused(struct ingest *in, uint64_t lines)
{
    struct spool_txn *t = spool_txn_new();

    spool_txn_ledger(t, LEDGER_LINES_ACCEPTED, (int64_t)lines);
    spool_txn_ledger(t, LEDGER_LINES_REFUSED, (int64_t)lines);
    spool_submit(in->sh->logs->spool, t, NULL, NULL);
}

/* Credentials that upstream has never taken share a quarter of the spool: whoever invents them cannot fill it. */
static bool unproven_has_room(struct ingest *in, bool unproven)
{
    struct spool_stats st;

    if (!unproven)
        return true;
    spool_stats(in->sh->logs->spool, &st);
    return atomic_load(&in->sh->logs->unproven_used) < st.limit_bytes / 4;
}

static void charge(struct logs *logs, struct submission *sub, bool unproven)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sub->call.records) {
        struct record *r = list_entry(it, struct record, link);

        atomic_fetch_add(&logs->memory_used, r->text.cap);
        r->unproven = unproven;
        if (unproven)
            atomic_fetch_add(&logs->unproven_used, r->size);
    }
}

/* Account for what the body takes now. False: all that are coming in take too much together. */
static bool hold_body(struct ingest *in, size_t bytes)
{
    struct logs *logs = in->sh->logs;
    uint64_t more = (uint64_t)bytes - in->charged; /* modulo 2^64: it may be less */
    uint64_t used = atomic_fetch_add(&logs->bodies_used, more) + more;
    bool grown = bytes > in->charged;

    in->charged = bytes;
    return !grown || used <= in->sh->settings->bodies_max;
}

void ingest_lines_free(struct ingest *in)
{
    str_fini(&in->body);
    hold_body(in, 0);
}

static void finish(struct ingest *in, struct lines_job *j)
{
    struct submission *sub = j->sub;
    bool unproven = !cred_known_good(in->sh->logs->creds, in->cred);

    in->job = NULL;
    if (j->rc < 0) {
        submission_free(sub);
        ingest_reply(in, 400, j->err.text);
    } else if (!in->ex) {
        submission_free(sub); /* the client has left and was promised nothing */
    } else if (sub->call.lines && (!spool_has_room(in) || !unproven_has_room(in, unproven))) {
        count_refused(in, sub->call.lines);
        submission_free(sub);
        ingest_reply(in, 503, "the gateway's spool is full");
    } else {
        const struct record *first = list_first(&sub->call.records, struct record, link);

        if (first)
            sub->call.hash = first->hash;
        charge(in->sh->logs, sub, unproven);
        in->body = j->body; /* until it is durable */
        j->body = STR_INIT;
        ingest_submit(in, sub);
    }
    str_fini(&j->body);
    xfree(j);
    ingest_release(in);
}

static void job_work(struct ev_job *job)
{
    struct lines_job *j = container_of(job, struct lines_job, job);

    j->rc = body_to_records(str_view(&j->body), &j->rules, &j->sub->call.records, &j->sub->call.lines, &j->err);
}

static void job_done(struct ev_job *job)
{
    struct lines_job *j = container_of(job, struct lines_job, job);

    finish(j->in, j);
}

/* What an edge says of its delivery: which of its records are in it, so that none is taken twice. */
static void read_delivery(struct ingest *in, struct lines_job *j)
{
    const struct http_request *req = http_request_of(in->ex);
    struct view field = http_field(req->fields, req->n_fields, "tailrace-delivery");
    struct call *call = &j->sub->call;
    size_t n;

    if (!field.n || body_parse_delivery(field, &call->edge, &call->edge_life, &j->sub->parts, &n) < 0) {
        call->edge = 0;
        return;
    }
    call->parts = j->rules.parts = j->sub->parts;
    call->n_parts = j->rules.n_parts = n;
}

static void body_complete(struct ingest *in)
{
    const struct stream_rules *rules = &in->sh->settings->rules;
    struct logs *logs = in->sh->logs;
    struct lines_job *j = XNEW(struct lines_job);

    j->in = in;
    j->sub = ingest_submission(in, CALL_LINES);
    j->body = in->body;
    in->body = STR_INIT;
    j->rules.lines = rules->batch_lines;
    j->rules.bytes = rules->batch_bytes;
    j->rules.keep_text = atomic_load(&logs->memory_used) + j->body.n <= in->sh->settings->memory;
    j->rules.owned = &j->body;
    j->rules.at_ns = clock_wall_ns();
    read_delivery(in, j);
    in->job = &j->job;
    j->job.work = job_work;
    j->job.done = job_done;
    if (j->body.n > LARGE_BODY && ev_pool_submit(logs->pool, in->sh->loop, &j->job) == 0)
        return;
    job_work(&j->job);
    finish(in, j);
}

static void lines_body(void *ctx, struct view piece)
{
    struct ingest *in = ctx;
    struct err e;

    if (!in->failed) {
        if (zdecoder_feed(in->decoder, piece, 0, &in->body, &e) < 0) {
            ingest_lines_free(in);
            if (e.code == ERR_LIMIT)
                ingest_reply(in, 413, "the body is larger than this gateway takes");
            else
                ingest_reply(in, 400, e.text);
        } else if (!hold_body(in, in->body.cap)) {
            ingest_lines_free(in);
            ingest_reply(in, 503, "too many large bodies at a time");
        }
    }
    if (in->ex)
        http_consumed(in->ex, piece.n);
}

static void lines_end(void *ctx)
{
    struct ingest *in = ctx;

    in->complete = true;
    if (in->failed)
        return;
    if (!zdecoder_complete(in->decoder))
        ingest_reply(in, 400, "the compressed body is cut short");
    else
        body_complete(in);
}

static void lines_gone(void *ctx, bool complete)
{
    struct ingest *in = ctx;

    (void)complete;
    in->ex = NULL;
    ingest_cancel(in);
    ingest_release(in);
}

const struct http_handler ingest_lines_handler = {
    .on_body = lines_body,
    .on_end = lines_end,
    .on_gone = lines_gone,
};
