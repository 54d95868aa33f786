/*
 * The stream machine: calls, commits that fail, answers that are lost or lie, foreign writers,
 * paging and crashes, in the order that the input says. The first bytes choose a script and its
 * faults, each further one what happens next.
 *
 * Oracle: the model of tests/unit/logs, which checks every rule at every step, and at the end that
 * all that was acknowledged is upstream or accounted for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "fuzz/target.h"
#include "unit/logs/explore_priv.h"
#include "unit/logs/scenarios.h"
#undef S
#undef STEPS
#include "unit/logs/walks.h"

enum { FAULTS_MAX = 6, CRASHES_MAX = 3 };

static struct run *begin(const struct scenario *sc)
{
    return run_new(sc);
}

/* More faults than the script asks for, of the kinds that it allows. */
static struct scenario choose(struct view *in)
{
    uint8_t which = fuzz_byte(in), faults = fuzz_byte(in), paging = fuzz_byte(in);
    size_t i = which % (ARRAY_LEN(scenarios) + ARRAY_LEN(walks));
    struct scenario sc = i < ARRAY_LEN(walks) ? walks[i] : scenarios[i - ARRAY_LEN(walks)];

    sc.faults = TR_MAX(sc.faults, faults % (FAULTS_MAX + 1u));
    if (sc.crashes)
        sc.crashes = TR_MAX(sc.crashes, faults / 8 % (CRASHES_MAX + 1u));
    if (paging & 1 && !sc.page) {
        sc.page = 1 + (paging >> 1 & 3);
        sc.keep = paging >> 3 & 1;
        sc.ahead = paging >> 4 & 1;
        sc.may |= MAY_FAIL_READ;
    }
    return sc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    struct scenario sc = choose(&in);
    struct run *r = begin(&sc);
    struct event events[RUN_EVENTS];
    bool progress = true;

    explore_path = (struct path){.begin = begin, .sc = &sc};
    for (;;) {
        unsigned can = run_events(r, events, &progress);

        if (!progress || explore_path.n == RUN_DEPTH)
            break;
        explore_path.events[explore_path.n] = events[fuzz_byte(&in) % can];
        run_apply(r, explore_path.events[explore_path.n++]);
    }
    explore_path.finish = true;
    world_finish(r->w);
    run_free(r);
    explore_path.begin = NULL;
    return 0;
}
