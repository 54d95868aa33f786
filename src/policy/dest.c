/* One spelling for each destination. */
#include "policy/dest.h"

#include <arpa/inet.h>
#include <idn2.h>
#include <netinet/in.h>
#include <stdio.h>

enum {
    LABEL_MAX = 63,
    /* A name of 253 letters as IDNA may be spelled before it is brought into ASCII; longer input
     * is not worth the library's time. */
    SPELLED_MAX = 4 * DEST_HOST_MAX,
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* ---- IPv4 as inet_aton reads it ------------------------------------------------------------ */

/* The value of a digit in that base, or -1. */
static int digit_of(char c, unsigned base)
{
    int v = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;

    return v < (int)base ? v : -1;
}

/* Decimal, octal with a leading 0, hexadecimal with 0x. */
static int parse_part(struct view part, uint64_t *out)
{
    unsigned base = 10;
    uint64_t v = 0;
    size_t i;

    if (part.n >= 2 && part.p[0] == '0' && part.p[1] == 'x') {
        base = 16;
        part = view_from(part, 2);
    } else if (part.n >= 2 && part.p[0] == '0') {
        base = 8;
        part = view_from(part, 1);
    }
    if (part.n == 0)
        return -1;
    for (i = 0; i < part.n; i++) {
        int d = digit_of(part.p[i], base);

        if (d < 0)
            return -1;
        v = v * base + (unsigned)d;
        if (v > UINT32_MAX)
            return -1;
    }
    *out = v;
    return 0;
}

/* The last of up to four parts fills what is left of 32 bits. */
static int parse_ipv4(const char *text, uint32_t *out)
{
    struct view rest = view_str(text), part;
    uint64_t v, sum = 0;
    unsigned n;

    for (n = 0; n < 4; n++) {
        const char *dot = memchr(rest.p, '.', rest.n);

        part = dot ? view_of(rest.p, (size_t)(dot - rest.p)) : rest;
        if (parse_part(part, &v) < 0)
            return -1;
        if (!dot) {
            if (v > (UINT32_MAX >> (8 * n)))
                return -1;
            *out = (uint32_t)(sum | v);
            return 0;
        }
        if (v > 255 || n == 3)
            return -1;
        sum |= v << (24 - 8 * n);
        rest = view_from(rest, part.n + 1);
    }
    return -1;
}

/* Would a resolver take it for an address? By its last label: digits, or hexadecimal. */
static bool ends_in_number(const char *host)
{
    const char *label = strrchr(host, '.');
    size_t n;

    label = label ? label + 1 : host;
    n = strlen(label);
    if (strspn(label, "0123456789") == n)
        return true;
    return n >= 2 && strncmp(label, "0x", 2) == 0 && strspn(label + 2, "0123456789abcdef") == n - 2;
}

/* ---- names -------------------------------------------------------------------------------- */

/* ASCII without a label in Punycode needs no library. */
static bool is_plain(struct view h)
{
    size_t i;

    for (i = 0; i < h.n; i++) {
        if ((unsigned char)h.p[i] >= 0x80)
            return false;
        if ((i == 0 || h.p[i - 1] == '.') && h.n - i >= 4 && strncasecmp(h.p + i, "xn--", 4) == 0)
            return false;
    }
    return true;
}

static int to_ascii(struct view h, char out[DEST_HOST_MAX + 3], struct err *e)
{
    char spelled[SPELLED_MAX + 1];
    uint8_t *result = NULL;
    size_t i, n;
    int rc;

    for (i = 0; i < h.n; i++) {
        if ((unsigned char)h.p[i] <= 0x20 || h.p[i] == 0x7f)
            return err_set(e, ERR_INVALID, "a character that no host name has");
    }
    if (h.n == 0 || h.n > SPELLED_MAX || (is_plain(h) && h.n > DEST_HOST_MAX + 1))
        return err_set(e, ERR_INVALID, h.n ? "a host name of too many bytes" : "no host");
    if (is_plain(h)) {
        for (i = 0; i < h.n; i++)
            out[i] = lower(h.p[i]);
        out[h.n] = '\0';
        return 0;
    }
    memcpy(spelled, h.p, h.n);
    spelled[h.n] = '\0';
    rc = idn2_lookup_u8((const uint8_t *)spelled, &result, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    if (rc != IDN2_OK)
        return err_set(e, ERR_INVALID, "no international name (IDNA): %s", idn2_strerror(rc));
    n = strlen((const char *)result);
    if (n <= DEST_HOST_MAX + 1) {
        for (i = 0; i <= n; i++)
            out[i] = lower((char)result[i]);
    }
    idn2_free(result);
    return n <= DEST_HOST_MAX + 1 ? 0 : err_set(e, ERR_INVALID, "a host name of too many bytes");
}

/* Letters, digits, hyphens and underscores, in labels of 1 to 63. */
static int check_labels(const char *host, struct err *e)
{
    size_t label = 0;
    const char *p;

    for (p = host; *p; p++) {
        if (*p == '.') {
            if (label == 0)
                return err_set(e, ERR_INVALID, "a host name with an empty label");
            label = 0;
            continue;
        }
        if (!(*p >= 'a' && *p <= 'z') && !is_digit(*p) && *p != '-' && *p != '_')
            return err_set(e, ERR_INVALID, "a character that no host name has");
        if (++label > LABEL_MAX)
            return err_set(e, ERR_INVALID, "a label of more than %d bytes", LABEL_MAX);
    }
    return label ? 0 : err_set(e, ERR_INVALID, "a host name with an empty label");
}

static void set_ipv4(struct dest *out, const void *bytes)
{
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)&out->addr;

    in->sin_family = AF_INET;
    in->sin_port = htons(out->port);
    memcpy(&in->sin_addr, bytes, 4);
    inet_ntop(AF_INET, bytes, out->host, sizeof(out->host));
    out->literal = true;
}

static int parse_name(struct view h, struct dest *out, struct err *e)
{
    uint32_t ip;
    size_t n;

    if (to_ascii(h, out->host, e) < 0)
        return -1;
    n = strlen(out->host);
    if (n > 1 && out->host[n - 1] == '.')
        out->host[--n] = '\0';
    if (n > DEST_HOST_MAX)
        return err_set(e, ERR_INVALID, "a host name of too many bytes");
    if (check_labels(out->host, e) < 0)
        return -1;
    if (!ends_in_number(out->host))
        return 0;
    if (parse_ipv4(out->host, &ip) < 0)
        return err_set(e, ERR_INVALID, "neither a host name nor an address: it ends in a number");
    ip = htonl(ip);
    set_ipv4(out, &ip);
    return 0;
}

/* What stood in brackets. */
static int parse_ipv6(struct view h, struct dest *out, struct err *e)
{
    struct sockaddr_in6 *in = (struct sockaddr_in6 *)(void *)&out->addr;
    char text[INET6_ADDRSTRLEN];
    struct in6_addr ip;

    if (h.n == 0 || h.n >= sizeof(text) || memchr(h.p, '\0', h.n))
        return err_set(e, ERR_INVALID, "brackets are for addresses of IPv6 only");
    memcpy(text, h.p, h.n);
    text[h.n] = '\0';
    if (inet_pton(AF_INET6, text, &ip) != 1)
        return err_set(e, ERR_INVALID, "brackets are for addresses of IPv6 only");
    if (IN6_IS_ADDR_V4MAPPED(&ip)) {
        set_ipv4(out, &ip.s6_addr[12]);
        return 0;
    }
    in->sin6_family = AF_INET6;
    in->sin6_port = htons(out->port);
    in->sin6_addr = ip;
    inet_ntop(AF_INET6, &ip, out->host, sizeof(out->host));
    out->literal = true;
    return 0;
}

/* ---- authorities -------------------------------------------------------------------------- */

static int parse_port(struct view text, uint16_t *out, struct err *e)
{
    unsigned long v = 0;
    size_t i;

    for (i = 0; i < text.n && i < 6 && is_digit(text.p[i]); i++)
        v = v * 10 + (unsigned long)(text.p[i] - '0');
    if (i == 0 || i != text.n || text.p[0] == '0' || v > 65535)
        return err_set(e, ERR_INVALID, "a port is a number from 1 to 65535");
    *out = (uint16_t)v;
    return 0;
}

/* Cut "host:port" in two; `port.p` is NULL without one. */
static int split(struct view a, struct view *host, struct view *port, struct err *e)
{
    const char *end = a.n && a.p[0] == '[' ? memchr(a.p, ']', a.n) : NULL, *colon;
    size_t n = end ? (size_t)(end - a.p) + 1 : 0;

    *port = VIEW_NONE;
    if (a.n && memchr(a.p, '@', a.n))
        return err_set(e, ERR_INVALID, "userinfo in front of a host");
    if (a.n && a.p[0] == '[' && !end)
        return err_set(e, ERR_INVALID, "a bracket that nothing closes");
    if (end) {
        *host = view_of(a.p, n);
        if (n < a.n && a.p[n] != ':')
            return err_set(e, ERR_INVALID, "something between a bracket and the port");
    } else {
        colon = a.n ? memchr(a.p, ':', a.n) : NULL;
        n = colon ? (size_t)(colon - a.p) : a.n;
        *host = view_of(a.p, n);
    }
    if (n < a.n)
        *port = view_from(a, n + 1);
    if (port->n && memchr(port->p, ':', port->n))
        return err_set(e, ERR_INVALID, "an address of IPv6 needs brackets");
    return 0;
}

int dest_parse(struct view authority, uint16_t def, struct dest *out, struct err *e)
{
    struct view host, port;

    memset(out, 0, sizeof(*out));
    out->port = def;
    if (split(authority, &host, &port, e) < 0)
        return -1;
    if (port.p && parse_port(port, &out->port, e) < 0)
        return -1;
    if (out->port == 0)
        return err_set(e, ERR_INVALID, "no port");
    if (host.n && host.p[0] == '[')
        return parse_ipv6(view_of(host.p + 1, host.n - 2), out, e);
    return parse_name(host, out, e);
}

const char *dest_text(const struct dest *d, char out[DEST_TEXT_MAX])
{
    bool v6 = strchr(d->host, ':') != NULL;

    snprintf(out, DEST_TEXT_MAX, "%s%s%s:%u", v6 ? "[" : "", d->host, v6 ? "]" : "", d->port);
    return out;
}
