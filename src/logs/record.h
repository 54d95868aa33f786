/* Records and the client calls that bring them. */
#ifndef TR_LOGS_RECORD_H
#define TR_LOGS_RECORD_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/list.h"
#include "base/str.h"
#include "base/view.h"
#include "spool/spool.h"

enum record_kind { RECORD_LINES = 1, RECORD_BLOB = 2, RECORD_CLOSE = 3 };

enum record_state {
    RECORD_COMMITTING, /* not durable yet */
    RECORD_WAITING,
    RECORD_SENDING, /* in a request, or in one that will be repeated as it was */
    RECORD_STUCK,   /* upstream would not take it: waits for the end of the stream */
};

struct body_hash {
    uint64_t lo, hi;
};

static inline bool body_hash_eq(struct body_hash a, struct body_hash b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

struct record {
    struct list link;        /* the machine's queue */
    struct list commit_link; /* struct commit.records */
    struct list waiters;     /* calls that repeat this one before it is durable: struct call.link */
    struct spool_record row; /* what the spool stores; row.number is the stream's own count */
    enum record_kind kind;
    enum record_state state;
    uint64_t life;         /* generation it belongs to */
    uint32_t cred;         /* who sent it */
    int64_t start_ns;      /* monotonic: first byte of the call */
    int64_t acked_ns;      /* monotonic: when its commit was reported; 0 before */
    struct body_hash hash; /* of the whole body of the call; set on its first record only */
    bool hashed;
    bool in_tail; /* the queue's (queue.h) */
    bool loaded;  /* it was in the spool only, and is here since its turn comes */
    /* in a request whose answer is not known: it may be upstream already */
    bool maybe_sent;
    uint16_t passed; /* so many went ahead of it; not kept over a restart */
    /* how many records it went ahead of when it came (two calls that overlapped) */
    uint16_t ahead;
    uint64_t ahead_above; /* ... and those have this number or a higher one, set if `ahead` */
    struct str meta;      /* encoded; row.meta points here */
    struct str frame;     /* compressed body; row.body points here; given back once durable */

    struct str text;   /* lines: the array's inside, until memory is short; then read again */
    uint32_t size;     /* of that text */
    uint64_t unproven; /* bytes that count as of a credential that upstream has never taken */

    bool by_link;    /* blob: uploaded through a link (HP §1.9), not by POST /blob */
    bool log;        /* blob: begins as a line does */
    bool compressed; /* blob: looks compressed already */
    bool snapshot;   /* close */
    bool covers;     /* close: prefix or key list: a barrier for other streams */
    union {          /* by kind: a backlog has very many of them */
        struct {     /* lines */
            int64_t pos_min, pos_max;
            /* its place in an edge's account, edge 0: from a client */
            uint64_t edge, edge_life, edge_number;
        };
        struct { /* blob */
            uint64_t blob_size;
            struct str piece; /* its last piece, when not in the spool yet */
            uint32_t pieces;
        };
        struct {              /* close */
            struct str query; /* the client's own, without credential */
        };
    };
};

struct record *record_new(enum record_kind kind);
void record_free(struct record *r);

/* Fill r->meta from the fields, and the other way round. -1: not understood. */
void record_encode(struct record *r);
int record_decode(struct record *r, struct view meta) TR_MUST_USE;

enum call_kind { CALL_OPEN, CALL_LINES, CALL_BLOB, CALL_CLOSE };

/* One of the records a hub is sent, for its delivery id. */
struct call_part {
    uint64_t number;
    uint64_t lines;
};

/* A call as the machine sees it. Who made it embeds it. */
struct call {
    struct list link; /* waiting for another call's commit */
    enum call_kind kind;
    uint32_t cred;
    int64_t start_ns;
    struct list
        records; /* struct record.link; CALL_LINES: parts of one body; CALL_BLOB, CALL_CLOSE: one */
    uint64_t lines;
    struct body_hash hash;
    bool empty;         /* a blob of no bytes */
    bool begins_line;   /* a blob that begins as a line does */
    struct view prefix; /* path in front of /stream or /blob, as the client spells it */
    struct view query;  /* accountID and key as the client spells them */
    uint64_t edge;      /* id of the edge that sent it, 0: a client */
    uint64_t edge_life;
    const struct call_part *parts; /* one for each record */
    size_t n_parts;
};

#endif
