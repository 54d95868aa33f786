#include "net/through.h"

#include <string.h>
#include "base/bug.h"
#include "base/buf.h"
#include "base/str.h"
#include "base/xmem.h"
#include "codec/h1.h"
#include "rt/clock.h"

#define THROUGH_MAGIC 0x7420609fu

enum {
    TIMEOUT_MS = 10000,
    /* Of the answer to CONNECT, interim ones included: a parent that sends fields for ever. What
     * follows the head is the destination's, and read along with it at most once. */
    ANSWER_MAX = 32 * 1024,
    PIECE = 4096,
};

enum stage { REACHING, ASKING, SHAKING };

struct net_through {
    uint32_t magic;
    enum stage stage;
    struct net_resolver *resolver;
    struct ev_loop *loop;
    const struct net_parent *parent;
    char *host;
    char *server_name;
    char *alpn;
    size_t alpn_n;
    uint16_t port;
    unsigned timeout_ms;
    int64_t deadline_ns;
    struct tls_ctx *tls;
    net_connected_fn fn;
    void *ctx;

    struct net_connect *connect; /* REACHING */
    struct net_stream *stream;   /* to the parent; SHAKING: to the destination */
    struct ev_timer *timer;
    struct h1_parser parser;
    struct str out; /* the request; the first out_off bytes are sent */
    size_t out_off;
    struct buf in;
    size_t answered; /* bytes of interim answers */
    bool again;      /* once more without the TLS session that was not liked */
};

static void through_free(struct net_through *t)
{
    net_connect_cancel(&t->connect);
    net_stream_close(&t->stream, true);
    ev_timer_free(&t->timer);
    tls_ctx_unref(&t->tls);
    str_fini(&t->out);
    buf_fini(&t->in);
    xfree(t->host);
    xfree(t->server_name);
    xfree(t->alpn);
    OBJ_FINI(t);
    xfree(t);
}

static void finish(struct net_through *t, struct net_stream *s, const struct err *e)
{
    net_connected_fn fn = t->fn;
    void *ctx = t->ctx;

    through_free(t);
    fn(ctx, s, e);
}

/* It is over; `e` says why, in words about the parent. */
static void fail_at_parent(struct net_through *t, const struct err *why)
{
    struct err e = *why;

    err_prefix(&e, "the parent %s:%u", t->parent->host, t->parent->port);
    finish(t, NULL, &e);
}

static void succeed(struct net_through *t)
{
    struct net_stream *s = t->stream;

    t->stream = NULL;
    net_stream_bind(s, NULL, NULL);
    finish(t, s, NULL);
}

/* --- TLS to the destination --------------------------------------------------------------- */

static void reach(struct net_through *t);

static void on_shaken(void *ctx)
{
    struct net_through *t = ctx;

    OBJ_CHECK(t, THROUGH_MAGIC);
    succeed(t);
}

static void on_shaking_failed(void *ctx, const struct err *e)
{
    struct net_through *t = ctx;
    struct err why = *e;

    OBJ_CHECK(t, THROUGH_MAGIC);
    /* As net_connect does: the destination ended it, maybe for the session, now forgotten. */
    if (e->code == ERR_CLOSED && net_tls_offered(t->stream) && !t->again) {
        t->again = true;
        net_stream_close(&t->stream, true);
        reach(t);
        return;
    }
    err_prefix(&why, "by the parent %s:%u", t->parent->host, t->parent->port);
    finish(t, NULL, &why);
}

static const struct net_stream_ops shaking_ops = {.on_ready = on_shaken,
                                                  .on_failed = on_shaking_failed};

static void shake(struct net_through *t)
{
    const char *name = t->server_name ? t->server_name : t->host;
    struct view alpn = view_of(t->alpn, t->alpn_n);
    struct net_addr peer = *net_peer(t->stream);

    t->stage = SHAKING;
    if (net_is_tls(t->stream))
        t->stream = net_stream_over(t->stream, t->tls, name, alpn);
    else
        t->stream = net_stream_connected(t->loop, net_stream_release(&t->stream), t->tls, name,
                                         alpn, &peer);
    net_stream_bind(t->stream, &shaking_ops, t);
}

