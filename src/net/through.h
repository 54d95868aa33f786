/*
 * Connecting through a parent proxy: dial it, TLS to it if it wants that, ask it for the
 * destination by CONNECT (RFC 9110 §9.3.6, RFC 9112 §3.2.3), then TLS to the destination through
 * its tunnel. Used by net_connect_start, which is for everybody else.
 */
#ifndef TR_NET_THROUGH_H
#define TR_NET_THROUGH_H

#include "net/connect.h"

struct net_through;

/* `o->parent` is the one to take, bypass or not; `o` as for net_connect_start otherwise, and as
 * that one this never calls back before it returns and gives a stream or an error (which names the
 * parent, but not the destination). The net_through is gone when `fn` is called. */
struct net_through *net_through_start(struct net_resolver *r, struct ev_loop *loop,
                                      const struct net_connect_opts *o, net_connected_fn fn,
                                      void *ctx);
void net_through_cancel(struct net_through **t); /* NULL is fine */

#endif
