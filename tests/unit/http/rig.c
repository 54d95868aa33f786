#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "rt/clock.h"

/* --- the handler --- */

static void write_some(struct seen *s)
{
    static char bytes[10000];

    if (!bytes[0])
        memset(bytes, 'x', sizeof bytes);
    while (s->writing) {
        size_t n = s->writing < sizeof bytes ? s->writing : sizeof bytes;

        s->writing -= n;
        if (http_write(s->ex, view_of(bytes, n)) > HTTP_WRITE_HIGH && s->writing)
            return;
    }
    http_finish(s->ex);
}

static void on_body(void *ctx, struct view piece)
{
    struct seen *s = ctx;

    assert_int_equal(s->gones, 0);
    str_addv(&s->body, piece);
    if (s->hold || (s->echo && http_write(s->ex, piece) > HTTP_WRITE_HIGH))
        s->held += piece.n;
    else
        http_consumed(s->ex, piece.n);
}

static void on_end(void *ctx)
{
    struct seen *s = ctx;

    assert_int_equal(s->gones, 0);
    s->ends++;
    if (strcmp(s->target, "/end") == 0)
        http_reply(s->ex, 204, NULL, 0, VIEW_NONE);
    else if (s->echo)
        http_finish(s->ex);
    else if (s->writing)
        write_some(s);
}

static void on_drain(void *ctx)
{
    struct seen *s = ctx;

    s->drains++;
    if (s->echo) {
        http_consumed(s->ex, s->held);
        s->held = 0;
    }
    if (s->writing)
        write_some(s);
}

static void on_gone(void *ctx, bool complete)
{
    struct seen *s = ctx;

    s->gones++;
    s->complete = complete;
    s->code = http_reset_code(s->ex);
    s->ex = NULL;
}

static void on_trailers(void *ctx, const struct h1_field *f, size_t n)
{
    struct seen *s = ctx;
    size_t at = strlen(s->trailers);

    assert_int_equal(s->ends, 0);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(s->trailers + at, sizeof s->trailers - at, "%.*s: %.*s\n",
                               (int)f[i].name.n, f[i].name.p, (int)f[i].value.n, f[i].value.p);
}

static const struct http_handler handler = {
    .on_body = on_body,
    .on_end = on_end,
    .on_drain = on_drain,
    .on_gone = on_gone,
    .on_trailers = on_trailers,
};

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    static const struct h1_field field = {{"X-Of", 4}, {"rig", 3}};
    struct rig *r = ctx;
    struct seen *s = &r->seen[r->n_seen++];

    assert_true(r->n_seen < RIG_EXCHANGES);
    memset(s, 0, sizeof *s);
    s->ex = ex;
    snprintf(s->target, sizeof s->target, "%.*s", (int)req->target.n, req->target.p);
    snprintf(s->method, sizeof s->method, "%.*s", (int)req->method.n, req->method.p);
    http_bind(ex, &handler, s);
    if (r->on_take)
        r->on_take(r, s, req);
    if (strcmp(s->target, "/now") == 0) {
        http_reply(ex, 200, &field, 1, VIEW_LIT("hello"));
    } else if (strcmp(s->target, "/early") == 0) {
        http_reply(ex, 413, &field, 1, VIEW_LIT("too large"));
    } else if (strcmp(s->target, "/echo") == 0) {
        s->echo = true;
        http_reply_start(ex, 200, &field, 1, -1);
    } else if (strcmp(s->target, "/tunnel") == 0 || strcmp(s->method, "CONNECT") == 0) {
        s->echo = true;
        http_switch(ex, strcmp(s->method, "CONNECT") ? 101 : 200, NULL, 0);
    } else if (strncmp(s->target, "/big?", 5) == 0) {
        s->writing = strtoull(s->target + 5, NULL, 10);
        http_reply_start(ex, 200, &field, 1, (int64_t)s->writing);
    } else if (strcmp(s->target, "/hold") == 0) {
        s->hold = true;
    }
}

/* --- raw peers --- */

