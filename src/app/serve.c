#include "app/serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "admin/control.h"
#include "app/certificates.h"
#include "app/commands.h"
#include "admin/events.h"
#include "admin/listener.h"
#include "app/egress.h"
#include "app/gateway.h"
#include "app/handover.h"
#include "app/notify.h"
#include "app/problems.h"
#include "app/report.h"
#include "app/sandbox.h"
#include "app/sealing.h"
#include "app/settings.h"
#include "app/takeover.h"
#include "base/xmem.h"
#include "conf/dump.h"
#include "net/buffers.h"
#include "net/seats.h"
#include "rt/clock.h"
#include "rt/command.h"
#include "rt/fault.h"
#include "rt/fd_left.h"
#include "rt/fdx.h"
#include "rt/log.h"
#include "rt/logline.h"
#include "rt/metric.h"
#include "rt/ready.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

enum {
    DRAIN_TICK_MS = 50,
    ADDRESSES_MS = 10 * 1000,
    ORPHAN_MS = 3000, /* clients wait at the listeners meanwhile */
    ORPHAN_TICK_MS = 10,
    POOL_THREADS = 2,
    POOL_QUEUE = 256,
};

/* --- listeners ---------------------------------------------------------------------------- */

static void say_listening(const struct config_listen *l, const struct net_addr *at)
{
    char text[NET_ADDR_TEXT];

    log_event(LOG_NOTICE, "app", "listening", LF_STR("listener", l->name),
              LF_STR("address", net_addr_text(at, text)), LF_BOOL("tls", l->certificate != NULL));
}

/* One listening descriptor for each worker, and all that were there before. */
static void give_to_workers(struct gateway *g, size_t i, struct sockets_found *f)
{
    size_t k;

    for (k = 0; k < f->n; k++)
        worker_add_socket(&g->workers[k % g->n_workers], i, f->fds[k], f->only);
    f->n = 0;
}

static void listen_admin(struct gateway *g, size_t i, struct sockets_found *f)
{
    const struct config_listen *l = &g->config->listen[i];
    const struct admin_listener_opts ao = {
        .loop = g->loop,
        .pool = g->pool,
        .name = l->name, /* configurations are kept */
        .public_url = l->public_url,
        .users = g->plan->users[i],
        .tls = l->certificate != NULL,
    };
    struct http_server_opts o = {.tls = g->plan->server_tls[i], .max_connections = 256};

    g->admin_pages[i] = admin_listener_new(&ao);
    o.service = admin_listener_service(g->admin_pages[i]);
    g->admin[i] = http_server_new(g->loop, &o);
    g->admin_listeners[i] =
        net_listener_new(g->loop, f->fds[--f->n], http_server_accepted, g->admin[i]);
}

/* A first descriptor of each listener: it is known whether that works before anything changes. */
static int open_listeners(struct gateway *g, struct err *e)
{
    size_t i;

    for (i = 0; i < g->config->n_listen; i++) {
        const struct config_listen *l = &g->config->listen[i];

        if (sockets_open(&g->inherited, l, &g->found[i], e) < 0)
            return err_prefix(e, "listen.%s", l->name);
    }
    return 0;
}

/* ... and those of all workers, when they are about to be accepted from. */
static int share_listeners(struct gateway *g, struct err *e)
{
    size_t i;

    for (i = 0; i < g->config->n_listen; i++) {
        const struct config_listen *l = &g->config->listen[i];
        struct sockets_found *f = &g->found[i];
        const bool admin = l->mode == CONFIG_MODE_ADMIN;

        if (sockets_widen(f, admin ? 1 : g->n_workers, e) < 0)
            return err_prefix(e, "listen.%s", l->name);
        if (admin)
            listen_admin(g, i, f);
        else
            give_to_workers(g, i, f);
        sockets_found_fini(f);
    }
    return 0;
}

