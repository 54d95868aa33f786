#include "logs/blob_check.h"

#include "codec/zcodec.h"
#include "logs/link.h"
#include "logs/logs_priv.h"

enum {
    INLINE_MAX = 64 * 1024, /* what is larger is inflated in a thread of the pool */
    GZIP_SLACK = 64 * 1024, /* gzip of what cannot be compressed is a little larger */
};

static void end(struct blob_check *c, enum shape_verdict v)
{
    if (c->link.p)
        explicit_bzero(c->link.p, c->link.n);
    str_fini(&c->link);
    str_fini(&c->got);
    c->done(c, v);
}

/* An answer that is none, or a refusal to read, says nothing about the object. */
static bool usable(const struct fetch_result *r)
{
    return r->outcome == FETCH_ANSWERED && r->status >= 200 && r->status < 300;
}

/* --- through the link ----------------------------------------------------------------------- */

static void link_get(struct blob_check *c);

static void inflate(struct ev_job *job)
{
    struct blob_check *c = container_of(job, struct blob_check, job);
    struct zdecoder *z = zdecoder_new(Z_GZIP, c->want.n);
    struct str plain = STR_INIT;
    struct err e;

    c->equal = zdecoder_feed(z, str_view(&c->got), 0, &plain, &e) == 0 && zdecoder_complete(z) &&
               view_eq(str_view(&plain), c->want);
    zdecoder_free(&z);
    str_fini(&plain);
}

static void inflated(struct ev_job *job)
{
    struct blob_check *c = container_of(job, struct blob_check, job);

    end(c, c->equal ? SHAPE_EQUAL : SHAPE_DIFFERENT);
}

static void compare_gzip(struct blob_check *c, struct view body)
{
    struct shard *sh = c->u->d->sh;

    str_addv(&c->got, body);
    c->job.work = inflate;
    c->job.done = inflated;
    if (body.n > INLINE_MAX && ev_pool_submit(sh->logs->pool, sh->loop, &c->job) == 0)
        return;
    inflate(&c->job);
    inflated(&c->job);
}

static void link_got(void *ctx, const struct fetch_result *r)
{
    struct blob_check *c = ctx;
    enum zcoding coding = Z_IDENTITY;

    link_answered(c->u, "get_object", r);
    if (!usable(r)) {
        end(c, SHAPE_UNSURE);
    } else if (c->asked_gzip && zcoding_parse(r->content_encoding, &coding) == 0 &&
               coding == Z_GZIP) {
        compare_gzip(c, r->body);
    } else if (!view_eq(r->body, c->want)) {
        end(c, SHAPE_DIFFERENT);
    } else if (c->asked_gzip) {
        end(c, SHAPE_EQUAL);
    } else {
        c->asked_gzip = true;
        link_get(c);
    }
}

static void link_get(struct blob_check *c)
{
    const char *fields[] = {c->asked_gzip ? "Accept-Encoding: gzip" : NULL, NULL};
    struct fetch_opts o = {.method = "GET", .fields = fields, .ctx = c};

    o.max_answer = c->want.n + GZIP_SLACK;
    o.stall_ms = UPLOAD_STALL_MS;
    link_request(c->u, &o, str_view(&c->link), link_got);
}

/* --- through the log service ---------------------------------------------------------------- */

static void download_link_came(void *ctx, const struct fetch_result *r)
{
    struct blob_check *c = ctx;

    delivery_answered(c->u->d, "download_link", r);
    if (!usable(r) || link_of_answer(r->body, &c->link) < 0)
        end(c, SHAPE_UNSURE);
    else
        link_get(c);
}

static void blob_came(void *ctx, const struct fetch_result *r)
{
    struct blob_check *c = ctx;
    struct delivery *d = c->u->d;
    struct fetch_opts o = {.method = "POST", .ctx = c};

    delivery_answered(d, "get_blob", r);
    if (!usable(r)) {
        end(c, SHAPE_UNSURE);
        return;
    }
    if (!view_eq(r->body, c->want)) {
        end(c, SHAPE_DIFFERENT);
        return;
    }
    delivery_url(d, "/blob/link/download", str_view(&d->s->query));
    delivery_request(d, &o, "download_link", download_link_came);
}

void blob_check_start(struct blob_check *c)
{
    struct delivery *d = c->u->d;
    struct fetch_opts o = {.method = "GET", .ctx = c};

    o.max_answer = c->want.n + 1;
    o.stall_ms = UPLOAD_STALL_MS;
    c->asked_gzip = false;
    delivery_url(d, "/blob", str_view(&d->s->query));
    delivery_request(d, &o, "get_blob", blob_came);
}
