/* The client, against scripted upstreams; dialling is replaced by socket pairs. */
#include "rig.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/xmem.h"
#include "http/client.h"
#include "http/client_priv.h"

enum { FARS = 64 };

static struct rig r;
static struct raw far[FARS];
static size_t dials;
static struct net_connect_opts dialled_to; /* the last one */
static const struct net_parent *use_parent; /* of the calls that start */
static bool refuse, frozen;
static struct http_client *client;

/* --- a dialler that hands out socket pairs --- */

struct net_connect {
    struct ev_task task;
    struct ev_loop *loop;
    net_connected_fn fn;
    void *ctx;
    bool cancelled;
};

static void dialled(struct ev_task *task)
{
    struct net_connect *c = container_of(task, struct net_connect, task);
    struct net_addr peer;
    struct err e;
    int fds[2];

    if (c->cancelled) {
        xfree(c);
        return;
    }
    if (frozen) {
        ev_defer(c->loop, &c->task);
        return;
    }
    if (refuse) {
        err_set(&e, ERR_UNAVAIL, "refused");
        c->fn(c->ctx, NULL, &e);
        xfree(c);
        return;
    }
    assert_int_equal(net_addr_parse(VIEW_LIT("192.0.2.9:80"), &peer, &e), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    rig_adopt(&r, &far[dials++], fds[0]);
    c->fn(c->ctx, net_stream_connected(c->loop, fds[1], NULL, NULL, VIEW_NONE, &peer), NULL);
    xfree(c);
}

struct net_connect *net_connect_start(struct net_resolver *resolver, struct ev_loop *loop,
                                      const struct net_connect_opts *o, net_connected_fn fn, void *ctx)
{
    struct net_connect *c = XNEW(struct net_connect);

    dialled_to = *o;
    c->task.run = dialled;
    c->loop = loop;
    c->fn = fn;
    c->ctx = ctx;
    ev_defer(loop, &c->task);
    return c;
}

void net_connect_cancel(struct net_connect **c)
{
    if (*c)
        (*c)->cancelled = true;
    *c = NULL;
}

/* --- what a caller sees --- */

enum leave { STAY, LEAVE_HEAD, LEAVE_BODY, LEAVE_END };

struct got {
    struct http_call *call;
    int status, heads, ends, errors, drains;
    int64_t length;
    bool sent, hold;
    size_t held;
    enum leave leave;
    struct str fields, body;
    struct err e;
    struct got *then; /* a call started from within on_end */
};

static void get(struct got *g, const char *target);

static void on_head(void *ctx, int status, const struct h1_field *f, size_t n, int64_t length)
{
    struct got *g = ctx;

    assert_non_null(g->call);
    g->heads++;
    g->status = status;
    g->length = length;
    for (size_t i = 0; i < n; i++)
        str_addf(&g->fields, "%.*s: %.*s\n", (int)f[i].name.n, f[i].name.p, (int)f[i].value.n,
                 f[i].value.p);
    if (g->leave == LEAVE_HEAD)
        http_call_free(&g->call);
}

static void on_body(void *ctx, struct view piece)
{
    struct got *g = ctx;

    assert_non_null(g->call);
    str_addv(&g->body, piece);
    if (g->hold)
        g->held += piece.n;
    else
        http_call_consumed(g->call, piece.n);
    if (g->leave == LEAVE_BODY)
        http_call_free(&g->call);
}

static void on_end(void *ctx)
{
    struct got *g = ctx;

    assert_non_null(g->call);
    g->ends++;
    if (g->then)
        get(g->then, "/then");
    if (g->leave == LEAVE_END)
        http_call_free(&g->call);
}

static void on_drain(void *ctx)
{
    ((struct got *)ctx)->drains++;
}

static void on_error(void *ctx, const struct err *e, bool sent)
{
    struct got *g = ctx;

    assert_non_null(g->call);
    g->errors++;
    g->e = *e;
    g->sent = sent;
}

static const struct http_call_ops ops = {on_head, on_body, on_end, on_drain, on_error};

static void start(struct got *g, const char *method, const char *target, int64_t length, bool upgrade)
{
    static const struct h1_field fields[] = {
        {{"X-A", 3}, {"1", 1}},          {{"Upgrade", 7}, {"websocket", 9}},
        {{"Content-Length", 14}, {"99", 2}}, {{"Expect", 6}, {"100-continue", 12}},
    };
    struct http_call_opts o = {
        .host = "up.example", .port = 80, .method = view_str(method), .target = view_str(target),
        .authority = VIEW_LIT("auth:1"), .fields = fields, .n_fields = ARRAY_LEN(fields),
        .length = length, .upgrade = upgrade, .parent = use_parent};

    g->call = http_call_start(client, &o, &ops, g);
    assert_int_equal(g->heads + g->ends + g->errors, 0);
}

static void get(struct got *g, const char *target)
{
    start(g, "GET", target, 0, false);
}

static void open_all(struct http_client_opts *o)
{
    struct http_client_opts none = {0};

    rig_open(&r, NULL);
    dials = 0;
    refuse = frozen = false;
    client = http_client_new(r.loop, o ? o : &none);
}

static void drop(struct got *g)
{
    http_call_free(&g->call);
    str_fini(&g->fields);
    str_fini(&g->body);
}

static void close_all(void)
{
    http_client_free(&client);
    rig_close(&r);
}

static bool has_ended(void *ctx)
{
    struct got *g = ctx;

    return g->ends || g->errors;
}

static bool has_dialled(void *ctx)
{
    return dials >= *(size_t *)ctx;
}

static void until_dialled(size_t n)
{
    rig_until(&r, has_dialled, &n);
}

/* Wait for the request on connection `i`, answer it, wait for the end. */
static void serve(struct got *g, size_t i, const char *answer)
{
    until_dialled(i + 1);
    raw_expect(&r, &far[i], "\r\n\r\n");
    raw_send(&far[i], answer);
    rig_until(&r, has_ended, g);
}

#define OK_HI "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-B: 2\r\n\r\nhi"

/* --- calls and answers --- */

static void request_as_written(void **state)
{
    struct got g = {0};

    open_all(NULL);
    get(&g, "/path?q");
    serve(&g, 0, OK_HI);
    assert_string_equal(str_c(&far[0].got), "GET /path?q HTTP/1.1\r\nHost: auth:1\r\nX-A: 1\r\n\r\n");
    assert_int_equal(g.status, 200);
    assert_int_equal(g.length, 2);
    assert_non_null(strstr(str_c(&g.fields), "X-B: 2\n"));
    assert_string_equal(str_c(&g.body), "hi");
    assert_int_equal(g.ends, 1);
    drop(&g);
    close_all();
}

static void bodies_of_requests(void **state)
{
    struct got g = {0}, h = {0}, k = {0};

    open_all(NULL);
    start(&g, "PUT", "/", 5, false);
    http_call_write(g.call, VIEW_LIT("ab")); /* before there is a connection */
    until_dialled(1);
    raw_expect(&r, &far[0], "\r\n\r\nab");
    http_call_write(g.call, VIEW_LIT("cde"));
    http_call_finish(g.call);
    raw_expect(&r, &far[0], "Content-Length: 5\r\n\r\nabcde");
    serve(&g, 0, "HTTP/1.1 204 No Content\r\n\r\n");
    assert_int_equal(g.length, 0);
    str_clear(&far[0].got);
    start(&h, "POST", "/", -1, false);
    http_call_write(h.call, VIEW_LIT("abc"));
    http_call_finish(h.call);
    raw_expect(&r, &far[0], "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    serve(&h, 0, OK_HI);
    str_clear(&far[0].got);
    start(&k, "POST", "/", 0, false);
    serve(&k, 0, OK_HI);
    assert_int_equal(raw_count(&far[0], "Content-Length: 0\r\n\r\n"), 1);
    assert_int_equal(dials, 1);
    drop(&g);
    drop(&h);
    drop(&k);
    close_all();
}

static void framings_of_answers(void **state)
{
    static const struct {
        const char *method, *answer, *body;
        int64_t length;
        bool close, reused;
    } rows[] = {
        {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "hi", -1, false, true},
        {"GET", "HTTP/1.1 200 OK\r\n\r\nhi", "hi", -1, true, false},
        {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", 2, false, false},
        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", "hi", 2, false, false},
        {"GET", "HTTP/1.1 304 Not Modified\r\n\r\n", "", 0, false, true},
        {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "", 7, false, true},
        {"GET", "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 C\r\n\r\n" OK_HI, "hi", 2, false, true},
        {"GET", OK_HI "trash", "hi", 2, false, false},
        {"GET", OK_HI "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "hi", 2, false, false},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct got g = {0}, h = {0};

        open_all(NULL);
        start(&g, rows[i].method, "/", 0, false);
        until_dialled(1);
        raw_expect(&r, &far[0], "\r\n\r\n");
        raw_send(&far[0], rows[i].answer);
        if (rows[i].close)
            shutdown(far[0].fd, SHUT_WR);
        rig_until(&r, has_ended, &g);
        if (g.errors)
            fail_msg("row %zu: %s", i, g.e.text);
        assert_int_equal(g.heads, 1);
        assert_string_equal(str_c(&g.body), rows[i].body);
        assert_int_equal(g.length, rows[i].length);
        str_clear(&far[0].got);
        get(&h, "/again");
        serve(&h, rows[i].reused ? 0 : 1, OK_HI);
        assert_int_equal(dials, rows[i].reused ? 1 : 2);
        assert_string_equal(str_c(&h.body), "hi");
        drop(&g);
        drop(&h);
        close_all();
    }
}

static void answers_byte_by_byte(void **state)
{
    static const char answer[] = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: "
                                 "chunked\r\n\r\n5\r\nhello\r\n3\r\n ye\r\n0\r\n\r\n";
    struct got g = {0};

    open_all(NULL);
    get(&g, "/");
    until_dialled(1);
    for (size_t i = 0; i < sizeof answer - 1; i++) {
        raw_send_n(&far[0], answer + i, 1);
        rig_turns(&r, 2);
    }
    rig_until(&r, has_ended, &g);
    assert_string_equal(str_c(&g.body), "hello ye");
    drop(&g);
    close_all();
}

static void failures_are_told_once(void **state)
{
    static const struct {
        const char *answer;
        bool close;
        enum err_code code;
    } rows[] = {
        {"", true, ERR_CLOSED},
        {"HTTP/1.1 200 OK\r\nContent-Le", true, ERR_CLOSED},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", true, ERR_CLOSED},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", true, ERR_CLOSED},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", true, ERR_CLOSED},
        {"nonsense\r\n\r\n", false, ERR_INVALID},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", false, ERR_INVALID},
        {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", false, ERR_INVALID},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct got g = {0};

        open_all(NULL);
        get(&g, "/");
        until_dialled(1);
        raw_expect(&r, &far[0], "\r\n\r\n");
        raw_send(&far[0], rows[i].answer);
        if (rows[i].close)
            shutdown(far[0].fd, SHUT_WR);
        rig_until(&r, has_ended, &g);
        rig_turns(&r, 3);
        if (g.errors != 1 || g.ends || g.e.code != rows[i].code)
            fail_msg("row %zu: %d errors, %d ends, %s", i, g.errors, g.ends, g.e.text);
        assert_true(g.sent);
        assert_int_equal(dials, 1);
        drop(&g);
        close_all();
    }
}

static void endless_interim_answers(void **state)
{
    struct got g = {0};

    open_all(NULL);
    get(&g, "/");
    until_dialled(1);
    for (int i = 0; i < 100; i++)
        raw_send(&far[0], "HTTP/1.1 102 Processing\r\n\r\n");
    rig_until(&r, has_ended, &g);
    assert_int_equal(g.errors, 1);
    drop(&g);
    close_all();
}

static void refused_connection(void **state)
{
    struct got g = {0};

    open_all(NULL);
    refuse = true;
    get(&g, "/");
    rig_until(&r, has_ended, &g);
    assert_int_equal(g.errors, 1);
    assert_false(g.sent);
    drop(&g);
    close_all();
}

static bool bypass_it(void *ctx, const char *host, uint16_t port)
{
    assert_string_equal(host, "up.example");
    assert_int_equal(port, 80);
    return *(bool *)ctx;
}

static void got_first(size_t i, const char *text)
{
    if (strncmp(str_c(&far[i].got), text, strlen(text)) != 0)
        fail_msg("%s", str_c(&far[i].got));
}

/* In clear: absolute URLs to the parent, on connections of their own; its credentials go nowhere
 * else. */
static void by_a_parent(void **state)
{
    bool bypass = false;
    struct net_parent parent = {.host = "parent.example",
                                .port = 3128,
                                .authorization = "Basic c2VjcmV0",
                                .bypass = bypass_it,
                                .bypass_ctx = &bypass};
    struct got g[5] = {0};

    open_all(NULL);
    use_parent = &parent;
    get(&g[0], "/a?b=%2f");
    serve(&g[0], 0, OK_HI);
    assert_string_equal(dialled_to.host, "parent.example");
    assert_int_equal(dialled_to.port, 3128);
    assert_null(dialled_to.parent);
    got_first(0, "GET http://auth:1/a?b=%2f HTTP/1.1\r\nHost: auth:1\r\n"
                 "Proxy-Authorization: Basic c2VjcmV0\r\n");
    use_parent = NULL; /* the idle connection is not for this one */
    get(&g[1], "/direct");
    serve(&g[1], 1, OK_HI);
    assert_string_equal(dialled_to.host, "up.example");
    use_parent = &parent;
    bypass = true; /* goes by the one before */
    get(&g[2], "/bypass");
    serve(&g[2], 1, OK_HI);
    assert_null(strstr(str_c(&far[1].got), "c2VjcmV0"));
    assert_int_equal(dials, 2);
    bypass = false;
    start(&g[3], "GET", "/ws", 0, true); /* a tunnel: CONNECT is the connector's */
    serve(&g[3], 2, OK_HI);
    assert_string_equal(dialled_to.host, "up.example");
    assert_ptr_equal(dialled_to.parent, &parent);
    got_first(2, "GET /ws HTTP/1.1\r\n");
    assert_null(strstr(str_c(&far[2].got), "c2VjcmV0"));
    start(&g[4], "OPTIONS", "*", 0, false);
    raw_expect(&r, &far[0], "OPTIONS http://auth:1 HTTP/1.1\r\n");
    raw_send(&far[0], "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n");
    rig_until(&r, has_ended, &g[4]);
    assert_int_equal(g[4].errors, 1); /* no business of whoever asks */
    assert_int_equal(g[4].heads, 0);
    assert_non_null(strstr(g[4].e.text, "the parent parent.example:3128 answered with status 407"));
    use_parent = NULL;
    for (size_t i = 0; i < ARRAY_LEN(g); i++)
        drop(&g[i]);
    close_all();
}

static void no_answer_in_time(void **state)
{
    struct http_client_opts o = {.head_timeout_ms = 50};
    struct got g = {0};

    open_all(&o);
    get(&g, "/");
    rig_until(&r, has_ended, &g);
    assert_int_equal(g.e.code, ERR_TIMEOUT);
    assert_true(g.sent);
    assert_int_equal(dials, 1);
    drop(&g);
    close_all();
}

/* Harness's own limit for an answer is five minutes (HP §7 item 41): nobody is cut off before. */
static void answers_may_take_five_minutes(void **state)
{
    open_all(NULL);
    assert_true(client->o.head_timeout_ms > 5 * 60 * 1000);
    close_all();
}

/* --- the pool --- */

static void next_call_from_the_end_of_the_last(void **state)
{
    struct got h = {0}, g = {.then = &h};

    open_all(NULL);
    get(&g, "/1");
    serve(&g, 0, OK_HI);
    raw_expect(&r, &far[0], "GET /then ");
    raw_send(&far[0], OK_HI);
    rig_until(&r, has_ended, &h);
    assert_int_equal(h.ends, 1);
    assert_int_equal(dials, 1);
    drop(&g);
    drop(&h);
    close_all();
}

static void pool_is_bounded(void **state)
{
    struct http_client_opts o = {.max_idle = 2};
    struct got g[4] = {{0}};

    open_all(&o);
    for (int i = 0; i < 4; i++)
        get(&g[i], "/");
    until_dialled(4);
    for (size_t i = 0; i < 4; i++) {
        raw_expect(&r, &far[i], "\r\n\r\n");
        raw_send(&far[i], OK_HI);
    }
    for (int i = 0; i < 4; i++)
        rig_until(&r, has_ended, &g[i]);
    rig_turns(&r, 5);
    assert_int_equal(far[0].eof + far[1].eof + far[2].eof + far[3].eof, 2);
    for (int i = 0; i < 4; i++)
        drop(&g[i]);
    close_all();
}

static void idle_connections_end(void **state)
{
    struct http_client_opts o = {.idle_timeout_ms = 50};
    struct got g = {0}, h = {0};

    open_all(&o);
    get(&g, "/");
    serve(&g, 0, OK_HI);
    raw_expect_eof(&r, &far[0]);
    get(&h, "/");
    serve(&h, 1, OK_HI);
    shutdown(far[1].fd, SHUT_WR); /* now it is upstream that closes */
    raw_expect_eof(&r, &far[1]);
    drop(&g);
    drop(&h);
    close_all();
}

static void stale_connection_is_not_used(void **state)
{
    struct got g = {0}, h = {0};

    open_all(NULL);
    get(&g, "/");
    serve(&g, 0, OK_HI);
    shutdown(far[0].fd, SHUT_WR);
    start(&h, "POST", "/", 0, false); /* before the loop could see it */
    serve(&h, 1, OK_HI);
    assert_int_equal(h.ends, 1);
    drop(&g);
    drop(&h);
    close_all();
}

static void dead_connection(const char *method, size_t wanted_dials)
{
    struct got g = {0}, h = {0};

    open_all(NULL);
    get(&g, "/");
    serve(&g, 0, OK_HI);
    str_clear(&far[0].got);
    start(&h, method, "/second", 0, false);
    raw_expect(&r, &far[0], "/second ");
    shutdown(far[0].fd, SHUT_RDWR);
    if (wanted_dials == 2) {
        serve(&h, 1, strcmp(method, "HEAD") ? OK_HI : "HTTP/1.1 200 OK\r\n\r\n");
        assert_int_equal(raw_count(&far[1], "/second "), 1);
        assert_int_equal(h.ends, 1);
    } else {
        rig_until(&r, has_ended, &h);
        assert_int_equal(h.errors, 1);
        assert_true(h.sent);
    }
    rig_turns(&r, 3);
    assert_int_equal(dials, wanted_dials);
    drop(&g);
    drop(&h);
    close_all();
}

static void only_get_and_head_are_repeated(void **state)
{
    dead_connection("GET", 2);
    dead_connection("HEAD", 2);
    dead_connection("POST", 1);
    dead_connection("PUT", 1);
    dead_connection("DELETE", 1);
}

static void repeated_only_once(void **state)
{
    struct got g = {0}, h = {0};

    open_all(NULL);
    get(&g, "/");
    serve(&g, 0, OK_HI);
    get(&h, "/second");
    raw_expect(&r, &far[0], "/second ");
    shutdown(far[0].fd, SHUT_RDWR);
    until_dialled(2);
    raw_expect(&r, &far[1], "/second ");
    shutdown(far[1].fd, SHUT_RDWR);
    rig_until(&r, has_ended, &h);
    assert_int_equal(h.errors, 1);
    assert_int_equal(dials, 2);
    drop(&g);
    drop(&h);
    close_all();
}

static bool nobody(void *ctx, const struct net_addr *addr)
{
    ++*(int *)ctx;
    return false;
}

static void address_is_asked_for_again(void **state)
{
    struct got g = {0}, h = {0};
    int asked = 0;
    struct http_call_opts o = {.host = "up.example", .port = 80, .method = VIEW_LIT("GET"),
                               .target = VIEW_LIT("/"), .authority = VIEW_LIT("a"),
                               .allow = nobody, .allow_ctx = &asked};

    open_all(NULL);
    get(&g, "/");
    serve(&g, 0, OK_HI);
    h.call = http_call_start(client, &o, &ops, &h);
    assert_int_equal(asked, 1); /* so it does not get the one that is idle */
    until_dialled(2);
    drop(&g);
    drop(&h);
    close_all();
}

/* --- flow --- */

static bool is_drained(void *ctx)
{
    return ((struct got *)ctx)->drains > 0;
}

static void request_body_waits(void **state)
{
    static char bytes[100000];
    struct got g = {0};
    size_t queued = 0, total = 0;

    open_all(NULL);
    start(&g, "PUT", "/", 10 * 1000 * 1000, false);
    until_dialled(1);
    raw_expect(&r, &far[0], "\r\n\r\n");
    far[0].deaf = true;
    while (queued <= HTTP_WRITE_HIGH) {
        queued = http_call_write(g.call, view_of(bytes, sizeof bytes));
        total += sizeof bytes;
        rig_turns(&r, 1);
    }
    rig_turns(&r, 10);
    assert_int_equal(g.drains, 0);
    far[0].deaf = false;
    rig_until(&r, is_drained, &g);
    while (total < 10 * 1000 * 1000) {
        http_call_write(g.call, view_of(bytes, sizeof bytes));
        total += sizeof bytes;
        rig_turns(&r, 1);
    }
    http_call_finish(g.call);
    raw_send(&far[0], OK_HI);
    rig_until(&r, has_ended, &g);
    assert_true(far[0].got.n > 9 * 1000 * 1000);
    drop(&g);
    close_all();
}

static void answer_body_waits(void **state)
{
    size_t total = 5000000;
    char *p = memset(xmalloc(total), 'b', total), head[100];
    struct got g = {.hold = true};

    open_all(NULL);
    get(&g, "/");
    until_dialled(1);
    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", total);
    raw_send(&far[0], head);
    raw_send_n(&far[0], p, total);
    rig_turns(&r, 50);
    assert_in_range(g.held, 200 * 1024, 400 * 1024);
    while (g.body.n < total) {
        size_t held = g.held;

        g.held = 0;
        http_call_consumed(g.call, held);
        rig_turns(&r, 2);
        assert_true(g.held <= 400 * 1024);
    }
    rig_until(&r, has_ended, &g);
    assert_int_equal(g.ends, 1);
    drop(&g);
    close_all();
    xfree(p);
}

static void early_answer(void **state)
{
    static char bytes[300000];
    struct got g = {0}, h = {0};

    open_all(NULL);
    start(&g, "PUT", "/", 1000000, false);
    http_call_write(g.call, view_of(bytes, sizeof bytes));
    until_dialled(1);
    raw_expect(&r, &far[0], "\r\n\r\n");
    raw_send(&far[0], "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    rig_until(&r, has_ended, &g);
    assert_int_equal(g.ends, 1);
    assert_int_equal(g.status, 413);
    assert_string_equal(str_c(&g.body), "no");
    assert_int_equal(http_call_write(g.call, view_of(bytes, 10)), 0);
    raw_expect_eof(&r, &far[0]);
    get(&h, "/");
    serve(&h, 1, OK_HI);
    drop(&g);
    drop(&h);
    close_all();
}

static void early_answer_and_close(void **state)
{
    static char bytes[100000];
    struct got g = {0};

    open_all(NULL);
    start(&g, "PUT", "/", 10000000, false);
    until_dialled(1);
    raw_expect(&r, &far[0], "\r\n\r\n");
    raw_send(&far[0], "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    shutdown(far[0].fd, SHUT_RDWR);
    http_call_write(g.call, view_of(bytes, sizeof bytes)); /* fails, but the answer is there */
    rig_until(&r, has_ended, &g);
    assert_int_equal(g.ends, 1);
    assert_int_equal(g.status, 403);
    drop(&g);
    close_all();
}

/* --- leaving --- */

static void free_in_each_phase(void **state)
{
    struct got a = {0}, b = {0}, c = {0}, d = {.leave = LEAVE_HEAD}, e = {.leave = LEAVE_BODY},
               f = {.leave = LEAVE_END}, g = {0};

    open_all(NULL);
    frozen = true;
    get(&a, "/");
    rig_turns(&r, 2);
    drop(&a); /* dialling */
    frozen = false;
    get(&b, "/");
    until_dialled(1);
    raw_expect(&r, &far[0], "\r\n\r\n");
    drop(&b); /* waiting for the answer */
    raw_expect_eof(&r, &far[0]);
    get(&c, "/");
    until_dialled(2);
    raw_send(&far[1], "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    while (!c.body.n)
        rig_turns(&r, 1);
    drop(&c); /* in the middle of it */
    raw_expect_eof(&r, &far[1]);
    get(&d, "/");
    until_dialled(3);
    raw_send(&far[2], OK_HI);
    raw_expect_eof(&r, &far[2]);
    assert_true(d.heads == 1 && !d.body.n && !d.ends && !d.errors);
    get(&e, "/");
    until_dialled(4);
    raw_send(&far[3], OK_HI);
    raw_expect_eof(&r, &far[3]);
    assert_true(e.body.n && !e.ends && !e.errors);
    get(&f, "/");
    serve(&f, 4, OK_HI);
    get(&g, "/");
    str_clear(&far[4].got);
    serve(&g, 4, OK_HI); /* leaving at the end does no harm to the connection */
    assert_int_equal(dials, 5);
    drop(&d);
    drop(&e);
    drop(&f);
    drop(&g);
    close_all();
}

static void client_goes_first(void **state)
{
    struct got a = {0}, b = {0}, c = {0};

    open_all(NULL);
    get(&a, "/");
    serve(&a, 0, OK_HI);
    str_clear(&far[0].got);
    get(&b, "/");
    raw_expect(&r, &far[0], "\r\n\r\n");
    frozen = true;
    get(&c, "/");
    http_client_free(&client);
    rig_turns(&r, 3);
    assert_int_equal(b.ends + b.errors + c.ends + c.errors, 0);
    drop(&a);
    drop(&b);
    drop(&c);
    rig_close(&r);
}

/* --- tunnels --- */

#define SWITCH "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"

static bool is_switched(void *ctx)
{
    return ((struct got *)ctx)->status == 101;
}

static void open_tunnel(struct got *g, const char *behind)
{
    open_all(NULL);
    start(g, "GET", "/ws", 0, true);
    http_call_finish(g->call); /* the request's end: not the tunnel's */
    until_dialled(1);
    raw_expect(&r, &far[0], "\r\n\r\n");
    assert_int_equal(raw_count(&far[0], "Upgrade: websocket\r\n"), 1);
    assert_int_equal(raw_count(&far[0], "Connection: upgrade\r\n"), 1);
    str_clear(&far[0].got);
    raw_send(&far[0], SWITCH);
    raw_send(&far[0], behind);
    rig_until(&r, is_switched, g);
}

static void tunnel_both_ways(void **state)
{
    static char bytes[1000000];
    struct got g = {0};

    memset(bytes, 't', sizeof bytes);
    open_tunnel(&g, "HTTP/1.1 200 OK\r\n\r\n");
    while (!g.body.n)
        rig_turns(&r, 1);
    assert_string_equal(str_c(&g.body), "HTTP/1.1 200 OK\r\n\r\n");
    http_call_write(g.call, VIEW_LIT("up"));
    raw_expect(&r, &far[0], "up");
    http_call_write(g.call, view_of(bytes, sizeof bytes));
    http_call_write(g.call, VIEW_LIT("END"));
    http_call_finish(g.call);
    raw_expect_eof(&r, &far[0]); /* our half */
    assert_int_equal(far[0].got.n, 2 + sizeof bytes + 3);
    assert_int_equal(memcmp(far[0].got.p + 2 + sizeof bytes, "END", 3), 0);
    assert_int_equal(g.ends, 0);
    far[0].eof = false;
    raw_send(&far[0], " and down");
    shutdown(far[0].fd, SHUT_WR);
    rig_until(&r, has_ended, &g);
    assert_int_equal(g.ends, 1);
    assert_non_null(strstr(str_c(&g.body), " and down"));
    drop(&g);
    close_all();
}

static void tunnel_ends_on_the_far_side_first(void **state)
{
    struct got g = {0};

    open_tunnel(&g, "x");
    shutdown(far[0].fd, SHUT_WR);
    rig_until(&r, has_ended, &g);
    assert_int_equal(g.ends, 1);
    http_call_write(g.call, VIEW_LIT("still"));
    http_call_finish(g.call);
    drop(&g); /* what is queued goes out all the same */
    raw_expect_eof(&r, &far[0]);
    assert_string_equal(str_c(&far[0].got), "still");
    assert_false(far[0].reset);
    close_all();
}

static void tunnel_is_broken_off(void **state)
{
    struct got g = {0};

    open_tunnel(&g, "");
    drop(&g);
    raw_expect_eof(&r, &far[0]);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_as_written),
        cmocka_unit_test(bodies_of_requests),
        cmocka_unit_test(framings_of_answers),
        cmocka_unit_test(answers_byte_by_byte),
        cmocka_unit_test(failures_are_told_once),
        cmocka_unit_test(endless_interim_answers),
        cmocka_unit_test(refused_connection),
        cmocka_unit_test(by_a_parent),
        cmocka_unit_test(no_answer_in_time),
        cmocka_unit_test(answers_may_take_five_minutes),
        cmocka_unit_test(next_call_from_the_end_of_the_last),
        cmocka_unit_test(pool_is_bounded),
        cmocka_unit_test(idle_connections_end),
        cmocka_unit_test(stale_connection_is_not_used),
        cmocka_unit_test(only_get_and_head_are_repeated),
        cmocka_unit_test(repeated_only_once),
        cmocka_unit_test(address_is_asked_for_again),
        cmocka_unit_test(request_body_waits),
        cmocka_unit_test(answer_body_waits),
        cmocka_unit_test(early_answer),
        cmocka_unit_test(early_answer_and_close),
        cmocka_unit_test(free_in_each_phase),
        cmocka_unit_test(client_goes_first),
        cmocka_unit_test(tunnel_both_ways),
        cmocka_unit_test(tunnel_ends_on_the_far_side_first),
        cmocka_unit_test(tunnel_is_broken_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
