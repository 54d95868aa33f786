#include "app/takeover.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "app/gateway.h"
#include "app/passing.h"
#include "base/wire.h"
#include "base/xmem.h"
#include "net/listen_unix.h"
#include "rt/clock.h"
#include "rt/fault.h"
#include "rt/fdx.h"
#include "rt/log.h"

enum {
    ANSWER_MS = 15 * 1000, /* for what the old process says at once */
    /* It may wait for uploads that are under way; it gives up by itself. */
    RELEASE_MS = 2 * 3600 * 1000,
    PAUSE_MS = 5, /* of tests */
};

struct takeover {
    struct gateway *g;
    int fd;
    struct passing_in in;
    struct ev_io *io;
    long pid;
    int64_t began, released;
    unsigned next; /* worker */
    bool orphan;   /* the old process is gone, without a word */
};

/* --- before we serve ---------------------------------------------------------------------- */

static int said_failed(const struct passing_message *m, struct err *e)
{
    struct wire w = wire_of(m->payload);
    struct view why = wire_view(&w);

    return err_set(e, ERR_UNAVAIL, "the running process says: %.*s", (int)TR_MIN(why.n, 200u),
                   why.n ? why.p : "");
}

static int expect(struct takeover *t, enum passing_type type, int64_t ms, struct passing_message *m,
                  struct err *e)
{
    if (passing_wait(&t->in, t->fd, ms, m, e) < 0)
        return -1;
    if (m->type == type)
        return 0;
    passing_close_fds(m);
    return m->type == PASSING_FAILED
               ? said_failed(m, e)
               : err_set(e, ERR_INVALID, "the running process says something out of turn");
}

static int say(struct takeover *t, enum passing_type type, struct view payload, struct err *e)
{
    return passing_send(t->fd, type, payload, NULL, 0, e);
}

static bool same_place(const char *a, struct view b)
{
    char *other = xmemdup0(b.n ? b.p : "", b.n), x[PATH_MAX], y[PATH_MAX];
    bool same = realpath(a, x) && realpath(other, y) ? strcmp(x, y) == 0 : view_is(b, a);

    xfree(other);
    return same;
}

/* What waits in another spool would be left there. */
static int check_offer(struct takeover *t, struct view payload, struct err *e)
{
    struct passing_hello hello;
    struct wire rest;
    struct view place;

    if (passing_get_hello(payload, &hello, &rest, e) < 0)
        return -1;
    t->pid = (long)hello.pid;
    place = wire_view(&rest);
    if (rest.failed)
        return err_set(e, ERR_INVALID, "what the running process says makes no sense");
    if (!same_place(t->g->config->spool_directory, place))
        return err_set(e, ERR_INVALID,
                       "spool.directory: the running process has its spool at %.*s; this cannot be "
                       "changed by a takeover, restart instead",
                       (int)place.n, place.p);
    return 0;
}

/* All descriptors of the message are somebody's afterwards. */
static int take_listeners(struct takeover *t, struct passing_message *m, struct err *e)
{
    struct wire w = wire_of(m->payload);
    size_t i;
    int rc = 0;

    for (i = 0; rc == 0 && i < m->n_fds; i++) {
        struct view name = wire_view(&w), address = wire_view(&w);
        bool only = wire_u8(&w) != 0;

        rc = w.failed ? err_set(e, ERR_INVALID, "the offer of the running process is cut short")
                      : sockets_add(&t->g->inherited, name, address, m->fds[i], only, e);
        if (rc == 0)
            m->fds[i] = -1;
    }
    passing_close_fds(m);
    return rc;
}

static int take_offer(struct takeover *t, struct err *e)
{
    struct passing_message m;

    if (expect(t, PASSING_OFFER, ANSWER_MS, &m, e) < 0)
        return -1;
    passing_close_fds(&m);
    if (check_offer(t, m.payload, e) < 0)
        return -1;
    for (;;) {
        if (passing_wait(&t->in, t->fd, ANSWER_MS, &m, e) < 0)
            return -1;
        if (m.type == PASSING_OFFERED)
            return 0;
        if (m.type != PASSING_LISTENERS) {
            passing_close_fds(&m);
            return m.type == PASSING_FAILED
                       ? said_failed(&m, e)
                       : err_set(e, ERR_INVALID, "the running process says something out of turn");
        }
        if (take_listeners(t, &m, e) < 0)
            return -1;
    }
}

/* The head of the answer, and not a byte more. */
static int read_answer(int fd, struct err *e)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char head[1024] = {0};
    size_t n = 0;

    while (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0) {
        if (n == sizeof(head) || poll(&p, 1, ANSWER_MS) <= 0 || recv(fd, head + n, 1, 0) != 1)
            return err_set(e, ERR_UNAVAIL, "no answer by the control socket");
        n++;
    }
    if (n < 12 || memcmp(head, "HTTP/1.1 101", 12) != 0)
        return err_set(e, ERR_UNAVAIL, "what has the control socket does not hand over: %.*s",
                       (int)TR_MIN(n, (size_t)12), head);
    return 0;
}

