/*
 * The proxy listener: CONNECT becomes a tunnel (or is intercepted), an absolute http:// URL a
 * relay. Who the client is: its address, its TLS certificate, or a Basic credential if the listener
 * has a file of them (HP §4.5: delegates may not answer 407, so there is none by default).
 *
 * Answers: 200 to a CONNECT that stands; 403 denied; 400 not understood; 405 another method or
 * form; 407; 502 cannot be reached; 503 too many tunnels; 504 in time; all without body but for one
 * plain line.
 */
#ifndef TR_EGRESS_PROXY_H
#define TR_EGRESS_PROXY_H

#include "http/basic.h"
#include "egress/gate.h"
#include "egress/intercept.h"
#include "egress/tunnel.h"
#include "http/client.h"
#include "http/server.h"

struct proxy_service;

struct proxy_opts {
    const char *listener;
    struct gate *gate;
    struct tunnels *tunnels;
    struct http_client *client;
    struct intercept *intercept; /* NULL: nothing is looked into */
    struct ev_loop *loop;
    unsigned max_connections; /* tunnels of the worker past which a CONNECT is answered 503 */
    struct ev_pool *pool;     /* where credentials are checked */
    const struct basic_users *users; /* NULL: no credentials are asked for; kept by the caller */
};
struct proxy_service *proxy_service_new(const struct proxy_opts *o);
void proxy_service_set_users(struct proxy_service *s, const struct basic_users *users);
const struct http_service *proxy_http(struct proxy_service *s);
void proxy_service_free(struct proxy_service **s);

#endif
