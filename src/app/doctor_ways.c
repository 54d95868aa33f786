#include <ifaddrs.h>
#include <stdlib.h>
#include "app/doctor_priv.h"
#include "app/egress.h"
#include "app/parent.h"
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "policy/flows.h"

/* All that the probes point into. */
struct ways {
    const struct doctor *d;
    const struct config *c;
    const struct policy *policy;
    struct parent *parent;
    struct str resolvers;
    struct way way;
    struct probe *probes;
    size_t n;
    char **texts; /* what the probes' texts are */
    size_t n_texts;
};

/* More than this are not looked at: a policy may name thousands, and each is a thread. */
enum { PROBES_MAX = 64 };

static char *keep(struct ways *w, char *text)
{
    w->texts = xrealloc(w->texts, (w->n_texts + 1) * sizeof(char *));
    w->texts[w->n_texts++] = text;
    return text;
}

/* ---- our own listeners -------------------------------------------------------------------- */

static bool same_ip(const struct net_addr *a, const struct sockaddr *b)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)b;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)b;

    if (a->ss.ss_family != b->sa_family)
        return false;
    return b->sa_family == AF_INET ? a->ss.in.sin_addr.s_addr == in->sin_addr.s_addr
                                   : memcmp(&a->ss.in6.sin6_addr, &in6->sin6_addr, 16) == 0;
}

static bool is_any(const struct net_addr *a)
{
    return a->ss.ss_family == AF_INET ? a->ss.in.sin_addr.s_addr == htonl(INADDR_ANY)
                                      : IN6_IS_ADDR_UNSPECIFIED(&a->ss.in6.sin6_addr);
}

static bool is_this_host(const struct net_addr *a)
{
    struct ifaddrs *all, *at;
    bool found = false;

    if (getifaddrs(&all) < 0)
        return false;
    for (at = all; at && !found; at = at->ifa_next)
        found = at->ifa_addr &&
                (at->ifa_addr->sa_family == AF_INET || at->ifa_addr->sa_family == AF_INET6) &&
                same_ip(a, at->ifa_addr);
    freeifaddrs(all);
    return found;
}

/* Where clients' connections to `a` come in, here. */
static bool is_ours(void *ctx, const struct net_addr *a)
{
    const struct config *c = ctx;
    const uint16_t port = net_addr_port(a);
    struct net_addr at;

    for (size_t i = 0; i < c->n_listen; i++) {
        const struct config_listen *l = &c->listen[i];
        bool meant = l->port && strtoul(l->port, NULL, 10) == port;

        if (net_addr_parse(view_str(l->address), &at, NULL) < 0 ||
            (net_addr_port(&at) != port && !meant))
            continue;
        if (is_any(&at) ? is_this_host(a) : same_ip(a, &at.ss.sa))
            return true;
    }
    return false;
}

/* ---- the policy --------------------------------------------------------------------------- */

struct allowing {
    const struct policy *policy;
    struct dest dest;
};

/* As the gate would judge the address of a client's destination. */
static bool may_dial(void *ctx, const struct net_addr *a, struct str *why)
{
    const struct allowing *x = ctx;
    const struct policy_query q = {.dest = &x->dest, .anyone = true};
    struct policy_verdict first = policy_decide(x->policy, &q);
    struct policy_verdict v = policy_check_address(x->policy, &q, &first, &a->ss.sa);
    char text[NET_ADDR_TEXT];

    if (!v.allow)
        str_addf(why, "%s%s is denied by rule %s (%s)", why->n ? "; " : "", net_addr_ip(a, text),
                 v.rule, v.reason);
    return v.allow;
}

/* ---- probes ------------------------------------------------------------------------------- */

/* NULL: there are enough, or one of that host and port is there already. */
static struct probe *add(struct ways *w, const char *flow, char *host, uint16_t port)
{
    struct probe *p = &w->probes[w->n];
    struct str authority = STR_INIT;
    size_t i;

