/*
 * As many calls as the far side takes: each connection has one request under way, HTTP/1.1 in clear
 * or over TLS; or the same lines as text over bare connections. One thread.
 *
 *     flood --url http[s]://127.0.0.1:PORT [--connections 32] [--keys 200] [--first-key N] [--total N]
 *           [--bytes 4096] [--open] [--hold SECONDS]
 *     flood --raw PORT [--connections 8] [--total N] [--bytes 4096]
 *     flood --print [--total N]            the same text on standard output
 *
 * A key belongs to one connection, and its `pos` rises from call to call, as a client's does. With
 * --open each key is opened first. --hold keeps the connections for a while after the last call, and
 * says "held" when that begins. The last line of output is a summary in JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/str.h"
#include "base/xmem.h"
#include "corpus.h"

enum { BODIES = 2000, LINES_MAX = 64, POS_DIGITS = 7, EVENTS = 256, IN_MAX = 8192 };
enum { STEP_LINES = 2000 }; /* of one build, until another begins */

struct body {
    struct str text;
    unsigned lines;
    unsigned pos_at[LINES_MAX];
};

struct conn {
    int fd;
    SSL *ssl;
    unsigned index, turn; /* which of its keys comes next */
    uint64_t calls;
    bool opening, connected, ended;
    struct str out;
    size_t sent;
    bool want_out;
    int64_t since;
    char in[IN_MAX];
    size_t n;
};

static struct {
    const char *url;
    int port, raw_port;
    bool tls, open, print;
    unsigned connections, keys, first_key, bytes, hold;
    uint64_t total;
} opt = {.connections = 32, .keys = 200, .bytes = 4096, .total = 20000};

static struct body bodies[BODIES];
static struct conn *conns;
static unsigned *key_pos;
static SSL_CTX *tls_ctx;
static int ep;
static uint64_t begun, done, good, bad, lines, body_bytes;
static float *took;
static unsigned alive;

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* --- bodies ------------------------------------------------------------------------------- */

static void add_line(struct body *b, struct corpus *c)
{
    static unsigned t;

    t += 700 + t % 89;
    str_adds(&b->text, "{\"level\":\"info\",\"pos\":");
    b->pos_at[b->lines++] = (unsigned)b->text.n;
    str_addf(&b->text, "%0*u,\"out\":\"", POS_DIGITS, 1000000);
    corpus_line(c, &b->text);
    str_addf(&b->text, "\\n\",\"time\":\"2026-05-11T12:%02u:%02u.%06u%03uZ\",\"args\":null}", t / 60000000 % 60,
             t / 1000000 % 60, t % 1000000, t * 7 % 1000);
}

static void make_bodies(void)
{
    bool text = opt.raw_port || opt.print;
    char open = text ? '\0' : '[', between = text ? '\n' : ',';
    struct corpus c = {0};
    unsigned i, step = STEP_LINES, seed = 0;

    for (i = 0; i < BODIES; i++) {
        struct body *b = &bodies[i];

        if (open)
            str_addc(&b->text, open);
        do {
            if (++step > STEP_LINES) {
                corpus_init(&c, ++seed);
                step = 0;
            }
            if (b->lines)
                str_addc(&b->text, between);
            add_line(b, &c);
        } while (b->text.n < opt.bytes && b->lines < LINES_MAX);
        str_adds(&b->text, text ? "\n" : "]\n");
    }
}

/* The body with positions of its own: nothing is ever sent twice. */
static const struct body *next_body(unsigned key)
{
    struct body *b = &bodies[begun % BODIES];
    unsigned i, k;

    for (i = 0; i < b->lines; i++) {
        unsigned pos = 1000000 + key_pos[key]++;

        for (k = POS_DIGITS; k-- > 0; pos /= 10)
            b->text.p[b->pos_at[i] + k] = (char)('0' + pos % 10);
    }
    return b;
}

/* --- requests ----------------------------------------------------------------------------- */

