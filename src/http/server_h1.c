/*
 * HTTP/1.1 connections of the server: bytes to requests, one at a time, and what happens between
 * them.
 *
 * Bytes are read into the server's scratch memory and parsed there; only what cannot be used yet is
 * copied into the connection's own buffer. The next request is looked at when the answer to the one
 * before is queued whole.
 */
#include "http/server_h1.h"

#include "base/bug.h"
#include "base/xmem.h"

/* What a client that speaks HTTP/2 by prior knowledge sends first (RFC 9113 §3.4). */
static const char h2_preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum { PREFACE_LEN = sizeof h2_preface - 1, SETTLE_ROUNDS = 4 };

/* --- the side --- */

static struct h1_side *side_get(struct http_conn *c)
{
    struct http_server *s = c->srv;
    struct h1_side *h;

    if (c->h1)
        return c->h1;
    if (s->n_spare_h1) {
        h = s->spare_h1[--s->n_spare_h1];
    } else {
        h = XNEW(struct h1_side);
        list_init(&h->unsent);
    }
    if (!h->parser)
        h->parser = xmalloc(sizeof(*h->parser));
    h1_init(h->parser, H1_REQUEST);
    h->rd_kind = -1;
    c->h1 = h;
    return h;
}

void http_h1_side_free(struct h1_side *h)
{
    buf_fini(&h->in);
    str_fini(&h->out);
    xfree(h->parser);
    xfree(h);
}

static void side_put(struct http_conn *c)
{
    struct http_server *s = c->srv;
    struct h1_side *h = c->h1;

    ASSERT(!h->ex && list_empty(&h->unsent));
    c->h1 = NULL;
    if (!HTTP_REUSE || s->n_spare_h1 == HTTP_SPARE) {
        http_h1_side_free(h);
        return;
    }
    if (h->in.cap > HTTP_SPARE_BYTES)
        buf_fini(&h->in);
    if (h->out.cap > HTTP_SPARE_BYTES)
        str_fini(&h->out);
    if (h->in.base)
        explicit_bzero(h->in.base, h->in.cap);
    buf_clear(&h->in);
    str_clear(&h->out);
    h->out_off = 0;
    h->sent = 0;
    h->start_ns = 0;
    h->mid_request = h->closing = h->clean = h->tunnel = false;
    h->eof = h->fin = h->fin_sent = false;
    s->spare_h1[s->n_spare_h1++] = h;
}

/* The exchange at hand is over without its answer. */
static void exchange_break(struct http_conn *c)
{
    struct http_exchange *ex = c->h1->ex;

    if (!ex)
        return;
    c->h1->ex = NULL;
    http_exchange_gone(ex, false);
    http_exchange_drop(ex);
}

static void h1_gone(struct http_conn *c)
{
    struct h1_side *h = c->h1;
    struct http_exchange *ex;

    if (!h)
        return;
    while ((ex = list_first(&h->unsent, struct http_exchange, link))) {
        list_remove(&ex->link);
        http_exchange_gone(ex, ex->mark <= h->sent);
        http_exchange_drop(ex);
    }
    exchange_break(c);
    side_put(c);
}

/* --- requests --- */

static struct view moved(struct view v, struct view from, const char *to)
{
    if (!v.p || !v.n)
        return v.p ? view_of("", 0) : v;
    return view_of(to + (v.p - from.p), v.n);
}

/* Copy the head's text once and have all views point into the copy. */
static void request_fill(struct http_exchange *ex, const struct h1_head *head, struct view text)
{
    struct http_request *r = &ex->req;
    struct h1_field *fields = http_exchange_room(ex, head->n_fields * sizeof *fields + text.n);
    char *copy = (char *)(fields + head->n_fields);

    ASSERT(text.p);
    memcpy(copy, text.p, text.n);
    for (size_t i = 0; i < head->n_fields; i++) {
        fields[i].name = moved(head->fields[i].name, text, copy);
        fields[i].value = moved(head->fields[i].value, text, copy);
    }
    r->method = moved(head->method, text, copy);
    r->target = moved(head->target, text, copy);
    r->authority = moved(head->host, text, copy);
    r->fields = fields;
    r->n_fields = head->n_fields;
    r->content_length = head->content_length;
    r->has_body = head->chunked || head->content_length > 0;
    /* HTTP/2 is had by ALPN or prior knowledge; an Upgrade to it is ignored (RFC 9113 §3.1) */
    r->upgrade = head->upgrade && !r->has_body && !view_ieq(head->upgrade_to, VIEW_LIT("h2c"));
    r->expect_continue = head->expect_continue;
    r->version = 10 + head->minor;
    r->tls = net_is_tls(ex->conn->s) || ex->conn->secure;
    r->peer = net_peer(ex->conn->s);
    r->identity = net_peer_name(ex->conn->s);
    if (!r->identity.n)
        r->identity = ex->conn->identity;
    r->listener = ex->conn->listener;
    r->tag = ex->conn->tag;
}

