#include "rt/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "rt/clock.h"

struct json json_to(struct str *out)
{
    return (struct json){out, false};
}

void json_name(struct json *j, const char *name)
{
    if (j->comma)
        str_addc(j->out, ',');
    j->comma = true;
    if (name)
        str_addf(j->out, "\"%s\":", name);
}

void json_open(struct json *j, const char *name, char bracket)
{
    json_name(j, name);
    str_addc(j->out, bracket);
    j->comma = false;
}

void json_close(struct json *j, char bracket)
{
    str_addc(j->out, bracket);
    j->comma = true;
}

void json_text(struct json *j, const char *name, struct view v)
{
    if (!v.p) {
        json_nothing(j, name);
        return;
    }
    json_name(j, name);
    str_addc(j->out, '"');
    str_add_json(j->out, v);
    str_addc(j->out, '"');
}

void json_uint(struct json *j, const char *name, uint64_t v)
{
    json_name(j, name);
    str_addf(j->out, "%" PRIu64, v);
}

void json_int(struct json *j, const char *name, int64_t v)
{
    json_name(j, name);
    str_addf(j->out, "%" PRId64, v);
}

/* Beyond it a double does not hold every whole number. */
#define WHOLE_MAX 9007199254740992.0

/* The shortest spelling that reads back to the same double; whole numbers as such, so that readers
 * who tell integers from others find one. */
void json_num(struct json *j, const char *name, double v)
{
    char num[40];
    bool whole;

    if (!isfinite(v)) {
        json_nothing(j, name);
        return;
    }
    whole = v > -WHOLE_MAX && v < WHOLE_MAX && v == (double)(int64_t)v;
    snprintf(num, sizeof(num), whole ? "%.0f" : "%.15g", v);
    if (strtod(num, NULL) != v)
        snprintf(num, sizeof(num), "%.17g", v);
    json_name(j, name);
    str_adds(j->out, num);
}

void json_bool(struct json *j, const char *name, bool v)
{
    json_name(j, name);
    str_adds(j->out, v ? "true" : "false");
}

void json_nothing(struct json *j, const char *name)
{
    json_name(j, name);
    str_adds(j->out, "null");
}

void json_time(struct json *j, const char *name, int64_t wall_ns)
{
    char text[25];

    if (wall_ns == 0) {
        json_nothing(j, name);
        return;
    }
    clock_format(wall_ns, text);
    json_text(j, name, view_str(text));
}

void json_seconds(struct json *j, const char *name, int64_t duration)
{
    const int64_t ms = duration / NS_PER_MS;

    if (duration < 0)
        json_nothing(j, name);
    else
        json_num(j, name, (double)ms / 1000);
}