    keep(w, host);
    for (i = 0; i < w->n; i++) {
        const struct probe *other = &w->probes[i];

        if (other->what != PROBE_IDLE && other->route.port == port &&
            strcmp(other->route.host, host) == 0)
            return NULL;
    }
    if (w->n == PROBES_MAX)
        return NULL;
    w->n++;
    str_addf(&authority, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
    *p = (struct probe){
        .route = {.way = &w->way,
                  .flow = flow,
                  .host = host,
                  .port = port,
                  .bad = VERDICT_FAIL,
                  .line = LINE_INIT},
        .service = {.authority = keep(w, str_take(&authority)),
                    .base = "",
                    .account = w->d->account,
                    .https = true},
    };
    return p;
}

static bool is_harness_flow(const struct doctor *d)
{
    return !d->flow || strcmp(d->flow, "harness") == 0 || strcmp(d->flow, "log-service") == 0 ||
           strcmp(d->flow, "delegate-wss") == 0 || strcmp(d->flow, "log-stream") == 0 ||
           (strcmp(d->flow, "log-upload") == 0 && d->token.n);
}

static unsigned harness_steps(const struct doctor *d)
{
    unsigned what = PROBE_HTTP;

    if ((!d->flow || !strcmp(d->flow, "harness")) && d->config->upstream_http != FETCH_HTTP_1_1)
        what |= PROBE_H2;
    if (!d->flow || !strcmp(d->flow, "harness") || !strcmp(d->flow, "delegate-wss"))
        what |= PROBE_WEBSOCKET;
    if (d->token.n && (!d->flow || !strcmp(d->flow, "harness") || !strncmp(d->flow, "log-", 4)))
        what |= PROBE_LOGS;
    return what;
}

/* harness.url once more, as what its steps and texts need. */
static struct probe *add_harness_probe(struct ways *w, const struct url *url, const char *flow)
{
    size_t path = url->path.n;
    struct probe *p = add(w, flow, xmemdup0(url->host.p, url->host.n), url->port);

