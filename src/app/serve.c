#include "app/serve.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "admin/admin.h"
#include "app/egress.h"
#include "app/settings.h"
#include "app/worker.h"
#include "base/xmem.h"
#include "conf/dump.h"
#include "rt/clock.h"
#include "rt/fdx.h"
#include "rt/log.h"
#include "rt/metric.h"
#include "rt/ready.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

enum {
    BACKLOG = 1024,
    DRAIN_TICK_MS = 50,
    ADDRESSES_MS = 10 * 1000,
    POOL_THREADS = 2,
    POOL_QUEUE = 256
};

struct gateway {
    const char *config_path;
    struct config *config;
    struct plan *plan;
    struct config **old_configs; /* replaced ones and their plans: requests may still use them */
    struct plan **old_plans;
    size_t n_old;
    struct ev_loop *loop; /* the main thread's: signals, admin */
    struct ev_signal *signals[4];
    struct ev_pool *pool;
    struct spool *spool;
    struct logs *logs;
    struct worker *workers;
    unsigned n_workers, n_started;
    struct http_server *admin[WORKER_LISTENERS];
    struct net_listener *admin_listeners[WORKER_LISTENERS];
    struct ev_timer *drain_timer;
    struct ev_timer *addresses; /* our own: they come and go */
    int64_t drain_until;
    bool draining;
    uint64_t generation;
    struct metric *generation_metric, *reload_failures;
};

/* --- readiness to whoever supervises us (sd_notify's protocol, one datagram) ---------------- */

static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd;

    if (!path || strlen(path) >= sizeof(to.sun_path) || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(to.sun_path, path, strlen(path));
    if (path[0] == '@')
        to.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) < 0)
        log_event(LOG_WARN, "app", "cannot notify the supervisor");
    fd_close(&fd);
}

/* --- listeners ---------------------------------------------------------------------------- */

static void say_listening(const struct config_listen *l, const struct net_addr *at)
{
    char text[NET_ADDR_TEXT];

    log_event(LOG_NOTICE, "app", "listening", LF_STR("listener", l->name),
              LF_STR("address", net_addr_text(at, text)), LF_BOOL("tls", l->certificate != NULL));
}

/* One listening descriptor for each worker; with port 0 all take the port that the first was given.
 */
static int listen_upstream(struct gateway *g, size_t i, struct err *e)
{
    const struct config_listen *l = &g->config->listen[i];
    struct net_addr at;
    unsigned w;

    if (net_addr_parse(view_str(l->address), &at, e) < 0)
        return -1;
    for (w = 0; w < g->n_workers; w++) {
        g->workers[w].fds[i] = net_listen_fd(&at, BACKLOG, &at, e);
        if (g->workers[w].fds[i] < 0)
            return -1;
    }
    say_listening(l, &at);
    return 0;
}

static int listen_admin(struct gateway *g, size_t i, struct err *e)
{
    const struct config_listen *l = &g->config->listen[i];
    const struct http_server_opts o = {
        .tls = g->plan->server_tls[i], .service = admin_service(), .max_connections = 256};
    struct net_addr at;
    int fd;

    if (net_addr_parse(view_str(l->address), &at, e) < 0)
        return -1;
    fd = net_listen_fd(&at, BACKLOG, &at, e);
    if (fd < 0)
        return -1;
    g->admin[i] = http_server_new(g->loop, &o);
    g->admin_listeners[i] = net_listener_new(g->loop, fd, http_server_accepted, g->admin[i]);
    say_listening(l, &at);
    return 0;
}

static int open_listeners(struct gateway *g, struct err *e)
{
    size_t i;

    for (i = 0; i < g->config->n_listen; i++) {
        bool admin = g->config->listen[i].mode == CONFIG_MODE_ADMIN;

        if ((admin ? listen_admin(g, i, e) : listen_upstream(g, i, e)) < 0)
            return err_prefix(e, "listen.%s", g->config->listen[i].name);
    }
    return 0;
}

/* --- start-up ----------------------------------------------------------------------------- */

static struct config *load_config(const char *path)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct config *c = NULL;

    if (config_load(path, &c, &errors) < 0)
        conf_errors_print(&errors, stderr);
    conf_errors_fini(&errors);
    return c;
}

/*
 * Without its spool the gateway does not start: what waits in there goes before what comes now, and
 * whether an open was sent, a close or a blob, only the spool knows. Whoever supervises it tries
 * again.
 */
static const char *spool_remedy(enum err_code code)
{
    switch (code) {
    case ERR_FULL:
        return "the disk is full: free 16 MiB or more on this file system; nothing in the spool "
               "is lost";
    case ERR_UNAVAIL:
        return "stop the other process, or give each its own directory";
    case ERR_INVALID:
        return "choose another directory, on a local disk";
    default:
        return "is it the right path, does it belong to the user that the gateway runs as, and is "
               "its file system mounted for writing and without errors (dmesg)?";
    }
}

