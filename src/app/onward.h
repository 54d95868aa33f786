/*
 * What stands in front of the log path, so that a process which has handed its spool over can still
 * serve the clients whose connections it keeps (TLS that ends here, intercepted hosts): each of
 * their exchanges goes to the process that took over, through a socket pair of which that one gets
 * the other end (SCM_RIGHTS), as an HTTP/1.1 request in clear.
 */
#ifndef TR_APP_ONWARD_H
#define TR_APP_ONWARD_H

#include <pthread.h>
#include <stdatomic.h>
#include "base/str.h"
#include "egress/relay.h"
#include "http/server.h"

/* The way to the process that took over, shared by the workers. */
struct onward_way {
    pthread_mutex_t lock;
    int fd; /* of the takeover; -1: that process is gone. Under the lock */
};

struct onward {
    struct http_service service; /* for servers */
    const struct http_service *home, *relay;
    struct relays *relays;
    struct gate *gate;
    struct onward_way *way; /* NULL: everything is taken here */
    struct view authority;  /* of harness.url, for the audit trail */
};

/* `home` takes all exchanges until onward_begin; afterwards those with a path go on, and `relay`
 * refuses the rest as it always does. For the worker's loop. */
void onward_init(struct onward *o, const struct http_service *home,
                 const struct http_service *relay, struct relays *relays, struct gate *gate);
void onward_begin(struct onward *o, struct onward_way *way, struct view authority);

/* Who made the exchange and how it came, for the other process. */
struct onward_from {
    struct view listener, peer, identity;
    bool tls;    /* it came by TLS */
    bool inside; /* the client means the host itself: its TLS was intercepted */
};
void onward_encode(const struct http_request *req, struct str *out);
int onward_decode(struct view payload, struct onward_from *out) TR_MUST_USE; /* views into it */

#endif
