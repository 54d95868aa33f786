#include "crypto/mint.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include "base/bug.h"
#include "rt/clock.h"
#include "certs.h"

enum { DAY = 24 * 3600 };

static struct certs certs;

/* A CA as an admin's openssl(1) makes it. `ext`: what it may do. */
static void openssl_ca(const char *name, const char *keys, const char *ext)
{
    char cmd[1400], pem[200], key[200];

    snprintf(pem, sizeof(pem), "%s/%s.pem", certs.dir, name);
    snprintf(key, sizeof(key), "%s/%s.key", certs.dir, name);
    snprintf(cmd, sizeof(cmd),
             "openssl req -x509 -newkey %s -nodes -keyout %s -out %s -days 30 -subj /O=Corp/CN=%s "
             "-addext keyUsage=critical,%s >/dev/null 2>&1",
             keys, key, pem, name, ext);
    ASSERT(system(cmd) == 0);
}

static int group_setup(void **state)
{
    static const struct cert_spec more[] = {
        {.name = "expired-ca", .ca = 1, .from = -9 * DAY, .until = -2 * DAY},
        {.name = "early-ca", .ca = 1, .from = 2 * DAY, .until = 9 * DAY},
        {.name = "sub-ca", .issuer = "ca", .ca = 1, .from = -DAY, .until = 3 * DAY},
        {.name = "leaf", .issuer = "ca", .from = -DAY, .until = 3 * DAY},
    };

    (void)state;
    certs_init(&certs);
    certs_make_usual(&certs);
    for (size_t i = 0; i < ARRAY_LEN(more); i++)
        certs_make(&certs, &more[i]);
    openssl_ca("rsa", "rsa:2048", "keyCertSign,cRLSign");
    openssl_ca("p384", "ec -pkeyopt ec_paramgen_curve:P-384", "keyCertSign");
    openssl_ca("ed", "ed25519", "keyCertSign");
    openssl_ca("nosign", "ed25519", "digitalSignature");
    openssl_ca("client-only", "ed25519", "keyCertSign -addext extendedKeyUsage=clientAuth");
    openssl_ca("limited", "ed25519",
               "keyCertSign -addext "
               "'nameConstraints=critical,permitted;DNS:harness.io,permitted;IP:10.0.0.0/"
               "255.0.0.0'");
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    clock_fake(-1, -1);
    certs_remove(&certs);
    return 0;
}

static const char *pem(const char *name)
{
    char file[80];

    snprintf(file, sizeof(file), "%s.pem", name);
    return certs_path(&certs, file);
}

static const char *key_of(const char *name)
{
    char file[80];

    snprintf(file, sizeof(file), "%s.key", name);
    return certs_path(&certs, file);
}

static struct mint *must_mint(const char *ca)
{
    struct err e = {0};
    struct mint *m = mint_new(pem(ca), key_of(ca), NULL, 0, &e);

    if (!m)
        fail_msg("%s: %s", ca, e.text);
    return m;
}

static struct tls_ctx *must_ctx(struct mint *m, const char *name)
{
    struct err e = {0};
    struct tls_ctx *ctx = mint_server_ctx(m, name, &e);

    if (!ctx)
        fail_msg("%s: %s", name, e.text);
    return ctx;
}

/* A handshake of two sessions over a socket pair. The client's verdict; its session in `*c`. */
struct shaken {
    int fd[2];
    struct tls_session *s[2];
    enum tls_want want[2];
    struct err e[2];
};

static void shake(struct shaken *h, struct tls_ctx *server, const char *trust, const char *name)
{
    struct tls_client_opts co = {.ca = pem(trust)};
    struct err e = {0};
    struct tls_ctx *client = tls_ctx_client(&co, &e);

    memset(h, 0, sizeof(*h));
    if (!client)
        fail_msg("%s", e.text);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, h->fd), 0);
    h->s[0] = tls_connect(client, h->fd[0], name, VIEW_LIT("\x02h2\x08http/1.1"));
    h->s[1] = tls_accept(server, h->fd[1]);
    tls_ctx_unref(&client);
    h->want[0] = h->want[1] = TLS_WANT_READ;
    for (int round = 0; round < 20; round++)
        for (int i = 0; i < 2; i++)
            if (h->want[i] != TLS_DONE && h->want[i] != TLS_FAILED)
                h->want[i] = tls_handshake(h->s[i], &h->e[i]);
}

