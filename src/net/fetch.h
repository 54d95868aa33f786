/*
 * Delivery's HTTP client: libcurl's multi interface on the loop (socket action), by the rules in
 * docs/architecture.md. One pool for each worker, for the loop's thread only. What matters to
 * delivery is not only the answer but whether the request can have been executed.
 *
 * Nothing is ever sent twice: libcurl would repeat a request when a kept connection dies, and is
 * stopped (RFC 9110 section 9.2.2 allows it for some methods only, and not for ours).
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

/* One description of a peer, for all requests to it; kept by the caller while the pool lives. */
struct fetch_peer {
    const char *ca;          /* PEM bundle or NULL: the system's; a change is noticed in 5 min */
    const char *certificate; /* client certificate, or NULL */
    const char *key;
    const char *min_version; /* "1.2" or "1.3" */
    const char *parent;      /* URL of a parent proxy, with user and password if need be; or NULL */
    /* Does that destination go directly, and not by the parent? NULL: none does. */
    bool (*bypass)(void *ctx, const char *host, uint16_t port);
    void *bypass_ctx;
    enum fetch_http http; /* AUTO: HTTP/2 if TLS agrees on it, else HTTP/1.1 */
};

struct fetch_pool_opts {
    struct net_resolver *resolver;
    unsigned max_connections_per_host; /* 0: 2 with HTTP/2, 16 with HTTP/1.1 */
    unsigned max_idle_ms;              /* how long a connection may be reused; 0: 20 s */
    /* Checked before each dial, but for a parent's address. False: the address is not used. */
    bool (*allow)(void *ctx, const struct net_addr *addr);
    void *allow_ctx;
};

/* Never NULL. Keeps copies of the options; the resolver and the loop must outlive the pool. */
struct fetch_pool *fetch_pool_new(struct ev_loop *loop, const struct fetch_pool_opts *o);

/* Until it is taken back: fetches that run end as if their time were over, those that begin as not
 * sent. */
void fetch_pool_cut(struct fetch_pool *p, bool on);

/* Running fetches end without a callback. Not from within a callback of the pool. */
void fetch_pool_free(struct fetch_pool **p);

enum fetch_outcome {
    FETCH_ANSWERED, /* a complete answer with `status` */
    FETCH_NOT_SENT, /* no byte of the request left: certainly not executed */
    FETCH_UNKNOWN,  /* broken off or timed out afterwards: may or may not have been executed */
};

struct fetch_result {
    enum fetch_outcome outcome;
    int status;                  /* with UNKNOWN: of an answer whose body broke off, else 0 */
    struct err err;              /* for the outcomes without answer; never holds the URL's query */
    struct view body;            /* of the answer, up to max_answer bytes (more is cut off) */
    struct view retry_after;     /* fields of the answer, empty if absent or over 512 bytes */
    struct view goog_hash;       /* all x-goog-hash fields, joined by "," */
    struct view accept_encoding; /* joined likewise */
    struct view server;          /* Server */
    struct view gateway;         /* Tailrace: the hub's name and version (edge to hub) */
    struct view content_encoding;
    int http_version;   /* 11 or 20 */
    int64_t connection; /* id of the connection used, different for each of a pool; or -1 */
};

/* Never called from fetch_start, fetch_resume or fetch_cancel. `r` is valid during the call. It
 * may start and cancel fetches, but not its own, which has ended. */
typedef void (*fetch_done_fn)(void *ctx, const struct fetch_result *r);

struct fetch_opts {
    const char *method; /* "GET", "POST", "PUT", "DELETE", "HEAD" */
    const char *url;    /* http or https; path and query are sent byte for byte */
    const struct fetch_peer *peer;
    /* "Name: value", NULL-terminated; copied. No Content-Type, Expect or Accept is added by
     * itself, and User-Agent only if it is not given. */
    const char *const *fields;
    /* Body: either `body` (borrowed until done or cancelled), or `read` for `length` bytes: returns
     * bytes written to p, 0 at the end, FETCH_PAUSE until fetch_resume, -1 to give up. An end
     * before `length` gives up too. It is never rewound. */
    struct view body;
    int64_t length; /* with `read`; -1: unknown (chunked) */
    long (*read)(void *ctx, void *p, size_t n);
    /* Answer body in pieces instead of r->body (large downloads); return -1 to give up. */
    int (*write)(void *ctx, struct view piece);
    unsigned timeout_ms; /* for all of it, waiting for a connection included; 0: 30 s */
    unsigned connect_ms; /* for TCP and TLS; 0: 5 s */
    /* No byte either way for so long ends it, to about 100 ms; not while the body is paused.
     * 0: off. For large bodies. */
    unsigned stall_ms;
    /* Asked once a connection is chosen and before a byte is sent, with its id as in fetch_result.
     * false: not on this one; the fetch ends as FETCH_NOT_SENT, and a connection of HTTP/1.1 is
     * closed. For bodies that only some connections may carry. */
    bool (*connection_ok)(void *ctx, int64_t connection);
    bool fresh;        /* never on a reused connection; HTTP/1.1 unless the peer is FETCH_HTTP_2 */
    bool http_1_1;     /* this one over HTTP/1.1 (large uploads: an early answer is not lost) */
    size_t max_answer; /* 0: 64 KiB */
    fetch_done_fn done;
    void *ctx;
};
enum { FETCH_PAUSE = -2 };

/* Never NULL; whatever is wrong is told by `done`. The handle is good until `done` is called. */
struct fetch *fetch_start(struct fetch_pool *p, const struct fetch_opts *o);

/* After FETCH_PAUSE: call `read` again. Harmless if it is not paused. */
void fetch_resume(struct fetch *f);

/* No callback any more; a connection of HTTP/1.1 is dropped, of HTTP/2 the stream. NULL is fine;
 * callable from `read`, `write` and other fetches' `done`. */
void fetch_cancel(struct fetch **f);

size_t fetch_pool_active(const struct fetch_pool *p);      /* fetches that have not ended */
size_t fetch_pool_connections(const struct fetch_pool *p); /* dialled since the pool was made */

#endif
