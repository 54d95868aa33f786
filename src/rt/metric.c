#include "rt/metric.h"

#include <ctype.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include "base/bug.h"
#include "base/hash.h"
#include "base/xmem.h"
#include "rt/metric_priv.h"

/* Held for everything but updates of a series that exists. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

const double metric_latency_buckets[] = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
};
const size_t metric_latency_buckets_n = ARRAY_LEN(metric_latency_buckets);

/* Sorted by name. */
static struct list families = {&families, &families};

struct list *metric_registry_lock(void)
{
    pthread_mutex_lock(&lock);
    return &families;
}

void metric_registry_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

double metric_bits_load(const _Atomic uint64_t *bits)
{
    uint64_t u = atomic_load_explicit(bits, memory_order_relaxed);
    double d;

    memcpy(&d, &u, sizeof(d));
    return d;
}

static uint64_t to_bits(double d)
{
    uint64_t u;

    memcpy(&u, &d, sizeof(u));
    return u;
}

static void bits_add(_Atomic uint64_t *bits, double delta)
{
    uint64_t old = atomic_load_explicit(bits, memory_order_relaxed);
    double d;

    do {
        memcpy(&d, &old, sizeof(d));
    } while (!atomic_compare_exchange_weak_explicit(bits, &old, to_bits(d + delta),
                                                    memory_order_relaxed, memory_order_relaxed));
}

static bool name_ok(const char *s)
{
    if (!isalpha((unsigned char)*s) && *s != '_')
        return false;
    for (; *s; s++) {
        if (!isalnum((unsigned char)*s) && *s != '_')
            return false;
    }
    return true;
}

/* The family of that name, or NULL with `*before` set to the place to insert it at. */
static struct metric_family *find_family(const char *name, struct list **before)
{
    struct list *it, *tmp;

    list_each(it, tmp, &families) {
        struct metric_family *f = list_entry(it, struct metric_family, link);
        int order = strcmp(f->name, name);

        if (order == 0)
            return f;
        if (order > 0)
            break;
    }
    *before = it;
    return NULL;
}

static void split_labels(struct metric_family *f, const char *labels)
{
    while (*labels) {
        size_t n = strcspn(labels, ",");

        ASSERT(f->n_labels < METRIC_LABELS_MAX);
        f->labels[f->n_labels] = xmemdup0(labels, n);
        ASSERT(name_ok(f->labels[f->n_labels]));
        f->n_labels++;
        labels += n;
        if (*labels == ',')
            labels++;
    }
}

static struct metric_family *family_new(enum metric_type type, const char *name, const char *labels,
                                        const char *help)
{
    struct metric_family *f = XNEW(struct metric_family);

    ASSERT(name_ok(name));
    ASSERT(!view_ends(view_str(name), VIEW_LIT("_total")));
    f->type = type;
    f->name = xstrdup(name);
    f->help = xstrdup(help);
    split_labels(f, labels);
    list_init(&f->series);
    return f;
}

static bool same_labels(const struct metric_family *f, const char *labels)
{
    size_t i;

    for (i = 0; i < f->n_labels; i++) {
        size_t n = strcspn(labels, ",");

        if (!view_eq(view_str(f->labels[i]), view_of(labels, n)))
            return false;
        labels += n + (labels[n] == ',');
    }
    return *labels == '\0';
}

static struct metric *series_find(const struct metric_family *f, const char *const *values,
                                  uint64_t hash)
{
    struct hnode *n;

    for (n = hmap_first(&f->by_values, hash); n; n = hmap_next(n, hash)) {
        struct metric *m = hmap_entry(n, struct metric, node);
        size_t i = 0;

        while (i < f->n_labels && strcmp(m->values[i], values[i]) == 0)
            i++;
        if (i == f->n_labels)
            return m;
    }
    return NULL;
}

static uint64_t values_hash(const struct metric_family *f, const char *const *values)
{
    uint64_t h = 0;
    size_t i;

    for (i = 0; i < f->n_labels; i++)
        h = h * 31 + hash_bytes(values[i], strlen(values[i]));
    return h;
}

static struct metric *series_new(struct metric_family *f, const char *const *values, uint64_t hash)
{
    struct metric *m = XNEW(struct metric);
    size_t i;

