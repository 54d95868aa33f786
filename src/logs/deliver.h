/* Deliveries: what the stream machine wants sent, as requests, and their outcomes as it understands
 * them. */
#ifndef TR_LOGS_DELIVER_H
#define TR_LOGS_DELIVER_H

#include "logs/shard.h"

/* Start it; shard_result follows, never from within. `op` is copied. */
void deliver_start(struct shard *sh, struct stream *s, const struct op *op);

/* The same for a dead letter, by OP_SETTLE or OP_BLOB, as of a stream that is in no table and needs
 * its name, prefix, query and credential only: its end is told to `ended`, never from within. The
 * caller counts sh->deliveries. */
void deliver_replay(struct shard *sh, struct stream *s, const struct op *op,
                    void (*ended)(void *ctx, const struct op_result *r), void *ctx);

/* --- for the files that carry out deliveries ---------------------------------------------- */

/* One delivery under way. */
struct delivery {
    struct shard *sh;
    struct stream *s;
    struct op op;
    int64_t started;
    uint32_t cred;                        /* used; may be another than the stream's own */
    const struct logs_settings *settings; /* as of its start */
    struct str url, body, field, id_field;
    struct fetch *fetch;
    bool zstd;               /* the body travels compressed, to a hub */
    bool declined;           /* ... and the connection chosen for it had not announced that */
    size_t loading;          /* record bodies being read from the spool */
    bool lost;               /* one of them could not be read, */
    bool damaged;            /* ... nor ever will be */
    struct limiter *limiter; /* the one that counts this request, or NULL */
    int64_t request_started;
    int status;       /* of the last answer; 0: none */
    const char *said; /* see struct op_result */
    /* A replay: `s` is of its own, and its end is told here, not to the machine. NULL: none. */
    void (*ended)(void *ctx, const struct op_result *r);
    void *ended_ctx;
};

/* The call's URL: base, prefix, `path` ("/stream"), "?", query, credential if that belongs there.
 * Also fills d->field. */
void delivery_url(struct delivery *d, const char *path, struct view query);

/* Start a request that the limiter of the log service counts; `done` gets o->ctx, or d if that is
 * NULL. Sets credentials' field and what all requests share. */
void delivery_request(struct delivery *d, struct fetch_opts *o, const char *call,
                      fetch_done_fn done);

/* To be called first in `done`: releases the limiter, counts, remembers whether the credential was
 * taken and whether upstream is a hub. */
void delivery_answered(struct delivery *d, const char *call, const struct fetch_result *r);

/* The request begins and is counted by `l`, which was told so (limiter_start). */
void delivery_begins(struct delivery *d, struct limiter *l);

/* The same for a request that did not go to the log service: releases the limiter and counts, no
 * more. */
void delivery_released(struct delivery *d, const char *call, const struct fetch_result *r);

/* The common reading of an answer: 2xx is OUT_OK. */
struct op_result delivery_outcome(const struct fetch_result *r);

/* Report to the machine and free d. */
void delivery_end(struct delivery *d, const struct op_result *r);

/* Get the text of each record of the op into memory, then call `then`. If d->lost it is to end with
 * delivery_lost(). */
void delivery_lost(struct delivery *d);
void delivery_load(struct delivery *d, void (*then)(struct delivery *d));

/* In blob_out.c and settle.c. Never report from within. */
void blob_out_start(struct delivery *d);
void settle_start(struct delivery *d);

#endif
