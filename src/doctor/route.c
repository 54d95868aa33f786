#include "doctor/route.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "doctor/chain.h"
#include "doctor/talk.h"
#include "rt/clock.h"
#include "rt/fdx.h"

/* How long the slower addresses of a name are waited for once one has answered. */
enum { SLOWER_MS = 300 };

bool route_by_parent(const struct route *r)
{
    return net_parent_for(r->way->parent, r->host, r->port) != NULL;
}

void route_bad(struct route *r, enum cause cause, const char *step, const char *seen, ...)
{
    const struct finding f = {.verdict = r->bad, .cause = cause, .flow = r->flow, .step = step};
    struct str text = STR_INIT;
    va_list ap;

    va_start(ap, seen);
    str_vaddf(&text, seen, ap);
    va_end(ap);
    findings_add(r->findings, &f, "%s", str_c(&text));
    str_fini(&text);
}

void route_ok(struct route *r, const char *step, const char *seen, ...)
{
    struct str text = STR_INIT;
    va_list ap;

    if (r->quiet)
        return;
    va_start(ap, seen);
    str_vaddf(&text, seen, ap);
    va_end(ap);
    findings_ok(r->findings, r->flow, step, "%s", str_c(&text));
    str_fini(&text);
}

/* ---- names -------------------------------------------------------------------------------- */

struct asking {
    struct route *r;
    struct ev_loop *loop;
    struct net_lookup *lookup;
    struct err err;
};

static void on_resolved(void *ctx, const struct net_addr *addrs, size_t n, const struct err *e)
{
    struct asking *a = ctx;

    a->lookup = NULL;
    a->r->n_addrs = TR_MIN(n, (size_t)ROUTE_ADDRESSES);
    for (size_t i = 0; i < a->r->n_addrs; i++)
        a->r->addrs[i] = addrs[i];
    if (n == 0)
        a->err = *e;
    ev_loop_stop(a->loop);
}

static void on_late(void *ctx)
{
    struct asking *a = ctx;

    err_set(&a->err, ERR_TIMEOUT, "no answer in time");
    ev_loop_stop(a->loop);
}

static void ask(struct asking *a, const char *host, uint16_t port)
{
    const struct way *way = a->r->way;
    struct net_resolver *resolver;
    struct ev_timer *timer;

    a->loop = ev_loop_new("doctor");
    resolver = net_resolver_new(a->loop, way->resolvers, &a->err);
    if (resolver) {
        timer = ev_timer_new(a->loop, on_late, a);
        ev_timer_arm(timer, way->timeout_ms);
        a->lookup = net_resolve(resolver, host, port, on_resolved, a);
        ev_loop_run(a->loop);
        if (a->lookup)
            net_lookup_cancel(&a->lookup);
        ev_timer_free(&timer);
        net_resolver_free(&resolver);
    }
    ev_loop_free(&a->loop);
}

static void tell_unresolved(struct route *r, const char *host, const struct err *e)
{
    const char *by = r->way->resolvers ? r->way->resolvers : "the system's name servers";

    if (e->code != ERR_NOTFOUND && e->code != ERR_INVALID) {
        route_bad(r, CAUSE_NAME_SERVERS_SILENT, "name", "no answer about %s from %s", host, by);
        findings_do(r->findings,
                    "allow UDP and TCP port 53%s from this host to %s, or name other servers: "
                    "upstream.resolvers: [ADDRESS]",
                    r->way->resolvers ? " (or the port that is named)" : "", by);
    } else {
        route_bad(r, CAUSE_NAME_NOT_RESOLVED, "name", "%s has no address, says %s", host, by);
        findings_do(r->findings,
                    "make %s resolve at %s, or name servers that know it: upstream.resolvers: "
                    "[ADDRESS], or correct %s",
                    host, by, r->setting);
    }
    if (r->way->elsewhere)
        findings_do(r->findings,
                    "; this environment names a proxy, which would resolve it: upstream.parent: "
                    "http://%s",
                    r->way->elsewhere);
}

static bool leads_nowhere(const struct net_addr *a)
{
    if (a->ss.ss_family == AF_INET)
        return a->ss.in.sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&a->ss.in6.sin6_addr);
}

