/* What metric.c and metric_expose.c share. */
#ifndef TR_RT_METRIC_PRIV_H
#define TR_RT_METRIC_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include "base/hmap.h"
#include "base/list.h"
#include "rt/metric.h"

enum { METRIC_LABELS_MAX = 6 };

struct metric {
    struct list link; /* in the family's series, in order of creation */
    struct hnode node;
    struct metric_family *family;
    char *values[METRIC_LABELS_MAX];
    _Atomic uint64_t n;    /* counter: its value; gauge: the bits of a double */
    _Atomic uint64_t sum;  /* histogram: the bits of a double */
    _Atomic uint64_t *bucket; /* histogram: n_bounds + 1 counts, the last above every bound */
};

struct metric_family {
    struct list link; /* in metric_registry, by name */
    enum metric_type type;
    char *name;
    char *help;
    char *labels[METRIC_LABELS_MAX];
    size_t n_labels;
    double *bounds;
    size_t n_bounds;
    struct list series;
    struct hmap by_values;
};

/* Held for everything but updates of a series that exists. */
extern pthread_mutex_t metric_lock;

/* All families, sorted by name. Initialised by the first registration. */
struct list *metric_registry(void);

double metric_bits_load(const _Atomic uint64_t *bits);

#endif
