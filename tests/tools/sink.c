/*
 * A log service that only says 204, for measuring what stands before it: HTTP/1.1, HTTP/2, in clear
 * or over TLS, or a bare byte stream, on one thread. It counts requests, lines and bytes.
 *
 *     sink [--port N] [--tls-port N --cert FILE --key FILE] [--raw-port N] [--delay MS]
 *
 * Prints the ports it listens on ({"port":N,...}; a port of 0 is chosen by the system) and serves
 * until SIGTERM. GET /stats answers with the counters; any other GET with {"exists":false}, as a
 * check of a credential wants it; POST .../blob/link/upload (HTTP/1.1) with a link to itself.
 * --delay holds every other answer back: a distant log service. A line is counted at each `"pos":`;
 * in a byte stream at each newline. Loopback only.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/list.h"
#include "base/str.h"
#include "base/xmem.h"

enum { EVENTS = 256, READ_MAX = 256 << 10, BACKLOG = 4096 };

enum part { PART_HEAD, PART_BODY, PART_CHUNK_SIZE, PART_CHUNK, PART_CHUNK_END, PART_TRAILER };

static const char mark[] = "\"pos\":";
enum { MARK = sizeof(mark) - 1 };

/* Counts marks in bytes that come in pieces: how much of one the last piece ended with. */
struct counter {
    unsigned have;
};

struct conn {
    int fd;
    bool listener, tls, raw;
    SSL *ssl;
    nghttp2_session *h2;
    struct buf in, out;
    bool writing;
    enum part part;
    uint64_t left;
    bool get, stats, link;
    uint16_t port; /* of its listener, for links */
    struct counter counter;
    unsigned waiting; /* answers that are held back */
    bool gone;
};

/* A request of HTTP/2. */
struct h2_stream {
    struct counter counter;
    bool get;
};

/* An answer that is held back: all wait equally long, so a list is in order. */
struct later {
    struct list link;
    struct conn *c;
    int32_t stream; /* 0: HTTP/1 */
    int64_t due;
};

static struct {
    uint64_t requests, lines, body_bytes, wire_bytes, connections;
} stat;

static struct list later_list;
static SSL_CTX *tls_ctx;
static int64_t delay_ns;
static int ep;
static volatile sig_atomic_t stopping;

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(2);
}

/* --- counting ----------------------------------------------------------------------------- */

static void count_lines(struct counter *k, const char *p, size_t n)
{
    const char *end = p + n;

    while (k->have && p < end) {
        if (*p != mark[k->have]) {
            k->have = 0;
            break;
        }
        p++;
        if (++k->have == MARK) {
            stat.lines++;
            k->have = 0;
        }
    }
    while ((size_t)(end - p) >= MARK) {
        const char *at = memmem(p, (size_t)(end - p), mark, MARK);

        if (!at)
            break;
        stat.lines++;
        p = at + MARK;
    }
    if ((size_t)(end - p) > MARK - 1)
        p = end - (MARK - 1);
    for (; p < end && !k->have; p++) {
        if (memcmp(p, mark, (size_t)(end - p)) == 0)
            k->have = (unsigned)(end - p);
    }
}

static void count_body(struct counter *k, const char *p, size_t n)
{
    stat.body_bytes += n;
    count_lines(k, p, n);
}

