/* Scripts too long to be explored: for random ways through them, and for those that a fuzzer finds.
 */
#ifndef TESTS_LOGS_WALKS_H
#define TESTS_LOGS_WALKS_H

#include "explore.h"

/* clang-format off */
#define S(k, t, ...) {.kind = (k), .text = (t), ##__VA_ARGS__}
#define STEPS(...) ((const struct step[]){__VA_ARGS__, {.kind = 0}})

static const struct scenario walks[] = {
    {.name = "three lives and an edge",
     .steps = STEPS(S('o', "", .fail = FAIL_AGAIN), S('l', "abc", .split = 1), S('l', "d"),
                    S('b', "abcd", .fail = FAIL_EMPTY), S('c', ""), S('o', ""),
                    S('l', "e", .fail = FAIL_AGAIN), S('l', "f"), S('s', ""), S('o', ""),
                    S('l', "g"), S('l', "h"), S('b', "abcdefgh"), S('c', ""),
                    S('l', "yz", .client = 1, .stream = 1, .split = 1, .edge = 3, .life = 1,
                      .number = 1, .fail = FAIL_AGAIN),
                    S('l', "yzx", .client = 1, .stream = 1, .split = 1, .edge = 3, .life = 1,
                      .number = 1, .fail = FAIL_AGAIN)),
     .faults = 5,
     .crashes = 2,
     .holds = 2,
     .idles = 1,
     .may = MAY_FAULTS | MAY_EXPIRE,
     .batch_lines = 3},
    {.name = "two streams, a prefix and overlaps",
     .steps = STEPS(S('o', ""), S('l', "a"), S('l', "p"), S('l', "e"),
                    S('l', "bcd", .client = 1, .early = true, .after = 4),
                    S('l', "x", .stream = 1, .client = 1), S('q', "", .stream = 1, .client = 1),
                    S('s', ""), S('l', "f"), S('o', ""), S('l', "g"), S('c', "")),
     .faults = 4,
     .crashes = 2,
     .holds = 1,
     .idles = 1,
     .may = MAY_FAULTS,
     .poison = 'p'},
    {.name = "a delegate among others",
     .steps =
         STEPS(S('o', ""), S('l', "a", .fail = FAIL_AGAIN), S('l', "bc", .split = 1), S('l', "d"),
               S('l', "e", .client = 1), S('o', "", .client = 1), S('s', "", .client = 1),
               S('l', "f"), S('s', ""), S('o', ""), S('l', "g"), S('l', "h"), S('s', "")),
     .faults = 6,
     .crashes = 1,
     .holds = 1,
     .idles = 1,
     .batch_lines = 2,
     .may = MAY_FAULTS | MAY_DELAY | MAY_OPEN | MAY_WRITE | MAY_CLOSE | MAY_SNAPSHOT | MAY_EXPIRE},
    {.name = "uploads that are refused or broken",
     .steps = STEPS(S('o', "", .fail = FAIL_STOP), S('l', "a"), S('l', "p"), S('e', ""),
                    S('l', "b"), S('b', "apb", .fail = FAIL_CUT),
                    S('b', "apbc", .client = 1, .after = 4),
                    S('e', "", .client = 1), S('c', ""), S('o', ""), S('b', "apbcd"), S('l', "d"),
                    S('b', "apbcd", .fail = FAIL_EMPTY), S('c', "")),
     .faults = 4,
     .crashes = 2,
     .holds = 1,
     .idles = 1,
     .may = MAY_FAULTS,
     .refuse_blobs = true,
     .poison = 'p'},
    {.name = "uploads that are broken",
     .steps = STEPS(S('o', "", .fail = FAIL_STOP), S('l', "a"), S('e', ""), S('l', "b"),
                    S('b', "ab", .fail = FAIL_CUT), S('e', "", .client = 1, .after = 4), S('c', ""),
                    S('o', ""), S('e', ""), S('l', "d"), S('b', "abd", .fail = FAIL_EMPTY),
                    S('c', "")),
     .faults = 4,
     .crashes = 2,
     .holds = 1,
     .idles = 1,
     .may = MAY_FAULTS},
};

#undef S
#undef STEPS

#endif
