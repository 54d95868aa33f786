/*
 * Blobs on their way out: which route they take (architecture.md, "Blob and link"), and whether as
 * gzip. A delivery is OUT_OK only when what is stored reads back as the client sent it, as far as
 * that can be known.
 */
#include "base/bug.h"
#include "base/hash.h"
#include "base/xmem.h"
#include "codec/zcodec.h"
#include "logs/blob_check.h"
#include "logs/logs_priv.h"
#include "rt/clock.h"
#include "rt/log.h"

enum {
    GZIP_LEAST = 1024, /* not worth a trial */
    GZIP_LEVEL = 6,
    GZIP_INLINE_MAX = 64 * 1024, /* larger ones are compressed in a thread of the pool */
    GZIP_ATTEMPTS = 3,           /* failures after which even a trusted store gets it plain */
    POST_WHOLE_MAX = 64 * 1024,  /* POST /blob needs nothing whole */
};

#define DAMAGED_RETRY_NS (3 * NS_PER_SEC)

enum stage {
    STAGE_ELSEWHERE, /* the body is not being read */
    STAGE_STARTING,  /* its first bytes are waited for */
    STAGE_PUTTING,   /* an upload reads it */
};

struct blob_out {
    struct delivery *d;
    struct upload up;
    struct blob_body *raw;    /* as the client sent it */
    struct blob_body *packed; /* gzip of it, once made */
    struct str pack;
    struct ev_job job;
    struct str shape;
    enum shape_use use; /* of the upload under way */
    bool trying;        /* the shape's trial is ours: shapes_tell is owed */
    bool plain;         /* gzip is given up for this blob */
    bool suspect;       /* the store refused the gzip: if it takes it plain, that was why */
    enum stage stage;
    struct blob_check check;
};

/* --- ends ----------------------------------------------------------------------------------- */

static void tell(struct blob_out *o, enum shape_verdict v)
{
    struct logs *logs = o->d->sh->logs;

    shapes_tell(logs->shapes, str_view(&o->shape), v, logs->spool, ev_now_ns(o->d->sh->loop));
    o->trying = false;
}

static void finish(struct blob_out *o, const struct op_result *r)
{
    struct delivery *d = o->d;
    struct op_result out = *r;

    if (o->trying)
        tell(o, SHAPE_UNSURE);
    blob_body_free(&o->packed);
    blob_body_free(&o->raw);
    upload_fini(&o->up);
    str_fini(&o->pack);
    str_fini(&o->shape);
    xfree(o);
    delivery_end(d, &out);
}

/* What the spool holds is not the upload that was accepted. It goes to the dead letters, where it
 * can be looked at; upstream then keeps what it has of the stream, as with a blob it refuses. */
static void damaged(struct blob_out *o, const struct err *e, struct op_result *out)
{
    bool for_good = e->code == ERR_INVALID || e->code == ERR_NOTFOUND || e->code == ERR_LIMIT;

    log_event(LOG_ERROR, "delivery",
              for_good ? "an upload in the spool is damaged; it is kept as a dead letter"
                       : "an upload cannot be read from the spool; it is tried again",
              LF_VIEW("account", o->d->s->account_v), LF_VIEW("key", o->d->s->key_v), LF_ERR(e));
    *out = (struct op_result){.outcome = for_good ? OUT_TOO_LARGE : OUT_NOT_SENT,
                              .retry_after_ns = for_good ? 0 : DAMAGED_RETRY_NS,
                              .said = "it cannot be read from the spool"};
}

/* Does the service, or the store, fail at this blob only, or at all of its account that go this
 * way? */
static void compare_with_others(const struct blob_out *o, struct op_result *out)
{
    const struct delivery *d = o->d;
    uint64_t account = hash_bytes(d->s->account_v.p, d->s->account_v.n);
    struct blob_taken *t = &d->sh->blobs_taken[o->up.by_link][account % SHARD_ACCOUNTS];

    if (out->outcome == OUT_OK)
        *t = (struct blob_taken){.account = account, .at = ev_now_ns(d->sh->loop)};
    out->failed = o->up.refused || o->up.status == 500;
    out->others_at = t->account == account ? t->at : 0;
}

/* --- gzip ----------------------------------------------------------------------------------- */

static bool gzip_is_allowed(const struct blob_out *o)
{
    const struct delivery *d = o->d;
    const struct record *r = d->op.blob;

    return o->up.by_link && d->settings->gzip && !d->sh->logs->hub && !o->plain && !r->compressed &&
           r->blob_size >= GZIP_LEAST && r->blob_size <= BLOB_WHOLE_MAX;
}

/* An upload that failed goes plain next time, so that no store is tried for ever. */
static enum shape_use choose_use(struct blob_out *o)
{
    struct delivery *d = o->d;
    unsigned attempts = d->s->lanes[LANE_BLOBS].attempts;
    enum shape_use use;

    ASSERT(!o->trying);
    if (!gzip_is_allowed(o))
        return SHAPE_PLAIN; /* `shape` stays what gzip was last sent to */
    str_clear(&o->shape);
    if (shape_of_link(str_view(&o->up.link), &o->shape) < 0)
        return SHAPE_PLAIN;
    use =
        shapes_ask(d->sh->logs->shapes, str_view(&o->shape), attempts == 0, ev_now_ns(d->sh->loop));
    if (use == SHAPE_GZIP && attempts >= GZIP_ATTEMPTS)
        return SHAPE_PLAIN;
    o->trying = use == SHAPE_TRY;
    return use;
}

