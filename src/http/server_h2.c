/*
 * HTTP/2 connections of the server, over codec/h2: exchanges for streams. An extended CONNECT (RFC
 * 8441) is shown as the HTTP/1.1 upgrade that it stands for, so that relays need not know.
 */
#include "codec/h2.h"

#include "base/bug.h"
#include "base/xmem.h"
#include "crypto/digest.h"
#include "http/server_priv.h"
#include "rt/log.h"
#include "rt/rng.h"

enum {
    SETTLE_ROUNDS = 4,
    STALL_LEAST = 16 * 1024, /* of an answer, taken in each write timeout: a window opened by single
                                bytes holds the rest of it in memory for ever */
    EXTRA_FIELDS = 5,        /* we add to a request or an answer */
};

struct h2_side {
    struct h2_session *s;
    struct hmap streams;
    struct list open;
    struct list over; /* streams that are closed; on_gone is owed when their bytes are sent */
    uint64_t sent;    /* bytes of output, ever */
    uint64_t pulled;  /* where the bytes that h2_pull gave last end */
    bool closing;     /* close when all is sent */
    bool goaway;
    bool drains; /* some exchange has drain_due */
};

static uint64_t id_hash(int32_t id)
{
    return (uint64_t)(uint32_t)id * 0x9e3779b97f4a7c15ULL;
}

static struct http_exchange *find(struct h2_side *h, int32_t id)
{
    uint64_t hash = id_hash(id);

    for (struct hnode *n = hmap_first(&h->streams, hash); n; n = hmap_next(n, hash)) {
        struct http_exchange *ex = hmap_entry(n, struct http_exchange, node);

        if (ex->id == id)
            return ex;
    }
    return NULL;
}

/* --- requests --- */

/* Copies text behind the fields of an exchange. */
struct copier {
    char *at;
};

static struct view copy(struct copier *to, struct view v)
{
    struct view out = {to->at, v.n};

    if (v.n)
        memcpy(to->at, v.p, v.n);
    to->at += v.n;
    return out;
}

static size_t head_text(const struct h2_head *head, size_t extra)
{
    size_t n = head->method.n + head->authority.n + head->path.n + head->protocol.n + extra;

    for (size_t i = 0; i < head->n_fields; i++)
        n += head->fields[i].name.n + head->fields[i].value.n;
    return n;
}

/* What an HTTP/1.1 client would have sent along, and the next hop wants: Upgrade and, for
 * WebSocket, a key (RFC 6455 §4.1). */
static size_t add_upgrade(struct copier *to, struct h1_field *fields, struct view protocol)
{
    struct str key = STR_INIT;
    uint8_t nonce[16];
    size_t n = 0;

    fields[n++] = (struct h1_field){VIEW_LIT("upgrade"), copy(to, protocol)};
    if (!view_ieq(protocol, VIEW_LIT("websocket")))
        return n;
    rng_bytes(nonce, sizeof nonce);
    base64_encode(nonce, sizeof nonce, &key);
    fields[n++] = (struct h1_field){VIEW_LIT("sec-websocket-key"), copy(to, str_view(&key))};
    str_fini(&key);
    return n;
}

static void request_fill(struct http_exchange *ex, const struct h2_head *head)
{
    enum { KEY_TEXT = 24 };
    struct http_request *r = &ex->req;
    size_t n = head->n_fields;
    struct h1_field *fields =
        http_exchange_room(ex, (n + EXTRA_FIELDS) * sizeof *fields + head_text(head, KEY_TEXT));
    struct copier to = {(char *)(fields + n + EXTRA_FIELDS)};

    for (size_t i = 0; i < n; i++) {
        fields[i].name = copy(&to, head->fields[i].name);
        fields[i].value = copy(&to, head->fields[i].value);
    }
    r->upgrade = head->protocol.n > 0;
    ex->connect = !r->upgrade && view_is(head->method, "CONNECT");
    if (r->upgrade)
        n += add_upgrade(&to, fields + n, head->protocol);
    r->method = r->upgrade ? VIEW_LIT("GET") : copy(&to, head->method);
    r->authority = copy(&to, head->authority);
    r->target = ex->connect ? r->authority : copy(&to, head->path);
    r->fields = fields;
    r->n_fields = n;
    r->content_length = head->content_length;
    r->has_body = !head->end_stream && !r->upgrade && !ex->connect;
    r->expect_continue = false; /* it is not waited for in HTTP/2 by those who serve us */
    r->version = 20;
    r->tls = net_is_tls(ex->conn->s) || ex->conn->secure;
    r->peer = net_peer(ex->conn->s);
    r->identity = net_peer_name(ex->conn->s);
    if (!r->identity.n)
        r->identity = ex->conn->identity;
    r->listener = ex->conn->listener;
    r->tag = ex->conn->tag;
    r->start_ns = ev_now_ns(ex->conn->srv->loop);
}

