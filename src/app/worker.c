#include "app/worker.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "app/egress.h"
#include "base/xmem.h"
#include "rt/fdx.h"
#include "rt/log.h"

enum {
    WATCH_MS = 100,
    RPC_IDLE_MS = 600 * 1000,  /* a connection without calls: gRPC's clients keep them */
    RPC_WRITE_MS = 330 * 1000, /* a socket that takes nothing at all */
};

/* --- plans -------------------------------------------------------------------------------- */

static struct tls_ctx *upstream_tls(const struct config *c, struct err *e)
{
    const struct tls_client_opts o = {
        .ca = c->upstream_ca,
        .certificate = c->upstream_certificate,
        .key = c->upstream_key,
        .min_version = config_tls_min(c),
    };
    struct tls_ctx *tls = tls_ctx_client(&o, e);

    if (!tls)
        err_prefix(e, "upstream");
    return tls;
}

/* TLS towards the destinations of grpc listeners. */
static int plan_grpc(struct plan *p, struct err *e)
{
    size_t i;

    for (i = 0; i < p->config->n_listen && !p->grpc_tls; i++) {
        const struct config_listen *l = &p->config->listen[i];

        if (l->mode != CONFIG_MODE_GRPC || strncmp(l->to, "https:", 6) != 0)
            continue;
        p->grpc_tls = upstream_tls(p->config, e);
        if (!p->grpc_tls)
            return -1;
    }
    return 0;
}

static int plan_client(struct plan *p, struct err *e)
{
    const struct config *c = p->config;

    if (url_parse(view_str(c->harness_url), &p->harness, e) < 0)
        return err_prefix(e, "harness.url");
    p->harness_host = xmemdup0(p->harness.host.p, p->harness.host.n);
    if (!p->harness.https)
        return 0;
    p->client_tls = upstream_tls(c, e);
    return p->client_tls ? 0 : -1;
}

static int plan_server(struct plan *p, size_t i, struct err *e)
{
    const struct config_listen *l = &p->config->listen[i];
    const struct tls_server_opts o = {
        .certificate = l->certificate,
        .key = l->key,
        .client_ca = l->client_ca,
        .client_required = l->client_ca != NULL,
        .http2 = l->mode != CONFIG_MODE_PROXY, /* CONNECT is handed on with its connection */
    };

    if (!l->certificate)
        return 0;
    p->server_tls[i] = tls_ctx_server(&o, e);
    return p->server_tls[i] ? 0 : err_prefix(e, "listen.%s", l->name);
}

static int plan_senders(struct plan *p, size_t i, struct err *e)
{
    const struct conf_list *list = &p->config->listen[i].proxy_protocol;
    struct plan_senders *s = &p->senders[i];

    s->ranges = xcalloc(list->n + 1, sizeof(*s->ranges));
    for (; s->n < list->n; s->n++) {
        if (addr_range_parse(view_str(list->items[s->n]), &s->ranges[s->n], e) < 0)
            return err_prefix(e, "listen.%s.proxy-protocol", p->config->listen[i].name);
    }
    return 0;
}

static int plan_users(struct plan *p, size_t i, struct err *e)
{
    const struct config_listen *l = &p->config->listen[i];

    if (!l->users)
        return 0;
    p->users[i] = basic_users_load(l->users, e);
    return p->users[i] ? 0 : err_prefix(e, "listen.%s.users", l->name);
}

static int plan_listener(struct plan *p, size_t i, struct err *e)
{
    if (plan_server(p, i, e) < 0 || plan_senders(p, i, e) < 0)
        return -1;
    return plan_users(p, i, e);
}

static int plan_gate(struct plan *p, struct err *e)
{
    const struct config *c = p->config;

    egress_own_addresses();
    p->policy = egress_policy(c, e);
    if (!p->policy || parent_new(c, &p->parent, e) < 0)
        return -1;
    p->gate = (struct gate_settings){
        .policy = p->policy,
        .parent = parent_net(p->parent),
        .connect_ms = (unsigned)c->egress_connect_ms,
        .idle_ms = (unsigned)c->egress_idle_ms,
        .audit_interval_ms = (unsigned)c->audit_interval_ms,
    };
    return 0;
}