static void count_raw(const char *p, size_t n)
{
    const char *end = p + n;

    stat.body_bytes += n;
    while ((p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        stat.lines++;
        p++;
    }
}

static int stats_text(char *out, size_t size)
{
    return snprintf(out, size,
                    "{\"requests\":%llu,\"lines\":%llu,\"body_bytes\":%llu,\"wire_bytes\":%llu,"
                    "\"connections\":%llu}\n",
                    (unsigned long long)stat.requests, (unsigned long long)stat.lines,
                    (unsigned long long)stat.body_bytes, (unsigned long long)stat.wire_bytes,
                    (unsigned long long)stat.connections);
}

/* --- bytes -------------------------------------------------------------------------------- */

static void watch(struct conn *c, int how)
{
    struct epoll_event ev = {.events = EPOLLIN | (c->writing ? EPOLLOUT : 0), .data.ptr = c};

    epoll_ctl(ep, how, c->fd, &ev);
}

/* Bytes read, 0: none now, -1: the end. */
static ssize_t conn_read(struct conn *c, void *p, size_t n)
{
    ssize_t r;

    if (!c->ssl) {
        r = recv(c->fd, p, n, 0);
        return r > 0 ? r : r < 0 && errno == EAGAIN ? 0 : -1;
    }
    r = SSL_read(c->ssl, p, (int)n);
    if (r > 0)
        return r;
    switch (SSL_get_error(c->ssl, (int)r)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return 0;
    default:
        ERR_clear_error();
        return -1;
    }
}

static ssize_t conn_send(struct conn *c, const void *p, size_t n)
{
    ssize_t r;

    if (!c->ssl) {
        r = send(c->fd, p, n, MSG_NOSIGNAL);
        return r >= 0 ? r : errno == EAGAIN ? 0 : -1;
    }
    r = SSL_write(c->ssl, p, (int)n);
    if (r > 0)
        return r;
    r = SSL_get_error(c->ssl, (int)r) == SSL_ERROR_WANT_WRITE ? 0 : -1;
    ERR_clear_error();
    return r;
}

/* Write what is queued; false: the connection is at its end. */
static bool flush(struct conn *c)
{
    bool more;

    while (buf_len(&c->out)) {
        ssize_t r = conn_send(c, buf_data(&c->out), buf_len(&c->out));

        if (r < 0)
            return false;
        if (r == 0)
            break;
        buf_consume(&c->out, (size_t)r);
    }
    more = buf_len(&c->out) > 0;
    if (more != c->writing) {
        c->writing = more;
        watch(c, EPOLL_CTL_MOD);
    }
    return true;
}

static void conn_drop(struct conn *c)
{
    buf_fini(&c->in);
    buf_fini(&c->out);
    xfree(c);
}

static void conn_end(struct conn *c)
{
    if (c->h2)
        nghttp2_session_del(c->h2);
    if (c->ssl)
        SSL_free(c->ssl);
    close(c->fd);
    c->gone = true;
    if (!c->waiting)
        conn_drop(c);
}

static void hold_back(struct conn *c, int32_t stream)
{
    struct later *l = XNEW(struct later);

    l->c = c;
    l->stream = stream;
    l->due = now_ns() + delay_ns;
    list_append(&later_list, &l->link);
    c->waiting++;
}

/* --- HTTP/1.1 ----------------------------------------------------------------------------- */

static void h1_answer(struct conn *c)
{
    static const char none[] = "HTTP/1.1 204 No Content\r\n\r\n";
    char body[256] = "{\"exists\":false}\n", head[128];
    int n, k;

    if (!c->get && !c->link) {
        buf_add(&c->out, none, sizeof(none) - 1);
        return;
    }
    if (c->link)
        snprintf(body, sizeof(body),
                 "{\"link\":\"http://127.0.0.1:%u/object?X-Goog-Signature=s\"}\n", c->port);
    n = c->stats ? stats_text(body, sizeof(body)) : (int)strlen(body);
    k = snprintf(head, sizeof(head),
                 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                 "Content-Length: %d\r\n\r\n",
                 n);
    buf_add(&c->out, head, (size_t)k);
    buf_add(&c->out, body, (size_t)n);
}

static void h1_complete(struct conn *c)
{
    c->part = PART_HEAD;
    if (!c->get)
        stat.requests++;
    if (delay_ns && !c->get)
        hold_back(c, 0);
    else
        h1_answer(c);
}

static const char *h1_field(const char *head, const char *name)
{
    size_t n = strlen(name);

    for (head = strchr(head, '\n'); head; head = strchr(head, '\n')) {
        head++;
        if (strncasecmp(head, name, n) == 0 && head[n] == ':')
            return head + n + 1;
    }
    return NULL;
}

static void h1_head(struct conn *c, const char *head)
{
    const char *length = h1_field(head, "content-length");
    const char *coding = h1_field(head, "transfer-encoding");

    c->get = strncmp(head, "GET ", 4) == 0;
    c->stats = strncmp(head, "GET /stats ", 11) == 0;
    c->link = strncmp(head, "POST ", 5) == 0 &&
              memmem(head, strcspn(head, "?\r"), "/blob/link/upload", 17) != NULL;
    c->counter.have = 0;
    c->left = length ? strtoull(length, NULL, 10) : 0;
    c->part = coding ? PART_CHUNK_SIZE : PART_BODY;
    if (h1_field(head, "expect"))
        buf_add(&c->out, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    if (c->part == PART_BODY && !c->left)
        h1_complete(c);
}

/* Takes up to the end of a line, or of a head; NULL: it is not there yet. */
static char *take_until(struct conn *c, const char *end, struct str *text)
{
    const char *p = (const char *)buf_data(&c->in);
    const char *at = memmem(p, buf_len(&c->in), end, strlen(end));
    size_t n;

    if (!at)
        return NULL;
    n = (size_t)(at - p);
    str_clear(text);
    str_add(text, p, n);
    str_addc(text, '\n');
    buf_consume(&c->in, n + strlen(end));
    return text->p;
}

static bool h1_body(struct conn *c)
{
    size_t n = buf_len(&c->in);

    n = n < c->left ? n : (size_t)c->left;
    count_body(&c->counter, (const char *)buf_data(&c->in), n);
    buf_consume(&c->in, n);
    c->left -= n;
    if (c->left)
        return false;
    if (c->part == PART_BODY)
        h1_complete(c);
    else
        c->part = PART_CHUNK_END;
    return true;
}

static void h1_feed(struct conn *c)
{
    static struct str text;

    while (buf_len(&c->in)) {
        switch (c->part) {
        case PART_HEAD:
            if (c->waiting || !take_until(c, "\r\n\r\n", &text))
                return;
            h1_head(c, text.p);
            break;
        case PART_BODY:
        case PART_CHUNK:
            if (!h1_body(c))
                return;
            break;
        case PART_CHUNK_SIZE:
            if (!take_until(c, "\r\n", &text))
                return;
            c->left = strtoull(text.p, NULL, 16);
            c->part = c->left ? PART_CHUNK : PART_TRAILER;
            break;
        case PART_CHUNK_END:
        case PART_TRAILER:
            if (!take_until(c, "\r\n", &text))
                return;
            if (c->part == PART_CHUNK_END)
                c->part = PART_CHUNK_SIZE;
            else if (text.n == 1)
                h1_complete(c);
            break;
        }
    }
}

/* --- HTTP/2 ------------------------------------------------------------------------------- */

static ssize_t on_send(nghttp2_session *h2, const uint8_t *p, size_t n, int flags, void *ctx)
{
    struct conn *c = ctx;

    (void)h2;
    (void)flags;
    buf_add(&c->out, p, n);
    return (ssize_t)n;
}

static int on_begin(nghttp2_session *h2, const nghttp2_frame *f, void *ctx)
{
    (void)ctx;
    if (!nghttp2_session_get_stream_user_data(h2, f->hd.stream_id))
        nghttp2_session_set_stream_user_data(h2, f->hd.stream_id, XNEW(struct h2_stream));
    return 0;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *f, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *ctx)
{
    struct h2_stream *s = nghttp2_session_get_stream_user_data(h2, f->hd.stream_id);

    (void)flags;
    (void)ctx;
    if (s && name_n == 7 && memcmp(name, ":method", 7) == 0)
        s->get = value_n == 3 && memcmp(value, "GET", 3) == 0;
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *ctx)
{
    struct h2_stream *s = nghttp2_session_get_stream_user_data(h2, id);

    (void)flags;
    (void)ctx;
    if (s)
        count_body(&s->counter, (const char *)p, n);
    return 0;
}

static ssize_t exists_body(nghttp2_session *h2, int32_t id, uint8_t *p, size_t n, uint32_t *flags,
                           nghttp2_data_source *source, void *ctx)
{
    static const char body[] = "{\"exists\":false}\n";

    (void)h2;
    (void)id;
    (void)source;
    (void)ctx;
    (void)n;
    memcpy(p, body, sizeof(body) - 1);
    *flags = NGHTTP2_DATA_FLAG_EOF;
    return sizeof(body) - 1;
}

static void h2_answer(struct conn *c, int32_t id, bool get)
{
    static uint8_t status[] = ":status", good[] = "200", none[] = "204";
    nghttp2_nv nv = {status, get ? good : none, 7, 3, NGHTTP2_NV_FLAG_NONE};
    nghttp2_data_provider body = {.read_callback = exists_body};

    nghttp2_submit_response(c->h2, id, &nv, 1, get ? &body : NULL);
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *f, void *ctx)
{
    struct conn *c = ctx;
    struct h2_stream *s;

    if (!(f->hd.flags & NGHTTP2_FLAG_END_STREAM) ||
        (f->hd.type != NGHTTP2_DATA && f->hd.type != NGHTTP2_HEADERS))
        return 0;
    s = nghttp2_session_get_stream_user_data(h2, f->hd.stream_id);
    if (!s)
        return 0;
    if (!s->get)
        stat.requests++;
    if (delay_ns && !s->get)
        hold_back(c, f->hd.stream_id);
    else
        h2_answer(c, f->hd.stream_id, s->get);
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t code, void *ctx)
{
    (void)code;
    (void)ctx;
    xfree(nghttp2_session_get_stream_user_data(h2, id));
    return 0;
}

static void h2_start(struct conn *c)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 250},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20},
    };
    nghttp2_session_callbacks *cb;

    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_send_callback(cb, on_send);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_session_server_new(&c->h2, cb, c);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, 16 << 20);
}

