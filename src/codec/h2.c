#include "codec/h2_priv.h"

#include "base/xmem.h"

enum {
    OUT_PIECE = 64 * 1024, /* collected for one write */
    DRAIN_AT = H2_STREAM_WINDOW / 4,
    MIN_FRAME_COST = 64, /* of a frame that waits to be sent, at the least */
    MAX_QUEUED_FRAMES = H2_MAX_QUEUED_OUT / MIN_FRAME_COST,
};

struct h2_stream *h2_find(const struct h2_session *s, int32_t id)
{
    struct hnode *n;

    if (!s->client)
        return nghttp2_session_get_stream_user_data(s->ng, id);
    n = hmap_first(&s->by_id, (uint64_t)id);
    return n ? hmap_entry(n, struct h2_stream, node) : NULL;
}

/* ---- streams ---- */

struct h2_stream *h2_stream_new(struct h2_session *s)
{
    struct h2_stream *st = XNEW(struct h2_stream);

    list_append(&s->streams, &st->link);
    s->n_streams++;
    list_init(&st->drain);
    return st;
}

static void drop_answer(struct h2_stream *st)
{
    buf_fini(&st->out);
    if (st->trailers)
        h2_fields_fini(st->trailers);
    XFREE(st->trailers);
    list_remove(&st->drain);
}

void h2_stream_free(struct h2_session *s, struct h2_stream *st)
{
    h2_head_drop(st);
    drop_answer(st);
    list_remove(&st->link);
    s->n_streams--;
    if (s->client)
        hmap_remove(&s->by_id, &st->node);
    xfree(st);
}

void h2_stream_reset(struct h2_session *s, struct h2_stream *st, uint32_t code)
{
    if (st->reset || st->closing)
        return;
    if (code == NGHTTP2_NO_ERROR && st->answered && st->ended && !st->ended_out) {
        st->stop = true;
        return;
    }
    st->reset = true;
    drop_answer(st);
    h2_must(nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, st->id, code));
}

/* ---- coming in ---- */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct h2_session *s = ctx;
    struct h2_stream *st;
    bool request;

    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    request = frame->headers.cat == NGHTTP2_HCAT_REQUEST;
    st = request ? h2_stream_new(s) : h2_find(s, frame->hd.stream_id);
    if (request) {
        st->id = frame->hd.stream_id;
        h2_must(nghttp2_session_set_stream_user_data(ng, st->id, st));
    }
    if (st && !st->head && (request || s->client || s->ops->on_trailers))
        st->head = h2_head_new(request);
    return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *ctx)
{
    struct h2_stream *st = h2_find(ctx, frame->hd.stream_id);

    if (st && st->head)
        h2_head_take(st->head, view_of(name, name_n), view_of(value, value_n));
    return 0;
}

