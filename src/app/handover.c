#include "app/handover.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "app/gateway.h"
#include "app/notify.h"
#include "app/passing.h"
#include "app/successor.h"
#include "base/wire.h"
#include "base/xmem.h"
#include "rt/clock.h"
#include "rt/fault.h"
#include "rt/fdx.h"
#include "rt/log.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

enum {
    TICK_MS = 5,             /* between looks at the workers: part of what clients wait */
    LEFT_TICK_MS = 50,       /* ... once only open connections are left */
    HELLO_MS = 30 * 1000,    /* for what the new process says first: it loads certificates before */
    READY_MS = 60 * 1000,    /* ... and to open listeners */
    DELIVERIES_MS = 5000,    /* requests under way may end by themselves */
    CUT_MS = 2000,           /* ... and when they were given up */
    CALLS_MS = 3000,         /* clients wait in the kernel meanwhile */
    AGAIN_MS = 2000,         /* everything goes on, before the next try */
    COMMITS_MS = 3000,       /* the disk may be slow */
    TRIES_MIN_MS = 3000,     /* for all tries, if drain.limit is less */
    SERVING_MS = 120 * 1000, /* recovery of a large spool */
    RESCUE_MS = 1000,        /* between tries to start a successor */
    RESCUES = 10,
    END_SHARE = 4, /* the last quarter of drain.limit: connections end, spread over it */
};

enum phase {
    PHASE_NONE,
    PHASE_HELLO,    /* what the new process is */
    PHASE_READY,    /* it has the offer */
    PHASE_HOLD,     /* no delivery begins */
    PHASE_CUT,      /* those under way are given up */
    PHASE_STILL,    /* nothing is accepted */
    PHASE_AGAIN,    /* all goes on for a while, there was an upload */
    PHASE_QUIET,    /* nothing goes to the spool */
    PHASE_RELEASED, /* the spool is free */
    PHASE_RESCUE,   /* ... and nobody took it: before another one is started */
    PHASE_LEFT,     /* the new process serves; our connections are left */
};

struct handover {
    struct gateway *g;
    struct successor *program;
    enum phase phase;
    struct onward_way way; /* way.fd is the socket */
    struct ev_io *io;
    struct passing_in in;
    struct ev_timer *tick;
    int64_t began, phase_began, still_began; /* monotonic */
    int64_t left_at, end_at, over_at;
    bool released, ending;
    bool hurried; /* told to end before it was left */
    unsigned rescues;
    long pid; /* the new process's, as it says */
    struct worker_look *looks;
    unsigned looking;
    struct logs_going_on sum;
    struct metric *seconds;
};

static void fail(struct handover *h, const char *why);
static void on_io(void *ctx, unsigned what);

static int64_t elapsed_ms(int64_t since)
{
    return (clock_mono_ns() - since) / NS_PER_MS;
}

static void enter(struct handover *h, enum phase phase)
{
    h->phase = phase;
    h->phase_began = clock_mono_ns();
}

static void all_workers(struct handover *h, enum worker_step step, unsigned ms)
{
    unsigned i;

    for (i = 0; i < h->g->n_workers; i++)
        worker_step(&h->g->workers[i], step, ms);
}

/* --- talking ------------------------------------------------------------------------------ */

static int say(struct handover *h, enum passing_type type, struct view payload, const int *fds,
               size_t n, struct err *e)
{
    int rc;

    pthread_mutex_lock(&h->way.lock);
    rc = h->way.fd < 0 ? err_set(e, ERR_CLOSED, "the other process is gone")
                       : passing_send(h->way.fd, type, payload, fds, n, e);
    pthread_mutex_unlock(&h->way.lock);
    return rc;
}

static void hang_up(struct handover *h)
{
    ev_io_free(&h->io);
    pthread_mutex_lock(&h->way.lock);
    fd_close(&h->way.fd);
    pthread_mutex_unlock(&h->way.lock);
    passing_fini(&h->in);
}

/* One message with as many descriptors as it may have. */
struct batch {
    struct handover *h;
    struct str payload;
    int fds[PASSING_FDS];
    size_t n;
    struct err err;
    bool failed;
};

static void batch_send(struct batch *b)
{
    if (b->n && !b->failed &&
        say(b->h, PASSING_LISTENERS, str_view(&b->payload), b->fds, b->n, &b->err) < 0)
        b->failed = true;
    str_clear(&b->payload);
    b->n = 0;
}

