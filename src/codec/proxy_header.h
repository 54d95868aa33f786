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
    bool local; /* a health check of the sender's own: its address stands */
    struct sockaddr_storage source;
    socklen_t source_len;
    size_t length; /* of the header: what follows is the client's */
};

enum proxy_header_result { PROXY_HEADER_OK, PROXY_HEADER_MORE, PROXY_HEADER_BAD };
enum proxy_header_result proxy_header_parse(struct view in, struct proxy_header *out) TR_MUST_USE;

#endif
