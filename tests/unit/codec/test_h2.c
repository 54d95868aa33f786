#include "codec/h2.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include <nghttp2/nghttp2.h>
#include "base/bug.h"
#include "base/xmem.h"

/*
 * A client made of raw frames, so that it can misbehave; what the session sends is written down
 * frame by frame, what it tells its handler in another log.
 */
enum {
    T_DATA,
    T_HEADERS,
    T_PRIORITY,
    T_RST,
    T_SETTINGS,
    T_PUSH,
    T_PING,
    T_GOAWAY,
    T_UPDATE,
    T_CONT
};
enum { F_END_STREAM = 1, F_ACK = 1, F_END_HEADERS = 4, F_PADDED = 8 };

#define SECOND INT64_C(1000000000)

struct world {
    struct h2_session *s;
    struct str log;   /* of callbacks */
    struct str wire;  /* of frames that the session sent, as text */
    struct str frame; /* cut frame of the session */
    nghttp2_hd_inflater *inflater;
    int64_t now;
    size_t data_sent;                  /* bytes in DATA frames of the session */
    size_t conn_credit, stream_credit; /* of WINDOW_UPDATE frames of the session */
    size_t body;                       /* bytes given to on_body */
    int drains;
    bool consume; /* at once */
    bool answer;  /* at the end of the request */
};

/* ---- handler ---- */

static void on_request(void *ctx, int32_t id, const struct h2_head *h)
{
    struct world *w = ctx;
    size_t i;

    str_addf(&w->log, "%d %.*s %.*s %.*s%.*s", id, (int)h->method.n, h->method.p, (int)h->scheme.n,
             h->scheme.p, (int)h->authority.n, h->authority.p, (int)h->path.n, h->path.p);
    if (h->protocol.n)
        str_addf(&w->log, " protocol=%.*s", (int)h->protocol.n, h->protocol.p);
    for (i = 0; i < h->n_fields; i++)
        str_addf(&w->log, "|%.*s=%.*s", (int)h->fields[i].name.n, h->fields[i].name.p,
                 (int)h->fields[i].value.n, h->fields[i].value.p);
    if (h->content_length >= 0)
        str_addf(&w->log, " length=%lld", (long long)h->content_length);
    str_adds(&w->log, h->end_stream ? " end\n" : "\n");
}

static void on_body(void *ctx, int32_t id, struct view piece)
{
    struct world *w = ctx;

    w->body += piece.n;
    if (piece.n < 100)
        str_addf(&w->log, "%d body %.*s\n", id, (int)piece.n, piece.p);
    if (w->consume)
        h2_consumed(w->s, id, piece.n);
}

static void on_end(void *ctx, int32_t id)
{
    struct world *w = ctx;

    str_addf(&w->log, "%d end\n", id);
    if (w->answer)
        h2_respond(w->s, id, 204, NULL, 0, true);
    assert_int_equal(h2_pull(w->s).n, 0); /* from a callback there is nothing */
}

static void on_closed(void *ctx, int32_t id, uint32_t code)
{
    struct world *w = ctx;

    str_addf(&w->log, "%d closed %u\n", id, code);
    h2_respond(w->s, id, 200, NULL, 0, true); /* too late: ignored */
    h2_consumed(w->s, id, 1);
    assert_int_equal(h2_write(w->s, id, VIEW_LIT("x"), true), 0);
}

static void on_drain(void *ctx, int32_t id)
{
    struct world *w = ctx;

    w->drains++;
}

static const struct h2_ops ops = {.on_request = on_request,
                                   .on_body = on_body,
                                   .on_end = on_end,
                                   .on_closed = on_closed,
                                   .on_drain = on_drain};

/* ---- frames ---- */

static void add_frame(struct str *to, int type, int flags, uint32_t id, struct view payload)
{
    const unsigned char head[9] = {(unsigned char)(payload.n >> 16),
                                   (unsigned char)(payload.n >> 8),
                                   (unsigned char)payload.n,
                                   (unsigned char)type,
                                   (unsigned char)flags,
                                   (unsigned char)(id >> 24),
                                   (unsigned char)(id >> 16),
                                   (unsigned char)(id >> 8),
                                   (unsigned char)id};

    str_add(to, head, sizeof(head));
    str_addv(to, payload);
}

static void add_u32(struct str *to, uint32_t v)
{
    const unsigned char b[4] = {(unsigned char)(v >> 24), (unsigned char)(v >> 16),
                                (unsigned char)(v >> 8), (unsigned char)v};

    str_add(to, b, 4);
}

static void add_integer(struct str *to, size_t n)
{
    if (n < 127) {
        str_addc(to, (char)n);
        return;
    }
    str_addc(to, 127);
    for (n -= 127; n >= 128; n >>= 7)
        str_addc(to, (char)(0x80 | (n & 127)));
    str_addc(to, (char)n);
}

/* RFC 7541 §6.2.2: literal, not indexed, not packed. `fields`: "name=value|name=value". */
static void add_fields(struct str *to, const char *fields)
{
    while (*fields) {
        size_t n = strcspn(fields, "="), v = strcspn(fields + n, "|");

        str_addc(to, 0);
        add_integer(to, n);
        str_add(to, fields, n);
        add_integer(to, v - 1);
        str_add(to, fields + n + 1, v - 1);
        fields += n + v + (fields[n + v] == '|');
    }
}

static void add_headers(struct str *to, int flags, uint32_t id, const char *fields)
{
    struct str block = STR_INIT;

    add_fields(&block, fields);
    add_frame(to, T_HEADERS, flags, id, str_view(&block));
    str_fini(&block);
}

