#include "crypto/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include "base/bug.h"
#include "base/str.h"
#include "base/xmem.h"
#include "crypto/ossl_err.h"
#include "crypto/tls_impl.h"

#define SESSION_MAGIC 0x715e5502u

/* One record: SSL_write is never given more, so that what may wait inside is bounded. */
enum { RECORD_MAX = 16384 };

/* What SNI can carry, as OpenSSL has it (RFC 6066 §3 leaves room for more than DNS does). */
enum { SERVER_NAME_MAX = 255 };

struct tls_session {
    uint32_t magic;
    struct tls_ctx *ctx;
    SSL *ssl;
    char *server_name; /* what a client session verifies */
    char *subject;     /* made by tls_peer_subject */
    char *name;        /* made by tls_peer_name */
    X509 *refused;     /* the peer's certificate, or one above it, that was not accepted */
    bool offered;      /* a client session tries to resume an earlier one */
    bool early;        /* reads are fed from bytes that came before us, not yet from the socket */
    bool dry;          /* the last read found no whole record: wait for the descriptor */
    bool notified;     /* close_notify has left */
    /* In place of a descriptor; NULL: there is one. */
    const struct tls_transport *transport;
    void *transport_ctx;
    bool transport_ended;
    int alert;    /* of the peer, that ended it; 0: none */
    bool broken;  /* after a failure OpenSSL allows no more calls but SSL_free */
    size_t stuck; /* bytes in the record that waits to be written */
    size_t ahead; /* bytes of such a record that the caller has yet to offer again */
};

/* Without anything to read from or write to yet. */
static struct tls_session *session_bare(struct tls_ctx *ctx)
{
    struct tls_session *s = XNEW(struct tls_session);

    OBJ_INIT(s, SESSION_MAGIC);
    s->ctx = tls_ctx_ref(ctx);
    s->ssl = SSL_new(ctx->ssl);
    if (!s->ssl)
        BUG("OpenSSL gives no session");
    if (ctx->leaf && (SSL_use_certificate(s->ssl, ctx->leaf) != 1 ||
                      SSL_use_PrivateKey(s->ssl, ctx->leaf_key) != 1))
        BUG("OpenSSL does not take a certificate of ours");
    SSL_set_app_data(s->ssl, s);
    return s;
}

static struct tls_session *session_new(struct tls_ctx *ctx, int fd)
{
    struct tls_session *s = session_bare(ctx);

    if (SSL_set_fd(s->ssl, fd) != 1)
        BUG("OpenSSL does not take a descriptor");
    return s;
}

/* --- transports --------------------------------------------------------------------------- */

/* What a transport's call came to, in a BIO's terms. */
static int bio_result(BIO *bio, ssize_t n, int retry)
{
    BIO_clear_retry_flags(bio);
    if (n == TLS_AGAIN)
        BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
    if (n < 0) {
        errno = n == TLS_AGAIN ? EAGAIN : ECONNRESET;
        return -1;
    }
    return (int)n;
}

static int bio_read(BIO *bio, char *p, int n)
{
    struct tls_session *s = BIO_get_data(bio);
    ssize_t got = n > 0 ? s->transport->read(s->transport_ctx, p, (size_t)n) : TLS_AGAIN;

    s->transport_ended = got == 0;
    return bio_result(bio, got, BIO_FLAGS_READ);
}

static int bio_write(BIO *bio, const char *p, int n)
{
    struct tls_session *s = BIO_get_data(bio);

    return bio_result(bio, s->transport->write(s->transport_ctx, p, (size_t)n), BIO_FLAGS_WRITE);
}

static long bio_ctrl(BIO *bio, int what, long arg, void *p)
{
    struct tls_session *s = BIO_get_data(bio);

    (void)arg;
    (void)p;
    if (what == BIO_CTRL_EOF)
        return s->transport_ended;
    return what == BIO_CTRL_FLUSH; /* nothing is held back */
}

