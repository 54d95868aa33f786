#include "base/hash.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include "base/bug.h"

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = ROTL(s->v1, 13) ^ s->v0;
    s->v0 = ROTL(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = ROTL(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = ROTL(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = ROTL(s->v1, 17) ^ s->v2;
    s->v2 = ROTL(s->v2, 32);
}

static inline void sip_word(struct sip *s, uint64_t m)
{
    s->v3 ^= m;
    sip_round(s);
    s->v0 ^= m;
}

uint64_t hash_keyed(const uint64_t key[2], const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t last = (uint64_t)n << 56;
    struct sip s = {
        key[0] ^ 0x736f6d6570736575ULL,
        key[1] ^ 0x646f72616e646f6dULL,
        key[0] ^ 0x6c7967656e657261ULL,
        key[1] ^ 0x7465646279746573ULL,
    };
    size_t i, left;

    for (left = n; left >= 8; left -= 8, p += 8) {
        uint64_t m;

        memcpy(&m, p, 8);
        sip_word(&s, m);
    }
    for (i = 0; i < left; i++)
        last |= (uint64_t)p[i] << (8 * i);
    sip_word(&s, last);
    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static uint64_t process_key[2];
static pthread_once_t process_key_once = PTHREAD_ONCE_INIT;

static void draw_process_key(void)
{
    if (getrandom(process_key, sizeof(process_key), 0) != (ssize_t)sizeof(process_key))
        BUG("no random bytes from the system");
}

uint64_t hash_bytes(const void *p, size_t n)
{
    pthread_once(&process_key_once, draw_process_key);
    return hash_keyed(process_key, p, n);
}
