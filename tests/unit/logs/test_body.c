/* Bodies of PUT /stream as records: cutting, edges' parts, and the delivery field. */
#include "logs/body.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "codec/zcodec.h"

static struct list records;
static uint64_t lines;
static struct err e;

static int make(void **state)
{
    list_init(&records);
    lines = 0;
    return 0;
}

static int drop(void **state)
{
    struct list *it, *tmp;

    list_each (it, tmp, &records)
        record_free(list_entry(it, struct record, link));
    return 0;
}

static size_t count(void)
{
    const struct list *it;
    size_t n = 0;

    for (it = records.next; it != &records; it = it->next)
        n++;
    return n;
}

static struct record *nth(size_t n)
{
    struct list *it = records.next;

    while (n--)
        it = it->next;
    return list_entry(it, struct record, link);
}

static void make_array(struct str *out, size_t n)
{
    size_t i;

    str_addc(out, '[');
    for (i = 0; i < n; i++)
        str_addf(out, "%s{\"pos\":%zu,\"out\":\"line %zu\"}", i ? "," : "", i + 5, i);
    str_addc(out, ']');
}

/* Spliced again the records are what came. */
static void assert_whole(struct view body)
{
    struct str got = STR_INIT;
    const struct list *it;
    uint64_t sum = 0;

    str_addc(&got, '[');
    for (it = records.next; it != &records; it = it->next) {
        struct record *r = list_entry(it, struct record, link);
        struct str text = STR_INIT;

        assert_int_equal(zframe_unpack(str_view(&r->frame), r->size, &text, &e), 0);
        assert_int_equal(text.n, r->size);
        if (got.n > 1)
            str_addc(&got, ',');
        str_addv(&got, str_view(&text));
        str_fini(&text);
        sum += r->row.lines;
    }
    str_addc(&got, ']');
    assert_int_equal(sum, lines);
    assert_int_equal(got.n, body.n);
    assert_memory_equal(got.p, body.p, body.n);
    str_fini(&got);
}

static void test_a_small_body_is_one_record(void **state)
{
    const struct body_rules rules = {.lines = 1000, .bytes = 65536, .keep_text = true, .at_ns = 77};
    struct str body = STR_INIT;

    make_array(&body, 3);
    assert_int_equal(body_to_records(str_view(&body), &rules, &records, &lines, &e), 0);
    assert_int_equal(count(), 1);
    assert_int_equal(lines, 3);
    assert_whole(str_view(&body));
    assert_int_equal(nth(0)->pos_min, 5);
    assert_int_equal(nth(0)->pos_max, 7);
    assert_int_equal(nth(0)->row.at_ns, 77);
    assert_true(nth(0)->hashed);
    assert_int_equal(nth(0)->text.n, nth(0)->size);
    str_fini(&body);
}

static void test_a_large_body_is_cut(void **state)
{
    const struct body_rules by_lines = {.lines = 10, .bytes = 1 << 20}, by_bytes = {.lines = 1000, .bytes = 100};
    struct str body = STR_INIT;
    size_t i;

    make_array(&body, 25);
    assert_int_equal(body_to_records(str_view(&body), &by_lines, &records, &lines, &e), 0);
    assert_int_equal(count(), 3);
    assert_int_equal(nth(0)->row.lines, 10);
    assert_int_equal(nth(2)->row.lines, 5);
    assert_true(nth(0)->hashed && !nth(1)->hashed);
    assert_null(nth(0)->text.p); /* memory is short: it was not asked for */
    assert_whole(str_view(&body));
    drop(NULL);
    make(NULL);
    assert_int_equal(body_to_records(str_view(&body), &by_bytes, &records, &lines, &e), 0);
    assert_true(count() > 5);
    for (i = 0; i < count(); i++)
        assert_in_range(nth(i)->size, 1, 100);
    assert_whole(str_view(&body));
    str_fini(&body);
}

static void test_a_single_long_line_is_a_record(void **state)
{
    const struct body_rules rules = {.lines = 10, .bytes = 50};
    struct str body = STR_INIT;
    size_t i;

    str_adds(&body, "[{\"out\":\"a\"},{\"out\":\"");
    for (i = 0; i < 500; i++)
        str_addc(&body, 'x');
    str_adds(&body, "\"},{\"out\":\"b\"}]");
    assert_int_equal(body_to_records(str_view(&body), &rules, &records, &lines, &e), 0);
    assert_int_equal(count(), 3);
    assert_whole(str_view(&body));
    str_fini(&body);
}

