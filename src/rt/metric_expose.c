/*
 * Text exposition: Prometheus 0.0.4 and OpenMetrics 1.0. They differ in where `_total` stands for
 * a counter (samples only in OpenMetrics, the family's name too in Prometheus), in the escapes of
 * the help text, in the spelling of whole numbers in `le` and in the end mark.
 */
#include "rt/metric_priv.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/bug.h"
#include "base/utf8.h"
#include "base/xmem.h"
#include "rt/metric_look.h"

#define PREFIX "tailrace_"

struct collector {
    struct list link;
    metric_collect_fn fn;
    void *ctx;
};

/* Held while collectors run, so that one that was removed is not running any more. */
static pthread_mutex_t collect_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list collectors = {&collectors, &collectors};

void metric_collector_add(metric_collect_fn fn, void *ctx)
{
    struct collector *c = XNEW(struct collector);

    c->fn = fn;
    c->ctx = ctx;
    pthread_mutex_lock(&collect_lock);
    list_append(&collectors, &c->link);
    pthread_mutex_unlock(&collect_lock);
}

void metric_collector_remove(metric_collect_fn fn, void *ctx)
{
    struct list *it, *tmp;

    pthread_mutex_lock(&collect_lock);
    list_each(it, tmp, &collectors) {
        struct collector *c = list_entry(it, struct collector, link);

        if (c->fn == fn && c->ctx == ctx) {
            list_remove(&c->link);
            xfree(c);
            break;
        }
    }
    pthread_mutex_unlock(&collect_lock);
}

void metric_collect(void)
{
    struct list *it, *tmp;

    pthread_mutex_lock(&collect_lock);
    list_each(it, tmp, &collectors) {
        struct collector *c = list_entry(it, struct collector, link);

        c->fn(c->ctx);
    }
    pthread_mutex_unlock(&collect_lock);
}

/* Backslash and newline always, quotes on request. Bytes that are not UTF-8 are replaced: one bad
 * value must not make the whole scrape unreadable. */
static void add_escaped(struct str *out, const char *s, bool quotes)
{
    size_t left = strlen(s);

    while (left) {
        size_t len = utf8_length(s, left);

        if (*s == '\\')
            str_adds(out, "\\\\");
        else if (*s == '\n')
            str_adds(out, "\\n");
        else if (*s == '"' && quotes)
            str_adds(out, "\\\"");
        else if (len)
            str_add(out, s, len);
        else
            str_adds(out, "\xef\xbf\xbd");
        s += len ? len : 1;
        left -= len ? len : 1;
    }
}

/* The shortest spelling that reads back to the same double. */
static void add_double(struct str *out, double d, bool with_point)
{
    char num[40];

    if (isnan(d)) {
        str_adds(out, "NaN");
        return;
    }
    if (isinf(d)) {
        str_adds(out, d > 0 ? "+Inf" : "-Inf");
        return;
    }
    snprintf(num, sizeof(num), "%.15g", d);
    if (strtod(num, NULL) != d)
        snprintf(num, sizeof(num), "%.17g", d);
    str_adds(out, num);
    if (with_point && !strpbrk(num, ".e"))
        str_adds(out, ".0");
}

/* "{a="x",le="0.5"}", or nothing if there are no labels. */
static void add_labels(struct str *out, const struct metric *m, const char *le)
{
    const struct metric_family *f = m->family;
    size_t i;

    if (f->n_labels == 0 && !le)
        return;
    str_addc(out, '{');
    for (i = 0; i < f->n_labels; i++) {
        str_addf(out, "%s%s=\"", i ? "," : "", f->labels[i]);
        add_escaped(out, m->values[i], true);
        str_addc(out, '"');
    }
    if (le)
        str_addf(out, "%sle=\"%s\"", f->n_labels ? "," : "", le);
    str_addc(out, '}');
}

static void add_sample(struct str *out, const struct metric *m, const char *suffix, const char *le)
{
    str_addf(out, PREFIX "%s%s", m->family->name, suffix);
    add_labels(out, m, le);
    str_addc(out, ' ');
}

/* `_count` is the last bucket by construction, whatever is observed meanwhile. */
static void expose_histogram(struct str *out, const struct metric *m, enum metric_format format)
{
    const struct metric_family *f = m->family;
    struct str le = STR_INIT;
    uint64_t total = 0;
    size_t i;

    for (i = 0; i <= f->n_bounds; i++) {
        total += atomic_load_explicit(&m->bucket[i], memory_order_relaxed);
        str_clear(&le);
        add_double(&le, i < f->n_bounds ? f->bounds[i] : (double)INFINITY,
                   format == METRIC_OPENMETRICS);
        add_sample(out, m, "_bucket", str_c(&le));
        str_addf(out, "%" PRIu64 "\n", total);
    }
    add_sample(out, m, "_sum", NULL);
    add_double(out, metric_bits_load(&m->sum), false);
    str_addc(out, '\n');
    add_sample(out, m, "_count", NULL);
    str_addf(out, "%" PRIu64 "\n", total);
    str_fini(&le);
}

static void expose_series(struct str *out, const struct metric *m, enum metric_format format)
{
    switch (m->family->type) {
    case METRIC_COUNTER:
        add_sample(out, m, "_total", NULL);
        str_addf(out, "%" PRIu64 "\n", atomic_load_explicit(&m->n, memory_order_relaxed));
        return;
    case METRIC_GAUGE:
        add_sample(out, m, "", NULL);
        add_double(out, metric_bits_load(&m->n), false);
        str_addc(out, '\n');
        return;
    case METRIC_HISTOGRAM:
        expose_histogram(out, m, format);
        return;
    }
    BUG("unknown type of metric");
}

static void expose_family(struct str *out, const struct metric_family *f, enum metric_format format)
{
    static const char *const types[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram",
    };
    bool open = format == METRIC_OPENMETRICS;
    const char *suffix = f->type == METRIC_COUNTER && !open ? "_total" : "";
    struct list *it, *tmp;

    str_addf(out, "# HELP " PREFIX "%s%s ", f->name, suffix);
    add_escaped(out, f->help, open);
    str_addf(out, "\n# TYPE " PREFIX "%s%s %s\n", f->name, suffix, types[f->type]);
    list_each(it, tmp, &f->series)
        expose_series(out, list_entry(it, struct metric, link), format);
}

void metric_expose(struct str *out, enum metric_format format)
{
    struct list *all, *it, *tmp;

    metric_collect();
    all = metric_registry_lock();
    list_each(it, tmp, all) {
        const struct metric_family *f = list_entry(it, struct metric_family, link);

        if (!list_empty(&f->series))
            expose_family(out, f, format);
    }
    metric_registry_unlock();
    if (format == METRIC_OPENMETRICS)
        str_adds(out, "# EOF\n");
}
