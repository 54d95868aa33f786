#include "net/proxied.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include "base/bug.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/xmem.h"
#include "codec/proxy_header.h"
#include "rt/clock.h"
#include "rt/fdx.h"
#include "rt/log.h"
#include "rt/metric.h"

#define PROXIED_MAGIC 0x9801ed01u
#define WAITER_MAGIC  0x9801ed02u

/* A sender that is trusted is still told apart from one that hangs. */
enum { DEFAULT_TIMEOUT_MS = 5000, DEFAULT_MAX_WAITING = 4096 };

enum result { RESULT_OK, RESULT_LOCAL, RESULT_BAD, RESULT_LATE, RESULT_GONE, RESULT_MANY, RESULTS };

static const char *const result_names[RESULTS] = {
    [RESULT_OK] = "ok",     [RESULT_LOCAL] = "local", [RESULT_BAD] = "bad",
    [RESULT_LATE] = "late", [RESULT_GONE] = "gone",   [RESULT_MANY] = "too_many",
};

struct net_proxied {
    uint32_t magic;
    struct net_proxied_opts o;
    struct list waiting; /* oldest first: all have the same time */
    size_t n_waiting;
    struct ev_timer *timer;
    struct metric *results[RESULTS];
};

struct waiter {
    uint32_t magic;
    struct net_proxied *p;
    struct list link;
    int fd;
    struct ev_io *io;
    struct net_addr sender;
    int64_t due_ns;
    struct buf got; /* of the header, and of nothing else */
};

/* Let go of a connection; its descriptor is the caller's. */
static int waiter_free(struct waiter *w)
{
    int fd = w->fd;

    list_remove(&w->link);
    w->p->n_waiting--;
    ev_io_free(&w->io);
    buf_fini(&w->got);
    OBJ_FINI(w);
    xfree(w);
    return fd;
}

static void report(const struct net_proxied *p, enum result result, const struct net_addr *sender)
{
    static struct log_rate rate;
    char text[NET_ADDR_TEXT];
    uint64_t more;

    metric_add(p->results[result], 1);
    if (result <= RESULT_LOCAL || result == RESULT_GONE || !log_rate_ok(&rate, 10, &more))
        return;
    log_event(LOG_WARN, "net", "no good PROXY header from a trusted sender; connection closed",
              LF_STR("sender", net_addr_text(sender, text)), LF_STR("reason", result_names[result]),
              LF_UINT("suppressed", more));
}

static void refuse(struct waiter *w, enum result result)
{
    int fd;

    report(w->p, result, &w->sender);
    fd = waiter_free(w);
    fd_close(&fd);
}

static void hand_on(struct waiter *w, const struct proxy_header *h)
{
    struct net_proxied *p = w->p;
    struct net_addr client = w->sender;
    int fd;

    if (!h->local) {
        ASSERT(h->source_len <= sizeof(client.ss));
        memcpy(&client.ss, &h->source, h->source_len);
        client.len = h->source_len;
    }
    report(p, h->local ? RESULT_LOCAL : RESULT_OK, &w->sender);
    fd = waiter_free(w);
    p->o.fn(p->o.ctx, fd, &client);
}

/* Take `n` bytes, which were seen to be there, out of the socket. */
static bool consume(struct waiter *w, size_t n)
{
    ssize_t got = recv(w->fd, buf_reserve(&w->got, n), n, 0);

    if (got != (ssize_t)n)
        return false;
    buf_commit(&w->got, n);
    return true;
}

/* Look at what is there; take what is the header's. */
static void on_readable(void *ctx, unsigned what)
{
    struct waiter *w = ctx;
    char seen[PROXY_HEADER_MAX];
    struct proxy_header h;
    enum proxy_header_result result;
    size_t before = buf_len(&w->got);
    ssize_t n;

    (void)what;
    OBJ_CHECK(w, WAITER_MAGIC);
    /* While more is wanted the header is not complete, so there is room. */
    n = recv(w->fd, seen + before, sizeof(seen) - before, MSG_PEEK);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) { /* a health check that only connects, mostly */
        refuse(w, before ? RESULT_BAD : RESULT_GONE);
        return;
    }
    if (before)
        memcpy(seen, buf_data(&w->got), before);
    result = proxy_header_parse(view_of(seen, before + (size_t)n), &h);
    if (result == PROXY_HEADER_BAD ||
        !consume(w, result == PROXY_HEADER_OK ? h.length - before : (size_t)n))
        refuse(w, RESULT_BAD);
    else if (result == PROXY_HEADER_OK)
        hand_on(w, &h);
}

