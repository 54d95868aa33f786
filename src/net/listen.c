#include "net/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "rt/fdx.h"
#include "rt/log.h"
#include "rt/metric.h"

#define LISTENER_MAGIC 0x115713e4u

/* Connections taken in one call-back: a flood of them must not starve those that are open. */
enum { ACCEPT_BATCH = 64 };

/* How long accepting rests when descriptors run out. */
enum { PAUSE_MS = 100 };

/* Connections taken at most while a listener closes; beyond that the queue only grows. */
enum { DRAIN_MAX = 65536 };

struct net_listener {
    uint32_t magic;
    struct ev_loop *loop;
    int fd;
    int reserve; /* given up to take, and refuse, a connection when there is no descriptor left */
    struct ev_io *io;
    struct ev_timer *rest;
    bool paused;  /* by the owner */
    bool starved; /* out of descriptors at the last try, too */
    bool *freed;  /* set if the owner frees us from within its call-back */
    net_accept_fn fn;
    void *ctx;
};

static int set_options(int fd, int family)
{
    int on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0)
        return -1;
    /* [::] and 0.0.0.0 are two listeners, whatever the system's default is. */
    if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
        return -1;
    /* Accepted sockets inherit these: no call for each connection. */
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
        return -1;
    return fd_keepalive(fd);
}

int net_listen_fd(const struct net_addr *at, int backlog, struct net_addr *bound, struct err *e)
{
    char text[NET_ADDR_TEXT];
    int fd = socket(at->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    net_addr_text(at, text);
    if (fd < 0)
        return err_errno(e, ERR_IO, errno, "cannot make a socket for %s", text);
    if (set_options(fd, at->ss.ss_family) < 0) {
        err_errno(e, ERR_IO, errno, "cannot set up the socket for %s", text);
        goto fail;
    }
    if (bind(fd, (const struct sockaddr *)&at->ss, at->len) < 0) {
        err_errno(e, errno == EACCES ? ERR_DENIED : ERR_IO, errno, "cannot listen at %s", text);
        goto fail;
    }
    if (listen(fd, backlog > 0 ? backlog : SOMAXCONN) < 0) {
        err_errno(e, ERR_IO, errno, "cannot listen at %s", text);
        goto fail;
    }
    if (bound) {
        bound->len = sizeof(bound->ss);
        if (getsockname(fd, (struct sockaddr *)&bound->ss, &bound->len) < 0) {
            err_errno(e, ERR_IO, errno, "cannot tell the address of %s", text);
            goto fail;
        }
    }
    return fd;
fail:
    fd_close(&fd);
    return -1;
}

static bool is_listener(int fd)
{
    int is = 0, type = 0, protocol = 0;
    socklen_t n = sizeof(int);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is, &n) == 0 && is &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM &&
           getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &n) == 0 && protocol == IPPROTO_TCP;
}

int net_listen_adopt(int fd, struct net_addr *bound, struct err *e)
{
    struct net_addr at = {.len = sizeof(at.ss)};
    int on = 1;

    if (!is_listener(fd))
        return err_set(e, ERR_INVALID, "it does not listen to a TCP port");
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fd_set_nonblock(fd, true, e) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 || fd_keepalive(fd) < 0 ||
        getsockname(fd, (struct sockaddr *)&at.ss, &at.len) < 0)
        return err_errno(e, ERR_IO, errno, "cannot set up a listening descriptor");
    if (bound)
        *bound = at;
    return 0;
}

static void reserve_take(struct net_listener *l)
{
    if (l->reserve < 0)
        l->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void update_io(struct net_listener *l)
{
    ev_io_want(l->io, l->paused || ev_timer_armed(l->rest) ? 0 : EV_CAN_READ);
}

/* With the reserve as its descriptor, take the oldest connection that waits and reset it: a peer
 * that is told can go elsewhere, one that is not waits for its own timeout. False: none waits. */
static bool refuse_one(struct net_listener *l)
{
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int fd;

    fd_close(&l->reserve);
    fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        close(fd);
    }
    reserve_take(l);
    return fd >= 0;
}

