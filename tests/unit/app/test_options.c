/*
 * The options of the program, by golden files. Each directory of tests/golden/conf holds a
 * config.yaml and either expected.yaml, what its dump must be, or expected.err, the errors. The
 * case's own directory is written /DIR. With UPDATE_GOLDEN=1 the files are written, not compared.
 */
#include "app/options.h"

#include <dirent.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "rt/fdx.h"

static char golden[PATH_MAX];
static char samples[PATH_MAX];

static char *dump(const struct config *cf)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    config_dump(cf, f);
    fclose(f);
    return text;
}

static char *errors_text(const struct conf_errors *errors)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    conf_errors_print(errors, f);
    fclose(f);
    return text;
}

/* The dump loads back to the same configuration, and its dump is the same text. */
static void assert_fixed_point(const struct config *cf, const char *text)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct config again;
    char *second;

    if (conf_load_text("dump", "/elsewhere", view_str(text), &config_spec, &again, &errors) < 0)
        fail_msg("the dump does not load: %s\n%s", errors.lines[0], text);
    assert_int_equal(conf_compare(&config_spec, cf, &again, NULL, NULL), 0);
    second = dump(&again);
    assert_string_equal(second, text);
    free(second);
    conf_clear(&config_spec, &again);
    conf_errors_fini(&errors);
}

static void hide_directory(const char *text, const char *dir, struct str *out)
{
    const char *at;

    while ((at = strstr(text, dir)) != NULL) {
        str_add(out, text, (size_t)(at - text));
        str_adds(out, "/DIR");
        text = at + strlen(dir);
    }
    str_adds(out, text);
}

static void compare_with(const char *file, const struct str *got)
{
    struct str wanted = STR_INIT;
    struct err e;

    if (getenv("UPDATE_GOLDEN")) {
        assert_int_equal(file_write_durable(file, got->p, got->n, 0644, &e), 0);
        return;
    }
    if (file_read(file, 1 << 20, &wanted, &e) < 0)
        fail_msg("%s; the result is:\n%s", e.text, str_c(got));
    assert_string_equal(str_c(got), str_c(&wanted));
    str_fini(&wanted);
}

static void test_case(void **state)
{
    const char *name = *state;
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct str got = STR_INIT;
    struct config *cf;
    char dir[PATH_MAX];
    char *text;
    int rc;

    assert_int_equal(chdir(golden), 0);
    assert_int_equal(chdir(name), 0);
    assert_non_null(getcwd(dir, sizeof(dir)));
    rc = config_load("config.yaml", &cf, &errors);
    text = rc == 0 ? dump(cf) : errors_text(&errors);
    hide_directory(text, dir, &got);
    if (rc == 0)
        assert_fixed_point(cf, text);
    else
        assert_null(cf);
    compare_with(rc == 0 ? "expected.yaml" : "expected.err", &got);
    free(text);
    config_free(&cf);
    conf_errors_fini(&errors);
    str_fini(&got);
}

/* ---- the configurations that are shipped ------------------------------------------------- */

static void test_sample(void **state)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct config *cf;
    char *text;

    assert_int_equal(chdir(samples), 0);
    if (config_load(*state, &cf, &errors) < 0)
        fail_msg("%s", errors.lines[0]);
    text = dump(cf);
    assert_fixed_point(cf, text);
    free(text);
    config_free(&cf);
    conf_errors_fini(&errors);
}

/* The last name of a path, followed by a colon, stands somewhere in the text. */
static void assert_mentioned(const struct str *text, const char *path)
{
    const char *dot = strrchr(path, '.');
    struct str key = STR_INIT;

    str_addf(&key, " %s:", dot ? dot + 1 : path);
    if (!strstr(str_c(text), str_c(&key)))
        fail_msg("conf/tailrace.yaml does not mention %s", path);
    str_fini(&key);
}

static void test_sample_is_complete(void **state)
{
    struct str text = STR_INIT;
    const struct conf_section *s;
    struct err e;
    size_t i;

    (void)state;
    assert_int_equal(chdir(samples), 0);
    assert_int_equal(file_read("tailrace.yaml", 1 << 20, &text, &e), 0);
    for (i = 0; i < config_spec.n_rows; i++)
        assert_mentioned(&text, config_spec.rows[i].path);
    for (s = config_spec.sections; s < config_spec.sections + config_spec.n_sections; s++) {
        for (i = 0; i < s->n_rows; i++)
            assert_mentioned(&text, s->rows[i].path);
    }
    str_fini(&text);
}

