/* The HTTP/2 side of the server, with nghttp2 as the client, by prior knowledge over socket
 * pairs. */
#include "rig.h"

#include <stdio.h>
#include <nghttp2/nghttp2.h>
#include "base/xmem.h"
#include "rt/clock.h"

static struct rig r;
static struct raw raw;

enum { STREAMS = 40 };

/* The client's view of one stream. */
struct stream {
    int status;
    struct str fields;
    struct str body;
    bool headed, ended, closed;
    uint32_t code;
    const char *up; /* request body */
    size_t up_n, up_off;
    bool up_open; /* more may be added: no end of stream */
    bool trailed; /* its end comes with trailers */
};

static struct client {
    nghttp2_session *ng;
    struct stream streams[STREAMS * 2];
    bool goaway;
    bool slow; /* opens no windows */
    size_t fed;
} c;

static struct stream *at(int32_t id)
{
    assert_in_range(id, 0, STREAMS * 2 - 1);
    return &c.streams[id];
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *ctx)
{
    struct stream *s = at(frame->hd.stream_id);

    if (name_n == 7 && memcmp(name, ":status", 7) == 0)
        s->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
    str_addf(&s->fields, "%.*s: %.*s\n", (int)name_n, name, (int)value_n, value);
    return 0;
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    if (frame->hd.type == NGHTTP2_GOAWAY)
        c.goaway = true;
    if (frame->hd.type == NGHTTP2_HEADERS)
        at(frame->hd.stream_id)->headed = true;
    if (frame->hd.type <= NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        at(frame->hd.stream_id)->ended = true;
    return 0;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *ctx)
{
    str_add(&at(id)->body, p, n);
    if (!c.slow)
        nghttp2_session_consume(ng, id, n);
    return 0;
}

static int on_close(nghttp2_session *ng, int32_t id, uint32_t code, void *ctx)
{
    at(id)->closed = true;
    at(id)->code = code;
    return 0;
}

static void pump(void)
{
    const uint8_t *p;
    ssize_t n;

    if (raw.got.n > c.fed) {
        n = nghttp2_session_mem_recv(c.ng, (uint8_t *)raw.got.p + c.fed, raw.got.n - c.fed);
        assert_true(n >= 0);
        str_clear(&raw.got);
        c.fed = 0;
    }
    while (raw.fd >= 0 && (n = nghttp2_session_mem_send(c.ng, &p)) > 0)
        raw_send_n(&raw, p, (size_t)n);
}

static void client_open(void)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *o;

    memset(&c, 0, sizeof c);
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_option_new(&o);
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_session_client_new2(&c.ng, cb, NULL, o);
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(c.ng, 0, NULL, 0);
}

static void open_all(const struct http_server_opts *o)
{
    rig_open(&r, o);
    rig_connect(&r, &raw);
    client_open();
}

static void close_all(void)
{
    rig_close(&r);
    nghttp2_session_del(c.ng);
    for (int i = 0; i < STREAMS * 2; i++) {
        str_fini(&c.streams[i].fields);
        str_fini(&c.streams[i].body);
    }
}

static ssize_t read_up(nghttp2_session *ng, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                       nghttp2_data_source *source, void *ctx)
{
    struct stream *s = at(id);
    size_t n = TR_MIN(room, s->up_n - s->up_off);

    if (!n && s->up_open)
        return NGHTTP2_ERR_DEFERRED;
    if (n)
        memcpy(to, s->up + s->up_off, n);
    s->up_off += n;
    if (s->up_off == s->up_n && !s->up_open)
        *flags |= NGHTTP2_DATA_FLAG_EOF | (s->trailed ? NGHTTP2_DATA_FLAG_NO_END_STREAM : 0);
    return (ssize_t)n;
}

#define NV(n, v)                                                                                   \
    {                                                                                              \
        (uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), 0                                    \
    }

/* `body` NULL: none. `n` its length; `open`: it goes on. */
static int32_t request(const char *method, const char *path, const char *body, size_t n, bool open)
{
    nghttp2_nv nv[] = {NV(":method", method), NV(":scheme", "http"), NV(":authority", "h"),
                       NV(":path", path), NV("x-field", "value")};
    nghttp2_data_provider up = {.read_callback = read_up};
    int32_t id = nghttp2_submit_request(c.ng, NULL, nv, ARRAY_LEN(nv), body ? &up : NULL, NULL);

    at(id)->up = body;
    at(id)->up_n = n;
    at(id)->up_open = open;
    return id;
}

