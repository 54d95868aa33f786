/*
 * Object stores that signed links lead to: a limiter for each and worker, so that a store in
 * trouble slows neither the log service nor other stores, and a queue of those who wait for it.
 */
#ifndef TR_LOGS_STORE_H
#define TR_LOGS_STORE_H

#include "base/list.h"
#include "base/view.h"
#include "ev/loop.h"
#include "logs/limiter.h"
#include "logs/shard.h"

enum {
    STORE_HOSTS_MAX = 32,   /* remembered by one worker; links may name any number of hosts */
    STORE_WAITING_MAX = 64, /* a store that is down: past this many, links are not even asked for */
};

struct store_host;

/* One who waits; embed it. */
struct store_wait {
    struct list link;
    void (*go)(struct store_wait *w);
};

/* The store at that authority ("host:port" as the link spells it). Stays valid while somebody waits
 * there or has a slot. */
struct store_host *store_get(struct shard *sh, struct view authority);

/* Take a slot: `go` is called, perhaps from within, when there is one; it is then the caller's. */
void store_enter(struct store_host *h, struct store_wait *w);

/* Take one at once, whatever the limiter says. */
void store_enter_now(struct store_host *h);

/* The slot's request goes through this limiter; limiter_end gives the slot back, then call
 * store_left. Or give it back without a request. */
struct limiter *store_limiter(struct store_host *h);
void store_left(struct store_host *h);
void store_give_back(struct store_host *h);

/* So many wait for the store used last that another would only lose its link's time. */
bool store_is_crowded(const struct shard *sh);

/* The stores that are remembered, one after the other. */
void store_each(const struct shard *sh,
                void (*fn)(void *ctx, const char *authority, const struct limiter *l), void *ctx);

void store_free_all(struct shard *sh);

#endif
