/*
 * Both ends of what a TLS relay is measured with: WebSocket messages, bodies and handshakes.
 *
 *     talk --far --cert FILE --key FILE       the far end, until its standard input ends; prints
 * its port talk --wss PORT [--connections 32] [--total N]      messages of 200 bytes, one under way
 * in each talk --bulk PORT [--connections 4] [--total BYTES] [--up] talk --handshakes PORT
 * [--connections 4] [--total N] [--resume]
 *
 * The near ends connect, say "ready", wait for a line on standard input, work, say what was done in
 * JSON, and keep their connections until standard input ends. What is not as it should be ends them
 * with a message: a figure stands for work that was done.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/xmem.h"

enum { HEAD_MAX = 8192, PIECE = 64 * 1024, TURN = 16, EVENTS = 64, NEARS_MAX = 256 };
/* Frames of 200 bytes (RFC 6455 §5.2): 0x82, the length 126 and two bytes, and a client's mask. */
enum { PAYLOAD = 200, FROM_SERVER = 4 + PAYLOAD, FROM_CLIENT = 8 + PAYLOAD };

enum what { FAR = 1, WSS, BULK, HANDSHAKES };

static struct {
    enum what what;
    int port;
    unsigned connections;
    uint64_t total;
    bool up, resume;
    const char *cert, *key;
} opt;

static SSL_CTX *tls;

static void die(const char *what)
{
    fprintf(stderr, "talk: %s: %s\n", what, errno ? strerror(errno) : "not as it should be");
    ERR_print_errors_fp(stderr);
    exit(2);
}

static double now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void fill_frame(unsigned char *p, bool masked)
{
    memset(p, 'm', FROM_CLIENT);
    p[0] = 0x82;
    p[1] = (unsigned char)(126 | (masked ? 0x80 : 0));
    p[2] = 0;
    p[3] = PAYLOAD;
    if (masked)
        memset(p + 4, 0, 4); /* the mask that changes nothing */
}

static void no_delay(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* --- the far end -------------------------------------------------------------------------- */

enum state { HEAD, ECHO, DOWN, UP };

struct far {
    int fd;
    SSL *ssl;
    enum state state;
    uint64_t left; /* bytes of a body, or of the frame under way */
    bool want_out;
    char in[HEAD_MAX];
    size_t n;
};

static int ep;
static char piece[PIECE];
static unsigned char echoed[FROM_CLIENT];

/* All of it; the few bytes of a head or a frame always fit the socket. */
static bool put(struct far *f, const void *p, int n)
{
    return SSL_write(f->ssl, p, n) == n;
}

static bool answer(struct far *f)
{
    static const char upgraded[] =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    char head[128];
    const char *length;
    int n;

    f->n = 0;
    if (strcasestr(f->in, "\nupgrade: websocket")) {
        f->state = ECHO;
        f->left = FROM_CLIENT;
        return put(f, upgraded, sizeof(upgraded) - 1);
    }
    if (strncmp(f->in, "GET /bulk/", 10) == 0) {
        f->state = DOWN;
        f->left = strtoull(f->in + 10, NULL, 10);
        n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n",
                     (unsigned long long)f->left);
        return put(f, head, n);
    }
    length = strcasestr(f->in, "\ncontent-length:");
    f->state = UP;
    f->left = length ? strtoull(length + 16, NULL, 10) : 0;
    return true;
}

/* The end of an upload's body. */
static bool taken(struct far *f)
{
    static const char done[] = "HTTP/1.1 204 No Content\r\n\r\n";

    f->state = HEAD;
    return put(f, done, sizeof(done) - 1);
}

