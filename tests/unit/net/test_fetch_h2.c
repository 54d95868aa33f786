/* Delivery's HTTP client over HTTP/2: sharing of connections, and what broken streams mean. */
#include "fetch_world.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { AT_ONCE = 300 };

static char docs[64];

static void expect(const struct call *c, enum fetch_outcome outcome, int status)
{
    if (c->outcome != outcome || c->status != status)
        print_error("outcome %d status %d: %s\n", (int)c->outcome, c->status, c->err.text);
    assert_int_equal(c->outcome, outcome);
    assert_int_equal(c->status, status);
}

static struct program *nghttpd(uint16_t port, bool tls)
{
    char number[8];
    const char *clear[] = {"nghttpd", "-a", "127.0.0.1", "-d", docs, "--no-tls", number, NULL};
    const char *secure[] = {"nghttpd", "-a", "127.0.0.1", "-d", docs, number, key_file, ca_file,
                            NULL};

    snprintf(number, sizeof(number), "%u", port);
    return program_start(tls ? secure : clear, port);
}

static void many(struct fetch_opts o)
{
    static struct call c[AT_ONCE];

    memset(c, 0, sizeof(c));
    for (int i = 0; i < AT_ONCE; i++)
        call_start(&c[i], o);
    calls_wait(c, AT_ONCE);
    for (int i = 0; i < AT_ONCE; i++) {
        expect(&c[i], FETCH_ANSWERED, 200);
        assert_int_equal(c[i].version, 20);
        assert_string_equal(c[i].body, "hello\n");
    }
}

static void test_many_share(void **state)
{
    for (int tls = 0; tls < 2; tls++) {
        uint16_t port = port_free();
        struct program *p = nghttpd(port, tls);
        struct fetch_opts o = {.method = "PUT",
                               .url = url_with(tls ? "https" : "http", "127.0.0.1", port, "hello"),
                               .peer = tls ? &tls_peer : &h2_peer,
                               .body = VIEW_LIT("[\"some lines\"]")};

        if (!p)
            skip(); /* no nghttpd here */
        pool_remake(&(struct fetch_pool_opts){.resolver = NULL});
        many(o);
        assert_in_range(fetch_pool_connections(pool), 1, 2);
        many(o); /* and again, over what is there */
        assert_in_range(fetch_pool_connections(pool), 1, 2);
        o.body = VIEW_NONE;
        o.method = "GET";
        many(o);
        assert_in_range(fetch_pool_connections(pool), 1, 2);
        program_stop(&p);
    }
}

static void run(struct call *c, struct fetch_opts o)
{
    memset(c, 0, sizeof(*c));
    call_start(c, o);
    call_wait(c);
}

static void test_fresh_and_http_1_1(void **state)
{
    uint16_t port = port_free();
    struct program *p = nghttpd(port, true);
    struct fetch_opts o = {.method = "GET",
                           .url = url_with("https", "127.0.0.1", port, "hello"),
                           .peer = &tls_peer};
    struct fetch_peer h2_only = {.ca = ca_file, .http = FETCH_HTTP_2};
    struct call c;

    if (!p)
        skip();
    run(&c, o);
    expect(&c, FETCH_ANSWERED, 200);
    o.peer = &h2_only;
    for (int i = 0; i < 2; i++) {
        o.fresh = i > 0;
        run(&c, o);
        expect(&c, FETCH_ANSWERED, 200);
        assert_int_equal(c.version, 20);
        assert_int_equal(fetch_pool_connections(pool), 1 + i);
    }
    o.fresh = false;
    run(&c, o);
    expect(&c, FETCH_ANSWERED, 200);
    assert_int_equal(fetch_pool_connections(pool), 2);
    fetch_pool_free(&pool); /* before `h2_only` */
    program_stop(&p);
}

/* ---- a steady load: each answer brings the next request */

enum { STEADY = 4000, STEADY_AT_ONCE = 1, STEADY_MS = 10000 };

