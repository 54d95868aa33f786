/* Inside of the HTTP/1.1 side: what its input half (server_h1.c) and its output half
 * (answer_h1.c) share. */
#ifndef TR_HTTP_SERVER_H1_H
#define TR_HTTP_SERVER_H1_H

#include "http/server_priv.h"

/* What a connection needs while there is something going on. */
struct h1_side {
    struct h1_parser *parser; /* NULL: a tunnel needs none, and there may be thousands */
    struct buf in;            /* read, not parsed yet */
    struct str out;           /* answers; the first out_off bytes are sent */
    size_t out_off;
    uint64_t sent;            /* bytes of output, ever */
    struct http_exchange *ex; /* until its answer is queued whole */
    struct list unsent;       /* exchanges whose answers are queued whole, but not sent */
    struct view rest;         /* while take is called: what came behind the head */
    int64_t start_ns;         /* first byte of the head that is coming in, or 0 */
    int rd_kind;              /* what conn.rd waits for, or -1 */
    bool mid_request; /* its head was taken, its end not; without an exchange it is dropped */
    bool closing;     /* nothing is taken any more; close when all is sent */
    bool clean;       /* nothing more can come from the client: no need to linger */
    bool tunnel;
    bool eof;           /* the client's end was read */
    bool fin, fin_sent; /* our end of the tunnel */
};

static inline size_t h1_queued(const struct h1_side *h)
{
    return h->out.n - h->out_off;
}

/* answer_h1.c: the calls of handlers, and one answer of our own, after which the connection
 * closes. */
void http_h1_reply(struct http_exchange *ex, int status, const struct h1_field *f, size_t n,
                   struct view body);
void http_h1_reply_start(struct http_exchange *ex, int status, const struct h1_field *f, size_t n,
                         int64_t length);
size_t http_h1_write(struct http_exchange *ex, struct view piece);
void http_h1_finish(struct http_exchange *ex);
void http_h1_switch(struct http_exchange *ex, int status, const struct h1_field *f, size_t n);
struct net_stream *http_h1_detach(struct http_exchange *ex, int status, const struct h1_field *f,
                                  size_t n, struct buf *early);
void http_h1_refuse(struct http_conn *c, int status, const char *why);
void http_h1_flush(struct http_conn *c);
void http_h1_continue(struct http_exchange *ex); /* 100 */

#endif
