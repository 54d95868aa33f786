#include "net/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "net/seats.h"
#include "rt/fdx.h"

#define STREAM_MAGIC 0x57e0a301u

/* Bytes read or written in one call at most over TLS, record by record: a fast peer on a fast
 * link must not keep the loop's other streams waiting. */
enum { TLS_CALL_MAX = 256 * 1024 };

/* What a record holds at most (RFC 8446 §5.1). */
enum { FULL_RECORD = 16 * 1024 };

enum stream_state {
    STREAM_NEW,       /* in clear and ready, but the owner does not know yet */
    STREAM_HANDSHAKE, /* TLS is not there yet */
    STREAM_OPEN,
    STREAM_FAILED, /* an error was reported; waiting to be closed */
    STREAM_CLOSED, /* closed by the owner; waiting to be freed */
};

struct net_stream {
    uint32_t magic;
    enum stream_state state;
    struct ev_loop *loop;
    int fd;                   /* -1: it runs over another stream */
    struct ev_io *io;         /* NULL likewise */
    struct net_stream *under; /* that one, or NULL */
    struct tls_session *tls;
    const struct net_stream_ops *ops;
    void *ctx;
    struct net_addr peer;
    /* What to wait for is computed from these by update_io, and nowhere else. TLS may need the
     * descriptor writable to read and readable to write. */
    enum tls_want handshake_want;
    enum tls_want read_needs;  /* TLS_WANT_WRITE: a read waits for room */
    enum tls_want write_needs; /* TLS_WANT_READ: a write waits for bytes */
    bool want_read;            /* net_want_read */
    bool want_write;           /* a write fell short; on_writable is owed */
    bool want_fin;             /* net_shutdown_write is not through yet */
    bool write_ended;
    bool read_ended; /* the peer's end was read: the descriptor would stay readable for ever */
    /* The end, or an error, that came behind bytes which were to be delivered first. */
    bool held_end;
    struct err *held_error;
    struct buf *early; /* the peer's first bytes, read by somebody before us; or NULL */
    /* A call-back that waits for no descriptor: the first one, and bytes that are in already. */
    struct ev_task kick; /* and what frees the memory at the end */
    bool kicked;
};

static void want_under(struct net_stream *s, unsigned what);

static void update_io(struct net_stream *s)
{
    unsigned what = 0;

    if (s->state == STREAM_HANDSHAKE) {
        what = s->handshake_want == TLS_WANT_WRITE ? EV_CAN_WRITE : EV_CAN_READ;
    } else if (s->state == STREAM_OPEN) {
        if (s->want_read && !s->read_ended)
            what |= s->read_needs == TLS_WANT_WRITE ? EV_CAN_WRITE : EV_CAN_READ;
        if (s->want_write)
            what |= s->write_needs == TLS_WANT_READ ? EV_CAN_READ : EV_CAN_WRITE;
        if (s->want_fin)
            what |= EV_CAN_WRITE;
    }
    if (s->under)
        want_under(s->under, what);
    else
        ev_io_want(s->io, what);
}

/* What a stream above wants of this one. It may have stopped writing by itself (TLS_CALL_MAX), so
 * it is told of room also if none was missed here. */
static void want_under(struct net_stream *s, unsigned what)
{
    net_want_read(s, (what & EV_CAN_READ) != 0);
    if ((what & EV_CAN_WRITE) && !s->want_write) {
        s->want_write = true;
        update_io(s);
    }
}

static void kick(struct net_stream *s)
{
    if (s->kicked)
        return;
    s->kicked = true;
    ev_post(s->loop, &s->kick);
}

/* Something to read is here already, and the descriptor may have nothing more to say. */
static bool read_at_once(const struct net_stream *s)
{
    return s->held_end || s->held_error || s->early ||
           (s->tls && !s->read_ended && tls_pending(s->tls));
}

/* The owner may have closed the stream in any call-back; the memory outlives the turn. */
static void tell_readable(struct net_stream *s)
{
    if (s->ops->on_readable)
        s->ops->on_readable(s->ctx);
    if (s->state == STREAM_OPEN && s->want_read && read_at_once(s))
        kick(s);
}

static void tell_writable(struct net_stream *s)
{
    s->want_write = false;
    if (s->ops->on_writable)
        s->ops->on_writable(s->ctx);
}

static void tell_failed(struct net_stream *s, const struct err *e)
{
    s->state = STREAM_FAILED;
    update_io(s);
    if (s->ops->on_failed)
        s->ops->on_failed(s->ctx, e);
}

