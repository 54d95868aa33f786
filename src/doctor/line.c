#include "doctor/line.h"

#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>
#include "base/bug.h"
#include "crypto/ossl_err.h"
#include "rt/clock.h"
#include "rt/fdx.h"

enum { PIECE = 16 << 10 };

void line_close(struct line *l)
{
    SSL_free(l->ssl);
    SSL_free(l->outer);
    l->ssl = l->outer = NULL;
    fd_close(&l->fd);
    str_fini(&l->in);
    l->said_goodbye = false;
    l->reason = 0;
}

void line_allow(struct line *l, unsigned ms)
{
    l->deadline_ns = clock_mono_ns() + ms * NS_PER_MS;
}

static int wait_for(struct line *l, short events, struct err *e)
{
    struct pollfd p = {.fd = l->fd, .events = events};

    for (;;) {
        int64_t left = l->deadline_ns - clock_mono_ns();
        int n;

        if (left <= 0)
            return err_set(e, ERR_TIMEOUT, "no answer in time");
        n = poll(&p, 1, (int)(left / NS_PER_MS) + 1);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_errno(e, ERR_IO, errno, "poll");
    }
}

/* What an SSL call that did not succeed wants: 0: call it again; -1: `e`; 1: the end. */
static int settle(struct line *l, SSL *ssl, int rc, struct err *e)
{
    int errnum = errno;

    switch (SSL_get_error(ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        return wait_for(l, POLLIN, e);
    case SSL_ERROR_WANT_WRITE:
        return wait_for(l, POLLOUT, e);
    case SSL_ERROR_ZERO_RETURN:
        l->said_goodbye = true;
        return 1;
    default:
        break;
    }
    l->reason = ERR_GET_REASON(ERR_peek_error());
    if (l->reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        l->reason = 0;
        return err_set(e, ERR_CLOSED, "the connection was closed");
    }
    if (ERR_peek_error() == 0)
        return errnum ? err_errno(e, ERR_CLOSED, errnum, "the connection was broken off")
                      : err_set(e, ERR_CLOSED, "the connection was closed");
    return err_set(e, ERR_INVALID, "TLS: %s", ossl_reason());
}

int line_tls(struct line *l, SSL *ssl, struct err *e)
{
    BIO *below;
    int rc;

    l->ssl = ssl;
    below = l->outer ? BIO_new(BIO_f_ssl()) : BIO_new_socket(l->fd, BIO_NOCLOSE);
    if (!below)
        BUG("OpenSSL gives no BIO");
    if (l->outer)
        BIO_set_ssl(below, l->outer, BIO_NOCLOSE);
    SSL_set_bio(ssl, below, below);
    SSL_set_connect_state(ssl);
    for (;;) {
        ERR_clear_error();
        errno = 0;
        rc = SSL_do_handshake(ssl);
        if (rc == 1)
            return 0;
        rc = settle(l, ssl, rc, e);
        if (rc > 0)
            return err_set(e, ERR_CLOSED, "the connection was closed");
        if (rc < 0)
            return -1;
    }
}

void line_nest(struct line *l)
{
    ASSERT(!l->outer);
    l->outer = l->ssl;
    l->ssl = NULL;
}

static ssize_t write_clear(struct line *l, const char *p, size_t n, struct err *e)
{
    for (;;) {
        ssize_t put = send(l->fd, p, n, MSG_NOSIGNAL);

        if (put >= 0)
            return put;
        if (errno != EAGAIN && errno != EINTR)
            return err_errno(e, ERR_CLOSED, errno, "the connection was broken off");
        if (wait_for(l, POLLOUT, e) < 0)
            return -1;
    }
}

/* Why the far side takes no more it may have said before. */
static void hear_why(struct line *l, SSL *ssl)
{
    char piece[64];

    if (l->reason)
        return;
    ERR_clear_error();
    if (SSL_read(ssl, piece, sizeof(piece)) <= 0)
        l->reason = ERR_GET_REASON(ERR_peek_error());
    if (l->reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        l->reason = 0;
}

static ssize_t write_tls(struct line *l, SSL *ssl, const char *p, size_t n, struct err *e)
{
    for (;;) {
        int rc;

        ERR_clear_error();
        errno = 0;
        rc = SSL_write(ssl, p, (int)n);
        if (rc > 0)
            return rc;
        rc = settle(l, ssl, rc, e);
        if (rc == 0)
            continue;
        hear_why(l, ssl);
        return rc > 0 ? err_set(e, ERR_CLOSED, "the connection was closed") : -1;
    }
}

/* The innermost TLS there is; NULL: in clear. */
static SSL *inner(const struct line *l)
{
    return l->ssl ? l->ssl : l->outer;
}

int line_write(struct line *l, const void *p, size_t n, struct err *e)
{
    const char *at = p;
    SSL *ssl = inner(l);

    while (n > 0) {
        size_t piece = TR_MIN(n, (size_t)PIECE);
        ssize_t put = ssl ? write_tls(l, ssl, at, piece, e) : write_clear(l, at, piece, e);

        if (put < 0)
            return -1;
        at += put;
        n -= (size_t)put;
    }
    return 0;
}

static ssize_t read_clear(struct line *l, char *p, struct err *e)
{
    for (;;) {
        ssize_t got = recv(l->fd, p, PIECE, 0);

        if (got >= 0)
            return got;
        if (errno != EAGAIN && errno != EINTR)
            return err_errno(e, ERR_CLOSED, errno, "the connection was broken off");
        if (wait_for(l, POLLIN, e) < 0)
            return -1;
    }
}

static ssize_t read_tls(struct line *l, SSL *ssl, char *p, struct err *e)
{
    for (;;) {
        int rc;

        ERR_clear_error();
        errno = 0;
        rc = SSL_read(ssl, p, PIECE);
        if (rc > 0)
            return rc;
        rc = settle(l, ssl, rc, e);
        if (rc != 0)
            return rc > 0 ? 0 : -1;
    }
}

ssize_t line_read(struct line *l, struct err *e)
{
    char piece[PIECE];
    SSL *ssl = inner(l);
    ssize_t got;

    /* One who never stops talking is not listened to for ever. */
    if (clock_mono_ns() >= l->deadline_ns)
        return err_set(e, ERR_TIMEOUT, "no end of it in time");
    got = ssl ? read_tls(l, ssl, piece, e) : read_clear(l, piece, e);
    if (got > 0)
        str_add(&l->in, piece, (size_t)got);
    return got;
}
