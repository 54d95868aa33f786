#include "net/connect.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include "base/bug.h"
#include "base/list.h"
#include "base/xmem.h"
#include "net/through.h"
#include "rt/clock.h"
#include "rt/fdx.h"

#define CONNECT_MAGIC 0xc0211ec7u

enum {
    STAGGER_MS = 250, /* RFC 8305 §5: Connection Attempt Delay */
    TIMEOUT_MS = 10000,
    HOST_SHOWN = 100, /* bytes of a name that an error text shows */
};

enum stage { RESOLVING, DIALLING, SHAKING };

/* One address being dialled. */
struct attempt {
    struct list link;
    struct net_connect *c;
    struct net_addr addr;
    int fd;
    struct ev_io *io;
};

struct net_connect {
    uint32_t magic;
    struct ev_loop *loop;
    enum stage stage;
    char *host;
    char *server_name;
    char *alpn;
    size_t alpn_n;
    uint16_t port;
    unsigned timeout_ms;
    int64_t deadline_ns;
    struct tls_ctx *tls;
    bool (*allow)(void *ctx, const struct net_addr *addr);
    void *allow_ctx;
    net_connected_fn fn;
    void *ctx;

    struct net_through *through; /* by a parent: does all of it; nothing below is used */
    struct net_lookup *lookup;
    struct net_addr addrs[NET_RESOLVE_MAX]; /* in the order to dial */
    size_t n_addrs;
    size_t next;
    size_t denied;
    struct list attempts;
    struct ev_timer *timeout;
    struct ev_timer *stagger; /* DIALLING: the next attempt; SHAKING: this one's share is over */
    struct net_stream *stream;
    struct net_addr shaking; /* the stream's */
    struct err last;         /* of the last address that failed */
    bool again;              /* an address was tried without the session that it did not like */
    bool shaken;             /* `last` is about TLS: later refusals say less than it does */
};

static void attempt_free(struct attempt *at)
{
    ASSERT(at);
    ev_io_free(&at->io);
    fd_close(&at->fd);
    list_remove(&at->link);
    xfree(at);
}

static void connect_free(struct net_connect *c)
{
    net_through_cancel(&c->through);
    net_lookup_cancel(&c->lookup);
    while (!list_empty(&c->attempts))
        attempt_free(list_first(&c->attempts, struct attempt, link));
    ev_timer_free(&c->timeout);
    ev_timer_free(&c->stagger);
    net_stream_close(&c->stream, true);
    tls_ctx_unref(&c->tls);
    xfree(c->host);
    xfree(c->server_name);
    xfree(c->alpn);
    OBJ_FINI(c);
    xfree(c);
}

/* "a.example:443": what the errors are about. The name may be the choice of a client, so only
 * printable bytes of it go on. */
static const char *target(const struct net_connect *c, char out[HOST_SHOWN + 16])
{
    bool brackets = strchr(c->host, ':') != NULL;

    snprintf(out, HOST_SHOWN + 16, brackets ? "[%.*s]:%u" : "%.*s:%u", HOST_SHOWN, c->host,
             c->port);
    for (char *p = out; *p; p++)
        if (*p <= ' ' || *p > '~')
            *p = '?';
    return out;
}

/* The end: everything is released before the owner is told. */
static void finish(struct net_connect *c, struct net_stream *s, const struct err *why)
{
    char to[HOST_SHOWN + 16];
    net_connected_fn fn = c->fn;
    void *ctx = c->ctx;
    struct err e;

    if (!s) {
        ASSERT(why);
        e = *why;
        err_prefix(&e, "cannot connect to %s", target(c, to));
    }
    connect_free(c);
    fn(ctx, s, s ? NULL : &e);
}

static void on_stream_ready(void *ctx)
{
    struct net_connect *c = ctx;
    struct net_stream *s = c->stream;

    OBJ_CHECK(c, CONNECT_MAGIC);
    c->stream = NULL;
    net_stream_bind(s, NULL, NULL);
    finish(c, s, NULL);
}

static void dial_next(struct net_connect *c);

/* No TLS with this address: another one may be well, as behind a name some of whose servers have
 * the wrong certificate. */
static void handshake_failed(struct net_connect *c, const struct err *e)
{
    char ip[NET_ADDR_TEXT];

    c->last = *e;
    err_prefix(&c->last, "%s", net_addr_ip(&c->shaking, ip));
    c->shaken = true;
    /* The peer ended it, maybe for the session, which is forgotten now. */
    if (e->code == ERR_CLOSED && net_tls_offered(c->stream) && !c->again) {
        c->again = true;
        c->addrs[--c->next] = c->shaking;
    }
    net_stream_close(&c->stream, true);
    c->stage = DIALLING;
    dial_next(c);
}

