/*
 * The ledger: the account of every line and every blob. It lives in the spool and changes in the
 * same transaction as the records it speaks of, so that after any crash
 *
 *     accepted = delivered + spooled + superseded + settled + late + refused + dead      (lines)
 *     accepted = delivered + spooled + repeated + broken + dead                          (blobs)
 */
#ifndef TR_SPOOL_LEDGER_H
#define TR_SPOOL_LEDGER_H

/* X(enum suffix, name in the database, family, state label, what it counts) */
#define LEDGER_ROWS(X)                                                                             \
    X(LINES_ACCEPTED, "lines_accepted", "lines", "accepted", "lines that came in")                 \
    X(LINES_DELIVERED, "lines_delivered", "lines", "delivered", "upstream has confirmed them")     \
    X(LINES_SPOOLED, "lines_spooled", "lines", "spooled", "wait in the spool")                     \
    X(LINES_SUPERSEDED, "lines_superseded", "lines", "superseded", "in a blob that was stored")    \
    X(LINES_SETTLED, "lines_settled", "lines", "settled", "added to the stream's blob")            \
    X(LINES_LATE, "lines_late", "lines", "late", "came after their stream's close was sent")       \
    X(LINES_REFUSED, "lines_refused", "lines", "refused",                                          \
      "refused for lack of space; the client was told")                                            \
    X(LINES_DEAD, "lines_dead", "lines", "dead",                                                   \
      "upstream refused them for good; kept as dead letters")                                      \
    X(LINES_RESENT, "lines_resent", "", "", "sent again because an answer was lost")               \
    X(BLOBS_ACCEPTED, "blobs_accepted", "blobs", "accepted", "uploads answered with success")      \
    X(BLOBS_DELIVERED, "blobs_delivered", "blobs", "delivered", "stored upstream")                 \
    X(BLOBS_SPOOLED, "blobs_spooled", "blobs", "spooled", "wait in the spool")                     \
    X(BLOBS_REPEATED, "blobs_repeated", "blobs", "repeated", "the same bytes again")               \
    X(BLOBS_BROKEN, "blobs_broken", "blobs", "broken", "a client's broken retry, not stored")      \
    X(BLOBS_DEAD, "blobs_dead", "blobs", "dead",                                                   \
      "upstream refused them for good; kept as dead letters")

enum ledger_row {
#define X(e, name, family, state, help) LEDGER_##e,
    LEDGER_ROWS(X)
#undef X
        LEDGER_N
};

#endif
