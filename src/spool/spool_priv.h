/* What the files of the spool share. No other directory includes this, but for its unit tests. */
#ifndef TR_SPOOL_SPOOL_PRIV_H
#define TR_SPOOL_SPOOL_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include "spool/seal.h"
#include "spool/sql.h"
#include "spool/spool.h"
#include "spool/statements_priv.h"
#include "spool/vfs_priv.h"
#include "base/hmap.h"
#include "base/list.h"
#include "rt/clock.h"
#include <sqlite3.h>

/* --- the format (docs/spool-format.md) --------------------------------------------------- */

enum {
    SPOOL_APPLICATION_ID = 0x7472736c, /* "trsl" */
    SPOOL_FORMAT = 3,
    SPOOL_PAGE = 4096,
    /* A piece's key is blob << PIECE_SHIFT | seq: pieces lie together without a second index. */
    PIECE_SHIFT = 24,
};
#define PIECE_SEQ_MAX ((1U << PIECE_SHIFT) - 1)
#define BLOB_ID_MAX   (INT64_MAX >> PIECE_SHIFT)

/* --- limits ------------------------------------------------------------------------------ */

enum {
    /* One group: bounds the memory of a commit and how long the first in it waits for the last. */
    GROUP_TXNS = 512,
    GROUP_BYTES = 8 << 20,
    READ_BATCH = 32, /* reads in one read transaction, which holds the log back */
    READ_BATCH_BYTES = 4 << 20,
    READ_ROW_BYTES = 8 << 10, /* a row without its body takes as long as so much of one, about */
    /* A checkpoint stops the commits behind it. A longer log is written less often (8,000 frames:
     * 1.2 bytes for each byte of logs in place of 1.6), but its copy took 70 to 90 ms, which
     * clients waited for; this one takes 4. */
    CHECKPOINT_FRAMES = 1000,
    PACE_US = 2000, /* see writer.c */
    PACE_TXNS = 4,
    /* A reader that stays for long, as a shell left open, keeps the log from starting over. At so
     * many times its usual size readers are waited for, for LOG_WAIT_MS; at four times that nothing
     * more is let in. */
    LOG_LONG = 16,
    LOG_WAIT_MS = 20,
    FRAME_BYTES = SPOOL_PAGE + 24,
    WAL_HEAD = 32,
    PROBE_ROOM = 128, /* of the limit: so much must be free before a full disk is called well */
    WELL_MS = 2000,   /* trouble is over after so long without a failure */
    PROBE_MS = 1000,  /* while commits fail and nobody sends any, one is tried so often */
    FAIL_PAUSE_MS = 100,
    BUSY_MS = 2000,              /* an admin's shell may hold the write lock for a moment */
    SLACK_PAGES = 256,           /* above the limit, for transactions that only make room */
    RESERVE_BYTES = 8 << 20,     /* on a full disk given back to SQLite, so that deletes go on */
    CHECK_MAX_BYTES = 256 << 20, /* larger databases are not read through at start */
    STATS_MS = 200,
    RESERVE_AGAIN_S = 30,
    RECENT = 16384, /* records whose stream and number are known without a look */
    /* Records that are gone are swept out together, see exec.c: so many, or of so many bytes (less
     * if the spool is small). More would leave fewer pages half full and make a commit longer. */
    SWEEP_RECORDS = 1024,
    SWEEP_BYTES = 4 << 20,
    SWEEP_PART = 64, /* of the limit */
};

/* --- the writer's memory ----------------------------------------------------------------- */

/* Ids are handed out from blocks that are reserved in the table `counter`, so that one is never
 * used twice, also when all its rows are gone. */
struct id_space {
    const char *name;
    int64_t next;
    int64_t reserved; /* first id that the database does not know as possibly used */
    int64_t undo_next, undo_reserved;
};

/* The writer's side of a stream. */
struct wstream {
    struct hnode node; /* spool.streams, by id */
    int64_t id;
    uint64_t next;
    uint64_t saved; /* `next` in the stream's row */
    uint64_t undo_next, undo_saved;
    bool undo_lost;
    struct wstream *touched_next;
    struct spool_stream *owner; /* of one that the group inserted or deleted, and what it was */
    struct spool_stream owner_was;
    bool touched; /* in the group's list: what follows can be taken back */
    bool fresh;   /* inserted by the group */
    bool dropped; /* deleted by the group */
    bool lost;    /* its row was in a database that was set aside */
    bool save;    /* its newest number is about to be deleted: row.next must say so */
    struct list
        leaving; /* spool.leaving: the next sweep takes numbers that its row does not know */
};

