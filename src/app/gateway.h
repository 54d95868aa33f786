/* The running program, as serve.c keeps it and what hands it over (handover.c, takeover.c) needs.
 */
#ifndef TR_APP_GATEWAY_H
#define TR_APP_GATEWAY_H

#include "app/serve.h"
#include "app/sockets.h"
#include "app/worker.h"
#include "ev/pool.h"
#include "rt/command.h"
#include "rt/metric.h"

struct commands;
struct admin_listener;
struct control;
struct events;
struct handover;
struct problems;
struct report;
struct takeover;

struct gateway {
    const struct serve_opts *opts;
    struct config *config;
    struct plan *plan;
    struct config **old_configs; /* replaced ones and their plans: requests may still use them */
    struct plan **old_plans;
    size_t n_old;
    struct ev_loop *loop; /* the main thread's: signals, admin */
    struct ev_signal *signals[5];
    struct ev_pool *pool;
    struct envelope *sealing; /* NULL: the spool is not sealed */
    struct spool *spool;      /* NULL once it is handed over */
    struct logs *logs;
    struct worker *workers;
    unsigned n_workers, n_started;
    struct sockets inherited;
    struct sockets_found found[WORKER_LISTENERS]; /* `fds` until workers have them */
    struct http_server *admin[WORKER_LISTENERS];
    struct net_listener *admin_listeners[WORKER_LISTENERS];
    struct admin_listener *admin_pages[WORKER_LISTENERS];
    struct ev_timer *drain_timer;
    struct ev_timer *addresses; /* our own: they come and go */
    int64_t drain_until;
    bool draining;
    uint64_t generation;
    struct metric *generation_metric, *reload_failures;
    struct control *control;
    struct events *events;
    struct command commands[3];
    struct report *report;
    struct commands *more_commands;
    struct problems *problems;
    struct conf_list needs_restart; /* settings that are not those of the start any more, and are
                                     * not in force */
    struct handover *handover;      /* to the next process */
    struct takeover *takeover;      /* from the one before, while it is there; NULL: from none */
};

/* The hooks of serve.c that look at the spool or the plan: on from the start, off when another
 * process has the spool. */
void gateway_watch(struct gateway *g, bool on);

void gateway_close_control(struct gateway *g);

/* The configuration that it started with: what a reload does not change is as that one has it. */
const struct config *gateway_first_config(const struct gateway *g);

/* Client connections open now, by the workers' last count. */
size_t gateway_connections(const struct gateway *g);

#endif
