/*
 * The tunnels that stand, for people: one by one, or counted by where they lead, who has them, or
 * which rule let them in. Each worker tells of its own (tunnel_report_take, in its thread); what
 * they told is joined (tunnel_report_join).
 */
#ifndef TR_EGRESS_TUNNEL_REPORT_H
#define TR_EGRESS_TUNNEL_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include "base/str.h"
#include "egress/gate.h"

enum tunnel_by {
    TUNNEL_EACH,
    TUNNEL_BY_DESTINATION,
    TUNNEL_BY_IDENTITY,
    TUNNEL_BY_CLIENT,
    TUNNEL_BY_RULE
};

enum {
    TUNNEL_REPORT_MAX = 1000, /* tunnels or groups in an answer */
    /* Groups that a worker keeps apart: clients choose destinations, one for each tunnel if they
     * like. The rest are counted together. */
    TUNNEL_GROUPS_MAX = 4096,
};

struct tunnel_ask {
    enum tunnel_by by;
    const char *search; /* in any of its texts, letters of any case; NULL: all */
    size_t limit;       /* 1 to TUNNEL_REPORT_MAX */
};

/* "destination", "identity", "client", "rule"; NULL: TUNNEL_EACH. -1: none of these. */
int tunnel_by_parse(const char *text, enum tunnel_by *by) TR_MUST_USE;

struct tunnel_part; /* what one worker told */

/* Own thread of the gate. NULL: no tunnels. */
struct tunnel_part *tunnel_report_take(struct gate *g, const struct tunnel_ask *ask);
void tunnel_part_free(struct tunnel_part **p);

/*
 * Append the answer: {"open": N, "matched": N, "tunnels": [...]}, the newest first, or {"open",
 * "groups": [...]}, the largest first. Parts (NULLs are fine) stay the caller's.
 */
void tunnel_report_join(struct tunnel_part *const *parts, size_t n, const struct tunnel_ask *ask,
                        struct str *out);

#endif
