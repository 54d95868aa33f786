/* Delivery's HTTP client over HTTP/1.1: what goes out, what comes back, and what an end means. */
#include "fetch_world.h"

#include <dirent.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/xmem.h"

#define SECRET     "x?accountID=a&token=SECRET"
#define NO_CONTENT "HTTP/1.1 204 No Content\r\n\r\n"
#define OK_TEXT    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static struct fetch_opts get(uint16_t port)
{
    return (struct fetch_opts){.method = "GET", .url = url_of(port, SECRET), .peer = &plain_peer};
}

static struct fetch_opts put(uint16_t port, const char *body)
{
    return (struct fetch_opts){
        .method = "PUT", .url = url_of(port, SECRET), .peer = &plain_peer, .body = view_str(body)};
}

static void run(struct call *c, struct fetch_opts o)
{
    memset(c, 0, sizeof(*c));
    call_start(c, o);
    call_wait(c);
}

static void expect(const struct call *c, enum fetch_outcome outcome, int status)
{
    if (c->outcome != outcome || c->status != status)
        print_error("outcome %d status %d: %s\n", (int)c->outcome, c->status, c->err.text);
    assert_int_equal(c->outcome, outcome);
    assert_int_equal(c->status, status);
}

/* ---- what goes out and what comes back */

static void serve_204(struct conn *c)
{
    while (conn_read_request(c))
        conn_say(c, NO_CONTENT);
}

static void serve_fields(struct conn *c)
{
    while (conn_read_request(c))
        conn_say(c, "HTTP/1.1 103 Early Hints\r\nServer: early\r\nTailrace: early\r\n\r\n"
                    "HTTP/1.1 429 Slow Down\r\nServer:  far/1 \r\nretry-after: 7\r\n"
                    "Retry-After: 9\r\nX-Goog-Hash: crc32c=AAA=\r\nx-goog-hash:md5=BBB=\r\n"
                    "Accept-Encoding: zstd\r\nContent-Encoding: gzip\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n"
                    "4\r\nbody\r\n0\r\nTailrace: trailer\r\n\r\n");
}

static void test_answer(void **state)
{
    struct server *s = server_new(serve_fields);
    struct call c;

    run(&c, get(s->port));
    expect(&c, FETCH_ANSWERED, 429);
    assert_string_equal(c.body, "body");
    assert_string_equal(c.retry_after, "7");
    assert_string_equal(c.goog_hash, "crc32c=AAA=,md5=BBB=");
    assert_string_equal(c.accept_encoding, "zstd");
    assert_string_equal(c.server, "far/1");
    assert_string_equal(c.coding, "gzip");
    assert_string_equal(c.gateway, "");
    assert_int_equal(c.version, 11);
    assert_true(c.connection > 0);
    server_free(s);
}

static void test_request_is_bare(void **state)
{
    struct server *s = server_new(serve_204);
    struct call c;
    char want[512];
    struct fetch_opts o = get(s->port);

    o.url = url_of(s->port, "a/../b//%2f%2F%zz?key=a%20b;c&x=|^{}\"\\<>[]`'");
    run(&c, o);
    expect(&c, FETCH_ANSWERED, 204);
    snprintf(want, sizeof(want),
             "GET /a/../b//%%2f%%2F%%zz?key=a%%20b;c&x=|^{}\"\\<>[]`' HTTP/1.1\r\n"
             "Host: 127.0.0.1:%u\r\nUser-Agent: tailrace/0.1.0\r\n\r\n",
             s->port);
    assert_string_equal(s->last, want);
    server_free(s);
}

static void test_request_fields(void **state)
{
    static const char *const fields[] = {
        "X-Harness-Token: tok",           "User-Agent: me/2",   "X-Empty:",
        "Content-Type: application/json", "Accept: text/plain", NULL};
    struct server *s = server_new(serve_204);
    struct call c;
    char want[512];
    struct fetch_opts o = put(s->port, "[\"line\"]");

    o.fields = fields;
    run(&c, o);
    expect(&c, FETCH_ANSWERED, 204);
    snprintf(want, sizeof(want),
             "PUT /" SECRET " HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nX-Harness-Token: tok\r\n"
             "User-Agent: me/2\r\nX-Empty:\r\nContent-Type: application/json\r\n"
             "Accept: text/plain\r\nContent-Length: 8\r\n\r\n",
             s->port);
    assert_string_equal(s->last, want);
    assert_string_equal(s->last_body, "[\"line\"]");
    server_free(s);
}

static void test_bodyless(void **state)
{
    static const char *const methods[] = {"POST", "PUT", "DELETE", "GET"};
    struct server *s = server_new(serve_204);

    for (size_t i = 0; i < 4; i++) {
        struct call c;
        struct fetch_opts o = get(s->port);
        const char *length = i < 2 ? "\r\nContent-Length: 0\r\n" : NULL;

        o.method = methods[i];
        run(&c, o);
        expect(&c, FETCH_ANSWERED, 204);
        assert_int_equal(strncmp(s->last, methods[i], strlen(methods[i])), 0);
        if (length)
            assert_non_null(strstr(s->last, length));
        else
            assert_null(strstr(s->last, "Content-Length"));
        assert_null(strstr(s->last, "Expect"));
        assert_null(strstr(s->last, "Content-Type"));
    }
    assert_int_equal(atomic_load(&s->accepted), 1);
    server_free(s);
}

