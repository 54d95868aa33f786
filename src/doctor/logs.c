#include "doctor/logs.h"

#include <jansson.h>
#include <stdlib.h>
#include "base/xmem.h"
#include "codec/url.h"
#include "doctor/chain.h"
#include "rt/clock.h"
#include "rt/rng.h"

static const char flow_stream[] = "log-stream", flow_upload[] = "log-upload";

struct writing {
    struct route *r;
    const struct service *s;
    const struct logs_probe *p;
    struct str query; /* "accountID=...&key=..." */
    bool connected;
};

/* ---- calls -------------------------------------------------------------------------------- */

/* The connection of the call before is used again, as by clients. */
static bool call(struct writing *w, const char *method, const char *path, struct view body,
                 struct talk_answer *a)
{
    struct str target = STR_INIT, request = STR_INIT;
    bool length = strcmp(method, "DELETE") != 0, ok;

    *a = (struct talk_answer){.body = STR_INIT};
    if (!w->connected && !step_connect(w->r, w->s->https, CHAIN_ALPN_1))
        return false;
    str_addf(&target, "%s/log-service%s?%s", w->s->base, path, str_c(&w->query));
    str_reserve(&request, target.n + body.n + strlen(w->p->token) + 512);
    talk_begin(&request, method, str_view(&target), w->s->authority);
    talk_field(&request, "X-Harness-Token", w->p->token);
    talk_end(&request, body, length);
    ok = step_ask(w->r, "log", &request, a);
    w->connected = ok && a->keep_alive;
    str_fini(&target);
    str_wipe(&request);
    return ok;
}

/* The log service's text of an error is not shown, only what it means: it may hold the token. */
static bool says(const struct talk_answer *a, const char *word)
{
    struct view text = str_view(&a->body);
    size_t n = strlen(word), i;

    for (i = 0; text.p && i + n <= text.n; i++) {
        if (view_ieq(view_of(text.p + i, n), view_str(word)))
            return true;
    }
    return false;
}

/* Every refusal is a 400 (HP §1.3); some proxies' are 401 and 403. */
static void tell_refused(struct writing *w, const char *step, const struct talk_answer *a)
{
    if (says(a, "expired")) {
        route_bad(w->r, CAUSE_TOKEN_EXPIRED, step, "%d: the log service says the token is expired",
                  a->status);
        findings_do(w->r->findings, "give a token of today: it is LOG_STREAMING_SERVICE_TOKEN or "
                                    "HARNESS_LOG_SERVICE_TOKEN of a build that runs");
    } else {
        route_bad(w->r, CAUSE_TOKEN_REFUSED, step, "%d: the log service refuses the token",
                  a->status);
        findings_do(w->r->findings, "check that --account is the account that the token is of");
    }
}

static bool is_refusal(const struct talk_answer *a)
{
    return a->status == 400 || a->status == 401 || a->status == 403;
}

static void tell_failed(struct writing *w, const char *step, const struct talk_answer *a)
{
    route_bad(w->r, CAUSE_LOG_STREAM_FAILS, step, "%d from the log service", a->status);
    findings_do(w->r->findings, "try again in some minutes, and look at status.harness.io");
}

/* ---- the stream --------------------------------------------------------------------------- */

static bool open_stream(struct writing *w)
{
    struct talk_answer a;
    bool ok = call(w, "POST", "/stream", VIEW_NONE, &a);

    if (ok && a.status / 100 != 2) {
        if (is_refusal(&a))
            tell_refused(w, "open", &a);
        else
            tell_failed(w, "open", &a);
        ok = false;
    }
    talk_answer_fini(&a);
    return ok;
}

static void add_line(struct str *out)
{
    char now[25];

    clock_format(clock_wall_ns(), now);
    str_addf(out,
             "{\"level\":\"info\",\"pos\":0,\"out\":\"a line of tailrace doctor\\n\","
             "\"time\":\"%s\",\"args\":null}",
             now);
}

/* Only 204 says that the line is kept: 200 is for streams that are not there (HP §1.5). */
static bool write_stream(struct writing *w)
{
    struct str body = STR_INIT;
    struct talk_answer a;
    bool ok;

    str_addc(&body, '[');
    add_line(&body);
    str_addc(&body, ']');
    ok = call(w, "PUT", "/stream", str_view(&body), &a);
    if (ok && a.status == 200) {
        route_bad(w->r, CAUSE_LOG_STREAM_FAILS, "write",
                  "200: the line was dropped, as if the stream had not been opened");
        findings_do(w->r->findings,
                    "look at status.harness.io: its store of log streams has trouble");
        ok = false;
    } else if (ok && a.status != 204) {
        tell_failed(w, "write", &a);
        ok = false;
    }
    talk_answer_fini(&a);
    str_fini(&body);
    return ok;
}

static bool close_stream(struct writing *w)
{
    struct talk_answer a;
    bool ok = call(w, "DELETE", "/stream", VIEW_NONE, &a);

    if (ok && a.status / 100 != 2) {
        tell_failed(w, "close", &a);
        ok = false;
    }
    talk_answer_fini(&a);
    return ok;
}

/* ---- the upload --------------------------------------------------------------------------- */

