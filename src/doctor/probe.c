#include "doctor/probe.h"

#include <pthread.h>
#include "base/xmem.h"
#include "doctor/chain.h"

static void set_flow(struct probe *p, const char *flow, bool quiet)
{
    p->route.flow = flow;
    p->route.quiet = quiet;
}

/* What needs the log service to be healthy, each on connections of its own. */
static void run_harness(struct probe *p)
{
    struct route *r = &p->route;
    const struct service *s = &p->service;

    if (p->what & PROBE_HTTP) {
        r->flow = "log-service";
        if (!step_http(r, s, "/log-service/healthz"))
            return;
    }
    set_flow(p, "harness", true);
    if (p->what & PROBE_H2)
        (void)step_h2(r, s);
    if (p->what & PROBE_WEBSOCKET) {
        set_flow(p, "delegate-wss", true);
        (void)step_websocket(r, s);
    }
    if (p->what & PROBE_LOGS) {
        set_flow(p, "log-stream", true);
        (void)step_logs(r, s, &p->logs);
    }
}

static void run(struct probe *p)
{
    struct route *r = &p->route;
    const struct service *s = &p->service;

    if (p->what & PROBE_IDLE) {
        (void)step_idle(r, s, p->idle_s);
        return;
    }
    if (p->what & PROBE_DIAL) {
        (void)route_dial(r);
        return;
    }
    if (p->what & PROBE_RPC) {
        (void)step_h2(r, s);
        return;
    }
    if (!step_connect(r, s->https, CHAIN_ALPN_1))
        return;
    if (p->what & PROBE_ANY_HTTP)
        (void)step_any_http(r, s);
    else
        run_harness(p);
}

static void *run_thread(void *arg)
{
    struct probe *p = arg;

    run(p);
    route_fini(&p->route);
    return NULL;
}

void probes_run(struct probe *probes, size_t n)
{
    pthread_t *threads = xcalloc(n + 1, sizeof(*threads));
    bool *threaded = xcalloc(n + 1, sizeof(*threaded));
    size_t i;

    for (i = 0; i < n; i++) {
        struct probe *p = &probes[i];

        p->findings = p->route.findings = findings_new();
        p->route.line = LINE_INIT;
        threaded[i] = pthread_create(&threads[i], NULL, run_thread, p) == 0;
        if (!threaded[i])
            run_thread(p);
    }
    for (i = 0; i < n; i++) {
        if (threaded[i])
            pthread_join(threads[i], NULL);
    }
    xfree(threaded);
    xfree(threads);
}
