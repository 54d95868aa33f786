/* The parts of the screen that says how the gateway is, for `status` and `top`. Each appends to a
 * page what the gateway's `status` answer holds of it. */
#ifndef TR_CTL_STATUS_H
#define TR_CTL_STATUS_H

#include "ctl/ctl.h"

/* In a word or two: well, draining, how many problems. And what it is that is so. */
void status_verdict(struct page *p, const json_t *status);
/* At most so many problems, in full or in a line each. */
void status_problems(struct page *p, const json_t *status, size_t most, bool full);
/* Where accepted lines and logs are, beside what waits and how fast it goes. */
void status_figures(struct page *p, const json_t *status);
/* The same in four lines. */
void status_short(struct page *p, const json_t *status);
void status_upstreams(struct page *p, const json_t *status, size_t rows);
void status_listeners(struct page *p, const json_t *status);

/* Tables of single answers (lists.c); `now` as in human_time. */
void list_streams(struct page *p, const json_t *answer, const char *now, size_t rows);
void list_tunnels(struct page *p, const json_t *answer, size_t rows);
void list_denials(struct page *p, const json_t *answer, const char *now, size_t rows);

/* A line of bars, as wide as `width`: of `name` in each of `points` (history.c). */
void history_bars(struct page *p, const json_t *points, const char *name, size_t width);

/* The paint of a state of an upstream, of a problem's severity, ... */
enum paint status_paint(const char *state);
/* This machine's time, as the gateway tells it. */
void status_now(char now[25]);

#endif
