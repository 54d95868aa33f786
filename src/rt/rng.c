#include "rt/rng.h"

#include <errno.h>
#include <sys/random.h>
#include "base/bug.h"

void rng_bytes(void *p, size_t n)
{
    unsigned char *at = p;

    while (n) {
        ssize_t got = getrandom(at, n, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            BUG("no random bytes from the system");
        at += got;
        n -= (size_t)got;
    }
}

/* splitmix64, to spread a small seed over the state. */
static uint64_t split(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15ULL);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

void rng_seed(struct rng *r, uint64_t seed)
{
    r->s[0] = split(&seed);
    r->s[1] = split(&seed);
}

void rng_seed_random(struct rng *r)
{
    uint64_t seed;

    rng_bytes(&seed, sizeof(seed));
    rng_seed(r, seed);
}

/* xoroshiro128+ (Blackman, Vigna). */
uint64_t rng_next(struct rng *r)
{
    uint64_t a = r->s[0], b = r->s[1], sum = a + b;

    b ^= a;
    r->s[0] = ((a << 24) | (a >> 40)) ^ b ^ (b << 16);
    r->s[1] = (b << 37) | (b >> 27);
    return sum;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    ASSERT(n > 0);
    return (uint64_t)(((unsigned __int128)rng_next(r) * n) >> 64);
}