static void pack_work(struct ev_job *job)
{
    struct blob_out *o = container_of(job, struct blob_out, job);
    struct zencoder *z = zencoder_new(Z_GZIP, GZIP_LEVEL);
    struct view raw;

    if (!blob_body_whole(o->raw, &raw))
        BUG("only a whole body is packed");
    zencoder_feed(z, raw, true, &o->pack);
    zencoder_free(&z);
}

static void go(struct blob_out *o);

static void packed_ready(void *ctx)
{
    struct blob_out *o = ctx;

    o->stage = STAGE_PUTTING;
    upload_go(&o->up);
}

static void go_packed(struct blob_out *o)
{
    o->up.body = o->packed;
    o->up.gzip = true;
    blob_body_start(o->packed, 0, packed_ready, o);
}

static void give_up_gzip(struct blob_out *o, enum shape_verdict v)
{
    if (o->trying)
        tell(o, v);
    o->use = SHAPE_PLAIN;
    o->plain = true;
}

static void pack_done(struct ev_job *job)
{
    struct blob_out *o = container_of(job, struct blob_out, job);

    if (o->pack.n >= blob_body_size(o->raw)) {
        str_fini(&o->pack);
        give_up_gzip(o, SHAPE_UNTRIED);
        go(o);
        return;
    }
    o->packed = blob_body_of(&o->pack);
    go_packed(o);
}

static void pack(struct blob_out *o)
{
    struct shard *sh = o->d->sh;

    o->job.work = pack_work;
    o->job.done = pack_done;
    if (blob_body_size(o->raw) <= GZIP_INLINE_MAX) {
        pack_work(&o->job);
        pack_done(&o->job);
    } else if (ev_pool_submit(sh->logs->pool, sh->loop, &o->job) < 0) {
        give_up_gzip(o, SHAPE_UNTRIED);
        go(o);
    }
}

/* The table in architecture.md. Towards a hub the client's own form: the hub decides. */
static bool goes_by_link(const struct delivery *d)
{
    if (d->sh->logs->hub || d->settings->upload == UPLOAD_FOLLOW)
        return d->op.blob->by_link;
    return d->settings->upload == UPLOAD_GOOGLEAPIS;
}

/* --- an upload ------------------------------------------------------------------------------ */

/* The body is ready to be read: send it, packed first if it is to be. */
static void go(struct blob_out *o)
{
    struct view raw;

    if (o->use != SHAPE_PLAIN && !blob_body_whole(o->raw, &raw))
        give_up_gzip(o, SHAPE_UNTRIED); /* no memory for it, or it could not be read */
    if (o->use != SHAPE_PLAIN && o->packed) {
        go_packed(o);
    } else if (o->use != SHAPE_PLAIN) {
        pack(o);
    } else {
        o->up.body = o->raw;
        o->up.gzip = false;
        o->stage = STAGE_PUTTING;
        upload_go(&o->up);
    }
}

static void raw_ready(void *ctx)
{
    struct blob_out *o = ctx;

    if (o->stage == STAGE_PUTTING) {
        upload_resume(&o->up);
    } else if (o->stage == STAGE_STARTING) {
        o->stage = STAGE_ELSEWHERE;
        go(o);
    }
}

static void prepare(struct upload *u)
{
    struct blob_out *o = container_of(u, struct blob_out, up);

    if (o->trying)
        tell(o, SHAPE_UNTRIED); /* this is a new link, perhaps of another shape */
    if (!goes_by_link(o->d))
        u->by_link = false; /* the link showed that upstream is a hub */
    o->use = choose_use(o);
    o->stage = STAGE_STARTING;
    blob_body_start(o->raw, o->use == SHAPE_PLAIN ? POST_WHOLE_MAX : BLOB_WHOLE_MAX, raw_ready, o);
}

static void checked(struct blob_check *c, enum shape_verdict v)
{
    struct blob_out *o = container_of(c, struct blob_out, check);

    tell(o, v);
    if (v == SHAPE_EQUAL) {
        finish(o, &(struct op_result){.outcome = OUT_OK});
        return;
    }
    o->plain = true; /* what is stored may be unreadable: replace it */
    upload_start(&o->up);
}

static void check_stored(struct blob_out *o)
{
    if (!blob_body_whole(o->raw, &o->check.want))
        BUG("what was packed is whole");
    o->check.u = &o->up;
    o->check.done = checked;
    blob_check_start(&o->check);
}

static void uploaded(struct upload *u, const struct op_result *r)
{
    struct blob_out *o = container_of(u, struct blob_out, up);
    const struct err *e = blob_body_error(o->raw);
    struct op_result out = *r;

    o->stage = STAGE_ELSEWHERE;
    if (out.outcome != OUT_OK && e)
        damaged(o, e, &out);
    if (out.outcome == OUT_OK && o->use == SHAPE_TRY) {
        check_stored(o);
        return;
    }
    if (u->refused && o->use != SHAPE_PLAIN) {
        if (o->trying)
            tell(o, SHAPE_UNSURE);
        o->suspect = o->plain = true;
        upload_start(u);
        return;
    }
    if (out.outcome == OUT_OK && o->suspect)
        tell(o, SHAPE_DIFFERENT);
    compare_with_others(o, &out);
    finish(o, &out);
}

/* --- start ---------------------------------------------------------------------------------- */

void blob_out_start(struct delivery *d)
{
    struct blob_out *o = XNEW(struct blob_out);

    o->d = d;
    o->up.d = d;
    o->up.by_link = d->s->place.story.by_link = goes_by_link(d);
    o->up.prepare = prepare;
    o->up.done = uploaded;
    o->raw = blob_body_new(d->sh->logs->spool, d->sh->loop, d->op.blob);
    upload_start(&o->up);
}
