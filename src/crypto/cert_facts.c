#include "crypto/cert_facts.h"

#include <string.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include "crypto/ossl_err.h"

/* Chains have three or four; a bundle of authorities given by mistake has some hundred. */
enum { CHAIN_MAX = 1000, NAME_LEN_MAX = 253 };

static bool is_plain_name(const char *p, size_t n)
{
    return n > 0 && n <= NAME_LEN_MAX &&
           strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == n;
}

/* RFC 5280 §4.2.1.6. A string of ASN.1 may have any bytes in it, a NUL too. */
static void find_name(X509 *leaf, struct str *out)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    int i;

    for (i = 0; i < sk_GENERAL_NAME_num(names) && !out->n; i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
        const char *p;
        size_t n;

        if (g->type != GEN_DNS)
            continue;
        p = (const char *)ASN1_STRING_get0_data(g->d.dNSName);
        n = (size_t)ASN1_STRING_length(g->d.dNSName);
        if (is_plain_name(p, n))
            str_add(out, p, n);
    }
    GENERAL_NAMES_free(names);
}

static void add_issuer(X509 *last, struct str *out)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *p;
    long n;

    if (bio && X509_NAME_print_ex(bio, X509_get_issuer_name(last), 0, XN_FLAG_RFC2253) >= 0) {
        n = BIO_get_mem_data(bio, &p);
        str_add(out, p, n > 0 ? (size_t)n : 0);
    }
    BIO_free(bio);
}

static bool is_own_issuer(X509 *x)
{
    return X509_NAME_cmp(X509_get_subject_name(x), X509_get_issuer_name(x)) == 0;
}

/* Whether it has expired is another question: clients know its authority or not. */
static bool is_trusted(X509 *leaf, STACK_OF(X509) * chain)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    bool ok = store && ctx && X509_STORE_set_default_paths(store) == 1 &&
              X509_STORE_CTX_init(ctx, store, leaf, chain) == 1;

    if (ok) {
        X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_NO_CHECK_TIME);
        ok = X509_verify_cert(ctx) == 1;
    }
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    ERR_clear_error();
    return ok;
}

static int64_t not_after(const X509 *x)
{
    struct tm tm;

    return ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1 ? timegm(&tm) : INT64_MAX;
}

static int read_chain(const char *path, STACK_OF(X509) * chain, struct err *e)
{
    BIO *bio = BIO_new_file(path, "r");
    X509 *x;

    if (!bio)
        return ossl_err(e, ERR_IO, "%s", path);
    while (sk_X509_num(chain) < CHAIN_MAX && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
        sk_X509_push(chain, x);
    BIO_free(bio);
    ERR_clear_error();
    if (sk_X509_num(chain) == 0)
        return err_set(e, ERR_INVALID, "%s: no certificate in it", path);
    return 0;
}

int cert_facts_read(const char *path, const char *host, struct cert_facts *f, struct err *e)
{
    STACK_OF(X509) *chain = sk_X509_new_null();
    X509 *leaf, *last;
    int rc;

    *f = (struct cert_facts){0};
    rc = chain ? read_chain(path, chain, e) : ossl_err(e, ERR_IO, "%s", path);
    if (rc == 0) {
        leaf = sk_X509_value(chain, 0);
        last = sk_X509_value(chain, sk_X509_num(chain) - 1);
        find_name(leaf, &f->name);
        if (!is_own_issuer(last))
            add_issuer(last, &f->issuer);
        f->trusted = is_trusted(leaf, chain);
        f->not_after = not_after(leaf);
        f->covers = host && (X509_check_ip_asc(leaf, host, 0) == 1 ||
                             X509_check_host(leaf, host, 0, 0, NULL) == 1);
    }
    sk_X509_pop_free(chain, X509_free);
    return rc;
}

void cert_facts_fini(struct cert_facts *f)
{
    str_fini(&f->name);
    str_fini(&f->issuer);
}
