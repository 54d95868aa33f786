/*
 * A load client: up to 2,000 steps at once that open a log stream, write lines to it, upload the
 * log and close, as careful clients would. One thread, HTTP/1.1, a connection kept by each step.
 *
 * A call that gets no answer, or a 5xx, is repeated with the identical body until it is answered or
 * --retry-for has passed; a crash of the far side therefore does not end it. Every acknowledged
 * call is written to the file of --ack at once:
 *
 *     step ID KIND KEY     the step has begun
 *     open ID              204
 *     put ID FIRST COUNT   lines FIRST.. of the step are acknowledged
 *     blob ID BYTES SHA256 its upload is
 *     close ID             and its end
 *     fail ID CALL STATUS  given up; 0: no answer
 *
 * With --mark each of these lines ends with `@` and the size that the file had at that moment.
 *
 * A line's `out` begins with "sID SEQ ", so that order and loss show wherever it arrives.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/str.h"
#include "base/xmem.h"

enum { MAX_STEPS = 2000, MAX_KINDS = 8, IN_MAX = 1 << 16, EVENTS = 256, LINE_MIN = 110 };

#define NS_MS  1000000LL
#define NS_SEC 1000000000LL

/* The first tries of a call follow each other quickly, so that a restart is noticed soon. */
#define BACKOFF_NS     (20 * NS_MS)
#define BACKOFF_MAX_NS (500 * NS_MS)
#define ANSWER_NS      (10 * NS_SEC) /* what real clients wait for headers (HP §2.4) */

enum call { CALL_OPEN, CALL_PUT, CALL_LINK, CALL_BLOB, CALL_CLOSE, CALL_DONE, CALL_N = CALL_DONE };

static const char *const call_names[CALL_N] = {"open", "put", "link", "blob", "close"};

/* What a step of that kind does. */
struct kind {
    const char *name;
    bool open, puts, link, blob, close, snapshot, escape;
};

static const struct kind kinds[] = {
    {"le-blob", true, true, false, true, true, false, false},
    {"le-link", true, true, true, true, true, false, false},
    {"delegate", true, true, false, false, true, true, true},
    {"open", true, true, false, false, false, false, false},
    {"lines", false, true, false, false, false, false, false},
    {"end", false, false, false, false, true, true, false},
    {"close", false, false, false, false, true, false, false},
};

struct step {
    unsigned slot, round, id;
    const struct kind *kind;
    struct str key; /* as it is spelled in the query */
    enum call call;
    unsigned put; /* PUTs done */
    bool active;  /* a request is under way or waits to be tried again */
    int64_t due;
    int64_t behind; /* was due then, but its predecessor had no answer yet; 0: in time */
    int64_t started, first_try, give_up, deadline;
    unsigned tries;
    struct str path; /* of the ticket */
    struct str request;
    char sha256[65];
    size_t blob_bytes;
    /* connection */
    int fd;
    SSL *ssl;
    bool connected, used;
    size_t sent;
    bool want_out;
    struct str in;
};

static struct {
    const char *url, *account, *token, *ack, *mark, *ca, *run;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    char *authority, *prefix, *host;
    bool tls;
    unsigned steps, lines, bytes, puts, first_id;
    int64_t interval, seconds, retry_for, spread;
    const struct kind *kinds[MAX_KINDS];
    unsigned n_kinds;
    bool again, reconnect;
} opt;

static struct {
    uint64_t asked[CALL_N], done[CALL_N], failed[CALL_N];
    uint64_t lines, bytes, steps_done, steps_failed;
    uint64_t no_connect, lost, late, status_5xx, unexpected;
    float *ms; /* of acknowledged PUTs */
    size_t n_ms, cap_ms;
    double other_max_ms;
} count;

static struct step *steps;
static SSL_CTX *tls_ctx;
static int ep, ack_fd = -1;
static int64_t now, begun, until;
static unsigned running;
static volatile sig_atomic_t stopping;
static uint64_t rng = 0x9e3779b97f4a7c15ULL;

static void die(const char *what)
{
    fprintf(stderr, "load: %s\n", what);
    exit(2);
}

