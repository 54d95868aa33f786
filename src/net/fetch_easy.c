/*
 * One request on one curl handle: what it is told, what it tells us, and what that means.
 *
 * The rule of this file: curl calls PREREQFUNCTION before it sends the first byte of a request,
 * and whenever it wants to send one again, such as after a kept connection died. The first call
 * is the line between "not sent" and "unknown"; a second one is refused.
 */
#include "net/fetch_priv.h"
#include "base/bug.h"
#include "base/xmem.h"
#include "config.h"
#include <sys/socket.h>
#include <unistd.h>

/* A wrong option is a mistake of ours (or of the build of libcurl), never of input. */
#define EASY_SET(h, option, value)                                                                 \
    do {                                                                                           \
        if (curl_easy_setopt(h, option, value) != CURLE_OK)                                        \
            BUG("curl refuses " #option);                                                          \
    } while (0)

/*
 * HTTP/2 in clear. libcurl 7.88 cannot reuse a connection when it is told to speak HTTP/2 by prior
 * knowledge: it begins HTTP/2 within HTTP/2. It can when it is told "HTTP/2 over TLS only", but
 * would then open new connections for HTTP/1.1. So one request leads, with prior knowledge on a
 * fresh connection, and the others follow on it and may open none.
 */
bool fetch_led_h2c(const struct fetch_host *host)
{
    unsigned version = curl_version_info(CURLVERSION_NOW)->version_num;

    return !host->https && host->peer->http == FETCH_HTTP_2 && version >= 0x075800 &&
           version < 0x080000;
}

static void led_h2c_found(struct fetch *f)
{
    f->host->h2c_up = true;
    f->host->h2c_epochs++;
}

/* ---- sending */

static size_t on_read(char *p, size_t size, size_t count, void *ctx)
{
    struct fetch *f = ((struct fetch_easy *)ctx)->f;
    size_t room = size * count;
    long n;

    if (f->o.length >= 0)
        room = (size_t)TR_MIN((int64_t)room, f->o.length - f->body_sent);
    if (room == 0)
        return 0;
    n = f->o.read(f->o.ctx, p, room);
    if (f->dropped)
        return CURL_READFUNC_ABORT;
    if (n == FETCH_PAUSE) {
        f->paused = true;
        return CURL_READFUNC_PAUSE;
    }
    /* An end before the announced one would leave the peer waiting for the rest. */
    if (n < 0 || (size_t)n > room || (n == 0 && f->o.length >= 0)) {
        f->gave_up_reading = true;
        return CURL_READFUNC_ABORT;
    }
    f->body_sent += n;
    return (size_t)n;
}

/* With this, curl cannot begin a body again. */
static int on_seek(void *ctx, curl_off_t offset, int origin)
{
    return CURL_SEEKFUNC_FAIL;
}

/* A number that a later connection from the same port does not share. */
static int64_t connection_id(struct fetch *f, int local_port)
{
    struct fetch_pool *p = f->pool;
    long connects = 0;

    ASSERT(local_port >= 0 && local_port <= UINT16_MAX);
    curl_easy_getinfo(f->easy->h, CURLINFO_NUM_CONNECTS, &connects);
    if (connects > 0)
        p->conns[local_port] = ++p->n_conns;
    return p->conns[local_port];
}

static int on_prereq(void *ctx, char *peer_ip, char *local_ip, int peer_port, int local_port)
{
    struct fetch *f = ((struct fetch_easy *)ctx)->f;

    if (f->dropped)
        return CURL_PREREQFUNC_ABORT;
    if (f->sent) {
        f->again = true;
        return CURL_PREREQFUNC_ABORT;
    }
    f->r.connection = connection_id(f, local_port);
    if (f->o.connection_ok && !f->o.connection_ok(f->o.ctx, f->r.connection)) {
        f->unfit = true;
        return CURL_PREREQFUNC_ABORT;
    }
    f->sent = true;
    if (f->lead)
        led_h2c_found(f);
    f->stall_ns = ev_now_ns(f->pool->loop);
    if (f->host->name && f->easy->pin && f->easy->pin_change == f->host->name->changes)
        f->host->name->pinned = true;
    return CURL_PREREQFUNC_OK;
}

/* ---- connecting */

/* It is not there any more: somebody has to lead again, unless somebody has already. */
static void led_h2c_lost(struct fetch *f)
{
    f->lost = true;
    if (f->epoch == f->host->h2c_epochs)
        f->host->h2c_up = false;
}

static curl_socket_t on_open(void *ctx, curlsocktype purpose, struct curl_sockaddr *to)
{
    struct fetch *f = ((struct fetch_easy *)ctx)->f;
    struct fetch_pool *p = f->pool;
    struct net_addr addr;
    int fd;

    if (purpose != CURLSOCKTYPE_IPCXN || f->dropped)
        return CURL_SOCKET_BAD;
    if (f->host->h2c && f->way == WAY_SHARED && !f->lead) { /* it would speak HTTP/1.1 */
        if (!f->sent)
            led_h2c_lost(f);
        f->again = f->sent;
        return CURL_SOCKET_BAD;
    }
    if (f->sent) { /* only to send it again */
        f->again = true;
        return CURL_SOCKET_BAD;
    }
    memset(&addr, 0, sizeof(addr));
    if (to->addrlen > sizeof(addr.ss))
        return CURL_SOCKET_BAD;
    memcpy(&addr.ss, &to->addr, to->addrlen);
    addr.len = (socklen_t)to->addrlen;
    if (p->o.allow && !f->host->parent && !p->o.allow(p->o.allow_ctx, &addr)) {
        f->denied = true;
        f->denied_addr = addr;
        return CURL_SOCKET_BAD;
    }
    fd = socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    fetch_sock_drop(p, fd); /* left over from one that curl closed without telling */
    p->opened++;
    return fd;
}

static int on_close(void *ctx, curl_socket_t fd)
{
    fetch_sock_drop(ctx, fd);
    return close(fd);
}

/* ---- receiving */

static const struct wanted {
    const char *name;
    size_t offset;
    bool join;
} wanted[] = {
    {"Retry-After", offsetof(struct fetch_result, retry_after), false},
    {"x-goog-hash", offsetof(struct fetch_result, goog_hash), true},
    {"Accept-Encoding", offsetof(struct fetch_result, accept_encoding), true},
    {"Server", offsetof(struct fetch_result, server), false},
    {"Tailrace", offsetof(struct fetch_result, gateway), false},
    {"Content-Encoding", offsetof(struct fetch_result, content_encoding), true},
};

static struct view *wanted_view(struct fetch *f, const struct wanted *w)
{
    return (struct view *)(void *)((char *)&f->r + w->offset);
}

static struct view trimmed(const char *p, size_t n)
{
    while (n && (p[n - 1] == '\r' || p[n - 1] == '\n' || p[n - 1] == ' ' || p[n - 1] == '\t'))
        n--;
    while (n && (*p == ' ' || *p == '\t'))
        p++, n--;
    return view_of(p, n);
}

static void heads_add(struct fetch *f, const void *p, size_t n)
{
    memcpy(f->heads + f->heads_n, p, n);
    f->heads_n += n;
}

/* Keep a copy of the value; what does not fit is left out as a whole. */
static void keep_field(struct fetch *f, const struct wanted *w, struct view value)
{
    struct view *have = wanted_view(f, w);
    size_t n = have->n ? have->n + 1 + value.n : value.n;
    char *at = f->heads + f->heads_n;

    if ((have->n && !w->join) || n > FETCH_HEAD_MAX || n > sizeof(f->heads) - f->heads_n)
        return;
    if (have->n) {
        heads_add(f, have->p, have->n);
        heads_add(f, ",", 1);
    }
    heads_add(f, value.p, value.n);
    *have = view_of(at, n);
}

static void heads_reset(struct fetch *f)
{
    f->heads_n = 0;
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
        *wanted_view(f, &wanted[i]) = VIEW_NONE;
}

/* "HTTP/1.1 204 No Content", "HTTP/2 204". curl has checked it. */
static int status_of(const char *p, size_t n)
{
    const char *sp = memchr(p, ' ', n);
    int status = 0;

    if (!sp || n - (size_t)(sp - p) < 4)
        return 0;
    for (int i = 1; i <= 3; i++) {
        if (sp[i] < '0' || sp[i] > '9')
            return 0;
        status = status * 10 + (sp[i] - '0');
    }
    return status;
}

static void on_field(struct fetch *f, const char *p, size_t n)
{
    const char *colon = memchr(p, ':', n);

    if (!colon)
        return;
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
        if (view_ieq(view_of(p, (size_t)(colon - p)), view_str(wanted[i].name)))
            keep_field(f, &wanted[i], trimmed(colon + 1, n - (size_t)(colon + 1 - p)));
}

/* Interim answers (1xx) come before the final one; trailers after it, and are not looked at. */
static size_t on_header(char *p, size_t size, size_t count, void *ctx)
{
    struct fetch *f = ((struct fetch_easy *)ctx)->f;
    size_t n = size * count;

    if (f->dropped)
        return 0;
    switch (f->head) {
    case HEAD_STATUS:
        f->status = status_of(p, n);
        f->head = HEAD_FIELDS;
        break;
    case HEAD_FIELDS:
        if (trimmed(p, n).n == 0) {
            f->head = f->status >= 200 ? HEAD_DONE : HEAD_STATUS;
            f->r.early = f->o.read && f->body_sent < f->o.length;
            if (f->head == HEAD_STATUS)
                heads_reset(f);
        } else {
            on_field(f, p, n);
        }
        break;
    case HEAD_DONE:
        break;
    }
    return n;
}

static size_t on_write(char *p, size_t size, size_t count, void *ctx)
{
    struct fetch *f = ((struct fetch_easy *)ctx)->f;
    size_t n = size * count;
    int rc;

    if (f->dropped)
        return 0;
    f->received += (int64_t)n;
    if (f->o.write) {
        rc = f->o.write(f->o.ctx, view_of(p, n));
        f->gave_up_writing = rc != 0;
        return rc != 0 || f->dropped ? 0 : n;
    }
    str_add(&f->body, p, TR_MIN(n, f->o.max_answer - f->body.n));
    f->cut = f->received > (int64_t)f->o.max_answer + FETCH_ANSWER_SLACK;
    return f->cut ? 0 : n;
}

/* ---- handles */

static void set_tls(CURL *h, const struct fetch_peer *peer)
{
    const char *system_ca = curl_version_info(CURLVERSION_NOW)->cainfo;
    long version = CURL_SSLVERSION_TLSv1_2;

    if (peer->min_version && strcmp(peer->min_version, "1.3") == 0)
        version = CURL_SSLVERSION_TLSv1_3;
    EASY_SET(h, CURLOPT_SSLVERSION, version);
    EASY_SET(h, CURLOPT_PROXY_SSLVERSION, version);
    if (peer->ca) {
        EASY_SET(h, CURLOPT_CAINFO, peer->ca);
        EASY_SET(h, CURLOPT_PROXY_CAINFO, peer->ca);
    }
    if (peer->ca || system_ca) { /* curl caches a bundle, but only without a directory */
        EASY_SET(h, CURLOPT_CAPATH, NULL);
        EASY_SET(h, CURLOPT_PROXY_CAPATH, NULL);
    }
#if LIBCURL_VERSION_NUM >= 0x075700
    EASY_SET(h, CURLOPT_CA_CACHE_TIMEOUT, (long)FETCH_CA_S);
#endif
    if (peer->certificate) {
        EASY_SET(h, CURLOPT_SSLCERT, peer->certificate);
        EASY_SET(h, CURLOPT_SSLKEY, peer->key ? peer->key : peer->certificate);
    }
}

static void set_callbacks(CURL *h, struct fetch_easy *e)
{
    EASY_SET(h, CURLOPT_PRIVATE, e);
    EASY_SET(h, CURLOPT_ERRORBUFFER, e->errbuf);
    EASY_SET(h, CURLOPT_READFUNCTION, on_read);
    EASY_SET(h, CURLOPT_READDATA, e);
    EASY_SET(h, CURLOPT_SEEKFUNCTION, on_seek);
    EASY_SET(h, CURLOPT_PREREQFUNCTION, on_prereq);
    EASY_SET(h, CURLOPT_PREREQDATA, e);
    EASY_SET(h, CURLOPT_OPENSOCKETFUNCTION, on_open);
    EASY_SET(h, CURLOPT_OPENSOCKETDATA, e);
    EASY_SET(h, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    EASY_SET(h, CURLOPT_CLOSESOCKETDATA, e->host->pool); /* the connection outlives the handle */
    EASY_SET(h, CURLOPT_HEADERFUNCTION, on_header);
    EASY_SET(h, CURLOPT_HEADERDATA, e);
    EASY_SET(h, CURLOPT_WRITEFUNCTION, on_write);
    EASY_SET(h, CURLOPT_WRITEDATA, e);
}

static void set_proxy(CURL *h, const struct fetch_host *host)
{
    const char *parent = host->parent;

    /* "" keeps curl from the proxies that the environment names. */
    EASY_SET(h, CURLOPT_PROXY, parent ? parent : "");
    EASY_SET(h, CURLOPT_NOPROXY, "");
    EASY_SET(h, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    EASY_SET(h, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); /* no token to the parent */
    if (parent && (host->https || host->peer->http == FETCH_HTTP_2))
        EASY_SET(h, CURLOPT_HTTPPROXYTUNNEL, 1L);
}

struct fetch_easy *fetch_easy_new(struct fetch_host *host)
{
    struct fetch_easy *e = XNEW(struct fetch_easy);

    list_init(&e->link);
    e->host = host;
    e->version = -1;
    e->h = curl_easy_init();
    if (!e->h)
        BUG("out of memory");
    set_callbacks(e->h, e);
    set_tls(e->h, host->peer);
    set_proxy(e->h, host);
    EASY_SET(e->h, CURLOPT_SHARE, host->pool->share);
    EASY_SET(e->h, CURLOPT_URL, host->url);
    EASY_SET(e->h, CURLOPT_PATH_AS_IS, 1L);
    EASY_SET(e->h, CURLOPT_FOLLOWLOCATION, 0L);
    EASY_SET(e->h, CURLOPT_NOSIGNAL, 1L);
    EASY_SET(e->h, CURLOPT_TCP_KEEPALIVE, 1L);
    EASY_SET(e->h, CURLOPT_USERAGENT, PACKAGE_NAME "/" PACKAGE_VERSION);
    EASY_SET(e->h, CURLOPT_MAXAGE_CONN, fetch_idle_seconds(host->pool));
    EASY_SET(e->h, CURLOPT_MAXLIFETIME_CONN, (long)FETCH_LIFE_S);
    return e;
}

void fetch_easy_free(struct fetch_easy *e)
{
    ASSERT(!e->f);
    list_remove(&e->link);
    curl_easy_cleanup(e->h);
    curl_slist_free_all(e->pin);
    xfree(e);
}

/* ---- a request */

static long version_of(const struct fetch *f)
{
    const struct fetch_host *host = f->host;

    if (f->o.http_1_1 || host->peer->http == FETCH_HTTP_1_1)
        return CURL_HTTP_VERSION_1_1;
    if (host->peer->http == FETCH_HTTP_2 && !host->https)
        return !host->h2c || f->lead || f->o.fresh ? CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
                                                   : CURL_HTTP_VERSION_2TLS;
    if (host->peer->http == FETCH_HTTP_2)
        return CURL_HTTP_VERSION_2TLS;
    return f->way == WAY_SHARED ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1;
}

/* A fresh connection of HTTP/2 is not for others to join, nor to be kept beside the shared ones. */
static void set_connection(struct fetch_easy *e, const struct fetch *f)
{
    long version = version_of(f);
    bool fresh = f->o.fresh || f->lead;
    bool forbid = f->o.fresh && version != CURL_HTTP_VERSION_1_1;

    if (version != e->version) {
        EASY_SET(e->h, CURLOPT_HTTP_VERSION, version);
        EASY_SET(e->h, CURLOPT_PIPEWAIT, f->way == WAY_SHARED ? 1L : 0L);
        e->version = version;
    }
    if (fresh != e->fresh) {
        EASY_SET(e->h, CURLOPT_FRESH_CONNECT, fresh ? 1L : 0L);
        e->fresh = fresh;
    }
    if (forbid != e->forbid) {
        EASY_SET(e->h, CURLOPT_FORBID_REUSE, forbid ? 1L : 0L);
        e->forbid = forbid;
    }
    if (f->host->name && !f->host->name->pinned) {
        e->pin = curl_slist_append(NULL, f->host->name->pin);
        e->pin_change = f->host->name->changes;
        EASY_SET(e->h, CURLOPT_RESOLVE, e->pin);
    }
}

/*
 * A body in memory goes by POSTFIELDS, whatever the method: over HTTP/1.1 it then leaves in one
 * write with the head, which is a quarter of the CPU of a small request.
 */
static void set_method(CURL *h, const struct fetch *f)
{
    bool bodyless =
        f->o.body.n == 0 && strcmp(f->method, "POST") != 0 && strcmp(f->method, "PUT") != 0;

    if (f->o.read) {
        EASY_SET(h, CURLOPT_UPLOAD, 1L);
        EASY_SET(h, CURLOPT_INFILESIZE_LARGE, (curl_off_t)f->o.length);
    } else if (strcmp(f->method, "HEAD") == 0) {
        EASY_SET(h, CURLOPT_NOBODY, 1L);
    } else if (bodyless) {
        EASY_SET(h, CURLOPT_HTTPGET, 1L);
    } else { /* empty too: it then has a Content-Length of 0 */
        EASY_SET(h, CURLOPT_POST, 1L);
        EASY_SET(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)f->o.body.n);
        EASY_SET(h, CURLOPT_POSTFIELDS, f->o.body.n ? f->o.body.p : "");
    }
    EASY_SET(h, CURLOPT_CUSTOMREQUEST, f->method);
}

/* Absolute form towards a parent that is not a tunnel (RFC 9112 section 3.2.2). */
static void set_target(CURL *h, const struct fetch *f)
{
    const struct fetch_host *host = f->host;
    bool absolute = host->parent && !host->https && host->peer->http != FETCH_HTTP_2;

    EASY_SET(h, CURLOPT_REQUEST_TARGET, absolute ? f->url : f->target);
}

static long left_ms(const struct fetch *f)
{
    int64_t left = (f->deadline_ns - ev_now_ns(f->pool->loop)) / FETCH_NS(1);

    return left > 0 ? (long)left : 1;
}

int fetch_easy_start(struct fetch_easy *e, struct fetch *f, struct err *err)
{
    CURLMcode rc;

    ASSERT(!e->f);
    e->errbuf[0] = '\0';
    f->lead = f->host->h2c && f->way == WAY_SHARED && !f->host->h2c_up;
    f->epoch = f->host->h2c_epochs;
    set_connection(e, f);
    set_method(e->h, f);
    set_target(e->h, f);
    EASY_SET(e->h, CURLOPT_HTTPHEADER, f->fields);
    EASY_SET(e->h, CURLOPT_TIMEOUT_MS, left_ms(f));
    EASY_SET(e->h, CURLOPT_CONNECTTIMEOUT_MS, (long)f->o.connect_ms);
    e->f = f;
    f->stall_ns = ev_now_ns(f->pool->loop);
    rc = curl_multi_add_handle(f->pool->multi[f->way].h, e->h);
    if (rc != CURLM_OK) {
        e->f = NULL;
        fetch_easy_free(e);
        return err_set(err, ERR_UNAVAIL, "%s: %s", f->host->text, curl_multi_strerror(rc));
    }
    f->easy = e;
    f->host->inflight[f->way]++;
    return 0;
}

void fetch_easy_stop(struct fetch *f)
{
    struct fetch_easy *e = f->easy;
    struct fetch_host *host = f->host;

    f->pool->in_curl++;
    curl_multi_remove_handle(f->pool->multi[f->way].h, e->h);
    f->pool->in_curl--;
    f->easy = NULL;
    e->f = NULL;
    ASSERT(host->inflight[f->way] > 0);
    host->inflight[f->way]--;
    if (host->n_idle >= FETCH_EASY_IDLE || !f->clean) {
        fetch_easy_free(e); /* nothing of a broken transfer goes into the next */
        return;
    }
    EASY_SET(e->h, CURLOPT_HTTPHEADER, NULL);
    EASY_SET(e->h, CURLOPT_POSTFIELDS, NULL);
    EASY_SET(e->h, CURLOPT_RESOLVE, NULL);
    curl_slist_free_all(e->pin);
    e->pin = NULL;
    list_append(&host->idle, &e->link);
    host->n_idle++;
}
