#include "app/settings.h"

#include "base/xmem.h"
#include "rt/clock.h"

/* Largest bodies that may come in together. A compression bomb costs its sender some kilobytes; a
 * hundred at a time would cost us gigabytes. */
static char *copy(const char *s)
{
    return s ? xstrdup(s) : NULL;
}

static void fill_peer(const struct config *c, struct parent *parent, bool with_certificate,
                      struct fetch_peer *p)
{
    p->ca = copy(c->upstream_ca);
    p->certificate = with_certificate ? copy(c->upstream_certificate) : NULL;
    p->key = with_certificate ? copy(c->upstream_key) : NULL;
    p->min_version = xstrdup(config_tls_min(c));
    p->http = c->upstream_http;
    p->parent = parent_url(parent);
    p->bypass = parent_bypasses;
    p->bypass_ctx = parent;
}

static const char *public_url(const struct config *c)
{
    size_t i;

    for (i = 0; i < c->n_listen; i++) {
        if (c->listen[i].mode == CONFIG_MODE_UPSTREAM && c->listen[i].public_url)
            return c->listen[i].public_url;
    }
    return NULL;
}

struct logs_settings *settings_from_config(const struct config *c, struct parent *parent)
{
    struct logs_settings *s = XNEW(struct logs_settings);

    s->base = xstrdup(c->harness_url);
    s->public_url = copy(public_url(c));
    s->upload = c->upload_logs == CONFIG_UPLOADS_GOOGLEAPIS ? UPLOAD_GOOGLEAPIS
                : c->upload_logs == CONFIG_UPLOADS_HARNESS  ? UPLOAD_HARNESS
                                                            : UPLOAD_FOLLOW;
    fill_peer(c, parent, true, &s->harness);
    fill_peer(c, parent, false, &s->store);
    s->rules = (struct stream_rules){
        .hold_ns = c->stream_hold_ms * NS_PER_MS,
        .idle_ns = c->stream_idle_ms * NS_PER_MS,
        .backoff_ns = 250 * NS_PER_MS,
        .backoff_max_ns = 30 * NS_PER_SEC,
        .close_retry_ns = 8 * NS_PER_SEC,
        .batch_delay_ns = c->batch_delay_ms * NS_PER_MS,
        .batch_lines = (uint64_t)c->batch_lines,
        .batch_bytes = c->batch_bytes,
        .failed_alone_ns = 3600 * NS_PER_SEC,
        .failed_blob_ns = 1800 * NS_PER_SEC,
        .snapshot_lines = 5000,                      /* HP §1.5 */
        .expiry_ns = INT64_C(5) * 3600 * NS_PER_SEC, /* HP §1.5 */
        .max_ahead = STREAM_MAX_AHEAD,
        .page_records = 32,
        .page_keep = 16,
        .load_records = 256,
        .page_after_ns = NS_PER_SEC,
    };
    s->body_max = c->limit_body;
    s->expand_max = c->limit_expand;
    s->blob_max = c->limit_blob;
    s->memory = c->memory_limit;
    s->streams_max = (uint64_t)c->limit_streams;
    s->share = (unsigned)c->limit_share;
    s->timeout_ms = (unsigned)c->upstream_timeout_ms;
    s->gzip = c->upload_gzip;
    s->tail = c->control_tail;
    return s;
}
