/*
 * Certificates for interception: leaves for single names, made from the customer's CA as clients
 * ask for them. P-256 keys, one key for all leaves of a mint; serial numbers are random; a leaf is
 * valid from an hour ago for 7 days at most, and no longer than its CA. Made once for each name and
 * kept (least recently used go first), shared by threads.
 */
#ifndef TR_CRYPTO_MINT_H
#define TR_CRYPTO_MINT_H

#include "crypto/tls.h"

struct mint;

/* Load the CA: PEM files of its certificate (chain) and key. Refused (`e` names the file and what
 * to do): not a CA, keyCertSign missing, expired, key does not match, name constraints that exclude
 * one of the `hosts` (may be NULL, n 0). Reference counted. */
struct mint *mint_new(const char *ca, const char *key, const char *const *hosts, size_t n,
                      struct err *e) TR_MUST_USE;
struct mint *mint_ref(struct mint *m);
void mint_unref(struct mint **m);

/* A server context that shows a certificate for `name` (a DNS name or literal address) and speaks
 * h2 and http/1.1 by ALPN. The caller's reference. NULL: `e`. */
struct tls_ctx *mint_server_ctx(struct mint *m, const char *name, struct err *e) TR_MUST_USE;

int64_t mint_not_after_ns(const struct mint *m); /* the CA's */

#endif