static BIO_METHOD *bio_method;

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "transport");
    if (!bio_method || !BIO_meth_set_read(bio_method, bio_read) ||
        !BIO_meth_set_write(bio_method, bio_write) || !BIO_meth_set_ctrl(bio_method, bio_ctrl))
        BUG("OpenSSL takes no transport");
}

static struct tls_session *session_over(struct tls_ctx *ctx, const struct tls_transport *t,
                                        void *tctx)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct tls_session *s = session_bare(ctx);
    BIO *bio;

    pthread_once(&once, make_bio_method);
    bio = BIO_new(bio_method);
    if (!bio)
        BUG("OpenSSL gives no memory");
    s->transport = t;
    s->transport_ctx = tctx;
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    SSL_set_bio(s->ssl, bio, bio);
    return s;
}

/* --- sessions ----------------------------------------------------------------------------- */

int tls_on_verify(int ok, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_session *s = SSL_get_app_data(ssl);
    X509 *cert = X509_STORE_CTX_get_current_cert(store);

    if (!ok && cert && !s->refused && X509_up_ref(cert))
        s->refused = cert;
    return ok;
}

/* The call's fresh start: errno and the thread's queue tell what happened in it only. */
static void call_begin(void)
{
    ERR_clear_error();
    errno = 0;
}

struct tls_session *tls_accept(struct tls_ctx *ctx, int fd)
{
    struct tls_session *s;

    OBJ_CHECK(ctx, TLS_CTX_MAGIC);
    ASSERT(ctx->server);
    s = session_new(ctx, fd);
    SSL_set_accept_state(s->ssl);
    return s;
}

struct tls_session *tls_accept_early(struct tls_ctx *ctx, int fd, struct view early)
{
    struct tls_session *s = tls_accept(ctx, fd);
    BIO *front;

    if (early.n == 0)
        return s;
    ASSERT(early.n <= INT_MAX);
    front =
        BIO_new(BIO_s_mem()); /* empty, it says "try again", which is when the socket's turn is */
    if (!front || BIO_write(front, early.p, (int)early.n) != (int)early.n)
        BUG("OpenSSL gives no memory");
    SSL_set0_rbio(s->ssl, front);
    s->early = true;
    return s;
}

/* A call got no further for want of bytes: have those that came early been used up? Then the
 * session goes on like any other, with nothing in front of the socket, and the call is repeated. */
static bool turn_to_socket(struct tls_session *s, int error)
{
    BIO *socket;

    if (!s->early || error != SSL_ERROR_WANT_READ)
        return false;
    ASSERT(BIO_ctrl_pending(SSL_get_rbio(s->ssl)) == 0);
    socket = SSL_get_wbio(s->ssl);
    if (!BIO_up_ref(socket))
        BUG("a socket's BIO that cannot be shared");
    SSL_set0_rbio(s->ssl, socket);
    s->early = false;
    call_begin();
    return true;
}

static bool is_address(const char *name)
{
    unsigned char bytes[16];

    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

/* What the server has to be: SNI carries names only, addresses are verified as such. */
static void expect_name(struct tls_session *s)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(s->ssl);
    bool address = is_address(s->server_name);
    int ok;

    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (address)
        ok = X509_VERIFY_PARAM_set1_ip_asc(param, s->server_name);
    else
        ok = X509_VERIFY_PARAM_set1_host(param, s->server_name, 0);
    if (!ok)
        BUG("a name that cannot be verified");
    if (!address && strlen(s->server_name) <= SERVER_NAME_MAX)
        SSL_set_tlsext_host_name(s->ssl, s->server_name);
}

int tls_on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_session *s = SSL_get_app_data(ssl);
    SSL_SESSION *copy;

    /* A copy: OpenSSL spoils its own when the connection ends without close_notify, as those do
     * that are broken off in the middle of an answer. */
    if (s->server_name && (copy = SSL_SESSION_dup(session)) != NULL)
        tls_sessions_put(s->ctx->sessions, s->server_name, copy);
    return 0;
}

static void offer_session(struct tls_session *s)
{
    SSL_SESSION *session = tls_sessions_take(s->ctx->sessions, s->server_name);

    if (!session)
        return;
    s->offered = SSL_set_session(s->ssl, session) == 1; /* else the handshake is a full one */
    SSL_SESSION_free(session);
}

