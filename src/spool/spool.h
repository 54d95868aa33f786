/*
 * The spool: an SQLite database in which durable records wait. It knows streams, records, blobs in
 * pieces, small named values and the ledger, and nothing of what they mean; `state`, `meta` and
 * bodies are opaque bytes. The format is described in docs/spool-format.md.
 *
 * One writer thread commits whatever transactions have queued up as one group (BEGIN, all of them,
 * COMMIT with the sync that `spool.sync` says) and then calls each one's `done`, in the order of
 * submission, which is also the order in which they take effect. Records of a stream are numbered
 * densely in the commit. One reader thread with a connection of its own serves reads in short
 * transactions. Callbacks run in those threads: post to a loop and return.
 */
#ifndef TR_SPOOL_SPOOL_H
#define TR_SPOOL_SPOOL_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/box.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"
#include "spool/ledger.h"

struct spool;
struct spool_txn;

enum spool_sync {
    SPOOL_SYNC_FULL,   /* fsync before each acknowledgement: survives power loss (default) */
    SPOOL_SYNC_NORMAL, /* survives a crash of the program, not of the machine */
};

struct spool_opts {
    const char *directory; /* made with mode 0700 if missing; holds spool.db and files beside it */
    uint64_t limit;        /* bytes; the database is never let grow beyond it */
    enum spool_sync sync;
    /* Seals what is written from now on and opens what was sealed before; NULL: nothing is sealed.
     * Kept until spool_close. */
    const struct box *box;
};

/*
 * Open or create, take the lock (a second process is refused with ERR_UNAVAIL, naming its pid),
 * check the format's version, drop pieces of uploads that never completed. A damaged file is set
 * aside as spool.db.damaged-TIME (never deleted), said in `*note` (may be NULL) and a fresh one is
 * begun. A file of a newer format and a network file system are refused: ERR_INVALID. So is one
 * that is sealed and that the box's keys do not open, or without a box: ERR_DENIED; it is left as
 * it is. NULL: `e` says why.
 */
struct spool *spool_open(const struct spool_opts *o, struct str *note, struct err *e) TR_MUST_USE;

/* --- recovery: between spool_open and spool_start, in the caller's thread ---------------- */

/* The walks below call `fn` for each row; its views are valid during the call. `fn` returns 0 to go
 * on, anything else ends the walk. 0: all were seen; -1: ended by `fn` (`e` is its own business) or
 * the database could not be read. */

struct spool_stream_row {
    int64_t id;
    uint64_t next;                   /* number the next record will get */
    struct view account, key, state; /* state empty: its seal is broken */
    bool damaged;                    /* its name cannot be opened: account and key are empty */
};
struct spool_record_row {
    int64_t id; /* rises in arrival order over all streams */
    int64_t stream;
    uint64_t number;
    int kind;
    uint64_t lines;
    int64_t at_ns; /* wall time of acceptance */
    uint64_t size; /* bytes of body, or of all pieces of its blob */
    int64_t blob;  /* 0: none */
    struct view meta;
    bool damaged; /* the row is not what was sealed: meta is empty, and no number to be trusted */
};
int spool_each_stream(struct spool *s, int (*fn)(void *ctx, const struct spool_stream_row *row),
                      void *ctx, struct err *e) TR_MUST_USE;
/* By id; dead ones left out. */
int spool_each_record(struct spool *s, int (*fn)(void *ctx, const struct spool_record_row *row),
                      void *ctx, struct err *e) TR_MUST_USE;
/* By name; those whose seal is broken left out. */
int spool_each_value(struct spool *s, const char *space,
                     int (*fn)(void *ctx, struct view name, struct view value), void *ctx,
                     struct err *e) TR_MUST_USE;

/* A dead letter, with what its stream was called when it was buried. */
struct spool_dead_row {
    struct spool_record_row record;
    struct view reason, account, key;
    int64_t buried_ns; /* wall time */
    struct view note;  /* see spool_txn_dead_note; empty: none */
};
int spool_each_dead(struct spool *s, int (*fn)(void *ctx, const struct spool_dead_row *row),
                    void *ctx, struct err *e) TR_MUST_USE; /* by id */

int spool_start(struct spool *s, struct err *e) TR_MUST_USE; /* the threads */

/* Commit what is queued, checkpoint, close; NULL is fine. Callbacks of everything submitted have
 * run when it returns. Not from a callback. */
void spool_close(struct spool **s);

/* --- writing ----------------------------------------------------------------------------- */

/* The spool's side of a stream: embed it, zeroed (or with id and next from recovery), and keep it
 * until every transaction that names it is done. Read it only in or after `done`. The first record
 * of a zeroed one gets number 0. */
struct spool_stream {
    int64_t id;
    uint64_t next; /* as of the transaction that is done */
};

/* A record to be written; embed it; `id` and `number` are set when `done` runs with success. */
struct spool_record {
    int64_t id;
    uint64_t number;
    int kind;
    uint64_t lines;
    int64_t at_ns;
    int64_t blob;     /* from spool_blob_id, or 0 */
    struct view meta; /* borrowed until done */
    struct view body; /* borrowed until done */
};

struct spool_txn *spool_txn_new(void);
void spool_txn_free(struct spool_txn **t); /* of one that is not submitted */

