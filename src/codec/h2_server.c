#include "codec/h2_priv.h"

#include <stdio.h>

void h2_server_refused(struct h2_session *s)
{
    if (s->ops->on_refused)
        s->ops->on_refused(s->ctx);
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

static void refuse_large(struct h2_session *s, struct h2_stream *st, bool end)
{
    h2_head_drop(st);
    h2_server_refused(s);
    h2_respond(s, st->id, 431, NULL, 0, true);
    if (!end)
        h2_stream_reset(s, st, H2_NO_ERROR);
}

static void show_request(struct h2_session *s, struct h2_stream *st, bool end)
{
    struct h1_field fields[H1_MAX_FIELDS];
    struct h2_head_in *h = st->head;
    struct h2_head head = {
        .method = h2_head_pseudo(h, P_METHOD),
        .scheme = h2_head_pseudo(h, P_SCHEME),
        .authority = h2_head_pseudo(h, P_AUTHORITY),
        .path = h2_head_pseudo(h, P_PATH),
        .protocol = h2_head_pseudo(h, P_PROTOCOL),
        .fields = fields,
        .n_fields = h2_head_fields(h, fields),
        .content_length = h->content_length,
        .end_stream = end,
    };

    if (h->bad || !head_ok(&head, view_is(head.method, "CONNECT"))) {
        h2_head_drop(st);
        h2_meter_reset(&s->meter);
        h2_stream_reset(s, st, H2_PROTOCOL_ERROR);
        return;
    }
    st->shown = true;
    s->ops->on_request(s->ctx, st->id, &head);
    h2_head_drop(st);
}

static void show_trailers(struct h2_session *s, struct h2_stream *st)
{
    struct h1_field fields[H1_MAX_FIELDS];
    struct h2_head_in *h = st->head;
    size_t n = h2_head_fields(h, fields);

    if (h->bad || h->too_large) {
        h2_head_drop(st);
        h2_meter_reset(&s->meter);
        h2_stream_reset(s, st, H2_PROTOCOL_ERROR);
        return;
    }
    if (!st->reset && !st->stop)
        s->ops->on_trailers(s->ctx, st->id, fields, n);
    h2_head_drop(st);
}

void h2_server_headers(struct h2_session *s, struct h2_stream *st, bool end)
{
    if (st->shown)
        show_trailers(s, st);
    else if (st->head->too_large)
        refuse_large(s, st, end);
    else
        show_request(s, st, end);
}

void h2_respond(struct h2_session *s, int32_t id, int status, const struct h1_field *fields,
                size_t n, bool end)
{
    struct h2_stream *st = h2_find(s, id);
    nghttp2_data_provider body = {.source.ptr = st, .read_callback = h2_read_body};
    struct h2_fields f;
    char digits[12];

    if (!st || st->reset || st->closing)
        return;
    ASSERT(status >= 100 && status <= 999 && !st->answered && !s->client);
    snprintf(digits, sizeof(digits), "%03d", status);
    h2_fields_init(&f, fields, n, sizeof(":status") + sizeof(digits));
    h2_fields_add(&f, VIEW_LIT(":status"), view_of(digits, 3));
    h2_fields_add_all(&f, fields, n);
    if (status < 200) {
        h2_must(nghttp2_submit_headers(s->ng, NGHTTP2_FLAG_NONE, id, NULL, f.nv, f.n, NULL));
    } else {
        h2_must(nghttp2_submit_response(s->ng, id, f.nv, f.n, end ? NULL : &body));
        st->answered = true;
        st->ended = end;
    }
    h2_fields_fini(&f);
}

static struct h2_session *server_new(const struct h2_ops *ops, void *ctx, bool rpc)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, rpc ? H2_RPC_STREAMS : H2_MAX_STREAMS},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, rpc ? H2_RPC_WINDOW : H2_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_MAX_HEADER_BYTES},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1}, /* RFC 8441 */
        {H2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    struct h2_session *s = h2_session_new(ops, ctx, false);

    if (rpc)
        s->meter.max_resets = H2_RPC_MAX_RESETS;
    h2_must(nghttp2_submit_settings(s->ng, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)));
    h2_must(nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, 0,
                                                  rpc ? H2_RPC_CONN_WINDOW : H2_CONN_WINDOW));
    return s;
}

struct h2_session *h2_server_new(const struct h2_ops *ops, void *ctx)
{
    return server_new(ops, ctx, false);
}

struct h2_session *h2_rpc_server_new(const struct h2_ops *ops, void *ctx)
{
    return server_new(ops, ctx, true);
}