/* -1: the connection is over; 0: wait for more. */
static int after(const struct far *f, int rc)
{
    int error = SSL_get_error(f->ssl, rc);

    ERR_clear_error();
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static int read_head(struct far *f)
{
    int r = SSL_read(f->ssl, f->in + f->n, (int)(HEAD_MAX - 1 - f->n));
    char *end;

    if (r <= 0)
        return after(f, r);
    f->n += (size_t)r;
    f->in[f->n] = '\0';
    end = strstr(f->in, "\r\n\r\n");
    if (!end)
        return f->n < HEAD_MAX - 1 ? 1 : -1;
    r = (int)(f->in + f->n - (end + 4)); /* of a body, which came with the head */
    if (!answer(f) || (r && f->state != UP) || (uint64_t)r > f->left)
        return -1;
    f->left -= (uint64_t)r;
    return f->state == UP && f->left == 0 && !taken(f) ? -1 : 1;
}

static int far_step(struct far *f)
{
    int r;

    if (f->state == HEAD)
        return read_head(f);
    if (f->state == DOWN) {
        r = SSL_write(f->ssl, piece, (int)(f->left < PIECE ? f->left : PIECE));
        if (r <= 0)
            return after(f, r);
        f->left -= (uint64_t)r;
        if (!f->left)
            f->state = HEAD;
        return 1;
    }
    r = SSL_read(f->ssl, piece, (int)(f->left < PIECE ? f->left : PIECE));
    if (r <= 0)
        return after(f, r);
    f->left -= (uint64_t)r;
    if (f->left)
        return 1;
    if (f->state == UP)
        return taken(f) ? 1 : -1;
    f->left = FROM_CLIENT;
    return put(f, echoed, FROM_SERVER) ? 1 : -1;
}

static void far_run(struct far *f)
{
    struct epoll_event ev = {.data.ptr = f};
    int turns = TURN, r;

    do
        r = far_step(f);
    while (r == 1 && --turns);
    if (r < 0) {
        close(f->fd);
        SSL_free(f->ssl);
        xfree(f);
        return;
    }
    /* Bytes that TLS holds already would be told by no descriptor; room for more always is. */
    ev.events = EPOLLIN | (f->state == DOWN || SSL_has_pending(f->ssl) ? EPOLLOUT : 0);
    if (f->want_out != !!(ev.events & EPOLLOUT))
        epoll_ctl(ep, EPOLL_CTL_MOD, f->fd, &ev);
    f->want_out = ev.events & EPOLLOUT;
}

static void far_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN};
    struct far *f;

    if (fd < 0)
        return;
    no_delay(fd);
    f = XNEW(struct far);
    f->fd = fd;
    f->ssl = SSL_new(tls);
    SSL_set_fd(f->ssl, fd);
    SSL_set_accept_state(f->ssl);
    ev.data.ptr = f;
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

static int far_listen(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) < 0 || listen(fd, 1024) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        die("cannot listen");
    printf("%u\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

static int far_end(void)
{
    static int input = STDIN_FILENO;
    struct epoll_event ev[EVENTS], add = {.events = EPOLLIN};
    int listener;

    tls = SSL_CTX_new(TLS_server_method());
    if (!opt.cert || !opt.key || SSL_CTX_use_certificate_chain_file(tls, opt.cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, opt.key, SSL_FILETYPE_PEM) != 1)
        die("certificate");
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    fill_frame(echoed, false);
    ep = epoll_create1(EPOLL_CLOEXEC);
    listener = far_listen();
    add.data.ptr = &listener;
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &add);
    add.data.ptr = &input;
    epoll_ctl(ep, EPOLL_CTL_ADD, input, &add);
    for (;;) {
        int i, n = epoll_wait(ep, ev, EVENTS, -1);

        for (i = 0; i < n; i++) {
            if (ev[i].data.ptr == &input)
                return 0;
            if (ev[i].data.ptr == &listener)
                far_accept(listener);
            else
                far_run(ev[i].data.ptr);
        }
    }
}

/* --- near ends ---------------------------------------------------------------------------- */

struct near {
    int fd;
    SSL *ssl;
    size_t got;           /* of the frame under way */
    SSL_SESSION *session; /* the last ticket */
    unsigned tickets;
    uint64_t share;
};

static struct near nears[NEARS_MAX];

static void near_tcp(struct near *c)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 20};

    a.sin_port = htons((uint16_t)opt.port);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        die("cannot connect");
    no_delay(c->fd);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

static void near_tls(struct near *c)
{
    c->ssl = SSL_new(tls);
    SSL_set_app_data(c->ssl, c);
    SSL_set_fd(c->ssl, c->fd);
    if (c->session)
        SSL_set_session(c->ssl, c->session);
    if (SSL_connect(c->ssl) != 1)
        die("TLS");
}

