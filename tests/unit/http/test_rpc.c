/* The client for remote calls, against nghttp2 as the servers; dialling is replaced by socket
 * pairs. */
#include "rig.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include "base/xmem.h"
#include "http/rpc.h"

enum { FARS = 16, STREAMS = 300, BIG = 4 * 1024 * 1024 };

/* One request as a server saw it. */
struct taken {
    char path[32];
    struct str fields, body;
    bool ended, closed;
    uint32_t code;
    int32_t id;
    size_t left; /* of an answer's body */
};

static struct far {
    struct raw raw;
    nghttp2_session *ng;
    struct taken taken[STREAMS];
    size_t n;
    bool text; /* it speaks no HTTP/2 */
} far[FARS];

static struct rig r;
static size_t dials;
static bool refuse;
static unsigned refusals; /* of streams, to come */
static uint32_t most;     /* streams that a server takes at once; 0: does not say */
static struct rpc_client *client;

/* --- servers --- */

#define NV(n, v)                                                                                   \
    {                                                                                              \
        (uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), 0                                    \
    }

static struct taken *taken_of(struct far *f, int32_t id)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->taken[i].id == id)
            return &f->taken[i];
    return NULL;
}

static ssize_t read_answer(nghttp2_session *ng, int32_t id, uint8_t *to, size_t room,
                           uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
    static nghttp2_nv trailers[] = {NV("grpc-status", "0"), NV("grpc-message", "well ")};
    struct taken *t = taken_of(ctx, id);
    size_t n = TR_MIN(room, t->left);

    memset(to, 'b', n);
    t->left -= n;
    if (!t->left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(ng, id, trailers, ARRAY_LEN(trailers));
    }
    return (ssize_t)n;
}

static void answer(struct far *f, struct taken *t, size_t n)
{
    nghttp2_nv head[] = {NV(":status", "200"), NV("content-type", "application/grpc")};
    nghttp2_data_provider body = {.read_callback = read_answer};

    t->left = n;
    nghttp2_submit_response(f->ng, t->id, head, ARRAY_LEN(head), &body);
}

static void on_head_of(struct far *f, struct taken *t)
{
    nghttp2_nv early[] = {NV(":status", "103"), NV("link", "x")};
    nghttp2_nv only[] = {NV(":status", "200"), NV("grpc-status", "7")};

    if (strcmp(t->path, "/early") == 0)
        nghttp2_submit_headers(f->ng, 0, t->id, NULL, early, ARRAY_LEN(early), NULL);
    if (strcmp(t->path, "/only") == 0)
        nghttp2_submit_response(f->ng, t->id, only, ARRAY_LEN(only), NULL);
    if (strcmp(t->path, "/reset") == 0)
        nghttp2_submit_rst_stream(f->ng, 0, t->id, 5);
    if (strcmp(t->path, "/quick") == 0)
        answer(f, t, 2);
    if (strcmp(t->path, "/refused") == 0 && refusals) {
        refusals--;
        nghttp2_submit_rst_stream(f->ng, 0, t->id, NGHTTP2_REFUSED_STREAM);
    }
}

static int far_begin(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct far *f = ctx;

    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        assert_true(f->n < STREAMS);
        f->taken[f->n++].id = frame->hd.stream_id;
    }
    return 0;
}

static int far_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                      size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *ctx)
{
    struct taken *t = taken_of(ctx, frame->hd.stream_id);

    if (name_n == 5 && memcmp(name, ":path", 5) == 0)
        memcpy(t->path, value, TR_MIN(value_n, sizeof t->path - 1));
    str_addf(&t->fields, "%.*s: %.*s\n", (int)name_n, name, (int)value_n, value);
    return 0;
}

static int far_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
    struct far *f = ctx;
    struct taken *t = taken_of(f, frame->hd.stream_id);

    if (!t || (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS))
        return 0;
    t->ended = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        on_head_of(f, t);
    if (!t->ended)
        return 0;
    if (strcmp(t->path, "/ok") == 0 || strcmp(t->path, "/early") == 0 ||
        strcmp(t->path, "/refused") == 0)
        answer(f, t, 2);
    if (strcmp(t->path, "/big") == 0)
        answer(f, t, BIG);
    return 0;
}

