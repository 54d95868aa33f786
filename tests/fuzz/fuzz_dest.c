/*
 * Destinations and ranges of addresses.
 *
 * Oracle: what is taken has one spelling, that is taken again as the same; it has only the bytes of
 * a host name or an address; nothing that the system reads as an address passes as a name; a range
 * has its own address, and opens only what it has.
 */
#include "fuzz/target.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include "policy/policy.h"

static void check_dest(struct view in, uint16_t def)
{
    char text[DEST_TEXT_MAX], again[DEST_TEXT_MAX];
    struct dest a, b;
    struct in_addr ip;
    const char *p;

    if (dest_parse(in, def, &a, NULL) < 0)
        return;
    ASSERT(a.port != 0 && a.host[0] && strlen(a.host) <= DEST_HOST_MAX);
    ASSERT(a.literal == (a.addr.ss_family != AF_UNSPEC));
    for (p = a.host; *p; p++)
        ASSERT(strchr("abcdefghijklmnopqrstuvwxyz0123456789-_.", *p) || (a.literal && *p == ':'));
    if (!a.literal)
        ASSERT(p[-1] != '.' && a.host[0] != '.' && inet_aton(a.host, &ip) == 0);
    dest_text(&a, text);
    ASSERT(dest_parse(view_str(text), 0, &b, NULL) == 0);
    ASSERT(strcmp(dest_text(&b, again), text) == 0);
    ASSERT(a.literal == b.literal && memcmp(&a.addr, &b.addr, sizeof(a.addr)) == 0);
    if (a.literal) {
        const struct sockaddr *sa = (const struct sockaddr *)&a.addr;
        bool embedded;

        ASSERT(addr_class(sa, &embedded) < ADDR_CLASSES);
        ASSERT(addr_place(sa).prefix <= (sa->sa_family == AF_INET ? 32 : 128));
    }
}

static void check_range(struct view in)
{
    struct addr_range r, again;
    struct sockaddr_storage ss = {0};
    char text[INET6_ADDRSTRLEN + 5];

    if (addr_range_parse(in, &r, NULL) < 0)
        return;
    ss.ss_family = (sa_family_t)r.family;
    if (r.family == AF_INET)
        memcpy(&((struct sockaddr_in *)(void *)&ss)->sin_addr, r.bits, 4);
    else
        memcpy(&((struct sockaddr_in6 *)(void *)&ss)->sin6_addr, r.bits, 16);
    ASSERT(addr_range_has(&r, (struct sockaddr *)&ss));
    inet_ntop(r.family, r.bits, text, INET6_ADDRSTRLEN);
    snprintf(text + strlen(text), 5, "/%u", r.prefix);
    ASSERT(addr_range_parse(view_str(text), &again, NULL) == 0);
    ASSERT(memcmp(&r, &again, sizeof(r)) == 0);
    ASSERT(addr_range_opens(&r, (struct sockaddr *)&ss) ==
           (r.prefix >= addr_place((struct sockaddr *)&ss).prefix));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);

    check_dest(in, 0);
    check_dest(in, 443);
    check_range(in);
    return 0;
}
