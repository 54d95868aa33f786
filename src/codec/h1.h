/*
 * HTTP/1.1 messages (RFC 9112), sans I/O: bytes in, events out. Strict where leniency lets two
 * parsers disagree: one Content-Length or chunked, never both; no obs-fold; no space before a
 * colon; no bare CR; LF alone ends nothing; header names are tokens; values hold no control
 * characters.
 */
#ifndef TR_CODEC_H1_H
#define TR_CODEC_H1_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"

enum {
    /* A line without end; but a long key, percent-encoded, must reach us to be refused in words. */
    H1_MAX_START_LINE = 16384,
    H1_MAX_HEAD = 65536,     /* start line and fields: a peer that sends fields for ever */
    H1_MAX_FIELDS = 100,     /* many tiny fields cost more than their bytes */
    H1_MAX_CHUNK_LINE = 256, /* chunk extensions without end */
};

struct h1_field {
    struct view name;  /* as sent */
    struct view value; /* without the white space around it */
};

struct h1_head {
    struct view method; /* requests */
    struct view target; /* requests: as sent */
    int status;         /* responses */
    struct view reason;
    int minor; /* HTTP/1.minor: 0 or 1 */
    struct h1_field fields[H1_MAX_FIELDS];
    size_t n_fields;
    /* What the fields say about framing and connection, worked out and checked: */
    struct view host;       /* requests: the Host field; exactly one in HTTP/1.1 */
    int64_t content_length; /* -1: none */
    bool chunked;
    bool keep_alive;
    bool upgrade;           /* Connection: upgrade with an Upgrade field */
    struct view upgrade_to; /* its value */
    bool expect_continue;
};

enum h1_kind { H1_REQUEST, H1_RESPONSE };

enum h1_event {
    H1_MORE,  /* needs more bytes; nothing further to report now */
    H1_HEAD,  /* p->head is filled; its views point into the input of this call */
    H1_BODY,  /* *body is a piece of the body, pointing into the input */
    H1_END,   /* the message is over; the next call begins another */
    H1_ERROR, /* p->status says what to answer (400, 414, 501...), *e why; the parser is dead */
};

struct h1_parser {
    enum h1_kind kind;
    int state;
    size_t scanned; /* of the head, so that it is not searched again */
    uint64_t left;  /* of the body or chunk */
    int status;     /* after H1_ERROR: status to answer */
    /* Set by the caller, for responses to HEAD, and after H1_HEAD for 2xx to CONNECT: no body. */
    bool head_only;
    bool until_close; /* responses: the body ends with the connection */
    struct h1_head head;
};

void h1_init(struct h1_parser *p, enum h1_kind kind);

/*
 * Take the next event from `in`; `*used` bytes of it are done with and are not to be given again. A
 * head must be contiguous: until it is complete the same bytes are given again, with more behind
 * (an empty line in front of it may be used up before). Call until H1_MORE: H1_END comes without
 * bytes. After H1_HEAD the views in p->head stay valid as long as the caller's bytes do. Interim
 * 1xx responses come as HEAD then END. After an upgrade or CONNECT the caller stops calling and
 * takes the bytes as they are.
 */
enum h1_event h1_next(struct h1_parser *p, struct view in, size_t *used, struct view *body,
                      struct err *e);

/* The peer closed: true if that is a proper end here (between messages, or a body until close). */
bool h1_eof_ok(const struct h1_parser *p);

/* First field of that name (case does not matter), or VIEW_NONE with .p NULL. */
struct view h1_field(const struct h1_head *head, const char *name);

/* Writers; text is appended. Fields are checked: a name or value that would not parse aborts. */
void h1_write_request(struct str *out, struct view method, struct view target);
void h1_write_status(struct str *out, int status); /* with the standard reason */
void h1_write_field(struct str *out, struct view name, struct view value);
void h1_write_end(struct str *out);
void h1_write_chunk_head(struct str *out, size_t n); /* then n bytes, then "\r\n" */
extern const struct view h1_last_chunk;              /* "0\r\n\r\n" */
const char *h1_reason(int status);
bool h1_is_token(struct view v); /* RFC 9110 §5.6.2 */
/*
 * May be a request target: not empty, no control characters, spaces or `#`. Bytes above 0x7f are
 * taken: Go clients put keys into the query as they are (HP §1.11), and they end nothing in
 * anybody's parser.
 */
bool h1_is_target(struct view v);
/* Only characters that a host and port have (RFC 3986 §3.2.2), and no comma; may be empty. */
bool h1_is_host(struct view v);
/* RFC 9110 §5.5: no control characters but tabs; bytes above 0x7f are fine. */
bool h1_is_field_value(struct view v);

#endif