static void tell_ready(struct net_stream *s)
{
    s->state = STREAM_OPEN;
    update_io(s);
    if (s->want_read && read_at_once(s))
        kick(s);
    if (s->ops->on_ready)
        s->ops->on_ready(s->ctx);
}

static void step_handshake(struct net_stream *s)
{
    struct err e;

    s->handshake_want = tls_handshake(s->tls, &e);
    if (s->handshake_want == TLS_DONE)
        tell_ready(s);
    else if (s->handshake_want == TLS_FAILED)
        tell_failed(s, &e);
    else
        update_io(s);
}

/* Send the end of our bytes, or wait until there is room for it. */
static void step_fin(struct net_stream *s)
{
    if (s->tls && tls_close_notify(s->tls) == TLS_WANT_WRITE)
        return;
    s->want_fin = false;
    if (s->under)
        net_shutdown_write(s->under);
    else
        shutdown(s->fd, SHUT_WR);
}

static bool ready_for(unsigned can, enum tls_want needs, unsigned usual)
{
    unsigned turned = usual == EV_CAN_READ ? EV_CAN_WRITE : EV_CAN_READ;
    enum tls_want turned_want = usual == EV_CAN_READ ? TLS_WANT_WRITE : TLS_WANT_READ;

    return can & (needs == turned_want ? turned : usual);
}

static void on_io(void *ctx, unsigned can)
{
    struct net_stream *s = ctx;

    OBJ_CHECK(s, STREAM_MAGIC);
    if (s->state == STREAM_HANDSHAKE) {
        step_handshake(s);
        return;
    }
    if (s->state == STREAM_OPEN && s->want_read && ready_for(can, s->read_needs, EV_CAN_READ))
        tell_readable(s);
    if (s->state == STREAM_OPEN && s->want_write && ready_for(can, s->write_needs, EV_CAN_WRITE))
        tell_writable(s);
    if (s->state == STREAM_OPEN && s->want_fin && (can & EV_CAN_WRITE))
        step_fin(s);
    if (s->state == STREAM_OPEN)
        update_io(s);
}

static void take_early(struct net_stream *s, struct buf *early)
{
    if (!buf_len(early))
        return;
    s->early = XNEW(struct buf);
    *s->early = *early;
    *early = BUF_INIT;
}

static void drop_early(struct net_stream *s)
{
    if (s->early)
        buf_fini(s->early);
    XFREE(s->early);
}

static void stream_free(struct net_stream *s)
{
    tls_free(&s->tls);
    xfree(s->held_error);
    drop_early(s);
    OBJ_FINI(s);
    xfree(s);
}

static void on_kick(struct ev_task *task)
{
    struct net_stream *s = container_of(task, struct net_stream, kick);

    OBJ_CHECK(s, STREAM_MAGIC);
    s->kicked = false;
    if (s->state == STREAM_CLOSED) {
        stream_free(s);
        return;
    }
    ASSERT(s->ops || s->state >= STREAM_OPEN); /* bound in the turn of the constructor */
    if (s->state == STREAM_NEW)
        tell_ready(s);
    else if (s->state == STREAM_HANDSHAKE)
        step_handshake(s);
    else if (s->state == STREAM_OPEN && s->want_read && read_at_once(s))
        tell_readable(s);
}

static struct net_stream *stream_new(struct ev_loop *loop, int fd, const struct net_addr *peer)
{
    struct net_stream *s = XNEW(struct net_stream);

    OBJ_INIT(s, STREAM_MAGIC);
    s->loop = loop;
    s->fd = fd;
    s->io = fd < 0 ? NULL : ev_io_new(loop, fd, on_io, s);
    s->peer = *peer;
    s->kick.run = on_kick;
    kick(s);
    return s;
}

struct net_stream *net_stream_accepted(struct ev_loop *loop, int fd, struct tls_ctx *tls,
                                       const struct net_addr *peer)
{
    return net_stream_accepted_early(loop, fd, tls, peer, NULL);
}

struct net_stream *net_stream_accepted_early(struct ev_loop *loop, int fd, struct tls_ctx *tls,
                                             const struct net_addr *peer, struct buf *early)
{
    struct net_stream *s = stream_new(loop, fd, peer);

    if (tls) {
        s->tls = tls_accept_early(tls, fd, early ? buf_view(early) : VIEW_NONE);
        s->state = STREAM_HANDSHAKE;
    } else if (early) {
        take_early(s, early);
    }
    if (early)
        buf_fini(early);
    return s;
}

