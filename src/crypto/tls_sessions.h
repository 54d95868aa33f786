/*
 * What a client context remembers of servers to resume sessions with them (RFC 8446 §2.2 and
 * §4.6.1, RFC 5077). Any thread. In memory only: with a session's secret its traffic could be read.
 */
#ifndef TR_CRYPTO_TLS_SESSIONS_H
#define TR_CRYPTO_TLS_SESSIONS_H

#include <openssl/ssl.h>

struct tls_sessions;

struct tls_sessions *tls_sessions_new(void);
void tls_sessions_free(struct tls_sessions **t);

/* Keep `s`, which becomes the table's own, for the server of that name. Of the names, the one not
 * used for longest makes room; of a name's sessions, the oldest. */
void tls_sessions_put(struct tls_sessions *t, const char *name, SSL_SESSION *s);

/* The newest session with that server, or NULL; the caller's to free. A TLS 1.3 one is given once
 * only (RFC 8446 C.4), so that as many connections as there are sessions can begin at a time. */
SSL_SESSION *tls_sessions_take(struct tls_sessions *t, const char *name);

/* A handshake with that server failed: whatever the sessions had to do with it, the next is a full
 * one. */
void tls_sessions_forget(struct tls_sessions *t, const char *name);

#endif