static void batch_add(struct batch *b, size_t listener, int fd)
{
    const struct gateway *g = b->h->g;
    const struct config_listen *l = &g->config->listen[listener];

    wire_put_view(&b->payload, view_str(l->name));
    wire_put_view(&b->payload, view_str(l->address));
    wire_put_u8(&b->payload, g->found[listener].only);
    b->fds[b->n++] = fd;
    if (b->n == PASSING_FDS || b->payload.n > PASSING_PAYLOAD / 2)
        batch_send(b);
}

/* In the order of the workers, so that the new one's first has what our first has. */
static int offer_listeners(struct handover *h, struct err *e)
{
    struct gateway *g = h->g;
    struct batch b = {.h = h};
    unsigned w;
    size_t i;

    for (w = 0; w < g->n_workers; w++) {
        for (i = 0; i < g->workers[w].n_sockets; i++) {
            const struct worker_socket *s = &g->workers[w].sockets[i];

            batch_add(&b, s->listener, net_listener_fd(s->watch));
        }
    }
    for (i = 0; i < WORKER_LISTENERS; i++) {
        if (g->admin_listeners[i])
            batch_add(&b, i, net_listener_fd(g->admin_listeners[i]));
    }
    batch_send(&b);
    str_fini(&b.payload);
    if (b.failed)
        *e = b.err;
    return b.failed ? -1 : 0;
}

static int offer(struct handover *h, struct err *e)
{
    struct str payload = STR_INIT;
    int rc;

    passing_put_hello(&payload);
    wire_put_view(&payload, view_str(h->g->config->spool_directory));
    rc = say(h, PASSING_OFFER, str_view(&payload), NULL, 0, e);
    str_fini(&payload);
    if (rc < 0 || offer_listeners(h, e) < 0)
        return -1;
    return say(h, PASSING_OFFERED, VIEW_NONE, NULL, 0, e);
}

/* --- giving the spool away ---------------------------------------------------------------- */

static void looked(struct worker_look *look);

static void look(struct handover *h)
{
    unsigned i;

    if (h->looking)
        return;
    h->sum = (struct logs_going_on){0};
    h->looking = h->g->n_workers;
    for (i = 0; i < h->g->n_workers; i++) {
        h->looks[i].back = h->g->loop;
        h->looks[i].done = looked;
        h->looks[i].ctx = h;
        worker_look(&h->g->workers[i], &h->looks[i]);
    }
}

/* Who cannot commit serves clients directly; a new process could not even open the spool. */
static bool spool_fails(const struct handover *h)
{
    struct spool_stats st;

    spool_stats(h->g->spool, &st);
    return st.failing;
}

static void begin_hold(struct handover *h)
{
    if (spool_fails(h)) {
        fail(h, "records cannot be made durable now; mend the disk of spool.directory first");
        return;
    }
    enter(h, PHASE_HOLD);
    all_workers(h, WORKER_HOLD, 0);
}

static void begin_still(struct handover *h)
{
    enter(h, PHASE_STILL);
    h->still_began = h->phase_began;
    all_workers(h, WORKER_STILL, 0);
}

static int64_t tries_ms(const struct handover *h)
{
    return TR_MAX(h->g->config->drain_limit_ms, (int64_t)TRIES_MIN_MS);
}

static void try_again(struct handover *h)
{
    if (elapsed_ms(h->began) > tries_ms(h)) {
        fail(h, "calls of clients did not end in time (slow uploads); nothing was cut off");
        return;
    }
    log_event(LOG_INFO, "handover", "waiting for calls in hand", LF_UINT("calls", h->sum.calls));
    enter(h, PHASE_AGAIN);
    all_workers(h, WORKER_RESUME, 0);
}

/* The listeners stay open, and what is queued at them stays queued. */
static void release(struct handover *h)
{
    struct gateway *g = h->g;
    struct err e = {0};
    size_t i;

    for (i = 0; i < WORKER_LISTENERS; i++) {
        if (g->admin_listeners[i])
            net_listener_pause(g->admin_listeners[i], true);
    }
    gateway_watch(g, false);
    gateway_close_control(g);
    spool_close(&g->spool);
    logs_gave_up(g->logs);
    h->released = true;
    fault_point("handover-released");
    enter(h, PHASE_RELEASED);
    if (say(h, PASSING_RELEASED, VIEW_NONE, NULL, 0, &e) < 0)
        fail(h, e.text);
}

