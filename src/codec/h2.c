#include "codec/h2.h"

#include "base/buf.h"
#include "base/bug.h"
#include "base/list.h"
#include "base/str.h"
#include "base/xmem.h"
#include "codec/h2_meter.h"

#include <nghttp2/nghttp2.h>

#include <stdio.h>

enum {
    OUT_PIECE = 64 * 1024, /* collected for one write */
    DRAIN_AT = H2_STREAM_WINDOW / 4,
    MIN_FRAME_COST = 64, /* of a frame that waits to be sent, at the least */
    MAX_QUEUED_FRAMES = H2_MAX_QUEUED_OUT / MIN_FRAME_COST,
};

/* RFC 9218 §2.1: no trees of priorities, which peers could make us shuffle (CVE-2019-9513). */
enum { SETTINGS_NO_RFC7540_PRIORITIES = 9 };

/* Where a name and its value are in the text of a stream. */
struct part {
    uint32_t name, name_n, value, value_n;
};

enum pseudo { P_METHOD, P_SCHEME, P_AUTHORITY, P_PATH, P_PROTOCOL, N_PSEUDO };

/* A request head that is coming in. */
struct head {
    struct str text;
    struct part pseudo[N_PSEUDO];
    struct part fields[H1_MAX_FIELDS];
    size_t n_fields;
    int64_t content_length;
    bool too_large;
    bool bad;
    bool host; /* authority is from it, or equal */
};

/* Fields of ours, ready for the library. */
struct fields_out {
    struct str text;
    nghttp2_nv *nv;
    size_t n;
};

struct stream {
    struct list link;
    struct list drain; /* in session->drains while on_drain is owed */
    int32_t id;
    struct head *head; /* until it was given to on_request */
    size_t unconsumed; /* bytes given to on_body */
    struct buf out;    /* of the answer's body */
    struct fields_out *trailers;
    bool shown; /* the handler knows of it: on_closed is due */
    bool answered;
    bool ended;     /* nothing is added to out any more */
    bool deferred;  /* the library waits for bytes in out */
    bool ended_out; /* the end of the answer went out */
    bool stop;      /* reset it after that: the answer is not to be lost */
    bool reset;     /* by us */
    bool reset_by_peer;
    bool closing;
};

struct h2_session {
    nghttp2_session *ng;
    const struct h2_ops *ops;
    void *ctx;
    struct list streams;
    struct list drains;
    struct h2_meter meter;
    struct buf out;
    int inside; /* calls of the library under way: it is not to be entered again */
    bool goaway;
    bool failed;
    uint32_t goaway_code; /* that was sent, not by h2_goaway */
};

static struct stream *find(const struct h2_session *s, int32_t id)
{
    return nghttp2_session_get_stream_user_data(s->ng, id);
}

/* The library fails only for want of memory where its arguments are right. */
static void must(int r)
{
    ASSERT(r == 0);
}

/* ---- fields out ---- */

/* RFC 9113 §8.2.2 */
static bool is_connection_field(struct view name)
{
    static const struct view names[] = {VIEW_LIT("connection"), VIEW_LIT("keep-alive"),
                                        VIEW_LIT("proxy-connection"), VIEW_LIT("transfer-encoding"),
                                        VIEW_LIT("upgrade")};
    size_t i;

    for (i = 0; i < ARRAY_LEN(names); i++)
        if (view_ieq(name, names[i]))
            return true;
    return false;
}

static void fields_out_add(struct fields_out *f, struct view name, struct view value)
{
    nghttp2_nv *nv = &f->nv[f->n++];
    size_t i, at = f->text.n;

    str_addv(&f->text, name); /* there is room: it does not move */
    for (i = at; i < f->text.n; i++)
        if (f->text.p[i] >= 'A' && f->text.p[i] <= 'Z')
            f->text.p[i] |= 0x20;
    str_addv(&f->text, value);
    nv->name = (uint8_t *)f->text.p + at;
    nv->namelen = name.n;
    nv->value = (uint8_t *)f->text.p + at + name.n;
    nv->valuelen = value.n;
    nv->flags = NGHTTP2_NV_FLAG_NONE;
}

/* `status` 0: trailers. */
static void fields_out_init(struct fields_out *f, int status, const struct h1_field *fields,
                            size_t n)
{
    char digits[12];
    size_t i, room = sizeof(":status") + sizeof(digits);

    for (i = 0; i < n; i++)
        room += fields[i].name.n + fields[i].value.n;
    *f = (struct fields_out){.text = STR_INIT};
    str_reserve(&f->text, room);
    f->nv = xcalloc(n + 1, sizeof(*f->nv));
    if (status) {
        snprintf(digits, sizeof(digits), "%03d", status);
        fields_out_add(f, VIEW_LIT(":status"), view_of(digits, 3));
    }
    for (i = 0; i < n; i++) {
        ASSERT(h1_is_token(fields[i].name) && h1_is_field_value(fields[i].value));
        if (!is_connection_field(fields[i].name))
            fields_out_add(f, fields[i].name, fields[i].value);
    }
}

