/*
 * A world for the stream machine: a durable store, the Harness log service and clients, all in
 * memory and under the control of the test, with the rules they must keep checked at every step
 * (the oracle).
 * Every log line is one letter; its place in the alphabet is its `pos`. A body, a record, a
 * stream's content and a blob are strings of letters, so that a failing run can be read. Letters
 * are unique in a world, and each names one line of one stream.
 * Time stands still except where a test moves it: a call moves the clocks by one.
 */
#ifndef TESTS_LOGS_MODEL_H
#define TESTS_LOGS_MODEL_H

#include "logs/stream_priv.h"

enum {
    W_STREAMS = 2,
    W_RECORDS = 32, /* in the store */
    W_PENDING = 24, /* commits under way */
    W_CALLS = 24,
    W_LATE = 3,
    W_LIVES = 16,
    W_TEXT = 64,
    W_HOLD = 1000,
    W_IDLE = 100000,
    W_EXPIRY = 3000000,
    W_RETRY = 5, /* between closes that are not found */
};

/* --- the store ------------------------------------------------------------------------------ */

struct stored_record {
    bool used, dead;
    int stream, kind;
    int64_t id, at_ns;
    uint64_t number, lines;
    struct str meta;
    char text[W_TEXT];
};

struct stored_stream {
    bool exists;
    uint64_t next;
    struct str state;
    uint64_t lives[W_LIVES];   /* the lives it names */
    unsigned n_lives, closing; /* closing: bits, by the same index */
};

struct store {
    int64_t next_id;
    struct stored_record records[W_RECORDS];
    struct stored_stream streams[W_STREAMS];
    int64_t ledger[LEDGER_N];
};

struct pending {
    struct commit *c;
    int stream;
    bool forget;
    uint64_t life;            /* the newest when it was asked for */
    struct stored_stream row; /* as it is to be stored, if c->state */
};

/* --- upstream ------------------------------------------------------------------------------- */

struct up_stream {
    bool exists;
    bool foreign; /* a foreign open made it */
    char entries[W_TEXT]; /* '.' is the empty one of an open, '#' a foreign writer's */
    char history[W_TEXT]; /* every letter ever added by us, in any life of it */
    bool blob;
    char content[W_TEXT];
    uint64_t blob_life; /* of the newest whole blob stored */
};

struct late_request {
    enum op_kind kind; /* OP_NONE: free */
    int stream;
    uint64_t life;
    bool snapshot;
    char text[W_TEXT];
};

/* How a request ends. What upstream does and what is told of it are two things. */
enum ending {
    END_WELL, /* executed and answered as the service does */
    END_NOT_SENT,
    END_BUSY,
    END_LOST,      /* executed, the answer lost */
    END_UNSENT,    /* not executed, and nobody can tell */
    END_LATE,      /* the same, but it will be executed later */
    END_LIE,       /* not executed, and answered "not there" */
    END_HALF,      /* the first half of a batch is stored, answered with a 500 */
    END_REJECTED,  /* 400 */
    END_TOO_LARGE, /* 413 */
    END_N
};

/* --- what the oracle remembers of a life ---------------------------------------------------- */

struct life_facts {
    uint64_t id;
    int stream;
    unsigned opens; /* executed upstream */
    bool late_open; /* one of them later than it was answered for */
    bool close_taken, closing_durable, close_durable;
    /* a broken upload was accepted, or a whole one refused, before the close was due */
    bool broken;
    unsigned wholes; /* whole ones that are stored, or will be */
    bool lines;      /* lines were acknowledged */
    bool snapshot;   /* the client's close asks for it */
};

struct client_call {
    struct call call;
    bool used, answered, ok, zeros;
    int64_t answered_at;
    int stream;
    char kind;
    char text[W_TEXT];
    struct call_part parts[8];
};

/* A call as a test asks for it. Kinds: o open, l lines, b blob, e empty blob, h blob without its
 * head (text[0] is '~'), c close, s close with snapshot, p close of a prefix that covers the
 * other stream too, q the same with snapshot. */
struct spec {
    char kind;
    const char *text;
    int stream;
    int64_t start_ns;                 /* 0: now */
    bool zeros;                       /* the client does not number its lines */
    unsigned split;                   /* make a record of every so many letters; 0: one record */
    uint64_t edge, edge_life, number; /* numbers rise from this one */
    uint32_t cred;
};

struct world {
    struct stream_env env;
    struct stream_rules rules;
    struct rng rng;
    struct stream_now now;
    struct stream *s[W_STREAMS];
    struct store store;
    struct pending pending[W_PENDING];
    unsigned n_pending;
    struct up_stream up[W_STREAMS];
    struct late_request late[W_LATE];
    struct op inflight[W_STREAMS][LANE_COUNT];
    bool busy[W_STREAMS][LANE_COUNT];
    struct reload *reload[W_STREAMS];  /* records that are being read again */
    uint64_t unproven;                 /* struct record.unproven of all that were accepted */
    struct record *barrier[W_STREAMS]; /* a close that waits for the other streams */
    struct client_call calls[W_CALLS];
    unsigned n_calls;