static int open_spool(struct gateway *g, struct err *e)
{
    const struct spool_opts o = {
        .directory = g->config->spool_directory,
        .limit = g->config->spool_limit,
        .sync = g->config->spool_sync,
    };
    struct str note = STR_INIT;

    g->spool = spool_open(&o, &note, e);
    if (note.n)
        log_event(LOG_ERROR, "spool", "the spool was damaged and set aside; a fresh one is used",
                  LF_VIEW("kept", str_view(&note)));
    str_fini(&note);
    if (!g->spool)
        log_event(LOG_ERROR, "spool", "the spool cannot be opened",
                  LF_STR("setting", "spool.directory"), LF_STR("directory", o.directory), LF_ERR(e),
                  LF_STR("remedy", spool_remedy(e->code)));
    return g->spool ? 0 : -1;
}

static int start_logs(struct gateway *g, struct err *e)
{
    const struct logs_opts o = {
        .spool = g->spool,
        .pool = g->pool,
        .ticket_key = g->config->ticket_key,
        .settings = settings_from_config(g->config, g->plan->parent),
        .workers = g->n_workers,
    };
    unsigned i;

    g->logs = logs_new(&o, e);
    if (!g->logs) {
        logs_settings_free(o.settings);
        return -1;
    }
    for (i = 0; i < g->n_workers; i++) {
        if (worker_init(&g->workers[i], i, g->plan, g->logs, e) < 0)
            return -1;
    }
    if (open_listeners(g, e) < 0 || logs_recover(g->logs, e) < 0)
        return -1;
    return spool_start(g->spool, e);
}

static void make_workers(struct gateway *g)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned i;
    int k;

    g->n_workers = (unsigned)(g->config->workers ? g->config->workers : TR_MAX(cpus, 1));
    g->n_workers = TR_MIN(g->n_workers, 64u);
    g->workers = xcalloc(g->n_workers, sizeof(*g->workers));
    for (i = 0; i < g->n_workers; i++) {
        g->workers[i].pool = g->pool;
        for (k = 0; k < WORKER_LISTENERS; k++)
            g->workers[i].fds[k] = -1;
    }
}

static int start_workers(struct gateway *g, struct err *e)
{
    for (; g->n_started < g->n_workers; g->n_started++) {
        if (worker_start(&g->workers[g->n_started], e) < 0)
            return -1;
    }
    return 0;
}

static int configure_log(const struct config *c, struct err *e)
{
    const struct audit_opts audit = {c->audit_to, c->audit_file, c->audit_format};

    log_configure(c->log_level, c->log_format);
    return log_open(c->log_file, e) < 0 ? -1 : audit_open(&audit, e);
}

/* --- reload ------------------------------------------------------------------------------- */

static void say_not_reloadable(void *ctx, const char *path, bool reloadable)
{
    (void)ctx;
    if (!reloadable)
        log_event(LOG_WARN, "app", "this setting needs a restart to take effect",
                  LF_STR("setting", path));
}

static void remember_old(struct gateway *g)
{
    g->old_configs = xrealloc(g->old_configs, (g->n_old + 1) * sizeof(*g->old_configs));
    g->old_plans = xrealloc(g->old_plans, (g->n_old + 1) * sizeof(*g->old_plans));
    g->old_configs[g->n_old] = g->config;
    g->old_plans[g->n_old++] = g->plan;
}

static bool same_listeners(const struct config *a, const struct config *b)
{
    size_t i;

    if (a->n_listen != b->n_listen)
        return false;
    for (i = 0; i < a->n_listen; i++) {
        if (strcmp(a->listen[i].name, b->listen[i].name) != 0 ||
            a->listen[i].mode != b->listen[i].mode ||
            strcmp(a->listen[i].address, b->listen[i].address) != 0 ||
            !a->listen[i].certificate != !b->listen[i].certificate)
            return false;
    }
    return true;
}

static void reload_failed(struct gateway *g, const char *why)
{
    metric_add(g->reload_failures, 1);
    notify("READY=1");
    log_event(LOG_ERROR, "app", "reload failed; nothing has changed", LF_STR("error", why));
}

