/* Pipes of 1 MiB for splice(2), kept by a worker. The system gives an unprivileged user 64 of that
 * size, all workers together: past PIPES_MAX of them there is none to have, and who asks copies
 * instead. */
#ifndef TR_EGRESS_PIPES_H
#define TR_EGRESS_PIPES_H

#include <stddef.h>

enum { PIPES_MAX = 48, PIPE_BYTES = 1024 * 1024 };

struct pipe_pair {
    struct pipe_pair *next; /* ours */
    int in, out;            /* write here, read there */
};

struct pipes {
    struct pipe_pair *idle;
};

struct pipe_pair *pipes_take(struct pipes *p); /* or NULL */
/* An empty one is kept for the next; one with bytes in it is closed. */
void pipes_give(struct pipes *p, struct pipe_pair *pipe, size_t left);
void pipes_fini(struct pipes *p);

#endif
