/* Sealing and opening of values, for the files of the spool (docs/spool-format.md, Sealing). */
#ifndef TR_SPOOL_SEAL_H
#define TR_SPOOL_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"

struct spool;
struct spool_record_row;

/* What a value is; its seal is bound to that and to where it stands. */
enum seal_what {
    SEAL_META = 'm',    /* of a record: id, stream, number, kind, lines, at, size, blob */
    SEAL_BODY = 'b',    /* id, stream, number */
    SEAL_PIECE = 'p',   /* its key */
    SEAL_ACCOUNT = 'a', /* id of the stream; also in dead letters */
    SEAL_KEY = 'k',
    SEAL_STATE = 's',
    SEAL_VALUE = 'v', /* space and name */
};

enum {
    SEAL_VIEWS = 4, /* values of one row that are needed at a time */
    /* Starts whose data keys are kept without a look at what still needs them. */
    EPOCHS_KEPT = 8,
};

/* Where values are sealed and opened; one for each thread that does. */
struct seal_room {
    struct str aad;
    struct str value[SEAL_VIEWS];
};

/* Take up the data keys that the spool holds, make this start's, and let the small rows (streams,
 * values) be sealed or plain as new ones are. 1: damaged; -1 with ERR_DENIED: the keys do not fit,
 * and nothing was changed. */
int seal_load(struct spool *s, struct err *e) TR_MUST_USE;

/* Into a fresh database the data key that is in use: what is sealed next goes there. */
int seal_carry(struct spool *s, struct err *e) TR_MUST_USE;

/* Open what `s` holds for looking only: data keys that can be opened are taken up. The number of
 * those that cannot, -1: not even the table can be read. */
int64_t seal_look(struct spool *s, struct err *e) TR_MUST_USE;

bool seal_on(const struct spool *s); /* new values are sealed */

/* Say what the next seal_put or seal_get is about. */
void seal_about(struct seal_room *room, enum seal_what what, const int64_t *numbers, size_t n);
void seal_about_record(struct seal_room *room, enum seal_what what, int64_t id, int64_t stream,
                       uint64_t number);
void seal_about_meta(struct seal_room *room, const struct spool_record_row *row);
void seal_about_value(struct seal_room *room, struct view space, struct view name);
/* The value to be stored, in place `i` of the room until the next one there. As it is without a
 * box. */
struct view seal_put(struct spool *s, struct seal_room *room, int i, struct view plain);
/* Append the value that was stored to `out`; and, with a place in the room, give it as a view. -1:
 * the seal is broken, which is logged and counted. */
int seal_open(struct spool *s, struct seal_room *room, bool sealed, struct view stored,
              struct str *out) TR_MUST_USE;
int seal_get(struct spool *s, struct seal_room *room, int i, bool sealed, struct view stored,
             struct view *plain) TR_MUST_USE;
void seal_room_fini(struct seal_room *room); /* wipes */

#endif
