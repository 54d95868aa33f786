#include "admin/admin.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include "admin/call.h"
#include "admin/site.h"
#include "codec/url.h"
#include "rt/metric.h"
#include "rt/ready.h"

#define TEXT_TYPE "text/plain; charset=utf-8"

struct page {
    const char *path;
    void (*show)(struct view accept, struct admin_response *out);
    const char *text; /* for the index */
};

static void show_index(struct view accept, struct admin_response *out);

static void show_metrics(struct view accept, struct admin_response *out)
{
    bool open = admin_wants_openmetrics(accept);

    out->content_type = open ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                             : "text/plain; version=0.0.4; charset=utf-8";
    metric_expose(&out->body, open ? METRIC_OPENMETRICS : METRIC_PROMETHEUS);
}

/* The loop that answers is alive; that is all there is to say. */
static void show_health(struct view accept, struct admin_response *out)
{
    (void)accept;
    str_adds(&out->body, "ok\n");
}

static void show_ready(struct view accept, struct admin_response *out)
{
    (void)accept;
    if (ready_check(&out->body))
        str_adds(&out->body, "ready\n");
    else
        out->status = 503;
}

static const struct page pages[] = {
    {"/", show_index, "the status page for browsers; for others, this text"},
    {"/metrics", show_metrics, "metrics, in the Prometheus or the OpenMetrics format"},
    {"/healthz", show_health, "200 while the process works"},
    {"/readyz", show_ready, "200 when it takes work, else 503 with the reasons"},
};

static void show_index(struct view accept, struct admin_response *out)
{
    size_t i;

    (void)accept;
    str_adds(&out->body, PACKAGE_STRING "\n\n");
    for (i = 0; i < ARRAY_LEN(pages); i++)
        str_addf(&out->body, "%-10s %s\n", pages[i].path, pages[i].text);
    str_addf(&out->body, "%-10s %s\n", CALL_PREFIX, "what can be asked, as JSON");
}

static const struct page *find_page(struct view path)
{
    size_t i;

    for (i = 0; i < ARRAY_LEN(pages); i++) {
        if (view_is(path, pages[i].path))
            return &pages[i];
    }
    return NULL;
}

void admin_respond(struct view method, struct view target, struct view accept,
                   struct admin_response *out)
{
    struct view path, query;
    const struct page *page;

    *out = (struct admin_response){.status = 200, .content_type = TEXT_TYPE, .body = STR_INIT};
    url_split_target(target, &path, &query);
    page = find_page(path);
    if (!page) {
        out->status = 404;
        str_adds(&out->body, "not found\n");
    } else if (!view_is(method, "GET") && !view_is(method, "HEAD")) {
        out->status = 405;
        out->allow = "GET, HEAD";
        str_adds(&out->body, "use GET\n");
    } else {
        page->show(accept, out);
    }
}

/* All fields of that name as one value (RFC 9110 §5.3). */
static void join_fields(const struct http_request *req, const char *name, struct str *out)
{
    size_t i;

    for (i = 0; i < req->n_fields; i++) {
        if (!view_ieq(req->fields[i].name, view_str(name)))
            continue;
        if (out->n)
            str_adds(out, ", ");
        str_addv(out, req->fields[i].value);
    }
}

static void answer(struct http_exchange *ex, const struct http_request *req, struct view accept)
{
    struct h1_field fields[3] = {{VIEW_LIT("cache-control"), VIEW_LIT("no-store")}};
    struct admin_response r;
    size_t n = 1;

    admin_respond(req->method, req->target, accept, &r);
    fields[n++] = (struct h1_field){VIEW_LIT("content-type"), view_str(r.content_type)};
    if (r.allow)
        fields[n++] = (struct h1_field){VIEW_LIT("allow"), view_str(r.allow)};
    http_reply(ex, r.status, fields, n, view_of(r.body.p, r.body.n));
    str_fini(&r.body);
}

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct str accept = STR_INIT;
    struct view path, query;

    (void)ctx;
    join_fields(req, "accept", &accept);
    url_split_target(req->target, &path, &query);
    if (!site_take(ex, req, path, str_view(&accept)))
        answer(ex, req, str_view(&accept));
    str_fini(&accept);
}

const struct http_service *admin_service(void)
{
    static const struct http_service service = {.take = take};

    return &service;
}
