/*
 * Both sides of HTTP/2 (RFC 9113) over nghttp2, sans I/O: bytes in, callbacks out, bytes out.
 * Flow-control windows are opened only by h2_consumed, so that a handler that does not read holds
 * its peer back.
 */
#ifndef TR_CODEC_H2_H
#define TR_CODEC_H2_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/view.h"
#include "codec/h1.h"

enum {
    H2_MAX_STREAMS = 256,          /* concurrent, for each connection */
    H2_STREAM_WINDOW = 256 * 1024, /* bytes of one request body that may be under way */
    H2_CONN_WINDOW = 1024 * 1024,
    H2_MAX_HEADER_BYTES = H1_MAX_HEAD,
    H2_MAX_RESETS = 100,             /* client resets in 10 s: rapid reset (CVE-2023-44487) */
    H2_MAX_CONTROL = 1000,           /* pings, settings and empty frames in 10 s */
    H2_MAX_QUEUED_OUT = 1024 * 1024, /* bytes of answers to control frames nobody reads */
    H2_MAX_INTERIM = 16,             /* 1xx answers: an upstream that never gives the final one */
    /*
     * Remote calls last, and stand still for as long as their readers like: a connection's window
     * has room for all of its streams, so that none of them waits for the reader of another.
     */
    H2_RPC_STREAMS = 128,
    H2_RPC_WINDOW = 128 * 1024,
    H2_RPC_CONN_WINDOW = H2_RPC_STREAMS * H2_RPC_WINDOW,
    H2_RPC_MAX_RESETS = 1000, /* calls are given up by RST_STREAM, at deadlines many at once */
};

/* RFC 9113 §7, those that somebody here says or looks for. */
enum {
    H2_NO_ERROR = 0x0,
    H2_PROTOCOL_ERROR = 0x1,
    H2_INTERNAL_ERROR = 0x2,
    H2_REFUSED_STREAM = 0x7,
    H2_CANCEL = 0x8,
};

struct h2_session;

struct h2_head {
    struct view method, scheme, authority, path, protocol; /* protocol: RFC 8441, or empty */
    const struct h1_field *fields; /* without pseudo fields; names in lower case */
    size_t n_fields;
    int64_t content_length; /* -1: none */
    bool end_stream;        /* no body follows */
    int status;             /* of an answer, which has no other pseudo field; of a request 0 */
};

struct h2_ops {
    /*
     * A request. Views are valid during the call. All of it would pass the checks of codec/h1.h; a
     * Host field is left out, being the same as `authority`.
     */
    void (*on_request)(void *ctx, int32_t id, const struct h2_head *head);
    void (*on_body)(void *ctx, int32_t id, struct view piece);
    /* The request is complete; right after on_request when it has no body. */
    void (*on_end)(void *ctx, int32_t id);
    /* The stream is over for any reason (0: both sides ended well): forget the id. */
    void (*on_closed)(void *ctx, int32_t id, uint32_t code);
    /* May be NULL: a request was answered 431 or reset for what it says (RFC 9113 §8.1.1), shown
     * before or not. */
    void (*on_refused)(void *ctx);
    /* Bytes queued by h2_write went out and less than `H2_STREAM_WINDOW / 4` are left. */
    void (*on_drain)(void *ctx, int32_t id);
    /* May be NULL: they are dropped. Before on_end; views are valid during the call. */
    void (*on_trailers)(void *ctx, int32_t id, const struct h1_field *fields, size_t n);
    /* Clients only: the head of the answer (1xx are not shown). Views are valid during the call;
     * on_end follows at once if there is no body. */
    void (*on_response)(void *ctx, int32_t id, const struct h2_head *head);
};

/* `now_ns` is passed to calls for the limits by time. */
struct h2_session *h2_server_new(const struct h2_ops *ops, void *ctx);
/* The same with the limits for remote calls (H2_RPC_*). */
struct h2_session *h2_rpc_server_new(const struct h2_ops *ops, void *ctx);
/* A client, for remote calls. Of `ops` it needs no on_request and no on_refused; a stream is there
 * from h2_request to its on_closed, whose code is H2_REFUSED_STREAM if the request was not
 * processed (RFC 9113 §8.7: RST_STREAM or GOAWAY says so, or it was never sent). */
struct h2_session *h2_client_new(const struct h2_ops *ops, void *ctx);
/* Forget everything. No callbacks are made; not from within one. */
void h2_free(struct h2_session **s);

/*
 * Feed bytes. -1: the connection is to be closed after what h2_pull still gives (GOAWAY); `e` says
 * why.
 */
int h2_feed(struct h2_session *s, struct view in, int64_t now_ns, struct err *e) TR_MUST_USE;

/*
 * Bytes to send, valid until the next call; empty when there are none now. Call h2_sent with what
 * was taken.
 */
struct view h2_pull(struct h2_session *s);
void h2_sent(struct h2_session *s, size_t n);

/* Clients. The peer has sent its SETTINGS: it speaks HTTP/2, and what it allows is known. */
bool h2_ready(const struct h2_session *s);
/* May another request begin here, now (h2_ready, below the peer's limit of streams and ours), and
 * ever (no GOAWAY, and there are ids left)? */
bool h2_may_request(const struct h2_session *s);
bool h2_accepts(const struct h2_session *s);
/*
 * Begin a request; only when h2_may_request. All of `head` but protocol and content_length is
 * used and copied; connection-level fields are left out. With end_stream there is no body, else
 * h2_write and h2_trailers follow. Returns its id.
 */
int32_t h2_request(struct h2_session *s, const struct h2_head *head);

/*
 * The handler is done with n bytes of a body: open the windows. What is left of a stream
 * that is over is given back by itself.
 */
void h2_consumed(struct h2_session *s, int32_t id, size_t n);

/*
 * Answer. `end`: there is no body. Fields are copied; names are lowered. Connection-level fields
 * (Connection, Transfer-Encoding, Keep-Alive, Upgrade) are left out. Unknown ids (reset meanwhile)
 * are ignored. A status below 200 is an interim answer; the real one follows. The rest of the
 * request still comes after the answer: h2_reset(id, 0) stops it, once the
 * answer is out.
 */
void h2_respond(struct h2_session *s, int32_t id, int status, const struct h1_field *fields,
                size_t n, bool end);
/* Clients: nobody wants the rest of the request; unless it is out already, H2_CANCEL it. */
void h2_give_up(struct h2_session *s, int32_t id);
/* Memory held for what was not taken yet: bodies of ours that are queued, bodies of the peer's that
 * are not consumed, heads that are not complete. */
size_t h2_held(const struct h2_session *s);
/* Queue body bytes (copied); returns how many are queued for this stream now. */
size_t h2_write(struct h2_session *s, int32_t id, struct view piece, bool end);
/* Send the trailers after what is queued; ends the stream. */
void h2_trailers(struct h2_session *s, int32_t id, const struct h1_field *fields, size_t n);
void h2_reset(struct h2_session *s, int32_t id, uint32_t code);

void h2_goaway(struct h2_session *s);     /* finish the streams there are, take no more */
bool h2_idle(const struct h2_session *s); /* no stream open */
bool h2_done(const struct h2_session *s); /* may be closed: nothing to read or write any more */

#endif