/* --- connections -------------------------------------------------------------------------- */

static void choose_protocol(struct conn *c)
{
    static const char preface[] = "PRI * HTTP/2.0";
    const unsigned char *name = NULL;
    unsigned n = 0;

    if (c->ssl)
        SSL_get0_alpn_selected(c->ssl, &name, &n);
    if (n == 2 || (buf_len(&c->in) >= 14 && memcmp(buf_data(&c->in), preface, 14) == 0))
        h2_start(c);
}

static bool feed(struct conn *c)
{
    if (c->raw) {
        count_raw((const char *)buf_data(&c->in), buf_len(&c->in));
        buf_consume(&c->in, buf_len(&c->in));
        return true;
    }
    if (!c->h2 && c->part == PART_HEAD)
        choose_protocol(c);
    if (!c->h2) {
        h1_feed(c);
        return true;
    }
    if (nghttp2_session_mem_recv(c->h2, buf_data(&c->in), buf_len(&c->in)) < 0)
        return false;
    buf_consume(&c->in, buf_len(&c->in));
    return nghttp2_session_send(c->h2) == 0;
}

static bool readable(struct conn *c)
{
    ssize_t r;

    do {
        r = conn_read(c, buf_reserve(&c->in, READ_MAX), READ_MAX);
        if (r < 0)
            return false;
        buf_commit(&c->in, (size_t)r);
        stat.wire_bytes += (uint64_t)r;
        if (r && !feed(c))
            return false;
    } while (r > 0 && c->ssl);
    return flush(c);
}