static void begin_client(struct tls_session *s, const char *server_name, struct view alpn)
{
    size_t n;

    ASSERT((server_name && *server_name) || s->ctx->insecure);
    SSL_set_connect_state(s->ssl);
    if (server_name && *server_name) {
        s->server_name = xstrdup(server_name);
        n = strlen(s->server_name);
        if (n > 1 && s->server_name[n - 1] == '.') /* the root label is for DNS only */
            s->server_name[n - 1] = '\0';
        expect_name(s);
        offer_session(s);
    }
    if (alpn.n && SSL_set_alpn_protos(s->ssl, (const unsigned char *)alpn.p, (unsigned)alpn.n) != 0)
        BUG("an ALPN list that is none");
}

struct tls_session *tls_connect(struct tls_ctx *ctx, int fd, const char *server_name,
                                struct view alpn)
{
    struct tls_session *s;

    OBJ_CHECK(ctx, TLS_CTX_MAGIC);
    ASSERT(!ctx->server);
    s = session_new(ctx, fd);
    begin_client(s, server_name, alpn);
    return s;
}

struct tls_session *tls_connect_over(struct tls_ctx *ctx, const struct tls_transport *t, void *tctx,
                                     const char *server_name, struct view alpn)
{
    struct tls_session *s;

    OBJ_CHECK(ctx, TLS_CTX_MAGIC);
    ASSERT(!ctx->server);
    s = session_over(ctx, t, tctx);
    begin_client(s, server_name, alpn);
    return s;
}

void tls_free(struct tls_session **sp)
{
    struct tls_session *s = *sp;

    *sp = NULL;
    if (!s)
        return;
    OBJ_CHECK(s, SESSION_MAGIC);
    SSL_free(s->ssl);
    X509_free(s->refused);
    tls_ctx_unref(&s->ctx);
    xfree(s->server_name);
    xfree(s->subject);
    xfree(s->name);
    OBJ_FINI(s);
    xfree(s);
}

static void add_time(struct str *out, const ASN1_TIME *t)
{
    struct tm tm;

    if (ASN1_TIME_to_tm(t, &tm) == 1)
        str_addf(out, "%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
}

static void add_name(struct str *out, const X509_NAME *name)
{
    char text[160];

    X509_NAME_oneline(name, text, sizeof(text)); /* escapes what is not printable */
    str_adds(out, text);
}

/* What in the refused certificate an admin needs to know to understand `result`. */
static void add_certificate(struct str *out, X509 *cert, long result)
{
    if (result == X509_V_ERR_CERT_HAS_EXPIRED) {
        str_adds(out, "; it was valid until ");
        add_time(out, X509_get0_notAfter(cert));
    } else if (result == X509_V_ERR_CERT_NOT_YET_VALID) {
        str_adds(out, "; it is valid from ");
        add_time(out, X509_get0_notBefore(cert));
    } else if (result == X509_V_ERR_HOSTNAME_MISMATCH || result == X509_V_ERR_IP_ADDRESS_MISMATCH) {
        str_adds(out, "; its subject is ");
        add_name(out, X509_get_subject_name(cert));
    } else {
        str_adds(out, "; its issuer is ");
        add_name(out, X509_get_issuer_name(cert));
    }
}

/* The peer's certificate was not accepted. */
static void explain_verification(struct tls_session *s, long result, struct err *e)
{
    struct str text = STR_INIT;

    str_adds(&text, s->ctx->server ? "the client's certificate is refused: "
                                   : "the server's certificate is refused: ");
    if (result == X509_V_ERR_HOSTNAME_MISMATCH || result == X509_V_ERR_IP_ADDRESS_MISMATCH)
        str_addf(&text, "it is not for %s", s->server_name);
    else
        str_adds(&text, X509_verify_cert_error_string(result));
    if (s->refused)
        add_certificate(&text, s->refused, result);
    err_set(e, ERR_DENIED, "%s", str_c(&text));
    str_fini(&text);
}

/* Words for protocol failures that have a likely cause; else NULL. */
static const char *likely_cause(int reason, bool server)
{
    switch (reason) {
    case SSL_R_HTTP_REQUEST:
        return "the client speaks HTTP in clear to a TLS port";
    case SSL_R_HTTPS_PROXY_REQUEST:
        return "the client sent CONNECT in clear to a TLS port";
    case SSL_R_WRONG_VERSION_NUMBER:
        return server ? "the client does not speak TLS" : "the server does not speak TLS";
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        return "no common TLS version; at least 1.2 is needed";
    case SSL_R_NO_SHARED_CIPHER:
        return "no common cipher suite";
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return "the client sent no certificate but one is required";
    case SSL_R_NO_APPLICATION_PROTOCOL:
    case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
        return "no common application protocol (ALPN)";
    default:
        return NULL;
    }
}

/* Turn the queue into an error, and empty it. */
static void explain_protocol(struct tls_session *s, const char *doing, struct err *e)
{
    unsigned long code = ERR_peek_last_error();
    int reason = ERR_GET_REASON(code);
    const char *cause;

    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET)
        s->alert = reason - SSL_AD_REASON_OFFSET;
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && (cause = likely_cause(reason, s->ctx->server)))
        err_set(e, ERR_INVALID, "TLS %s failed: %s", doing, cause);
    else if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET)
        err_set(e, ERR_CLOSED, "TLS %s failed: the peer refused it: %s", doing, ossl_reason());
    else
        err_set(e, ERR_INVALID, "TLS %s failed: %s", doing, ossl_reason());
    ERR_clear_error();
}

