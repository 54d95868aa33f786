/* Connecting out: resolve, check each address, dial (happy eyeballs, RFC 8305), TLS. */
#ifndef TR_NET_CONNECT_H
#define TR_NET_CONNECT_H

#include <stdbool.h>
#include "net/resolve.h"
#include "net/stream.h"

struct net_connect;

/*
 * A parent proxy: dials go to it, and CONNECT (RFC 9110 §9.3.6) asks it for the rest. Names are not
 * resolved here then, `allow` is not asked (the parent's own address is exempt), and TLS goes
 * through the parent's tunnel. Kept by the caller.
 */
struct net_parent {
    const char *host; /* name or literal, without brackets */
    uint16_t port;
    struct tls_ctx *tls;       /* to the parent itself; NULL: in clear */
    const char *authorization; /* value of Proxy-Authorization, or NULL; never in an error's text */
    /* Does that destination go directly? May be NULL. */
    bool (*bypass)(void *ctx, const char *host, uint16_t port);
    void *bypass_ctx;
};

/* `p`, or NULL: there is none, or that destination goes directly. */
static inline const struct net_parent *net_parent_for(const struct net_parent *p, const char *host,
                                                      uint16_t port)
{
    return p && p->bypass && p->bypass(p->bypass_ctx, host, port) ? NULL : p;
}

struct net_connect_opts {
    const char *host; /* name or literal, without brackets; copied */
    uint16_t port;
    struct tls_ctx *tls;     /* NULL: in clear; a reference is taken */
    const char *server_name; /* SNI and name to verify; NULL: host; copied */
    struct view alpn;        /* wire format, or VIEW_NONE; copied */
    unsigned timeout_ms;     /* for everything up to and with the TLS handshake; 0: 10 s */
    /* Asked for each address before it is dialled; may be NULL. */
    bool (*allow)(void *ctx, const struct net_addr *addr);
    void *allow_ctx;
    /* NULL: dial directly. Its TLS context must outlive the net_connect. net_peer of the stream is
     * the parent then. Answers other than 2xx to CONNECT are ERR_UNAVAIL. */
    const struct net_parent *parent;
};

/* `s` is ready (handshake done; on_ready does not come again), not yet bound, and the callee's, who
 * binds it before returning; or NULL and `e`, which names host, port and cause. The net_connect is
 * gone when this is called. */
typedef void (*net_connected_fn)(void *ctx, struct net_stream *s, const struct err *e);

/* Never calls back before it returns; never NULL. The first address that answers is taken; the
 * next one is tried 250 ms after the one before, or as soon as that fails. An address whose TLS
 * handshake fails, or takes more than its share of the time that is left, is passed over like one
 * that refuses; if no other does better, the error is about TLS. One that fails to resume a
 * session, as servers do that cannot match it with a client certificate, is dialled once more. */
struct net_connect *net_connect_start(struct net_resolver *r, struct ev_loop *loop,
                                      const struct net_connect_opts *o, net_connected_fn fn,
                                      void *ctx);
void net_connect_cancel(struct net_connect **c);

#endif
