/*
 * The HTTP client of the relays, and what an upstream may answer. The first byte says what is asked
 * for, the second how the answer is cut, the third when upstream leaves; the rest is the answer.
 *
 * Oracle: a call ends once, by its end or an error; its head comes first and its body has the
 * length that the head says; no answer makes two.
 */
#include "fuzz/turns.h"
#include "http/client.h"

enum { TURNS_MAX = 200 };

static struct turns turns;
static struct http_client *client;
static int peer_fd;

static struct {
    struct http_call *call;
    bool head, over, tunnel, no_body;
    int64_t length, got;
} c;

static int dial(void *ctx, struct err *e)
{
    int fd[2];

    (void)ctx;
    (void)e;
    turns_pair(fd);
    peer_fd = fd[1];
    return fd[0];
}

static void on_head(void *ctx, int status, const struct h1_field *fields, size_t n, int64_t length)
{
    size_t i;

    (void)ctx;
    ASSERT(!c.head && !c.over && (status == 101 || (status >= 200 && status <= 999)) &&
           length >= -1);
    for (i = 0; i < n; i++)
        ASSERT(h1_is_token(fields[i].name) && h1_is_field_value(fields[i].value));
    c.head = true;
    c.length = length;
    c.tunnel = c.tunnel && (status == 101 || status < 300);
}

static void on_body(void *ctx, struct view piece)
{
    (void)ctx;
    ASSERT(c.head && !c.over && piece.n > 0 && !(c.no_body && !c.tunnel));
    c.got += (int64_t)piece.n;
    ASSERT(c.tunnel || c.length < 0 || c.got <= c.length);
    http_call_consumed(c.call, piece.n);
}

static void on_end(void *ctx)
{
    (void)ctx;
    ASSERT(c.head && !c.over && (c.tunnel || c.no_body || c.length < 0 || c.got == c.length));
    c.over = true;
}

static void on_error(void *ctx, const struct err *e, bool sent)
{
    (void)ctx;
    (void)sent;
    ASSERT(!c.over && e->text[0]);
    c.over = true;
}

static const struct http_call_ops ops = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_error = on_error};

static void begin(uint8_t what)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "CONNECT"};
    const struct h1_field f = {VIEW_LIT("Upgrade"), VIEW_LIT("websocket")};
    struct http_call_opts o = {.host = "a.example",
                               .port = 80,
                               .method = view_str(methods[what & 3]),
                               .target = VIEW_LIT("/x?y"),
                               .authority = VIEW_LIT("a.example"),
                               .fields = &f,
                               .dial = dial};

    o.upgrade = (what & 3) == 0 && what & 4;
    o.n_fields = o.upgrade;
    if ((what & 3) == 3)
        o.target = VIEW_LIT("a.example:80");
    if ((what & 3) == 2)
        o.length = what & 8 ? -1 : 5;
    c.no_body = (what & 3) == 1;
    c.tunnel = o.upgrade || (what & 3) == 3;
    c.call = http_call_start(client, &o, &ops, NULL);
    if ((what & 3) == 2)
        http_call_write(c.call, VIEW_LIT("hello"));
    if (what & 16)
        http_call_finish(c.call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    uint8_t what = fuzz_byte(&in), cut = fuzz_byte(&in), leave = fuzz_byte(&in);
    const struct http_client_opts o = {0};
    unsigned i;

    if (!client) {
        turns_init(&turns);
        client = http_client_new(turns.loop, &o);
    }
    memset(&c, 0, sizeof(c));
    begin(what);
    turns_run(&turns, 2);
    while (in.n) {
        turns_send(peer_fd, turns_piece(&in, cut));
        turns_run(&turns, 1 + (leave & 3));
        turns_drain(peer_fd);
    }
    if (leave & 4)
        shutdown(peer_fd, SHUT_WR);
    turns_run(&turns, 3);
    turns_drain(peer_fd);
    close(peer_fd);
    http_call_finish(c.call);
    for (i = 0; i < TURNS_MAX && !c.over; i++)
        turns_run(&turns, 2);
    ASSERT(c.over);
    http_call_free(&c.call);
    turns_run(&turns, 2);
    return 0;
}
