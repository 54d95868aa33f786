/*
 * Inside of the server: what server.c (connections), exchange.c (exchanges, what handlers call) and
 * the two protocols share.
 *
 * Calls that handlers make never call handlers back and never free anything: they change state and
 * put the connection on the server's list of dirty ones, which is settled at the end of the turn.
 * So nothing here has to expect that a connection disappears under a call into a handler.
 */
#ifndef TR_HTTP_SERVER_PRIV_H
#define TR_HTTP_SERVER_PRIV_H

#include "base/buf.h"
#include "base/hmap.h"
#include "base/list.h"
#include "base/str.h"
#include "http/server.h"
#include "http/waits.h"
#include "net/buffers.h"
#include "net/stream.h"
#include "rt/clock.h"
#include "rt/metric.h"

enum {
    HTTP_WINDOW = 256 * 1024, /* of a request body under way: a sender that outruns its handler */
    HTTP_SHORT_WINDOW = 16 * 1024,   /* ... while memory for connections is short */
    HTTP_SHED_LEAST = 64 * 1024,     /* who holds less of it is not ended for that */
    HTTP_SCRATCH = 64 * 1024,        /* one read; shared by all connections of a server */
    HTTP_AHEAD = 64 * 1024,          /* bytes kept of requests sent ahead of answers (pipelining) */
    HTTP_OUT_HIGH = HTTP_WRITE_HIGH, /* answers queued before no further request is taken: a
                                        pipeliner that does not read */
    HTTP_DIRECT = 16 * 1024,    /* pieces of an answer this large skip the queue if it is empty */
    HTTP_REST_KEEP = 64 * 1024, /* rest of a refused body worth keeping the connection for */
    HTTP_DROP_MAX = 256 * 1024, /* bytes read and dropped so that the client sees an early answer */
    HTTP_DROP_MS = 5000,        /* and for how long */
    HTTP_FIRST_MS = 1000,       /* for the request of who was accepted just before a drain */
    HTTP_LEAST_RATE = 512,      /* bytes a second, of a body or an answer, over all the time that we
                                   waited for them: a byte now and then is not enough */
    HTTP_SPARE = 128,           /* freed objects of a kind kept for reuse */
    HTTP_SPARE_BYTES = 8192,    /* and the largest buffer they keep */
};

/* Under AddressSanitizer every object is an allocation of its own, so that it can see mistakes. */
#if defined(__SANITIZE_ADDRESS__)
enum { HTTP_REUSE = 0 };
#else
enum { HTTP_REUSE = 1 };
#endif

enum http_wait_kind {
    WAIT_HEAD,   /* conn.rd: handshake, or a head that has begun */
    WAIT_IDLE,   /* conn.rd: between requests */
    WAIT_LINGER, /* conn.rd: answered and shut down, waiting for the client to see it */
    WAIT_FIRST,  /* conn.rd: the first request, while the server drains */
    WAIT_WRITE,  /* conn.wr: the client takes no bytes */
    WAIT_BODY,   /* exchange.body: we want a byte of the body */
    WAIT_STALL,  /* exchange.stall: HTTP/2, the client opens no window for the answer */
    WAIT_DROP,   /* exchange.stall: HTTP/2, answered, the rest of the body is dropped */
};

enum http_glitch {
    GLITCH_BAD_REQUEST,
    GLITCH_CUT_REQUEST,
    GLITCH_SLOW_HEAD,
    GLITCH_SLOW_BODY,
    GLITCH_SLOW_READER,
    GLITCH_HANDSHAKE,
    GLITCH_H2_PROTOCOL,
    GLITCH_H2_FLOOD,
    GLITCH_CONNECTION_LIMIT,
    GLITCH_KINDS
};

struct http_conn;
struct h1_side;
struct h2_side;

