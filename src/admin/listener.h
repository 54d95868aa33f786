/*
 * What an admin listener serves: the pages (admin.h), the status page (site.h), and the commands of
 * /api/v1/ (call.h). Whoever reaches it may read; an action needs credentials (RFC 7617), if there
 * are users at all, and a field that no browser sends for a page of another place.
 */
#ifndef TR_ADMIN_LISTENER_H
#define TR_ADMIN_LISTENER_H

#include <stdbool.h>
#include "ev/pool.h"
#include "http/basic.h"
#include "http/server.h"

struct admin_listener;

struct admin_listener_opts {
    struct ev_loop *loop;
    struct ev_pool *pool;
    const char *name;                /* "admin" of listen.admin; kept by pointer, as the next */
    const char *public_url;          /* NULL: none */
    const struct basic_users *users; /* NULL: no actions; kept by pointer */
    bool tls;                        /* it speaks TLS only */
};

struct admin_listener *admin_listener_new(const struct admin_listener_opts *o);

/* Others from now on, and another URL; what the earlier pointers lead to must stay as long as
 * questions are under way. */
void admin_listener_configure(struct admin_listener *l, const struct basic_users *users,
                              const char *public_url);

/* For the HTTP server, which goes first. */
const struct http_service *admin_listener_service(struct admin_listener *l);
void admin_listener_free(struct admin_listener **l);

/*
 * May a browser that was led to `host` (the value of Host, with or without a port) see what is
 * here? A page elsewhere can have its own name lead to this address (DNS rebinding) and read as if
 * it were ours; so in clear a name must be one that is known: an address, a name without dots,
 * this machine's, or that of `public_url` (may be NULL).
 */
bool admin_listener_knows_host(struct view host, const char *public_url);

#endif
