/* What the tests of the spool share: a directory, an open spool, transactions waited for. */
#ifndef TR_TESTS_SPOOL_BED_H
#define TR_TESTS_SPOOL_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "spool/spool.h"
#include "spool/spool_priv.h"

enum { BED_WAIT_S = 60 };

struct bed {
    char root[256]; /* removed at the end */
    char dir[280];
    struct spool_opts opts;
    struct spool *s;
    struct str note;
    struct err err;
};

int bed_setup(void **state);
int bed_teardown(void **state);
void bed_open(struct bed *b);          /* and start */
void bed_open_only(struct bed *b);     /* for recovery's walks */
void bed_close(struct bed *b);

/* Submit and wait; the error's code, ERR_NONE if it is durable. */
enum err_code bed_commit(struct bed *b, struct spool_txn *t);

/* Wait until `*n` (changed under bed_signal's lock) is `want`, for at most BED_WAIT_S. */
void bed_wait(int *n, int want);
int bed_wait_change(int *n); /* until it is not 0; what it is then */
void bed_add(int *n, int by);

/* A spool_done_fn that adds 1 to the int at `ctx`, and 1000 if there was an error. */
void bed_count(void *ctx, const struct err *err);

enum err_code bed_read_record(struct bed *b, int64_t id, struct str *out);
enum err_code bed_read_piece(struct bed *b, int64_t blob, uint32_t seq, struct str *out);

/* A new stream in the spool. */
void bed_stream(struct bed *b, struct spool_stream *st, const char *key);
/* One record in a transaction of its own. */
enum err_code bed_record(struct bed *b, struct spool_stream *st, struct spool_record *r,
                         struct view body);
enum err_code bed_delete(struct bed *b, int64_t id);

int bed_count_records(struct bed *b); /* spool opened only */
/* What a query on the file answers, through a connection of its own. */
int64_t bed_ask(struct bed *b, const char *sql);
/* Back to what a file was like before anything could be sealed; the version stays. */
void bed_unseal_format(struct bed *b);
bool bed_exists(struct bed *b, const char *name);
int bed_files_like(struct bed *b, const char *part);
void bed_remove_tree(const char *dir);

#endif
