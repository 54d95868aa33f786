/*
 * Relays: an HTTP exchange passed on to one upstream, bodies streamed both ways with back-pressure,
 * an Upgrade as a tunnel. Paths and queries go on byte for byte, Host and SNI are the real
 * upstream's (HP §4.7), nothing is repeated (HP §7 item 41).
 */
#ifndef TR_EGRESS_RELAY_H
#define TR_EGRESS_RELAY_H

#include "http/client.h"
#include "http/server.h"

struct relay_service;

struct relay_target {
    const char *host; /* kept by the caller while the service lives */
    uint16_t port;
    struct view authority; /* for Host */
    struct view base;    /* path in front of every target, without a trailing slash; may be empty */
    struct tls_ctx *tls; /* NULL: in clear */
};

/* One for each worker. */
struct relay_service *relay_service_new(struct http_client *client,
                                        const struct relay_target *target);
const struct http_service *relay_http(struct relay_service *s);
void relay_configure(struct relay_service *s,
                     const struct relay_target *target); /* for new exchanges; own thread */
void relay_service_free(struct relay_service **s);

#endif
