#include "rt/metric_look.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include "base/bug.h"
#include "rt/metric_priv.h"

/* With the registry locked. */
static const struct metric_family *find(struct list *families, const char *name)
{
    struct list *it, *tmp;

    list_each (it, tmp, families) {
        struct metric_family *f = list_entry(it, struct metric_family, link);

        if (strcmp(f->name, name) == 0)
            return f;
    }
    return NULL;
}

void metric_each(const char *family, metric_look_fn fn, void *ctx)
{
    const struct metric_family *f = find(metric_registry_lock(), family);
    struct list *it, *tmp;

    if (f) {
        list_each (it, tmp, &f->series) {
            const struct metric *m = list_entry(it, struct metric, link);

            fn(ctx, (const char *const *)m->values, metric_value(m));
        }
    }
    metric_registry_unlock();
}

static void add_up(void *ctx, const char *const *values, double value)
{
    double *sum = ctx;

    (void)values;
    *sum += value;
}

double metric_total(const char *family)
{
    double sum = 0;

    metric_each(family, add_up, &sum);
    return sum;
}

static bool is_series(const struct metric *m, const char *const *values)
{
    size_t i;

    for (i = 0; i < m->family->n_labels; i++) {
        if (strcmp(m->values[i], values[i]) != 0)
            return false;
    }
    return true;
}

double metric_look(const char *family, ...)
{
    const struct metric_family *f = find(metric_registry_lock(), family);
    const char *values[METRIC_LABELS_MAX];
    struct list *it, *tmp;
    double out = 0;
    va_list ap;
    size_t i;

    va_start(ap, family);
    for (i = 0; i < METRIC_LABELS_MAX; i++)
        values[i] = f && i < f->n_labels ? va_arg(ap, const char *) : "";
    va_end(ap);
    if (f) {
        list_each (it, tmp, &f->series) {
            const struct metric *m = list_entry(it, struct metric, link);

            if (is_series(m, values))
                out = metric_value(m);
        }
    }
    metric_registry_unlock();
    return out;
}

static bool is_wanted(const struct metric *m, const char *const *values, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (strcmp(m->values[0], values[i]) == 0)
            return true;
    }
    return false;
}

void metric_look_counts(const char *family, const char *const *values, size_t n,
                        struct metric_counts *out)
{
    const struct metric_family *f = find(metric_registry_lock(), family);
    struct list *it, *tmp;
    size_t i;

    *out = (struct metric_counts){.n = 0};
    if (f && f->bounds) {
        ASSERT(f->n_bounds < METRIC_LOOK_BUCKETS && f->n_labels > 0);
        out->n = f->n_bounds + 1;
        for (i = 0; i < out->n; i++)
            out->bound[i] = i < f->n_bounds ? f->bounds[i] : (double)INFINITY;
        list_each (it, tmp, &f->series) {
            const struct metric *m = list_entry(it, struct metric, link);

            for (i = 0; is_wanted(m, values, n) && i < out->n; i++)
                out->count[i] += atomic_load_explicit(&m->bucket[i], memory_order_relaxed);
        }
    }
    metric_registry_unlock();
}

double metric_quantile(const struct metric_counts *before, const struct metric_counts *now,
                       double q)
{
    double total = 0, below = 0, in = 0, low;
    size_t i;

    for (i = 0; i < now->n; i++)
        total += (double)(now->count[i] - (before->n ? before->count[i] : 0));
    if (total <= 0)
        return (double)NAN;
    for (i = 0; i < now->n; i++) {
        in = (double)(now->count[i] - (before->n ? before->count[i] : 0));
        if (in > 0 && below + in >= q * total)
            break;
        below += in;
    }
    if (i >= now->n - 1) /* above all bounds: it is not known how far */
        return now->n > 1 ? now->bound[now->n - 2] : (double)NAN;
    low = i ? now->bound[i - 1] : 0;
    return low + (now->bound[i] - low) * (q * total - below) / in;
}
