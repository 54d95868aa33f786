#include "logs/upload.h"

#include "base/bug.h"
#include "codec/url.h"
#include "logs/link.h"
#include "logs/logs_priv.h"
#include "rt/clock.h"
#include "rt/fault.h"
#include "rt/log.h"

#define LINK_GOOD_NS (1800 * NS_PER_SEC) /* of the hour a link lasts (HP §1.9) */
#define CROWDED_NS   (2 * NS_PER_SEC)

static const struct op_result busy = {.outcome = OUT_BUSY};

static struct metric *mismatches(void)
{
    return metric_series(metric_family(METRIC_COUNTER, "blob_hash_mismatch", "",
                                       "Uploads after which the object store named the checksum "
                                       "of other bytes than were sent."));
}

/* --- ends ----------------------------------------------------------------------------------- */

static void fail_later(struct ev_task *task)
{
    struct upload *u = container_of(task, struct upload, later);
    struct op_result r = u->result;

    u->done(u, &r);
}

static void give_slot_back(struct upload *u)
{
    if (u->has_slot)
        store_give_back(u->store);
    u->has_slot = false;
}

void upload_fail(struct upload *u, const struct op_result *r)
{
    give_slot_back(u);
    u->result = *r;
    u->later.run = fail_later;
    ev_defer(u->d->sh->loop, &u->later);
}

void upload_fini(struct upload *u)
{
    ASSERT(!u->has_slot);
    if (u->link.p)
        explicit_bzero(u->link.p, u->link.n);
    str_fini(&u->link);
}

void upload_resume(struct upload *u)
{
    if (u->d->fetch)
        fetch_resume(u->d->fetch);
}

/* --- the body ------------------------------------------------------------------------------- */

static long read_body(void *ctx, void *p, size_t n)
{
    const struct upload *u = ctx;
    long got = blob_body_read(u->body, p, n);

    if (blob_body_sent(u->body))
        fault_point(u->by_link ? "logs-object-sent" : "logs-blob-sent");
    return got;
}

/* Bodies are read, never borrowed, so that the checksum is of what was sent. */
static void add_body(const struct upload *u, struct fetch_opts *o)
{
    uint64_t size = blob_body_size(u->body);
    uint64_t slow_ms = size / UPLOAD_LEAST_BPMS;

    if (size == 0)
        return;
    o->read = read_body;
    o->length = (int64_t)size;
    o->http_1_1 = size > UPLOAD_PLAIN_MAX;
    o->stall_ms = UPLOAD_STALL_MS;
    o->timeout_ms =
        u->d->settings->timeout_ms + (unsigned)TR_MIN(slow_ms, UINT64_C(24) * 3600 * 1000);
}

/* Success of a body that had not left is none: the answer was to something else. That it left
 * afterwards changes nothing: it may have been read to be thrown away. */
static void require_sent(const struct upload *u, const struct fetch_result *r,
                         struct op_result *out)
{
    if (out->outcome == OUT_OK && (r->early || !blob_body_sent(u->body)))
        out->outcome = OUT_UNKNOWN;
}

/* --- POST /blob ----------------------------------------------------------------------------- */

static void post_done(void *ctx, const struct fetch_result *r)
{
    struct upload *u = ctx;
    struct op_result out = delivery_outcome(r);

    delivery_answered(u->d, "blob", r);
    u->status = r->status;
    require_sent(u, r, &out);
    u->done(u, &out);
}

/* No Content-Type (form parsing would eat the body, HP §9.3), no coding (it is stored as it is). */
static void post(struct upload *u)
{
    struct delivery *d = u->d;
    struct fetch_opts o = {.method = "POST", .ctx = u};

    ASSERT(!u->gzip);
    add_body(u, &o);
    delivery_url(d, "/blob", str_view(&d->s->query));
    fault_point("logs-before-blob");
    delivery_request(d, &o, "blob", post_done);
}

/* --- links ---------------------------------------------------------------------------------- */

/* A hub's ticket is followed as the hub itself is reached; so is a link back to the log service. */
static bool leads_home(const struct delivery *d, struct view link)
{
    return d->sh->logs->hub || link_same_place(link, view_str(d->settings->base));
}

static void slot_free(struct store_wait *w);

static struct store_host *store_of(const struct upload *u, struct view link)
{
    struct url url;

    if (leads_home(u->d, link) || url_parse(link, &url, NULL) < 0)
        return NULL;
    return store_get(u->d->sh, url.authority);
}

static void have_link(struct upload *u)
{
    u->link_at = ev_now_ns(u->d->sh->loop);
    u->store = store_of(u, str_view(&u->link));
    if (!u->store) {
        u->prepare(u);
        return;
    }
    u->wait.go = slot_free;
    store_enter(u->store, &u->wait);
}

/* The decoded answer decides, not its looks; what is no link is the service's trouble: later. Its
 * own refusals are 400 (HP §1.3): another 4xx comes from something on the way. */
static void link_done(void *ctx, const struct fetch_result *r)
{
    struct upload *u = ctx;
    struct op_result out = delivery_outcome(r);

    delivery_answered(u->d, "link", r);
    u->status = r->status;
    if (out.outcome == OUT_OK && link_of_answer(r->body, &u->link) == 0) {
        fault_point("logs-link-fetched");
        have_link(u);
        return;
    }
    if (out.outcome == OUT_REJECTED || out.outcome == OUT_TOO_LARGE)
        out.outcome = r->status == 400 ? OUT_REJECTED : OUT_BUSY;
    if (out.outcome == OUT_OK) {
        static struct log_rate rate;
        uint64_t left_out;

        out.outcome = OUT_BUSY;
        if (log_rate_ok(&rate, 10, &left_out))
            log_event(LOG_WARN, "delivery", "the log service's answer holds no upload link",
                      LF_INT("status", r->status), LF_UINT("suppressed", left_out));
    }
    u->done(u, &out);
}

