#include "doctor/chain.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>
#include "base/bug.h"
#include "crypto/ossl_err.h"

/* ---- names and times in certificates ------------------------------------------------------ */

static void add_name(struct str *out, X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *p;
    long n;

    if (!bio)
        return;
    X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB);
    n = BIO_get_mem_data(bio, &p);
    str_addc(out, '"');
    str_add(out, p, (size_t)(n < 200 ? n : 200));
    str_addc(out, '"');
    BIO_free(bio);
}

static void add_time(struct str *out, const ASN1_TIME *t)
{
    struct tm tm;

    if (ASN1_TIME_to_tm(t, &tm) == 1)
        str_addf(out, "%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
}

static void add_names(struct str *out, X509 *leaf)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    int n = names ? sk_GENERAL_NAME_num(names) : 0, shown = 0;

    for (int i = 0; i < n && shown < 6; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type != GEN_DNS)
            continue;
        str_addf(out, "%s%.*s", shown++ ? ", " : "", ASN1_STRING_length(name->d.dNSName),
                 (const char *)ASN1_STRING_get0_data(name->d.dNSName));
    }
    if (shown == 0)
        add_name(out, X509_get_subject_name(leaf));
    GENERAL_NAMES_free(names);
}

/* Who signed it: as far up as the far side shows. */
static X509 *top_of(SSL *ssl)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);

    return sk_X509_value(chain, sk_X509_num(chain) - 1);
}

static void add_fingerprint(struct str *out, const X509 *cert)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    if (X509_digest(cert, EVP_sha256(), md, &n) != 1)
        return;
    for (unsigned i = 0; i < n; i++)
        str_addf(out, "%02x", md[i]);
}

/* ---- what the far side is ----------------------------------------------------------------- */

/* Harness and the bucket have certificates that every system trusts. */
static bool is_public(const char *host)
{
    return view_ends(view_str(host), VIEW_LIT(".harness.io")) ||
           view_ends(view_str(host), VIEW_LIT(".googleapis.com"));
}

/* Would a system without any CA of the company believe it? */
static bool known_to_system(SSL *ssl)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
    bool yes = store && ctx && X509_STORE_set_default_paths(store) == 1 &&
               X509_STORE_CTX_init(ctx, store, sk_X509_value(chain, 0), chain) == 1 &&
               X509_verify_cert(ctx) == 1;

    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    ERR_clear_error();
    return yes;
}

/* ---- findings ----------------------------------------------------------------------------- */

static void tell_issuer(struct route *r, const struct chain_opts *o)
{
    SSL *ssl = r->line.ssl;
    X509 *top = top_of(ssl);
    const bool resigned = is_public(o->host);
    struct str issuer = STR_INIT, print = STR_INIT;

    add_name(&issuer, X509_get_issuer_name(top));
    if (X509_check_issued(top, top) == X509_V_OK) {
        str_adds(&print, ", SHA-256 ");
        add_fingerprint(&print, top);
    }
    route_bad(r, resigned ? CAUSE_MIDDLEBOX_RESIGNS : CAUSE_CA_MISSING, o->step,
              "%s:%u shows a certificate of %s, which %s does not have", o->host, o->port,
              str_c(&issuer),
              r->way->ca && (!r->others || o->parent) ? r->way->ca : "the system's CA bundle");
    if (resigned)
        findings_do(r->findings,
                    "exempt %s:%u from TLS inspection; or, if it is to stay, put its CA "
                    "certificate (%s%s) into a PEM bundle together with the system's, and set "
                    "upstream.ca: FILE",
                    o->host, o->port, str_c(&issuer), str_c(&print));
    else if (r->others && !o->parent)
        findings_do(r->findings, "see that the clients that go there trust %s%s", str_c(&issuer),
                    str_c(&print));
    else
        findings_do(r->findings, "%s the certificate of %s%s: upstream.ca: FILE (PEM)",
                    r->way->ca ? "add to the bundle" : "get and trust", str_c(&issuer),
                    str_c(&print));
    str_fini(&issuer);
    str_fini(&print);
}

static void tell_time(struct route *r, const struct chain_opts *o, long verified)
{
    X509 *leaf = sk_X509_value(SSL_get_peer_cert_chain(r->line.ssl), 0);
    struct str from = STR_INIT, to = STR_INIT;

    add_time(&from, X509_get0_notBefore(leaf));
    add_time(&to, X509_get0_notAfter(leaf));
    route_bad(r, CAUSE_CERTIFICATE_EXPIRED, o->step,
              "the certificate of %s:%u, good from %s to %s: %s", o->host, o->port, str_c(&from),
              str_c(&to), X509_verify_cert_error_string(verified));
    findings_do(r->findings,
                "renew the certificate of %s:%u; or, if it is this host's clock that is "
                "wrong, correct that",
                o->host, o->port);
    str_fini(&from);
    str_fini(&to);
}

