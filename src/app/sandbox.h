/*
 * What the process may do, taken away as soon as it is not needed any more, so that whoever gets
 * to run code in it has little to work with. In two steps: before anything is opened the user and
 * all capabilities but that for low ports; after the listeners are there the rest: no capability,
 * none to be had by running a program (PR_SET_NO_NEW_PRIVS), and, where the kernel has Landlock
 * (landlock(7)), no file but those that the configuration names (app/reach.h).
 *
 * The limits are inherited by threads that are started afterwards and by programs that are run.
 * The state is the process's; main thread only.
 */
#ifndef TR_APP_SANDBOX_H
#define TR_APP_SANDBOX_H

#include "app/options.h"

/* Leave root for c->user and its groups, and set the umask. A process that is root and is to stay
 * so gives up its power over other users' files, unless c->sandbox is off. -1: there is no such
 * user, or we are not root to become it. While the process has one thread. */
int sandbox_become(const struct config *c, struct err *e) TR_MUST_USE;

/* The rest; tells in the log and as metrics (`sandbox`) what holds. A kernel that cannot is a
 * notice; -1 only if c->sandbox is "required". Before other threads are started. */
int sandbox_enter(const struct config *c, struct err *e) TR_MUST_USE;

/* May a reload with that configuration work? -1 and `e` if it names a file that cannot be reached.
 */
int sandbox_check(const struct config *c, struct err *e) TR_MUST_USE;

/* Are there files that cannot be reached? To explain why one cannot be opened. */
bool sandbox_is_tight(void);

#endif
