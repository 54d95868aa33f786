/*
 * What is refused because a budget is used up: counted by reason, and logged so that whoever uses
 * it up can be found; and the rule by which one client or account cannot use up what others need.
 */
#ifndef TR_RT_OVERLOAD_H
#define TR_RT_OVERLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include "base/view.h"

enum overload_reason {
    OVERLOAD_CONNECTIONS,    /* limits.connections */
    OVERLOAD_CLIENT,         /* ... and this client has its share of them */
    OVERLOAD_DESCRIPTORS,    /* what is left is kept for spool and delivery */
    OVERLOAD_MEMORY,         /* bodies: memory.limit */
    OVERLOAD_BUFFERS,        /* connections: memory.connections */
    OVERLOAD_STREAMS,        /* limits.streams */
    OVERLOAD_STREAMS_SHARE,  /* ... and this account has its share of them */
    OVERLOAD_SPOOL,          /* lines only: spool.limit */
    OVERLOAD_SPOOL_SHARE,    /* ... and this account has its share of it */
    OVERLOAD_SPOOL_UNPROVEN, /* ... by credentials that upstream has never taken */
    OVERLOAD_QUEUE,          /* one stream has too many lines of its own on their way to the disk */
    OVERLOAD_REASONS
};

/* Something was refused. `who`: the client's address, as text, or empty; `account`: empty if it is
 * not about one. Any thread. */
void overload_refused(enum overload_reason reason, const char *who, struct view account);

/*
 * The last tenth of every budget is for those who have less than their share of it: may somebody
 * who has `mine` of `used` out of `limit` take more? `percent` is the share (limits.share); 100:
 * who comes first may have all.
 */
bool overload_admits(uint64_t used, uint64_t mine, uint64_t limit, unsigned percent);

#endif
