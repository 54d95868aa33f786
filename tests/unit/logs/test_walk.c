/* Random ways through longer scripts than can be explored, with real allocation, for the memory
 * checkers. */
#include "explore_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/bug.h"
#include "walks.h"

enum { WALKS = 1500 };

static struct run *begin(const struct scenario *sc)
{
    return run_new(sc);
}

/* One way: what goes well is taken more often than the rest. */
static void walk(const struct scenario *sc, struct rng *rng)
{
    struct run *r = begin(sc);
    struct event events[RUN_EVENTS];
    bool progress = true;

    explore_path = (struct path){.begin = begin, .sc = sc};
    for (;;) {
        unsigned n = run_events(r, events, &progress), first = 0;

        if (!progress)
            break;
        while (first < n && events[first].type != EV_CRASH)
            first++;
        ASSERT(explore_path.n < RUN_DEPTH);
        explore_path.events[explore_path.n] =
            events[rng_below(rng, rng_below(rng, 30) && first ? first : n)];
        run_apply(r, explore_path.events[explore_path.n++]);
    }
    explore_path.finish = true;
    world_finish(r->w);
    run_free(r);
}

static void test_walks(void **state)
{
    const struct scenario *sc = *state;
    const char *seed = getenv("WALK_SEED");
    struct rng rng;
    unsigned i;

    rng_seed(&rng, seed ? strtoull(seed, NULL, 10) : 20);
    for (i = 0; i < WALKS; i++)
        walk(sc, &rng);
    for (i = 0; i < WALKS; i++) {
        struct scenario paged = *sc;

        paged.page = 1 + (unsigned)rng_below(&rng, 3);
        paged.keep = (unsigned)rng_below(&rng, 2);
        paged.ahead = (unsigned)rng_below(&rng, 2);
        paged.may |= MAY_FAIL_READ;
        walk(&paged, &rng);
    }
}

int main(void)
{
    struct CMUnitTest tests[ARRAY_LEN(walks)];
    size_t i;

    for (i = 0; i < ARRAY_LEN(walks); i++) {
        tests[i] = (struct CMUnitTest){.name = walks[i].name,
                                       .test_func = test_walks,
                                       .initial_state = (void *)(uintptr_t)&walks[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
