/*
 * Which object stores take gzip. A *shape* is what decides whether a labelled gzip body is safe
 * behind a signed link: the store's host and the list of headers that the link signs. That a store
 * inflates on reading is inferred (HP §1.10), so each shape is tried once, read back, and trusted
 * or refused for good; what was found is kept in the spool. Process-wide; any thread.
 */
#ifndef TR_LOGS_SHAPES_H
#define TR_LOGS_SHAPES_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"
#include "spool/spool.h"

enum {
    SHAPES_MAX = 256,     /* a log service that invents hosts: past this many new ones go plain */
    SHAPE_NAMES_MAX = 32, /* signed headers of one link */
};

enum shape_state { SHAPE_UNKNOWN, SHAPE_TRYING, SHAPE_TRUSTED, SHAPE_REFUSED, SHAPE_STATES };

enum shape_use {
    SHAPE_PLAIN, /* send as it is */
    SHAPE_GZIP,  /* trusted: send gzip */
    SHAPE_TRY,   /* send gzip, read it back, and say with shapes_tell what came of it */
};

enum shape_verdict {
    SHAPE_EQUAL,     /* it read back right in every way: trusted */
    SHAPE_DIFFERENT, /* it did not, or the store would not take it: refused */
    SHAPE_UNSURE,    /* trouble on the way: not tried again for a while */
    SHAPE_UNTRIED,   /* no attempt was made */
};

struct shapes;

struct shapes *shapes_new(void); /* registers gzip_shapes{state} */
void shapes_free(struct shapes **s);

/* Take up what the spool holds, between spool_open and spool_start. -1: it could not be read. */
int shapes_recover(struct shapes *s, struct spool *spool, struct err *e) TR_MUST_USE;

/* Append the shape of a signed link: "host[:port] name;name", names sorted (AWS and Google V4
 * query signatures). -1, appending nothing: not a URL, or a list that is malformed. */
int shape_of_link(struct view link, struct str *out) TR_MUST_USE;

/* How should a body go? SHAPE_TRY is given to one caller at a time, and only if it `may_try`.
 * `now` is monotonic. */
enum shape_use shapes_ask(struct shapes *s, struct view shape, bool may_try, int64_t now);

/* What came of it. SHAPE_EQUAL and SHAPE_DIFFERENT are stored in `spool` (NULL: they are not) and
 * logged. A trusted shape may become refused, never the other way round. */
void shapes_tell(struct shapes *s, struct view shape, enum shape_verdict v, struct spool *spool,
                 int64_t now);

enum shape_state shapes_state(struct shapes *s, struct view shape);

#endif
