/* What the log path is told by the configuration. A value: made whole, never changed, replaced at
 * reload. */
#ifndef TR_LOGS_SETTINGS_H
#define TR_LOGS_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include "logs/stream.h"
#include "net/fetch.h"

enum upload_logs { UPLOAD_FOLLOW, UPLOAD_GOOGLEAPIS, UPLOAD_HARNESS };

struct logs_settings {
    char *base;       /* harness.url without a trailing slash */
    char *public_url; /* in front of tickets, or NULL: scheme and host the client used */
    enum upload_logs upload;
    struct fetch_peer harness; /* how to reach the log service */
    struct fetch_peer store;   /* how to reach the object store: no client certificate */
    struct stream_rules rules;
    uint64_t body_max;   /* of a PUT /stream, decoded */
    uint64_t expand_max; /* what a compressed one may expand to */
    uint64_t blob_max;
    uint64_t memory;      /* for the bodies of accepted records */
    uint64_t streams_max; /* known at a time; not to be changed by a reload */
    unsigned share;       /* of one account, percent; likewise */
    unsigned timeout_ms;  /* of one delivery */
    bool tail;            /* streams may be followed over the control socket */
    bool
        gzip; /* upload gzip to object stores that were found to read it back right; default true */
};

void logs_settings_free(struct logs_settings *s);

#endif
