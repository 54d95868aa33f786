#include "ctl/human.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/attrs.h"

static const struct human unknown = {"-"};

/* Three digits at most, and no more of them than there are: 1.2, 12, 123. */
static void three_digits(struct human *h, double value, const char *unit)
{
    snprintf(h->text, sizeof(h->text), value < 9.95 ? "%.1f%s" : "%.0f%s", value, unit);
}

struct human human_count_of(double value)
{
    static const char *const units[] = {"k", "M", "G", "T", "P"};
    struct human h;
    size_t i = 0;

    if (!(value >= 0))
        return unknown;
    if (value < 9999.5) {
        snprintf(h.text, sizeof(h.text), "%.0f", value);
        return h;
    }
    value /= 1000;
    while (value >= 999.5 && i + 1 < ARRAY_LEN(units)) {
        value /= 1000;
        i++;
    }
    snprintf(h.text, sizeof(h.text), value < 99.95 ? "%.1f%s" : "%.0f%s", value, units[i]);
    return h;
}

struct human human_bytes_of(double value)
{
    static const char *const units[] = {" KiB", " MiB", " GiB", " TiB", " PiB"};
    struct human h;
    size_t i = 0;

    if (!(value >= 0))
        return unknown;
    if (value < 1024) {
        snprintf(h.text, sizeof(h.text), "%.0f B", value);
        return h;
    }
    value /= 1024;
    while (value >= 999.5 && i + 1 < ARRAY_LEN(units)) {
        value /= 1024;
        i++;
    }
    three_digits(&h, value, units[i]);
    return h;
}

/* Two units next to each other: 3h20m. */
static void two_units(struct human *h, double value, double large, const char *const *names)
{
    double whole = floor(value / large);

    snprintf(h->text, sizeof(h->text), "%.0f%s%02.0f%s", whole, names[0], value - whole * large,
             names[1]);
}

struct human human_seconds_of(double s)
{
    static const char *const minutes[] = {"m", "s"}, *const hours[] = {"h", "m"},
                             *const days[] = {"d", "h"};
    struct human h;

    if (!(s >= 0))
        return unknown;
    if (s == 0)
        snprintf(h.text, sizeof(h.text), "0s");
    else if (s < 0.9995)
        three_digits(&h, s * 1000, "ms");
    else if (s < 59.5)
        three_digits(&h, s, "s");
    else if (s < 3599.5)
        two_units(&h, round(s), 60, minutes);
    else if (s < 86370)
        two_units(&h, round(s / 60), 60, hours);
    else if (s < 100 * 86400.0)
        two_units(&h, round(s / 3600), 24, days);
    else if (s < 1e9 * 86400)
        snprintf(h.text, sizeof(h.text), "%.0fd", s / 86400);
    else
        snprintf(h.text, sizeof(h.text), "ages");
    return h;
}

struct human human_count(const json_t *v)
{
    return json_is_number(v) ? human_count_of(json_number_value(v)) : unknown;
}

struct human human_bytes(const json_t *v)
{
    return json_is_number(v) ? human_bytes_of(json_number_value(v)) : unknown;
}

struct human human_seconds(const json_t *v)
{
    return json_is_number(v) ? human_seconds_of(json_number_value(v)) : unknown;
}

struct human human_rate_of(double rate)
{
    struct human h;

    if (!(rate > 0) || rate >= 9.95)
        return human_count_of(rate);
    snprintf(h.text, sizeof(h.text), "%.1f", rate);
    return h;
}

struct human human_rate(const json_t *v)
{
    return json_is_number(v) ? human_rate_of(json_number_value(v)) : unknown;
}

struct human human_exact(const json_t *v)
{
    char plain[32];
    struct human h;
    size_t i, at = 0, n;

    if (!json_is_number(v))
        return unknown;
    n = (size_t)snprintf(plain, sizeof(plain), "%.0f", json_number_value(v));
    if (json_is_integer(v))
        n = (size_t)snprintf(plain, sizeof(plain), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    if (n > 20)
        return human_count(v);
    for (i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0 && plain[i - 1] != '-')
            h.text[at++] = ',';
        h.text[at++] = plain[i];
    }
    h.text[at] = '\0';
    return h;
}

/* The whole number in the `n` digits at `p`; -1: they are none. */
static int digits(const char *p, size_t n)
{
    int value = 0;

    for (; n > 0; n--, p++) {
        if (*p < '0' || *p > '9')
            return -1;
        value = 10 * value + (*p - '0');
    }
    return value;
}

struct when {
    int year, month, day, hour, minute, second, ms;
};

/* Take "2026-01-02T03:04:05.678Z" apart. False: it is no such time. */
static bool take_apart(const char *text, struct when *w)
{
    if (strlen(text) != 24)
        return false;
    *w = (struct when){digits(text, 4),      digits(text + 5, 2),  digits(text + 8, 2),
                       digits(text + 11, 2), digits(text + 14, 2), digits(text + 17, 2),
                       digits(text + 20, 3)};
    return w->year >= 0 && w->month >= 1 && w->month <= 12 && w->day >= 0 && w->hour >= 0 &&
           w->minute >= 0 && w->second >= 0 && w->ms >= 0;
}

struct human human_time(const json_t *v, const char *now)
{
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const char *t = json_string_value(v);
    struct human h;
    struct when w;

    if (!t)
        return unknown;
    if (!take_apart(t, &w))
        snprintf(h.text, sizeof(h.text), "%.31s", t);
    else if (now && strncmp(t, now, 11) == 0)
        snprintf(h.text, sizeof(h.text), "%.8s", t + 11);
    else if (now && strncmp(t, now, 5) == 0)
        snprintf(h.text, sizeof(h.text), "%s %d %.5s", months[w.month - 1], w.day, t + 11);
    else
        snprintf(h.text, sizeof(h.text), "%.10s", t);
    return h;
}

/* Since 1970; NAN: it is no time. */
static double seconds_of(const char *text)
{
    struct when w;
    struct tm tm = {0};

    if (!take_apart(text, &w))
        return NAN;
    tm.tm_year = w.year - 1900;
    tm.tm_mon = w.month - 1;
    tm.tm_mday = w.day;
    tm.tm_hour = w.hour;
    tm.tm_min = w.minute;
    tm.tm_sec = w.second;
    return (double)timegm(&tm) + w.ms / 1000.0;
}

struct human human_age(const json_t *v, const char *now)
{
    const char *t = json_string_value(v);
    double age = t ? seconds_of(now) - seconds_of(t) : NAN;

    return human_seconds_of(age < 0 ? 0 : age);
}
