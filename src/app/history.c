#include "app/history.h"

#include "base/attrs.h"
#include "rt/clock.h"

/* Calls that are answered when they are durable. An open may ask upstream first. */
static const char *const durable_calls[] = {"lines", "blob", "ticket", "close"};

/* Lines that upstream has: as they are, in the stream's log, or added to it. */
static double lines_out(void)
{
    return metric_look("ledger_lines", "delivered") + metric_look("ledger_lines", "superseded") +
           metric_look("ledger_lines", "settled");
}

static void fill(struct history *h, struct history_point *p, double seconds)
{
    const struct metric_counts before = h->acks;
    const double in = h->in, out = h->out, denied = h->denied;

    h->in = metric_look("ledger_lines", "accepted");
    h->out = lines_out();
    h->denied = metric_total("denied");
    metric_look_counts("ack_seconds", durable_calls, ARRAY_LEN(durable_calls), &h->acks);
    *p = (struct history_point){
        .at = clock_wall_ns(),
        .lines_in = TR_MAX(h->in - in, 0) / seconds,
        .lines_out = TR_MAX(h->out - out, 0) / seconds,
        .denied = TR_MAX(h->denied - denied, 0) / seconds,
        .ack_p50 = metric_quantile(&before, &h->acks, 0.5),
        .ack_p99 = metric_quantile(&before, &h->acks, 0.99),
        .spooled_lines = metric_look("ledger_lines", "spooled"),
        .spool_bytes = metric_look("spool_bytes"),
        .oldest_seconds = metric_look("spool_oldest_seconds"),
        .tunnels = metric_total("tunnels"),
    };
}

void history_step(struct history *h)
{
    const int64_t now = clock_mono_ns(), before = h->mono;
    struct history_point p;

    metric_collect();
    h->mono = now;
    if (before && now <= before)
        return;
    fill(h, &p, before ? (double)(now - before) / NS_PER_SEC : 1);
    if (!before)
        return;
    h->points[h->at] = p;
    h->at = (h->at + 1) % HISTORY_POINTS;
    h->n = TR_MIN(h->n + 1, (size_t)HISTORY_POINTS);
}

static const struct history_point *point(const struct history *h, size_t back)
{
    return &h->points[(h->at + HISTORY_POINTS - back) % HISTORY_POINTS];
}

const struct history_point *history_newest(const struct history *h)
{
    return h->n ? point(h, 1) : NULL;
}

static void add_point(struct json *j, const struct history_point *p)
{
    json_open(j, NULL, '{');
    json_time(j, "time", p->at);
    json_num(j, "lines_in", p->lines_in);
    json_num(j, "lines_out", p->lines_out);
    json_num(j, "ack_p50_seconds", p->ack_p50);
    json_num(j, "ack_p99_seconds", p->ack_p99);
    json_num(j, "spooled_lines", p->spooled_lines);
    json_num(j, "spool_bytes", p->spool_bytes);
    json_num(j, "oldest_seconds", p->oldest_seconds);
    json_num(j, "tunnels", p->tunnels);
    json_num(j, "denied", p->denied);
    json_close(j, '}');
}

void history_json(const struct history *h, size_t last, struct json *j)
{
    size_t back = TR_MIN(last, h->n);

    json_open(j, NULL, '{');
    json_uint(j, "step_seconds", HISTORY_STEP_S);
    json_time(j, "from", back ? point(h, back)->at : 0);
    json_open(j, "points", '[');
    for (; back > 0; back--)
        add_point(j, point(h, back));
    json_close(j, ']');
    json_close(j, '}');
}
