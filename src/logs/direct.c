#include "logs/direct.h"

#include "logs/logs_priv.h"
#include "rt/metric.h"

static void direct_done(void *ctx, const struct fetch_result *r)
{
    struct ingest *in = ctx;

    in->fetch = NULL;
    if (r->outcome != FETCH_ANSWERED) {
        ingest_reply(in, 503, "the gateway's spool cannot take this now, nor can the log service");
        return;
    }
    if (in->kind == TARGET_LINES && r->status < 300 && r->status != 204) {
        /* Not stored, though its client would take it for success (HP §1.5). */
        ingest_reply(in, 503, "the gateway's spool cannot take this now, nor has the log service");
        return;
    }
    metric_add(in->sh->logs->metrics.direct, 1);
    ingest_reply_json(in, r->status, r->body);
    in->failed = r->status >= 300;
}

/* Method and path upstream of what can go directly; false for the rest. An upload by ticket would
 * need a signed link first, and its client tries again. */
static bool direct_path(const struct ingest *in, const char **method, const char **path)
{
    static const struct {
        const char *method, *path;
    } ways[] = {
        [TARGET_OPEN] = {"POST", "/stream?"},
        [TARGET_LINES] = {"PUT", "/stream?"},
        [TARGET_CLOSE] = {"DELETE", "/stream?"},
        [TARGET_BLOB] = {"POST", "/blob?"},
    };

    if ((size_t)in->kind >= ARRAY_LEN(ways) || !ways[in->kind].method)
        return false;
    *method = ways[in->kind].method;
    *path = ways[in->kind].path;
    return in->kind != TARGET_BLOB || in->body.n > 0;
}

/* A hub refuses an edge's delivery also while an earlier one of the same lines is being committed:
 * sent on without its id it would arrive twice. The edge sends it again. */
static bool from_edge(const struct ingest *in)
{
    const struct http_request *req = http_request_of(in->ex);

    return http_field(req->fields, req->n_fields, "tailrace-delivery").n > 0;
}

bool direct_start(struct ingest *in)
{
    const struct logs_settings *settings = in->sh->settings;
    const char *method, *path, *fields[2] = {NULL, NULL};
    struct str param = STR_INIT;
    struct fetch_opts o = {
        .peer = &settings->harness,
        .fields = fields,
        .body = str_view(&in->body),
        .timeout_ms = INGEST_UPSTREAM_MS,
        .done = direct_done,
        .ctx = in,
    };

    if (!in->ex || from_edge(in) || !in->quiet || limiter_state(&in->sh->harness) == LIMITER_DOWN ||
        !direct_path(in, &method, &path))
        return false;
    str_clear(&in->url);
    str_clear(&in->field);
    str_adds(&in->url, settings->base);
    str_addv(&in->url, in->prefix);
    str_adds(&in->url, path);
    str_addv(&in->url,
             str_view(in->kind == TARGET_CLOSE ? &in->target.close_query : &in->target.query));
    cred_apply(in->sh->logs->creds, in->cred, &in->field, &param);
    str_addv(&in->url, str_view(&param));
    str_fini(&param);
    if (in->field.n)
        fields[0] = str_c(&in->field);
    o.method = method;
    o.url = str_c(&in->url);
    in->fetch = fetch_start(in->sh->pool, &o);
    return true;
}