static struct fetch_opts steady;
static int steady_left, steady_good;

static void steady_next(struct call *c)
{
    steady_good += c->outcome == FETCH_ANSWERED;
    if (steady_left-- <= 0)
        return;
    memset(c, 0, sizeof(*c));
    c->then = steady_next;
    call_start(c, steady);
}

/* Nothing waits for the pool's sweep, which comes every 100 ms. */
static void test_steady_load(void **state)
{
    uint16_t port = port_free();
    struct program *p = nghttpd(port, false);
    static struct call c[STEADY_AT_ONCE];
    int64_t begin = ev_now_ns(loop);

    if (!p)
        skip();
    steady = (struct fetch_opts){.method = "GET",
                                 .url = url_with("http", "127.0.0.1", port, "hello"),
                                 .peer = &h2_peer};
    steady_left = STEADY;
    steady_good = 0;
    for (int i = 0; i < STEADY_AT_ONCE; i++) {
        c[i] = (struct call){.then = steady_next};
        call_start(&c[i], steady);
    }
    calls_wait(c, STEADY_AT_ONCE);
    assert_int_equal(steady_good, STEADY + STEADY_AT_ONCE);
    assert_true((ev_now_ns(loop) - begin) / 1000000 < STEADY_MS);
    program_stop(&p);
}

static long read_large(void *ctx, void *p, size_t n)
{
    size_t *left = ((struct call *)ctx)->user;

    n = n > *left ? *left : n;
    memset(p, 'u', n);
    *left -= n;
    return (long)n;
}

static long read_paused(void *ctx, void *p, size_t n)
{
    size_t *left = ((struct call *)ctx)->user;

    if (*left && *left % 2 == 0) { /* every other time */
        --*left;
        return FETCH_PAUSE;
    }
    n = n > *left ? *left : n;
    n = n > 4001 ? 4001 : n;
    memset(p, 'u', n);
    *left -= n;
    return (long)n;
}

static bool resume_or_done(void *ctx)
{
    struct call *c = ctx;

    if (c->f)
        fetch_resume(c->f);
    return c->done;
}

static void test_uploads(void **state)
{
    uint16_t port = port_free();
    struct program *p = nghttpd(port, false);
    struct fetch_opts o = {.method = "PUT",
                           .url = url_with("http", "127.0.0.1", port, "hello"),
                           .peer = &h2_peer};
    struct call c = {.f = NULL};
    size_t left = 3000000;

    if (!p)
        skip();
    c.user = &left;
    o.read = read_large;
    o.length = 3000000;
    call_start(&c, o);
    call_wait(&c);
    expect(&c, FETCH_ANSWERED, 200);
    c = (struct call){.user = &left};
    left = 40000;
    o.read = read_paused;
    o.length = -1;
    call_start(&c, o);
    wait_for(resume_or_done, &c);
    expect(&c, FETCH_ANSWERED, 200);
    assert_int_equal(left, 0);
    program_stop(&p);
}

/* ---- misbehaviour */

static struct program *peer_start(uint16_t port, const char *how)
{
    char script[512], number[8];
    const char *dir = getenv("srcdir") ? getenv("srcdir") : ".";
    const char *argv[] = {"/usr/bin/python3", script, number, how, NULL};

    snprintf(script, sizeof(script), "%s/tests/unit/net/h2_peer.py", dir);
    snprintf(number, sizeof(number), "%u", port);
    return program_start(argv, port);
}

