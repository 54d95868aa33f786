/* The inside of a transaction: what txn.c gathers and the writer executes. */
#ifndef TR_SPOOL_TXN_PRIV_H
#define TR_SPOOL_TXN_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "spool/spool.h"

enum op_type {
    OP_STREAM,
    OP_STREAM_DROP,
    OP_RECORD,
    OP_DELETE,
    OP_BURY,
    OP_PIECE,
    OP_BLOB_DROP,
    OP_VALUE,
};

struct op {
    struct op *next;
    enum op_type type;
    union {
        struct {
            struct spool_stream *st;
            struct view account, key, state;
            int64_t id; /* set by the writer */
            uint64_t next;
        } stream;
        struct {
            struct spool_stream *st;
            struct spool_record *r;
            int64_t id; /* set by the writer */
            uint64_t number;
        } record;
        struct {
            int64_t id;
            const char *reason;
        } del; /* also bury */
        struct {
            int64_t blob;
            uint32_t seq;
            struct view data;
        } piece;
        struct {
            const char *space;
            struct view name, value;
        } value;
    };
};

struct txn_chunk {
    struct txn_chunk *next;
    size_t size; /* behind this struct */
};

/* One block of memory for most transactions: operations and copied bytes are cut from its end. */
struct spool_txn {
    uint32_t magic;
    uint32_t ledger_rows; /* bit set: which of `delta` are not zero */
    struct spool_txn *next;
    spool_done_fn done;
    void *ctx;
    struct op *first, **last;
    size_t bytes; /* of bodies, pieces and the like: the weight in a group */
    bool kept;    /* the submitter frees it */
    bool secret;  /* carries values, such as credentials: wiped when it is freed */
    bool grows;   /* brings bytes in; false: makes room or keeps the books */
    int64_t delta[LEDGER_N];
    struct txn_chunk *chunks;
    char *at, *end;
    _Alignas(16) char room[640];
};

_Static_assert(LEDGER_N <= 32, "ledger_rows is a set of 32 bits");

#endif
