#include "crypto/tls.h"

#include <string.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "crypto/ossl_err.h"
#include "crypto/tls_impl.h"
#include "rt/clock.h"
#include "rt/fdx.h"

/* A client certificate chain longer than this is refused: checking one costs us, sending one
 * costs the peer next to nothing. */
enum { CLIENT_CHAIN_DEPTH = 8, KEY_FILE_MAX = 64 << 10 };

/*
 * ALPN (RFC 7301 §3.2): h2 if both sides have it, else http/1.1. A client that offers only what
 * we don't speak is told so instead of being left to guess.
 */
static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen,
                       const unsigned char *in, unsigned inlen, void *arg)
{
    static const unsigned char both[] = "\x02h2\x08http/1.1\x08http/1.0";
    static const unsigned char only_1[] = "\x08http/1.1\x08http/1.0";
    const struct tls_ctx *ctx = arg;
    const unsigned char *ours = ctx->http2 ? both : only_1;
    unsigned ours_len = ctx->http2 ? sizeof(both) - 1 : sizeof(only_1) - 1;
    unsigned char *chosen;

    (void)ssl;
    if (SSL_select_next_proto(&chosen, outlen, ours, ours_len, in, inlen) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Any name is fine; but without a callback that says so OpenSSL forgets it in resumed sessions. */
static int accept_name(SSL *ssl, int *alert, void *arg)
{
    (void)ssl;
    (void)alert;
    (void)arg;
    return SSL_TLSEXT_ERR_OK;
}

static struct tls_ctx *ctx_new(bool server)
{
    struct tls_ctx *ctx = XNEW(struct tls_ctx);

    OBJ_INIT(ctx, TLS_CTX_MAGIC);
    atomic_init(&ctx->refs, 1);
    ctx->server = server;
    ctx->ssl = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (!ctx->ssl)
        BUG("OpenSSL gives no context");
    SSL_CTX_set_min_proto_version(ctx->ssl, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx->ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                      SSL_OP_CLEANSE_PLAINTEXT | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                      SSL_OP_PRIORITIZE_CHACHA);
    /* Idle connections hold no record buffers; writes move on record by record; the caller's
     * buffer may have grown and moved by the time a write is tried again. */
    SSL_CTX_set_mode(ctx->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                   SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx->ssl, 1); /* one read for a record instead of two */
    return ctx;
}

int64_t tls_time_ns(const ASN1_TIME *t)
{
    struct tm tm;
    int64_t sec;

    if (!t || ASN1_TIME_to_tm(t, &tm) != 1)
        return INT64_MAX;
    sec = timegm(&tm);
    /* "Never" is the end of the year 9999 (RFC 5280 section 4.1.2.5), which no count of ns reaches.
     */
    if (sec > INT64_MAX / NS_PER_SEC)
        return INT64_MAX;
    return sec < INT64_MIN / NS_PER_SEC ? INT64_MIN : sec * NS_PER_SEC;
}

static int64_t chain_not_after(SSL_CTX *ssl)
{
    X509 *leaf = SSL_CTX_get0_certificate(ssl);
    STACK_OF(X509) *chain = NULL;
    int64_t first = leaf ? tls_time_ns(X509_get0_notAfter(leaf)) : INT64_MAX;

    SSL_CTX_get0_chain_certs(ssl, &chain);
    for (int i = 0; chain && i < sk_X509_num(chain); i++)
        first = TR_MIN(first, tls_time_ns(X509_get0_notAfter(sk_X509_value(chain, i))));
    return first;
}

int tls_no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1;
}

EVP_PKEY *tls_key_load(const char *what, const char *path, struct err *e)
{
    struct str text = STR_INIT;
    EVP_PKEY *key = NULL;
    BIO *bio;

    if (file_read(path, KEY_FILE_MAX, &text, e) < 0) {
        str_wipe(&text);
        if (e)
            e->code = ERR_INVALID;
        err_prefix(e, "cannot use the %s", what);
        return NULL;
    }
    str_reserve(&text, 0);
    bio = BIO_new_mem_buf(text.p, (int)text.n);
    key = bio ? PEM_read_bio_PrivateKey(bio, NULL, tls_no_passphrase, NULL) : NULL;
    BIO_free(bio);
    if (!key)
        ossl_err(e, ERR_INVALID, "cannot use the %s %s (PEM without a passphrase)", what, path);
    str_wipe(&text);
    return key;
}

static int load_identity(SSL_CTX *ssl, const char *certificate, const char *key, struct err *e)
{
    EVP_PKEY *pkey;
    int used;

    if (!key)
        return err_set(e, ERR_INVALID, "certificate %s comes without a key", certificate);
    SSL_CTX_set_default_passwd_cb(ssl, tls_no_passphrase);
    if (SSL_CTX_use_certificate_chain_file(ssl, certificate) != 1)
        return ossl_err(e, ERR_INVALID, "cannot use certificate %s", certificate);
    pkey = tls_key_load("key", key, e);
    if (!pkey)
        return -1;
    used = SSL_CTX_use_PrivateKey(ssl, pkey);
    EVP_PKEY_free(pkey);
    if (used != 1)
        return ossl_err(e, ERR_INVALID, "cannot use key %s with certificate %s", key, certificate);
    if (SSL_CTX_check_private_key(ssl) != 1)
        return ossl_err(e, ERR_INVALID, "key %s does not belong to certificate %s", key,
                        certificate);
    return 0;
}

static int load_client_ca(SSL_CTX *ssl, const struct tls_server_opts *o, struct err *e)
{
    STACK_OF(X509_NAME) * names;

    if (SSL_CTX_load_verify_file(ssl, o->client_ca) != 1)
        return ossl_err(e, ERR_INVALID, "cannot use client CA bundle %s", o->client_ca);
    names = SSL_load_client_CA_file(o->client_ca);
    if (!names)
        return ossl_err(e, ERR_INVALID, "no certificates in client CA bundle %s", o->client_ca);
    SSL_CTX_set_client_CA_list(ssl, names);
    SSL_CTX_set_verify_depth(ssl, CLIENT_CHAIN_DEPTH);
    SSL_CTX_set_verify(ssl,
                       SSL_VERIFY_PEER | (o->client_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       tls_on_verify);
    return 0;
}

/* What is the same in every server context, once its certificate is there. */
static void set_up_server(struct tls_ctx *ctx)
{
    static const unsigned char session_ctx[] = "tailrace";

    ctx->not_after_ns = chain_not_after(ctx->ssl);
    SSL_CTX_set_alpn_select_cb(ctx->ssl, select_alpn, ctx);
    SSL_CTX_set_tlsext_servername_callback(ctx->ssl, accept_name);
    /* Resumption by tickets, which cost no memory here; the context is shared by all workers, so
     * a ticket is good at each. The session cache would be a lock between them. */
    SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(ctx->ssl, session_ctx, sizeof(session_ctx) - 1);
    SSL_CTX_set_num_tickets(ctx->ssl, 1);
}

struct tls_ctx *tls_ctx_server(const struct tls_server_opts *o, struct err *e)
{
    struct tls_ctx *ctx = ctx_new(true);

    ERR_clear_error();
    ctx->http2 = o->http2;
    if (load_identity(ctx->ssl, o->certificate, o->key, e) < 0)
        goto fail;
    if (o->client_ca && load_client_ca(ctx->ssl, o, e) < 0)
        goto fail;
    if (o->client_required && !o->client_ca) {
        err_set(e, ERR_INVALID,
                "client certificates are required but there is no CA to verify them by");
        goto fail;
    }
    set_up_server(ctx);
    return ctx;
fail:
    tls_ctx_unref(&ctx);
    return NULL;
}

struct tls_ctx *tls_ctx_bare(STACK_OF(X509) * chain)
{
    struct tls_ctx *ctx = ctx_new(true);

    ctx->http2 = true;
    for (int i = 0; i < sk_X509_num(chain); i++) {
        X509 *cert = sk_X509_value(chain, i);

        if (!X509_up_ref(cert) || SSL_CTX_add_extra_chain_cert(ctx->ssl, cert) != 1)
            BUG("OpenSSL takes no chain");
    }
    SSL_CTX_set_mode(ctx->ssl, SSL_MODE_NO_AUTO_CHAIN);
    set_up_server(ctx);
    return ctx;
}

struct tls_ctx *tls_ctx_leaf(struct tls_ctx *bare, X509 *leaf, EVP_PKEY *key)
{
    struct tls_ctx *ctx = XNEW(struct tls_ctx);

    OBJ_INIT(ctx, TLS_CTX_MAGIC);
    atomic_init(&ctx->refs, 1);
    ctx->server = ctx->http2 = true;
    ctx->bare = tls_ctx_ref(bare);
    ctx->ssl = bare->ssl;
    if (!SSL_CTX_up_ref(ctx->ssl) || !X509_up_ref(leaf) || !EVP_PKEY_up_ref(key))
        BUG("a certificate that cannot be shared");
    ctx->leaf = leaf;
    ctx->leaf_key = key;
    ctx->not_after_ns = tls_time_ns(X509_get0_notAfter(leaf));
    return ctx;
}

static int set_min_version(SSL_CTX *ssl, const char *version, struct err *e)
{
    if (!version || strcmp(version, "1.2") == 0)
        return 0;
    if (strcmp(version, "1.3") != 0)
        return err_set(e, ERR_INVALID, "least TLS version \"%s\" is neither 1.2 nor 1.3", version);
    SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION);
    return 0;
}

static int load_trust(SSL_CTX *ssl, const char *ca, struct err *e)
{
    if (ca && SSL_CTX_load_verify_file(ssl, ca) != 1)
        return ossl_err(e, ERR_INVALID, "cannot use CA bundle %s", ca);
    if (!ca && SSL_CTX_set_default_verify_paths(ssl) != 1)
        return ossl_err(e, ERR_INVALID, "cannot use the system's CA bundle");
    return 0;
}

struct tls_ctx *tls_ctx_client(const struct tls_client_opts *o, struct err *e)
{
    struct tls_ctx *ctx = ctx_new(false);

    ERR_clear_error();
    ctx->insecure = o->insecure;
    ctx->not_after_ns = INT64_MAX;
    if (set_min_version(ctx->ssl, o->min_version, e) < 0)
        goto fail;
    if (!o->insecure && load_trust(ctx->ssl, o->ca, e) < 0)
        goto fail;
    if (o->certificate && load_identity(ctx->ssl, o->certificate, o->key, e) < 0)
        goto fail;
    if (o->certificate)
        ctx->not_after_ns = chain_not_after(ctx->ssl);
    SSL_CTX_set_verify(ctx->ssl, o->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER,
                       o->insecure ? NULL : tls_on_verify);
    /* OpenSSL's own cache knows no names; ours does. */
    ctx->sessions = tls_sessions_new();
    SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx->ssl, tls_on_new_session);
    return ctx;
fail:
    tls_ctx_unref(&ctx);
    return NULL;
}