static void fetch_link(struct upload *u)
{
    struct fetch_opts o = {.method = "POST", .ctx = u};

    if (u->link.p)
        explicit_bzero(u->link.p, u->link.n);
    str_clear(&u->link);
    delivery_url(u->d, "/blob/link/upload", str_view(&u->d->s->query));
    delivery_request(u->d, &o, "link", link_done);
}

static void slot_free(struct store_wait *w)
{
    struct upload *u = container_of(w, struct upload, wait);

    u->has_slot = true;
    if (ev_now_ns(u->d->sh->loop) - u->link_at > LINK_GOOD_NS) {
        give_slot_back(u);
        fetch_link(u);
        return;
    }
    u->prepare(u);
}

void upload_start(struct upload *u)
{
    (void)mismatches(); /* shown as 0 from the first upload on */
    u->status = 0;
    u->refused = false;
    if (!u->by_link) {
        u->prepare(u);
    } else if (store_is_crowded(u->d->sh)) {
        upload_fail(u, &(struct op_result){.outcome = OUT_BUSY, .retry_after_ns = CROWDED_NS});
    } else {
        fetch_link(u);
    }
}

/* --- the PUT -------------------------------------------------------------------------------- */

void link_request(struct upload *u, struct fetch_opts *o, struct view link, fetch_done_fn done)
{
    struct delivery *d = u->d;

    if (!u->has_slot) {
        u->store = store_of(u, link);
        if (u->store)
            store_enter_now(u->store);
        else
            limiter_start(&d->sh->harness);
    }
    u->has_slot = false; /* the request has it */
    o->url = link.p;
    o->peer = leads_home(d, link) ? &d->settings->harness : &d->settings->store;
    if (!o->timeout_ms)
        o->timeout_ms = d->settings->timeout_ms;
    o->done = done;
    delivery_begins(d, u->store ? store_limiter(u->store) : &d->sh->harness);
    d->fetch = fetch_start(d->sh->pool, o);
}

void link_answered(struct upload *u, const char *call, const struct fetch_result *r)
{
    delivery_released(u->d, call, r);
    if (u->store)
        store_left(u->store);
    if (r->outcome != FETCH_ANSWERED) {
        static struct log_rate rate;
        uint64_t left_out;

        if (log_rate_ok(&rate, 10, &left_out))
            log_event(LOG_WARN, "delivery",
                      "the object store cannot be reached; uploads wait in the spool",
                      LF_STR("call", call), LF_ERR(&r->err), LF_UINT("suppressed", left_out));
    }
}

static void check_hash(struct upload *u, const struct fetch_result *r, struct op_result *out)
{
    struct view whole = VIEW_NONE;

    (void)blob_body_whole(u->body, &whole);
    if (out->outcome != OUT_OK || goog_hash_agrees(r->goog_hash, blob_body_crc32c(u->body), whole))
        return;
    out->outcome = OUT_BUSY;
    metric_add(mismatches(), 1);
    log_event(LOG_WARN, "delivery",
              "the object store says it stored other bytes than were sent; the upload is repeated",
              LF_VIEW("account", u->d->s->account_v), LF_VIEW("key", u->d->s->key_v));
}

/* The store knows nothing of our credential, and a link is ours to renew: none of its answers is a
 * verdict on the blob, but for "too large". */
static void read_put_answer(struct upload *u, const struct fetch_result *r, struct op_result *out)
{
    static struct log_rate rate;
    uint64_t left_out;

    u->status = r->status;
    u->refused = out->outcome == OUT_REJECTED || out->outcome == OUT_TOO_LARGE;
    if (out->outcome == OUT_REJECTED)
        out->outcome = OUT_BUSY;
    if (u->refused && log_rate_ok(&rate, 10, &left_out))
        log_event(LOG_WARN, "delivery", "the object store refuses an upload; it is repeated later",
                  LF_INT("status", r->status), LF_VIEW("account", u->d->s->account_v),
                  LF_VIEW("key", u->d->s->key_v), LF_UINT("suppressed", left_out));
}

static void put_done(void *ctx, const struct fetch_result *r)
{
    struct upload *u = ctx;
    struct op_result out = delivery_outcome(r);

    link_answered(u, "put_object", r);
    if (r->outcome == FETCH_ANSWERED && link_is_refused(r->status, r->body) && !u->renewed) {
        u->renewed = true;
        fetch_link(u);
        return;
    }
    require_sent(u, r, &out);
    check_hash(u, r, &out);
    read_put_answer(u, r, &out);
    u->done(u, &out);
}

static void put(struct upload *u)
{
    const char *fields[] = {u->gzip ? "Content-Encoding: gzip" : NULL, NULL};
    struct fetch_opts o = {.method = "PUT", .fields = fields, .ctx = u};

    add_body(u, &o);
    fault_point("logs-before-object");
    link_request(u, &o, str_view(&u->link), put_done);
}

void upload_go(struct upload *u)
{
    if (blob_body_error(u->body))
        upload_fail(u, &busy);
    else if (u->by_link)
        put(u);
    else
        post(u);
}