/* Say it, but not ten times a second. */
static void report_shortage(struct net_listener *l, int errnum)
{
    static struct log_rate rate;
    struct net_addr at = {.len = sizeof(at.ss)};
    char text[NET_ADDR_TEXT];
    uint64_t more;

    metric_add(metric_series(metric_family(METRIC_COUNTER, "accept_pauses", "",
                                           "Times accepting paused for want of descriptors.")),
               1);
    if (!log_rate_ok(&rate, 10, &more))
        return;
    getsockname(l->fd, (struct sockaddr *)&at.ss, &at.len);
    log_event(LOG_WARN, "net", "cannot accept connections; pausing",
              LF_STR("listener", net_addr_text(&at, text)),
              LF_STR("error", strerrordesc_np(errnum)), LF_UINT("suppressed", more));
}

/* Without descriptors a level-triggered listener would spin. Rest a while; if it was no better
 * after the last rest, one connection is refused. */
static void starve(struct net_listener *l, int errnum)
{
    report_shortage(l, errnum);
    if (l->starved)
        refuse_one(l);
    l->starved = true;
    ev_timer_arm(l->rest, PAUSE_MS);
    update_io(l);
}

/* Trouble of one connection that failed while it waited (accept(2)); the next may be fine. */
static bool about_one(int errnum)
{
    return errnum == ECONNABORTED || errnum == EINTR || errnum == EPROTO || errnum == EPERM ||
           errnum == ENETDOWN || errnum == ENETUNREACH || errnum == EHOSTDOWN ||
           errnum == EHOSTUNREACH || errnum == ENONET || errnum == ENOPROTOOPT ||
           errnum == EOPNOTSUPP || errnum == ETIMEDOUT;
}

/* 1: one was taken; 0: none waits; -1: out of descriptors or memory, most likely. */
static int accept_one(struct net_listener *l)
{
    struct net_addr peer = {.len = sizeof(peer.ss)};
    int fd = accept4(l->fd, (struct sockaddr *)&peer.ss, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        l->starved = false;
        l->fn(l->ctx, fd, &peer);
        return 1;
    }
    if (errno == EAGAIN)
        return 0;
    return about_one(errno) ? 1 : -1;
}

static void on_acceptable(void *ctx, unsigned can)
{
    struct net_listener *l = ctx;
    bool freed = false;
    int rc = 1;

    (void)can;
    OBJ_CHECK(l, LISTENER_MAGIC);
    l->freed = &freed;
    for (int i = 0; i < ACCEPT_BATCH && rc == 1 && !freed && !l->paused; i++)
        rc = accept_one(l);
    if (freed)
        return;
    l->freed = NULL;
    if (rc < 0)
        starve(l, errno);
}

static void on_rested(void *ctx)
{
    struct net_listener *l = ctx;

    OBJ_CHECK(l, LISTENER_MAGIC);
    update_io(l);
}

struct net_listener *net_listener_new(struct ev_loop *loop, int fd, net_accept_fn fn, void *ctx)
{
    struct net_listener *l = XNEW(struct net_listener);

    OBJ_INIT(l, LISTENER_MAGIC);
    l->loop = loop;
    l->fd = fd;
    l->fn = fn;
    l->ctx = ctx;
    l->reserve = -1;
    reserve_take(l);
    l->rest = ev_timer_new(loop, on_rested, l);
    l->io = ev_io_new(loop, fd, on_acceptable, l);
    update_io(l);
    return l;
}

void net_listener_pause(struct net_listener *l, bool paused)
{
    OBJ_CHECK(l, LISTENER_MAGIC);
    l->paused = paused;
    update_io(l);
}

/* Closing resets what is queued; so hand it over, and refuse what there is no descriptor for. */
static void drain(struct net_listener *l)
{
    int rc = 1;

    for (int i = 0; i < DRAIN_MAX && rc != 0; i++) {
        rc = accept_one(l);
        if (rc < 0 && !refuse_one(l))
            return;
    }
}

static void end(struct net_listener **lp, bool accept_queued)
{
    struct net_listener *l = *lp;

    *lp = NULL;
    if (!l)
        return;
    OBJ_CHECK(l, LISTENER_MAGIC);
    if (l->freed)
        *l->freed = true;
    ev_io_free(&l->io);
    ev_timer_free(&l->rest);
    if (accept_queued)
        drain(l);
    fd_close(&l->fd);
    fd_close(&l->reserve);
    OBJ_FINI(l);
    xfree(l);
}

void net_listener_free(struct net_listener **l)
{
    end(l, true);
}

void net_listener_leave(struct net_listener **l)
{
    ASSERT(!*l || !(*l)->freed);
    end(l, false);
}

int net_listener_fd(const struct net_listener *l)
{
    return l->fd;
}
