#include "fetch_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <cmocka.h>
#include "base/bug.h"
#include "base/xmem.h"

struct ev_loop *loop;
struct net_resolver *resolver;
struct fetch_pool *pool;
char ca_file[64], key_file[64];

/* ---- the resolver: stands in for src/net/resolve.c */

struct net_resolver {
    int nothing;
};

struct net_lookup {
    struct ev_task task;
    char host[256];
    uint16_t port;
    net_resolved_fn fn;
    void *ctx;
    bool gone;
};

static struct {
    char host[64];
    char addrs[256];
} names[16];
static size_t n_names;
unsigned name_asked;
bool name_held;
static struct net_lookup *held;

void name_set(const char *host, const char *addrs)
{
    size_t i;

    for (i = 0; i < n_names && strcmp(names[i].host, host) != 0; i++)
        ;
    assert_true(i < ARRAY_LEN(names));
    if (i == n_names)
        n_names++;
    snprintf(names[i].host, sizeof(names[i].host), "%s", host);
    snprintf(names[i].addrs, sizeof(names[i].addrs), "%s", addrs);
}

static void lookup_run(struct ev_task *task)
{
    struct net_lookup *l = container_of(task, struct net_lookup, task);
    struct net_addr addr[8];
    struct err e = {.code = ERR_NOTFOUND, .text = "no such name"};
    size_t n = 0;
    char list[256] = "", *at = list, *one;

    for (size_t i = 0; i < n_names; i++)
        if (strcmp(names[i].host, l->host) == 0)
            snprintf(list, sizeof(list), "%s", names[i].addrs);
    while ((one = strsep(&at, ",")) != NULL) {
        struct sockaddr_in *in = (struct sockaddr_in *)&addr[n].ss;

        if (!*one)
            continue;
        memset(&addr[n], 0, sizeof(addr[n]));
        in->sin_family = AF_INET;
        in->sin_port = htons(l->port);
        assert_int_equal(inet_pton(AF_INET, one, &in->sin_addr), 1);
        addr[n++].len = sizeof(*in);
    }
    if (!l->gone)
        l->fn(l->ctx, addr, n, &e);
    xfree(l);
}

struct net_lookup *net_resolve(struct net_resolver *r, const char *host, uint16_t port,
                               net_resolved_fn fn, void *ctx)
{
    struct net_lookup *l = XNEW(struct net_lookup);

    assert_ptr_equal(r, resolver);
    snprintf(l->host, sizeof(l->host), "%s", host);
    l->port = port;
    l->fn = fn;
    l->ctx = ctx;
    l->task.run = lookup_run;
    name_asked++;
    if (name_held)
        held = l;
    else
        ev_post(loop, &l->task);
    return l;
}

void net_lookup_cancel(struct net_lookup **l)
{
    if (*l == held) {
        held = NULL;
        xfree(*l);
    } else {
        (*l)->gone = true;
    }
    *l = NULL;
}

/* ---- requests */

struct fetch_peer plain_peer_, tls_peer_;
const struct fetch_peer plain_peer = {.http = FETCH_HTTP_AUTO};
const struct fetch_peer h2_peer = {.http = FETCH_HTTP_2};
const struct fetch_peer tls_peer = {.ca = ca_file};
const struct fetch_peer tls_h1_peer = {.ca = ca_file, .http = FETCH_HTTP_1_1};

#define KEEP(to, v) snprintf(to, sizeof(to), "%.*s", (int)(v).n, (v).n ? (v).p : "")

