/* Listeners on Unix sockets, for this machine's admins. */
#ifndef TR_NET_LISTEN_UNIX_H
#define TR_NET_LISTEN_UNIX_H

#include <stdbool.h>
#include <sys/types.h>
#include "base/attrs.h"
#include "base/err.h"

/*
 * Open a listening descriptor at `path`, mode 0600: non-blocking, close-on-exec, for
 * net_listener_new. What a process that is gone has left there is replaced; a socket that somebody
 * answers is refused with ERR_UNAVAIL, naming its process, unless `replace`: then the name moves to
 * the new one at once (rename), and what is queued on the old one stays its own. Anything at `path`
 * that is no socket is ERR_INVALID. The path may be longer than a socket's address. Returns the
 * descriptor or -1.
 */
int net_listen_unix(const char *path, int backlog, bool replace, struct err *e) TR_MUST_USE;

/* What stands at `path`, to tell later whether it is still ours. */
struct net_unix_name {
    dev_t dev;
    ino_t ino;
};
int net_unix_name(const char *path, struct net_unix_name *out);
/* Remove it if it is still this one. */
void net_unix_unlink(const char *path, const struct net_unix_name *name);

/* A connection to the socket at `path`, blocking, close-on-exec; -1: `e` (ERR_NOTFOUND, ERR_DENIED,
 * ERR_CLOSED: nobody listens, or ERR_IO). */
int net_connect_unix(const char *path, struct err *e) TR_MUST_USE;

/* Who is at the other end: user and process ids as of its connect or listen. -1: not known. */
int net_unix_peer(int fd, uid_t *uid, pid_t *pid);

#endif