/* Read on until `n` bytes are there, or, with a text, until that is: returns how many. */
static size_t near_read(struct near *c, char *p, size_t n, const char *until)
{
    size_t got = 0;
    int r;

    while (got < n && !(until && strstr(p, until))) {
        r = SSL_read(c->ssl, p + got, (int)(n - got));
        if (r <= 0 && SSL_get_error(c->ssl, r) == SSL_ERROR_WANT_READ && errno != EAGAIN)
            continue; /* a ticket */
        if (r <= 0)
            die("read");
        got += (size_t)r;
        if (until)
            p[got] = '\0';
    }
    return got;
}

static void near_write(struct near *c, const void *p, size_t n)
{
    if (SSL_write(c->ssl, p, (int)n) != (int)n)
        die("write");
}

static void upgrade(struct near *c)
{
    static const char request[] =
        "GET /stream/delegate/acct?token=x HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    char head[HEAD_MAX] = "";

    near_write(c, request, sizeof(request) - 1);
    near_read(c, head, sizeof(head) - 1, "\r\n\r\n");
    errno = 0;
    if (strncmp(head, "HTTP/1.1 101 ", 13) != 0)
        die(head);
}

/* One event of a WebSocket: true if a whole message has come back. */
static bool message_back(struct near *c)
{
    unsigned char in[2 * FROM_CLIENT];
    int r = SSL_read(c->ssl, in, sizeof(in));

    if (r <= 0 && SSL_get_error(c->ssl, r) == SSL_ERROR_WANT_READ)
        return false;
    errno = 0;
    if (r <= 0 || (c->got == 0 && in[0] != 0x82) || c->got + (size_t)r > FROM_SERVER)
        die("message");
    c->got += (size_t)r;
    if (c->got < FROM_SERVER)
        return false;
    c->got = 0;
    return true;
}

static void messages(void)
{
    unsigned char frame[FROM_CLIENT];
    struct epoll_event ev[EVENTS];
    uint64_t back = 0, sent = 0;
    unsigned i;

    fill_frame(frame, true);
    ep = epoll_create1(EPOLL_CLOEXEC);
    for (i = 0; i < opt.connections; i++, sent++) {
        struct epoll_event add = {.events = EPOLLIN, .data.ptr = &nears[i]};

        fcntl(nears[i].fd, F_SETFL, O_NONBLOCK);
        epoll_ctl(ep, EPOLL_CTL_ADD, nears[i].fd, &add);
        near_write(&nears[i], frame, sizeof(frame));
    }
    while (back < opt.total) {
        int k, n = epoll_wait(ep, ev, EVENTS, 20000);

        if (n <= 0)
            die("no message for 20 s");
        for (k = 0; k < n; k++) {
            if (!message_back(ev[k].data.ptr))
                continue;
            back++;
            if (sent < opt.total) {
                near_write(ev[k].data.ptr, frame, sizeof(frame));
                sent++;
            }
        }
    }
}

static void *body_down(void *arg)
{
    static const char end[] = "\r\n\r\n";
    struct near *c = arg;
    char request[128], head[HEAD_MAX] = "", *room = xmalloc(PIECE);
    uint64_t left = c->share;
    size_t got;

    near_write(c, request,
               (size_t)snprintf(request, sizeof(request),
                                "GET /bulk/%llu HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
                                (unsigned long long)left));
    got = near_read(c, head, sizeof(head) - 1, end);
    errno = 0;
    if (strncmp(head, "HTTP/1.1 200 ", 13) != 0)
        die(head);
    left -= got - (size_t)(strstr(head, end) + 4 - head);
    while (left)
        left -= near_read(c, room, left < PIECE ? left : PIECE, NULL);
    xfree(room);
    return NULL;
}

static void *body_up(void *arg)
{
    struct near *c = arg;
    char request[128], head[HEAD_MAX] = "";
    uint64_t left = c->share;

    near_write(c, request,
               (size_t)snprintf(request, sizeof(request),
                                "PUT /bulk HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                                "Content-Length: %llu\r\n\r\n",
                                (unsigned long long)left));
    while (left) {
        size_t n = left < PIECE ? left : PIECE;

        near_write(c, piece, n);
        left -= n;
    }
    near_read(c, head, sizeof(head) - 1, "\r\n\r\n");
    errno = 0;
    if (strncmp(head, "HTTP/1.1 204 ", 13) != 0)
        die(head);
    return NULL;
}

static int on_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct near *c = SSL_get_app_data(ssl);

    SSL_SESSION_free(c->session);
    c->session = session;
    c->tickets++;
    return 1;
}

