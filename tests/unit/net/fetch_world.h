/*
 * The world of test_fetch: a loop, a resolver that says what the test wants, and small servers,
 * each in threads of its own, that behave as badly as a script of a few lines makes them.
 */
#ifndef FETCH_WORLD_H
#define FETCH_WORLD_H

#include <pthread.h>
#include <stdatomic.h>
#include "net/fetch.h"

/* ---- loop and pool of the test at hand */

extern struct ev_loop *loop;
extern struct net_resolver *resolver;
extern struct fetch_pool *pool;
extern char ca_file[64], key_file[64]; /* certificate for 127.0.0.1, localhost and *.test */

int world_begin(void **state);
int world_end(void **state);
void pool_remake(const struct fetch_pool_opts *o); /* resolver is filled in */

/* ---- names: unknown ones fail */

void name_set(const char *host, const char *addrs); /* "127.0.0.1,127.0.0.2" or "" */
extern unsigned name_asked;                         /* lookups since the test began */
extern bool name_held;                              /* lookups never end */

/* ---- requests */

struct call {
    struct fetch *f;
    bool done;
    enum fetch_outcome outcome;
    int status;
    int version;
    bool early;
    int64_t connection;
    struct err err;
    char body[4096];
    size_t body_n;
    char retry_after[64], goog_hash[600], accept_encoding[64], server[64], gateway[64], coding[64];
    void (*then)(struct call *c);
    void *user;
};

extern const struct fetch_peer plain_peer, tls_peer, h2_peer, tls_h1_peer;

/* Begins a request; o->done and o->ctx are filled in. */
void call_start(struct call *c, struct fetch_opts o);
void wait_for(bool (*is)(void *), void *ctx); /* run the loop until then; fails after 20 s */
void call_wait(struct call *c);
void calls_wait(struct call *c, size_t n);
void run_ms(int64_t ms);
const char *url_of(uint16_t port, const char *rest); /* http://127.0.0.1:port/rest; a few at once */
const char *url_with(const char *scheme, const char *host, uint16_t port, const char *rest);

/* ---- servers */

struct server;
struct conn {
    struct server *server;
    int fd;
    void *ssl;
    int number; /* of the connection, from 0 */
    char *head; /* of the last request, NUL-terminated */
    char *body;
    size_t body_n;
};
typedef void (*serve_fn)(struct conn *c);

struct server {
    uint16_t port;
    int fd;
    pthread_t thread;
    serve_fn serve;
    void *tls;
    atomic_int accepted, open, most_open, requests, at_once, most_at_once, served;
    atomic_bool stop;
    pthread_mutex_t lock;
    char last[16384]; /* head of the last request */
    char last_body[16384];
};

struct server *server_new(serve_fn serve);
struct server *server_new_tls(serve_fn serve);
void server_free(struct server *s); /* waits for its threads */

bool conn_read_head(struct conn *c);    /* false at the end */
bool conn_read_request(struct conn *c); /* head and body */
bool conn_read_some(struct conn *c, size_t n);
void conn_say(struct conn *c, const char *text);
void conn_reset(struct conn *c);    /* TCP RST */
void conn_wait_end(struct conn *c); /* until the client closes */

/* A port that nobody listens on. */
uint16_t port_free(void);

/* A program with its port; NULL if it is not installed. */
struct program;
struct program *program_start(const char *const *argv, uint16_t port);
void program_stop(struct program **p);

#endif
