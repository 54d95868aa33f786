/* Connecting out: resolve, check each address, dial (happy eyeballs, RFC 8305), TLS. */
#ifndef TR_NET_CONNECT_H
#define TR_NET_CONNECT_H

#include <stdbool.h>
#include "net/resolve.h"
#include "net/stream.h"

struct net_connect;

struct net_connect_opts {
    const char *host; /* name or literal, without brackets; copied */
    uint16_t port;
    struct tls_ctx *tls;     /* NULL: in clear */
    const char *server_name; /* SNI and name to verify; NULL: host */
    struct view alpn;        /* wire format, or VIEW_NONE */
    unsigned timeout_ms;     /* for everything up to and with the TLS handshake; 0: 10 s */
    /* Asked for each address before it is dialled; may be NULL. */
    bool (*allow)(void *ctx, const struct net_addr *addr);
    void *allow_ctx;
};

/* `s` is ready (handshake done), not yet bound, and the callee's; or NULL and `e`. */
typedef void (*net_connected_fn)(void *ctx, struct net_stream *s, const struct err *e);

struct net_connect *net_connect_start(struct net_resolver *r, struct ev_loop *loop,
                                      const struct net_connect_opts *o, net_connected_fn fn, void *ctx);
void net_connect_cancel(struct net_connect **c);

#endif
