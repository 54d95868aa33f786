/*
 * Something that seals values and opens them again, as the spool asks for it: an interface, so that
 * who stores need not know how (crypto/envelope.h does). A sealed value is
 *
 *     epoch u32, counter u64 (little-endian; together the nonce) | ciphertext | tag (16)
 *
 * An epoch is a data key that is made anew at each start and kept, sealed itself, beside the
 * values; within an epoch the counter never repeats.
 */
#ifndef TR_BASE_BOX_H
#define TR_BASE_BOX_H

#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"
#include "base/view.h"

enum { BOX_OVERHEAD = 28, BOX_NONCE = 12 };

struct box {
    void *ctx;
    bool seals; /* false: there are old keys only, new values stay plain */
    /* Draw the data key of `epoch`, append it, sealed, to `key`; what `seal` uses from now on. */
    void (*make)(void *ctx, uint32_t epoch, struct str *key);
    /* Take up the data key of an epoch from what `make` gave. 0: done; if an old key opened it,
     * `renewed` gets it sealed under the current one. -1: no key opens it. */
    int (*take)(void *ctx, uint32_t epoch, struct view key, struct str *renewed);
    /* Append the sealed value. `aad` says what and where it is, and is not stored. One thread. */
    void (*seal)(void *ctx, struct view aad, struct view plain, struct str *out);
    /* Append the plain value: 0, or -1 if it is not what was sealed with this aad. Any thread. */
    int (*open)(void *ctx, struct view aad, struct view sealed, struct str *out);
};

#endif
