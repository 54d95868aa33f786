/*
 * The pool: curl's multis on the loop. curl asks for descriptors and a timer by callbacks; we call
 * it when something happens, and then see what has ended. Everything that calls back to delivery
 * does so from fetch_pool_pump, never from within curl.
 */
#include "net/fetch_priv.h"
#include "base/bug.h"
#include "base/xmem.h"
#include <pthread.h>

/* Then the rest of the loop gets its turn: answers may come as fast as we ask. */
enum { PUMP_ROUNDS = 2 };

/* ---- descriptors */

static void on_sock(void *ctx, unsigned what)
{
    struct fetch_sock *s = ctx;
    struct fetch_multi *m = s->multi;
    int mask = 0, running;

    if (s->parked) { /* closed by the peer while idle; curl finds out before it reuses it */
        ev_io_want(s->io, 0);
        return;
    }
    if (what & EV_CAN_READ)
        mask |= CURL_CSELECT_IN;
    if (what & EV_CAN_WRITE)
        mask |= CURL_CSELECT_OUT;
    m->pool->working = true; /* what comes due is seen to below */
    m->pool->in_curl++;
    curl_multi_socket_action(m->h, s->fd, mask, &running); /* may free `s` */
    m->pool->in_curl--;
    m->pool->working = false;
    fetch_pool_pump(m->pool);
}

static struct fetch_sock *sock_at(struct fetch_pool *p, int fd)
{
    return (size_t)fd < p->n_socks ? p->socks[fd] : NULL;
}

void fetch_sock_drop(struct fetch_pool *p, int fd)
{
    struct fetch_sock *s = sock_at(p, fd);

    if (!s)
        return;
    ev_io_free(&s->io);
    p->socks[fd] = NULL;
    xfree(s);
}

static struct fetch_sock *sock_add(struct fetch_multi *m, int fd)
{
    struct fetch_pool *p = m->pool;
    struct fetch_sock *s = XNEW(struct fetch_sock);

    if ((size_t)fd >= p->n_socks) {
        size_t n = ((size_t)fd + 64) & ~(size_t)63;

        p->socks = xrealloc(p->socks, n * sizeof(struct fetch_sock *));
        memset(p->socks + p->n_socks, 0, (n - p->n_socks) * sizeof(struct fetch_sock *));
        p->n_socks = n;
    }
    s->multi = m;
    s->fd = fd;
    s->io = ev_io_new(p->loop, fd, on_sock, s);
    p->socks[fd] = s;
    return s;
}

/*
 * curl lets go of a connection's descriptor after each request. Only those that carried a request
 * are parked: they are always closed through our callback, unlike those that lost the race to
 * connect, whose number could come back as somebody else's.
 */
static int multi_socket(CURL *h, curl_socket_t fd, int what, void *ctx, void *sockp)
{
    struct fetch_multi *m = ctx;
    struct fetch_sock *s = sock_at(m->pool, fd);
    struct fetch_easy *e = NULL;

    if (what == CURL_POLL_REMOVE) {
        curl_easy_getinfo(h, CURLINFO_PRIVATE, &e);
        if (s && e && e->f && e->f->sent && !e->f->again)
            s->parked = true;
        else
            fetch_sock_drop(m->pool, fd);
        return 0;
    }
    if (!s)
        s = sock_add(m, fd);
    s->parked = false;
    ev_io_want(s->io, (what & CURL_POLL_IN ? EV_CAN_READ : 0u) |
                          (what & CURL_POLL_OUT ? EV_CAN_WRITE : 0u));
    return 0;
}

/* ---- timer */

/* A timer that fires early is cheaper than one that is armed for each request. */
static void multi_arm(struct fetch_multi *m)
{
    int64_t wait = m->wanted_ns - ev_now_ns(m->pool->loop);

    if (m->wanted_ns == 0 || (m->armed_ns && m->armed_ns <= m->wanted_ns))
        return;
    m->armed_ns = m->wanted_ns;
    ev_timer_arm(m->timer, TR_MAX((wait + FETCH_NS(1) - 1) / FETCH_NS(1), (int64_t)0));
}

static void on_timer(void *ctx)
{
    struct fetch_multi *m = ctx;

    m->armed_ns = 0;
    if (m->wanted_ns && m->wanted_ns <= ev_now_ns(m->pool->loop))
        m->due = true;
    else
        multi_arm(m);
    if (m->due)
        fetch_pool_pump(m->pool);
}

