/* Numbers for people. JSON's null, and what is not there, is "-". */
#ifndef TR_CTL_HUMAN_H
#define TR_CTL_HUMAN_H

#include <jansson.h>

struct human {
    char text[32];
};

struct human human_count(const json_t *value);   /* 9999, 12.3k, 1.2M */
struct human human_exact(const json_t *value);   /* 12,345,678 */
struct human human_bytes(const json_t *value);   /* 512 B, 1.2 MiB */
struct human human_seconds(const json_t *value); /* 0.8ms, 250ms, 1.5s, 42s, 12m05s, 3h20m, 2d04h */
struct human human_rate(const json_t *value);    /* 0.4, 12, 1.2k: things a second */
/* Of an RFC 3339 time: "14:03:07" today, "Nov 21 14:03" this year, else the date; all in UTC, as of
 * `now`, which is such a time too. What is no time is shown as it is. */
struct human human_time(const json_t *value, const char *now);

/* How long ago such a time was, at `now`. */
struct human human_age(const json_t *value, const char *now);

struct human human_count_of(double value);
struct human human_rate_of(double value);
struct human human_bytes_of(double value);
struct human human_seconds_of(double value);

#endif
