/*
 * The audit trail: one structured entry for each tunnel and relay that passes the gate, or does
 * not. A tunnel leaves an entry when it starts, one at each interval while it lasts, and one at its
 * end; a relay leaves one at its end, or like a tunnel when it lasts longer than the interval.
 * Entries go to a file or to syslog, as logfmt or JSON; never a query, a field, a token or a body.
 *
 * An entry is not worth stopping traffic for: when the file cannot be written entries are dropped,
 * counted (audit_dropped_total) and reported.
 */
#ifndef TR_EGRESS_AUDIT_H
#define TR_EGRESS_AUDIT_H

#include <stdint.h>
#include "base/err.h"
#include "base/view.h"
#include "rt/log.h"

enum audit_to { AUDIT_LOG /* among the program's own log */, AUDIT_FILE, AUDIT_SYSLOG, AUDIT_NONE };

struct audit_opts {
    enum audit_to to;
    const char
        *file; /* AUDIT_FILE: created 0640, appended. AUDIT_SYSLOG: the socket; NULL: /dev/log */
    enum log_format format;
};
/* Process-wide, any thread. Called again at each reload: opens the file anew, so that it may have
 * been rotated. -1: the old target stays. */
int audit_open(const struct audit_opts *o, struct err *e) TR_MUST_USE;

/* The same in two steps, so that a reload can fail before anything has changed. `*fd` is for the
 * second, or for audit_discard. */
int audit_prepare(const struct audit_opts *o, int *fd, struct err *e) TR_MUST_USE;
void audit_switch(const struct audit_opts *o, int fd);
void audit_discard(int fd);

/* At the end, when nobody writes entries any more. */
void audit_close(void);

enum audit_event { AUDIT_START, AUDIT_INTERVAL, AUDIT_END, AUDIT_DENY };

struct audit_entry {
    enum audit_event event;
    uint64_t id;      /* the same in all entries of one passage; unique in this process */
    const char *kind; /* "tunnel", "relay", "websocket", "forward", "intercept", "splice",
                       * "grpc" */
    const char *listener;
    const char *client;       /* address and port */
    struct view identity;     /* empty: nobody */
    const char *asked;        /* destination as normalised, "host:port" */
    struct view server_name;  /* of a ClientHello, if it was read */
    struct view method, path; /* relays; path without its query */
    const char *resolved;     /* "A,B"; NULL: was not */
    const char *dialled;      /* address and port; NULL: was not */
    const char *via;          /* parent proxy; NULL: direct */
    const char *verdict;      /* "allow", "deny", "would-deny" */
    const char *rule, *reason;
    int status;      /* answered to the client; 0: none */
    int grpc_status; /* kind "grpc": of the call; -1: none was seen */
    uint64_t bytes_up, bytes_down;
    int64_t start_ns; /* wall */
    int64_t duration_ns;
    uint64_t suppressed; /* DENY: of the same client, that were left out before this one */
    const char *error;   /* END: what was wrong with upstream; NULL: nothing */
    const char *end;     /* END: "client", "upstream", "idle", "drain", "refused", ... */
};
void audit_write(const struct audit_entry *a);

#endif