static bool is_ended(void *ctx)
{
    pump();
    return ((struct stream *)ctx)->ended;
}

static bool is_closed(void *ctx)
{
    pump();
    return ((struct stream *)ctx)->closed;
}

static bool is_eof(void *ctx)
{
    pump();
    return raw.eof;
}

static bool seen_enough(void *ctx)
{
    pump();
    return r.n_seen >= *(size_t *)ctx;
}

static bool is_gone(void *ctx)
{
    pump();
    return r.seen[*(size_t *)ctx].gones;
}

static bool turns_over(void *ctx)
{
    pump();
    return --*(int *)ctx <= 0;
}

static void turns(int n)
{
    rig_until(&r, turns_over, &n);
}

static void until_seen(size_t n)
{
    rig_until(&r, seen_enough, &n);
}

static void until_gone(size_t i)
{
    rig_until(&r, is_gone, &i);
}

/* --- requests and answers --- */

static void get_and_put(void **state)
{
    int32_t a, b;

    open_all(NULL);
    a = request("GET", "/now", NULL, 0, false);
    b = request("PUT", "/end", "body", 4, false);
    rig_until(&r, is_ended, at(a));
    rig_until(&r, is_ended, at(b));
    assert_int_equal(at(a)->status, 200);
    assert_string_equal(str_c(&at(a)->body), "hello");
    assert_non_null(strstr(str_c(&at(a)->fields), "x-of: rig\n"));
    assert_non_null(strstr(str_c(&at(a)->fields), "content-length: 5\n"));
    assert_non_null(strstr(str_c(&at(a)->fields), "date: "));
    assert_int_equal(at(b)->status, 204);
    assert_null(strstr(str_c(&at(b)->fields), "content-length"));
    turns(3);
    assert_int_equal(r.n_seen, 2);
    assert_string_equal(str_c(&r.seen[1].body), "body");
    assert_int_equal(r.seen[1].ends, 1);
    assert_true(r.seen[0].complete && r.seen[1].complete);
    close_all();
}

static void head_has_no_body(void **state)
{
    int32_t a;

    open_all(NULL);
    a = request("HEAD", "/now", NULL, 0, false);
    rig_until(&r, is_closed, at(a));
    assert_int_equal(at(a)->code, 0);
    assert_non_null(strstr(str_c(&at(a)->fields), "content-length: 5\n"));
    assert_int_equal(at(a)->body.n, 0);
    close_all();
}

static void look(struct rig *rig, struct seen *s, const struct http_request *req)
{
    assert_true(view_is(req->authority, "h"));
    assert_true(view_is(http_field(req->fields, req->n_fields, "X-Field"), "value"));
    assert_null(http_field(req->fields, req->n_fields, ":path").p);
    assert_int_equal(req->version, 20);
    assert_true(req->has_body);
    assert_int_equal(req->content_length, -1);
}

static void request_is_kept(void **state)
{
    int32_t a;

    open_all(NULL);
    r.on_take = look;
    a = request("PUT", "/wait", "x", 1, false);
    until_seen(1);
    turns(3);
    look(&r, &r.seen[0], http_request_of(r.seen[0].ex));
    http_reply(r.seen[0].ex, 200, NULL, 0, VIEW_NONE);
    rig_until(&r, is_closed, at(a));
    close_all();
}

static void preface_one_by_one(void **state)
{
    struct str first = STR_INIT;
    const uint8_t *p;
    ssize_t n;
    int32_t a;

    open_all(NULL);
    a = request("GET", "/now", NULL, 0, false);
    while ((n = nghttp2_session_mem_send(c.ng, &p)) > 0)
        str_add(&first, p, (size_t)n);
    for (size_t i = 0; i < first.n; i++) {
        raw_send_n(&raw, first.p + i, 1);
        rig_turns(&r, 2);
    }
    rig_until(&r, is_ended, at(a));
    assert_string_equal(str_c(&at(a)->body), "hello");
    str_fini(&first);
    close_all();
}

