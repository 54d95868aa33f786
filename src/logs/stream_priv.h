/* The inside of a stream, shared by stream.c (life-cycle and commits), stream_call.c (client
 * calls), stream_deliver.c (what to send and how it ended) and stream_state.c (the stored form). */
#ifndef TR_LOGS_STREAM_PRIV_H
#define TR_LOGS_STREAM_PRIV_H

#include "base/heap.h"
#include "logs/queue.h"
#include "logs/stream.h"
#include "logs/turns.h"

enum open_state {
    OPEN_NONE,    /* not opened through us: never open it */
    OPEN_PENDING, /* accepted, not sent yet; stored as OPEN_UNKNOWN */
    OPEN_UNKNOWN, /* perhaps executed: the first lines will tell */
    OPEN_DONE,    /* upstream has it */
};

enum barrier_state { BARRIER_NEEDED, BARRIER_ASKED, BARRIER_PASSED };

struct life {
    struct list link;
    uint64_t id;
    enum open_state open;
    int64_t since_wall;   /* its first call */
    struct queue lines;   /* COMMITTING, WAITING, SENDING, in delivery order */
    struct queue stuck;   /* RECORD_STUCK */
    unsigned were_stuck;  /* during recovery: so many of the first records are */
    struct record *close; /* NULL: none accepted */
    int64_t closed_wall;  /* when the close was accepted; 0: it was not */
    enum barrier_state barrier;
    bool closing; /* marked: only the close may be sent from now on */
    bool closing_durable;
    bool ended;      /* the close is over, or the life ended by itself */
    bool done;       /* nothing of it is left to do */
    bool open_acked; /* a client was told that it is open, or is held to have been */
    unsigned opens;  /* commits of such calls under way */
    bool durable;    /* something of it is in the spool besides its name */
    bool reopened;   /* the open was sent once more after "not found" */
    bool lines_seen;
    /* lines with lower numbers are in a blob that was stored; 0: none was */
    uint64_t blob_below;
    int64_t blob_start; /* monotonic: when that upload began; 0: before a restart */
    bool blob_full;     /* one that was stored was not empty, */
    bool blob_log;      /* ... and began as a line does */
    /* an upload came broken, or was refused: close with snapshot unless a whole one is here */
    bool broken;
    bool close_snapshot;   /* the client's own close asks for a snapshot */
    bool snapshot_taken;   /* ... and may have been executed */
    unsigned absent;       /* "not found" in a row, to lines */
    unsigned close_absent; /* ... and to the close */
    uint64_t n_delivered;  /* lines */
    int64_t next_lines;    /* monotonic: lines of a busy stream gather until then */
    bool flows;            /* the last lines were taken: more are read ahead of their turn */
};

struct lane {
    bool busy;
    enum op_kind op;
    unsigned attempts;
    int64_t not_before;   /* monotonic */
    bool check;           /* a 4xx came: find out whether the credential is at fault */
    bool credential_good; /* ... it is not */
    unsigned failed;      /* 500s to the same lines */
    int64_t failed_since; /* monotonic: the first of them */
};

struct edge_mark {
    uint64_t edge, life, last;
    uint64_t seen; /* bit n: number last-n was accepted */
};

struct recent {
    struct body_hash hash;
    struct record *record; /* while it is not durable */
};

/* What is known of calls that went directly (stream_direct.c). */
struct direct_marks {
    bool busy;      /* one is under way */
    uint64_t below; /* lines with lower numbers were accepted before it */
    struct body_hash lost[STREAM_DIRECT_LOST]; /* a ring: their lines may be upstream */
    unsigned n_lost;
};

/* What reports tell of it besides what it is (report.c); since the start of the process. */
struct stream_story {
    int64_t failed_at;    /* wall: a delivery failed last; 0: none did */
    const char *said;     /* why, in words of ours (static) */
    int status;           /* ... what was answered; 0: nothing was */
    uint32_t events;      /* bit n: enum stream_note n happened */
    uint64_t life, lines; /* so many lines were accepted in that life */
    uint64_t dead;        /* records and uploads that became dead letters */
    bool by_link;         /* its log went, or is to go, to an object store */
};