    m->family = f;
    for (i = 0; i < f->n_labels; i++)
        m->values[i] = xstrdup(values[i]);
    if (f->type == METRIC_HISTOGRAM) {
        if (!f->bounds) {
            f->n_bounds = metric_latency_buckets_n;
            f->bounds = xcalloc(f->n_bounds, sizeof(*f->bounds));
            memcpy(f->bounds, metric_latency_buckets, f->n_bounds * sizeof(*f->bounds));
        }
        m->bucket = xcalloc(f->n_bounds + 1, sizeof(*m->bucket));
    }
    list_append(&f->series, &m->link);
    hmap_insert(&f->by_values, &m->node, hash);
    return m;
}

static struct metric *series_get(struct metric_family *f, const char *const *values)
{
    static const char *const other[METRIC_LABELS_MAX] = {
        "other", "other", "other", "other", "other", "other",
    };
    uint64_t hash = values_hash(f, values);
    struct metric *m = series_find(f, values, hash);

    if (m)
        return m;
    if (f->by_values.count < METRIC_SERIES_MAX - 1)
        return series_new(f, values, hash);
    hash = values_hash(f, other);
    m = series_find(f, other, hash);
    return m ? m : series_new(f, other, hash);
}

struct metric_family *metric_family(enum metric_type type, const char *name, const char *labels,
                                    const char *help)
{
    struct metric_family *f;
    struct list *before;

    pthread_mutex_lock(&lock);
    f = find_family(name, &before);
    if (f) {
        ASSERT(f->type == type && same_labels(f, labels));
    } else {
        f = family_new(type, name, labels, help);
        list_insert_before(before, &f->link);
    }
    pthread_mutex_unlock(&lock);
    return f;
}

void metric_buckets(struct metric_family *f, const double *bounds, size_t n)
{
    size_t i;

    ASSERT(f->type == METRIC_HISTOGRAM && n > 0);
    for (i = 1; i < n; i++)
        ASSERT(bounds[i - 1] < bounds[i]);
    pthread_mutex_lock(&lock);
    if (f->bounds) {
        ASSERT(f->n_bounds == n && memcmp(f->bounds, bounds, n * sizeof(*bounds)) == 0);
    } else {
        f->bounds = xcalloc(n, sizeof(*bounds));
        memcpy(f->bounds, bounds, n * sizeof(*bounds));
        f->n_bounds = n;
    }
    pthread_mutex_unlock(&lock);
}

struct metric *metric_get(struct metric_family *f, const char *const *values)
{
    struct metric *m;

    pthread_mutex_lock(&lock);
    m = series_get(f, values);
    pthread_mutex_unlock(&lock);
    return m;
}

struct metric *metric_series(struct metric_family *f, ...)
{
    const char *values[METRIC_LABELS_MAX];
    va_list ap;
    size_t i;

    va_start(ap, f);
    for (i = 0; i < f->n_labels; i++)
        values[i] = va_arg(ap, const char *);
    va_end(ap);
    return metric_get(f, values);
}

void metric_add(struct metric *m, uint64_t n)
{
    ASSERT(m->family->type == METRIC_COUNTER);
    atomic_fetch_add_explicit(&m->n, n, memory_order_relaxed);
}

void metric_set(struct metric *m, double value)
{
    ASSERT(m->family->type == METRIC_GAUGE);
    atomic_store_explicit(&m->n, to_bits(value), memory_order_relaxed);
}

void metric_shift(struct metric *m, int64_t delta)
{
    ASSERT(m->family->type == METRIC_GAUGE);
    bits_add(&m->n, (double)delta);
}

void metric_observe(struct metric *m, double value)
{
    const struct metric_family *f = m->family;
    size_t i = 0;

    ASSERT(f->type == METRIC_HISTOGRAM);
    while (i < f->n_bounds && !(value <= f->bounds[i]))
        i++;
    bits_add(&m->sum, value);
    atomic_fetch_add_explicit(&m->bucket[i], 1, memory_order_relaxed);
}

double metric_value(const struct metric *m)
{
    ASSERT(m->family->type != METRIC_HISTOGRAM);
    if (m->family->type == METRIC_COUNTER)
        return (double)atomic_load_explicit(&m->n, memory_order_relaxed);
    return metric_bits_load(&m->n);
}

uint64_t metric_count(const struct metric *m)
{
    uint64_t n = 0;
    size_t i;

    ASSERT(m->family->type == METRIC_HISTOGRAM);
    for (i = 0; i <= m->family->n_bounds; i++)
        n += atomic_load_explicit(&m->bucket[i], memory_order_relaxed);
    return n;
}
