/* TLS to a host, with all that its certificates tell. */
#ifndef TR_DOCTOR_CHAIN_H
#define TR_DOCTOR_CHAIN_H

#include "base/view.h"
#include "doctor/route.h"

struct chain_opts {
    const char *host; /* for SNI and the certificate's name */
    uint16_t port;
    const char *step; /* "tls" */
    bool parent; /* it is the parent proxy: not shown our certificate, trusted by upstream.ca */
    struct view alpn; /* what to offer, as on the wire; VIEW_NONE: nothing */
};

#define CHAIN_ALPN_1 VIEW_LIT("\x08http/1.1")
#define CHAIN_ALPN_2 VIEW_LIT("\x02h2\x08http/1.1")

/* TLS over r->line, with the way's trust. False: the findings say why, and nothing has been sent
 * over it. */
bool chain_secure(struct route *r, const struct chain_opts *o);

/* Was the last failure, `e`, about our client certificate, or that there is none? Then the findings
 * say so. Servers tell only after the handshake (RFC 8446 §4.4.2.4), and what they say may get
 * lost when they close at once. */
bool chain_blames_us(struct route *r, const struct err *e);

#endif