/*
 * Does the body wait run as it should? The library opens a window when half of it is consumed, so
 * a client may have to wait for us once the handler holds the other half.
 */
static void set_body_wait(struct http_exchange *ex)
{
    bool on = !ex->conn->srv->o.rpc && ex->req.has_body && !ex->ended && !ex->dead &&
              ex->answer != ANSWER_WHOLE && ex->unconsumed < H2_STREAM_WINDOW / 2;

    if (on)
        http_exchange_want(ex);
    else
        http_wait_off(&ex->body);
}

static void on_request(void *ctx, int32_t id, const struct h2_head *head)
{
    struct http_conn *c = ctx;
    struct h2_side *h = c->h2;
    struct http_exchange *ex = http_exchange_new(c);

    c->srv->heads++;
    request_fill(ex, head);
    ex->id = id;
    hmap_insert(&h->streams, &ex->node, id_hash(id));
    list_append(&h->open, &ex->link);
    http_exchange_take(ex);
    if (ex->req.upgrade && !ex->dead && ex->answer == ANSWER_NONE)
        http_exchange_end(ex); /* as of a GET; the tunnel's end comes apart */
    set_body_wait(ex);
}

/* Bytes that nobody waits for. */
static void drop_body(struct h2_side *h, struct http_exchange *ex, size_t n)
{
    h2_consumed(h->s, ex->id, n);
    if (ex->answer == ANSWER_WHOLE && ex->received > HTTP_DROP_MAX)
        h2_reset(h->s, ex->id, H2_NO_ERROR);
}

static void on_body(void *ctx, int32_t id, struct view piece)
{
    struct http_conn *c = ctx;
    struct h2_side *h = c->h2;
    struct http_exchange *ex = find(h, id);

    if (!ex) {
        h2_consumed(h->s, id, piece.n);
        return;
    }
    if ((ex->connect || ex->req.upgrade) && ex->answer == ANSWER_NONE) {
        buf_add(&ex->early, piece.p, piece.n); /* at most a window's worth */
        return;
    }
    if (buf_len(&ex->early)) {
        buf_add(&ex->early, piece.p, piece.n); /* keep the order */
        return;
    }
    if (ex->answer == ANSWER_WHOLE && !ex->tunnel) {
        ex->received += piece.n;
        drop_body(h, ex, piece.n);
        return;
    }
    if (!http_exchange_body(ex, piece))
        h2_consumed(h->s, id, piece.n);
    set_body_wait(ex);
}

static void tunnel_eof(struct http_exchange *ex)
{
    if (ex->eof && ex->tunnel && !ex->eof_given && !buf_len(&ex->early)) {
        ex->eof_given = true;
        http_exchange_end(ex);
    }
}

static void rest_is_here(struct http_exchange *ex)
{
    if (ex->conn->srv->o.rpc)
        http_wait_off(&ex->stall);
    else
        http_wait_put(&ex->conn->srv->waits, WAIT_STALL, &ex->stall);
}

static void on_trailers(void *ctx, int32_t id, const struct h1_field *fields, size_t n)
{
    struct http_conn *c = ctx;
    struct http_exchange *ex = find(c->h2, id);

    if (ex && !ex->dead && !ex->connect && !ex->req.upgrade && ex->handler &&
        ex->handler->on_trailers)
        ex->handler->on_trailers(ex->ctx, fields, n);
}