#define GET_ ":method=GET|:scheme=https|:authority=h|:path=/"
#define PUT_ ":method=PUT|:scheme=https|:authority=h|:path=/s"

static void add_get(struct str *to, uint32_t id)
{
    add_headers(to, F_END_STREAM | F_END_HEADERS, id, GET_);
}

static void add_put(struct str *to, uint32_t id)
{
    add_headers(to, F_END_HEADERS, id, PUT_);
}

static void add_preface(struct str *to)
{
    str_adds(to, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    add_frame(to, T_SETTINGS, 0, 0, VIEW_NONE);
    add_frame(to, T_SETTINGS, F_ACK, 0, VIEW_NONE);
}

/* ---- what the session sends ---- */

static uint32_t get_u32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;

    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

static void note_headers(struct world *w, uint32_t id, int flags, struct view block)
{
    const uint8_t *p = (const uint8_t *)block.p;
    size_t left = block.n;
    int fl = 0;

    assert_true(flags & F_END_HEADERS);
    str_addf(&w->wire, "%u headers", id);
    while (!(fl & NGHTTP2_HD_INFLATE_FINAL)) {
        nghttp2_nv nv;
        ssize_t n = nghttp2_hd_inflate_hd2(w->inflater, &nv, &fl, p, left, 1);

        assert_true(n >= 0);
        p += n;
        left -= (size_t)n;
        if (fl & NGHTTP2_HD_INFLATE_EMIT)
            str_addf(&w->wire, " %.*s=%.*s", (int)nv.namelen, (const char *)nv.name,
                     (int)nv.valuelen, (const char *)nv.value);
    }
    nghttp2_hd_inflate_end_headers(w->inflater);
    str_adds(&w->wire, flags & F_END_STREAM ? " end\n" : "\n");
}

static void note_frame(struct world *w, struct view frame)
{
    struct view payload = view_from(frame, 9);
    uint32_t id = get_u32(frame.p + 5);
    int type = frame.p[3], flags = frame.p[4];

    switch (type) {
    case T_DATA:
        w->data_sent += payload.n;
        str_addf(&w->wire, "%u data %.*s%s\n", id, payload.n < 100 ? (int)payload.n : 0, payload.p,
                 flags & F_END_STREAM ? " end" : "");
        break;
    case T_HEADERS:
        note_headers(w, id, flags, payload);
        break;
    case T_RST:
        str_addf(&w->wire, "%u reset %u\n", id, get_u32(payload.p));
        break;
    case T_GOAWAY:
        str_addf(&w->wire, "goaway %u %u\n", get_u32(payload.p), get_u32(payload.p + 4));
        break;
    case T_UPDATE:
        *(id ? &w->stream_credit : &w->conn_credit) += get_u32(payload.p);
        break;
    default:
        break;
    }
}

/* Pull everything in pieces of at most `step`. */
static void pull(struct world *w, size_t step)
{
    for (;;) {
        struct view v = h2_pull(w->s);
        size_t n = TR_MIN(v.n, step);

        if (n == 0)
            break;
        str_add(&w->frame, v.p, n);
        h2_sent(w->s, n);
    }
    while (w->frame.n >= 9) {
        struct view all = str_view(&w->frame);
        size_t n = 9 + (get_u32(all.p) >> 8);
        struct str rest = STR_INIT;

        if (all.n < n)
            break;
        note_frame(w, view_of(all.p, n));
        str_addv(&rest, view_from(all, n));
        str_fini(&w->frame);
        w->frame = rest;
    }
}

static int feed(struct world *w, struct str *in, struct err *e)
{
    char *copy = xmalloc(in->n + 1);
    int r;

    memcpy(copy, str_c(in), in->n);
    r = h2_feed(w->s, view_of(copy, in->n), w->now, e);
    xfree(copy);
    str_clear(in);
    return r;
}

static void begin(struct world *w)
{
    struct str in = STR_INIT;

    *w = (struct world){.s = NULL};
    w->s = h2_server_new(&ops, w);
    assert_int_equal(nghttp2_hd_inflate_new(&w->inflater), 0);
    add_preface(&in);
    assert_int_equal(feed(w, &in, NULL), 0);
    pull(w, SIZE_MAX);
    str_clear(&w->wire);
    str_fini(&in);
}

static void finish(struct world *w)
{
    h2_free(&w->s);
    assert_null(w->s);
    nghttp2_hd_inflate_del(w->inflater);
    str_fini(&w->log);
    str_fini(&w->wire);
    str_fini(&w->frame);
}

static void check(struct world *w, const char *log, const char *wire)
{
    pull(w, SIZE_MAX);
    if (log && strcmp(str_c(&w->log), log) != 0)
        fail_msg("log:\n%s--- wanted:\n%s", str_c(&w->log), log);
    if (wire && strcmp(str_c(&w->wire), wire) != 0)
        fail_msg("wire:\n%s--- wanted:\n%s", str_c(&w->wire), wire);
    str_clear(&w->log);
    str_clear(&w->wire);
}

/* ---- tests ---- */

static void test_settings(void **state)
{
    static const struct view wanted[] = {
        VIEW_LIT("\0\x03\0\0\x01\0"), /* MAX_CONCURRENT_STREAMS 256 */
        VIEW_LIT("\0\x04\0\x04\0\0"), /* INITIAL_WINDOW_SIZE 256 KiB */
        VIEW_LIT("\0\x06\0\x01\0\0"), /* MAX_HEADER_LIST_SIZE 64 KiB */
        VIEW_LIT("\0\x08\0\0\0\x01"), /* ENABLE_CONNECT_PROTOCOL */
    };
    struct world w = {.s = NULL};
    struct view v;
    size_t i;

    w.s = h2_server_new(&ops, &w);
    v = h2_pull(w.s);
    assert_true(v.n > 9 && v.p[3] == T_SETTINGS);
    for (i = 0; i < ARRAY_LEN(wanted); i++)
        assert_non_null(memmem(v.p + 9, v.n - 9, wanted[i].p, wanted[i].n));
    assert_true(h2_idle(w.s));
    assert_false(h2_done(w.s));
    h2_free(&w.s);
}

static void test_request_and_answer(void **state)
{
    static const struct h1_field fields[] = {
        {VIEW_LIT("Content-Type"), VIEW_LIT("application/json")},
        {VIEW_LIT("Connection"), VIEW_LIT("close")},
        {VIEW_LIT("Keep-Alive"), VIEW_LIT("x")},
        {VIEW_LIT("Transfer-Encoding"), VIEW_LIT("chunked")},
        {VIEW_LIT("Upgrade"), VIEW_LIT("y")},
        {VIEW_LIT("X-Empty"), VIEW_LIT("")},
    };
    struct world w;
    struct str in = STR_INIT;

    begin(&w);
    add_headers(&in, F_END_HEADERS, 1,
                PUT_ "|content-length=5|x-harness-token=t|accept-encoding=gzip");
    add_frame(&in, T_DATA, 0, 1, VIEW_LIT("he"));
    add_frame(&in, T_DATA, F_END_STREAM, 1, VIEW_LIT("llo"));
    assert_int_equal(feed(&w, &in, NULL), 0);
    assert_false(h2_idle(w.s));
    check(&w,
          "1 PUT https h/s|content-length=5|x-harness-token=t|accept-encoding=gzip length=5\n"
          "1 body he\n1 body llo\n1 end\n",
          "");
    h2_respond(w.s, 1, 200, fields, ARRAY_LEN(fields), false);
    assert_int_equal(h2_write(w.s, 1, VIEW_LIT("[1"), false), 2);
    check(&w, "", "1 headers :status=200 content-type=application/json x-empty=\n1 data [1\n");
    assert_int_equal(h2_write(w.s, 1, VIEW_NONE, false), 0);
    assert_int_equal(h2_write(w.s, 1, VIEW_LIT(",2]"), true), 3);
    check(&w, "1 closed 0\n", "1 data ,2] end\n");
    assert_true(h2_idle(w.s));

    add_get(&in, 3);
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, "3 GET https h/ end\n3 end\n", "");
    h2_respond(w.s, 3, 103, fields, 1, false);
    h2_respond(w.s, 3, 204, NULL, 0, true);
    check(&w, "3 closed 0\n",
          "3 headers :status=103 content-type=application/json\n3 headers :status=204 end\n");
    str_fini(&in);
    finish(&w);
}

