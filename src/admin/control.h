/*
 * The control socket: an HTTP server on a Unix socket that only its owner and root can open; who
 * can may do everything. It serves the commands that layers registered (rt/command.h) under
 * /api/v1/, reads by GET and actions by POST, and the admin listener's pages. The one request that
 * asks for an Upgrade is the owner's.
 */
#ifndef TR_ADMIN_CONTROL_H
#define TR_ADMIN_CONTROL_H

#include <stdbool.h>
#include <sys/types.h>
#include "base/attrs.h"
#include "base/err.h"
#include "ev/loop.h"
#include "http/server.h"

struct control;

/* Who is at the other end, as the system says. */
struct control_peer {
    uid_t uid;
    pid_t pid;
};

struct control_opts {
    const char *path; /* of the socket */
    bool replace;     /* take the name over from who listens there: see net_listen_unix */
    /* A request with Upgrade: switch it, detach it (http_detach), or answer. NULL: 501.
     * `peer` is valid while the exchange is, and until its connection is detached. */
    void (*upgrade)(void *ctx, struct http_exchange *ex, const struct control_peer *peer);
    void *ctx;
};

/* Belongs to the loop's thread, in which commands run. NULL: `e`. */
struct control *control_open(struct ev_loop *loop, const struct control_opts *o,
                             struct err *e) TR_MUST_USE;
const char *control_path(const struct control *c);
/* Closes all connections and removes the socket, if the name is still ours. Calls that are under
 * way are abandoned. */
void control_close(struct control **c);

#endif
