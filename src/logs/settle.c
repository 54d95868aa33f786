/*
 * Settling: lines that upstream would not take into the stream are added to its blob, which is the
 * history (architecture.md, "Settling"). What is there is read, completed and stored again; nothing
 * that is there is ever lost by it.
 */
#include <jansson.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/lines.h"
#include "logs/dead.h"
#include "logs/logs_priv.h"
#include "logs/upload.h"
#include "rt/clock.h"
#include "rt/log.h"

enum {
    SETTLE_MAX = 64 * 1024 * 1024,   /* a larger blob is no log of ours to complete: left alone */
    SETTLE_INLINE_MAX = 1024 * 1024, /* more is put together in a thread of the pool */
};

#define TOO_BIG_RETRY_NS (3600 * NS_PER_SEC)
#define MEMORY_RETRY_NS  (2 * NS_PER_SEC)

struct settle {
    struct delivery *d;
    struct upload up;
    struct str blob; /* as it is upstream, then completed */
    size_t taken;    /* of the memory for whole bodies */
    bool too_big, no_memory;
    size_t n_there;    /* so many of the first records are there already */
    struct str *texts; /* of the records, lent to the job */
    size_t n_texts;
    bool anywhere; /* they may be there before others, too */
    struct blob_body *body;
    struct ev_job job;
};

static void finish(struct settle *st, const struct op_result *r)
{
    struct delivery *d = st->d;
    struct op_result out = *r;

    blob_body_free(&st->body);
    str_fini(&st->blob);
    blob_memory_give(st->taken);
    upload_fini(&st->up);
    xfree(st->texts);
    xfree(st);
    delivery_end(d, &out);
}

/* --- the upload ----------------------------------------------------------------------------- */

static void body_ready(void *ctx)
{
    struct settle *st = ctx;

    upload_go(&st->up);
}

static void prepare(struct upload *u)
{
    struct settle *st = container_of(u, struct settle, up);

    u->body = st->body;
    blob_body_start(st->body, 0, body_ready, st);
}

static void uploaded(struct upload *u, const struct op_result *r)
{
    finish(container_of(u, struct settle, up), r);
}

/* Nobody's client chose a form for this one. */
static void upload(struct settle *st)
{
    const struct delivery *d = st->d;

    st->up.d = st->d;
    st->up.by_link = d->settings->upload == UPLOAD_GOOGLEAPIS && !d->sh->logs->hub;
    st->up.prepare = prepare;
    st->up.done = uploaded;
    st->body = blob_body_of(&st->blob);
    upload_start(&st->up);
}

/* --- putting together ----------------------------------------------------------------------- */

/* One element as a line. Line ends within it can only stand between tokens: in a string they would
 * be escaped (RFC 8259 section 7). */
static void add_line(struct str *out, struct view element)
{
    size_t i, at = out->n;

    str_addv(out, element);
    for (i = at; i < out->n; i++) {
        if (out->p[i] == '\n' || out->p[i] == '\r')
            out->p[i] = ' ';
    }
    str_addc(out, '\n');
}

/* Does the blob end with these whole lines? */
static bool ends_with_lines(struct view blob, struct view lines)
{
    return view_ends(blob, lines) && (blob.n == lines.n || blob.p[blob.n - lines.n - 1] == '\n');
}

/*
 * How many of the first records the blob ends with. An upload whose answer, or whose mark in the
 * spool, was lost has added them; others may have joined them since, when the stream's life went
 * on. `ends`: of each record in `add`. Whole records, since a single line may well stand at the end
 * of another's blob.
 */
static size_t count_there(struct view blob, struct view add, const size_t *ends, size_t n)
{
    while (n > 0 && !ends_with_lines(blob, view_of(add.p, ends[n - 1])))
        n--;
    return n;
}

/* Do these whole lines stand there, one behind the other? */
static bool holds_lines(struct view blob, struct view lines)
{
    const char *at = blob.p, *end = blob.p + blob.n;

    while (lines.n && at && (at = memmem(at, (size_t)(end - at), lines.p, lines.n)) != NULL) {
        if (at == blob.p || at[-1] == '\n')
            return true;
        at++;
    }
    return false;
}

/* Touches nothing but the job: it may run in a thread of the pool. */
static void merge(struct ev_job *job)
{
    struct settle *st = container_of(job, struct settle, job);
    size_t *ends = xcalloc(st->n_texts, sizeof(*ends)), at, i;
    struct str add = STR_INIT;

    for (i = 0; i < st->n_texts; i++) {
        struct view rest = str_view(&st->texts[i]), element;

        while (lines_next(&rest, &element))
            add_line(&add, element);
        ends[i] = add.n;
    }
    st->n_there = count_there(str_view(&st->blob), str_view(&add), ends, st->n_texts);
    if (st->anywhere && holds_lines(str_view(&st->blob), str_view(&add)))
        st->n_there = st->n_texts;
    at = st->n_there ? ends[st->n_there - 1] : 0;
    xfree(ends);
    if (at < add.n && st->blob.n && st->blob.p[st->blob.n - 1] != '\n')
        str_addc(&st->blob, '\n');
    str_addv(&st->blob, view_from(str_view(&add), at));
    str_fini(&add);
}

/* The ledger counts them as settled, which they are; that they were so before is worth knowing. */
static void note_there(const struct settle *st)
{
    const struct delivery *d = st->d;
    uint64_t lines = 0;
    size_t i;

    for (i = 0; i < st->n_there; i++)
        lines += d->op.records[i]->row.lines;
    if (!lines)
        return;
    metric_add(metric_series(d->sh->logs->metrics.notes, "settled_before"), 1);
    log_event(LOG_INFO, "delivery", "lines to be settled were in the stream's blob already",
              LF_VIEW("account", d->s->account_v), LF_VIEW("key", d->s->key_v),
              LF_UINT("lines", lines));
}

