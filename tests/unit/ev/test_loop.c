#include "ev/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "rt/clock.h"

/* Ends a test that would wait for ever. */
enum { GUARD_MS = 20000 };

static struct ev_loop *loop;
static struct ev_timer *guard;
static char trace[256];

static void on_guard(void *ctx)
{
    (void)ctx;
    ev_loop_stop(loop);
    fail_msg("the loop was not stopped in time");
}

static int setup(void **state)
{
    (void)state;
    loop = ev_loop_new("test");
    guard = ev_timer_new(loop, on_guard, NULL);
    ev_timer_arm(guard, GUARD_MS);
    trace[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ev_timer_free(&guard);
    ev_loop_free(&loop);
    assert_null(loop);
    return 0;
}

static void note(const char *what)
{
    strncat(trace, what, sizeof(trace) - strlen(trace) - 1);
}

/* A task that writes its name down and may stop the loop. */
struct noter {
    struct ev_task task;
    const char *name;
    bool stop;
    struct noter *then_post;
    struct noter *then_defer;
};

static void noter_run(struct ev_task *task)
{
    struct noter *n = container_of(task, struct noter, task);

    note(n->name);
    if (n->then_post)
        ev_post(loop, &n->then_post->task);
    if (n->then_defer)
        ev_defer(loop, &n->then_defer->task);
    if (n->stop)
        ev_loop_stop(loop);
}

#define NOTER(nm, ...)                                                                             \
    {                                                                                              \
        .task = {.run = noter_run}, .name = (nm), ##__VA_ARGS__                                    \
    }

static void posts_keep_their_order(void **state)
{
    struct noter c = NOTER("c", .stop = true), b = NOTER("b", .then_post = &c), a = NOTER("a");

    (void)state;
    ev_post(loop, &a.task);
    ev_post(loop, &b.task);
    ev_loop_run(loop);
    assert_string_equal(trace, "abc");
}

static void deferred_tasks_run_after_the_turns_posts(void **state)
{
    struct noter d = NOTER("d", .stop = true), p = NOTER("p"), a = NOTER("a");

    (void)state;
    a.then_defer = &d;
    a.then_post = &p;
    ev_post(loop, &a.task);
    ev_loop_run(loop);
    assert_string_equal(trace, "apd");
}

static void tasks_before_a_stop_are_run(void **state)
{
    struct noter a = NOTER("a"), b = NOTER("b");

    (void)state;
    ev_post(loop, &a.task);
    ev_post(loop, &b.task);
    ev_loop_stop(loop);
    ev_loop_stop(loop);
    ev_loop_run(loop);
    assert_string_equal(trace, "ab");
    /* and it can run again */
    ev_loop_stop(loop);
    ev_loop_run(loop);
}

static void left_over_tasks_run_when_the_loop_is_freed(void **state)
{
    struct noter d = NOTER("d"), p = NOTER("p", .then_defer = &d);

    (void)state;
    ev_post(loop, &p.task);
    ev_timer_free(&guard);
    ev_loop_free(&loop);
    assert_string_equal(trace, "pd");
    loop = ev_loop_new("again");
}

struct own {
    struct ev_task task;
    unsigned rounds;
};

static void again(struct ev_task *task)
{
    struct own *o = container_of(task, struct own, task);

    if (++o->rounds == 1000)
        ev_loop_stop(loop);
    else
        ev_defer(loop, task);
}

static struct ev_timer *other_timer;

static void on_other(void *ctx)
{
    unsigned *count = ctx;

    ++*count;
    ev_timer_arm(other_timer, 0);
}

static void a_task_that_defers_itself_starves_nobody(void **state)
{
    struct own o = {{NULL, again}, 0};
    unsigned count = 0;

    (void)state;
    other_timer = ev_timer_new(loop, on_other, &count);
    ev_timer_arm(other_timer, 0);
    ev_defer(loop, &o.task);
    ev_loop_run(loop);
    assert_int_equal(o.rounds, 1000);
    assert_true(count > 100);
    ev_timer_free(&other_timer);
}

static void task_frees_itself(struct ev_task *task)
{
    xfree(task);
}

static void a_task_may_free_itself(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct ev_task *t = XNEW(struct ev_task);

        t->run = task_frees_itself;
        if (i == 1)
            ev_defer(loop, t);
        else
            ev_post(loop, t);
    }
    ev_loop_stop(loop);
    ev_loop_run(loop);
}

/* --- posts from other threads ------------------------------------------------------------- */

enum { STORM_THREADS = 4, STORM_POSTS = 50000 };

struct storm_task {
    struct ev_task task;
    unsigned thread;
    unsigned number;
};

static struct storm_task *storm[STORM_THREADS];
static unsigned storm_next[STORM_THREADS];
static unsigned storm_seen;
static unsigned storm_disorder;

static void on_storm(struct ev_task *task)
{
    struct storm_task *t = container_of(task, struct storm_task, task);

    if (t->number != storm_next[t->thread]++)
        storm_disorder++;
    if (++storm_seen == STORM_THREADS * STORM_POSTS)
        ev_loop_stop(loop);
}