/* What the two protocols do differently. None may free the connection. */
struct http_conn_ops {
    void (*readable)(struct http_conn *c);
    void (*settle)(struct http_conn *c); /* write, take up what waited, see whether it is over */
    void (*gone)(struct http_conn *c);   /* it is closed: end exchanges, free the side */
    void (*timeout)(struct http_conn *c, enum http_wait_kind kind); /* HEAD, IDLE */
    size_t (*held)(const struct http_conn *c); /* memory for what a peer has not taken */
    /* For exchanges; asserted and filtered by exchange.c. */
    void (*consumed)(struct http_exchange *ex, size_t n);
    void (*reply)(struct http_exchange *ex, int status, const struct h1_field *f, size_t n,
                  struct view body);
    void (*reply_start)(struct http_exchange *ex, int status, const struct h1_field *f, size_t n,
                        int64_t length);
    size_t (*write)(struct http_exchange *ex, struct view piece);
    void (*finish)(struct http_exchange *ex);
    /* Both may be NULL: the protocol has nothing like it. */
    void (*finish_trailers)(struct http_exchange *ex, const struct h1_field *f, size_t n);
    void (*reply_head)(struct http_exchange *ex, int status, const struct h1_field *f, size_t n);
    void (*switch_to)(struct http_exchange *ex, int status, const struct h1_field *f, size_t n);
    struct net_stream *(*detach)(struct http_exchange *ex, int status, const struct h1_field *f,
                                 size_t n, struct buf *early); /* or NULL: never */
    void (*abort)(struct http_exchange *ex, uint32_t code);
    void (*end_tunnels)(struct http_conn *c);
    void (*body_late)(struct http_exchange *ex); /* WAIT_BODY is over */
    void (*stall_late)(struct http_exchange *ex, enum http_wait_kind kind);
};

extern const struct http_conn_ops http_h1_ops;
extern const struct http_conn_ops http_h2_ops;

enum { HTTP_CONN_MAGIC = 0x68636f6e, HTTP_EXCHANGE_MAGIC = 0x68657863 };

struct http_conn {
    unsigned magic;
    struct http_server *srv;
    struct net_stream *s;
    const struct http_conn_ops *ops;
    struct h1_side *h1; /* while there is something going on; idle connections have none */
    struct h2_side *h2;
    struct metric *gauge; /* that counts it, or NULL */
    const char *listener;
    struct view identity; /* proven before it came to us */
    bool secure;          /* its TLS was ended before */
    void *tag;
    void (*on_closed)(void *tag, const struct net_stream *s);
    struct list link;  /* in server.conns */
    struct list dirty; /* in server.dirty */
    struct http_wait rd, wr;
    size_t held;            /* as it counts in net/buffers.h */
    size_t dropped;         /* while it lingers */
    int64_t blocked_ns;     /* the client took nothing for so long, ... */
    uint64_t blocked_bytes; /* ... and these in between, since there was something to send */
    bool ready;             /* handshake is done */
    bool used;              /* it had a request */
    bool last_chance;       /* ... and has not much time for its first one: the server drains */
    bool sniffing;          /* it may still turn out to be HTTP/2 by prior knowledge */
    bool running;           /* we are in its callback and settle at its end */
    bool blocked;           /* the socket takes nothing now; on_writable will follow */
    bool over;              /* close it when we come back to the top */
    bool hard;              /* with a reset */
    bool lingering;         /* our side is shut down; input is dropped */
    bool reading;           /* what net_want_read was last told */
};

enum http_answer { ANSWER_NONE, ANSWER_STARTED, ANSWER_WHOLE };

struct http_exchange {
    unsigned magic;
    struct http_conn *conn;
    const struct http_handler *handler;
    void *ctx;
    struct http_request req;
    char *mem; /* copy of the head: fields, then text */
    size_t mem_cap;
    struct list link; /* h1: waits for its bytes to be sent; h2: open or over */
    struct http_wait body, stall;
    enum http_answer answer;
    int64_t left;      /* of an answer with a length; -1: unknown */
    uint64_t received; /* of the body */
    int64_t waited_ns; /* for it */
    size_t unconsumed; /* of the body, with the handler */
    bool ended;        /* the request is complete */
    bool connect;      /* method CONNECT: nothing follows the head before the switch */
    bool tunnel;
    bool bodiless; /* the answer has no body whatever its head says */
    bool high;     /* http_write said more than HTTP_WRITE_HIGH: on_drain is owed */
    bool dead;     /* broken off or over: calls do nothing, only on_gone follows */
    /* HTTP/1.1 */
    uint64_t mark;  /* position in the output at which the answer is complete */
    bool keep;      /* the client lets us keep the connection */
    bool chunked;   /* the answer */
    bool continued; /* 100 was sent, or is not asked for */
    /* HTTP/2 */
    int32_t id;
    uint32_t code; /* that the stream was closed with */
    struct hnode node;
    struct buf early;  /* of a tunnel, before the switch */
    size_t stall_seen; /* queued when the stall wait was put */
    bool complete;     /* it ended well */
    bool eof;          /* the client ended its side of the tunnel */
    bool eof_given;    /* on_end was called (again) for the tunnel */
    bool drain_due;
};