static void test_trailers(void **state)
{
    static const struct h1_field trailer = {VIEW_LIT("Grpc-Status"), VIEW_LIT("0")};
    struct world w;
    struct str in = STR_INIT;
    int late;

    for (late = 0; late < 2; late++) {
        begin(&w);
        add_put(&in, 1);
        add_frame(&in, T_DATA, 0, 1, VIEW_LIT("x"));
        add_headers(&in, F_END_STREAM | F_END_HEADERS, 1, "x-sum=1"); /* dropped */
        assert_int_equal(feed(&w, &in, NULL), 0);
        check(&w, "1 PUT https h/s\n1 body x\n1 end\n", "");
        h2_respond(w.s, 1, 200, NULL, 0, false);
        h2_write(w.s, 1, VIEW_LIT("y"), false);
        if (late)
            pull(&w, SIZE_MAX);
        h2_trailers(w.s, 1, &trailer, 1);
        check(&w, "1 closed 0\n", "1 headers :status=200\n1 data y\n1 headers grpc-status=0 end\n");
        finish(&w);
    }
    str_fini(&in);
}

/* The rest of a request is not wanted, but the answer is: it goes out whole before the reset. */
static void test_reset_after_answer(void **state)
{
    struct world w;
    struct str in = STR_INIT;

    begin(&w);
    add_put(&in, 1);
    assert_int_equal(feed(&w, &in, NULL), 0);
    h2_respond(w.s, 1, 413, NULL, 0, false);
    h2_write(w.s, 1, VIEW_LIT("too much"), true);
    h2_reset(w.s, 1, 0);
    add_frame(&in, T_DATA, 0, 1, VIEW_LIT("more"));
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, "1 PUT https h/s\n1 closed 0\n",
          "1 headers :status=413\n1 data too much end\n1 reset 0\n");

    /* An answer that is not whole is cut. */
    add_put(&in, 3);
    assert_int_equal(feed(&w, &in, NULL), 0);
    h2_respond(w.s, 3, 200, NULL, 0, false);
    h2_write(w.s, 3, VIEW_LIT("half"), false);
    pull(&w, SIZE_MAX);
    h2_write(w.s, 3, VIEW_LIT("lost"), false);
    h2_reset(w.s, 3, 2);
    assert_int_equal(h2_write(w.s, 3, VIEW_LIT("x"), true), 0);
    check(&w, "3 PUT https h/s\n3 closed 2\n", "3 headers :status=200\n3 data half\n3 reset 2\n");
    str_fini(&in);
    finish(&w);
}

