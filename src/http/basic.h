/*
 * Basic credentials of clients (RFC 7617), a proxy's and an admin listener's, from a file of
 * `user:hash` lines. Hashes are those of crypt(5), slow on purpose: they are computed in the pool,
 * never in a loop, and what came of it is kept for some minutes under an HMAC with a key of this
 * process.
 *
 * Guessing costs: a client's address that was wrong ten times in a minute is not listened to for
 * the rest of it, and no more than a few computations are under way for a worker at a time.
 */
#ifndef TR_HTTP_BASIC_H
#define TR_HTTP_BASIC_H

#include <stddef.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"
#include "ev/pool.h"
#include "net/addr.h"

/* What a file says: immutable, shared by threads. */
struct basic_users;

/* Blank lines and those that begin with # do not count. NULL and `e`, which names the line but
 * shows nothing of it: others may read or change the file, a hash is of no known format or costs
 * too much, a user stands twice. */
struct basic_users *basic_users_load(const char *path, struct err *e) TR_MUST_USE;
void basic_users_free(struct basic_users **u);
/* The same of a text; `e` without a path. */
struct basic_users *basic_users_parse(struct view text, struct err *e) TR_MUST_USE;

/* Who checks for one listener of one worker; for its loop's thread. */
struct basic;

enum basic_result {
    BASIC_GOOD,
    BASIC_MISSING, /* no credential, or not one of Basic */
    BASIC_WRONG,
    BASIC_BUSY, /* too many wrong ones from there, or too much to do: later */
    BASIC_ASKED /* not known yet: the answer comes by the function */
};

/* Never BASIC_ASKED. `user` is valid during the call. */
typedef void (*basic_fn)(void *ctx, enum basic_result result, struct view user);

/* `u` is kept by the caller as long as the checker uses it. */
struct basic *basic_new(struct ev_loop *loop, struct ev_pool *pool, const struct basic_users *u,
                        basic_fn fn);
/* Others from now on; what was known is forgotten if they are. */
void basic_configure(struct basic *b, const struct basic_users *u);
void basic_free(struct basic **b); /* questions under way end without an answer */

/* `field` is the value of Proxy-Authorization, or Authorization. `user` is valid until the next
 * call here, if GOOD; `ask` is set if ASKED, until the function is called with `ctx`, never from
 * within this call. */
struct basic_ask;
enum basic_result basic_check(struct basic *b, struct view field, const struct net_addr *from,
                              struct view *user, struct basic_ask **ask, void *ctx) TR_MUST_USE;

/* Append "user:password" of such a field to `out`, to be wiped by the caller: there is a colon, and
 * no NUL. -1: there is none to be had, and `out` may hold a part. */
int basic_decode(struct view field, struct str *out) TR_MUST_USE;
void basic_cancel(struct basic_ask **ask);

#endif
