#include "codec/h2_priv.h"

static int parse_status(struct view v)
{
    if (v.n != 3 || v.p[0] < '1' || v.p[0] > '9' || v.p[1] < '0' || v.p[1] > '9' || v.p[2] < '0' ||
        v.p[2] > '9')
        return -1;
    return (v.p[0] - '0') * 100 + (v.p[1] - '0') * 10 + (v.p[2] - '0');
}

static void show_head(struct h2_session *s, struct h2_stream *st, bool end)
{
    struct h1_field fields[H1_MAX_FIELDS];
    struct h2_head head = {
        .fields = fields,
        .n_fields = h2_head_fields(st->head, fields),
        .content_length = st->head->content_length,
        .end_stream = end,
        .status = parse_status(h2_head_pseudo(st->head, P_STATUS)),
    };

    if (st->headed) {
        if (s->ops->on_trailers)
            s->ops->on_trailers(s->ctx, st->id, fields, head.n_fields);
        return;
    }
    if (head.status < 0 || (head.status < 200 && ++st->interim > H2_MAX_INTERIM)) {
        h2_stream_reset(s, st, H2_PROTOCOL_ERROR);
        return;
    }
    if (head.status < 200)
        return;
    st->headed = true;
    s->ops->on_response(s->ctx, st->id, &head);
}

void h2_client_headers(struct h2_session *s, struct h2_stream *st, bool end)
{
    if (st->head->bad || st->head->too_large)
        h2_stream_reset(s, st, H2_PROTOCOL_ERROR);
    else if (!st->reset)
        show_head(s, st, end);
    h2_head_drop(st);
}

bool h2_ready(const struct h2_session *s)
{
    return s->ready;
}

bool h2_accepts(const struct h2_session *s)
{
    return !s->failed && !s->goaway && nghttp2_session_check_request_allowed(s->ng);
}

bool h2_may_request(const struct h2_session *s)
{
    uint32_t most =
        nghttp2_session_get_remote_settings(s->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);

    return s->ready && h2_accepts(s) && s->n_streams < TR_MIN(most, (uint32_t)H2_RPC_STREAMS);
}

int32_t h2_request(struct h2_session *s, const struct h2_head *head)
{
    struct h2_stream *st = h2_stream_new(s);
    nghttp2_data_provider body = {.source.ptr = st, .read_callback = h2_read_body};
    struct h2_fields f;

    ASSERT(s->client && !s->failed);
    h2_fields_init(&f, head->fields, head->n_fields,
                   sizeof(":method:scheme:authority:path") + head->method.n + head->scheme.n +
                       head->authority.n + head->path.n);
    h2_fields_add(&f, VIEW_LIT(":method"), head->method);
    h2_fields_add(&f, VIEW_LIT(":scheme"), head->scheme);
    h2_fields_add(&f, VIEW_LIT(":authority"), head->authority);
    h2_fields_add(&f, VIEW_LIT(":path"), head->path);
    h2_fields_add_all(&f, head->fields, head->n_fields);
    st->id = nghttp2_submit_request(s->ng, NULL, f.nv, f.n, head->end_stream ? NULL : &body, st);
    h2_fields_fini(&f);
    ASSERT(st->id > 0);
    st->shown = st->answered = true;
    st->ended = head->end_stream;
    hmap_insert(&s->by_id, &st->node, (uint64_t)st->id);
    return st->id;
}

void h2_give_up(struct h2_session *s, int32_t id)
{
    struct h2_stream *st = h2_find(s, id);

    if (st && !st->ended_out)
        h2_stream_reset(s, st, H2_CANCEL);
}

struct h2_session *h2_client_new(const struct h2_ops *ops, void *ctx)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_RPC_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_MAX_HEADER_BYTES},
        {H2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    struct h2_session *s = h2_session_new(ops, ctx, true);

    h2_must(nghttp2_submit_settings(s->ng, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)));
    h2_must(nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, 0, H2_RPC_CONN_WINDOW));
    return s;
}