static void shaken_fini(struct shaken *h)
{
    for (int i = 0; i < 2; i++) {
        tls_free(&h->s[i]);
        close(h->fd[i]);
    }
}

static void accepted(struct mint *m, const char *trust, const char *name)
{
    struct tls_ctx *ctx = must_ctx(m, name);
    struct shaken h;

    shake(&h, ctx, trust, name);
    if (h.want[0] != TLS_DONE || h.want[1] != TLS_DONE)
        fail_msg("%s, %s: client: %s; server: %s", trust, name, h.e[0].text, h.e[1].text);
    assert_true(view_is(tls_alpn(h.s[0]), "h2"));
    shaken_fini(&h);
    tls_ctx_unref(&ctx);
}

static void every_kind_of_ca_is_believed(void **state)
{
    static const char *const cas[] = {"ca", "rsa", "p384", "ed"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cas); i++) {
        struct mint *m = must_mint(cas[i]);

        accepted(m, cas[i], "app.harness.io");
        accepted(m, cas[i], "192.0.2.7");
        accepted(m, cas[i], "2001:db8::7");
        accepted(m, cas[i],
                 "a-label-that-is-quite-long.another-label-that-is-quite-long.example.com");
        mint_unref(&m);
    }
}

static void a_leaf_is_good_for_its_name_only(void **state)
{
    struct mint *m = must_mint("ca");
    struct tls_ctx *ctx = must_ctx(m, "app.harness.io");
    struct shaken h;

    (void)state;
    shake(&h, ctx, "ca", "other.harness.io");
    assert_int_equal(h.want[0], TLS_FAILED);
    shaken_fini(&h);
    shake(&h, ctx, "rsa", "app.harness.io"); /* nor for those who trust another CA */
    assert_int_equal(h.want[0], TLS_FAILED);
    shaken_fini(&h);
    tls_ctx_unref(&ctx);
    mint_unref(&m);
}

static void append(const char *to, const char *from)
{
    char cmd[500];

    snprintf(cmd, sizeof(cmd), "cat %s >>%s", from, to);
    ASSERT(system(cmd) == 0);
}

static void issuers_are_sent_along(void **state)
{
    struct mint *m;

    (void)state;
    append(pem("sub-ca"), pem("ca"));
    m = must_mint("sub-ca");
    accepted(m, "ca", "app.harness.io"); /* who trusts the root only */
    mint_unref(&m);
}

static int64_t not_after(struct mint *m)
{
    struct tls_ctx *ctx = must_ctx(m, "app.harness.io");
    int64_t t = tls_ctx_not_after_ns(ctx);

    tls_ctx_unref(&ctx);
    return t;
}

static void a_leaf_lives_a_week_and_no_longer_than_its_ca(void **state)
{
    struct mint *m = must_mint("ca");
    int64_t now = clock_wall_ns(), left = not_after(m) - now;
    struct str subject = STR_INIT;

    (void)state;
    mint_subject(m, &subject);
    assert_string_equal(str_c(&subject), "CN=ca");
    str_fini(&subject);
    assert_in_range(left, 7 * DAY * NS_PER_SEC - 60 * NS_PER_SEC, 7 * DAY * NS_PER_SEC);
    mint_unref(&m);
    m = must_mint("sub-ca");
    assert_int_equal(not_after(m), mint_not_after_ns(m));
    assert_in_range(mint_not_after_ns(m) - now, 2 * DAY * NS_PER_SEC, 3 * DAY * NS_PER_SEC);
    mint_unref(&m);
}

static void contexts_are_kept_and_renewed(void **state)
{
    struct mint *m = must_mint("sub-ca"); /* three days */
    struct tls_ctx *first = must_ctx(m, "app.harness.io"), *again;
    int64_t now = clock_wall_ns();
    struct err e = {0};

    (void)state;
    again = must_ctx(m, "APP.Harness.io.");
    assert_ptr_equal(first, again);
    tls_ctx_unref(&again);
    again = must_ctx(m, "other.harness.io");
    assert_ptr_not_equal(first, again);
    tls_ctx_unref(&again);
    clock_fake(-1, now + DAY * NS_PER_SEC);
    again = must_ctx(m, "app.harness.io");
    assert_ptr_equal(first, again);
    tls_ctx_unref(&again);
    clock_fake(-1, now + 2 * DAY * NS_PER_SEC);
    again = must_ctx(m, "app.harness.io");
    assert_ptr_not_equal(first, again);
    tls_ctx_unref(&again);
    clock_fake(-1, now + 4 * DAY * NS_PER_SEC);
    assert_null(mint_server_ctx(m, "app.harness.io", &e));
    assert_non_null(strstr(e.text, "expired"));
    clock_fake(-1, -1);
    tls_ctx_unref(&first);
    mint_unref(&m);
}

