#include <stdio.h>
#include <time.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/h2.h"
#include "http/server_priv.h"
#include "rt/clock.h"

const struct h1_field http_json_field = {{"Content-Type", 12}, {"application/json", 16}};

struct http_exchange *http_exchange_new(struct http_conn *c)
{
    struct http_server *s = c->srv;
    struct http_exchange *ex;
    char *mem = NULL;
    size_t cap = 0;

    if (s->n_spare_ex) {
        ex = s->spare_ex[--s->n_spare_ex];
        mem = ex->mem;
        cap = ex->mem_cap;
        memset(ex, 0, sizeof *ex);
        ex->mem = mem;
        ex->mem_cap = cap;
    } else {
        ex = XNEW(struct http_exchange);
    }
    OBJ_INIT(ex, HTTP_EXCHANGE_MAGIC);
    ex->conn = c;
    ex->left = -1;
    list_init(&ex->link);
    http_wait_init(&ex->body);
    http_wait_init(&ex->stall);
    return ex;
}

static void exchange_free(struct http_exchange *ex)
{
    xfree_secret(ex->mem, ex->mem_cap);
    xfree(ex);
}

void http_exchange_drop(struct http_exchange *ex)
{
    struct http_server *s = ex->conn->srv;

    OBJ_CHECK(ex, HTTP_EXCHANGE_MAGIC);
    ASSERT(!ex->handler);
    http_wait_off(&ex->body);
    http_wait_off(&ex->stall);
    list_remove(&ex->link);
    buf_fini(&ex->early);
    OBJ_FINI(ex);
    if (HTTP_REUSE && s->n_spare_ex < HTTP_SPARE && ex->mem_cap <= HTTP_SPARE_BYTES) {
        if (ex->mem)
            explicit_bzero(ex->mem, ex->mem_cap); /* credentials are in it */
        s->spare_ex[s->n_spare_ex++] = ex;
    } else {
        exchange_free(ex);
    }
}

void http_spares_free(struct http_server *s)
{
    while (s->n_spare_ex)
        exchange_free(s->spare_ex[--s->n_spare_ex]);
    while (s->n_spare_h1)
        http_h1_side_free(s->spare_h1[--s->n_spare_h1]);
}

void *http_exchange_room(struct http_exchange *ex, size_t n)
{
    if (n > ex->mem_cap) {
        xfree_secret(ex->mem, ex->mem_cap);
        ex->mem_cap = TR_MAX(n, (size_t)1024);
        ex->mem = xmalloc(ex->mem_cap);
    }
    return ex->mem;
}

void http_exchange_take(struct http_exchange *ex)
{
    const struct http_service *service = ex->conn->srv->o.service;

    http_count_request(ex);
    service->take(service->ctx, ex, &ex->req);
    ASSERT(ex->handler || ex->answer == ANSWER_WHOLE || ex->dead);
}

/* Has what came, in all the time that we waited for it, been too little? */
static bool body_is_slow(const struct http_exchange *ex)
{
    const struct http_server *s = ex->conn->srv;
    int64_t allowed = s->waits.kinds[WAIT_BODY].after_ns + http_least_rate_ns(s, ex->received);

    return !s->o.rpc && ex->waited_ns > allowed;
}

void http_exchange_want(struct http_exchange *ex)
{
    struct http_waits *ws = &ex->conn->srv->waits;

    if (body_is_slow(ex))
        http_wait_now(ws, WAIT_BODY, &ex->body);
    else
        http_wait_put(ws, WAIT_BODY, &ex->body);
}

bool http_exchange_body(struct http_exchange *ex, struct view piece)
{
    ex->received += piece.n;
    if (http_wait_is_on(&ex->body)) {
        ex->waited_ns += http_wait_ns(&ex->conn->srv->waits, WAIT_BODY, &ex->body);
        http_exchange_want(ex);
    }
    if (!ex->handler || !ex->handler->on_body || ex->dead || !piece.n)
        return false;
    ex->unconsumed += piece.n;
    ex->handler->on_body(ex->ctx, piece);
    return true;
}

void http_exchange_end(struct http_exchange *ex)
{
    ex->ended = true;
    http_wait_off(&ex->body);
    if (ex->handler && ex->handler->on_end && !ex->dead)
        ex->handler->on_end(ex->ctx);
}

void http_exchange_drained(struct http_exchange *ex)
{
    if (!ex->high || ex->dead)
        return;
    ex->high = false;
    if (ex->handler && ex->handler->on_drain)
        ex->handler->on_drain(ex->ctx);
}

void http_exchange_gone(struct http_exchange *ex, bool complete)
{
    const struct http_handler *handler = ex->handler;

    ex->dead = true;
    http_wait_off(&ex->body);
    http_wait_off(&ex->stall);
    ex->handler = NULL;
    if (handler && handler->on_gone)
        handler->on_gone(ex->ctx, complete);
}

/* The Date field's text (RFC 9110 §5.6.7), made once a second. */
struct view http_date(struct http_server *s)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    int64_t now = ev_now_ns(s->loop);

    if (now >= s->date_until_ns) {
        int64_t wall = clock_wall_ns();
        time_t seconds = (time_t)(wall / NS_PER_SEC);
        struct tm t;

        gmtime_r(&seconds, &t);
        snprintf(s->date, sizeof s->date, "%s, %02u %s %04u %02u:%02u:%02u GMT",
                 days[t.tm_wday % 7], (unsigned)t.tm_mday % 100, months[t.tm_mon % 12],
                 (unsigned)(t.tm_year + 1900) % 10000, (unsigned)t.tm_hour % 100,
                 (unsigned)t.tm_min % 100, (unsigned)t.tm_sec % 100);
        s->date_until_ns = now + NS_PER_SEC - wall % NS_PER_SEC;
    }
    return view_str(s->date);
}

