#include "doctor/steps.h"

#include <openssl/sha.h>
#include <poll.h>
#include <stdlib.h>
#include "codec/url.h"
#include "crypto/digest.h"
#include "doctor/chain.h"
#include "rt/clock.h"
#include "rt/rng.h"

/* Links and tokens stand less than that; some more is the network's. */
enum { SKEW_BAD_S = 300, SKEW_ODD_S = 30 };

bool step_connect(struct route *r, bool https, struct view alpn)
{
    const struct chain_opts o = {.host = r->host, .port = r->port, .step = "tls", .alpn = alpn};

    if (!route_dial(r))
        return false;
    r->alpn[0] = '\0';
    return !https || chain_secure(r, &o);
}

bool step_ask(struct route *r, const char *step, const struct str *request, struct talk_answer *a)
{
    struct err e = {0};

    line_allow(&r->line, r->way->timeout_ms);
    if (talk(&r->line, request, a, &e) == 0) {
        r->answered = true;
        return true;
    }
    if (chain_blames_us(r, &e))
        return false;
    route_bad(r, CAUSE_HTTP_FAILS, step, "%s:%u: %s", r->host, r->port, e.text);
    findings_do(r->findings, "look at the service at %s:%u, and at what stands between", r->host,
                r->port);
    return false;
}

static void begin(struct str *out, const struct service *s, const char *method, const char *path)
{
    struct str target = STR_INIT;

    str_addf(&target, "%s%s", s->base, path);
    talk_begin(out, method, str_view(&target), s->authority);
    str_fini(&target);
}

/* ---- HTTP --------------------------------------------------------------------------------- */

static void tell_clock(struct route *r, const struct talk_answer *a)
{
    int64_t off = clock_wall_ns() / NS_PER_SEC - a->date;
    struct finding f = {.cause = CAUSE_CLOCK_SKEW, .flow = "clock", .step = "date"};

    if (a->date < 0 || r->quiet)
        return;
    if (llabs(off) < SKEW_ODD_S) {
        findings_ok(r->findings, "clock", "date", "this host's clock agrees with %s", r->host);
        return;
    }
    f.verdict = llabs(off) < SKEW_BAD_S ? VERDICT_WARN : VERDICT_FAIL;
    findings_add(r->findings, &f, "this host's clock is %lld s %s that of %s",
                 (long long)llabs(off), off > 0 ? "ahead of" : "behind", r->host);
    findings_do(r->findings, "set this host's clock (NTP: chronyc tracking, timedatectl)");
}

static bool is_block_page(const struct talk_answer *a)
{
    return a->status == 511 || a->status == 451 || (a->status / 100 == 3 && a->location) ||
           (a->status == 403 && a->html);
}

/* 400: also what some answer who shows no client certificate (nginx). */
static void tell_status(struct route *r, const struct talk_answer *a, const char *path)
{
    const char *by = a->server[0] ? a->server : "a server that does not name itself";

    if (a->status == 400 && r->asked && !(r->harness && r->way->certificate)) {
        route_bad(r, CAUSE_CLIENT_CERTIFICATE_MISSING, "http",
                  "%s:%u asks for a certificate, and answers 400 to who has none", r->host,
                  r->port);
        findings_do(r->findings, "set upstream.certificate: FILE and upstream.key: FILE");
    } else if (is_block_page(a)) {
        route_bad(r, CAUSE_HTTP_BLOCKED, "http", "%d for %s from %s", a->status, path, by);
        findings_do(r->findings, "let this host go to %s:%u without a portal or filter", r->host,
                    r->port);
    } else {
        route_bad(r, CAUSE_HTTP_FAILS, "http", "%d for %s from %s", a->status, path, by);
        findings_do(r->findings, "check that %s is the service's address; else its operators",
                    r->setting);
    }
}

/* Something answers that may well know the rest. */
static void tell_unknown_path(struct route *r, const struct service *s, const char *path)
{
    const struct finding f = {VERDICT_WARN, CAUSE_HTTP_FAILS, r->flow, "http"};

    findings_add(r->findings, &f, "404 for %s%s", s->base, path);
    findings_do(r->findings, "check that %s is the service's address, with the path in front of it",
                r->setting);
}

bool step_http(struct route *r, const struct service *s, const char *path)
{
    struct str request = STR_INIT;
    int64_t began = clock_mono_ns();
    struct talk_answer a;
    bool ok = false;

    begin(&request, s, "GET", path);
    talk_end(&request, VIEW_NONE, false);
    if (step_ask(r, "http", &request, &a)) {
        tell_clock(r, &a);
        ok = a.status / 100 == 2 || a.status == 404;
        if (a.status == 404)
            tell_unknown_path(r, s, path);
        else if (ok)
            route_ok(r, "http", "%d for %s%s in %lld ms", a.status, s->base, path,
                     (long long)((clock_mono_ns() - began) / NS_PER_MS));
        else
            tell_status(r, &a, path);
    }
    talk_answer_fini(&a);
    str_fini(&request);
    return ok;
}