/* Said when connections are taken: who waits for it may come. */
static void say_all_listening(const struct gateway *g)
{
    size_t i;

    for (i = 0; i < g->config->n_listen; i++)
        say_listening(&g->config->listen[i], &g->found[i].at);
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

static int try_spool(struct gateway *g, struct err *e)
{
    struct spool_opts o = {
        .directory = g->config->spool_directory,
        .limit = g->config->spool_limit,
        .sync = g->config->spool_sync,
    };
    struct str note = STR_INIT;

    o.box = g->sealing ? envelope_box(g->sealing) : NULL;
    g->spool = spool_open(&o, &note, e);
    if (g->sealing)
        envelope_settle(g->sealing);
    if (note.n)
        log_event(LOG_ERROR, "spool", "the spool was damaged and set aside; a fresh one is used",
                  LF_VIEW("kept", str_view(&note)));
    str_fini(&note);
    return g->spool ? 0 : -1;
}

/* A process that dies closes its sockets one by one, and the spool's lock somewhere among them: who
 * took over from it may find the one closed and the other not yet. */
static int open_spool(struct gateway *g, struct err *e)
{
    const int64_t until = clock_mono_ns() + ORPHAN_MS * NS_PER_MS;

    while (try_spool(g, e) < 0) {
        if (e->code == ERR_UNAVAIL && g->takeover && takeover_is_orphan(g->takeover) &&
            clock_mono_ns() < until) {
            poll(NULL, 0, ORPHAN_TICK_MS);
            continue;
        }
        log_event(LOG_ERROR, "spool", "the spool cannot be opened",
                  LF_STR("setting", "spool.directory"),
                  LF_STR("directory", g->config->spool_directory), LF_ERR(e),
                  LF_STR("remedy", spool_remedy(e->code)));
        return -1;
    }
    return 0;
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
    /* From here on threads are started, which inherit what is given up; low ports among it. */
    if (share_listeners(g, e) < 0 || sandbox_enter(g->config, e) < 0 ||
        logs_recover(g->logs, e) < 0)
        return -1;
    return spool_start(g->spool, e);
}

static void make_workers(struct gateway *g)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned i;

    g->n_workers = (unsigned)(g->config->workers ? g->config->workers : TR_MAX(cpus, 1));
    g->n_workers = TR_MIN(g->n_workers, 64u);
    g->workers = xcalloc(g->n_workers, sizeof(*g->workers));
    for (i = 0; i < g->n_workers; i++)
        g->workers[i].pool = g->pool;
}

static int start_workers(struct gateway *g, struct err *e)
{
    for (; g->n_started < g->n_workers; g->n_started++) {
        if (worker_start(&g->workers[g->n_started], e) < 0)
            return -1;
    }
    return 0;
}

/* All of it, or nothing. */
static int configure_log(const struct config *c, struct err *e)
{
    const struct audit_opts audit = {c->audit_to, c->audit_file, c->audit_format};

    int audit_fd, log_fd = log_prepare(c->log_file, e);

    if (log_fd < 0)
        return err_prefix(e, "log.file");
    if (audit_prepare(&audit, &audit_fd, e) < 0) {
        log_target_discard(log_fd);
        return -1;
    }
    log_configure(c->log_level, c->log_format);
    log_switch(log_fd);
    audit_switch(&audit, audit_fd);
    return 0;
}

/* --- reload ------------------------------------------------------------------------------- */

static void say_not_reloadable(void *ctx, const char *path, bool reloadable)
{
    (void)ctx;
    if (!reloadable)
        log_event(LOG_WARN, "app", "this setting needs a restart to take effect",
                  LF_STR("setting", path));
}

static void note_not_reloadable(void *ctx, const char *path, bool reloadable)
{
    struct conf_list *l = ctx;

    if (reloadable)
        return;
    l->items = xrealloc(l->items, (l->n + 1) * sizeof(*l->items));
    l->items[l->n++] = xstrdup(path);
}

static void forget_not_reloadable(struct conf_list *l)
{
    while (l->n)
        xfree(l->items[--l->n]);
    XFREE(l->items);
}

static void remember_old(struct gateway *g)
{
    g->old_configs = xrealloc(g->old_configs, (g->n_old + 1) * sizeof(*g->old_configs));
    g->old_plans = xrealloc(g->old_plans, (g->n_old + 1) * sizeof(*g->old_plans));
    g->old_configs[g->n_old] = g->config;
    g->old_plans[g->n_old++] = g->plan;
}