static void on_end(void *ctx, int32_t id)
{
    struct http_conn *c = ctx;
    struct http_exchange *ex = find(c->h2, id);

    if (!ex)
        return;
    if (ex->connect || ex->req.upgrade) {
        ex->eof = true;
        tunnel_eof(ex);
    } else {
        if (ex->answer == ANSWER_WHOLE) /* nothing is left to drop; the answer may still wait */
            rest_is_here(ex);
        http_exchange_end(ex);
    }
}

static void on_closed(void *ctx, int32_t id, uint32_t code)
{
    struct http_conn *c = ctx;
    struct h2_side *h = c->h2;
    struct http_exchange *ex = find(h, id);

    if (!ex)
        return;
    hmap_remove(&h->streams, &ex->node);
    ex->code = code;
    ex->complete = code == H2_NO_ERROR && ex->answer == ANSWER_WHOLE && !ex->dead;
    ex->dead = true;
    http_wait_off(&ex->body);
    http_wait_off(&ex->stall);
    if (ex->unconsumed || buf_len(&ex->early))
        h2_consumed(h->s, id, ex->unconsumed + buf_len(&ex->early));
    ex->unconsumed = 0;
    ex->mark = UINT64_MAX; /* not known before the bytes at hand are pulled */
    list_remove(&ex->link);
    list_append(&h->over, &ex->link);
    http_conn_dirty(c);
}

static void on_refused(void *ctx)
{
    (void)ctx;
    http_glitch(GLITCH_BAD_REQUEST);
}

static void on_drain(void *ctx, int32_t id)
{
    struct http_conn *c = ctx;
    struct http_exchange *ex = find(c->h2, id);

    if (ex) {
        ex->drain_due = true;
        c->h2->drains = true;
        http_conn_dirty(c);
    }
}

static const struct h2_ops session_ops = {
    .on_request = on_request,
    .on_body = on_body,
    .on_end = on_end,
    .on_closed = on_closed,
    .on_refused = on_refused,
    .on_drain = on_drain,
    .on_trailers = on_trailers,
};

/* --- the connection --- */

static void feed(struct http_conn *c, struct view in)
{
    struct err e;

    if (!h2_feed(c->h2->s, in, ev_now_ns(c->srv->loop), &e))
        return;
    http_glitch(e.code == ERR_LIMIT ? GLITCH_H2_FLOOD : GLITCH_H2_PROTOCOL);
    log_event(LOG_DEBUG, "http", "HTTP/2 connection broken off", LF_ERR(&e));
    c->h2->closing = true;
}

void http_h2_start(struct http_conn *c, struct view in)
{
    struct h2_side *h = XNEW(struct h2_side);

    list_init(&h->open);
    list_init(&h->over);
    c->h2 = h;
    h->s = (c->srv->o.rpc ? h2_rpc_server_new : h2_server_new)(&session_ops, c);
    http_conn_protocol(c, &http_h2_ops);
    if (in.n)
        feed(c, in);
}

static void h2_readable(struct http_conn *c)
{
    uint64_t heads = c->srv->heads;
    struct err e;
    ssize_t n = net_read(c->s, http_scratch(c->srv), HTTP_SCRATCH, &e);

    if (n == NET_AGAIN)
        return;
    if (n <= 0) {
        http_conn_fail(c, false);
        return;
    }
    if (!c->h2->closing)
        feed(c, view_of(http_scratch(c->srv), (size_t)n));
    http_taken_in(c->srv, heads, http_scratch(c->srv), (size_t)n);
}

static void end_list(struct list *l)
{
    struct http_exchange *ex;

    while ((ex = list_first(l, struct http_exchange, link))) {
        list_remove(&ex->link);
        http_exchange_gone(ex, false);
        http_exchange_drop(ex);
    }
}

static void h2_gone(struct http_conn *c)
{
    struct h2_side *h = c->h2;

    if (!h)
        return;
    end_list(&h->over);
    end_list(&h->open);
    h2_free(&h->s);
    hmap_fini(&h->streams);
    c->h2 = NULL;
    xfree(h);
}