static void tell_wrong_name(struct route *r, const struct chain_opts *o)
{
    struct str names = STR_INIT;

    add_names(&names, sk_X509_value(SSL_get_peer_cert_chain(r->line.ssl), 0));
    route_bad(r, CAUSE_CERTIFICATE_WRONG_NAME, o->step, "the certificate of %s:%u is for %s",
              o->host, o->port, str_c(&names));
    findings_do(r->findings,
                "have a certificate for %s put there, or correct %s, or have DNS lead %s to the "
                "right server",
                o->host, r->setting, o->host);
    str_fini(&names);
}

static void tell_distrust(struct route *r, const struct chain_opts *o, long verified)
{
    switch (verified) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        tell_time(r, o, verified);
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        tell_wrong_name(r, o);
        break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        tell_issuer(r, o);
        break;
    default:
        route_bad(r, CAUSE_TLS_FAILS, o->step, "the certificate of %s:%u: %s", o->host, o->port,
                  X509_verify_cert_error_string(verified));
        findings_do(r->findings, "have that certificate replaced");
    }
}

static void tell_good(struct route *r, const struct chain_opts *o)
{
    SSL *ssl = r->line.ssl;
    X509 *leaf = sk_X509_value(SSL_get_peer_cert_chain(ssl), 0);
    struct str text = STR_INIT;

    if (r->quiet)
        return;
    str_addf(&text, "%s, certificate of ", SSL_get_version(ssl));
    add_name(&text, X509_get_issuer_name(leaf));
    str_adds(&text, " until ");
    add_time(&text, X509_get0_notAfter(leaf));
    if (is_public(o->host) && r->way->ca && !known_to_system(ssl))
        str_adds(&text, "; something on the way re-signs it, and upstream.ca trusts that");
    route_ok(r, o->step, "%s", str_c(&text));
    str_fini(&text);
}

/* ---- handshakes --------------------------------------------------------------------------- */

static int on_certificate_wanted(SSL *ssl, void *ctx)
{
    (void)ssl;
    ((struct route *)ctx)->asked = true;
    return 1;
}

/* Nobody is asked for a passphrase: the gateway could not either. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1;
}

/* A context for one handshake. `any`: whatever version the far side speaks, to find out which. */
static SSL_CTX *context(struct route *r, const struct chain_opts *o, bool any, struct err *e)
{
    const struct way *way = r->way;
    const char *ca = r->others && !o->parent ? NULL : way->ca;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (!ctx)
        BUG("OpenSSL gives no context");
    SSL_CTX_set_min_proto_version(ctx, any            ? TLS1_VERSION
                                       : way->tls_1_3 ? TLS1_3_VERSION
                                                      : TLS1_2_VERSION);
    if (any && SSL_CTX_set_cipher_list(ctx, "ALL:@SECLEVEL=0") != 1)
        BUG("OpenSSL knows no ciphers");
    SSL_CTX_set_cert_cb(ctx, on_certificate_wanted, r);
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    ERR_clear_error();
    if (ca ? SSL_CTX_load_verify_file(ctx, ca) != 1 : SSL_CTX_set_default_verify_paths(ctx) != 1)
        ossl_err(e, ERR_INVALID, "cannot use CA bundle %s", ca ? ca : "of the system");
    else if (r->harness && !o->parent && way->certificate &&
             (SSL_CTX_use_certificate_chain_file(ctx, way->certificate) != 1 ||
              SSL_CTX_use_PrivateKey_file(ctx, way->key, SSL_FILETYPE_PEM) != 1))
        ossl_err(e, ERR_INVALID, "cannot use certificate %s with its key", way->certificate);
    else
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

static SSL *session(SSL_CTX *ctx, const struct chain_opts *o)
{
    struct net_addr literal;
    SSL *ssl = SSL_new(ctx);
    int ok;

    if (!ssl)
        BUG("OpenSSL gives no session");
    if (net_addr_literal(view_str(o->host), 0, &literal) == 0) {
        ok = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), o->host);
    } else {
        SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        ok = SSL_set1_host(ssl, o->host) && SSL_set_tlsext_host_name(ssl, o->host);
    }
    if (!ok)
        BUG("OpenSSL takes no name");
    if (o->alpn.n)
        SSL_set_alpn_protos(ssl, (const unsigned char *)o->alpn.p, (unsigned)o->alpn.n);
    return ssl;
}

/* One handshake over the line. -1: `e`. */
static int shake(struct route *r, const struct chain_opts *o, bool any, struct err *e)
{
    SSL_CTX *ctx = context(r, o, any, e);
    int rc;

    if (!ctx)
        return -1;
    r->asked = false;
    line_allow(&r->line, r->way->timeout_ms);
    rc = line_tls(&r->line, session(ctx, o), e);
    SSL_CTX_free(ctx);
    return rc;
}

