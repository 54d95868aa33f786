/* Listing streams: order, pages, search, and that no number of them holds a worker up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include "base/hash.h"
#include "base/xmem.h"
#include "logs/logs_priv.h"
#include "logs/report.h"
#include "logs/report_stream.h"
#include "logs/target.h"

/* A log path of two workers in one loop, with nothing but streams. */
static struct logs logs;
static struct logs_settings settings;
static struct shard shards[2];
static struct ev_loop *loop;

static void add_stream(unsigned shard, const char *key, int64_t last_call, uint64_t dead)
{
    struct shard *sh = &shards[shard];
    struct stream *s = stream_new(&sh->env, VIEW_LIT("acct"), view_str(key));

    s->place.owner = sh;
    s->place.story.dead = dead;
    s->last_call = last_call;
    hmap_insert(&sh->streams, &s->place.node, hash_bytes(key, strlen(key)));
}

static int set_up(void **state)
{
    unsigned i;

    (void)state;
    loop = ev_loop_new("test");
    memset(&logs, 0, sizeof(logs));
    memset(shards, 0, sizeof(shards));
    logs.settings = &settings;
    logs.n_shards = 2;
    for (i = 0; i < 2; i++) {
        shards[i].logs = &logs;
        shards[i].index = i;
        shards[i].loop = loop;
        shards[i].settings = &settings;
        logs.shards[i] = &shards[i];
    }
    report_commands_add(&logs);
    return 0;
}

static int tear_down(void **state)
{
    unsigned i;
    size_t slot;

    (void)state;
    report_commands_remove(&logs);
    for (i = 0; i < 2; i++) {
        for (slot = 0; slot < shards[i].streams.n_slots; slot++) {
            while (shards[i].streams.slots[slot]) {
                struct hnode *n = shards[i].streams.slots[slot];

                hmap_remove(&shards[i].streams, n);
                stream_free(hmap_entry(n, struct stream, place.node));
            }
        }
        hmap_fini(&shards[i].streams);
    }
    ev_loop_free(&loop);
    return 0;
}

/* --- asking ------------------------------------------------------------------------------- */

static struct str answer;
static int answer_status;

static void sink_begin(struct command_call *call, int status, const char *type)
{
    (void)call;
    (void)type;
    answer_status = status;
}

static void sink_write(struct command_call *call, struct view piece)
{
    (void)call;
    str_addv(&answer, piece);
}

static void sink_end(struct command_call *call, bool whole)
{
    (void)call;
    assert_true(whole);
    ev_loop_stop(loop);
}

/* `args`: "name=value&name=value". The caller's. */
static json_t *ask(const char *args, int status)
{
    static const struct command_sink sink = {sink_begin, sink_write, sink_end};
    struct command_call call = {.sink = &sink};
    char *copy = xstrdup(args), *at = copy, *next;
    json_t *out;

    call.parts = xcalloc(1, sizeof(*call.parts));
    call.parts[call.n_parts++] = xstrdup("streams");
    call.args = xcalloc(8, sizeof(*call.args));
    for (; *at; at = next) {
        char *value = strchr(at, '=');

        next = at + strcspn(at, "&");
        if (*next)
            *next++ = '\0';
        *value++ = '\0';
        call.args[call.n_args].name = xstrdup(at);
        call.args[call.n_args++].value = xstrdup(value);
    }
    str_clear(&answer);
    command_run(&call);
    ev_loop_run(loop);
    command_call_fini(&call);
    xfree(copy);
    assert_int_equal(answer_status, status);
    out = json_loads(str_c(&answer), 0, NULL);
    assert_non_null(out);
    return out;
}

static long number(const json_t *o, const char *name)
{
    return (long)json_integer_value(json_object_get(o, name));
}

/* The keys of a page, separated by blanks; "" for none. */
static const char *keys(const json_t *page)
{
    static struct str out;
    size_t i;
    json_t *s;

    str_clear(&out);
    json_array_foreach(json_object_get(page, "streams"), i, s)
        str_addf(&out, "%s%s", i ? " " : "", json_string_value(json_object_get(s, "key")));
    return str_c(&out);
}

static void assert_keys(const char *args, const char *want)
{
    json_t *page = ask(args, 200);

    assert_string_equal(keys(page), want);
    json_decref(page);
}

/* --- tests -------------------------------------------------------------------------------- */

static void test_order_and_filters(void **state)
{
    json_t *page;

    (void)state;
    add_stream(0, "b/Two", 30, 0);
    add_stream(1, "a/one", 10, 2);
    add_stream(0, "c/three", 20, 0);
    assert_keys("sort=name", "a/one b/Two c/three");
    assert_keys("sort=idle", "a/one c/three b/Two");
    assert_keys("sort=recent", "b/Two c/three a/one");
    assert_keys("sort=age", "a/one b/Two c/three"); /* nothing waits: by name */
    assert_keys("state=dead", "a/one");
    assert_keys("state=waiting", "");
    assert_keys("search=TWO", "b/Two");
    assert_keys("search=acct", "a/one b/Two c/three");
    page = ask("search=e&sort=name&limit=1", 200);
    assert_int_equal(number(page, "matched"), 2);
    assert_int_equal(number(page, "known"), 3);
    assert_true(json_is_string(json_object_get(page, "next")));
    json_decref(page);
}

