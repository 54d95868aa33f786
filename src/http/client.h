/*
 * The HTTP/1.1 client of the relays: streams both ways, keeps idle connections for reuse, and never
 * repeats a request by itself, with one exception that RFC 9110 §9.2.2 allows: a GET or HEAD that
 * failed on a reused connection before any answer byte goes once on a fresh one.
 */
#ifndef TR_HTTP_CLIENT_H
#define TR_HTTP_CLIENT_H

#include "http/message.h"
#include "net/connect.h"

struct http_client;
struct http_call;

struct http_client_opts {
    struct net_resolver *resolver;
    unsigned idle_timeout_ms; /* of kept connections; 0: 15 s, shorter than upstreams keep theirs */
    unsigned max_idle;        /* for each origin; 0: 32 */
    /* Without the head of the answer, or a byte of the request taken; 0: 330 s: at least five
     * minutes (HP §7 item 41). */
    unsigned head_timeout_ms;
};

/* `o` is copied. For the loop's thread, like all here. */
struct http_client *http_client_new(struct ev_loop *loop, const struct http_client_opts *o);

/* Closes all connections. Calls that are left hear nothing more; their owners still free them. */
void http_client_free(struct http_client **c);

struct http_call_opts {
    const char *host;
    uint16_t port;
    struct tls_ctx *tls;                                   /* NULL: in clear */
    bool (*allow)(void *ctx, const struct net_addr *addr); /* see net/connect.h */
    void *allow_ctx;
    /* See net/connect.h; NULL: none. In clear without `upgrade`, the parent is asked by an absolute
     * URL instead of CONNECT, which proxies allow to few ports (RFC 9112 §3.2.2). */
    const struct net_parent *parent;
    struct view method, target, authority; /* authority goes into Host */
    const struct h1_field *fields;         /* hop fields already left out; copied */
    size_t n_fields;
    int64_t length; /* of the body; -1: chunked; 0: none */
    bool upgrade;   /* add Connection: upgrade and keep the Upgrade field */
    /* Instead of dialling host and port, for a peer that is no address: a connected, non-blocking
     * descriptor in clear, or -1 and `e`. Called once, within http_call_start; the connection ends
     * with the call. `tls` and `parent` are NULL then. NULL: dial. */
    int (*dial)(void *ctx, struct err *e);
    void *dial_ctx;
};

struct http_call_ops {
    /* Head of the answer (interim 1xx are not shown, but 101). Valid during the call. With 101
     * on_body and http_call_write are raw. */
    void (*on_head)(void *ctx, int status, const struct h1_field *fields, size_t n, int64_t length);
    void (*on_body)(void *ctx, struct view piece);
    void (*on_end)(void *ctx);
    void (*on_drain)(void *ctx);
    /* It failed; nothing follows. `sent`: the request may have reached the peer. */
    void (*on_error)(void *ctx, const struct err *e, bool sent);
};

/*
 * Begin a call; never calls back before it returns. Host, Content-Length, Transfer-Encoding,
 * Connection, Keep-Alive and Expect among the fields are left out: they are ours. A 101 (with
 * `upgrade`) or a 2xx to CONNECT makes a tunnel of it. When the answer is complete before the
 * request is, the rest of the request is not sent and the connection not used again.
 */
struct http_call *http_call_start(struct http_client *c, const struct http_call_opts *o,
                                  const struct http_call_ops *ops, void *ctx);

/* Queue a piece of the request body, or of the tunnel (copied); 0 and nothing once the call is
 * over. Returns the bytes queued now: more than HTTP_WRITE_HIGH means wait for on_drain. */
size_t http_call_write(struct http_call *call, struct view piece);

/* The request body is complete, in a tunnel: our side of it. Harmless when there is no body, so
 * the end of a request may be passed on as it comes also if the request asks for an upgrade. */
void http_call_finish(struct http_call *call);

/* n bytes given to on_body are done with: more may come. */
void http_call_consumed(struct http_call *call, size_t n);

/* After on_end or on_error: frees; what is queued of a tunnel still goes out. Before: breaks the
 * connection off. Callbacks stop at once; may be called from any of them. */
void http_call_free(struct http_call **call);

#endif