/* Leave out what must not be dialled; true: some are left. */
static bool sift(struct route *r, const char *host)
{
    struct str why = STR_INIT;
    char text[NET_ADDR_TEXT];
    size_t i, n = 0;

    for (i = 0; i < r->n_addrs; i++) {
        if (leads_nowhere(&r->addrs[i])) {
            route_bad(r, CAUSE_NAME_SINKHOLED, "name", "%s is %s", host,
                      net_addr_ip(&r->addrs[i], text));
            findings_do(r->findings, "take %s out of the filter of names", host);
            return false;
        }
        if (r->way->ours && r->way->ours(r->way->ours_ctx, &r->addrs[i])) {
            route_bad(r, CAUSE_DNS_POINTS_TO_OURSELVES, "name",
                      "%s is %s, where this gateway listens itself", host,
                      net_addr_text(&r->addrs[i], text));
            findings_do(r->findings, "name servers that know the real address: upstream.resolvers: "
                                     "[ADDRESS]");
            return false;
        }
        if (!r->allow || host != r->host || r->allow(r->allow_ctx, &r->addrs[i], &why))
            r->addrs[n++] = r->addrs[i];
    }
    r->n_addrs = n;
    if (n == 0) {
        route_bad(r, CAUSE_POLICY_DENIES_ADDRESS, "name", "%s: %s", host, str_c(&why));
        findings_do(r->findings, "add the range to `addresses` of the rule that allows %s", host);
    }
    str_fini(&why);
    return n > 0;
}

static void add_addresses(const struct route *r, struct str *out)
{
    char text[NET_ADDR_TEXT];

    for (size_t i = 0; i < r->n_addrs; i++)
        str_addf(out, "%s%s", i ? ", " : "", net_addr_ip(&r->addrs[i], text));
}

static bool find_addresses(struct route *r, const char *host, uint16_t port)
{
    struct asking a = {.r = r};
    struct str text = STR_INIT;
    struct net_addr literal;
    bool ok;

    if (r->n_addrs)
        return true;
    ask(&a, host, port);
    if (r->n_addrs == 0) {
        tell_unresolved(r, host, &a.err);
        return false;
    }
    ok = sift(r, host);
    add_addresses(r, &text);
    if (ok && net_addr_literal(view_str(host), port, &literal) < 0)
        route_ok(r, "name", "%s is %s", host, str_c(&text));
    str_fini(&text);
    return ok;
}

/* ---- TCP ---------------------------------------------------------------------------------- */

struct tries {
    struct pollfd p[ROUTE_ADDRESSES]; /* .fd -1: settled */
    int errnums[ROUTE_ADDRESSES];     /* 0: not settled yet, or it stands */
    int stands;                       /* which one answered first; -1: none yet */
    int fd;                           /* of that one */
};

static void settled(struct tries *t, size_t i, int errnum)
{
    if (errnum == 0 && t->stands < 0) {
        t->stands = (int)i;
        t->fd = t->p[i].fd;
        t->p[i].fd = -1;
        return;
    }
    t->errnums[i] = errnum;
    fd_close(&t->p[i].fd);
}

static void begin(struct tries *t, size_t i, const struct net_addr *a)
{
    int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    t->p[i] = (struct pollfd){.fd = fd, .events = POLLOUT};
    if (fd < 0)
        t->errnums[i] = errno;
    else if (connect(fd, &a->ss.sa, a->len) == 0)
        settled(t, i, 0);
    else if (errno != EINPROGRESS)
        settled(t, i, errno);
}

static bool pending(const struct tries *t, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (t->p[i].fd >= 0)
            return true;
    }
    return false;
}

static void wait_tries(struct tries *t, size_t n, unsigned timeout_ms)
{
    int64_t until = clock_mono_ns() + timeout_ms * NS_PER_MS, left;
    bool hurried = false;

    while (pending(t, n) && (left = until - clock_mono_ns()) > 0) {
        if (poll(t->p, (nfds_t)n, (int)(left / NS_PER_MS) + 1) < 0 && errno != EINTR)
            break;
        for (size_t i = 0; i < n; i++) {
            int errnum = 0;
            socklen_t len = sizeof(errnum);

            if (t->p[i].fd < 0 || !t->p[i].revents)
                continue;
            getsockopt(t->p[i].fd, SOL_SOCKET, SO_ERROR, &errnum, &len);
            settled(t, i, errnum);
        }
        if (t->stands >= 0 && !hurried) {
            hurried = true;
            until = TR_MIN(until, clock_mono_ns() + SLOWER_MS * NS_PER_MS);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (t->p[i].fd >= 0)
            settled(t, i, ETIMEDOUT);
    }
}

/* The address that packets to there would have, whether or not they get there. */
static void find_own(struct route *r)
{
    struct net_addr own = {.len = sizeof(own.ss)};
    int fd;

    if (r->from[0] || r->n_addrs == 0)
        return;
    fd = socket(r->addrs[0].ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, &r->addrs[0].ss.sa, r->addrs[0].len) == 0 &&
        getsockname(fd, &own.ss.sa, &own.len) == 0)
        net_addr_ip(&own, r->from);
    fd_close(&fd);
}

