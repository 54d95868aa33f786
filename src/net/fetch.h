/*
 * Delivery's HTTP client: libcurl's multi interface on the loop (socket action), by the rules in docs/architecture.md. One
 * pool for each worker. What matters to delivery is not only the answer but whether the request can have been executed.
 */
#ifndef TR_NET_FETCH_H
#define TR_NET_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"
#include "ev/loop.h"
#include "net/resolve.h"

struct fetch_pool;
struct fetch;

enum fetch_http { FETCH_HTTP_AUTO, FETCH_HTTP_1_1, FETCH_HTTP_2 }; /* 2 in clear: prior knowledge */

struct fetch_peer { /* one description of a peer, for all requests to it; kept by the caller while the pool lives */
    const char *ca;              /* PEM bundle or NULL: the system's */
    const char *certificate;     /* client certificate, or NULL */
    const char *key;
    const char *min_version;     /* "1.2" or "1.3" */
    const char *parent;          /* URL of a parent proxy, or NULL */
    enum fetch_http http;
};

struct fetch_pool_opts {
    struct net_resolver *resolver;
    unsigned max_connections_per_host; /* 0: 2 with HTTP/2, 16 with HTTP/1.1 */
    unsigned max_idle_ms;              /* how long a connection may be reused; 0: 20 s */
    bool (*allow)(void *ctx, const struct net_addr *addr); /* checked before each dial */
    void *allow_ctx;
};
struct fetch_pool *fetch_pool_new(struct ev_loop *loop, const struct fetch_pool_opts *o);
void fetch_pool_free(struct fetch_pool **p); /* running fetches end without a callback */

enum fetch_outcome {
    FETCH_ANSWERED, /* a complete answer with `status` */
    FETCH_NOT_SENT, /* no byte of the request left: certainly not executed */
    FETCH_UNKNOWN,  /* broken off or timed out afterwards: may or may not have been executed */
};

struct fetch_result {
    enum fetch_outcome outcome;
    int status;
    struct err err;          /* for the outcomes without answer; never holds the URL's query */
    struct view body;        /* of the answer, up to max_answer bytes (more is cut off) */
    struct view retry_after; /* fields of the answer, empty if absent */
    struct view goog_hash;   /* all x-goog-hash fields, joined by "," */
    struct view accept_encoding;
    struct view server;      /* Server */
    struct view gateway;     /* Tailrace: the hub's name and version (edge to hub) */
    struct view content_encoding;
    int http_version;        /* 11 or 20 */
    int64_t connection;      /* id of the connection used (CURLINFO_CONN_ID or the local port), -1 */
};

typedef void (*fetch_done_fn)(void *ctx, const struct fetch_result *r); /* never from fetch_start; r valid during the call */

struct fetch_opts {
    const char *method;      /* "GET", "POST", "PUT", "DELETE" */
    const char *url;         /* sent byte for byte (CURLOPT_PATH_AS_IS; no re-encoding) */
    const struct fetch_peer *peer;
    const char *const *fields; /* "Name: value", NULL-terminated; copied. No Content-Type, Expect or Accept is added by itself */
    /* Body: either `body` (borrowed until done), or `read` for `length` bytes: returns bytes written to p, 0 at the end, FETCH_PAUSE until
     * fetch_resume, -1 to give up. It is never rewound: a second sending is refused, so that no request is repeated unasked. */
    struct view body;
    int64_t length;          /* with `read`; -1: unknown (chunked) */
    long (*read)(void *ctx, void *p, size_t n);
    /* Answer body in pieces instead of r->body (large downloads); return -1 to give up. */
    int (*write)(void *ctx, struct view piece);
    unsigned timeout_ms;     /* for all of it; 0: 30 s; always set */
    unsigned connect_ms;     /* 0: 5 s */
    unsigned stall_ms;       /* no byte either way for so long ends it; 0: off. For large bodies */
    /* Asked once a connection is chosen and before a byte is sent, with its id as in fetch_result. false: not on this one;
     * the fetch ends as FETCH_NOT_SENT. For bodies that only some connections may carry. */
    bool (*connection_ok)(void *ctx, int64_t connection);
    bool fresh;              /* never on a reused connection */
    bool http_1_1;           /* this one over HTTP/1.1 (large uploads: an early answer is not lost) */
    size_t max_answer;       /* 0: 64 KiB */
    fetch_done_fn done;
    void *ctx;
};
enum { FETCH_PAUSE = -2 };

struct fetch *fetch_start(struct fetch_pool *p, const struct fetch_opts *o);
void fetch_resume(struct fetch *f);
void fetch_cancel(struct fetch **f); /* no callback; the connection is dropped */
size_t fetch_pool_active(const struct fetch_pool *p);
size_t fetch_pool_connections(const struct fetch_pool *p); /* opened since start, for tests and metrics */

#endif
