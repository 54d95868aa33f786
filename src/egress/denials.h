/*
 * The last denials, for people who ask why something does not work: what was refused, and what
 * would have been in report mode. As many as fit a page, those that repeat counted as one. The
 * audit trail is the record of them; this is kept in memory and begins anew with the process.
 *
 * For any thread. Nothing of it is on the way of what is allowed.
 */
#ifndef TR_EGRESS_DENIALS_H
#define TR_EGRESS_DENIALS_H

#include <stdbool.h>
#include <stddef.h>
#include "base/str.h"

enum {
    DENIALS_KEPT = 256,
    /* Who asks for one destination after the other would push those of all others out. */
    DENIALS_OF_CLIENT = 64,
};

/* Texts are the caller's; NULL is fine. */
struct denial {
    const char *client; /* address without its port */
    const char *identity, *listener, *kind, *destination, *rule, *reason;
    bool would; /* it was let through, in report mode */
};

/* Remember it; one that is there already (all of it the same) is counted. */
void denials_note(const struct denial *d);

/* Append {"denied": N, "would_deny": N, "denials": [...]}: counts as in the metrics, then the
 * newest first, `limit` at most, of those that have `search` (letters of any case; NULL: all) in
 * one of their texts. */
void denials_report(struct str *out, const char *search, size_t limit);

/* Forget all. Tests only. */
void denials_clear(void);

#endif