/* --- the question ------------------------------------------------------------------------- */

/* The tunnel stands. Bytes behind the answer's head are the destination's. */
static void tunnel_stands(struct net_through *t)
{
    struct err e;

    net_want_read(t->stream, false);
    if (!t->tls) {
        net_unread(t->stream, &t->in);
        succeed(t);
    } else if (buf_len(&t->in)) { /* with TLS it is the client who begins */
        err_set(&e, ERR_INVALID, "bytes came behind the answer to CONNECT, before TLS began");
        fail_at_parent(t, &e);
    } else {
        shake(t);
    }
}

static void refused(struct net_through *t, int status)
{
    const char *hint = status == 407 ? " (it asks for credentials)" : "";
    struct err e;

    err_set(&e, ERR_UNAVAIL, "the parent %s:%u answered CONNECT with status %d%s", t->parent->host,
            t->parent->port, status, hint);
    finish(t, NULL, &e);
}

/* One event of the answer. False: `t` is over, has gone on, or waits for bytes. */
static bool take_event(struct net_through *t)
{
    struct view body;
    size_t used = 0;
    struct err e;
    enum h1_event ev = h1_next(&t->parser, buf_view(&t->in), &used, &body, &e);
    int status = t->parser.head.status;

    buf_consume(&t->in, used);
    t->answered += used;
    if (ev == H1_ERROR) {
        err_prefix(&e, "malformed answer to CONNECT");
        fail_at_parent(t, &e);
        return false;
    }
    if (t->answered + buf_len(&t->in) > ANSWER_MAX + PIECE ||
        (ev == H1_MORE && t->answered + buf_len(&t->in) > ANSWER_MAX)) {
        err_set(&e, ERR_LIMIT, "the answer to CONNECT is too long");
        fail_at_parent(t, &e);
        return false;
    }
    if (ev != H1_HEAD)
        return ev == H1_END; /* of an interim answer */
    if (status >= 100 && status < 200 && status != 101)
        return true;
    if (status >= 200 && status < 300)
        tunnel_stands(t);
    else
        refused(t, status);
    return false;
}

static void on_asking_failed(void *ctx, const struct err *e)
{
    struct net_through *t = ctx;

    OBJ_CHECK(t, THROUGH_MAGIC);
    fail_at_parent(t, e);
}

static void on_readable(void *ctx)
{
    struct net_through *t = ctx;
    struct err e;
    ssize_t n;

    OBJ_CHECK(t, THROUGH_MAGIC);
    n = net_read(t->stream, buf_reserve(&t->in, PIECE), PIECE, &e);
    if (n == NET_AGAIN)
        return;
    if (n == 0)
        err_set(&e, ERR_CLOSED, "closed the connection before it had answered CONNECT");
    if (n <= 0) {
        fail_at_parent(t, &e);
        return;
    }
    buf_commit(&t->in, (size_t)n);
    while (take_event(t))
        ;
}

static void on_writable(void *ctx)
{
    struct net_through *t = ctx;
    struct err e;
    ssize_t n;

    OBJ_CHECK(t, THROUGH_MAGIC);
    while (t->out_off < t->out.n) {
        n = net_write(t->stream, t->out.p + t->out_off, t->out.n - t->out_off, &e);
        if (n == NET_AGAIN)
            return;
        if (n == NET_ERROR) {
            fail_at_parent(t, &e);
            return;
        }
        t->out_off += (size_t)n;
    }
}

static const struct net_stream_ops asking_ops = {
    .on_readable = on_readable, .on_writable = on_writable, .on_failed = on_asking_failed};

static void write_question(struct net_through *t)
{
    bool brackets = strchr(t->host, ':') != NULL;
    struct str to = STR_INIT;

    str_addf(&to, brackets ? "[%s]:%u" : "%s:%u", t->host, t->port);
    str_clear(&t->out);
    t->out_off = 0;
    h1_write_request(&t->out, VIEW_LIT("CONNECT"), str_view(&to));
    h1_write_field(&t->out, VIEW_LIT("Host"), str_view(&to));
    if (t->parent->authorization)
        h1_write_field(&t->out, VIEW_LIT("Proxy-Authorization"),
                       view_str(t->parent->authorization));
    h1_write_end(&t->out);
    str_fini(&to);
}

