/*
 * Metrics, declared once with help and unit, updated from any thread without locks, read by the
 * admin listener. A family has a name (without the prefix `tailrace_`), a help text and labels
 * whose values are known when it is registered or are few and ours (a call, a status, a rule's
 * name); never a host, key or account.
 */
#ifndef TR_RT_METRIC_H
#define TR_RT_METRIC_H

#include <stdint.h>
#include "base/attrs.h"
#include "base/str.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
enum metric_format { METRIC_PROMETHEUS, METRIC_OPENMETRICS };

struct metric_family;
struct metric; /* one time series of a family */

/*
 * Register a family; kept for the life of the process. `labels`: names separated by commas, or "".
 * Counter names are given without `_total` (the exposition adds it). Registering the same name
 * again returns the same family. Any thread.
 */
struct metric_family *metric_family(enum metric_type type, const char *name, const char *labels,
                                    const char *help);

/* For a histogram family: upper bounds in rising order, copied. Before its first series. */
void metric_buckets(struct metric_family *f, const double *bounds, size_t n);

/* The usual latency bounds, in seconds: 0.5 ms to 60 s. */
extern const double metric_latency_buckets[];
extern const size_t metric_latency_buckets_n;

/* The series with these label values (as many as the family has labels), made at the first call;
 * keep the pointer on hot paths. At most METRIC_SERIES_MAX in a family; past that the series with
 * every value "other" is returned. Any thread. */
enum { METRIC_SERIES_MAX = 512 };
struct metric *metric_series(struct metric_family *f, ...);           /* const char * values */
struct metric *metric_get(struct metric_family *f, const char *const *values);

void metric_add(struct metric *m, uint64_t n);       /* counters */
void metric_set(struct metric *m, double value);     /* gauges */
void metric_shift(struct metric *m, int64_t delta);  /* gauges that count things */
void metric_observe(struct metric *m, double value); /* histograms */
double metric_value(const struct metric *m);         /* current value of a counter or gauge */
uint64_t metric_count(const struct metric *m);       /* observations of a histogram */

/* Called at each exposition, before families are written, to set gauges from state; `ctx` is the
 * caller's. Collectors run in the scraping thread, in the order they were added. */
typedef void (*metric_collect_fn)(void *ctx);
void metric_collector_add(metric_collect_fn fn, void *ctx);
void metric_collector_remove(metric_collect_fn fn, void *ctx);

/* Append the whole exposition to `out`. The collectors run first. */
void metric_expose(struct str *out, enum metric_format format);

#endif
