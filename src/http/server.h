/*
 * The one HTTP server: HTTP/1.1 and HTTP/2, in clear and over TLS, for logs, relays and admin
 * alike.
 *
 * An *exchange* is one request and its answer. A *service* is asked to take each exchange when its
 * head is complete; it binds a handler and answers through the functions below. A body is pulled:
 * pieces come to on_body, and no more than a window's worth come until http_consumed says they are
 * done with. Everything happens in the loop's thread. After on_gone the exchange is freed and must
 * not be touched. An answered exchange (http_finish called and sent) also ends with on_gone.
 */
#ifndef TR_HTTP_SERVER_H
#define TR_HTTP_SERVER_H

#include <stdbool.h>
#include "base/buf.h"
#include "base/view.h"
#include "crypto/tls.h"
#include "ev/loop.h"
#include "http/message.h"
#include "net/stream.h"

struct http_exchange;
struct http_server;

struct http_handler {
    /* A piece of the body, or raw bytes of a tunnel. Valid during the call. */
    void (*on_body)(void *ctx, struct view piece);
    /* The request is complete. In a tunnel: the client's half-close; so an upgrade request (but
     * not CONNECT) that is switched after take has returned gets it twice. */
    void (*on_end)(void *ctx);
    /* After http_write returned more than HTTP_WRITE_HIGH: there is room again. */
    void (*on_drain)(void *ctx);
    /* The exchange is over. `complete`: the whole answer went to the socket; else the client
     * left, a limit or timeout struck, or the server shuts down. Free what is yours. */
    void (*on_gone)(void *ctx, bool complete);
    /* May be NULL: trailers of the request (HTTP/2 only), before its on_end. Valid during the call.
     */
    void (*on_trailers)(void *ctx, const struct h1_field *fields, size_t n);
};

struct http_service {
    /* Take the exchange: call http_bind, or answer at once with http_reply. `req` is the same as
     * http_request_of(ex). */
    void (*take)(void *ctx, struct http_exchange *ex, const struct http_request *req);
    void *ctx;
};

struct http_server_opts {
    struct tls_ctx *tls;                /* NULL: in clear; h2 then by prior knowledge */
    const struct http_service *service; /* kept by pointer */
    const char *listener;               /* its name, for requests; kept by pointer */
    unsigned head_timeout_ms;           /* first byte to end of head (slow clients); 0: 10 s */
    unsigned idle_timeout_ms; /* between requests; 0: 75 s; far above the clients' 1 s (HP §9.2) */
    unsigned body_timeout_ms; /* without a byte of the body while we want one; 0: 30 s */
    unsigned write_timeout_ms; /* without the client taking a byte of the answer; 0: 60 s */
    /* Bytes a second of a body or an answer, over all the time that we waited for them, that a
     * client may not fall below, beyond these timeouts; 0: 512. */
    unsigned least_rate;
    unsigned max_connections; /* 0: 10,000. Past it they are accepted and closed, and counted */
    /*
     * For remote calls (gRPC) over HTTP/2: an exchange may last, and stand still both ways, for as
     * long as its peers like (their deadlines count, not ours); none waits for another's reader;
     * nothing is added to the heads of answers. The other timeouts stay as they are.
     */
    bool rpc;
};

/* `o` is copied, its TLS context referenced. The server belongs to the loop's thread. */
struct http_server *http_server_new(struct ev_loop *loop, const struct http_server_opts *o);

/* Give it an accepted descriptor (matches net_accept_fn with the server as ctx). */
void http_server_accepted(void *server, int fd, const struct net_addr *peer);

/* What is special about one connection. All may be left out. */
struct http_conn_opts {
    struct tls_ctx *tls;  /* for this connection only (referenced); NULL: the server's */
    struct buf *early;    /* bytes of it that were read already; emptied */
    const char *listener; /* NULL: the server's; kept by pointer */
    bool secure;          /* for requests: somebody ended its TLS before it came to us */
    /* Who the client proved to be before, for requests, if its certificate here says nothing; kept
     * by reference until the connection is closed. */
    struct view identity;
    /* http_request.tag. It means that the client was not meant to notice us: its TLS ends in place
     * of that of the host it asked for. */
    void *tag;
    /* It is being closed; all its exchanges are gone. `s`: to look at; NULL if it was detached. */
    void (*on_closed)(void *tag, const struct net_stream *s);
};

/* http_server_accepted for such a connection. 0, or -1 when it is not taken (drain, too many): the
 * descriptor is closed, `early` emptied, and on_closed does not follow. */
int http_server_accepted_as(struct http_server *s, int fd, const struct net_addr *peer,
                            const struct http_conn_opts *o);

void http_server_set_tls(struct http_server *s, struct tls_ctx *tls); /* for new connections */

/* Take no more requests: GOAWAY, Connection: close; idle connections are closed at the end of the
 * turn, busy ones after their answers, those that have made no request yet after that or a second.
 * New connections are refused. */
void http_server_drain(struct http_server *s);