static void on_stream_failed(void *ctx, const struct err *e)
{
    struct net_connect *c = ctx;

    OBJ_CHECK(c, CONNECT_MAGIC);
    handshake_failed(c, e);
}

static const struct net_stream_ops stream_ops = {
    .on_ready = on_stream_ready,
    .on_failed = on_stream_failed,
};

/* The time that is left, in equal shares for this address and those after it: one that accepts
 * and then says nothing leaves some for the next. */
static void arm_share(struct net_connect *c)
{
    size_t others = c->n_addrs - c->next;
    int64_t left = c->deadline_ns - clock_mono_ns();

    ev_timer_disarm(c->stagger);
    if (others && left > 0)
        ev_timer_arm(c->stagger, left / NS_PER_MS / (int64_t)(others + 1));
}

/* The other attempts are over; their addresses come first again should TLS fail with this one. */
static void stop_others(struct net_connect *c)
{
    struct attempt *at;

    while ((at = list_last(&c->attempts, struct attempt, link)) != NULL) {
        c->addrs[--c->next] = at->addr;
        attempt_free(at);
    }
}

/* A descriptor is connected: the others are given up, and TLS begins, if any. */
static void take(struct attempt *at)
{
    struct net_connect *c = at->c;
    const char *name = c->server_name ? c->server_name : c->host;
    int fd = at->fd;

    ev_io_free(&at->io);
    at->fd = -1;
    c->shaking = at->addr;
    attempt_free(at);
    stop_others(c);
    c->stage = SHAKING;
    arm_share(c);
    c->stream =
        net_stream_connected(c->loop, fd, c->tls, name, view_of(c->alpn, c->alpn_n), &c->shaking);
    net_stream_bind(c->stream, &stream_ops, c);
}

static void attempt_failed(struct attempt *at, int errnum)
{
    struct net_connect *c = at->c;
    char ip[NET_ADDR_TEXT];

    if (!c->shaken)
        err_errno(&c->last, errnum == ETIMEDOUT ? ERR_TIMEOUT : ERR_UNAVAIL, errnum, "%s",
                  net_addr_ip(&at->addr, ip));
    attempt_free(at);
}

static void on_dialled(void *ctx, unsigned can)
{
    struct attempt *at = ctx;
    struct net_connect *c = at->c;
    int errnum = 0;
    socklen_t len = sizeof(errnum);

    (void)can;
    OBJ_CHECK(c, CONNECT_MAGIC);
    if (getsockopt(at->fd, SOL_SOCKET, SO_ERROR, &errnum, &len) < 0)
        errnum = errno;
    if (errnum == 0) {
        take(at);
        return;
    }
    attempt_failed(at, errnum);
    dial_next(c);
}