const struct config *gateway_first_config(const struct gateway *g)
{
    return g->n_old ? g->old_configs[0] : g->config;
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

static int reload_failed(struct gateway *g, const char *why, struct err *e)
{
    metric_add(g->reload_failures, 1);
    report_not_loaded(g->report, why);
    notify("READY=1");
    log_event(LOG_ERROR, "app", "reload failed; nothing has changed", LF_STR("error", why));
    return err_set(e, ERR_INVALID, "%s", why);
}

static void apply_to_admin(struct gateway *g, const struct plan *p)
{
    size_t i;

    for (i = 0; i < p->config->n_listen; i++) {
        if (!g->admin[i])
            continue;
        if (p->server_tls[i])
            http_server_set_tls(g->admin[i], p->server_tls[i]);
        admin_listener_configure(g->admin_pages[i], p->users[i], p->config->listen[i].public_url);
    }
}

/* -1: nothing has changed, and `why` says why. */
static int reload(struct gateway *g, struct err *why)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct config *c = NULL;
    struct plan *p;
    struct err e = {0};
    unsigned i;

    notify("RELOADING=1");
    if (config_load(g->opts->config, &c, &errors) < 0) {
        for (i = 0; i < errors.n; i++)
            log_event(LOG_ERROR, "app", "configuration", LF_STR("error", errors.lines[i]));
        err_set(&e, ERR_INVALID, "%s: %s",
                sandbox_is_tight() ? "the configuration has errors, or files that are outside of "
                                     "what this process may reach"
                                   : "the configuration has errors",
                errors.lines[0]);
        conf_errors_fini(&errors);
        return reload_failed(g, e.text, why);
    }
    conf_errors_fini(&errors);
    p = same_listeners(g->config, c) && sandbox_check(c, &e) == 0 ? plan_new(c, &e) : NULL;
    if (!p || configure_log(c, &e) < 0) {
        plan_free(p);
        config_free(&c);
        return reload_failed(
            g,
            e.text[0] ? e.text
                      : "listeners cannot be added, removed, moved or given TLS by a reload: hand "
                        "over (SIGUSR2), or restart",
            why);
    }
    conf_compare(&config_spec, g->config, c, say_not_reloadable, NULL);
    remember_old(g);
    forget_not_reloadable(&g->needs_restart);
    conf_compare(&config_spec, g->old_configs[0], c, note_not_reloadable, &g->needs_restart);
    fault_point("app-reload");
    g->config = c;
    g->plan = p;
    for (i = 0; i < g->n_workers; i++)
        worker_apply(&g->workers[i], p);
    apply_to_admin(g, p);
    logs_configure(g->logs, settings_from_config(c, p->parent));
    commands_reloaded(g->more_commands);
    problems_configure(g->problems, p);
    metric_set(g->generation_metric, (double)++g->generation);
    report_loaded(g->report);
    notify("READY=1");
    log_event(LOG_NOTICE, "app", "reloaded", LF_UINT("generation", g->generation));
    return 0;
}

/* --- the end ------------------------------------------------------------------------------ */

size_t gateway_connections(const struct gateway *g)
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
    bool done = gateway_connections(g) == 0 && logs_drained(g->logs, g->drain_until);

    if (done || clock_mono_ns() >= g->drain_until) {
        fault_point("app-drained");
        ev_loop_stop(g->loop);
    } else {
        ev_timer_arm(g->drain_timer, DRAIN_TICK_MS);
    }
}

static void begin_drain(struct gateway *g)
{
    unsigned i;

    if (handover_left(g->handover)) {
        handover_hurry(g->handover);
        return;
    }
    if (g->draining) {
        ev_loop_stop(g->loop); /* told twice: now */
        return;
    }
    handover_call_off(g->handover, "told to end");
    g->draining = true;
    notify("STOPPING=1");
    log_event(LOG_NOTICE, "app", "draining", LF_INT("limit_ms", g->config->drain_limit_ms));
    g->drain_until = clock_mono_ns() + g->config->drain_limit_ms * NS_PER_MS;
    fault_point("app-drain");
    for (i = 0; i < g->n_workers; i++)
        worker_drain(&g->workers[i]);
    ev_timer_arm(g->drain_timer, INT64_C(2) * DRAIN_TICK_MS);
}

