#include "logs/body.h"

#include <xxhash.h>
#include "base/xmem.h"
#include "codec/lines.h"
#include "codec/zcodec.h"

enum { BODY_MAX_PARTS = 4096 }; /* of one delivery of an edge: a field without end */

struct cutter {
    const struct body_rules *rules;
    struct list *records;
    const char *begin, *end; /* the elements gathered so far */
    uint64_t lines;
    size_t part;
};

static void finish(struct cutter *c)
{
    struct record *r;

    if (!c->lines)
        return;
    r = record_new(RECORD_LINES);
    r->size = (uint32_t)(c->end - c->begin);
    r->row.lines = c->lines;
    r->row.at_ns = c->rules->at_ns;
    zframe_pack(view_of(c->begin, r->size), &r->frame);
    if (c->rules->keep_text)
        str_add(&r->text, c->begin, r->size);
    list_append(c->records, &r->link);
    c->begin = NULL;
    c->lines = 0;
    c->part++;
}

static bool full(const struct cutter *c, struct view element)
{
    if (c->rules->n_parts)
        return c->part < c->rules->n_parts && c->lines == c->rules->parts[c->part].lines;
    return c->lines == c->rules->lines ||
           (size_t)(element.p + element.n - c->begin) > c->rules->bytes;
}

static void cut(struct cutter *c, struct view inner)
{
    struct view element;

    while (lines_next(&inner, &element)) {
        if (c->lines && full(c, element))
            finish(c);
        if (!c->lines)
            c->begin = element.p;
        c->end = element.p + element.n;
        c->lines++;
    }
    finish(c);
}

/* An edge's parts are its records: they must account for each line. */
static bool parts_match(const struct body_rules *rules, uint64_t count)
{
    uint64_t sum = 0;
    size_t i;

    for (i = 0; i < rules->n_parts && rules->parts[i].lines <= count - sum; i++)
        sum += rules->parts[i].lines;
    return !rules->n_parts || (i == rules->n_parts && sum == count);
}

static bool whole(const struct body_rules *rules, const struct lines_info *info)
{
    return rules->n_parts <= 1 && info->count <= rules->lines && info->inner.n <= rules->bytes;
}

int body_to_records(struct view body, const struct body_rules *rules, struct list *records,
                    uint64_t *lines, struct err *e)
{
    struct cutter c = {.rules = rules, .records = records};
    struct lines_info info;
    struct record *first;
    XXH128_hash_t h;

    *lines = 0;
    if (lines_scan(body, &info, e) < 0)
        return -1;
    *lines = info.count;
    if (!info.count)
        return 0;
    if (!parts_match(rules, info.count))
        return err_set(e, ERR_INVALID, "the delivery's parts do not match its lines");
    h = XXH3_128bits(body.p, body.n);
    if (whole(rules, &info)) {
        c.begin = info.inner.p;
        c.end = info.inner.p + info.inner.n;
        c.lines = info.count;
        finish(&c);
    } else {
        cut(&c, info.inner);
    }
    first = list_first(records, struct record, link);
    first->hash = (struct body_hash){h.low64, h.high64};
    first->hashed = true;
    if (c.part == 1) {
        first->pos_min = info.pos_min;
        first->pos_max = info.pos_max;
    }
    return 0;
}

static bool take_number(struct view *in, int base, uint64_t *out)
{
    size_t i;
    uint64_t n = 0;

    for (i = 0; i < in->n; i++) {
        char c = in->p[i];
        int digit = c >= '0' && c <= '9'                 ? c - '0'
                    : base == 16 && c >= 'a' && c <= 'f' ? c - 'a' + 10
                                                         : -1;

        if (digit < 0)
            break;
        if (n > (UINT64_MAX - (uint64_t)digit) / (uint64_t)base)
            return false;
        n = n * (uint64_t)base + (uint64_t)digit;
    }
    *in = view_from(*in, i);
    *out = n;
    return i > 0;
}

static bool take_char(struct view *in, char c)
{
    if (!in->n || in->p[0] != c)
        return false;
    *in = view_from(*in, 1);
    return true;
}

int body_parse_delivery(struct view field, uint64_t *edge, uint64_t *life, struct call_part **parts,
                        size_t *n)
{
    struct call_part *out = NULL;
    size_t count = 0;

    if (!take_number(&field, 16, edge) || !take_char(&field, '-') ||
        !take_number(&field, 16, life) || !take_char(&field, ' ') || *edge == 0)
        return -1;
    do {
        struct call_part p;

        if (count == BODY_MAX_PARTS || !take_number(&field, 10, &p.number) ||
            !take_char(&field, ':') || !take_number(&field, 10, &p.lines) || p.lines == 0) {
            xfree(out);
            return -1;
        }
        if ((count & (count - 1)) == 0)
            out = xrealloc(out, (count ? 2 * count : 1) * sizeof(*out));
        out[count++] = p;
    } while (take_char(&field, ','));
    if (field.n) {
        xfree(out);
        return -1;
    }
    *parts = out;
    *n = count;
    return 0;
}
