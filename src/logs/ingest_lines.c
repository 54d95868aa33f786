/* PUT /stream: the body is collected, decoded, checked and made into records; a large one in the
 * pool. */
#include "logs/ingest_priv.h"

#include "base/bug.h"
#include "base/xmem.h"
#include "logs/body.h"
#include "logs/logs_priv.h"
#include "rt/clock.h"

enum {
    LARGE_BODY = 256 * 1024, /* longer than this would hold the loop up for milliseconds */
    DECODE_STEP = 256 * 1024,
    DECODE_TURN = 4, /* steps in one turn: a small body may expand to a large one */
};

struct lines_job {
    struct ev_job job;
    struct ingest *in;
    struct submission *sub;
    struct body_rules rules;
    struct str body;
    struct err err;
    int rc;
};

static void refuse_lines(struct ingest *in, uint64_t lines, enum overload_reason why)
{
    ingest_overload(in, why);
    shard_refuse_lines(in->sh, lines);
    metric_add(in->sh->logs->metrics.refused_full, lines);
    if (why == OVERLOAD_SPOOL)
        atomic_store(&in->sh->logs->space_refused, true);
}

static void charge(struct logs *logs, struct submission *sub, bool unproven)
{
    struct list *it, *tmp;

    ASSERT(sub->call.records.next);
    list_each (it, tmp, &sub->call.records) {
        struct record *r = list_entry(it, struct record, link);

        atomic_fetch_add(&logs->memory_used, r->text.cap);
        if (!unproven)
            continue;
        r->unproven = r->frame.n;
        atomic_fetch_add(&logs->unproven_used, r->unproven);
    }
}

/* Lines yield first (space.h), and those of an account that has its share a tenth earlier. */
static bool has_room(const struct ingest *in, enum space_level level, bool unproven,
                     enum overload_reason *why)
{
    if (level == SPACE_REFUSED)
        *why = OVERLOAD_SPOOL;
    else if (level == SPACE_SLOW && in->account && account_spool_share_used(in->account))
        *why = OVERLOAD_SPOOL_SHARE;
    else if (!ingest_unproven_room(in, unproven))
        *why = OVERLOAD_SPOOL_UNPROVEN;
    else
        return true;
    return false;
}

static void submit_or_refuse(struct ingest *in, struct submission *sub, enum space_level level)
{
    bool unproven = !cred_known_good(in->sh->logs->creds, in->cred);
    enum overload_reason why;

    if (sub->call.lines && !has_room(in, level, unproven, &why)) {
        refuse_lines(in, sub->call.lines, why);
        submission_free(sub);
        ingest_reply(in, 503, INGEST_FULL);
        return;
    }
    charge(in->sh->logs, sub, unproven);
    ingest_submit(in, sub);
}

void ingest_slow_cancel(struct ingest *in)
{
    if (!in->slow)
        return;
    ev_timer_free(&in->slow);
    submission_free(in->slow_sub);
    in->slow_sub = NULL;
}

static void slow_due(void *ctx)
{
    struct ingest *in = ctx;
    struct submission *sub = in->slow_sub;
    struct spool_stats st;

    ev_timer_free(&in->slow);
    in->slow_sub = NULL;
    spool_stats(in->sh->logs->spool, &st);
    submit_or_refuse(in, sub, space_level(&st));
}

static void take_lines(struct ingest *in, struct submission *sub)
{
    struct spool_stats st;
    int64_t ms;

    spool_stats(in->sh->logs->spool, &st);
    ms = sub->call.lines ? space_wait_ms(&st) : 0;
    if (!ms) {
        submit_or_refuse(in, sub, space_level(&st));
        return;
    }
    metric_add(in->sh->logs->metrics.slowed, 1);
    in->slow_sub = sub;
    in->slow = ev_timer_new(in->sh->loop, slow_due, in);
    ev_timer_arm(in->slow, ms);
}

static void finish(struct ingest *in, struct lines_job *j)
{
    struct submission *sub = j->sub;

    in->job = NULL;
    in->parked = false;
    if (j->rc < 0) {
        submission_free(sub);
        ingest_reply(in, j->err.code == ERR_UNAVAIL ? 503 : 400, j->err.text);
    } else if (!in->ex) {
        submission_free(sub); /* the client has left and was promised nothing */
    } else {
        const struct record *first = list_first(&sub->call.records, struct record, link);

        if (first)
            sub->call.hash = first->hash;
        in->body = j->body; /* until it is durable */
        j->body = STR_INIT;
        take_lines(in, sub);
    }
    str_fini(&j->body);
    xfree(j);
    intake_charge(in, in->body.cap);
    ingest_release(in);
}

static void job_work(struct ev_job *job)
{
    struct lines_job *j = container_of(job, struct lines_job, job);

    j->rc = body_to_records(str_view(&j->body), &j->rules, &j->sub->call.records,
                            &j->sub->call.lines, &j->err);
}

