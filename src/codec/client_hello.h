/* The first message of a TLS client, read without a TLS library (RFC 8446 §4.1.2, RFC 6066 §3, RFC
 * 7301), to know where it wants to go before deciding whether to look inside. */
#ifndef TR_CODEC_CLIENT_HELLO_H
#define TR_CODEC_CLIENT_HELLO_H

#include <stdbool.h>
#include "base/attrs.h"
#include "base/view.h"

/* A hello with post-quantum key shares and long tickets stays below this by far; whoever sends more
 * (record headers included) is not understood. */
enum { CLIENT_HELLO_MAX = 16 * 1024 + 512 };

/* Not to be copied: the views may point into it. */
struct client_hello {
    /* Empty: none. As sent: 1 to 255 letters, digits, '-', '_' and '.'; points into the input or
     * `name`. With Encrypted ClientHello it is the outer name, which is where the bytes go. */
    struct view server_name;
    struct view alpn; /* the list in wire format, empty: none; into the input or `protocols` */
    bool tls13;       /* offered */
    char name[256];   /* for a name that was cut in two by records */
    char protocols[256];
};

enum client_hello_result {
    CLIENT_HELLO_OK,
    CLIENT_HELLO_MORE,    /* incomplete: call again with more */
    CLIENT_HELLO_NOT_TLS, /* something else is spoken here (SSL 2 too) */
    CLIENT_HELLO_BAD,     /* TLS, but broken: two server names, lengths that disagree, ... */
};

/*
 * `in`: all bytes so far, from the first record on; a hello may be cut over several records. What
 * follows the hello's records is not looked at. `out` is filled when it is OK. Once the result is
 * not MORE, it stays whatever comes behind. No state, any thread.
 */
enum client_hello_result client_hello_parse(struct view in, struct client_hello *out) TR_MUST_USE;

#endif