/* What is commented out in the full sample is the default: taking the marks away changes nothing
 * but what has no default. */
static void test_rows_are_described(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < config_spec.n_rows; i++) {
        const struct conf_row *row = &config_spec.rows[i];
        size_t n = strlen(row->text);

        assert_true(n > 10 && row->text[n - 1] == '.');
        assert_false(row->required && row->deflt);
        if (row->type == CONF_ENUM)
            assert_true(row->deflt || row->required || row->name_is_deflt);
    }
}

static void test_helpers(void **state)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct str out = STR_INIT;
    struct config cf;

    (void)state;
    assert_int_equal(
        conf_load_text("x", "/x",
                       VIEW_LIT("harness: {url: \"https://h\"}\n"
                                "listen: {upstream: {address: \"127.0.0.1:1\"}}\n"
                                "upstream: {tls-min: 1.3, resolvers: [10.0.0.1, \"[::1]:53\"]}\n"),
                       &config_spec, &cf, &errors),
        0);
    assert_string_equal(config_tls_min(&cf), "1.3");
    config_resolvers(&cf, &out);
    assert_string_equal(str_c(&out), "10.0.0.1,[::1]:53");
    assert_string_equal(cf.ticket_key, "/var/lib/tailrace/ticket.key");
    assert_int_equal(cf.listen[0].mode, CONFIG_MODE_UPSTREAM);
    assert_int_equal(cf.upstream_timeout_ms, 30000);
    assert_int_equal(cf.spool_limit, 10LL << 30);
    str_fini(&out);
    conf_clear(&config_spec, &cf);
    conf_errors_fini(&errors);
}

/* ---- the list of tests ------------------------------------------------------------------- */

enum { CASES_MAX = 128, CASES_LEAST = 30 };

static int not_hidden(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

int main(void)
{
    static const char *const shipped[] = {
        "tailrace.yaml", "minimal.yaml", "upstream.yaml", "proxy.yaml", "dns-override.yaml",
        "forward.yaml",  "edge.yaml",    "hub.yaml",      "mtls.yaml",  "parent-proxy.yaml",
    };
    struct CMUnitTest tests[CASES_MAX + ARRAY_LEN(shipped) + 3];
    const char *srcdir = getenv("srcdir");
    struct dirent **cases;
    char root[PATH_MAX];
    int n, i, at = 0;

    if (!realpath(srcdir ? srcdir : ".", root))
        return 99;
    snprintf(golden, sizeof(golden), "%.4000s/tests/golden/conf", root);
    snprintf(samples, sizeof(samples), "%.4000s/conf", root);
    setenv("GOLDEN_HOST", "logs.example", 1);
    setenv("GOLDEN_EMPTY", "", 1);
    setenv("GOLDEN_LINES", "two\nlines", 1);
    setenv("CREDENTIALS_DIRECTORY", "/run/credentials/tailrace.service", 1);
    unsetenv("GOLDEN_UNSET");
    n = scandir(golden, &cases, not_hidden, alphasort);
    if (n < CASES_LEAST || n > CASES_MAX)
        return 99;
    for (i = 0; i < n; i++)
        tests[at++] =
            (struct CMUnitTest){cases[i]->d_name, test_case, NULL, NULL, cases[i]->d_name};
    for (i = 0; i < (int)ARRAY_LEN(shipped); i++)
        tests[at++] =
            (struct CMUnitTest){shipped[i], test_sample, NULL, NULL, (void *)(uintptr_t)shipped[i]};
    tests[at++] = (struct CMUnitTest)cmocka_unit_test(test_sample_is_complete);
    tests[at++] = (struct CMUnitTest)cmocka_unit_test(test_rows_are_described);
    tests[at++] = (struct CMUnitTest)cmocka_unit_test(test_helpers);
    i = _cmocka_run_group_tests("options", tests, (size_t)at, NULL, NULL);
    while (n)
        free(cases[--n]);
    free(cases);
    return i;
}
