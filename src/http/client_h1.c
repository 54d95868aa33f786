/* One connection of the client: the request out, the answer in, and raw bytes both ways after a
 * 101. */
#include "http/client_priv.h"

#include "base/bug.h"
#include "base/xmem.h"

enum { SETTLE_ROUNDS = 4 };

struct client_conn *client_conn_new(struct http_call *call, struct net_stream *s)
{
    struct client_conn *cc = XNEW(struct client_conn);

    OBJ_INIT(cc, CLIENT_CONN_MAGIC);
    cc->client = call->client;
    cc->origin = call->origin;
    cc->origin->refs++;
    cc->s = s;
    list_append(&cc->client->conns, &cc->link);
    list_init(&cc->idle);
    list_init(&cc->dirty);
    http_wait_init(&cc->wait);
    net_stream_bind(s, &client_stream_ops, cc);
    return cc;
}

void client_conn_close(struct client_conn *cc)
{
    struct http_client *c = cc->client;

    OBJ_CHECK(cc, CLIENT_CONN_MAGIC);
    ASSERT(!cc->call);
    if (!list_empty(&cc->idle)) {
        list_remove(&cc->idle);
        cc->origin->n_idle--;
    }
    list_remove(&cc->link);
    list_remove(&cc->dirty);
    http_wait_off(&cc->wait);
    net_stream_close(&cc->s, cc->hard);
    client_origin_unref(c, &cc->origin);
    buf_fini(&cc->in);
    str_fini(&cc->out);
    xfree(cc->parser);
    OBJ_FINI(cc);
    xfree(cc);
}

static void want_read(struct client_conn *cc, bool on)
{
    if (cc->reading != on) {
        cc->reading = on;
        net_want_read(cc->s, on);
    }
}

void client_conn_attach(struct client_conn *cc, struct http_call *call)
{
    cc->call = call;
    call->conn = cc;
    if (!cc->parser)
        cc->parser = xmalloc(sizeof *cc->parser);
    h1_init(cc->parser, H1_RESPONSE);
    cc->parser->head_only = call->head_method;
    cc->interim = 0;
    cc->skipping = cc->sent = cc->begun = cc->head_done = cc->keep = false;
    ASSERT(!client_queued(cc) && !cc->unconsumed);
    str_fini(&cc->out);
    cc->out = call->out;
    cc->out_off = 0;
    call->out = STR_INIT;
    cc->high = cc->out.n > HTTP_WRITE_HIGH;
    http_wait_put(&cc->client->waits, CWAIT_HEAD, &cc->wait);
    want_read(cc, true);
    client_conn_dirty(cc);
}

static bool request_complete(const struct client_conn *cc)
{
    return (cc->call->finished || cc->call->left == 0) && !client_queued(cc);
}

/* --- the answer --- */

static void protocol_error(struct client_conn *cc, const char *why)
{
    struct err e;

    err_set(&e, ERR_INVALID, "malformed answer: %s", why);
    client_call_failed(cc, &e);
}

/* `clean`: nothing came behind the answer, which would be taken for the answer to the next
 * request. */
static void answer_end(struct client_conn *cc, bool clean)
{
    struct http_call *call = cc->call;
    bool reusable = clean && cc->keep && request_complete(cc) && !cc->over;

    /* The request may still be going out: nobody wants the rest of it (RFC 9112 §9.5). */
    str_fini(&cc->out);
    cc->out_off = 0;
    cc->unconsumed = 0;
    cc->call = NULL;
    call->conn = NULL;
    call->done = true;
    XFREE(cc->parser);
    http_wait_off(&cc->wait);
    if (reusable)
        client_conn_release(cc);
    else
        client_conn_fail(cc, false);
    if (call->ops.on_end)
        call->ops.on_end(call->ctx);
}

/* Length as the owner is told: -1 unknown, 0 none. */
static int64_t answer_length(const struct h1_head *head)
{
    if (head->content_length >= 0)
        return head->content_length;
    return head->status == 204 || head->status == 304 ? 0 : -1;
}

/* Between us and the parent: our client could do nothing about it. */
static void parent_wants_credentials(struct client_conn *cc)
{
    struct err e;

    err_set(&e, ERR_UNAVAIL, "the parent %s:%u answered with status 407 (it asks for credentials)",
            cc->origin->parent->host, cc->origin->parent->port);
    client_call_failed(cc, &e);
}

static void on_final_head(struct client_conn *cc)
{
    struct http_call *call = cc->call;
    const struct h1_head *head = &cc->parser->head;
    bool tunnel =
        head->status == 101 || (call->connect_method && head->status >= 200 && head->status < 300);

    if (head->status == 101 && !call->upgrade) {
        protocol_error(cc, "it switches protocols unasked");
        return;
    }
    if (head->status == 407 && cc->origin->absolute) {
        parent_wants_credentials(cc);
        return;
    }
    cc->head_done = true;
    cc->tunnel = tunnel;
    cc->keep = head->keep_alive && !tunnel;
    http_wait_off(&cc->wait);
    if (call->ops.on_head)
        call->ops.on_head(call->ctx, head->status, head->fields, head->n_fields,
                          tunnel ? -1 : answer_length(head));
}