static void request(struct conn *c)
{
    unsigned own = (opt.keys - c->index + opt.connections - 1) / opt.connections;
    unsigned key = c->index + c->turn % own * opt.connections;
    const struct body *b;

    c->opening = opt.open && c->turn < own;
    c->turn++;
    str_clear(&c->out);
    str_addf(&c->out, "%s /log-service/stream?accountID=acct&key=accountId:acct/orgId:default/projectId:bench/"
             "pipelineId:flood/runSequence:1/level0:pipeline/level1:stages/level2:s%u HTTP/1.1\r\n"
             "Host: 127.0.0.1\r\nUser-Agent: Go-http-client/1.1\r\nX-Harness-Token: token-1\r\n"
             "Accept-Encoding: gzip\r\n", c->opening ? "POST" : "PUT", opt.first_key + key);
    if (c->opening) {
        str_adds(&c->out, "Content-Length: 0\r\n\r\n");
        return;
    }
    b = next_body(key);
    begun++;
    lines += b->lines;
    body_bytes += b->text.n;
    str_addf(&c->out, "Content-Length: %zu\r\n\r\n", b->text.n);
    str_addv(&c->out, str_view(&b->text));
}

static void raw_piece(struct conn *c)
{
    const struct body *b = next_body(c->index);

    begun++;
    lines += b->lines;
    body_bytes += b->text.n;
    str_clear(&c->out);
    str_addv(&c->out, str_view(&b->text));
}

static void watch(struct conn *c, bool out, int how)
{
    struct epoll_event ev = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};

    if (how == EPOLL_CTL_MOD && c->want_out == out)
        return;
    c->want_out = out;
    epoll_ctl(ep, how, c->fd, &ev);
}

/* False: nothing more can be sent now. */
static bool push(struct conn *c)
{
    while (c->sent < c->out.n) {
        ssize_t r = c->ssl ? SSL_write(c->ssl, c->out.p + c->sent, (int)(c->out.n - c->sent))
                           : send(c->fd, c->out.p + c->sent, c->out.n - c->sent, MSG_NOSIGNAL);

        if (r <= 0) {
            ERR_clear_error();
            watch(c, true, EPOLL_CTL_MOD);
            return false;
        }
        c->sent += (size_t)r;
    }
    watch(c, false, EPOLL_CTL_MOD);
    return true;
}

static bool over(const struct conn *c)
{
    unsigned own = (opt.keys - c->index + opt.connections - 1) / opt.connections;

    return begun >= opt.total && !(opt.open && !opt.raw_port && c->turn < own);
}

static void conn_end(struct conn *c)
{
    if (c->ended)
        return;
    c->ended = true;
    alive--;
}

static void go(struct conn *c)
{
    do {
        if (over(c)) {
            conn_end(c);
            return;
        }
        if (opt.raw_port)
            raw_piece(c);
        else
            request(c);
        c->sent = 0;
        c->since = now_ns();
    } while (push(c) && opt.raw_port);
}

static void answered(struct conn *c, int status)
{
    if (status == 204 && !c->opening) {
        took[good++ % opt.total] = (float)(now_ns() - c->since) / 1e6F;
    } else if (status != 204) {
        bad++;
    }
    done++;
    go(c);
}

static void readable(struct conn *c)
{
    ssize_t r = c->ssl ? SSL_read(c->ssl, c->in + c->n, (int)(IN_MAX - 1 - c->n))
                       : recv(c->fd, c->in + c->n, IN_MAX - 1 - c->n, 0);
    char *end, *length;

    if (r <= 0) {
        bool again = c->ssl ? SSL_get_error(c->ssl, (int)r) == SSL_ERROR_WANT_READ : r < 0 && errno == EAGAIN;

        ERR_clear_error();
        if (!again) {
            bad++;
            conn_end(c);
            epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
        }
        return;
    }
    c->n += (size_t)r;
    c->in[c->n] = '\0';
    end = strstr(c->in, "\r\n\r\n");
    if (!end)
        return;
    length = strcasestr(c->in, "content-length:");
    if (length && length < end && (size_t)(end + 4 - c->in) + strtoul(length + 15, NULL, 10) > c->n)
        return;
    c->n = 0;
    answered(c, atoi(c->in + 9));
}

static int print_all(void)
{
    uint64_t i;

    for (i = 0; i < opt.total; i++) {
        const struct body *b = next_body(0);

        begun++;
        fwrite(b->text.p, 1, b->text.n, stdout);
    }
    return 0;
}

