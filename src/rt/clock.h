/* Time. Nanoseconds in int64_t; durations named _ms or _ns say their unit. Tests may set both
 * clocks. */
#ifndef TR_RT_CLOCK_H
#define TR_RT_CLOCK_H

#include <stdint.h>

#define NS_PER_MS  1000000LL
#define NS_PER_SEC 1000000000LL

int64_t clock_mono_ns(void); /* never goes back; CLOCK_MONOTONIC */
int64_t clock_wall_ns(void); /* since 1970, UTC */

/* From now on the clocks return these values; negative: the real ones again. Tests only. */
void clock_fake(int64_t mono_ns, int64_t wall_ns);

/* "2026-01-02T03:04:05.678Z" for a wall time; `out` has room for 25 bytes. */
void clock_format(int64_t wall_ns, char out[25]);

#endif