struct net_stream *net_stream_connected(struct ev_loop *loop, int fd, struct tls_ctx *tls,
                                        const char *server_name, struct view alpn,
                                        const struct net_addr *peer)
{
    struct net_stream *s = stream_new(loop, fd, peer);

    if (tls) {
        s->tls = tls_connect(tls, fd, server_name, alpn);
        s->state = STREAM_HANDSHAKE;
    }
    return s;
}

/* --- over another stream --- */

static ssize_t under_read(void *ctx, void *p, size_t n)
{
    struct net_stream *s = ctx;
    ssize_t rc = net_read(s->under, p, n, NULL);

    return rc == NET_AGAIN ? TLS_AGAIN : rc == NET_ERROR ? TLS_ERROR : rc;
}

static ssize_t under_write(void *ctx, const void *p, size_t n)
{
    struct net_stream *s = ctx;
    ssize_t rc = net_write(s->under, p, n, NULL);

    return rc == NET_AGAIN ? TLS_AGAIN : rc == NET_ERROR ? TLS_ERROR : rc;
}

static void under_readable(void *ctx)
{
    on_io(ctx, EV_CAN_READ);
}

static void under_writable(void *ctx)
{
    on_io(ctx, EV_CAN_WRITE);
}

static void under_failed(void *ctx, const struct err *e)
{
    struct net_stream *s = ctx;

    OBJ_CHECK(s, STREAM_MAGIC);
    if (s->state == STREAM_HANDSHAKE || s->state == STREAM_OPEN)
        tell_failed(s, e);
}

struct net_stream *net_stream_over(struct net_stream *under, struct tls_ctx *tls,
                                   const char *server_name, struct view alpn)
{
    static const struct tls_transport transport = {under_read, under_write};
    static const struct net_stream_ops ops = {
        .on_readable = under_readable, .on_writable = under_writable, .on_failed = under_failed};
    struct net_stream *s;

    ASSERT(under->state == STREAM_OPEN);
    s = stream_new(under->loop, -1, &under->peer);
    s->under = under;
    s->tls = tls_connect_over(tls, &transport, s, server_name, alpn);
    s->state = STREAM_HANDSHAKE;
    net_stream_bind(under, &ops, s);
    return s;
}

void net_unread(struct net_stream *s, struct buf *early)
{
    OBJ_CHECK(s, STREAM_MAGIC);
    ASSERT(s->state == STREAM_OPEN);
    if (s->early)
        buf_add(early, buf_data(s->early), buf_len(s->early));
    drop_early(s);
    take_early(s, early);
    buf_fini(early);
    if (s->want_read && read_at_once(s))
        kick(s);
}

void net_stream_bind(struct net_stream *s, const struct net_stream_ops *ops, void *ctx)
{
    OBJ_CHECK(s, STREAM_MAGIC);
    s->ops = ops;
    s->ctx = ctx;
}

/* An error is being reported by a call of the owner: nothing is watched any more. */
static ssize_t give_up(struct net_stream *s)
{
    s->state = STREAM_FAILED;
    update_io(s);
    return NET_ERROR;
}

static bool usable(struct net_stream *s, struct err *e)
{
    OBJ_CHECK(s, STREAM_MAGIC);
    ASSERT(s->state != STREAM_CLOSED);
    if (s->state == STREAM_FAILED)
        err_set(e, ERR_CLOSED, "the connection has failed before");
    return s->state != STREAM_FAILED;
}

static ssize_t read_early(struct net_stream *s, void *p, size_t n)
{
    n = TR_MIN(n, buf_len(s->early));
    memcpy(p, buf_data(s->early), n);
    buf_consume(s->early, n);
    if (!buf_len(s->early))
        drop_early(s);
    return (ssize_t)n;
}

static ssize_t read_clear(struct net_stream *s, void *p, size_t n, struct err *e)
{
    ssize_t got;

    do
        got = recv(s->fd, p, n, 0);
    while (got < 0 && errno == EINTR);
    if (got >= 0)
        return got;
    if (errno == EAGAIN)
        return NET_AGAIN;
    err_errno(e, ERR_CLOSED, errno, "cannot read from the peer");
    return NET_ERROR;
}

/* One read of the session, in the stream's terms. */
static ssize_t read_record(struct net_stream *s, void *p, size_t n, struct err *e)
{
    enum tls_want want = TLS_WANT_READ;
    ssize_t rc = tls_read(s->tls, p, n, &want, e);

    if (rc >= 0)
        return rc;
    if (rc == TLS_AGAIN) {
        s->read_needs = want;
        return NET_AGAIN;
    }
    /* Anybody on the way can make a FIN; only the peer can make close_notify (RFC 8446 §6.1). */
    if (rc == TLS_READ_EOF)
        err_set(e, ERR_CLOSED, "the peer closed the connection without ending TLS");
    return NET_ERROR;
}