/* on_gone of streams that are closed and, if they ended well, sent. */
static void release_over(struct http_conn *c)
{
    struct h2_side *h = c->h2;
    struct list *it, *tmp;

    list_each (it, tmp, &h->over) {
        struct http_exchange *ex = list_entry(it, struct http_exchange, link);

        if (ex->mark == UINT64_MAX && !c->blocked)
            ex->mark = h->pulled;
        if (ex->complete && ex->mark > h->sent)
            continue;
        list_remove(&ex->link);
        http_exchange_gone(ex, ex->complete);
        http_exchange_drop(ex);
    }
}

static void flush(struct http_conn *c)
{
    struct h2_side *h = c->h2;
    struct view v;
    size_t moved = 0;
    struct err e;

    while (!c->blocked && !c->over && (v = h2_pull(h->s)).n) {
        ssize_t n = net_write(c->s, v.p, v.n, &e);

        h->pulled = h->sent + v.n;
        if (n == NET_ERROR) {
            http_conn_fail(c, true);
            return;
        }
        if (n == NET_AGAIN || (size_t)n < v.n)
            c->blocked = true;
        if (n > 0) {
            h2_sent(h->s, (size_t)n);
            h->sent += (uint64_t)n;
            moved += (size_t)n;
        }
    }
    if (!c->blocked)
        http_conn_unblocked(c);
    else if (moved || !http_wait_is_on(&c->wr))
        http_conn_blocked(c, moved);
}

/* Bytes of a tunnel that came before it was one, and callbacks that were put off. True: some. */
static bool take_up(struct http_conn *c)
{
    struct h2_side *h = c->h2;
    struct list *it, *tmp;

    if (!h->drains)
        return false;
    h->drains = false;
    list_each (it, tmp, &h->open) {
        struct http_exchange *ex = list_entry(it, struct http_exchange, link);

        if (!ex->drain_due)
            continue;
        ex->drain_due = false;
        if (ex->tunnel && buf_len(&ex->early)) {
            struct buf early = ex->early;

            ex->early = BUF_INIT;
            if (!http_exchange_body(ex, buf_view(&early)))
                h2_consumed(h->s, ex->id, buf_len(&early));
            buf_fini(&early);
        }
        tunnel_eof(ex);
        http_exchange_drained(ex);
    }
    return true;
}

static void h2_settle(struct http_conn *c)
{
    struct h2_side *h = c->h2;
    bool again = true;

    if ((c->srv->draining || c->srv->held) && !h->goaway) {
        h->goaway = true;
        h2_goaway(h->s);
    }
    for (int round = 0; again && round < SETTLE_ROUNDS; round++) {
        flush(c);
        if (c->over)
            return;
        release_over(c);
        again = take_up(c);
    }
    if (!c->blocked && (h->closing || (h->goaway && h2_idle(h->s)) || h2_done(h->s))) {
        flush(c);
        h2_gone(c);
        if (!c->over)
            http_conn_linger(c);
        return;
    }
    if (list_empty(&h->open))
        http_wait_put(&c->srv->waits, WAIT_IDLE, &c->rd);
    else
        http_wait_off(&c->rd);
    if (again) { /* others have their turn first */
        c->running = false;
        http_conn_dirty(c);
        c->running = true;
    }
}

static void h2_timeout(struct http_conn *c, enum http_wait_kind kind)
{
    h2_goaway(c->h2->s);
    c->h2->closing = true;
}

static size_t h2_side_held(const struct http_conn *c)
{
    return c->h2 ? h2_held(c->h2->s) : 0;
}

/* --- answers --- */