static void add_rule(struct route *r, const char *host, uint16_t port, const char *more)
{
    struct str at = STR_INIT;
    struct net_addr literal;

    add_addresses(r, &at);
    findings_do(r->findings, "allow TCP from %s to %s:%u%s", r->from[0] ? r->from : "this host",
                host, port, more);
    if (net_addr_literal(view_str(host), port, &literal) < 0 && at.n)
        findings_do(r->findings, " (by its name; it is %s now)", str_c(&at));
    str_fini(&at);
}

void route_rule(struct route *r, const char *more)
{
    add_rule(r, r->host, r->port, more);
}

static void tell_undialled(struct route *r, const struct tries *t, const char *host, uint16_t port)
{
    int errnum = t->errnums[0];
    enum cause cause = errnum == ETIMEDOUT                              ? CAUSE_FIREWALL_DROPS
                       : errnum == ECONNREFUSED || errnum == ECONNRESET ? CAUSE_CONNECTION_REFUSED
                                                                        : CAUSE_NO_ROUTE;
    const char *role = route_by_parent(r) ? "the parent proxy " : "";
    struct str at = STR_INIT;

    /* Where IPv6 leads nowhere, as so often, it is the other one that was meant to work. */
    for (size_t i = 1; i < r->n_addrs && cause == CAUSE_NO_ROUTE; i++) {
        errnum = t->errnums[i];
        cause = errnum == ETIMEDOUT      ? CAUSE_FIREWALL_DROPS
                : errnum == ECONNREFUSED ? CAUSE_CONNECTION_REFUSED
                                         : cause;
    }
    add_addresses(r, &at);
    if (cause == CAUSE_FIREWALL_DROPS)
        route_bad(r, cause, "dial", "no answer from %s%s port %u within %u ms (%s)", role, host,
                  port, r->way->timeout_ms, str_c(&at));
    else
        route_bad(r, cause, "dial", "%s%s port %u (%s): %s", role, host, port, str_c(&at),
                  strerror(errnum));
    add_rule(r, host, port, "");
    if (r->way->elsewhere && !route_by_parent(r))
        findings_do(r->findings,
                    "; or go by the proxy that this environment names: upstream.parent: http://%s",
                    r->way->elsewhere);
    str_fini(&at);
}

/* Addresses beside the one that answers, of its family, that do not. */
static void tell_some(struct route *r, const struct tries *t, const char *host, uint16_t port)
{
    struct finding f = {VERDICT_WARN, CAUSE_SOME_ADDRESSES_BLOCKED, r->flow, "dial"};
    struct str list = STR_INIT;
    char text[NET_ADDR_TEXT];

    for (size_t i = 0; i < r->n_addrs; i++) {
        if (t->errnums[i] && r->addrs[i].ss.ss_family == r->addrs[t->stands].ss.ss_family)
            str_addf(&list, "%s%s", list.n ? ", " : "", net_addr_ip(&r->addrs[i], text));
    }
    if (list.n) {
        findings_add(r->findings, &f, "%s port %u answers, but not at %s", host, port,
                     str_c(&list));
        add_rule(r, host, port, "");
    }
    str_fini(&list);
}

/* TCP to host and port, which are the target's or the parent's. */
static bool dial(struct route *r, const char *host, uint16_t port)
{
    struct tries t = {.stands = -1, .fd = -1};
    int64_t began = clock_mono_ns();
    char text[NET_ADDR_TEXT];
    size_t i;

    for (i = 0; i < r->n_addrs; i++)
        begin(&t, i, &r->addrs[i]);
    wait_tries(&t, r->n_addrs, r->way->timeout_ms);
    find_own(r);
    if (t.stands < 0) {
        tell_undialled(r, &t, host, port);
        return false;
    }
    r->line.fd = t.fd;
    route_ok(r, "dial", "TCP from %s to %s in %lld ms", r->from,
             net_addr_text(&r->addrs[t.stands], text),
             (long long)((clock_mono_ns() - began) / NS_PER_MS));
    if (!r->quiet)
        tell_some(r, &t, host, port);
    /* Those that did not answer are not waited for again. */
    if (t.stands > 0)
        r->addrs[0] = r->addrs[t.stands];
    r->n_addrs = 1;
    return true;
}

