/* Build logs that never were: lines of the programs that builds run, from a seed. */
#ifndef TR_TESTS_BENCH_CORPUS_H
#define TR_TESTS_BENCH_CORPUS_H

#include <stdint.h>
#include "base/str.h"

/* One build's output; zeroed and with a seed it begins with a program of its own. */
struct corpus {
    uint64_t rng;
    unsigned program; /* whose lines come now */
    unsigned left;    /* lines until another one's */
    unsigned n;
    char module[24], other[24];
};

void corpus_init(struct corpus *c, uint64_t seed);
/* Add the next line, without its end, as the inside of a JSON string. */
void corpus_line(struct corpus *c, struct str *out);

#endif
