/*
 * Targets, queries, escapes and authorities.
 *
 * Oracle: pieces of a query make up the query; what is decoded and encoded again decodes to the
 * same; an authority that was taken is taken again when written from its parts.
 */
#include "fuzz/target.h"

#include "codec/h1.h"
#include "codec/url.h"

static void check_query(struct view in)
{
    struct view path, query, rest, name, value;
    size_t n = 0;

    url_split_target(in, &path, &query);
    ASSERT(path.n + query.n + (query.p != NULL) == in.n);
    rest = query;
    while (url_query_next(&rest, &name, &value)) {
        ASSERT(!memchr(name.p, '=', name.n) && !memchr(name.p, '&', name.n));
        ASSERT(!value.n || !memchr(value.p, '&', value.n));
        n += name.n + value.n + 1;
    }
    ASSERT(n <= query.n + 1);
}

static void check_escapes(struct view in, bool plus)
{
    struct str plain = STR_INIT, coded = STR_INIT, again = STR_INIT;

    if (url_decode(in, plus, &plain) == 0) {
        ASSERT(plain.n <= in.n);
        url_encode(str_view(&plain), &coded);
        ASSERT(coded.n <= plain.n * 3);
        ASSERT(plain.n == 0 || h1_is_target(str_view(&coded)));
        ASSERT(url_decode(str_view(&coded), true, &again) == 0);
        ASSERT(view_eq(str_view(&plain), str_view(&again)));
    } else {
        ASSERT(plain.n == 0 && memchr(in.p, '%', in.n));
    }
    str_fini(&plain);
    str_fini(&coded);
    str_fini(&again);
}

static void check_authority(struct view in)
{
    struct view host, host2;
    uint16_t port, port2;
    struct str text = STR_INIT;
    bool v6;
    size_t i;

    if (url_parse_authority(in, 443, &host, &port, NULL) != 0)
        return;
    ASSERT(host.n > 0 && host.n <= 254 && port > 0);
    ASSERT(h1_is_host(in));
    v6 = memchr(host.p, ':', host.n) != NULL;
    ASSERT(v6 == (in.p[0] == '['));
    for (i = 0; i < host.n; i++)
        ASSERT((unsigned char)host.p[i] > 0x20 && (unsigned char)host.p[i] < 0x7f);
    str_addf(&text, "%s%.*s%s:%u", v6 ? "[" : "", (int)host.n, host.p, v6 ? "]" : "", port);
    ASSERT(url_parse_authority(str_view(&text), 1, &host2, &port2, NULL) == 0);
    ASSERT(view_eq(host, host2) && port == port2);
    str_fini(&text);
}

static void check_url(struct view in)
{
    struct url u, v;
    struct str text = STR_INIT;

    if (url_parse(in, &u, NULL) != 0)
        return;
    ASSERT(u.path.n > 0 && u.path.p[0] == '/' && h1_is_target(u.path));
    ASSERT(!memchr(u.authority.p, '@', u.authority.n));
    str_adds(&text, u.https ? "https://" : "http://");
    str_addv(&text, u.authority);
    str_addv(&text, u.path);
    ASSERT(url_parse(str_view(&text), &v, NULL) == 0);
    ASSERT(u.https == v.https && u.port == v.port && u.port_given == v.port_given);
    ASSERT(view_eq(u.host, v.host) && view_eq(u.path, v.path));
    str_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);

    check_query(in);
    check_escapes(in, false);
    check_escapes(in, true);
    check_authority(in);
    check_url(in);
    return 0;
}