    if (!p)
        return NULL;
    while (path && url->path.p[path - 1] == '/')
        path--;
    p->route.setting = "harness.url";
    p->route.harness = true;
    p->service.https = url->https;
    p->service.authority = keep(w, xmemdup0(url->authority.p, url->authority.n));
    p->service.base = keep(w, xmemdup0(url->path.p, path));
    p->logs = (struct logs_probe){.token = str_c(&w->d->token),
                                  .by_link = w->c->upload_logs != CONFIG_UPLOADS_HARNESS};
    return p;
}

static int add_harness(struct ways *w, struct err *e)
{
    struct probe *p;
    struct url url;

    if (url_parse(view_str(w->c->harness_url), &url, e) < 0)
        return err_prefix(e, "harness.url");
    if (w->d->idle_s && doctor_wants(w->d, "idle")) {
        p = add_harness_probe(w, &url, "idle");
        p->what = PROBE_IDLE;
        p->idle_s = w->d->idle_s;
        p->route.quiet = !w->d->flow;
    }
    if (is_harness_flow(w->d) && (p = add_harness_probe(w, &url, "harness")))
        p->what = harness_steps(w->d);
    return 0;
}

/* Hosts that a deployment with Harness needs besides, for its logs first of all. Where a hub or a
 * Harness of one's own is upstream, links lead there. */
static void add_bucket(struct ways *w)
{
    struct probe *p;

    if (w->c->upload_logs == CONFIG_UPLOADS_HARNESS || !doctor_wants(w->d, "log-upload") ||
        !strstr(w->c->harness_url, ".harness.io"))
        return;
    p = add(w, "log-upload", xstrdup("storage.googleapis.com"), 443);
    if (p) {
        p->route.setting = "the bucket's name";
        p->what = PROBE_ANY_HTTP;
    }
}

/* A host that clients are let through to: they check its certificate themselves. */
static void add_allowed(struct ways *w, const char *text, uint16_t port, const char *setting)
{
    struct allowing *x;
    struct dest d;
    struct probe *p;

    if (strpbrk(text, "*/") || dest_parse(view_str(text), port, &d, NULL) < 0)
        return;
    p = add(w, "egress", xstrdup(d.host), d.port);
    if (!p)
        return;
    x = XNEW(struct allowing);
    x->policy = w->policy;
    x->dest = d;
    keep(w, (char *)x);
    p->route.setting = setting;
    p->route.others = true;
    p->route.allow = may_dial;
    p->route.allow_ctx = x;
    p->what = d.port == 443 ? 0 : PROBE_DIAL;
}

/* The port to try of those that a rule allows: the first that is named, or 443 if it is in a range.
 * 0: none; a range names no port that is listened on. */
static uint16_t port_to_try(const struct conf_list *ports)
{
    bool https = ports->n == 0;

    for (size_t i = 0; i < ports->n; i++) {
        char *end;
        unsigned long low = strtoul(ports->items[i], &end, 10), high;

        if (*end != '-')
            return (uint16_t)low;
        high = strtoul(end + 1, NULL, 10);
        https = https || (low <= 443 && 443 <= high);
    }
    return https ? 443 : 0;
}

static void add_egress(struct ways *w)
{
    const struct config *c = w->c;

    if (!egress_is_used(c) || !doctor_wants(w->d, "egress"))
        return;
    for (size_t i = 0; i < c->n_rules; i++) {
        const struct config_rule *rule = &c->rules[i];
        uint16_t port = port_to_try(&rule->ports);

        if (rule->action != 0)
            continue;
        for (size_t k = 0; port && k < rule->hosts.n; k++)
            add_allowed(w, rule->hosts.items[k], port, "the rule");
    }
    for (size_t k = 0; k < c->egress_allow.n; k++)
        add_allowed(w, c->egress_allow.items[k], 443, "egress.allow");
}

/* Where listeners lead whose destination is fixed. */
static void add_fixed(struct ways *w)
{
    for (size_t i = 0; i < w->c->n_listen; i++) {
        const struct config_listen *l = &w->c->listen[i];
        struct probe *p = NULL;
        struct url url;
        struct dest d;

        if (!l->to || !doctor_wants(w->d, "listen"))
            continue;
        if (l->mode == CONFIG_MODE_FORWARD && dest_parse(view_str(l->to), 0, &d, NULL) == 0) {
            p = add(w, "listen", xstrdup(d.host), d.port);
        } else if (l->mode == CONFIG_MODE_GRPC && url_parse(view_str(l->to), &url, NULL) == 0) {
            p = add(w, "listen", xmemdup0(url.host.p, url.host.n), url.port);
        }
        if (!p)
            continue;
        p->route.setting = "listen.NAME.to";
        p->what = l->mode == CONFIG_MODE_GRPC ? PROBE_RPC : PROBE_DIAL;
        p->service.https = l->mode == CONFIG_MODE_GRPC && url.https;
    }
}

/* What else of Harness clients go to by the profile; which of it a deployment uses is not known. */
static void add_profile(struct ways *w)
{
    struct dest d;
    struct probe *p;

    if (!egress_is_used(w->c) || w->c->egress_profile != CONFIG_PROFILE_HARNESS ||
        !doctor_wants(w->d, "egress"))
        return;
    for (size_t i = 0; i < n_flows; i++) {
        const struct flow *f = &flows[i];
        const struct policy_query q = {.dest = &d, .anyone = true};

        if (!f->destination || f->example || strcmp(f->destination, "%h") == 0 ||
            (f->googleapis && w->c->upload_logs == CONFIG_UPLOADS_HARNESS) ||
            dest_parse(view_str(f->destination), 443, &d, NULL) < 0 ||
            !policy_decide(w->policy, &q).allow)
            continue;
        p = add(w, f->name, xstrdup(d.host), d.port);
        if (!p)
            continue;
        p->route.setting = "the policy";
        p->route.others = true;
        p->route.bad = VERDICT_WARN;
    }
}

/* ---- all of it ---------------------------------------------------------------------------- */

/* What the environment says, without who may. */
static const char *environment_proxy(struct ways *w)
{
    static const char *const names[] = {"https_proxy", "HTTPS_PROXY"};
    const char *text = NULL, *at;

    for (size_t i = 0; i < ARRAY_LEN(names) && !text; i++)
        text = getenv(names[i]);
    if (!text || !*text || w->c->upstream_parent)
        return NULL;
    at = strstr(text, "://");
    text = at ? at + 3 : text;
    at = strrchr(text, '@');
    text = at ? at + 1 : text;
    return keep(w, xmemdup0(text, strcspn(text, "/")));
}

static int prepare(struct ways *w, struct err *e)
{
    const struct config *c = w->c;

    if (parent_new(c, &w->parent, e) < 0)
        return -1;
    config_resolvers(c, &w->resolvers);
    w->way = (struct way){
        .resolvers = w->resolvers.n ? str_c(&w->resolvers) : NULL,
        .parent = parent_net(w->parent),
        .ca = c->upstream_ca,
        .certificate = c->upstream_certificate,
        .key = c->upstream_key,
        .tls_1_3 = c->upstream_tls_min == CONFIG_TLS_1_3,
        .http2 = c->upstream_http != FETCH_HTTP_1_1,
        .timeout_ms = w->d->timeout_ms,
        .ours = is_ours,
        .ours_ctx = (void *)(uintptr_t)c,
        .elsewhere = environment_proxy(w),
    };
    w->probes = xcalloc(PROBES_MAX + 1, sizeof(*w->probes));
    if (add_harness(w, e) < 0)
        return -1;
    add_bucket(w);
    add_fixed(w);
    add_profile(w);
    add_egress(w);
    return 0;
}

int doctor_probe(const struct doctor *d, const struct policy *p, struct doctor_reports *out,
                 struct err *e)
{
    struct ways w = {.d = d, .c = d->config, .policy = p, .resolvers = STR_INIT};
    int rc = prepare(&w, e);

    if (rc == 0) {
        probes_run(w.probes, w.n);
        out->items = xrealloc(out->items, (out->n + w.n) * sizeof(struct findings *));
        for (size_t i = 0; i < w.n; i++)
            out->items[out->n++] = w.probes[i].findings;
    }
    for (size_t i = 0; i < w.n_texts; i++)
        xfree(w.texts[i]);
    xfree(w.texts);
    xfree(w.probes);
    str_fini(&w.resolvers);
    parent_free(&w.parent);
    return rc;
}
