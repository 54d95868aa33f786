#include "doctor/papers.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <time.h>
#include "net/addr.h"
#include "rt/clock.h"

enum { SOON_DAYS = 14, DAY_S = 86400, SOON_S = SOON_DAYS * DAY_S };

static STACK_OF(X509) * read_chain(const char *path)
{
    STACK_OF(X509) *chain = sk_X509_new_null();
    BIO *bio = BIO_new_file(path, "r");
    X509 *cert;

    while (bio && chain && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        if (!sk_X509_push(chain, cert))
            X509_free(cert);
    }
    BIO_free(bio);
    ERR_clear_error();
    return chain;
}

static void check_time(struct findings *r, const struct papers *p, X509 *cert)
{
    struct finding f = {.cause = CAUSE_OWN_CERTIFICATE_EXPIRED, .flow = p->flow, .step = "expiry"};
    struct tm tm;
    int64_t left;

    if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1)
        return;
    left = (int64_t)timegm(&tm) - clock_wall_ns() / NS_PER_SEC;
    if (left > SOON_S) {
        findings_ok(r, p->flow, "expiry", "%s is good for %lld days more", p->path,
                    (long long)(left / DAY_S));
        return;
    }
    f.verdict = left > 0 ? VERDICT_WARN : VERDICT_FAIL;
    findings_add(r, &f, "%s %s %04d-%02d-%02d", p->path, left > 0 ? "expires on" : "has expired on",
                 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
    findings_do(r, "renew it: %s; then tailracectl reload", p->setting);
}

static void check_name(struct findings *r, const struct papers *p, X509 *cert)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_OWN_CERTIFICATE_WRONG_NAME, p->flow, "name"};
    struct net_addr literal;
    bool fits;

    if (!p->host || p->is_ca)
        return;
    fits = net_addr_literal(view_str(p->host), 0, &literal) == 0
               ? X509_check_ip_asc(cert, p->host, 0) == 1
               : X509_check_host(cert, p->host, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
    if (fits) {
        findings_ok(r, p->flow, "name", "%s is for %s", p->path, p->host);
        return;
    }
    findings_add(r, &f, "%s is not for %s, which clients call it", p->path, p->host);
    findings_do(r, "get one with the DNS name %s in it: %s", p->host, p->setting);
}

static void check_trust(struct findings *r, const struct papers *p, STACK_OF(X509) * chain)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_TRUST_MISSING, p->flow, "trust"};
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    bool known;

    if (store)
        X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_NO_CHECK_TIME);
    known = store && ctx && X509_STORE_load_file(store, p->trust) == 1 &&
            X509_STORE_CTX_init(ctx, store, sk_X509_value(chain, 0), chain) == 1 &&
            X509_verify_cert(ctx) == 1;
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    ERR_clear_error();
    if (known) {
        findings_ok(r, p->flow, "trust", "who trusts %s believes %s", p->trust, p->path);
        return;
    }
    findings_add(r, &f, "the issuer of %s is not in %s", p->path, p->trust);
    findings_do(r,
                "put the CA of %s into the trust store of delegates (their Java trust store, by "
                "/opt/harness-delegate/ca-bundle) and of build pods (ADDITIONAL_CERTS_PATH)",
                p->setting);
}

void papers_check(struct findings *r, const struct papers *p)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_CONFIG_BROKEN, p->flow, "certificate"};
    STACK_OF(X509) *chain = read_chain(p->path);

    if (!chain || sk_X509_num(chain) == 0) {
        findings_add(r, &f, "no certificate can be read from %s", p->path);
        findings_do(r, "correct %s: PEM, readable to whom tailrace runs as", p->setting);
    } else {
        for (int i = 0; i < sk_X509_num(chain); i++) {
            if (i == 0 || X509_cmp_current_time(X509_get0_notAfter(sk_X509_value(chain, i))) < 0)
                check_time(r, p, sk_X509_value(chain, i));
        }
        check_name(r, p, sk_X509_value(chain, 0));
        if (p->trust)
            check_trust(r, p, chain);
    }
    sk_X509_pop_free(chain, X509_free);
}
