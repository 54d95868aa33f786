/* What metric.c and metric_expose.c share. */
#ifndef TR_RT_METRIC_PRIV_H
#define TR_RT_METRIC_PRIV_H

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
    struct list link; /* in the registry, by name */
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

/* All families, sorted by name. Locked: none is added to, nor a series to one of them, until
 * metric_registry_unlock. Values change all the same. */
struct list *metric_registry_lock(void);
void metric_registry_unlock(void);

/* The double whose bits are there. */
double metric_bits_load(const _Atomic uint64_t *bits);

#endif