/*
 * For a moment no exchange begins: those under way go on, everything else stays where it is, unread
 * if need be in the kernel; HTTP/2 clients are told to go elsewhere (GOAWAY), which they do without
 * losing a call. `on` false: on with it. New connections are taken all the same.
 */
void http_server_hold(struct http_server *s, bool on);

/* Break off what exchanges with this tag (see struct http_conn_opts) have become: WebSockets. Not
 * from within a handler. */
void http_server_end_tunnels(struct http_server *s, const void *tag);

/* From now on each connection of HTTP/1.1 ends with its next answer (Connection: close); idle ones
 * stay until then, so that no request meets a connection that is being closed. */
void http_server_last(struct http_server *s);

/* Close up to `n` connections that wait for a request and have for two seconds, the longest first:
 * others need the room. Returns how many. Not from within a handler. */
unsigned http_server_close_idle(struct http_server *s, unsigned n);

/* Memory for connections is short (net/buffers.h): end those that hold some for clients that take
 * nothing, until there is enough. Returns how many. Not from within a handler. */
unsigned http_server_shed(struct http_server *s);

size_t http_server_connections(const struct http_server *s); /* open now, without detached ones */

/* Closes what is left; handlers get on_gone(false). Not from within a handler. */
void http_server_free(struct http_server **s);

/* --- for handlers -------------------------------------------------------------------------
 *
 * None of these calls a handler back before it returns. Once an exchange is broken off, by either
 * side, they do nothing; only on_gone follows. Connection, Keep-Alive, Content-Length and
 * Transfer-Encoding among the fields of an answer are left out: they are the server's; Date is
 * added when it is not there.
 */

void http_bind(struct http_exchange *ex, const struct http_handler *handler, void *ctx);
/* From now on another handler, for who took the exchange only to see whether it may go on. Pieces
 * of the body and its end that came meanwhile are the old one's to hand over. */
void http_rebind(struct http_exchange *ex, const struct http_handler *handler, void *ctx);
struct ev_loop *http_loop(const struct http_exchange *ex);

/* The request head is kept (copied) while the exchange lives. */
const struct http_request *http_request_of(const struct http_exchange *ex);

/* n bytes of body given to on_body are done with: more may come. */
void http_consumed(struct http_exchange *ex, size_t n);

/* Answer with a whole body (copied). Content-Length is added (not for 204/304). May be called
 * before the request's body is complete: the rest is then read and dropped up to a limit so that
 * the client sees the answer. */
void http_reply(struct http_exchange *ex, int status, const struct h1_field *fields, size_t n,
                struct view body);

/* Answer in pieces: head (length -1: unknown), then http_write, then http_finish. Never more bytes
 * than the length says; fewer break the exchange off. What is written to an answer that has no
 * body (HEAD, 204, 304) is dropped. */
void http_reply_start(struct http_exchange *ex, int status, const struct h1_field *fields, size_t n,
                      int64_t length);
enum { HTTP_WRITE_HIGH = 256 * 1024 };
/* Copied; returns the bytes queued now. Flushed at the end of the turn. */
size_t http_write(struct http_exchange *ex, struct view piece);
void http_finish(struct http_exchange *ex);
/* As http_finish, with trailers (left out on HTTP/1.1). */
void http_finish_trailers(struct http_exchange *ex, const struct h1_field *fields, size_t n);

/* Answer with a head only. On HTTP/2 no Content-Length is added, as gRPC's answers without messages
 * have it ("trailers-only"); else as http_reply without a body. */
void http_reply_head(struct http_exchange *ex, int status, const struct h1_field *fields, size_t n);

/* 101: the connection becomes a tunnel. on_body then gives raw bytes (http_consumed as before),
 * http_write sends raw bytes, on_end is the client's half-close, http_finish ours. Only if
 * req->upgrade; an Upgrade field is added when it is not there. Also for CONNECT with status 200.
 * HTTP/2 (RFC 8441) looks the same. Tunnels have no timeouts but the handler's. */
void http_switch(struct http_exchange *ex, int status, const struct h1_field *fields, size_t n);

/*
 * As http_switch, but hand over the connection itself, for those who move bytes by descriptor: the
 * head is sent, bytes that came behind the request are added to `early`, and the stream, which
 * wants no reading now, is the caller's, to be bound before the end of this callback. The exchange
 * is over, without on_gone. NULL: it cannot be had (HTTP/2; the client takes no bytes now or is
 * gone); http_switch will do what is right.
 */
struct net_stream *http_detach(struct http_exchange *ex, int status, const struct h1_field *fields,
                               size_t n, struct buf *early) TR_MUST_USE;

/* Break it off: RST_STREAM (h2), connection reset (h1). on_gone follows, not from within this
 * call. */
void http_abort(struct http_exchange *ex);
/* The same with a code for RST_STREAM (RFC 9113 §7). */
void http_reset(struct http_exchange *ex, uint32_t code);

/* For on_gone: the code that the client gave for breaking it off (HTTP/2); 0 if it said none. */
uint32_t http_reset_code(const struct http_exchange *ex);

#endif
