/*
 * Connections that come through a load balancer: it says in front of each who the client is (the
 * PROXY protocol, see codec/proxy_header.h). A stage between a listener and who serves it. From
 * senders that are not trusted nothing is looked for: what they send is theirs.
 *
 * No byte behind the header is read, so the connection goes on like one that was just accepted.
 */
#ifndef TR_NET_PROXIED_H
#define TR_NET_PROXIED_H

#include <stdbool.h>
#include "net/listen.h"

struct net_proxied;

struct net_proxied_opts {
    struct ev_loop *loop;
    /* May that sender speak for others? */
    bool (*trusted)(void *ctx, const struct net_addr *sender);
    void *trusted_ctx;
    /* Gets the connection, with the address of the client: at once, or when the header is there. */
    net_accept_fn fn;
    void *ctx;
    unsigned timeout_ms;  /* for the whole header; 0: 5 s */
    unsigned max_waiting; /* connections without their header yet; 0: 4,096. More are closed */
};

/* `o` is copied. For the loop's thread. Headers that are broken, late or missing close the
 * connection; they are counted (`proxy_headers_total{result}`) and logged at a bounded rate. */
struct net_proxied *net_proxied_new(const struct net_proxied_opts *o);

/* A net_accept_fn; the context is a struct net_proxied. */
void net_proxied_accepted(void *proxied, int fd, const struct net_addr *sender);

/* Other senders are trusted from now on. */
void net_proxied_configure(struct net_proxied *p,
                           bool (*trusted)(void *ctx, const struct net_addr *sender),
                           void *trusted_ctx);

/* Closes what waits. After the listener is gone; not from within `fn` or `trusted`. */
void net_proxied_free(struct net_proxied **p);

#endif