static int multi_timer(CURLM *h, long ms, void *ctx)
{
    struct fetch_multi *m = ctx;

    m->due = ms == 0;
    m->wanted_ns = ms > 0 ? ev_now_ns(m->pool->loop) + FETCH_NS(ms) : 0;
    if (m->due)
        fetch_pool_post(m->pool);
    else
        multi_arm(m);
    return 0;
}

void fetch_multi_run(struct fetch_multi *m)
{
    int running;

    if (!m->due)
        return;
    m->due = false;
    m->wanted_ns = 0;
    m->pool->in_curl++;
    curl_multi_socket_action(m->h, CURL_SOCKET_TIMEOUT, 0, &running);
    m->pool->in_curl--;
}

static unsigned idle_ms(const struct fetch_pool *p)
{
    return p->o.max_idle_ms ? p->o.max_idle_ms : FETCH_IDLE_MS;
}

/* Seconds, rounded down twice: curl compares whole seconds and lets the last one pass. */
long fetch_idle_seconds(const struct fetch_pool *p)
{
    return idle_ms(p) < 2000 ? 0 : (long)(idle_ms(p) / 1000) - 1;
}

static curl_socket_t no_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *to)
{
    (void)ctx, (void)purpose, (void)to;
    return CURL_SOCKET_BAD;
}

/*
 * Close what has been idle for too long, or was closed by its peer. curl does so only when it is
 * about to open a connection, which may be never after a burst of requests; so it is asked for one
 * and then given no socket.
 */
static void multi_prune(struct fetch_multi *m)
{
    CURL *h = curl_easy_init();
    int running;

    if (!h)
        return;
    curl_easy_setopt(h, CURLOPT_URL, "http://127.0.0.1:1/");
    curl_easy_setopt(h, CURLOPT_PROXY, "");
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_MAXAGE_CONN, fetch_idle_seconds(m->pool));
    curl_easy_setopt(h, CURLOPT_OPENSOCKETFUNCTION, no_socket);
    m->pool->in_curl++;
    if (curl_multi_add_handle(m->h, h) == CURLM_OK) {
        curl_multi_socket_action(m->h, CURL_SOCKET_TIMEOUT, 0, &running);
        curl_multi_remove_handle(m->h, h);
    }
    m->pool->in_curl--;
    curl_easy_cleanup(h);
}

static void on_rest(void *ctx)
{
    struct fetch_pool *p = ctx;

    p->working = true;
    for (int w = 0; w < WAYS; w++)
        multi_prune(&p->multi[w]);
    p->working = false;
    if (p->rested++ == 0) /* what was in use just now may rest by then */
        ev_timer_arm(p->rest, idle_ms(p) + FETCH_REST_MS);
    fetch_pool_pump(p);
}

int fetch_multi_init(struct fetch_multi *m, struct fetch_pool *p, long host_max)
{
    m->pool = p;
    m->h = curl_multi_init();
    if (!m->h)
        return -1;
    m->timer = ev_timer_new(p->loop, on_timer, m);
    curl_multi_setopt(m->h, CURLMOPT_SOCKETFUNCTION, multi_socket);
    curl_multi_setopt(m->h, CURLMOPT_SOCKETDATA, m);
    curl_multi_setopt(m->h, CURLMOPT_TIMERFUNCTION, multi_timer);
    curl_multi_setopt(m->h, CURLMOPT_TIMERDATA, m);
    curl_multi_setopt(m->h, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
    curl_multi_setopt(m->h, CURLMOPT_MAX_HOST_CONNECTIONS, host_max);
    curl_multi_setopt(m->h, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)FETCH_TOTAL_MAX);
    curl_multi_setopt(m->h, CURLMOPT_MAXCONNECTS, (long)FETCH_TOTAL_MAX);
    curl_multi_setopt(m->h, CURLMOPT_MAX_CONCURRENT_STREAMS, (long)FETCH_STREAMS_MAX);
    return 0;
}

void fetch_multi_fini(struct fetch_multi *m)
{
    m->pool->in_curl++;
    curl_multi_cleanup(m->h); /* closes connections, and tells us */
    m->pool->in_curl--;
    ev_timer_free(&m->timer);
}

/* ---- the pump */