static void reload(struct gateway *g)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct config *c = NULL;
    struct plan *p;
    struct err e = {0};
    unsigned i;

    notify("RELOADING=1");
    if (config_load(g->config_path, &c, &errors) < 0) {
        for (i = 0; i < errors.n; i++)
            log_event(LOG_ERROR, "app", "configuration", LF_STR("error", errors.lines[i]));
        conf_errors_fini(&errors);
        reload_failed(g, "the configuration has errors");
        return;
    }
    conf_errors_fini(&errors);
    p = same_listeners(g->config, c) ? plan_new(c, &e) : NULL;
    if (!p || configure_log(c, &e) < 0) {
        reload_failed(
            g, e.text[0]
                   ? e.text
                   : "listeners cannot be added, removed, moved or given TLS without a restart");
        plan_free(p);
        config_free(&c);
        return;
    }
    conf_compare(&config_spec, g->config, c, say_not_reloadable, NULL);
    remember_old(g);
    g->config = c;
    g->plan = p;
    for (i = 0; i < g->n_workers; i++)
        worker_apply(&g->workers[i], p);
    for (i = 0; i < WORKER_LISTENERS; i++) {
        if (g->admin[i] && p->server_tls[i])
            http_server_set_tls(g->admin[i], p->server_tls[i]);
    }
    logs_configure(g->logs, settings_from_config(c, p->parent));
    metric_set(g->generation_metric, (double)++g->generation);
    notify("READY=1");
    log_event(LOG_NOTICE, "app", "reloaded", LF_UINT("generation", g->generation));
}

/* --- the end ------------------------------------------------------------------------------ */

static size_t open_connections(const struct gateway *g)
{
    size_t n = 0;
    unsigned i;

    for (i = 0; i < g->n_workers; i++)
        n += atomic_load(&g->workers[i].connections);
    return n;
}

/* Whatever is left is in the spool and is taken up at the next start. */
static void drain_due(void *ctx)
{
    struct gateway *g = ctx;
    bool done = open_connections(g) == 0 && logs_drained(g->logs, g->drain_until);

    if (done || clock_mono_ns() >= g->drain_until)
        ev_loop_stop(g->loop);
    else
        ev_timer_arm(g->drain_timer, DRAIN_TICK_MS);
}

static void begin_drain(struct gateway *g)
{
    unsigned i;

    if (g->draining) {
        ev_loop_stop(g->loop); /* told twice: now */
        return;
    }
    g->draining = true;
    notify("STOPPING=1");
    log_event(LOG_NOTICE, "app", "draining", LF_INT("limit_ms", g->config->drain_limit_ms));
    g->drain_until = clock_mono_ns() + g->config->drain_limit_ms * NS_PER_MS;
    for (i = 0; i < g->n_workers; i++)
        worker_drain(&g->workers[i]);
    ev_timer_arm(g->drain_timer, 2 * DRAIN_TICK_MS);
}

static void on_signal(void *ctx, int signo)
{
    struct gateway *g = ctx;

    if (signo == SIGHUP)
        reload(g);
    else if (signo != SIGPIPE)
        begin_drain(g);
}

static void stop_workers(struct gateway *g)
{
    sem_t quiet;
    unsigned i;

    sem_init(&quiet, 0, 0);
    for (i = 0; i < g->n_started; i++)
        worker_quiesce(&g->workers[i], &quiet);
    for (i = 0; i < g->n_started; i++) {
        while (sem_wait(&quiet) < 0 && errno == EINTR)
            ;
    }
    sem_destroy(&quiet);
    for (i = 0; i < g->n_started; i++)
        worker_stop(&g->workers[i]);
    for (i = 0; i < g->n_started; i++)
        pthread_join(g->workers[i].thread, NULL);
}

static void tear_down(struct gateway *g)
{
    bool clean;
    size_t i;

    stop_workers(g);
    spool_close(&g->spool);
    clean = !g->logs || logs_idle(g->logs);
    log_event(LOG_NOTICE, "app", "stopped");
    /* Requests that were broken off hold on to what the workers share: leave that to the system. */
    if (!clean)
        _exit(0);
    for (i = 0; i < WORKER_LISTENERS; i++) {
        net_listener_free(&g->admin_listeners[i]);
        http_server_free(&g->admin[i]);
    }
    ev_pool_free(&g->pool); /* while the loops its jobs report to are there */
    logs_free(&g->logs);
    for (i = 0; g->workers && i < g->n_workers; i++)
        worker_fini(&g->workers[i]);
    xfree(g->workers);
    for (i = 0; i < ARRAY_LEN(g->signals); i++)
        ev_signal_free(&g->signals[i]);
    ev_timer_free(&g->drain_timer);
    ev_timer_free(&g->addresses);
    ev_loop_free(&g->loop);
    for (i = 0; i < g->n_old; i++) {
        plan_free(g->old_plans[i]);
        config_free(&g->old_configs[i]);
    }
    xfree(g->old_plans);
    xfree(g->old_configs);
    plan_free(g->plan);
    config_free(&g->config);
}

