/* The Retry-After field (RFC 9110 section 10.2.3). */
#ifndef TR_CODEC_RETRY_AFTER_H
#define TR_CODEC_RETRY_AFTER_H

#include <stdint.h>
#include "base/view.h"

enum { RETRY_AFTER_MOST_S = 300 }; /* a peer, or its clock, must not stop delivery for longer */

/*
 * Seconds to wait, RETRY_AFTER_MOST_S at most: of a number of seconds, or of a date in the form
 * that is to be sent today (section 5.6.7), seen from `wall_s`, seconds since 1970. 0: nothing was
 * said, the date is over, or it is neither.
 */
int retry_after_seconds(struct view value, int64_t wall_s);

#endif
