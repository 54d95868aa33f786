/*
 * The HTTP server with a service behind it: connections of HTTP/1.1 and HTTP/2 whose bytes are the
 * input. The first byte says how it is cut, the second what the service does with what, the third
 * when the client leaves.
 *
 * Oracle: every exchange that was taken ends once; its body comes before its end and nothing comes
 * after it; when the client is gone nothing is left of the connection.
 */
#include "fuzz/turns.h"
#include "base/xmem.h"
#include "http/server.h"

enum { TURNS_MAX = 200 };

static struct turns turns;
static struct http_server *server;
static unsigned taken, gone;
static uint8_t manner;

struct one {
    struct http_exchange *ex;
    unsigned n;
    bool ended, tunnel, started, finished;
};

static void start(struct one *o)
{
    const struct h1_field f = {VIEW_LIT("content-type"), VIEW_LIT("text/plain")};

    if (!o->started)
        http_reply_start(o->ex, 200, &f, 1, -1);
    o->started = true;
}

static void on_body(void *ctx, struct view piece)
{
    struct one *o = ctx;

    ASSERT(piece.n > 0 && (!o->ended || o->tunnel));
    http_consumed(o->ex, piece.n);
    if ((manner + o->n) % 5 == 4) {
        http_abort(o->ex);
    } else if (!o->finished) {
        if (!o->tunnel)
            start(o);
        http_write(o->ex, piece);
    }
}

static void on_end(void *ctx)
{
    struct one *o = ctx;

    ASSERT(!o->ended || o->tunnel);
    o->ended = true;
    if (o->finished)
        return;
    if (!o->tunnel)
        start(o);
    http_finish(o->ex);
    o->finished = true;
}

static void on_gone(void *ctx, bool complete)
{
    struct one *o = ctx;

    (void)complete;
    gone++;
    xfree(o);
}

static const struct http_handler handler = {
    .on_body = on_body, .on_end = on_end, .on_gone = on_gone};

static void check_request(const struct http_request *req)
{
    size_t i;

    ASSERT(h1_is_token(req->method) && req->n_fields <= H1_MAX_FIELDS);
    for (i = 0; i < req->n_fields; i++)
        ASSERT(h1_is_token(req->fields[i].name) && h1_is_field_value(req->fields[i].value));
}

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    const struct h1_field f = {VIEW_LIT("x"), VIEW_LIT("y")};
    struct one *o;

    (void)ctx;
    check_request(req);
    if ((manner + taken) % 3 == 2) {
        http_reply(ex, 404, &f, 1, VIEW_LIT("not here\n"));
        return;
    }
    o = XNEW(struct one);
    o->ex = ex;
    o->n = taken++;
    o->tunnel = req->upgrade || view_is(req->method, "CONNECT");
    http_bind(ex, &handler, o);
    if (o->tunnel)
        http_switch(ex, view_is(req->method, "CONNECT") ? 200 : 101, &f, 1);
}

static const struct http_service service = {take, NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct net_addr peer = {.ss = {.in = {.sin_family = AF_INET}},
                                         .len = sizeof(struct sockaddr_in)};
    const struct http_server_opts o = {.service = &service, .listener = "fuzz"};
    struct view in = view_of(data, n);
    uint8_t cut = fuzz_byte(&in), leave;
    int fd[2];
    unsigned i;

    manner = fuzz_byte(&in);
    leave = fuzz_byte(&in);
    taken = gone = 0;
    if (!server) {
        turns_init(&turns);
        server = http_server_new(turns.loop, &o);
    }
    turns_pair(fd);
    http_server_accepted(server, fd[0], &peer);
    while (in.n) {
        turns_send(fd[1], turns_piece(&in, cut));
        turns_run(&turns, 1 + (leave & 3));
        if (leave & 4)
            turns_drain(fd[1]);
    }
    if (leave & 8)
        shutdown(fd[1], SHUT_WR);
    turns_run(&turns, 3);
    turns_drain(fd[1]);
    close(fd[1]);
    for (i = 0; i < TURNS_MAX && (http_server_connections(server) || taken != gone); i++)
        turns_run(&turns, 2);
    ASSERT(http_server_connections(server) == 0 && taken == gone);
    return 0;
}