/* ---- the parent proxy --------------------------------------------------------------------- */

static void tell_parent(struct route *r, const struct net_parent *parent,
                        const struct talk_answer *a)
{
    const char *from = r->from[0] ? r->from : "this host";

    switch (a->status) {
    case 407:
        route_bad(
            r, CAUSE_PARENT_ASKS_CREDENTIALS, "parent", "%s:%u answers 407 to CONNECT %s:%u (%s)",
            parent->host, parent->port, r->host, r->port,
            parent->authorization ? "it refuses the credentials" : "no credentials were given");
        findings_do(r->findings,
                    parent->authorization
                        ? "correct the file of upstream.parent-credentials (one line, "
                          "user:password), or have the proxy team let that user go to %s:%u"
                        : "upstream.parent-credentials: FILE (mode 0600, one line, user:password); "
                          "or have the proxy team let this host go to %s:%u without",
                    r->host, r->port);
        break;
    case 502:
    case 503:
    case 504:
        route_bad(r, CAUSE_PARENT_RESOLVES_NOT, "parent", "%s:%u answers %d to CONNECT %s:%u",
                  parent->host, parent->port, a->status, r->host, r->port);
        findings_do(r->findings, "have %s resolve %s and reach its port %u", parent->host, r->host,
                    r->port);
        break;
    default:
        route_bad(r, CAUSE_PARENT_REFUSES_CONNECT, "parent", "%s:%u answers %d to CONNECT %s:%u",
                  parent->host, parent->port, a->status, r->host, r->port);
        findings_do(r->findings, "allow CONNECT from %s to %s:%u at %s:%u", from, r->host, r->port,
                    parent->host, parent->port);
    }
}

static bool ask_parent(struct route *r, const struct net_parent *parent)
{
    bool v6 = strchr(r->host, ':') != NULL;
    struct str authority = STR_INIT, request = STR_INIT;
    struct talk_answer a;
    struct err e;
    int rc;

    str_addf(&authority, v6 ? "[%s]:%u" : "%s:%u", r->host, r->port);
    str_reserve(&request, 4096);
    talk_begin(&request, "CONNECT", str_view(&authority), str_c(&authority));
    if (parent->authorization)
        talk_field(&request, "Proxy-Authorization", parent->authorization);
    talk_end(&request, VIEW_NONE, false);
    rc = talk(&r->line, &request, &a, &e);
    if (rc < 0) {
        route_bad(r, CAUSE_PARENT_IS_NO_PROXY, "parent", "%s:%u, asked for %s: %s", parent->host,
                  parent->port, str_c(&authority), e.text);
        findings_do(r->findings, "correct upstream.parent (its port, and http or https)");
    } else if (a.status / 100 != 2) {
        tell_parent(r, parent, &a);
        rc = -1;
    } else {
        route_ok(r, "parent", "%s:%u lets through to %s", parent->host, parent->port,
                 str_c(&authority));
    }
    talk_answer_fini(&a);
    str_fini(&authority);
    str_wipe(&request);
    return rc == 0;
}

static bool dial_parent(struct route *r, const struct net_parent *parent)
{
    const struct chain_opts tls = {
        .host = parent->host, .port = parent->port, .step = "parent", .parent = true};
    const char *setting = r->setting;
    bool ok;

    r->setting = "upstream.parent";
    ok = find_addresses(r, parent->host, parent->port) && dial(r, parent->host, parent->port);
    if (ok && parent->tls) {
        ok = chain_secure(r, &tls);
        if (ok)
            line_nest(&r->line);
    }
    if (ok) {
        line_allow(&r->line, r->way->timeout_ms);
        ok = ask_parent(r, parent);
    }
    r->setting = setting;
    return ok;
}

bool route_dial(struct route *r)
{
    const struct net_parent *parent = net_parent_for(r->way->parent, r->host, r->port);

    line_close(&r->line);
    if (parent)
        return dial_parent(r, parent);
    return find_addresses(r, r->host, r->port) && dial(r, r->host, r->port);
}

void route_fini(struct route *r)
{
    line_close(&r->line);
    r->n_addrs = 0;
}
