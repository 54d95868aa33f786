/*
 * What a file of certificates tells of itself, for people who set up its clients: by which name it
 * is meant to be called, and whether clients believe it without being told. Loads no key.
 */
#ifndef TR_CRYPTO_CERT_FACTS_H
#define TR_CRYPTO_CERT_FACTS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"

struct cert_facts {
    struct str name;   /* the first DNS name that is no wildcard, else empty */
    struct str issuer; /* who signed the last certificate of the file (RFC 4514); empty: itself, so
                          the file holds all that a client has to trust */
    bool trusted;      /* an authority of this system vouches for it, expired or not */
    int64_t not_after; /* Unix time; INT64_MAX: it cannot be told */
    bool covers;       /* it is for the host that was asked about (RFC 6125) */
};

/*
 * Read a chain in PEM, the server's certificate first. `host`: a name or address without brackets,
 * or NULL: `covers` is false. 0, or -1 and `e`, which names the file. cert_facts_fini in both
 * cases. Reads the system's authorities ($SSL_CERT_FILE, $SSL_CERT_DIR). Any thread.
 */
int cert_facts_read(const char *path, const char *host, struct cert_facts *f,
                    struct err *e) TR_MUST_USE;
void cert_facts_fini(struct cert_facts *f);

#endif
