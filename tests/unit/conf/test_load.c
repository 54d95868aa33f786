/* The loader by itself, with rows of every type. The errors of real options are golden files. */
#include "conf/load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/str.h"
#include "conf/dump.h"
#include "rt/rng.h"

enum colour { RED = 3, BLUE = 7 };

struct item {
    char *name;
    bool on;
    enum colour colour;
    struct conf_list tags;
};

struct settings {
    char *title;
    char *file;
    bool on;
    int64_t count;
    int64_t any;
    uint64_t size;
    int64_t wait_ms;
    enum colour colour;
    char *address;
    char *url;
    struct conf_list words;
    int64_t deep;
    struct item *items;
    size_t n_items;
    struct item *others;
    size_t n_others;
};

static int no_spaces(const char *value, struct err *e)
{
    return strchr(value, ' ') ? err_set(e, ERR_INVALID, "use one word") : 0;
}

static const struct conf_choice colours[] = {{"red", RED}, {"blue", BLUE}, {0}};

#define ROW(type, field, path, ...)  CONF_ROW(type, struct settings, field, path, __VA_ARGS__)
#define ITEM(type, field, path, ...) CONF_ROW(type, struct item, field, path, __VA_ARGS__)

static const struct conf_row rows[] = {
    ROW(STRING, title, "title", .check = no_spaces, .reloadable = true, .text = "A title."),
    ROW(PATH, file, "a.file", .deflt = "/x", .text = "A file."),
    ROW(BOOL, on, "a.on", .deflt = "true", .text = "A switch."),
    ROW(INT, count, "a.count", .deflt = "-2", .min = -5, .max = 5, .text = "A count."),
    ROW(INT, any, "a.any", .text = "Any number."),
    ROW(SIZE, size, "a.b.size", .deflt = "1KiB", .min = 512, .max = INT64_MAX, .text = "A size."),
    ROW(INT, deep, "a.b.c.deep", .deflt = "1", .text = "Deep."),
    ROW(DURATION, wait_ms, "a.b.wait", .text = "A time."),
    ROW(ENUM, colour, "colour", .choices = colours, .deflt = "blue", .text = "A colour."),
    ROW(ADDRESS, address, "address", .text = "An address."),
    ROW(URL, url, "url", .text = "A URL."),
    ROW(LIST, words, "words", .check = no_spaces, .deflt = "one, two", .text = "Words."),
};
static const struct conf_row item_rows[] = {
    ITEM(BOOL, on, "on", .required = true, .text = "A switch."),
    ITEM(ENUM, colour, "look.colour", .choices = colours, .name_is_deflt = true,
         .text = "A colour."),
    ITEM(LIST, tags, "look.tags", .reloadable = true, .text = "Tags."),
};
static const struct conf_section sections[] = {
    CONF_SECTION(struct settings, items, n_items, struct item, name, "items", item_rows, .max = 3,
                 .reloadable = true, .text = "Items."),
    CONF_SECTION(struct settings, others, n_others, struct item, name, "others", item_rows,
                 .max = 3, .text = "Others."),
};

static void check(void *config, struct conf_check *c)
{
    struct settings *s = config;

    if (s->deep == 13)
        conf_complain(c, "a.b.c.deep", "%d is bad luck", 13);
    if (s->any == 13)
        conf_complain(c, "a.b.nothing.here", "unlucky");
    if (s->count == 5 && conf_given(c, "a.count"))
        conf_complain(c, "title", "too many");
}

static const struct conf_spec spec = {
    .rows = rows,
    .n_rows = ARRAY_LEN(rows),
    .sections = sections,
    .n_sections = ARRAY_LEN(sections),
    .size = sizeof(struct settings),
    .check = check,
};

static struct settings settings;
static struct conf_errors errors;

static int load(const char *text)
{
    conf_errors_fini(&errors);
    conf_clear(&spec, &settings);
    return conf_load_text("f", "/dir", view_str(text), &spec, &settings, &errors);
}

static void assert_loads(const char *text)
{
    if (load(text) < 0)
        fail_msg("%s: %s", text, errors.lines[0]);
}

/* Exactly this one error. */
static void assert_refused(const char *text, const char *error)
{
    if (load(text) == 0)
        fail_msg("loads: %s", text);
    assert_string_equal(errors.lines[0], error);
    assert_int_equal(errors.n, 1);
}

static int teardown(void **state)
{
    (void)state;
    conf_errors_fini(&errors);
    conf_clear(&spec, &settings);
    return 0;
}