static void test_what_is_no_array_is_refused(void **state)
{
    static const char *const bad[] = {"", "{}", "[", "[1]", "[{\"pos\":\"x\"}]", "[{}", "garbage"};
    static const char *const empty[] = {"[]", " [ ] ", "null"};
    const struct body_rules rules = {.lines = 10, .bytes = 100};
    size_t i;

    for (i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(body_to_records(view_str(bad[i]), &rules, &records, &lines, &e), -1);
        assert_int_equal(count(), 0);
    }
    for (i = 0; i < ARRAY_LEN(empty); i++) {
        assert_int_equal(body_to_records(view_str(empty[i]), &rules, &records, &lines, &e), 0);
        assert_int_equal(count(), 0);
        assert_int_equal(lines, 0);
    }
}

static void test_an_edges_parts_are_its_records(void **state)
{
    const struct call_part parts[] = {{7, 2}, {8, 1}, {9, 3}}, few[] = {{7, 2}, {8, 1}}, many[] = {{7, 6}, {8, 1}};
    struct body_rules rules = {.lines = 1000, .bytes = 1 << 20, .parts = parts, .n_parts = 3};
    struct str body = STR_INIT;

    make_array(&body, 6);
    assert_int_equal(body_to_records(str_view(&body), &rules, &records, &lines, &e), 0);
    assert_int_equal(count(), 3);
    assert_int_equal(nth(0)->row.lines, 2);
    assert_int_equal(nth(1)->row.lines, 1);
    assert_int_equal(nth(2)->row.lines, 3);
    assert_whole(str_view(&body));
    drop(NULL);
    make(NULL);
    rules.parts = few;
    rules.n_parts = 2;
    assert_int_equal(body_to_records(str_view(&body), &rules, &records, &lines, &e), -1);
    drop(NULL);
    make(NULL);
    rules.parts = many;
    assert_int_equal(body_to_records(str_view(&body), &rules, &records, &lines, &e), -1);
    str_fini(&body);
}

static void assert_field(const char *text, int rc)
{
    struct call_part *parts = NULL;
    uint64_t edge, life;
    size_t n = 0;

    assert_int_equal(body_parse_delivery(view_str(text), &edge, &life, &parts, &n), rc);
    if (rc == 0)
        xfree(parts);
}

static void test_the_delivery_field(void **state)
{
    struct call_part *parts;
    struct str text = STR_INIT;
    uint64_t edge, life;
    size_t n, i;

    assert_int_equal(
        body_parse_delivery(VIEW_LIT("00000000000000ff-0000000000000010 4:1,18446744073709551615:20"), &edge, &life,
                            &parts, &n),
        0);
    assert_int_equal(edge, 255);
    assert_int_equal(life, 16);
    assert_int_equal(n, 2);
    assert_true(parts[1].number == UINT64_MAX && parts[1].lines == 20);
    xfree(parts);
    assert_field("", -1);
    assert_field("0-1 1:1", -1); /* 0 is "no edge" */
    assert_field("1-1", -1);
    assert_field("1-1 ", -1);
    assert_field("1-1 1", -1);
    assert_field("1-1 1:0", -1);
    assert_field("1-1 1:1,", -1);
    assert_field("1-1 1:1 ", -1);
    assert_field("1-1 1:1;2:1", -1);
    assert_field("G-1 1:1", -1);
    assert_field("1-1 18446744073709551616:1", -1);
    assert_field("10000000000000000-1 1:1", -1);
    str_adds(&text, "1-1 1:1");
    for (i = 0; i < 4095; i++)
        str_adds(&text, ",1:1");
    assert_field(str_c(&text), 0);
    str_adds(&text, ",1:1");
    assert_field(str_c(&text), -1);
    str_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_small_body_is_one_record, make, drop),
        cmocka_unit_test_setup_teardown(test_a_large_body_is_cut, make, drop),
        cmocka_unit_test_setup_teardown(test_a_single_long_line_is_a_record, make, drop),
        cmocka_unit_test_setup_teardown(test_what_is_no_array_is_refused, make, drop),
        cmocka_unit_test_setup_teardown(test_an_edges_parts_are_its_records, make, drop),
        cmocka_unit_test(test_the_delivery_field),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
