/*
 * A client's HTTP/2 connection, and a server that does what it likes. The input is a script:
 * frames well formed and not, bytes as they are, what the caller does.
 *
 * Oracle: the caller sees each of its streams in order (head, body, trailers, end, closed), nothing
 * of streams that it did not begin, only fields that could be sent on, and never more body than it
 * made room for; a connection that was broken off stays so and can be closed.
 */
#include "fuzz/target.h"

#include <stdlib.h>
#include "codec/h2.h"

enum { MAX_ID = 512 };

enum phase { UNKNOWN, ASKED, HEADED, TRAILED, ENDED, CLOSED };

struct peer {
    struct h2_session *s;
    enum phase phase[MAX_ID];
    size_t unconsumed[MAX_ID];
    bool finished[MAX_ID];
    size_t open;
    bool broken;
};

static void check_fields(const struct h1_field *f, size_t n)
{
    ASSERT(n <= H1_MAX_FIELDS);
    for (size_t i = 0; i < n; i++) {
        ASSERT(h1_is_token(f[i].name) && h1_is_field_value(f[i].value));
        ASSERT(!view_is(f[i].name, "connection") && !view_is(f[i].name, "transfer-encoding"));
    }
}

static void on_response(void *ctx, int32_t id, const struct h2_head *h)
{
    struct peer *p = ctx;

    ASSERT(id > 0 && id < MAX_ID && p->phase[id] == ASKED);
    ASSERT(h->status >= 200 && h->status <= 999);
    check_fields(h->fields, h->n_fields);
    p->phase[id] = HEADED;
}

static void on_body(void *ctx, int32_t id, struct view piece)
{
    struct peer *p = ctx;

    ASSERT(id < MAX_ID && p->phase[id] == HEADED && piece.n > 0);
    p->unconsumed[id] += piece.n;
    ASSERT(p->unconsumed[id] <= H2_RPC_WINDOW);
}

static void on_trailers(void *ctx, int32_t id, const struct h1_field *fields, size_t n)
{
    struct peer *p = ctx;

    ASSERT(id < MAX_ID && p->phase[id] == HEADED);
    check_fields(fields, n);
    p->phase[id] = TRAILED;
}

static void on_end(void *ctx, int32_t id)
{
    struct peer *p = ctx;

    ASSERT(id < MAX_ID && (p->phase[id] == HEADED || p->phase[id] == TRAILED));
    p->phase[id] = ENDED;
    if (id % 4 == 1)
        h2_give_up(p->s, id);
}

static void on_closed(void *ctx, int32_t id, uint32_t code)
{
    struct peer *p = ctx;

    ASSERT(id < MAX_ID && p->phase[id] != UNKNOWN && p->phase[id] != CLOSED);
    p->phase[id] = CLOSED;
    p->open--;
}

static void on_drain(void *ctx, int32_t id)
{
    struct peer *p = ctx;

    ASSERT(id < MAX_ID && p->phase[id] != UNKNOWN && p->phase[id] != CLOSED);
}

static const struct h2_ops ops = {
    .on_response = on_response,
    .on_body = on_body,
    .on_trailers = on_trailers,
    .on_end = on_end,
    .on_closed = on_closed,
    .on_drain = on_drain,
};