static void on_done(void *ctx, const struct fetch_result *r)
{
    struct call *c = ctx;

    assert_false(c->done);
    c->done = true;
    c->f = NULL;
    c->outcome = r->outcome;
    c->status = r->status;
    c->version = r->http_version;
    c->early = r->early;
    c->connection = r->connection;
    c->err = r->err;
    c->body_n = r->body.n;
    KEEP(c->body, r->body);
    KEEP(c->retry_after, r->retry_after);
    KEEP(c->goog_hash, r->goog_hash);
    KEEP(c->accept_encoding, r->accept_encoding);
    KEEP(c->server, r->server);
    KEEP(c->gateway, r->gateway);
    KEEP(c->coding, r->content_encoding);
    /* In every test: an error says something, and never holds the query. */
    assert_null(strstr(r->err.text, "SECRET"));
    assert_int_equal(r->outcome == FETCH_ANSWERED, r->err.code == ERR_NONE);
    assert_int_equal(r->outcome == FETCH_ANSWERED, r->err.text[0] == '\0');
    if (c->then)
        c->then(c);
}

void call_start(struct call *c, struct fetch_opts o)
{
    o.done = on_done;
    o.ctx = c;
    c->f = fetch_start(pool, &o);
}

struct waiting {
    bool (*is)(void *);
    void *ctx;
    struct ev_timer *timer;
    int64_t until_ns;
    bool late;
};

/* Looks every few milliseconds rather than being told: tests stay simple. */
static void on_look(void *ctx)
{
    struct waiting *w = ctx;

    w->late = ev_now_ns(loop) > w->until_ns;
    if (w->is(w->ctx) || w->late)
        ev_loop_stop(loop);
    else
        ev_timer_arm(w->timer, 2);
}

void wait_for(bool (*is)(void *), void *ctx)
{
    struct waiting w = {.is = is, .ctx = ctx, .until_ns = ev_now_ns(loop) + 20000000000};

    w.timer = ev_timer_new(loop, on_look, &w);
    ev_timer_arm(w.timer, 0);
    ev_loop_run(loop);
    ev_timer_free(&w.timer);
    assert_false(w.late);
}

static bool call_is_done(void *ctx)
{
    return ((struct call *)ctx)->done;
}

void call_wait(struct call *c)
{
    wait_for(call_is_done, c);
}

void calls_wait(struct call *c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        call_wait(&c[i]);
}

static bool time_is_up(void *ctx)
{
    return ev_now_ns(loop) >= *(int64_t *)ctx;
}

void run_ms(int64_t ms)
{
    int64_t until = ev_now_ns(loop) + ms * 1000000;

    wait_for(time_is_up, &until);
}

const char *url_with(const char *scheme, const char *host, uint16_t port, const char *rest)
{
    static char text[16][512];
    static unsigned next;
    char *to = text[next++ % 16];

    snprintf(to, sizeof(text[0]), "%s://%s:%u/%s", scheme, host, port, rest);
    return to;
}

const char *url_of(uint16_t port, const char *rest)
{
    return url_with("http", "127.0.0.1", port, rest);
}

/* ---- certificate */

static void add_ext(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    assert_non_null(ext);
    X509_add_ext(x, ext, -1);
    X509_EXTENSION_free(ext);
}

static void make_certificate(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    FILE *f;

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)"tailrace test", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    add_ext(x, NID_basic_constraints, "critical,CA:TRUE");
    add_ext(x, NID_subject_alt_name, "DNS:localhost,DNS:*.test,IP:127.0.0.1");
    X509_sign(x, key, EVP_sha256());
    snprintf(ca_file, sizeof(ca_file), "/tmp/test_fetch.%d.pem", (int)getpid());
    snprintf(key_file, sizeof(key_file), "/tmp/test_fetch.%d.key", (int)getpid());
    f = fopen(ca_file, "w");
    assert_non_null(f);
    PEM_write_X509(f, x);
    fclose(f);
    f = fopen(key_file, "w");
    PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    X509_free(x);
    EVP_PKEY_free(key);
}

/* ---- each test's begin and end */

void pool_remake(const struct fetch_pool_opts *o)
{
    struct fetch_pool_opts with = *o;

    with.resolver = resolver;
    fetch_pool_free(&pool);
    pool = fetch_pool_new(loop, &with);
}

