/* The last hour in steps of ten seconds, from the metrics. For the main thread. */
#ifndef TR_APP_HISTORY_H
#define TR_APP_HISTORY_H

#include <stddef.h>
#include <stdint.h>
#include "base/str.h"
#include "rt/json.h"
#include "rt/metric_look.h"

enum { HISTORY_POINTS = 360, HISTORY_STEP_S = 10 };

struct history_point {
    int64_t at;                         /* wall time */
    double lines_in, lines_out, denied; /* in a second */
    double ack_p50, ack_p99;            /* seconds; NaN: no call was answered */
    double spooled_lines, spool_bytes, oldest_seconds, tunnels;
};

struct history {
    struct history_point points[HISTORY_POINTS]; /* a ring */
    size_t n, at;                                /* `at`: where the next one goes */
    /* as of the last step */
    int64_t mono; /* 0: there was none */
    double in, out, denied;
    struct metric_counts acks;
};

/* Take a step: to be called every HISTORY_STEP_S. The first one only says where to count from. */
void history_step(struct history *h);

const struct history_point *history_newest(const struct history *h); /* NULL: there is none yet */
/* {"step_seconds", "from", "points"}: the newest `last` points, oldest first. */
void history_json(const struct history *h, size_t last, struct json *j);

#endif
