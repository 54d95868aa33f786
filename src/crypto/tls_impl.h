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
    /* Of tls_ctx_leaf, which has its SSL_CTX from `bare`: set in each session. */
    struct tls_ctx *bare;
    X509 *leaf;
    EVP_PKEY *leaf_key;
};

/* Verification callback of every context: keeps the certificate that is not accepted, so that the
 * error can tell about it. The SSL's app data is the session. */
int tls_on_verify(int ok, X509_STORE_CTX *store);

/* New-session callback of client contexts. */
int tls_on_new_session(SSL *ssl, SSL_SESSION *session);

/* For minting: a server context without a certificate, which sends `chain` (shared) behind the
 * leaves of those made from it, offers h2 and asks for no client certificate. */
struct tls_ctx *tls_ctx_bare(STACK_OF(X509) * chain);

/* A server context that is `bare` with a leaf and its key (each shared). Making an SSL_CTX for each
 * leaf would take three times as long as all else about it, and most of its memory. */
struct tls_ctx *tls_ctx_leaf(struct tls_ctx *bare, X509 *leaf, EVP_PKEY *key);

/* A certificate's time as wall time in ns; INT64_MAX if it is none. */
int64_t tls_time_ns(const ASN1_TIME *t);

/* Append the subject of a certificate (RFC 2253); nothing if it is NULL. */
void tls_subject(const X509 *cert, struct str *out);

/* For loading keys: one that asks for a passphrase would block start-up on a terminal; it is
 * answered with none. */
int tls_no_passphrase(char *buf, int size, int rwflag, void *arg);

/* The key in a PEM file without a passphrase, or NULL with `e` filled: "cannot use the WHAT". What
 * was read is overwritten: OpenSSL's own way goes through stdio, whose buffer keeps it. */
EVP_PKEY *tls_key_load(const char *what, const char *path, struct err *e);

#endif