static void accept_all(struct conn *l)
{
    for (;;) {
        int one = 1, fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct conn *c;

        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        c = XNEW(struct conn);
        c->fd = fd;
        c->raw = l->raw;
        c->port = l->port;
        stat.connections++;
        if (l->tls) {
            c->ssl = SSL_new(tls_ctx);
            SSL_set_fd(c->ssl, fd);
            SSL_set_accept_state(c->ssl);
        }
        watch(c, EPOLL_CTL_ADD);
    }
}

static int answer_due(void)
{
    int64_t now = now_ns();

    while (!list_empty(&later_list)) {
        struct later *l = list_entry(later_list.next, struct later, link);
        struct conn *c = l->c;

        if (l->due > now)
            return (int)((l->due - now) / 1000000 + 1);
        list_remove(&l->link);
        c->waiting--;
        if (!c->gone && l->stream) {
            h2_answer(c, l->stream, false);
            nghttp2_session_send(c->h2);
        } else if (!c->gone) {
            h1_answer(c);
            h1_feed(c);
        }
        if (c->gone && !c->waiting)
            conn_drop(c);
        else if (!c->gone && !flush(c))
            conn_end(c);
        xfree(l);
    }
    return -1;
}

static void loop(void)
{
    struct epoll_event ev[EVENTS];

    while (!stopping) {
        int i, n = epoll_wait(ep, ev, EVENTS, answer_due());

        for (i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;

            if (c->listener)
                accept_all(c);
            else if (((ev[i].events & EPOLLOUT) && !flush(c)) ||
                     ((ev[i].events & ~(unsigned)EPOLLOUT) && !readable(c)))
                conn_end(c);
        }
    }
}

