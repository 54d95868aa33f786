/*
 * PROXY headers.
 *
 * Oracle: every cut of a header asks for more, and what follows it changes nothing; there is an
 * address or it is local; no input keeps us waiting beyond the bound.
 */
#include "fuzz/target.h"

#include <netinet/in.h>
#include "codec/proxy_header.h"

static void check_result(const struct proxy_header *h, size_t n)
{
    ASSERT(h->length > 0 && h->length <= n && h->length <= PROXY_HEADER_MAX);
    if (h->local)
        ASSERT(h->source_len == 0);
    else if (h->source.ss_family == AF_INET)
        ASSERT(h->source_len == sizeof(struct sockaddr_in));
    else
        ASSERT(h->source.ss_family == AF_INET6 && h->source_len == sizeof(struct sockaddr_in6));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct proxy_header h, cut;
    enum proxy_header_result all = proxy_header_parse(view_of(data, n), &h), got;

    if (all == PROXY_HEADER_OK)
        check_result(&h, n);
    for (size_t at = 0; at < TR_MIN(n, (size_t)PROXY_HEADER_MAX + 1); at++) {
        got = proxy_header_parse(view_of(data, at), &cut);
        ASSERT(got == PROXY_HEADER_MORE || got == all);
        if (all == PROXY_HEADER_OK)
            ASSERT((got == PROXY_HEADER_OK) == (at >= h.length));
    }
    ASSERT(all != PROXY_HEADER_MORE || n < PROXY_HEADER_MAX);
    return 0;
}
