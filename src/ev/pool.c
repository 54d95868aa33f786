#include "ev/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include "base/bug.h"
#include "base/xmem.h"

#define POOL_MAGIC 0x900150b5u

struct ev_pool {
    uint32_t magic;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct ev_task *first; /* jobs by their tasks */
    struct ev_task **end;
    struct ev_task **urgent_end; /* behind the last of those that go first */
    size_t queued;
    size_t max_queued;
    bool started, closing;
    unsigned n_threads;
    pthread_t threads[];
};

static void job_done(struct ev_task *task)
{
    struct ev_job *job = container_of(task, struct ev_job, task);

    job->done(job);
}

/* The next job, or NULL when the pool closes and nothing is left. */
static struct ev_job *job_take(struct ev_pool *pool)
{
    struct ev_task *t;

    pthread_mutex_lock(&pool->lock);
    while (!pool->first && !pool->closing)
        pthread_cond_wait(&pool->work, &pool->lock);
    t = pool->first;
    if (t) {
        pool->first = t->next;
        if (!pool->first)
            pool->end = &pool->first;
        if (pool->urgent_end == &t->next)
            pool->urgent_end = &pool->first;
        pool->queued--;
    }
    pthread_mutex_unlock(&pool->lock);
    return t ? container_of(t, struct ev_job, task) : NULL;
}

static void *pool_main(void *ctx)
{
    struct ev_pool *pool = ctx;
    struct ev_job *job;

    while ((job = job_take(pool)) != NULL) {
        struct ev_loop *loop = job->loop;

        job->work(job);
        ev_post(loop, &job->task);
    }
    return NULL;
}

struct ev_pool *ev_pool_new(unsigned threads, size_t max_queued)
{
    struct ev_pool *pool;

    if (threads == 0)
        threads = 1;
    pool = xcalloc(1, sizeof(*pool) + threads * sizeof(pool->threads[0]));
    OBJ_INIT(pool, POOL_MAGIC);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pool->end = pool->urgent_end = &pool->first;
    pool->max_queued = max_queued;
    pool->n_threads = threads;
    return pool;
}

/* Not before there is something to do: what a process gives up once it is set up is inherited by
 * threads that are started later only. Under the lock. */
static void start(struct ev_pool *pool)
{
    sigset_t all, old;

    /* Signals are for the loop that watches them. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (unsigned i = 0; i < pool->n_threads; i++) {
        if (pthread_create(&pool->threads[i], NULL, pool_main, pool) != 0)
            BUG("cannot start a pool thread");
        pthread_setname_np(pool->threads[i], "pool");
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pool->started = true;
}

void ev_pool_free(struct ev_pool **poolp)
{
    struct ev_pool *pool = *poolp;

    if (!pool)
        return;
    OBJ_CHECK(pool, POOL_MAGIC);
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; pool->started && i < pool->n_threads; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    OBJ_FINI(pool);
    XFREE(*poolp);
}

static int submit(struct ev_pool *pool, struct ev_loop *loop, struct ev_job *job, bool urgent)
{
    struct ev_task **at;

    OBJ_CHECK(pool, POOL_MAGIC);
    pthread_mutex_lock(&pool->lock);
    if (pool->queued >= pool->max_queued) {
        pthread_mutex_unlock(&pool->lock);
        return -1;
    }
    if (!pool->started)
        start(pool);
    job->loop = loop;
    job->task.run = job_done;
    at = urgent ? pool->urgent_end : pool->end;
    job->task.next = *at;
    *at = &job->task;
    if (!job->task.next)
        pool->end = &job->task.next;
    if (urgent)
        pool->urgent_end = &job->task.next;
    pool->queued++;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

int ev_pool_submit(struct ev_pool *pool, struct ev_loop *loop, struct ev_job *job)
{
    return submit(pool, loop, job, false);
}

int ev_pool_submit_first(struct ev_pool *pool, struct ev_loop *loop, struct ev_job *job)
{
    return submit(pool, loop, job, true);
}