static void test_extended_connect(void **state)
{
    struct world w;
    struct str in = STR_INIT;

    begin(&w);
    add_headers(&in, F_END_HEADERS, 1,
                ":method=CONNECT|:protocol=websocket|:scheme=https|:path=/ws|:authority=h");
    add_headers(&in, F_END_HEADERS, 3, ":method=CONNECT|:authority=h:443");
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, "1 CONNECT https h/ws protocol=websocket\n3 CONNECT  h:443\n", "");
    str_fini(&in);
    finish(&w);
}

/* Heads that would mean something else in HTTP/1.1, or nothing at all: the stream is reset. */
static void test_bad_heads(void **state)
{
    static const char *const rows[] = {
        ":method=GET|:scheme=https|:path=/",
        ":method=GET|:scheme=https|:authority=h",
        ":method=GET|:authority=h|:path=/",
        ":scheme=https|:authority=h|:path=/",
        ":method=GET|:scheme=https|:authority=h|:path=",
        ":method=GET|:scheme=https|:authority=h|:path=/a b",
        ":method=GET|:scheme=https|:authority=h|:path=/a#b",
        ":method=GET|:scheme=https|:authority=h|:path=/a\r\nx: y",
        ":method=G T|:scheme=https|:authority=h|:path=/",
        ":method=GET|:scheme=https|:authority=u@h|:path=/",
        ":method=GET|:scheme=https|:authority=a,b|:path=/",
        GET_ "|:path=/2",
        GET_ "|a=b|:x=y",
        GET_ "|:unknown=y",
        GET_ "|host=other",
        GET_ "|host=h|host=h",
        GET_ "|Upper=x",
        GET_ "|a b=x",
        GET_ "|a=x\ny",
        GET_ "|a=x\x01",
        GET_ "|=x",
        GET_ "|connection=close",
        GET_ "|transfer-encoding=chunked",
        GET_ "|upgrade=h2c",
        GET_ "|te=gzip",
        GET_ "|content-length=1|content-length=1",
        GET_ "|content-length=-1",
        GET_ "|content-length=x",
        GET_ "|content-length=5",
        ":method=CONNECT|:authority=h:1|:path=/|:scheme=https",
        ":method=GET|:protocol=websocket|:scheme=https|:path=/ws|:authority=h",
    };
    struct world w;
    struct str in = STR_INIT, want = STR_INIT;
    size_t i;

    begin(&w);
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        uint32_t id = (uint32_t)(1 + 2 * i);

        add_headers(&in, F_END_STREAM | F_END_HEADERS, id, rows[i]);
        if (feed(&w, &in, NULL) != 0)
            fail_msg("%s: the connection was broken off", rows[i]);
        pull(&w, SIZE_MAX);
        str_clear(&want);
        str_addf(&want, "%u reset 1\n", id);
        if (strcmp(str_c(&w.wire), str_c(&want)) != 0 || w.log.n)
            fail_msg("%s: %s%s", rows[i], str_c(&w.wire), str_c(&w.log));
        str_clear(&w.wire);
    }
    assert_true(h2_idle(w.s));
    str_fini(&in);
    str_fini(&want);
    finish(&w);
}

static void test_good_heads(void **state)
{
    static const struct {
        const char *fields, *log;
    } rows[] = {
        {GET_ "|host=H", "1 GET https h/ end\n1 end\n"},
        {":method=GET|:scheme=http|:path=/|host=x:1", "1 GET http x:1/ end\n1 end\n"},
        {":method=GET|:scheme=https|:authority=h|:path=/\xc3\xa4?k=a:b/c",
         "1 GET https h/\xc3\xa4?k=a:b/c end\n1 end\n"},
        {GET_ "|te=trailers|a=", "1 GET https h/|te=trailers|a= end\n1 end\n"},
    };
    struct str in = STR_INIT;
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct world w;

        begin(&w);
        add_headers(&in, F_END_STREAM | F_END_HEADERS, 1, rows[i].fields);
        assert_int_equal(feed(&w, &in, NULL), 0);
        check(&w, rows[i].log, "");
        finish(&w);
    }
    str_fini(&in);
}

/* A body that is not as long as it says is reset, and the handler hears of it. */
static void test_wrong_length(void **state)
{
    struct world w;
    struct str in = STR_INIT;

    begin(&w);
    add_headers(&in, F_END_HEADERS, 1, PUT_ "|content-length=3");
    add_frame(&in, T_DATA, F_END_STREAM, 1, VIEW_LIT("ab"));
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, "1 PUT https h/s|content-length=3 length=3\n1 body ab\n1 closed 1\n", "1 reset 1\n");
    str_fini(&in);
    finish(&w);
}

static void add_times(struct str *s, char c, size_t n)
{
    while (n--)
        str_addc(s, c);
}

static void add_big_head(struct str *in, uint32_t id, int flags, size_t fields, size_t value)
{
    struct str text = STR_INIT;

    str_adds(&text, GET_);
    for (size_t i = 0; i < fields; i++) {
        str_addf(&text, "|f%zu=", i);
        add_times(&text, 'v', value);
    }
    add_headers(in, flags, id, str_c(&text));
    str_fini(&text);
}