static void connect_all(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    unsigned i;
    int one = 1;

    a.sin_port = htons((uint16_t)(opt.raw_port ? opt.raw_port : opt.port));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (i = 0; i < opt.connections; i++) {
        struct conn *c = &conns[i];

        c->index = i;
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)) < 0)
            die("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (opt.tls) {
            c->ssl = SSL_new(tls_ctx);
            SSL_set_fd(c->ssl, c->fd);
            if (SSL_connect(c->ssl) != 1)
                die("TLS");
        }
        c->want_out = true;
        watch(c, false, EPOLL_CTL_ADD);
    }
    for (i = 0; i < opt.connections; i++) /* blocking until here, not from here on */
        fcntl(conns[i].fd, F_SETFL, O_NONBLOCK);
}

static void run(void)
{
    struct epoll_event ev[EVENTS];
    unsigned i;

    for (i = 0; i < opt.connections; i++)
        go(&conns[i]);
    while (alive) {
        int k, n = epoll_wait(ep, ev, EVENTS, 20000);

        if (n == 0)
            die("no answer for 20 s");
        for (k = 0; k < n; k++) {
            struct conn *c = ev[k].data.ptr;

            if (c->ended)
                continue;
            if ((ev[k].events & EPOLLOUT) && push(c) && opt.raw_port)
                go(c);
            if (!c->ended && (ev[k].events & EPOLLIN))
                readable(c);
        }
    }
}

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return x < y ? -1 : x > y;
}

static void report(double seconds)
{
    size_t n = good < opt.total ? good : opt.total;

    qsort(took, n, sizeof(*took), compare);
    printf("{\"good\":%llu,\"bad\":%llu,\"calls\":%llu,\"lines\":%llu,\"body_bytes\":%llu,\"seconds\":%.4f,"
           "\"p50_ms\":%.3f,\"p99_ms\":%.3f}\n", (unsigned long long)good, (unsigned long long)bad,
           (unsigned long long)done, (unsigned long long)lines, (unsigned long long)body_bytes, seconds,
           n ? (double)took[n / 2] : 0.0, n ? (double)took[n * 99 / 100] : 0.0);
}

static void parse_options(int argc, char **argv)
{
    static const struct option longs[] = {
        {"url", 1, NULL, 'u'},   {"raw", 1, NULL, 'r'},  {"connections", 1, NULL, 'c'}, {"keys", 1, NULL, 'k'},
        {"total", 1, NULL, 't'}, {"bytes", 1, NULL, 'b'}, {"first-key", 1, NULL, 'f'},  {"open", 0, NULL, 'o'},
        {"hold", 1, NULL, 'h'},  {"print", 0, NULL, 'p'},  {0},
    };
    const char *colon;
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        unsigned long v = optarg ? strtoul(optarg, NULL, 10) : 0;

        switch (c) {
        case 'u': opt.url = optarg; break;
        case 'r': opt.raw_port = (int)v; break;
        case 'c': opt.connections = (unsigned)v; break;
        case 'k': opt.keys = (unsigned)v; break;
        case 't': opt.total = v; break;
        case 'b': opt.bytes = (unsigned)v; break;
        case 'f': opt.first_key = (unsigned)v; break;
        case 'o': opt.open = true; break;
        case 'p': opt.print = true; break;
        case 'h': opt.hold = (unsigned)v; break;
        default: fputs("flood: see the head of flood.c for its options\n", stderr); exit(2);
        }
    }
    colon = opt.url ? strrchr(opt.url, ':') : NULL;
    opt.port = colon ? atoi(colon + 1) : 0;
    opt.tls = opt.url && strncmp(opt.url, "https:", 6) == 0;
    if (opt.keys < opt.connections)
        opt.keys = opt.connections;
    if (!!opt.port + !!opt.raw_port + opt.print != 1 || !opt.connections || !opt.total) {
        fputs("flood: --url or --raw, and something to do\n", stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    int64_t start;

    parse_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    make_bodies();
    conns = xcalloc(opt.connections, sizeof(*conns));
    key_pos = xcalloc(opt.keys, sizeof(*key_pos));
    if (opt.print)
        return print_all();
    took = xcalloc(opt.total, sizeof(*took));
    tls_ctx = SSL_CTX_new(TLS_client_method());
    ep = epoll_create1(EPOLL_CLOEXEC);
    connect_all();
    alive = opt.connections;
    start = now_ns();
    run();
    if (opt.hold) {
        puts("held");
        fflush(stdout);
        poll(NULL, 0, (int)opt.hold * 1000);
    }
    report((double)(now_ns() - start) / 1e9 - opt.hold);
    return bad ? 1 : 0;
}
