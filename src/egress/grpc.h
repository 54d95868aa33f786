/*
 * Relay for remote calls (gRPC, or whatever else speaks HTTP/2): a listener with one destination,
 * such as a lite engine at :20001. Heads, messages and trailers pass untouched both ways, each
 * direction with its own end and its own pace; RST_STREAM passes with its code. Deadlines are the
 * peers'. A passage for each call, allowed by the rule "grpc:NAME".
 *
 * When upstream fails a gRPC client is told in its own words: status UNAVAILABLE.
 */
#ifndef TR_EGRESS_GRPC_H
#define TR_EGRESS_GRPC_H

#include "egress/gate.h"
#include "http/rpc.h"
#include "http/server.h"

struct grpc_service;

struct grpc_opts {
    const char *listener; /* its name; lives as long as the service's passages */
    struct gate *gate;
    struct rpc_client *client;
    const char *to;      /* URL without a path: http:// is HTTP/2 in clear, https:// by ALPN */
    struct tls_ctx *tls; /* for https; kept by the caller while the service lives */
};

/* `to` was checked (url_parse). */
struct grpc_service *grpc_service_new(const struct grpc_opts *o);
const struct http_service *grpc_http(struct grpc_service *s); /* for servers with opts.rpc */
void grpc_configure(struct grpc_service *s, const char *to, struct tls_ctx *tls); /* new calls */
void grpc_service_free(struct grpc_service **s); /* after the servers and the client */

#endif
