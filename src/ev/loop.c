#include "ev/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "rt/clock.h"
#include "rt/fdx.h"

#define LOOP_MAGIC   0x10095a11u
#define IO_MAGIC     0x10105a12u
#define TIMER_MAGIC  0x717e5a13u
#define SIGNAL_MAGIC 0x51605a14u

/* Rounds of left-over tasks that ev_loop_free runs: a task that always defers itself again must
 * not keep the program from ending. */
enum { DRAIN_ROUNDS = 64 };

/* A queue of the loop's own thread. */
struct task_list {
    struct ev_task *first;
    struct ev_task **end;
};

struct ev_loop {
    uint32_t magic;
    char name[16]; /* pthread_setname_np's limit */
    struct event_base *base;
    bool in_turn;
    bool stopping;
    int64_t now_ns;

    /* Posts of other threads: a stack that the loop takes whole and turns round. Whoever pushes
     * onto an empty stack writes the eventfd, so one write wakes for all posts until the take. */
    _Atomic(struct ev_task *) remote;
    int wake_fd;
    struct event wake_event;

    struct task_list own;      /* posts of the loop's own thread: no lock, no system call */
    struct task_list deferred; /* the end of the turn */

    atomic_bool stop_asked; /* stop_task is on its way */
    struct ev_task stop_task;
};

struct ev_io {
    uint32_t magic;
    struct ev_loop *loop;
    struct event event;
    int fd;
    unsigned want;
    ev_io_fn fn;
    void *ctx;
};

struct ev_timer {
    uint32_t magic;
    struct ev_loop *loop;
    struct event event;
    bool armed;
    ev_timer_fn fn;
    void *ctx;
};

struct ev_signal {
    uint32_t magic;
    struct ev_loop *loop;
    struct event event;
    ev_signal_fn fn;
    void *ctx;
};

static _Thread_local const struct ev_loop *current_loop;

static void list_reset(struct task_list *l)
{
    l->first = NULL;
    l->end = &l->first;
}

static void list_add(struct task_list *l, struct ev_task *t)
{
    t->next = NULL;
    *l->end = t;
    l->end = &t->next;
}

/* Run a chain. Tasks may be freed or queued again by `run`, so the next is read before. */
static void run_chain(struct ev_task *t)
{
    while (t) {
        struct ev_task *next = t->next;

        t->run(t);
        t = next;
    }
}

/* Run what is in the list now; what is added meanwhile waits for the next time. */
static void list_run(struct task_list *l)
{
    struct ev_task *t = l->first;

    list_reset(l);
    run_chain(t);
}

/* Take all remote posts, oldest first. */
static struct ev_task *take_remote(struct ev_loop *loop)
{
    struct ev_task *t = atomic_exchange_explicit(&loop->remote, NULL, memory_order_acquire);
    struct ev_task *turned = NULL;

    while (t) {
        struct ev_task *next = t->next;

        t->next = turned;
        turned = t;
        t = next;
    }
    return turned;
}

/* Every libevent callback comes through here first: the first of a turn reads the clock. */
static void turn_begin(struct ev_loop *loop)
{
    if (loop->in_turn)
        return;
    loop->in_turn = true;
    loop->now_ns = clock_mono_ns();
}

static void on_wake(evutil_socket_t fd, short what, void *ctx)
{
    struct ev_loop *loop = ctx;

    (void)fd;
    (void)what;
    turn_begin(loop);
    /* A post that comes before the take is taken now; one that comes after finds the stack empty
     * and writes again, which is a new edge. So the counter is never read: a system call less. */
    run_chain(take_remote(loop));
}

static void on_stop(struct ev_task *task)
{
    struct ev_loop *loop = container_of(task, struct ev_loop, stop_task);

    atomic_store(&loop->stop_asked, false);
    loop->stopping = true;
}

static struct event_base *base_new(void)
{
    struct event_config *cfg = event_config_new();
    struct event_base *base;

    ASSERT(cfg);
    /* Nothing but ev_post crosses threads, so libevent needs no locks. The change list joins
     * "stop reading, start reading" within a turn to no system call at all. */
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
    event_config_set_flag(cfg, EVENT_BASE_FLAG_PRECISE_TIMER);
    event_config_set_flag(cfg, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    event_config_require_features(cfg, EV_FEATURE_ET); /* on_wake */
    base = event_base_new_with_config(cfg);
    event_config_free(cfg);
    if (!base)
        BUG("the system has no event loop to give");
    return base;
}

struct ev_loop *ev_loop_new(const char *name)
{
    static const struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct ev_loop *loop = XNEW(struct ev_loop);