static int far_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                    void *ctx)
{
    struct taken *t = taken_of(ctx, id);

    str_add(&t->body, p, n);
    if (strcmp(t->path, "/deaf") != 0)
        nghttp2_session_consume(ng, id, n);
    return 0;
}

static int far_close(nghttp2_session *ng, int32_t id, uint32_t code, void *ctx)
{
    struct taken *t = taken_of(ctx, id);

    t->closed = true;
    t->code = code;
    return 0;
}

static void far_open(struct far *f, int fd)
{
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, most}};
    nghttp2_session_callbacks *cb;
    nghttp2_option *o;

    memset(f, 0, sizeof *f);
    rig_adopt(&r, &f->raw, fd);
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, far_begin);
    nghttp2_session_callbacks_set_on_header_callback(cb, far_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, far_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, far_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, far_close);
    nghttp2_option_new(&o);
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_session_server_new2(&f->ng, cb, f, o);
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(f->ng, 0, settings, most ? 1 : 0);
}

static void pump(void)
{
    for (size_t i = 0; i < dials; i++) {
        struct far *f = &far[i];
        const uint8_t *p;
        ssize_t n;

        if (f->text || f->raw.fd < 0)
            continue;
        if (f->raw.got.n) {
            n = nghttp2_session_mem_recv(f->ng, (uint8_t *)f->raw.got.p, f->raw.got.n);
            assert_true(n >= 0);
            str_clear(&f->raw.got);
        }
        while ((n = nghttp2_session_mem_send(f->ng, &p)) > 0)
            raw_send_n(&f->raw, p, (size_t)n);
    }
}

/* --- a dialler that hands out socket pairs --- */