static void test_large_heads(void **state)
{
    struct world w;
    struct str in = STR_INIT, block = STR_INIT;
    int i;

    begin(&w);
    add_big_head(&in, 1, F_END_STREAM | F_END_HEADERS, H1_MAX_FIELDS, 10);
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, NULL, "");
    add_big_head(&in, 3, F_END_STREAM | F_END_HEADERS, H1_MAX_FIELDS + 1, 10);
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, "", "3 headers :status=431 end\n");
    add_big_head(&in, 5, F_END_HEADERS, H1_MAX_FIELDS + 1, 10);
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, "", "5 headers :status=431 end\n5 reset 0\n");

    /* RFC 7541: 4000 bytes once put into the table, then named by one byte each. */
    str_addc(&block, 0x40);
    add_integer(&block, 1);
    str_addc(&block, 'a');
    add_integer(&block, 4000);
    add_times(&block, 'v', 4000);
    for (i = 0; i < 40; i++)
        str_addc(&block, (char)0xbe);
    add_fields(&in, GET_);
    {
        struct str all = STR_INIT;

        str_addv(&all, str_view(&in));
        str_addv(&all, str_view(&block));
        str_clear(&in);
        add_frame(&in, T_HEADERS, F_END_STREAM | F_END_HEADERS, 7, str_view(&all));
        str_fini(&all);
    }
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, "", "7 headers :status=431 end\n");
    str_fini(&in);
    str_fini(&block);
    finish(&w);
}

/* The peer may send no more than the handler makes room for. */
static void test_windows(void **state)
{
    static char bytes[16384];
    struct world w;
    struct str in = STR_INIT;
    struct view chunk = view_of(bytes, sizeof(bytes));
    size_t i;
    struct err e;

    begin(&w);
    assert_true(w.conn_credit == H2_CONN_WINDOW - 65535);
    w.conn_credit = 0;
    add_put(&in, 1);
    for (i = 0; i < H2_STREAM_WINDOW / sizeof(bytes); i++)
        add_frame(&in, T_DATA, 0, 1, chunk);
    assert_int_equal(feed(&w, &in, NULL), 0);
    pull(&w, SIZE_MAX);
    assert_int_equal(w.body, H2_STREAM_WINDOW);
    assert_int_equal(w.stream_credit + w.conn_credit, 0);
    h2_consumed(w.s, 1, H2_STREAM_WINDOW);
    pull(&w, SIZE_MAX);
    assert_int_equal(w.stream_credit, H2_STREAM_WINDOW);
    for (i = 0; i < H2_STREAM_WINDOW / sizeof(bytes); i++)
        add_frame(&in, T_DATA, 0, 1, chunk);
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, NULL, "");
    add_frame(&in, T_DATA, 0, 1, VIEW_LIT("x")); /* beyond the window */
    assert_int_equal(feed(&w, &in, &e), 0);
    check(&w, NULL, "1 reset 3\n");
    str_fini(&in);
    finish(&w);
}

/* Streams that end with bytes nobody consumed give the connection its window back. */
static void test_window_of_closed_streams(void **state)
{
    static char bytes[16384];
    struct world w;
    struct str in = STR_INIT;
    uint32_t id;

    begin(&w);
    w.conn_credit = 0;
    for (id = 1; id < 1 + 2 * 40; id += 2) {
        size_t i;

        add_put(&in, id);
        for (i = 0; i < 15; i++)
            add_frame(&in, T_DATA, 0, id, view_of(bytes, sizeof(bytes)));
        assert_int_equal(feed(&w, &in, NULL), 0);
        h2_reset(w.s, (int32_t)id, 0);
        h2_reset(w.s, (int32_t)id, 8); /* the first counts */
        add_frame(&in, T_DATA, 0, id, VIEW_LIT("late"));
        assert_int_equal(feed(&w, &in, NULL), 0);
        pull(&w, SIZE_MAX);
    }
    assert_non_null(strstr(str_c(&w.wire), "79 reset 0\n"));
    assert_null(strstr(str_c(&w.wire), "goaway"));
    assert_null(strstr(str_c(&w.log), "late"));
    assert_true(w.conn_credit > 40 * 15 * sizeof(bytes) - H2_CONN_WINDOW);
    str_fini(&in);
    finish(&w);
}

static void test_slow_reader(void **state)
{
    struct world w;
    struct str in = STR_INIT, body = STR_INIT;
    size_t left;

    begin(&w);
    add_get(&in, 1);
    assert_int_equal(feed(&w, &in, NULL), 0);
    h2_respond(w.s, 1, 200, NULL, 0, false);
    add_times(&body, 'b', 200000);
    assert_int_equal(h2_write(w.s, 1, str_view(&body), false), 200000);
    pull(&w, 1000);
    assert_int_equal(w.data_sent, 65535); /* the client's first window */
    assert_int_equal(w.drains, 0);
    left = h2_write(w.s, 1, VIEW_NONE, false);
    assert_int_equal(left, 200000 - 65535);
    for (int i = 0; i < 2; i++) {
        struct str inc = STR_INIT;

        add_u32(&inc, 100000);
        add_frame(&in, T_UPDATE, 0, (uint32_t)i, str_view(&inc));
        str_fini(&inc);
    }
    assert_int_equal(feed(&w, &in, NULL), 0);
    pull(&w, 1000);
    assert_int_equal(w.data_sent, 165535);
    assert_true(w.drains > 0);
    str_fini(&in);
    str_fini(&body);
    finish(&w);
}

static void test_goaway(void **state)
{
    struct world w;
    struct str in = STR_INIT;

    begin(&w);
    add_put(&in, 1);
    assert_int_equal(feed(&w, &in, NULL), 0);
    h2_goaway(w.s);
    h2_goaway(w.s);
    check(&w, NULL, "goaway 1 0\n");
    assert_false(h2_done(w.s));
    add_get(&in, 3); /* crossed it: not answered, the client takes it elsewhere */
    add_frame(&in, T_DATA, F_END_STREAM, 1, VIEW_LIT("x"));
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, "1 body x\n1 end\n", "");
    h2_respond(w.s, 1, 204, NULL, 0, true);
    assert_false(h2_done(w.s));
    check(&w, "1 closed 0\n", "1 headers :status=204 end\n");
    assert_true(h2_done(w.s));
    str_fini(&in);
    finish(&w);
}