    sigaction(SIGPIPE, &ignore, NULL); /* a peer that is gone is an error value, not the end */
    OBJ_INIT(loop, LOOP_MAGIC);
    snprintf(loop->name, sizeof(loop->name), "%s", name);
    loop->base = base_new();
    list_reset(&loop->own);
    list_reset(&loop->deferred);
    loop->stop_task.run = on_stop;
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->wake_fd < 0)
        BUG("no descriptor for a loop's wake-up");
    event_assign(&loop->wake_event, loop->base, loop->wake_fd, EV_READ | EV_PERSIST | EV_ET,
                 on_wake, loop);
    if (event_add(&loop->wake_event, NULL) < 0)
        BUG("cannot watch a loop's wake-up");
    return loop;
}

static bool tasks_left(struct ev_loop *loop)
{
    return loop->own.first || loop->deferred.first || atomic_load(&loop->remote);
}

void ev_loop_free(struct ev_loop **loopp)
{
    struct ev_loop *loop = *loopp;
    const struct ev_loop *before = current_loop;

    if (!loop)
        return;
    OBJ_CHECK(loop, LOOP_MAGIC);
    ASSERT(!ev_loop_is_current(loop));
    current_loop = loop;
    for (int i = 0; i < DRAIN_ROUNDS && tasks_left(loop); i++) {
        run_chain(take_remote(loop));
        list_run(&loop->own);
        list_run(&loop->deferred);
    }
    current_loop = before;
    event_del(&loop->wake_event);
    event_base_free(loop->base);
    fd_close(&loop->wake_fd);
    OBJ_FINI(loop);
    XFREE(*loopp);
}

/* One wait and its callbacks, then the tasks they left. */
static void turn(struct ev_loop *loop)
{
    int flags = EVLOOP_ONCE;

    if (loop->own.first || loop->deferred.first)
        flags |= EVLOOP_NONBLOCK;
    if (event_base_loop(loop->base, flags) < 0)
        BUG("the event loop failed");
    turn_begin(loop);
    if (loop->own.first) {
        /* A thread's posts keep their order also if the first were made before it ran the loop. */
        run_chain(take_remote(loop));
        list_run(&loop->own);
    }
    list_run(&loop->deferred);
    loop->in_turn = false;
}

void ev_loop_run(struct ev_loop *loop)
{
    OBJ_CHECK(loop, LOOP_MAGIC);
    ASSERT(!current_loop);
    current_loop = loop;
    if (gettid() != getpid()) /* the main thread's name is the program's */
        pthread_setname_np(pthread_self(), loop->name);
    while (!loop->stopping)
        turn(loop);
    loop->stopping = false;
    current_loop = NULL;
}

void ev_loop_stop(struct ev_loop *loop)
{
    if (!atomic_exchange(&loop->stop_asked, true))
        ev_post(loop, &loop->stop_task);
}

bool ev_loop_is_current(const struct ev_loop *loop)
{
    return current_loop == loop;
}

int64_t ev_now_ns(const struct ev_loop *loop)
{
    return loop->in_turn ? loop->now_ns : clock_mono_ns();
}

static void wake(struct ev_loop *loop)
{
    uint64_t one = 1;

    while (write(loop->wake_fd, &one, sizeof(one)) < 0) {
        if (errno == EAGAIN) /* the counter is at its end: the loop wakes anyway */
            return;
        ASSERT(errno == EINTR);
    }
}

void ev_post(struct ev_loop *loop, struct ev_task *task)
{
    struct ev_task *head;

    OBJ_CHECK(loop, LOOP_MAGIC);
    if (current_loop == loop) {
        list_add(&loop->own, task);
        return;
    }
    head = atomic_load_explicit(&loop->remote, memory_order_relaxed);
    do {
        task->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&loop->remote, &head, task,
                                                    memory_order_release, memory_order_relaxed));
    if (!head)
        wake(loop);
}

void ev_defer(struct ev_loop *loop, struct ev_task *task)
{
    OBJ_CHECK(loop, LOOP_MAGIC);
    list_add(&loop->deferred, task);
}