static bool speaks_text;

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
    if (refuse) {
        err_set(&e, ERR_UNAVAIL, "refused");
        c->fn(c->ctx, NULL, &e);
        xfree(c);
        return;
    }
    assert_int_equal(net_addr_parse(VIEW_LIT("192.0.2.9:80"), &peer, &e), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_true(dials < FARS);
    far_open(&far[dials], fds[0]);
    far[dials].text = speaks_text;
    if (speaks_text)
        raw_send(&far[dials].raw, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    dials++;
    c->fn(c->ctx, net_stream_connected(c->loop, fds[1], NULL, NULL, VIEW_NONE, &peer), NULL);
    xfree(c);
}

struct net_connect *net_connect_start(struct net_resolver *resolver, struct ev_loop *loop,
                                      const struct net_connect_opts *o, net_connected_fn fn,
                                      void *ctx)
{
    struct net_connect *c = XNEW(struct net_connect);

    assert_true(view_is(o->alpn, "\x02h2"));
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

struct got {
    struct rpc_call *call;
    int begins, status, ends, errors, drains;
    bool end_stream, hold, leave;
    size_t body, held;
    struct str fields, trailers;
    struct err e;
    enum rpc_failure how;
    uint32_t code;
};

static void note(struct str *to, const struct h1_field *f, size_t n)
{
    for (size_t i = 0; i < n; i++)
        str_addf(to, "%.*s: %.*s\n", (int)f[i].name.n, f[i].name.p, (int)f[i].value.n,
                 f[i].value.p);
}

static void on_begin(void *ctx, const struct net_addr *peer)
{
    ((struct got *)ctx)->begins++;
}

static void on_head(void *ctx, const struct h2_head *head)
{
    struct got *g = ctx;

    assert_int_equal(g->status, 0);
    g->status = head->status;
    g->end_stream = head->end_stream;
    note(&g->fields, head->fields, head->n_fields);
    if (g->leave)
        rpc_call_free(&g->call, H2_CANCEL);
}

static void on_body(void *ctx, struct view piece)
{
    struct got *g = ctx;

    g->body += piece.n;
    if (g->hold)
        g->held += piece.n;
    else
        rpc_call_consumed(g->call, piece.n);
}

static void on_trailers(void *ctx, const struct h1_field *f, size_t n)
{
    note(&((struct got *)ctx)->trailers, f, n);
}

static void on_end(void *ctx)
{
    ((struct got *)ctx)->ends++;
}

static void on_drain(void *ctx)
{
    ((struct got *)ctx)->drains++;
}

static void on_error(void *ctx, const struct err *e, enum rpc_failure how, uint32_t code)
{
    struct got *g = ctx;

    g->errors++;
    g->e = *e;
    g->how = how;
    g->code = code;
    if (g->leave)
        rpc_call_free(&g->call, H2_CANCEL);
}

static const struct rpc_call_ops ops = {
    .on_begin = on_begin,
    .on_head = on_head,
    .on_body = on_body,
    .on_trailers = on_trailers,
    .on_end = on_end,
    .on_drain = on_drain,
    .on_error = on_error,
};

static void start(struct got *g, const char *target)
{
    static const struct h1_field fields[] = {{VIEW_LIT("te"), VIEW_LIT("trailers")},
                                             {VIEW_LIT("x-a-bin"), VIEW_LIT("AAE")}};
    const struct rpc_call_opts o = {.host = "up.example",
                                    .port = 20001,
                                    .method = VIEW_LIT("POST"),
                                    .target = view_str(target),
                                    .authority = VIEW_LIT("up.example:20001"),
                                    .fields = fields,
                                    .n_fields = ARRAY_LEN(fields)};

    g->call = rpc_call_start(client, &o, &ops, g);
    assert_int_equal(g->begins + g->errors + g->ends, 0);
}

/* A whole request. */
static void ask(struct got *g, const char *target)
{
    start(g, target);
    rpc_call_write(g->call, VIEW_LIT("hello"));
    rpc_call_finish(g->call, NULL, 0);
}

static void drop(struct got *g)
{
    rpc_call_free(&g->call, H2_CANCEL);
    str_fini(&g->fields);
    str_fini(&g->trailers);
}

static void open_with(unsigned connections, unsigned idle_ms)
{
    const struct rpc_client_opts o = {
        .max_connections = connections, .idle_timeout_ms = idle_ms, .connect_ms = 200};

    rig_open(&r, NULL);
    dials = 0;
    refuse = speaks_text = false;
    refusals = 0;
    most = 0;
    client = rpc_client_new(r.loop, &o);
}

static void open_all(void)
{
    open_with(0, 0);
}

static void close_all(void)
{
    rpc_client_free(&client);
    rig_close(&r);
    for (size_t i = 0; i < dials; i++) {
        nghttp2_session_del(far[i].ng);
        for (size_t k = 0; k < far[i].n; k++) {
            str_fini(&far[i].taken[k].fields);
            str_fini(&far[i].taken[k].body);
        }
    }
}

static bool is_over(void *ctx)
{
    struct got *g = ctx;

    pump();
    return g->ends || g->errors;
}

static bool count_down(void *ctx)
{
    pump();
    return --*(int *)ctx <= 0;
}

static void turns(int n)
{
    rig_until(&r, count_down, &n);
}

static bool far_has(void *ctx)
{
    pump();
    return dials && far[dials - 1].n >= *(size_t *)ctx;
}

static void until_taken(size_t n)
{
    rig_until(&r, far_has, &n);
}

static void until_over(struct got *g)
{
    rig_until(&r, is_over, g);
}

/* --- calls and answers --- */

static void a_call(void **state)
{
    struct got g = {0};

    open_all();
    ask(&g, "/ok");
    until_over(&g);
    assert_int_equal(g.ends, 1);
    assert_int_equal(g.begins, 1);
    assert_int_equal(g.status, 200);
    assert_int_equal(g.body, 2);
    assert_string_equal(str_c(&g.fields), "content-type: application/grpc\n");
    assert_string_equal(str_c(&g.trailers), "grpc-status: 0\ngrpc-message: well \n");
    assert_string_equal(str_c(&far[0].taken[0].fields),
                        ":method: POST\n:scheme: http\n:authority: up.example:20001\n:path: /ok\n"
                        "te: trailers\nx-a-bin: AAE\n");
    assert_string_equal(str_c(&far[0].taken[0].body), "hello");
    drop(&g);
    close_all();
}

static void interim_answers_and_a_head_only(void **state)
{
    struct got a = {0}, b = {0};

    open_all();
    ask(&a, "/early");
    ask(&b, "/only");
    until_over(&a);
    until_over(&b);
    assert_int_equal(a.status, 200);
    assert_null(strstr(str_c(&a.fields), "link"));
    assert_true(b.end_stream && b.ends == 1);
    assert_string_equal(str_c(&b.fields), "grpc-status: 7\n");
    drop(&a);
    drop(&b);
    close_all();
}

static void trailers_of_a_request(void **state)
{
    static const struct h1_field f = {VIEW_LIT("X-Sum"), VIEW_LIT("9")};
    struct got g = {0}, h = {0};

    open_all();
    start(&g, "/ok");
    rpc_call_write(g.call, VIEW_LIT("a"));
    rpc_call_finish(g.call, &f, 1); /* before there is a connection */
    until_over(&g);
    assert_non_null(strstr(str_c(&far[0].taken[0].fields), "x-sum: 9\n"));
    start(&h, "/ok");
    until_taken(2);
    rpc_call_finish(h.call, &f, 1);
    rpc_call_finish(h.call, NULL, 0);
    until_over(&h);
    assert_non_null(strstr(str_c(&far[0].taken[1].fields), "x-sum: 9\n"));
    drop(&g);
    drop(&h);
    close_all();
}

static void codes_pass(void **state)
{
    struct got a = {0}, b = {0};

    open_all();
    ask(&a, "/reset");
    until_over(&a);
    assert_int_equal(a.how, RPC_RESET);
    assert_int_equal(a.code, 5);
    ask(&b, "/hold");
    until_taken(2);
    rpc_call_free(&b.call, 13);
    turns(5);
    assert_true(far[0].taken[1].closed);
    assert_int_equal(far[0].taken[1].code, 13);
    drop(&a);
    drop(&b);
    close_all();
}

static void early_end_gives_up_the_rest(void **state)
{
    struct got g = {0};

    open_all();
    start(&g, "/quick");
    rpc_call_write(g.call, VIEW_LIT("part"));
    until_over(&g);
    assert_int_equal(g.ends, 1);
    assert_int_equal(rpc_call_write(g.call, VIEW_LIT("more")), 0);
    turns(5);
    assert_true(far[0].taken[0].closed);
    assert_int_equal(far[0].taken[0].code, H2_CANCEL);
    drop(&g);
    close_all();
}

/* --- repeated, or not --- */

static void refused_is_repeated_once(void **state)
{
    struct got g = {0}, h = {0};

    open_all();
    refusals = 1;
    ask(&g, "/refused");
    until_over(&g);
    assert_int_equal(g.ends, 1);
    assert_int_equal(g.begins, 2);
    assert_int_equal(far[0].n, 2);
    assert_string_equal(str_c(&far[0].taken[1].body), "hello");
    refusals = 2;
    ask(&h, "/refused");
    until_over(&h);
    assert_int_equal(h.errors, 1);
    assert_int_equal(h.how, RPC_UNREACHED);
    assert_int_equal(h.code, H2_REFUSED_STREAM);
    assert_int_equal(far[0].n, 4);
    drop(&g);
    drop(&h);
    close_all();
}

static void much_is_not_kept_to_be_repeated(void **state)
{
    static const char much[RPC_KEEP + 1];
    struct got g = {0};

    open_all();
    start(&g, "/refused");
    rpc_call_write(g.call, view_of(much, sizeof much));
    rpc_call_finish(g.call, NULL, 0);
    refusals = 1;
    until_over(&g);
    assert_int_equal(g.errors, 1);
    assert_int_equal(g.code, H2_REFUSED_STREAM);
    assert_int_equal(g.begins, 1);
    drop(&g);
    close_all();
}

static void goaway_moves_what_was_not_processed(void **state)
{
    struct got a = {0}, b = {0};

    open_all();
    ask(&a, "/hold");
    ask(&b, "/hold");
    until_taken(2);
    /* Of the first it says nothing, the second it has not processed. */
    nghttp2_submit_goaway(far[0].ng, 0, far[0].taken[0].id, NGHTTP2_NO_ERROR, NULL, 0);
    rig_until(&r, far_has, &(size_t){1});
    while (dials < 2)
        turns(1);
    until_taken(1);
    assert_string_equal(str_c(&far[1].taken[0].body), "hello");
    assert_int_equal(a.errors + b.errors, 0);
    answer(&far[0], &far[0].taken[0], 7);
    answer(&far[1], &far[1].taken[0], 8);
    until_over(&a);
    until_over(&b);
    assert_int_equal(a.body, 7);
    assert_int_equal(b.body, 8);
    turns(5);
    assert_true(far[0].raw.eof); /* nothing is left there */
    assert_false(far[1].raw.eof);
    drop(&a);
    drop(&b);
    close_all();
}

static void lost_is_not_repeated(void **state)
{
    struct got a = {0}, b = {.leave = true};

    open_all();
    ask(&a, "/hold");
    ask(&b, "/hold");
    until_taken(2);
    raw_close(&r, &far[0].raw);
    until_over(&a);
    until_over(&b);
    assert_int_equal(a.how, RPC_LOST);
    assert_int_equal(b.how, RPC_LOST);
    turns(5);
    assert_int_equal(dials, 1);
    drop(&a);
    drop(&b);
    close_all();
}

static void not_reached(void **state)
{
    struct got a = {.leave = true}, b = {0}, c = {0}, d = {0};

    open_all();
    refuse = true;
    ask(&a, "/ok");
    ask(&b, "/ok");
    until_over(&a);
    until_over(&b);
    assert_int_equal(b.how, RPC_UNREACHED);
    assert_string_equal(b.e.text, "refused");
    refuse = false;
    speaks_text = true;
    ask(&c, "/ok");
    until_over(&c);
    assert_int_equal(c.how, RPC_UNREACHED);
    assert_non_null(strstr(c.e.text, "does not speak HTTP/2"));
    speaks_text = false;
    ask(&d, "/ok");
    until_over(&d);
    assert_int_equal(d.ends, 1);
    drop(&a);
    drop(&b);
    drop(&c);
    drop(&d);
    close_all();
}

static void silent_server(void **state)
{
    struct got g = {0};

    open_all();
    ask(&g, "/ok");
    while (!dials)
        rig_turns(&r, 1);
    far[0].text = true; /* it says nothing at all */
    until_over(&g);
    assert_int_equal(g.how, RPC_UNREACHED);
    assert_int_equal(g.e.code, ERR_TIMEOUT);
    drop(&g);
    close_all();
}

/* --- limits --- */

static void peers_limit_is_kept(void **state)
{
    struct got g[10] = {0};

    open_with(2, 0);
    most = 3;
    for (size_t i = 0; i < 10; i++)
        ask(&g[i], "/hold");
    while (dials < 2)
        turns(1);
    until_taken(3);
    turns(10);
    assert_int_equal(dials, 2);
    assert_int_equal(far[0].n, 3);
    assert_int_equal(far[1].n, 3);
    answer(&far[0], &far[0].taken[1], 1); /* its place is taken by the next */
    while (far[0].n < 4)
        turns(1);
    turns(5);
    assert_int_equal(far[0].n + far[1].n, 7);
    for (size_t i = 0; i < 10; i++)
        drop(&g[i]);
    close_all();
}

static bool fell_silent(void *ctx)
{
    static size_t last, same;
    struct got *g = ctx;

    pump();
    same = g->body == last ? same + 1 : 0;
    last = g->body;
    return g->body && same > 20;
}

static void each_reader_at_its_own_pace(void **state)
{
    struct got slow[8] = {0}, quick = {0};

    open_all();
    for (size_t i = 0; i < 8; i++) {
        slow[i].hold = true;
        ask(&slow[i], "/big");
    }
    for (size_t i = 0; i < 8; i++)
        rig_until(&r, fell_silent, &slow[i]);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(slow[i].body, H2_RPC_WINDOW);
    ask(&quick, "/big");
    until_over(&quick);
    assert_int_equal(quick.body, BIG);
    slow[0].hold = false;
    rpc_call_consumed(slow[0].call, slow[0].held);
    until_over(&slow[0]);
    assert_int_equal(slow[0].body, BIG);
    assert_int_equal(dials, 1);
    for (size_t i = 0; i < 8; i++)
        drop(&slow[i]);
    drop(&quick);
    close_all();
}

static bool has_drained(void *ctx)
{
    pump();
    return ((struct got *)ctx)->drains;
}

static void writer_is_held_back(void **state)
{
    static const char piece[64 * 1024];
    struct got g = {0};
    size_t queued = 0;

    open_all();
    start(&g, "/deaf");
    until_taken(1);
    for (int i = 0; i < 64 && queued <= HTTP_WRITE_HIGH; i++) {
        queued = rpc_call_write(g.call, view_of(piece, sizeof piece));
        turns(3);
    }
    assert_true(queued > HTTP_WRITE_HIGH);
    turns(10);
    assert_int_equal(g.drains, 0);
    nghttp2_session_consume(far[0].ng, far[0].taken[0].id, far[0].taken[0].body.n);
    strcpy(far[0].taken[0].path, "/hears");
    rig_until(&r, has_drained, &g);
    drop(&g);
    close_all();
}

static bool far_left(void *ctx)
{
    pump();
    return far[0].raw.eof;
}

static void idle_connection_is_closed(void **state)
{
    struct got g = {0};

    open_with(0, 30);
    ask(&g, "/ok");
    until_over(&g);
    drop(&g);
    rig_until(&r, far_left, NULL);
    close_all();
}

static void calls_left_by_the_client(void **state)
{
    struct got a = {0}, b = {0}, c = {.leave = true};

    open_with(1, 0);
    most = 1;
    ask(&a, "/hold");
    ask(&b, "/hold"); /* it waits */
    until_taken(1);
    rpc_client_free(&client);
    assert_int_equal(rpc_call_write(a.call, VIEW_LIT("x")), 0);
    rpc_call_consumed(a.call, 0);
    drop(&a);
    drop(&b);
    client = rpc_client_new(r.loop, &(struct rpc_client_opts){0});
    most = 0;
    ask(&c, "/ok"); /* its owner leaves with the head */
    while (c.call)
        turns(1);
    turns(5);
    assert_int_equal(c.ends, 0);
    drop(&c);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call),
        cmocka_unit_test(interim_answers_and_a_head_only),
        cmocka_unit_test(trailers_of_a_request),
        cmocka_unit_test(codes_pass),
        cmocka_unit_test(early_end_gives_up_the_rest),
        cmocka_unit_test(refused_is_repeated_once),
        cmocka_unit_test(much_is_not_kept_to_be_repeated),
        cmocka_unit_test(goaway_moves_what_was_not_processed),
        cmocka_unit_test(lost_is_not_repeated),
        cmocka_unit_test(not_reached),
        cmocka_unit_test(silent_server),
        cmocka_unit_test(peers_limit_is_kept),
        cmocka_unit_test(each_reader_at_its_own_pace),
        cmocka_unit_test(writer_is_held_back),
        cmocka_unit_test(idle_connection_is_closed),
        cmocka_unit_test(calls_left_by_the_client),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
