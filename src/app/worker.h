/* A worker: a thread with a loop, listeners of its own, and its part of every subsystem. */
#ifndef TR_APP_WORKER_H
#define TR_APP_WORKER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include "app/inside.h"
#include "app/onward.h"
#include "app/options.h"
#include "app/parent.h"
#include "codec/url.h"
#include "egress/forward.h"
#include "egress/gate.h"
#include "egress/grpc.h"
#include "egress/proxy.h"
#include "egress/relay.h"
#include "egress/tunnel.h"
#include "http/client.h"
#include "http/server.h"
#include "logs/logs.h"
#include "net/listen.h"
#include "net/proxied.h"
#include "net/resolve.h"

enum { WORKER_LISTENERS = 32 };

/* What a configuration means for workers: made whole before anything changes, shared, kept until
 * the end. */
struct plan {
    const struct config *config;
    struct url harness; /* points into config->harness_url */
    char *harness_host;
    struct tls_ctx *client_tls;                   /* towards harness.url; NULL: http */
    struct tls_ctx *grpc_tls;                     /* towards https of grpc listeners, or NULL */
    struct tls_ctx *server_tls[WORKER_LISTENERS]; /* by listener; NULL: in clear */
    /* By listener: senders whose PROXY header is believed, and Basic credentials (or NULL). */
    struct plan_senders {
        struct addr_range *ranges;
        size_t n;
    } senders[WORKER_LISTENERS];
    struct basic_users *users[WORKER_LISTENERS];
    struct policy *policy;
    struct gate_settings gate;
    struct parent *parent; /* NULL: none */
    struct inside_plan inside;
};

struct worker {
    unsigned index;
    struct ev_pool *pool; /* the program's; set before worker_init */
    pthread_t thread;
    struct ev_loop *loop;
    struct net_resolver *resolver;
    struct fetch_pool *fetches;
    struct http_client *client;
    struct rpc_client *rpc;
    struct gate *gate;
    struct tunnels *tunnels;
    struct relays *relays;
    struct relay_service *relay;
    struct shard *shard;
    struct intercept *intercept;
    struct worker_listener {
        struct http_server *server;     /* upstream, proxy, grpc */
        struct proxy_service *proxy;    /* proxy */
        struct forward *forward;        /* forward */
        struct grpc_service *grpc;      /* grpc */
        struct intercept_listener *sni; /* sni; of `intercept` */
        bool gone; /* a process that takes over does not have it; set by the main thread before */
        struct net_proxied *proxied; /* all of them: between the listener and the above */
    } listeners[WORKER_LISTENERS];
    struct worker_socket {
        int fd;                     /* until the worker starts, then the watch's */
        size_t listener;            /* index in the configuration */
        bool shared;                /* a supervisor has it, too */
        struct net_listener *watch; /* NULL before the start and after the drain */
    } * sockets;                    /* as a rule one for each listener, see worker_add_socket */
    size_t n_sockets;
    struct onward onward;         /* in front of what takes log calls */
    struct http_server *onwarded; /* exchanges that another process passes on to us; or NULL */
    struct worker_name {          /* of those who made them: kept, since connections refer to it */
        struct worker_name *next;
        char text[];
    } * names;
    unsigned n_names;
    size_t n_listen;
    const struct plan *plan;
    atomic_size_t connections; /* open client connections, for draining */
    struct ev_timer *watch;
};

/* Load certificates and keys, parse URLs. NULL and `e` on failure: nothing has changed. */
struct plan *plan_new(const struct config *config, struct err *e) TR_MUST_USE;
void plan_free(struct plan *p);
void plan_relay_target(const struct plan *p, struct relay_target *out);

/* 0, or -1 and `e`. The loop does not run yet. */
int worker_init(struct worker *w, unsigned index, const struct plan *plan, struct logs *logs,
                struct err *e) TR_MUST_USE;
/* Watch this descriptor too, for that listener; before the start. Several may be one listener's.
 * `shared`: somebody else keeps it open when we end. */
void worker_add_socket(struct worker *w, size_t listener, int fd, bool shared);
int worker_start(struct worker *w, struct err *e) TR_MUST_USE; /* the thread */

/* From the main thread, carried out in the worker's own time. */
void worker_apply(struct worker *w, const struct plan *plan);
void worker_drain(struct worker *w); /* accept no more, finish what is there */
/* Two steps, each for all workers before the next: break off what is left, and post `done`; then
 * end the loop once nothing is under way between workers. Then join the thread. */
void worker_quiesce(struct worker *w, sem_t *done);
void worker_stop(struct worker *w);

void worker_fini(struct worker *w);

/* --- handing over to another process: worker_steps.c; from the main thread ----------------- */

enum worker_step {
    WORKER_HOLD,   /* begin no delivery */
    WORKER_CUT,    /* give up those that are under way: their outcome is unknown */
    WORKER_STILL,  /* accept nothing, begin no exchange */
    WORKER_QUIET,  /* submit nothing to the spool by itself */
    WORKER_RESUME, /* it came to nothing: all that was before */
    WORKER_LEAVE,  /* the other process serves: leave it the listeners, send log calls on to it */
    WORKER_END,    /* end tunnels and connections, spread over `ms` */
};
void worker_step(struct worker *w, enum worker_step step, unsigned ms);
/* LEAVE: what is queued at listeners that are `gone` is accepted first. */
void worker_leave(struct worker *w, struct onward_way *way);

/* What is under way, answered by `done` in the loop `back`. The caller's until then. */
struct worker_look {
    struct ev_task task;
    struct worker *w;
    struct ev_loop *back;
    struct logs_going_on going_on;
    void (*done)(struct worker_look *look);
    void *ctx;
};
void worker_look(struct worker *w, struct worker_look *look);

/* Serve one exchange of another process (see onward.h); `fd` is taken over, the rest copied. */
void worker_names_free(struct worker *w); /* for worker_fini */
void worker_onwarded(struct worker *w, int fd, const struct onward_from *from);

#endif
