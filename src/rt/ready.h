/*
 * Readiness: whether this process should be given work now. Layers register checks of their own;
 * the admin listener asks them all. A slow or unreachable upstream is no reason to be unready:
 * taking records over from clients meanwhile is what a gateway is for.
 */
#ifndef TR_RT_READY_H
#define TR_RT_READY_H

#include <stdbool.h>
#include "base/err.h"
#include "base/str.h"

/* True if ready; else `why->text` gets the reason, one line without secrets. Runs in the thread
 * that asks, must not block, and must not add or remove checks. */
typedef bool (*ready_fn)(void *ctx, struct err *why);

/* Register; `name` is copied. Any thread. */
void ready_add(const char *name, ready_fn fn, void *ctx);

/* Take a check back: it is not running any more when this returns. One that is not there is fine.
 * Any thread. */
void ready_remove(ready_fn fn, void *ctx);

/* True if every check is (none: true). Else one line "NAME: REASON\n" for each that is not is
 * appended to `reasons` (may be NULL), in the order of registration. Any thread. */
bool ready_check(struct str *reasons);

#endif
