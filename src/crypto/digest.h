/* Digests and encodings around them. */
#ifndef TR_CRYPTO_DIGEST_H
#define TR_CRYPTO_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/str.h"
#include "base/view.h"

/* CRC-32C (Castagnoli; RFC 3720 §12.1), as in x-goog-hash: start with 0 and feed pieces. Uses
 * SSE4.2 where the CPU has it. Any thread. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);

/* The same without special instructions: what crc32c falls back to, for tests to compare. */
uint32_t crc32c_portable(uint32_t crc, const void *p, size_t n);

void sha256(const void *p, size_t n, uint8_t out[32]);

/* HMAC-SHA-256 (RFC 2104). */
void hmac_sha256(const void *key, size_t key_n, const void *p, size_t n, uint8_t out[32]);

/* MD5 (RFC 1321), only because object stores name it in x-goog-hash: a check against accidents, not
 * against attackers. -1: this OpenSSL has none (FIPS); `out` is untouched. */
int md5(const void *p, size_t n, uint8_t out[16]) TR_MUST_USE;

/* Base64 (RFC 4648 §4) and base64url without padding (§5), appended to `out`. Decoding is strict:
 * -1 on any byte that does not belong; accepts exactly what the encoder writes. */
void base64_encode(const void *p, size_t n, struct str *out);
int base64_decode(struct view in, struct str *out) TR_MUST_USE;
void base64url_encode(const void *p, size_t n, struct str *out);
int base64url_decode(struct view in, struct str *out) TR_MUST_USE;

#endif
