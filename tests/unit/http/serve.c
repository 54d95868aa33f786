/*
 * A small server over src/http for trying it by hand and for measuring: takes bodies (204), sends
 * bytes, echoes, and is a tunnel's far side.
 *
 * serve PORT [CERTIFICATE KEY]
 *
 * PUT, POST: 204. GET /bytes?N: N bytes. POST /echo: the body. Any /early: 413 at once. CONNECT,
 * Upgrade: an echo.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/xmem.h"
#include "crypto/tls.h"
#include "ev/loop.h"
#include "http/server.h"
#include "net/listen.h"

struct call {
    struct http_exchange *ex;
    size_t to_send; /* GET */
    bool echo, finished;
};

static const struct h1_field common[] = {
    {{"Accept-Encoding", 15}, {"zstd, gzip", 10}},
    {{"Tailrace", 8}, {"0.1.0", 5}},
};

static void send_some(struct call *call)
{
    static const char bytes[32768];

    while (call->to_send) {
        size_t n = TR_MIN(call->to_send, sizeof bytes);

        call->to_send -= n;
        if (http_write(call->ex, view_of(bytes, n)) > HTTP_WRITE_HIGH && call->to_send)
            return;
    }
    if (!call->finished) {
        call->finished = true;
        http_finish(call->ex);
    }
}

static void on_body(void *ctx, struct view piece)
{
    struct call *call = ctx;

    if (call->echo)
        http_write(call->ex, piece);
    http_consumed(call->ex, piece.n);
}

static void on_end(void *ctx)
{
    struct call *call = ctx;
    const struct http_request *req = http_request_of(call->ex);

    if (call->echo)
        http_finish(call->ex);
    else if (view_is(req->method, "GET"))
        send_some(call);
    else
        http_reply(call->ex, 204, common, ARRAY_LEN(common), VIEW_NONE);
}

static void on_drain(void *ctx)
{
    struct call *call = ctx;

    if (call->to_send)
        send_some(call);
}

static void on_gone(void *ctx, bool complete)
{
    xfree(ctx);
}

static const struct http_handler handler = {
    .on_body = on_body, .on_end = on_end, .on_drain = on_drain, .on_gone = on_gone};

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct call *call;

    if (view_starts(req->target, VIEW_LIT("/early"))) {
        http_reply(ex, 413, common, ARRAY_LEN(common), VIEW_LIT("too large\n"));
        return;
    }
    call = XNEW(struct call);
    call->ex = ex;
    http_bind(ex, &handler, call);
    if (req->upgrade || view_is(req->method, "CONNECT")) {
        call->echo = true;
        http_switch(ex, req->upgrade ? 101 : 200, NULL, 0);
    } else if (view_is(req->target, "/echo")) {
        call->echo = true;
        http_reply_start(ex, 200, common, ARRAY_LEN(common), -1);
    } else if (view_is(req->method, "GET")) {
        if (view_starts(req->target, VIEW_LIT("/bytes?")))
            call->to_send = strtoull(req->target.p + 7, NULL, 10);
        http_reply_start(ex, 200, common, ARRAY_LEN(common), (int64_t)call->to_send);
    }
}

static void on_term(void *ctx, int signo)
{
    ev_loop_stop(ctx);
}

int main(int argc, char **argv)
{
    static const struct http_service service = {.take = take};
    struct http_server_opts o = {.service = &service};
    struct ev_loop *loop = ev_loop_new("serve");
    struct tls_server_opts tls = {.http2 = true};
    struct net_listener *listener;
    struct http_server *server;
    struct ev_signal *sig;
    struct net_addr at;
    struct err e;
    char text[64];
    int fd;

    if (argc != 2 && argc != 4) {
        fprintf(stderr, "usage: serve PORT [CERTIFICATE KEY]\n");
        return 2;
    }
    snprintf(text, sizeof text, "127.0.0.1:%s", argv[1]);
    if (argc == 4) {
        tls.certificate = argv[2];
        tls.key = argv[3];
        o.tls = tls_ctx_server(&tls, &e);
    }
    if ((argc == 4 && !o.tls) || net_addr_parse(view_str(text), &at, &e) ||
        (fd = net_listen_fd(&at, 1024, NULL, &e)) < 0) {
        fprintf(stderr, "serve: %s\n", e.text);
        return 1;
    }
    server = http_server_new(loop, &o);
    listener = net_listener_new(loop, fd, http_server_accepted, server);
    sig = ev_signal_new(loop, SIGTERM, on_term, loop);
    ev_loop_run(loop);
    ev_signal_free(&sig);
    net_listener_free(&listener);
    http_server_free(&server);
    if (o.tls)
        tls_ctx_unref(&o.tls);
    ev_loop_free(&loop);
    return 0;
}
