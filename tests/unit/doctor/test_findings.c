#include "doctor/findings.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

static struct findings *example(void)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_MIDDLEBOX_RESIGNS, "harness", "tls"};
    struct findings *r = findings_new();

    findings_ok(r, "harness", "name", "%s is %s", "app.harness.io", "192.0.2.1");
    findings_add(r, &f, "a certificate of \"%s\"", "\x1b[2J\xc3\xa9\xff\n\"evil\"");
    findings_do(r, "exempt %s", "it");
    findings_do(r, ", or not");
    return r;
}

/* What peers call themselves speaks to no terminal. */
static void test_text_is_plain(void **state)
{
    struct findings *r = example();
    struct findings_counts counts = {{0}};
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    findings_print(r, out, &counts);
    fclose(out);
    for (size_t i = 0; i < n; i++)
        assert_true(text[i] == '\n' || (text[i] >= ' ' && text[i] < 0x7f));
    assert_non_null(strstr(text, "ok    harness          name: app.harness.io is 192.0.2.1\n"));
    assert_non_null(strstr(text, "?[2J????\"evil\"\"\n"));
    assert_non_null(strstr(text, "        who:  proxy team\n"));
    assert_non_null(strstr(text, "        do:   exempt it, or not\n"));
    assert_int_equal(counts.n[VERDICT_OK], 1);
    assert_int_equal(counts.n[VERDICT_FAIL], 1);
    assert_true(findings_failed(r));
    assert_true(findings_has(r, CAUSE_MIDDLEBOX_RESIGNS));
    findings_free(&r);
    free(text); /* of open_memstream */
}

static void test_json_is_json(void **state)
{
    struct findings *r = example();
    struct findings_counts counts = {{0}};
    struct str out = STR_INIT;
    struct json j = json_to(&out);
    json_t *all, *row;

    json_open(&j, NULL, '[');
    findings_json(r, &j, &counts);
    findings_json(r, &j, &counts);
    json_close(&j, ']');
    all = json_loadb(out.p, out.n, 0, NULL);
    assert_non_null(all);
    assert_int_equal(json_array_size(all), 4);
    row = json_array_get(all, 3);
    assert_string_equal(json_string_value(json_object_get(row, "cause")), "middlebox_resigns");
    assert_string_equal(json_string_value(json_object_get(row, "do")), "exempt it, or not");
    assert_true(json_is_null(json_object_get(json_array_get(all, 0), "cause")));
    json_decref(all);
    str_fini(&out);
    findings_free(&r);
}

static void test_who_may_be_somebody_else(void **state)
{
    const struct finding f = {VERDICT_WARN, CAUSE_IDLE_TUNNEL_CUT, "idle", "idle"};
    struct findings_counts counts = {{0}};
    struct findings *r = findings_new();
    struct str out = STR_INIT;
    struct json j = json_to(&out);

    findings_add(r, &f, "cut");
    findings_who(r, "somebody else");
    findings_json(r, &j, &counts);
    assert_non_null(strstr(str_c(&out), "\"who\":\"somebody else\""));
    assert_false(findings_failed(r));
    str_fini(&out);
    findings_free(&r);
}

static void test_every_cause_has_its_row(void **state)
{
    for (int i = 1; i < CAUSES; i++) {
        const struct cause_row *row = cause_row((enum cause)i);

        assert_true(*row->name && *row->who && *row->why);
        for (int k = 1; k < i; k++)
            assert_string_not_equal(row->name, cause_row((enum cause)k)->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_is_plain),
        cmocka_unit_test(test_json_is_json),
        cmocka_unit_test(test_who_may_be_somebody_else),
        cmocka_unit_test(test_every_cause_has_its_row),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
