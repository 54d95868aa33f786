/* `tailrace serve`: everything between start and end. */
#ifndef TR_APP_SERVE_H
#define TR_APP_SERVE_H

#include <stdbool.h>

struct serve_opts {
    const char *config; /* path */
    bool takeover;      /* from the process that has the spool now */
    int channel;        /* ... by this descriptor, inherited from it; -1: by its control socket */
    int first_config;   /* the configuration to begin with is read from this descriptor; -1: no.
                           Reloads take the path */
};

/* Runs until a signal ends it; returns the exit status. */
int serve(const struct serve_opts *o);

#endif
