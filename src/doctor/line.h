/*
 * A connection that one thread waits for, each wait bounded by a deadline: TCP, with TLS over it,
 * and perhaps TLS to a proxy below that. Unlike net/stream it tells all that it sees of the far
 * side's certificates, also of those that it does not believe.
 */
#ifndef TR_DOCTOR_LINE_H
#define TR_DOCTOR_LINE_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/err.h"
#include "base/str.h"
#include "net/addr.h"

struct line {
    int fd;              /* -1: none */
    SSL *outer;          /* to a parent proxy; NULL: in clear */
    SSL *ssl;            /* NULL: in clear */
    int64_t deadline_ns; /* of clock_mono_ns */
    /* How the last failure was: OpenSSL's reason (SSL_R_...), 0: none; and was it the far side's
     * own end, told by TLS and so nobody else's? */
    int reason;
    bool said_goodbye;
    struct str in; /* read and not used yet */
};
#define LINE_INIT ((struct line){.fd = -1, .in = STR_INIT})

void line_close(struct line *l); /* may be opened again */

/* From now on for so long. */
void line_allow(struct line *l, unsigned ms);

/* TLS as a client over what is there; the line owns `ssl` from now on, whatever comes of it. No
 * certificate is looked at. 0; -1: `e`, l->reason. */
int line_tls(struct line *l, SSL *ssl, struct err *e) TR_MUST_USE;

/* Make what is the line's TLS now the outer one: another one is to follow inside. */
void line_nest(struct line *l);

/* All of it. -1: `e` (ERR_TIMEOUT, ERR_CLOSED). */
int line_write(struct line *l, const void *p, size_t n, struct err *e) TR_MUST_USE;
/* Some more bytes into l->in. How many; 0: the end; -1: `e`. */
ssize_t line_read(struct line *l, struct err *e);

#endif
