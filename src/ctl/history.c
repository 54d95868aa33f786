/* tailracectl history: the last hour as lines of bars. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "ctl/commands.h"
#include "ctl/human.h"
#include "ctl/status.h"

#define GET json_object_get

enum { LEVELS = 8, NAME = 22, FIGURES = 26, BARS_LEAST = 20, BARS_MOST = 180 };

static const struct {
    const char *name, *title;
    struct human (*show)(double value);
} rows[] = {
    {"lines_in", "lines a second in", human_rate_of},
    {"lines_out", "lines a second out", human_rate_of},
    {"ack_p50_seconds", "half answered within", human_seconds_of},
    {"ack_p99_seconds", "99% answered within", human_seconds_of},
    {"spooled_lines", "lines that wait", human_count_of},
    {"spool_bytes", "spool", human_bytes_of},
    {"oldest_seconds", "oldest waits for", human_seconds_of},
    {"tunnels", "tunnels", human_count_of},
    {"denied", "denied a second", human_rate_of},
};

/* The largest value of the points that bar `i` of `bars` stands for; NAN: none has any. */
static double bar_value(const json_t *points, const char *name, size_t i, size_t bars)
{
    size_t n = json_array_size(points), from = i * n / bars, to = (i + 1) * n / bars;
    double most = NAN;

    for (to = TR_MAX(to, from + 1); from < to; from++) {
        const json_t *v = GET(json_array_get(points, from), name);

        if (json_is_number(v))
            most = fmax(most, json_number_value(v));
    }
    return most;
}

static double largest(const json_t *points, const char *name)
{
    return bar_value(points, name, 0, 1);
}

static void add_bar(struct str *out, double value, double most, bool utf8)
{
    static const char ascii[] = "_.-:=+*#";
    int level;

    if (isnan(value)) {
        str_addc(out, ' ');
        return;
    }
    level = most > 0 ? (int)(value / most * (LEVELS - 1) + 0.5) : 0;
    if (value > 0 && level == 0)
        level = 1; /* something is more than nothing */
    level = TR_MAX(0, TR_MIN(level, LEVELS - 1));
    if (utf8)
        str_addf(out, "\xe2\x96%c", 0x81 + level);
    else
        str_addc(out, ascii[level]);
}

void history_bars(struct page *p, const json_t *points, const char *name, size_t width)
{
    size_t n = json_array_size(points), bars = TR_MIN(n, width), i;
    double most = largest(points, name);
    struct str text = STR_INIT;

    for (i = 0; i < bars; i++)
        add_bar(&text, bar_value(points, name, i, bars), most, page_look(p)->utf8);
    page_add(p, PLAIN, str_c(&text));
    str_fini(&text);
}

/* The points of the last so many minutes; the caller's. */
static json_t *last_minutes(const json_t *answer, const char *minutes)
{
    json_t *points = GET(answer, "points"), *last = json_array();
    double step = json_number_value(GET(answer, "step_seconds"));
    size_t n = json_array_size(points), i, from = 0;
    double wanted = minutes && step > 0 ? strtod(minutes, NULL) * 60 / step : (double)n;

    if (wanted < (double)n)
        from = n - (size_t)wanted;
    for (i = from; i < n; i++)
        json_array_append(last, json_array_get(points, i));
    return last;
}

static void show_row(struct page *p, size_t i, const json_t *points, size_t width)
{
    size_t n = json_array_size(points);
    const json_t *now = GET(json_array_get(points, n - 1), rows[i].name);
    double most = largest(points, rows[i].name);

    page_add(p, DIM, rows[i].title);
    page_to(p, NAME);
    history_bars(p, points, rows[i].name, width);
    page_to(p, NAME + TR_MIN(n, width) + 2);
    page_addf(p, PLAIN, "now %s",
              rows[i].show(json_is_number(now) ? json_number_value(now) : NAN).text);
    page_addf(p, DIM, ", most %s", rows[i].show(most).text);
    page_end(p);
}

static void show_history(struct ctl *c, struct page *p, const json_t *answer)
{
    json_t *points = last_minutes(answer, c->minutes);
    size_t n = json_array_size(points), i, width = BARS_MOST;
    double step = json_number_value(GET(answer, "step_seconds"));

    if (page_width(p))
        width = page_width(p) > NAME + FIGURES + BARS_LEAST ? page_width(p) - NAME - FIGURES
                                                            : BARS_LEAST;
    if (n == 0)
        page_line(p, PLAIN, "nothing yet: the first figures come some seconds after the start");
    for (i = 0; n > 0 && i < ARRAY_LEN(rows); i++)
        show_row(p, i, points, width);
    if (n > 0) {
        page_addf(p, DIM, "the last %s, the newest to the right",
                  human_seconds_of((double)n * step).text);
        page_end(p);
    }
    json_decref(points);
}

int ctl_run_history(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return ctl_show(c, "GET", "history", show_history);
}
