/*
 * Inside of the client: what client.c (calls, pool of connections) and client_h1.c (one connection)
 * share.
 *
 * Callbacks may free their call, so nobody touches a call after one without asking its connection
 * whether it still has one. Connections are freed at the top of their own callbacks only.
 */
#ifndef TR_HTTP_CLIENT_PRIV_H
#define TR_HTTP_CLIENT_PRIV_H

#include "base/buf.h"
#include "base/hmap.h"
#include "base/list.h"
#include "base/str.h"
#include "http/client.h"
#include "http/server.h"
#include "http/waits.h"

enum {
    CLIENT_WINDOW = 256 * 1024, /* of an answer under way: an upstream that outruns the client */
    CLIENT_SCRATCH = 64 * 1024, /* one read */
    CLIENT_DIRECT = 16 * 1024,  /* pieces this large skip the queue if it is empty */
    CLIENT_INTERIM_MAX = 16,    /* 1xx answers: an upstream that never gives the final one */
    CLIENT_LAST_MS = 10000,     /* to send the end of a tunnel that its owner has left */
    CLIENT_CALL_MAGIC = 0x6863616c,
    CLIENT_CONN_MAGIC = 0x68636c63,
};

enum client_wait { CWAIT_HEAD, CWAIT_IDLE, CWAIT_LAST };

/* A place that connections lead to. */
struct client_origin {
    struct hnode node;
    char *host;
    uint16_t port;
    struct tls_ctx *tls;             /* referenced, so that its address stays its own */
    const struct net_parent *parent; /* by which they lead there; NULL: directly */
    bool absolute;    /* they end at the parent, which takes requests for absolute URLs */
    struct list idle; /* connections, the last used one first */
    unsigned n_idle;
    unsigned refs; /* connections and calls */
};

struct client_conn {
    unsigned magic;
    struct http_client *client;
    struct client_origin *origin;
    struct net_stream *s;
    struct http_call *call;   /* NULL: idle, or ending */
    struct h1_parser *parser; /* while busy */
    struct list link;         /* in client.conns */
    struct list idle;         /* in origin.idle */
    struct list dirty;        /* in client.dirty */
    struct http_wait wait;
    struct buf in;  /* read, not parsed yet */
    struct str out; /* the first out_off bytes are sent */
    size_t out_off;
    size_t unconsumed; /* of the answer, with the call's owner */
    unsigned interim;
    bool skipping; /* the end of an interim answer is to come */
    bool reused;   /* it has served before */
    bool sent;     /* some byte of this request went out */
    bool begun;    /* some byte of the answer came */
    bool head_done, keep;
    bool tunnel, eof, eof_given, fin_sent;
    bool only; /* it serves one call */
    bool last; /* left by its owner: send what is queued, then close */
    bool high; /* on_drain is owed */
    bool running, blocked, reading, over, hard;
};

struct http_call {
    unsigned magic;
    struct http_client *client;
    struct client_origin *origin;
    struct http_call_ops ops;
    void *ctx;
    struct list link; /* in client.calls */
    struct client_conn *conn;
    struct net_connect *connect;
    struct net_stream *given; /* instead, until it is ready */
    struct err not_given;
    struct ev_timer *not_given_timer;
    bool (*allow)(void *ctx, const struct net_addr *addr);
    void *allow_ctx;
    struct str out;  /* before there is a connection */
    struct str head; /* kept while the request may be repeated */
    int64_t left;    /* of the body; -1: chunked */
    bool upgrade, connect_method, head_method;
    bool repeatable; /* GET or HEAD without a body, not yet repeated */
    bool finished;   /* the owner gave all of the body */
    bool fin;        /* the owner ended its side of the tunnel */
    bool done;       /* on_end or on_error was called */
};

struct http_client {
    struct ev_loop *loop;
    struct http_client_opts o;
    struct http_waits waits;
    struct hmap origins;
    struct list conns;
    struct list calls;
    struct list dirty;
    struct ev_task task;
    bool task_posted;
    bool freed;
    uint8_t *scratch;
};

/* --- client.c --- */

void client_conn_dirty(struct client_conn *cc);
/* The connection has no use any more: close it at the top. */
void client_conn_fail(struct client_conn *cc, bool hard);
/* The request failed on this connection: repeat it on another if that is right, else tell. */
void client_call_failed(struct client_conn *cc, const struct err *e);
/* The answer is complete and the connection free for another. Does not call back. */
void client_conn_release(struct client_conn *cc);
void client_origin_unref(struct http_client *c, struct client_origin **o);

/* --- client_h1.c --- */

extern const struct net_stream_ops client_stream_ops;
struct client_conn *client_conn_new(struct http_call *call, struct net_stream *s);
void client_conn_attach(struct client_conn *cc, struct http_call *call);
void client_conn_settle(struct client_conn *cc); /* at the end of the turn */
void client_conn_close(struct client_conn *cc);  /* frees; not from within its callbacks */

static inline size_t client_queued(const struct client_conn *cc)
{
    return cc->out.n - cc->out_off;
}

#endif