struct plan *plan_new(const struct config *config, struct err *e)
{
    struct plan *p = XNEW(struct plan);
    size_t i;
    int rc;

    p->config = config;
    rc = plan_client(p, e);
    if (rc == 0)
        rc = plan_gate(p, e);
    if (rc == 0)
        rc = plan_grpc(p, e);
    if (rc == 0)
        rc = inside_plan_init(&p->inside, config, e);
    if (rc == 0 && config->n_listen > WORKER_LISTENERS)
        rc = err_set(e, ERR_LIMIT, "listen: at most %d listeners", WORKER_LISTENERS);
    for (i = 0; rc == 0 && i < config->n_listen; i++)
        rc = plan_listener(p, i, e);
    if (rc == 0)
        return p;
    plan_free(p);
    return NULL;
}

void plan_free(struct plan *p)
{
    size_t i;

    if (!p)
        return;
    for (i = 0; i < WORKER_LISTENERS; i++) {
        tls_ctx_unref(&p->server_tls[i]);
        basic_users_free(&p->users[i]);
        xfree(p->senders[i].ranges);
    }
    tls_ctx_unref(&p->client_tls);
    tls_ctx_unref(&p->grpc_tls);
    inside_plan_fini(&p->inside);
    policy_free(&p->policy);
    parent_free(&p->parent);
    xfree(p->harness_host);
    xfree(p);
}

void plan_relay_target(const struct plan *p, struct relay_target *out)
{
    struct view base = p->harness.path;

    if (view_is(base, "/"))
        base = VIEW_NONE;
    *out = (struct relay_target){
        .host = p->harness_host,
        .port = p->harness.port,
        .authority = p->harness.authority,
        .base = base,
        .tls = p->client_tls,
    };
}

/* --- set-up ------------------------------------------------------------------------------- */

static int init_clients(struct worker *w, const struct plan *plan, struct err *e)
{
    struct str servers = STR_INIT;
    struct relay_target target;

    config_resolvers(plan->config, &servers);
    w->resolver = net_resolver_new(w->loop, servers.p, e);
    str_fini(&servers);
    if (!w->resolver)
        return err_prefix(e, "upstream.resolvers");
    w->fetches = fetch_pool_new(w->loop, &(struct fetch_pool_opts){.resolver = w->resolver});
    w->client = http_client_new(w->loop, &(struct http_client_opts){.resolver = w->resolver});
    w->rpc = rpc_client_new(w->loop, &(struct rpc_client_opts){
                                         .resolver = w->resolver,
                                         .connect_ms = (unsigned)plan->config->egress_connect_ms});
    plan_relay_target(plan, &target);
    w->gate = gate_new(w->loop, w->resolver, &plan->gate);
    w->tunnels = tunnels_new(w->loop);
    w->relays = relays_new(w->gate, w->client);
    w->relay = relay_service_new(w->relays, &target);
    return 0;
}

static struct http_server *new_server(struct worker *w, size_t i,
                                      const struct http_service *service)
{
    const bool rpc = w->plan->config->listen[i].mode == CONFIG_MODE_GRPC;
    const struct http_server_opts o = {
        .tls = w->plan->server_tls[i],
        .service = service,
        .listener = w->plan->config->listen[i].name,
        .max_connections = (unsigned)w->plan->config->limit_connections,
        .rpc = rpc,
        .idle_timeout_ms = rpc ? RPC_IDLE_MS : 0,
        .write_timeout_ms = rpc ? RPC_WRITE_MS : 0,
    };

    return http_server_new(w->loop, &o);
}