/* `text`: the head; `rest`: what is behind it already. */
static void on_head(struct http_conn *c, struct view text, struct view rest)
{
    struct h1_side *h = c->h1;
    const struct h1_head *head = &h->parser->head;
    struct http_exchange *ex = http_exchange_new(c);

    request_fill(ex, head, text);
    ex->req.start_ns = h->start_ns ? h->start_ns : ev_now_ns(c->srv->loop);
    h->start_ns = 0;
    ex->keep = head->keep_alive;
    ex->continued = !head->expect_continue;
    ex->connect = view_is(ex->req.method, "CONNECT");
    h->ex = ex;
    h->mid_request = true;
    c->used = true;
    h->rest = rest;
    http_exchange_take(ex);
    h->rest = VIEW_NONE;
    if (h->ex == ex && !ex->dead && !ex->continued && ex->answer == ANSWER_NONE) {
        if (rest.n || !ex->req.has_body)
            ex->continued = true; /* it did not wait for us */
        else
            http_h1_continue(ex);
    }
}

static void on_error(struct http_conn *c, int status, const struct err *e)
{
    struct h1_side *h = c->h1;
    bool started = h->ex && h->ex->answer != ANSWER_NONE;

    http_glitch(GLITCH_BAD_REQUEST);
    exchange_break(c);
    if (started)
        http_conn_fail(c, true);
    else
        http_h1_refuse(c, status, e->text);
}

/* May the parser go on? Not past what the handler holds, nor to a request before its turn. */
static bool is_hungry(const struct http_conn *c)
{
    const struct h1_side *h = c->h1;
    const struct http_exchange *ex = h->ex;

    if (c->over || c->sniffing || h->closing || h->tunnel)
        return false;
    if (!ex)
        return h->mid_request || (!c->srv->held && h1_queued(h) < HTTP_OUT_HIGH);
    return h->mid_request && !ex->connect && !ex->dead && ex->unconsumed < http_window();
}

/* Raw bytes of a tunnel, as many as its handler may hold. */
static size_t take_raw(struct http_conn *c, struct view in)
{
    struct http_exchange *ex = c->h1->ex;
    size_t n;

    if (c->over || !ex || ex->dead)
        return in.n;
    n = TR_MIN(in.n, HTTP_WINDOW - TR_MIN(ex->unconsumed, (size_t)HTTP_WINDOW));
    if (n)
        http_exchange_body(ex, view_of(in.p, n));
    return n;
}

/* Parse and hand out; returns how much of `in` is done with. */
static size_t take_in(struct http_conn *c, struct view in)
{
    struct h1_side *h = c->h1;
    size_t total = 0;

    while (is_hungry(c) && (h->mid_request || total < in.n)) {
        struct view body = VIEW_NONE, at = view_from(in, total);
        size_t used = 0;
        struct err e;
        enum h1_event ev = h1_next(h->parser, at, &used, &body, &e);

        total += used;
        if (ev == H1_MORE)
            break;
        if (ev == H1_HEAD) {
            c->srv->heads++;
            on_head(c, view_of(at.p, used), view_from(in, total));
        } else if (ev == H1_BODY) {
            if (h->ex)
                http_exchange_body(h->ex, body);
        } else if (ev == H1_END) {
            h->mid_request = false;
            if (h->ex)
                http_exchange_end(h->ex);
        } else {
            on_error(c, h->parser->status, &e);
        }
    }
    if (h->tunnel)
        total += take_raw(c, view_from(in, total));
    return total;
}

/* --- reading --- */

/* HTTP/2 by prior knowledge? True: yes, or not yet known; `in` is taken care of. */
static bool sniffed(struct http_conn *c, struct view in, bool direct)
{
    ASSERT(in.p || !in.n);
    if (in.n && memcmp(in.p, h2_preface, TR_MIN(in.n, (size_t)PREFACE_LEN)) != 0) {
        c->sniffing = false;
        return false;
    }
    if (in.n < PREFACE_LEN) {
        if (direct)
            buf_add(&c->h1->in, in.p, in.n);
        return true;
    }
    c->sniffing = false;
    http_wait_off(&c->rd);
    http_h2_start(c, in);
    side_put(c);
    return true;
}