/* Read records until the room is full or none is left inside; behind one that was full there are
 * more, most likely, and another turn of the loop for them costs more than the call. What comes
 * behind bytes is held. */
static ssize_t read_tls(struct net_stream *s, void *p, size_t n, struct err *e)
{
    struct err later = {ERR_NONE, ""};
    size_t got = 0;
    ssize_t rc;

    s->read_needs = TLS_WANT_READ;
    n = TR_MIN(n, (size_t)TLS_CALL_MAX);
    do {
        rc = read_record(s, (char *)p + got, n - got, &later);
        if (rc > 0)
            got += (size_t)rc;
    } while (rc > 0 && got < n && (rc == FULL_RECORD || tls_pending(s->tls)));
    if (got == 0 && rc == NET_ERROR && e)
        *e = later;
    if (got == 0)
        return rc;
    s->held_end = rc == 0;
    if (rc == NET_ERROR) {
        s->held_error = XNEW(struct err);
        *s->held_error = later;
    }
    return (ssize_t)got;
}

static ssize_t read_held(struct net_stream *s, struct err *e)
{
    if (s->held_error) {
        if (e)
            *e = *s->held_error;
        XFREE(s->held_error);
        return NET_ERROR;
    }
    s->held_end = false;
    return 0;
}

ssize_t net_read(struct net_stream *s, void *p, size_t n, struct err *e)
{
    ssize_t rc;

    ASSERT(n > 0);
    if (!usable(s, e))
        return NET_ERROR;
    if (s->state == STREAM_HANDSHAKE)
        return NET_AGAIN;
    if (s->read_ended)
        return 0;
    if (s->early)
        return read_early(s, p, n);
    if (s->held_end || s->held_error)
        rc = read_held(s, e);
    else
        rc = s->tls ? read_tls(s, p, n, e) : read_clear(s, p, n, e);
    if (rc == NET_ERROR)
        return give_up(s);
    if (rc == 0)
        s->read_ended = true;
    update_io(s);
    /* Below, too, something may be here that no descriptor will tell of. */
    if (s->under && s->under->want_read && read_at_once(s->under))
        kick(s->under);
    return rc;
}

static ssize_t write_clear(struct net_stream *s, const void *p, size_t n, struct err *e)
{
    ssize_t put;

    do
        put = send(s->fd, p, n, MSG_NOSIGNAL);
    while (put < 0 && errno == EINTR);
    if (put >= 0)
        return put;
    if (errno == EAGAIN)
        return NET_AGAIN;
    err_errno(e, ERR_CLOSED, errno, "cannot write to the peer");
    return NET_ERROR;
}

/* Records leave one by one, which for many at once wakes the peer, and runs the whole of TCP, for
 * each; corked they leave in segments as large as there are. */
