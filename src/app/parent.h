/* The parent proxy as a configuration wants it (upstream.parent*). */
#ifndef TR_APP_PARENT_H
#define TR_APP_PARENT_H

#include "app/options.h"
#include "net/connect.h"

struct parent;

/* Reads the credentials. 0 and `*out`, the caller's, NULL if there is no parent; or -1 and `e`, in
 * which no credentials are. */
int parent_new(const struct config *c, struct parent **out, struct err *e) TR_MUST_USE;
void parent_free(struct parent **p);

/* For relays and tunnels, with its bypass; lives as long as `p`. NULL gives NULL. */
const struct net_parent *parent_net(const struct parent *p);

/* For deliveries: how struct fetch_peer wants it, with the credentials in the URL; or NULL. The
 * caller's. Never to be shown. */
char *parent_url(const struct parent *p);

/* upstream.parent-bypass: does that destination go directly? For any thread; `parent` is a struct
 * parent. */
bool parent_bypasses(void *parent, const char *host, uint16_t port);

#endif
