/*
 * Inside of the client for remote calls: what rpc.c (origins and calls) and rpc_conn.c (one
 * connection) share.
 *
 * Callbacks may free their call. Connections are freed at the top of their own callbacks only.
 */
#ifndef TR_HTTP_RPC_PRIV_H
#define TR_HTTP_RPC_PRIV_H

#include "base/buf.h"
#include "base/hmap.h"
#include "base/list.h"
#include "http/rpc.h"
#include "http/server.h"
#include "http/waits.h"

enum {
    RPC_SCRATCH = 64 * 1024, /* one read */
    RPC_TRIES = 2,           /* of a call that was not processed */
    RPC_CALL_MAGIC = 0x6c616372,
    RPC_CONN_MAGIC = 0x6e6f6372,
};

enum rpc_wait { RWAIT_READY, RWAIT_IDLE };

/* A place that connections lead to. */
struct rpc_origin {
    struct list link; /* in client.origins */
    struct rpc_client *client;
    char *host;
    uint16_t port;
    struct tls_ctx *tls; /* referenced, so that its address stays its own */
    const struct net_parent *parent;
    struct list conns;
    unsigned n_conns;
    struct list waiting; /* calls without a connection, the oldest first */
    size_t n_calls;      /* those, and those on connections, and those that are over */
};

struct rpc_conn {
    unsigned magic;
    struct rpc_client *client;
    struct rpc_origin *origin;
    struct list link;  /* in origin.conns */
    struct list dirty; /* in client.dirty */
    struct list calls;
    struct hmap by_id;
    struct net_connect *connect; /* until it stands */
    struct net_stream *s;
    struct h2_session *h;
    struct http_wait wait;
    struct err why; /* it is over */
    bool running, blocked, over, closing;
};

/* Fields with their text in one piece of memory. */
struct rpc_fields {
    struct h1_field *f;
    size_t n;
};

struct rpc_call {
    unsigned magic;
    struct rpc_origin *origin; /* NULL: the client is gone */
    struct rpc_call_ops ops;
    void *ctx;
    struct list link;      /* in origin.waiting or conn.calls */
    struct rpc_conn *conn; /* while it is on one */
    struct hnode node;     /* in conn.by_id */
    int32_t id;
    struct h2_head head;   /* of the request, kept until there is an answer */
    struct rpc_fields mem; /* behind it */
    struct rpc_fields trailers;
    struct buf out; /* of the body: what waits for a connection, or is kept to be repeated */
    unsigned tries;
    bool kept;     /* out is all that was given */
    bool finished; /* the owner gave all of the body */
    bool high;     /* on_drain is owed */
    bool done;     /* on_end or on_error was called */
};

struct rpc_client {
    struct ev_loop *loop;
    struct rpc_client_opts o;
    struct http_waits waits;
    struct list origins;
    struct list dirty;
    struct ev_task task;
    bool task_posted;
    bool freed;
    uint8_t *scratch;
};

/* --- rpc.c --- */

/* Find connections for the calls that wait. */
void rpc_origin_wake(struct rpc_origin *o);
/* Is it free of everything? Then it goes. */
void rpc_origin_tidy(struct rpc_origin *o);
void rpc_conn_dirty(struct rpc_conn *c);
/* No more connections are on their way: those who wait hear of it. */
void rpc_origin_unreached(struct rpc_origin *o, const struct err *e);
void rpc_call_failed(struct rpc_call *call, const struct err *e, enum rpc_failure how,
                     uint32_t code);
void rpc_call_forget_body(struct rpc_call *call); /* it will not be repeated */

/* --- rpc_conn.c --- */

void rpc_conn_dial(struct rpc_origin *o);
void rpc_conn_settle(struct rpc_conn *c); /* at the end of the turn */
void rpc_conn_fail(struct rpc_conn *c, const struct err *e);
void rpc_conn_close(struct rpc_conn *c); /* frees; its calls hear why; not from its callbacks */
void rpc_conn_leave(struct rpc_call *call);
/* A connection that leads somewhere, or will. */
bool rpc_conn_lives(const struct rpc_conn *c);

#endif