struct stream {
    struct stream_env *env;
    struct spool_stream row;
    char *account, *key;
    struct view account_v, key_v;
    struct str prefix, query; /* as the client last spelled them */
    uint32_t cred;
    struct list lives;     /* oldest first; the last one stays when it is done */
    struct list blobs;     /* struct record, in order of arrival */
    bool held;             /* an open after the close, waiting for lines */
    struct recent *recent; /* a ring; grows to STREAM_RECENT */
    unsigned n_recent, cap_recent, recent_at;
    struct edge_mark edges[STREAM_EDGES]; /* what is durable */
    struct direct_marks *direct;          /* NULL: no call ever went directly */
    struct list edge_calls; /* struct call.link: from edges, their commits under way */
    /* what is known of repeats is ahead of the stored state: it goes with the next records */
    bool marks_dirty;
    struct lane lanes[LANE_COUNT];
    int64_t held_until;    /* credential refused; monotonic */
    struct record **batch; /* SENDING lines, or stuck ones being settled */
    size_t n_batch, cap_batch;
    size_t singly_left;   /* so many records are sent one by one */
    unsigned commits;     /* under way */
    unsigned own_commits; /* of these, the ones no client waits for */
    bool dirty;           /* the stored state is behind */
    /* commits under way that store it and may fail, or be repeated later: the next stores it too */
    unsigned unsure_states;
    uint64_t next_number;  /* above all that are durable */
    uint64_t stored_life;  /* the newest life that the stored state names */
    struct reload *load;   /* under way */
    bool load_failed;      /* ... and not again before the next sweep */
    struct commit *forget; /* under way */
    bool forgetting, forgotten;
    int64_t last_call; /* monotonic */
    int64_t asked;     /* monotonic: when stream_ready last said "now" */

    /* for the environment: linkage in its tables; the machine does not touch these */
    struct stream_place {
        struct hnode node;
        struct list ready[LANE_COUNT];
        struct heap_node later[LANE_COUNT];
        void *owner;
        struct account *account;
        struct stream_turns turns;
        struct stream_story story;
        bool counted;        /* among the account's streams */
        unsigned generation; /* of the spool's database that has its row */
        bool stored; /* its row is in the spool: row.id is the spool's thread's to read while
                         commits are under way */
    } place;
};

struct commit *commit_new(struct stream *s);
void commit_gone(struct commit *c, struct record *r);
void commit_send(struct commit *c);
void stream_mark_dirty(struct stream *s);
/* Nothing of it is left, and its row may be gone: numbers begin again, and so does all that is
 * known by them. */
void stream_begin_anew(struct stream *s);
void stream_save(struct stream *s); /* a commit of the state alone, if dirty */
/* bring lives forward as far as they go by themselves */
void stream_tidy(struct stream *s, struct stream_now now);

struct life *life_new(struct stream *s, enum open_state open, struct stream_now now);
void life_free(struct life *l);
struct life *stream_last(const struct stream *s);
struct life *stream_head(const struct stream *s); /* the oldest that is not done, or NULL */
struct life *stream_life(const struct stream *s, uint64_t id);
bool life_superseding(const struct life *l);
/* Is a whole blob of it stored, or on the way and durable? */
bool life_has_blob(const struct stream *s, const struct life *l);
/* Lines that need not go any more leave with `c`; returns how many. */
uint64_t life_supersede_into(struct stream *s, struct life *l, struct commit *c);
/* at the end, but ahead of r->ahead others */
void life_queue_lines(struct life *l, struct record *r);
bool life_blobs_waiting(const struct stream *s, const struct life *l);
/* Would it be a client's broken retry of an upload? */
bool blob_is_broken(const struct stream *s, const struct life *l, bool empty, bool begins_line);
/* Nothing of it is under way or waits to be sent. An open of unknown outcome does not wait. */
bool stream_nothing_waits(const struct stream *s);
/* Did a body go directly whose answer was lost? */
bool direct_lost(const struct stream *s, struct body_hash h);
void recent_add(struct stream *s, struct body_hash h, struct record *r);
struct recent *recent_find(struct stream *s, struct body_hash h);
void recent_clear(struct stream *s);
void recent_settle(struct stream *s, const struct record *r, bool durable);
void edge_accepted(struct stream *s, uint64_t edge, uint64_t life, uint64_t number);
void batch_clear(struct stream *s);
/* Would `r` still go into a batch that has so much? */
bool batch_takes(const struct stream *s, size_t n, uint64_t lines, uint64_t bytes,
                 const struct record *r);

/* --- stream_page.c: what is in the spool only --- */

/* Page what may be; `now` INT64_MAX: however new it is. */
void life_page_out(struct stream *s, struct life *l, int64_t now);
/* Ask for what is needed next, if anything is. */
void stream_read_on(struct stream *s);
/* Are stuck lines still to be read before they can be settled? */
bool life_stuck_wanted(const struct stream *s, const struct life *l);
/* Pages of lines that need not go any more leave with `c`; returns how many lines. */
uint64_t life_supersede_pages(struct stream *s, struct life *l, struct commit *c);
bool life_pages_superseded(const struct stream *s, const struct life *l);

#endif