static void dump_to(const struct settings *s, struct str *out)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    conf_dump(&spec, s, f);
    fclose(f);
    str_clear(out);
    str_add(out, text, n);
    free(text);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_loads("");
    assert_null(settings.title);
    assert_string_equal(settings.file, "/x");
    assert_true(settings.on);
    assert_int_equal(settings.count, -2);
    assert_int_equal(settings.any, 0);
    assert_int_equal(settings.size, 1024);
    assert_int_equal(settings.wait_ms, 0);
    assert_int_equal(settings.colour, BLUE);
    assert_int_equal(settings.words.n, 2);
    assert_string_equal(settings.words.items[1], "two");
    assert_int_equal(settings.n_items, 0);
}

static void test_values(void **state)
{
    (void)state;
    assert_loads("title: no\na: {file: ../y, on: false, count: -5, b: {size: 1TiB, wait: 7d}}\n"
                 "colour: red\naddress: '[::1]:0'\nurl: http://[::1]:80/x\nwords: []\n");
    assert_string_equal(settings.title, "no");
    assert_string_equal(settings.file, "/dir/../y");
    assert_false(settings.on);
    assert_int_equal(settings.count, -5);
    assert_int_equal(settings.size, 1LL << 40);
    assert_int_equal(settings.wait_ms, 7 * 86400000);
    assert_int_equal(settings.colour, RED);
    assert_string_equal(settings.address, "[::1]:0");
    assert_string_equal(settings.url, "http://[::1]:80/x");
    assert_int_equal(settings.words.n, 0);
}

static void test_refused_values(void **state)
{
    (void)state;
    assert_refused("a: {on: yes}", "f:1: a.on: \"yes\": use true or false");
    assert_refused("a: {count: 6}", "f:1: a.count: \"6\": use a whole number from -5 to 5");
    assert_refused("a: {count: 1.5}", "f:1: a.count: \"1.5\": use a whole number from -5 to 5");
    assert_refused("a: {any: -1}", "f:1: a.any: \"-1\": use a whole number");
    assert_refused("a: {any: 9223372036854775808}",
                   "f:1: a.any: \"9223372036854775808\": use a whole number");
    assert_refused("a: {b: {size: 511B}}", "f:1: a.b.size: \"511B\": use a size such as 64KiB or "
                                           "10GiB, of at least 512B");
    assert_refused("a: {b: {size: 8388608TiB}}", "f:1: a.b.size: \"8388608TiB\": use a size such "
                                                 "as 64KiB or 10GiB, of at least 512B");
    assert_refused("a: {b: {wait: -1s}}", "f:1: a.b.wait: \"-1s\": use a duration such as 200ms, "
                                          "10s, 5m or 48h");
    assert_refused("\n\ncolour: blu", "f:3: colour: \"blu\": use red or blue");
    assert_refused("words: [a, b c]", "f:1: words: \"b c\": use one word");
    assert_refused("title: \"\\u0007\"",
                   "f:1: keys and values are one line each, without control characters");
}

static void test_sections(void **state)
{
    (void)state;
    assert_loads("items:\n  red: {on: true}\n  x: {on: false, look: {colour: blue, tags: [p, q]}}\n"
                 "others: {blue: {on: true}}\n");
    assert_int_equal(settings.n_items, 2);
    assert_string_equal(settings.items[0].name, "red");
    assert_int_equal(settings.items[0].colour, RED);
    assert_string_equal(settings.items[1].name, "x");
    assert_string_equal(settings.items[1].tags.items[1], "q");
    assert_int_equal(settings.n_others, 1);
    assert_refused("items: {red: {}}", "f:1: items.red.on: missing: A switch.");
    assert_refused("items: {x: {on: true}}",
                   "f:1: items.x.look.colour: missing, and the name \"x\" does not say it: use red "
                   "or blue");
    assert_refused("items:\n  red:\n    on: true\n    look: {color: red}\n",
                   "f:4: items.red.look.color: unknown option; did you mean "
                   "items.red.look.colour?");
    assert_refused("items: {red: {on: true, tags: []}}",
                   "f:1: items.red.tags: unknown option; did you mean look.tags?");
    assert_refused("items: {red: {on: true}, blue: {on: true}, a: {on: true, look: {colour: red}}, "
                   "b: {}}",
                   "f:1: items.b: at most 3 of these");
    assert_refused("items: {red: {on: true, include: x}}",
                   "f:1: items.red.include: unknown option");
}

