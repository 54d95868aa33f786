/* Taking over from a running process: the new one's side of handover.h. */
#ifndef TR_APP_TAKEOVER_H
#define TR_APP_TAKEOVER_H

#include <stdbool.h>
#include "base/attrs.h"
#include "base/err.h"

/* The request over the control socket, an Upgrade of HTTP/1.1 to what passing.h describes. */
#define TAKEOVER_PATH     "/takeover"
#define TAKEOVER_PROTOCOL "tailrace-takeover/1"

struct gateway;
struct takeover;

/* Ask for it; g->inherited is filled. The configuration is loaded, nothing is opened yet. NULL and
 * `e` on failure: the old process goes on. Blocks, as do the next two. */
struct takeover *takeover_ask(struct gateway *g, struct err *e) TR_MUST_USE;
/* Everything is ready but the spool: returns 0 when that is free. */
int takeover_wait(struct takeover *t, struct err *e) TR_MUST_USE;
/* Did the old process end without a word? Its spool is then free in a moment, if not yet. */
bool takeover_is_orphan(const struct takeover *t);
/* We accept connections. From now on the old process's exchanges come in by the main loop. */
int takeover_serving(struct takeover *t, struct err *e) TR_MUST_USE;
/* It does not go on: tell the old process why. */
void takeover_failed(struct takeover *t, const struct err *why);
void takeover_free(struct takeover **t);

#endif
