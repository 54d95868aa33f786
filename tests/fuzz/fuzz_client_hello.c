/*
 * Hellos of TLS clients.
 *
 * Oracle: a verdict does not depend on how the bytes come: every shorter cut asks for more or says
 * the same already. Names are names, and what was understood lies in the input or the result.
 */
#include "fuzz/target.h"

#include "codec/client_hello.h"

static bool within(struct view v, const void *p, size_t n)
{
    return v.n == 0 || (v.p >= (const char *)p && v.p + v.n <= (const char *)p + n);
}

static void check_result(const struct client_hello *h, const uint8_t *data, size_t n)
{
    ASSERT(within(h->server_name, data, n) || within(h->server_name, h->name, sizeof(h->name)));
    ASSERT(within(h->alpn, data, n) || within(h->alpn, h->protocols, sizeof(h->protocols)));
    ASSERT(h->server_name.n <= 255);
    for (size_t i = 0; i < h->server_name.n; i++)
        ASSERT(h->server_name.p[i] > ' ' && h->server_name.p[i] != ':');
    for (size_t at = 0; at < h->alpn.n; at += (size_t)(uint8_t)h->alpn.p[at] + 1)
        ASSERT(h->alpn.p[at] && at + (uint8_t)h->alpn.p[at] < h->alpn.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct client_hello h, cut;
    enum client_hello_result all = client_hello_parse(view_of(data, n), &h), got;
    size_t step = n / 64 + 1;

    if (all == CLIENT_HELLO_OK)
        check_result(&h, data, n);
    for (size_t at = 0; at < n; at += step) {
        got = client_hello_parse(view_of(data, at), &cut);
        ASSERT(got == CLIENT_HELLO_MORE || got == all);
        if (got == CLIENT_HELLO_OK)
            ASSERT(view_eq(cut.server_name, h.server_name) && cut.tls13 == h.tls13);
    }
    ASSERT(all != CLIENT_HELLO_MORE || n < CLIENT_HELLO_MAX);
    return 0;
}
