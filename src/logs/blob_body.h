/*
 * The bytes of a blob on their way upstream: from the spool, whole in memory or a piece at a time,
 * or from memory. Reads like fetch_opts.read wants it, may be begun again, and keeps the checksum
 * of what was handed out. Of one loop; never blocks.
 */
#ifndef TR_LOGS_BLOB_BODY_H
#define TR_LOGS_BLOB_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"
#include "ev/loop.h"
#include "logs/record.h"
#include "spool/spool.h"

enum {
    BLOB_PIECE_MAX = 256 * 1024,      /* most raw bytes of one piece in the spool */
    BLOB_WHOLE_MAX = 8 * 1024 * 1024, /* larger bodies are never held whole */
    /* Of all bodies held whole, in the process: an outage's end sends many blobs at once. */
    BLOB_MEMORY_MAX = 96 * 1024 * 1024,
};

struct blob_body;

/* The body of a RECORD_BLOB record; nothing is read yet. The record need not outlive the call. */
struct blob_body *blob_body_new(struct spool *spool, struct ev_loop *loop, const struct record *r);

/* A body that is in memory: the bytes are taken over, and `bytes` is empty afterwards. Their memory
 * is not counted here. */
struct blob_body *blob_body_of(struct str *bytes);

/* NULL is fine; at any time, also while the spool is being read: `ready` is then not called. */
void blob_body_free(struct blob_body **b);

/*
 * Get ready to be read from the first byte on; also again. A body of at most `whole_max` bytes is
 * brought into memory if BLOB_MEMORY_MAX lets it, of any other the first piece. `ready(ctx)` is
 * called when that is done or has failed (blob_body_error), perhaps from within; and later whenever
 * a read that had to pause can go on.
 */
void blob_body_start(struct blob_body *b, size_t whole_max, void (*ready)(void *ctx), void *ctx);

/* As fetch_opts.read: bytes written to `p`, 0 at the end, FETCH_PAUSE, -1 when it failed. */
long blob_body_read(struct blob_body *b, void *p, size_t n);

uint64_t blob_body_size(const struct blob_body *b);
/* All of it is in memory; `out` is valid until the body is freed. */
bool blob_body_whole(const struct blob_body *b, struct view *out);
bool blob_body_sent(const struct blob_body *b);       /* read to its end since the last start */
uint32_t blob_body_crc32c(const struct blob_body *b); /* of what was read since then */

/* NULL: fine. ERR_INVALID or ERR_NOTFOUND: the spool does not hold what the record says, and never
 * will; others may pass. */
const struct err *blob_body_error(const struct blob_body *b);

/* The budget for bodies that are held whole. Any thread. */
bool blob_memory_take(size_t n) TR_MUST_USE;
void blob_memory_give(size_t n);

#endif