static void on_eof(struct http_conn *c)
{
    struct h1_side *h = c->h1;

    h->eof = true;
    if (h->tunnel)
        return; /* told when what came before it is consumed */
    if (h->mid_request || buf_len(&h->in))
        http_glitch(GLITCH_CUT_REQUEST);
    if (h->ex) {
        http_conn_fail(c, false); /* nobody is there to take the answer */
        return;
    }
    h->closing = h->clean = true;
}

static void consume(struct http_conn *c, uint64_t heads, size_t used)
{
    struct buf *in = &c->h1->in;

    if (used == 0) /* there may be no buffer */
        return;
    http_taken_in(c->srv, heads, in->base + in->off, used);
    buf_consume(in, used);
}

static void h1_readable(struct http_conn *c)
{
    struct h1_side *h = side_get(c);
    bool direct = !buf_len(&h->in);
    size_t room = direct ? HTTP_SCRATCH : HTTP_SCRATCH / 4, used;
    uint8_t *p = direct ? http_scratch(c->srv) : buf_reserve(&h->in, room);
    uint64_t heads = c->srv->heads;
    struct view in;
    struct err e;
    ssize_t n = net_read(c->s, p, room, &e);

    if (n == NET_AGAIN)
        return;
    if (n == NET_ERROR) {
        http_conn_fail(c, false);
        return;
    }
    if (n == 0) {
        on_eof(c);
        return;
    }
    if (!direct)
        buf_commit(&h->in, (size_t)n);
    if (!h->start_ns && !h->mid_request)
        h->start_ns = ev_now_ns(c->srv->loop);
    in = direct ? view_of(p, (size_t)n) : buf_view(&h->in);
    if (c->sniffing && sniffed(c, in, direct))
        return;
    used = take_in(c, in);
    if (!direct) {
        consume(c, heads, used);
    } else {
        if (used < in.n && !c->over && !h->closing)
            buf_add(&h->in, in.p + used, in.n - used);
        http_taken_in(c->srv, heads, p, (size_t)n);
    }
}

/* --- settling --- */

/* Answers whose last byte the socket has. */
static void release_sent(struct http_conn *c)
{
    struct h1_side *h = c->h1;
    struct http_exchange *ex;

    while ((ex = list_first(&h->unsent, struct http_exchange, link)) && ex->mark <= h->sent) {
        list_remove(&ex->link);
        http_exchange_gone(ex, true);
        http_exchange_drop(ex);
    }
}

/* Go on with what waits in the buffer. True: something happened. */
static bool advance(struct http_conn *c)
{
    struct h1_side *h = c->h1;
    bool waits = buf_len(&h->in) > 0;
    bool was_mid = h->mid_request;
    uint64_t heads = c->srv->heads;
    size_t used = 0;

    if (h->ex && h1_queued(h) < HTTP_WRITE_HIGH / 4)
        http_exchange_drained(h->ex);
    if (waits || (h->mid_request && is_hungry(c))) {
        used = take_in(c, buf_view(&h->in));
        consume(c, heads, used);
    }
    if (h->tunnel && h->eof && !buf_len(&h->in) && h->ex && !h->ex->eof_given) {
        h->ex->eof_given = true;
        http_exchange_end(h->ex);
    }
    if (!list_empty(&h->unsent) && !c->blocked)
        return true;
    return used || was_mid != h->mid_request || (h1_queued(h) && !c->blocked);
}

/* What an idle tunnel does without. */
static void slim_down(struct h1_side *h)
{
    XFREE(h->parser);
    if (!h1_queued(h)) {
        str_fini(&h->out);
        h->out_off = 0;
    }
}

static void tunnel_ends(struct http_conn *c)
{
    struct h1_side *h = c->h1;
    struct http_exchange *ex = h->ex;

    slim_down(h);

    if (h->fin && !h->fin_sent && !h1_queued(h)) {
        h->fin_sent = true;
        net_shutdown_write(c->s);
    }
    if (ex && h->fin_sent && ex->eof_given) {
        h->ex = NULL;
        http_exchange_gone(ex, true);
        http_exchange_drop(ex);
        http_conn_fail(c, false);
    }
}

static bool wants_read(const struct http_conn *c)
{
    const struct h1_side *h = c->h1;
    size_t kept = buf_len(&h->in);

    if (h->eof || h->closing)
        return false;
    if (c->srv->held && !h->ex && !h->mid_request)
        return false;
    ASSERT(h->ex || !h->tunnel);
    if (h->tunnel)
        return !kept && h->ex->unconsumed < http_window();
    if (h->ex && h->mid_request && !h->ex->connect)
        return h->ex->unconsumed < http_window() && kept < HTTP_AHEAD;
    return kept < HTTP_AHEAD;
}