enum { KEY_MAX = TARGET_MAX_KEY + 1 };

/* Page by page, by name, all of them once; returns how many pages, none of them larger than
 * `size`. */
static int turn_pages(const char *from_the_first, int streams, size_t size)
{
    struct str args = STR_INIT;
    char last[KEY_MAX] = "";
    int seen = 0, pages = 0;

    str_adds(&args, from_the_first);
    for (;;) {
        json_t *page = ask(str_c(&args), 200), *next = json_object_get(page, "next"), *s;
        size_t k;

        pages++;
        assert_true(answer.n <= size);
        assert_int_equal(number(page, "matched"), streams);
        json_array_foreach(json_object_get(page, "streams"), k, s)
        {
            const char *name = json_string_value(json_object_get(s, "key"));

            assert_true(strcmp(last, name) < 0);
            snprintf(last, sizeof(last), "%s", name);
            seen++;
        }
        str_clear(&args);
        if (json_is_string(next))
            str_addf(&args, "%s&from=%s", from_the_first, json_string_value(next));
        json_decref(page);
        if (!args.n)
            break;
    }
    assert_int_equal(seen, streams);
    str_fini(&args);
    return pages;
}

static void test_pages(void **state)
{
    char key[32];
    int i;

    (void)state;
    for (i = 0; i < 2500; i++) {
        snprintf(key, sizeof(key), "key-%d", i);
        add_stream((unsigned)i % 2, key, 1, 0);
    }
    assert_int_equal(turn_pages("sort=name&limit=100", 2500, SIZE_MAX), 25);
}

/* The longest keys, of bytes that take six times as much in JSON: answers stay small all the same,
 * though one worker has many more of them than the other. */
static void test_pages_of_long_keys(void **state)
{
    char key[KEY_MAX];
    int i;

    (void)state;
    for (i = 0; i < 500; i++) {
        memset(key, 1, sizeof(key) - 1);
        key[sizeof(key) - 1] = '\0';
        key[0] = (char)('0' + i * 7 % 10);
        key[1] = (char)('0' + i / 10 % 10);
        key[2] = (char)('0' + i / 100);
        add_stream(i % 5 == 0, key, 1, 0);
    }
    i = turn_pages("sort=name&limit=1000", 500, 2 * 4 * 1024 * 1024);
    assert_in_range(i, 3, 20);
}

/* Turns the loop takes meanwhile; in one of them, streams come. */
static struct ev_task turn;
static int turns, grow_at;
static bool turning;

static void turn_due(struct ev_task *task)
{
    char key[32];
    int i;

    turns++;
    for (i = 0; turns == grow_at && i < 20000; i++) {
        snprintf(key, sizeof(key), "new-%d", i);
        add_stream(0, key, 1, 0);
    }
    if (turning)
        ev_post(loop, task);
}

static void test_many_in_turns(void **state)
{
    char key[32];
    json_t *page;
    int i;

    (void)state;
    for (i = 0; i < 20000; i++) {
        snprintf(key, sizeof(key), "key-%d", i);
        add_stream((unsigned)i % 2, key, 1, 0);
    }
    turns = 0;
    turning = true;
    grow_at = 5;
    turn.run = turn_due;
    ev_post(loop, &turn);
    page = ask("limit=10&sort=recent", 200);
    assert_int_equal(number(page, "known"), 40000);
    assert_int_equal(number(page, "matched"), 40000);
    assert_int_equal(json_array_size(json_object_get(page, "streams")), 10);
    assert_true(turns > 20);
    json_decref(page);
    turning = false;
}

static void test_refused(void **state)
{
    static const char *const wrong[] = {
        "sort=x",  "state=x", "limit=0",  "limit=1001",   "limit=x",
        "from=zz", "from=1",  "from=1-6", "from=1-61-6g", "from=1-61-61-",
    };
    char search[8 + 300] = "search=";
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(wrong); i++)
        json_decref(ask(wrong[i], 400));
    memset(search + 7, 'x', 257);
    json_decref(ask(search, 400));
    atomic_store(&logs.n_listings, 8); /* under way for others */
    json_decref(ask("limit=1", 503));
    assert_int_equal(atomic_load(&logs.n_listings), 8);
    atomic_store(&logs.n_listings, 0);
    json_decref(ask("limit=1", 200));
    assert_int_equal(atomic_load(&logs.n_listings), 0);
}

static void test_holds(void **state)
{
    (void)state;
    assert_true(report_holds(VIEW_LIT("Abc"), VIEW_LIT("abc")));
    assert_true(report_holds(VIEW_LIT("xabABC"), VIEW_LIT("abc")));
    assert_true(report_holds(VIEW_LIT("x"), VIEW_LIT("")));
    assert_false(report_holds(VIEW_LIT("ab"), VIEW_LIT("abc")));
    assert_false(report_holds(VIEW_LIT(""), VIEW_LIT("a")));
    assert_true(report_holds(VIEW_LIT("a\xff\xe9z"), VIEW_LIT("\xff\xe9")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order_and_filters, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pages_of_long_keys, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_in_turns, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test(test_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