static void arm(struct net_proxied *p)
{
    struct waiter *w = list_first(&p->waiting, struct waiter, link);
    int64_t left;

    if (!w)
        return;
    left = w->due_ns - ev_now_ns(p->o.loop);
    ev_timer_arm(p->timer, left > 0 ? (left + NS_PER_MS - 1) / NS_PER_MS : 0);
}

static void on_due(void *ctx)
{
    struct net_proxied *p = ctx;
    struct waiter *w;

    OBJ_CHECK(p, PROXIED_MAGIC);
    while ((w = list_first(&p->waiting, struct waiter, link)) && w->due_ns <= ev_now_ns(p->o.loop))
        refuse(w, RESULT_LATE);
    arm(p);
}

struct net_proxied *net_proxied_new(const struct net_proxied_opts *o)
{
    struct net_proxied *p = XNEW(struct net_proxied);
    struct metric_family *f = metric_family(METRIC_COUNTER, "proxy_headers", "result",
                                            "PROXY headers from trusted senders, by result.");

    ASSERT(o->trusted && o->fn);
    OBJ_INIT(p, PROXIED_MAGIC);
    p->o = *o;
    if (!p->o.timeout_ms)
        p->o.timeout_ms = DEFAULT_TIMEOUT_MS;
    if (!p->o.max_waiting)
        p->o.max_waiting = DEFAULT_MAX_WAITING;
    list_init(&p->waiting);
    p->timer = ev_timer_new(o->loop, on_due, p);
    for (int i = 0; i < RESULTS; i++)
        p->results[i] = metric_series(f, result_names[i]);
    return p;
}

void net_proxied_accepted(void *proxied, int fd, const struct net_addr *sender)
{
    struct net_proxied *p = proxied;
    struct waiter *w;

    OBJ_CHECK(p, PROXIED_MAGIC);
    if (!p->o.trusted(p->o.trusted_ctx, sender)) {
        p->o.fn(p->o.ctx, fd, sender);
        return;
    }
    if (p->n_waiting >= p->o.max_waiting) {
        report(p, RESULT_MANY, sender);
        fd_close(&fd);
        return;
    }
    w = XNEW(struct waiter);
    OBJ_INIT(w, WAITER_MAGIC);
    w->p = p;
    w->fd = fd;
    w->sender = *sender;
    w->due_ns = ev_now_ns(p->o.loop) + p->o.timeout_ms * NS_PER_MS;
    list_append(&p->waiting, &w->link);
    p->n_waiting++;
    w->io = ev_io_new(p->o.loop, fd, on_readable, w);
    ev_io_want(w->io, EV_CAN_READ);
    if (!ev_timer_armed(p->timer))
        arm(p);
}

void net_proxied_configure(struct net_proxied *p,
                           bool (*trusted)(void *ctx, const struct net_addr *sender),
                           void *trusted_ctx)
{
    OBJ_CHECK(p, PROXIED_MAGIC);
    p->o.trusted = trusted;
    p->o.trusted_ctx = trusted_ctx;
}

void net_proxied_free(struct net_proxied **pp)
{
    struct net_proxied *p = *pp;
    struct waiter *w;
    int fd;

    *pp = NULL;
    if (!p)
        return;
    OBJ_CHECK(p, PROXIED_MAGIC);
    while ((w = list_first(&p->waiting, struct waiter, link))) {
        fd = waiter_free(w);
        fd_close(&fd);
    }
    ev_timer_free(&p->timer);
    OBJ_FINI(p);
    xfree(p);
}
