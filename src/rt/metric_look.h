/*
 * Looking at metrics by name, for reports: what they say is then what a scrape of the same moment
 * says. Any thread.
 */
#ifndef TR_RT_METRIC_LOOK_H
#define TR_RT_METRIC_LOOK_H

#include <stddef.h>
#include <stdint.h>
#include "rt/metric.h"

/* Run the collectors, as an exposition does: once, before a look at values that belong together. */
void metric_collect(void);

/* The value of the counter or gauge with these label values (as many as the family has labels; name
 * without prefix). What has never been counted is 0. */
double metric_look(const char *family, ...); /* const char * values */
/* The sum over all series of a family of counters or gauges. */
double metric_total(const char *family);
/* Each series of a family of counters or gauges, in the order in which they were made. `fn` must
 * not call anything of the registry. */
typedef void (*metric_look_fn)(void *ctx, const char *const *values, double value);
void metric_each(const char *family, metric_look_fn fn, void *ctx);

/* The counts of a histogram's buckets, those of all series whose first label is one of `n` values
 * added up. */
enum { METRIC_LOOK_BUCKETS = 32 };
struct metric_counts {
    uint64_t count[METRIC_LOOK_BUCKETS]; /* in each bucket, not cumulated */
    double bound[METRIC_LOOK_BUCKETS];   /* its upper one; the last is infinite */
    size_t n;                            /* 0: there is no such family yet */
};
void metric_look_counts(const char *family, const char *const *values, size_t n,
                        struct metric_counts *out);
/* The value below which a share `q` (0 to 1) of what was observed between two looks lies, straight
 * within a bucket, as histogram_quantile of Prometheus has it; NaN: nothing was observed. `before`
 * may have n = 0. */
double metric_quantile(const struct metric_counts *before, const struct metric_counts *now,
                       double q);

#endif