static int64_t clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * NS_SEC + ts.tv_nsec;
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static void note_ack(const char *fmt, ...) TR_PRINTF(1, 2);
static void note_ack(const char *fmt, ...)
{
    struct str line = STR_INIT;
    struct stat st;
    va_list ap;

    if (ack_fd < 0)
        return;
    va_start(ap, fmt);
    str_vaddf(&line, fmt, ap);
    va_end(ap);
    if (opt.mark)
        str_addf(&line, " @%lld", stat(opt.mark, &st) == 0 ? (long long)st.st_size : 0);
    str_addc(&line, '\n');
    if (write(ack_fd, line.p, line.n) != (ssize_t)line.n)
        die("cannot write the file of --ack");
    str_fini(&line);
}

/* --- what is written ------------------------------------------------------------------------ */

static const char *const words[] = {
    "Compiling",
    "src/",
    "module",
    "warning:",
    "unused",
    "variable",
    "[INFO]",
    "Downloading",
    "from",
    "central:",
    "https://repo.example/maven2/org/",
    "tests",
    "passed",
    "in",
    "0.03s",
    "-->",
    "Building",
    "target",
    "step",
    "image",
    "sha256:",
    "layer",
    "pushed",
    "error",
    "ok",
    "running",
    "fixture",
    "cache",
    "hit",
    "miss",
    "resolved",
    "dependency",
};

/* Line `seq` of a step: the same bytes whenever it is asked for. */
static void add_line(struct str *s, unsigned id, unsigned seq, size_t size)
{
    size_t from = s->n;
    uint64_t r = mix((uint64_t)id << 32 | seq);

    str_addf(s, "{\"level\":\"info\",\"pos\":%u,\"out\":\"s%u %u", seq, id, seq);
    while (s->n - from + 70 < size) {
        r = mix(r + 1);
        str_addf(s, " %s", words[r % (sizeof(words) / sizeof(*words))]);
        if (r >> 60 == 0)
            str_addf(s, " %08x", (unsigned)(r >> 20));
    }
    str_addf(s, "\\n\",\"time\":\"2026-01-02T%02u:%02u:%02u.%06uZ\",\"args\":null}",
             seq / 3600 % 24, seq / 60 % 60, seq % 60, (unsigned)(mix(seq) % 1000000));
}

static void put_body(const struct step *st, struct str *s)
{
    unsigned i, first = st->put * opt.lines;

    str_addc(s, '[');
    for (i = 0; i < opt.lines; i++) {
        if (i)
            str_addc(s, ',');
        add_line(s, st->id, first + i, opt.bytes / opt.lines);
    }
    str_adds(s, "]\n");
}

static void hash_hex(struct view v, char out[65])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned i, n = 0;

    EVP_Digest(v.p, v.n, md, &n, EVP_sha256(), NULL);
    for (i = 0; i < 32; i++)
        snprintf(out + 2 * i, 3, "%02x", md[i]);
}

static void blob_body(struct step *st, struct str *s)
{
    unsigned i;

    for (i = 0; i < st->put * opt.lines; i++) {
        add_line(s, st->id, i, opt.bytes / opt.lines);
        str_addc(s, '\n');
    }
    st->blob_bytes = s->n;
    hash_hex(str_view(s), st->sha256);
}

/* --- requests ------------------------------------------------------------------------------- */

static void request_build(struct step *st)
{
    static const char *const methods[CALL_N] = {"POST", "PUT", "POST", "POST", "DELETE"};
    static const char *const paths[CALL_N] = {"/stream", "/stream", "/blob/link/upload", "/blob",
                                              "/stream"};
    struct str body = STR_INIT, *r = &st->request;
    enum call c = st->call;

    if (c == CALL_PUT)
        put_body(st, &body);
    else if (c == CALL_BLOB)
        blob_body(st, &body);
    str_clear(r);
    if (c == CALL_BLOB && st->path.n)
        str_addf(r, "PUT %s", str_c(&st->path));
    else
        str_addf(r, "%s %s%s?accountID=%s&key=%s%s", methods[c], opt.prefix, paths[c], opt.account,
                 str_c(&st->key), c == CALL_CLOSE && st->kind->snapshot ? "&snapshot=true" : "");
    str_addf(r, " HTTP/1.1\r\nHost: %s\r\nUser-Agent: Go-http-client/1.1\r\n", opt.authority);
    if (c != CALL_CLOSE)
        str_addf(r, "Content-Length: %zu\r\n", body.n);
    str_addf(r, "X-Harness-Token: %s\r\nAccept-Encoding: gzip\r\n\r\n", opt.token);
    str_addv(r, str_view(&body));
    count.bytes += body.n;
    str_fini(&body);
}