static void init_proxy(struct worker *w, size_t i)
{
    const struct proxy_opts o = {
        .listener = w->plan->config->listen[i].name,
        .gate = w->gate,
        .tunnels = w->tunnels,
        .client = w->client,
        .loop = w->loop,
        .intercept = w->intercept,
        .pool = w->pool,
        .users = w->plan->users[i],
        .max_connections = (unsigned)w->plan->config->limit_connections,
    };

    w->listeners[i].proxy = proxy_service_new(&o);
    w->listeners[i].server = new_server(w, i, proxy_http(w->listeners[i].proxy));
}

static void init_forward(struct worker *w, size_t i)
{
    const struct config_listen *l = &w->plan->config->listen[i];
    const struct forward_opts o = {
        .listener = l->name,
        .to = l->to,
        .gate = w->gate,
        .tunnels = w->tunnels,
        .loop = w->loop,
        .max_connections = (unsigned)w->plan->config->limit_connections,
    };

    w->listeners[i].forward = forward_new(&o);
}

static void init_grpc(struct worker *w, size_t i)
{
    const struct grpc_opts o = {
        .listener = w->plan->config->listen[i].name,
        .gate = w->gate,
        .client = w->rpc,
        .to = w->plan->config->listen[i].to,
        .tls = w->plan->grpc_tls,
    };

    w->listeners[i].grpc = grpc_service_new(&o);
    w->listeners[i].server = new_server(w, i, grpc_http(w->listeners[i].grpc));
}

static void init_intercept(struct worker *w)
{
    struct intercept_opts o = {
        .loop = w->loop,
        .gate = w->gate,
        .tunnels = w->tunnels,
        .relays = w->relays,
        .harness = &w->onward.service,
        .max_connections = (unsigned)w->plan->config->limit_connections,
    };

    inside_plan_opts(&w->plan->inside, &o);
    w->intercept = intercept_new(&o);
}

static void init_listener(struct worker *w, size_t i)
{
    const struct config_listen *l = &w->plan->config->listen[i];

    switch (l->mode) {
    case CONFIG_MODE_UPSTREAM:
        w->listeners[i].server = new_server(w, i, &w->onward.service);
        break;
    case CONFIG_MODE_PROXY:
        init_proxy(w, i);
        break;
    case CONFIG_MODE_FORWARD:
        init_forward(w, i);
        break;
    case CONFIG_MODE_GRPC:
        init_grpc(w, i);
        break;
    case CONFIG_MODE_SNI:
        w->listeners[i].sni = intercept_listener_new(w->intercept, l->name, inside_port(l));
        break;
    default:
        break; /* the main thread's */
    }
}

static void watch_due(void *ctx)
{
    struct worker *w = ctx;
    size_t i, n = 0;

    for (i = 0; i < w->n_listen; i++)
        n += w->listeners[i].server ? http_server_connections(w->listeners[i].server) : 0;
    for (i = 0; i < w->n_listen; i++)
        n += w->listeners[i].forward ? forward_waiting(w->listeners[i].forward) : 0;
    n += w->tunnels ? tunnels_count(w->tunnels) : 0;
    n += w->intercept ? intercept_connections(w->intercept) : 0;
    n += w->onwarded ? http_server_connections(w->onwarded) : 0;
    atomic_store(&w->connections, n);
    ev_timer_arm(w->watch, WATCH_MS);
}

int worker_init(struct worker *w, unsigned index, const struct plan *plan, struct logs *logs,
                struct err *e)
{
    char name[16];
    size_t i;

    snprintf(name, sizeof(name), "worker-%u", index);
    w->index = index;
    w->plan = plan;
    w->n_listen = plan->config->n_listen;
    w->loop = ev_loop_new(name);
    if (init_clients(w, plan, e) < 0)
        return -1;
    w->shard = logs_add_worker(logs, w->loop, w->fetches, relay_http(w->relay));
    onward_init(&w->onward, logs_service(w->shard), relay_http(w->relay), w->relays, w->gate);
    init_intercept(w);
    for (i = 0; i < w->n_listen; i++)
        init_listener(w, i);
    w->watch = ev_timer_new(w->loop, watch_due, w);
    ev_timer_arm(w->watch, WATCH_MS);
    return 0;
}