/* 0: under way; -1: failed at once, c->last says how. */
static int dial(struct net_connect *c, const struct net_addr *addr)
{
    struct attempt *at = XNEW(struct attempt);
    int on = 1;

    at->c = c;
    at->addr = *addr;
    list_init(&at->link);
    list_append(&c->attempts, &at->link);
    at->fd = socket(addr->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (at->fd >= 0 && fd_is_reserved(at->fd)) {
        fd_close(&at->fd);
        errno = EMFILE;
    }
    if (at->fd < 0) {
        attempt_failed(at, errno);
        return -1;
    }
    setsockopt(at->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)fd_keepalive(at->fd); /* it works without */
    if (connect(at->fd, (const struct sockaddr *)&addr->ss, addr->len) < 0 &&
        errno != EINPROGRESS && errno != EINTR) {
        attempt_failed(at, errno);
        return -1;
    }
    at->io = ev_io_new(c->loop, at->fd, on_dialled, at);
    ev_io_want(at->io, EV_CAN_WRITE); /* also if connected already: told in the next turn */
    return 0;
}

/* Dial the next address that is allowed; the end comes when none is left and none is under way. */
static void dial_next(struct net_connect *c)
{
    ev_timer_disarm(c->stagger);
    while (c->next < c->n_addrs) {
        const struct net_addr *addr = &c->addrs[c->next++];

        if (c->allow && !c->allow(c->allow_ctx, addr)) {
            c->denied++;
            continue;
        }
        if (dial(c, addr) < 0)
            continue;
        if (c->next < c->n_addrs)
            ev_timer_arm(c->stagger, STAGGER_MS);
        return;
    }
    if (!list_empty(&c->attempts))
        return;
    if (c->denied == c->n_addrs)
        err_set(&c->last, ERR_DENIED, "no address of it is allowed");
    finish(c, NULL, &c->last);
}

static void on_stagger(void *ctx)
{
    struct net_connect *c = ctx;

    struct err e;

    OBJ_CHECK(c, CONNECT_MAGIC);
    if (c->stage != SHAKING) {
        dial_next(c);
        return;
    }
    err_set(&e, ERR_TIMEOUT, "TLS handshake took longer than its share of %u ms", c->timeout_ms);
    handshake_failed(c, &e);
}

static void on_timeout(void *ctx)
{
    static const char *const doing[] = {
        [RESOLVING] = "looking up the name",
        [DIALLING] = "connecting",
        [SHAKING] = "TLS handshake",
    };
    struct net_connect *c = ctx;
    struct err e;

    OBJ_CHECK(c, CONNECT_MAGIC);
    err_set(&e, ERR_TIMEOUT, "%s took longer than %u ms", doing[c->stage], c->timeout_ms);
    finish(c, NULL, c->shaken ? &c->last : &e);
}

/* Families in turns, beginning with the first address's (RFC 8305 §4): a broken one costs no more
 * than every second try. */
static void interleave(struct net_connect *c, const struct net_addr *from, size_t n)
{
    bool used[NET_RESOLVE_MAX] = {false};
    sa_family_t family = from[0].ss.ss_family;

    ASSERT(n <= NET_RESOLVE_MAX);
    while (c->n_addrs < n) {
        size_t pick = n;

        for (size_t i = n; i-- > 0;) /* the first of the family, else the first at all */
            if (!used[i] &&
                (pick == n || from[i].ss.ss_family == family || from[pick].ss.ss_family != family))
                pick = i;
        used[pick] = true;
        family = from[pick].ss.ss_family == AF_INET6 ? AF_INET : AF_INET6;
        c->addrs[c->n_addrs++] = from[pick];
    }
}

static void on_resolved(void *ctx, const struct net_addr *addrs, size_t n, const struct err *e)
{
    struct net_connect *c = ctx;

    OBJ_CHECK(c, CONNECT_MAGIC);
    c->lookup = NULL;
    if (n == 0) {
        finish(c, NULL, e);
        return;
    }
    c->stage = DIALLING;
    interleave(c, addrs, n);
    dial_next(c);
}

static void on_through(void *ctx, struct net_stream *s, const struct err *e)
{
    struct net_connect *c = ctx;

    OBJ_CHECK(c, CONNECT_MAGIC);
    c->through = NULL;
    finish(c, s, e);
}

/* What is the dialling's own, unlike what a parent does as well. */
static void begin(struct net_connect *c, struct net_resolver *r, const struct net_connect_opts *o)
{
    c->server_name = o->server_name ? xstrdup(o->server_name) : NULL;
    c->alpn = o->alpn.n ? xmemdup0(o->alpn.p, o->alpn.n) : NULL;
    c->alpn_n = o->alpn.n;
    c->timeout_ms = o->timeout_ms ? o->timeout_ms : TIMEOUT_MS;
    c->tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
    c->allow = o->allow;
    c->allow_ctx = o->allow_ctx;
    c->timeout = ev_timer_new(c->loop, on_timeout, c);
    c->stagger = ev_timer_new(c->loop, on_stagger, c);
    c->deadline_ns = clock_mono_ns() + c->timeout_ms * NS_PER_MS;
    ev_timer_arm(c->timeout, c->timeout_ms);
    c->lookup = net_resolve(r, c->host, c->port, on_resolved, c);
}

struct net_connect *net_connect_start(struct net_resolver *r, struct ev_loop *loop,
                                      const struct net_connect_opts *o, net_connected_fn fn,
                                      void *ctx)
{
    struct net_connect *c = XNEW(struct net_connect);

    OBJ_INIT(c, CONNECT_MAGIC);
    c->loop = loop;
    c->stage = RESOLVING;
    c->host = xstrdup(o->host);
    c->port = o->port;
    c->fn = fn;
    c->ctx = ctx;
    list_init(&c->attempts);
    if (net_parent_for(o->parent, o->host, o->port))
        c->through = net_through_start(r, loop, o, on_through, c);
    else
        begin(c, r, o);
    return c;
}

void net_connect_cancel(struct net_connect **cp)
{
    struct net_connect *c = *cp;

    *cp = NULL;
    if (!c)
        return;
    OBJ_CHECK(c, CONNECT_MAGIC);
    connect_free(c);
}