static void raw_move(struct raw *raw)
{
    char bytes[65536];
    ssize_t n;

    while (raw->fd >= 0 && raw->todo_off < raw->todo.n) {
        n = send(raw->fd, raw->todo.p + raw->todo_off, raw->todo.n - raw->todo_off, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            raw->todo_off = raw->todo.n;
        if (n <= 0)
            break;
        raw->todo_off += (size_t)n;
        raw->sent_total += (size_t)n;
    }
    while (raw->fd >= 0 && !raw->deaf && !raw->eof) {
        n = recv(raw->fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            raw->eof = true;
            raw->reset = n < 0;
            break;
        }
        str_add(&raw->got, bytes, (size_t)n);
    }
}

static void move_all(struct rig *r)
{
    for (struct raw *raw = r->raws; raw; raw = raw->next)
        raw_move(raw);
}

static void on_tick(void *ctx)
{
    struct rig *r = ctx;

    move_all(r);
    r->late = clock_mono_ns() > r->bound_ns;
    if (r->until(r->until_ctx) || r->late)
        ev_loop_stop(r->loop);
    else
        ev_timer_arm(r->tick, 1);
}

void rig_until(struct rig *r, bool (*cond)(void *ctx), void *ctx)
{
    r->until = cond;
    r->until_ctx = ctx;
    r->bound_ns = clock_mono_ns() + RIG_BOUND_MS * NS_PER_MS;
    r->late = false;
    ev_timer_arm(r->tick, 0);
    ev_loop_run(r->loop);
    ev_timer_disarm(r->tick);
    assert_false(r->late);
}

static bool count_down(void *ctx)
{
    int *left = ctx;

    return --*left <= 0;
}

void rig_turns(struct rig *r, int turns)
{
    rig_until(r, count_down, &turns);
}

void rig_open(struct rig *r, const struct http_server_opts *o)
{
    struct http_server_opts opts = {0};

    memset(r, 0, sizeof *r);
    if (o)
        opts = *o;
    r->loop = ev_loop_new("rig");
    r->tick = ev_timer_new(r->loop, on_tick, r);
    r->service.take = take;
    r->service.ctx = r;
    opts.service = &r->service;
    r->server = http_server_new(r->loop, &opts);
}

void rig_close(struct rig *r)
{
    http_server_free(&r->server);
    for (size_t i = 0; i < r->n_seen; i++) {
        assert_int_equal(r->seen[i].gones, 1);
        str_fini(&r->seen[i].body);
    }
    for (struct raw *raw = r->raws; raw; raw = raw->next) {
        if (raw->fd >= 0)
            close(raw->fd);
        str_fini(&raw->got);
        str_fini(&raw->todo);
    }
    ev_timer_free(&r->tick);
    ev_loop_free(&r->loop);
}

void rig_adopt(struct rig *r, struct raw *raw, int fd)
{
    memset(raw, 0, sizeof *raw);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    raw->fd = fd;
    raw->next = r->raws;
    r->raws = raw;
}

void rig_connect(struct rig *r, struct raw *raw)
{
    struct net_addr peer;
    struct err e;
    int fds[2];

    assert_int_equal(net_addr_parse(VIEW_LIT("192.0.2.1:1234"), &peer, &e), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    rig_adopt(r, raw, fds[0]);
    http_server_accepted(r->server, fds[1], &peer);
}

void raw_send_n(struct raw *raw, const void *p, size_t n)
{
    str_add(&raw->todo, p, n);
    raw_move(raw);
}

void raw_send(struct raw *raw, const char *text)
{
    raw_send_n(raw, text, strlen(text));
}

void raw_close(struct rig *r, struct raw *raw)
{
    close(raw->fd);
    raw->fd = -1;
}

/* --- conditions --- */

struct wanted {
    struct rig *r;
    struct raw *raw;
    const char *text;
    size_t n;
};

static bool has_text(void *ctx)
{
    struct wanted *w = ctx;

    return w->raw->got.n && memmem(w->raw->got.p, w->raw->got.n, w->text, strlen(w->text));
}

static bool has_eof(void *ctx)
{
    return ((struct wanted *)ctx)->raw->eof;
}

static bool has_seen(void *ctx)
{
    struct wanted *w = ctx;

    return w->r->n_seen >= w->n;
}

static bool has_gone(void *ctx)
{
    struct wanted *w = ctx;

    return w->r->seen[w->n].gones > 0;
}

void raw_expect(struct rig *r, struct raw *raw, const char *text)
{
    struct wanted w = {.raw = raw, .text = text};

    rig_until(r, has_text, &w);
}

void raw_expect_eof(struct rig *r, struct raw *raw)
{
    struct wanted w = {.raw = raw};

    rig_until(r, has_eof, &w);
}

void rig_expect_seen(struct rig *r, size_t n)
{
    struct wanted w = {.r = r, .n = n};

    rig_until(r, has_seen, &w);
}

void rig_expect_gone(struct rig *r, size_t i)
{
    struct wanted w = {.r = r, .n = i};

    rig_until(r, has_gone, &w);
    assert_int_equal(r->seen[i].gones, 1);
}

size_t raw_count(const struct raw *raw, const char *text)
{
    const char *at = raw->got.p, *end = raw->got.p + raw->got.n;
    size_t n = 0;

    while (at && (at = memmem(at, (size_t)(end - at), text, strlen(text)))) {
        n++;
        at++;
    }
    return n;
}
