#include "crypto/cert_facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/bug.h"
#include "certs.h"

enum { DAY = 24 * 3600 };

static struct certs certs;

/* `into`: the files one behind the other. */
static void join(const char *into, const char *const *from, size_t n)
{
    FILE *out = fopen(certs_path(&certs, into), "w"), *in;
    size_t i;
    int c;

    assert_non_null(out);
    for (i = 0; i < n; i++) {
        in = fopen(certs_path(&certs, from[i]), "r");
        assert_non_null(in);
        while ((c = getc(in)) != EOF)
            putc(c, out);
        fclose(in);
    }
    fclose(out);
}

static int group_setup(void **state)
{
    static const struct cert_spec specs[] = {
        {.name = "sub-ca", .issuer = "ca", .ca = 1, .from = -DAY, .until = DAY},
        {.name = "below",
         .issuer = "sub-ca",
         .from = -DAY,
         .until = DAY,
         .san = "IP:10.1.2.3,DNS:*.x.example,DNS:y.example"},
        {.name = "other-ca", .ca = 1, .from = -DAY, .until = DAY},
        {.name = "late",
         .issuer = "other-ca",
         .from = -9 * DAY,
         .until = -DAY,
         .san = "DNS:l.example"},
        {.name = "odd", .from = -DAY, .until = DAY, .san = "DNS:a b,DNS:good.example"},
        {.name = "nameless", .from = -DAY, .until = DAY},
    };
    static const char *const part[] = {"below.pem", "sub-ca.pem"};
    static const char *const whole[] = {"below.pem", "sub-ca.pem", "ca.pem"};
    static const char *const with_key[] = {"server.key", "server.pem"};
    FILE *f;
    size_t i;

    (void)state;
    certs_init(&certs);
    certs_make_usual(&certs);
    for (i = 0; i < ARRAY_LEN(specs); i++)
        certs_make(&certs, &specs[i]);
    join("part.pem", part, 2);
    join("whole.pem", whole, 3);
    join("with-key.pem", with_key, 2);
    f = fopen(certs_path(&certs, "garbage.pem"), "w");
    assert_non_null(f);
    fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", f);
    fclose(f);
    setenv("SSL_CERT_FILE", certs_path(&certs, "ca.pem"), 1);
    setenv("SSL_CERT_DIR", "/nonexistent", 1);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    certs_remove(&certs);
    return 0;
}

static void expect(const char *file, const char *name, const char *issuer, bool trusted)
{
    struct cert_facts f;
    struct err e;

    if (cert_facts_read(certs_path(&certs, file), NULL, &f, &e) < 0)
        fail_msg("%s", e.text);
    assert_string_equal(str_c(&f.name), name);
    assert_string_equal(str_c(&f.issuer), issuer);
    if (f.trusted != trusted)
        fail_msg("%s: trusted is %d", file, f.trusted);
    assert_false(f.covers);
    cert_facts_fini(&f);
}

static void test_chains(void **state)
{
    (void)state;
    expect("server.pem", "localhost", "CN=ca", true);
    expect("with-key.pem", "localhost", "CN=ca", true);
    expect("part.pem", "y.example", "CN=ca", true);
    expect("whole.pem", "y.example", "", true);
    /* One of them is missing, and no client could find it either. */
    expect("below.pem", "y.example", "CN=sub-ca", false);
    expect("other-ca.pem", "", "", false);
}

static void test_expired_is_not_unknown(void **state)
{
    (void)state;
    expect("late.pem", "l.example", "CN=other-ca", false);
    setenv("SSL_CERT_FILE", certs_path(&certs, "other-ca.pem"), 1);
    expect("late.pem", "l.example", "CN=other-ca", true);
    setenv("SSL_CERT_FILE", certs_path(&certs, "ca.pem"), 1);
}

static void test_names_that_are_none(void **state)
{
    (void)state;
    expect("odd.pem", "good.example", "", false);
    expect("nameless.pem", "", "", false);
}

static void test_whom_it_covers(void **state)
{
    static const struct {
        const char *host;
        bool covers;
    } cases[] = {
        {"10.1.2.3", true},   {"10.1.2.4", false}, {"a.x.example", true}, {"a.b.x.example", false},
        {"x.example", false}, {"Y.EXAMPLE", true}, {"", false},           {"2001:db8::1", false},
    };
    struct cert_facts f;
    struct err e;
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(cert_facts_read(certs_path(&certs, "below.pem"), cases[i].host, &f, &e),
                         0);
        if (f.covers != cases[i].covers)
            fail_msg("%s: covers is %d", cases[i].host, f.covers);
        cert_facts_fini(&f);
    }
}

static void test_files_that_are_none(void **state)
{
    static const char *const files[] = {"none.pem", "garbage.pem", "server.key"};
    struct cert_facts f;
    struct err e;
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(files); i++) {
        assert_int_equal(cert_facts_read(certs_path(&certs, files[i]), "x", &f, &e), -1);
        assert_non_null(strstr(e.text, files[i]));
        cert_facts_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_expired_is_not_unknown),
        cmocka_unit_test(test_names_that_are_none),
        cmocka_unit_test(test_whom_it_covers),
        cmocka_unit_test(test_files_that_are_none),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
