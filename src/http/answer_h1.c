/* HTTP/1.1 answers: their heads, framing and way to the socket. */
#include "http/server_h1.h"

#include "base/bug.h"
#include "rt/log.h"

/* The rest of a body that is refused: small enough to read it and keep the connection? */
static bool rest_is_small(const struct http_exchange *ex)
{
    return ex->continued && ex->req.content_length >= 0 &&
           (uint64_t)ex->req.content_length - ex->received <= HTTP_REST_KEEP;
}

/*
 * Does another request follow this answer? Decided as late as the head is written. `refuses`: the
 * handler wants no more of a body that is still coming.
 */
static bool may_keep(const struct http_exchange *ex, bool refuses)
{
    const struct h1_side *h = ex->conn->h1;

    if (!ex->keep || ex->conn->srv->draining || ex->conn->srv->last || h->closing)
        return false;
    return !refuses || !h->mid_request || !ex->req.has_body || rest_is_small(ex);
}

static void add_number(struct str *out, const char *name, uint64_t value)
{
    char digits[24];
    size_t at = sizeof digits;

    do
        digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    str_adds(out, name);
    str_add(out, digits + at, sizeof digits - at);
    str_add(out, "\r\n", 2);
}

/* Status line, the handler's fields but for framing, and Date. */
static void add_fields(struct http_conn *c, int status, const struct h1_field *f, size_t n)
{
    struct str *out = &c->h1->out;
    bool dated = false;

    str_reserve(out, 512);
    h1_write_status(out, status);
    for (size_t i = 0; i < n; i++) {
        if (http_is_framing_field(f[i].name))
            continue;
        dated = dated || view_ieq(f[i].name, VIEW_LIT("date"));
        h1_write_field(out, f[i].name, f[i].value);
    }
    if (!dated && status >= 200)
        h1_write_field(out, VIEW_LIT("Date"), http_date(c->srv));
}

/* The whole head of a final answer (RFC 9112 §6.3 for the framing). */
static void add_head(struct http_exchange *ex, int status, const struct h1_field *f, size_t n,
                     int64_t length)
{
    bool refuses = status >= 400 || ex->answer == ANSWER_NONE; /* NONE: it is http_reply's */
    struct str *out = &ex->conn->h1->out;
    bool head_request = view_is(ex->req.method, "HEAD");

    add_fields(ex->conn, status, f, n);
    ex->bodiless = head_request || http_status_bodiless(status);
    ex->keep = may_keep(ex, refuses);
    ex->left = ex->bodiless ? 0 : length;
    if (http_status_bodiless(status)) {
        /* neither field */
    } else if (length >= 0) {
        add_number(out, "Content-Length: ", (uint64_t)length);
    } else if (ex->req.version == 11) {
        ex->chunked = !ex->bodiless;
        if (!head_request)
            str_adds(out, "Transfer-Encoding: chunked\r\n");
    } else {
        ex->keep = false; /* HTTP/1.0: the end of the connection is the end of the body */
    }
    if (!ex->keep)
        str_adds(out, "Connection: close\r\n");
    else if (ex->req.version == 10)
        str_adds(out, "Connection: keep-alive\r\n");
    h1_write_end(out);
}

/* The answer is queued to its last byte: the next request may be looked at. */
static void answer_whole(struct http_exchange *ex)
{
    struct h1_side *h = ex->conn->h1;

    ASSERT(h->ex == ex);
    ex->answer = ANSWER_WHOLE;
    ex->mark = h->sent + h1_queued(h);
    http_wait_off(&ex->body);
    h->ex = NULL;
    list_append(&h->unsent, &ex->link);
    if (!may_keep(ex, true)) {
        h->closing = true;
        h->clean = h->clean || (!h->mid_request && !buf_len(&h->in) && !ex->conn->srv->draining);
    }
    http_conn_dirty(ex->conn);
}

void http_h1_reply(struct http_exchange *ex, int status, const struct h1_field *f, size_t n,
                   struct view body)
{
    add_head(ex, status, f, n, (int64_t)body.n);
    if (!ex->bodiless)
        str_addv(&ex->conn->h1->out, body);
    answer_whole(ex);
}

void http_h1_reply_start(struct http_exchange *ex, int status, const struct h1_field *f, size_t n,
                         int64_t length)
{
    add_head(ex, status, f, n, length);
    http_conn_dirty(ex->conn);
}

/* Large pieces go to the socket as they are if nothing is before them. Returns what was taken. */
static size_t write_direct(struct http_conn *c, struct view piece)
{
    struct h1_side *h = c->h1;
    struct err e;
    ssize_t n;

    if (piece.n < HTTP_DIRECT || h1_queued(h) || c->blocked)
        return 0;
    n = net_write(c->s, piece.p, piece.n, &e);
    if (n == NET_ERROR) {
        http_conn_fail(c, true);
        return piece.n;
    }
    if (n < 0 || (size_t)n < piece.n) {
        c->blocked = true;
        http_wait_put(&c->srv->waits, WAIT_WRITE, &c->wr);
    }
    if (n <= 0)
        return 0;
    h->sent += (uint64_t)n;
    return (size_t)n;
}