bool http_status_bodiless(int status)
{
    return status < 200 || status == 204 || status == 304;
}

bool http_is_framing_field(struct view name)
{
    switch (name.n) {
    case 10:
        return view_ieq(name, VIEW_LIT("connection")) || view_ieq(name, VIEW_LIT("keep-alive"));
    case 14:
        return view_ieq(name, VIEW_LIT("content-length"));
    case 17:
        return view_ieq(name, VIEW_LIT("transfer-encoding"));
    default:
        return false;
    }
}

void http_error_body(struct str *out, const char *text)
{
    str_adds(out, "{\"error_msg\":\"");
    str_add_json(out, view_str(text));
    str_adds(out, "\"}\n");
}

/* --- what handlers call: checked here, done by the protocol --- */

void http_bind(struct http_exchange *ex, const struct http_handler *handler, void *ctx)
{
    OBJ_CHECK(ex, HTTP_EXCHANGE_MAGIC);
    ASSERT(!ex->handler && handler);
    ex->handler = handler;
    ex->ctx = ctx;
}

void http_rebind(struct http_exchange *ex, const struct http_handler *handler, void *ctx)
{
    OBJ_CHECK(ex, HTTP_EXCHANGE_MAGIC);
    ASSERT(ex->handler && handler);
    ex->handler = handler;
    ex->ctx = ctx;
}

struct ev_loop *http_loop(const struct http_exchange *ex)
{
    OBJ_CHECK(ex, HTTP_EXCHANGE_MAGIC);
    return ex->conn->srv->loop;
}

const struct http_request *http_request_of(const struct http_exchange *ex)
{
    OBJ_CHECK(ex, HTTP_EXCHANGE_MAGIC);
    return &ex->req;
}

static bool is_dead(const struct http_exchange *ex)
{
    OBJ_CHECK(ex, HTTP_EXCHANGE_MAGIC);
    return ex->dead || ex->conn->over;
}

void http_consumed(struct http_exchange *ex, size_t n)
{
    if (is_dead(ex) || ex->answer == ANSWER_WHOLE)
        return;
    ASSERT(n <= ex->unconsumed);
    ex->unconsumed -= n;
    ex->conn->ops->consumed(ex, n);
}

void http_reply(struct http_exchange *ex, int status, const struct h1_field *fields, size_t n,
                struct view body)
{
    if (is_dead(ex))
        return;
    ASSERT(ex->answer == ANSWER_NONE && status >= 200 && status <= 999);
    ex->conn->ops->reply(ex, status, fields, n, body);
}

void http_reply_start(struct http_exchange *ex, int status, const struct h1_field *fields, size_t n,
                      int64_t length)
{
    if (is_dead(ex))
        return;
    ASSERT(ex->answer == ANSWER_NONE && status >= 200 && status <= 999);
    ex->answer = ANSWER_STARTED;
    ex->conn->ops->reply_start(ex, status, fields, n, length);
}

size_t http_write(struct http_exchange *ex, struct view piece)
{
    size_t queued;

    if (is_dead(ex))
        return 0;
    ASSERT(ex->answer == ANSWER_STARTED);
    queued = ex->conn->ops->write(ex, piece);
    if (queued > HTTP_WRITE_HIGH)
        ex->high = true;
    return queued;
}

void http_finish(struct http_exchange *ex)
{
    if (is_dead(ex))
        return;
    ASSERT(ex->answer == ANSWER_STARTED);
    ex->conn->ops->finish(ex);
}

void http_finish_trailers(struct http_exchange *ex, const struct h1_field *fields, size_t n)
{
    if (is_dead(ex))
        return;
    ASSERT(ex->answer == ANSWER_STARTED);
    if (n && ex->conn->ops->finish_trailers)
        ex->conn->ops->finish_trailers(ex, fields, n);
    else
        ex->conn->ops->finish(ex);
}

void http_reply_head(struct http_exchange *ex, int status, const struct h1_field *fields, size_t n)
{
    if (is_dead(ex))
        return;
    ASSERT(ex->answer == ANSWER_NONE && status >= 200 && status <= 999);
    if (ex->conn->ops->reply_head)
        ex->conn->ops->reply_head(ex, status, fields, n);
    else
        ex->conn->ops->reply(ex, status, fields, n, VIEW_NONE);
}

void http_switch(struct http_exchange *ex, int status, const struct h1_field *fields, size_t n)
{
    if (is_dead(ex))
        return;
    ASSERT(ex->answer == ANSWER_NONE && (ex->req.upgrade || ex->connect));
    ex->answer = ANSWER_STARTED;
    ex->tunnel = true;
    http_wait_off(&ex->body);
    ex->conn->ops->switch_to(ex, status, fields, n);
}

struct net_stream *http_detach(struct http_exchange *ex, int status, const struct h1_field *fields,
                               size_t n, struct buf *early)
{
    struct net_stream *s;

    if (is_dead(ex) || !ex->conn->ops->detach)
        return NULL;
    ASSERT(ex->answer == ANSWER_NONE && (ex->req.upgrade || ex->connect));
    s = ex->conn->ops->detach(ex, status, fields, n, early);
    if (s) {
        ex->handler = NULL;
        ex->dead = true;
    }
    return s;
}

void http_reset(struct http_exchange *ex, uint32_t code)
{
    if (is_dead(ex))
        return;
    ex->dead = true;
    ex->conn->ops->abort(ex, code);
}

void http_abort(struct http_exchange *ex)
{
    http_reset(ex, H2_INTERNAL_ERROR);
}

uint32_t http_reset_code(const struct http_exchange *ex)
{
    OBJ_CHECK(ex, HTTP_EXCHANGE_MAGIC);
    return ex->code;
}
