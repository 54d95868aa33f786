/* Starting our own program anew, to take over from us by a socket that it inherits. */
#ifndef TR_APP_SUCCESSOR_H
#define TR_APP_SUCCESSOR_H

#include "app/options.h"
#include "base/attrs.h"
#include "base/err.h"

struct successor;

/* Call it early: remembers the path of the program, which an upgrade puts another one at. */
struct successor *successor_new(const char *config_path);
void successor_free(struct successor **s);

/*
 * Start it. `config` NULL: what is at the program's path now, with the configuration as its file
 * says. Else, when that may be what failed: this very program, with that configuration (its
 * reloads read the file). Returns our end of the socket, non-blocking; -1: `e`.
 */
int successor_start(struct successor *s, const struct config *config, struct err *e) TR_MUST_USE;

/* Note the end of those that have ended. */
void successor_reap(struct successor *s);

#endif