static void fields_out_fini(struct fields_out *f)
{
    str_fini(&f->text);
    xfree(f->nv);
}

/* ---- streams ---- */

static struct stream *stream_new(struct h2_session *s, int32_t id)
{
    struct stream *st = XNEW(struct stream);

    st->id = id;
    list_append(&s->streams, &st->link);
    list_init(&st->drain);
    st->head = XNEW(struct head);
    st->head->content_length = -1;
    return st;
}

static void drop_head(struct stream *st)
{
    if (st->head)
        str_fini(&st->head->text);
    XFREE(st->head);
}

static void drop_answer(struct stream *st)
{
    buf_fini(&st->out);
    if (st->trailers)
        fields_out_fini(st->trailers);
    XFREE(st->trailers);
    list_remove(&st->drain);
}

static void stream_free(struct stream *st)
{
    drop_head(st);
    drop_answer(st);
    list_remove(&st->link);
    xfree(st);
}

static void reset(struct h2_session *s, struct stream *st, uint32_t code)
{
    if (st->reset || st->closing)
        return;
    if (code == NGHTTP2_NO_ERROR && st->answered && st->ended && !st->ended_out) {
        st->stop = true;
        return;
    }
    st->reset = true;
    drop_answer(st);
    must(nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, st->id, code));
}

/* ---- requests coming in ---- */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct h2_session *s = ctx;

    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    must(nghttp2_session_set_stream_user_data(ng, frame->hd.stream_id,
                                              stream_new(s, frame->hd.stream_id)));
    return 0;
}

static struct view text_at(const struct head *h, uint32_t at, uint32_t n)
{
    return view_of(h->text.p ? h->text.p + at : "", n);
}

static struct view pseudo_of(const struct head *h, enum pseudo which)
{
    return text_at(h, h->pseudo[which].value, h->pseudo[which].value_n);
}

static bool take_pseudo(struct head *h, struct view name, struct part part)
{
    static const struct view names[N_PSEUDO] = {
        [P_METHOD] = VIEW_LIT(":method"),       [P_SCHEME] = VIEW_LIT(":scheme"),
        [P_AUTHORITY] = VIEW_LIT(":authority"), [P_PATH] = VIEW_LIT(":path"),
        [P_PROTOCOL] = VIEW_LIT(":protocol"),
    };
    size_t i;

    for (i = 0; i < N_PSEUDO; i++)
        if (view_eq(name, names[i])) {
            h->pseudo[i] = part;
            return true;
        }
    return false;
}

/* RFC 9113 §8.3.1: Host stands in for :authority, and must not differ from it. */
static void take_host(struct head *h, struct view value, struct part part)
{
    if (h->host || (h->pseudo[P_AUTHORITY].name_n && !view_ieq(pseudo_of(h, P_AUTHORITY), value)))
        h->bad = true;
    h->host = true;
    if (!h->pseudo[P_AUTHORITY].name_n)
        h->pseudo[P_AUTHORITY] = part;
}

/* Digits: the library checked them. */
static int64_t parse_length(struct view v)
{
    int64_t n = 0;
    size_t i;

    if (v.n > 18)
        return INT64_MAX;
    for (i = 0; i < v.n; i++)
        n = n * 10 + (v.p[i] - '0');
    return n;
}

