#include "codec/proxy_header.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>

/* proxy-protocol.txt §2.1 and §2.2. */
enum {
    V1_MAX = 107, /* with CR LF */
    V2_HEADER = 16,
    V2_LOCAL = 0x20,
    V2_PROXY = 0x21,
    V2_UNSPEC = 0x00,
    V2_TCP4 = 0x11,
    V2_TCP6 = 0x21,
    V2_UNIX_STREAM = 0x31,
    TCP4_LEN = 12,
    TCP6_LEN = 36,
    UNIX_LEN = 216,
    TLV_HEADER = 3,
    TLV_CRC32C = 3,
};

static const char v1_start[] = "PROXY ";
static const char v2_start[] = "\r\n\r\n\0\r\nQUIT\n";

static void set_v4(struct proxy_header *out, const void *ip, uint16_t port)
{
    struct sockaddr_in *sin = (struct sockaddr_in *)(void *)&out->source;

    sin->sin_family = AF_INET;
    memcpy(&sin->sin_addr, ip, sizeof(sin->sin_addr));
    sin->sin_port = htons(port);
    out->source_len = sizeof(*sin);
}

/* Rules for 10.0.0.0/8 must hold for ::ffff:10.0.0.1 as well: it is the same client. */
static void set_v6(struct proxy_header *out, const struct in6_addr *ip, uint16_t port)
{
    struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)(void *)&out->source;

    if (IN6_IS_ADDR_V4MAPPED(ip)) {
        set_v4(out, ip->s6_addr + 12, port);
        return;
    }
    sin6->sin6_family = AF_INET6;
    sin6->sin6_addr = *ip;
    sin6->sin6_port = htons(port);
    out->source_len = sizeof(*sin6);
}

/* --- version 1: one line of text --- */

/* The next word, and the one blank behind it. */
static struct view word(struct view *line)
{
    const char *blank = line->n ? memchr(line->p, ' ', line->n) : NULL;
    struct view w = blank ? view_of(line->p, (size_t)(blank - line->p)) : *line;

    *line = blank ? view_from(*line, w.n + 1) : VIEW_NONE;
    return w;
}

static bool read_port(struct view text, uint16_t *port)
{
    unsigned x = 0;

    if (text.n == 0 || text.n > 5 || (text.n > 1 && text.p[0] == '0'))
        return false;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return false;
        x = x * 10 + (unsigned)(text.p[i] - '0');
    }
    *port = (uint16_t)x;
    return x <= UINT16_MAX;
}

static bool read_ip(int family, struct view text, void *out)
{
    char z[INET6_ADDRSTRLEN];

    if (text.n == 0 || text.n >= sizeof(z))
        return false;
    memcpy(z, text.p, text.n);
    z[text.n] = '\0';
    return inet_pton(family, z, out) == 1;
}

/* "TCP4 192.0.2.1 192.0.2.2 51000 443" */
static bool read_line(struct view line, struct proxy_header *out)
{
    struct view proto = word(&line), ip[2];
    struct in6_addr addr[2];
    uint16_t port[2];
    int family;

    if (view_is(proto, "UNKNOWN")) { /* whatever follows is to be ignored */
        out->local = true;
        return true;
    }
    if (!view_is(proto, "TCP4") && !view_is(proto, "TCP6"))
        return false;
    family = view_is(proto, "TCP4") ? AF_INET : AF_INET6;
    ip[0] = word(&line);
    ip[1] = word(&line);
    if (!read_ip(family, ip[0], &addr[0]) || !read_ip(family, ip[1], &addr[1]) ||
        !read_port(word(&line), &port[0]) || !line.p || !read_port(line, &port[1]))
        return false;
    if (family == AF_INET)
        set_v4(out, &addr[0], port[0]);
    else
        set_v6(out, &addr[0], port[0]);
    return true;
}

static enum proxy_header_result parse_v1(struct view in, struct proxy_header *out)
{
    size_t n = TR_MIN(in.n, (size_t)V1_MAX), i;

    for (i = sizeof(v1_start) - 1; i < n && in.p[i] >= ' ' && in.p[i] < 0x7f; i++)
        continue;
    if (i == V1_MAX)
        return PROXY_HEADER_BAD;
    if (i == n)
        return PROXY_HEADER_MORE;
    if (in.p[i] != '\r')
        return PROXY_HEADER_BAD;
    if (i + 1 == n)
        return n == V1_MAX ? PROXY_HEADER_BAD : PROXY_HEADER_MORE;
    out->length = i + 2;
    if (in.p[i + 1] != '\n' ||
        !read_line(view_of(in.p + sizeof(v1_start) - 1, i - sizeof(v1_start) + 1), out))
        return PROXY_HEADER_BAD;
    return PROXY_HEADER_OK;
}