int world_begin(void **state)
{
    if (!ca_file[0])
        make_certificate();
    loop = ev_loop_new("test");
    resolver = XNEW(struct net_resolver);
    n_names = 0;
    name_asked = 0;
    name_held = false;
    pool_remake(&(struct fetch_pool_opts){.resolver = NULL});
    return 0;
}

int world_end(void **state)
{
    fetch_pool_free(&pool);
    ev_loop_free(&loop);
    xfree(resolver);
    return 0;
}

/* ---- servers */

static void count_up(atomic_int *now, atomic_int *most)
{
    int n = atomic_fetch_add(now, 1) + 1;
    int m = atomic_load(most);

    while (n > m && !atomic_compare_exchange_weak(most, &m, n))
        ;
}

static ssize_t conn_read(struct conn *c, void *p, size_t n)
{
    return c->ssl ? SSL_read(c->ssl, p, (int)n) : read(c->fd, p, n);
}

/* Wait for bytes, but not beyond the end of the test. */
static bool conn_can_read(struct conn *c)
{
    struct pollfd pfd = {.fd = c->fd, .events = POLLIN};

    if (c->ssl && SSL_pending(c->ssl))
        return true;
    while (!atomic_load(&c->server->stop))
        if (poll(&pfd, 1, 20) > 0)
            return true;
    return false;
}

static bool conn_add(struct conn *c, char **to, size_t *have, size_t n)
{
    while (*have < n) {
        ssize_t got;

        *to = xrealloc(*to, n + 1);
        if (!conn_can_read(c) || (got = conn_read(c, *to + *have, n - *have)) <= 0)
            return false;
        *have += (size_t)got;
        (*to)[*have] = '\0';
    }
    return true;
}

bool conn_read_head(struct conn *c)
{
    size_t n = 0;

    xfree(c->head);
    c->head = xmemdup0("", 0);
    do {
        if (!conn_add(c, &c->head, &n, n + 1))
            return false;
    } while (n < 4 || memcmp(c->head + n - 4, "\r\n\r\n", 4) != 0);
    atomic_fetch_add(&c->server->requests, 1);
    pthread_mutex_lock(&c->server->lock);
    snprintf(c->server->last, sizeof(c->server->last), "%s", c->head);
    pthread_mutex_unlock(&c->server->lock);
    c->body_n = 0;
    return true;
}

bool conn_read_some(struct conn *c, size_t n)
{
    return conn_add(c, &c->body, &c->body_n, c->body_n + n);
}

static bool read_chunked(struct conn *c)
{
    do {
        if (!conn_read_some(c, 1))
            return false;
    } while (c->body_n < 5 || memcmp(c->body + c->body_n - 5, "0\r\n\r\n", 5) != 0);
    return true;
}

bool conn_read_request(struct conn *c)
{
    const char *length;

    if (!conn_read_head(c))
        return false;
    length = strcasestr(c->head, "\r\nContent-Length: ");
    if (strcasestr(c->head, "\r\nTransfer-Encoding: chunked")) {
        if (!read_chunked(c))
            return false;
    } else if (length && !conn_read_some(c, strtoul(length + 18, NULL, 10))) {
        return false;
    }
    pthread_mutex_lock(&c->server->lock);
    snprintf(c->server->last_body, sizeof(c->server->last_body), "%s", c->body_n ? c->body : "");
    pthread_mutex_unlock(&c->server->lock);
    return true;
}

void conn_say(struct conn *c, const char *text)
{
    size_t n = strlen(text), off = 0;

    while (off < n) {
        ssize_t did = c->ssl ? SSL_write(c->ssl, text + off, (int)(n - off))
                             : write(c->fd, text + off, n - off);

        if (did <= 0)
            return;
        off += (size_t)did;
    }
}

void conn_reset(struct conn *c)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};

    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(c->fd);
    c->fd = -1;
}

