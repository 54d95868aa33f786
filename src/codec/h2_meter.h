/*
 * Counts the frames of an HTTP/2 client before they reach the library, by their headers only
 * (RFC 9113 §4.1), and says when a peer sends more of a kind than honest ones do. Independent of
 * what the library of the day limits by itself.
 */
#ifndef TR_CODEC_H2_METER_H
#define TR_CODEC_H2_METER_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/view.h"

struct h2_meter {
    uint8_t head[9]; /* of the frame at hand */
    unsigned have;   /* of its bytes */
    unsigned magic;  /* bytes of the client's preface that were seen */
    uint32_t left;   /* of its payload */
    uint32_t block;  /* bytes of the header block at hand, with its continuations */
    int64_t since;   /* begin of the interval that the counters are of */
    unsigned resets;
    unsigned control;
    unsigned updates;    /* WINDOW_UPDATE frames that our DATA frames account for */
    unsigned pings;      /* PING frames that they account for */
    unsigned max_resets; /* 0: H2_MAX_RESETS */
};

/* Go through bytes as they come, in any pieces. 0, or -1 with ERR_LIMIT: close the connection. */
int h2_meter_feed(struct h2_meter *m, struct view in, int64_t now_ns, struct err *e) TR_MUST_USE;

/* A stream was reset because of what the peer did, although it did not send RST_STREAM itself. */
void h2_meter_reset(struct h2_meter *m);
/* Something else happened that cost us a frame and the peer nothing. */
void h2_meter_control(struct h2_meter *m);
/* A DATA frame was sent: the peer owes us WINDOW_UPDATEs. */
void h2_meter_data_sent(struct h2_meter *m);

#endif
