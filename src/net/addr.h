/* Addresses. */
#ifndef TR_NET_ADDR_H
#define TR_NET_ADDR_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/view.h"

/* An address of IPv4 or IPv6; of another family, of which a sockaddr_storage would hold more, only
 * what fits. There are three in each tunnel. */
struct net_addr {
    union {
        sa_family_t ss_family;
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } ss;
    socklen_t len;
};

/* "192.0.2.1:80", "[2001:db8::1]:80": a literal address and port. Strict. */
int net_addr_parse(struct view text, struct net_addr *out, struct err *e) TR_MUST_USE;

/* "192.0.2.1", "2001:db8::1" and a port: 0, or -1 if it is no literal address. IPv4 in four decimal
 * parts only; no zone in IPv6. */
int net_addr_literal(struct view ip, uint16_t port, struct net_addr *out) TR_MUST_USE;

/* As text, for people: always something, also for other families ("local"). Return `out`. */
enum { NET_ADDR_TEXT = 64 };
const char *net_addr_text(const struct net_addr *a, char out[NET_ADDR_TEXT]); /* with port */
const char *net_addr_ip(const struct net_addr *a, char out[NET_ADDR_TEXT]);   /* without */
uint16_t net_addr_port(const struct net_addr *a);
void net_addr_set_port(struct net_addr *a, uint16_t port);

#endif