static void test_malformed(void **state)
{
    static const char *const bad_fields[][2] = {
        {"X: a\r\nY: b", NULL}, {"nothing", NULL}, {": x", NULL}, {"X y: z", NULL}};
    static const char *const bad_urls[] = {"http://u:SECRET@127.0.0.1/x",
                                           "ftp://127.0.0.1/x",
                                           "http://127.0.0.1/a b",
                                           "http://127.0.0.1/x\r\nSECRET: 1",
                                           "http://:80/",
                                           "http://127.0.0.1:99999/x",
                                           ""};
    struct call c;

    for (size_t i = 0; i < ARRAY_LEN(bad_fields); i++) {
        struct fetch_opts o = get(1);

        o.fields = bad_fields[i];
        run(&c, o);
        expect(&c, FETCH_NOT_SENT, 0);
        assert_int_equal(c.err.code, ERR_INVALID);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad_urls); i++) {
        struct fetch_opts o = get(1);

        o.url = bad_urls[i];
        run(&c, o);
        expect(&c, FETCH_NOT_SENT, 0);
        assert_int_equal(c.err.code, ERR_INVALID);
    }
    assert_int_equal(fetch_pool_connections(pool), 0);
}

/* ---- bodies */

struct source {
    struct call c; /* first: `ctx` of all callbacks */
    size_t left;
    size_t piece;
    int reads, pauses;
    bool hold; /* pause until told */
    long end;  /* returned when nothing is left */
    size_t got;
    int writes, give_up_at;
    struct fetch **cancel; /* from within the callback */
};

static long source_read(void *ctx, void *p, size_t n)
{
    struct source *s = ctx;

    s->reads++;
    if (s->cancel && *s->cancel)
        fetch_cancel(s->cancel);
    if (s->hold) {
        s->pauses++;
        return FETCH_PAUSE;
    }
    if (s->left == 0)
        return s->end;
    n = TR_MIN(TR_MIN(n, s->piece), s->left);
    memset(p, 'b', n);
    s->left -= n;
    return (long)n;
}

static int source_write(void *ctx, struct view piece)
{
    struct source *s = ctx;

    s->got += piece.n;
    s->writes++;
    if (s->cancel && *s->cancel)
        fetch_cancel(s->cancel);
    return s->give_up_at && s->writes >= s->give_up_at ? -1 : 0;
}

static struct fetch_opts upload(struct source *s, uint16_t port, int64_t length)
{
    struct fetch_opts o = put(port, NULL);

    o.read = source_read;
    o.length = length;
    return o;
}

static void test_chunked(void **state)
{
    struct server *s = server_new(serve_204);
    struct source src = {.left = 3000, .piece = 1000};

    call_start(&src.c, upload(&src, s->port, -1));
    call_wait(&src.c);
    expect(&src.c, FETCH_ANSWERED, 204);
    assert_non_null(strstr(s->last, "\r\nTransfer-Encoding: chunked\r\n"));
    assert_null(strstr(s->last, "Content-Length"));
    server_free(s);
}

/* One handle serves all kinds of bodies in turn; nothing of one shows in the next. */
static void test_kinds_of_bodies_in_turn(void **state)
{
    struct server *s = server_new(serve_204);
    struct call c;

    for (int i = 0; i < 24; i++) {
        struct source src = {.left = 2000, .piece = 700};
        bool reads = i % 4 < 2;

        memset(s->last_body, 0, sizeof(s->last_body));
        if (reads) {
            call_start(&src.c, upload(&src, s->port, i % 4 ? 2000 : -1));
            call_wait(&src.c);
            expect(&src.c, FETCH_ANSWERED, 204);
        } else {
            run(&c, i % 4 == 2 ? get(s->port) : put(s->port, i % 8 == 3 ? "" : "[\"x\"]"));
            expect(&c, FETCH_ANSWERED, 204);
        }
        assert_int_equal(strstr(s->last, "chunked") != NULL, i % 4 == 0);
        assert_int_equal(strstr(s->last, "Content-Length: 2000\r\n") != NULL, i % 4 == 1);
        assert_int_equal(strstr(s->last, "Content-Length: 0\r\n") != NULL, i % 8 == 3);
        assert_int_equal(strstr(s->last, "Content-Length: 5\r\n") != NULL, i % 8 == 7);
        assert_int_equal(strncmp(s->last, "GET", 3) == 0, i % 4 == 2);
        assert_null(strstr(s->last, "Content-Type"));
    }
    assert_int_equal(atomic_load(&s->accepted), 1);
    server_free(s);
}

static bool has_paused(void *ctx)
{
    return ((struct source *)ctx)->pauses > 0;
}

