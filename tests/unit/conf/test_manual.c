#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/attrs.h"
#include "base/str.h"
#include "conf/manual.h"

struct item {
    char *name;
    char *address;
};

struct settings {
    char *key;
    uint64_t limit;
    int64_t delay;
    int64_t threads;
    struct item *items;
    size_t n_items;
};

static const struct conf_row rows[] = {
    CONF_ROW(PATH, struct settings, key, "store.key", .unset = "none, it is open",
             .text = "A file, made by `openssl rand -hex 32`. For its owner."),
    CONF_ROW(SIZE, struct settings, limit, "store.limit", .deflt = "10GiB", .min = 1 << 20,
             .max = INT64_C(1) << 40, .reloadable = true, .text = "How large it may grow."),
    CONF_ROW(DURATION, struct settings, delay, "storeroom.delay", .deflt = "10s",
             .text = ".How long it rests."),
    CONF_ROW(INT, struct settings, threads, "threads", .required = true, .unit = "threads",
             .text = "How many."),
};
static const struct conf_row item_rows[] = {
    CONF_ROW(ADDRESS, struct item, address, "address", .required = true, .text = "Where."),
};
static const struct conf_section sections[] = {
    CONF_SECTION(struct settings, items, n_items, struct item, name, "doors", item_rows, .max = 7,
                 .text = "The ways in."),
};
static const struct conf_spec spec = {
    .rows = rows,
    .n_rows = ARRAY_LEN(rows),
    .sections = sections,
    .n_sections = ARRAY_LEN(sections),
    .size = sizeof(struct settings),
};

static void assert_has(const struct str *text, const char *part)
{
    if (!strstr(str_c(text), part))
        fail_msg("\"%s\" is not in:\n%s", part, str_c(text));
}

static void an_option_has_default_limits_unit_and_what_a_change_takes(void **state)
{
    struct str out = STR_INIT;

    assert_true(conf_manual(&spec, "store", &out));
    assert_has(&out, ".It Ic store.limit\nHow large it may grow.\n");
    assert_has(&out, "from 1MiB to 1TiB.\nDefault: \\fB10GiB\\fR.\nA reload changes it.\n");
    assert_has(&out, "made by \\fBopenssl rand \\-hex 32\\fR.\nFor its owner.\n");
    assert_has(&out, "Default: none, it is open.\nA change takes a restart.\n");
    assert_null(strstr(str_c(&out), "storeroom"));
    str_clear(&out);
    assert_true(conf_manual(&spec, "threads", &out));
    assert_has(&out, "A whole number (threads).\nMust be given.\n");
    str_fini(&out);
}

static void items_of_a_section_stand_under_a_name(void **state)
{
    struct str out = STR_INIT;

    assert_true(conf_manual(&spec, "doors", &out));
    assert_has(&out, "The ways in.\nAt most 7.\n");
    assert_has(&out, ".It Ic doors.NAME.address\n");
    assert_false(conf_manual(&spec, "windows", &out));
    str_fini(&out);
}

static void every_group_is_named_once(void **state)
{
    struct str out = STR_INIT;

    conf_manual_groups(&spec, &out);
    assert_string_equal(str_c(&out), "store\nstoreroom\nthreads\ndoors\n");
    str_fini(&out);
}

static void nothing_in_a_text_is_a_request(void **state)
{
    struct str out = STR_INIT;

    manual_text(&out, ".Sh of 'x' C:\\dir at 0.0.0.0:443 e.g. Next? 'y");
    assert_string_equal(str_c(&out),
                        "\\&.Sh of \\&'x' C:\\edir at 0.0.0.0:443 e.g.\nNext?\n\\&'y\n");
    str_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_option_has_default_limits_unit_and_what_a_change_takes),
        cmocka_unit_test(items_of_a_section_stand_under_a_name),
        cmocka_unit_test(every_group_is_named_once),
        cmocka_unit_test(nothing_in_a_text_is_a_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
