#include "logs/ingest_priv.h"

#include <stdio.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/h2.h"
#include "codec/url.h"
#include "logs/direct.h"
#include "logs/logs_priv.h"
#include "logs/ticket.h"
#include "rt/clock.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

/* A credential that only this call names may be forgotten while its body comes. */
#define CRED_RECALL_NS (10 * NS_PER_SEC)

enum {
    LINK_OUT_MAX = 15 * 1024, /* it must fit into a request line again (H1_MAX_START_LINE) */
    CHECKS_MAX =
        32, /* of one worker at a time: opens with ever new credentials must not flood upstream */
};

struct ingest_service {
    struct http_service service;
    const struct http_service *fallback;
    struct shard *sh;
};

static const char *const call_names[] = {
    [TARGET_OTHER] = "other",   [TARGET_OPEN] = "open", [TARGET_LINES] = "lines",
    [TARGET_CLOSE] = "close",   [TARGET_BLOB] = "blob", [TARGET_LINK] = "link",
    [TARGET_TICKET] = "ticket",
};

/* What each answer of the log path says: that bodies may come compressed (RFC 9110 §12.5.3), and
 * who we are. */
static const struct h1_field say_coding = {VIEW_LIT("Accept-Encoding"), VIEW_LIT("zstd, gzip")};
static const struct h1_field say_name = {VIEW_LIT("Tailrace"), VIEW_LIT(PACKAGE_VERSION)};
static const struct h1_field say_json = {VIEW_LIT("Content-Type"), VIEW_LIT("application/json")};
static const struct h1_field say_fresh = {VIEW_LIT("Cache-Control"), VIEW_LIT("no-cache")};

/* --- answers ------------------------------------------------------------------------------ */

static void count(struct ingest *in, int status)
{
    struct logs_metrics *m = &in->sh->logs->metrics;
    int64_t took = clock_mono_ns() - in->end_ns;

    metric_code(m->requests, call_names[in->kind], status);
    if (status < 300)
        metric_seconds(m->ack, call_names[in->kind], took);
}

void ingest_reply_json(struct ingest *in, int status, struct view body)
{
    const struct h1_field fields[] = {say_coding, say_name, say_json, say_fresh};

    if (!in->ex)
        return;
    count(in, status);
    http_reply(in->ex, status, fields, body.n ? ARRAY_LEN(fields) : 2, body);
}

void ingest_reply(struct ingest *in, int status, const char *text)
{
    struct str body = STR_INIT;

    if (text) {
        str_adds(&body, "{\n  \"error_msg\": \"");
        str_add_json(&body, view_str(text));
        str_adds(&body, "\"\n}\n");
        in->failed = true;
    }
    ingest_reply_json(in, status, str_view(&body));
    str_fini(&body);
}

/* --- life-cycle --------------------------------------------------------------------------- */

static void check_over(struct ingest *in)
{
    in->sh->checks -= in->checking;
    in->checking = false;
}

void ingest_cancel(struct ingest *in)
{
    if (in->direct)
        direct_cancel(in);
    if (in->fetch)
        fetch_cancel(&in->fetch);
    ingest_slow_cancel(in);
    check_over(in);
}

void ingest_release(struct ingest *in)
{
    if (in->ex || in->sub || in->job || in->fetch || in->slow)
        return;
    ingest_blob_free(in);
    intake_fini(in);
    zdecoder_free(&in->decoder);
    target_fini(&in->target);
    str_fini(&in->body);
    str_fini(&in->sealed);
    str_fini(&in->url);
    if (in->field.p)
        explicit_bzero(in->field.p, in->field.n);
    str_fini(&in->field);
    in->sh->ingests--;
    xfree(in);
}

static void plain_gone(void *ctx, bool complete)
{
    struct ingest *in = ctx;

    (void)complete;
    in->ex = NULL;
    ingest_cancel(in);
    ingest_release(in);
}

/* Calls without a body of interest: what comes is dropped. */
static void plain_body(void *ctx, struct view piece)
{
    struct ingest *in = ctx;

    http_consumed(in->ex, piece.n);
}

static const struct http_handler plain_handler = {.on_body = plain_body, .on_gone = plain_gone};