/* Which stream and number a record has, for those that are deleted soon after they came. */
struct recent {
    int64_t id;
    int64_t stream;
    uint64_t number;
    int64_t blob;
    int64_t size;
};

/* What the next sweep is to take; it may be taken back like all that a group does. */
struct pending {
    size_t records;
    uint64_t bytes;
};

struct txn_queue {
    struct spool_txn *head, **tail;
};

struct spool {
    uint32_t magic;
    /* fixed after open */
    bool by_uri; /* `path` is one: inspect.c */
    char *dir, *path, *lock_path, *reserve_path;
    int lock_fd;
    enum spool_sync sync;
    uint64_t limit;
    uint32_t max_pages;         /* what the limit leaves for the database */
    uint32_t checkpoint_frames; /* the log's usual size */
    struct spool_vfs vfs;
    bool vfs_ready;
    bool started;
    const struct box *box; /* NULL: nothing is sealed */
    int format;            /* of a database that is only looked into; 0: the present one */

    /* the writer thread's (before spool_start: the opener's) */
    sqlite3 *db;
    sqlite3_stmt *st[ST_N];
    struct hmap streams;
    struct wstream *touched;
    struct id_space record_ids, stream_ids, blob_ids;
    unsigned doubts; /* how often damage was not found when looked for */
    bool checked;    /* the whole database has been read through at this start */
    bool clean;      /* the database says that row.next of all streams is exact */
    bool reserve_there;
    int64_t reserve_tried_ns;
    int64_t ledger[LEDGER_N];
    int64_t delta[LEDGER_N]; /* the group's */
    int64_t ledger_id[LEDGER_N];
    struct recent *recent;
    int64_t blob_floor; /* of blobs below some pieces may be in a database that was set aside */
    struct pending gone, undo_gone;
    int64_t dead, undo_dead; /* dead letters */
    struct seal_room room;
    int64_t epoch;        /* the data key that new values are sealed with, */
    struct str epoch_key; /* and how the table has it */
    struct list
        leaving; /* streams of those that are gone; never too few after a group was taken back */
    bool sweep_now, swept;   /* in this group */
    int64_t trouble_ns;      /* commits fail since then; 0: they do not */
    int64_t failed_ns;       /* the last failure */
    uint64_t trouble_failed; /* how many had, then */
    enum err_code trouble;   /* of the last failure */
    uint32_t wal_frames, checkpointed_at;
    bool locked_out; /* the last BEGIN met somebody else's lock */
    bool stats_due;
    int64_t stats_ns;
    uint64_t bytes_since_stats;

    /* the writer's queue */
    pthread_t writer;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct txn_queue queue;
    bool writer_waits, stopping;

    /* the reader's */
    sqlite3 *rdb;
    pthread_mutex_t rdb_lock; /* held while it reads, and while mend.c changes connections */
    sqlite3_stmt *r_body, *r_dead, *r_piece, *r_row, *r_letters, *r_note;
    struct seal_room r_room;
    pthread_t reader;
    pthread_mutex_t r_lock;
    pthread_cond_t r_wake;
    struct spool_read *r_head, **r_tail;
    bool r_stopping;

    _Atomic int64_t next_blob;
    _Atomic bool damaged;        /* seen by the writer or the reader: mend.c sets it aside */
    _Atomic unsigned generation; /* how many databases were set aside while running */

    /* what others may see */
    pthread_mutex_t pub_lock;
    int64_t pub_ledger[LEDGER_N];
    struct spool_stats pub;
};

enum { SPOOL_MAGIC = 0x73706f6c };

/* --- spool.c ----------------------------------------------------------------------------- */

struct spool *spool_alloc(const struct spool_opts *o); /* nothing is opened */
void spool_free(struct spool *s);

/* --- place.c: directory, lock, files ----------------------------------------------------- */

int place_take(struct spool *s, struct err *e) TR_MUST_USE; /* directory, file system, lock */
void place_leave(struct spool *s);
/* 1: there, looks like a database; 0: nothing there; -1: no database, `e` says why. */
int place_look(struct spool *s, struct err *e) TR_MUST_USE;
int place_create(struct spool *s, struct err *e) TR_MUST_USE; /* an empty file with mode 0600 */
int place_clear(struct spool *s, struct err *e) TR_MUST_USE;  /* logs without a database: aside */
int place_set_aside(struct spool *s, struct str *name, struct err *e) TR_MUST_USE;
void place_count(struct spool *s, const char *name); /* note one that was set aside */
void place_count_all(struct spool *s);               /* ... those that are there at the start */
uint64_t place_free(const struct spool *s);          /* bytes on the file system for us */
void place_reserve(struct spool *s);                 /* make the reserve file if it is not there */
bool place_give_reserve(struct spool *s);            /* free its space; false: there was none */