static bool is_bare_eof(int ssl_error, int saved_errno)
{
    if (ssl_error == SSL_ERROR_SYSCALL)
        return saved_errno == 0;
    return ssl_error == SSL_ERROR_SSL &&
           ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
}

/* An error that is not "try again": the session is over. `doing` is a word for the text. */
static void explain(struct tls_session *s, int ssl_error, int saved_errno, const char *doing,
                    struct err *e)
{
    long result = SSL_get_verify_result(s->ssl);

    s->broken = true;
    if (is_bare_eof(ssl_error, saved_errno)) {
        err_set(e, ERR_CLOSED, "the peer closed the connection during the TLS %s", doing);
    } else if (ssl_error == SSL_ERROR_SYSCALL) {
        err_errno(e, ERR_CLOSED, saved_errno, "connection lost during the TLS %s", doing);
    } else if (result != X509_V_OK &&
               ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        explain_verification(s, result, e);
    } else {
        explain_protocol(s, doing, e);
    }
    ERR_clear_error();
}

static void clear_chain(STACK_OF(X509) * chain)
{
    while (chain && sk_X509_num(chain) > 0)
        X509_free(sk_X509_pop(chain));
}

/* The handshake is done and has been verified: nobody asks for the certificates above the peer's
 * own any more, and parsed they are half of what an idle connection to a public server holds. The
 * list of a session may be shared by then, with TLS 1.2 or when it was resumed; what TLS 1.3 keeps
 * for resumption is copied later, when a ticket comes (RFC 8446 §4.6.1). */
static void forget_chains(struct tls_session *s)
{
    clear_chain(SSL_get0_verified_chain(s->ssl));
    if (SSL_version(s->ssl) >= TLS1_3_VERSION && !SSL_session_reused(s->ssl))
        clear_chain(SSL_get_peer_cert_chain(s->ssl));
}

enum tls_want tls_handshake(struct tls_session *s, struct err *e)
{
    int rc, error, saved;

    OBJ_CHECK(s, SESSION_MAGIC);
    if (s->broken) {
        err_set(e, ERR_CLOSED, "the TLS session has failed before");
        return TLS_FAILED;
    }
    call_begin();
    do {
        rc = SSL_do_handshake(s->ssl);
        saved = errno;
        if (rc == 1) {
            forget_chains(s);
            return TLS_DONE;
        }
        error = SSL_get_error(s->ssl, rc);
    } while (turn_to_socket(s, error));
    if (error == SSL_ERROR_WANT_READ)
        return TLS_WANT_READ;
    if (error == SSL_ERROR_WANT_WRITE)
        return TLS_WANT_WRITE;
    explain(s, error, saved, "handshake", e);
    if (s->server_name)
        tls_sessions_forget(s->ctx->sessions, s->server_name);
    return TLS_FAILED;
}

