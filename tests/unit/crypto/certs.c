#include "certs.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include "base/bug.h"

enum { DAY = 24 * 3600 };

void certs_init(struct certs *c)
{
    const char *tmp = getenv("TMPDIR");

    memset(c, 0, sizeof(*c));
    snprintf(c->dir, sizeof(c->dir), "%s/certs.XXXXXX", tmp ? tmp : "/tmp");
    ASSERT(mkdtemp(c->dir));
}

void certs_remove(struct certs *c)
{
    DIR *d = opendir(c->dir);
    struct dirent *de;

    ASSERT(d);
    while ((de = readdir(d)))
        if (de->d_name[0] != '.')
            unlink(certs_path(c, de->d_name));
    closedir(d);
    rmdir(c->dir);
}

const char *certs_path(struct certs *c, const char *file)
{
    char *out = c->path[c->turn++ % 16];
    size_t n = strlen(c->dir);

    memcpy(out, c->dir, n);
    snprintf(out + n, sizeof(c->path[0]) - n, "/%.60s", file);
    return out;
}

static FILE *open_file(struct certs *c, const char *name, const char *ext, const char *mode)
{
    char file[80];
    FILE *f;

    snprintf(file, sizeof(file), "%.60s.%s", name, ext);
    f = fopen(certs_path(c, file), mode);
    ASSERT(f);
    return f;
}

static void load_issuer(struct certs *c, const char *name, X509 **cert, EVP_PKEY **key)
{
    FILE *f = open_file(c, name, "pem", "r");

    *cert = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    f = open_file(c, name, "key", "r");
    *key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    fclose(f);
    ASSERT(*cert && *key);
}

static void add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ASSERT(ext);
    X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
}

static X509 *new_cert(const struct cert_spec *spec, EVP_PKEY *key)
{
    X509 *cert = X509_new();
    unsigned char serial[8];
    BIGNUM *bn;

    ASSERT(cert && RAND_bytes(serial, sizeof(serial)) == 1);
    serial[0] &= 0x7f;
    bn = BN_bin2bn(serial, sizeof(serial), NULL);
    BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert));
    BN_free(bn);
    X509_set_version(cert, X509_VERSION_3);
    X509_gmtime_adj(X509_getm_notBefore(cert), spec->from);
    X509_gmtime_adj(X509_getm_notAfter(cert), spec->until);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)spec->name, -1, -1, 0);
    X509_set_pubkey(cert, key);
    return cert;
}

void certs_make(struct certs *c, const struct cert_spec *spec)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = new_cert(spec, key), *issuer = cert;
    EVP_PKEY *issuer_key = key;
    FILE *f;

    if (spec->issuer)
        load_issuer(c, spec->issuer, &issuer, &issuer_key);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer));
    add_ext(cert, issuer, NID_basic_constraints, spec->ca ? "critical,CA:TRUE" : "CA:FALSE");
    if (spec->san)
        add_ext(cert, issuer, NID_subject_alt_name, spec->san);
    ASSERT(X509_sign(cert, issuer_key, EVP_sha256()) > 0);
    f = open_file(c, spec->name, "pem", "w");
    PEM_write_X509(f, cert);
    fclose(f);
    f = open_file(c, spec->name, "key", "w");
    PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    if (spec->issuer) {
        X509_free(issuer);
        EVP_PKEY_free(issuer_key);
    }
    X509_free(cert);
    EVP_PKEY_free(key);
}

void certs_make_usual(struct certs *c)
{
    static const struct cert_spec usual[] = {
        {.name = "ca", .ca = 1, .from = -DAY, .until = 365 * DAY},
        {.name = "server",
         .issuer = "ca",
         .from = -DAY,
         .until = 30 * DAY,
         .san = "DNS:localhost,DNS:a.example,DNS:*.wild.example,IP:127.0.0.1,IP:::1"},
        {.name = "client", .issuer = "ca", .from = -DAY, .until = 30 * DAY},
    };

    for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
        certs_make(c, &usual[i]);
}
