/*
 * A byte stream to a peer: a socket, with or without TLS on it. Readers and writers are told when
 * they can go on and call read and write themselves; nothing is buffered here, so back-pressure is
 * a call that is not made. All for the loop's thread.
 */
#ifndef TR_NET_STREAM_H
#define TR_NET_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "base/attrs.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/view.h"
#include "crypto/tls.h"
#include "ev/loop.h"
#include "net/addr.h"

struct net_stream;

/* Each may be NULL. In each the stream may be closed. */
struct net_stream_ops {
    /* Handshakes are done (called once, also for streams without TLS; never from the constructor;
     * not for the streams of net_connect_start, which come ready). */
    void (*on_ready)(void *ctx);
    /* net_read will give bytes, the end or an error. Only while net_want_read is on. */
    void (*on_readable)(void *ctx);
    /* After net_write gave NET_AGAIN or took less than offered: there is room again. */
    void (*on_writable)(void *ctx);
    /* The stream failed outside a read or write call (handshake, reset while idle). Close it. */
    void (*on_failed)(void *ctx, const struct err *e);
};

/* Take over a connected non-blocking descriptor. `tls` NULL: in clear. The stream owns fd. */
struct net_stream *net_stream_accepted(struct ev_loop *loop, int fd, struct tls_ctx *tls,
                                       const struct net_addr *peer);
struct net_stream *net_stream_connected(struct ev_loop *loop, int fd, struct tls_ctx *tls,
                                        const char *server_name, struct view alpn,
                                        const struct net_addr *peer);

/* net_stream_accepted for a descriptor some of whose bytes were read already: they come first, as
 * the handshake's with TLS, else from net_read (on_readable follows though the socket is quiet).
 * `early` is emptied and its memory given back; empty or NULL: there are none. */
struct net_stream *net_stream_accepted_early(struct ev_loop *loop, int fd, struct tls_ctx *tls,
                                             const struct net_addr *peer, struct buf *early);

/* TLS inside another stream, as through the tunnel of a parent proxy: `under`, ready and bound to
 * nobody, is the new stream's, ends with it, and its resets and ends are the new one's. */
struct net_stream *net_stream_over(struct net_stream *under, struct tls_ctx *tls,
                                   const char *server_name, struct view alpn);

/* Put bytes back in front of all that is still to be read. For a stream that is ready; `early` is
 * emptied and its memory given back. */
void net_unread(struct net_stream *s, struct buf *early);

/* Take the descriptor of a stream without TLS back and free the stream, as net_stream_close does.
 * Nothing is lost, since nothing is buffered in it; early bytes must have been read (else it is a
 * bug). Not for a stream that has failed. */
int net_stream_release(struct net_stream **s) TR_MUST_USE;

/* Set before the constructor's caller returns to the loop; `ops` lives as long as the stream. */
void net_stream_bind(struct net_stream *s, const struct net_stream_ops *ops, void *ctx);

/*
 * Bytes read; 0 at the end of the peer's bytes; NET_AGAIN: wait for on_readable; NET_ERROR: close
 * the stream. With TLS the end is close_notify; a bare FIN is an error (ERR_CLOSED), because bytes
 * may have been cut off by somebody else (RFC 8446 §6.1). `n` is at least 1.
 */
enum { NET_AGAIN = -1, NET_ERROR = -2 };
ssize_t net_read(struct net_stream *s, void *p, size_t n, struct err *e);

/*
 * Bytes taken (may be fewer than n; then on_writable follows once); NET_AGAIN, also during the
 * handshake; NET_ERROR. Bytes not taken are to be offered again, first and unchanged: with TLS a
 * record made of them may be waiting already.
 */
ssize_t net_write(struct net_stream *s, const void *p, size_t n, struct err *e);

/* As net_read and net_write, between the socket of a stream without TLS and a pipe (splice(2)):
 * bytes that nobody here looks at. */
ssize_t net_splice_in(struct net_stream *s, int pipe, size_t n, struct err *e);
ssize_t net_splice_out(struct net_stream *s, int pipe, size_t n, struct err *e);

void net_want_read(struct net_stream *s, bool on); /* off at first */
void net_shutdown_write(struct net_stream *s);     /* the end of our bytes: close_notify, FIN */

/* Close and free. `hard`: send a reset. Callbacks stop at once; memory goes at the end of the turn.
 * Bytes of the peer that were not read make the system send a reset in any case, which can destroy
 * what we sent last: read to the end first where that matters. */
void net_stream_close(struct net_stream **s, bool hard);

bool net_is_tls(const struct net_stream *s);
bool net_tls_offered(const struct net_stream *s);         /* see tls_offered */
bool net_refused_certificate(const struct net_stream *s); /* see tls_refused_certificate */
struct view net_alpn(const struct net_stream *s);
struct view net_server_name(const struct net_stream *s);
struct view
net_peer_name(const struct net_stream *s); /* verified certificate's, see tls_peer_name */
const struct net_addr *net_peer(const struct net_stream *s);
int net_fd(const struct net_stream *s);
struct ev_loop *net_loop(const struct net_stream *s);

#endif
