/*
 * A line of the log and of the audit trail, with whatever a peer puts into its fields.
 *
 * Oracle: it stays one line of limited length, without control characters, in UTF-8; as JSON it is
 * one object that another library reads, and short values come back as they were.
 */
#include <jansson.h>
#include <string.h>
#include "base/utf8.h"
#include "fuzz/target.h"
#include "rt/logline.h"

enum { FIELDS = 40, WHOLE = 100 };

static struct view valid_utf8(struct view v)
{
    size_t i, n;

    for (i = 0; i < v.n; i += n) {
        n = utf8_length(v.p + i, v.n - i);
        if (!n)
            return VIEW_NONE;
    }
    return v;
}

static struct log_field next_field(struct view *in)
{
    static const char *const keys[] = {"host", "path", "error", "user"};
    uint8_t what = fuzz_byte(in);
    struct log_field f = {.key = keys[what & 3]};
    size_t n;

    switch (what >> 2 & 7) {
    case 0:
        f.type = LOG_F_INT;
        f.i = (int64_t)in->n - (fuzz_byte(in) & 1 ? INT64_MAX : 0);
        break;
    case 1:
        f.type = LOG_F_DOUBLE;
        n = TR_MIN(sizeof(f.d), in->n);
        if (n)
            memcpy(&f.d, in->p, n);
        *in = view_from(*in, n);
        break;
    case 2:
        f.type = LOG_F_BOOL;
        f.b = fuzz_byte(in) & 1;
        break;
    default:
        f.type = LOG_F_VIEW;
        n = TR_MIN(in->n, (size_t)fuzz_byte(in) * (what & 0x80 ? 16 : 1));
        n = TR_MIN(in->n, n);
        f.v = view_of(in->p, n);
        *in = view_from(*in, n);
        break;
    }
    return f;
}

static void check_line(const struct log_line *l)
{
    size_t i;

    ASSERT(l->n > 0 && l->n <= LOG_LINE_MAX && l->b[l->n - 1] == '\n');
    for (i = 0; i + 1 < l->n; i++)
        ASSERT((unsigned char)l->b[i] >= ' ' && l->b[i] != 0x7f);
    ASSERT(valid_utf8(view_of(l->b, l->n)).n == l->n);
}

static void check_json(const struct log_line *l, const struct log_field *last)
{
    json_t *object = json_loadb(l->b, l->n, JSON_ALLOW_NUL, NULL);
    const json_t *value;

    ASSERT(json_is_object(object));
    value = json_object_get(object, last->key);
    if (!l->full && last->type == LOG_F_VIEW && last->v.n <= WHOLE && valid_utf8(last->v).p) {
        ASSERT(json_is_string(value));
        ASSERT(view_eq(view_of(json_string_value(value), json_string_length(value)), last->v));
    }
    json_decref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct log_line lines[2];
    struct view in = view_of(data, size);
    struct log_field f = LF_STR("msg", "x");
    int n, i;

    log_line_begin(&lines[0], LOG_LOGFMT);
    log_line_begin(&lines[1], LOG_JSON);
    for (n = 0; n == 0 || (in.n && n < FIELDS); n++) {
        f = next_field(&in);
        for (i = 0; i < 2; i++)
            log_line_field(&lines[i], &f);
    }
    for (i = 0; i < 2; i++) {
        log_line_end(&lines[i]);
        check_line(&lines[i]);
    }
    check_json(&lines[1], &f);
    return 0;
}
