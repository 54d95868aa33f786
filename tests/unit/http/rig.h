/*
 * A loop, a server whose handlers note what happens and do what the target says, and raw clients
 * over socket pairs.
 */
#ifndef TEST_HTTP_RIG_H
#define TEST_HTTP_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/str.h"
#include "ev/loop.h"
#include "http/server.h"

enum { RIG_EXCHANGES = 64, RIG_BOUND_MS = 10000 };

/* What a handler saw of one exchange. */
struct seen {
    struct http_exchange *ex; /* NULL when it is over */
    char target[128];
    char method[16];
    struct str body;
    size_t held;  /* of the body, not consumed */
    int ends, gones, drains;
    bool complete;
    uint32_t code;      /* that the client reset it with */
    char trailers[128]; /* of the request */
    bool hold;    /* do not consume */
    bool echo;    /* give the body back */
    size_t writing; /* bytes still to be written */
};

struct rig {
    struct ev_loop *loop;
    struct ev_timer *tick;
    struct http_server *server;
    struct http_service service;
    struct seen seen[RIG_EXCHANGES];
    size_t n_seen;
    bool (*until)(void *ctx);
    void *until_ctx;
    int64_t bound_ns;
    bool late;
    void (*on_take)(struct rig *r, struct seen *s, const struct http_request *req);
    struct raw *raws;
};

/* A raw peer: what it got and what it still has to send; moved along by rig_until. */
struct raw {
    struct raw *next;
    int fd;
    struct str got;
    struct str todo;
    size_t todo_off;
    size_t sent_total;
    bool eof, reset;
    bool deaf; /* does not read */
};

/*
 * Targets: /now answers "hello" at once; /end 204 at the end of the body; /echo streams the body
 * back; /big?N writes N bytes; /early 413 at once; /tunnel switches and echoes; /hold does not
 * consume; anything else waits for the test.
 */
void rig_open(struct rig *r, const struct http_server_opts *o); /* o may be NULL */
void rig_close(struct rig *r);

/* Run the loop until `cond` holds; fails the test after RIG_BOUND_MS. */
void rig_until(struct rig *r, bool (*cond)(void *ctx), void *ctx);
/* Run the loop for some turns, to see that something does not happen. */
void rig_turns(struct rig *r, int turns);

void rig_connect(struct rig *r, struct raw *raw); /* to the server */
void rig_adopt(struct rig *r, struct raw *raw, int fd);
void raw_send(struct raw *raw, const char *text);
void raw_send_n(struct raw *raw, const void *p, size_t n);
void raw_close(struct rig *r, struct raw *raw);

/* Wait until `raw` got `text` (anywhere), the end, or that many exchanges were seen / gone. */
void raw_expect(struct rig *r, struct raw *raw, const char *text);
void raw_expect_eof(struct rig *r, struct raw *raw);
void rig_expect_seen(struct rig *r, size_t n);
void rig_expect_gone(struct rig *r, size_t i);
size_t raw_count(const struct raw *raw, const char *text);

#endif