static void *storm_main(void *ctx)
{
    struct storm_task *tasks = ctx;

    for (unsigned i = 0; i < STORM_POSTS; i++)
        ev_post(loop, &tasks[i].task);
    return NULL;
}

static void a_storm_of_posts_arrives_whole_and_in_order(void **state)
{
    pthread_t threads[STORM_THREADS];

    (void)state;
    for (unsigned i = 0; i < STORM_THREADS; i++) {
        storm[i] = xcalloc(STORM_POSTS, sizeof(*storm[i]));
        for (unsigned k = 0; k < STORM_POSTS; k++)
            storm[i][k] = (struct storm_task){{NULL, on_storm}, i, k};
        assert_int_equal(pthread_create(&threads[i], NULL, storm_main, storm[i]), 0);
    }
    ev_loop_run(loop);
    for (unsigned i = 0; i < STORM_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(storm_next[i], STORM_POSTS);
        xfree(storm[i]);
    }
    assert_int_equal(storm_disorder, 0);
}

/* Two loops that pass a ball: every pass needs a wake-up, so a lost one hangs the test. */
enum { PASSES = 20000 };

struct ball {
    struct ev_task task;
    struct ev_loop *side[2];
    unsigned passes;
};

static void on_ball(struct ev_task *task)
{
    struct ball *b = container_of(task, struct ball, task);

    if (!ev_loop_is_current(b->side[b->passes % 2]))
        fail_msg("a task runs in the wrong loop");
    b->passes++;
    if (b->passes == PASSES) {
        ev_loop_stop(b->side[0]);
        ev_loop_stop(b->side[1]);
        return;
    }
    ev_post(b->side[b->passes % 2], task);
}

static void *side_main(void *ctx)
{
    ev_loop_run(ctx);
    return NULL;
}

static void no_wake_up_is_lost(void **state)
{
    struct ball b = {.task = {.run = on_ball}};
    pthread_t thread;

    (void)state;
    b.side[0] = loop;
    b.side[1] = ev_loop_new("other side");
    assert_int_equal(pthread_create(&thread, NULL, side_main, b.side[1]), 0);
    ev_post(b.side[0], &b.task);
    ev_loop_run(loop);
    pthread_join(thread, NULL);
    assert_int_equal(b.passes, PASSES);
    ev_loop_free(&b.side[1]);
}

/* --- timers ------------------------------------------------------------------------------- */

struct named_timer {
    struct ev_timer *timer;
    const char *name;
    int64_t due_ns;
    bool last;
};

static void on_named(void *ctx)
{
    struct named_timer *t = ctx;

    assert_true(clock_mono_ns() >= t->due_ns);
    assert_false(ev_timer_armed(t->timer));
    note(t->name);
    if (t->last)
        ev_loop_stop(loop);
}