static void test_broken_connections(void **state)
{
    static const struct {
        const char *name;
        struct view in;
        const char *wire;
    } rows[] = {
        {"push from a client", VIEW_LIT("\0\0\4\5\4\0\0\0\1\0\0\0\2"), "goaway 0 1\n"},
        {"frame too large", VIEW_LIT("\0\x40\1\0\0\0\0\0\1"), "goaway 0 6\n"},
        {"data on an idle stream", VIEW_LIT("\0\0\1\0\0\0\0\0\1x"), "goaway 0 1\n"},
        {"data on stream 0", VIEW_LIT("\0\0\1\0\0\0\0\0\0x"), "goaway 0 1\n"},
        {"headers on an even stream", VIEW_LIT("\0\0\1\1\5\0\0\0\2\x82"), "goaway 0 1\n"},
        {"settings of a wrong size", VIEW_LIT("\0\0\1\4\0\0\0\0\0x"), "goaway 0 6\n"},
        {"index beyond the table", VIEW_LIT("\0\0\1\1\5\0\0\0\1\xff"), "goaway 1 9\n"},
        {"continuation alone", VIEW_LIT("\0\0\0\x9\4\0\0\0\1"), "goaway 0 1\n"},
        {"window of zero", VIEW_LIT("\0\0\4\x8\0\0\0\0\0\0\0\0\0"), "goaway 0 1\n"},
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct world w;
        struct str in = STR_INIT;
        struct err e = {ERR_NONE, ""};

        begin(&w);
        str_addv(&in, rows[i].in);
        if (feed(&w, &in, &e) != -1)
            fail_msg("%s: accepted", rows[i].name);
        if (e.code != ERR_INVALID || !e.text[0])
            fail_msg("%s: %d %s", rows[i].name, e.code, e.text);
        pull(&w, SIZE_MAX);
        if (strcmp(str_c(&w.wire), rows[i].wire) != 0)
            fail_msg("%s: %s", rows[i].name, str_c(&w.wire));
        assert_true(h2_done(w.s));
        add_get(&in, 1);
        assert_int_equal(feed(&w, &in, &e), -1);
        assert_int_equal(w.log.n, 0);
        str_fini(&in);
        finish(&w);
    }
}