static void test_check(void **state)
{
    (void)state;
    assert_refused("a:\n  b:\n    c:\n      deep: 13\n", "f:4: a.b.c.deep: 13 is bad luck");
    assert_refused("a:\n  any: 13\n  b:\n    wait: 1s", "f:3: a.b.nothing.here: unlucky");
    assert_refused("\na:\n  any: 13\n", "f:2: a.b.nothing.here: unlucky");
    assert_refused("\na:\n  count: 5\n", "f:1: title: too many");
    /* Not asked while single values are wrong: what it would look at is not there. */
    assert_refused("a: {any: 13}\ncolour: pink\n", "f:2: colour: \"pink\": use red or blue");
}

static void test_failed_load_leaves_nothing(void **state)
{
    static const struct settings nothing;

    (void)state;
    assert_int_equal(load("title: x\nitems: {red: {on: true}}\ncolour: pink\n"), -1);
    assert_memory_equal(&settings, &nothing, sizeof(settings));
}

static void test_errors_print(void **state)
{
    char *text = NULL;
    struct str s = STR_INIT;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    int i;

    (void)state;
    for (i = 0; i < CONF_ERRORS_MAX + 1; i++)
        str_addf(&s, "nonsense-%d: 1\n", i);
    assert_int_equal(load(str_c(&s)), -1);
    conf_errors_print(&errors, f);
    fclose(f);
    assert_non_null(strstr(text, "\n... and 1 more error\n"));
    free(text);
    str_fini(&s);
}

static void test_missing_file(void **state)
{
    struct settings s;

    (void)state;
    conf_errors_fini(&errors);
    assert_int_equal(conf_load("/nonexistent/c.yaml", &spec, &s, &errors), -1);
    assert_string_equal(errors.lines[0],
                        "cannot open /nonexistent/c.yaml: No such file or directory");
    conf_errors_fini(&errors);
    assert_int_equal(conf_load("/", &spec, &s, &errors), -1);
    assert_string_equal(errors.lines[0], "cannot read /: Is a directory");
}

static void test_limits(void **state)
{
    struct str s = STR_INIT;
    int i;

    (void)state;
    str_adds(&s, "words:\n");
    for (i = 0; i < CONF_LIST_MAX + 1; i++)
        str_adds(&s, "- x\n");
    assert_refused(str_c(&s), "f:4098: words: at most 4096 elements");
    str_clear(&s);
    str_adds(&s, "words: [");
    for (i = 0; i < CONF_NODES_MAX; i++)
        str_adds(&s, "x,");
    str_adds(&s, "]");
    assert_refused(str_c(&s), "f:1: too many values for a configuration");
    str_fini(&s);
}

struct changes {
    struct str text;
};

static void note_change(void *ctx, const char *path, bool reloadable)
{
    struct changes *c = ctx;

    str_addf(&c->text, "%s%s ", path, reloadable ? "(r)" : "");
}

static void test_compare(void **state)
{
    struct changes c = {STR_INIT};
    struct settings now;

    (void)state;
    assert_loads("title: a\nwords: [x, y]\nitems: {red: {on: true}, blue: {on: true}}\n"
                 "others: {red: {on: true}}\n");
    assert_int_equal(conf_load_text("f", "/dir",
                                    VIEW_LIT("words: [x, z]\na: {b: {size: 2KiB}}\n"
                                             "items: {red: {on: false, look: {tags: [t]}}}\n"
                                             "others: {red: {on: true}, blue: {on: true}}\n"),
                                    &spec, &now, &errors),
                     0);
    assert_int_equal(conf_compare(&spec, &settings, &now, note_change, &c), 7);
    assert_string_equal(str_c(&c.text),
                        "title(r) a.b.size words items.red.on items.red.look.tags(r) "
                        "items.blue(r) others.blue ");
    assert_int_equal(conf_compare(&spec, &now, &now, NULL, NULL), 0);
    str_fini(&c.text);
    conf_clear(&spec, &now);
}

static void test_dump(void **state)
{
    struct str out = STR_INIT;

    (void)state;
    assert_loads("title: '-$$\"\\'\nitems: {red: {on: true}}\n");
    dump_to(&settings, &out);
    assert_string_equal(str_c(&out),
                        "title: \"-$$\\\"\\\\\"\n"
                        "a:\n  file: /x\n  on: true\n  count: -2\n  any: 0\n"
                        "  b:\n    size: 1KiB\n    c:\n      deep: 1\n    wait: 0ms\n"
                        "colour: blue\nwords:\n  - one\n  - two\n"
                        "items:\n  red:\n    on: true\n    look:\n      colour: red\n");
    str_fini(&out);
}

