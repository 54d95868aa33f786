/* What a worker does when another process takes over, and for the process it took over from. */
#include "app/worker.h"

#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "rt/fdx.h"

/* Distinct identities of clients; beyond that the audit trail knows them by address only. */
enum { NAMES_MAX = 1024 };

struct step {
    struct ev_task task;
    struct worker *w;
    enum worker_step step;
    unsigned ms;
    struct onward_way *way;
};

static void pause_listeners(struct worker *w, bool on)
{
    size_t i;

    for (i = 0; i < w->n_sockets; i++) {
        if (w->sockets[i].watch)
            net_listener_pause(w->sockets[i].watch, on);
    }
}

static void each_server(struct worker *w, void (*fn)(struct http_server *s, bool on), bool on)
{
    size_t i;

    for (i = 0; i < w->n_listen; i++) {
        if (w->listeners[i].server)
            fn(w->listeners[i].server, on);
    }
    if (w->onwarded)
        fn(w->onwarded, on);
}

static void still(struct worker *w, bool on)
{
    pause_listeners(w, on);
    each_server(w, http_server_hold, on);
    intercept_hold(w->intercept, on);
}

static void resume(struct worker *w)
{
    fetch_pool_cut(w->fetches, false);
    logs_worker_still(w->shard, false);
    still(w, false);
}

static void set_last(struct http_server *s, bool on)
{
    (void)on;
    http_server_last(s);
}

/* Intercepted connections stay as they are: each is somebody's tunnel. */
static void leave(struct worker *w, struct onward_way *way)
{
    size_t i;

    onward_begin(&w->onward, way, w->plan->harness.authority);
    for (i = 0; i < w->n_sockets; i++) {
        if (w->listeners[w->sockets[i].listener].gone)
            net_listener_free(&w->sockets[i].watch);
        else
            net_listener_leave(&w->sockets[i].watch);
    }
    each_server(w, set_last, true);
    each_server(w, http_server_hold, false);
    intercept_hold(w->intercept, false);
}

static void set_drain(struct http_server *s, bool on)
{
    (void)on;
    http_server_drain(s);
}

static void end(struct worker *w, unsigned ms)
{
    each_server(w, set_drain, true);
    intercept_drain(w->intercept);
    tunnels_drain(w->tunnels, ms);
}

static void run_step(struct ev_task *task)
{
    struct step *s = container_of(task, struct step, task);
    struct worker *w = s->w;

    switch (s->step) {
    case WORKER_HOLD:
        logs_worker_hold(w->shard, true);
        break;
    case WORKER_CUT:
        fetch_pool_cut(w->fetches, true);
        break;
    case WORKER_STILL:
        fetch_pool_cut(w->fetches, false); /* calls that are in hand may need it */
        still(w, true);
        break;
    case WORKER_QUIET:
        logs_worker_still(w->shard, true);
        break;
    case WORKER_RESUME:
        resume(w);
        break;
    case WORKER_LEAVE:
        leave(w, s->way);
        break;
    case WORKER_END:
        end(w, s->ms);
        break;
    }
    xfree(s);
}

static struct step *step_new(struct worker *w, enum worker_step step)
{
    struct step *s = XNEW(struct step);

    s->w = w;
    s->step = step;
    s->task.run = run_step;
    return s;
}

void worker_step(struct worker *w, enum worker_step step, unsigned ms)
{
    struct step *s = step_new(w, step);

    s->ms = ms;
    ev_post(w->loop, &s->task);
}

void worker_leave(struct worker *w, struct onward_way *way)
{
    struct step *s = step_new(w, WORKER_LEAVE);

    s->way = way;
    ev_post(w->loop, &s->task);
}

/* --- looking ------------------------------------------------------------------------------ */

static void looked(struct ev_task *task)
{
    struct worker_look *l = container_of(task, struct worker_look, task);

    l->done(l);
}

static void look(struct ev_task *task)
{
    struct worker_look *l = container_of(task, struct worker_look, task);

    l->going_on = logs_worker_going_on(l->w->shard);
    l->task.run = looked;
    ev_post(l->back, &l->task);
}

void worker_look(struct worker *w, struct worker_look *l)
{
    l->w = w;
    l->task.run = look;
    ev_post(w->loop, &l->task);
}

/* --- exchanges of another process --------------------------------------------------------- */

struct onwarded {
    struct ev_task task;
    struct worker *w;
    int fd;
    struct onward_from from;
    struct str texts; /* what `from` points into */
};

static struct view name_kept(struct worker *w, struct view name)
{
    struct worker_name *n;

    for (n = w->names; n; n = n->next) {
        if (view_eq(view_str(n->text), name))
            return view_str(n->text);
    }
    if (!name.n || w->n_names >= NAMES_MAX)
        return VIEW_NONE;
    n = xcalloc(1, sizeof(*n) + name.n + 1);
    memcpy(n->text, name.p, name.n);
    n->next = w->names;
    w->names = n;
    w->n_names++;
    return view_str(n->text);
}

void worker_names_free(struct worker *w)
{
    while (w->names) {
        struct worker_name *n = w->names;

        w->names = n->next;
        xfree(n);
    }
}

static const char *listener_kept(const struct worker *w, struct view name)
{
    size_t i;

    for (i = 0; i < w->n_listen; i++) {
        if (view_is(name, w->plan->config->listen[i].name))
            return w->plan->config->listen[i].name;
    }
    return NULL;
}

static void take_onwarded(struct ev_task *task)
{
    struct onwarded *a = container_of(task, struct onwarded, task);
    struct worker *w = a->w;
    struct net_addr peer;
    const struct http_conn_opts o = {
        .listener = listener_kept(w, a->from.listener),
        .secure = a->from.tls,
        .identity = name_kept(w, a->from.identity),
        .tag = a->from.inside ? w : NULL, /* any mark will do */
    };
    const struct http_server_opts so = {
        .service = &w->onward.service,
        .max_connections = (unsigned)w->plan->config->limit_connections,
    };

    if (!w->onwarded)
        w->onwarded = http_server_new(w->loop, &so);
    if (net_addr_parse(a->from.peer, &peer, NULL) < 0)
        peer = (struct net_addr){.len = sizeof(sa_family_t)};
    (void)http_server_accepted_as(w->onwarded, a->fd, &peer, &o);
    str_fini(&a->texts);
    xfree(a);
}

static struct view copied(struct str *to, struct view v)
{
    size_t at = to->n;

    str_addv(to, v);
    return view_of(to->p + at, v.n);
}

void worker_onwarded(struct worker *w, int fd, const struct onward_from *from)
{
    struct onwarded *a = XNEW(struct onwarded);

    a->w = w;
    a->fd = fd;
    a->from = *from;
    str_reserve(&a->texts, from->listener.n + from->peer.n + from->identity.n + 1);
    a->from.listener = copied(&a->texts, from->listener);
    a->from.peer = copied(&a->texts, from->peer);
    a->from.identity = copied(&a->texts, from->identity);
    a->task.run = take_onwarded;
    ev_post(w->loop, &a->task);
}
