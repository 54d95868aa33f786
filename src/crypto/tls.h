/*
 * TLS over descriptors, with OpenSSL 3. Contexts are immutable once made and shared by threads;
 * a session belongs to one thread. Renegotiation and compression are off; TLS 1.2 is the least.
 */
#ifndef TR_CRYPTO_TLS_H
#define TR_CRYPTO_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"

struct tls_ctx;
struct tls_session;

struct tls_server_opts {
    const char *certificate; /* PEM chain file */
    const char *key;         /* PEM key file */
    const char *client_ca;   /* PEM bundle to verify client certificates by; NULL: none asked for */
    bool client_required;
    bool http2; /* offer h2 by ALPN, else http/1.1 only */
};

struct tls_client_opts {
    const char *ca;          /* PEM bundle, or NULL: the system's */
    const char *certificate; /* client certificate and key, or NULL */
    const char *key;
    const char *min_version; /* "1.2" (default) or "1.3" */
    bool insecure;           /* no verification; tests only */
};

/* NULL and `e` (naming the file and what is wrong with it) on failure. Reference counted. */
struct tls_ctx *tls_ctx_server(const struct tls_server_opts *o, struct err *e) TR_MUST_USE;
struct tls_ctx *tls_ctx_client(const struct tls_client_opts *o, struct err *e) TR_MUST_USE;
struct tls_ctx *tls_ctx_ref(struct tls_ctx *ctx);
void tls_ctx_unref(struct tls_ctx **ctx);

/* Wall time (ns) at which the first certificate of the server context's chain to do so expires. */
int64_t tls_ctx_not_after_ns(const struct tls_ctx *ctx);

/* Append whom the context's own certificate is for, as "CN=gateway.example,O=Example" (RFC 2253);
 * nothing if it has none. */
void tls_ctx_subject(const struct tls_ctx *ctx, struct str *out);

enum tls_want { TLS_DONE, TLS_WANT_READ, TLS_WANT_WRITE, TLS_FAILED };

/*
 * A session over a non-blocking descriptor, which it does not own. Client side: `server_name` is
 * sent as SNI (RFC 6066; not for a literal address) and verified (RFC 6125, whole-label wildcards
 * only); `alpn` is the wire-format list to offer (RFC 7301) or VIEW_NONE. Both are copied. The
 * session holds a reference to its context.
 *
 * Handshakes with a name that was talked to before are resumed if the server plays along (RFC 8446
 * §2.2, RFC 5077): a context keeps what is needed for an hour at most, in memory only, and forgets
 * it for a name a handshake with which fails.
 */
struct tls_session *tls_accept(struct tls_ctx *ctx, int fd);
/* As tls_accept, when the first bytes of the client were read already (copied): they come before
 * what the descriptor gives. Call tls_handshake without waiting for it. */
struct tls_session *tls_accept_early(struct tls_ctx *ctx, int fd, struct view early);
struct tls_session *tls_connect(struct tls_ctx *ctx, int fd, const char *server_name,
                                struct view alpn);

/*
 * What a session may run over in place of a descriptor, such as another session: bytes moved, 0
 * from `read` at the end, TLS_AGAIN, or TLS_ERROR. Bytes that `write` did not take are offered
 * again, first and unchanged. The want of tls_handshake and the others is about these calls then.
 */
struct tls_transport {
    ssize_t (*read)(void *ctx, void *p, size_t n);
    ssize_t (*write)(void *ctx, const void *p, size_t n);
};

/* As tls_connect; `t` (static) and `tctx` are used as long as the session lives. */
struct tls_session *tls_connect_over(struct tls_ctx *ctx, const struct tls_transport *t, void *tctx,
                                     const char *server_name, struct view alpn);
void tls_free(struct tls_session **s);

/* Step the handshake: DONE, what to wait for, or FAILED with `e` (why, in words for an admin). */
enum tls_want tls_handshake(struct tls_session *s, struct err *e);

/*
 * Like read and write: bytes moved; 0 from tls_read is a clean end (close_notify) and
 * TLS_READ_EOF (-3) a bare TCP end; -1 with `*want` set: call again when the descriptor is
 * ready; -2 with `e` on failure.
 *
 * Bytes that tls_write did not take are to be offered again, first and unchanged: a record made
 * of them may be waiting inside. How many are offered at once may differ.
 */
enum { TLS_AGAIN = -1, TLS_ERROR = -2, TLS_READ_EOF = -3 };
ssize_t tls_read(struct tls_session *s, void *p, size_t n, enum tls_want *want, struct err *e);
ssize_t tls_write(struct tls_session *s, const void *p, size_t n, enum tls_want *want,
                  struct err *e);

/* Bytes wait inside, and tls_read is to be called without waiting for the descriptor. */
bool tls_pending(const struct tls_session *s);

/* Send close_notify: DONE, or what to wait for before the next try; FAILED if it cannot be sent any
 * more. Reading may go on. Never blocks; ignoring the answer is "best effort". */
enum tls_want tls_close_notify(struct tls_session *s);

struct view tls_alpn(const struct tls_session *s);        /* what was agreed, or empty */
struct view tls_server_name(const struct tls_session *s); /* SNI the client sent, or empty */
struct view tls_peer_subject(struct tls_session *s);      /* peer certificate's subject, or empty */
/* Who the peer's verified certificate is for: its first DNS name, else its common name, else empty.
 */
struct view tls_peer_name(struct tls_session *s);
/* The handshake began, or would have been, an abbreviated one: if it failed, a full one may not. */
bool tls_offered(const struct tls_session *s);
/* The peer ended it by an alert that says that it does not believe our certificate (RFC 8446 §6.2),
 * in the handshake or right after. */
bool tls_refused_certificate(const struct tls_session *s);
bool tls_resumed(const struct tls_session *s); /* the handshake was an abbreviated one */

#endif