/* --- beginning ---------------------------------------------------------------------------- */

static void listen_on(long port, bool tls, bool raw, const char *name)
{
    static bool any;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t n = sizeof(a);
    struct conn *l = XNEW(struct conn);
    int one = 1;

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    l->listener = true;
    l->tls = tls;
    l->raw = raw;
    setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(l->fd, (struct sockaddr *)&a, n) < 0 || listen(l->fd, BACKLOG) < 0)
        die("listen");
    getsockname(l->fd, (struct sockaddr *)&a, &n);
    l->port = ntohs(a.sin_port);
    printf("%s\"%s\":%u", any ? "," : "{", name, l->port);
    any = true;
    watch(l, EPOLL_CTL_ADD);
}

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                       const unsigned char *in, unsigned in_n, void *arg)
{
    static const unsigned char ours[] = "\x02h2\x08http/1.1";

    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_n, ours, sizeof(ours) - 1, in,
                              in_n) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    return SSL_TLSEXT_ERR_OK;
}

static void tls_start(const char *cert, const char *key)
{
    tls_ctx = SSL_CTX_new(TLS_server_method());
    if (!cert || !key || SSL_CTX_use_certificate_chain_file(tls_ctx, cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls_ctx, key, SSL_FILETYPE_PEM) != 1)
        die("--cert, --key");
    SSL_CTX_set_alpn_select_cb(tls_ctx, choose_alpn, NULL);
    SSL_CTX_set_mode(tls_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static void on_signal(int signo)
{
    (void)signo;
    stopping = 1;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"port", 1, NULL, 'p'},
        {"tls-port", 1, NULL, 't'},
        {"raw-port", 1, NULL, 'r'},
        {"cert", 1, NULL, 'c'},
        {"key", 1, NULL, 'k'},
        {"delay", 1, NULL, 'd'},
        {0},
    };
    struct sigaction stop = {.sa_handler = on_signal}; /* without SA_RESTART: it ends the wait */
    const char *cert = NULL, *key = NULL;
    long port = -1, tls = -1, raw = -1;
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'p':
            port = atol(optarg);
            break;
        case 't':
            tls = atol(optarg);
            break;
        case 'r':
            raw = atol(optarg);
            break;
        case 'c':
            cert = optarg;
            break;
        case 'k':
            key = optarg;
            break;
        case 'd':
            delay_ns = atol(optarg) * 1000000;
            break;
        default:
            fputs("usage: sink [--port N] [--tls-port N --cert F --key F] [--raw-port N] [--delay "
                  "MS]\n",
                  stderr);
            return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    list_init(&later_list);
    ep = epoll_create1(EPOLL_CLOEXEC);
    if (port >= 0)
        listen_on(port, false, false, "port");
    if (tls >= 0) {
        tls_start(cert, key);
        listen_on(tls, true, false, "tls_port");
    }
    if (raw >= 0)
        listen_on(raw, false, true, "raw_port");
    puts("}");
    fflush(stdout);
    loop();
    return 0;
}
