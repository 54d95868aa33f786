/*
 * A shard: the streams that one worker owns, and everything that happens to them. Calls from other
 * workers are handed over; commits go to the spool and come back; what is ready is sent when the
 * host's limiter lets it, streams taking turns.
 */
#ifndef TR_LOGS_SHARD_H
#define TR_LOGS_SHARD_H

#include <stdatomic.h>
#include "base/heap.h"
#include "base/hmap.h"
#include "base/list.h"
#include "ev/loop.h"
#include "logs/limiter.h"
#include "logs/logs.h"
#include "logs/settings.h"
#include "logs/stream_priv.h"
#include "logs/turns.h"
#include "logs/upstreams.h"
#include "net/fetch.h"
#include "rt/overload.h"

enum { SHARD_ACCOUNTS = 64 };

struct shard {
    struct logs *logs;
    unsigned index;
    struct ev_loop *loop;
    struct fetch_pool *pool;
    const struct logs_settings *settings;
    struct stream_env env;
    struct rng rng;
    struct hmap streams;
    struct list ready[LANE_COUNT]; /* struct stream.place.ready: ask these */
    struct heap
        later[LANE_COUNT]; /* struct stream.place.later: ask these when their time has come */
    int64_t retry_at;      /* when the timer fires */
    int64_t touch_at;      /* when credentials in use are named next */
    struct limiter harness;
    unsigned harness_blobs; /* of the requests under way to the log service: uploads */
    struct list stores;     /* struct store_host: a limiter for each object store */
    struct ev_timer *retry; /* the earliest time something may be tried again */
    struct ev_timer *sweep;
    struct ev_task pump;
    bool pumping;
    struct list barriers; /* closes that wait for streams of this shard */
    struct ev_task barrier_task;
    bool barrier_due;
    size_t deliveries;     /* under way */
    struct turns turns;    /* line calls on their way to the spool */
    struct list unsaved;   /* struct shard_commit: to be repeated */
    struct list replays;   /* of dead letters, being sent (replay.c) */
    struct list readbacks; /* of records, under way (readback.c) */
    struct list tails;     /* who follow streams of this shard (tail.c) */
    size_t n_readbacks;    /* ... that will come back */
    int64_t lines_taken;   /* monotonic: when upstream last took lines; 0: never */
    /* the same for blobs, by account and route; a newer account may take an older one's place */
    struct blob_taken {
        uint64_t account;
        int64_t at;
    } blobs_taken[2][SHARD_ACCOUNTS];
    int64_t zstd_connections[64]; /* to a hub that takes zstd: ids as in fetch_result; 0: none */
    unsigned zstd_at;
    atomic_uint state;                  /* enum limiter_state, for the metrics */
    atomic_size_t n_streams, n_waiting; /* of these, so many wait for delivery */
    struct upstreams_told upstreams;    /* for reports */
    size_t reports;                     /* being made: parts of them that come again */
    size_t commits;                     /* under way to the spool */
    int64_t owed[LEDGER_N];             /* what went directly, not in the spool's ledger yet */
    struct owed_commit *paying;         /* under way, or NULL */
    size_t checks;                      /* of credentials, under way */
    size_t ingests;                     /* client calls that this worker has not done with */
    struct list intake_waiting;         /* struct ingest.intake: bodies that wait for memory */
    struct ev_timer *intake_timer;
    struct ingest *intake_first; /* goes on all the same, since then */
    int64_t intake_first_at;
    struct ev_task drain_look;    /* the control thread asks whether anything still goes on */
    int64_t drain_until;          /* ... by then, monotonic */
    atomic_bool looking, goes_on; /* asked and not answered yet; the answer */
    bool holding;                 /* nothing more is sent for a while */
    bool stopping;
    bool still;            /* ... but it may go on: the spool is being handed over */
    struct ev_timer *stop; /* looks whether the last commit is back */
    void (*stopped)(struct ev_loop *loop);
};

/* A call on its way through: made by the worker that received it, run by the stream's owner,
 * answered where it came from. */