static int ask_by_control(const char *path, int *fd, struct err *e)
{
    static const char request[] = "GET " TAKEOVER_PATH " HTTP/1.1\r\nHost: tailrace\r\n"
                                  "Connection: Upgrade\r\nUpgrade: " TAKEOVER_PROTOCOL "\r\n\r\n";
    const ssize_t n = sizeof(request) - 1;

    *fd = net_connect_unix(path, e);
    if (*fd < 0)
        return err_prefix(e, "is it running?");
    if (send(*fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        return err_errno(e, ERR_CLOSED, errno, "the running process does not listen");
    return read_answer(*fd, e);
}

struct takeover *takeover_ask(struct gateway *g, struct err *e)
{
    struct takeover *t = XNEW(struct takeover);
    struct str hello = STR_INIT;
    int rc = 0;

    t->g = g;
    t->fd = g->opts->channel;
    t->began = clock_mono_ns();
    if (t->fd < 0)
        rc = ask_by_control(g->config->control_socket, &t->fd, e);
    passing_put_hello(&hello);
    if (rc == 0)
        rc = say(t, PASSING_HELLO, str_view(&hello), e);
    if (rc < 0 && e->code == ERR_CLOSED && t->fd >= 0)
        rc = 0; /* who refuses at once says why before he leaves */
    str_fini(&hello);
    if (rc == 0 && take_offer(t, e) == 0)
        return t;
    err_prefix(e, "cannot take over");
    if (t->fd >= 0)
        takeover_failed(t, e);
    takeover_free(&t);
    return NULL;
}

/* Which listeners of theirs have nobody here? A name may be used with another address now. */
static void put_gone(const struct takeover *t, struct str *out)
{
    const struct sockets *s = &t->g->inherited;
    uint32_t n = 0;
    size_t i;

    for (i = 0; i < s->n; i++)
        n += s->had[i].fd >= 0;
    wire_put_u32(out, n);
    for (i = 0; i < s->n; i++) {
        if (s->had[i].fd >= 0)
            wire_put_view(out, view_str(s->had[i].name));
    }
}

int takeover_wait(struct takeover *t, struct err *e)
{
    struct passing_message m;
    struct str gone = STR_INIT;
    int rc;

    fault_point("takeover-ready");
    put_gone(t, &gone);
    rc = say(t, PASSING_READY, str_view(&gone), e);
    str_fini(&gone);
    if (rc == 0)
        rc = expect(t, PASSING_RELEASED, RELEASE_MS, &m, e);
    t->released = clock_mono_ns();
    /* It died, then: the spool's lock tells whether it had only turned away. */
    if (rc < 0 && e->code == ERR_CLOSED) {
        log_event(LOG_WARN, "handover", "the running process ended before it had handed over",
                  LF_INT("pid", t->pid));
        t->orphan = true;
        return 0;
    }
    if (rc < 0)
        return err_prefix(e, "cannot take over");
    passing_close_fds(&m);
    while (fault_point("takeover-pause"))
        poll(NULL, 0, PAUSE_MS);
    if (fault_point("takeover-released"))
        return err_set(e, ERR_IO, "as a test wants it");
    return 0;
}

bool takeover_is_orphan(const struct takeover *t)
{
    return t->orphan;
}

void takeover_failed(struct takeover *t, const struct err *why)
{
    struct str payload = STR_INIT;

    wire_put_view(&payload, view_str(why->text));
    (void)say(t, PASSING_FAILED, str_view(&payload), NULL);
    str_fini(&payload);
}

/* --- afterwards --------------------------------------------------------------------------- */

static void take_connection(struct takeover *t, struct passing_message *m)
{
    struct gateway *g = t->g;
    struct onward_from from;

    if (m->type != PASSING_CONNECTION || m->n_fds != 1 || onward_decode(m->payload, &from) < 0)
        return;
    worker_onwarded(&g->workers[t->next++ % g->n_workers], m->fds[0], &from);
    m->fds[0] = -1;
}

static void on_io(void *ctx, unsigned what)
{
    struct takeover *t = ctx;
    struct passing_message m;
    struct err e = {0};
    int rc = passing_read(&t->in, t->fd, &e);

    (void)what;
    while (rc >= 0) {
        int next = passing_next(&t->in, &m, &e);

        if (next == 0)
            return;
        if (next < 0)
            break;
        take_connection(t, &m);
        passing_close_fds(&m);
    }
    log_event(LOG_NOTICE, "handover", "the process that was taken over from has ended",
              LF_INT("pid", t->pid));
    takeover_free(&t->g->takeover);
}

int takeover_serving(struct takeover *t, struct err *e)
{
    int64_t now = clock_mono_ns();

    fault_point("takeover-serving");
    /* All that it had is here: that it is gone by now is no reason not to serve. */
    if (!t->orphan && say(t, PASSING_SERVING, VIEW_NONE, e) < 0) {
        if (e->code != ERR_CLOSED)
            return err_prefix(e, "cannot take over");
        log_event(LOG_WARN, "handover", "the running process ended before it was relieved",
                  LF_INT("pid", t->pid));
    }
    log_event(LOG_NOTICE, "handover", "taken over", LF_INT("pid", t->pid),
              LF_INT("ms", (now - t->began) / NS_PER_MS),
              LF_INT("opening_ms", (now - t->released) / NS_PER_MS));
    t->io = ev_io_new(t->g->loop, t->fd, on_io, t);
    ev_io_want(t->io, EV_CAN_READ);
    return 0;
}

void takeover_free(struct takeover **tp)
{
    struct takeover *t = *tp;

    *tp = NULL;
    if (!t)
        return;
    ev_io_free(&t->io);
    fd_close(&t->fd);
    passing_fini(&t->in);
    xfree(t);
}
