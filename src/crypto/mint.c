#include "crypto/mint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include "base/bug.h"
#include "base/hash.h"
#include "base/hmap.h"
#include "base/list.h"
#include "base/xmem.h"
#include "crypto/ossl_err.h"
#include "crypto/tls_impl.h"
#include "rt/clock.h"
#include "rt/rng.h"

#define MINT_MAGIC 0x3172a0c5u

enum {
    NAME_LEN_MAX = 253, /* RFC 1035 §2.3.4 */
    LABEL_MAX = 63,
    COMMON_NAME_MAX = 64, /* RFC 5280 appendix A.1, ub-common-name */
    SERIAL_LEN = 16,      /* RFC 5280 §4.1.2.2: 20 at most */
};

/* Clients' clocks may be late by that much. */
#define BACKDATE_NS (3600 * NS_PER_SEC)
#define LIFE_NS     (INT64_C(7) * 24 * 3600 * NS_PER_SEC)

struct mint {
    uint32_t magic;
    atomic_uint refs;
    X509 *ca;
    EVP_PKEY *ca_key;
    const EVP_MD *digest;     /* NULL: the key's own (Ed25519) */
    struct tls_ctx *bare;     /* with the chain: what a client gets behind the leaf */
    NAME_CONSTRAINTS *limits; /* of the CA, or NULL */
    EVP_PKEY *key;            /* of all leaves */
    int64_t not_before_ns, not_after_ns;
    pthread_mutex_t lock; /* for what follows */
    struct hmap by_name;
    struct list used; /* most recently first */
};

struct coin {
    struct hnode node;
    struct list link;
    struct tls_ctx *ctx;
    int64_t renew_ns; /* wall time */
    char name[NAME_LEN_MAX + 1];
};

/* --- names --- */

struct subject {
    char name[NAME_LEN_MAX + 1]; /* small letters, no dot at the end */
    unsigned char ip[16];
    int ip_len; /* 0: a DNS name */
};

static bool is_dns_name(const char *name, size_t n)
{
    size_t label = 0;

    for (size_t i = 0; i < n; i++) {
        char c = name[i];

        if (c == '.' && label == 0)
            return false;
        label = c == '.' ? 0 : label + 1;
        if (label > LABEL_MAX || (c != '.' && c != '-' && c != '_' && !(c >= 'a' && c <= 'z') &&
                                  !(c >= '0' && c <= '9')))
            return false;
    }
    return n > 0 && label > 0;
}

static int read_subject(const char *name, struct subject *s, struct err *e)
{
    size_t n = strlen(name);

    s->ip_len = inet_pton(AF_INET, name, s->ip) == 1    ? 4
                : inet_pton(AF_INET6, name, s->ip) == 1 ? 16
                                                        : 0;
    if (n > 1 && name[n - 1] == '.')
        n--;
    if (n > NAME_LEN_MAX)
        return err_set(e, ERR_INVALID, "cannot mint a certificate: the name is too long");
    for (size_t i = 0; i < n; i++)
        s->name[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] | 0x20) : name[i];
    s->name[n] = '\0';
    if (!s->ip_len && !is_dns_name(s->name, n))
        return err_set(e, ERR_INVALID,
                       "cannot mint a certificate: neither a DNS name nor an address");
    return 0;
}

/* --- leaves --- */

static bool set_serial(X509 *leaf)
{
    unsigned char bytes[SERIAL_LEN];
    BIGNUM *bn;
    bool ok;

    rng_bytes(bytes, sizeof(bytes));
    bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive, and always of the same length */
    bn = BN_bin2bn(bytes, sizeof(bytes), NULL);
    ok = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(leaf));
    BN_free(bn);
    return ok;
}

static bool set_times(X509 *leaf, const struct mint *m, int64_t now, int64_t *renew)
{
    int64_t from = TR_MAX(now - BACKDATE_NS, m->not_before_ns);
    int64_t until = TR_MIN(now + LIFE_NS, m->not_after_ns);

    *renew = now + (until - now) / 2;
    return ASN1_TIME_set(X509_getm_notBefore(leaf), (time_t)(from / NS_PER_SEC)) &&
           ASN1_TIME_set(X509_getm_notAfter(leaf), (time_t)(until / NS_PER_SEC));
}

