/* The inside of the log path that its files share. */
#ifndef TR_LOGS_LOGS_PRIV_H
#define TR_LOGS_LOGS_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include "logs/accounts.h"
#include "logs/cred.h"
#include "logs/logs.h"
#include "logs/shapes.h"
#include "logs/shard.h"
#include "logs/space.h"
#include "rt/command.h"
#include "rt/metric.h"

enum { LOGS_MAX_WORKERS = 64, DRAIN_ROUNDS = 2 };

struct logs_metrics {
    struct metric_family *requests; /* client_requests: call, code */
    struct metric_family *upstream; /* upstream_requests: call, code */
    struct metric_family *ack;      /* ack_seconds: call */
    struct metric_family *delivery; /* delivery_seconds: call */
    struct metric_family *notes;    /* stream_events: event */
    struct metric *note[NOTE_N];
    struct metric *memory;
    struct metric *direct;                         /* direct_calls */
    struct metric *refused_full, *refused_failing; /* lines_refused: reason */
    struct metric *slowed;                         /* line_calls_slowed */
};

enum { DEAD_COMMANDS = 5 };

/* The commands about dead letters (dead.c). */
struct logs_dead {
    struct command commands[DEAD_COMMANDS];
    bool added;
    pthread_mutex_t lock;
    int64_t *claims; /* letters that a call replays or drops */
    size_t n_claims;
};

enum { REPORT_COMMANDS = 4 };

struct logs {
    struct spool *spool;
    struct ev_pool *pool;
    struct aead_key ticket_key;
    struct creds *creds;
    struct accounts *accounts;
    struct shapes *shapes;
    uint64_t edge_id; /* ours, towards a hub; kept in the spool */
    atomic_bool hub;  /* upstream is a tailrace, by its newest answer; kept in the spool */
    struct shard *shards[LOGS_MAX_WORKERS];
    struct ingest_service *services[LOGS_MAX_WORKERS];
    unsigned n_shards;
    struct logs_settings *settings;
    struct logs_settings *
        *old; /* replaced ones: freed at the end, since requests may still use them */
    unsigned n_old;
    atomic_uint_fast64_t memory_used; /* bodies of accepted records in memory */
    atomic_uint_fast64_t
        unproven_used; /* bytes spooled for credentials upstream has not taken yet */
    struct logs_metrics metrics;
    /* of the spool, at two looks some time apart, newest first */
    struct spool_growth {
        uint64_t used;
        int64_t at; /* monotonic; 0: none yet */
    } growth[2];
    uint64_t last_written, last_commits, last_transactions, last_damaged;
    int64_t last_resent;
    struct logs_dead dead;
    struct command reports[REPORT_COMMANDS]; /* report.c */
    bool reports_added;
    atomic_uint n_tails;       /* who follow streams (tail.c) */
    atomic_uint n_listings;    /* of streams, under way */
    atomic_bool space_refused; /* lines were, since the last look */
    enum space_level space;    /* as the log said last; the first shard's thread */
    bool asked_round;          /* logs_drained: a round was begun */
    unsigned idle_rounds;
};

/* Upstream is, or is not, a tailrace. Kept over a restart, so that the first delivery bears its id.
 */
void logs_learn_hub(struct logs *l, bool hub);

void logs_metrics_init(struct logs_metrics *m);
/* Count one request, or note how long it took. `call`: a text that is there for good. */
void metric_code(struct metric_family *f, const char *call, int code);
void metric_seconds(struct metric_family *f, const char *call, int64_t ns);

#endif