static void feed(struct peer *p, struct view in)
{
    struct err e = {ERR_NONE, ""};
    /* A block of its own, so that a sanitizer sees a read beyond it. */
    char *copy = malloc(in.n ? in.n : 1);
    int r;

    ASSERT(copy != NULL);
    if (in.n)
        memcpy(copy, in.p, in.n);
    r = h2_feed(p->s, view_of(copy, in.n), 0, &e);
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

static void feed_frame(struct peer *p, uint8_t type, uint8_t flags, int32_t id, struct view payload)
{
    const unsigned char head[9] = {
        0, (unsigned char)(payload.n >> 8), (unsigned char)payload.n, type, flags, 0,
        0, (unsigned char)(id >> 8),        (unsigned char)id};
    struct str frame = STR_INIT;

    str_add(&frame, head, sizeof(head));
    str_addv(&frame, payload);
    feed(p, str_view(&frame));
    str_fini(&frame);
}

/* A head or trailers, with a field of the script's (RFC 7541 §6.2.2: literal). */
static void feed_head(struct peer *p, struct view *in)
{
    uint8_t flags = fuzz_byte(in);
    int32_t id = fuzz_byte(in) * 2 + 1;
    struct str block = STR_INIT;
    struct view name, value;

    if (flags & 0x10)
        str_addc(&block, (char)(0x88 + (flags >> 5))); /* :status 200, 204, ... */
    else if (flags & 0x20)
        str_add(&block, "\x08\x03\x31\x30\x33", 5); /* :status 103 */
    if (flags & 0x40) {
        name = take(in, fuzz_byte(in) & 63);
        value = take(in, fuzz_byte(in) & 63);
        str_addc(&block, 0);
        str_addc(&block, (char)name.n);
        str_addv(&block, name);
        str_addc(&block, (char)value.n);
        str_addv(&block, value);
    }
    feed_frame(p, 1, (flags & 0x1) | 0x4, id, str_view(&block));
    str_fini(&block);
}

static void ask(struct peer *p, uint8_t how)
{
    static const struct h1_field fields[] = {{VIEW_LIT("te"), VIEW_LIT("trailers")},
                                             {VIEW_LIT("Connection"), VIEW_LIT("close")}};
    const struct h2_head head = {.method = VIEW_LIT("POST"),
                                 .scheme = VIEW_LIT("http"),
                                 .authority = VIEW_LIT("h"),
                                 .path = VIEW_LIT("/a/b"),
                                 .fields = fields,
                                 .n_fields = ARRAY_LEN(fields),
                                 .end_stream = how & 1};
    int32_t id;

    if (!h2_may_request(p->s))
        return;
    id = h2_request(p->s, &head);
    ASSERT(id > 0);
    if (id >= MAX_ID)
        abort();
    ASSERT(p->phase[id] == UNKNOWN);
    p->phase[id] = ASKED;
    p->finished[id] = how & 1;
    ASSERT(++p->open <= H2_RPC_STREAMS);
}

static void act(struct peer *p, struct view *in)
{
    static const struct h1_field field = {VIEW_LIT("X-A"), VIEW_LIT("b")};
    uint8_t what = fuzz_byte(in);
    int32_t id = fuzz_byte(in) * 2 + 1;

    if (p->phase[id] == UNKNOWN)
        return;
    switch (what % 5) {
    case 0:
    case 1:
        if (p->finished[id])
            break;
        p->finished[id] = what & 0x80;
        h2_write(p->s, id, take(in, fuzz_byte(in)), p->finished[id]);
        break;
    case 2:
        if (p->phase[id] != CLOSED)
            h2_consumed(p->s, id, p->unconsumed[id]);
        p->unconsumed[id] = 0;
        break;
    case 3:
        h2_reset(p->s, id, 1 + (what >> 5));
        p->finished[id] = true;
        break;
    default:
        if (!p->finished[id])
            h2_trailers(p->s, id, &field, 1);
        p->finished[id] = true;
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

static size_t asked(const struct peer *p)
{
    size_t n = 0;

    for (int32_t id = 1; id < MAX_ID; id += 2)
        n += p->phase[id] != UNKNOWN;
    return n;
}

static void step(struct peer *p, struct view *in)
{
    uint8_t op = fuzz_byte(in), flags;
    int32_t id;

    switch (op >> 5) {
    case 0:
        if (asked(p) < MAX_ID / 2)
            ask(p, op);
        break;
    case 1:
    case 2:
        feed_head(p, in);
        break;
    case 3:
        if (op & 1)
            feed(p, take(in, fuzz_byte(in)));
        else
            pull(p, op & 2 ? SIZE_MAX : fuzz_byte(in));
        break;
    case 4:
    case 5:
        act(p, in);
        break;
    default:
        flags = fuzz_byte(in);
        id = flags & 0x80 ? 0 : fuzz_byte(in) * 2 + 1;
        feed_frame(p, op & 15, flags, id, take(in, fuzz_byte(in)));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    static struct peer p;

    memset(&p, 0, sizeof(p));
    p.s = h2_client_new(&ops, &p);
    if (!(fuzz_byte(&in) & 1))
        feed(&p, VIEW_LIT("\0\0\0\4\0\0\0\0\0"));
    while (in.n)
        step(&p, &in);
    pull(&p, SIZE_MAX);
    if (p.broken)
        ASSERT(h2_done(p.s) && !h2_may_request(p.s));
    ASSERT(p.open == 0 || !h2_idle(p.s));
    h2_free(&p.s);
    return 0;
}