/* The handler's fields, and ours. */
static size_t answer_fields(struct http_exchange *ex, const struct h1_field *f, size_t n,
                            int64_t length, struct h1_field *out)
{
    static const struct view date_name = {"date", 4}, length_name = {"content-length", 14};
    static _Thread_local char digits[24];
    bool dated = false;
    size_t k = 0;

    ASSERT(n < H1_MAX_FIELDS + EXTRA_FIELDS - 2);
    for (size_t i = 0; i < n; i++) {
        if (http_is_framing_field(f[i].name))
            continue;
        if (ex->tunnel && (view_ieq(f[i].name, VIEW_LIT("upgrade")) ||
                           view_ieq(f[i].name, VIEW_LIT("sec-websocket-accept"))))
            continue; /* they say nothing in HTTP/2 (RFC 8441 §5) */
        dated = dated || view_ieq(f[i].name, date_name);
        out[k++] = f[i];
    }
    if (!dated && !ex->conn->srv->o.rpc)
        out[k++] = (struct h1_field){date_name, http_date(ex->conn->srv)};
    if (length >= 0) {
        size_t at = sizeof digits;
        int64_t rest = length;

        do
            digits[--at] = (char)('0' + rest % 10);
        while (rest /= 10);
        out[k++] = (struct h1_field){length_name, view_of(digits + at, sizeof digits - at)};
    }
    return k;
}

static void respond(struct http_exchange *ex, int status, const struct h1_field *f, size_t n,
                    int64_t length)
{
    struct h1_field all[H1_MAX_FIELDS + EXTRA_FIELDS];
    bool none = http_status_bodiless(status);

    ex->bodiless = !ex->tunnel && (none || length == 0 || view_is(ex->req.method, "HEAD"));
    ex->left = ex->bodiless ? 0 : length;
    n = answer_fields(ex, f, n, none ? -1 : length, all);
    h2_respond(ex->conn->h2->s, ex->id, status, all, n, ex->bodiless);
}

static void put_stall(struct http_exchange *ex, size_t queued, size_t added)
{
    if (ex->conn->srv->o.rpc)
        return;
    if (http_wait_is_on(&ex->stall)) {
        ex->stall_seen += added;
    } else if (queued) {
        ex->stall_seen = queued;
        http_wait_put(&ex->conn->srv->waits, WAIT_STALL, &ex->stall);
    }
}

/* The answer is given to the session whole; what still comes of the request is dropped. */
static void answer_whole(struct http_exchange *ex)
{
    struct h2_side *h = ex->conn->h2;

    ex->answer = ANSWER_WHOLE;
    http_wait_off(&ex->body);
    if (!ex->tunnel && ex->unconsumed) {
        h2_consumed(h->s, ex->id, ex->unconsumed);
        ex->unconsumed = 0;
    }
    if (!ex->tunnel && !ex->ended && ex->req.has_body) {
        ex->received = 0;
        http_wait_put(&ex->conn->srv->waits, WAIT_DROP, &ex->stall);
    }
    http_conn_dirty(ex->conn);
}

static void reply(struct http_exchange *ex, int status, const struct h1_field *f, size_t n,
                  struct view body)
{
    respond(ex, status, f, n, (int64_t)body.n);
    if (!ex->bodiless && body.n)
        put_stall(ex, h2_write(ex->conn->h2->s, ex->id, body, true), body.n);
    answer_whole(ex);
}

static void reply_head(struct http_exchange *ex, int status, const struct h1_field *f, size_t n)
{
    struct h1_field all[H1_MAX_FIELDS + EXTRA_FIELDS];

    ex->bodiless = true;
    ex->left = 0;
    n = answer_fields(ex, f, n, -1, all);
    h2_respond(ex->conn->h2->s, ex->id, status, all, n, true);
    answer_whole(ex);
}

static void reply_start(struct http_exchange *ex, int status, const struct h1_field *f, size_t n,
                        int64_t length)
{
    respond(ex, status, f, n, length);
    http_conn_dirty(ex->conn);
}

static size_t h2_exchange_write(struct http_exchange *ex, struct view piece)
{
    size_t queued;

    if (ex->bodiless || !piece.n)
        return 0;
    if (ex->left >= 0) {
        ASSERT(piece.n <= (uint64_t)ex->left);
        ex->left -= (int64_t)piece.n;
    }
    queued = h2_write(ex->conn->h2->s, ex->id, piece, false);
    if (!ex->tunnel)
        put_stall(ex, queued, piece.n);
    http_conn_dirty(ex->conn);
    return queued;
}

