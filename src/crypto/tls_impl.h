/* What tls.c and tls_ctx.c share. */
#ifndef TR_CRYPTO_TLS_IMPL_H
#define TR_CRYPTO_TLS_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <openssl/ssl.h>
#include "crypto/tls_sessions.h"

#define TLS_CTX_MAGIC 0x715c7c01u

struct tls_ctx {
    uint32_t magic;
    atomic_uint refs;
    SSL_CTX *ssl;
    bool server;
    bool http2;
    bool insecure;
    int64_t not_after_ns;
    struct tls_sessions *sessions; /* of a client context */
};

/* Verification callback of every context: keeps the certificate that is not accepted, so that the
 * error can tell about it. The SSL's app data is the session. */
int tls_on_verify(int ok, X509_STORE_CTX *store);

/* New-session callback of client contexts. */
int tls_on_new_session(SSL *ssl, SSL_SESSION *session);

#endif
