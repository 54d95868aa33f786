/*
 * What is to be set on the Harness side, by golden files. Each directory of
 * tests/golden/harness-side has a config.yaml and what is printed for it: for people
 * (expected.txt), as an environment (expected.env) and as values of the delegate's chart
 * (expected.yaml). Certificates are made when this runs, in a directory that is written /DIR. With
 * UPDATE_GOLDEN=1 the files are written, not compared.
 */
#include "app/harness_side.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "rt/fdx.h"
#include "certs.h"

enum { DAY = 24 * 3600 };

static char golden[PATH_MAX];
static struct certs certs;

static void load(const char *name, struct config *c)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct str text = STR_INIT;
    char path[PATH_MAX + 64];
    struct err e;

    snprintf(path, sizeof(path), "%s/%s/config.yaml", golden, name);
    if (file_read(path, 1 << 20, &text, &e) < 0)
        fail_msg("%s", e.text);
    if (conf_load_text(path, certs.dir, str_view(&text), &config_spec, c, &errors) < 0)
        fail_msg("%s", errors.lines[0]);
    conf_errors_fini(&errors);
    str_fini(&text);
}

static void hide_directory(const char *text, struct str *out)
{
    const char *at;

    while ((at = strstr(text, certs.dir)) != NULL) {
        str_add(out, text, (size_t)(at - text));
        str_adds(out, "/DIR");
        text = at + strlen(certs.dir);
    }
    str_adds(out, text);
}

static void compare_with(const char *name, const char *ext, const struct str *got)
{
    struct str wanted = STR_INIT;
    char path[PATH_MAX + 64];
    struct err e;

    snprintf(path, sizeof(path), "%s/%s/expected.%s", golden, name, ext);
    if (getenv("UPDATE_GOLDEN")) {
        assert_int_equal(file_write_durable(path, got->p, got->n, 0644, &e), 0);
        return;
    }
    if (file_read(path, 1 << 20, &wanted, &e) < 0)
        fail_msg("%s; the result is:\n%s", e.text, str_c(got));
    assert_string_equal(str_c(got), str_c(&wanted));
    str_fini(&wanted);
}

static void print(const struct config *c, const struct harness_side_opts *o, struct str *out)
{
    struct err e;
    struct harness_side *side = harness_side_new(c, o, &e);
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    if (!side)
        fail_msg("%s", e.text);
    harness_side_print(side, f);
    fclose(f);
    hide_directory(text, out);
    harness_side_free(&side);
    assert_null(side);
    free(text);
}

struct golden_case {
    const char *name;
    struct harness_side_opts o;
};

static void test_golden(void **state)
{
    static const char *const ext[] = {"txt", "env", "yaml"};
    const struct golden_case *g = *state;
    struct harness_side_opts o = g->o;
    struct str got = STR_INIT;
    struct config c;

    load(g->name, &c);
    for (o.form = HARNESS_TEXT; o.form <= HARNESS_VALUES; o.form++) {
        str_clear(&got);
        print(&c, &o, &got);
        compare_with(g->name, ext[o.form], &got);
    }
    conf_clear(&config_spec, &c);
    str_fini(&got);
}

/* ---- options ------------------------------------------------------------------------------ */

static void assert_refused(const struct config *c, const struct harness_side_opts *o,
                           const char *option)
{
    struct err e = {0};

    assert_null(harness_side_new(c, o, &e));
    if (strncmp(e.text, option, strlen(option)) != 0)
        fail_msg("\"%s\" is not about %s", e.text, option);
}

static void test_options_that_make_no_sense(void **state)
{
    static const char *const addresses[] = {"",    "a b",   "host:8443", "https://host",
                                            "*.x", "[::1]", "host/path", "a\nb"};
    static const char *const lists[] = {"10.0.0.0/8", "a b", "a;b", "a\nB=c", "\"", "$(x)"};
    struct config c;
    size_t i;

    (void)state;
    load("both", &c);
    for (i = 0; i < ARRAY_LEN(addresses); i++)
        assert_refused(&c, &(struct harness_side_opts){.address = addresses[i]}, "--address");
    for (i = 0; i < ARRAY_LEN(lists); i++)
        assert_refused(&c, &(struct harness_side_opts){.no_proxy = lists[i]}, "--no-proxy");
    assert_refused(&c, &(struct harness_side_opts){.listener = "other"}, "--listener");
    conf_clear(&config_spec, &c);
}

