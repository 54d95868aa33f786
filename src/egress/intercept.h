/*
 * Interception: TLS of the listed hosts, and of no others, is ended here with a certificate minted
 * from the customer's CA, so that their logs can be taken over and their calls relayed as in
 * upstream mode. Everything else is spliced untouched. Reached in two ways: inside a CONNECT, and
 * by DNS override through a listener of mode `sni`.
 */
#ifndef TR_EGRESS_INTERCEPT_H
#define TR_EGRESS_INTERCEPT_H

#include "crypto/mint.h"
#include "egress/gate.h"
#include "egress/tunnel.h"
#include "http/server.h"

struct intercept;

struct intercept_opts {
    struct ev_loop *loop;
    struct gate *gate;
    struct tunnels *tunnels;
    struct mint *mint;
    const char *const *hosts; /* canonical, see struct dest; "*.x" works */
    size_t n_hosts;
    /* What serves the inside: log calls are terminated and the rest is relayed if the host is the
     * one of harness.url, and otherwise all is relayed to the host itself. */
    const struct http_service *harness;
    const char *harness_host;
    struct http_client *client; /* relays to other hosts */
    struct tls_ctx *client_tls;
    unsigned max_connections;
};
struct intercept *intercept_new(const struct intercept_opts *o);
void intercept_configure(struct intercept *i, const struct intercept_opts *o);
void intercept_drain(struct intercept *i);
size_t intercept_connections(const struct intercept *i);
void intercept_free(struct intercept **i);

/* Is TLS to that destination to be looked into? (Port 443, or the port of harness.url.) */
bool intercept_wants(const struct intercept *i, const struct dest *d);

/*
 * Take a client's connection whose CONNECT was answered with 200: `early` has bytes that came
 * behind it. What follows decides: a ClientHello for the same host is served here; anything else
 * (another name, no name, no TLS) is passed on to where the CONNECT wanted, if it is allowed, and
 * audited with what was seen. The passage is taken over.
 */
void intercept_take(struct intercept *i, struct net_stream *client, struct buf *early,
                    struct passage *passage);

/* For a listener of mode `sni`: net_accept_fn with what intercept_listener returns. */
void *intercept_listener(struct intercept *i, const char *listener);
void intercept_accepted(void *listener, int fd, const struct net_addr *peer);

#endif
