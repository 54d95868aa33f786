#include "egress/pipes.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>
#include "base/xmem.h"
#include "rt/fdx.h"

static atomic_int n_pipes; /* of all workers */

static void pipe_free(struct pipe_pair *p)
{
    fd_close(&p->in);
    fd_close(&p->out);
    xfree(p);
    atomic_fetch_sub(&n_pipes, 1);
}

/* A pipe that stays small is no better than copying. */
static struct pipe_pair *pipe_new(void)
{
    struct pipe_pair *p;
    int fds[2];

    if (atomic_fetch_add(&n_pipes, 1) >= PIPES_MAX || pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) {
        atomic_fetch_sub(&n_pipes, 1);
        return NULL;
    }
    p = XNEW(struct pipe_pair);
    p->out = fds[0];
    p->in = fds[1];
    if (fcntl(p->in, F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES)
        return p;
    pipe_free(p);
    return NULL;
}

struct pipe_pair *pipes_take(struct pipes *p)
{
    struct pipe_pair *pipe = p->idle;

    if (!pipe)
        return pipe_new();
    p->idle = pipe->next;
    pipe->next = NULL;
    return pipe;
}

void pipes_give(struct pipes *p, struct pipe_pair *pipe, size_t left)
{
    if (left) {
        pipe_free(pipe);
        return;
    }
    pipe->next = p->idle;
    p->idle = pipe;
}

void pipes_fini(struct pipes *p)
{
    while (p->idle) {
        struct pipe_pair *pipe = p->idle;

        p->idle = pipe->next;
        pipe_free(pipe);
    }
}
