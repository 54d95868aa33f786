/*
 * A server's HTTP/2 connection. The input is a script: frames well formed and not, bytes as they
 * are, what the handler does, time that passes.
 *
 * Oracle: the handler sees each stream in order (request, body, end, closed), only heads that could
 * be written as HTTP/1.1, and never more streams or body than it made room for; nothing is sent
 * after the end; a connection that was broken off stays so and can be closed.
 */
#include "fuzz/target.h"

#include <stdlib.h>
#include "codec/h2.h"

enum { MAX_ID = 512 };

enum phase { UNKNOWN, OPEN, ENDED, CLOSED };

struct peer {
    struct h2_session *s;
    enum phase phase[MAX_ID];
    size_t unconsumed[MAX_ID];
    bool answered[MAX_ID];
    bool finished[MAX_ID];
    size_t open;
    int64_t now;
    bool broken;
};

static void on_request(void *ctx, int32_t id, const struct h2_head *h)
{
    struct peer *p = ctx;
    size_t i;

    ASSERT(id > 0 && id % 2 == 1);
    ASSERT(++p->open <= H2_MAX_STREAMS);
    ASSERT(h1_is_token(h->method) && h1_is_host(h->authority));
    ASSERT(h1_is_target(h->path) || (view_is(h->method, "CONNECT") && h->path.n == 0));
    ASSERT(h->n_fields <= H1_MAX_FIELDS);
    for (i = 0; i < h->n_fields; i++) {
        ASSERT(h1_is_token(h->fields[i].name) && h1_is_field_value(h->fields[i].value));
        ASSERT(!view_is(h->fields[i].name, "connection") && !view_is(h->fields[i].name, "host") &&
               !view_is(h->fields[i].name, "transfer-encoding"));
    }
    if (id >= MAX_ID) {
        h2_reset(p->s, id, 7);
        return;
    }
    ASSERT(p->phase[id] == UNKNOWN);
    p->phase[id] = OPEN;
}

static void on_body(void *ctx, int32_t id, struct view piece)
{
    struct peer *p = ctx;

    ASSERT(piece.n > 0);
    if (id >= MAX_ID)
        return;
    ASSERT(p->phase[id] == OPEN);
    p->unconsumed[id] += piece.n;
    ASSERT(p->unconsumed[id] <= H2_STREAM_WINDOW);
}

static void on_end(void *ctx, int32_t id)
{
    struct peer *p = ctx;

    if (id >= MAX_ID)
        return;
    ASSERT(p->phase[id] == OPEN);
    p->phase[id] = ENDED;
}

static void on_closed(void *ctx, int32_t id, uint32_t code)
{
    struct peer *p = ctx;

    p->open--;
    if (id >= MAX_ID)
        return;
    ASSERT(p->phase[id] == OPEN || p->phase[id] == ENDED);
    p->phase[id] = CLOSED;
    if (p->unconsumed[id] % 2)
        h2_consumed(p->s, id, p->unconsumed[id]);
}

static void on_drain(void *ctx, int32_t id)
{
    struct peer *p = ctx;

    ASSERT(id >= MAX_ID || (p->answered[id] && p->phase[id] != UNKNOWN));
}

static void on_trailers(void *ctx, int32_t id, const struct h1_field *fields, size_t n)
{
    struct peer *p = ctx;

    ASSERT(id >= MAX_ID || p->phase[id] == OPEN);
    ASSERT(n <= H1_MAX_FIELDS);
    for (size_t i = 0; i < n; i++)
        ASSERT(h1_is_token(fields[i].name) && h1_is_field_value(fields[i].value));
}

static const struct h2_ops ops = {.on_request = on_request,
                                   .on_trailers = on_trailers,
                                   .on_body = on_body,
                                   .on_end = on_end,
                                   .on_closed = on_closed,
                                   .on_drain = on_drain};

static void feed(struct peer *p, struct view in)
{
    struct err e = {ERR_NONE, ""};
    /* A block of its own, so that a sanitizer sees a read beyond it. */
    char *copy = malloc(in.n ? in.n : 1);
    int r;

    ASSERT(copy != NULL);
    if (in.n)
        memcpy(copy, in.p, in.n);
    r = h2_feed(p->s, view_of(copy, in.n), p->now, &e);
    free(copy);
    ASSERT(!p->broken || r == -1);
    if (r != 0) {
        ASSERT(e.code != ERR_NONE && e.text[0]);
        p->broken = true;
    }
}

static struct view take(struct view *in, size_t n)
{
    struct view v = view_of(in->p, TR_MIN(n, in->n));

    *in = view_from(*in, v.n);
    return v;
}