static void test_pause_and_resume(void **state)
{
    struct server *s = server_new(serve_204);
    struct source src = {.left = 300000, .piece = 100000, .hold = true};
    struct fetch_opts o = upload(&src, s->port, 300000);

    o.stall_ms = 500; /* waiting for our own side is no stall */
    call_start(&src.c, o);
    for (int i = 1; i <= 3; i++) {
        wait_for(has_paused, &src);
        run_ms(550);
        assert_int_equal(src.pauses, 1);
        src.pauses = 0;
        fetch_resume(src.c.f);
    }
    wait_for(has_paused, &src);
    src.hold = false;
    fetch_resume(src.c.f);
    call_wait(&src.c);
    expect(&src.c, FETCH_ANSWERED, 204);
    assert_int_equal(src.left, 0);
    server_free(s);
}

static void test_body_given_up(void **state)
{
    struct server *s = server_new(serve_204);

    for (int i = 0; i < 2; i++) { /* an error, and an end before the announced length */
        struct source src = {.left = 1000, .piece = 1000, .end = i - 1};

        call_start(&src.c, upload(&src, s->port, 5000));
        call_wait(&src.c);
        expect(&src.c, FETCH_UNKNOWN, 0);
    }
    server_free(s);
}

static void serve_large(struct conn *c)
{
    char *text = xmalloc(300001);

    memset(text, 'x', 300000);
    text[300000] = '\0';
    while (conn_read_request(c)) {
        conn_say(c, "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n");
        conn_say(c, text);
    }
    xfree(text);
}

static void test_answer_in_pieces(void **state)
{
    struct server *s = server_new(serve_large);
    struct source src = {.left = 0};
    struct source quits = {.give_up_at = 2};
    struct fetch_opts o = get(s->port);

    o.write = source_write;
    call_start(&src.c, o);
    call_start(&quits.c, o);
    call_wait(&src.c);
    call_wait(&quits.c);
    expect(&src.c, FETCH_ANSWERED, 200);
    assert_int_equal(src.got, 300000);
    assert_int_equal(src.c.body_n, 0);
    expect(&quits.c, FETCH_UNKNOWN, 200);
    assert_int_equal(quits.writes, 2);
    server_free(s);
}

static void serve_endless(struct conn *c)
{
    char text[4096];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    if (!conn_read_request(c))
        return;
    conn_say(c, "HTTP/1.1 500 Oh\r\n\r\n");
    for (int i = 0; i < 100000 && !atomic_load(&c->server->stop); i++) {
        struct pollfd pfd = {.fd = c->fd, .events = POLLOUT};

        if (poll(&pfd, 1, 0) >= 0 && pfd.revents & (POLLERR | POLLHUP))
            break;
        conn_say(c, text);
    }
}

static void test_answer_is_bounded(void **state)
{
    struct server *s = server_new(serve_large);
    struct server *endless = server_new(serve_endless);
    struct call c;
    struct fetch_opts o = get(s->port);

    o.max_answer = 1000;
    run(&c, o);
    expect(&c, FETCH_ANSWERED, 200);
    assert_int_equal(c.body_n, 1000);
    run(&c, get(s->port)); /* the connection is still good */
    assert_int_equal(c.body_n, 64 * 1024);
    assert_int_equal(atomic_load(&s->accepted), 1);
    run(&c, get(endless->port));
    expect(&c, FETCH_ANSWERED, 500);
    assert_int_equal(c.body_n, 64 * 1024);
    server_free(s);
    server_free(endless);
}