static void take_field(struct head *h, struct view name, struct view value)
{
    struct part part = {(uint32_t)h->text.n, (uint32_t)name.n, (uint32_t)(h->text.n + name.n),
                        (uint32_t)value.n};

    if (h->too_large)
        return;
    if (h->n_fields == H1_MAX_FIELDS || h->text.n + name.n + value.n > H2_MAX_HEADER_BYTES) {
        h->too_large = true;
        str_fini(&h->text);
        return;
    }
    str_addv(&h->text, name);
    str_addv(&h->text, value);
    if (name.n && name.p[0] == ':') {
        if (!take_pseudo(h, name, part))
            h->bad = true;
        return;
    }
    if (view_is(name, "host")) {
        take_host(h, value, part);
        return;
    }
    if (view_is(name, "content-length"))
        h->content_length = parse_length(value);
    if (!h1_is_token(name) || !h1_is_field_value(value))
        h->bad = true;
    h->fields[h->n_fields++] = part;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *ctx)
{
    struct stream *st = find(ctx, frame->hd.stream_id);

    if (st && st->head && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        take_field(st->head, view_of(name, name_n), view_of(value, value_n));
    return 0; /* trailers are dropped */
}

/* Not to be left out in silence, as the library would: the next hop might see it otherwise. */
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                             size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags,
                             void *ctx)
{
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* What we show would be a bug of ours to write as HTTP/1.1. */
static bool head_ok(const struct h2_head *head, bool connect)
{
    if (!h1_is_token(head->method) || !h1_is_host(head->authority))
        return false;
    if (head->protocol.n && !h1_is_token(head->protocol))
        return false;
    return (connect && !head->path.n && !head->protocol.n) || h1_is_target(head->path);
}

static void tell_refused(struct h2_session *s)
{
    if (s->ops->on_refused)
        s->ops->on_refused(s->ctx);
}

static void refuse_large(struct h2_session *s, struct stream *st, bool end)
{
    drop_head(st);
    tell_refused(s);
    h2_respond(s, st->id, 431, NULL, 0, true);
    if (!end)
        reset(s, st, NGHTTP2_NO_ERROR);
}

static void show_request(struct h2_session *s, struct stream *st, bool end)
{
    struct h1_field fields[H1_MAX_FIELDS];
    struct head *h = st->head;
    struct h2_head head = {
        .method = pseudo_of(h, P_METHOD),
        .scheme = pseudo_of(h, P_SCHEME),
        .authority = pseudo_of(h, P_AUTHORITY),
        .path = pseudo_of(h, P_PATH),
        .protocol = pseudo_of(h, P_PROTOCOL),
        .fields = fields,
        .n_fields = h->n_fields,
        .content_length = h->content_length,
        .end_stream = end,
    };
    size_t i;

    for (i = 0; i < h->n_fields; i++) {
        const struct part *p = &h->fields[i];

        fields[i].name = text_at(h, p->name, p->name_n);
        fields[i].value = text_at(h, p->value, p->value_n);
    }
    if (h->bad || !head_ok(&head, view_is(head.method, "CONNECT"))) {
        drop_head(st);
        h2_meter_reset(&s->meter);
        reset(s, st, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    st->shown = true;
    s->ops->on_request(s->ctx, st->id, &head);
    drop_head(st);
}

static void on_request_headers(struct h2_session *s, struct stream *st, bool end)
{
    if (st->head->too_large)
        refuse_large(s, st, end);
    else
        show_request(s, st, end);
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct h2_session *s = ctx;
    struct stream *st = frame->hd.stream_id ? find(s, frame->hd.stream_id) : NULL;
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;

    if (!st)
        return 0;
    switch (frame->hd.type) {
    case NGHTTP2_RST_STREAM:
        st->reset_by_peer = true;
        return 0;
    case NGHTTP2_HEADERS:
        if (st->head)
            on_request_headers(s, st, end);
        break;
    case NGHTTP2_DATA:
        break;
    default:
        return 0;
    }
    if (end && st->shown && !st->reset && !st->stop)
        s->ops->on_end(s->ctx, st->id);
    return 0;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *ctx)
{
    struct h2_session *s = ctx;
    struct stream *st = find(s, id);

    if (!st || !st->shown || st->reset || st->stop) {
        must(nghttp2_session_consume(ng, id, n));
        return 0;
    }
    st->unconsumed += n;
    s->ops->on_body(s->ctx, id, view_of(p, n));
    return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *ctx)
{
    struct h2_session *s = ctx;
    struct stream *st = find(s, id);

    if (!st)
        return 0;
    /* Not the peer's RST_STREAM, but its doing: a reset that it provoked (CVE-2025-8671). */
    if (code != NGHTTP2_NO_ERROR && !st->reset && !st->reset_by_peer)
        h2_meter_reset(&s->meter);
    if (code != NGHTTP2_NO_ERROR && !st->reset_by_peer && !(st->shown && st->reset))
        tell_refused(s);
    st->closing = true;
    if (st->shown)
        s->ops->on_closed(s->ctx, id, code);
    if (st->unconsumed)
        must(nghttp2_session_consume_connection(ng, st->unconsumed));
    must(nghttp2_session_set_stream_user_data(ng, id, NULL));
    stream_free(st);
    return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct h2_session *s = ctx;
    struct stream *st = frame->hd.stream_id ? find(s, frame->hd.stream_id) : NULL;

    if (st && (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        st->ended_out = true;
        if (st->stop)
            reset(s, st, NGHTTP2_NO_ERROR);
    }
    switch (frame->hd.type) {
    case NGHTTP2_DATA:
        h2_meter_data_sent(&s->meter);
        break;
    case NGHTTP2_RST_STREAM:
        /* Of a stream that was refused before it began. */
        if (!st)
            h2_meter_control(&s->meter);
        break;
    case NGHTTP2_GOAWAY:
        s->goaway_code = frame->goaway.error_code;
        break;
    default:
        break;
    }
    return 0;
}

/* ---- answers going out ---- */

static ssize_t read_body(nghttp2_session *ng, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *ctx)
{
    struct h2_session *s = ctx;
    struct stream *st = source->ptr;
    size_t n = TR_MIN(room, buf_len(&st->out));

    if (n == 0 && !st->ended) {
        st->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (n) {
        memcpy(to, buf_data(&st->out), n);
        buf_consume(&st->out, n);
    }
    if (!st->ended && buf_len(&st->out) < DRAIN_AT) {
        list_remove(&st->drain);
        list_append(&s->drains, &st->drain);
    }
    buf_release_if_empty(&st->out);
    if (!st->ended || buf_len(&st->out))
        return (ssize_t)n;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (st->trailers) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        must(nghttp2_submit_trailer(ng, id, st->trailers->nv, st->trailers->n));
    }
    return (ssize_t)n;
}

void h2_respond(struct h2_session *s, int32_t id, int status, const struct h1_field *fields,
                size_t n, bool end)
{
    struct stream *st = find(s, id);
    nghttp2_data_provider body = {.source.ptr = st, .read_callback = read_body};
    struct fields_out f;

    if (!st || st->reset || st->closing)
        return;
    ASSERT(status >= 100 && status <= 999 && !st->answered);
    fields_out_init(&f, status, fields, n);
    if (status < 200) {
        must(nghttp2_submit_headers(s->ng, NGHTTP2_FLAG_NONE, id, NULL, f.nv, f.n, NULL));
    } else {
        must(nghttp2_submit_response(s->ng, id, f.nv, f.n, end ? NULL : &body));
        st->answered = true;
        st->ended = end;
    }
    fields_out_fini(&f);
}

/* More is in `out`, or its end is known: let the library ask again. */
static void resume(struct h2_session *s, struct stream *st)
{
    if (!st->deferred)
        return;
    st->deferred = false;
    must(nghttp2_session_resume_data(s->ng, st->id));
}

size_t h2_write(struct h2_session *s, int32_t id, struct view piece, bool end)
{
    struct stream *st = find(s, id);

    if (!st || st->reset || st->closing)
        return 0;
    if (piece.n == 0 && !end)
        return buf_len(&st->out);
    ASSERT(st->answered && !st->ended);
    if (piece.n)
        buf_add(&st->out, piece.p, piece.n);
    st->ended = end;
    if (end)
        list_remove(&st->drain);
    resume(s, st);
    return buf_len(&st->out);
}

void h2_trailers(struct h2_session *s, int32_t id, const struct h1_field *fields, size_t n)
{
    struct stream *st = find(s, id);

    if (!st || st->reset || st->closing)
        return;
    ASSERT(st->answered && !st->ended);
    st->trailers = XNEW(struct fields_out);
    fields_out_init(st->trailers, 0, fields, n);
    st->ended = true;
    list_remove(&st->drain);
    resume(s, st);
}

void h2_reset(struct h2_session *s, int32_t id, uint32_t code)
{
    struct stream *st = find(s, id);

    if (st)
        reset(s, st, code);
}

void h2_consumed(struct h2_session *s, int32_t id, size_t n)
{
    struct stream *st = find(s, id);

    if (!st || st->closing)
        return;
    ASSERT(n <= st->unconsumed);
    st->unconsumed -= n;
    must(nghttp2_session_consume(s->ng, id, n));
}

/* ---- session ---- */

static void set_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
}

static void set_options(nghttp2_option *o)
{
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_outbound_ack(o, H2_MAX_CONTROL);
    nghttp2_option_set_max_settings(o, 16); /* entries of a frame; there are seven kinds */
}

static void submit_settings(nghttp2_session *ng)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, H2_MAX_STREAMS},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_MAX_HEADER_BYTES},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1}, /* RFC 8441 */
        {SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };

    must(nghttp2_submit_settings(ng, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)));
    must(nghttp2_session_set_local_window_size(ng, NGHTTP2_FLAG_NONE, 0, H2_CONN_WINDOW));
}