/* --- schema.c ---------------------------------------------------------------------------- */

/* Open the writer's connection and make or check the schema. 1: the database is damaged. */
int schema_open(struct spool *s, bool fresh, struct err *e) TR_MUST_USE;
int schema_connect(struct spool *s, sqlite3 **db, bool reader, struct err *e) TR_MUST_USE;
int schema_shim(const struct spool *s, sqlite3 *db, struct err *e) TR_MUST_USE;
/* The writer's connection to a database that was good before. 1: it is damaged. */
int schema_reconnect(struct spool *s, struct err *e) TR_MUST_USE;
/* SQLite has found damage: is it there? 0: no, 1: yes, or it is too large to look, -1: the disk
 * does not let us see. */
int schema_check(struct spool *s, struct err *e) TR_MUST_USE;

/* --- recover.c --------------------------------------------------------------------------- */

/* Run `fn` in a transaction. 1: the database is damaged. */
int recover_run(struct spool *s, int (*fn)(struct spool *, struct err *),
                struct err *e) TR_MUST_USE;
/* Fill the writer's memory from the tables, drop orphaned pieces. 1: damaged. */
int recover_load(struct spool *s, struct err *e) TR_MUST_USE;
/* Into a fresh database what the writer's memory knows: ledger and ids. -1: failed. */
int recover_carry(struct spool *s, struct err *e) TR_MUST_USE;
/* The columns of struct spool_record_row, and one from a row of a query for them. */
#define SPOOL_RECORD_COLUMNS "id,stream,number,kind,lines,at,size,blob,meta,sealed&1"
enum { RECORD_COLUMNS = 10 };
#define SPOOL_STREAM_COLUMNS "id,next,account,key,state,sealed"
struct spool_stream_row recover_stream_row(struct spool *s, sqlite3_stmt *q);
struct spool_record_row recover_row(struct spool *s, struct seal_room *room, sqlite3_stmt *q);

/* --- writer.c, exec.c -------------------------------------------------------------------- */
void *writer_main(void *arg);
void writer_drain(struct spool *s); /* what is queued, in the caller's thread */
/* Save the exact numbers and ids, checkpoint. */
int writer_goodbye(struct spool *s, struct err *e) TR_MUST_USE;
void writer_stats(struct spool *s); /* refresh used bytes and oldest record */

int exec_txn(struct spool *s, struct spool_txn *t, struct err *e) TR_MUST_USE;
/* Sweep, ledger, counters, numbers. */
int exec_group_end(struct spool *s, struct err *e) TR_MUST_USE;
/* A stream whose row has to know its newest number before records are swept. */
void exec_leaves(struct spool *s, struct wstream *ws);
void exec_keep(struct spool *s);        /* the group is committed */
void exec_undo(struct spool *s);        /* the group is rolled back */
void exec_publish(struct spool_txn *t); /* hand ids and numbers to the owners */
int exec_step(struct spool *s, enum spool_statement which, struct err *e) TR_MUST_USE;

struct wstream *streams_find(struct spool *s, int64_t id);
struct wstream *streams_add(struct spool *s, int64_t id, uint64_t next, uint64_t saved);
void streams_free(struct spool *s);

/* --- mend.c ------------------------------------------------------------------------------ */

/* Between transactions: after a failed sync open everything anew, after damage set the database
 * aside and begin a fresh one. -1: commits cannot be made now. */
int mend(struct spool *s, struct err *e) TR_MUST_USE;
bool mend_is_due(const struct spool *s);
/* Say the begin and the end of trouble, once each. */
void mend_say(struct spool *s, bool failing, const struct err *e);
int database_prepare(struct spool *s, struct err *e) TR_MUST_USE; /* statements and hook */
void database_disconnect(struct spool *s); /* the writer's connection; memory stays */

/* --- reader.c ---------------------------------------------------------------------------- */

int reader_open(struct spool *s, struct err *e) TR_MUST_USE;
void reader_close(struct spool *s);
void *reader_main(void *arg);
void reader_serve(struct spool *s, struct spool_read *r);

#endif
