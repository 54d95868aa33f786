#include "ev/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <semaphore.h>
#include <cmocka.h>
#include "base/xmem.h"

enum { JOBS = 2000 };

static struct ev_loop *loop;

static int setup(void **state)
{
    (void)state;
    loop = ev_loop_new("test");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ev_loop_free(&loop);
    return 0;
}

struct sum_job {
    struct ev_job job;
    pthread_t submitter;
    unsigned in;
    unsigned out;
    bool wrong_thread;
};

static unsigned done_count;
static uint64_t done_sum;
static unsigned wrong_threads;

static void sum_work(struct ev_job *j)
{
    struct sum_job *s = container_of(j, struct sum_job, job);

    s->out = s->in * 2;
    s->wrong_thread = pthread_equal(pthread_self(), s->submitter);
}

static void sum_done(struct ev_job *j)
{
    struct sum_job *s = container_of(j, struct sum_job, job);

    if (s->wrong_thread || !pthread_equal(pthread_self(), s->submitter))
        wrong_threads++;
    done_sum += s->out;
    xfree(s);
    if (++done_count == JOBS)
        ev_loop_stop(loop);
}

static void submit_sum(struct ev_pool *pool, unsigned in)
{
    struct sum_job *s = XNEW(struct sum_job);

    s->job.work = sum_work;
    s->job.done = sum_done;
    s->submitter = pthread_self();
    s->in = in;
    assert_int_equal(ev_pool_submit(pool, loop, &s->job), 0);
}

static void jobs_work_in_the_pool_and_end_in_the_loop(void **state)
{
    struct ev_pool *pool = ev_pool_new(3, JOBS);

    (void)state;
    done_count = wrong_threads = 0;
    done_sum = 0;
    for (unsigned i = 0; i < JOBS; i++)
        submit_sum(pool, i);
    ev_loop_run(loop);
    assert_int_equal(wrong_threads, 0);
    assert_int_equal(done_sum, (uint64_t)JOBS * (JOBS - 1));
    ev_pool_free(&pool);
    assert_null(pool);
}

struct gate_job {
    struct ev_job job;
    sem_t *started;
    sem_t *go;
    unsigned *done;
};

static void gate_work(struct ev_job *j)
{
    struct gate_job *g = container_of(j, struct gate_job, job);

    sem_post(g->started);
    while (sem_wait(g->go) != 0)
        ;
}

static void gate_done(struct ev_job *j)
{
    struct gate_job *g = container_of(j, struct gate_job, job);

    ++*g->done;
}

static void a_full_pool_says_no_and_finishes_what_it_has(void **state)
{
    struct ev_pool *pool = ev_pool_new(1, 2);
    struct gate_job jobs[4];
    sem_t started, go;
    unsigned done = 0;

    (void)state;
    sem_init(&started, 0, 0);
    sem_init(&go, 0, 0);
    for (int i = 0; i < 4; i++)
        jobs[i] = (struct gate_job){{.work = gate_work, .done = gate_done}, &started, &go, &done};
    assert_int_equal(ev_pool_submit(pool, loop, &jobs[0].job), 0);
    while (sem_wait(&started) != 0)
        ;
    /* the thread is busy with the first, two may wait, the fourth is too many */
    assert_int_equal(ev_pool_submit(pool, loop, &jobs[1].job), 0);
    assert_int_equal(ev_pool_submit(pool, loop, &jobs[2].job), 0);
    assert_int_equal(ev_pool_submit(pool, loop, &jobs[3].job), -1);
    for (int i = 0; i < 3; i++)
        sem_post(&go);
    ev_pool_free(&pool);
    ev_loop_stop(loop);
    ev_loop_run(loop);
    assert_int_equal(done, 3);
    sem_destroy(&started);
    sem_destroy(&go);
}

static unsigned order[4], n_order;

struct order_job {
    struct ev_job job;
    unsigned number;
};

static void order_work(struct ev_job *j)
{
    order[n_order++] = container_of(j, struct order_job, job)->number;
}

static void order_done(struct ev_job *j)
{
    (void)j;
}

static void what_somebody_waits_for_goes_first(void **state)
{
    static const unsigned wanted[] = {2, 3, 0, 1};
    struct ev_pool *pool = ev_pool_new(1, 8);
    struct order_job jobs[4];
    struct gate_job gate;
    sem_t started, go;
    unsigned done = 0;

    (void)state;
    n_order = 0;
    sem_init(&started, 0, 0);
    sem_init(&go, 0, 0);
    gate = (struct gate_job){{.work = gate_work, .done = gate_done}, &started, &go, &done};
    assert_int_equal(ev_pool_submit_first(pool, loop, &gate.job), 0);
    while (sem_wait(&started) != 0)
        ;
    for (unsigned i = 0; i < 4; i++) {
        jobs[i] = (struct order_job){{.work = order_work, .done = order_done}, i};
        assert_int_equal(i < 2 ? ev_pool_submit(pool, loop, &jobs[i].job)
                               : ev_pool_submit_first(pool, loop, &jobs[i].job),
                         0);
    }
    sem_post(&go);
    ev_pool_free(&pool);
    ev_loop_stop(loop);
    ev_loop_run(loop);
    assert_int_equal(n_order, 4);
    assert_memory_equal(order, wanted, sizeof(wanted));
    sem_destroy(&started);
    sem_destroy(&go);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(jobs_work_in_the_pool_and_end_in_the_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_pool_says_no_and_finishes_what_it_has, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_somebody_waits_for_goes_first, setup, teardown),
    };

    return cmocka_run_group_tests_name("ev/pool", tests, NULL, NULL);
}
