/*
 * Addresses as text: with port and without. The first byte chooses.
 *
 * Oracle: what is taken is an address that can be written, and what was written is read as the
 * same.
 */
#include <string.h>
#include "fuzz/target.h"
#include "net/addr.h"

static void check(const struct net_addr *a, uint16_t port)
{
    char text[NET_ADDR_TEXT], ip[NET_ADDR_TEXT];
    struct net_addr b;
    struct err e;

    ASSERT(a->ss.ss_family == AF_INET || a->ss.ss_family == AF_INET6);
    ASSERT(net_addr_port(a) == port);
    ASSERT(net_addr_parse(view_str(net_addr_text(a, text)), &b, &e) == 0);
    ASSERT(b.len == a->len && memcmp(&a->ss, &b.ss, a->len) == 0);
    ASSERT(net_addr_literal(view_str(net_addr_ip(a, ip)), port, &b) == 0);
    ASSERT(b.len == a->len && memcmp(&a->ss, &b.ss, a->len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    uint8_t which = fuzz_byte(&in);
    struct net_addr a;
    struct err e = {0};

    if (which & 1) {
        if (net_addr_parse(in, &a, &e) == 0)
            check(&a, net_addr_port(&a));
        else
            ASSERT(e.text[0]);
    } else if (net_addr_literal(in, which, &a) == 0) {
        check(&a, which);
    }
    return 0;
}