static void recall_credential(struct ingest *in)
{
    uint32_t id =
        cred_intern(in->sh->logs->creds, str_view(&in->target.account), in->target.cred_kind,
                    str_view(&in->target.secret), ev_now_ns(in->sh->loop), &in->cred_fresh);

    if (id)
        in->cred = id;
}

bool ingest_unproven_room(const struct ingest *in, bool unproven)
{
    struct spool_stats st;

    if (!unproven)
        return true;
    spool_stats(in->sh->logs->spool, &st);
    return atomic_load(&in->sh->logs->unproven_used) < st.limit_bytes / 4;
}

void ingest_fetch(struct ingest *in, struct fetch_opts *o, const char *path, struct view query)
{
    const struct logs_settings *settings = in->sh->settings;
    const char *fields[2] = {NULL, NULL};
    struct str param = STR_INIT;

    str_clear(&in->url);
    str_clear(&in->field);
    str_adds(&in->url, settings->base);
    str_addv(&in->url, in->prefix);
    str_adds(&in->url, path);
    str_addv(&in->url, query);
    cred_apply(in->sh->logs->creds, in->cred, &in->field, &param);
    str_addv(&in->url, str_view(&param));
    str_fini(&param);
    if (in->field.n)
        fields[0] = str_c(&in->field);
    o->url = str_c(&in->url);
    o->fields = fields;
    o->peer = &settings->harness;
    o->timeout_ms = TR_MAX(o->timeout_ms, (unsigned)INGEST_UPSTREAM_MS);
    o->ctx = in;
    in->fetch = fetch_start(in->sh->pool, o);
}

struct submission *ingest_submission(struct ingest *in, enum call_kind kind)
{
    struct submission *sub = submission_new(in->sh, kind);

    if (ev_now_ns(in->sh->loop) - in->start_ns > CRED_RECALL_NS)
        recall_credential(in);
    str_addv(&sub->account, str_view(&in->target.account));
    str_addv(&sub->key, str_view(&in->target.key));
    str_addv(&sub->query, str_view(&in->target.query));
    str_addv(&sub->prefix, in->prefix);
    sub->call.cred = in->cred;
    sub->call.start_ns = in->start_ns;
    sub->cred_fresh = in->cred_fresh;
    return sub;
}

void ingest_cannot(struct ingest *in, uint64_t lines, const char *text)
{
    metric_add(in->sh->logs->metrics.refused_failing, lines);
    ingest_reply(in, 503, text);
}

void ingest_taken(struct ingest *in)
{
    ingest_reply(in, in->kind == TARGET_TICKET ? 200 : 204, NULL);
}

void ingest_overload(const struct ingest *in, enum overload_reason why)
{
    char text[NET_ADDR_TEXT] = "";

    if (in->ex)
        net_addr_ip(http_request_of(in->ex)->peer, text);
    overload_refused(why, text, str_view(&in->target.account));
}

static void refuse_overload(struct ingest *in)
{
    ingest_overload(in, in->sub->why);
    ingest_reply(in, 503, INGEST_BUSY);
}

static void answered(void *ctx, bool ok)
{
    struct ingest *in = ctx;

    if (!ok)
        ingest_blob_lost(in);
    if (ok)
        ingest_taken(in);
    else if (in->sub->refused)
        refuse_overload(in);
    else if (!direct_start(in, in->sub))
        ingest_cannot(in, in->sub->call.lines, INGEST_CANNOT);
    in->sub = NULL;
    ingest_release(in);
}

void ingest_submit(struct ingest *in, struct submission *sub)
{
    in->sub = sub;
    sub->ingest = in;
    sub->answered = answered;
    submission_send(sub);
}

bool ingest_decoding(struct ingest *in, const struct http_request *req, uint64_t max,
                     uint64_t expanded)
{
    enum zcoding coding;

    if (zcoding_parse(http_field(req->fields, req->n_fields, "content-encoding"), &coding) < 0) {
        ingest_reply(in, 415, "this Content-Encoding is not understood: use zstd, gzip or none");
        return false;
    }
    if (req->content_length > 0 && (uint64_t)req->content_length > max) {
        ingest_reply(in, 413, "the body is larger than this gateway takes");
        return false;
    }
    in->decoder = zdecoder_new(coding, coding == Z_IDENTITY ? max : expanded);
    return true;
}

