/* The first message of a TLS client, read without a TLS library (RFC 8446 §4.1.2, RFC 6066 §3, RFC
 * 7301), to know where it wants to go before deciding whether to look inside. */
#ifndef TR_CODEC_CLIENT_HELLO_H
#define TR_CODEC_CLIENT_HELLO_H

#include <stdbool.h>
#include "base/attrs.h"
#include "base/view.h"

/* A hello with post-quantum key shares and long tickets stays below this by far; whoever sends more
 * is not understood. */
enum { CLIENT_HELLO_MAX = 16 * 1024 + 512 };

struct client_hello {
    struct view server_name; /* empty: none. As sent; points into the input or `name` */
    struct view alpn;        /* the list in wire format, empty: none */
    bool tls13;              /* offered */
    char name[256];          /* for a name that was cut in two by records */
};

enum client_hello_result {
    CLIENT_HELLO_OK,
    CLIENT_HELLO_MORE,    /* incomplete: call again with more */
    CLIENT_HELLO_NOT_TLS, /* something else is spoken here */
    CLIENT_HELLO_BAD,     /* TLS, but broken: two server names, lengths that disagree, ... */
};

/* `in`: all bytes so far, from the first record on; a hello may be cut over several records. */
enum client_hello_result client_hello_parse(struct view in, struct client_hello *out) TR_MUST_USE;

#endif