/* Sends `warm` good requests and a bad one, and asks the peer how many bad ones it has seen. */
static void broken(const char *how, int warm, struct call *bad, size_t body)
{
    static char text[400000];
    uint16_t port = port_free();
    struct program *p = peer_start(port, how);
    struct fetch_opts o = {.method = "POST",
                           .url = url_with("http", "127.0.0.1", port, "good"),
                           .peer = &h2_peer,
                           .timeout_ms = 2000};
    struct call c;

    if (!p)
        skip(); /* no python3 with h2 here */
    memset(text, 'u', sizeof(text));
    for (int i = 0; i < warm; i++) {
        run(&c, o);
        expect(&c, FETCH_ANSWERED, 204);
    }
    o.url = url_with("http", "127.0.0.1", port, "x?token=SECRET");
    o.body = view_of(text, body);
    if (strcmp(how, "silent") == 0)
        o.timeout_ms = 100;
    run(bad, o);
    run_ms(20); /* time for a replay */
    o.body = VIEW_NONE;
    o.timeout_ms = 2000;
    o.method = "GET";
    o.url = url_with("http", "127.0.0.1", port, "count");
    for (int i = 0; i < 5; i++) { /* the connection may be going down */
        run(&c, o);
        if (c.outcome == FETCH_ANSWERED)
            break;
    }
    expect(&c, FETCH_ANSWERED, 200);
    if (strcmp(how, "silent") != 0 || strcmp(c.body, "0") != 0) /* it may not all be there yet */
        assert_string_equal(c.body, "1");
    program_stop(&p);
}

static void test_broken_streams(void **state)
{
    static const struct {
        const char *how;
        int status;
    } rows[] = {{"refuse", 0}, {"reset", 0}, {"need-h1", 0}, {"goaway", 0},
                {"close", 0},  {"half", 200}, {"silent", 0}};
    struct call c;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int warm = 0; warm < 3; warm += 2) {
            for (size_t body = 0; body < 400000; body += 399999) {
                broken(rows[i].how, warm, &c, body);
                expect(&c, FETCH_UNKNOWN, rows[i].status);
                fetch_pool_free(&pool);
                pool_remake(&(struct fetch_pool_opts){.resolver = NULL});
            }
        }
    }
}

/* An early answer over HTTP/2 may be lost, but is never taken for another one. */
static void test_early_answer(void **state)
{
    struct call c;

    broken("early", 1, &c, 300000);
    if (c.outcome == FETCH_ANSWERED)
        assert_int_equal(c.status, 413);
    else
        assert_int_equal(c.outcome, FETCH_UNKNOWN);
}

static bool is_running(void *ctx)
{
    return fetch_pool_connections(ctx) > 0;
}

static void test_cancel_among_others(void **state)
{
    uint16_t port = port_free();
    struct program *p = nghttpd(port, true);
    static struct call c[AT_ONCE];
    struct fetch_opts o = {.method = "PUT",
                           .url = url_with("https", "127.0.0.1", port, "hello"),
                           .peer = &tls_peer,
                           .body = VIEW_LIT("[\"some lines\"]")};

    if (!p)
        skip();
    run(&c[0], o); /* the way is known */
    memset(c, 0, sizeof(c));
    for (int i = 0; i < AT_ONCE; i++)
        call_start(&c[i], o);
    wait_for(is_running, pool);
    for (int i = 0; i < AT_ONCE; i += 3)
        if (!c[i].done)
            fetch_cancel(&c[i].f);
        else
            c[i].done = false;
    for (int i = 0; i < AT_ONCE; i++) {
        if (i % 3 == 0)
            continue;
        call_wait(&c[i]);
        expect(&c[i], FETCH_ANSWERED, 200);
    }
    for (int i = 0; i < AT_ONCE; i += 3)
        assert_false(c[i].done);
    program_stop(&p);
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_many_share),     T(test_fresh_and_http_1_1), T(test_steady_load),
        T(test_uploads),        T(test_broken_streams),     T(test_early_answer),
        T(test_cancel_among_others),
    };
    char file[80];
    FILE *f;
    int failed;

    snprintf(docs, sizeof(docs), "/tmp/test_fetch_h2.%d", (int)getpid());
    mkdir(docs, 0700);
    snprintf(file, sizeof(file), "%s/hello", docs);
    f = fopen(file, "w");
    if (!f)
        return 1;
    fputs("hello\n", f);
    fclose(f);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(file);
    rmdir(docs);
    unlink(ca_file);
    unlink(key_file);
    return failed;
}