static void many_at_once(void **state)
{
    open_all(NULL);
    for (int i = 0; i < STREAMS - 1; i++)
        request(i % 2 ? "PUT" : "GET", i % 2 ? "/end" : "/now", i % 2 ? "abc" : NULL, 3, false);
    for (int32_t id = 1; id < 2 * (STREAMS - 1); id += 2) {
        rig_until(&r, is_closed, at(id));
        assert_int_equal(at(id)->status, (id / 2) % 2 ? 204 : 200);
    }
    turns(3);
    for (size_t i = 0; i < r.n_seen; i++)
        assert_true(r.seen[i].gones == 1 && r.seen[i].complete);
    close_all();
}

static void large_answer_drains(void **state)
{
    int32_t a;

    open_all(NULL);
    a = request("GET", "/big?3000000", NULL, 0, false);
    rig_until(&r, is_ended, at(a));
    assert_int_equal(at(a)->body.n, 3000000);
    assert_true(r.seen[0].drains > 0);
    close_all();
}

static void echo_of_much(void **state)
{
    size_t total = 3000000;
    char *p = memset(xmalloc(total), 'e', total);
    int32_t a;

    open_all(NULL);
    a = request("POST", "/echo", p, total, false);
    rig_until(&r, is_ended, at(a));
    assert_int_equal(at(a)->body.n, total);
    assert_int_equal(memcmp(at(a)->body.p, p, total), 0);
    close_all();
    xfree(p);
}

/* --- flow --- */

static void body_waits_for_its_handler(void **state)
{
    size_t total = 2000000;
    char *p = memset(xmalloc(total), 'w', total);
    int32_t a, b;

    open_all(NULL);
    a = request("PUT", "/hold", p, total, false);
    until_seen(1);
    turns(50);
    assert_int_equal(r.seen[0].held, 256 * 1024);
    b = request("GET", "/now", NULL, 0, false); /* another stream is not held up */
    rig_until(&r, is_ended, at(b));
    while (r.seen[0].body.n < total) {
        size_t held = r.seen[0].held;

        r.seen[0].held = 0;
        http_consumed(r.seen[0].ex, held);
        turns(3);
    }
    turns(3);
    assert_int_equal(r.seen[0].ends, 1);
    http_reply(r.seen[0].ex, 204, NULL, 0, VIEW_NONE);
    rig_until(&r, is_ended, at(a));
    assert_int_equal(at(a)->status, 204);
    close_all();
    xfree(p);
}

static void what_a_handler_held_is_given_back(void **state)
{
    size_t total = 256 * 1024;
    char *p = memset(xmalloc(total), 'w', total);

    open_all(NULL);
    for (int i = 0; i < 12; i++) { /* three connection windows */
        int32_t a = request("PUT", "/hold", p, total, false);

        until_seen((size_t)i + 1);
        while (r.seen[i].body.n < total)
            turns(1);
        http_reply(r.seen[i].ex, 204, NULL, 0, VIEW_NONE);
        rig_until(&r, is_closed, at(a));
        assert_int_equal(at(a)->status, 204);
    }
    close_all();
    xfree(p);
}

static void early_answer_is_seen(void **state)
{
    size_t total = 200000;
    char *p = memset(xmalloc(total), 'w', total);
    int32_t a;

    open_all(NULL);
    a = request("PUT", "/early", p, total, false);
    rig_until(&r, is_closed, at(a));
    assert_int_equal(at(a)->code, 0); /* taken whole and dropped: no reset */
    assert_int_equal(at(a)->status, 413);
    assert_string_equal(str_c(&at(a)->body), "too large");
    until_gone(0);
    assert_true(r.seen[0].complete);
    close_all();
    xfree(p);
}

static void early_answer_does_not_read_for_ever(void **state)
{
    size_t total = 8000000;
    char *p = memset(xmalloc(total), 'w', total);
    int32_t a, b;

    open_all(NULL);
    a = request("PUT", "/early", p, total, false);
    rig_until(&r, is_closed, at(a));
    assert_int_equal(at(a)->code, NGHTTP2_NO_ERROR);
    assert_true(at(a)->ended);
    assert_true(at(a)->up_off < 2000000);
    b = request("GET", "/now", NULL, 0, false);
    rig_until(&r, is_ended, at(b));
    close_all();
    xfree(p);
}

