#include "net/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool parse_port(struct view t, uint16_t *port)
{
    unsigned v = 0;

    if (t.n == 0 || t.n > 5 || (t.n > 1 && t.p[0] == '0'))
        return false;
    for (size_t i = 0; i < t.n; i++) {
        if (t.p[i] < '0' || t.p[i] > '9')
            return false;
        v = v * 10 + (unsigned)(t.p[i] - '0');
    }
    *port = (uint16_t)v;
    return v <= UINT16_MAX;
}

int net_addr_literal(struct view ip, uint16_t port, struct net_addr *out)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&out->ss;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&out->ss;
    char text[INET6_ADDRSTRLEN];

    memset(out, 0, sizeof(*out));
    if (ip.n == 0 || ip.n >= sizeof(text) || memchr(ip.p, '\0', ip.n))
        return -1;
    memcpy(text, ip.p, ip.n);
    text[ip.n] = '\0';
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        out->len = sizeof(*v4);
        return 0;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        out->len = sizeof(*v6);
        return 0;
    }
    return -1;
}

int net_addr_parse(struct view text, struct net_addr *out, struct err *e)
{
    const char *colon = text.n ? memrchr(text.p, ':', text.n) : NULL;
    size_t host_n = colon ? (size_t)(colon - text.p) : 0;
    struct view host = view_of(text.p, host_n);
    bool bracketed = host_n >= 2 && text.p[0] == '[' && text.p[host_n - 1] == ']';
    uint16_t port;

    if (!colon || !parse_port(view_from(text, host_n + 1), &port))
        goto bad;
    if (bracketed)
        host = view_of(text.p + 1, host_n - 2);
    if (net_addr_literal(host, port, out) < 0)
        goto bad;
    if (bracketed != (out->ss.ss_family == AF_INET6))
        goto bad;
    return 0;
bad:
    return err_set(e, ERR_INVALID,
                   "\"%.*s\" is not an address and port like 192.0.2.1:80 or "
                   "[2001:db8::1]:80",
                   (int)TR_MIN(text.n, (size_t)80), text.n ? text.p : "");
}

const char *net_addr_ip(const struct net_addr *a, char out[NET_ADDR_TEXT])
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->ss;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->ss;

    if (a->ss.ss_family == AF_INET)
        inet_ntop(AF_INET, &v4->sin_addr, out, NET_ADDR_TEXT);
    else if (a->ss.ss_family == AF_INET6)
        inet_ntop(AF_INET6, &v6->sin6_addr, out, NET_ADDR_TEXT);
    else
        snprintf(out, NET_ADDR_TEXT, "%s", a->ss.ss_family == AF_UNIX ? "local" : "unknown");
    return out;
}

const char *net_addr_text(const struct net_addr *a, char out[NET_ADDR_TEXT])
{
    char ip[NET_ADDR_TEXT];

    net_addr_ip(a, ip);
    if (a->ss.ss_family == AF_INET6)
        snprintf(out, NET_ADDR_TEXT, "[%.45s]:%u", ip, net_addr_port(a));
    else if (a->ss.ss_family == AF_INET)
        snprintf(out, NET_ADDR_TEXT, "%.45s:%u", ip, net_addr_port(a));
    else
        memcpy(out, ip, NET_ADDR_TEXT);
    return out;
}

uint16_t net_addr_port(const struct net_addr *a)
{
    if (a->ss.ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)&a->ss)->sin_port);
    if (a->ss.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&a->ss)->sin6_port);
    return 0;
}

void net_addr_set_port(struct net_addr *a, uint16_t port)
{
    if (a->ss.ss_family == AF_INET)
        ((struct sockaddr_in *)&a->ss)->sin_port = htons(port);
    else if (a->ss.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&a->ss)->sin6_port = htons(port);
}
