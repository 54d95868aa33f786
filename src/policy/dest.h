/*
 * Destinations and addresses as policy sees them: one spelling for each, so that what is decided on
 * is what is dialled.
 */
#ifndef TR_POLICY_DEST_H
#define TR_POLICY_DEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/view.h"

enum { DEST_HOST_MAX = 253 };

/* Where somebody wants to go. */
struct dest {
    /* A name in lower case, its labels in ASCII (IDNA 2008), without a dot at its end; or a literal
     * address in its usual spelling, without brackets (::ffff:a.b.c.d is spelled a.b.c.d). */
    char host[DEST_HOST_MAX + 3];
    uint16_t port;
    bool literal;
    struct sockaddr_storage addr; /* if literal, with the port */
};

/*
 * "host:port", "host", "[v6]:port". `def`: the port when none is given; 0: one must be. Letter
 * case, a dot at the end, IDNA and brackets are brought into one form; so are the spellings of IPv4
 * that inet_aton takes (2130706433, 0x7f.1, 0177.0.0.1), because a resolver or a parent proxy might
 * take them for addresses: a name whose last label is a number is an address or refused. Userinfo,
 * zones, empty labels, port 0, brackets around anything but IPv6 and anything else: ERR_INVALID,
 * with a text that does not repeat the input. Pure; any thread.
 */
int dest_parse(struct view authority, uint16_t def, struct dest *out, struct err *e) TR_MUST_USE;

/* "host:port", with brackets where they belong. */
enum { DEST_TEXT_MAX = DEST_HOST_MAX + 16 };
const char *dest_text(const struct dest *d, char out[DEST_TEXT_MAX]);

/* What kind of place an address is (RFC 6890 and what clouds add). */
enum addr_class {
    ADDR_PUBLIC,
    ADDR_UNSPECIFIED,
    ADDR_LOOPBACK,
    ADDR_PRIVATE, /* RFC 1918, RFC 4193 */
    ADDR_LINK_LOCAL,
    ADDR_METADATA,  /* of a cloud: 169.254.169.254, fd00:ec2::254 and their like */
    ADDR_CGNAT,     /* RFC 6598 */
    ADDR_MULTICAST, /* and broadcast */
    ADDR_RESERVED,  /* documentation, benchmarks, future use, discard */
    ADDR_OWN,       /* one of this machine's (but loopback), see policy_own_addresses */
    ADDR_CLASSES
};

/*
 * An address of IPv6 that holds one of IPv4 (mapped, compatible, translated, NAT64, 6to4, Teredo,
 * ISATAP) is of the class of that one; if that is public, `embedded` still says so: such addresses
 * lead where their prefix's router wants, and are refused like private ones unless allowed.
 */
struct addr_place {
    enum addr_class kind;
    bool embedded;
    unsigned prefix; /* how many leading bits put it there; 0: an ordinary public address */
};
struct addr_place addr_place(const struct sockaddr *a); /* other families: ADDR_RESERVED */

/* The same, when only the class matters; `embedded` may be NULL. */
enum addr_class addr_class(const struct sockaddr *a, bool *embedded);
const char *addr_class_name(enum addr_class c); /* "link-local" */

/* A range of addresses: "10.0.0.0/8", "2001:db8::/32", or a single one. */
struct addr_range {
    int family;
    unsigned char bits[16];
    unsigned prefix;
};

/* Bits behind the prefix must be zero. -1: `e` has "use ...". */
int addr_range_parse(struct view text, struct addr_range *out, struct err *e) TR_MUST_USE;

/* An address of IPv4 inside IPv6 (::ffff:a.b.c.d) is compared as IPv4. */
bool addr_range_has(const struct addr_range *r, const struct sockaddr *a);

/*
 * Has it, and means it: a range opens a special address only if it lies within that one's block.
 * So 0.0.0.0/0 opens no private network, 10.0.0.0/8 opens it but for this machine's own address,
 * and a cloud's metadata or an own address must be named as it is.
 */
bool addr_range_opens(const struct addr_range *r, const struct sockaddr *a);

#endif