/* Which timeouts run, given what we wait for. */
static void set_waits(struct http_conn *c)
{
    struct h1_side *h = c->h1;
    struct http_exchange *ex = h->ex;
    bool body = ex && h->mid_request && !ex->connect && ex->unconsumed < http_window();
    int kind = -1;

    if (!ex && h->mid_request)
        kind = WAIT_LINGER;
    else if (!ex && buf_len(&h->in) && !h->closing)
        kind = WAIT_HEAD;
    if (kind != h->rd_kind || (kind < 0 && http_wait_is_on(&c->rd))) {
        if (kind < 0)
            http_wait_off(&c->rd);
        else
            http_wait_put(&c->srv->waits, (unsigned)kind, &c->rd);
        h->rd_kind = kind;
    }
    if (body && !http_wait_is_on(&ex->body))
        http_exchange_want(ex);
    else if (!body && ex)
        http_wait_off(&ex->body);
}

static void go_idle(struct http_conn *c)
{
    if (c->h1)
        side_put(c);
    if (c->srv->draining && !c->used) { /* just accepted: its request is on its way, most likely */
        http_conn_want_read(c, true);
        if (!c->last_chance)
            http_wait_put(&c->srv->waits, WAIT_FIRST, &c->rd);
        c->last_chance = true;
        return;
    }
    if (c->srv->draining) {
        http_conn_fail(c, false);
        return;
    }
    http_conn_want_read(c, !c->srv->held);
    http_wait_put(&c->srv->waits, WAIT_IDLE, &c->rd);
}

/* No answer is owed, in the making or on its way. */
static bool is_quiet(const struct h1_side *h)
{
    return !h->ex && list_empty(&h->unsent) && !h1_queued(h);
}

static void h1_settle(struct http_conn *c)
{
    struct h1_side *h = c->h1;
    bool again = h != NULL;

    for (int round = 0; again && round < SETTLE_ROUNDS && !c->over; round++) {
        http_h1_flush(c);
        release_sent(c);
        again = !c->over && advance(c);
    }
    if (c->over)
        return;
    if (h && h->tunnel)
        tunnel_ends(c);
    if (c->over)
        return;
    if (h && h->closing && is_quiet(h)) {
        bool clean = h->clean;

        side_put(c);
        if (clean)
            http_conn_fail(c, false);
        else
            http_conn_linger(c);
        return;
    }
    if (!h || (is_quiet(h) && !h->mid_request && !buf_len(&h->in))) {
        go_idle(c);
        return;
    }
    http_conn_want_read(c, wants_read(c));
    set_waits(c);
    if (again) { /* others have their turn first */
        c->running = false;
        http_conn_dirty(c);
        c->running = true;
    }
}

static void h1_timeout(struct http_conn *c, enum http_wait_kind kind)
{
    if (kind == WAIT_HEAD && c->h1)
        http_h1_refuse(c, 408, "the request head took too long");
    else
        http_conn_fail(c, false);
}

static size_t h1_held(const struct http_conn *c)
{
    const struct h1_side *h = c->h1;

    if (!h)
        return 0;
    return h->in.cap + h->out.cap + (h->ex ? h->ex->unconsumed : 0);
}

/* --- calls of handlers that are not answers --- */

static void h1_consumed(struct http_exchange *ex, size_t n)
{
    http_conn_dirty(ex->conn);
}

static void h1_abort(struct http_exchange *ex, uint32_t code)
{
    http_conn_fail(ex->conn, true);
}

static void h1_end_tunnels(struct http_conn *c)
{
    if (c->h1 && c->h1->tunnel)
        http_conn_fail(c, true);
}

static void h1_body_late(struct http_exchange *ex)
{
    struct http_conn *c = ex->conn;
    bool started = ex->answer != ANSWER_NONE;

    http_glitch(GLITCH_SLOW_BODY);
    exchange_break(c);
    if (started)
        http_conn_fail(c, true);
    else
        http_h1_refuse(c, 408, "the request body took too long");
}

static void h1_stall_late(struct http_exchange *ex, enum http_wait_kind kind)
{
    BUG("HTTP/1.1 exchanges have no stall timeout");
}

const struct http_conn_ops http_h1_ops = {
    .readable = h1_readable,
    .settle = h1_settle,
    .gone = h1_gone,
    .timeout = h1_timeout,
    .held = h1_held,
    .consumed = h1_consumed,
    .reply = http_h1_reply,
    .reply_start = http_h1_reply_start,
    .write = http_h1_write,
    .finish = http_h1_finish,
    .switch_to = http_h1_switch,
    .detach = http_h1_detach,
    .abort = h1_abort,
    .end_tunnels = h1_end_tunnels,
    .body_late = h1_body_late,
    .stall_late = h1_stall_late,
};
