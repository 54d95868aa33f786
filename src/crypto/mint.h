/*
 * Certificates for interception: leaves for single names, made from the customer's CA as clients
 * ask for them. P-256 keys, one key for all leaves of a mint; serial numbers are random; a leaf is
 * valid from an hour ago for 7 days at most, and no longer than its CA. Made once for each name and
 * kept until half of its life is over (the least recently used go first when there are many).
 * Any thread.
 */
#ifndef TR_CRYPTO_MINT_H
#define TR_CRYPTO_MINT_H

#include "crypto/tls.h"

struct mint;

/* Contexts kept at most. Each takes 3 KB, and who reaches an intercepted wildcard can ask for
 * as many names as there are. */
enum { MINT_KEPT_MAX = 1000 };

/*
 * Load the CA: PEM files of its certificate and its key, without a passphrase. Behind the
 * certificate its issuers may follow, up to its root: clients get them, but for the root, which
 * they have or will not believe. Refused (`e` names the file and what to do): not a CA, keyCertSign
 * or server authentication not allowed, expired, key does not match, name constraints that exclude
 * one of the `hosts` (canonical names or addresses, "*.x" works; may be NULL, n 0). Reference
 * counted.
 */
struct mint *mint_new(const char *ca, const char *key, const char *const *hosts, size_t n,
                      struct err *e) TR_MUST_USE;
struct mint *mint_ref(struct mint *m);
void mint_unref(struct mint **m);

/*
 * A server context that shows a certificate for `name` (a DNS name in any case, or a literal
 * address) and speaks h2 and http/1.1 by ALPN. The caller's reference. NULL: `e` (not a name,
 * excluded by the CA, or the CA has expired). The first time for a name takes a signature of the
 * CA's key: some 0.1 ms with a P-256 key, 1 ms with RSA 2048; no lock is held meanwhile.
 */
struct tls_ctx *mint_server_ctx(struct mint *m, const char *name, struct err *e) TR_MUST_USE;

/* Wall time (ns) at which the CA, or the first certificate above it, expires. */
int64_t mint_not_after_ns(const struct mint *m);
/* Append the CA's name, as tls_ctx_subject does. */
void mint_subject(const struct mint *m, struct str *out);

#endif