static void on_head(struct client_conn *cc)
{
    int status = cc->parser->head.status;

    if (status >= 200 || status == 101) {
        on_final_head(cc);
    } else if (++cc->interim > CLIENT_INTERIM_MAX) {
        protocol_error(cc, "too many interim answers");
    } else {
        cc->skipping = true;
    }
}

static void give_body(struct client_conn *cc, struct view piece)
{
    struct http_call *call = cc->call;

    if (!piece.n || !call->ops.on_body)
        return;
    cc->unconsumed += piece.n;
    call->ops.on_body(call->ctx, piece);
}

static bool is_hungry(const struct client_conn *cc)
{
    return cc->call && !cc->over && !cc->tunnel && cc->unconsumed < CLIENT_WINDOW;
}

static size_t take_raw(struct client_conn *cc, struct view in)
{
    size_t n;

    if (!cc->call || cc->over)
        return in.n;
    n = TR_MIN(in.n, CLIENT_WINDOW - TR_MIN(cc->unconsumed, (size_t)CLIENT_WINDOW));
    give_body(cc, view_of(in.p, n));
    return n;
}

/* Parse and hand out; returns how much of `in` is done with. */
static size_t take_in(struct client_conn *cc, struct view in)
{
    size_t total = 0;

    while (is_hungry(cc)) {
        struct view body = VIEW_NONE;
        size_t used = 0;
        struct err e;
        enum h1_event ev = h1_next(cc->parser, view_from(in, total), &used, &body, &e);

        total += used;
        if (ev == H1_MORE)
            break;
        if (ev == H1_HEAD)
            on_head(cc);
        else if (ev == H1_BODY)
            give_body(cc, body);
        else if (ev == H1_ERROR)
            protocol_error(cc, e.text);
        else if (cc->skipping)
            cc->skipping = false;
        else {
            answer_end(cc, total == in.n);
            return in.n; /* there may be another call on it already */
        }
    }
    if (cc->tunnel) {
        XFREE(cc->parser); /* there may be thousands of these */
        total += take_raw(cc, view_from(in, total));
    }
    return cc->call ? total : in.n;
}

static void on_eof(struct client_conn *cc)
{
    cc->eof = true; /* the call is told when what came before it is given out */
    if (!cc->call)
        client_conn_fail(cc, false);
}

/* The end was read, and all that came before it is given out. */
static void take_eof(struct client_conn *cc)
{
    struct err e;

    buf_clear(&cc->in);
    if (cc->tunnel) {
        cc->eof_given = true;
        if (cc->call->ops.on_end)
            cc->call->ops.on_end(cc->call->ctx);
    } else if (cc->head_done && h1_eof_ok(cc->parser)) {
        answer_end(cc, false);
    } else {
        err_set(&e, ERR_CLOSED, "the connection was closed before the answer was complete");
        client_call_failed(cc, &e);
    }
}

/* One read. False: nothing there. */
static bool read_some(struct client_conn *cc)
{
    struct http_client *c = cc->client;
    bool direct = !buf_len(&cc->in);
    size_t room = direct ? CLIENT_SCRATCH : CLIENT_SCRATCH / 4, used;
    struct view in;
    struct err e;
    uint8_t *p;
    ssize_t n;

    if (direct && !c->scratch)
        c->scratch = xmalloc(CLIENT_SCRATCH);
    p = direct ? c->scratch : buf_reserve(&cc->in, room);
    n = net_read(cc->s, p, room, &e);
    if (n == NET_AGAIN)
        return false;
    if (n == NET_ERROR) {
        client_call_failed(cc, &e);
        return false;
    }
    if (n == 0) {
        on_eof(cc);
        return false;
    }
    if (!cc->call) { /* an idle connection has nothing to say */
        client_conn_fail(cc, false);
        return false;
    }
    cc->begun = true;
    if (!direct)
        buf_commit(&cc->in, (size_t)n);
    in = direct ? view_of(p, (size_t)n) : buf_view(&cc->in);
    used = take_in(cc, in);
    if (!direct)
        buf_consume(&cc->in, TR_MIN(used, buf_len(&cc->in)));
    else if (used < in.n)
        buf_add(&cc->in, in.p + used, in.n - used);
    return true;
}

/* --- the request --- */