static void multi_read_ended(struct fetch_multi *m)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(m->h, &left)) != NULL) {
        struct fetch_easy *e = NULL;
        struct fetch *f;

        if (msg->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &e);
        ASSERT(e && e->f);
        f = e->f;
        if (f->dropped) { /* ended and cancelled in one go */
            list_remove(&f->link);
            fetch_free(f);
            continue;
        }
        if (f->lost && !f->sent) {
            fetch_host_requeue(f);
            continue;
        }
        fetch_outcome_set(f, msg->data.result);
        fetch_host_learn(f->host, f);
        fetch_finish(f);
    }
}

static void pump_incoming(struct fetch_pool *p)
{
    while (!list_empty(&p->incoming))
        fetch_host_take(list_first(&p->incoming, struct fetch, link));
}

static void pump_failed(struct fetch_pool *p)
{
    while (!list_empty(&p->failed))
        fetch_finish(list_first(&p->failed, struct fetch, link));
}

static void pump_dropped(struct fetch_pool *p)
{
    while (!list_empty(&p->dropped))
        fetch_free(list_first(&p->dropped, struct fetch, link));
}

/* Slots may have become free. */
static void pump_queued(struct fetch_pool *p)
{
    size_t slot = 0;

    if (list_empty(&p->queued))
        return;
    for (struct hnode *at = hmap_walk(&p->hosts, &slot, NULL); at;
         at = hmap_walk(&p->hosts, &slot, at))
        fetch_host_pump(hmap_entry(at, struct fetch_host, node));
}

static void pump_resumed(struct fetch_pool *p)
{
    struct list *it, *tmp;

    if (!p->resumed)
        return;
    p->resumed = false;
    list_each (it, tmp, &p->running) {
        struct fetch *f = list_entry(it, struct fetch, link);

        if (!f->resume)
            continue;
        f->resume = false;
        p->in_curl++;
        curl_easy_pause(f->easy->h, CURLPAUSE_CONT);
        p->in_curl--;
    }
}

static bool pump_is_idle(const struct fetch_pool *p)
{
    return list_empty(&p->incoming) && list_empty(&p->failed) && list_empty(&p->dropped) &&
           !p->resumed && !p->multi[WAY_SINGLE].due && !p->multi[WAY_SHARED].due;
}

void fetch_pool_pump(struct fetch_pool *p)
{
    bool idle = false;

    ASSERT(!p->working && p->in_curl == 0);
    p->working = true;
    for (int round = 0; round < PUMP_ROUNDS && !idle; round++) {
        pump_dropped(p);
        for (int w = 0; w < WAYS; w++)
            multi_read_ended(&p->multi[w]);
        pump_failed(p);
        pump_incoming(p);
        pump_queued(p);
        pump_resumed(p);
        idle = pump_is_idle(p);
        for (int w = 0; w < WAYS && !idle; w++)
            fetch_multi_run(&p->multi[w]);
    }
    p->working = false;
    if (!idle)
        fetch_pool_post(p);
    if (p->active && !ev_timer_armed(p->sweep))
        ev_timer_arm(p->sweep, FETCH_SWEEP_MS);
    if (p->active) {
        p->rested = 0;
        if (!ev_timer_armed(p->rest))
            ev_timer_arm(p->rest, idle_ms(p) + FETCH_REST_MS);
    }
}

static void on_task(struct ev_task *task)
{
    struct fetch_pool *p = container_of(task, struct fetch_pool, task);

    p->posted = false;
    if (p->freed)
        xfree(p);
    else
        fetch_pool_pump(p);
}

void fetch_pool_post(struct fetch_pool *p)
{
    if (p->posted || p->working)
        return;
    p->posted = true;
    ev_defer(p->loop, &p->task);
}

/* ---- what curl does not time: our queues, its own queue, and stalls in milliseconds */

static bool has_stalled(struct fetch *f, int64_t now)
{
    curl_off_t up = 0, down = 0;

    if (f->o.stall_ms == 0)
        return false;
    curl_easy_getinfo(f->easy->h, CURLINFO_SIZE_UPLOAD_T, &up);
    curl_easy_getinfo(f->easy->h, CURLINFO_SIZE_DOWNLOAD_T, &down);
    if (up + down != f->stall_bytes || f->paused) {
        f->stall_bytes = up + down;
        f->stall_ns = now;
    }
    return now - f->stall_ns > FETCH_NS(f->o.stall_ms);
}

