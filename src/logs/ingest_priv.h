/* One log call under way, shared by ingest.c (routing, answers), ingest_lines.c and ingest_blob.c.
 */
#ifndef TR_LOGS_INGEST_PRIV_H
#define TR_LOGS_INGEST_PRIV_H

#include "codec/zcodec.h"
#include "logs/ingest.h"
#include "logs/intake.h"
#include "logs/target.h"

struct blob_in;

enum {
    INGEST_UPSTREAM_MS = 3000
}; /* an answer must come within 10 s of the first byte (HP §2.4) */

struct ingest {
    struct shard *sh;
    struct http_exchange *ex; /* NULL once it is gone */
    enum target_kind kind;
    struct target target;
    struct view prefix; /* points into the exchange's request, or to `sealed` */
    struct str sealed;  /* an upload's by ticket: the prefix that is in it */
    uint32_t cred;
    bool cred_fresh;
    int64_t start_ns;       /* first byte of the call */
    int64_t end_ns;         /* its last one, so far */
    struct submission *sub; /* under way, or NULL */
    struct zdecoder *decoder;
    struct str body; /* PUT /stream, decoded */
    bool more;       /* the decoder has more to give */
    bool waiting;    /* for memory, or for its next turn */
    bool ended;      /* the request is complete */
    size_t held;     /* bytes of the exchange not yet given back: its sender waits */
    struct intake intake;
    struct account *account; /* once it has a body */
    struct ev_job *job;      /* in the pool, or NULL */
    bool parked;             /* the job waits for room in the pool */
    struct blob_in *blob;
    /* The answer is held back for a while since the spool fills up; both or none. */
    struct ev_timer *slow;
    struct submission *slow_sub;
    bool checking;         /* the request asks whether the credential is good */
    struct fetch *fetch;   /* a request upstream that the answer waits for, or NULL */
    struct str url, field; /* ... what it says */
    struct direct *direct; /* it may go directly, or does (direct.c), or NULL */
    bool complete;         /* the body is in hand */
    bool failed;           /* answered with an error: what still comes is dropped */
};

/* What a client reads with 503. */
#define INGEST_FULL   "the gateway's spool is full"
#define INGEST_BUSY   "the gateway is overloaded"
#define INGEST_CANNOT "the gateway's spool cannot take this now"

void ingest_slow_cancel(struct ingest *in);

extern const struct http_handler ingest_lines_handler, ingest_blob_handler;

/* Answer and be done. `text` is for error_msg; NULL: an empty body. */
void ingest_reply(struct ingest *in, int status, const char *text);
/* Refuse a call of so many lines, since neither spool nor upstream can take it. */
void ingest_cannot(struct ingest *in, uint64_t lines, const char *text);
void ingest_taken(struct ingest *in); /* answer that it is accepted */
/* Answer 2xx with a JSON body. */
void ingest_reply_json(struct ingest *in, int status, struct view body);

/* Free when nothing holds it any more (exchange, submission, job, check). */
void ingest_release(struct ingest *in);
void ingest_cancel(struct ingest *in); /* the exchange is gone: so is what its answer waited for */

/* A request upstream that the answer waits for, in the name of the call's client: under its prefix,
 * with `query` and its credential. `o` has method, body and `done`, which gets the ingest and is to
 * clear in->fetch. */
void ingest_fetch(struct ingest *in, struct fetch_opts *o, const char *path, struct view query);

/* The submission of this call, with names and credential filled in. */
struct submission *ingest_submission(struct ingest *in, enum call_kind kind);
void ingest_submit(struct ingest *in, struct submission *sub);

/* Prepare the decoder as Content-Encoding says; false: answered with 415 or 413. `expanded`: how
 * much a compressed body may become. */
bool ingest_decoding(struct ingest *in, const struct http_request *req, uint64_t max,
                     uint64_t expanded);

/* Credentials that upstream has never taken share a quarter of the spool, for lines and uploads:
 * whoever invents them cannot fill it. Is there room for one more, if this is one of them? */
/* It was refused since a budget is used up: count it, and say whose it was in the log. */
void ingest_overload(const struct ingest *in, enum overload_reason why);
bool ingest_unproven_room(const struct ingest *in, bool unproven);

/* In ingest_lines.c and ingest_blob.c. */
void ingest_lines_late(struct ingest *in);
void ingest_blob_begin(struct ingest *in, const struct http_request *req, bool by_link);
void ingest_blob_free(struct ingest *in);
void ingest_blob_lost(struct ingest *in); /* its call was not committed: its pieces are to go */

#endif