struct submission {
    struct ev_task task;
    struct call call;
    struct shard *from, *owner;
    struct stream *stream;    /* the owner's; from when it runs to its answer */
    struct str account, key;  /* decoded */
    struct str prefix, query; /* as spelled */
    struct call_part *parts;
    struct list turn; /* struct stream_turns.calls */
    size_t bytes;     /* of lines */
    bool under_way;   /* these count (turns.h) */
    bool ok;
    bool refused; /* for want of room, for that reason */
    enum overload_reason why;
    bool cred_fresh;
    void *ingest; /* who asked; NULL once it is gone. Touched by `from` only */
    void (*answered)(void *ingest, bool ok);
};

struct submission *submission_new(struct shard *from, enum call_kind kind);
void submission_free(struct submission *s);
/* Hand it to the owner of the stream that `account` and `key` name. `answered` is called in from's
 * loop, not from within. */
void submission_send(struct submission *s);

/* The owner's: run it now; or answer that there is no room for it. */
void submission_go(struct submission *s);
void submission_again(struct submission *s); /* from the beginning, in its turn */
void submission_refuse(struct submission *s, enum overload_reason why);

struct shard *shard_new(struct logs *logs, unsigned index, struct ev_loop *loop,
                        struct fetch_pool *pool, const struct logs_settings *settings);
void shard_free(struct shard **sh); /* after its loop and the spool have ended */
void shard_configure(struct shard *sh, const struct logs_settings *settings); /* own thread */

/* Which shard owns the stream of that name? */
struct shard *shard_owner(struct logs *logs, struct view account, struct view key);

/* Recovery, before the loop runs. */
/* Lines that were refused are in the ledger, too. */
void shard_refuse_lines(struct shard *sh, uint64_t lines);

/* What waits for delivery counts for its account: a record that waits already; and what came into
 * the spool with a commit, less what left it. */
void shard_weigh(struct stream *s, const struct record *r);
void shard_weigh_commit(const struct commit *c);
struct stream *shard_recover_stream(struct shard *sh, const struct spool_stream_row *row);
void shard_recovered(struct shard *sh);

/* The stream of that name, which is this shard's, or NULL. Own thread. */
struct stream *shard_find(struct shard *sh, struct view account, struct view key);

/*
 * Add to the ledger as soon as the spool can commit again: one transaction, so that the ledger
 * balances at any moment, kept in memory until then. A crash before loses it, on both sides of the
 * account: those lines are upstream and were answered so, and count nowhere. Own thread.
 */
void shard_owe(struct shard *sh, const int64_t ledger[LEDGER_N]);
void shard_pay_owed(struct shard *sh); /* what is owed, if it is not under way */

void shard_wake(struct shard *sh); /* something may be ready */
struct stream_now shard_now(const struct shard *sh);

/* For drain: does anything go on that waits for nothing but upstream's answers, by `until`
 * (monotonic)? Control thread; the shard looks in its own time, then sets sh->goes_on and clears
 * sh->looking. Not while it is looking. */
void shard_ask_goes_on(struct shard *sh, int64_t until);

/* Begin no delivery for a while (own thread). Those under way go on. */
void shard_hold(struct shard *sh, bool on);

/* The end has two parts, so that no shard ends while another may still have something for it: first
 * every shard sends nothing more, then each calls `then` once its client calls and what it
 * submitted to the spool have come back. Own thread. */
void shard_quiesce(struct shard *sh);
void shard_resume(struct shard *sh); /* it was not the end: takes the first part back */
void shard_stop(struct shard *sh, void (*then)(struct ev_loop *loop));

/* Upstream took the credential: remember it, also over a restart. */
void shard_cred_proven(struct shard *sh, uint32_t cred);

/* Deliveries report here. `started` is when the request began. */
void shard_result(struct shard *sh, struct stream *s, enum stream_lane lane,
                  const struct op_result *r);

/* Records that were read again are here, or could not be read. */
void shard_loaded(struct shard *sh, struct reload *l, bool ok);

const char *shard_note_event(enum stream_note what);
/* struct stream_env.note */
void shard_note(struct stream_env *env, struct stream *s, enum stream_note what, uint64_t lines);

#endif
