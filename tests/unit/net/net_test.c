#include "net_test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/bug.h"
#include "net/listen.h"

enum { DEADLINE_MS = 10000 };

struct ev_loop *loop;
struct certs certs;
struct tls_ctx *client_tls, *server_tls;

int nt_group_setup(void **state)
{
    struct tls_client_opts co = {0};
    struct tls_server_opts so = {.http2 = true};
    struct err e;

    (void)state;
    certs_init(&certs);
    certs_make_usual(&certs);
    co.ca = certs_path(&certs, "ca.pem");
    so.certificate = certs_path(&certs, "server.pem");
    so.key = certs_path(&certs, "server.key");
    client_tls = tls_ctx_client(&co, &e);
    server_tls = tls_ctx_server(&so, &e);
    ASSERT(client_tls && server_tls);
    return 0;
}

int nt_group_teardown(void **state)
{
    (void)state;
    tls_ctx_unref(&client_tls);
    tls_ctx_unref(&server_tls);
    certs_remove(&certs);
    return 0;
}

int nt_setup(void **state)
{
    (void)state;
    loop = ev_loop_new("test");
    return 0;
}

int nt_teardown(void **state)
{
    (void)state;
    ev_loop_free(&loop);
    return 0;
}

struct waiting {
    struct ev_timer *tick;
    struct ev_timer *deadline;
    nt_cond cond;
    void *ctx;
    bool late;
};

static void on_tick(void *ctx)
{
    struct waiting *w = ctx;

    if (w->cond && w->cond(w->ctx))
        ev_loop_stop(loop);
    else
        ev_timer_arm(w->tick, 1);
}

static void on_deadline(void *ctx)
{
    struct waiting *w = ctx;

    w->late = true;
    ev_loop_stop(loop);
}

static bool run(nt_cond cond, void *ctx, int64_t ms)
{
    struct waiting w = {.cond = cond, .ctx = ctx};

    w.tick = ev_timer_new(loop, on_tick, &w);
    w.deadline = ev_timer_new(loop, on_deadline, &w);
    ev_timer_arm(w.tick, 0);
    ev_timer_arm(w.deadline, ms);
    ev_loop_run(loop);
    ev_timer_free(&w.tick);
    ev_timer_free(&w.deadline);
    return !w.late;
}

void nt_run_until(nt_cond cond, void *ctx)
{
    if (!run(cond, ctx, DEADLINE_MS))
        fail_msg("what the test waits for did not happen in time");
}

void nt_run_ms(int64_t ms)
{
    run(NULL, NULL, ms);
}

bool nt_flag(void *ctx)
{
    return *(bool *)ctx;
}

void nt_tcp_pair(int fd[2])
{
    struct net_addr any, bound;
    struct err e;
    int listener, rc;

    ASSERT(net_addr_parse(VIEW_LIT("127.0.0.1:0"), &any, &e) == 0);
    listener = net_listen_fd(&any, 8, &bound, &e);
    ASSERT(listener >= 0);
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    rc = connect(fd[0], (struct sockaddr *)&bound.ss, bound.len);
    ASSERT(rc == 0);
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
    do
        fd[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (fd[1] < 0 && errno == EAGAIN);
    ASSERT(fd[1] >= 0);
    close(listener);
}

void nt_assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

static void on_ready(void *ctx)
{
    struct nt_end *x = ctx;

    x->ready = true;
    if (++x->ready_calls == x->close_at_ready) {
        net_stream_close(&x->s, x->close_hard);
        return;
    }
    net_want_read(x->s, true);
    nt_end_write(x);
}

static void read_all(struct nt_end *x)
{
    char buf[16384];
    size_t n = x->piece && x->piece < sizeof(buf) ? x->piece : sizeof(buf);
    ssize_t rc;

    do {
        rc = net_read(x->s, buf, n, &x->e);
        if (rc > 0)
            str_add(&x->in, buf, (size_t)rc);
    } while (rc > 0 && !x->one_read);
    x->ended |= rc == 0;
    x->read_failed |= rc == NET_ERROR;
}

static void on_readable(void *ctx)
{
    struct nt_end *x = ctx;

    if (++x->readable_calls == x->close_at_readable) {
        net_stream_close(&x->s, x->close_hard);
        return;
    }
    read_all(x);
    if (x->toggle) {
        net_want_read(x->s, false);
        net_want_read(x->s, true);
    }
}

void nt_end_write(struct nt_end *x)
{
    if (!x->s)
        return;
    while (x->out_at < x->out_n) {
        size_t n = x->out_n - x->out_at;
        ssize_t rc = net_write(x->s, x->out + x->out_at, x->piece ? TR_MIN(n, x->piece) : n, &x->e);

        x->write_failed |= rc == NET_ERROR;
        if (rc <= 0)
            return;
        x->out_at += (size_t)rc;
    }
    if (x->fin_after_out)
        net_shutdown_write(x->s);
}

static void on_writable(void *ctx)
{
    struct nt_end *x = ctx;

    if (++x->writable_calls == x->close_at_writable) {
        net_stream_close(&x->s, x->close_hard);
        return;
    }
    nt_end_write(x);
}

static void on_failed(void *ctx, const struct err *e)
{
    struct nt_end *x = ctx;

    x->failed = true;
    x->e = *e;
    if (x->close_at_failed)
        net_stream_close(&x->s, false);
}

static const struct net_stream_ops end_ops = {on_ready, on_readable, on_writable, on_failed};

void nt_end_bind(struct nt_end *x, struct net_stream *s)
{
    x->s = s;
    net_stream_bind(s, &end_ops, x);
}

void nt_end_accept(struct nt_end *x, int fd, struct tls_ctx *tls)
{
    struct net_addr nobody = {.len = 0};

    nt_end_bind(x, net_stream_accepted(loop, fd, tls, &nobody));
}

void nt_end_connect(struct nt_end *x, int fd, struct tls_ctx *tls, const char *name,
                    struct view alpn)
{
    struct net_addr nobody = {.len = 0};

    nt_end_bind(x, net_stream_connected(loop, fd, tls, name, alpn, &nobody));
}

void nt_end_fini(struct nt_end *x)
{
    net_stream_close(&x->s, false);
    str_fini(&x->in);
}
