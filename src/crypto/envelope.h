/*
 * Sealing in two steps: values with data keys, of which each start of the program draws a new one,
 * and data keys with the key that the admin gave (AES-256-GCM, NIST SP 800-38D). So the admin's key
 * seals a few bytes a start, can be changed without touching the values, and no counter has to
 * survive a crash.
 */
#ifndef TR_CRYPTO_ENVELOPE_H
#define TR_CRYPTO_ENVELOPE_H

#include <stddef.h>
#include "base/attrs.h"
#include "base/box.h"
#include "base/err.h"
#include "crypto/aead.h"

struct envelope;

/* `current` NULL: only open what was sealed before. The keys are copied. */
struct envelope *envelope_new(const struct aead_key *current, const struct aead_key *old,
                              size_t n_old);
void envelope_free(struct envelope **e); /* wipes; NULL is fine */

/* Valid as long as the envelope. */
const struct box *envelope_box(const struct envelope *e);

/* Wipe the keys that were given to envelope_new: those of the epochs are all that is needed from
 * now on. No epoch can be made or taken up afterwards. */
void envelope_settle(struct envelope *e);

/* The key in a file: 32 random bytes as 64 hex digits (`openssl rand -hex 32`) or base64. Refuses a
 * file that others than its owner may read (rt/fdx.h, secret_read). */
int envelope_key_load(const char *path, struct aead_key *key, struct err *e) TR_MUST_USE;

#endif
