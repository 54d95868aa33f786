/* A loop for targets that talk over sockets: it turns as often as is asked for. */
#ifndef TR_FUZZ_TURNS_H
#define TR_FUZZ_TURNS_H

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "ev/loop.h"
#include "fuzz/target.h"

struct turns {
    struct ev_loop *loop;
    struct ev_timer *timer;
    unsigned left;
};

static void turns_due(void *ctx)
{
    struct turns *t = ctx;

    if (t->left && --t->left)
        ev_timer_arm(t->timer, 0);
    else
        ev_loop_stop(t->loop);
}

static inline void turns_init(struct turns *t)
{
    t->loop = ev_loop_new("fuzz");
    t->timer = ev_timer_new(t->loop, turns_due, t);
}

static inline void turns_run(struct turns *t, unsigned n)
{
    t->left = n;
    ev_timer_arm(t->timer, 0);
    ev_loop_run(t->loop);
}

/* Both ends non-blocking; the second has room for more than any input. */
static inline void turns_pair(int fd[2])
{
    const int room = 1 << 20;

    ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
    ASSERT(setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)) == 0);
}

/* Send what fits of it; who is gone takes nothing. */
static inline void turns_send(int fd, struct view piece)
{
    ssize_t n;

    while (piece.n && (n = send(fd, piece.p, piece.n, MSG_NOSIGNAL)) > 0)
        piece = view_from(piece, (size_t)n);
}

/* Read all that is there: the number of bytes. */
static inline size_t turns_drain(int fd)
{
    static char bytes[65536];
    size_t all = 0;
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
        all += (size_t)n;
    return all;
}

/* The next piece of the input, of a length that `cut` makes up; 0: all at once. */
static inline struct view turns_piece(struct view *in, uint8_t cut)
{
    size_t n = cut ? TR_MIN(in->n, 1 + (in->n * 31 + cut) % (2u * cut)) : in->n;
    struct view piece = view_of(in->p, n);

    *in = view_from(*in, n);
    return piece;
}

#endif
