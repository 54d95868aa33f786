/* Commands about what passes the gates: which tunnels stand, and what was denied. */
#ifndef TR_APP_PASSAGES_H
#define TR_APP_PASSAGES_H

#include "rt/command.h"

/* tunnels: search, by, limit. Each worker tells of its own in its own thread, and the answer is
 * given in the main thread when all have. `ctx` is the gateway. */
void passages_run_tunnels(void *gateway, struct command_call *call);

/* denials: search, limit. */
void passages_run_denials(void *gateway, struct command_call *call);

#endif