bool step_any_http(struct route *r, const struct service *s)
{
    struct str request = STR_INIT;
    struct talk_answer a;
    bool ok = false;

    begin(&request, s, "GET", "/");
    talk_end(&request, VIEW_NONE, false);
    if (step_ask(r, "http", &request, &a)) {
        ok = a.status < 500 && !is_block_page(&a);
        if (ok)
            route_ok(r, "http", "%d for / from %s", a.status, a.server[0] ? a.server : r->host);
        else
            tell_status(r, &a, "/");
    }
    talk_answer_fini(&a);
    str_fini(&request);
    return ok;
}

/* ---- HTTP/2 ------------------------------------------------------------------------------- */

/* The preface of a client, with empty SETTINGS (RFC 9113 §3.4), and whether the answer begins with
 * SETTINGS. */
static bool speaks_h2(struct route *r, struct err *e)
{
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    struct line *l = &r->line;
    ssize_t got;

    line_allow(l, r->way->timeout_ms);
    if (line_write(l, hello, sizeof(hello) - 1, e) < 0)
        return false;
    while (l->in.n < 9) {
        got = line_read(l, e);
        if (got == 0)
            err_set(e, ERR_CLOSED, "the connection was closed");
        if (got <= 0)
            return false;
    }
    if (l->in.p[3] == 4)
        return true;
    err_set(e, ERR_INVALID, "what came is no HTTP/2");
    return false;
}

bool step_h2(struct route *r, const struct service *s)
{
    struct err e = {0};

    if (!step_connect(r, s->https, CHAIN_ALPN_2))
        return false;
    if (s->https && r->harness && strcmp(r->alpn, "h2") != 0) {
        findings_ok(r->findings, r->flow, "alpn", "HTTP/1.1 only");
        return true;
    }
    if ((!s->https || strcmp(r->alpn, "h2") == 0) && speaks_h2(r, &e)) {
        findings_ok(r->findings, r->flow, "alpn", "HTTP/2 is agreed on and spoken");
        return true;
    }
    if (chain_blames_us(r, &e))
        return false;
    if (s->https && strcmp(r->alpn, "h2") != 0)
        err_set(&e, ERR_INVALID, "TLS agrees on %s", r->alpn[0] ? r->alpn : "nothing");
    route_bad(r, CAUSE_ALPN_H2_BROKEN, "alpn", "%s:%u is to speak HTTP/2: %s", r->host, r->port,
              e.text);
    if (r->harness)
        findings_do(r->findings, "exempt %s:%u from TLS inspection, or set upstream.http: \"1.1\"",
                    r->host, r->port);
    else
        findings_do(r->findings, "correct %s, or have its server speak HTTP/2", r->setting);
    return false;
}

/* ---- WebSocket ---------------------------------------------------------------------------- */