/* --- open --------------------------------------------------------------------------------- */

static void open_submit(struct ingest *in)
{
    ingest_submit(in, ingest_submission(in, CALL_OPEN));
}

static void refuse_with(struct ingest *in, struct view body)
{
    /* The service's own words go on, so that the client reads what it would have read. */
    ingest_reply_json(in, 400,
                      body.n ? body
                             : VIEW_LIT("{\n  \"error_msg\": \"refused by the log service\"\n}\n"));
    in->failed = true;
}

static void check_answered(void *ctx, const struct fetch_result *r)
{
    struct ingest *in = ctx;
    struct logs *logs = in->sh->logs;
    int64_t now = ev_now_ns(in->sh->loop);

    in->fetch = NULL;
    check_over(in);
    metric_code(logs->metrics.upstream, "check", r->outcome == FETCH_ANSWERED ? r->status : 0);
    if (r->outcome == FETCH_ANSWERED && r->status == 200) {
        logs_learn_hub(in->sh->logs, r->gateway.n > 0);
        shard_cred_proven(in->sh, in->cred);
    }
    if (r->outcome == FETCH_ANSWERED && r->status == 400 &&
        memmem(r->body.p ? r->body.p : "", r->body.n, "error_msg", 9)) {
        cred_refused(logs->creds, in->cred, now);
        refuse_with(in, r->body);
        return;
    }
    open_submit(in);
}

/* Ask the log service whether it takes the credential, by a call that changes nothing (HP §7a). */
static void check_credential(struct ingest *in)
{
    struct fetch_opts o = {.method = "GET", .done = check_answered};

    ingest_fetch(in, &o, "/blob/exists?", str_view(&in->target.query));
    in->checking = true;
    in->sh->checks++;
}

static void begin_open(struct ingest *in)
{
    http_bind(in->ex, &plain_handler, in);
    if (cred_is_proven(in->sh->logs->creds, in->cred, in->start_ns) ||
        in->sh->checks >= CHECKS_MAX ||
        limiter_state(&in->sh->harness, in->start_ns) == LIMITER_DOWN)
        open_submit(in);
    else
        check_credential(in);
}

/* --- close, link -------------------------------------------------------------------------- */

static void begin_close(struct ingest *in)
{
    struct submission *sub = ingest_submission(in, CALL_CLOSE);
    struct record *r = record_new(RECORD_CLOSE);

    str_addv(&r->query, str_view(&in->target.close_query));
    r->snapshot = in->target.snapshot;
    r->covers = in->target.covers;
    r->row.at_ns = clock_wall_ns();
    list_append(&sub->call.records, &r->link);
    http_bind(in->ex, &plain_handler, in);
    ingest_submit(in, sub);
}

/* A ticket instead of a signed link: no upstream call, on the host and scheme that the client used.
 */
static void begin_link(struct ingest *in, const struct http_request *req)
{
    const struct logs_settings *settings = in->sh->settings;
    const struct ticket t = {
        .account = str_view(&in->target.account),
        .key = str_view(&in->target.key),
        .prefix = in->prefix,
        .query = str_view(&in->target.query),
        .kind = in->target.cred_kind,
        .secret = str_view(&in->target.secret),
    };
    struct str link = STR_INIT, body = STR_INIT;

    /* Whose TLS is ended in place of the host's own knows that host only. */
    if (settings->public_url && !req->tag) {
        str_adds(&link, settings->public_url);
    } else {
        str_adds(&link, req->tls ? "https://" : "http://");
        str_addv(&link, req->authority);
    }
    str_addv(&link, in->prefix);
    str_adds(&link, "/tickets/");
    ticket_seal(&in->sh->logs->ticket_key, &t, &link);
    str_adds(&body, "{\n  \"link\": \"");
    str_add_json(&body, str_view(&link));
    str_adds(&body, "\",\n  \"expires\": 3600000000000\n}\n");
    http_bind(in->ex, &plain_handler, in);
    if (link.n > LINK_OUT_MAX)
        ingest_reply(in, 400, "the names are too long for an upload link");
    else
        ingest_reply_json(in, 200, str_view(&body));
    str_fini(&link);
    str_fini(&body);
}

/* --- routing ------------------------------------------------------------------------------ */