static void add_frame(struct str *to, uint8_t type, uint8_t flags, int32_t id, struct view payload)
{
    const unsigned char head[9] = {
        0, (unsigned char)(payload.n >> 8), (unsigned char)payload.n, type, flags, 0,
        0, (unsigned char)(id >> 8),        (unsigned char)id};

    str_add(to, head, sizeof(head));
    str_addv(to, payload);
}

static int32_t stream_id(struct view *in)
{
    return fuzz_byte(in) * 2 + 1;
}

static void feed_frame(struct peer *p, struct view *in, uint8_t type)
{
    struct str frame = STR_INIT;
    uint8_t flags = fuzz_byte(in);
    int32_t id = stream_id(in);

    add_frame(&frame, type, flags, flags & 0x80 ? 0 : id, take(in, fuzz_byte(in)));
    feed(p, str_view(&frame));
    str_fini(&frame);
}

/* A request as most are, with some fields of the script's (RFC 7541 §6.2.2: literal). */
static void feed_request(struct peer *p, struct view *in)
{
    struct str block = STR_INIT, frame = STR_INIT;
    uint8_t flags = fuzz_byte(in);
    int32_t id = stream_id(in);
    struct view name, value;

    str_add(&block, flags & 0x10 ? "\x82" : "\x83", 1);
    str_adds(&block, "\x87\x84\x01\x01h");
    if (flags & 0x20) {
        name = take(in, fuzz_byte(in) & 63);
        value = take(in, fuzz_byte(in) & 63);
        str_addc(&block, flags & 0x40 ? 0x40 : 0);
        str_addc(&block, (char)name.n);
        str_addv(&block, name);
        str_addc(&block, (char)value.n);
        str_addv(&block, value);
    }
    add_frame(&frame, 1, (flags & 0x1) | 0x4, id, str_view(&block));
    feed(p, str_view(&frame));
    str_fini(&block);
    str_fini(&frame);
}

static void act(struct peer *p, struct view *in)
{
    static const struct h1_field fields[] = {{VIEW_LIT("X-A"), VIEW_LIT("b")},
                                             {VIEW_LIT("Connection"), VIEW_LIT("close")}};
    uint8_t what = fuzz_byte(in);
    int32_t id = stream_id(in);
    struct view piece;

    if (p->phase[id] == UNKNOWN)
        return;
    switch (what % 5) {
    case 0:
        if (!p->answered[id])
            h2_respond(p->s, id, what & 0x80 ? 200 : 103, fields, 2, what & 0x40);
        p->answered[id] |= (what & 0x80) != 0;
        p->finished[id] |= (what & 0xc0) == 0xc0;
        break;
    case 1:
        if (!p->answered[id] || p->finished[id])
            break;
        p->finished[id] = what & 0x80;
        piece = take(in, fuzz_byte(in));
        h2_write(p->s, id, piece, p->finished[id]);
        break;
    case 2:
        if (p->phase[id] != CLOSED)
            h2_consumed(p->s, id, p->unconsumed[id]);
        p->unconsumed[id] = 0;
        break;
    case 3:
        h2_reset(p->s, id, what >> 5);
        p->answered[id] = p->finished[id] = true;
        break;
    default:
        if (p->answered[id] && !p->finished[id])
            h2_trailers(p->s, id, fields, 1);
        p->finished[id] |= p->answered[id];
        break;
    }
}

static void pull(struct peer *p, size_t max)
{
    struct view v;

    while (max && (v = h2_pull(p->s)).n) {
        size_t n = TR_MIN(v.n, max);

        h2_sent(p->s, n);
        max -= n;
    }
}

static void step(struct peer *p, struct view *in)
{
    uint8_t op = fuzz_byte(in);

    switch (op >> 4) {
    case 0:
    case 1:
    case 2:
        feed_request(p, in);
        break;
    case 3:
        feed(p, take(in, fuzz_byte(in)));
        break;
    case 4:
    case 5:
    case 6:
    case 7:
        act(p, in);
        break;
    case 8:
        p->now += fuzz_byte(in) * INT64_C(100000000);
        break;
    case 9:
        pull(p, SIZE_MAX);
        break;
    case 10:
        pull(p, fuzz_byte(in));
        break;
    case 11:
        if ((op & 15) == 15)
            h2_goaway(p->s);
        break;
    default:
        feed_frame(p, in, op & 15);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    static struct peer p;

    memset(&p, 0, sizeof(p));
    p.s = h2_server_new(&ops, &p);
    if (!(fuzz_byte(&in) & 1))
        feed(&p, VIEW_LIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"));
    while (in.n)
        step(&p, &in);
    pull(&p, SIZE_MAX);
    if (p.broken)
        ASSERT(h2_done(p.s));
    ASSERT(p.open == 0 || !h2_idle(p.s));
    h2_free(&p.s);
    return 0;
}