static void merged(struct ev_job *job)
{
    struct settle *st = container_of(job, struct settle, job);
    size_t i;

    for (i = 0; i < st->n_texts; i++)
        st->d->op.records[i]->text = st->texts[i];
    note_there(st);
    if (st->n_there == st->n_texts)
        finish(st, &(struct op_result){.outcome = OUT_OK});
    else
        upload(st);
}

/* The texts are lent to the job and come back: the machine touches no record of an op. */
static void merge_start(struct settle *st)
{
    struct delivery *d = st->d;
    size_t i, bytes = st->blob.n;

    st->n_texts = d->op.n_records;
    /* A letter may be replayed long after it was settled and others behind it, or its client has
     * uploaded the whole log. Lines with positions are not like any others. */
    st->anywhere = d->ended && d->op.records[0]->pos_max > 0;
    st->texts = xcalloc(st->n_texts, sizeof(struct str));
    for (i = 0; i < st->n_texts; i++) {
        st->texts[i] = d->op.records[i]->text;
        d->op.records[i]->text = STR_INIT;
        bytes += st->texts[i].n;
    }
    st->job.work = merge;
    st->job.done = merged;
    if (bytes > SETTLE_INLINE_MAX && ev_pool_submit(d->sh->logs->pool, d->sh->loop, &st->job) == 0)
        return;
    merge(&st->job);
    merged(&st->job);
}

/* --- what is there -------------------------------------------------------------------------- */

/* Room for what comes, of the memory that whole blobs share. */
static bool make_room(struct settle *st, size_t more)
{
    size_t want = st->blob.n + more + 1;

    if (want <= st->taken)
        return true;
    want = TR_MIN(TR_MAX(want, 2 * st->taken), (size_t)SETTLE_MAX + 1);
    want = TR_MAX(want, (size_t)UPLOAD_PLAIN_MAX);
    if (!blob_memory_take(want - st->taken))
        return false;
    st->taken = want;
    return true;
}

static int take(void *ctx, struct view piece)
{
    struct settle *st = ctx;

    if (st->blob.n + piece.n > SETTLE_MAX) {
        st->too_big = true;
        return -1;
    }
    if (!make_room(st, piece.n)) {
        st->no_memory = true;
        return -1;
    }
    str_addv(&st->blob, piece);
    return 0;
}

/* Only the service's own 404 says that there is no blob (HP §1.4); any other comes from something
 * on the way, and believing it could replace a fuller blob by our few lines. */
static bool says_no_blob(const struct settle *st, const struct fetch_result *r)
{
    json_t *json;
    bool says;

    if (r->outcome != FETCH_ANSWERED || r->status != 404)
        return false;
    json = json_loadb(st->blob.p ? st->blob.p : "", st->blob.n, 0, NULL);
    says = json_is_string(json_object_get(json, "error_msg"));
    json_decref(json);
    return says;
}

static void give_up(struct settle *st, const struct fetch_result *r)
{
    struct op_result out = delivery_outcome(r);

    if (st->no_memory) {
        out = (struct op_result){.outcome = OUT_BUSY, .retry_after_ns = MEMORY_RETRY_NS};
    } else if (st->too_big) {
        log_event(LOG_WARN, "delivery",
                  "a stream's blob is too large to be completed; its last lines stay in the spool",
                  LF_VIEW("account", st->d->s->account_v), LF_VIEW("key", st->d->s->key_v));
        out = (struct op_result){.outcome = OUT_BUSY, .retry_after_ns = TOO_BIG_RETRY_NS};
    } else if (out.outcome == OUT_OK || out.outcome == OUT_TOO_LARGE ||
               (out.outcome == OUT_REJECTED && st->d->s->lanes[LANE_LINES].credential_good)) {
        out.outcome = OUT_BUSY; /* not an answer to lines: they are not at fault */
    }
    if (r->outcome != FETCH_ANSWERED)
        out.said = "upstream cannot be reached";
    finish(st, &out);
}

static void blob_came(void *ctx, const struct fetch_result *r)
{
    struct settle *st = ctx;
    bool there = r->outcome == FETCH_ANSWERED && r->status == 200 && r->content_encoding.n == 0;

    delivery_answered(st->d, "get_blob", r);
    if (st->d->status >= 300) /* its body came in pieces */
        st->d->said = dead_meaning(r->status, str_view(&st->blob));
    if (says_no_blob(st, r)) {
        str_clear(&st->blob);
        there = true;
    }
    if (!there || st->too_big || st->no_memory)
        give_up(st, r);
    else
        merge_start(st);
}

static void loaded(struct delivery *d)
{
    struct fetch_opts o = {.method = "GET", .write = take};
    struct settle *st;

    if (d->lost) {
        delivery_lost(d);
        return;
    }
    st = XNEW(struct settle);
    st->d = d;
    o.ctx = st;
    o.stall_ms = UPLOAD_STALL_MS;
    o.timeout_ms = d->settings->timeout_ms + SETTLE_MAX / UPLOAD_LEAST_BPMS;
    delivery_url(d, "/blob", str_view(&d->s->query));
    delivery_request(d, &o, "get_blob", blob_came);
}

void settle_start(struct delivery *d)
{
    delivery_load(d, loaded);
}