static void timers_fire_in_the_order_of_their_time(void **state)
{
    static const int64_t ms[] = {30, 10, 0, 20, 10};
    struct named_timer t[] = {{.name = "30", .last = true},
                              {.name = "10a"},
                              {.name = "0"},
                              {.name = "20"},
                              {.name = "never"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        t[i].timer = ev_timer_new(loop, on_named, &t[i]);
        assert_false(ev_timer_armed(t[i].timer));
        /* a little slack: libevent counts in microseconds */
        t[i].due_ns = clock_mono_ns() + ms[i] * NS_PER_MS - 10000;
        ev_timer_arm(t[i].timer, ms[i]);
        assert_true(ev_timer_armed(t[i].timer));
    }
    ev_timer_disarm(t[4].timer);
    assert_false(ev_timer_armed(t[4].timer));
    ev_loop_run(loop);
    assert_string_equal(trace, "010a2030");
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        ev_timer_free(&t[i].timer);
}

static void arming_again_replaces(void **state)
{
    struct named_timer a = {.name = "a"}, b = {.name = "b", .last = true};

    (void)state;
    a.timer = ev_timer_new(loop, on_named, &a);
    b.timer = ev_timer_new(loop, on_named, &b);
    ev_timer_arm(a.timer, 60000);
    ev_timer_arm(a.timer, 1);
    ev_timer_arm(b.timer, 2);
    ev_timer_arm(b.timer, 20);
    b.due_ns = clock_mono_ns() + 15 * NS_PER_MS;
    ev_loop_run(loop);
    assert_string_equal(trace, "ab");
    ev_timer_free(&a.timer);
    ev_timer_free(&b.timer);
}

static void on_free_self(void *ctx)
{
    struct ev_timer **t = ctx;

    ev_timer_free(t);
    ev_loop_stop(loop);
}

static void a_timer_may_free_itself(void **state)
{
    struct ev_timer *t;

    (void)state;
    t = ev_timer_new(loop, on_free_self, &t);
    ev_timer_arm(t, 0);
    ev_loop_run(loop);
    assert_null(t);
}

static int64_t seen_now[2];

static void on_now(void *ctx)
{
    (void)ctx;
    seen_now[0] = ev_now_ns(loop);
    clock_fake(777 * NS_PER_SEC, -1);
    seen_now[1] = ev_now_ns(loop);
    ev_loop_stop(loop);
}

static void the_time_of_a_turn_stands_still(void **state)
{
    struct ev_timer *t = ev_timer_new(loop, on_now, NULL);

    (void)state;
    clock_fake(555 * NS_PER_SEC, -1);
    ev_timer_arm(t, 0);
    ev_loop_run(loop);
    assert_int_equal(seen_now[0], 555 * NS_PER_SEC);
    assert_int_equal(seen_now[1], 555 * NS_PER_SEC);
    assert_int_equal(ev_now_ns(loop), 777 * NS_PER_SEC);
    clock_fake(-1, -1);
    ev_timer_free(&t);
}

/* --- descriptors -------------------------------------------------------------------------- */

struct watched {
    struct ev_io *io;
    int fd;
    unsigned calls;
    unsigned what;
};

static void on_watched(void *ctx, unsigned what)
{
    struct watched *w = ctx;
    char byte;

    w->calls++;
    w->what |= what;
    if (what & EV_CAN_READ) {
        assert_int_equal(read(w->fd, &byte, 1), 1);
        if (byte == '!')
            ev_loop_stop(loop);
        if (byte == 'x') {
            ev_io_free(&w->io);
            ev_loop_stop(loop);
        }
    } else {
        ev_io_want(w->io, EV_CAN_READ);
    }
}

static void descriptors_are_watched_as_wanted(void **state)
{
    struct watched w = {0};
    int fd[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    w.fd = fd[0];
    w.io = ev_io_new(loop, fd[0], on_watched, &w);
    assert_int_equal(write(fd[1], "ab!", 3), 3);
    ev_loop_stop(loop);
    ev_loop_run(loop);
    assert_int_equal(w.calls, 0); /* nothing was wanted */
    ev_io_want(w.io, EV_CAN_WRITE);
    ev_loop_run(loop);
    assert_int_equal(w.what, EV_CAN_READ | EV_CAN_WRITE);
    assert_int_equal(w.calls, 4); /* writable once, then a byte at each call: level-triggered */
    ev_io_want(w.io, 0);
    assert_int_equal(write(fd[1], "x", 1), 1);
    ev_loop_stop(loop);
    ev_loop_run(loop);
    assert_int_equal(w.calls, 4);
    ev_io_want(w.io, EV_CAN_READ | EV_CAN_WRITE);
    ev_loop_run(loop);
    assert_null(w.io);
    close(fd[0]);
    close(fd[1]);
}

/* The pattern of every server: a number is closed and used again within one turn. */
static void a_descriptor_number_can_be_used_again_at_once(void **state)
{
    struct watched w = {0};
    int fd[2], first;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    first = fd[0];
    w.io = ev_io_new(loop, fd[0], on_watched, &w);
    ev_io_want(w.io, EV_CAN_READ);
    ev_loop_stop(loop);
    ev_loop_run(loop); /* the kernel knows it now */
    ev_io_free(&w.io);
    close(fd[0]);
    close(fd[1]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    assert_int_equal(fd[0], first);
    w.fd = fd[0];
    w.io = ev_io_new(loop, fd[0], on_watched, &w);
    ev_io_want(w.io, EV_CAN_READ);
    assert_int_equal(write(fd[1], "!", 1), 1);
    ev_loop_run(loop);
    assert_int_equal(w.calls, 1);
    ev_io_free(&w.io);
    close(fd[0]);
    close(fd[1]);
}

static void on_usr1(void *ctx, int signo)
{
    int *seen = ctx;

    *seen = signo;
    ev_loop_stop(loop);
}

static void signals_come_as_callbacks(void **state)
{
    struct ev_signal *sig;
    int seen = 0;

    (void)state;
    sig = ev_signal_new(loop, SIGUSR1, on_usr1, &seen);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(seen, 0);
    ev_loop_run(loop);
    assert_int_equal(seen, SIGUSR1);
    ev_signal_free(&sig);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(posts_keep_their_order),
        T(deferred_tasks_run_after_the_turns_posts),
        T(tasks_before_a_stop_are_run),
        T(left_over_tasks_run_when_the_loop_is_freed),
        T(a_task_that_defers_itself_starves_nobody),
        T(a_task_may_free_itself),
        T(a_storm_of_posts_arrives_whole_and_in_order),
        T(no_wake_up_is_lost),
        T(timers_fire_in_the_order_of_their_time),
        T(arming_again_replaces),
        T(a_timer_may_free_itself),
        T(the_time_of_a_turn_stands_still),
        T(descriptors_are_watched_as_wanted),
        T(a_descriptor_number_can_be_used_again_at_once),
        T(signals_come_as_callbacks),
    };

    return cmocka_run_group_tests_name("ev/loop", tests, NULL, NULL);
}