static void serve_many_fields(struct conn *c)
{
    char field[700];

    if (!conn_read_request(c))
        return;
    conn_say(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
    memset(field, 'h', sizeof(field));
    memcpy(field, "Server: ", 8);
    strcpy(field + sizeof(field) - 3, "\r\n");
    conn_say(c, field); /* longer than is kept */
    for (int i = 0; i < 400; i++)
        conn_say(c, "x-goog-hash: 0123456789\r\n");
    conn_say(c, "\r\n");
    conn_wait_end(c);
}

static void test_fields_are_bounded(void **state)
{
    struct server *s = server_new(serve_many_fields);
    struct call c;

    run(&c, get(s->port));
    expect(&c, FETCH_ANSWERED, 200);
    assert_string_equal(c.server, "");
    assert_true(strlen(c.goog_hash) <= 512);
    assert_int_equal(strncmp(c.goog_hash, "0123456789,0123456789", 21), 0);
    server_free(s);
}

/* ---- no replay */

/* The first request is answered, the second is read and the connection then closed. */
static void serve_once_then_close(struct conn *c)
{
    if (c->number == 0) {
        conn_read_request(c);
        conn_say(c, NO_CONTENT);
        conn_read_request(c);
        return;
    }
    serve_204(c); /* would answer a replay */
}

static void serve_once_then_reset(struct conn *c)
{
    if (c->number == 0) {
        conn_read_request(c);
        conn_say(c, NO_CONTENT);
        conn_read_head(c);
        conn_reset(c);
        return;
    }
    serve_204(c);
}

static void no_replay(serve_fn serve, const char *method, const char *body)
{
    struct server *s = server_new(serve);
    struct call c;
    struct fetch_opts o = put(s->port, body);

    o.method = method;
    run(&c, get(s->port));
    expect(&c, FETCH_ANSWERED, 204);
    run(&c, o);
    expect(&c, FETCH_UNKNOWN, 0);
    assert_int_equal(c.err.code, ERR_CLOSED);
    run_ms(30); /* time for a replay to arrive */
    assert_int_equal(atomic_load(&s->requests), 2);
    assert_int_equal(atomic_load(&s->accepted), 1);
    run(&c, o); /* and the next request is not harmed */
    expect(&c, FETCH_ANSWERED, 204);
    assert_int_equal(atomic_load(&s->requests), 3);
    server_free(s);
}

static void test_no_replay(void **state)
{
    no_replay(serve_once_then_close, "POST", NULL);
    no_replay(serve_once_then_close, "PUT", "[\"one\"]");
    no_replay(serve_once_then_close, "GET", NULL);
    no_replay(serve_once_then_close, "DELETE", NULL);
    no_replay(serve_once_then_reset, "POST", NULL);
    no_replay(serve_once_then_reset, "PUT", "[\"one\"]");
    no_replay(serve_once_then_reset, "GET", NULL);
}

/* Answers one request and closes at once, without having said so. */
static void serve_one(struct conn *c)
{
    conn_read_request(c);
    conn_say(c, NO_CONTENT);
}

/* The close races with the next request: each is seen once, or reported as not answered. */
static void test_keep_alive_race(void **state)
{
    struct server *s = server_new(serve_one);
    int answered = 0, unknown = 0;

    for (int i = 0; i < 200; i++) {
        struct call c;
        struct fetch_opts o = put(s->port, "[]");

        o.method = i % 2 ? "PUT" : "POST";
        run(&c, o);
        assert_int_not_equal(c.outcome, FETCH_NOT_SENT);
        answered += c.outcome == FETCH_ANSWERED;
        unknown += c.outcome == FETCH_UNKNOWN;
    }
    assert_int_equal(atomic_load(&s->requests), answered);
    assert_true(answered > 100);
    server_free(s);
}

/* ---- what an end means */

static void serve_close(struct conn *c)
{
    conn_read_request(c);
}

static void serve_close_unread(struct conn *c)
{
    struct pollfd pfd = {.fd = c->fd, .events = POLLIN};

    poll(&pfd, 1, 1000);
    conn_reset(c);
}

static void serve_half_status(struct conn *c)
{
    conn_read_request(c);
    conn_say(c, "HTTP/1.1 20");
}

static void serve_half_head(struct conn *c)
{
    conn_read_request(c);
    conn_say(c, "HTTP/1.1 204 No Content\r\nServer: x\r\n");
}

static void serve_half_body(struct conn *c)
{
    conn_read_request(c);
    conn_say(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
}

static void serve_half_chunk(struct conn *c)
{
    conn_read_request(c);
    conn_say(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf");
    conn_reset(c);
}

static void serve_garbage(struct conn *c)
{
    conn_read_request(c);
    conn_say(c, "SSH-2.0-OpenSSH_9.2 SECRET\r\n");
}

static void serve_only_interim(struct conn *c)
{
    conn_read_request(c);
    conn_say(c, "HTTP/1.1 103 Early Hints\r\n\r\n");
}

static void serve_until_end(struct conn *c)
{
    conn_read_request(c);
    conn_say(c, "HTTP/1.0 200 OK\r\n\r\nall");
}

static void test_broken_answers(void **state)
{
    static const struct {
        serve_fn serve;
        enum fetch_outcome outcome;
        int status;
    } rows[] = {
        {serve_close, FETCH_UNKNOWN, 0},        {serve_close_unread, FETCH_UNKNOWN, 0},
        {serve_half_status, FETCH_UNKNOWN, 0},  {serve_half_head, FETCH_UNKNOWN, 0},
        {serve_half_body, FETCH_UNKNOWN, 200},  {serve_half_chunk, FETCH_UNKNOWN, 200},
        {serve_garbage, FETCH_UNKNOWN, 0},      {serve_only_interim, FETCH_UNKNOWN, 0},
        {serve_until_end, FETCH_ANSWERED, 200}, {serve_204, FETCH_ANSWERED, 204},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct server *s = server_new(rows[i].serve);
        struct call c;

        for (int body = 0; body < 2; body++) {
            run(&c, body ? put(s->port, "[\"x\"]") : get(s->port));
            if (c.outcome != rows[i].outcome || c.status != rows[i].status)
                print_error("row %zu\n", i);
            expect(&c, rows[i].outcome, rows[i].status);
        }
        server_free(s);
    }
}

/* ---- early answers */

static void serve_413_early(struct conn *c)
{
    conn_read_head(c);
    conn_say(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
    conn_wait_end(c);
}

static void serve_204_early(struct conn *c)
{
    conn_read_head(c);
    conn_read_some(c, 1000);
    conn_say(c, NO_CONTENT);
    poll(NULL, 0, 30); /* the answer arrives before the end */
    conn_reset(c);
}

static void test_early_answers(void **state)
{
    struct server *s = server_new(serve_413_early);
    struct server *t = server_new(serve_204_early);
    struct source src = {.left = 8000000, .piece = 65536};

    call_start(&src.c, upload(&src, s->port, 8000000));
    call_wait(&src.c);
    expect(&src.c, FETCH_ANSWERED, 413);
    assert_string_equal(src.c.body, "big");
    assert_true(src.left > 0 && src.c.early);
    src = (struct source){.left = 80000000, .piece = 65536};
    call_start(&src.c, upload(&src, t->port, 80000000));
    call_wait(&src.c);
    expect(&src.c, FETCH_ANSWERED, 204);
    assert_true(src.c.early);
    server_free(s);
    server_free(t);
}

/* ---- certainly not sent */

static void test_refused(void **state)
{
    struct call c;

    run(&c, put(port_free(), "[]"));
    expect(&c, FETCH_NOT_SENT, 0);
    assert_int_equal(c.err.code, ERR_UNAVAIL);
    assert_non_null(strstr(c.err.text, "refused"));
}

static void test_unresolved(void **state)
{
    struct call c;
    struct fetch_opts o = get(80);

    o.url = "http://nowhere.test/" SECRET;
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    assert_string_equal(c.err.text, "nowhere.test:80: cannot resolve nowhere.test: no such name");
    name_held = true;
    o.url = "http://slow.test/" SECRET;
    o.timeout_ms = 50;
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    assert_int_equal(c.err.code, ERR_TIMEOUT);
}

/* A listener whose queue is full does not answer connects. */
static void test_connect_timeout(void **state)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t n = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM, 0), fill[4];
    struct call c;
    struct fetch_opts o;

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
    for (size_t i = 0; i < ARRAY_LEN(fill); i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(fill[i], (struct sockaddr *)&in, sizeof(in));
    }
    o = put(ntohs(in.sin_port), "[]");
    o.connect_ms = 100;
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    assert_int_equal(c.err.code, ERR_TIMEOUT);
    for (size_t i = 0; i < ARRAY_LEN(fill); i++)
        close(fill[i]);
    close(fd);
}

static void test_tls_failures(void **state)
{
    static const struct fetch_peer system_peer = {.http = FETCH_HTTP_AUTO};
    struct server *tls = server_new_tls(serve_204);
    struct server *clear = server_new(serve_garbage);
    struct call c;
    struct fetch_opts o = put(1, "[]");

    o.peer = &system_peer;
    o.url = url_with("https", "127.0.0.1", tls->port, SECRET);
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    assert_int_equal(c.err.code, ERR_DENIED);
    assert_non_null(strstr(c.err.text, "certificate is not trusted"));
    o.peer = &tls_peer;
    o.url = url_with("https", "wrong.example", tls->port, SECRET);
    name_set("wrong.example", "127.0.0.1");
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    o.url = url_with("https", "127.0.0.1", clear->port, SECRET);
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    assert_int_equal(atomic_load(&tls->requests), 0);
    o.url = url_with("https", "127.0.0.1", tls->port, SECRET);
    run(&c, o);
    expect(&c, FETCH_ANSWERED, 204);
    server_free(tls);
    server_free(clear);
}

/* ---- time */

static void serve_silent(struct conn *c)
{
    conn_read_request(c);
    conn_wait_end(c);
}

static void serve_slow_body(struct conn *c)
{
    while (conn_read_request(c)) {
        conn_say(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
        for (int i = 0; i < 10; i++) {
            poll(NULL, 0, 40);
            conn_say(c, "x");
        }
    }
}

static void test_timeouts(void **state)
{
    struct server *silent = server_new(serve_silent);
    struct server *slow = server_new(serve_slow_body);
    struct fetch_opts o = put(silent->port, "[]");
    struct call c;

    o.timeout_ms = 100;
    run(&c, o);
    expect(&c, FETCH_UNKNOWN, 0);
    assert_int_equal(c.err.code, ERR_TIMEOUT);
    o.timeout_ms = 0;
    o.stall_ms = 100;
    run(&c, o);
    expect(&c, FETCH_UNKNOWN, 0);
    assert_non_null(strstr(c.err.text, "no byte either way for 100 ms"));
    o.url = url_of(slow->port, SECRET);
    o.stall_ms = 250; /* slower as a whole, but never still for so long */
    run(&c, o);
    expect(&c, FETCH_ANSWERED, 200);
    o.stall_ms = 0;
    o.timeout_ms = 150;
    run(&c, o);
    expect(&c, FETCH_UNKNOWN, 200);
    server_free(silent);
    server_free(slow);
}

/* ---- cancelling */

static bool server_has_request(void *ctx)
{
    return atomic_load(&((struct server *)ctx)->requests) > 0;
}

static void test_cancel(void **state)
{
    struct server *s = server_new(serve_silent);
    struct call c[6] = {{.f = NULL}};
    struct fetch *none = NULL;

    fetch_cancel(&none);
    pool_remake(&(struct fetch_pool_opts){.max_connections_per_host = 1});
    for (int i = 0; i < 6; i++)
        call_start(&c[i], put(s->port, "[]"));
    fetch_cancel(&c[5].f); /* not yet looked at */
    wait_for(server_has_request, s);
    assert_int_equal(fetch_pool_active(pool), 5);
    fetch_cancel(&c[4].f); /* queued */
    assert_null(c[4].f);
    atomic_store(&s->requests, 0);
    fetch_cancel(&c[0].f); /* running: its slot goes to the next */
    wait_for(server_has_request, s);
    assert_int_equal(fetch_pool_active(pool), 3);
    assert_int_equal(atomic_load(&s->accepted), 2);
    for (int i = 1; i < 4; i++)
        fetch_cancel(&c[i].f);
    assert_int_equal(fetch_pool_active(pool), 0);
    run_ms(20);
    for (int i = 0; i < 6; i++)
        assert_false(c[i].done);
    server_free(s);
}

static void cancel_other(struct call *c)
{
    struct call *other = c->user;

    fetch_cancel(&other->f);
}

static bool is_cancelled(void *ctx)
{
    return *(struct fetch **)ctx == NULL;
}

static void test_cancel_from_callbacks(void **state)
{
    struct server *s = server_new(serve_204);
    struct server *large = server_new(serve_large);
    struct call a = {.then = cancel_other}, b = {.f = NULL};
    struct source src = {.left = 100000, .piece = 1000}, dst = {.left = 0};
    struct fetch_opts o = get(large->port);

    a.user = &b;
    pool_remake(&(struct fetch_pool_opts){.max_connections_per_host = 1});
    call_start(&a, get(s->port));
    call_start(&b, get(s->port));
    call_wait(&a);
    assert_null(b.f);
    src.cancel = &src.c.f;
    call_start(&src.c, upload(&src, s->port, 100000));
    wait_for(is_cancelled, &src.c.f);
    dst.cancel = &dst.c.f;
    o.write = source_write;
    call_start(&dst.c, o);
    wait_for(is_cancelled, &dst.c.f);
    run_ms(20);
    assert_false(b.done || src.c.done || dst.c.done);
    assert_int_equal(fetch_pool_active(pool), 0);
    run(&a, get(s->port));
    expect(&a, FETCH_ANSWERED, 204);
    server_free(s);
    server_free(large);
}

static void test_pool_free_while_running(void **state)
{
    struct server *s = server_new(serve_silent);
    struct call c[20] = {{.f = NULL}};

    for (int i = 0; i < 20; i++)
        call_start(&c[i], put(s->port, "[]"));
    wait_for(server_has_request, s);
    call_start(&c[0], put(s->port, "[]")); /* with its task under way */
    fetch_pool_free(&pool);
    run_ms(5);
    for (int i = 0; i < 20; i++)
        assert_false(c[i].done);
    server_free(s);
}

/* ---- connections */

static void serve_slowly(struct conn *c)
{
    while (conn_read_request(c)) {
        poll(NULL, 0, 5);
        conn_say(c, OK_TEXT);
    }
}

static bool server_is_alone(void *ctx)
{
    return atomic_load(&((struct server *)ctx)->open) == 0;
}

static void test_connection_caps(void **state)
{
    struct server *s = server_new(serve_slowly);
    struct call c[60] = {{.f = NULL}};
    unsigned caps[] = {3, 0};

    for (size_t k = 0; k < 2; k++) {
        int cap = caps[k] ? (int)caps[k] : 16;

        pool_remake(&(struct fetch_pool_opts){.max_connections_per_host = caps[k]});
        memset(c, 0, sizeof(c));
        wait_for(server_is_alone, s);
        atomic_store(&s->most_open, 0);
        for (size_t i = 0; i < ARRAY_LEN(c); i++)
            call_start(&c[i], i % 2 ? get(s->port) : put(s->port, "[]"));
        assert_int_equal(fetch_pool_active(pool), ARRAY_LEN(c));
        calls_wait(c, ARRAY_LEN(c));
        for (size_t i = 0; i < ARRAY_LEN(c); i++)
            expect(&c[i], FETCH_ANSWERED, 200);
        assert_int_equal(fetch_pool_connections(pool), cap);
        assert_true(atomic_load(&s->most_open) <= cap);
    }
    server_free(s);
}

static void test_reuse_and_fresh(void **state)
{
    struct server *s = server_new(serve_204);
    struct call c;
    struct fetch_opts o = put(s->port, "[]");
    int64_t first = 0;

    for (int i = 0; i < 5; i++) {
        run(&c, o);
        expect(&c, FETCH_ANSWERED, 204);
        if (i == 0)
            first = c.connection;
        assert_int_equal(c.connection, first);
    }
    assert_int_equal(fetch_pool_connections(pool), 1);
    o.fresh = true;
    run(&c, o);
    expect(&c, FETCH_ANSWERED, 204);
    assert_int_not_equal(c.connection, first);
    assert_int_equal(fetch_pool_connections(pool), 2);
    server_free(s);
}

static bool only_even(void *ctx, int64_t connection)
{
    int64_t *asked = ((struct call *)ctx)->user;

    *asked = connection;
    return connection % 2 == 0;
}

static void test_connection_ok(void **state)
{
    struct server *s = server_new(serve_204);
    struct fetch_opts o = put(s->port, "[]");
    struct call c;
    int64_t asked = -1, first;

    run(&c, o);
    first = c.connection;
    o.connection_ok = only_even;
    for (int i = 0; i < 2; i++) {
        int before = atomic_load(&s->requests);
        bool fit;

        memset(&c, 0, sizeof(c));
        c.user = &asked;
        call_start(&c, o);
        call_wait(&c);
        fit = asked % 2 == 0;
        expect(&c, fit ? FETCH_ANSWERED : FETCH_NOT_SENT, fit ? 204 : 0);
        assert_int_equal(atomic_load(&s->requests), before + fit);
        assert_int_equal(asked, i == 0 ? first : first + first % 2);
        assert_int_equal(c.connection, asked);
    }
    server_free(s);
}

static void test_idle_limit(void **state)
{
    struct server *s = server_new(serve_204);
    struct call c;

    pool_remake(&(struct fetch_pool_opts){.max_idle_ms = 1000});
    run(&c, get(s->port));
    run(&c, get(s->port));
    assert_int_equal(fetch_pool_connections(pool), 1);
    run_ms(1050);
    run(&c, get(s->port));
    expect(&c, FETCH_ANSWERED, 204);
    assert_int_equal(fetch_pool_connections(pool), 2);
    server_free(s);
}

static int descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* Though nothing is asked for that would have curl look at them. */
static void test_idle_connections_are_closed(void **state)
{
    struct server *s = server_new(serve_204);
    struct call c[8] = {{.f = NULL}};
    int before;

    pool_remake(&(struct fetch_pool_opts){.max_idle_ms = 1000});
    before = descriptors();
    for (size_t i = 0; i < ARRAY_LEN(c); i++)
        call_start(&c[i], get(s->port));
    calls_wait(c, ARRAY_LEN(c));
    assert_true(descriptors() >= before + 2);
    for (int i = 0; i < 100 && descriptors() > before; i++)
        run_ms(100);
    assert_int_equal(descriptors(), before);
    memset(c, 0, sizeof(c));
    run(&c[0], get(s->port));
    expect(&c[0], FETCH_ANSWERED, 204);
    server_free(s);
}

/* A host that turns out to speak HTTP/1.1 only gets more than the shared connections. */
static void test_learns_http_1_1(void **state)
{
    struct server *s = server_new_tls(serve_slowly);
    struct call c[60] = {{.f = NULL}};
    struct fetch_opts o = put(1, "[]");

    o.peer = &tls_peer;
    o.url = url_with("https", "127.0.0.1", s->port, SECRET);
    for (size_t i = 0; i < ARRAY_LEN(c); i++)
        call_start(&c[i], o);
    calls_wait(c, ARRAY_LEN(c));
    for (size_t i = 0; i < ARRAY_LEN(c); i++) {
        expect(&c[i], FETCH_ANSWERED, 200);
        assert_int_equal(c[i].version, 11);
    }
    assert_in_range(fetch_pool_connections(pool), 8, 18);
    server_free(s);
}

/* ---- names and policy */

static bool allow_second(void *ctx, const struct net_addr *addr)
{
    char text[NET_ADDR_TEXT];

    ++*(int *)ctx;
    return strcmp(net_addr_ip(addr, text), "127.0.0.1") != 0;
}

static void test_names_are_pinned(void **state)
{
    struct server *s = server_new(serve_204);
    struct call c;
    char want[64];
    struct fetch_opts o = put(1, "[]");

    name_set("up.test", "127.0.0.1");
    o.url = url_with("http", "UP.test", s->port, SECRET);
    for (int i = 0; i < 5; i++) {
        run(&c, o);
        expect(&c, FETCH_ANSWERED, 204);
    }
    snprintf(want, sizeof(want), "Host: UP.test:%u\r\n", s->port);
    assert_non_null(strstr(s->last, want));
    assert_int_equal(name_asked, 1);
    assert_int_equal(fetch_pool_connections(pool), 1);
    name_set("up.test", "127.0.0.3"); /* nobody listens there: new connections must fail */
    run_ms(1050);
    run(&c, o); /* asks again, and uses the connection it has */
    expect(&c, FETCH_ANSWERED, 204);
    assert_int_equal(name_asked, 2);
    o.fresh = true;
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    server_free(s);
}

static void test_allow(void **state)
{
    struct server *s = server_new(serve_204);
    struct call c;
    int asked = 0;
    struct fetch_opts o = put(s->port, "[]");

    pool_remake(&(struct fetch_pool_opts){.allow = allow_second, .allow_ctx = &asked});
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    assert_int_equal(c.err.code, ERR_DENIED);
    snprintf(c.body, sizeof(c.body), "it may not be reached at address 127.0.0.1:%u", s->port);
    assert_non_null(strstr(c.err.text, c.body));
    assert_int_equal(asked, 1);
    name_set("two.test", "127.0.0.1,127.0.0.2");
    o.url = url_with("http", "two.test", s->port, SECRET);
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    assert_int_equal(asked, 3); /* both were looked at */
    assert_int_equal(atomic_load(&s->accepted), 0);
    server_free(s);
}

/* One bad address, one good: the good one is used. */
static void test_next_address(void **state)
{
    struct server *s = server_new(serve_204);
    struct call c;
    struct fetch_opts o = put(1, "[]");

    name_set("two.test", "127.0.0.2,127.0.0.1");
    o.url = url_with("http", "two.test", s->port, SECRET);
    run(&c, o);
    expect(&c, FETCH_ANSWERED, 204);
    server_free(s);
}

/* ---- parents */

static void serve_proxy(struct conn *c)
{
    while (conn_read_request(c)) {
        if (strncmp(c->head, "CONNECT refused", 15) == 0)
            conn_say(c, "HTTP/1.1 403 Forbidden\r\nServer: parent\r\nContent-Length: 0\r\n\r\n");
        else if (strncmp(c->head, "CONNECT", 7) == 0)
            return;
        else
            conn_say(c, NO_CONTENT);
    }
}

static void test_parent(void **state)
{
    static const char *const fields[] = {"X-Harness-Token: tok", NULL};
    struct server *s = server_new(serve_proxy);
    struct fetch_peer peer = {.ca = ca_file};
    struct fetch_opts o = put(1, "[]");
    struct call c;
    int asked = 0;

    pool_remake(&(struct fetch_pool_opts){.allow = allow_second, .allow_ctx = &asked});
    name_set("parent.test", "127.0.0.1");
    peer.parent = url_with("http", "user:SECRET@parent.test", s->port, "");
    o.peer = &peer;
    o.fields = fields;
    o.url = "http://target.test/a/../b?token=SECRET";
    run(&c, o);
    expect(&c, FETCH_ANSWERED, 204);
    assert_int_equal(
        strncmp(s->last, "PUT http://target.test/a/../b?token=SECRET HTTP/1.1\r\n", 53), 0);
    assert_non_null(strstr(s->last, "Host: target.test\r\n"));
    assert_non_null(strstr(s->last, "Proxy-Authorization: Basic "));
    o.url = "https://refused.test/" SECRET;
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    assert_non_null(strstr(c.err.text, "refused.test:443 through parent.test:"));
    assert_non_null(strstr(c.err.text, "status 403"));
    assert_null(strstr(s->last, "tok"));
    o.url = "https://closed.test/" SECRET;
    run(&c, o);
    expect(&c, FETCH_NOT_SENT, 0);
    assert_int_equal(name_asked, 1); /* the parent only */
    assert_int_equal(asked, 0);      /* whose address is exempt */
    fetch_pool_free(&pool);
    server_free(s);
}

static void test_environment_is_ignored(void **state)
{
    struct server *s = server_new(serve_204);
    struct call c;

    setenv("http_proxy", "http://127.0.0.1:1", 1);
    run(&c, get(s->port));
    unsetenv("http_proxy");
    expect(&c, FETCH_ANSWERED, 204);
    server_free(s);
}

static void test_many_hosts(void **state)
{
    struct server *s = server_new(serve_204);
    struct call c;

    for (int i = 0; i < 150; i++) {
        char host[32];
        struct fetch_opts o = get(1);

        snprintf(host, sizeof(host), "127.0.0.1");
        o.url = url_with("http", host, s->port, SECRET);
        if (i % 2) {
            snprintf(host, sizeof(host), "n%d.test", i);
            o.url = url_with("http", host, s->port, SECRET);
            run(&c, o);
            expect(&c, FETCH_NOT_SENT, 0);
        } else {
            run(&c, o);
            expect(&c, FETCH_ANSWERED, 204);
        }
    }
    server_free(s);
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_answer),
        T(test_request_is_bare),
        T(test_request_fields),
        T(test_bodyless),
        T(test_malformed),
        T(test_chunked),
        T(test_kinds_of_bodies_in_turn),
        T(test_pause_and_resume),
        T(test_body_given_up),
        T(test_answer_in_pieces),
        T(test_answer_is_bounded),
        T(test_fields_are_bounded),
        T(test_no_replay),
        T(test_keep_alive_race),
        T(test_broken_answers),
        T(test_early_answers),
        T(test_refused),
        T(test_unresolved),
        T(test_connect_timeout),
        T(test_tls_failures),
        T(test_timeouts),
        T(test_cancel),
        T(test_cancel_from_callbacks),
        T(test_pool_free_while_running),
        T(test_connection_caps),
        T(test_reuse_and_fresh),
        T(test_connection_ok),
        T(test_idle_limit),
        T(test_idle_connections_are_closed),
        T(test_learns_http_1_1),
        T(test_names_are_pinned),
        T(test_allow),
        T(test_next_address),
        T(test_parent),
        T(test_environment_is_ignored),
        T(test_many_hosts),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    unlink(ca_file);
    unlink(key_file);
    return failed;
}
