/* What a client's request line and fields say: which call it is, of which stream, with which
 * credential (HP §1.2, §1.3, §1.11). */
#ifndef TR_LOGS_TARGET_H
#define TR_LOGS_TARGET_H

#include <stdbool.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"
#include "http/message.h"
#include "logs/cred.h"

enum {
    TARGET_MAX_ACCOUNT = 256, /* decoded bytes; Harness's are 22 */
    TARGET_MAX_KEY = 4096,    /* decoded bytes; real keys have a few hundred */
};

enum target_kind {
    TARGET_OTHER, /* not for the log path: relay it */
    TARGET_OPEN,
    TARGET_LINES,
    TARGET_CLOSE,
    TARGET_BLOB,
    TARGET_LINK,
    TARGET_TICKET, /* PUT to a link that we handed out */
};

/* Which call is it? `prefix`: the path up to and with "/log-service"; `ticket`: its text. Views
 * point into the target. */
enum target_kind target_kind(struct view method, struct view target, struct view *prefix,
                             struct view *ticket);

struct target {
    struct str account, key; /* decoded */
    struct str query;        /* as spelled, without credential and without what only a close has */
    struct str close_query;  /* as spelled, without credential */
    enum cred_kind cred_kind;
    struct str secret; /* the credential as it is to go upstream */
    bool snapshot, covers;
};

/* Read query and fields. -1 with `e` a text for `error_msg`: what is missing, doubled, too long or
 * not allowed in a name. */
int target_parse(const struct http_request *req, struct target *t, struct err *e) TR_MUST_USE;
void target_fini(struct target *t);

#endif
