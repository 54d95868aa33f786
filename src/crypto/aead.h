/* AES-256-GCM, for tickets and sealed records. Any thread. */
#ifndef TR_CRYPTO_AEAD_H
#define TR_CRYPTO_AEAD_H

#include <stddef.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/str.h"
#include "base/view.h"

enum { AEAD_KEY_SIZE = 32, AEAD_NONCE_SIZE = 12, AEAD_TAG_SIZE = 16, AEAD_OVERHEAD = 28 };

struct aead_key {
    uint8_t bytes[AEAD_KEY_SIZE];
};

/* Append nonce (random), ciphertext and tag to `out`. `aad` is authenticated, not stored. */
void aead_seal(const struct aead_key *key, struct view aad, struct view plain, struct str *out);

/* Append the plain text to `out`: 0, or -1 if it was not sealed with this key and aad. */
int aead_open(const struct aead_key *key, struct view aad, struct view sealed,
              struct str *out) TR_MUST_USE;

/* For many values under one key: the key's schedule is made once. One thread at a time. */
struct aead;

struct aead *aead_new(const struct aead_key *key);
void aead_free(struct aead **a); /* wipes; NULL is fine */

/* The same with a nonce of the caller's, who never gives one twice for the same key. */
void aead_seal_at(struct aead *a, const uint8_t nonce[AEAD_NONCE_SIZE], struct view aad,
                  struct view plain, struct str *out);
int aead_open_at(struct aead *a, struct view aad, struct view sealed, struct str *out) TR_MUST_USE;

#endif
