/*
 * Listening descriptors that were there before us: of a process we take over from, or of a
 * supervisor that holds them (socket activation). Each is used for the listener of its name, or of
 * its address; what is not used is closed.
 */
#ifndef TR_APP_SOCKETS_H
#define TR_APP_SOCKETS_H

#include <stdbool.h>
#include "app/options.h"
#include "base/attrs.h"
#include "net/addr.h"

struct socket_had {
    char *name;         /* the listener's, or what the supervisor calls it; may be empty */
    char *address;      /* as that listener was configured; empty: not known */
    struct net_addr at; /* where it is bound */
    int fd;             /* -1: taken */
    bool only;          /* the supervisor's: no further ones may be bound beside it */
};

struct sockets {
    struct socket_had *had;
    size_t n;
};

/* Take a descriptor over. -1: it listens to no TCP port (`e`; it stays the caller's). */
int sockets_add(struct sockets *s, struct view name, struct view address, int fd, bool only,
                struct err *e) TR_MUST_USE;

/*
 * From the environment (LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES: sd_listen_fds(3)), which is cleared
 * so that no child takes them for its own. What is no TCP listener is closed, with a warning.
 */
void sockets_from_supervisor(struct sockets *s);

struct sockets_found {
    int *fds; /* the array and the descriptors are the caller's */
    size_t n, had;
    struct net_addr at; /* where they listen */
    bool only;          /* see struct socket_had */
};

/* The descriptors of one listener: those that were there, in their order, or a first one. 0, or -1
 * and `e`. */
int sockets_open(struct sockets *s, const struct config_listen *l, struct sockets_found *out,
                 struct err *e) TR_MUST_USE;

/* As many as are wanted at least. More are bound beside the first, so that the system spreads
 * connections over all; where that may not be they are duplicated: several loops then watch one
 * queue. To be called when they are about to be accepted from. 0, or -1 and `e`. */
int sockets_widen(struct sockets_found *f, size_t want, struct err *e) TR_MUST_USE;

void sockets_found_fini(struct sockets_found *f); /* closes them */

/* Close those that nobody took. `say`: with a warning for each. */
void sockets_fini(struct sockets *s, bool say);

#endif
