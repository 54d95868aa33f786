/*
 * A stream and its delivery: the state machine at the heart of tailrace, free of I/O.
 *
 * Client calls come in (stream_call), commits are asked for and reported back (stream_committed),
 * and when upstream may be spoken to the machine says what to send (stream_take) and is told how it
 * ended (stream_result). It knows no sockets, no database and no clock: an environment (struct
 * stream_env) does what it asks, in the product a worker, in the tests an explorer that tries every
 * order of events, faults and crashes.
 *
 * Words: a *life* is one generation of the stream, from an open (or a first call) to its close. A
 * stream has two *lanes* that may each have one request under way: lines (open, lines, close,
 * settle) and blobs.
 *
 * What must be durable before what (architecture.md, "The log path"):
 *   - an answer follows the commit of its record;
 *   - an open counts as "outcome unknown" in the spool from the moment it is accepted, so that a
 *     crash never sends it blindly again;
 *   - lines leave the spool in the transaction that says the life is open upstream;
 *   - the closing mark is committed before a close is sent.
 */
#ifndef TR_LOGS_STREAM_H
#define TR_LOGS_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include "base/hmap.h"
#include "base/list.h"
#include "base/str.h"
#include "logs/record.h"
#include "rt/rng.h"
#include "spool/spool.h"

enum {
    /* generations of one name waiting at once: a client that opens and closes for ever */
    STREAM_MAX_LIVES = 8,
    /* bodies remembered to recognise a replay; clients retry within seconds (HP §2.6) */
    STREAM_RECENT = 64,
    STREAM_RECENT_KEPT = 16,               /* of these, kept over a restart */
    STREAM_SETTLE_BYTES = 4 * 1024 * 1024, /* read into memory to be settled at a time */
    STREAM_SETTLE_RECORDS = 4096,          /* ... of so many records at most */
    STREAM_SUPERSEDE_PAGES = 64,           /* that leave in one commit: others wait behind it */
    STREAM_EDGES = 4,                      /* edges that send to one stream */
    /* bodies sent directly whose answers were lost: clients retry one */
    STREAM_DIRECT_LOST = 4,
    /* calls that one may go ahead of, and that may go ahead of one: a hub knows an edge's last 64
     * records only (edge_seen), and takes what is further behind for a repetition */
    STREAM_MAX_AHEAD = 16,
    STREAM_ABSENT_TRIES = 4, /* answers of "not found" to lines before they are believed */
    STREAM_CLOSE_TRIES = 4,  /* the same for a close */
    /* 500s in a row while others are served: a batch goes on one by one, a record is set aside */
    STREAM_FAILED_SPLIT = 4,
    STREAM_FAILED_TRIES = 8,
    STREAM_FAILED_BLOB = 16, /* ... a blob is buried */
};

struct stream_rules {
    int64_t hold_ns;    /* an open so soon after a close is held */
    int64_t idle_ns;    /* a life without a call for so long has ended */
    int64_t backoff_ns; /* first step of the retry delay; doubled each time, full jitter */
    int64_t backoff_max_ns;
    int64_t close_retry_ns; /* between closes that are answered "not found" */
    /* from one delivery of lines to the next of the same stream; 200 ms at most */
    int64_t batch_delay_ns;
    uint64_t batch_lines; /* most lines and bytes of one delivery */
    uint64_t batch_bytes;
    int64_t failed_alone_ns; /* 500s for so long are believed though no others are served */
    int64_t failed_blob_ns;  /* and a blob is not given up sooner than this */
    uint64_t snapshot_lines; /* upstream keeps so many for a snapshot (HP §1.5) */
    int64_t expiry_ns;       /* and a stream for so long */
    uint32_t max_ahead;      /* STREAM_MAX_AHEAD; less in tests */
    /* What has waited for page_after_ns, and has page_keep records before it and max_ahead behind
     * it, is kept in the spool only, so many records together; 0: all stays in memory. It is read
     * again at least load_records at a time. */
    uint32_t page_records, page_keep, load_records;
    int64_t page_after_ns;
};

struct stream_now {
    int64_t mono;
    int64_t wall;
};

enum stream_lane { LANE_LINES, LANE_BLOBS, LANE_COUNT };

enum op_kind {
    OP_NONE,
    OP_OPEN,   /* POST /stream */
    OP_LINES,  /* PUT /stream with op.records */
    OP_CLOSE,  /* DELETE /stream as op.close says, with snapshot=true added if op.snapshot */
    OP_BLOB,   /* store op.blob */
    OP_SETTLE, /* add op.records to the stream's blob */
    OP_CHECK,  /* GET /blob/exists: is the credential good? */
};