/* Not to be left out in silence, as the library would: the next hop might see it otherwise. */
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                             size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags,
                             void *ctx)
{
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct h2_session *s = ctx;
    struct h2_stream *st = frame->hd.stream_id ? h2_find(s, frame->hd.stream_id) : NULL;
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;

    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK))
        s->ready = true;
    if (!st)
        return 0;
    switch (frame->hd.type) {
    case NGHTTP2_RST_STREAM:
        st->reset_by_peer = true;
        return 0;
    case NGHTTP2_HEADERS:
        if (st->head)
            (s->client ? h2_client_headers : h2_server_headers)(s, st, end);
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
    struct h2_stream *st = h2_find(s, id);

    if (!st || !st->shown || st->reset || st->stop) {
        h2_must(nghttp2_session_consume(ng, id, n));
        return 0;
    }
    st->unconsumed += n;
    s->ops->on_body(s->ctx, id, view_of(p, n));
    return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *ctx)
{
    struct h2_session *s = ctx;
    struct h2_stream *st = h2_find(s, id);

    if (!st)
        return 0;
    /* Not the peer's RST_STREAM, but its doing: a reset that it provoked (CVE-2025-8671). */
    if (code != NGHTTP2_NO_ERROR && !st->reset && !st->reset_by_peer)
        h2_meter_reset(&s->meter);
    if (code != NGHTTP2_NO_ERROR && !st->reset_by_peer && !(st->shown && st->reset))
        h2_server_refused(s);
    if (s->client && !st->begun && !st->reset)
        code = H2_REFUSED_STREAM; /* a GOAWAY came before it went out */
    st->closing = true;
    if (st->shown)
        s->ops->on_closed(s->ctx, id, code);
    if (st->unconsumed)
        h2_must(nghttp2_session_consume_connection(ng, st->unconsumed));
    if (!s->client)
        h2_must(nghttp2_session_set_stream_user_data(ng, id, NULL));
    h2_stream_free(s, st);
    return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct h2_session *s = ctx;
    struct h2_stream *st = frame->hd.stream_id ? h2_find(s, frame->hd.stream_id) : NULL;

    if (st)
        st->begun = true;
    if (st && (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        st->ended_out = true;
        if (st->stop)
            h2_stream_reset(s, st, NGHTTP2_NO_ERROR);
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

ssize_t h2_read_body(nghttp2_session *ng, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                     nghttp2_data_source *source, void *ctx)
{
    struct h2_session *s = ctx;
    struct h2_stream *st = source->ptr;
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
        h2_must(nghttp2_submit_trailer(ng, id, st->trailers->nv, st->trailers->n));
    }
    return (ssize_t)n;
}

/* More is in `out`, or its end is known: let the library ask again. */
static void resume(struct h2_session *s, struct h2_stream *st)
{
    if (!st->deferred)
        return;
    st->deferred = false;
    h2_must(nghttp2_session_resume_data(s->ng, st->id));
}

size_t h2_write(struct h2_session *s, int32_t id, struct view piece, bool end)
{
    struct h2_stream *st = h2_find(s, id);

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
    struct h2_stream *st = h2_find(s, id);

    if (!st || st->reset || st->closing)
        return;
    ASSERT(st->answered && !st->ended);
    st->trailers = XNEW(struct h2_fields);
    h2_fields_init(st->trailers, fields, n, 0);
    h2_fields_add_all(st->trailers, fields, n);
    st->ended = true;
    list_remove(&st->drain);
    resume(s, st);
}

void h2_reset(struct h2_session *s, int32_t id, uint32_t code)
{
    struct h2_stream *st = h2_find(s, id);

    if (st)
        h2_stream_reset(s, st, code);
}

void h2_consumed(struct h2_session *s, int32_t id, size_t n)
{
    struct h2_stream *st = h2_find(s, id);

    if (!st || st->closing)
        return;
    ASSERT(n <= st->unconsumed);
    st->unconsumed -= n;
    h2_must(nghttp2_session_consume(s->ng, id, n));
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

static void set_options(nghttp2_option *o, bool client)
{
    /* gRPC's messages may end with a space (its percent-encoding leaves it): not a reason to lose
     * the status of a call. */
    if (client)
        nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(o, 1);
    /* What was read can be sent: the library counts more for each field. */
    nghttp2_option_set_max_send_header_block_length(o, (size_t)2 * H2_MAX_HEADER_BYTES);
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_outbound_ack(o, H2_MAX_CONTROL);
    nghttp2_option_set_max_settings(o, 16); /* entries of a frame; there are seven kinds */
}

/* Its tables of fields hold credentials: they are overwritten as what we free is. */
static void *ng_malloc(size_t n, void *ctx)
{
    (void)ctx;
    return xmalloc(n);
}

static void ng_free(void *p, void *ctx)
{
    (void)ctx;
    xfree(p);
}

static void *ng_calloc(size_t count, size_t size, void *ctx)
{
    (void)ctx;
    return xcalloc(count, size);
}

static void *ng_realloc(void *p, size_t n, void *ctx)
{
    (void)ctx;
    return xrealloc(p, n);
}

struct h2_session *h2_session_new(const struct h2_ops *ops, void *ctx, bool client)
{
    struct h2_session *s = XNEW(struct h2_session);
    nghttp2_session_callbacks *cb;
    nghttp2_option *option;
    nghttp2_mem mem = {NULL, ng_malloc, ng_free, ng_calloc, ng_realloc};

    s->ops = ops;
    s->ctx = ctx;
    s->client = client;
    list_init(&s->streams);
    list_init(&s->drains);
    h2_must(nghttp2_session_callbacks_new(&cb));
    h2_must(nghttp2_option_new(&option));
    set_callbacks(cb);
    set_options(option, client);
    h2_must((client ? nghttp2_session_client_new3 : nghttp2_session_server_new3)(&s->ng, cb, s,
                                                                                 option, &mem));
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    return s;
}

void h2_free(struct h2_session **sp)
{
    struct h2_session *s = *sp;
    struct h2_stream *st;

    if (!s)
        return;
    *sp = NULL;
    ASSERT(s->inside == 0);
    nghttp2_session_del(s->ng);
    while ((st = list_first(&s->streams, struct h2_stream, link)))
        h2_stream_free(s, st);
    hmap_fini(&s->by_id);
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
    h2_must(nghttp2_session_terminate_session(s->ng, NGHTTP2_ENHANCE_YOUR_CALM));
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
    if (!s->client && h2_meter_feed(&s->meter, in, now_ns, e) != 0) {
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
    struct h2_stream *st;
    struct list due;

    buf_consume(&s->out, n);
    buf_release_if_empty(&s->out);
    list_init(&due);
    list_move_all(&due, &s->drains);
    while ((st = list_first(&due, struct h2_stream, drain))) {

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
    h2_must(nghttp2_submit_goaway(s->ng, NGHTTP2_FLAG_NONE,
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

size_t h2_held(const struct h2_session *s)
{
    size_t n = s->out.cap;

    for (const struct list *it = s->streams.next; it != &s->streams; it = it->next) {
        const struct h2_stream *st = list_entry(it, struct h2_stream, link);

        n += st->out.cap + st->unconsumed + (st->head ? st->head->text.cap : 0);
    }
    return n;
}
