/* Every order of events, faults and crashes for small scripts of one or two clients. */
#include "explore.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include "scenarios.h"

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static unsigned long all_states;

static void search(const struct scenario *sc)
{
    struct explored n;
    double from = seconds();

    explore(sc, &n);
    printf("  %-30s %8lu states %9lu transitions %7lu ends %6.2f s\n", sc->name, n.states,
           n.transitions, n.ends, seconds() - from);
    fflush(stdout);
    all_states += n.states;
    if (n.states < sc->at_least)
        fail_msg("%s: only %lu states", sc->name, n.states);
}

static void test_scenario(void **state)
{
    search(*state);
}

/* The same script while every record that is durable leaves memory as soon as it may. */
static void test_paged(void **state)
{
    struct scenario sc = *(const struct scenario *)*state;

    if (sc.page)
        skip(); /* it pages by itself */
    sc.page = 1;
    sc.may |= sc.may & MAY_LOSE ? MAY_FAIL_READ : 0;
    sc.at_least = sc.at_least / 2;
    search(&sc);
}

int main(void)
{
    struct CMUnitTest tests[2 * ARRAY_LEN(scenarios)];
    static char paged[ARRAY_LEN(scenarios)][64];
    double from = seconds();
    size_t i;
    int rc;

    for (i = 0; i < ARRAY_LEN(scenarios); i++) {
        tests[i] = (struct CMUnitTest){.name = scenarios[i].name,
                                       .test_func = test_scenario,
                                       .initial_state = (void *)(uintptr_t)&scenarios[i]};
        snprintf(paged[i], sizeof(paged[i]), "%s, paged", scenarios[i].name);
        tests[ARRAY_LEN(scenarios) + i] = tests[i];
        tests[ARRAY_LEN(scenarios) + i].name = paged[i];
        tests[ARRAY_LEN(scenarios) + i].test_func = test_paged;
    }
    if (getenv("EXPLORE_ONLY"))
        cmocka_set_test_filter(getenv("EXPLORE_ONLY"));
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    printf("%lu states in %.1f s\n", all_states, seconds() - from);
    return rc;
}