void conn_wait_end(struct conn *c)
{
    char waste[4096];

    while (conn_can_read(c) && conn_read(c, waste, sizeof(waste)) > 0)
        ;
}

static void *conn_main(void *ctx)
{
    struct conn *c = ctx;
    struct server *s = c->server;

    if (s->tls) {
        c->ssl = SSL_new(s->tls);
        SSL_set_fd(c->ssl, c->fd);
        if (SSL_accept(c->ssl) == 1)
            s->serve(c);
        SSL_free(c->ssl);
    } else {
        s->serve(c);
    }
    if (c->fd >= 0)
        close(c->fd);
    xfree(c->head);
    xfree(c->body);
    xfree(c);
    atomic_fetch_sub(&s->open, 1);
    return NULL;
}

static void *server_main(void *ctx)
{
    struct server *s = ctx;
    struct pollfd pfd = {.fd = s->fd, .events = POLLIN};

    while (!atomic_load(&s->stop)) {
        pthread_t thread;
        struct conn *c;
        int fd;

        if (poll(&pfd, 1, 20) <= 0 || (fd = accept(s->fd, NULL, NULL)) < 0)
            continue;
        c = XNEW(struct conn);
        c->server = s;
        c->fd = fd;
        c->number = atomic_fetch_add(&s->accepted, 1);
        count_up(&s->open, &s->most_open);
        assert_int_equal(pthread_create(&thread, NULL, conn_main, c), 0);
        pthread_detach(thread);
    }
    return NULL;
}

static int listen_on(uint16_t *port)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t n = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(fd, 128), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
    *port = ntohs(in.sin_port);
    return fd;
}

struct server *server_new(serve_fn serve)
{
    struct server *s = XNEW(struct server);

    s->serve = serve;
    s->fd = listen_on(&s->port);
    pthread_mutex_init(&s->lock, NULL);
    assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
    return s;
}

static int choose_h1(SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *in,
                     unsigned in_n, void *ctx)
{
    static const unsigned char h1[] = "\x08http/1.1";

    return SSL_select_next_proto((unsigned char **)out, n, h1, 9, in, in_n) ==
                   OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_NOACK;
}

struct server *server_new_tls(serve_fn serve)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    struct server *s;

    assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, ca_file), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM), 1);
    SSL_CTX_set_alpn_select_cb(ctx, choose_h1, NULL);
    s = XNEW(struct server);
    s->serve = serve;
    s->tls = ctx;
    s->fd = listen_on(&s->port);
    pthread_mutex_init(&s->lock, NULL);
    assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
    return s;
}

void server_free(struct server *s)
{
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    for (int i = 0; i < 5000 && atomic_load(&s->open); i++)
        poll(NULL, 0, 1);
    assert_int_equal(atomic_load(&s->open), 0);
    close(s->fd);
    SSL_CTX_free(s->tls);
    xfree(s);
}

uint16_t port_free(void)
{
    uint16_t port;

    close(listen_on(&port));
    return port;
}

/* ---- programs */

struct program {
    pid_t pid;
};

static bool port_answers(uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok;

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ok = connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0;
    close(fd);
    return ok;
}

struct program *program_start(const char *const *argv, uint16_t port)
{
    struct program *p = XNEW(struct program);
    int status;

    p->pid = fork();
    if (p->pid == 0) {
        int null = open("/dev/null", O_RDWR);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    for (int i = 0; i < 10000; i++) {
        if (port_answers(port))
            return p;
        if (waitpid(p->pid, &status, WNOHANG) == p->pid)
            break; /* not installed */
        poll(NULL, 0, 2);
    }
    xfree(p);
    return NULL;
}

void program_stop(struct program **p)
{
    if (!*p)
        return;
    kill((*p)->pid, SIGTERM);
    waitpid((*p)->pid, NULL, 0);
    XFREE(*p);
}