static bool add_san(X509 *leaf, const struct subject *s, bool critical)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_STRING *value = s->ip_len ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();
    bool ok = names && name && value;

    if (ok && s->ip_len)
        ok = ASN1_STRING_set(value, s->ip, s->ip_len);
    else if (ok)
        ok = ASN1_STRING_set(value, s->name, -1);
    if (!ok || !sk_GENERAL_NAME_push(names, name))
        BUG("OpenSSL gives no memory");
    GENERAL_NAME_set0_value(name, s->ip_len ? GEN_IPADD : GEN_DNS, value);
    ok = X509_add1_ext_i2d(leaf, NID_subject_alt_name, names, critical, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return ok;
}

static bool add_ext(X509 *leaf, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;
    bool ok;

    X509V3_set_ctx(&ctx, issuer, leaf, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ok = ext && X509_add_ext(leaf, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return ok;
}

/* RFC 5280 §4.2: what a server's certificate has. The authority's key id is a copy of the CA's own,
 * where it has one. */
static bool add_extensions(X509 *leaf, const struct mint *m, const struct subject *s, bool named)
{
    return add_ext(leaf, m->ca, NID_basic_constraints, "critical,CA:FALSE") &&
           add_ext(leaf, m->ca, NID_key_usage, "critical,digitalSignature") &&
           add_ext(leaf, m->ca, NID_ext_key_usage, "serverAuth") &&
           add_ext(leaf, m->ca, NID_subject_key_identifier, "hash") &&
           (!X509_get0_subject_key_id(m->ca) ||
            add_ext(leaf, m->ca, NID_authority_key_identifier, "keyid")) &&
           add_san(leaf, s, !named);
}

/* The leaf, unsigned. */
static X509 *make_leaf(const struct mint *m, const struct subject *s, int64_t now, int64_t *renew)
{
    X509 *leaf = X509_new();
    /* Else the subject is empty and SAN critical (RFC 5280 §4.2.1.6). A common name that is an
     * address is taken for a DNS name by those who check name constraints. */
    bool named = !s->ip_len && strlen(s->name) <= COMMON_NAME_MAX;
    bool ok = leaf && X509_set_version(leaf, X509_VERSION_3) && set_serial(leaf) &&
              set_times(leaf, m, now, renew) &&
              X509_set_issuer_name(leaf, X509_get_subject_name(m->ca)) &&
              X509_set_pubkey(leaf, m->key);

    if (ok && named)
        ok = X509_NAME_add_entry_by_NID(X509_get_subject_name(leaf), NID_commonName, MBSTRING_ASC,
                                        (const unsigned char *)s->name, -1, -1, 0);
    if (ok && add_extensions(leaf, m, s, named))
        return leaf;
    X509_free(leaf);
    return NULL;
}

/* RFC 5280 §4.2.1.10. Of a signed leaf: OpenSSL reads and keeps its extensions now. */
static bool within_limits(const struct mint *m, X509 *leaf)
{
    return !m->limits || (X509_check_purpose(leaf, -1, 0) == 1 &&
                          NAME_CONSTRAINTS_check(leaf, m->limits) == X509_V_OK);
}

static X509 *sign_leaf(const struct mint *m, const struct subject *s, int64_t *renew, struct err *e)
{
    int64_t now = clock_wall_ns();
    X509 *leaf;

    if (now >= m->not_after_ns) {
        err_set(e, ERR_INVALID, "cannot mint a certificate: the CA has expired");
        return NULL;
    }
    ERR_clear_error();
    leaf = make_leaf(m, s, now, renew);
    if (!leaf) {
        ossl_err(e, ERR_INVALID, "cannot mint a certificate");
        return NULL;
    }
    if (X509_sign(leaf, m->ca_key, m->digest) <= 0)
        ossl_err(e, ERR_INVALID, "cannot mint a certificate: the CA's key does not sign");
    else if (!within_limits(m, leaf))
        err_set(e, ERR_INVALID, "the CA's name constraints exclude %s", s->name);
    else
        return leaf;
    X509_free(leaf);
    return NULL;
}

/* --- what is kept; with the lock held --- */

static struct coin *find(const struct mint *m, const char *name, uint64_t hash)
{
    struct hnode *n;

    for (n = hmap_first(&m->by_name, hash); n; n = hmap_next(n, hash)) {
        struct coin *c = hmap_entry(n, struct coin, node);

        if (strcmp(c->name, name) == 0)
            return c;
    }
    return NULL;
}

static void drop(struct mint *m, struct coin *c)
{
    ASSERT(c);
    hmap_remove(&m->by_name, &c->node);
    list_remove(&c->link);
    tls_ctx_unref(&c->ctx);
    xfree(c);
}

static struct tls_ctx *take_kept(struct mint *m, const char *name, uint64_t hash)
{
    struct tls_ctx *ctx = NULL;
    struct coin *c;

    pthread_mutex_lock(&m->lock);
    c = find(m, name, hash);
    if (c && clock_wall_ns() < c->renew_ns) {
        list_remove(&c->link);
        list_prepend(&m->used, &c->link);
        ctx = tls_ctx_ref(c->ctx);
    }
    pthread_mutex_unlock(&m->lock);
    return ctx;
}

/* Keep a new context in place of an older one, also if another thread was quicker. */
static void keep(struct mint *m, const char *name, uint64_t hash, struct tls_ctx *ctx,
                 int64_t renew)
{
    struct coin *c;

    pthread_mutex_lock(&m->lock);
    c = find(m, name, hash);
    if (c)
        drop(m, c);
    if (m->by_name.count >= MINT_KEPT_MAX)
        drop(m, list_last(&m->used, struct coin, link));
    c = XNEW(struct coin);
    c->ctx = tls_ctx_ref(ctx);
    c->renew_ns = renew;
    memcpy(c->name, name, strlen(name));
    hmap_insert(&m->by_name, &c->node, hash);
    list_prepend(&m->used, &c->link);
    pthread_mutex_unlock(&m->lock);
}

struct tls_ctx *mint_server_ctx(struct mint *m, const char *name, struct err *e)
{
    struct subject s;
    struct tls_ctx *ctx;
    int64_t renew;
    uint64_t hash;
    X509 *leaf;

    OBJ_CHECK(m, MINT_MAGIC);
    if (read_subject(name, &s, e) < 0)
        return NULL;
    hash = hash_bytes(s.name, strlen(s.name));
    ctx = take_kept(m, s.name, hash);
    if (ctx)
        return ctx;
    leaf = sign_leaf(m, &s, &renew, e);
    if (!leaf)
        return NULL;
    ctx = tls_ctx_leaf(m->bare, leaf, m->key);
    X509_free(leaf);
    keep(m, s.name, hash, ctx, renew);
    return ctx;
}

/* --- the CA --- */

static FILE *open_pem(const char *what, const char *path, struct err *e)
{
    FILE *f = fopen(path, "re");

    if (!f)
        err_errno(e, ERR_IO, errno, "cannot read the %s %s", what, path);
    return f;
}

/* The CA, and in `rest` what follows it in the file. */
static int load_certificates(struct mint *m, const char *path, STACK_OF(X509) * rest, struct err *e)
{
    FILE *f = open_pem("interception CA", path, e);
    X509 *cert;

    if (!f)
        return -1;
    m->ca = PEM_read_X509(f, NULL, tls_no_passphrase, NULL);
    while (m->ca && (cert = PEM_read_X509(f, NULL, tls_no_passphrase, NULL)))
        if (!sk_X509_push(rest, cert))
            BUG("OpenSSL gives no memory");
    fclose(f);
    if (!m->ca)
        return ossl_err(e, ERR_INVALID, "no certificate in the interception CA %s", path);
    ERR_clear_error(); /* the end of the file is an error, too */
    return 0;
}

static int load_key(struct mint *m, const char *path, const char *ca, struct err *e)
{
    int nid;

    m->ca_key = tls_key_load("interception CA's key", path, e);
    if (!m->ca_key)
        return -1;
    if (X509_check_private_key(m->ca, m->ca_key) != 1) {
        ERR_clear_error();
        return err_set(
            e, ERR_INVALID,
            "key %s does not belong to the first certificate in %s: put the signing CA's "
            "certificate first",
            path, ca);
    }
    if (EVP_PKEY_get_default_digest_nid(m->ca_key, &nid) > 0 && nid != NID_undef)
        m->digest = EVP_get_digestbynid(nid);
    return 0;
}

static int check_ca(const struct mint *m, const char *path, struct err *e)
{
    uint32_t flags = X509_get_extension_flags(m->ca);

    if (flags & EXFLAG_INVALID)
        return err_set(e, ERR_INVALID, "%s has extensions that cannot be read", path);
    if (!(flags & EXFLAG_BCONS) || !(flags & EXFLAG_CA))
        return err_set(e, ERR_INVALID,
                       "%s is no CA certificate: make one with basicConstraints CA:TRUE", path);
    if (!(X509_get_key_usage(m->ca) & KU_KEY_CERT_SIGN))
        return err_set(e, ERR_INVALID,
                       "%s must not sign certificates: make one with keyUsage keyCertSign", path);
    if ((flags & EXFLAG_XKUSAGE) && !(X509_get_extended_key_usage(m->ca) & XKU_SSL_SERVER))
        return err_set(e, ERR_INVALID,
                       "%s must not sign certificates of servers: its extendedKeyUsage lacks "
                       "serverAuth",
                       path);
    if (clock_wall_ns() >= m->not_after_ns)
        return err_set(e, ERR_INVALID, "%s, or a certificate above it, has expired: renew it",
                       path);
    if (clock_wall_ns() < m->not_before_ns)
        return err_set(e, ERR_INVALID, "%s is not valid yet: check the clock", path);
    return 0;
}

/* Clients get the CA and what is above it, without roots: they have those. */
static void set_chain(struct mint *m, STACK_OF(X509) * rest)
{
    STACK_OF(X509) *chain = sk_X509_new_null();

    if (!chain || !sk_X509_insert(rest, m->ca, 0) || !X509_up_ref(m->ca))
        BUG("OpenSSL gives no memory");
    m->not_before_ns = tls_time_ns(X509_get0_notBefore(m->ca));
    m->not_after_ns = INT64_MAX;
    for (int i = 0; i < sk_X509_num(rest); i++) {
        X509 *cert = sk_X509_value(rest, i);

        m->not_after_ns = TR_MIN(m->not_after_ns, tls_time_ns(X509_get0_notAfter(cert)));
        if (!(X509_get_extension_flags(cert) & EXFLAG_SS) && !sk_X509_push(chain, cert))
            BUG("OpenSSL gives no memory");
    }
    m->bare = tls_ctx_bare(chain);
    sk_X509_free(chain);
}

/* Would clients believe a certificate for these names? */
static int check_hosts(const struct mint *m, const char *path, const char *const *hosts, size_t n,
                       struct err *e)
{
    struct subject s;
    char name[300];
    int64_t renew;
    X509 *leaf;

    for (size_t i = 0; m->limits && i < n; i++) {
        bool wild = strncmp(hosts[i], "*.", 2) == 0;

        snprintf(name, sizeof(name), "%s%s", wild ? "any" : "", hosts[i] + wild);
        leaf = read_subject(name, &s, e) < 0 ? NULL : sign_leaf(m, &s, &renew, e);
        if (!leaf)
            return err_prefix(e, "%s cannot be used to intercept %s", path, hosts[i]);
        X509_free(leaf);
    }
    return 0;
}

struct mint *mint_new(const char *ca, const char *key, const char *const *hosts, size_t n,
                      struct err *e)
{
    struct mint *m = XNEW(struct mint);
    STACK_OF(X509) *rest = sk_X509_new_null();

    ASSERT(rest);
    OBJ_INIT(m, MINT_MAGIC);
    atomic_init(&m->refs, 1);
    pthread_mutex_init(&m->lock, NULL);
    list_init(&m->used);
    ERR_clear_error();
    if (load_certificates(m, ca, rest, e) < 0)
        goto fail;
    set_chain(m, rest);
    m->limits = X509_get_ext_d2i(m->ca, NID_name_constraints, NULL, NULL);
    m->key = EVP_EC_gen("P-256");
    if (!m->key)
        BUG("OpenSSL makes no P-256 key");
    if (check_ca(m, ca, e) < 0 || load_key(m, key, ca, e) < 0 ||
        check_hosts(m, ca, hosts, n, e) < 0)
        goto fail;
    sk_X509_pop_free(rest, X509_free);
    return m;
fail:
    sk_X509_pop_free(rest, X509_free);
    mint_unref(&m);
    return NULL;
}

struct mint *mint_ref(struct mint *m)
{
    OBJ_CHECK(m, MINT_MAGIC);
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

void mint_unref(struct mint **mp)
{
    struct mint *m = *mp;

    *mp = NULL;
    if (!m)
        return;
    OBJ_CHECK(m, MINT_MAGIC);
    if (atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) > 1)
        return;
    while (!list_empty(&m->used))
        drop(m, list_first(&m->used, struct coin, link));
    hmap_fini(&m->by_name);
    pthread_mutex_destroy(&m->lock);
    tls_ctx_unref(&m->bare);
    NAME_CONSTRAINTS_free(m->limits);
    X509_free(m->ca);
    EVP_PKEY_free(m->ca_key);
    EVP_PKEY_free(m->key);
    OBJ_FINI(m);
    xfree(m);
}

int64_t mint_not_after_ns(const struct mint *m)
{
    OBJ_CHECK(m, MINT_MAGIC);
    return m->not_after_ns;
}

void mint_subject(const struct mint *m, struct str *out)
{
    OBJ_CHECK(m, MINT_MAGIC);
    tls_subject(m->ca, out);
}
