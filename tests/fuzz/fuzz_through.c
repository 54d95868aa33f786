/*
 * What a parent proxy answers to CONNECT. The first byte says how it is cut, the rest is the
 * answer.
 *
 * Oracle: there is a tunnel only if the parent said 2xx, and then every byte behind its answer is
 * read through it, none else.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include "fuzz/turns.h"
#include "net/through.h"

enum { TURNS_MAX = 2000, SENT_MAX = 100000 };

static struct turns turns;
static struct net_resolver *resolver;
static struct net_parent parent = {.host = "127.0.0.1"};
static int listener;

static struct {
    bool done;
    struct net_stream *s;
} got;

static void begin(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(a);
    struct err e;

    if (resolver)
        return;
    turns_init(&turns);
    resolver = net_resolver_new(turns.loop, "127.0.0.1:9", &e);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ASSERT(resolver && listener >= 0 && bind(listener, (struct sockaddr *)&a, len) == 0);
    ASSERT(listen(listener, 8) == 0 && getsockname(listener, (struct sockaddr *)&a, &len) == 0);
    parent.port = ntohs(a.sin_port);
}

static void on_connected(void *ctx, struct net_stream *s, const struct err *e)
{
    (void)ctx;
    ASSERT(!got.done && (s || e->text[0]));
    got.done = true;
    got.s = s;
    if (s)
        net_stream_bind(s, NULL, NULL);
}

static int accept_one(void)
{
    const struct linger hard = {1, 0};
    int fd = -1, i;

    for (i = 0; i < TURNS_MAX && fd < 0; i++) {
        turns_run(&turns, 1);
        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    ASSERT(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)); /* no port waits for long */
    return fd;
}

/* Where the first answer that is not an interim one begins; its status. */
static int status_of(struct view *in)
{
    for (;;) {
        const char *end;
        int status;

        while (in->n >= 2 && memcmp(in->p, "\r\n", 2) == 0)
            *in = view_from(*in, 2);
        end = in->n >= 13 ? memmem(in->p, in->n, "\r\n\r\n", 4) : NULL;
        if (!end || memcmp(in->p, "HTTP/1.", 7) != 0)
            return 0;
        status = (in->p[9] - '0') * 100 + (in->p[10] - '0') * 10 + in->p[11] - '0';
        *in = view_from(*in, (size_t)(end + 4 - in->p));
        if (status / 100 != 1 || status == 101)
            return status;
    }
}

/* All that can be read of the tunnel is all that follows. */
static void check_tunnel(struct view sent, int fd)
{
    static char bytes[SENT_MAX + 1];
    size_t n = 0;
    ssize_t r;
    int i;

    ASSERT(status_of(&sent) / 100 == 2);
    shutdown(fd, SHUT_WR);
    for (i = 0; i < TURNS_MAX; i++) {
        turns_run(&turns, 1);
        while (n < SENT_MAX && (r = net_read(got.s, bytes + n, SENT_MAX - n, NULL)) > 0)
            n += (size_t)r;
        if (r == 0)
            break;
    }
    ASSERT(r == 0 && n == sent.n && (n == 0 || memcmp(bytes, sent.p, n) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct net_connect_opts o = {.host = "a.example", .port = 443, .parent = &parent};
    struct view in = view_of(data, TR_MIN(n, (size_t)SENT_MAX)), all;
    uint8_t cut = fuzz_byte(&in);
    struct net_through *t;
    int fd, i;

    begin();
    got.done = false;
    got.s = NULL;
    t = net_through_start(resolver, turns.loop, &o, on_connected, NULL);
    fd = accept_one();
    all = in;
    while (in.n) {
        turns_send(fd, turns_piece(&in, cut));
        turns_run(&turns, 2);
        turns_drain(fd);
    }
    turns_run(&turns, 3);
    turns_drain(fd);
    if (got.s)
        check_tunnel(all, fd);
    close(fd);
    for (i = 0; i < TURNS_MAX && !got.done; i++)
        turns_run(&turns, 1);
    ASSERT(got.done && t);
    net_stream_close(&got.s, true);
    turns_run(&turns, 2);
    return 0;
}
