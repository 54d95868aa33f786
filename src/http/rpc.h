/*
 * The client for remote calls (gRPC): HTTP/2 with prior knowledge or by ALPN, few connections to an
 * origin with the calls multiplexed on them, bodies streamed both ways and each held back by its
 * own reader only, trailers, and the codes of RST_STREAM.
 *
 * No timeout of its own but for connecting: deadlines are the peers'. A call is never sent twice,
 * unless upstream says (REFUSED_STREAM, GOAWAY; RFC 9113 §8.7) that it did not process it and no
 * more than RPC_KEEP bytes of its body are out: then once more.
 */
#ifndef TR_HTTP_RPC_H
#define TR_HTTP_RPC_H

#include "codec/h2.h"
#include "http/message.h"
#include "net/connect.h"

struct rpc_client;
struct rpc_call;

enum { RPC_KEEP = 64 * 1024 };

struct rpc_client_opts {
    struct net_resolver *resolver;
    unsigned idle_timeout_ms; /* of a connection without calls; 0: 10 min */
    unsigned connect_ms;      /* for connecting, and again for upstream's SETTINGS; 0: 10 s */
    unsigned max_connections; /* to an origin; 0: 32. Calls past what they carry wait */
};

/* `o` is copied. For the loop's thread, like all here. */
struct rpc_client *rpc_client_new(struct ev_loop *loop, const struct rpc_client_opts *o);

/* Closes all connections. Calls that are left hear nothing more; their owners still free them. */
void rpc_client_free(struct rpc_client **c);

struct rpc_call_opts {
    const char *host;
    uint16_t port;
    struct tls_ctx *tls; /* NULL: in clear */
    const struct net_parent
        *parent; /* see net/connect.h; NULL: none; lives as long as the client */
    struct view method, target, authority;
    const struct h1_field *fields; /* hop fields already left out; copied */
    size_t n_fields;
    bool no_body;
};

enum rpc_failure {
    RPC_UNREACHED, /* it was not processed: no connection, or upstream said so */
    RPC_LOST,      /* the connection was lost: nobody knows */
    RPC_RESET,     /* upstream reset it, with a code */
};

struct rpc_call_ops {
    /* It is being sent, to that peer; may be NULL. A second time if it is repeated. */
    void (*on_begin)(void *ctx, const struct net_addr *peer);
    /* Head of the answer; with end_stream on_end follows at once. Valid during the call. */
    void (*on_head)(void *ctx, const struct h2_head *head);
    void (*on_body)(void *ctx, struct view piece);
    void (*on_trailers)(void *ctx, const struct h1_field *fields, size_t n); /* before on_end */
    /* The answer is complete; nothing follows, and what is left of the request is given up. */
    void (*on_end)(void *ctx);
    void (*on_drain)(void *ctx);
    /* It failed; nothing follows. `code` is RST_STREAM's (RFC 9113 §7) for RPC_RESET. */
    void (*on_error)(void *ctx, const struct err *e, enum rpc_failure how, uint32_t code);
};

/* Begin a call; never calls back before it returns. */
struct rpc_call *rpc_call_start(struct rpc_client *c, const struct rpc_call_opts *o,
                                const struct rpc_call_ops *ops, void *ctx);

/* Queue a piece of the body (copied); 0 and nothing once the call is over. Returns the bytes queued
 * now: more than HTTP_WRITE_HIGH means wait for on_drain. */
size_t rpc_call_write(struct rpc_call *call, struct view piece);

/* Our side is complete, perhaps with trailers (copied). Harmless when it was already. */
void rpc_call_finish(struct rpc_call *call, const struct h1_field *trailers, size_t n);

/* n bytes given to on_body are done with: more may come. */
void rpc_call_consumed(struct rpc_call *call, size_t n);

/* Frees; a call that is not over is reset with `code`. Callbacks stop at once; may be called from
 * any of them. */
void rpc_call_free(struct rpc_call **call, uint32_t code);

#endif
