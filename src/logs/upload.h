/*
 * One sending of a blob's bytes: POST /blob at the log service (HP §1.8), or a fresh signed link
 * and a PUT to it (HP §1.9). What the bytes are is the owner's affair.
 *
 *     upload_start ─► link ─► slot at the store ─► prepare ─► upload_go ─► done
 *                                                     └────► upload_fail ─► done
 *
 * A link that the store does not take is replaced once, and `prepare` is then called again. Nothing
 * of the log service's goes to the store: no credential, no field but the coding (HP §1.9).
 */
#ifndef TR_LOGS_UPLOAD_H
#define TR_LOGS_UPLOAD_H

#include "logs/blob_body.h"
#include "logs/deliver.h"
#include "logs/store.h"

enum {
    UPLOAD_PLAIN_MAX = 64 * 1024, /* larger bodies go over HTTP/1.1 (architecture.md, libcurl) */
    UPLOAD_STALL_MS = 30 * 1000,
    UPLOAD_LEAST_BPMS = 32, /* bytes a millisecond below which an upload ends */
};

/* Embed it, zeroed; it must stay until `done`. */
struct upload {
    struct delivery *d;
    bool by_link;
    /* Choose `body`, start it and set `gzip`; then, now or later, upload_go or upload_fail. */
    void (*prepare)(struct upload *u);
    /* Never from within upload_start, _go and _fail. The upload may be started again, or freed. */
    void (*done)(struct upload *u, const struct op_result *r);
    struct blob_body *body; /* borrowed */
    bool gzip;              /* the body is gzip and is labelled so; by link only */

    /* What the last answer was like, for `done`. */
    int status;   /* 0: none */
    bool refused; /* the store answered 4xx; the result is OUT_BUSY all the same */

    /* Internal. */
    struct str link;
    int64_t link_at;
    bool renewed; /* a link was replaced */
    bool has_slot;
    struct store_host *store; /* NULL: the link leads to the log service or the hub */
    struct store_wait wait;
    struct ev_task later;
    struct op_result result;
};

void upload_start(struct upload *u);
void upload_go(struct upload *u);
void upload_fail(struct upload *u, const struct op_result *r);

/* A paused read of the body may go on. */
void upload_resume(struct upload *u);

/* Forget the link (it is a credential) and release what the upload holds. Only when none is under
 * way. */
void upload_fini(struct upload *u);

/* For all requests that follow a link, whose `link` must outlive the request: peer, limiter and the
 * absence of credentials. `done` gets o->ctx and begins with link_answered. */
void link_request(struct upload *u, struct fetch_opts *o, struct view link, fetch_done_fn done);
void link_answered(struct upload *u, const char *call, const struct fetch_result *r);

#endif