static void on_look(struct handover *h)
{
    const struct logs_going_on *s = &h->sum;
    int64_t ms = elapsed_ms(h->phase_began);

    if (h->phase == PHASE_HOLD || h->phase == PHASE_CUT) {
        if (!s->deliveries) {
            begin_still(h);
        } else if (h->phase == PHASE_HOLD && ms > DELIVERIES_MS) {
            log_event(LOG_NOTICE, "handover", "deliveries are given up; their outcome is unknown",
                      LF_UINT("deliveries", s->deliveries));
            enter(h, PHASE_CUT);
            all_workers(h, WORKER_CUT, 0);
        } else if (h->phase == PHASE_CUT && ms > CUT_MS) {
            fail(h, "deliveries cannot be stopped");
        }
    } else if (h->phase == PHASE_STILL) {
        if (!s->calls && !s->deliveries) {
            enter(h, PHASE_QUIET);
            all_workers(h, WORKER_QUIET, 0);
        } else if (ms > CALLS_MS) {
            try_again(h);
        }
    } else if (h->phase == PHASE_QUIET) {
        if (!s->commits && !s->deliveries && !s->calls && !spool_fails(h))
            release(h);
        else if (ms > COMMITS_MS || spool_fails(h))
            fail(h, "the disk of the spool takes too long");
    }
}

/* Also of one that was called off meanwhile: on_look knows by the phase. A look that began before
 * the last step does not count. */
static void looked(struct worker_look *l)
{
    struct handover *h = l->ctx;

    h->sum.calls += l->going_on.calls;
    h->sum.deliveries += l->going_on.deliveries;
    h->sum.commits += l->going_on.commits;
    if (--h->looking == 0)
        on_look(h);
}

/* --- after that --------------------------------------------------------------------------- */

static void tell_supervisor(const struct handover *h)
{
    char text[48];

    snprintf(text, sizeof(text), "MAINPID=%ld", h->pid);
    notify(text);
}

static void leave(struct handover *h)
{
    struct gateway *g = h->g;
    const int64_t gap = elapsed_ms(h->still_began);
    const int64_t limit = g->config->drain_limit_ms;
    size_t i;

    enter(h, PHASE_LEFT);
    successor_reap(h->program);
    for (i = 0; i < g->n_workers; i++)
        worker_leave(&g->workers[i], &h->way);
    for (i = 0; i < WORKER_LISTENERS; i++) {
        net_listener_leave(&g->admin_listeners[i]);
        if (g->admin[i])
            http_server_drain(g->admin[i]);
    }
    tell_supervisor(h);
    h->left_at = h->phase_began;
    h->over_at = h->left_at + limit * NS_PER_MS;
    h->end_at = h->over_at - limit / END_SHARE * NS_PER_MS;
    log_event(LOG_NOTICE, "handover", "handed over; open connections stay until they end",
              LF_INT("pid", h->pid), LF_INT("not_accepting_ms", gap),
              LF_UINT("connections", gateway_connections(g)), LF_INT("limit_ms", limit));
    if (h->hurried)
        handover_hurry(h);
}

static void end_all(struct handover *h, int64_t window_ms)
{
    h->ending = true;
    log_event(LOG_NOTICE, "handover", "ending the connections that are left",
              LF_UINT("connections", gateway_connections(h->g)));
    all_workers(h, WORKER_END, (unsigned)TR_MAX(window_ms, (int64_t)0));
}

/* A process from which we took over needs us as long as it has connections. */
static void on_left(struct handover *h)
{
    int64_t now = clock_mono_ns();
    bool counted = elapsed_ms(h->left_at) > INT64_C(3) * LEFT_TICK_MS;

    if (!h->ending && now >= h->end_at)
        end_all(h, (h->over_at - now) / NS_PER_MS * 3 / 4);
    if (now >= h->over_at || (counted && !h->g->takeover && gateway_connections(h->g) == 0))
        ev_loop_stop(h->g->loop);
}