static void sweep_running(struct fetch_pool *p, int64_t now)
{
    struct list *it, *tmp;

    list_each (it, tmp, &p->running) {
        struct fetch *f = list_entry(it, struct fetch, link);
        bool stalled = has_stalled(f, now);

        if (!p->cut && !stalled && now < f->deadline_ns + FETCH_NS(FETCH_SWEEP_MS))
            continue;
        fetch_outcome_set(f, CURLE_OPERATION_TIMEDOUT);
        if (stalled && f->r.outcome != FETCH_ANSWERED)
            err_set(&f->r.err, ERR_TIMEOUT, "%s: no byte either way for %u ms", f->host->text,
                    f->o.stall_ms);
        fetch_easy_stop(f);
        list_remove(&f->link);
        f->state = FETCH_S_FAILED;
        list_append(&p->failed, &f->link);
    }
}

static void sweep_queued(struct fetch_pool *p, int64_t now)
{
    struct list *it, *tmp;

    list_each (it, tmp, &p->queued) {
        struct fetch *f = list_entry(it, struct fetch, link);

        if (!p->cut && now < f->deadline_ns)
            continue;
        err_set(&f->early, ERR_TIMEOUT, "%s: %s for %u ms", f->host->text,
                f->host->name && f->host->name->lookup ? "its name could not be resolved"
                                                       : "no connection was free",
                f->o.timeout_ms);
        fetch_fail(f);
    }
}

static void on_sweep(void *ctx)
{
    struct fetch_pool *p = ctx;
    int64_t now = ev_now_ns(p->loop);

    sweep_running(p, now);
    sweep_queued(p, now);
    fetch_pool_pump(p);
}

void fetch_pool_cut(struct fetch_pool *p, bool on)
{
    OBJ_CHECK(p, FETCH_POOL_MAGIC);
    p->cut = on;
    if (on && p->active)
        ev_timer_arm(p->sweep, 0);
}

/* ---- life */

static void curl_init(void)
{
    /* Its copies of fields and URLs are overwritten as ours are. */
    if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, xmalloc, xfree, xrealloc, xstrdup, xcalloc) !=
        CURLE_OK)
        BUG("libcurl cannot be initialised");
}

static void curl_init_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, curl_init);
}

struct fetch_pool *fetch_pool_new(struct ev_loop *loop, const struct fetch_pool_opts *o)
{
    struct fetch_pool *p = XNEW(struct fetch_pool);
    unsigned max = o->max_connections_per_host;

    ASSERT(o->resolver);
    curl_init_once();
    OBJ_INIT(p, FETCH_POOL_MAGIC);
    p->loop = loop;
    p->o = *o;
    list_init(&p->incoming);
    list_init(&p->queued);
    list_init(&p->running);
    list_init(&p->dropped);
    list_init(&p->failed);
    p->conns = xcalloc(UINT16_MAX + 1, sizeof(uint32_t));
    p->task.run = on_task;
    p->sweep = ev_timer_new(loop, on_sweep, p);
    p->rest = ev_timer_new(loop, on_rest, p);
    p->share = curl_share_init();
    if (!p->share || fetch_multi_init(&p->multi[WAY_SINGLE], p, max ? max : FETCH_SINGLE_MAX) ||
        fetch_multi_init(&p->multi[WAY_SHARED], p, max ? max : FETCH_SHARED_MAX))
        BUG("libcurl cannot be set up");
    curl_share_setopt(p->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    curl_share_setopt(p->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    return p;
}

static void drop_all(struct list *fetches)
{
    while (!list_empty(fetches))
        fetch_free(list_first(fetches, struct fetch, link));
}

void fetch_pool_free(struct fetch_pool **pp)
{
    struct fetch_pool *p = *pp;

    if (!p)
        return;
    OBJ_CHECK(p, FETCH_POOL_MAGIC);
    ASSERT(!p->working && p->in_curl == 0);
    *pp = NULL;
    p->working = true; /* nothing is posted any more */
    drop_all(&p->incoming);
    drop_all(&p->queued);
    drop_all(&p->running);
    drop_all(&p->dropped);
    drop_all(&p->failed);
    fetch_host_free_all(p);
    for (int w = 0; w < WAYS; w++)
        fetch_multi_fini(&p->multi[w]);
    curl_share_cleanup(p->share);
    for (size_t fd = 0; fd < p->n_socks; fd++)
        fetch_sock_drop(p, (int)fd);
    xfree(p->socks);
    xfree(p->conns);
    ev_timer_free(&p->sweep);
    ev_timer_free(&p->rest);
    OBJ_FINI(p);
    p->freed = true;
    if (!p->posted) /* else the loop still has the task */
        xfree(p);
}