static void watch(struct step *st, bool out, int how)
{
    struct epoll_event ev = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = st};

    st->want_out = out;
    if (epoll_ctl(ep, how, st->fd, &ev) < 0)
        die("epoll_ctl");
}

static void hang_up(struct step *st)
{
    if (st->ssl)
        SSL_free(st->ssl);
    st->ssl = NULL;
    if (st->fd >= 0)
        close(st->fd);
    st->fd = -1;
    st->connected = st->used = st->want_out = false;
    st->sent = 0;
    str_clear(&st->in);
}

static void connect_start(struct step *st)
{
    int one = 1;

    st->fd = socket(opt.addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (st->fd < 0)
        die("no socket; raise the limit of open files");
    setsockopt(st->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    /* A refusal may come at once, on loopback: epoll reports it too. */
    if (connect(st->fd, (struct sockaddr *)&opt.addr, opt.addr_len) < 0 && errno != EINPROGRESS &&
        errno != ECONNREFUSED)
        die("connect");
    if (opt.tls) {
        st->ssl = SSL_new(tls_ctx);
        SSL_set_fd(st->ssl, st->fd);
        SSL_set_tlsext_host_name(st->ssl, opt.host);
        SSL_set_connect_state(st->ssl);
    }
    watch(st, true, EPOLL_CTL_ADD);
}

/* --- the course of a step ------------------------------------------------------------------- */

static void step_next(struct step *st);

static void step_name(struct step *st)
{
    const char *p;

    str_clear(&st->key);
    str_addf(&st->key,
             "accountId:%s/orgId:default/projectId:p/pipelineId:%s/runSequence:%u/"
             "level0:pipeline/level1:stages/level2:s/level3:spec/level4:execution/level5:steps/"
             "level6:s%u",
             opt.account, opt.run, st->round + 1, st->id);
    note_ack("step %u %s %s", st->id, st->kind->name, str_c(&st->key));
    if (st->kind->escape) {
        struct str plain = st->key;

        st->key = STR_INIT;
        for (p = plain.p; *p; p++) {
            if (*p == ':' || *p == '/')
                str_adds(&st->key, *p == ':' ? "%3A" : "%2F");
            else
                str_addc(&st->key, *p);
        }
        str_fini(&plain);
    }
}

static void step_begin(struct step *st, unsigned round)
{
    st->round = round;
    st->id = opt.first_id + st->slot + round * opt.steps;
    st->kind = opt.kinds[st->slot % opt.n_kinds];
    st->call = CALL_OPEN;
    st->put = 0;
    str_clear(&st->path);
    step_name(st);
    if (!st->kind->open)
        st->call = st->kind->puts ? CALL_PUT : CALL_CLOSE;
}

static void step_end(struct step *st, bool good)
{
    count.steps_done += good;
    count.steps_failed += !good;
    if (opt.again && !stopping && now < until) {
        if (opt.reconnect)
            hang_up(st);
        step_begin(st, st->round + 1);
        st->due = now + opt.interval / 4;
        return;
    }
    st->call = CALL_DONE;
    hang_up(st);
    running--;
}

/* PUTs a step makes: as many as --puts says, or as fit into --seconds. */
static bool puts_over(const struct step *st)
{
    if (opt.puts)
        return st->put >= opt.puts;
    return stopping || (int64_t)st->put * opt.interval >= opt.seconds;
}

/* The call after the one that was just acknowledged. */
static void step_next(struct step *st)
{
    const struct kind *k = st->kind;

    switch (st->call) {
    case CALL_OPEN:
    case CALL_PUT:
        if (!puts_over(st)) {
            st->call = CALL_PUT;
            break;
        }
        st->call = k->link ? CALL_LINK : k->blob ? CALL_BLOB : k->close ? CALL_CLOSE : CALL_DONE;
        break;
    case CALL_LINK:
        st->call = CALL_BLOB;
        break;
    case CALL_BLOB:
        st->call = k->close ? CALL_CLOSE : CALL_DONE;
        break;
    default:
        st->call = CALL_DONE;
        break;
    }
    st->due = st->call == CALL_PUT && st->put ? st->due + opt.interval : now;
    if (st->call == CALL_PUT && !st->put)
        st->due = st->started + opt.interval / 2;
    st->behind = st->due < now ? st->due : 0;
    if (st->call == CALL_DONE)
        step_end(st, true);
}

static void try_now(struct step *st)
{
    st->tries++;
    st->sent = 0;
    st->deadline = now + ANSWER_NS;
    st->due = INT64_MAX;
    str_clear(&st->in);
    if (st->fd < 0)
        connect_start(st);
    else
        watch(st, true, EPOLL_CTL_MOD);
}

static void call_start(struct step *st)
{
    if (st->active) {
        try_now(st);
        return;
    }
    st->active = true;
    st->tries = 0;
    st->first_try = st->behind ? st->behind : now;
    st->behind = 0;
    st->started = st->due > 0 && st->due < now ? st->due : now;
    st->give_up = now + opt.retry_for;
    count.asked[st->call]++;
    request_build(st);
    try_now(st);
}

static void sample(struct step *st)
{
    double ms = (double)(clock_ns() - st->first_try) / NS_MS;

    if (st->call != CALL_PUT) {
        count.other_max_ms = ms > count.other_max_ms ? ms : count.other_max_ms;
        return;
    }
    if (count.n_ms == count.cap_ms) {
        count.cap_ms = count.cap_ms ? 2 * count.cap_ms : 4096;
        count.ms = xrealloc(count.ms, count.cap_ms * sizeof(*count.ms));
    }
    count.ms[count.n_ms++] = (float)ms;
}

static void call_failed(struct step *st, int status)
{
    count.failed[st->call]++;
    note_ack("fail %u %s %d", st->id, call_names[st->call], status);
    st->active = false;
    hang_up(st);
    step_end(st, false);
}

/* No answer, or one that asks to come again: the same request once more, a little later. */
static void call_again(struct step *st, uint64_t *counter, int status)
{
    unsigned step = st->tries < 6 ? st->tries : 6;
    int64_t wait = BACKOFF_NS << step;

    ++*counter;
    hang_up(st);
    if (now > st->give_up) {
        call_failed(st, status);
        return;
    }
    wait = wait < BACKOFF_MAX_NS ? wait : BACKOFF_MAX_NS;
    rng = mix(rng + 1);
    st->due = now + wait / 2 + (int64_t)(rng % (uint64_t)(wait / 2));
}

static bool take_link(struct step *st, struct view body)
{
    json_t *root = json_loadb(body.p, body.n, 0, NULL);
    const char *link = json_string_value(json_object_get(root, "link"));
    const char *path = link ? strstr(link, "://") : NULL;

    path = path ? strchr(path + 3, '/') : NULL;
    str_clear(&st->path);
    if (path)
        str_adds(&st->path, path);
    json_decref(root);
    return path != NULL;
}

static void call_good(struct step *st, struct view body)
{
    switch (st->call) {
    case CALL_PUT:
        note_ack("put %u %u %u", st->id, st->put * opt.lines, opt.lines);
        count.lines += opt.lines;
        st->put++;
        break;
    case CALL_LINK:
        if (!take_link(st, body)) {
            call_failed(st, 200);
            return;
        }
        break;
    case CALL_BLOB:
        note_ack("blob %u %zu %s", st->id, st->blob_bytes, st->sha256);
        break;
    default:
        note_ack("%s %u", call_names[st->call], st->id);
        break;
    }
    count.done[st->call]++;
    sample(st);
    st->active = false;
    st->due = st->started;
    step_next(st);
}

static void call_answered(struct step *st, int status, struct view body, bool close_after)
{
    bool link = st->call == CALL_LINK || (st->call == CALL_BLOB && st->path.n);

    st->used = true;
    if (status >= 500 || status == 429) {
        call_again(st, &count.status_5xx, status);
        return;
    }
    if (status != (link ? 200 : 204)) {
        count.unexpected++;
        call_failed(st, status);
        return;
    }
    call_good(st, body);
    if (st->fd < 0)
        return;
    str_clear(&st->in);
    if (close_after)
        hang_up(st);
    else if (st->want_out)
        watch(st, false, EPOLL_CTL_MOD);
}

/* --- bytes ---------------------------------------------------------------------------------- */

static const char *field(const char *head, const char *name)
{
    const char *p = strcasestr(head, name);

    return p ? p + strlen(name) : NULL;
}

/* A whole answer in st->in? False: not yet. */
static bool answer_parse(struct step *st)
{
    const char *end = st->in.n ? strstr(st->in.p, "\r\n\r\n") : NULL;
    const char *length, *close_word;
    struct view body;
    size_t n = 0;
    int status;

    if (!end)
        return false;
    if (strncmp(st->in.p, "HTTP/1.1 ", 9) != 0)
        die("an answer that is none");
    status = atoi(st->in.p + 9);
    length = field(st->in.p, "\r\ncontent-length:");
    close_word = field(st->in.p, "\r\nconnection: close");
    if (length && length < end && status != 204)
        n = strtoul(length, NULL, 10);
    body = view_of(end + 4, n);
    if (st->in.n < (size_t)(end + 4 - st->in.p) + n)
        return false;
    call_answered(st, status, body, close_word && close_word < end);
    return true;
}

/* -1: the connection is over; 0: try later; else bytes. */
static ssize_t conn_io(struct step *st, void *in, const void *out, size_t n)
{
    ssize_t rc;

    if (!st->ssl) {
        rc = in ? read(st->fd, in, n) : send(st->fd, out, n, MSG_NOSIGNAL);
        if (rc < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        return rc > 0 ? rc : -1;
    }
    rc = in ? SSL_read(st->ssl, in, (int)n) : SSL_write(st->ssl, out, (int)n);
    if (rc > 0)
        return rc;
    switch (SSL_get_error(st->ssl, (int)rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return 0;
    default:
        return -1;
    }
}

static void conn_lost(struct step *st)
{
    bool connected = st->connected;

    if (!st->active || st->due != INT64_MAX) {
        hang_up(st); /* it was idle */
        return;
    }
    call_again(st, connected ? &count.lost : &count.no_connect, 0);
}

static bool connect_failed(const struct step *st)
{
    int error = 0;
    socklen_t n = sizeof(error);

    return getsockopt(st->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 || error != 0;
}

static void conn_write(struct step *st)
{
    if (!st->connected && connect_failed(st)) {
        conn_lost(st);
        return;
    }
    st->connected = true;
    while (st->sent < st->request.n) {
        ssize_t n = conn_io(st, NULL, st->request.p + st->sent, st->request.n - st->sent);

        if (n < 0) {
            conn_lost(st);
            return;
        }
        if (n == 0) {
            /* In a handshake TLS waits for the other side, not for room. */
            watch(st, !st->ssl || SSL_want_write(st->ssl), EPOLL_CTL_MOD);
            return;
        }
        st->sent += (size_t)n;
    }
    watch(st, false, EPOLL_CTL_MOD);
}

static void conn_read(struct step *st)
{
    char buf[8192];
    int fd = st->fd;

    while (st->fd == fd && st->fd >= 0) {
        ssize_t n = conn_io(st, buf, NULL, sizeof(buf));

        if (n == 0)
            return;
        if (n < 0) {
            conn_lost(st);
            return;
        }
        if (!st->active || st->due != INT64_MAX) {
            hang_up(st); /* an answer to nothing */
            count.unexpected++;
            return;
        }
        if (st->in.n + (size_t)n > IN_MAX)
            die("an answer that does not end");
        str_add(&st->in, buf, (size_t)n);
        if (answer_parse(st))
            return;
    }
}

static void conn_event(struct step *st, uint32_t events)
{
    if (st->fd < 0)
        return;
    if ((events & (EPOLLERR | EPOLLHUP)) && !(events & EPOLLIN)) {
        conn_lost(st);
        return;
    }
    if (st->active && st->due == INT64_MAX && st->sent < st->request.n)
        conn_write(st);
    else if (events & EPOLLOUT)
        watch(st, false, EPOLL_CTL_MOD);
    if ((events & (EPOLLIN | EPOLLHUP)) && st->fd >= 0)
        conn_read(st);
}

/* --- the loop ------------------------------------------------------------------------------- */

/* Start what is due; returns the time of the next thing to do. */
static int64_t turn(void)
{
    int64_t next = now + NS_SEC;
    unsigned i;

    for (i = 0; i < opt.steps; i++) {
        struct step *st = &steps[i];

        if (st->call == CALL_DONE)
            continue;
        if (st->due <= now)
            call_start(st);
        else if (st->due == INT64_MAX && st->deadline <= now)
            call_again(st, &count.late, 0);
        if (st->call == CALL_DONE)
            continue;
        if (st->due != INT64_MAX)
            next = st->due < next ? st->due : next;
        else
            next = st->deadline < next ? st->deadline : next;
    }
    return next;
}

static void loop(void)
{
    struct epoll_event events[EVENTS];

    while (running) {
        int64_t next = turn();
        int i, n, wait = (int)((next - now + NS_MS - 1) / NS_MS);

        n = epoll_wait(ep, events, EVENTS, wait > 0 ? wait : 0);
        now = clock_ns();
        for (i = 0; i < n; i++)
            conn_event(events[i].data.ptr, events[i].events);
    }
}

static void start_steps(void)
{
    unsigned i;

    steps = xcalloc(opt.steps, sizeof(*steps));
    begun = now = clock_ns();
    until = now + opt.seconds;
    running = opt.steps;
    for (i = 0; i < opt.steps; i++) {
        struct step *st = &steps[i];

        st->slot = i;
        st->fd = -1;
        step_begin(st, 0);
        st->due = now + opt.spread * i / opt.steps;
    }
}

/* --- the end -------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static double quantile(double q)
{
    return count.n_ms ? count.ms[(size_t)(q * (double)(count.n_ms - 1))] : 0;
}

static int report(void)
{
    uint64_t failed = 0;
    struct rusage ru;
    int i;

    qsort(count.ms, count.n_ms, sizeof(*count.ms), by_size);
    getrusage(RUSAGE_SELF, &ru);
    printf("{\"steps\":%llu,\"steps_failed\":%llu", (unsigned long long)count.steps_done,
           (unsigned long long)count.steps_failed);
    for (i = 0; i < CALL_N; i++) {
        printf(",\"%s\":{\"asked\":%llu,\"done\":%llu,\"failed\":%llu}", call_names[i],
               (unsigned long long)count.asked[i], (unsigned long long)count.done[i],
               (unsigned long long)count.failed[i]);
        failed += count.failed[i];
    }
    printf(",\"failed\":%llu,\"lines\":%llu,\"bytes\":%llu,\"retries\":{\"refused\":%llu,"
           "\"lost\":%llu,\"late\":%llu,\"status\":%llu},\"unexpected\":%llu",
           (unsigned long long)failed, (unsigned long long)count.lines,
           (unsigned long long)count.bytes, (unsigned long long)count.no_connect,
           (unsigned long long)count.lost, (unsigned long long)count.late,
           (unsigned long long)count.status_5xx, (unsigned long long)count.unexpected);
    printf(",\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,"
           "\"other_max_ms\":%.3f,\"seconds\":%.2f,\"cpu_seconds\":%.2f}\n",
           quantile(0.5), quantile(0.9), quantile(0.99), quantile(0.999), quantile(1),
           count.other_max_ms, (double)(clock_ns() - begun) / NS_SEC,
           (double)ru.ru_utime.tv_sec + (double)ru.ru_stime.tv_sec +
               (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
    return failed || count.steps_failed ? 1 : 0;
}

/* --- options -------------------------------------------------------------------------------- */

static const char usage[] =
    "load --url http[s]://ADDRESS:PORT[/PREFIX] [options]\n"
    "  --steps N        steps at once (200)          --interval MS   between PUTs of one (1000)\n"
    "  --lines N        lines of a PUT (10)          --bytes N       bytes of a PUT (4096)\n"
    "  --seconds S      how long (10)                --puts N        PUTs of one step instead\n"
    "  --again          new steps until S is over    --kinds A,B     what steps do, in turn:\n"
    "                   le-blob le-link delegate open lines end close (open)\n"
    "  --ack FILE       what was acknowledged        --retry-for S   per call (60)\n"
    "  --mark FILE      whose size is noted with it\n"
    "  --account A --token T --run NAME --first-id N --ca FILE --spread MS (the interval)\n"

    "  --reconnect      a new connection for each step\n";

static void parse_url(const char *url)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char *host, *port, *path;

    opt.tls = strncmp(url, "https://", 8) == 0;
    if (!opt.tls && strncmp(url, "http://", 7) != 0)
        die("--url: http:// or https://");
    opt.authority = xstrdup(url + (opt.tls ? 8 : 7));
    path = strchr(opt.authority, '/');
    opt.prefix = xstrdup(path ? path : "/log-service");
    if (path)
        *path = '\0';
    host = xstrdup(opt.authority);
    port = strrchr(host, ':');
    if (!port)
        die("--url: a port, please");
    *port++ = '\0';
    if (getaddrinfo(host, port, &hints, &found) != 0)
        die("--url: no such address");
    memcpy(&opt.addr, found->ai_addr, found->ai_addrlen);
    opt.addr_len = found->ai_addrlen;
    freeaddrinfo(found);
    opt.host = host;
}

static void parse_kinds(char *text)
{
    char *save = NULL, *part;
    size_t i;

    opt.n_kinds = 0;
    for (part = strtok_r(text, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
            if (strcmp(kinds[i].name, part) == 0)
                break;
        }
        if (i == sizeof(kinds) / sizeof(*kinds) || opt.n_kinds == MAX_KINDS)
            die("--kinds: unknown, or too many");
        opt.kinds[opt.n_kinds++] = &kinds[i];
    }
}

static void parse_options(int argc, char **argv)
{
    static const struct option longs[] = {
        {"url", 1, NULL, 'u'},       {"steps", 1, NULL, 'n'},
        {"interval", 1, NULL, 'i'},  {"lines", 1, NULL, 'l'},
        {"bytes", 1, NULL, 'b'},     {"seconds", 1, NULL, 's'},
        {"puts", 1, NULL, 'p'},      {"again", 0, NULL, 'A'},
        {"kinds", 1, NULL, 'k'},     {"ack", 1, NULL, 'a'},
        {"retry-for", 1, NULL, 'r'}, {"account", 1, NULL, 'c'},
        {"token", 1, NULL, 't'},     {"run", 1, NULL, 'R'},
        {"first-id", 1, NULL, 'f'},  {"ca", 1, NULL, 'C'},
        {"spread", 1, NULL, 'S'},    {"mark", 1, NULL, 'm'},
        {"reconnect", 0, NULL, 'N'}, {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        long v = optarg ? atol(optarg) : 0;

        switch (c) {
        case 'u':
            opt.url = optarg;
            break;
        case 'n':
            opt.steps = (unsigned)v;
            break;
        case 'i':
            opt.interval = v * NS_MS;
            break;
        case 'l':
            opt.lines = (unsigned)v;
            break;
        case 'b':
            opt.bytes = (unsigned)v;
            break;
        case 's':
            opt.seconds = v * NS_SEC;
            break;
        case 'p':
            opt.puts = (unsigned)v;
            break;
        case 'A':
            opt.again = true;
            break;
        case 'N':
            opt.reconnect = true;
            break;
        case 'k':
            parse_kinds(optarg);
            break;
        case 'a':
            opt.ack = optarg;
            break;
        case 'm':
            opt.mark = optarg;
            break;
        case 'r':
            opt.retry_for = v * NS_SEC;
            break;
        case 'c':
            opt.account = optarg;
            break;
        case 't':
            opt.token = optarg;
            break;
        case 'R':
            opt.run = optarg;
            break;
        case 'f':
            opt.first_id = (unsigned)v;
            break;
        case 'C':
            opt.ca = optarg;
            break;
        case 'S':
            opt.spread = v * NS_MS;
            break;
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
}

static void setup(void)
{
    struct rlimit files;

    if (!opt.url || optind == 0) {
        fputs(usage, stderr);
        exit(2);
    }
    if (!opt.steps || opt.steps > MAX_STEPS || !opt.lines || opt.bytes / opt.lines < LINE_MIN)
        die("--steps: 1 to 2000; --bytes: at least 110 a line");
    if (opt.spread < 0)
        opt.spread = opt.interval;
    parse_url(opt.url);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (opt.tls) {
        tls_ctx = SSL_CTX_new(TLS_client_method());
        if (opt.ca) {
            SSL_CTX_set_verify(tls_ctx, SSL_VERIFY_PEER, NULL);
            if (SSL_CTX_load_verify_locations(tls_ctx, opt.ca, NULL) != 1)
                die("--ca: cannot be read");
        }
    }
    if (opt.ack) {
        ack_fd = open(opt.ack, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (ack_fd < 0)
            die("--ack: cannot be written");
    }
    ep = epoll_create1(EPOLL_CLOEXEC);
}

static void on_signal(int signo)
{
    (void)signo;
    stopping = 1;
}

int main(int argc, char **argv)
{
    opt.account = "acct";
    opt.token = "token-1";
    opt.run = "load";
    opt.steps = 200;
    opt.lines = 10;
    opt.bytes = 4096;
    opt.interval = 1000 * NS_MS;
    opt.seconds = 10 * NS_SEC;
    opt.retry_for = 60 * NS_SEC;
    opt.spread = -1;
    opt.kinds[0] = &kinds[3];
    opt.n_kinds = 1;
    parse_options(argc, argv);
    setup();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    start_steps();
    loop();
    return report();
}