/* --- ends --- */

static void client_resets(void **state)
{
    open_all(NULL);
    request("PUT", "/wait", "abc", 3, true);
    request("GET", "/big?90000000", NULL, 0, false);
    until_seen(2);
    turns(3);
    nghttp2_submit_rst_stream(c.ng, 0, 1, NGHTTP2_CANCEL);
    nghttp2_submit_rst_stream(c.ng, 0, 3, NGHTTP2_CANCEL);
    until_gone(0);
    until_gone(1);
    assert_false(r.seen[0].complete);
    assert_false(r.seen[1].complete);
    assert_int_equal(http_server_connections(r.server), 1);
    close_all();
}

static void client_leaves(void **state)
{
    open_all(NULL);
    request("PUT", "/wait", "abc", 3, true);
    request("GET", "/wait", NULL, 0, false);
    request("GET", "/big?90000000", NULL, 0, false);
    until_seen(3);
    turns(2);
    raw_close(&r, &raw);
    while (http_server_connections(r.server))
        rig_turns(&r, 1);
    for (int i = 0; i < 3; i++)
        assert_true(r.seen[i].gones == 1 && !r.seen[i].complete);
    close_all();
}

static void abort_is_a_reset(void **state)
{
    int32_t a;

    open_all(NULL);
    a = request("GET", "/wait", NULL, 0, false);
    until_seen(1);
    http_abort(r.seen[0].ex);
    http_reply(r.seen[0].ex, 200, NULL, 0, VIEW_NONE); /* harmless */
    assert_int_equal(r.seen[0].gones, 0);
    rig_until(&r, is_closed, at(a));
    assert_int_equal(at(a)->code, NGHTTP2_INTERNAL_ERROR);
    until_gone(0);
    assert_false(r.seen[0].complete);
    close_all();
}

static void cut_answer_is_a_reset(void **state)
{
    int32_t a;

    open_all(NULL);
    a = request("GET", "/wait", NULL, 0, false);
    until_seen(1);
    http_reply_start(r.seen[0].ex, 200, NULL, 0, 10);
    http_write(r.seen[0].ex, VIEW_LIT("short"));
    http_finish(r.seen[0].ex);
    rig_until(&r, is_closed, at(a));
    assert_int_equal(at(a)->code, NGHTTP2_INTERNAL_ERROR);
    assert_false(at(a)->ended);
    close_all();
}

static void drain_says_goaway(void **state)
{
    int32_t a;

    open_all(NULL);
    a = request("GET", "/wait", NULL, 0, false);
    until_seen(1);
    http_server_drain(r.server);
    turns(5);
    assert_true(c.goaway);
    assert_false(raw.eof);
    http_reply(r.seen[0].ex, 200, NULL, 0, VIEW_LIT("last"));
    rig_until(&r, is_eof, NULL);
    assert_string_equal(str_c(&at(a)->body), "last");
    until_gone(0);
    assert_true(r.seen[0].complete);
    raw_close(&r, &raw);
    while (http_server_connections(r.server))
        rig_turns(&r, 1);
    close_all();
}

static void nonsense_is_answered_with_goaway(void **state)
{
    open_all(NULL);
    request("GET", "/wait", NULL, 0, false);
    until_seen(1);
    raw_send_n(&raw, "\0\0\1\0\0\0\0\0\0x", 10); /* DATA on stream 0 */
    rig_until(&r, is_eof, NULL);
    assert_true(c.goaway);
    assert_int_equal(r.seen[0].gones, 1);
    close_all();
}

/* --- time --- */

static const struct http_server_opts hasty = {
    .head_timeout_ms = 60, .idle_timeout_ms = 60, .body_timeout_ms = 60, .write_timeout_ms = 60};

static void idle_connection_is_closed(void **state)
{
    int32_t a;

    open_all(&hasty);
    a = request("GET", "/now", NULL, 0, false);
    rig_until(&r, is_eof, NULL);
    assert_true(at(a)->ended);
    assert_true(c.goaway);
    close_all();
}

