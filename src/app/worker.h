/* A worker: a thread with a loop, listeners of its own, and its part of every subsystem. */
#ifndef TR_APP_WORKER_H
#define TR_APP_WORKER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include "app/inside.h"
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
        struct net_listener *listener;
        struct http_server *server;     /* upstream, proxy, grpc */
        struct proxy_service *proxy;    /* proxy */
        struct forward *forward;        /* forward */
        struct grpc_service *grpc;      /* grpc */
        struct intercept_listener *sni; /* sni; of `intercept` */
        struct net_proxied *proxied;    /* all of them: between the listener and the above */
    } listeners[WORKER_LISTENERS];
    int fds[WORKER_LISTENERS]; /* listening, until the worker starts; -1: none */
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
int worker_start(struct worker *w, struct err *e) TR_MUST_USE; /* the thread; takes over w->fds */

/* From the main thread, carried out in the worker's own time. */
void worker_apply(struct worker *w, const struct plan *plan);
void worker_drain(struct worker *w); /* accept no more, finish what is there */
/* Two steps, each for all workers before the next: break off what is left, and post `done`; then
 * end the loop once nothing is under way between workers. Then join the thread. */
void worker_quiesce(struct worker *w, sem_t *done);
void worker_stop(struct worker *w);

void worker_fini(struct worker *w);

#endif
