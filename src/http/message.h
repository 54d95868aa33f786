/* What the HTTP server and client share: requests and responses as their handlers see them. */
#ifndef TR_HTTP_MESSAGE_H
#define TR_HTTP_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/view.h"
#include "codec/h1.h"
#include "net/addr.h"

struct http_request {
    struct view method;
    struct view target;            /* as sent: "/path?query", or a URL; for CONNECT the authority */
    struct view authority;         /* Host or :authority */
    const struct h1_field *fields; /* pseudo fields left out */
    size_t n_fields;
    int64_t content_length; /* -1: not said */
    bool has_body;          /* false: on_end follows at once */
    bool upgrade;           /* HTTP/1.1 Upgrade asked for */
    bool expect_continue;
    int version; /* 10, 11 or 20 */
    bool tls;
    const struct net_addr *peer;
    struct view identity; /* of the client's TLS certificate; empty: it showed none */
    const char *listener; /* name of the listener it came by; NULL: it has none */
    void *tag;            /* of its connection, see struct http_conn_opts; NULL: it has none */
    int64_t start_ns;     /* monotonic: when its first byte came */
};

/* First field of that name, or a view with .p NULL. */
struct view http_field(const struct h1_field *fields, size_t n, const char *name);
/* Is `token` (case does not matter) in the comma-separated lists of that name's fields? */
bool http_field_has_token(const struct h1_field *fields, size_t n, const char *name,
                          const char *token);

/* Fields that belong to one hop only (RFC 9110 §7.6.1) and are not relayed: Connection and what
 * it names, Keep-Alive, Proxy-*, TE, Transfer-Encoding, Upgrade, Trailer handling excepted. */
bool http_is_hop_field(const struct h1_field *fields, size_t n, struct view name);

#endif