static void cork(struct net_stream *s, int on)
{
    if (s->fd >= 0)
        setsockopt(s->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

static ssize_t write_tls(struct net_stream *s, const void *p, size_t n, struct err *e)
{
    size_t put = 0;
    ssize_t rc = 0;
    bool many = n > FULL_RECORD;

    s->write_needs = TLS_WANT_WRITE;
    n = TR_MIN(n, (size_t)TLS_CALL_MAX);
    if (many)
        cork(s, 1);
    while (put < n) {
        rc = tls_write(s->tls, (const char *)p + put, n - put, &s->write_needs, e);
        if (rc < 0)
            break;
        put += (size_t)rc;
    }
    if (many)
        cork(s, 0);
    if (rc == TLS_ERROR)
        return NET_ERROR;
    return put ? (ssize_t)put : NET_AGAIN;
}

ssize_t net_write(struct net_stream *s, const void *p, size_t n, struct err *e)
{
    ssize_t rc;

    if (!usable(s, e))
        return NET_ERROR;
    if (s->write_ended) {
        err_set(e, ERR_INVALID, "the end of our bytes was sent before");
        return NET_ERROR;
    }
    if (n == 0)
        return 0;
    if (s->state == STREAM_HANDSHAKE)
        rc = NET_AGAIN;
    else
        rc = s->tls ? write_tls(s, p, n, e) : write_clear(s, p, n, e);
    if (rc == NET_ERROR)
        return give_up(s);
    s->want_write = rc < (ssize_t)n; /* NET_AGAIN is less, too */
    update_io(s);
    return rc;
}

static ssize_t move(int from, int to, size_t n)
{
    ssize_t moved;

    do
        moved = splice(from, NULL, to, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (moved < 0 && errno == EINTR);
    if (moved < 0 && errno == EAGAIN)
        return NET_AGAIN;
    return moved < 0 ? NET_ERROR : moved;
}

ssize_t net_splice_in(struct net_stream *s, int pipe, size_t n, struct err *e)
{
    ssize_t rc;

    ASSERT(!s->tls && !read_at_once(s));
    if (!usable(s, e))
        return NET_ERROR;
    if (s->read_ended)
        return 0;
    rc = move(s->fd, pipe, n);
    if (rc == NET_ERROR) {
        err_errno(e, ERR_CLOSED, errno, "cannot read from the peer");
        return give_up(s);
    }
    s->read_ended = rc == 0;
    update_io(s);
    return rc;
}

ssize_t net_splice_out(struct net_stream *s, int pipe, size_t n, struct err *e)
{
    ssize_t rc;

    ASSERT(!s->tls && !s->write_ended);
    if (!usable(s, e))
        return NET_ERROR;
    rc = move(pipe, s->fd, n);
    if (rc == NET_ERROR) {
        err_errno(e, ERR_CLOSED, errno, "cannot write to the peer");
        return give_up(s);
    }
    s->want_write = rc < (ssize_t)n;
    update_io(s);
    return rc;
}

void net_want_read(struct net_stream *s, bool on)
{
    OBJ_CHECK(s, STREAM_MAGIC);
    if (s->want_read == on)
        return;
    s->want_read = on;
    if (on && s->state == STREAM_OPEN && read_at_once(s))
        kick(s);
    update_io(s);
}

void net_shutdown_write(struct net_stream *s)
{
    OBJ_CHECK(s, STREAM_MAGIC);
    if (s->write_ended || s->state == STREAM_FAILED || s->state == STREAM_CLOSED)
        return;
    s->write_ended = true;
    s->want_write = false;
    s->want_fin = true;
    if (s->state != STREAM_HANDSHAKE) /* else it goes out when that is done */
        step_fin(s);
    update_io(s);
}

/* Callbacks stop; memory goes at the end of the turn. */
static void retire(struct net_stream *s)
{
    s->state = STREAM_CLOSED;
    if (s->io)
        ev_io_free(&s->io);
    if (!s->kicked) /* else the kick, which cannot be called back, frees */
        ev_defer(s->loop, &s->kick);
}

int net_stream_release(struct net_stream **sp)
{
    struct net_stream *s = *sp;
    int fd;

    *sp = NULL;
    OBJ_CHECK(s, STREAM_MAGIC);
    ASSERT(!s->tls && (s->state == STREAM_NEW || s->state == STREAM_OPEN));
    ASSERT(!s->early);
    fd = s->fd;
    s->fd = -1;
    retire(s);
    return fd;
}

void net_stream_close(struct net_stream **sp, bool hard)
{
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    struct net_stream *s = *sp;

    *sp = NULL;
    if (!s)
        return;
    OBJ_CHECK(s, STREAM_MAGIC);
    ASSERT(s->state != STREAM_CLOSED);
    if (hard && s->fd >= 0) /* else the stream below does it */
        setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    else if (!hard && s->tls && s->state == STREAM_OPEN)
        tls_close_notify(s->tls);
    net_stream_close(&s->under, hard);
    retire(s);
    seat_give_back(s->fd);
    fd_close(&s->fd);
}

bool net_is_tls(const struct net_stream *s)
{
    return s->tls != NULL;
}

bool net_tls_offered(const struct net_stream *s)
{
    return s->tls && tls_offered(s->tls);
}

bool net_refused_certificate(const struct net_stream *s)
{
    return s->tls && tls_refused_certificate(s->tls);
}

struct view net_alpn(const struct net_stream *s)
{
    return s->tls ? tls_alpn(s->tls) : VIEW_NONE;
}

struct view net_server_name(const struct net_stream *s)
{
    return s->tls ? tls_server_name(s->tls) : VIEW_NONE;
}

struct view net_peer_name(const struct net_stream *s)
{
    return s->tls ? tls_peer_name(s->tls) : VIEW_NONE;
}

const struct net_addr *net_peer(const struct net_stream *s)
{
    return &s->peer;
}

int net_fd(const struct net_stream *s)
{
    return s->under ? net_fd(s->under) : s->fd;
}

struct ev_loop *net_loop(const struct net_stream *s)
{
    return s->loop;
}