static void test_not_http2(void **state)
{
    struct world w = {.s = NULL};
    struct err e;

    w.s = h2_server_new(&ops, &w);
    assert_int_equal(h2_feed(w.s, VIEW_LIT("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), 0, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
    h2_free(&w.s);
}

/* ---- floods ---- */

static uint32_t next_id;

static void flood_ping(struct str *in)
{
    add_frame(in, T_PING, 0, 0, VIEW_LIT("12345678"));
}

static void flood_ping_ack(struct str *in)
{
    add_frame(in, T_PING, F_ACK, 0, VIEW_LIT("12345678"));
}

static void flood_settings(struct str *in)
{
    add_frame(in, T_SETTINGS, 0, 0, VIEW_NONE);
}

static void flood_priority(struct str *in)
{
    add_frame(in, T_PRIORITY, 0, 1, VIEW_LIT("\0\0\0\3\1"));
}

static void flood_unknown(struct str *in)
{
    add_frame(in, 77, 0, 0, VIEW_LIT("x"));
}

static void flood_update(struct str *in)
{
    add_frame(in, T_UPDATE, 0, 0, VIEW_LIT("\0\0\0\1"));
}

static void flood_empty_data(struct str *in)
{
    add_frame(in, T_DATA, 0, 1, VIEW_NONE);
}

static void flood_reset(struct str *in)
{
    add_get(in, next_id);
    add_frame(in, T_RST, 0, next_id, VIEW_LIT("\0\0\0\x8"));
    next_id += 2;
}

/* CVE-2025-8671: the server is made to reset. */
static void flood_make_reset(struct str *in)
{
    add_put(in, next_id);
    add_frame(in, T_UPDATE, 0, next_id, VIEW_LIT("\x7f\xff\xff\xff"));
    next_id += 2;
}

static void flood_bad_head(struct str *in)
{
    add_headers(in, F_END_STREAM | F_END_HEADERS, next_id, GET_ "|connection=x");
    next_id += 2;
}

static void flood_other_bad_head(struct str *in)
{
    add_headers(in, F_END_STREAM | F_END_HEADERS, next_id, GET_ "|host=x");
    next_id += 2;
}

/* Begun on stream 5 and never ended. */
static void flood_continuation(struct str *in)
{
    static bool begun;

    if (next_id == 3) {
        add_headers(in, 0, 5, GET_);
        next_id = 7;
        begun = true;
    }
    assert_true(begun);
    add_frame(in, T_CONT, 0, 5, VIEW_LIT("\0\1a\1b"));
}

static void flood_empty_continuation(struct str *in)
{
    if (next_id == 3) {
        add_headers(in, 0, 5, GET_);
        next_id = 7;
    }
    add_frame(in, T_CONT, 0, 5, VIEW_NONE);
}

/* Frames of one kind, one by one and answered: at most how many pass in 10 s, and no fewer. */
static void run_flood(const char *name, void (*one)(struct str *in), unsigned least, unsigned most)
{
    struct world w;
    struct str in = STR_INIT;
    struct err e = {ERR_NONE, ""};
    unsigned n = 0;

    begin(&w);
    w.now = 100 * SECOND;
    w.consume = true;
    add_put(&in, 1);
    assert_int_equal(feed(&w, &in, NULL), 0);
    next_id = 3;
    for (;;) {
        one(&in);
        if (feed(&w, &in, &e) != 0)
            break;
        pull(&w, SIZE_MAX);
        if (++n > most)
            fail_msg("%s: %u passed", name, n);
    }
    if (n < least)
        fail_msg("%s: broken off after %u: %s", name, n, e.text);
    assert_int_equal(e.code, ERR_LIMIT);
    pull(&w, SIZE_MAX);
    if (!strstr(str_c(&w.wire), " 11\n")) /* GOAWAY, ENHANCE_YOUR_CALM */
        fail_msg("%s: %s", name, str_c(&w.wire));
    assert_true(h2_done(w.s));
    str_fini(&in);
    finish(&w);
}

static void test_floods(void **state)
{
    run_flood("ping", flood_ping, H2_MAX_CONTROL - 3, H2_MAX_CONTROL);
    run_flood("ping ack", flood_ping_ack, H2_MAX_CONTROL - 3, H2_MAX_CONTROL);
    run_flood("settings", flood_settings, H2_MAX_CONTROL - 3, H2_MAX_CONTROL);
    run_flood("priority", flood_priority, H2_MAX_CONTROL - 3, H2_MAX_CONTROL);
    run_flood("unknown", flood_unknown, H2_MAX_CONTROL - 3, H2_MAX_CONTROL);
    run_flood("window update", flood_update, H2_MAX_CONTROL - 3, H2_MAX_CONTROL);
    run_flood("empty data", flood_empty_data, H2_MAX_CONTROL - 3, H2_MAX_CONTROL);
    run_flood("reset", flood_reset, H2_MAX_RESETS - 1, H2_MAX_RESETS);
    run_flood("make reset", flood_make_reset, H2_MAX_RESETS - 1, H2_MAX_RESETS + 1);
    run_flood("bad head", flood_bad_head, H2_MAX_RESETS - 1, H2_MAX_RESETS + 1);
    run_flood("other bad head", flood_other_bad_head, H2_MAX_RESETS - 1, H2_MAX_RESETS + 1);
    run_flood("continuation", flood_continuation, 8, H2_MAX_CONTROL);
    run_flood("empty continuation", flood_empty_continuation, 8, H2_MAX_CONTROL);
}

/* A header block of many bytes in few frames. */
static void test_long_block(void **state)
{
    static char zeros[16384];
    struct world w;
    struct str in = STR_INIT, text = STR_INIT, block = STR_INIT;
    struct err e = {ERR_NONE, ""};
    int n;

    begin(&w);
    str_adds(&text, "x=");
    add_times(&text, 'v', 16000);
    add_fields(&block, str_c(&text));
    add_headers(&in, 0, 1, GET_);
    for (n = 0; feed(&w, &in, &e) == 0; n++) {
        assert_true(n < 5);
        add_frame(&in, T_CONT, 0, 1, str_view(&block));
    }
    assert_int_equal(e.code, ERR_LIMIT);
    assert_true(n >= 4);
    assert_int_equal(w.log.n, 0);
    assert_true(sizeof(zeros) > 0);
    str_fini(&in);
    str_fini(&text);
    str_fini(&block);
    finish(&w);
}

/* The same number over a longer time is fine. */
static void test_counters_are_per_time(void **state)
{
    struct world w;
    struct str in = STR_INIT;
    int i;

    begin(&w);
    next_id = 1;
    for (i = 0; i < 3 * H2_MAX_RESETS; i++) {
        if (i % 90 == 0)
            w.now += 10 * SECOND;
        flood_reset(&in);
        flood_ping(&in);
        assert_int_equal(feed(&w, &in, NULL), 0);
        pull(&w, SIZE_MAX);
    }
    assert_true(h2_idle(w.s));
    str_fini(&in);
    finish(&w);
}

/* A peer that makes us answer and never reads, however slowly. */
static void test_unread_answers(void **state)
{
    struct world w;
    struct str in = STR_INIT;
    struct err e = {ERR_NONE, ""};
    int i;

    begin(&w);
    for (i = 0; i < 20000; i++) {
        w.now += SECOND;
        flood_ping(&in);
        flood_settings(&in);
        if (feed(&w, &in, &e) != 0)
            break;
    }
    assert_int_equal(e.code, ERR_LIMIT);
    str_fini(&in);
    finish(&w);
}

/* A download of many small windows is no flood. */
static void test_updates_of_a_download(void **state)
{
    struct world w;
    struct str in = STR_INIT, body = STR_INIT, inc = STR_INIT;
    int i;

    begin(&w);
    add_get(&in, 1);
    assert_int_equal(feed(&w, &in, NULL), 0);
    h2_respond(w.s, 1, 200, NULL, 0, false);
    add_times(&body, 'b', 16384);
    add_u32(&inc, 4096);
    for (i = 0; i < 2000; i++) {
        int k;

        h2_write(w.s, 1, str_view(&body), false);
        pull(&w, SIZE_MAX);
        for (k = 0; k < 4; k++) {
            add_frame(&in, T_UPDATE, 0, 0, str_view(&inc));
            add_frame(&in, T_UPDATE, 0, 1, str_view(&inc));
        }
        flood_ping(&in); /* gRPC measures the link so */
        assert_int_equal(feed(&w, &in, NULL), 0);
    }
    assert_true(w.data_sent > 1900u * 16384);
    str_fini(&in);
    str_fini(&body);
    str_fini(&inc);
    finish(&w);
}

/* Calls are given up, at deadlines many at once; still not without end. */
static void test_rpc_limits(void **state)
{
    struct world w;
    struct str in = STR_INIT;
    struct err e = {ERR_NONE, ""};
    unsigned n = 0;

    begin(&w);
    h2_free(&w.s);
    w.s = h2_rpc_server_new(&ops, &w);
    add_preface(&in);
    assert_int_equal(feed(&w, &in, NULL), 0);
    next_id = 1;
    for (;;) {
        flood_reset(&in);
        if (feed(&w, &in, &e) != 0)
            break;
        pull(&w, SIZE_MAX);
        assert_true(++n <= H2_RPC_MAX_RESETS);
    }
    assert_true(n >= H2_RPC_MAX_RESETS - 1);
    assert_int_equal(e.code, ERR_LIMIT);
    str_fini(&in);
    finish(&w);
}

/* More streams than allowed are refused, and the others live. */
static void test_too_many_streams(void **state)
{
    struct world w;
    struct str in = STR_INIT;
    uint32_t i;

    begin(&w);
    for (i = 0; i < H2_MAX_STREAMS; i++)
        add_put(&in, 1 + 2 * i);
    assert_int_equal(feed(&w, &in, NULL), 0);
    check(&w, NULL, "");
    add_put(&in, 1 + 2 * i);
    assert_int_equal(feed(&w, &in, NULL), -1);
    pull(&w, SIZE_MAX);
    assert_non_null(strstr(str_c(&w.wire), "goaway"));
    assert_int_equal(w.log.n, 0);
    str_fini(&in);
    finish(&w);
}

/* Any cut gives the same callbacks. */
static void test_every_cut(void **state)
{
    struct str in = STR_INIT, whole = STR_INIT;
    size_t cut;

    add_headers(&in, F_END_HEADERS, 1, PUT_ "|content-length=6");
    add_frame(&in, T_DATA, F_PADDED, 1, VIEW_LIT("\3abc\0\0\0"));
    add_headers(&in, 0, 3, ":method=GET|:scheme=https");
    {
        struct str rest = STR_INIT;

        add_fields(&rest, ":authority=x|:path=/y|a=b");
        add_frame(&in, T_CONT, F_END_HEADERS, 3, str_view(&rest));
        str_fini(&rest);
    }
    add_frame(&in, T_DATA, F_END_STREAM, 1, VIEW_LIT("def"));
    add_frame(&in, T_RST, 0, 3, VIEW_LIT("\0\0\0\x8"));
    for (cut = 0; cut <= in.n + 1; cut++) {
        struct str piece = STR_INIT;
        struct world w;
        size_t i;

        begin(&w);
        w.answer = true;
        if (cut <= in.n) {
            str_add(&piece, in.p, cut);
            assert_int_equal(feed(&w, &piece, NULL), 0);
            str_add(&piece, in.p + cut, in.n - cut);
            assert_int_equal(feed(&w, &piece, NULL), 0);
        } else {
            /* In twos: some versions of the library allow eight calls while they wait for the head
             * of a CONTINUATION. */
            for (i = 0; i < in.n; i += 2) {
                str_add(&piece, in.p + i, TR_MIN(in.n - i, 2u));
                assert_int_equal(feed(&w, &piece, NULL), 0);
            }
        }
        pull(&w, SIZE_MAX);
        assert_int_equal(w.body, 6);
        assert_non_null(strstr(str_c(&w.log), "3 GET https x/y|a=b\n"));
        assert_non_null(strstr(str_c(&w.log), "3 closed 8\n"));
        assert_non_null(strstr(str_c(&w.log), "1 end\n"));
        assert_non_null(strstr(str_c(&w.log), "1 closed 0\n"));
        assert_string_equal(str_c(&w.wire), "1 headers :status=204 end\n");
        str_fini(&piece);
        finish(&w);
    }
    str_fini(&in);
    str_fini(&whole);
}

/* Freed with streams in every state: nothing is left behind (seen by a leak checker). */
static void test_free_in_the_middle(void **state)
{
    static const struct h1_field trailer = {VIEW_LIT("t"), VIEW_LIT("0")};
    struct world w;
    struct str in = STR_INIT;

    begin(&w);
    add_put(&in, 1);
    add_put(&in, 3);
    add_put(&in, 5);
    add_headers(&in, 0, 7, PUT_);
    assert_int_equal(feed(&w, &in, NULL), 0);
    h2_respond(w.s, 1, 200, NULL, 0, false);
    h2_write(w.s, 1, VIEW_LIT("abc"), false);
    h2_trailers(w.s, 1, &trailer, 1);
    h2_respond(w.s, 3, 200, NULL, 0, false);
    h2_pull(w.s);
    h2_reset(w.s, 5, 2);
    str_fini(&in);
    finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_request_and_answer),
        cmocka_unit_test(test_trailers),
        cmocka_unit_test(test_reset_after_answer),
        cmocka_unit_test(test_extended_connect),
        cmocka_unit_test(test_bad_heads),
        cmocka_unit_test(test_good_heads),
        cmocka_unit_test(test_wrong_length),
        cmocka_unit_test(test_large_heads),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_window_of_closed_streams),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_goaway),
        cmocka_unit_test(test_broken_connections),
        cmocka_unit_test(test_not_http2),
        cmocka_unit_test(test_floods),
        cmocka_unit_test(test_long_block),
        cmocka_unit_test(test_counters_are_per_time),
        cmocka_unit_test(test_unread_answers),
        cmocka_unit_test(test_updates_of_a_download),
        cmocka_unit_test(test_rpc_limits),
        cmocka_unit_test(test_too_many_streams),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_free_in_the_middle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
