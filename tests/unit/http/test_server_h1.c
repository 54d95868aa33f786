/* The HTTP/1.1 side of the server, on the real loop over socket pairs. */
#include "rig.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/xmem.h"
#include "rt/clock.h"

static struct rig r;
static struct raw a, b;

static char *bytes(size_t n)
{
    char *p = xmalloc(n);

    for (size_t i = 0; i < n; i++)
        p[i] = (char)('a' + i % 23);
    return p;
}

static void reply_text(size_t i, const char *text)
{
    http_reply(r.seen[i].ex, 200, NULL, 0, view_str(text));
}

/* --- answers --- */

static void answer_is_whole(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_expect(&r, &a, "\r\n\r\nhello");
    assert_int_equal(strncmp(a.got.p, "HTTP/1.1 200 OK\r\nX-Of: rig\r\nDate: ", 34), 0);
    assert_int_equal(raw_count(&a, " GMT\r\nContent-Length: 5\r\n\r\nhello"), 1);
    assert_int_equal(raw_count(&a, "Connection"), 0);
    rig_expect_gone(&r, 0);
    assert_true(r.seen[0].complete);
    assert_int_equal(http_server_connections(r.server), 1);
    rig_close(&r);
}

static void no_content_has_no_length(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "PUT /end HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
    raw_expect(&r, &a, "\r\n\r\n");
    assert_int_equal(memcmp(a.got.p, "HTTP/1.1 204 ", 13), 0);
    assert_int_equal(raw_count(&a, "Content-Length"), 0);
    assert_string_equal(str_c(&r.seen[0].body), "abc");
    assert_int_equal(r.seen[0].ends, 1);
    rig_close(&r);
}

static void head_has_length_but_no_body(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "HEAD /now HTTP/1.1\r\nHost: h\r\n\r\nGET /end HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_expect(&r, &a, "HTTP/1.1 204");
    assert_int_equal(raw_count(&a, "Content-Length: 5\r\n\r\nHTTP/1.1 204"), 1);
    assert_int_equal(raw_count(&a, "hello"), 0);
    rig_close(&r);
}

