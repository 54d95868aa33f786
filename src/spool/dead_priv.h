/* Dead letters in the tables: their rows, and the notes on them. */
#ifndef TR_SPOOL_DEAD_PRIV_H
#define TR_SPOOL_DEAD_PRIV_H

#include "spool/spool_priv.h"

/* The space of values that holds the notes, by the letters' ids. */
#define DEAD_NOTES "dead"
void dead_note_name(int64_t record_id, uint8_t out[8]);

/* The columns of struct spool_dead_row, and one from a row of a query for them, without its note.
 */
#define SPOOL_DEAD_COLUMNS SPOOL_RECORD_COLUMNS ",reason,buried_at,account,key,sealed&2"
struct spool_dead_row recover_dead_row(struct spool *s, struct seal_room *room, sqlite3_stmt *q);

#endif
