/*
 * A tunnel: two streams joined, bytes passed untouched both ways, each direction with its own end.
 * Small pieces are copied through the stack; bulk between two bare sockets moves by splice(2)
 * through pooled pipes of 1 MiB, when one is free; no buffer is held while it is idle. TCP
 * keep-alive on both.
 */
#ifndef TR_EGRESS_TUNNEL_H
#define TR_EGRESS_TUNNEL_H

#include "base/buf.h"
#include "egress/gate.h"
#include "net/stream.h"

struct tunnels; /* those of one worker */

struct tunnels *tunnels_new(struct ev_loop *loop);
/* End them one by one, spread over `window_ms`, each with the end that its protocol has for it. */
void tunnels_drain(struct tunnels *t, unsigned window_ms);
size_t tunnels_count(const struct tunnels *t); /* any thread */
/* Are nine tenths of `max` connections tunnels, in the whole process, with `more` here that may
 * become some? The rest is for requests. Counts (tunnels_refused_total) and reports whom the
 * listener of that name turns away for it. */
bool tunnels_full(const struct tunnels *t, size_t more, size_t max, const char *listener);
/* End those that the passage's policy would not let in any more (after a reload). */
void tunnels_recheck(struct tunnels *t, const struct policy *p);
void tunnels_free(struct tunnels **t); /* breaks off what is left */

struct tunnel_opts {
    struct net_stream *client, *upstream; /* bound to nobody; the tunnel's from now on */
    struct buf *to_upstream; /* bytes that the client sent already; taken over, may be NULL */
    struct buf *to_client;   /* the same from upstream */
    struct passage *passage; /* the tunnel's: started now, ended with it */
};
/* Runs by itself until both sides have ended, one fails, or nothing moves for the gate's idle time.
 * A side's end of bytes goes on as a half-close. */
void tunnel_start(struct tunnels *t, const struct tunnel_opts *o);

#endif