static void *worker_main(void *ctx)
{
    struct worker *w = ctx;
    char name[16];

    snprintf(name, sizeof(name), "worker-%u", w->index);
    pthread_setname_np(pthread_self(), name);
    ev_loop_run(w->loop);
    return NULL;
}

static bool is_trusted(void *ctx, const struct net_addr *sender)
{
    const struct plan_senders *s = ctx;
    size_t i;

    for (i = 0; i < s->n; i++) {
        if (addr_range_has(&s->ranges[i], (const struct sockaddr *)&sender->ss))
            return true;
    }
    return false;
}

static void trust(struct worker *w, size_t i)
{
    struct net_proxied *p = w->listeners[i].proxied;

    if (p)
        net_proxied_configure(p, is_trusted, (void *)&w->plan->senders[i]);
}

static void begin_listening(struct worker *w, struct worker_socket *s)
{
    struct worker_listener *l = &w->listeners[s->listener];
    const struct net_proxied_opts o = {
        .loop = w->loop,
        .trusted = is_trusted,
        .trusted_ctx = (void *)&w->plan->senders[s->listener],
        .fn = l->forward ? forward_accepted
              : l->sni   ? intercept_accepted
                         : http_server_accepted,
        .ctx = l->forward ? (void *)l->forward
               : l->sni   ? (void *)l->sni
                          : (void *)l->server,
    };

    if (!l->proxied)
        l->proxied = net_proxied_new(&o);
    s->watch = net_listener_new(w->loop, s->fd, net_proxied_accepted, l->proxied);
    s->fd = -1;
}

void worker_add_socket(struct worker *w, size_t listener, int fd, bool shared)
{
    w->sockets = xrealloc(w->sockets, (w->n_sockets + 1) * sizeof(*w->sockets));
    w->sockets[w->n_sockets++] =
        (struct worker_socket){.fd = fd, .listener = listener, .shared = shared};
}

int worker_start(struct worker *w, struct err *e)
{
    size_t i;
    int rc;

    for (i = 0; i < w->n_sockets; i++)
        begin_listening(w, &w->sockets[i]);
    rc = pthread_create(&w->thread, NULL, worker_main, w);
    return rc ? err_errno(e, ERR_IO, rc, "cannot start a worker thread") : 0;
}

static void stop_listening(struct worker *w)
{
    size_t i;

    for (i = 0; i < w->n_sockets; i++) {
        fd_close(&w->sockets[i].fd);
        if (w->sockets[i].shared) /* the next process takes what is queued */
            net_listener_leave(&w->sockets[i].watch);
        else
            net_listener_free(&w->sockets[i].watch);
    }
}

/* --- orders from the main thread ---------------------------------------------------------- */

struct order {
    struct ev_task task;
    struct worker *w;
    const struct plan *plan;
    sem_t *done;
};

static void give_order(struct worker *w, void (*run)(struct ev_task *), const struct plan *plan,
                       sem_t *done)
{
    struct order *o = XNEW(struct order);

    o->w = w;
    o->plan = plan;
    o->done = done;
    o->task.run = run;
    ev_post(w->loop, &o->task);
}