struct h2_session *h2_server_new(const struct h2_ops *ops, void *ctx)
{
    struct h2_session *s = XNEW(struct h2_session);
    nghttp2_session_callbacks *cb;
    nghttp2_option *option;

    s->ops = ops;
    s->ctx = ctx;
    list_init(&s->streams);
    list_init(&s->drains);
    must(nghttp2_session_callbacks_new(&cb));
    must(nghttp2_option_new(&option));
    set_callbacks(cb);
    set_options(option);
    must(nghttp2_session_server_new2(&s->ng, cb, s, option));
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    submit_settings(s->ng);
    return s;
}

void h2_free(struct h2_session **sp)
{
    struct h2_session *s = *sp;
    struct stream *st;

    if (!s)
        return;
    *sp = NULL;
    ASSERT(s->inside == 0);
    nghttp2_session_del(s->ng);
    while ((st = list_first(&s->streams, struct stream, link)))
        stream_free(st);
    buf_fini(&s->out);
    xfree(s);
}

/* Take from the library what it has to send, up to about a write. */
static void collect(struct h2_session *s)
{
    s->inside++;
    while (buf_len(&s->out) < OUT_PIECE) {
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(s->ng, &p);

        if (n < 0)
            s->failed = true;
        if (n <= 0)
            break;
        buf_add(&s->out, p, (size_t)n);
    }
    s->inside--;
}