static void test_forms(void **state)
{
    enum harness_form form = HARNESS_TEXT;

    (void)state;
    assert_int_equal(harness_form_parse("yaml", &form), 0);
    assert_int_equal(form, HARNESS_VALUES);
    assert_int_equal(harness_form_parse("env", &form), 0);
    assert_int_equal(form, HARNESS_ENV);
    assert_int_equal(harness_form_parse("json", &form), -1);
}

/* An address is good as it is, and fills the gaps. */
static void test_gaps(void **state)
{
    static const char *const addresses[] = {"tailrace.corp.example", "10.1.2.3", "2001:db8::1"};
    struct harness_side *side;
    struct config c;
    struct err e;
    size_t i;

    (void)state;
    load("upstream-clear", &c);
    side = harness_side_new(&c, &(struct harness_side_opts){0}, &e);
    assert_true(harness_side_has_gaps(side));
    harness_side_free(&side);
    for (i = 0; i < ARRAY_LEN(addresses); i++) {
        side = harness_side_new(&c, &(struct harness_side_opts){.address = addresses[i]}, &e);
        assert_non_null(side);
        assert_false(harness_side_has_gaps(side));
        harness_side_free(&side);
    }
    conf_clear(&config_spec, &c);
}

/* ---- the list of tests ------------------------------------------------------------------- */

static void make_certificates(void)
{
    static const struct cert_spec specs[] = {
        {.name = "ca", .ca = 1, .from = -DAY, .until = DAY},
        {.name = "public-ca", .ca = 1, .from = -DAY, .until = DAY},
        {.name = "server",
         .issuer = "ca",
         .from = -DAY,
         .until = DAY,
         .san = "DNS:*.wild.example,DNS:tailrace.corp.example,DNS:second.example"},
        /* expired: its authority is a public one all the same */
        {.name = "public",
         .issuer = "public-ca",
         .from = -9 * DAY,
         .until = -2 * DAY,
         .san = "DNS:public.corp.example"},
        {.name = "self", .from = -DAY, .until = DAY, .san = "IP:2001:db8::1"},
    };
    size_t i;

    certs_init(&certs);
    for (i = 0; i < ARRAY_LEN(specs); i++)
        certs_make(&certs, &specs[i]);
    setenv("SSL_CERT_FILE", certs_path(&certs, "public-ca.pem"), 1);
    setenv("SSL_CERT_DIR", "/nonexistent", 1);
}

int main(void)
{
    static const struct golden_case cases[] = {
        {.name = "upstream"},
        {.name = "upstream-clear"},
        {.name = "upstream-front"},
        {.name = "upstream-mtls"},
        {.name = "upstream-misnamed", {.address = "other.corp.example"}},
        {.name = "upstream-unread"},
        {.name = "proxy"},
        {.name = "proxy-intercept", {.address = "2001:db8::7"}},
        {.name = "proxy-tls"},
        {.name = "both", {.no_proxy = "10.96.0.1,.corp.example,localhost"}},
        {.name = "one-of-both", {.address = "gw.corp.example", .listener = "upstream"}},
        {.name = "dns"},
        {.name = "dns-only"},
        {.name = "onward"},
        {.name = "edge"},
        {.name = "hub"},
    };
    struct CMUnitTest tests[ARRAY_LEN(cases) + 3];
    const char *srcdir = getenv("srcdir");
    char root[PATH_MAX];
    size_t i;
    int rc;

    if (!realpath(srcdir ? srcdir : ".", root))
        return 99;
    snprintf(golden, sizeof(golden), "%.4000s/tests/golden/harness-side", root);
    make_certificates();
    for (i = 0; i < ARRAY_LEN(cases); i++)
        tests[i] = (struct CMUnitTest){cases[i].name, test_golden, NULL, NULL,
                                       (void *)(uintptr_t)&cases[i]};
    tests[i++] = (struct CMUnitTest)cmocka_unit_test(test_options_that_make_no_sense);
    tests[i++] = (struct CMUnitTest)cmocka_unit_test(test_forms);
    tests[i++] = (struct CMUnitTest)cmocka_unit_test(test_gaps);
    rc = _cmocka_run_group_tests("harness_side", tests, i, NULL, NULL);
    certs_remove(&certs);
    return rc;
}