/* One connection: the handshake, and the tickets, with which the server shows that it is through.
 */
static void handshake(struct near *c)
{
    bool resumes = c->session != NULL;
    unsigned before = c->tickets;
    char byte;

    near_tcp(c);
    near_tls(c);
    errno = 0;
    if (SSL_version(c->ssl) != TLS1_3_VERSION || (resumes && !SSL_session_reused(c->ssl)))
        die("another handshake than asked for");
    (void)SSL_read(c->ssl, &byte, 1);
    if (c->tickets == before)
        die("no ticket");
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    do /* bytes that are left unread would make a reset of the end */
        before = c->tickets;
    while (SSL_read(c->ssl, &byte, 1) <= 0 && c->tickets != before);
    ERR_clear_error();
    SSL_shutdown(c->ssl);
    SSL_free(c->ssl);
    close(c->fd);
    if (!opt.resume) {
        SSL_SESSION_free(c->session);
        c->session = NULL;
    }
}

static void *handshakes(void *arg)
{
    struct near *c = arg;

    while (c->share--)
        handshake(c);
    return NULL;
}

static void in_threads(void *(*work)(void *))
{
    pthread_t threads[NEARS_MAX];
    unsigned i;

    for (i = 0; i < opt.connections; i++) {
        nears[i].share = opt.total / opt.connections;
        if (pthread_create(&threads[i], NULL, work, &nears[i]) != 0)
            die("thread");
    }
    for (i = 0; i < opt.connections; i++)
        pthread_join(threads[i], NULL);
}

/* What is not measured: connections, and the first ticket where handshakes are to be resumed. */
static void prepare(void)
{
    unsigned i;

    for (i = 0; i < opt.connections; i++) {
        if (opt.what == HANDSHAKES) {
            handshake(&nears[i]);
            continue;
        }
        near_tcp(&nears[i]);
        near_tls(&nears[i]);
        if (opt.what == WSS)
            upgrade(&nears[i]);
    }
}

static int near_end(void)
{
    char line[16];
    double start;

    tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_clear_mode(tls, SSL_MODE_AUTO_RETRY); /* a read that finds a ticket returns */
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(tls, on_ticket);
    prepare();
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof(line), stdin))
        return 2;
    start = now_s();
    if (opt.what == WSS)
        messages();
    else
        in_threads(opt.what == HANDSHAKES ? handshakes : opt.up ? body_up : body_down);
    printf("{\"done\":%llu,\"seconds\":%.4f}\n", (unsigned long long)opt.total, now_s() - start);
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin))
        ;
    return 0;
}

static void set_what(enum what what, const char *port)
{
    opt.what = what;
    opt.port = port ? atoi(port) : 0;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"far", 0, NULL, 'f'},
        {"wss", 1, NULL, 'w'},
        {"bulk", 1, NULL, 'b'},
        {"handshakes", 1, NULL, 'h'},
        {"cert", 1, NULL, 'c'},
        {"key", 1, NULL, 'k'},
        {"total", 1, NULL, 't'},
        {"resume", 0, NULL, 'r'},
        {"up", 0, NULL, 'u'},
        {"connections", 1, NULL, 'n'},
        {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'f':
            set_what(FAR, NULL);
            break;
        case 'w':
            set_what(WSS, optarg);
            break;
        case 'b':
            set_what(BULK, optarg);
            break;
        case 'h':
            set_what(HANDSHAKES, optarg);
            break;
        case 'c':
            opt.cert = optarg;
            break;
        case 'k':
            opt.key = optarg;
            break;
        case 't':
            opt.total = strtoull(optarg, NULL, 10);
            break;
        case 'n':
            opt.connections = (unsigned)atoi(optarg);
            break;
        case 'r':
            opt.resume = true;
            break;
        case 'u':
            opt.up = true;
            break;
        default:
            fputs("talk: see the head of talk.c for its options\n", stderr);
            return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    if (opt.what == FAR)
        return far_end();
    if (!opt.connections)
        opt.connections = opt.what == WSS ? 32 : 4;
    if (!opt.what || opt.port <= 0 || opt.connections > NEARS_MAX || opt.total < opt.connections ||
        opt.total % opt.connections) {
        fputs("talk: --total has to be a multiple of --connections; see the head of talk.c\n",
              stderr);
        return 2;
    }
    return near_end();
}
