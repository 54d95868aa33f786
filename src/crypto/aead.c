#include "crypto/aead.h"

#include <limits.h>
#include <pthread.h>
#include <openssl/evp.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "rt/rng.h"

static pthread_once_t fetch_once = PTHREAD_ONCE_INIT;
static EVP_CIPHER *gcm;

static void fetch(void)
{
    gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    if (!gcm)
        BUG("OpenSSL has no AES-256-GCM");
}

static EVP_CIPHER_CTX *ctx_new(void)
{
    EVP_CIPHER_CTX *ctx;

    pthread_once(&fetch_once, fetch);
    ctx = EVP_CIPHER_CTX_new();
    if (!ctx)
        BUG("out of memory");
    return ctx;
}

/* What OpenSSL can only refuse if we misuse it. */
static void must(int ok)
{
    if (ok != 1)
        BUG("AES-GCM failed");
}

struct aead {
    EVP_CIPHER_CTX *seal, *open;
};

struct aead *aead_new(const struct aead_key *key)
{
    struct aead *a = XNEW(struct aead);

    a->seal = ctx_new();
    a->open = ctx_new();
    must(EVP_EncryptInit_ex2(a->seal, gcm, key->bytes, NULL, NULL));
    must(EVP_DecryptInit_ex2(a->open, gcm, key->bytes, NULL, NULL));
    return a;
}

void aead_free(struct aead **pa)
{
    struct aead *a = *pa;

    *pa = NULL;
    if (!a)
        return;
    /* Both wipe what they hold. */
    EVP_CIPHER_CTX_free(a->seal);
    EVP_CIPHER_CTX_free(a->open);
    xfree(a);
}

void aead_seal_at(struct aead *a, const uint8_t nonce[AEAD_NONCE_SIZE], struct view aad,
                  struct view plain, struct str *out)
{
    uint8_t tag[AEAD_TAG_SIZE];
    EVP_CIPHER_CTX *ctx = a->seal;
    int n = 0;

    ASSERT(plain.n <= INT_MAX - AEAD_OVERHEAD && aad.n <= INT_MAX);
    str_reserve(out, plain.n + AEAD_OVERHEAD);
    str_add(out, nonce, AEAD_NONCE_SIZE);
    must(EVP_EncryptInit_ex2(ctx, NULL, NULL, nonce, NULL));
    if (aad.n)
        must(EVP_EncryptUpdate(ctx, NULL, &n, (const unsigned char *)aad.p, (int)aad.n));
    if (plain.n) {
        must(EVP_EncryptUpdate(ctx, (unsigned char *)out->p + out->n, &n,
                               (const unsigned char *)plain.p, (int)plain.n));
        ASSERT((size_t)n == plain.n);
        out->n += plain.n;
    }
    must(EVP_EncryptFinal_ex(ctx, tag, &n));
    must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, sizeof(tag), tag));
    str_add(out, tag, sizeof(tag));
}

int aead_open_at(struct aead *a, struct view aad, struct view sealed, struct str *out)
{
    const unsigned char *in = (const unsigned char *)sealed.p;
    uint8_t tag[AEAD_TAG_SIZE];
    EVP_CIPHER_CTX *ctx = a->open;
    size_t len;
    int n = 0;

    if (sealed.n < AEAD_OVERHEAD || sealed.n > INT_MAX || aad.n > INT_MAX)
        return -1;
    len = sealed.n - AEAD_OVERHEAD;
    memcpy(tag, in + AEAD_NONCE_SIZE + len, sizeof(tag));
    must(EVP_DecryptInit_ex2(ctx, NULL, NULL, in, NULL));
    if (aad.n)
        must(EVP_DecryptUpdate(ctx, NULL, &n, (const unsigned char *)aad.p, (int)aad.n));
    str_reserve(out, len);
    if (len)
        must(EVP_DecryptUpdate(ctx, (unsigned char *)out->p + out->n, &n, in + AEAD_NONCE_SIZE,
                               (int)len));
    must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, sizeof(tag), tag));
    if (EVP_DecryptFinal_ex(ctx, tag, &n) != 1) {
        /* What was decrypted is not authentic: leave none of it behind. */
        explicit_bzero(out->p + out->n, len);
        out->p[out->n] = '\0';
        return -1;
    }
    out->n += len;
    out->p[out->n] = '\0';
    return 0;
}

/* The nonce is random: below 2^32 seals with one key a repeat is not to be expected (NIST SP
 * 800-38D §8.3). Keys that seal more are to be changed by their owner. */
void aead_seal(const struct aead_key *key, struct view aad, struct view plain, struct str *out)
{
    uint8_t nonce[AEAD_NONCE_SIZE];
    struct aead *a = aead_new(key);

    rng_bytes(nonce, sizeof(nonce));
    aead_seal_at(a, nonce, aad, plain, out);
    aead_free(&a);
}

int aead_open(const struct aead_key *key, struct view aad, struct view sealed, struct str *out)
{
    struct aead *a = aead_new(key);
    int rc = aead_open_at(a, aad, sealed, out);

    aead_free(&a);
    return rc;
}
