/*
 * Looking into a spool's database from outside: one that is set aside, one of a gateway that is
 * stopped, and one of a gateway that runs. Nothing is changed; damage ends nothing, it is counted.
 * One thread.
 */
#ifndef TR_SPOOL_INSPECT_H
#define TR_SPOOL_INSPECT_H

#include "spool/spool.h"

/*
 * Open the database `file`, with the log beside it; `box` opens what is sealed, NULL: that shows as
 * damaged. A text in `note` says what cannot be had (a log in a directory that cannot be written
 * to, what is sealed with another key). Only a reader's locks are taken: a gateway that runs on it
 * goes on. NULL: it cannot be read at all (ERR_NOTFOUND, ERR_IO, ERR_INVALID: `e` says why and,
 * where there is a way, what else to try).
 */
struct spool *spool_inspect(const char *file, const struct box *box, struct str *note,
                            struct err *e) TR_MUST_USE;
void spool_inspect_end(struct spool **s);

/* May a spool be in that directory? -1: it is on a file system whose locks and syncs do not mean
 * what a spool needs, or cannot be looked at. */
int spool_place_check(const char *directory, struct err *e) TR_MUST_USE;

/* Process that has the spool in that directory open; 0: none. */
long spool_used_by(const char *directory);

/* SQLite's own check of the whole structure; `bad` is called for each thing that is wrong (100 at
 * most). How many there were, or -1: it cannot be done, `e` says why. */
int spool_inspect_check(struct spool *s, void (*bad)(void *ctx, const char *text), void *ctx,
                        struct err *e) TR_MUST_USE;

/*
 * Every row that can be read, by id: where the database is damaged the next readable row is looked
 * for. `lost` gets the number of places that could not be read, `e` (if any) why. The views are
 * valid during the call.
 */
typedef void (*spool_stream_fn)(void *ctx, const struct spool_stream_row *row);
typedef void (*spool_record_fn)(void *ctx, const struct spool_record_row *row);
typedef void (*spool_dead_fn)(void *ctx, const struct spool_dead_row *row);
void spool_inspect_streams(struct spool *s, spool_stream_fn fn, void *ctx, uint64_t *lost,
                           struct err *e);
void spool_inspect_records(struct spool *s, spool_record_fn fn, void *ctx, uint64_t *lost,
                           struct err *e);
void spool_inspect_dead(struct spool *s, spool_dead_fn fn, void *ctx, uint64_t *lost,
                        struct err *e);

/* Serve a read at once, as the spool's reader would; `done` is not called. */
void spool_inspect_read(struct spool *s, struct spool_read *r);

/* Sums of one moment. */
struct spool_sums {
    int64_t ledger[LEDGER_N];
    int64_t lines, blobs;   /* of the records that wait */
    int64_t records, bytes; /* bytes: of their bodies and blobs */
    int64_t oldest_ns;      /* 0: none waits */
    int64_t streams;
    int64_t dead, dead_lines, dead_blobs;
    int64_t loose_pieces; /* of uploads that are under way, or never completed */
    int64_t format, pages;
};
int spool_inspect_sums(struct spool *s, struct spool_sums *out, struct err *e) TR_MUST_USE;

const char *spool_ledger_name(enum ledger_row row); /* "lines_accepted" */

#endif