static void run_apply(struct ev_task *task)
{
    struct order *o = container_of(task, struct order, task);
    struct intercept_opts inside = {0};
    struct relay_target target;
    size_t i;

    o->w->plan = o->plan;
    inside_plan_opts(&o->plan->inside, &inside);
    intercept_configure(o->w->intercept, &inside);
    plan_relay_target(o->plan, &target);
    relay_configure(o->w->relay, &target);
    gate_configure(o->w->gate, &o->plan->gate);
    gate_recheck(o->w->gate);
    tunnels_recheck(o->w->tunnels, o->plan->policy);
    intercept_recheck(o->w->intercept, o->plan->policy);
    net_resolver_reload(o->w->resolver);
    for (i = 0; i < o->w->n_listen; i++) {
        struct worker_listener *l = &o->w->listeners[i];

        if (l->server && o->plan->server_tls[i])
            http_server_set_tls(l->server, o->plan->server_tls[i]);
        trust(o->w, i);
        if (l->proxy)
            proxy_service_set_users(l->proxy, o->plan->users[i]);
        if (l->forward)
            forward_configure(l->forward, o->plan->config->listen[i].to);
        if (l->grpc)
            grpc_configure(l->grpc, o->plan->config->listen[i].to, o->plan->grpc_tls);
        if (l->sni)
            intercept_listener_configure(l->sni, inside_port(&o->plan->config->listen[i]));
    }
    xfree(o);
}

static void run_drain(struct ev_task *task)
{
    struct order *o = container_of(task, struct order, task);
    struct worker *w = o->w;
    size_t i;

    stop_listening(w);
    for (i = 0; i < w->n_listen; i++) {
        if (w->listeners[i].server)
            http_server_drain(w->listeners[i].server);
    }
    if (w->onwarded)
        http_server_drain(w->onwarded);
    intercept_drain(w->intercept);
    /* Half the time: those who come back must find the next gateway, not one another. */
    tunnels_drain(w->tunnels, (unsigned)(w->plan->config->drain_limit_ms / 2));
    xfree(o);
}

static void run_quiesce(struct ev_task *task)
{
    struct order *o = container_of(task, struct order, task);
    struct worker *w = o->w;
    size_t i;

    stop_listening(w);
    for (i = 0; i < w->n_listen; i++) {
        net_proxied_free(&w->listeners[i].proxied);
        http_server_free(&w->listeners[i].server);
        forward_free(&w->listeners[i].forward);
    }
    http_server_free(&w->onwarded);
    ev_timer_disarm(w->watch); /* it counts what is no more */
    intercept_free(&w->intercept);
    tunnels_free(&w->tunnels);
    logs_worker_quiesce(w->shard);
    sem_post(o->done);
    xfree(o);
}

static void run_stop(struct ev_task *task)
{
    struct order *o = container_of(task, struct order, task);

    logs_worker_stop(o->w->shard, ev_loop_stop);
    xfree(o);
}

void worker_apply(struct worker *w, const struct plan *plan)
{
    give_order(w, run_apply, plan, NULL);
}

void worker_drain(struct worker *w)
{
    give_order(w, run_drain, NULL, NULL);
}

void worker_quiesce(struct worker *w, sem_t *done)
{
    give_order(w, run_quiesce, NULL, done);
}

void worker_stop(struct worker *w)
{
    give_order(w, run_stop, NULL, NULL);
}

void worker_fini(struct worker *w)
{
    size_t i;

    stop_listening(w);
    xfree(w->sockets);
    for (i = 0; i < w->n_listen; i++) {
        net_proxied_free(&w->listeners[i].proxied);
        http_server_free(&w->listeners[i].server);
        forward_free(&w->listeners[i].forward);
        proxy_service_free(&w->listeners[i].proxy);
    }
    http_server_free(&w->onwarded);
    worker_names_free(w);
    rpc_client_free(&w->rpc);
    for (i = 0; i < w->n_listen; i++)
        grpc_service_free(&w->listeners[i].grpc);
    intercept_free(&w->intercept);
    tunnels_free(&w->tunnels);
    relay_service_free(&w->relay);
    relays_free(&w->relays);
    http_client_free(&w->client);
    gate_free(&w->gate);
    fetch_pool_free(&w->fetches);
    net_resolver_free(&w->resolver);
    ev_timer_free(&w->watch);
    if (w->loop)
        ev_loop_free(&w->loop);
}