static bool spool_ready(void *ctx, struct err *why)
{
    struct gateway *g = ctx;
    struct spool_stats st;

    spool_stats(g->spool, &st);
    if (st.failing)
        err_set(why, ERR_IO, "records cannot be made durable");
    return !st.failing && !g->draining;
}

static void show_expiry_at(const char *name, int64_t not_after_ns)
{
    struct metric_family *f = metric_family(METRIC_GAUGE, "certificate_expiry_seconds", "name",
                                            "Until the certificate of that setting expires");

    metric_set(metric_series(f, name), (double)(not_after_ns - clock_wall_ns()) / NS_PER_SEC);
}

static void show_expiry(const char *name, const struct tls_ctx *ctx)
{
    show_expiry_at(name, tls_ctx_not_after_ns(ctx));
}

/* On the main thread, as scrapes and reloads are. */
static void collect_expiry(void *ctx)
{
    struct gateway *g = ctx;
    const struct plan *p = g->plan;
    struct str name = STR_INIT;
    size_t i;

    for (i = 0; i < p->config->n_listen; i++) {
        str_clear(&name);
        str_addf(&name, "listen.%s", p->config->listen[i].name);
        if (p->server_tls[i])
            show_expiry(str_c(&name), p->server_tls[i]);
    }
    if (p->client_tls && p->config->upstream_certificate)
        show_expiry("upstream", p->client_tls);
    if (p->inside.mint)
        show_expiry_at("intercept.ca", mint_not_after_ns(p->inside.mint));
    str_fini(&name);
}

static void register_metrics(struct gateway *g)
{
    metric_set(metric_series(metric_family(METRIC_GAUGE, "build_info", "version", "Always 1"),
                             PACKAGE_VERSION),
               1);
    g->generation_metric = metric_series(metric_family(METRIC_GAUGE, "config_generation", "",
                                                       "Configurations taken up since start"));
    g->reload_failures = metric_series(metric_family(
        METRIC_COUNTER, "reload_failures", "", "Reloads that changed nothing because of an error"));
    metric_set(g->generation_metric, (double)++g->generation);
}

/* Each tunnel and each relay has two. Without any left nothing at all goes on. */
static void provide_descriptors(const struct gateway *g)
{
    const size_t have = fd_limit_raise(), want = 2 * (size_t)g->config->limit_connections;

    if (have < want)
        log_event(LOG_WARN, "app",
                  "limits.connections is more than there are file descriptors for; raise the limit "
                  "of open files, or lower it",
                  LF_UINT("descriptors", have), LF_UINT("wanted", want));
}

/* An address that moves here, as those of a pair of gateways do, is ours from now on. */
static void addresses_due(void *ctx)
{
    struct gateway *g = ctx;

    egress_own_addresses();
    ev_timer_arm(g->addresses, ADDRESSES_MS);
}

static int start(struct gateway *g, struct err *e)
{
    static const int signals[] = {SIGHUP, SIGTERM, SIGINT, SIGPIPE};
    size_t i;

    if (configure_log(g->config, e) < 0)
        return -1;
    provide_descriptors(g);
    g->plan = plan_new(g->config, e);
    if (!g->plan)
        return -1;
    g->loop = ev_loop_new("main");
    for (i = 0; i < ARRAY_LEN(signals); i++)
        g->signals[i] = ev_signal_new(g->loop, signals[i], on_signal, g);
    g->drain_timer = ev_timer_new(g->loop, drain_due, g);
    g->addresses = ev_timer_new(g->loop, addresses_due, g);
    ev_timer_arm(g->addresses, ADDRESSES_MS);
    g->pool = ev_pool_new(POOL_THREADS, POOL_QUEUE);
    make_workers(g);
    register_metrics(g);
    if (open_spool(g, e) < 0 || start_logs(g, e) < 0 || start_workers(g, e) < 0)
        return -1;
    ready_add("spool", spool_ready, g);
    metric_collector_add(collect_expiry, g);
    return 0;
}

int serve(const char *config_path)
{
    struct gateway g = {.config_path = config_path};
    struct err e = {0};

    g.config = load_config(config_path);
    if (!g.config)
        return 1;
    if (start(&g, &e) < 0) {
        log_event(LOG_ERROR, "app", "cannot start", LF_ERR(&e));
        _exit(1);
    }
    log_event(LOG_NOTICE, "app", "serving", LF_STR("version", PACKAGE_VERSION),
              LF_UINT("workers", g.n_workers), LF_STR("harness", g.config->harness_url));
    notify("READY=1");
    ev_loop_run(g.loop);
    metric_collector_remove(collect_expiry, &g);
    ready_remove(spool_ready, &g);
    tear_down(&g);
    return 0;
}