enum op_outcome {
    OUT_OK,
    OUT_NOT_SENT, /* certainly not executed */
    OUT_UNKNOWN,  /* perhaps executed */
    OUT_BUSY,     /* answered: not now (429, 503) */
    OUT_PARTIAL,  /* answered with an error after which part of it may be stored (other 5xx) */
    /* the stream is not there, or the service says so (200 to lines, "not found" to a close) */
    OUT_ABSENT,
    OUT_REJECTED,  /* 4xx: credential or request at fault */
    OUT_TOO_LARGE, /* 413 */
};

struct op {
    enum op_kind kind;
    enum stream_lane lane;
    uint64_t life; /* generation, for the delivery id */
    /* OP_LINES, OP_SETTLE: in delivery order; the machine's, valid until the result */
    struct record **records;
    size_t n_records;
    uint64_t lines;
    struct record *close;
    struct record *blob;
    bool snapshot;
    bool again; /* these lines may have been sent before */
};

struct op_result {
    enum op_outcome outcome;
    int64_t retry_after_ns; /* at least so long; 0: not said */
    int status;             /* that was answered; 0: none. For the note on a dead letter only, */
    const char *said;       /* as what it meant, in words of ours (static), or NULL */
    /* a 500 of the service itself, not of who is before it, or a 4xx of the store: the request may
     * be at fault */
    bool failed;
    int64_t others_at; /* monotonic: when the like was last done for any stream; 0: never */
};

/* What the environment is asked to make durable, all or nothing, in the order of asking. */
struct commit {
    struct stream *stream;
    struct list records;  /* to insert: struct record.commit_link */
    struct record **gone; /* to delete, or to bury when `dead` */
    size_t n_gone;
    struct list pages; /* the same for all their records: struct page.link (queue.h) */
    const char *dead;  /* reason, or NULL; and what upstream answered */
    int dead_status;
    const char *dead_said;
    bool state;  /* store the stream's row with stream_encode() */
    bool forget; /* drop the row; the stream is freed afterwards */
    int64_t ledger[LEDGER_N];
    int64_t drop_blob;    /* pieces of an upload that is not kept; 0: none */
    struct call *call;    /* to be answered when it is durable; may be NULL */
    bool closing;         /* carries a closing mark */
    uint64_t open_life;   /* the machine's: `call` opens or joins this life; 0: it does not */
    uint64_t newest_life; /* the machine's: the last one the stored row names, if `state` */
};

/* Records that were in the spool only, to be read again. */
struct reload {
    struct stream *stream;
    int64_t *ids;
    size_t n;
    /* To be filled by the environment with new ones, as for stream_recover_record; NULL: not there,
     * or not understood. */
    struct record **records;
    uint64_t life; /* the machine's */
    bool stuck;    /* the machine's */
};

enum stream_note {
    NOTE_JOINED,      /* an open on an open stream */
    NOTE_HELD,        /* an open just after a close */
    NOTE_REPLAYED,    /* a body that was accepted before */
    NOTE_BROKEN_BLOB, /* a client's broken retry of an upload */
    NOTE_ABSENT,      /* upstream does not know the stream: lines wait to be settled */
    NOTE_EXPIRED,     /* ... and it is older than upstream keeps one */
    NOTE_TRUNCATED,   /* closed with a snapshot after more lines than upstream keeps */
    NOTE_DEAD,        /* refused for good */
    NOTE_REOPENED,    /* an open of unknown outcome had not taken effect: sent now */
    NOTE_ASIDE,       /* the service fails at these lines, not at others: they wait to be settled */
    NOTE_LATE,
    NOTE_N
};

struct stream_env {
    const struct stream_rules *rules;
    bool crowded; /* streams are so many that those which were closed are forgotten early */
    struct rng *rng;
    /* Make it durable and call stream_committed later, never from within. Owned by the
     * environment until then. */
    void (*commit)(struct stream_env *env, struct commit *c);
    /* The call is done with: answer it. */
    void (*answer)(struct stream_env *env, struct call *call, bool ok);
    /* Read l->ids and call stream_loaded later, never from within. Owned by the environment until
     * then. */
    void (*load)(struct stream_env *env, struct reload *l);
    /* The record left the machine (delivered, dead, dropped), or is in the spool only from now on:
     * free it. */
    void (*release)(struct stream_env *env, struct record *r);
    /* Records that are not in memory left with so many bytes of struct record.unproven. */
    void (*discharge)(struct stream_env *env, uint64_t unproven);
    /* Something may be ready to send: ask stream_ready soon. */
    void (*wake)(struct stream_env *env, struct stream *s);
    /* A close that covers other streams may go when these have nothing waiting: call
     * stream_barrier_passed. */
    void (*barrier)(struct stream_env *env, struct stream *s, struct record *close);
    void (*note)(struct stream_env *env, struct stream *s, enum stream_note what, uint64_t lines);
};