static void ask(struct net_through *t, struct net_stream *s)
{
    t->stage = ASKING;
    t->stream = s;
    h1_init(&t->parser, H1_RESPONSE);
    buf_clear(&t->in);
    t->answered = 0;
    write_question(t);
    net_stream_bind(s, &asking_ops, t);
    net_want_read(s, true);
    on_writable(t);
}

/* --- the parent --------------------------------------------------------------------------- */

static void on_reached(void *ctx, struct net_stream *s, const struct err *e)
{
    struct net_through *t = ctx;
    struct err why;

    OBJ_CHECK(t, THROUGH_MAGIC);
    t->connect = NULL;
    if (s) {
        ask(t, s);
        return;
    }
    why = *e;
    err_prefix(&why, "the parent proxy");
    finish(t, NULL, &why);
}

static void reach(struct net_through *t)
{
    int64_t left_ms = (t->deadline_ns - clock_mono_ns()) / NS_PER_MS;
    const struct net_connect_opts o = {
        .host = t->parent->host,
        .port = t->parent->port,
        .tls = t->parent->tls,
        .alpn = t->parent->tls ? VIEW_LIT("\x08http/1.1") : VIEW_NONE,
        .timeout_ms = left_ms > 1 ? (unsigned)left_ms : 1,
    };

    t->stage = REACHING;
    t->connect = net_connect_start(t->resolver, t->loop, &o, on_reached, t);
}

static void on_late(void *ctx)
{
    struct net_through *t = ctx;
    struct err e;

    OBJ_CHECK(t, THROUGH_MAGIC);
    if (t->stage == SHAKING)
        err_set(&e, ERR_TIMEOUT, "TLS handshake by the parent %s:%u took longer than %u ms",
                t->parent->host, t->parent->port, t->timeout_ms);
    else
        err_set(&e, ERR_TIMEOUT, "the parent %s:%u took longer than %u ms%s", t->parent->host,
                t->parent->port, t->timeout_ms,
                t->stage == ASKING ? " to answer CONNECT" : " to be reached");
    finish(t, NULL, &e);
}

/* A name that cannot stand in a request must not get into one. */
static void on_bad_name(void *ctx)
{
    struct net_through *t = ctx;
    struct err e;

    err_set(&e, ERR_INVALID, "no parent can be asked for such a name");
    finish(t, NULL, &e);
}

struct net_through *net_through_start(struct net_resolver *r, struct ev_loop *loop,
                                      const struct net_connect_opts *o, net_connected_fn fn,
                                      void *ctx)
{
    struct net_through *t = XNEW(struct net_through);

    OBJ_INIT(t, THROUGH_MAGIC);
    t->resolver = r;
    t->loop = loop;
    t->parent = o->parent;
    t->host = xstrdup(o->host);
    t->server_name = o->server_name ? xstrdup(o->server_name) : NULL;
    t->alpn = o->alpn.n ? xmemdup0(o->alpn.p, o->alpn.n) : NULL;
    t->alpn_n = o->alpn.n;
    t->port = o->port;
    t->timeout_ms = o->timeout_ms ? o->timeout_ms : TIMEOUT_MS;
    t->deadline_ns = clock_mono_ns() + t->timeout_ms * NS_PER_MS;
    t->tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
    t->fn = fn;
    t->ctx = ctx;
    if (!*t->host || !h1_is_host(view_str(t->host))) {
        t->timer = ev_timer_new(loop, on_bad_name, t);
        ev_timer_arm(t->timer, 0);
        return t;
    }
    t->timer = ev_timer_new(loop, on_late, t);
    ev_timer_arm(t->timer, t->timeout_ms);
    reach(t);
    return t;
}

void net_through_cancel(struct net_through **tp)
{
    struct net_through *t = *tp;

    *tp = NULL;
    if (!t)
        return;
    OBJ_CHECK(t, THROUGH_MAGIC);
    through_free(t);
}