static int fail(struct h2_session *s, enum err_code code, const char *why, struct err *e)
{
    s->failed = true;
    return err_set(e, code, "%s", why);
}

/* Say why and break off. */
static void calm_down(struct h2_session *s)
{
    must(nghttp2_session_terminate_session(s->ng, NGHTTP2_ENHANCE_YOUR_CALM));
    s->failed = true;
    collect(s);
}

static int check_after_feed(struct h2_session *s, ssize_t r, struct err *e)
{
    if (r == NGHTTP2_ERR_BAD_CLIENT_MAGIC)
        return fail(s, ERR_INVALID, nghttp2_strerror((int)r), e);
    if (r < 0) { /* limits of the library's own: answers unread, continuations, settings */
        calm_down(s);
        return err_set(e, ERR_LIMIT, "%s", nghttp2_strerror((int)r));
    }
    collect(s);
    /* The library found fault with the connection by itself. */
    if (s->goaway_code != NGHTTP2_NO_ERROR)
        return fail(s, s->goaway_code == NGHTTP2_ENHANCE_YOUR_CALM ? ERR_LIMIT : ERR_INVALID,
                    nghttp2_http2_strerror(s->goaway_code), e);
    if (nghttp2_session_get_outbound_queue_size(s->ng) > MAX_QUEUED_FRAMES) {
        calm_down(s);
        return err_set(e, ERR_LIMIT, "more than %d frames wait to be sent", MAX_QUEUED_FRAMES);
    }
    return 0;
}

int h2_feed(struct h2_session *s, struct view in, int64_t now_ns, struct err *e)
{
    ssize_t r;

    ASSERT(s->inside == 0);
    if (s->failed)
        return err_set(e, ERR_CLOSED, "the connection was broken off");
    if (h2_meter_feed(&s->meter, in, now_ns, e) != 0) {
        calm_down(s);
        return -1;
    }
    s->inside++;
    r = nghttp2_session_mem_recv(s->ng, (const uint8_t *)in.p, in.n);
    s->inside--;
    return check_after_feed(s, r, e);
}

struct view h2_pull(struct h2_session *s)
{
    if (s->inside)
        return VIEW_NONE; /* from a callback: after it */
    collect(s);
    return buf_view(&s->out);
}

void h2_sent(struct h2_session *s, size_t n)
{
    struct stream *st;
    struct list due;

    buf_consume(&s->out, n);
    buf_release_if_empty(&s->out);
    list_init(&due);
    list_move_all(&due, &s->drains);
    while ((st = list_first(&due, struct stream, drain))) {

        list_remove(&st->drain);
        if (st->shown && buf_len(&st->out) < DRAIN_AT)
            s->ops->on_drain(s->ctx, st->id);
    }
}

void h2_goaway(struct h2_session *s)
{
    if (s->goaway || s->failed)
        return;
    s->goaway = true;
    must(nghttp2_submit_goaway(s->ng, NGHTTP2_FLAG_NONE,
                               nghttp2_session_get_last_proc_stream_id(s->ng), NGHTTP2_NO_ERROR,
                               NULL, 0));
}

bool h2_idle(const struct h2_session *s)
{
    return list_empty(&s->streams);
}

bool h2_done(const struct h2_session *s)
{
    if (buf_len(&s->out) || nghttp2_session_want_write(s->ng))
        return false;
    return s->failed || !nghttp2_session_want_read(s->ng);
}