/* A new stream of that name (copied). */
struct stream *stream_new(struct stream_env *env, struct view account, struct view key);
void stream_free(struct stream *s);

/* --- recovery ----------------------------------------------------------------------------- */

/* Take over the state that was stored, then every record in order of its id, then
 * stream_recovered. -1: not understood. */
int stream_decode(struct stream *s, const struct spool_stream_row *row) TR_MUST_USE;
void stream_recover_record(struct stream *s, struct record *r);
void stream_recovered(struct stream *s, struct stream_now now);
void stream_encode(const struct stream *s, struct str *out);

/* --- events ------------------------------------------------------------------------------- */

/* A client call. Its records become the machine's. env->answer follows, perhaps from within. */
void stream_call(struct stream *s, struct call *call, struct stream_now now);

/* A commit is durable (`ok`) or did not happen. Frees the commit. */
void stream_committed(struct stream *s, struct commit *c, bool ok, struct stream_now now);

/* The reading is over. Not `ok`: it is asked for again at the next sweep. Frees the load. */
void stream_loaded(struct stream *s, struct reload *l, bool ok, struct stream_now now);
void reload_free(struct reload *l); /* of one that is not reported, when all ends */

/* When may the lane send something? 0: now; INT64_MAX: nothing to send; otherwise the monotonic
 * time of the next try. */
int64_t stream_ready(struct stream *s, enum stream_lane lane, struct stream_now now);

/* Fetch what to send now: only when stream_ready said 0. The lane is busy until stream_result. */
void stream_take(struct stream *s, enum stream_lane lane, struct op *op);
void stream_result(struct stream *s, enum stream_lane lane, const struct op_result *r,
                   struct stream_now now);

void stream_barrier_passed(struct stream *s, struct stream_now now);

/* Ends lives without calls; asks again for what could not be read; asks for the stream to be
 * forgotten when nothing is left of it. Call now and then. */
void stream_sweep(struct stream *s, struct stream_now now);

/* The client's credential was refused and nothing better is known (`until`, monotonic), or it
 * may be tried again (0). */
void stream_hold(struct stream *s, int64_t until);

/* --- direct calls ------------------------------------------------------------------------- */

/* A call whose commit failed, and that may go upstream as it is (stream_direct.c). */
struct direct_call {
    enum call_kind kind;
    struct body_hash hash;
    uint64_t lines;
    int64_t start_ns;
    bool empty, begins_line; /* CALL_BLOB, as in struct call */
    bool covers, snapshot;   /* CALL_CLOSE */
};

enum direct_way {
    DIRECT_NO,   /* it must not go: refuse it */
    DIRECT_DONE, /* nothing is to be sent: what it asks for has been done, for good */
    DIRECT_SEND, /* send it now; stream_direct_end is to follow, and until then nothing else goes */
};

/* Both add what is to be accounted to `ledger`. OUT_PARTIAL and OUT_UNKNOWN: it may have been
 * executed. */
enum direct_way stream_direct_begin(struct stream *s, const struct direct_call *c,
                                    struct stream_now now, int64_t ledger[LEDGER_N]);
void stream_direct_end(struct stream *s, const struct direct_call *c, enum op_outcome outcome,
                       struct stream_now now, int64_t ledger[LEDGER_N]);

/* --- questions ---------------------------------------------------------------------------- */

bool stream_quiet(const struct stream *s);  /* nothing of it waits to be delivered */
bool stream_unused(const struct stream *s); /* forgotten: remove it from the table and free it */
/* Is something of it under way, or may it be by `until` (monotonic), that waits for nothing but
 * upstream's answers? Not: lines kept for the end of a life that has not come, what is held since
 * its credential is refused, a close that waits for other streams. */
bool stream_goes_on(struct stream *s, struct stream_now now, int64_t until);
bool stream_waits(const struct stream *s); /* lines, an upload or a close wait for delivery */
uint64_t stream_backlog_lines(const struct stream *s);
/* wall time of the oldest waiting record, 0: none */
int64_t stream_oldest_ns(const struct stream *s);

#endif