/* Did it crash? What is read may have come and not been looked at. */
static bool successor_gone(struct handover *h)
{
    char byte;

    return h->way.fd < 0 || recv(h->way.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* It is not to serve alone what was told to end. */
static void give_up_successor(struct handover *h)
{
    struct str payload = STR_INIT;
    struct err e;

    if (h->phase == PHASE_LEFT)
        return;
    wire_put_view(&payload, VIEW_LIT("told to end"));
    (void)say(h, PASSING_FAILED, str_view(&payload), NULL, 0, &e);
    str_fini(&payload);
}

/* A supervisor that ends us because the main process crashed starts no other before we have ended:
 * nobody would be served while tunnels are let go at leisure. */
void handover_hurry(struct handover *h)
{
    const int64_t limit = h->g->config->drain_limit_ms;

    if (h->phase == PHASE_RELEASED && !h->hurried) {
        log_event(LOG_NOTICE, "handover", "told to end: when the new process serves",
                  LF_INT("pid", h->pid));
        h->hurried = true;
        return;
    }
    if (h->phase != PHASE_LEFT || h->ending || (notify_wanted() && successor_gone(h))) {
        give_up_successor(h);
        ev_loop_stop(h->g->loop);
        return;
    }
    h->over_at = TR_MIN(h->over_at, clock_mono_ns() + limit * NS_PER_MS);
    end_all(h, limit / 2);
}

bool handover_left(const struct handover *h)
{
    return h->released;
}

/* --- when it fails ------------------------------------------------------------------------ */

static void as_before(struct handover *h)
{
    bool begun = h->phase > PHASE_READY;
    unsigned w;
    size_t i;

    enter(h, PHASE_NONE);
    ev_timer_disarm(h->tick);
    for (w = 0; w < h->g->n_workers; w++) {
        for (i = 0; i < WORKER_LISTENERS; i++)
            h->g->workers[w].listeners[i].gone = false;
    }
    if (begun)
        all_workers(h, WORKER_RESUME, 0);
}

/* The spool is nobody's. Clients wait in the kernel. */
static void rescue(struct handover *h)
{
    struct err e = {0};

    if (h->rescues++ == RESCUES) {
        log_event(LOG_ERROR, "handover", "no process could take over; giving up");
        _exit(1);
    }
    log_event(LOG_ERROR, "handover", "starting this program again to take over",
              LF_UINT("try", h->rescues));
    h->way.fd = successor_start(h->program, h->g->config, &e);
    if (h->way.fd >= 0)
        h->io = ev_io_new(h->g->loop, h->way.fd, on_io, h);
    else
        log_event(LOG_ERROR, "handover", "it cannot be started", LF_ERR(&e));
    if (h->io)
        ev_io_want(h->io, EV_CAN_READ);
    enter(h, h->io ? PHASE_HELLO : PHASE_RESCUE);
}

static void fail(struct handover *h, const char *why)
{
    struct err e;
    struct str payload = STR_INIT;

    log_event(h->released ? LOG_ERROR : LOG_WARN, "handover",
              h->released ? "the process that was to take over failed"
                          : "handing over failed; this process goes on",
              LF_STR("error", why), LF_INT("pid", h->pid));
    wire_put_view(&payload, view_str(why));
    (void)say(h, PASSING_FAILED, str_view(&payload), NULL, 0, &e);
    str_fini(&payload);
    hang_up(h);
    successor_reap(h->program);
    if (!h->released)
        as_before(h);
    else if (h->hurried)
        ev_loop_stop(h->g->loop);
    else if (h->rescues == 0)
        rescue(h);
    else
        enter(h, PHASE_RESCUE);
}

void handover_call_off(struct handover *h, const char *why)
{
    if (h->phase != PHASE_NONE && !h->released)
        fail(h, why);
}

/* --- what comes in ------------------------------------------------------------------------ */

static void on_hello(struct handover *h, struct view payload)
{
    struct passing_hello hello;
    struct err e = {0};

    if (passing_get_hello(payload, &hello, NULL, &e) < 0 || offer(h, &e) < 0) {
        fail(h, e.text);
        return;
    }
    h->pid = (long)hello.pid;
    log_event(LOG_NOTICE, "handover", "handing over", LF_INT("pid", h->pid),
              LF_VIEW("version", hello.program));
    enter(h, PHASE_READY);
}

/* Names of listeners that the new process does not have. */
static void note_gone(struct handover *h, struct view payload)
{
    struct gateway *g = h->g;
    struct wire w = wire_of(payload);
    uint32_t n = wire_u32(&w);
    unsigned k;
    size_t i;

    for (; n && !w.failed; n--) {
        struct view name = wire_view(&w);

        for (i = 0; i < g->config->n_listen; i++) {
            for (k = 0; k < g->n_workers && view_is(name, g->config->listen[i].name); k++)
                g->workers[k].listeners[i].gone = true;
        }
    }
}

static void on_message(struct handover *h, const struct passing_message *m)
{
    struct wire w = wire_of(m->payload);
    struct str why = STR_INIT;

    if (m->type == PASSING_FAILED) {
        str_addv(&why, wire_view(&w));
        fail(h, str_c(&why));
        str_fini(&why);
    } else if (m->type == PASSING_HELLO && h->phase == PHASE_HELLO) {
        on_hello(h, m->payload);
    } else if (m->type == PASSING_READY && h->phase == PHASE_READY) {
        struct err e = {0};

        note_gone(h, m->payload);
        if (!h->released)
            begin_hold(h);
        else if (say(h, PASSING_RELEASED, VIEW_NONE, NULL, 0, &e) < 0)
            fail(h, e.text);
        else
            enter(h, PHASE_RELEASED);
    } else if (m->type == PASSING_SERVING && h->phase == PHASE_RELEASED) {
        leave(h);
    } else {
        fail(h, "the new process says something out of turn");
    }
}

static void on_gone(struct handover *h, const struct err *e)
{
    if (h->phase != PHASE_LEFT) {
        fail(h, e->text);
        return;
    }
    log_event(LOG_NOTICE, "handover", "the process that took over is gone");
    hang_up(h);
}

static void on_io(void *ctx, unsigned what)
{
    struct handover *h = ctx;
    struct passing_message m;
    struct err e = {0};
    int rc = passing_read(&h->in, h->way.fd, &e), next = 1;

    (void)what;
    while (next > 0 && h->io) {
        next = passing_next(&h->in, &m, &e);
        if (next > 0) {
            passing_close_fds(&m);
            on_message(h, &m);
        }
    }
    if (h->io && (rc < 0 || next < 0))
        on_gone(h, &e);
}

static int64_t patience_ms(enum phase phase)
{
    return phase == PHASE_HELLO      ? HELLO_MS
           : phase == PHASE_READY    ? READY_MS
           : phase == PHASE_RELEASED ? SERVING_MS
                                     : INT64_MAX;
}

static void tick(void *ctx)
{
    struct handover *h = ctx;
    int64_t ms = elapsed_ms(h->phase_began);

    ev_timer_arm(h->tick, h->phase == PHASE_LEFT ? LEFT_TICK_MS : TICK_MS);
    if (h->phase == PHASE_LEFT)
        on_left(h);
    else if (ms > patience_ms(h->phase))
        fail(h, "the new process takes too long");
    else if (h->phase == PHASE_AGAIN && ms > AGAIN_MS)
        begin_hold(h);
    else if (h->phase == PHASE_RESCUE && ms > RESCUE_MS)
        rescue(h);
    else if (h->phase >= PHASE_HOLD && h->phase <= PHASE_QUIET && h->phase != PHASE_AGAIN)
        look(h);
}

/* --- beginning ---------------------------------------------------------------------------- */

/* NULL: it can be. The end of a container's first process is the end of all others in it: a new
 * process could only serve for as long as this one stays. */
static const char *why_not(const struct handover *h)
{
    if (getpid() == 1)
        return "it is the first process of its container, which ends with it: roll out another "
               "container instead; the spool keeps what waits";
    if (h->g->draining)
        return "it is draining";
    return h->phase == PHASE_NONE ? NULL : "it is handing over already";
}

void handover_begin(struct handover *h, int fd)
{
    const char *why = why_not(h);
    struct str payload = STR_INIT;
    struct err e;

    if (why) {
        wire_put_view(&payload, view_str(why));
        passing_send(fd, PASSING_FAILED, str_view(&payload), NULL, 0, &e);
        str_fini(&payload);
        fd_close(&fd);
        return;
    }
    h->way.fd = fd;
    h->io = ev_io_new(h->g->loop, fd, on_io, h);
    ev_io_want(h->io, EV_CAN_READ);
    h->began = clock_mono_ns();
    h->pid = 0;
    enter(h, PHASE_HELLO);
    ev_timer_arm(h->tick, TICK_MS);
}

int handover_spawn(struct handover *h, struct err *e)
{
    const char *why = why_not(h);
    int fd;

    if (why) {
        log_event(LOG_WARN, "handover", "this process cannot hand over", LF_STR("error", why));
        return err_set(e, ERR_UNAVAIL, "this process cannot hand over: %s", why);
    }
    fd = successor_start(h->program, NULL, e);
    if (fd < 0) {
        log_event(LOG_ERROR, "handover", "the new process cannot be started", LF_ERR(e));
        return err_prefix(e, "the new process cannot be started");
    }
    handover_begin(h, fd);
    return 0;
}

bool handover_under_way(const struct handover *h)
{
    return h->phase != PHASE_NONE;
}

struct handover *handover_new(struct gateway *g)
{
    struct handover *h = XNEW(struct handover);

    h->g = g;
    h->program = successor_new(g->opts->config);
    h->tick = ev_timer_new(g->loop, tick, h);
    h->looks = xcalloc(g->n_workers, sizeof(*h->looks));
    h->way = (struct onward_way){.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};
    return h;
}

void handover_free(struct handover **hp)
{
    struct handover *h = *hp;

    *hp = NULL;
    if (!h)
        return;
    hang_up(h);
    ev_timer_free(&h->tick);
    successor_free(&h->program);
    xfree(h->looks);
    xfree(h);
}
