/*
 * Names to addresses, asynchronously, by c-ares; answers are kept as long as their TTL says
 * (between 1 s and 5 min; failures 1 s), and lookups of the same name at the same time are asked
 * once. One resolver for each loop, all calls in its thread. Literal addresses are answered without
 * asking; what is neither a literal nor a host name, as 127.1 or 0x7f000001, is ERR_INVALID.
 *
 * The system's name servers are read again when resolv.conf has changed, which is looked for at
 * most every 5 s, when a name is to be asked for. What was asked before is answered by the old
 * ones.
 */
#ifndef TR_NET_RESOLVE_H
#define TR_NET_RESOLVE_H

#include <stddef.h>
#include "base/err.h"
#include "ev/loop.h"
#include "net/addr.h"

enum { NET_RESOLVE_MAX = 16 }; /* addresses kept of one answer */

struct net_resolver;
struct net_lookup;

/* `servers`: "addr[:port],..." or NULL: the system's (/etc/hosts and resolv.conf are honoured). */
struct net_resolver *net_resolver_new(struct ev_loop *loop, const char *servers,
                                      struct err *e) TR_MUST_USE;

/* With the system's servers, but as this file has them instead of /etc/resolv.conf, and at this
 * port; 0: 53. The path is copied. */
struct net_resolver *net_resolver_new_file(struct ev_loop *loop, const char *resolv_conf,
                                           uint16_t port, struct err *e) TR_MUST_USE;

/* Forget the answers that are kept, and look now whether the system's servers have changed. */
void net_resolver_reload(struct net_resolver *r);

/* Lookups under way end without a call-back and are gone: don't cancel them afterwards. */
void net_resolver_free(struct net_resolver **r);

/* `addrs` (in the order of RFC 6724) have the port that was asked for and are valid during the
 * call; n 0: failed, see `e`. The lookup is gone when this is called. */
typedef void (*net_resolved_fn)(void *ctx, const struct net_addr *addrs, size_t n,
                                const struct err *e);

/* Never calls back before it returns. NULL is never returned; cancel by net_lookup_cancel. `host`
 * is copied; letter case and one dot at its end do not matter. */
struct net_lookup *net_resolve(struct net_resolver *r, const char *host, uint16_t port,
                               net_resolved_fn fn, void *ctx);
void net_lookup_cancel(struct net_lookup **l);

#endif