/* RFC 6455 §4.2.2. */
static void accept_of(const char *key, struct str *out)
{
    struct str text = STR_INIT;
    unsigned char md[SHA_DIGEST_LENGTH];

    str_addf(&text, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    SHA1((const unsigned char *)str_c(&text), text.n, md);
    base64_encode(md, sizeof(md), out);
    str_fini(&text);
}

static void add_path(struct str *out, const struct service *s)
{
    str_adds(out, "/stream/delegate/");
    url_encode(view_str(s->account ? s->account : "doctor"), out);
}

/* What the same path answers to who does not ask for an upgrade; 0: nothing. */
static int status_without(struct route *r, const struct service *s)
{
    struct str request = STR_INIT, path = STR_INIT;
    struct talk_answer a = {.body = STR_INIT};
    struct err e;
    int status = 0;

    add_path(&path, s);
    begin(&request, s, "GET", str_c(&path));
    talk_end(&request, VIEW_NONE, false);
    if (step_connect(r, s->https, CHAIN_ALPN_1)) {
        line_allow(&r->line, r->way->timeout_ms);
        if (talk(&r->line, &request, &a, &e) == 0)
            status = a.status;
    }
    talk_answer_fini(&a);
    str_fini(&request);
    str_fini(&path);
    return status;
}

/* Did the service see an upgrade? Some refuse one that has no delegate's token with the status that
 * others have for requests that are none; so it is asked without one for comparison. */
static bool was_seen(struct route *r, const struct service *s, int status)
{
    if (status == 400 || status == 426)
        return status_without(r, s) != status;
    return status > 400 && status < 500;
}

static bool judge_upgrade(struct route *r, const struct service *s, const struct talk_answer *a,
                          const char *want)
{
    if (a->status == 101 && strcmp(a->accept, want) == 0) {
        findings_ok(r->findings, r->flow, "websocket", "101, the upgrade passes");
        return true;
    }
    if (a->status != 101 && was_seen(r, s, a->status)) {
        findings_ok(
            r->findings, r->flow, "websocket",
            "%d: the delegate service answers, and wants a delegate's token before it tells "
            "whether upgrades pass",
            a->status);
        return true;
    }
    if (a->status == 101)
        route_bad(r, CAUSE_WEBSOCKET_STRIPPED, "websocket", "101 with another's answer to the key");
    else
        route_bad(r, CAUSE_WEBSOCKET_STRIPPED, "websocket", "%d in place of 101 for an upgrade%s%s",
                  a->status, a->server[0] ? ", from " : "", a->server);
    findings_do(r->findings,
                "let `Upgrade: websocket` through to %s:%u (path /stream/delegate/), or exempt it "
                "from inspection",
                r->host, r->port);
    return false;
}

bool step_websocket(struct route *r, const struct service *s)
{
    struct str request = STR_INIT, key = STR_INIT, want = STR_INIT, path = STR_INIT;
    unsigned char nonce[16];
    struct talk_answer a;
    bool ok = false;

    if (!step_connect(r, s->https, CHAIN_ALPN_1))
        return false;
    rng_bytes(nonce, sizeof(nonce));
    base64_encode(nonce, sizeof(nonce), &key);
    accept_of(str_c(&key), &want);
    add_path(&path, s);
    begin(&request, s, "GET", str_c(&path));
    talk_field(&request, "Connection", "Upgrade");
    talk_field(&request, "Upgrade", "websocket");
    talk_field(&request, "Sec-WebSocket-Version", "13");
    talk_field(&request, "Sec-WebSocket-Key", str_c(&key));
    talk_end(&request, VIEW_NONE, false);
    if (step_ask(r, "websocket", &request, &a))
        ok = judge_upgrade(r, s, &a, str_c(&want));
    talk_answer_fini(&a);
    str_fini(&request);
    str_fini(&key);
    str_fini(&want);
    str_fini(&path);
    return ok;
}

/* ---- idle connections --------------------------------------------------------------------- */

/* Wait, and see whether it ends before: after how many ms, or -1. */
static int64_t wait_idle(struct route *r, unsigned seconds, struct err *e)
{
    int64_t began = clock_mono_ns();

    e->code = ERR_NONE;
    line_allow(&r->line, seconds * 1000);
    for (;;) {
        ssize_t got = line_read(&r->line, e);

        if (got < 0 && e->code == ERR_TIMEOUT)
            return -1;
        if (got <= 0)
            return (clock_mono_ns() - began) / NS_PER_MS;
        str_clear(&r->line.in);
    }
}

static void tell_cut(struct route *r, const char *what, double seconds)
{
    route_bad(r, CAUSE_IDLE_TUNNEL_CUT, "idle", "%s after %.1f s without traffic", what, seconds);
    findings_do(r->findings,
                "keep idle connections from %s to %s:%u for 300 s at least (%s; at Harness a "
                "heartbeat comes every 60 s)",
                r->from[0] ? r->from : "this host", r->host, r->port,
                route_by_parent(r) ? "at the parent proxy and at firewalls"
                                   : "at firewalls and NAT");
    if (route_by_parent(r))
        findings_who(r->findings, "proxy team");
}

bool step_idle(struct route *r, const struct service *s, unsigned seconds)
{
    struct str request = STR_INIT;
    struct talk_answer a;
    struct err e = {0};
    int64_t cut;
    bool ok = false;

    if (!step_connect(r, s->https, CHAIN_ALPN_1))
        return false;
    cut = wait_idle(r, seconds, &e);
    if (cut >= 0 && r->line.said_goodbye) {
        findings_ok(r->findings, r->flow, "idle",
                    "%s itself ended the connection after %.1f s; until then nothing else did",
                    r->host, (double)cut / 1000);
        return true;
    }
    if (cut >= 0) {
        tell_cut(r, "the connection was cut", (double)cut / 1000);
        return false;
    }
    begin(&request, s, "GET", "/log-service/healthz");
    talk_end(&request, VIEW_NONE, false);
    line_allow(&r->line, r->way->timeout_ms);
    ok = talk(&r->line, &request, &a, &e) == 0;
    if (ok)
        findings_ok(r->findings, r->flow, "idle",
                    "a connection without traffic still works after %u s", seconds);
    else
        tell_cut(r, "the connection stands but nothing passes", seconds);
    talk_answer_fini(&a);
    str_fini(&request);
    return ok;
}