static void slow_body_is_answered(void **state)
{
    int32_t a;

    open_all(&hasty);
    a = request("PUT", "/wait", "abc", 3, true);
    rig_until(&r, is_ended, at(a));
    assert_int_equal(at(a)->status, 408);
    assert_non_null(strstr(str_c(&at(a)->body), "{\"error_msg\":\""));
    assert_int_equal(r.seen[0].gones, 1);
    assert_false(r.seen[0].complete);
    close_all();
}

static int32_t trickling;
static int trickles;

static bool trickled(void *ctx)
{
    if (++trickles % 40 == 0) {
        at(trickling)->up_n++;
        nghttp2_session_resume_data(c.ng, trickling);
    }
    return is_ended(ctx) || trickles > 2000;
}

/* A byte comes before each timeout, but the waits add up. */
static void body_that_trickles_is_slow(void **state)
{
    char bytes[100];

    memset(bytes, 'x', sizeof bytes);
    trickles = 0;
    open_all(&hasty);
    trickling = request("PUT", "/end", bytes, 1, true);
    rig_until(&r, trickled, at(trickling));
    assert_true(trickles <= 2000);
    assert_int_equal(at(trickling)->status, 408);
    close_all();
}

static void stream_without_a_window_is_not_slow(void **state)
{
    size_t total = 256 * 1024;
    char *p = memset(xmalloc(total), 'w', total);
    int32_t last = 0;

    open_all(&hasty);
    for (int i = 0; i < 4; i++) { /* their handlers hold the connection's whole window */
        request("PUT", "/hold", p, total, false);
        until_seen((size_t)i + 1);
        while (r.seen[i].held < total)
            turns(1);
    }
    last = request("PUT", "/end", p, total, false);
    turns(200);
    assert_int_equal(r.n_seen, 5);
    assert_int_equal(r.seen[4].body.n, 0);
    assert_int_equal(r.seen[4].gones, 0);
    for (int i = 0; i < 4; i++)
        http_reply(r.seen[i].ex, 204, NULL, 0, VIEW_NONE);
    rig_until(&r, is_ended, at(last));
    assert_int_equal(at(last)->status, 204);
    close_all();
    xfree(p);
}

static void stalled_stream_is_cut_off(void **state)
{
    int32_t a;

    open_all(&hasty);
    c.slow = true;
    a = request("GET", "/big?9000000", NULL, 0, false);
    rig_until(&r, is_closed, at(a));
    assert_int_equal(at(a)->code, NGHTTP2_CANCEL);
    until_gone(0);
    assert_false(r.seen[0].complete);
    close_all();
}

/* So many bytes of window every 30 turns: before each timeout. */
static size_t opened_each_time;

static bool opens_a_little(void *ctx)
{
    struct stream *s = ctx;

    if (++trickles % 30 == 0 && !s->closed) {
        nghttp2_submit_window_update(c.ng, 0, trickling, (int32_t)opened_each_time);
        nghttp2_submit_window_update(c.ng, 0, 0, (int32_t)opened_each_time);
    }
    return is_closed(ctx) || trickles > 2000 || s->body.n > 1000000;
}

static void open_windows_by(size_t n)
{
    trickles = 0;
    opened_each_time = n;
    open_all(&hasty);
    c.slow = true;
    trickling = request("GET", "/big?9000000", NULL, 0, false);
    rig_until(&r, opens_a_little, at(trickling));
}

static void stream_that_trickles_is_cut_off(void **state)
{
    open_windows_by(50);
    assert_true(at(trickling)->closed);
    assert_int_equal(at(trickling)->code, NGHTTP2_CANCEL);
    until_gone(0);
    assert_false(r.seen[0].complete);
    close_all();
}

static void stream_that_is_slow_is_served(void **state)
{
    open_windows_by(40000);
    assert_false(at(trickling)->closed);
    assert_true(at(trickling)->body.n > 1000000);
    assert_int_equal(r.seen[0].gones, 0);
    close_all();
}

/* --- tunnels --- */