/* After a call that moved nothing: AGAIN with `*want`, or ERROR with `e`. */
static ssize_t stopped(struct tls_session *s, int error, int saved, const char *doing,
                       enum tls_want *want, struct err *e)
{
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        *want = error == SSL_ERROR_WANT_READ ? TLS_WANT_READ : TLS_WANT_WRITE;
        return TLS_AGAIN;
    }
    explain(s, error, saved, doing, e);
    *want = TLS_FAILED;
    return TLS_ERROR;
}

/* SSL_free_buffers could free what is in use (CVE-2024-4741) up to 3.0.13, 3.1.5, 3.2.1 and 3.3.0.
 */
static bool can_free_buffers(void)
{
    static const unsigned first_good[] = {14, 6, 2, 1};
    unsigned long v = OpenSSL_version_num();
    unsigned minor = v >> 20 & 0xff, patch = v >> 4 & 0xff;

    return v >> 28 > 3 || minor >= ARRAY_LEN(first_good) || patch >= first_good[minor];
}

/* The session waits for the peer, perhaps for long. OpenSSL has given the read buffer back
 * (SSL_MODE_RELEASE_BUFFERS), but a ticket that came has made a write buffer, which would stay
 * until something is written. What is in use stays. */
static void rest(struct tls_session *s)
{
    if (!s->stuck && can_free_buffers())
        SSL_free_buffers(s->ssl);
}

ssize_t tls_read(struct tls_session *s, void *p, size_t n, enum tls_want *want, struct err *e)
{
    size_t got = 0;
    int error, saved;

    OBJ_CHECK(s, SESSION_MAGIC);
    if (s->broken) {
        err_set(e, ERR_CLOSED, "the TLS session has failed before");
        return TLS_ERROR;
    }
    call_begin();
    s->dry = false;
    do {
        if (SSL_read_ex(s->ssl, p, n, &got) == 1)
            return (ssize_t)got;
        saved = errno;
        error = SSL_get_error(s->ssl, 0);
    } while (turn_to_socket(s, error));
    s->dry = true;
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    if (is_bare_eof(error, saved)) {
        s->broken = true;
        ERR_clear_error();
        return TLS_READ_EOF;
    }
    if (error == SSL_ERROR_WANT_READ)
        rest(s);
    return stopped(s, error, saved, "read", want, e);
}

/* Write one record, or go on with the one that waits. */
static int write_record(struct tls_session *s, const void *p, size_t n, size_t *put)
{
    static const unsigned char nothing[RECORD_MAX];

    /* OpenSSL wants at least the waiting length offered again, but takes the bytes from its own
     * buffer (SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER), not from here. */
    if (s->stuck > n)
        return SSL_write_ex(s->ssl, nothing, s->stuck, put);
    return SSL_write_ex(s->ssl, p, s->stuck ? s->stuck : TR_MIN(n, (size_t)RECORD_MAX), put);
}

ssize_t tls_write(struct tls_session *s, const void *p, size_t n, enum tls_want *want,
                  struct err *e)
{
    size_t put = 0, offered;
    int error, saved;

    OBJ_CHECK(s, SESSION_MAGIC);
    if (s->broken) {
        err_set(e, ERR_CLOSED, "the TLS session has failed before");
        return TLS_ERROR;
    }
    if (n == 0)
        return 0;
    if (s->ahead) {
        /* These went out in a record that was longer than the caller's last offer. */
        put = TR_MIN(n, s->ahead);
        s->ahead -= put;
        return (ssize_t)put;
    }
    call_begin();
    if (write_record(s, p, n, &put) == 1) {
        s->stuck = 0;
        s->ahead = put > n ? put - n : 0;
        return (ssize_t)TR_MIN(put, n);
    }
    saved = errno;
    error = SSL_get_error(s->ssl, 0);
    offered = TR_MIN(n, (size_t)RECORD_MAX);
    if (!s->stuck && error == SSL_ERROR_WANT_WRITE)
        s->stuck = offered;
    return stopped(s, error, saved, "write", want, e);
}