static void tell_put(struct route *r, const struct talk_answer *a)
{
    if (a->status / 100 == 2) {
        route_ok(r, "put", "%d from %s: accepted", a->status, r->host);
        return;
    }
    if (a->status == 403 || a->status == 400) {
        route_bad(r, CAUSE_LINK_REFUSED, "put", "%d from %s (%s)", a->status, r->host,
                  says(a, "SignatureDoesNotMatch") ? "the signature does not match"
                  : says(a, "expired")             ? "it says the link is expired"
                  : a->html                        ? "with a page of a filter"
                                                   : "no reason given");
        findings_do(r->findings,
                    "leave path, query and Host of requests to %s:%u as they are (no TLS "
                    "inspection, no rewriting), and check this host's clock",
                    r->host, r->port);
        return;
    }
    route_bad(r, CAUSE_HTTP_FAILS, "put", "%d from %s", a->status, r->host);
    findings_do(r->findings, "let PUT of any size through to %s:%u", r->host, r->port);
}

/* As lite-engine does, but for the token, which is none of the bucket's business. */
static void put_link(struct writing *w, const char *link)
{
    struct str body = STR_INIT, request = STR_INIT;
    struct talk_answer a = {.body = STR_INIT};
    struct route store = {.way = w->r->way,
                          .findings = w->r->findings,
                          .flow = flow_upload,
                          .setting = "what the log service says",
                          .bad = w->r->bad,
                          .line = LINE_INIT};
    struct url url;
    char *host, *authority;

    if (url_parse(view_str(link), &url, NULL) < 0 || !h1_is_target(url.path)) {
        route_bad(&store, CAUSE_LINK_NOT_GIVEN, "link", "the log service gave no usable link");
        return;
    }
    host = xmemdup0(url.host.p, url.host.n);
    authority = xmemdup0(url.authority.p, url.authority.n);
    store.host = host;
    store.port = url.port;
    add_line(&body);
    str_addc(&body, '\n');
    talk_begin(&request, "PUT", url.path, authority);
    talk_end(&request, str_view(&body), true);
    if (step_connect(&store, url.https, CHAIN_ALPN_1) && step_ask(&store, "put", &request, &a))
        tell_put(&store, &a);
    talk_answer_fini(&a);
    route_fini(&store);
    str_wipe(&request);
    str_fini(&body);
    xfree(host);
    xfree(authority);
}

static void upload_by_link(struct writing *w)
{
    struct talk_answer a;
    json_t *json = NULL;
    const char *link;

    if (call(w, "POST", "/blob/link/upload", VIEW_NONE, &a)) {
        json = json_loadb(str_c(&a.body), a.body.n, 0, NULL);
        link = json_string_value(json_object_get(json, "link"));
        if (a.status / 100 == 2 && link) {
            findings_ok(w->r->findings, flow_upload, "link", "the log service gave a signed link");
            put_link(w, link);
        } else {
            route_bad(w->r, CAUSE_LINK_NOT_GIVEN, "link", "%d from the log service", a.status);
            findings_do(w->r->findings,
                        "look at status.harness.io; meanwhile upload-logs: harness, "
                        "and Upload Logs via Harness in the account's settings");
        }
    }
    json_decref(json);
    talk_answer_fini(&a);
}

static void upload_through(struct writing *w)
{
    struct str body = STR_INIT;
    struct talk_answer a;

    add_line(&body);
    str_addc(&body, '\n');
    if (call(w, "POST", "/blob", str_view(&body), &a)) {
        if (a.status / 100 == 2)
            findings_ok(w->r->findings, flow_upload, "blob", "%d: uploaded through Harness",
                        a.status);
        else
            tell_failed(w, "blob", &a);
    }
    talk_answer_fini(&a);
    str_fini(&body);
}

static void delete_blob(struct writing *w)
{
    struct talk_answer a;

    (void)call(w, "DELETE", "/blob", VIEW_NONE, &a); /* there may be none */
    talk_answer_fini(&a);
}

/* ---- all of it ---------------------------------------------------------------------------- */

static void name_it(struct writing *w)
{
    unsigned char random[8];

    rng_bytes(random, sizeof(random));
    str_adds(&w->query, "accountID=");
    url_encode(view_str(w->s->account), &w->query);
    str_adds(&w->query, "&key=tailrace-doctor/");
    for (size_t i = 0; i < sizeof(random); i++)
        str_addf(&w->query, "%02x", random[i]);
}

bool step_logs(struct route *r, const struct service *s, const struct logs_probe *p)
{
    struct route own = *r; /* the same way, another flow */
    struct writing w = {.r = &own, .s = s, .p = p, .query = STR_INIT};
    bool ok;

    own.flow = flow_stream;
    own.quiet = true;
    own.line = LINE_INIT;
    name_it(&w);
    ok = open_stream(&w);
    if (ok) {
        ok = write_stream(&w);
        own.flow = flow_upload;
        if (p->by_link)
            upload_by_link(&w);
        else
            upload_through(&w);
        delete_blob(&w);
        own.flow = flow_stream;
        ok = close_stream(&w) && ok;
    }
    if (ok)
        findings_ok(r->findings, flow_stream, "log", "a stream opened, one line written, closed");
    line_close(&own.line);
    str_fini(&w.query);
    return ok;
}
