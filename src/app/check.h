/* `tailrace check`: is a configuration good, what would its policy break, what is to be set on the
 * Harness side for it, and why is a destination allowed or not. */
#ifndef TR_APP_CHECK_H
#define TR_APP_CHECK_H

#include <stdbool.h>
#include "app/harness_side.h"

struct check_opts {
    const char *path;
    bool dump;            /* print the effective configuration and nothing else */
    const char *explain;  /* HOST:PORT: tell what the policy says of it, and nothing else */
    const char *from;     /* with explain: the client's address; NULL: no client's */
    const char *identity; /* with explain; NULL: nobody */
    /* What is to be set on the Harness side: text comes behind the verdict; any other form is all
     * there is on standard output, and what else is to be said goes to standard error. */
    struct harness_side_opts side;
};

/*
 * Prints to standard output, errors to standard error. Returns the exit status:
 *
 *   0  the configuration is good; with `explain`: there is an answer, whatever it is
 *   1  it cannot be loaded; or egress.profile is harness, which says that a Harness deployment is
 *      behind this, and egress.mode enforce denies it a flow that no deployment can do without
 *   2  `from` is no address, or an option of `side` makes no sense
 *
 * Everything else that a policy would break is a warning: which parts of Harness a deployment uses
 * is not known here. Looks names up, by the resolvers of the configuration, for `explain` only.
 */
int check_run(const struct check_opts *o);

#endif
