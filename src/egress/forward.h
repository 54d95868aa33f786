/* Forwards: listeners with a fixed destination, for what speaks no HTTP (a step container's
 * database beyond the boundary). Bytes pass untouched, both ways, as in a tunnel. */
#ifndef TR_EGRESS_FORWARD_H
#define TR_EGRESS_FORWARD_H

#include "egress/gate.h"
#include "egress/tunnel.h"

struct forward;

struct forward_opts {
    const char *listener; /* its name, and the rule's: "forward:NAME" */
    const char *to;       /* "host:port" */
    struct gate *gate;
    struct tunnels *tunnels;
    struct ev_loop *loop;
    unsigned max_connections;
};
struct forward *forward_new(const struct forward_opts *o);
void forward_accepted(void *forward, int fd, const struct net_addr *peer); /* net_accept_fn */
void forward_configure(struct forward *f, const char *to);
size_t forward_waiting(const struct forward *f); /* clients whose destination is being dialled */
void forward_free(struct forward **f);

#endif