static void only_so_many_are_kept(void **state)
{
    struct mint *m = must_mint("ca");
    struct tls_ctx *kept = must_ctx(m, "kept.example"), *gone = must_ctx(m, "gone.example"), *ctx;
    char name[40];

    (void)state;
    for (int i = 0; i < MINT_KEPT_MAX - 1; i++) {
        snprintf(name, sizeof(name), "x%d.example", i);
        ctx = must_ctx(m, name);
        tls_ctx_unref(&ctx);
        ctx = must_ctx(m, "kept.example"); /* in use, so it stays */
        assert_ptr_equal(ctx, kept);
        tls_ctx_unref(&ctx);
    }
    ctx = must_ctx(m, "gone.example");
    assert_ptr_not_equal(ctx, gone);
    tls_ctx_unref(&ctx);
    tls_ctx_unref(&kept);
    tls_ctx_unref(&gone);
    mint_unref(&m);
}

static void refused_with(const char *ca, const char *key, const char *host, const char *part)
{
    struct err e = {0};
    struct mint *m = mint_new(ca, key, &host, host != NULL, &e);

    if (m)
        fail_msg("%s was taken", ca);
    if (!strstr(e.text, part))
        fail_msg("\"%s\" does not say \"%s\"", e.text, part);
    if (!strstr(e.text, certs.dir))
        fail_msg("\"%s\" does not name a file", e.text);
}

static void bad_authorities_are_refused_in_words(void **state)
{
    (void)state;
    refused_with(certs_path(&certs, "none"), key_of("ca"), NULL, "No such file");
    refused_with(pem("ca"), certs_path(&certs, "none"), NULL, "No such file");
    refused_with(key_of("ca"), key_of("ca"), NULL, "no certificate in");
    refused_with(pem("ca"), pem("ca"), NULL, "cannot use the interception CA's key");
    refused_with(pem("leaf"), key_of("leaf"), NULL, "is no CA certificate");
    refused_with(pem("expired-ca"), key_of("expired-ca"), NULL, "has expired");
    refused_with(pem("early-ca"), key_of("early-ca"), NULL, "not valid yet");
    refused_with(pem("ca"), key_of("rsa"), NULL, "does not belong to");
    refused_with(pem("nosign"), key_of("nosign"), NULL, "keyCertSign");
    refused_with(pem("client-only"), key_of("client-only"), NULL, "serverAuth");
    refused_with(pem("limited"), key_of("limited"), "evil.example", "exclude evil.example");
    refused_with(pem("limited"), key_of("limited"), "*.evil.example", "exclude any.evil.example");
    refused_with(pem("limited"), key_of("limited"), "192.0.2.1", "exclude 192.0.2.1");
}

static void constraints_hold_for_every_leaf(void **state)
{
    static const char *const hosts[] = {"app.harness.io", "*.harness.io", "10.1.2.3"};
    struct err e = {0};
    struct mint *m = mint_new(pem("limited"), key_of("limited"), hosts, ARRAY_LEN(hosts), &e);

    (void)state;
    if (!m)
        fail_msg("%s", e.text);
    accepted(m, "limited", "x.harness.io");
    accepted(m, "limited", "10.1.2.3");
    assert_null(mint_server_ctx(m, "evil.example", &e));
    assert_non_null(strstr(e.text, "exclude evil.example"));
    mint_unref(&m);
}

static void what_is_no_name_gets_no_certificate(void **state)
{
    static const char *const names[] = {
        "",
        ".",
        "a..b",
        ".a",
        "*.harness.io",
        "a b",
        "a/b",
        "a\nb",
        "[::1]",
        "a:443",
        "m\xc3\xbc",
        "a-label-of-more-than-sixty-three-letters-which-is-the-most-dns-can-carry.example"};
    struct mint *m = must_mint("ca");
    char longest[300];
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (mint_server_ctx(m, names[i], &e))
            fail_msg("\"%s\" was taken", names[i]);
    for (size_t i = 0; i < sizeof(longest); i++)
        longest[i] = i % 2 ? '.' : 'a';
    longest[255] = '\0';
    assert_null(mint_server_ctx(m, longest, &e));
    longest[253] = '\0';
    accepted(m, "ca", longest);
    mint_unref(&m);
}

