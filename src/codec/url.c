#include "codec/url.h"

#include <arpa/inet.h>

enum {
    MAX_HOST = 253, /* RFC 1035 §2.3.4, without the root's dot */
    MAX_LABEL = 63,
};

void url_split_target(struct view target, struct view *path, struct view *query)
{
    const char *mark = target.n ? memchr(target.p, '?', target.n) : NULL;

    if (!mark) {
        *path = target;
        *query = VIEW_NONE;
        return;
    }
    *path = view_of(target.p, (size_t)(mark - target.p));
    *query = view_from(target, path->n + 1);
}

int url_query_next(struct view *rest, struct view *name, struct view *value)
{
    while (rest->n) {
        const char *amp = memchr(rest->p, '&', rest->n);
        struct view pair = amp ? view_of(rest->p, (size_t)(amp - rest->p)) : *rest;
        const char *eq;

        *rest = amp ? view_from(*rest, pair.n + 1) : VIEW_NONE;
        if (pair.n == 0)
            continue;
        eq = memchr(pair.p, '=', pair.n);
        *name = eq ? view_of(pair.p, (size_t)(eq - pair.p)) : pair;
        *value = eq ? view_from(pair, name->n + 1) : view_from(pair, pair.n);
        return 1;
    }
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* The byte that the escape at `p` stands for, or -1. */
static int unescape(const char *p, size_t n)
{
    int hi, lo;

    if (n < 3)
        return -1;
    hi = hex_digit(p[1]);
    lo = hex_digit(p[2]);
    return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

int url_decode(struct view in, bool plus, struct str *out)
{
    size_t i = 0, n, before = out->n;
    char *to;

    if (!in.n || (!memchr(in.p, '%', in.n) && !(plus && memchr(in.p, '+', in.n)))) {
        str_addv(out, in);
        return 0;
    }
    str_reserve(out, in.n);
    to = out->p + out->n;
    n = 0;
    while (i < in.n) {
        int c = (unsigned char)in.p[i];

        if (c == '%') {
            c = unescape(in.p + i, in.n - i);
            if (c < 0) {
                out->p[before] = '\0';
                return -1;
            }
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        to[n++] = (char)c;
        i++;
    }
    to[n] = '\0';
    out->n += n;
    return 0;
}

static bool is_alnum(char c)
{
    char l = c | 0x20;

    return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9');
}

/* RFC 3986 §2.3 */
static bool is_unreserved(char c)
{
    return is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

void url_encode(struct view in, struct str *out)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t i;

    str_reserve(out, in.n);
    for (i = 0; i < in.n; i++) {
        unsigned char c = (unsigned char)in.p[i];

        if (is_unreserved((char)c)) {
            str_addc(out, (char)c);
        } else {
            char esc[3] = {'%', hex[c >> 4], hex[c & 15]};

            str_add(out, esc, sizeof(esc));
        }
    }
}

static int check_name(struct view host, struct err *e)
{
    size_t i, label = 0;

    if (host.n == 0)
        return err_set(e, ERR_INVALID, "the host is empty");
    if (host.n > MAX_HOST + (host.p[host.n - 1] == '.'))
        return err_set(e, ERR_INVALID, "the host is longer than %d bytes", MAX_HOST);
    for (i = 0; i < host.n; i++) {
        char c = host.p[i];

        if (c == '.') {
            if (label == 0)
                return err_set(e, ERR_INVALID, "the host has an empty label");
            label = 0;
        } else if (!is_alnum(c) && c != '-' && c != '_') {
            return err_set(e, ERR_INVALID, "the host has a character that is not allowed");
        } else if (++label > MAX_LABEL) {
            return err_set(e, ERR_INVALID, "the host has a label longer than %d bytes", MAX_LABEL);
        }
    }
    return 0;
}

/* No zone: it would name an interface of ours. */
static int check_v6(struct view host, struct err *e)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;

    if (host.n > 0 && host.n < sizeof(text)) {
        memcpy(text, host.p, host.n);
        text[host.n] = '\0';
        if (strlen(text) == host.n && inet_pton(AF_INET6, text, &addr) == 1)
            return 0;
    }
    return err_set(e, ERR_INVALID, "the host is not an IPv6 address");
}

static int parse_port(struct view text, uint16_t *port, struct err *e)
{
    unsigned v = 0;
    size_t i;

    if (text.n == 0 || text.n > 5)
        return err_set(e, ERR_INVALID, "the port is not a number from 1 to 65535");
    for (i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return err_set(e, ERR_INVALID, "the port is not a number from 1 to 65535");
        v = v * 10 + (unsigned)(text.p[i] - '0');
    }
    if (v == 0 || v > 65535)
        return err_set(e, ERR_INVALID, "the port is not a number from 1 to 65535");
    *port = (uint16_t)v;
    return 0;
}

int url_parse_authority(struct view text, uint16_t def, struct view *host, uint16_t *port,
                        struct err *e)
{
    const char *mark;
    struct view rest;

    if (text.n && text.p[0] == '[') {
        mark = memchr(text.p, ']', text.n);
        if (!mark)
            return err_set(e, ERR_INVALID, "the host's bracket is not closed");
        *host = view_of(text.p + 1, (size_t)(mark - text.p) - 1);
        rest = view_from(text, host->n + 2);
        if (check_v6(*host, e) != 0)
            return -1;
    } else {
        mark = text.n ? memchr(text.p, ':', text.n) : NULL;
        *host = mark ? view_of(text.p, (size_t)(mark - text.p)) : text;
        rest = view_from(text, host->n);
        if (check_name(*host, e) != 0)
            return -1;
    }
    *port = def;
    if (rest.n == 0)
        return 0;
    if (rest.p[0] != ':')
        return err_set(e, ERR_INVALID, "the host is followed by something that is no port");
    return parse_port(view_from(rest, 1), port, e);
}

/* 0x21 to 0x7e, as RFC 3986 has it; a fragment is for the user agent only. */
static int check_path(struct view path, struct err *e)
{
    size_t i;

    for (i = 0; i < path.n; i++) {
        unsigned char c = (unsigned char)path.p[i];

        if (c <= 0x20 || c >= 0x7f)
            return err_set(e, ERR_INVALID, "the URL has a character that must be escaped");
        if (c == '#')
            return err_set(e, ERR_INVALID, "the URL has a fragment");
    }
    return 0;
}

int url_parse(struct view text, struct url *out, struct err *e)
{
    static const struct view http = VIEW_LIT("http://"), https = VIEW_LIT("https://");
    struct view rest;
    size_t n = 0;

    *out = (struct url){.https = false};
    if (text.n >= https.n && strncasecmp(text.p, https.p, https.n) == 0) {
        out->https = true;
        rest = view_from(text, https.n);
    } else if (text.n >= http.n && strncasecmp(text.p, http.p, http.n) == 0) {
        rest = view_from(text, http.n);
    } else {
        return err_set(e, ERR_INVALID, "the URL does not begin with http:// or https://");
    }
    while (n < rest.n && !strchr("/?#", rest.p[n]))
        n++;
    out->authority = view_of(rest.p, n);
    out->path = view_from(rest, n);
    if (n && memchr(rest.p, '@', n))
        return err_set(e, ERR_INVALID, "the URL has a user name");
    if (url_parse_authority(out->authority, out->https ? 443 : 80, &out->host, &out->port, e) != 0)
        return -1;
    n = out->host.n + (out->authority.p[0] == '[' ? 2 : 0);
    out->port_given = out->authority.n > n;
    if (out->path.n == 0)
        out->path = VIEW_LIT("/");
    if (out->path.p[0] == '?')
        return err_set(e, ERR_INVALID, "the URL has a query without a path");
    return check_path(out->path, e);
}