static void job_done(struct ev_job *job)
{
    struct lines_job *j = container_of(job, struct lines_job, job);

    finish(j->in, j);
}

/* What an edge says of its delivery: which of its records are in it, so that none is taken twice.
 */
static void read_delivery(struct ingest *in, struct lines_job *j)
{
    const struct http_request *req = http_request_of(in->ex);
    struct view field = http_field(req->fields, req->n_fields, "tailrace-delivery");
    struct call *call = &j->sub->call;
    size_t n;

    if (!field.n ||
        body_parse_delivery(field, &call->edge, &call->edge_life, &j->sub->parts, &n) < 0) {
        call->edge = 0;
        return;
    }
    call->parts = j->rules.parts = j->sub->parts;
    call->n_parts = j->rules.n_parts = n;
}

/* Called again when the pool may have room. */
static void to_pool(struct ingest *in)
{
    in->parked = ev_pool_submit_first(in->sh->logs->pool, in->sh->loop, in->job) < 0;
    if (in->parked)
        intake_wait(in, to_pool);
}

static void give_up_job(struct ingest *in)
{
    struct lines_job *j = container_of(in->job, struct lines_job, job);

    intake_wait_no_more(in);
    j->rc = err_set(&j->err, ERR_UNAVAIL, "the gateway has too many large bodies at hand");
    finish(in, j);
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
    j->rules.at_ns = clock_wall_ns();
    read_delivery(in, j);
    in->job = &j->job;
    j->job.work = job_work;
    j->job.done = job_done;
    if (j->body.n > LARGE_BODY) {
        to_pool(in);
        return;
    }
    job_work(&j->job);
    finish(in, j);
}

/* --- the body ----------------------------------------------------------------------------- */

static void refuse(struct ingest *in, int status, const char *text)
{
    ingest_reply(in, status, text);
    str_fini(&in->body);
    in->waiting = false;
    intake_wait_no_more(in);
    intake_charge(in, 0);
}

static void give_back(struct ingest *in)
{
    size_t n = in->held;

    in->held = 0;
    if (in->ex && n)
        http_consumed(in->ex, n);
}

static void end_if_complete(struct ingest *in)
{
    if (!in->ended || in->more || in->failed)
        return;
    intake_wait_no_more(in);
    if (zdecoder_complete(in->decoder))
        body_complete(in);
    else
        refuse(in, 400, "the compressed body is cut short");
}

static void decode(struct ingest *in, struct view piece);

static void lines_resume(struct ingest *in)
{
    in->waiting = false;
    if (in->more)
        decode(in, VIEW_NONE);
    else
        give_back(in);
    end_if_complete(in);
}

/* Decode as much as there is room and time for. While it waits the decoder keeps what comes, at
 * most a window's worth. */
static void decode(struct ingest *in, struct view piece)
{
    size_t step = in->waiting ? 1 : DECODE_STEP;
    unsigned steps = 0;
    struct err e;
    int more;

    do {
        more = zdecoder_feed(in->decoder, piece, step, &in->body, &e);
        piece = VIEW_NONE;
        intake_charge(in, in->body.cap);
    } while (more > 0 && !in->waiting && ++steps < DECODE_TURN && intake_may_grow(in));
    in->more = more > 0;
    if (more < 0 && e.code == ERR_LIMIT)
        refuse(in, 413, "the body is larger than this gateway takes");
    else if (more < 0)
        refuse(in, 400, e.text);
    if (in->failed || (!in->more && !in->waiting && intake_may_grow(in))) {
        give_back(in);
    } else if (!in->waiting) {
        in->waiting = true;
        intake_wait(in, lines_resume);
    }
}

void ingest_lines_late(struct ingest *in)
{
    if (in->parked) {
        give_up_job(in);
    } else if (!in->job && !in->sub && !in->slow && !in->fetch && !in->direct && !in->failed) {
        ingest_overload(in, OVERLOAD_MEMORY);
        refuse(in, 503, "the gateway has no memory for this body now");
        give_back(in);
    }
}

static void lines_body(void *ctx, struct view piece)
{
    struct ingest *in = ctx;

    in->held += piece.n;
    if (in->failed)
        give_back(in);
    else
        decode(in, piece);
}

static void lines_end(void *ctx)
{
    struct ingest *in = ctx;

    in->complete = in->ended = true;
    in->end_ns = ev_now_ns(in->sh->loop);
    end_if_complete(in);
}

static void lines_gone(void *ctx, bool complete)
{
    struct ingest *in = ctx;

    (void)complete;
    in->ex = NULL;
    ingest_cancel(in);
    if (in->parked)
        give_up_job(in);
    else
        ingest_release(in);
}

const struct http_handler ingest_lines_handler = {
    .on_body = lines_body,
    .on_end = lines_end,
    .on_gone = lines_gone,
};
