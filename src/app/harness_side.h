/*
 * What is to be set on the Harness side for a configuration: the environment of delegates, the
 * values of their Helm chart (harness-delegate-ng), certificates, names in DNS, and what build pods
 * need. For each listener, so for each way of being reached (docs/flows.md).
 */
#ifndef TR_APP_HARNESS_SIDE_H
#define TR_APP_HARNESS_SIDE_H

#include <stdio.h>
#include "app/options.h"

enum harness_form {
    HARNESS_TEXT,   /* for people, listener by listener */
    HARNESS_ENV,    /* NAME=value lines, as `docker run --env-file` reads them */
    HARNESS_VALUES, /* YAML, for `helm --values` */
};

struct harness_side_opts {
    enum harness_form form;
    const char *address;  /* by which clients reach this host: a name or an address; NULL: what the
                             listeners' addresses and certificates tell */
    const char *listener; /* this one only; NULL: all in text, else the first of each mode */
    const char *no_proxy; /* "A,B": to go into NO_PROXY besides; or NULL */
};

struct harness_side;

/* "text", "env" or "yaml". -1: none of these. */
int harness_form_parse(const char *text, enum harness_form *out) TR_MUST_USE;

/*
 * Work it out. NULL and `e` (ERR_INVALID) if an option of `o` makes no sense; both are used as long
 * as the result lives. Reads the listeners' certificates; one that cannot be read is spoken of in
 * the result and is no error.
 */
struct harness_side *harness_side_new(const struct config *c, const struct harness_side_opts *o,
                                      struct err *e) TR_MUST_USE;
void harness_side_free(struct harness_side **s);

void harness_side_print(const struct harness_side *s, FILE *out);

/* Is there something in it that only the admin can know, and a placeholder stands for it? */
bool harness_side_has_gaps(const struct harness_side *s);

#endif