struct tls_ctx *tls_ctx_ref(struct tls_ctx *ctx)
{
    OBJ_CHECK(ctx, TLS_CTX_MAGIC);
    atomic_fetch_add_explicit(&ctx->refs, 1, memory_order_relaxed);
    return ctx;
}

void tls_ctx_unref(struct tls_ctx **ctxp)
{
    struct tls_ctx *ctx = *ctxp;

    *ctxp = NULL;
    if (!ctx)
        return;
    OBJ_CHECK(ctx, TLS_CTX_MAGIC);
    if (atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) > 1)
        return;
    tls_sessions_free(&ctx->sessions);
    SSL_CTX_free(ctx->ssl);
    X509_free(ctx->leaf);
    EVP_PKEY_free(ctx->leaf_key);
    tls_ctx_unref(&ctx->bare);
    OBJ_FINI(ctx);
    xfree(ctx);
}

int64_t tls_ctx_not_after_ns(const struct tls_ctx *ctx)
{
    return ctx->not_after_ns;
}

void tls_subject(const X509 *cert, struct str *out)
{
    BIO *bio = cert ? BIO_new(BIO_s_mem()) : NULL;
    char *text;
    long n;

    if (!bio)
        return;
    if (X509_NAME_print_ex(bio, X509_get_subject_name(cert), 0,
                           XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0) {
        n = BIO_get_mem_data(bio, &text);
        str_add(out, text, n > 0 ? (size_t)n : 0);
    }
    BIO_free(bio);
}

void tls_ctx_subject(const struct tls_ctx *ctx, struct str *out)
{
    tls_subject(ctx->leaf ? ctx->leaf : SSL_CTX_get0_certificate(ctx->ssl), out);
}
