/*
 * Inside of HTTP/2: what h2.c (sessions, streams, bodies both ways), h2_fields.c (heads in and out)
 * and the two sides, h2_server.c and h2_client.c, share.
 */
#ifndef TR_CODEC_H2_PRIV_H
#define TR_CODEC_H2_PRIV_H

#include "codec/h2.h"

#include "base/attrs.h"
#include "base/buf.h"
#include "base/bug.h"
#include "base/hmap.h"
#include "base/list.h"
#include "base/str.h"
#include "codec/h2_meter.h"

#include <nghttp2/nghttp2.h>

/* RFC 9218 §2.1: no trees of priorities, which peers could make us shuffle (CVE-2019-9513). */
enum { H2_SETTINGS_NO_RFC7540_PRIORITIES = 9 };

/* Where a name and its value are in the text of a head. */
struct h2_part {
    uint32_t name, name_n, value, value_n;
};

enum h2_pseudo { P_METHOD, P_SCHEME, P_AUTHORITY, P_PATH, P_PROTOCOL, P_STATUS, N_PSEUDO };

/* A head, or trailers, coming in. */
struct h2_head_in {
    struct str text;
    struct h2_part pseudo[N_PSEUDO];
    struct h2_part fields[H1_MAX_FIELDS];
    size_t n_fields;
    int64_t content_length;
    bool request; /* Host is part of it, and stands in for :authority */
    bool too_large;
    bool bad;
    bool host; /* authority is from it, or equal */
};

/* Fields of ours, ready for the library. */
struct h2_fields {
    struct str text;
    nghttp2_nv *nv;
    size_t n;
};

struct h2_stream {
    struct list link;
    struct list drain; /* in session->drains while on_drain is owed */
    struct hnode node; /* clients: in session->by_id */
    int32_t id;
    struct h2_head_in *head; /* while it comes in */
    size_t unconsumed;       /* bytes given to on_body */
    struct buf out;          /* of our body */
    struct h2_fields *trailers;
    unsigned interim; /* clients: answers that were not the final one */
    bool shown;       /* the handler knows of it: on_closed is due */
    bool headed;      /* clients: the head of the answer was shown */
    bool begun;       /* clients: the request went to the peer */
    bool answered;    /* our head was given to the library */
    bool ended;       /* nothing is added to out any more */
    bool deferred;    /* the library waits for bytes in out */
    bool ended_out;   /* the end of what we send went out */
    bool stop;        /* reset it after that: the answer is not to be lost */
    bool reset;       /* by us */
    bool reset_by_peer;
    bool closing;
};

struct h2_session {
    nghttp2_session *ng;
    const struct h2_ops *ops;
    void *ctx;
    struct list streams;
    struct list drains;
    struct h2_meter meter; /* servers */
    struct buf out;
    int inside; /* calls of the library under way: it is not to be entered again */
    bool goaway;
    bool failed;
    uint32_t goaway_code; /* that was sent, not by h2_goaway */
    /* Clients. The library does not know a stream by its id before the request was sent. */
    bool client;
    bool ready;
    struct hmap by_id;
    size_t n_streams;
};

/* The library fails only for want of memory where its arguments are right. */
static inline void h2_must(int r)
{
    ASSERT(r == 0);
}

/* --- h2.c --- */

struct h2_stream *h2_find(const struct h2_session *s, int32_t id);
struct h2_stream *h2_stream_new(struct h2_session *s);
void h2_stream_free(struct h2_session *s, struct h2_stream *st);
void h2_stream_reset(struct h2_session *s, struct h2_stream *st, uint32_t code);
ssize_t h2_read_body(nghttp2_session *ng, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                     nghttp2_data_source *source, void *ctx);
struct h2_session *h2_session_new(const struct h2_ops *ops, void *ctx, bool client);

/* --- h2_fields.c --- */

struct h2_head_in *h2_head_new(bool request);
void h2_head_drop(struct h2_stream *st);
void h2_head_take(struct h2_head_in *h, struct view name, struct view value);
struct view h2_head_pseudo(const struct h2_head_in *h, enum h2_pseudo which);
/* Views of its fields; room for H1_MAX_FIELDS. Returns how many. */
size_t h2_head_fields(const struct h2_head_in *h, struct h1_field *out);

/* Room for pseudo fields of `extra` bytes in all, then h2_fields_add for them, then the rest. */
void h2_fields_init(struct h2_fields *f, const struct h1_field *fields, size_t n, size_t extra);
void h2_fields_add(struct h2_fields *f, struct view name, struct view value);
void h2_fields_add_all(struct h2_fields *f, const struct h1_field *fields, size_t n);
void h2_fields_fini(struct h2_fields *f);

/* --- h2_server.c, h2_client.c: a head is complete --- */

void h2_server_headers(struct h2_session *s, struct h2_stream *st, bool end);
void h2_client_headers(struct h2_session *s, struct h2_stream *st, bool end);
void h2_server_refused(struct h2_session *s);

#endif
