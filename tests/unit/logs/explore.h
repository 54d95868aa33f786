/* Every order of events: a depth-first search over worlds. */
#ifndef TESTS_LOGS_EXPLORE_H
#define TESTS_LOGS_EXPLORE_H

#include "model.h"

/* What a client does when a call fails. */
enum on_fail {
    FAIL_GO_ON, /* it never calls again (lite-engine's lines and close) */
    FAIL_AGAIN, /* the same call, once more */
    FAIL_EMPTY, /* an upload: once more, with an empty body (HP §2.6) */
    FAIL_CUT,   /* ... or without the part that was sent */
    FAIL_STOP,  /* the client gives up altogether (a failed open) */
};

struct step {
    char kind; /* as in struct spec */
    const char *text;
    enum on_fail fail;
    unsigned client; /* 0 or 1: each makes its calls one after the other */
    int stream;
    /* it began when the call before it, of whichever client, was made: they overlap */
    bool early;
    bool zeros;
    uint64_t edge, life, number;
    unsigned split;
    unsigned after; /* not before so many steps have been begun */
};

enum {
    MAY_FAIL_COMMIT = 1 << 0,
    MAY_REFUSE = 1 << 1, /* not sent, or busy */
    MAY_LOSE = 1 << 2,   /* answers lost, executed or not */
    MAY_DELAY = 1 << 3,  /* executed late */
    MAY_LIE = 1 << 4,    /* answers "not there" by error */
    MAY_HALVE = 1 << 5,
    MAY_EXPIRE = 1 << 6,
    MAY_OPEN = 1 << 7, /* foreign */
    MAY_WRITE = 1 << 8,
    MAY_CLOSE = 1 << 9,
    MAY_SNAPSHOT = 1 << 10,
    MAY_FAIL_READ = 1 << 11,
    MAY_FAULTS = MAY_FAIL_COMMIT | MAY_REFUSE | MAY_LOSE | MAY_LIE | MAY_HALVE,
};

struct scenario {
    const char *name;
    const struct step *steps;
    unsigned faults, crashes; /* budgets of one run */
    unsigned holds, idles;    /* so often may the hold time and the idle time pass */
    unsigned may;
    bool refuse_blobs;
    char poison;
    uint64_t batch_lines;       /* 0: no limit that matters */
    unsigned page, keep, ahead; /* as in world_page; page 0: nothing is paged */
    unsigned long at_least;     /* states; fewer means that the search has shrunk */
};

struct explored {
    unsigned long states, transitions, ends;
};

/* Search it all. A broken rule prints the way there and fails the test. */
void explore(const struct scenario *sc, struct explored *out);

#endif