bool tls_pending(const struct tls_session *s)
{
    return !s->broken && !s->dry && (s->early || SSL_has_pending(s->ssl));
}

enum tls_want tls_close_notify(struct tls_session *s)
{
    size_t put;
    int rc, error;

    OBJ_CHECK(s, SESSION_MAGIC);
    if (s->notified)
        return TLS_DONE;
    if (s->broken || SSL_in_init(s->ssl))
        return TLS_FAILED;
    call_begin();
    /* A record that waits goes first: OpenSSL cannot send an alert in the middle of it. Once the
     * alert is out no more call is made: the next would read, and drop, the peer's data. */
    rc = s->stuck ? write_record(s, NULL, 0, &put) : 1;
    if (rc == 1) {
        s->stuck = 0;
        rc = SSL_shutdown(s->ssl);
        s->notified = rc >= 0;
    } else {
        rc = -1;
    }
    error = rc < 0 ? SSL_get_error(s->ssl, rc) : SSL_ERROR_NONE;
    ERR_clear_error();
    if (error == SSL_ERROR_NONE)
        return TLS_DONE;
    return error == SSL_ERROR_WANT_WRITE ? TLS_WANT_WRITE : TLS_FAILED;
}

struct view tls_alpn(const struct tls_session *s)
{
    const unsigned char *p = NULL;
    unsigned n = 0;

    SSL_get0_alpn_selected(s->ssl, &p, &n);
    return view_of(p, n);
}

struct view tls_server_name(const struct tls_session *s)
{
    const char *name = SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name);

    return name ? view_str(name) : VIEW_NONE;
}

bool tls_offered(const struct tls_session *s)
{
    return s->offered;
}

bool tls_refused_certificate(const struct tls_session *s)
{
    switch (s->alert) {
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_UNKNOWN_CA:
        return true;
    default:
        return false;
    }
}

bool tls_resumed(const struct tls_session *s)
{
    return SSL_session_reused(s->ssl);
}

struct view tls_peer_subject(struct tls_session *s)
{
    X509 *cert = SSL_get0_peer_certificate(s->ssl);
    char *text;

    if (!cert || SSL_get_verify_result(s->ssl) != X509_V_OK)
        return VIEW_NONE;
    if (!s->subject) {
        text = X509_NAME_oneline(X509_get_subject_name(cert), NULL, 0);
        s->subject = xstrdup(text ? text : "");
        OPENSSL_free(text);
    }
    return view_str(s->subject);
}

static char *ascii_copy(const ASN1_STRING *a)
{
    const unsigned char *p = ASN1_STRING_get0_data(a);
    int i, n = ASN1_STRING_length(a);

    for (i = 0; i < n; i++) {
        if (p[i] <= ' ' || p[i] > '~')
            return NULL;
    }
    return n ? xmemdup0(p, (size_t)n) : NULL;
}

static char *first_dns_name(const X509 *cert)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    char *found = NULL;
    int i;

    for (i = 0; !found && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

        if (g->type == GEN_DNS)
            found = ascii_copy(g->d.dNSName);
    }
    GENERAL_NAMES_free(names);
    return found;
}

static char *common_name(const X509 *cert)
{
    X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

    return at < 0 ? NULL : ascii_copy(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

struct view tls_peer_name(struct tls_session *s)
{
    const X509 *cert = SSL_get0_peer_certificate(s->ssl);

    if (!cert || SSL_get_verify_result(s->ssl) != X509_V_OK)
        return VIEW_NONE;
    if (!s->name)
        s->name = first_dns_name(cert);
    if (!s->name)
        s->name = common_name(cert);
    if (!s->name)
        s->name = xstrdup("");
    return view_str(s->name);
}
