/*
 * What two tailrace processes say to one another while one takes over from the other: messages over
 * a Unix stream socket, each with a type, a payload and up to 253 descriptors (SCM_RIGHTS,
 * unix(7)).
 *
 *   length of the payload (u32, little-endian) | type (u8) | number of descriptors (u8) | payload
 *
 * The descriptors travel with the first byte of the message. The order of messages is in
 * handover.h. Both ends are of one user; what comes is checked all the same, since they may be of
 * different versions.
 */
#ifndef TR_APP_PASSING_H
#define TR_APP_PASSING_H

#include <stddef.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"
#include "base/wire.h"

enum {
    PASSING_VERSION = 1,
    PASSING_FDS = 253,       /* the system's SCM_MAX_FD */
    PASSING_PAYLOAD = 65536, /* more is no message of ours */
    PASSING_FDS_MAX = 65536, /* unclaimed in all */
};

enum passing_type {
    PASSING_HELLO = 1,  /* new: version (u32), pid (u64), program's version (view) */
    PASSING_OFFER,      /* old: version, pid, program's version, spool directory (view) */
    PASSING_LISTENERS,  /* old: for each descriptor name, address as configured (views), whether it
                           is a supervisor's (u8) */
    PASSING_OFFERED,    /* old: that was all */
    PASSING_READY,      /* new: I can serve with them */
    PASSING_RELEASED,   /* old: I accept nothing and the spool is free */
    PASSING_SERVING,    /* new: I accept, and have the spool */
    PASSING_CONNECTION, /* old: one descriptor: somebody's exchange, see onward.h */
    PASSING_FAILED,     /* either: it does not go on; why (view) */
};

/* The beginning of HELLO and OFFER. */
struct passing_hello {
    uint64_t pid;
    struct view program; /* its version */
};
void passing_put_hello(struct str *out);
/* `*rest` (may be NULL) is what follows. -1: another version of this protocol, or nonsense. */
int passing_get_hello(struct view payload, struct passing_hello *out, struct wire *rest,
                      struct err *e) TR_MUST_USE;

/* Send one message, waiting up to 5 s for room. Any thread; not two at once on one socket. The
 * descriptors stay the caller's. */
int passing_send(int fd, enum passing_type type, struct view payload, const int *fds, size_t n,
                 struct err *e);

/* What has come in on one socket and was not taken yet. Zeroed before first use. */
struct passing_in {
    struct str bytes;
    size_t at; /* of them, taken */
    int *fds;
    size_t n_fds, cap_fds;
};

struct passing_message {
    enum passing_type type;
    struct view payload;  /* valid until the next passing_read */
    int fds[PASSING_FDS]; /* the callee's */
    size_t n_fds;
};

/* Read what is there. 1: something came; 0: nothing now; -1: the other end is gone, or broke the
 * rules (`e`). */
int passing_read(struct passing_in *in, int fd, struct err *e) TR_MUST_USE;
/* The next whole message. 1: `*m`; 0: not yet; -1: it makes no sense. */
int passing_next(struct passing_in *in, struct passing_message *m, struct err *e) TR_MUST_USE;
/* Both, waiting for at most `ms`. 0: `*m`; -1: `e` (ERR_TIMEOUT: nothing came). */
int passing_wait(struct passing_in *in, int fd, int64_t ms, struct passing_message *m,
                 struct err *e) TR_MUST_USE;
void passing_close_fds(struct passing_message *m); /* those that nobody took (set to -1) */
void passing_fini(struct passing_in *in);          /* closes what was not taken */

#endif
