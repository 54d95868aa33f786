#include "codec/retry_after.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>
#include "base/attrs.h"

/* "Sun, 06 Nov 1994 08:49:37 GMT": every place is fixed, a digit (0), a letter (a) or itself. */
static const char date_form[] = "aaa, 00 aaa 0000 00:00:00 GMT";
static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool has_date_form(struct view v)
{
    size_t i;

    if (v.n != sizeof(date_form) - 1)
        return false;
    for (i = 0; i < v.n; i++) {
        char want = date_form[i], c = v.p[i];

        if (want == '0'   ? !is_digit(c)
            : want == 'a' ? !((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
                          : c != want)
            return false;
    }
    return true;
}

static int number(const char *p, int digits)
{
    int n = 0;

    while (digits--)
        n = 10 * n + (*p++ - '0');
    return n;
}

static bool read_date(struct view v, int64_t *wall_s)
{
    struct tm tm = {0};
    const char *month;

    if (!has_date_form(v))
        return false;
    month = memmem(months, sizeof(months) - 1, v.p + 8, 3);
    if (!month || (month - months) % 3)
        return false;
    tm.tm_mday = number(v.p + 5, 2);
    tm.tm_mon = (int)(month - months) / 3;
    tm.tm_year = number(v.p + 12, 4) - 1900;
    tm.tm_hour = number(v.p + 17, 2);
    tm.tm_min = number(v.p + 20, 2);
    tm.tm_sec = number(v.p + 23, 2);
    *wall_s = timegm(&tm);
    return true;
}

int retry_after_seconds(struct view value, int64_t wall_s)
{
    int64_t seconds = 0, at;
    size_t i;

    for (i = 0; i < value.n && is_digit(value.p[i]); i++)
        seconds = TR_MIN(10 * seconds + (value.p[i] - '0'), (int64_t)RETRY_AFTER_MOST_S);
    if (i < value.n || !i) {
        if (!read_date(value, &at) || at <= wall_s)
            return 0;
        seconds = TR_MIN(at - wall_s, (int64_t)RETRY_AFTER_MOST_S);
    }
    return (int)seconds;
}