/* --- version 2: binary --- */

static unsigned be16(const char *p)
{
    return (unsigned)(unsigned char)p[0] << 8 | (unsigned char)p[1];
}

/* CRC-32C bit by bit over a few dozen bytes once a connection; the fast one is a layer's neighbour
 * and not for codecs. */
static uint32_t crc_add(uint32_t crc, struct view v)
{
    for (size_t i = 0; i < v.n; i++) {
        crc ^= (unsigned char)v.p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return crc;
}

/* §2.2.4: over the whole header, with zeros in place of the sum itself. */
static bool crc_ok(struct view header, struct view sum)
{
    size_t before = (size_t)(sum.p - header.p);
    uint32_t crc = crc_add(UINT32_MAX, view_of(header.p, before));

    crc = crc_add(crc, VIEW_LIT("\0\0\0\0"));
    crc = ~crc_add(crc, view_from(header, before + sum.n));
    return crc == ((uint32_t)be16(sum.p) << 16 | be16(sum.p + 2));
}

static bool check_tlvs(struct view header, struct view tlvs)
{
    bool summed = false;

    while (tlvs.n) {
        struct view value;
        size_t n;

        if (tlvs.n < TLV_HEADER)
            return false;
        n = be16(tlvs.p + 1);
        if (tlvs.n - TLV_HEADER < n)
            return false;
        value = view_of(tlvs.p + TLV_HEADER, n);
        if (tlvs.p[0] == TLV_CRC32C) {
            if (summed || n != 4 || !crc_ok(header, value))
                return false;
            summed = true;
        }
        tlvs = view_from(tlvs, TLV_HEADER + n);
    }
    return true;
}

static bool read_addresses(struct view header, unsigned family, struct proxy_header *out)
{
    struct view block = view_from(header, V2_HEADER);
    struct in6_addr v6;
    size_t n = family == V2_TCP4 ? TCP4_LEN : family == V2_TCP6 ? TCP6_LEN : UNIX_LEN;

    if (family == V2_UNSPEC) { /* "ignore the address information": its layout is not known */
        out->local = true;
        return true;
    }
    if ((family != V2_TCP4 && family != V2_TCP6 && family != V2_UNIX_STREAM) || block.n < n)
        return false;
    if (!check_tlvs(header, view_from(block, n)))
        return false;
    if (family == V2_TCP4) {
        set_v4(out, block.p, (uint16_t)be16(block.p + 8));
    } else if (family == V2_TCP6) {
        memcpy(&v6, block.p, sizeof(v6));
        set_v6(out, &v6, (uint16_t)be16(block.p + 32));
    } else {
        out->local = true;
    }
    return true;
}

static enum proxy_header_result parse_v2(struct view in, struct proxy_header *out)
{
    unsigned command = in.n > 12 ? (unsigned char)in.p[12] : V2_PROXY;

    if (command != V2_LOCAL && command != V2_PROXY)
        return PROXY_HEADER_BAD;
    if (in.n < V2_HEADER)
        return PROXY_HEADER_MORE;
    out->length = V2_HEADER + be16(in.p + 14);
    if (out->length > PROXY_HEADER_MAX)
        return PROXY_HEADER_BAD;
    if (in.n < out->length)
        return PROXY_HEADER_MORE;
    out->local = command == V2_LOCAL;
    if (!out->local && !read_addresses(view_of(in.p, out->length), (unsigned char)in.p[13], out))
        return PROXY_HEADER_BAD;
    return PROXY_HEADER_OK;
}

/* Do the bytes, as far as there are any, begin like this? */
static bool begins(struct view in, struct view start)
{
    return view_starts(start, view_of(in.p, TR_MIN(in.n, start.n)));
}

enum proxy_header_result proxy_header_parse(struct view in, struct proxy_header *out)
{
    static const struct view v1 = {v1_start, sizeof(v1_start) - 1};
    static const struct view v2 = {v2_start, sizeof(v2_start) - 1};

    memset(out, 0, sizeof(*out));
    if (in.n == 0)
        return PROXY_HEADER_MORE;
    if (begins(in, v1))
        return in.n < v1.n ? PROXY_HEADER_MORE : parse_v1(in, out);
    if (begins(in, v2))
        return in.n < v2.n ? PROXY_HEADER_MORE : parse_v2(in, out);
    return PROXY_HEADER_BAD;
}