/* Give back or close up what is sent. */
static void tidy_out(struct client_conn *cc)
{
    if (!client_queued(cc)) {
        cc->out_off = 0;
        if (cc->call && request_complete(cc) && !cc->tunnel)
            str_fini(&cc->out);
        else
            str_clear(&cc->out);
    } else if (cc->out_off > CLIENT_SCRATCH && cc->out_off > cc->out.n / 2) {
        memmove(cc->out.p, cc->out.p + cc->out_off, client_queued(cc));
        cc->out.n -= cc->out_off;
        cc->out_off = 0;
    }
}

/* A body is going out and nothing was heard yet. */
static bool sends_body(const struct client_conn *cc)
{
    return cc->call && cc->sent && !cc->tunnel && !cc->head_done;
}

static void flush(struct client_conn *cc)
{
    bool moved = false;
    struct err e;

    /* An answer may be here before the body is all out, and after a failed write it could not be
     * read any more. */
    if (sends_body(cc) && client_queued(cc) && !cc->blocked)
        read_some(cc);
    while (client_queued(cc) && !cc->blocked && !cc->over) {
        ssize_t n = net_write(cc->s, cc->out.p + cc->out_off, client_queued(cc), &e);

        if (n == NET_ERROR) {
            client_call_failed(cc, &e);
            return;
        }
        if (n == NET_AGAIN || (size_t)n < client_queued(cc))
            cc->blocked = true;
        if (n > 0) {
            cc->out_off += (size_t)n;
            cc->sent = moved = true;
        }
    }
    tidy_out(cc);
    if (moved && cc->call && !cc->head_done)
        http_wait_put(&cc->client->waits, CWAIT_HEAD, &cc->wait);
}

/* Go on with what waits. True: something happened. */
static bool advance(struct client_conn *cc)
{
    size_t used = 0;

    if (cc->call && cc->high && client_queued(cc) < HTTP_WRITE_HIGH / 4) {
        cc->high = false;
        if (cc->call->ops.on_drain)
            cc->call->ops.on_drain(cc->call->ctx);
    }
    if (cc->call && (buf_len(&cc->in) || (cc->head_done && is_hungry(cc) && !cc->eof))) {
        used = take_in(cc, buf_view(&cc->in));
        buf_consume(&cc->in, TR_MIN(used, buf_len(&cc->in)));
    }
    if (cc->call && cc->eof && !cc->eof_given && (!buf_len(&cc->in) || is_hungry(cc)))
        take_eof(cc);
    return used || (client_queued(cc) && !cc->blocked);
}

static void tunnel_ends(struct client_conn *cc)
{
    bool fin = cc->last || (cc->call && cc->call->fin);

    if (!fin || client_queued(cc) || cc->over)
        return;
    if (!cc->fin_sent) {
        cc->fin_sent = true;
        net_shutdown_write(cc->s);
    }
    if (cc->last)
        client_conn_fail(cc, false);
}

static bool wants_read(const struct client_conn *cc)
{
    if (cc->eof || cc->last)
        return false;
    if (!cc->call)
        return true; /* idle: to see it closed */
    if (cc->tunnel && buf_len(&cc->in))
        return false;
    return cc->unconsumed < CLIENT_WINDOW; /* what else is kept is a line that is not whole */
}

void client_conn_settle(struct client_conn *cc)
{
    bool again = true;

    OBJ_CHECK(cc, CLIENT_CONN_MAGIC);
    ASSERT(!cc->running);
    cc->running = true;
    for (int round = 0; again && round < SETTLE_ROUNDS && !cc->over; round++) {
        flush(cc);
        again = !cc->over && advance(cc);
    }
    if (!cc->over && cc->tunnel)
        tunnel_ends(cc);
    cc->running = false;
    if (cc->over) {
        struct err e;

        err_set(&e, ERR_CLOSED, "the connection was broken off");
        if (cc->call)
            client_call_failed(cc, &e);
        client_conn_close(cc);
        return;
    }
    want_read(cc, wants_read(cc));
    if (!cc->call)
        buf_fini(&cc->in);
    if (again)
        client_conn_dirty(cc);
}

/* --- the stream's callbacks --- */

static void on_readable(void *ctx)
{
    struct client_conn *cc = ctx;

    OBJ_CHECK(cc, CLIENT_CONN_MAGIC);
    cc->running = true;
    read_some(cc);
    cc->running = false;
    client_conn_settle(cc);
}

static void on_writable(void *ctx)
{
    struct client_conn *cc = ctx;

    OBJ_CHECK(cc, CLIENT_CONN_MAGIC);
    cc->blocked = false;
    client_conn_settle(cc);
}

static void on_failed(void *ctx, const struct err *e)
{
    struct client_conn *cc = ctx;

    OBJ_CHECK(cc, CLIENT_CONN_MAGIC);
    cc->running = true;
    client_call_failed(cc, e);
    cc->running = false;
    client_conn_settle(cc);
}

const struct net_stream_ops client_stream_ops = {
    .on_readable = on_readable,
    .on_writable = on_writable,
    .on_failed = on_failed,
};
