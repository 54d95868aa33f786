/*
 * Listeners. Each worker opens its own with SO_REUSEPORT, so that the kernel spreads connections
 * and no lock is shared.
 */
#ifndef TR_NET_LISTEN_H
#define TR_NET_LISTEN_H

#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "ev/loop.h"
#include "net/addr.h"

struct net_listener;

/* `fd` is non-blocking, close-on-exec, TCP_NODELAY, with TCP keep-alive (fd_keepalive), and the
 * callee's. */
typedef void (*net_accept_fn)(void *ctx, int fd, const struct net_addr *peer);

/* Open a listening descriptor (not yet watched), so that start-up and reload can fail before
 * anything changes. Returns the descriptor or -1. Port 0 picks a free one; `*bound` (may be NULL)
 * tells it. `backlog` 0: the system's most. [::] listens to IPv6 only. */
int net_listen_fd(const struct net_addr *at, int backlog, struct net_addr *bound,
                  struct err *e) TR_MUST_USE;

/* Make a listening descriptor of somebody else's one: -1 if it is no TCP listener. It gets what
 * net_listen_fd gives it; `*bound` (may be NULL) tells where it listens. */
int net_listen_adopt(int fd, struct net_addr *bound, struct err *e) TR_MUST_USE;

/* Watch a listening descriptor (owned from now on). When descriptors run out accepting pauses for
 * 100 ms and goes on by itself; as long as that does not help, each further pause begins with the
 * reset of one connection, so that its client can go elsewhere. */
struct net_listener *net_listener_new(struct ev_loop *loop, int fd, net_accept_fn fn, void *ctx);
void net_listener_pause(struct net_listener *l, bool paused);

/* Accepts what is queued first, then closes. Safe in its own callback. */
void net_listener_free(struct net_listener **l);

/* Closes without accepting anything: another process has the same descriptor and accepts what is
 * queued. Not in its own callback. */
void net_listener_leave(struct net_listener **l);

int net_listener_fd(const struct net_listener *l); /* stays the listener's */

#endif
