/*
 * Writing JSON: values one after the other, commas put where they belong. A name is NULL in an
 * array and for the outermost value. Names are ours; texts may be anybody's and are escaped. What a
 * double cannot say as a number (NaN, infinity) is null.
 */
#ifndef TR_RT_JSON_H
#define TR_RT_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"
#include "base/view.h"

struct json {
    struct str *out;
    bool comma; /* something stands before what comes next */
};

/* Values are appended to `out`, which stays the caller's. */
struct json json_to(struct str *out);

void json_open(struct json *j, const char *name, char bracket); /* '{' or '[' */
void json_close(struct json *j, char bracket);                  /* '}' or ']' */
/* The name alone: the caller appends the value to `out`. */
void json_name(struct json *j, const char *name);
void json_text(struct json *j, const char *name, struct view v); /* v.p NULL: null */
void json_uint(struct json *j, const char *name, uint64_t v);
void json_int(struct json *j, const char *name, int64_t v);
void json_num(struct json *j, const char *name, double v);
void json_bool(struct json *j, const char *name, bool v);
void json_nothing(struct json *j, const char *name);
void json_time(struct json *j, const char *name, int64_t wall_ns);     /* 0: null */
void json_seconds(struct json *j, const char *name, int64_t duration); /* ns; negative: null */

#endif
