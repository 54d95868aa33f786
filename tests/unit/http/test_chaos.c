/*
 * Clients, handlers and time at random, from a seed: whatever happens, every exchange ends with one on_gone, nothing is
 * touched after it (AddressSanitizer watches), and the server is empty when all have left.
 */
#include "rig.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <nghttp2/nghttp2.h>
#include "base/xmem.h"
#include "rt/clock.h"
#include "rt/rng.h"

enum { CLIENTS = 24, H2_CLIENTS = 8, STEPS = 800 }; /* the first ones speak HTTP/2 */

static struct rig r;
static struct rng rng;
static struct raw raws[CLIENTS];
static nghttp2_session *sessions[H2_CLIENTS];

/* One exchange as its handler has it. */
struct some {
    struct some *next;
    struct http_exchange *ex;
    size_t held;
    bool started, finished, tunnel;
};

static struct some *all;
static size_t taken, taken_h2, tunnels, gone;

static bool chance(unsigned percent)
{
    return rng_below(&rng, 100) < percent;
}

/* Something a handler may do now. */
static void act(struct some *s)
{
    static const char bytes[40000];
    size_t n = rng_below(&rng, chance(20) ? sizeof bytes : 200);

    if (s->held && chance(50)) {
        http_consumed(s->ex, s->held);
        s->held = 0;
    }
    if (chance(3)) {
        http_abort(s->ex);
        s->finished = true;
    } else if (s->finished) {
        return;
    } else if (s->started) {
        if (chance(60)) {
            http_write(s->ex, view_of(bytes, n));
        } else if (chance(40)) {
            http_finish(s->ex);
            s->finished = true;
        }
    } else if (http_request_of(s->ex)->upgrade && chance(70)) {
        http_switch(s->ex, 101, NULL, 0);
        s->started = s->tunnel = true;
    } else if (chance(50)) {
        http_reply(s->ex, chance(70) ? 204 : 413, NULL, 0, view_of(bytes, n));
        s->finished = true;
    } else if (chance(50)) {
        http_reply_start(s->ex, 200, NULL, 0, -1);
        s->started = true;
    }
}

static void on_body(void *ctx, struct view piece)
{
    struct some *s = ctx;

    assert_non_null(s->ex);
    assert_true(piece.n > 0);
    s->held += piece.n;
    if (chance(30))
        act(s);
}

static void on_end(void *ctx)
{
    struct some *s = ctx;

    assert_non_null(s->ex);
    if (chance(60))
        act(s);
}

static void on_drain(void *ctx)
{
    struct some *s = ctx;

    assert_non_null(s->ex);
    act(s);
}

static void on_gone(void *ctx, bool complete)
{
    struct some *s = ctx, **at = &all;

    assert_non_null(s->ex);
    assert_true(!complete || s->finished);
    gone++;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    s->ex = NULL;
    xfree(s);
}

static const struct http_handler handler = {
    .on_body = on_body, .on_end = on_end, .on_drain = on_drain, .on_gone = on_gone};

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct some *s = XNEW(struct some);

    taken++;
    taken_h2 += req->version == 20;
    tunnels += req->upgrade;
    s->ex = ex;
    s->next = all;
    all = s;
    http_bind(ex, &handler, s);
    if (chance(30))
        act(s);
}

/* --- clients --- */

static void add_request(struct str *out)
{
    static const char *const heads[] = {
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw bytes",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
        "BAD /\r\n\r\n",
    };
    size_t which = rng_below(&rng, ARRAY_LEN(heads) + 3);

    if (which < ARRAY_LEN(heads)) {
        str_adds(out, heads[which]);
    } else {
        size_t n = rng_below(&rng, chance(10) ? 600000 : 3000);

        str_addf(out, "PUT /b HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", n);
        while (n--)
            str_addc(out, 'b');
    }
}

/* --- HTTP/2 clients --- */

static int h2_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *ctx)
{
    if (chance(90))
        nghttp2_session_consume(ng, id, n);
    return 0;
}

/* A body that ends sometime, or stands still. */
static ssize_t h2_body(nghttp2_session *ng, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                       nghttp2_data_source *source, void *ctx)
{
    size_t n = rng_below(&rng, room + 1);

    if (chance(10))
        return NGHTTP2_ERR_DEFERRED;
    memset(to, 'h', n);
    if (chance(30))
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static void h2_open(nghttp2_session **ng)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *o;

    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, h2_data);
    nghttp2_option_new(&o);
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_session_client_new2(ng, cb, NULL, o);
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(*ng, 0, NULL, 0);
}

#define NV(n, v) {(uint8_t *)(n), (uint8_t *)(v), sizeof(n) - 1, sizeof(v) - 1, 0}

