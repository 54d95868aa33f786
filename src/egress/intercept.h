/*
 * Interception: TLS of the listed hosts, and of no others, is ended here with a certificate minted
 * from the customer's CA, so that their logs can be taken over and their calls relayed as in
 * upstream mode. Everything else is spliced untouched. Reached in two ways: inside a CONNECT, and
 * by DNS override through a listener of mode `sni`.
 *
 * What a client wants is told by the name in its ClientHello (with Encrypted ClientHello the outer
 * one, which is where its bytes go), for which it has 10 s. A hello that offers protocols, but
 * neither h2 nor http/1.1, is not for us. A request inside whose Host is not the one of the hello
 * is answered 421 (RFC 9110 §15.5.20).
 *
 * All for the loop's thread. Clients that do not believe the certificate, because they pin another
 * or lack the CA, are counted (intercept_rejected_total) and told of in the log.
 */
#ifndef TR_EGRESS_INTERCEPT_H
#define TR_EGRESS_INTERCEPT_H

#include "crypto/mint.h"
#include "egress/relay.h"
#include "egress/tunnel.h"
#include "http/server.h"

struct intercept;
struct intercept_listener;

/* All that is pointed to is kept by the caller while anything here uses it (see struct plan). */
struct intercept_opts {
    struct ev_loop *loop;
    struct gate *gate;
    struct tunnels *tunnels;
    struct relays *relays;
    struct mint *mint;          /* NULL: nothing is intercepted */
    const struct policy *hosts; /* those it allows are; NULL if there is no mint */
    /* What serves the host of harness.url: log calls are terminated and the rest is relayed. Calls
     * to other hosts are relayed to those, where the policy allows. */
    const struct http_service *harness;
    const char *harness_host; /* as struct dest spells it */
    uint16_t harness_port;
    struct tls_ctx *tls; /* to other hosts; NULL if there is no mint */
    unsigned max_connections;
};
struct intercept *intercept_new(const struct intercept_opts *o);

/* For connections from now on. Only mint, hosts, harness_host, harness_port and tls may differ. */
void intercept_configure(struct intercept *i, const struct intercept_opts *o);

/* Refuse what comes by connections that the policy would not let in any more (after a reload), and
 * end the WebSockets on them.
 * Those inside a TLS tunnel to the proxy are ended by tunnels_recheck. */
void intercept_recheck(struct intercept *i, const struct policy *p);

/* As http_server_drain; who has not said yet where to is closed. */
void intercept_drain(struct intercept *i);

/* As http_server_hold, for requests inside. */
void intercept_hold(struct intercept *i, bool on);

/* Open now: being looked at, dialled for, or served. What has become a tunnel is not counted. */
size_t intercept_connections(const struct intercept *i);

/* Breaks off what is left. Not from within a handler. */
void intercept_free(struct intercept **i);

/* Is TLS to that destination to be looked into? */
bool intercept_wants(const struct intercept *i, const struct dest *d);

/*
 * Take a client's connection whose CONNECT was answered with 200: `early` (emptied) has bytes that
 * came behind it. What follows decides: a ClientHello for the same host is served here; anything
 * else (another name, no name, no TLS) is passed on to where the CONNECT wanted, as the policy let
 * it, and audited with what was seen. Both, and the passage, are taken over.
 */
void intercept_take(struct intercept *i, struct net_stream *client, struct buf *early,
                    struct passage *passage);

/*
 * For a listener of mode `sni`. What its clients want goes to the port of harness.url if it is that
 * host, else to `port`; 0: the one at which they came in. Listed hosts are served here, others
 * passed on where the policy allows; who does not say where to is closed, counted and audited. The
 * intercept's; freed with it.
 */
struct intercept_listener *intercept_listener_new(struct intercept *i, const char *name,
                                                  uint16_t port);
void intercept_listener_configure(struct intercept_listener *l, uint16_t port);
void intercept_accepted(void *listener, int fd, const struct net_addr *peer); /* net_accept_fn */

#endif