    /* service behaviour */
    bool refuse_blobs;   /* 400, although the credential is good */
    bool bad_credential; /* 400 to everything */
    char poison;         /* lines with this letter are refused, 0: none */
    bool failing;        /* what is answered "not now" is the service's own 500 */
    int64_t others_at;   /* when it last took lines of other streams */

    /* the oracle's memory, as bits of letters ('a' is bit 0) */
    uint32_t durable, acked, late_lines, delivered, superseded, settled, dead;
    /* upstream's content of it was destroyed by somebody else, or as its client wished */
    uint32_t excused;
    uint32_t unsure;        /* sent in a request whose answer was lost, or that a crash cut off */
    uint32_t in_whole_blob; /* was in a whole blob that was stored */
    uint32_t scrambled;     /* its place may be wrong: a request was executed late */
    uint8_t seq[32], next_seq; /* order of acknowledgement */
    uint32_t may_swap[32];     /* with these earlier ones */
    uint64_t life_of[32];
    uint64_t newest_taken[W_STREAMS]; /* life that requests were last made for */
    struct life_facts lives[W_LIVES];
    unsigned n_lives;
    uint64_t dups;           /* lines that upstream got again, from us and not late */
    uint64_t dups_uncounted; /* ... of which a crash swallowed the count */
    uint64_t resent_most;    /* lines in requests that could have made some */
    bool crashed, idled;
    unsigned notes[NOTE_N];
    uint64_t note_lines[NOTE_N];
    unsigned wakes;
};

/* Called when a rule is broken; does not return. */
void world_broken(const struct world *w, const char *file, int line, const char *what) TR_NORETURN;
#define RULE(w, cond, what)                                                                        \
    do {                                                                                           \
        if (!(cond))                                                                               \
            world_broken(w, __FILE__, __LINE__, what);                                             \
    } while (0)

struct world *world_new(void);
void world_free(struct world *w);

/* A client calls. Returns its index in w->calls. */
int world_call(struct world *w, const struct spec *spec);

/* The oldest commit becomes durable and is reported, or fails: one that a client waits for is
 * reported as failed, another is repeated behind those that wait already, as the environment
 * does it. */
void world_commit(struct world *w, bool ok);
void world_commit_all(struct world *w);

bool world_ready(struct world *w, int stream, enum stream_lane lane);
struct op *world_take(struct world *w, int stream, enum stream_lane lane);
void world_end(struct world *w, int stream, enum stream_lane lane, enum ending how);
void world_result(struct world *w, int stream, enum stream_lane lane, enum op_outcome outcome);
void world_late(struct world *w, unsigned i); /* a late request is executed now */

/* The reading is over, or failed. */
void world_reload(struct world *w, int stream, bool ok);
/* Everything pages: so many records together, so many stay before and behind. */
void world_page(struct world *w, unsigned records, unsigned keep, unsigned ahead);
/* What is due every second. */
void world_sweep(struct world *w);

bool world_barrier_ready(const struct world *w, int stream);
void world_barrier(struct world *w, int stream);

/* The machine is gone, after the first `applied` commits became durable unreported, and after
 * upstream executed the requests whose bits (stream * LANE_COUNT + lane) are set in `executed`.
 * A new one takes up what is in the store. */
void world_crash(struct world *w, unsigned applied, unsigned executed);

void world_advance(struct world *w, int64_t by); /* time passes; sweeps */

/* Everything goes well from now on: commits and requests, until nothing happens any more. */
void world_run(struct world *w);

/* The end of all time: run, let everything end by itself, and see that nothing is left over and
 * nothing is missing. */
void world_finish(struct world *w);

void world_print(const struct world *w);

/* Foreign writers, openers and closers, and expiry. */
enum foreign { FOREIGN_OPEN, FOREIGN_WRITE, FOREIGN_CLOSE, FOREIGN_SNAPSHOT, FOREIGN_EXPIRE };
void world_foreign(struct world *w, int stream, enum foreign what);

/* --- for the model's own files -------------------------------------------------------------- */

uint32_t letters(const char *text); /* as bits */
struct life_facts *facts_of(struct world *w, int stream, uint64_t life);
enum op_outcome up_execute(struct world *w, int stream, const struct op *op, enum ending how);
void up_postpone(struct world *w, int stream, const struct op *op);
void op_text(const struct op *op, char out[W_TEXT]);
void oracle_taken(struct world *w, int stream, const struct op *op);
void oracle_store(struct world *w);
int stream_index(const struct world *w, const struct stream *s);

/* Everything that matters for what comes, as one number. */
uint64_t world_hash(const struct world *w);

#endif