struct http_server {
    struct ev_loop *loop;
    struct http_server_opts o;
    struct http_waits waits;
    struct list conns;
    size_t n_conns;
    struct list dirty;
    struct ev_task task;
    bool task_posted;
    bool draining;
    bool held;  /* no exchange begins */
    bool last;  /* each connection ends with its next answer */
    bool freed; /* the task frees it */
    uint8_t *scratch;
    uint64_t
        heads; /* taken in so far: bytes that made it rise are wiped, credentials are in them */
    struct http_exchange *spare_ex[HTTP_SPARE];
    size_t n_spare_ex;
    struct h1_side *spare_h1[HTTP_SPARE];
    size_t n_spare_h1;
    int64_t date_until_ns; /* monotonic */
    char date[32];
};

/* --- server.c --- */

/* Settle the connection at the end of the turn, or when its callback returns. */
void http_conn_dirty(struct http_conn *c);
void http_conn_fail(struct http_conn *c, bool hard); /* it is to be closed at the top */
void http_conn_want_read(struct http_conn *c, bool on);
void http_conn_linger(struct http_conn *c); /* all is sent: shut down, wait for the client */
void http_conn_protocol(struct http_conn *c, const struct http_conn_ops *ops);
/* The client takes no more now; it has just taken `moved` bytes. And: it has taken all. */
void http_conn_blocked(struct http_conn *c, size_t moved);
void http_conn_unblocked(struct http_conn *c);
static inline size_t http_window(void)
{
    return buffers_short() ? HTTP_SHORT_WINDOW : HTTP_WINDOW;
}

/* What sending or taking so many bytes may last at least (HTTP_LEAST_RATE). */
static inline int64_t http_least_rate_ns(const struct http_server *s, uint64_t bytes)
{
    return (int64_t)(bytes / s->o.least_rate) * NS_PER_SEC +
           (int64_t)(bytes % s->o.least_rate) * NS_PER_SEC / s->o.least_rate;
}

uint8_t *http_scratch(struct http_server *s);
/* `n` bytes at `p`, which may be in the scratch, have been taken in; `heads` as it was before. */
void http_taken_in(const struct http_server *s, uint64_t heads, void *p, size_t n);
void http_glitch(enum http_glitch kind);
void http_count_request(const struct http_exchange *ex);

/* --- exchange.c --- */

struct http_exchange *http_exchange_new(struct http_conn *c);
void http_exchange_drop(struct http_exchange *ex); /* frees; on_gone was called */
/* We wait for a byte of the body; since its last one, if that has just come. */
void http_exchange_want(struct http_exchange *ex);
/* Room for a copy of a head in `ex`. */
void *http_exchange_room(struct http_exchange *ex, size_t n);
/* To the handler, if it is still there. False: nobody took the piece, it is done with. */
bool http_exchange_body(struct http_exchange *ex, struct view piece);
void http_exchange_end(struct http_exchange *ex);
void http_exchange_drained(struct http_exchange *ex); /* on_drain, if it is owed */
/* Call on_gone, once. */
void http_exchange_gone(struct http_exchange *ex, bool complete);
void http_exchange_take(struct http_exchange *ex);
struct view http_date(struct http_server *s);
bool http_status_bodiless(int status);
bool http_is_framing_field(struct view name); /* written by us: not taken from handlers */
void http_error_body(struct str *out, const char *text); /* {"error_msg":"..."} */
extern const struct h1_field http_json_field;
void http_spares_free(struct http_server *s);

/* --- server_h1.c, server_h2.c --- */

void http_h1_side_free(struct h1_side *h); /* of the spares */
/* The connection speaks HTTP/2 from its first byte on; `in` has come already. */
void http_h2_start(struct http_conn *c, struct view in);

#endif