static void h2_request(nghttp2_session *ng)
{
    const nghttp2_nv nv[] = {NV(":method", "PUT"), NV(":scheme", "http"), NV(":authority", "h"),
                             NV(":path", "/h2")};
    const nghttp2_nv ws[] = {NV(":method", "CONNECT"), NV(":protocol", "x"), NV(":scheme", "http"),
                             NV(":authority", "h"), NV(":path", "/h2")};
    const nghttp2_data_provider body = {.read_callback = h2_body};

    if (chance(20) && nghttp2_session_get_remote_settings(
                          ng, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1)
        nghttp2_submit_request(ng, NULL, ws, ARRAY_LEN(ws), &body, NULL);
    else
        nghttp2_submit_request(ng, NULL, nv, ARRAY_LEN(nv), chance(60) ? &body : NULL, NULL);
}

static void h2_step(struct raw *raw, nghttp2_session **ng)
{
    int32_t last;
    const uint8_t *p;
    ssize_t n;

    if (raw->fd < 0 || !*ng)
        return;
    last = (int32_t)nghttp2_session_get_next_stream_id(*ng) - 2;
    if (raw->got.n) {
        assert_true(nghttp2_session_mem_recv(*ng, (uint8_t *)raw->got.p, raw->got.n) >= 0);
        str_clear(&raw->got);
    }
    if (chance(50))
        h2_request(*ng);
    if (chance(10) && last > 0)
        nghttp2_submit_rst_stream(*ng, 0, last - 2 * (int32_t)rng_below(&rng, 3), NGHTTP2_CANCEL);
    for (int32_t id = last; id > 0 && id > last - 20; id -= 2)
        nghttp2_session_resume_data(*ng, id);
    while (raw->todo.n - raw->todo_off < 200000 && (n = nghttp2_session_mem_send(*ng, &p)) > 0)
        raw_send_n(raw, p, (size_t)n);
    if (chance(1))
        raw_send(raw, "nonsense, as a frame or in one");
}

static void client_step(struct raw *raw)
{
    size_t index = (size_t)(raw - raws);
    nghttp2_session **ng = index < H2_CLIENTS ? &sessions[index] : NULL;

    if (raw->fd < 0) {
        if (chance(50))
            return;
        str_fini(&raw->got);
        str_fini(&raw->todo);
        for (struct raw **at = &r.raws; *at; at = &(*at)->next) {
            if (*at == raw) {
                *at = raw->next;
                break;
            }
        }
        rig_connect(&r, raw);
        raw->deaf = chance(10);
        if (ng) {
            nghttp2_session_del(*ng);
            h2_open(ng);
        }
        return;
    }
    if (raw->eof || chance(2)) {
        raw_close(&r, raw);
    } else if (chance(2)) {
        shutdown(raw->fd, SHUT_WR);
    } else if (ng) {
        h2_step(raw, ng);
    } else if (chance(40) && raw->todo.n - raw->todo_off < 100000) {
        struct str s = STR_INIT;

        add_request(&s);
        if (chance(15))
            s.n = rng_below(&rng, s.n + 1); /* cut short; what follows is taken for the rest */
        raw_send_n(raw, s.p, s.n);
        str_fini(&s);
    }
}

static bool step(void *ctx)
{
    int *left = ctx;

    for (int i = 0; i < 4; i++)
        client_step(&raws[rng_below(&rng, CLIENTS)]);
    for (struct some *s = all, *next; s; s = next) {
        next = s->next; /* on_gone is not called from within */
        if (chance(10))
            act(s);
    }
    return --*left <= 0;
}

static bool is_empty(void *ctx)
{
    return http_server_connections(r.server) == 0;
}

static void run(uint64_t seed)
{
    static const struct http_server_opts o = {.head_timeout_ms = 80, .idle_timeout_ms = 120,
                                              .body_timeout_ms = 80, .write_timeout_ms = 80,
                                              .max_connections = CLIENTS - 4};
    int steps = STEPS;

    rng_seed(&rng, seed);
    rig_open(&r, &o);
    r.service.take = take; /* ours instead of the rig's */
    taken = taken_h2 = tunnels = gone = 0;
    for (int i = 0; i < CLIENTS; i++) {
        memset(&raws[i], 0, sizeof raws[i]);
        raws[i].fd = -1;
    }
    rig_until(&r, step, &steps);
    if (chance(50)) {
        http_server_drain(r.server);
        steps = 50;
        rig_until(&r, step, &steps);
    }
    if (chance(70)) {
        for (int i = 0; i < CLIENTS; i++) {
            if (raws[i].fd >= 0)
                raw_close(&r, &raws[i]);
        }
        while (all) { /* a tunnel whose client is gone is its handler's to end */
            http_abort(all->ex);
            rig_turns(&r, 1);
        }
        rig_until(&r, is_empty, NULL);
    }
    rig_close(&r);
    for (int i = 0; i < H2_CLIENTS; i++) {
        nghttp2_session_del(sessions[i]);
        sessions[i] = NULL;
    }
    assert_null(all);
    assert_int_equal(taken, gone);
    print_message("seed %llu: %zu requests, %zu of HTTP/2, %zu upgrades\n",
                  (unsigned long long)seed, taken, taken_h2, tunnels);
    assert_true(taken - taken_h2 > 20 && taken_h2 > 20);
}

static void anything_goes(void **state)
{
    const char *seed = getenv("CHAOS_SEED"), *rounds = getenv("CHAOS_ROUNDS");
    uint64_t first = seed ? strtoull(seed, NULL, 10) : (uint64_t)clock_mono_ns();
    int n = rounds ? atoi(rounds) : 2;

    for (int i = 0; i < n; i++)
        run(first + (uint64_t)i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(anything_goes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