size_t http_h1_write(struct http_exchange *ex, struct view piece)
{
    struct http_conn *c = ex->conn;
    struct h1_side *h = c->h1;

    ASSERT(!h->fin);
    if (ex->bodiless || !piece.n)
        return h1_queued(h);
    if (ex->left >= 0) {
        ASSERT(piece.n <= (uint64_t)ex->left);
        ex->left -= (int64_t)piece.n;
    }
    if (ex->chunked) {
        h1_write_chunk_head(&h->out, piece.n);
        str_addv(&h->out, piece);
        str_add(&h->out, "\r\n", 2);
    } else {
        piece = view_from(piece, write_direct(c, piece));
        if (piece.n)
            str_addv(&h->out, piece);
    }
    http_conn_dirty(c);
    return h1_queued(h);
}

void http_h1_finish(struct http_exchange *ex)
{
    struct h1_side *h = ex->conn->h1;

    if (h->tunnel) {
        ASSERT(!h->fin);
        h->fin = true;
        http_conn_dirty(ex->conn);
        return;
    }
    if (ex->left > 0) { /* cut short: the client must not take it for the whole */
        http_abort(ex);
        return;
    }
    if (ex->chunked)
        str_addv(&h->out, h1_last_chunk);
    answer_whole(ex);
}

static void add_switch_head(struct http_exchange *ex, int status, const struct h1_field *f,
                            size_t n)
{
    struct h1_side *h = ex->conn->h1;
    struct view to = http_field(ex->req.fields, ex->req.n_fields, "upgrade");

    add_fields(ex->conn, status, f, n);
    if (status == 101) {
        if (!http_field(f, n, "upgrade").p && to.p)
            h1_write_field(&h->out, VIEW_LIT("Upgrade"), to);
        str_adds(&h->out, "Connection: upgrade\r\n");
    }
    h1_write_end(&h->out);
}

void http_h1_switch(struct http_exchange *ex, int status, const struct h1_field *f, size_t n)
{
    struct h1_side *h = ex->conn->h1;

    ASSERT(h->ex == ex);
    add_switch_head(ex, status, f, n);
    h->tunnel = true;
    h->mid_request = false;
    http_conn_dirty(ex->conn);
}

struct net_stream *http_h1_detach(struct http_exchange *ex, int status, const struct h1_field *f,
                                  size_t n, struct buf *early)
{
    struct http_conn *c = ex->conn;
    struct h1_side *h = c->h1;
    struct view behind = h->rest.p ? h->rest : buf_view(&h->in);
    struct net_stream *s = c->s;

    ASSERT(h->ex == ex);
    http_h1_flush(c); /* answers before it */
    if (h1_queued(h) || c->over || h->eof)
        return NULL;
    add_switch_head(ex, status, f, n);
    http_h1_flush(c);
    if (h1_queued(h) || c->over) { /* a hundred bytes do not fit an empty buffer: it is broken */
        http_conn_fail(c, true);
        return NULL;
    }
    buf_add(early, behind.p, behind.n);
    http_conn_want_read(c, false);
    c->s = NULL;
    http_conn_fail(c, false);
    return s;
}

void http_h1_continue(struct http_exchange *ex)
{
    ex->continued = true;
    str_adds(&ex->conn->h1->out, "HTTP/1.1 100 Continue\r\n\r\n");
    http_conn_dirty(ex->conn);
}

/* The exchange, if there is one, must be over. */
void http_h1_refuse(struct http_conn *c, int status, const char *why)
{
    struct h1_side *h = c->h1;
    struct str body = STR_INIT;

    ASSERT(!h->ex);
    log_event(LOG_DEBUG, "http", "request refused", LF_INT("status", status), LF_STR("why", why));
    http_error_body(&body, why);
    add_fields(c, status, &http_json_field, 1);
    add_number(&h->out, "Content-Length: ", body.n);
    str_adds(&h->out, "Connection: close\r\n");
    h1_write_end(&h->out);
    str_addv(&h->out, str_view(&body));
    str_fini(&body);
    h->closing = true;
    http_conn_dirty(c);
}

/* Write what is queued; after a short write the socket tells when to go on. */
void http_h1_flush(struct http_conn *c)
{
    struct h1_side *h = c->h1;
    bool moved = false;
    struct err e;

    while (h1_queued(h) && !c->blocked && !c->over) {
        ssize_t n = net_write(c->s, h->out.p + h->out_off, h1_queued(h), &e);

        if (n == NET_ERROR) {
            http_conn_fail(c, true);
            return;
        }
        if (n == NET_AGAIN || (size_t)n < h1_queued(h))
            c->blocked = true;
        if (n > 0) {
            h->out_off += (size_t)n;
            h->sent += (uint64_t)n;
            moved = true;
        }
    }
    if (!h1_queued(h)) {
        h->out_off = 0;
        if (h->out.cap > HTTP_SPARE_BYTES)
            str_fini(&h->out);
        else
            str_clear(&h->out);
        http_wait_off(&c->wr);
    } else if (h->tunnel) {
        http_wait_off(&c->wr); /* how long a tunnel may stand still is its owner's to say */
    } else if (moved || !http_wait_is_on(&c->wr)) {
        http_wait_put(&c->srv->waits, WAIT_WRITE, &c->wr);
    }
    if (h->out_off > HTTP_SCRATCH && h->out_off > h->out.n / 2) {
        memmove(h->out.p, h->out.p + h->out_off, h1_queued(h));
        h->out.n -= h->out_off;
        h->out_off = 0;
    }
}