static void look_at_upgrade(struct rig *rig, struct seen *s, const struct http_request *req)
{
    assert_true(req->upgrade);
    assert_true(view_is(req->method, "GET"));
    assert_true(view_is(http_field(req->fields, req->n_fields, "Upgrade"), "websocket"));
    assert_int_equal(http_field(req->fields, req->n_fields, "Sec-WebSocket-Key").n, 24);
}

static void extended_connect_is_an_upgrade(void **state)
{
    nghttp2_nv nv[] = {NV(":method", "CONNECT"), NV(":protocol", "websocket"),
                       NV(":scheme", "http"),    NV(":authority", "h"),
                       NV(":path", "/wait?ws"),  NV("sec-websocket-version", "13")};
    static const struct h1_field fields[] = {{{"Upgrade", 7}, {"websocket", 9}},
                                             {{"Sec-WebSocket-Accept", 20}, {"x", 1}},
                                             {{"Sec-WebSocket-Protocol", 22}, {"p", 1}}};
    nghttp2_data_provider up = {.read_callback = read_up};
    int32_t a;

    open_all(NULL);
    r.on_take = look_at_upgrade;
    turns(5); /* the server's settings allow it */
    a = nghttp2_submit_request(c.ng, NULL, nv, ARRAY_LEN(nv), &up, NULL);
    at(a)->up = "early late";
    at(a)->up_n = 5;
    at(a)->up_open = true;
    until_seen(1);
    turns(5);
    assert_int_equal(r.seen[0].body.n, 0);
    assert_int_equal(r.seen[0].ends, 1);
    r.seen[0].echo = true;
    http_switch(r.seen[0].ex, 101, fields, 3);
    assert_int_equal(r.seen[0].body.n, 0); /* not from within the call */
    while (at(a)->body.n < 5)
        turns(1);
    assert_int_equal(at(a)->status, 200);
    assert_null(strstr(str_c(&at(a)->fields), "upgrade"));
    assert_null(strstr(str_c(&at(a)->fields), "sec-websocket-accept"));
    assert_non_null(strstr(str_c(&at(a)->fields), "sec-websocket-protocol: p\n"));
    at(a)->up_n = 10;
    at(a)->up_open = false;
    nghttp2_session_resume_data(c.ng, a);
    rig_until(&r, is_closed, at(a));
    assert_int_equal(at(a)->code, 0);
    assert_string_equal(str_c(&at(a)->body), "early late");
    until_gone(0);
    assert_int_equal(r.seen[0].ends, 2);
    assert_true(r.seen[0].complete);
    close_all();
}

static void connect_is_a_tunnel(void **state)
{
    nghttp2_nv nv[] = {NV(":method", "CONNECT"), NV(":authority", "far:443")};
    nghttp2_data_provider up = {.read_callback = read_up};
    int32_t a;

    open_all(NULL);
    a = nghttp2_submit_request(c.ng, NULL, nv, ARRAY_LEN(nv), &up, NULL);
    at(a)->up = "bytes";
    at(a)->up_n = 5;
    rig_until(&r, is_closed, at(a));
    assert_int_equal(at(a)->status, 200);
    assert_string_equal(r.seen[0].target, "far:443");
    assert_string_equal(str_c(&at(a)->body), "bytes");
    close_all();
}

/* --- remote calls --- */

static const struct h1_field status_field = {VIEW_LIT("grpc-status"), VIEW_LIT("0")};

static void open_rpc(void)
{
    struct http_server_opts o = hasty;

    o.rpc = true;
    open_all(&o);
}

static void trailers_of_an_answer(void **state)
{
    int32_t id;

    open_rpc();
    id = request("POST", "/wait", NULL, 0, false);
    until_seen(1);
    http_reply_start(r.seen[0].ex, 200, NULL, 0, -1);
    http_write(r.seen[0].ex, VIEW_LIT("hello"));
    http_finish_trailers(r.seen[0].ex, &status_field, 1);
    until_gone(0);
    rig_until(&r, is_closed, at(id));
    assert_true(r.seen[0].complete);
    assert_string_equal(str_c(&at(id)->fields), ":status: 200\ngrpc-status: 0\n");
    assert_string_equal(str_c(&at(id)->body), "hello");
    close_all();
}