static void on_signal(void *ctx, int signo)
{
    struct gateway *g = ctx;
    struct err e;

    if (signo == SIGHUP && handover_left(g->handover))
        log_event(LOG_WARN, "app", "handed over: reloads are for the process that took over");
    else if (signo == SIGHUP)
        (void)reload(g, &e); /* it has said so */
    else if (signo == SIGUSR2)
        (void)handover_spawn(g->handover, &e);
    else if (signo != SIGPIPE)
        begin_drain(g);
}

/* --- the control socket ------------------------------------------------------------------- */

static void run_version(void *ctx, struct command_call *call)
{
    struct gateway *g = ctx;
    struct str out = STR_INIT;

    str_addf(&out,
             "{\"version\":\"" PACKAGE_VERSION
             "\",\"pid\":%ld,\"generation\":%llu,\"draining\":%s}\n",
             (long)getpid(), (unsigned long long)g->generation, g->draining ? "true" : "false");
    command_reply(call, 200, str_view(&out));
    str_fini(&out);
}

static void run_reload(void *ctx, struct command_call *call)
{
    struct gateway *g = ctx;
    struct str out = STR_INIT;
    struct json j = json_to(&out);
    struct err e;
    size_t i;

    if (reload(g, &e) < 0) {
        command_fail(call, 409, "%s", e.text);
        return;
    }
    json_open(&j, NULL, '{');
    json_uint(&j, "generation", g->generation);
    json_open(&j, "needs_restart", '[');
    for (i = 0; i < g->needs_restart.n; i++)
        json_text(&j, NULL, view_str(g->needs_restart.items[i]));
    json_close(&j, ']');
    json_close(&j, '}');
    str_addc(&out, '\n');
    command_reply(call, 200, str_view(&out));
    str_fini(&out);
}

static void run_drain(void *ctx, struct command_call *call)
{
    struct gateway *g = ctx;

    if (!g->draining)
        begin_drain(g);
    command_reply(call, 202, VIEW_LIT("{\"draining\":true}\n"));
}

/* The one request of its kind: see app/handover.h. */
static void on_upgrade(void *ctx, struct http_exchange *ex, const struct control_peer *peer)
{
    struct gateway *g = ctx;
    const struct http_request *req = http_request_of(ex);
    const struct h1_field f[] = {{VIEW_LIT("Upgrade"), VIEW_LIT(TAKEOVER_PROTOCOL)}};
    struct buf early = BUF_INIT;
    struct net_stream *s;

    if (!view_is(req->target, TAKEOVER_PATH) ||
        !view_ieq(http_field(req->fields, req->n_fields, "upgrade"), f[0].value)) {
        http_reply(ex, 501, NULL, 0, VIEW_LIT("only " TAKEOVER_PROTOCOL " is known here\n"));
        return;
    }
    log_event(LOG_NOTICE, "handover", "a process asks to take over", LF_INT("pid", peer->pid),
              LF_UINT("uid", peer->uid));
    s = http_detach(ex, 101, f, ARRAY_LEN(f), &early);
    buf_fini(&early); /* it waits for our answer first */
    if (s)
        handover_begin(g->handover, net_stream_release(&s));
    else
        http_abort(ex);
}

static int open_control(struct gateway *g, struct err *e)
{
    const struct control_opts o = {
        .path = g->config->control_socket,
        .replace = g->opts->takeover,
        .upgrade = on_upgrade,
        .ctx = g,
    };
    const struct command commands[] = {
        {.path = "version", .text = "what runs", .run = run_version},
        {.path = "reload",
         .kind = COMMAND_ACTION,
         .text = "read the configuration again",
         .run = run_reload},
        {.path = "drain",
         .kind = COMMAND_ACTION,
         .text = "finish what is under way, and end",
         .run = run_drain},
    };
    size_t i;

    g->control = control_open(g->loop, &o, e);
    if (!g->control)
        return -1;
    g->events = events_new(g->loop);
    for (i = 0; i < ARRAY_LEN(commands); i++) {
        g->commands[i] = commands[i];
        g->commands[i].ctx = g;
        command_add(&g->commands[i]);
    }
    g->more_commands = commands_new(g);
    return 0;
}