/* What it speaks, on another connection. */
static void find_version(struct route *r, const struct chain_opts *o, struct str *out)
{
    bool quiet = r->quiet;
    struct err e;

    /* Below the target's TLS there may be the parent's; its own cannot be tried so simply. */
    if (o->parent)
        return;
    r->quiet = true;
    if (route_dial(r) && shake(r, o, true, &e) == 0)
        str_adds(out, SSL_get_version(r->line.ssl));
    r->quiet = quiet;
}

static void tell_too_old(struct route *r, const struct chain_opts *o)
{
    const char *least = r->way->tls_1_3 ? "1.3" : "1.2";
    struct str version = STR_INIT;

    find_version(r, o, &version);
    route_bad(r, CAUSE_TLS_TOO_OLD, o->step, "%s:%u does not speak TLS %s%s%s", o->host, o->port,
              least, version.n ? ", but " : "", str_c(&version));
    if (r->way->tls_1_3 && strcmp(str_c(&version), "TLSv1.2") == 0)
        findings_do(r->findings, "have %s:%u speak TLS 1.3, or set upstream.tls-min: \"1.2\"",
                    o->host, o->port);
    else
        findings_do(r->findings,
                    "have %s:%u speak TLS %s; if a middlebox is between, exempt %s from "
                    "its TLS inspection",
                    o->host, o->port, least, o->host);
    str_fini(&version);
}

static void tell_broken(struct route *r, const struct chain_opts *o, const struct err *e)
{
    switch (r->line.reason) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_UNEXPECTED_MESSAGE:
    case SSL_R_RECORD_LENGTH_MISMATCH:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
        route_bad(r, CAUSE_NOT_TLS, o->step, "%s:%u answers, but not with TLS", o->host, o->port);
        findings_do(r->findings, "correct %s (its port, and http or https), or %s", r->setting,
                    "have the portal let this host through");
        return;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        tell_too_old(r, o);
        return;
    default:
        break;
    }
    if (e->code == ERR_TIMEOUT || e->code == ERR_CLOSED) {
        route_bad(r, CAUSE_TLS_CUT, o->step, "%s:%u takes TCP; when TLS begins: %s", o->host,
                  o->port, e->text);
        route_rule(r, ", TLS to that server name (SNI) included");
        return;
    }
    route_bad(r, CAUSE_TLS_FAILS, o->step, "%s:%u: %s", o->host, o->port, e->text);
    findings_do(r->findings, "look at both sides' settings of TLS");
}

static bool is_about_certificate(const struct route *r, const struct err *e)
{
    if (r->asked && !r->answered && r->line.reason == 0 && e->code == ERR_CLOSED)
        return true;
    switch (r->line.reason) {
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        return true;
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE: /* what TLS 1.2 says of it, among other things */
        return r->asked;
    default:
        return false;
    }
}

bool chain_blames_us(struct route *r, const struct err *e)
{
    if (!is_about_certificate(r, e))
        return false;
    if (r->harness && r->way->certificate) {
        route_bad(r, CAUSE_CLIENT_CERTIFICATE_REFUSED, "tls", "%s:%u refuses %s", r->host, r->port,
                  r->way->certificate);
        findings_do(r->findings,
                    "register this certificate, or its CA, with the account at Harness; "
                    "or use one that is: upstream.certificate, upstream.key");
    } else {
        route_bad(r, CAUSE_CLIENT_CERTIFICATE_MISSING, "tls", "%s:%u asks for a certificate",
                  r->host, r->port);
        findings_do(r->findings,
                    "set upstream.certificate: FILE and upstream.key: FILE; have its CA "
                    "registered with the account at Harness");
    }
    return true;
}

bool chain_secure(struct route *r, const struct chain_opts *o)
{
    const unsigned char *alpn;
    struct err e = {0};
    unsigned n;
    long verified;

    if (shake(r, o, false, &e) < 0) {
        if (!r->line.ssl) {
            route_bad(r, CAUSE_CONFIG_BROKEN, o->step, "%s", e.text);
            findings_do(r->findings, "correct upstream.ca, upstream.certificate or upstream.key");
        } else if (!chain_blames_us(r, &e)) {
            tell_broken(r, o, &e);
        }
        return false;
    }
    SSL_get0_alpn_selected(r->line.ssl, &alpn, &n);
    n = TR_MIN(n, (unsigned)sizeof(r->alpn) - 1);
    if (n)
        memcpy(r->alpn, alpn, n);
    r->alpn[n] = '\0';
    verified = SSL_get_verify_result(r->line.ssl);
    if (verified == X509_V_OK) {
        tell_good(r, o);
        return true;
    }
    if (r->others && !o->parent) {
        enum verdict bad = r->bad;

        r->bad = VERDICT_WARN;
        tell_distrust(r, o, verified);
        r->bad = bad;
    } else {
        tell_distrust(r, o, verified);
    }
    return false;
}
