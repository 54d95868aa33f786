/*
 * What is known of upstream hosts, for reports: each shard tells every second what it knows, and
 * who wants to know reads that together, without asking the shards.
 */
#ifndef TR_LOGS_UPSTREAMS_H
#define TR_LOGS_UPSTREAMS_H

#include <pthread.h>
#include "base/str.h"
#include "logs/limiter.h"

enum {
    UPSTREAM_NAME = 264, /* a host's name has 253 at most, and a port */
    UPSTREAMS_MAX = 33,  /* of one shard: the log service and its stores */
};

struct logs;
struct shard;

struct upstream_told {
    char name[UPSTREAM_NAME];
    bool store; /* an object store, not the log service */
    enum limiter_state state;
    unsigned limit, in_flight;
    int64_t not_before; /* monotonic: no request sooner */
    struct limiter_news news;
};

/* One shard's. */
struct upstreams_told {
    pthread_mutex_t lock;
    struct upstream_told *hosts; /* room for UPSTREAMS_MAX */
    size_t n;
};

void upstreams_init(struct upstreams_told *t);
void upstreams_fini(struct upstreams_told *t);

/* The shard's own thread. */
void upstreams_tell(struct shard *sh);

/* Any thread. The worst of the log service's limiters, or of the object stores'; and a JSON array
 * with one object for each host: what several workers know of it is taken together. */
enum limiter_state upstreams_state(struct logs *l, bool store);
void upstreams_json(struct logs *l, struct str *out);

#endif