static bool known_credential(struct ingest *in)
{
    recall_credential(in);
    if (!in->cred)
        ingest_reply(in, 503, "too many different credentials");
    return in->cred != 0;
}

/*
 * All that the upload needs is taken from what is sealed, also the path's prefix. A ticket that
 * comes under another one is served all the same: something between us and the client may have put
 * its own path in front or taken one away, and a refusal would be taken for success (HP §2.6) and
 * lose the log. Whoever holds the ticket cannot choose where its credential goes.
 */
static void begin_ticket(struct ingest *in, const struct http_request *req, struct view text)
{
    struct str plain = STR_INIT;
    struct ticket t;

    if (ticket_open(&in->sh->logs->ticket_key, text, &plain, &t) < 0) {
        http_bind(in->ex, &plain_handler, in);
        ingest_reply(in, 403, "this upload link was not made by this gateway");
    } else {
        str_addv(&in->target.account, t.account);
        str_addv(&in->target.key, t.key);
        str_addv(&in->target.query, t.query);
        str_addv(&in->target.secret, t.secret);
        in->target.cred_kind = t.kind;
        str_addv(&in->sealed, t.prefix);
        in->prefix = str_view(&in->sealed);
        if (known_credential(in))
            ingest_blob_begin(in, req, true);
        else
            http_bind(in->ex, &plain_handler, in);
    }
    if (plain.p)
        explicit_bzero(plain.p, plain.n);
    str_fini(&plain);
}

static void begin_lines(struct ingest *in, const struct http_request *req)
{
    const struct logs_settings *settings = in->sh->settings;

    if (ingest_decoding(in, req, settings->body_max, settings->expand_max))
        http_bind(in->ex, &ingest_lines_handler, in);
    else
        http_bind(in->ex, &plain_handler, in);
}

static void begin(struct ingest *in, const struct http_request *req, struct view ticket)
{
    struct err e;

    if (in->kind == TARGET_TICKET) {
        begin_ticket(in, req, ticket);
        return;
    }
    if (target_parse(req, &in->target, &e) < 0) {
        http_bind(in->ex, &plain_handler, in);
        ingest_reply(in, 400, e.text);
        return;
    }
    if (in->kind == TARGET_LINK) { /* the ticket holds the credential: it need not be known */
        begin_link(in, req);
        return;
    }
    if (!known_credential(in)) {
        http_bind(in->ex, &plain_handler, in);
        return;
    }
    switch (in->kind) {
    case TARGET_OPEN:
        begin_open(in);
        break;
    case TARGET_LINES:
        begin_lines(in, req);
        break;
    case TARGET_CLOSE:
        begin_close(in);
        break;
    default:
        ingest_blob_begin(in, req, false);
        break;
    }
}

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct ingest_service *s = ctx;
    struct view prefix = VIEW_NONE, ticket = VIEW_NONE;
    enum target_kind kind;
    struct ingest *in;

    /* Views into the exchange's own copy of the head: it lives as long as the exchange. */
    req = http_request_of(ex);
    kind = target_kind(req->method, req->target, &prefix, &ticket);
    if (kind == TARGET_OTHER) {
        s->fallback->take(s->fallback->ctx, ex, req);
        return;
    }
    /* The spool is being handed over or closed. Connections are held meanwhile, but one of HTTP/2
     * whose client takes nothing has not been told so yet. */
    if (s->sh->stopping) {
        http_reset(ex, H2_REFUSED_STREAM);
        return;
    }
    in = XNEW(struct ingest);
    in->sh = s->sh;
    in->ex = ex;
    in->kind = kind;
    in->prefix = prefix;
    in->start_ns = req->start_ns;
    in->end_ns = ev_now_ns(s->sh->loop);
    intake_init(in, in->kind == TARGET_LINES ? ingest_lines_late : NULL);
    s->sh->ingests++;
    begin(in, req, ticket);
}

struct ingest_service *ingest_service_new(struct shard *sh, const struct http_service *fallback)
{
    struct ingest_service *s = XNEW(struct ingest_service);

    s->service = (struct http_service){take, s};
    s->fallback = fallback;
    s->sh = sh;
    return s;
}

const struct http_service *ingest_http(struct ingest_service *s)
{
    return &s->service;
}

void ingest_service_free(struct ingest_service **s)
{
    XFREE(*s);
}
