#include "codec/client_hello.h"

#include <stdint.h>

/* RFC 8446 §5.1, §4, §4.2; RFC 6066 §3; RFC 7301 §3.1. */
enum {
    RECORD_HANDSHAKE = 22,
    RECORD_HEADER = 5,
    RECORD_MAX = 1 << 14,
    HANDSHAKE_CLIENT_HELLO = 1,
    HANDSHAKE_HEADER = 4,
    RANDOM_LEN = 32,
    SESSION_ID_MAX = 32,
    EXT_SERVER_NAME = 0,
    EXT_ALPN = 16,
    EXT_SUPPORTED_VERSIONS = 43,
    NAME_HOST = 0,
    NAME_MAX_LEN = 255,
    TLS_1_3 = 0x0304,
};

/* Big-endian reading with a sticky error: what is not there reads as 0 or empty. */
struct cursor {
    struct view left;
    bool bad;
};

static struct view take(struct cursor *c, size_t n)
{
    struct view v;

    if (c->left.n < n) {
        c->bad = true;
        c->left.n = 0;
        return VIEW_NONE;
    }
    v = view_of(c->left.p, n);
    c->left = view_from(c->left, n);
    return v;
}

static size_t number(struct cursor *c, size_t bytes)
{
    struct view v = take(c, bytes);
    size_t x = 0;

    for (size_t i = 0; i < v.n; i++)
        x = x << 8 | (unsigned char)v.p[i];
    return x;
}

/* A vector whose length takes `bytes` bytes (RFC 8446 §3.4). */
static struct view vector(struct cursor *c, size_t bytes)
{
    return take(c, number(c, bytes));
}

/* The message, put together from its records. */
struct assembly {
    char flat[CLIENT_HELLO_MAX];
    size_t n;
    struct view message; /* in the input if one record has all of it, else in flat */
};

/* A record's header. The content's length, or a verdict that is not OK. */
static enum client_hello_result record_header(struct view *in, size_t *n)
{
    struct cursor c = {*in, false};

    if ((in->n && in->p[0] != RECORD_HANDSHAKE) || (in->n > 1 && in->p[1] != 3))
        return CLIENT_HELLO_BAD;
    if (in->n < RECORD_HEADER)
        return CLIENT_HELLO_MORE;
    take(&c, 3);
    *n = number(&c, 2);
    *in = c.left;
    return *n == 0 || *n > RECORD_MAX ? CLIENT_HELLO_BAD : CLIENT_HELLO_OK;
}

/* The length of the whole message, as soon as its header is there. */
static enum client_hello_result message_length(struct view got, size_t *want)
{
    struct cursor c = {got, false};

    if (got.n && got.p[0] != HANDSHAKE_CLIENT_HELLO)
        return CLIENT_HELLO_BAD;
    if (got.n < HANDSHAKE_HEADER)
        return CLIENT_HELLO_MORE;
    take(&c, 1);
    *want = HANDSHAKE_HEADER + number(&c, 3);
    return *want > CLIENT_HELLO_MAX ? CLIENT_HELLO_BAD : CLIENT_HELLO_OK;
}

static enum client_hello_result assemble(struct view in, struct assembly *a)
{
    enum client_hello_result result;
    size_t n = 0, want = 0, before;
    struct view content;

    for (;;) {
        result = record_header(&in, &n);
        if (result != CLIENT_HELLO_OK)
            return result;
        content = view_of(in.p, TR_MIN(n, in.n));
        in = view_from(in, content.n);
        before = a->n;
        if (content.n) {
            memcpy(a->flat + a->n, content.p, content.n); /* in is not longer than flat */
            a->n += content.n;
        }
        a->message = before ? view_of(a->flat, a->n) : content;
        result = message_length(a->message, &want);
        if (result == CLIENT_HELLO_BAD)
            return result;
        /* Nothing can follow a hello before it is answered. */
        if (result == CLIENT_HELLO_OK && before + n > want)
            return CLIENT_HELLO_BAD;
        if (content.n < n)
            return CLIENT_HELLO_MORE;
        if (result == CLIENT_HELLO_OK && a->n == want)
            return CLIENT_HELLO_OK;
    }
}

/* Names as they are used (RFC 1123 §2.1, and '_', which is seen): a NUL or a blank in a name is
 * meant to be read differently by two who look at it. */
static bool is_name(struct view name)
{
    for (size_t i = 0; i < name.n; i++) {
        unsigned char b = (unsigned char)name.p[i], lower = b | 0x20;

        if (!(lower >= 'a' && lower <= 'z') && !(b >= '0' && b <= '9') && b != '-' && b != '.' &&
            b != '_')
            return false;
    }
    return name.n > 0 && name.n <= NAME_MAX_LEN;
}

