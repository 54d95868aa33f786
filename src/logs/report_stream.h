/* One stream, as reports show and sort it. The owner's thread. */
#ifndef TR_LOGS_REPORT_STREAM_H
#define TR_LOGS_REPORT_STREAM_H

#include "base/view.h"
#include "logs/shard.h"

enum report_state { /* which streams are wanted */
                    REPORT_ALL,
                    REPORT_WAITING, /* something is to be delivered */
                    REPORT_OPEN,
                    REPORT_CLOSED, /* closed or closing, or ended by itself */
                    REPORT_HELD,   /* the credential is refused */
                    REPORT_DEAD,   /* something of it became a dead letter */
};

enum report_sort {
    REPORT_AGE,     /* what has waited longest first */
    REPORT_BACKLOG, /* most lines that wait first */
    REPORT_NAME,
    REPORT_IDLE,   /* longest without a call first */
    REPORT_RECENT, /* the last call first */
};

bool report_stream_wanted(const struct stream *s, enum report_state state, struct view search,
                          int64_t mono);
/* "open", "ended", "closing", "closed" or "held". Static. */
const char *report_stream_state(const struct stream *s, int64_t mono);
/* Lower ones come first; the same ones by account and key. */
uint64_t report_stream_rank(const struct stream *s, enum report_sort sort);
/* One JSON object. `detail`: with all that is known of it. */
void report_stream_json(const struct stream *s, struct stream_now now, bool detail,
                        struct str *out);

/* Does `text` hold `part`, which is in small letters (ASCII)? */
bool report_holds(struct view text, struct view part);

#endif
