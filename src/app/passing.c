#include "app/passing.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/bug.h"
#include "base/wire.h"
#include "base/xmem.h"
#include "rt/clock.h"
#include "rt/fdx.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

enum { HEAD = 6, SEND_MS = 5000, READ_BYTES = 16384 };

/* Room for the control message, aligned as the kernel wants it. */
union rights {
    struct cmsghdr head;
    char room[CMSG_SPACE(PASSING_FDS * sizeof(int))];
};

void passing_put_hello(struct str *out)
{
    wire_put_u32(out, PASSING_VERSION);
    wire_put_u64(out, (uint64_t)getpid());
    wire_put_view(out, VIEW_LIT(PACKAGE_VERSION));
}

int passing_get_hello(struct view payload, struct passing_hello *out, struct wire *rest,
                      struct err *e)
{
    struct wire w = wire_of(payload);
    uint32_t version = wire_u32(&w);

    out->pid = wire_u64(&w);
    out->program = wire_view(&w);
    if (w.failed)
        return err_set(e, ERR_INVALID, "what the other process says makes no sense");
    if (version != PASSING_VERSION)
        return err_set(e, ERR_INVALID,
                       "the other process (%.*s) hands over in another way (%u, not %u); restart "
                       "instead",
                       (int)TR_MIN(out->program.n, (size_t)40), out->program.p, version,
                       (unsigned)PASSING_VERSION);
    if (rest)
        *rest = w;
    return 0;
}

/* --- sending ------------------------------------------------------------------------------ */

static int wait_for_room(int fd, int64_t until, struct err *e)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int64_t left = (until - clock_mono_ns()) / NS_PER_MS;

    if (left <= 0 || (poll(&p, 1, (int)left) == 0))
        return err_set(e, ERR_TIMEOUT, "the other process takes nothing");
    return 0;
}

static void attach(struct msghdr *m, union rights *room, const int *fds, size_t n)
{
    struct cmsghdr *c = &room->head;

    m->msg_control = room;
    m->msg_controllen = CMSG_SPACE(n * sizeof(int));
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
}

int passing_send(int fd, enum passing_type type, struct view payload, const int *fds, size_t n,
                 struct err *e)
{
    const int64_t until = clock_mono_ns() + SEND_MS * NS_PER_MS;
    struct str bytes = STR_INIT;
    union rights room = {0};
    size_t sent = 0;
    int rc = 0;

    ASSERT(n <= PASSING_FDS && payload.n <= PASSING_PAYLOAD);
    wire_put_u32(&bytes, (uint32_t)payload.n);
    wire_put_u8(&bytes, (uint8_t)type);
    wire_put_u8(&bytes, (uint8_t)n);
    str_addv(&bytes, payload);
    while (rc == 0 && sent < bytes.n) {
        struct iovec v = {bytes.p + sent, bytes.n - sent};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
        ssize_t got;

        if (n && sent == 0)
            attach(&m, &room, fds, n);
        got = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (got > 0)
            sent += (size_t)got;
        else if (errno == EAGAIN)
            rc = wait_for_room(fd, until, e);
        else if (errno != EINTR)
            rc = err_errno(e, ERR_CLOSED, errno, "the other process cannot be told");
    }
    str_fini(&bytes);
    return rc;
}

/* --- receiving ---------------------------------------------------------------------------- */

static void keep_fds(struct passing_in *in, struct cmsghdr *c)
{
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int), i;
    int fd;

    for (i = 0; i < n; i++) {
        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
        if (in->n_fds == in->cap_fds) {
            in->cap_fds = in->cap_fds ? 2 * in->cap_fds : 16;
            in->fds = xrealloc(in->fds, in->cap_fds * sizeof(*in->fds));
        }
        in->fds[in->n_fds++] = fd;
    }
}

/* What is taken makes room. */
static void compact(struct passing_in *in)
{
    if (!in->at)
        return;
    memmove(in->bytes.p, in->bytes.p + in->at, in->bytes.n - in->at);
    in->bytes.n -= in->at;
    in->at = 0;
}

int passing_read(struct passing_in *in, int fd, struct err *e)
{
    union rights room;
    struct iovec v;
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &room};
    struct cmsghdr *c;
    ssize_t n;

    compact(in);
    str_reserve(&in->bytes, READ_BYTES);
    v = (struct iovec){in->bytes.p + in->bytes.n, READ_BYTES};
    m.msg_controllen = sizeof(room);
    n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0)
        return err_errno(e, ERR_CLOSED, errno, "the other process is gone");
    for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            keep_fds(in, c);
    }
    if (n == 0)
        return err_set(e, ERR_CLOSED, "the other process is gone");
    if (m.msg_flags & MSG_CTRUNC || in->n_fds > PASSING_FDS_MAX)
        return err_set(e, ERR_LIMIT, "descriptors were lost; raise the limit of open files");
    in->bytes.n += (size_t)n;
    return 1;
}

int passing_next(struct passing_in *in, struct passing_message *m, struct err *e)
{
    struct view left = view_from(str_view(&in->bytes), in->at);
    struct wire w = wire_of(left);
    uint32_t n = wire_u32(&w);

    m->type = (enum passing_type)wire_u8(&w);
    m->n_fds = wire_u8(&w);
    if (w.failed)
        return 0;
    if (n > PASSING_PAYLOAD || m->n_fds > PASSING_FDS) {
        m->n_fds = 0;
        return err_set(e, ERR_INVALID, "what the other process says makes no sense");
    }
    if (left.n < HEAD + (size_t)n)
        return 0;
    if (in->n_fds < m->n_fds) {
        m->n_fds = 0;
        return err_set(e, ERR_INVALID, "the other process did not send what it announced");
    }
    m->payload = view_of(left.p + HEAD, n);
    if (m->n_fds) {
        memcpy(m->fds, in->fds, m->n_fds * sizeof(int));
        in->n_fds -= m->n_fds;
        memmove(in->fds, in->fds + m->n_fds, in->n_fds * sizeof(int));
    }
    in->at += HEAD + n;
    return 1;
}

int passing_wait(struct passing_in *in, int fd, int64_t ms, struct passing_message *m,
                 struct err *e)
{
    const int64_t until = clock_mono_ns() + ms * NS_PER_MS;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int rc = passing_next(in, m, e);

    while (rc == 0) {
        int64_t left = (until - clock_mono_ns()) / NS_PER_MS;

        if (left <= 0 || poll(&p, 1, (int)left) == 0)
            return err_set(e, ERR_TIMEOUT, "the other process says nothing");
        if (passing_read(in, fd, e) < 0)
            return -1;
        rc = passing_next(in, m, e);
    }
    return rc < 0 ? -1 : 0;
}

void passing_close_fds(struct passing_message *m)
{
    size_t i;

    for (i = 0; i < m->n_fds; i++)
        fd_close(&m->fds[i]);
    m->n_fds = 0;
}

void passing_fini(struct passing_in *in)
{
    size_t i;

    for (i = 0; i < in->n_fds; i++)
        fd_close(&in->fds[i]);
    xfree(in->fds);
    str_fini(&in->bytes);
    *in = (struct passing_in){0};
}
