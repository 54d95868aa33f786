/* The PROXY protocol, versions 1 and 2, as a load balancer sends it in front of a connection
 * (haproxy proxy-protocol.txt): who the client is. To be read only from senders that are trusted.
 */
#ifndef TR_CODEC_PROXY_HEADER_H
#define TR_CODEC_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include "base/attrs.h"
#include "base/view.h"

enum { PROXY_HEADER_MAX = 16 + 2048 }; /* version 2 with its options; version 1 has 107 */

struct proxy_header {
    /* The sender's own address stands: its own connection (a health check), or a client whose
     * address it does not know or that has none here (UNKNOWN, AF_UNSPEC, AF_UNIX). */
    bool local;
    struct sockaddr_storage source; /* an IPv4 address in IPv6 dress (::ffff:a.b.c.d) is IPv4 */
    socklen_t source_len;
    size_t length; /* of the header: what follows is the client's */
};

enum proxy_header_result { PROXY_HEADER_OK, PROXY_HEADER_MORE, PROXY_HEADER_BAD };

/*
 * `in`: all bytes so far. While it is MORE every byte of `in` is the header's. `out` is filled when
 * it is OK. Options (TLVs) of version 2 are skipped, but must add up, and a CRC32c among them must
 * be right. Datagrams, unknown families and addresses in odd spelling are BAD. No state, any
 * thread.
 */
enum proxy_header_result proxy_header_parse(struct view in, struct proxy_header *out) TR_MUST_USE;

#endif
