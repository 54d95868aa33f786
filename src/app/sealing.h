/* The keys of the configuration that what is kept on disk is sealed with. */
#ifndef TR_APP_SEALING_H
#define TR_APP_SEALING_H

#include "app/options.h"
#include "crypto/envelope.h"

/* Read spool.key and spool.old-keys. `*out` is NULL if neither is given; otherwise the caller's, to
 * be freed after the spool that uses its box. -1: `e` names the setting. */
int sealing_load(const struct config *c, struct envelope **out, struct err *e) TR_MUST_USE;

/* No core dumps and no debuggers of the same user, unless debug.core-dumps allows them: memory
 * holds tokens and keys. A dump by hand of root still works. */
void sealing_hide_memory(const struct config *c);

#endif