static void on_io(evutil_socket_t fd, short what, void *ctx)
{
    struct ev_io *io = ctx;
    unsigned can = 0;

    (void)fd;
    OBJ_CHECK(io, IO_MAGIC);
    turn_begin(io->loop);
    if (what & EV_READ)
        can |= EV_CAN_READ;
    if (what & EV_WRITE)
        can |= EV_CAN_WRITE;
    io->fn(io->ctx, can);
}

struct ev_io *ev_io_new(struct ev_loop *loop, int fd, ev_io_fn fn, void *ctx)
{
    struct ev_io *io = XNEW(struct ev_io);

    OBJ_CHECK(loop, LOOP_MAGIC);
    ASSERT(fd >= 0);
    OBJ_INIT(io, IO_MAGIC);
    io->loop = loop;
    io->fd = fd;
    io->fn = fn;
    io->ctx = ctx;
    return io;
}

void ev_io_want(struct ev_io *io, unsigned want)
{
    short flags = EV_PERSIST;

    OBJ_CHECK(io, IO_MAGIC);
    if (io->want == want)
        return;
    if (io->want)
        event_del(&io->event);
    io->want = want;
    if (!want)
        return;
    if (want & EV_CAN_READ)
        flags |= EV_READ;
    if (want & EV_CAN_WRITE)
        flags |= EV_WRITE;
    event_assign(&io->event, io->loop->base, io->fd, flags, on_io, io);
    if (event_add(&io->event, NULL) < 0)
        BUG("cannot watch a descriptor");
}

void ev_io_free(struct ev_io **iop)
{
    struct ev_io *io = *iop;

    if (!io)
        return;
    ev_io_want(io, 0);
    OBJ_FINI(io);
    XFREE(*iop);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct ev_timer *t = ctx;

    (void)fd;
    (void)what;
    OBJ_CHECK(t, TIMER_MAGIC);
    turn_begin(t->loop);
    t->armed = false;
    t->fn(t->ctx);
}

struct ev_timer *ev_timer_new(struct ev_loop *loop, ev_timer_fn fn, void *ctx)
{
    struct ev_timer *t = XNEW(struct ev_timer);

    OBJ_CHECK(loop, LOOP_MAGIC);
    OBJ_INIT(t, TIMER_MAGIC);
    t->loop = loop;
    t->fn = fn;
    t->ctx = ctx;
    event_assign(&t->event, loop->base, -1, 0, on_timer, t);
    return t;
}

void ev_timer_arm(struct ev_timer *t, int64_t ms)
{
    struct timeval tv;

    OBJ_CHECK(t, TIMER_MAGIC);
    if (ms < 0)
        ms = 0;
    tv.tv_sec = (time_t)(ms / 1000);
    tv.tv_usec = (suseconds_t)(ms % 1000 * 1000);
    if (event_add(&t->event, &tv) < 0)
        BUG("cannot arm a timer");
    t->armed = true;
}

void ev_timer_disarm(struct ev_timer *t)
{
    OBJ_CHECK(t, TIMER_MAGIC);
    if (t->armed)
        event_del(&t->event);
    t->armed = false;
}

bool ev_timer_armed(const struct ev_timer *t)
{
    return t->armed;
}

void ev_timer_free(struct ev_timer **tp)
{
    struct ev_timer *t = *tp;

    if (!t)
        return;
    ev_timer_disarm(t);
    OBJ_FINI(t);
    XFREE(*tp);
}

static void on_signal(evutil_socket_t signo, short what, void *ctx)
{
    struct ev_signal *s = ctx;

    (void)what;
    OBJ_CHECK(s, SIGNAL_MAGIC);
    turn_begin(s->loop);
    s->fn(s->ctx, (int)signo);
}

struct ev_signal *ev_signal_new(struct ev_loop *loop, int signo, ev_signal_fn fn, void *ctx)
{
    struct ev_signal *s = XNEW(struct ev_signal);

    OBJ_CHECK(loop, LOOP_MAGIC);
    OBJ_INIT(s, SIGNAL_MAGIC);
    s->loop = loop;
    s->fn = fn;
    s->ctx = ctx;
    event_assign(&s->event, loop->base, signo, EV_SIGNAL | EV_PERSIST, on_signal, s);
    if (event_add(&s->event, NULL) < 0)
        BUG("cannot watch a signal");
    return s;
}

void ev_signal_free(struct ev_signal **sp)
{
    struct ev_signal *s = *sp;

    if (!s)
        return;
    OBJ_CHECK(s, SIGNAL_MAGIC);
    event_del(&s->event);
    OBJ_FINI(s);
    XFREE(*sp);
}
