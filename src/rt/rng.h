/* Randomness. */
#ifndef TR_RT_RNG_H
#define TR_RT_RNG_H

#include <stddef.h>
#include <stdint.h>

/* Fill with bytes from the system's generator. Aborts if it has none. */
void rng_bytes(void *p, size_t n);

/* A fast generator for jitter and sampling; not for secrets. Seeded by the caller, so that tests
 * can repeat a run. */
struct rng {
    uint64_t s[2];
};
void rng_seed(struct rng *r, uint64_t seed);
void rng_seed_random(struct rng *r);
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* 0..n-1; n > 0 */

#endif