void gateway_close_control(struct gateway *g)
{
    size_t i;

    if (!g->control)
        return;
    for (i = 0; i < ARRAY_LEN(g->commands); i++)
        command_remove(&g->commands[i]);
    commands_free(&g->more_commands);
    events_free(&g->events);
    control_close(&g->control);
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

    gateway_close_control(g);
    report_free(&g->report);
    problems_free(&g->problems);
    stop_workers(g);
    spool_close(&g->spool);
    envelope_free(&g->sealing);
    clean = !g->logs || logs_idle(g->logs);
    log_event(LOG_NOTICE, "app", "stopped");
    /* Requests that were broken off hold on to what the workers share: leave that to the system. */
    if (!clean || handover_left(g->handover)) {
        log_event(LOG_DEBUG, "app", "what is left is not taken apart", LF_BOOL("idle", clean));
        _exit(0);
    }
    for (i = 0; i < WORKER_LISTENERS; i++) {
        net_listener_free(&g->admin_listeners[i]);
        http_server_free(&g->admin[i]);
        admin_listener_free(&g->admin_pages[i]);
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
    handover_free(&g->handover);
    takeover_free(&g->takeover);
    ev_loop_free(&g->loop);
    for (i = 0; i < g->n_old; i++) {
        plan_free(g->old_plans[i]);
        config_free(&g->old_configs[i]);
    }
    xfree(g->old_plans);
    xfree(g->old_configs);
    forget_not_reloadable(&g->needs_restart);
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

/* On the main thread, as scrapes and reloads are. */
static void collect_expiry(void *ctx)
{
    struct gateway *g = ctx;

    certificates_measure(g->plan);
}

static void collect_buffers(void *ctx)
{
    (void)ctx;
    metric_set(metric_series(metric_family(METRIC_GAUGE, "connection_memory_bytes", "",
                                           "Memory that connections hold for peers who do not "
                                           "take what is sent.")),
               (double)buffers_used());
}

static void register_metrics(struct gateway *g)
{
    metric_set(metric_series(metric_family(METRIC_GAUGE, "build_info", "version", "Always 1"),
                             PACKAGE_VERSION),
               1);
    metric_collector_add(collect_buffers, NULL);
    g->generation_metric = metric_series(metric_family(METRIC_GAUGE, "config_generation", "",
                                                       "Configurations taken up since start"));
    g->reload_failures = metric_series(metric_family(
        METRIC_COUNTER, "reload_failures", "", "Reloads that changed nothing because of an error"));
    metric_set(g->generation_metric, (double)++g->generation);
}

/* Kept for the spool, for names and for delivery: a worker has 16 connections to the log service
 * and as many to each object store. */
enum { KEPT_DESCRIPTORS = 64, KEPT_FOR_WORKER = 64 };

/* Each tunnel and each relay has two. What is missing is made up for by closing idle connections
 * and by refusing; spool and delivery have theirs. */
static void provide_descriptors(const struct gateway *g)
{
    const size_t have = fd_limit_raise();
    const size_t kept = KEPT_DESCRIPTORS + KEPT_FOR_WORKER * (size_t)g->n_workers;
    const size_t want = kept + (size_t)g->config->limit_connections;

    fd_reserve(kept);
    buffers_configure(g->config->memory_connections);
    seats_configure((size_t)g->config->limit_connections, (unsigned)g->config->limit_share);

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

void gateway_watch(struct gateway *g, bool on)
{
    if (on) {
        ready_add("spool", spool_ready, g);
        metric_collector_add(collect_expiry, g);
    } else {
        metric_collector_remove(collect_expiry, g);
        ready_remove(spool_ready, g);
    }
}

/* All that can fail before anything changes for anybody. */
static int prepare(struct gateway *g, struct err *e)
{
    if (sandbox_become(g->config, e) < 0 || configure_log(g->config, e) < 0)
        return -1;
    sealing_hide_memory(g->config);
    g->plan = plan_new(g->config, e);
    if (!g->plan)
        return -1;
    if (sealing_load(g->config, &g->sealing, e) < 0)
        return -1;
    g->loop = ev_loop_new("main");
    g->drain_timer = ev_timer_new(g->loop, drain_due, g);
    g->addresses = ev_timer_new(g->loop, addresses_due, g);
    ev_timer_arm(g->addresses, ADDRESSES_MS);
    g->pool = ev_pool_new(POOL_THREADS, POOL_QUEUE);
    make_workers(g);
    provide_descriptors(g);
    register_metrics(g);
    g->handover = handover_new(g);
    return 0;
}

/* Without a spool nothing listens: another process may be at these addresses. */
static int take_places(struct gateway *g, struct err *e)
{
    if (!g->opts->takeover) {
        sockets_from_supervisor(&g->inherited);
        return open_spool(g, e) < 0 ? -1 : open_listeners(g, e);
    }
    g->takeover = takeover_ask(g, e);
    if (!g->takeover || open_listeners(g, e) < 0 || takeover_wait(g->takeover, e) < 0)
        return -1;
    return open_spool(g, e);
}

static int start(struct gateway *g, struct err *e)
{
    static const int signals[] = {SIGHUP, SIGTERM, SIGINT, SIGPIPE, SIGUSR2};
    size_t i;

    if (prepare(g, e) < 0 || take_places(g, e) < 0)
        return -1;
    for (i = 0; i < ARRAY_LEN(signals); i++) /* not earlier: they end what waits to take over */
        g->signals[i] = ev_signal_new(g->loop, signals[i], on_signal, g);
    /* The control socket before listeners: who finds those open finds it, too. */
    if (open_control(g, e) < 0 || start_logs(g, e) < 0 || start_workers(g, e) < 0)
        return -1;
    say_all_listening(g);
    sockets_fini(&g->inherited, !g->takeover);
    gateway_watch(g, true);
    g->report = report_new(g);
    g->problems = problems_new(g->loop);
    problems_configure(g->problems, g->plan);
    commands_add_sections(g);
    return g->takeover ? takeover_serving(g->takeover, e) : 0;
}

static int cannot_start(struct gateway *g, const struct err *e)
{
    log_event(LOG_ERROR, "app", "cannot start", LF_ERR(e));
    if (g->takeover)
        takeover_failed(g->takeover, e);
    _exit(1);
}

/* Whoever supervises us hears of the end of its own children only (systemd says so in its log), and
 * a process that was started to take over is the old one's: leave it, before there are threads. */
static void become_the_supervisors(void)
{
    pid_t pid = notify_wanted() ? fork() : 0;

    if (pid > 0)
        _exit(0);
    if (pid < 0)
        log_event(LOG_WARN, "app",
                  "no process of its own; should this one crash while the one "
                  "before it has connections left, nobody notices");
}

int serve(const struct serve_opts *o)
{
    struct gateway g = {.opts = o};
    struct err e = {0};
    char first[32];

    fd_left_begin();
    if (o->channel >= 0)
        become_the_supervisors();
    snprintf(first, sizeof(first), "/proc/self/fd/%d", o->first_config);
    g.config = load_config(o->first_config >= 0 ? first : o->config);
    if (!g.config)
        return 1;
    if (o->first_config >= 0) /* the one that a reload reads */
        config_add_file(g.config, o->config);
    if (start(&g, &e) < 0)
        return cannot_start(&g, &e);
    log_event(LOG_NOTICE, "app", "serving", LF_STR("version", PACKAGE_VERSION),
              LF_UINT("workers", g.n_workers), LF_STR("harness", g.config->harness_url));
    if (o->channel < 0) /* else it is ready for the supervisor all the time */
        notify("READY=1");
    ev_loop_run(g.loop);
    if (!handover_left(g.handover))
        gateway_watch(&g, false);
    tear_down(&g);
    audit_close();
    fd_left_end();
    return 0;
}