/* RFC 6066 §3. One name; other types were never defined. */
static bool read_server_name(struct view ext, struct view *out)
{
    struct cursor c = {ext, false}, list = {vector(&c, 2), false};
    size_t type = number(&list, 1);
    struct view name = vector(&list, 2);

    if (c.bad || list.bad || c.left.n || list.left.n || type != NAME_HOST || !is_name(name))
        return false;
    *out = name;
    return true;
}

/* RFC 7301 §3.1. */
static bool read_alpn(struct view ext, struct view *out)
{
    struct cursor c = {ext, false}, list = {vector(&c, 2), false};

    *out = list.left;
    if (c.bad || c.left.n || out->n == 0)
        return false;
    while (list.left.n && !list.bad)
        if (vector(&list, 1).n == 0)
            return false;
    return !list.bad;
}

/* RFC 8446 §4.2.1. */
static bool read_versions(struct view ext, bool *tls13)
{
    struct cursor c = {ext, false}, list = {vector(&c, 1), false};

    if (c.bad || c.left.n || list.left.n < 2 || list.left.n % 2)
        return false;
    while (list.left.n)
        if (number(&list, 2) == TLS_1_3)
            *tls13 = true;
    return true;
}

/* Known ones, each at most once (RFC 8446 §4.2); the others, GREASE (RFC 8701) among them, pass. */
static bool read_extension(size_t type, struct view ext, unsigned *seen, struct client_hello *out)
{
    unsigned bit;

    if (type != EXT_SERVER_NAME && type != EXT_ALPN && type != EXT_SUPPORTED_VERSIONS)
        return true;
    bit = type == EXT_SERVER_NAME ? 1 : type == EXT_ALPN ? 2 : 4;
    if (*seen & bit)
        return false;
    *seen |= bit;
    if (type == EXT_SERVER_NAME)
        return read_server_name(ext, &out->server_name);
    if (type == EXT_ALPN)
        return read_alpn(ext, &out->alpn);
    return read_versions(ext, &out->tls13);
}

static bool read_hello(struct view message, struct client_hello *out)
{
    struct cursor c = {message, false}, list;
    struct view ciphers, ext;
    unsigned seen = 0;
    size_t type;

    take(&c, HANDSHAKE_HEADER);
    if (number(&c, 2) >> 8 != 3) /* legacy_version */
        return false;
    take(&c, RANDOM_LEN);
    if (vector(&c, 1).n > SESSION_ID_MAX)
        return false;
    ciphers = vector(&c, 2);
    if (ciphers.n == 0 || ciphers.n % 2 || vector(&c, 1).n == 0 /* compression */ || c.bad)
        return false;
    if (c.left.n == 0) /* TLS 1.2 without extensions (RFC 5246 §7.4.1.2) */
        return true;
    list = (struct cursor){vector(&c, 2), false};
    if (c.bad || c.left.n)
        return false;
    while (list.left.n) {
        type = number(&list, 2);
        ext = vector(&list, 2);
        if (list.bad || !read_extension(type, ext, &seen, out))
            return false;
    }
    return true;
}

/* What lies in the assembly, which is gone in a moment, is kept in the caller's `room`. */
static bool keep(const struct assembly *a, struct view *v, char room[256])
{
    if (v->n == 0 || v->p < a->flat || v->p >= a->flat + sizeof(a->flat))
        return true;
    if (v->n > 255)
        return false;
    memcpy(room, v->p, v->n);
    v->p = room;
    return true;
}

enum client_hello_result client_hello_parse(struct view in, struct client_hello *out)
{
    enum client_hello_result result;
    struct assembly a;

    if ((in.n && in.p[0] != RECORD_HANDSHAKE) || (in.n > 1 && in.p[1] != 3))
        return CLIENT_HELLO_NOT_TLS;
    a.n = 0;
    result = assemble(view_of(in.p, TR_MIN(in.n, (size_t)CLIENT_HELLO_MAX)), &a);
    if (result == CLIENT_HELLO_MORE && in.n >= CLIENT_HELLO_MAX)
        return CLIENT_HELLO_BAD;
    if (result != CLIENT_HELLO_OK)
        return result;
    out->server_name = out->alpn = VIEW_NONE;
    out->tls13 = false;
    if (!read_hello(a.message, out))
        return CLIENT_HELLO_BAD;
    /* A list of protocols that is cut in two and longer than any in use is not worth the room. */
    if (!keep(&a, &out->server_name, out->name) || !keep(&a, &out->alpn, out->protocols))
        return CLIENT_HELLO_BAD;
    return CLIENT_HELLO_OK;
}
