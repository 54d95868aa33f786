/*
 * Relays: an HTTP exchange passed on to one upstream, bodies streamed both ways with back-pressure,
 * an Upgrade to websocket, and to nothing else, as a tunnel. Paths and queries go on byte for byte,
 * Host and SNI are the real upstream's (HP §4.7), nothing is repeated (HP §7 item 41).
 */
#ifndef TR_EGRESS_RELAY_H
#define TR_EGRESS_RELAY_H

#include "egress/gate.h"
#include "http/client.h"
#include "http/server.h"

/* What the relays of one worker share. */
struct relays;
struct relays *relays_new(struct gate *gate, struct http_client *client);
void relays_free(struct relays **r); /* after the servers whose exchanges they carry */

/* Where an exchange goes. Texts are borrowed for the call. */
struct relay_to {
    const char *host;
    uint16_t port;
    struct tls_ctx *tls;   /* NULL: in clear */
    struct view authority; /* for Host */
    struct view base;      /* path in front of the target, without a trailing slash; may be empty */
    struct view target;    /* path and query */
    int (*dial)(void *ctx, struct err *e); /* see struct http_call_opts; NULL: host and port */
    void *dial_ctx;                        /* for this call only */
    /* The exchange has a handler already (http_rebind), which got this much of the body, and
     * maybe its end. */
    bool bound;
    struct view early;
    bool ended;
};

/* Relay the exchange, which nobody has bound (but see `bound`). The passage, which may pass, is
 * taken over. */
void relay_exchange(struct relays *r, struct http_exchange *ex, const struct http_request *req,
                    const struct relay_to *to, struct passage *passage);

/* Answer an exchange that may not pass, or that makes no sense: `status` with one plain line, which
 * holds nothing that a delegate could take for a command (HP §4.2). Ends the passage. */
void relay_refuse(struct http_exchange *ex, int status, const char *text, struct passage *passage,
                  const char *why);

/*
 * A service that relays everything to one upstream, the one of harness.url: its passages are
 * allowed by the rule "upstream". Targets are paths; anything else is refused.
 */
struct relay_service;

struct relay_target {
    const char *host; /* kept by the caller while the service lives */
    uint16_t port;
    struct view authority; /* for Host */
    struct view base;      /* see struct relay_to */
    struct tls_ctx *tls;   /* NULL: in clear */
};

struct relay_service *relay_service_new(struct relays *r, const struct relay_target *target);
const struct http_service *relay_http(struct relay_service *s);
void relay_configure(struct relay_service *s,
                     const struct relay_target *target); /* for new exchanges; own thread */
void relay_service_free(struct relay_service **s);

#endif