static void unknown_length_is_chunked(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n");
    raw_expect(&r, &a, "\r\n0\r\n\r\n");
    assert_int_equal(raw_count(&a, "Transfer-Encoding: chunked\r\n"), 1);
    assert_int_equal(raw_count(&a, "\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), 1);
    rig_expect_gone(&r, 0);
    assert_true(r.seen[0].complete);
    assert_int_equal(raw_count(&a, "Connection: close"), 0);
    raw_send(&a, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_expect(&r, &a, "hello");
    rig_close(&r);
}

static void http10_ends_with_the_connection(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi");
    raw_expect_eof(&r, &a);
    assert_int_equal(raw_count(&a, "chunked"), 0);
    assert_int_equal(raw_count(&a, "Connection: close\r\n\r\nhi"), 1);
    rig_connect(&r, &b);
    raw_send(&b, "GET /now HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    raw_expect(&r, &b, "Connection: keep-alive\r\n\r\nhello");
    raw_send(&b, "GET /now HTTP/1.0\r\n\r\n");
    raw_expect_eof(&r, &b);
    assert_int_equal(raw_count(&b, "Connection: close\r\n\r\nhello"), 1);
    rig_close(&r);
}

static void close_is_honoured(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a,
             "GET /now HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /now HTTP/1.1\r\n\r\n");
    raw_expect_eof(&r, &a);
    assert_int_equal(raw_count(&a, "hello"), 1);
    assert_int_equal(r.n_seen, 1);
    rig_close(&r);
}

static void interim_answer_on_request(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a,
             "PUT /end HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    raw_expect(&r, &a, "HTTP/1.1 100 Continue\r\n\r\n");
    raw_send(&a, "ok");
    raw_expect(&r, &a, "HTTP/1.1 204");
    rig_close(&r);
}

static void cut_answer_breaks_the_connection(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_expect_seen(&r, 1);
    http_reply_start(r.seen[0].ex, 200, NULL, 0, 10);
    http_write(r.seen[0].ex, VIEW_LIT("short"));
    http_finish(r.seen[0].ex);
    assert_int_equal(r.seen[0].gones, 0); /* never from within a call */
    rig_expect_gone(&r, 0);
    assert_false(r.seen[0].complete);
    raw_expect_eof(&r, &a);
    rig_close(&r);
}

/* --- requests one after another --- */

static void pipelined_requests_wait_their_turn(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nPUT /2 HTTP/1.1\r\nHost: h\r\nContent-Length: "
                 "2\r\n\r\nxy"
                 "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_expect_seen(&r, 1);
    rig_turns(&r, 10);
    assert_int_equal(r.n_seen, 1);
    reply_text(0, "one");
    rig_expect_seen(&r, 2);
    assert_string_equal(r.seen[1].target, "/2");
    assert_string_equal(str_c(&r.seen[1].body), "xy");
    assert_int_equal(r.seen[1].ends, 1);
    reply_text(1, "two");
    raw_expect(&r, &a, "hello");
    assert_int_equal(raw_count(&a, "HTTP/1.1 200"), 3);
    assert_true(strstr(str_c(&a.got), "one") < strstr(str_c(&a.got), "two"));
    rig_close(&r);
}

static void pipeliner_that_does_not_read_is_stopped(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    a.deaf = true;
    raw_send(&a,
             "GET /big?3000000 HTTP/1.1\r\nHost: h\r\n\r\nGET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_expect_seen(&r, 1);
    rig_turns(&r, 30);
    assert_int_equal(r.n_seen, 1);
    assert_true(r.seen[0].writing > 2000000);
    a.deaf = false;
    raw_expect(&r, &a, "hello");
    assert_true(r.seen[0].drains > 0);
    assert_true(a.got.n > 3000000);
    rig_close(&r);
}

static void bytes_one_by_one(void **state)
{
    static const char text[] =
        "\r\nPUT /end?a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345"
        "PUT /end HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        "a\r\n0123456789\r\n0\r\n\r\nGET /now HTTP/1.1\r\nHost: h\r\n\r\n";

    rig_open(&r, NULL);
    rig_connect(&r, &a);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        raw_send_n(&a, text + i, 1);
        rig_turns(&r, 2);
        if (r.n_seen == 1 && r.seen[0].ex && r.seen[0].ends)
            reply_text(0, "first");
    }
    raw_expect(&r, &a, "hello");
    assert_int_equal(r.n_seen, 3);
    assert_string_equal(str_c(&r.seen[0].body), "12345");
    assert_string_equal(str_c(&r.seen[1].body), "0123456789");
    assert_int_equal(raw_count(&a, "HTTP/1.1 204"), 1);
    rig_close(&r);
}

/* --- early answers --- */

static void early_answer_with_little_left_keeps_the_connection(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "PUT /early HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc");
    raw_expect(&r, &a, "too large");
    assert_int_equal(raw_count(&a, "Connection"), 0);
    rig_expect_gone(&r, 0);
    assert_true(r.seen[0].complete);
    assert_int_equal(r.seen[0].body.n, 0);
    for (int i = 0; i < 997; i++)
        raw_send(&a, "z");
    raw_send(&a, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_expect(&r, &a, "hello");
    rig_close(&r);
}

static void early_answer_is_seen_by_a_sender(void **state)
{
    char *p = bytes(200000);

    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "PUT /early HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n");
    raw_send_n(&a, p, 200000);
    raw_expect_eof(&r, &a);
    assert_false(a.reset);
    assert_int_equal(raw_count(&a, "Connection: close\r\n\r\ntoo large"), 1);
    assert_int_equal(a.sent_total, a.todo.n); /* all of it was taken, and dropped */
    rig_expect_gone(&r, 0);
    rig_close(&r);
    xfree(p);
}

static void early_answer_does_not_read_for_ever(void **state)
{
    char *p = bytes(8000000);

    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "PUT /early HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n7a1200\r\n");
    raw_send_n(&a, p, 8000000);
    raw_expect_eof(&r, &a);
    assert_int_equal(raw_count(&a, "too large"), 1);
    assert_true(a.sent_total < 2000000);
    rig_close(&r);
    xfree(p);
}

static void refusal_of_an_expected_body_closes(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a,
             "PUT /early HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    raw_expect(&r, &a, "too large");
    assert_int_equal(raw_count(&a, "100 Continue"), 0);
    assert_int_equal(raw_count(&a, "Connection: close"), 1);
    raw_close(&r, &a);
    rig_close(&r);
}

/* --- our own answers --- */

static void bad_requests_are_answered(void **state)
{
    static const struct {
        const char *text, *status;
    } rows[] = {
        {"GET  HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "}, /* no Host */
        {"GET / HTTP/3.0\r\nHost: h\r\n\r\n", "HTTP/1.1 505 "},
        {"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         "HTTP/1.1 400 "},
        {"PUT /wait HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
         "HTTP/1.1 400 "},
        {"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 501 "},
        {"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "HTTP/1.1 505 "},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        rig_open(&r, NULL);
        rig_connect(&r, &a);
        raw_send(&a, rows[i].text);
        raw_expect_eof(&r, &a);
        if (memcmp(str_c(&a.got), rows[i].status, strlen(rows[i].status)) != 0)
            fail_msg("row %zu: %s", i, str_c(&a.got));
        assert_int_equal(raw_count(&a, "Content-Type: application/json\r\n"), 1);
        assert_int_equal(raw_count(&a, "Connection: close\r\n\r\n{\"error_msg\":\""), 1);
        for (size_t k = 0; k < r.n_seen; k++)
            assert_false(r.seen[k].complete);
        rig_close(&r);
    }
}

static void endless_head_is_refused(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 5000; i++)
        raw_send(&a, "X-Field: some value to fill it\r\n");
    raw_expect_eof(&r, &a);
    assert_int_equal(memcmp(str_c(&a.got), "HTTP/1.1 431 ", 13), 0);
    rig_close(&r);
}

/* --- flow --- */

struct flow {
    struct raw *raw;
    size_t sent, still;
};

static bool stands_still(void *ctx)
{
    struct flow *f = ctx;

    f->still = f->raw->sent_total == f->sent ? f->still + 1 : 0;
    f->sent = f->raw->sent_total;
    return f->still > 30;
}

static void body_waits_for_its_handler(void **state)
{
    size_t total = 6000000;
    char head[100], *p = bytes(total);
    struct flow f = {.raw = &a};

    rig_open(&r, NULL);
    rig_connect(&r, &a);
    snprintf(head, sizeof head, "PUT /hold HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n",
             total);
    raw_send(&a, head);
    raw_send_n(&a, p, total);
    rig_until(&r, stands_still, &f);
    assert_in_range(r.seen[0].held, 200 * 1024, 400 * 1024);
    assert_true(a.sent_total < 1500000);
    while (r.seen[0].body.n < total) {
        size_t held = r.seen[0].held;

        assert_true(held <= 400 * 1024);
        r.seen[0].held = 0;
        http_consumed(r.seen[0].ex, held);
        rig_turns(&r, 2);
    }
    assert_int_equal(memcmp(r.seen[0].body.p, p, total), 0);
    rig_turns(&r, 2);
    assert_int_equal(r.seen[0].ends, 1);
    http_reply(r.seen[0].ex, 204, NULL, 0, VIEW_NONE);
    raw_expect(&r, &a, "HTTP/1.1 204");
    rig_close(&r);
    xfree(p);
}

static void echo_of_much(void **state)
{
    size_t total = 5000000;
    char head[100], *p = bytes(total);

    rig_open(&r, NULL);
    rig_connect(&r, &a);
    snprintf(head, sizeof head, "PUT /echo HTTP/1.0\r\nContent-Length: %zu\r\n\r\n", total);
    raw_send(&a, head);
    raw_send_n(&a, p, total);
    raw_expect_eof(&r, &a);
    assert_true(a.got.n > total);
    assert_int_equal(memcmp(a.got.p + a.got.n - total, p, total), 0);
    rig_close(&r);
    xfree(p);
}

/* --- the client leaves --- */

static void gone_in_each_phase(void **state)
{
    static const struct {
        const char *text;
        size_t seen;
    } rows[] = {
        {"", 0},
        {"GET / HT", 0},
        {"PUT /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc", 1},
        {"PUT /wait HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", 1},
        {"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n", 1},
        {"GET /big?100000000 HTTP/1.1\r\nHost: h\r\n\r\n", 1},
        {"PUT /early HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\nabc", 1},
        {"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\nabc", 1},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        rig_open(&r, NULL);
        rig_connect(&r, &a);
        raw_send(&a, rows[i].text);
        if (rows[i].seen)
            rig_expect_seen(&r, rows[i].seen);
        rig_turns(&r, 3);
        raw_close(&r, &a);
        while (http_server_connections(r.server))
            rig_turns(&r, 1);
        assert_int_equal(r.n_seen, rows[i].seen);
        for (size_t k = 0; k < r.n_seen; k++)
            assert_int_equal(r.seen[k].gones, 1);
        rig_close(&r);
    }
}

static void server_free_ends_exchanges(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    rig_connect(&r, &b);
    raw_send(&a, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_send(&b, "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\nabc");
    rig_expect_seen(&r, 2);
    rig_turns(&r, 2);
    reply_text(strcmp(r.seen[0].method, "GET") != 0, "not to be sent any more");
    rig_close(&r); /* asserts one on_gone each */
}

static void abort_resets(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_expect_seen(&r, 1);
    http_abort(r.seen[0].ex);
    http_reply(r.seen[0].ex, 200, NULL, 0, VIEW_NONE); /* harmless */
    assert_int_equal(r.seen[0].gones, 0);
    rig_expect_gone(&r, 0);
    assert_false(r.seen[0].complete);
    raw_expect_eof(&r, &a);
    assert_int_equal(a.got.n, 0);
    rig_close(&r);
}

/* --- time --- */

static const struct http_server_opts hasty = {
    .head_timeout_ms = 60, .idle_timeout_ms = 60, .body_timeout_ms = 60, .write_timeout_ms = 60};

static void slow_head_is_answered(void **state)
{
    rig_open(&r, &hasty);
    rig_connect(&r, &a);
    raw_send(&a, "GET / HTTP/1.1\r\nHo");
    raw_expect_eof(&r, &a);
    assert_int_equal(memcmp(str_c(&a.got), "HTTP/1.1 408 ", 13), 0);
    rig_close(&r);
}

static bool sends_a_byte(void *ctx)
{
    raw_send(&a, "x");
    return a.eof;
}

static void trickled_head_is_answered(void **state)
{
    rig_open(&r, &hasty);
    rig_connect(&r, &a);
    raw_send(&a, "GET /");
    rig_until(&r, sends_a_byte, NULL);
    assert_int_equal(memcmp(str_c(&a.got), "HTTP/1.1 408 ", 13), 0);
    rig_close(&r);
}

static void idle_connection_is_closed(void **state)
{
    rig_open(&r, &hasty);
    rig_connect(&r, &a);
    raw_send(&a, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_expect_eof(&r, &a);
    assert_int_equal(raw_count(&a, "HTTP/1.1"), 1);
    assert_false(a.reset);
    rig_close(&r);
}

static void slow_body_is_answered(void **state)
{
    rig_open(&r, &hasty);
    rig_connect(&r, &a);
    raw_send(&a, "PUT /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
    rig_expect_gone(&r, 0);
    assert_false(r.seen[0].complete);
    raw_expect_eof(&r, &a);
    assert_int_equal(memcmp(str_c(&a.got), "HTTP/1.1 408 ", 13), 0);
    rig_close(&r);
}

static bool forty_turns(void *ctx)
{
    raw_send(&a, "x");
    return ++*(int *)ctx == 200;
}

static void body_that_moves_is_not_slow(void **state)
{
    int turns = 0;

    rig_open(&r, &hasty);
    rig_connect(&r, &a);
    raw_send(&a, "PUT /end HTTP/1.1\r\nHost: h\r\nContent-Length: 201\r\n\r\n");
    rig_until(&r, forty_turns, &turns); /* one byte a millisecond */
    raw_send(&a, "y");
    raw_expect(&r, &a, "HTTP/1.1 204");
    rig_close(&r);
}

static bool trickled(void *ctx)
{
    if (++*(int *)ctx % 40 == 0)
        raw_send(&a, "x");
    return a.eof || *(int *)ctx > 2000;
}

/* A byte comes before each timeout, but the waits add up. */
static void body_that_trickles_is_slow(void **state)
{
    int turns = 0;

    rig_open(&r, &hasty);
    rig_connect(&r, &a);
    raw_send(&a, "PUT /end HTTP/1.1\r\nHost: h\r\nContent-Length: 201\r\n\r\n");
    rig_until(&r, trickled, &turns);
    assert_true(turns <= 2000);
    assert_non_null(strstr(str_c(&a.got), "HTTP/1.1 408"));
    rig_close(&r);
}

static void handler_may_take_its_time(void **state)
{
    rig_open(&r, &hasty);
    rig_connect(&r, &a);
    raw_send(&a, "PUT /hold HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
    rig_expect_seen(&r, 1);
    rig_turns(&r, 150);
    assert_non_null(r.seen[0].ex);
    reply_text(0, "late");
    raw_expect(&r, &a, "late");
    rig_close(&r);
}

static void slow_reader_is_cut_off(void **state)
{
    rig_open(&r, &hasty);
    rig_connect(&r, &a);
    a.deaf = true;
    raw_send(&a, "GET /big?10000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_expect_seen(&r, 1);
    rig_expect_gone(&r, 0);
    assert_false(r.seen[0].complete);
    assert_int_equal(http_server_connections(r.server), 0);
    rig_close(&r);
}

struct naps {
    int64_t each_ns, until_ns;
};

/* Awake for a moment between naps: what it takes then opens the way for more, long before each
 * timeout. */
static bool reads_now_and_then(void *ctx)
{
    struct naps *n = ctx;
    int64_t now = clock_mono_ns();

    a.deaf = now < n->until_ns;
    if (!a.deaf)
        n->until_ns = now + n->each_ns;
    return r.seen[0].gones || a.got.n > 3000000;
}

static void read_slowly(const struct http_server_opts *o)
{
    struct naps naps = {.each_ns = o->write_timeout_ms * NS_PER_MS / 8};

    rig_open(&r, o);
    rig_connect(&r, &a);
    a.deaf = true;
    raw_send(&a, "GET /big?10000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_expect_seen(&r, 1);
    rig_until(&r, reads_now_and_then, &naps);
}

static void reader_that_trickles_is_cut_off(void **state)
{
    struct http_server_opts o = hasty;

    o.least_rate = 1 << 30;
    read_slowly(&o);
    assert_int_equal(r.seen[0].gones, 1);
    assert_false(r.seen[0].complete);
    assert_int_equal(http_server_connections(r.server), 0);
    rig_close(&r);
}

static void reader_that_is_slow_is_served(void **state)
{
    const struct http_server_opts o = {.write_timeout_ms = 640};
    int64_t begun = clock_mono_ns();

    read_slowly(&o);
    assert_int_equal(r.seen[0].gones, 0);
    assert_true(a.got.n > 3000000);
    assert_true(clock_mono_ns() - begun > o.write_timeout_ms * NS_PER_MS);
    rig_close(&r);
}

/* --- limits and drain --- */

static void too_many_connections(void **state)
{
    struct http_server_opts o = {.max_connections = 1};

    rig_open(&r, &o);
    rig_connect(&r, &a);
    rig_connect(&r, &b);
    raw_expect_eof(&r, &b);
    raw_send(&a, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_expect(&r, &a, "hello");
    rig_close(&r);
}

static void drain_closes_idle_and_finishes_busy(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    rig_connect(&r, &b);
    raw_send(&a, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_send(&b, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_expect(&r, &a, "hello");
    rig_expect_seen(&r, 2);
    http_server_drain(r.server);
    raw_expect_eof(&r, &a);
    rig_turns(&r, 5);
    assert_int_equal(http_server_connections(r.server), 1);
    http_reply(r.seen[r.seen[0].ex ? 0 : 1].ex, 200, NULL, 0, VIEW_LIT("last"));
    raw_expect_eof(&r, &b);
    assert_int_equal(raw_count(&b, "Connection: close\r\n\r\nlast"), 1);
    raw_close(&r, &b);
    while (http_server_connections(r.server))
        rig_turns(&r, 1);
    rig_close(&r);
}

/* --- tunnels --- */

static void upgrade_echoes_both_ways(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: "
                 "websocket\r\n\r\nearly");
    raw_expect(&r, &a, "\r\n\r\nearly");
    assert_int_equal(memcmp(a.got.p, "HTTP/1.1 101 ", 13), 0);
    assert_int_equal(raw_count(&a, "Upgrade: websocket\r\nConnection: upgrade\r\n"), 1);
    raw_send(&a, "GET / HTTP/1.1\r\n\r\n");
    raw_expect(&r, &a, "earlyGET / HTTP/1.1\r\n\r\n");
    assert_int_equal(r.seen[0].ends, 0); /* the switch was in take */
    shutdown(a.fd, SHUT_WR);
    raw_expect_eof(&r, &a); /* the handler ends too */
    assert_int_equal(r.seen[0].ends, 1);
    rig_expect_gone(&r, 0);
    assert_true(r.seen[0].complete);
    rig_close(&r);
}

static void tunnel_half_closes_apart(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "GET /wait HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nfirst");
    rig_expect_seen(&r, 1);
    rig_turns(&r, 3);
    assert_int_equal(r.seen[0].ends, 1); /* the request's end */
    assert_int_equal(r.seen[0].body.n, 0);
    http_switch(r.seen[0].ex, 101, NULL, 0);
    http_write(r.seen[0].ex, VIEW_LIT("from us"));
    http_finish(r.seen[0].ex);
    raw_expect_eof(&r, &a);
    assert_int_equal(raw_count(&a, "\r\n\r\nfrom us"), 1);
    assert_int_equal(r.seen[0].gones, 0);
    raw_send(&a, " second");
    rig_turns(&r, 5);
    assert_string_equal(str_c(&r.seen[0].body), "first second");
    shutdown(a.fd, SHUT_WR);
    rig_expect_gone(&r, 0);
    assert_int_equal(r.seen[0].ends, 2);
    assert_true(r.seen[0].complete);
    rig_close(&r);
}

static void connect_is_a_tunnel(void **state)
{
    size_t total = 3000000;
    char *p = bytes(total);

    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n");
    raw_expect(&r, &a, "\r\n\r\n");
    assert_string_equal(r.seen[0].target, "h:443");
    assert_int_equal(raw_count(&a, "Content-Length"), 0);
    assert_int_equal(raw_count(&a, "chunked"), 0);
    raw_send_n(&a, p, total);
    raw_send(&a, "END");
    raw_expect(&r, &a, "END");
    assert_int_equal(memcmp(a.got.p + a.got.n - total - 3, p, total), 0);
    rig_close(&r);
    xfree(p);
}

static struct net_stream *detached;
static struct buf behind;

static void detach(struct rig *rig, struct seen *s, const struct http_request *req)
{
    if (strcmp(s->method, "CONNECT") != 0)
        return;
    strcpy(s->target, "/mine");
    strcpy(s->method, "x");
    detached = http_detach(s->ex, 200, NULL, 0, &behind);
    assert_non_null(detached);
    http_reply(s->ex, 200, NULL, 0, VIEW_NONE); /* it is over: harmless */
    s->gones = 1;                               /* and has no on_gone */
}

static void stream_on_readable(void *ctx)
{
    char bytes[16];
    struct err e;
    ssize_t n = net_read(detached, bytes, sizeof bytes, &e);

    if (n > 0)
        buf_add(&behind, bytes, (size_t)n);
    else if (n != NET_AGAIN)
        net_stream_close(&detached, false);
}

static bool has_behind(void *ctx)
{
    return buf_len(&behind) == *(size_t *)ctx;
}

static void detach_gives_the_stream(void **state)
{
    static const struct net_stream_ops stream_ops = {.on_readable = stream_on_readable};
    size_t wanted = 10;
    struct err e;

    rig_open(&r, NULL);
    rig_connect(&r, &a);
    r.on_take = detach;
    raw_send(&a,
             "GET /now HTTP/1.1\r\nHost: h\r\n\r\nCONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\nearly");
    rig_expect_seen(&r, 1);
    while (!detached) /* the answer before it must be out first */
        rig_turns(&r, 1);
    net_stream_bind(detached, &stream_ops, NULL);
    assert_int_equal(buf_len(&behind), 5);
    raw_expect(&r, &a, "HTTP/1.1 200 OK\r\nDate");
    while (http_server_connections(r.server))
        rig_turns(&r, 1);
    net_want_read(detached, true);
    raw_send(&a, " late");
    rig_until(&r, has_behind, &wanted);
    assert_memory_equal(buf_data(&behind), "early late", 10);
    assert_int_equal(net_write(detached, "bye", 3, &e), 3);
    raw_expect(&r, &a, "bye");
    raw_close(&r, &a);
    while (detached)
        rig_turns(&r, 1);
    buf_fini(&behind);
    rig_close(&r);
}

static void refused_connect_keeps_the_connection(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    raw_send(&a, "GET /wait HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                 "Upgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n");
    rig_expect_seen(&r, 1);
    assert_false(http_request_of(r.seen[0].ex)->upgrade); /* to HTTP/2: ignored */
    reply_text(0, "plain");
    raw_expect(&r, &a, "plain");
    raw_send(&a, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_expect(&r, &a, "hello");
    rig_close(&r);
}

/* --- the request as the handler sees it --- */

static void look(struct rig *rig, struct seen *s, const struct http_request *req)
{
    assert_ptr_equal(req, http_request_of(s->ex));
    assert_true(view_is(req->authority, "host:1"));
    assert_int_equal(req->version, 11);
    assert_false(req->tls);
    assert_int_equal(net_addr_port(req->peer), 1234);
    assert_true(req->start_ns > 0);
}

static void request_is_kept(void **state)
{
    rig_open(&r, NULL);
    rig_connect(&r, &a);
    r.on_take = look;
    raw_send(&a, "PUT /wait?k=v HTTP/1.1\r\nHost: host:1\r\nX-Empty:\r\nX-A: 1\r\nx-a: "
                 "2\r\nContent-Length: 4\r\n\r\nb");
    rig_expect_seen(&r, 1);
    raw_send(&a, "ody");
    rig_turns(&r, 3);
    const struct http_request *req = http_request_of(r.seen[0].ex);

    assert_true(view_is(req->target, "/wait?k=v"));
    assert_true(view_is(http_field(req->fields, req->n_fields, "x-A"), "1"));
    assert_non_null(http_field(req->fields, req->n_fields, "x-empty").p);
    assert_null(http_field(req->fields, req->n_fields, "x-b").p);
    assert_int_equal(req->content_length, 4);
    reply_text(0, "x");
    raw_expect(&r, &a, "HTTP/1.1 200");
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answer_is_whole),
        cmocka_unit_test(no_content_has_no_length),
        cmocka_unit_test(head_has_length_but_no_body),
        cmocka_unit_test(unknown_length_is_chunked),
        cmocka_unit_test(http10_ends_with_the_connection),
        cmocka_unit_test(close_is_honoured),
        cmocka_unit_test(interim_answer_on_request),
        cmocka_unit_test(cut_answer_breaks_the_connection),
        cmocka_unit_test(pipelined_requests_wait_their_turn),
        cmocka_unit_test(pipeliner_that_does_not_read_is_stopped),
        cmocka_unit_test(bytes_one_by_one),
        cmocka_unit_test(early_answer_with_little_left_keeps_the_connection),
        cmocka_unit_test(early_answer_is_seen_by_a_sender),
        cmocka_unit_test(early_answer_does_not_read_for_ever),
        cmocka_unit_test(refusal_of_an_expected_body_closes),
        cmocka_unit_test(bad_requests_are_answered),
        cmocka_unit_test(endless_head_is_refused),
        cmocka_unit_test(body_waits_for_its_handler),
        cmocka_unit_test(echo_of_much),
        cmocka_unit_test(gone_in_each_phase),
        cmocka_unit_test(server_free_ends_exchanges),
        cmocka_unit_test(abort_resets),
        cmocka_unit_test(slow_head_is_answered),
        cmocka_unit_test(trickled_head_is_answered),
        cmocka_unit_test(idle_connection_is_closed),
        cmocka_unit_test(slow_body_is_answered),
        cmocka_unit_test(body_that_moves_is_not_slow),
        cmocka_unit_test(body_that_trickles_is_slow),
        cmocka_unit_test(handler_may_take_its_time),
        cmocka_unit_test(slow_reader_is_cut_off),
        cmocka_unit_test(reader_that_trickles_is_cut_off),
        cmocka_unit_test(reader_that_is_slow_is_served),
        cmocka_unit_test(too_many_connections),
        cmocka_unit_test(drain_closes_idle_and_finishes_busy),
        cmocka_unit_test(upgrade_echoes_both_ways),
        cmocka_unit_test(tunnel_half_closes_apart),
        cmocka_unit_test(connect_is_a_tunnel),
        cmocka_unit_test(detach_gives_the_stream),
        cmocka_unit_test(refused_connect_keeps_the_connection),
        cmocka_unit_test(request_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