static void answer_that_is_a_head(void **state)
{
    int32_t id;

    open_rpc();
    id = request("POST", "/wait", NULL, 0, false);
    until_seen(1);
    http_reply_head(r.seen[0].ex, 200, &status_field, 1);
    rig_until(&r, is_closed, at(id));
    assert_string_equal(str_c(&at(id)->fields), ":status: 200\ngrpc-status: 0\n");
    assert_string_equal(str_c(&at(id)->body), "");
    close_all();
}

static void codes_of_resets_pass(void **state)
{
    int32_t a, b;

    open_rpc();
    a = request("POST", "/wait", "x", 1, true);
    b = request("POST", "/wait", "x", 1, true);
    until_seen(2);
    http_reset(r.seen[0].ex, 9);
    rig_until(&r, is_closed, at(a));
    assert_int_equal(at(a)->code, 9);
    nghttp2_submit_rst_stream(c.ng, 0, b, 11);
    until_gone(1);
    assert_int_equal(r.seen[1].code, 11);
    close_all();
}

static bool is_late(void *ctx)
{
    pump();
    return clock_mono_ns() > *(int64_t *)ctx;
}

static void a_call_may_stand_still(void **state)
{
    int64_t then;
    int32_t up, down;

    open_rpc();
    c.slow = true;
    up = request("POST", "/wait", "x", 1, true);
    down = request("GET", "/big?9000000", NULL, 0, false);
    until_seen(2);
    turns(5);
    then = clock_mono_ns() + 200 * NS_PER_MS; /* longer than what others may take */
    rig_until(&r, is_late, &then);
    assert_false(at(up)->closed || at(down)->closed);
    assert_int_equal(r.seen[0].gones + r.seen[1].gones, 0);
    close_all();
}

static void trailers_of_a_request(void **state)
{
    nghttp2_nv last[] = {NV("x-sum", "9"), NV("x-two", "b")};
    int32_t id;

    open_rpc();
    id = request("POST", "/end", "body", 4, true);
    until_seen(1);
    turns(5);
    assert_int_equal(r.seen[0].ends, 0);
    at(id)->trailed = true;
    at(id)->up_open = false;
    nghttp2_session_resume_data(c.ng, id);
    turns(1);
    nghttp2_submit_trailer(c.ng, id, last, ARRAY_LEN(last));
    until_gone(0);
    assert_string_equal(str_c(&r.seen[0].body), "body");
    assert_string_equal(r.seen[0].trailers, "x-sum: 9\nx-two: b\n");
    assert_int_equal(r.seen[0].ends, 1);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(get_and_put),
        cmocka_unit_test(head_has_no_body),
        cmocka_unit_test(request_is_kept),
        cmocka_unit_test(preface_one_by_one),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(large_answer_drains),
        cmocka_unit_test(echo_of_much),
        cmocka_unit_test(body_waits_for_its_handler),
        cmocka_unit_test(what_a_handler_held_is_given_back),
        cmocka_unit_test(early_answer_is_seen),
        cmocka_unit_test(early_answer_does_not_read_for_ever),
        cmocka_unit_test(client_resets),
        cmocka_unit_test(client_leaves),
        cmocka_unit_test(abort_is_a_reset),
        cmocka_unit_test(cut_answer_is_a_reset),
        cmocka_unit_test(drain_says_goaway),
        cmocka_unit_test(nonsense_is_answered_with_goaway),
        cmocka_unit_test(idle_connection_is_closed),
        cmocka_unit_test(slow_body_is_answered),
        cmocka_unit_test(body_that_trickles_is_slow),
        cmocka_unit_test(stream_without_a_window_is_not_slow),
        cmocka_unit_test(stalled_stream_is_cut_off),
        cmocka_unit_test(stream_that_trickles_is_cut_off),
        cmocka_unit_test(stream_that_is_slow_is_served),
        cmocka_unit_test(extended_connect_is_an_upgrade),
        cmocka_unit_test(connect_is_a_tunnel),
        cmocka_unit_test(trailers_of_an_answer),
        cmocka_unit_test(answer_that_is_a_head),
        cmocka_unit_test(codes_of_resets_pass),
        cmocka_unit_test(a_call_may_stand_still),
        cmocka_unit_test(trailers_of_a_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