/* Insert the stream (id 0) or store its new state. The views are copied. */
void spool_txn_stream(struct spool_txn *t, struct spool_stream *st, struct view account,
                      struct view key, struct view state);
/* Its records must be gone. Once done `st` is zeroed and may be inserted again, as a new stream. */
void spool_txn_stream_drop(struct spool_txn *t, struct spool_stream *st);
/* The stream must be in the spool, or come into it earlier in this or a previous transaction. */
void spool_txn_record(struct spool_txn *t, struct spool_stream *st, struct spool_record *r);
/* With its blob's pieces; also of a dead letter. One that is not there is fine. */
void spool_txn_delete(struct spool_txn *t, int64_t record_id);
/* Make it a dead letter: it stays, with the reason, out of recovery's sight. */
void spool_txn_bury(struct spool_txn *t, int64_t record_id, const char *reason);
/* What else is to be known of a dead letter, in place of what was; copied. It goes with it. */
void spool_txn_dead_note(struct spool_txn *t, int64_t record_id, struct view note);
/* Pieces count from 0, fewer than 2^24. Borrowed until done. The same one again replaces. */
void spool_txn_piece(struct spool_txn *t, int64_t blob, uint32_t seq, struct view piece);
void spool_txn_blob_drop(struct spool_txn *t, int64_t blob); /* pieces of an upload given up */
void spool_txn_ledger(struct spool_txn *t, enum ledger_row row, int64_t delta);
/* Set or, with value.p NULL, delete. Copied. */
void spool_txn_value(struct spool_txn *t, const char *space, struct view name, struct view value);
bool spool_txn_empty(const struct spool_txn *t);
/* The submitter frees it, in or after `done`: memory that one thread takes and another one gives
 * back is what allocators are slowest at. */
void spool_txn_keep(struct spool_txn *t);

/* `err` NULL: durable. Otherwise nothing of it happened: ERR_FULL (limit or disk full), ERR_IO,
 * ERR_INVALID or ERR_LIMIT (this transaction can never be committed). Runs in the spool's thread;
 * the transaction is freed afterwards, unless it is kept. */
typedef void (*spool_done_fn)(void *ctx, const struct err *err);
/* Hands the transaction over. Any thread, also from a callback; never blocks on the disk. */
void spool_submit(struct spool *s, struct spool_txn *t, spool_done_fn done, void *ctx);

int64_t spool_blob_id(struct spool *s); /* a fresh one; any thread, never blocks */

/* --- reading ----------------------------------------------------------------------------- */

struct spool_read {
    struct spool_read *next; /* ours */
    int64_t record;          /* a record's body, or */
    int64_t blob;            /* (record 0) a piece of a blob, or */
    uint32_t seq;
    /* (both 0) what is known of many records, given to `row` one by one in the order of the ids;
     * left out: not there, dead, or damaged. ERR_NONE even if none is. The row is valid during the
     * call. */
    const int64_t *ids;
    size_t n_ids;
    void (*row)(struct spool_read *r, size_t i, const struct spool_record_row *row);
    /* (`dead` set, all the others 0) dead letters, by id from `dead_from` on and `dead_max` at
     * most, one by one. ERR_NONE even if there are none. */
    int64_t dead_from;
    size_t dead_max;
    void (*dead)(struct spool_read *r, const struct spool_dead_row *row);
    struct str data; /* filled; the caller frees */
    /* ERR_NONE: found; ERR_NOTFOUND: not there, or past the last piece; ERR_INVALID: there, but not
     * what was sealed */
    struct err err;
    void (*done)(struct spool_read *r); /* reader thread */
};
void spool_read(struct spool *s, struct spool_read *r); /* keep it until done; any thread */

/* --- watching: any thread, never blocks -------------------------------------------------- */

void spool_ledger(struct spool *s, int64_t out[LEDGER_N]); /* as of the last commit, one snapshot */

struct spool_stats {
    uint64_t used_bytes; /* pages in use and the write-ahead log */
    uint64_t limit_bytes;
    uint64_t log_bytes;     /* of the limit: for the write-ahead log only */
    uint64_t written_bytes; /* handed to the disk since start */
    uint64_t commits, transactions, failed;
    uint64_t free_bytes; /* on its file system, as of at most a second ago */
    uint64_t room_bytes; /* how much larger `used_bytes` may become: by the limit, or by what is
                            free on the disk if that is less */
    unsigned set_aside;  /* damaged databases beside this one */
    uint64_t set_aside_bytes;
    uint64_t damaged;     /* values found whose seal is broken */
    int64_t oldest_at_ns; /* wall time of the oldest record, 0: none; as of at most a second ago */
    bool failing;         /* the last commit failed */
    uint64_t dead;        /* dead letters that are here */
};
void spool_stats(struct spool *s, struct spool_stats *out);

/*
 * How many databases were found damaged and set aside while it ran; 0: none. The fresh one does not
 * have the rows of streams yet: a transaction that adds a record to a stream fails with ERR_IO
 * until one has had spool_txn_stream for it. Uploads that had begun fail too.
 */
unsigned spool_generation(const struct spool *s);

/* A failing commit is retried by the next group; between failures the thread waits 100 ms so as not
 * to spin. */

#endif