static void finish(struct http_exchange *ex)
{
    if (ex->left > 0) { /* cut short: the client must not take it for the whole */
        http_abort(ex);
        return;
    }
    if (!ex->bodiless)
        h2_write(ex->conn->h2->s, ex->id, VIEW_NONE, true);
    answer_whole(ex);
}

static void finish_trailers(struct http_exchange *ex, const struct h1_field *f, size_t n)
{
    if (ex->bodiless || ex->left > 0) {
        finish(ex);
        return;
    }
    h2_trailers(ex->conn->h2->s, ex->id, f, n);
    answer_whole(ex);
}

static void switch_to(struct http_exchange *ex, int status, const struct h1_field *f, size_t n)
{
    ex->left = -1;
    respond(ex, 200, f, n, -1);
    ex->drain_due = true; /* what came early, at the end of the turn */
    ex->conn->h2->drains = true;
    http_conn_dirty(ex->conn);
}

static void consumed(struct http_exchange *ex, size_t n)
{
    h2_consumed(ex->conn->h2->s, ex->id, n);
    set_body_wait(ex);
    http_conn_dirty(ex->conn);
}

static void h2_abort(struct http_exchange *ex, uint32_t code)
{
    h2_reset(ex->conn->h2->s, ex->id, code);
    http_conn_dirty(ex->conn);
}

static void h2_end_tunnels(struct http_conn *c)
{
    struct list *it, *tmp;

    list_each (it, tmp, &c->h2->open) {
        struct http_exchange *ex = list_entry(it, struct http_exchange, link);

        if (ex->tunnel)
            h2_abort(ex, H2_INTERNAL_ERROR);
    }
}

/* Other streams' handlers may hold so much that this one's client has no window left to send. */
static bool others_hold(const struct h2_side *h)
{
    size_t sum = 0;

    for (struct list *it = h->open.next; it != &h->open; it = it->next)
        sum += list_entry(it, struct http_exchange, link)->unconsumed;
    return sum >= H2_CONN_WINDOW / 2;
}

static void body_late(struct http_exchange *ex)
{
    bool started = ex->answer != ANSWER_NONE;
    struct str body = STR_INIT;

    if (others_hold(ex->conn->h2)) {
        ex->waited_ns = 0;
        set_body_wait(ex);
        return;
    }
    http_glitch(GLITCH_SLOW_BODY);
    http_exchange_gone(ex, false);
    if (started) {
        h2_reset(ex->conn->h2->s, ex->id, H2_CANCEL);
        return;
    }
    http_error_body(&body, "the request body took too long");
    reply(ex, 408, &http_json_field, 1, str_view(&body));
    str_fini(&body);
}

static void stall_late(struct http_exchange *ex, enum http_wait_kind kind)
{
    struct h2_session *s = ex->conn->h2->s;
    size_t queued, least = TR_MIN(STALL_LEAST, ex->stall_seen / 2);

    if (kind == WAIT_DROP) {
        h2_reset(s, ex->id, H2_NO_ERROR);
        return;
    }
    queued = h2_write(s, ex->id, VIEW_NONE, false);
    if (!queued)
        return;
    if (queued < ex->stall_seen && queued + least <= ex->stall_seen) {
        ex->stall_seen = queued;
        http_wait_put(&ex->conn->srv->waits, WAIT_STALL, &ex->stall);
        return;
    }
    http_glitch(GLITCH_SLOW_READER);
    h2_reset(s, ex->id, H2_CANCEL);
}

const struct http_conn_ops http_h2_ops = {
    .readable = h2_readable,
    .settle = h2_settle,
    .gone = h2_gone,
    .timeout = h2_timeout,
    .held = h2_side_held,
    .consumed = consumed,
    .reply = reply,
    .reply_start = reply_start,
    .write = h2_exchange_write,
    .finish = finish,
    .finish_trailers = finish_trailers,
    .reply_head = reply_head,
    .switch_to = switch_to,
    .abort = h2_abort,
    .end_tunnels = h2_end_tunnels,
    .body_late = body_late,
    .stall_late = stall_late,
};