static void test_describe(void **state)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    (void)state;
    conf_describe(&spec, f);
    fclose(f);
    assert_non_null(strstr(text, "# A title. (use a text; reloadable)\n# title:\n"));
    assert_non_null(strstr(text, "  b:\n    # A size. (use a size such as 64KiB or 10GiB, of at "
                                 "least 512B)\n    # size: 1KiB\n"));
    assert_non_null(strstr(text, "# Items.\nitems:\n  NAME:\n    # A switch. (use true or false; "
                                 "required)\n    on:\n"));
    free(text);
}

/* Whatever the text is: it loads, and then its dump is a fixed point, or there are errors that
 * name the file. */
static void try_text(struct view text)
{
    struct str first = STR_INIT, second = STR_INIT;

    conf_errors_fini(&errors);
    conf_clear(&spec, &settings);
    if (conf_load_text("f", "/dir", text, &spec, &settings, &errors) < 0) {
        assert_true(errors.n > 0);
        assert_memory_equal(errors.lines[0], "f:", 2);
        return;
    }
    assert_int_equal(errors.n, 0);
    dump_to(&settings, &first);
    assert_loads(str_c(&first));
    dump_to(&settings, &second);
    assert_string_equal(str_c(&second), str_c(&first));
    str_fini(&first);
    str_fini(&second);
}

static void test_mutations(void **state)
{
    static const char seed[] =
        "title: some#thing\na:\n  file: \"y\\\\ $$ z\"\n  on: false\n  count: 3\n  b: {size: 7KiB, "
        "wait: 90s}\ncolour: red\naddress: 10.0.0.1:80\nurl: https://h.example/p\nwords:\n - a\n - "
        "'b:c'\nitems:\n  red: {on: true, look: {tags: [p, q]}}\n  blue:\n    on: false\n";
    static const char bytes[] = ":-{}[]\"'\\\n \t#$&*!|>%@,?~0z\x80\xff";
    char text[sizeof(seed)];
    struct rng rng;
    int i, k;

    (void)state;
    rng_seed(&rng, 20260102);
    try_text(view_of(seed, sizeof(seed) - 1));
    assert_int_equal(errors.n, 0);
    for (i = 0; i < 20000; i++) {
        memcpy(text, seed, sizeof(seed));
        for (k = 0; k <= (int)rng_below(&rng, 3); k++)
            text[rng_below(&rng, sizeof(seed) - 1)] = bytes[rng_below(&rng, sizeof(bytes) - 1)];
        try_text(view_of(text, rng_below(&rng, 4) ? sizeof(seed) - 1
                                                  : rng_below(&rng, sizeof(seed) - 1)));
    }
}

/* What is wrong takes nothing of what is right with it, and no memory. */
static void test_anyway(void **state)
{
    char path[] = "/tmp/test_load.XXXXXX";
    const char *text = "titel: x\ncolour: red\naddress: nowhere\na: {count: 5}\n";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    assert_true(conf_load_anyway(path, &spec, &settings, &errors));
    unlink(path);
    assert_true(errors.n >= 2);
    assert_int_equal(settings.count, 5);
    assert_int_equal(settings.words.n, 2);
    conf_clear(&spec, &settings);
    conf_errors_fini(&errors);
    assert_false(conf_load_anyway(path, &spec, &settings, &errors));
    assert_int_equal(errors.n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_defaults, teardown),
        cmocka_unit_test_teardown(test_values, teardown),
        cmocka_unit_test_teardown(test_anyway, teardown),
        cmocka_unit_test_teardown(test_refused_values, teardown),
        cmocka_unit_test_teardown(test_sections, teardown),
        cmocka_unit_test_teardown(test_check, teardown),
        cmocka_unit_test_teardown(test_failed_load_leaves_nothing, teardown),
        cmocka_unit_test_teardown(test_errors_print, teardown),
        cmocka_unit_test_teardown(test_missing_file, teardown),
        cmocka_unit_test_teardown(test_limits, teardown),
        cmocka_unit_test_teardown(test_compare, teardown),
        cmocka_unit_test_teardown(test_dump, teardown),
        cmocka_unit_test_teardown(test_describe, teardown),
        cmocka_unit_test_teardown(test_mutations, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
