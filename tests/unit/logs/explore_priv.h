/* What the search and the random walk share: a run of a scenario and its events. */
#ifndef TESTS_LOGS_EXPLORE_PRIV_H
#define TESTS_LOGS_EXPLORE_PRIV_H

#include "explore.h"

enum { RUN_CLIENTS = 2, RUN_EVENTS = 128, RUN_DEPTH = 400 };

enum event_type {
    EV_CALL,    /* a: client */
    EV_COMMIT,  /* a: it fails */
    EV_TAKE,    /* a: stream, b: lane */
    EV_END,     /* a: stream, b: lane, c: enum ending */
    EV_LATE,    /* a: which */
    EV_BARRIER, /* a: stream */
    EV_RELOAD,  /* a: stream, b: it fails */
    EV_SWEEP,
    EV_CRASH, /* a: commits that took effect, b: requests that did */
    EV_HOLD,
    EV_IDLE,
    EV_FOREIGN, /* a: enum foreign */
};

struct event {
    uint8_t type, a, b, c;
};

struct client {
    unsigned next; /* its next step, as an index into the scenario's */
    int call;      /* under way, or -1 */
    bool again;    /* the step is being repeated */
    bool stopped;
};

struct run {
    const struct scenario *sc;
    struct world *w;
    struct client clients[RUN_CLIENTS];
    unsigned begun, faults, crashes, holds, idles, lies;
    int64_t last_begun;
};

struct run *run_new(const struct scenario *sc);
void run_free(struct run *r);
uint64_t run_hash(const struct run *r);

/* What can happen. *progress: whether anything of it happens without a fault, a crash or time. */
unsigned run_events(const struct run *r, struct event out[RUN_EVENTS], bool *progress);
void run_apply(struct run *r, struct event e);
void run_describe(const struct run *r, struct event e);

/* When a rule is broken: prints the way there (the search and the walk set `path`). */
struct path {
    struct event events[RUN_DEPTH];
    unsigned n;
    bool finish; /* what failed is the end of it */
    struct run *(*begin)(const struct scenario *sc);
    const struct scenario *sc;
};
extern struct path explore_path;

#endif