/* The certificate that a client of OpenSSL's own sees. */
static X509 *leaf_of(struct tls_ctx *ctx)
{
    SSL_CTX *client = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(client);
    struct tls_session *s;
    struct err e;
    X509 *leaf;
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    s = tls_accept(ctx, fd[1]);
    SSL_set_fd(ssl, fd[0]);
    for (int round = 0; round < 4; round++) {
        SSL_connect(ssl);
        assert_int_not_equal(tls_handshake(s, &e), TLS_FAILED);
    }
    leaf = SSL_get1_peer_certificate(ssl);
    assert_non_null(leaf);
    tls_free(&s);
    SSL_free(ssl);
    SSL_CTX_free(client);
    close(fd[0]);
    close(fd[1]);
    return leaf;
}

/* What the certificate says, in the words of OpenSSL. */
static void leaves_have_what_servers_have(void **state)
{
    static const char *const parts[] = {"Subject: CN=app.harness.io",
                                        "Issuer: O=Corp, CN=rsa",
                                        "CA:FALSE",
                                        "Digital Signature",
                                        "TLS Web Server Authentication",
                                        "Subject Key Identifier",
                                        "Authority Key Identifier",
                                        "DNS:app.harness.io",
                                        "sha256WithRSAEncryption",
                                        "NIST CURVE: P-256"};
    struct mint *m = must_mint("rsa");
    struct tls_ctx *ctx = must_ctx(m, "app.harness.io");
    BIO *bio = BIO_new(BIO_s_mem());
    X509 *leaf = leaf_of(ctx);
    char *text;

    (void)state;
    X509_print(bio, leaf);
    BIO_write(bio, "", 1);
    BIO_get_mem_data(bio, &text);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (!strstr(text, parts[i]))
            fail_msg("no \"%s\" in %s", parts[i], text);
    BIO_free(bio);
    X509_free(leaf);
    tls_ctx_unref(&ctx);
    mint_unref(&m);
}

static void *use(void *ctx)
{
    struct mint *m = ctx;
    struct err e;
    char name[40];

    for (int i = 0; i < 300; i++) {
        struct tls_ctx *c;

        snprintf(name, sizeof(name), "n%d.example", i % 40);
        c = mint_server_ctx(m, name, &e);
        ASSERT(c);
        tls_ctx_unref(&c);
    }
    mint_unref(&m);
    return NULL;
}

static void threads_share_it(void **state)
{
    struct mint *m = must_mint("ca");
    pthread_t t[4];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, use, mint_ref(m)), 0);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        pthread_join(t[i], NULL);
    mint_unref(&m);
}

/* For docs/bench.md: E9. Printed only; machines differ. */
static void time_of_a_mint(void **state)
{
    static const char *const cas[] = {"ca", "p384", "rsa"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cas); i++) {
        struct mint *m = must_mint(cas[i]);
        int64_t first = clock_mono_ns(), later, end;
        struct tls_ctx *ctx;
        char name[40];

        for (int n = 0; n < 100; n++) {
            snprintf(name, sizeof(name), "x%d.example", n);
            ctx = must_ctx(m, name);
            tls_ctx_unref(&ctx);
        }
        later = clock_mono_ns();
        for (int n = 0; n < 100; n++) {
            ctx = must_ctx(m, "x99.example");
            tls_ctx_unref(&ctx);
        }
        end = clock_mono_ns();
        print_message("mint by %s: first %.0f us, later %.2f us\n", cas[i],
                      (double)(later - first) / 1e5, (double)(end - later) / 1e5);
        mint_unref(&m);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_ca_is_believed),
        cmocka_unit_test(a_leaf_is_good_for_its_name_only),
        cmocka_unit_test(issuers_are_sent_along),
        cmocka_unit_test(a_leaf_lives_a_week_and_no_longer_than_its_ca),
        cmocka_unit_test(contexts_are_kept_and_renewed),
        cmocka_unit_test(only_so_many_are_kept),
        cmocka_unit_test(bad_authorities_are_refused_in_words),
        cmocka_unit_test(constraints_hold_for_every_leaf),
        cmocka_unit_test(what_is_no_name_gets_no_certificate),
        cmocka_unit_test(leaves_have_what_servers_have),
        cmocka_unit_test(threads_share_it),
        cmocka_unit_test(time_of_a_mint),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
