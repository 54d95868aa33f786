#include "codec/lines.h"

#include <stdbool.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/*
 * One pass over the bytes. Functions take a place in the text and return the place behind what
 * they took, or NULL after noting in `struct scan` what was wrong there.
 */
struct scan {
    const char *begin, *end;
    const char *bad;  /* where */
    const char *what; /* and what is wrong there */
    enum err_code code;
    bool has_pos; /* of the element at hand */
    int64_t pos;
    char minute[16]; /* "2006-01-02T15:04" of the last time that was good: lines come in bursts */
};

/* Some minute that exists: what is in `minute` is taken as good. */
#define FIRST_MINUTE "1970-01-01T00:00"

static TR_COLD const char *fail(struct scan *s, const char *at, const char *what)
{
    s->bad = at;
    s->what = at < s->end ? what : "the text ends too early";
    s->code = ERR_INVALID;
    return NULL;
}

static inline bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline const char *skip_space(const struct scan *s, const char *p)
{
    while (p < s->end && (unsigned char)*p <= ' ' && is_space(*p))
        p++;
    return p;
}

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

#if defined(__SSE2__)
/* How many digits the 16 bytes at `p` begin with. */
static inline unsigned digits_at(const char *p)
{
    __m128i x = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), _mm_set1_epi8('0'));
    int digit = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(9)), x));

    return (unsigned)__builtin_ctz(~(unsigned)digit);
}

/* The value of the `n` digits at `p`, 1 to 8; 8 bytes can be read. */
static inline uint64_t digits_value(const char *p, unsigned n)
{
    uint64_t x;

    memcpy(&x, p, sizeof(x));
    x = (x - 0x3030303030303030ULL) << (64 - 8 * n);
    x = (x * 10 + (x >> 8)) & 0x00ff00ff00ff00ffULL;
    x = (x * 100 + (x >> 16)) & 0x0000ffff0000ffffULL;
    return (x * 10000 + (x >> 32)) & 0xffffffffULL;
}
#endif

/* ---- strings ---- */

static bool is_hex(char c)
{
    char l = c | 0x20;

    return is_digit(c) || (l >= 'a' && l <= 'f');
}

/* `p` is at a backslash. */
static inline const char *scan_escape(struct scan *s, const char *p)
{
    int i;

    if (s->end - p < 2)
        return fail(s, s->end, "");
    switch (p[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return p + 2;
    case 'u':
        for (i = 2; i < 6; i++)
            if (p + i >= s->end || !is_hex(p[i]))
                return fail(s, p + i, "malformed \\u escape");
        return p + 6;
    default:
        return fail(s, p + 1, "unknown escape");
    }
}

/* The next byte of a string that is a quote, a backslash or a control character, or the end. */
static inline const char *find_special(const char *p, const char *end)
{
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');
    const __m128i space = _mm_set1_epi8(0x1f);

    while (end - p >= 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i hit = _mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, slash));
        int mask;

        hit = _mm_or_si128(hit, _mm_cmpeq_epi8(_mm_min_epu8(x, space), x));
        mask = _mm_movemask_epi8(hit);
        if (mask)
            return p + __builtin_ctz((unsigned)mask);
        p += 16;
    }
#else
    const uint64_t ones = 0x0101010101010101ULL, highs = ones * 0x80;

    while (end - p >= 8) {
        uint64_t x, q, b;

        memcpy(&x, p, sizeof(x));
        q = x ^ ones * '"';
        b = x ^ ones * '\\';
        if ((((q - ones) & ~q) | ((b - ones) & ~b) | ((x - ones * 0x20) & ~x)) & highs)
            break;
        p += 8;
    }
#endif
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
        p++;
    return p;
}

/* `p` is behind the opening quote; returns the place of the closing one. */
static inline const char *scan_string(struct scan *s, const char *p)
{
    for (;;) {
        p = find_special(p, s->end);
        if (TR_UNLIKELY(p >= s->end))
            return fail(s, s->end, "");
        if (*p == '"')
            return p;
        if (*p != '\\')
            return fail(s, p, "control character in a string");
        p = scan_escape(s, p);
        if (!p)
            return NULL;
    }
}

/* ---- other values ---- */

static const char *scan_word(struct scan *s, const char *p, const char *word, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++)
        if (p + i >= s->end || p[i] != word[i])
            return fail(s, p + i, "unknown word");
    return p + n;
}

static inline const char *scan_null(struct scan *s, const char *p)
{
    if (TR_LIKELY(s->end - p >= 4 && memcmp(p, "null", 4) == 0))
        return p + 4;
    return scan_word(s, p, "null", 4);
}

static const char *scan_digits(struct scan *s, const char *p)
{
    if (p >= s->end || !is_digit(*p))
        return fail(s, p, "malformed number");
    while (p < s->end && is_digit(*p))
        p++;
    return p;
}

/* RFC 8259 §6 */
static const char *scan_number(struct scan *s, const char *p)
{
    if (p < s->end && *p == '-')
        p++;
    p = p < s->end && *p == '0' ? p + 1 : scan_digits(s, p);
    if (p && p < s->end && *p == '.')
        p = scan_digits(s, p + 1);
    if (p && p < s->end && (*p | 0x20) == 'e') {
        p++;
        if (p < s->end && (*p == '+' || *p == '-'))
            p++;
        p = scan_digits(s, p);
    }
    return p;
}

/* A string, number or word. */
static const char *scan_scalar(struct scan *s, const char *p)
{
    if (p >= s->end)
        return fail(s, p, "");
    switch (*p) {
    case '"':
        p = scan_string(s, p + 1);
        return p ? p + 1 : NULL;
    case 'n':
        return scan_null(s, p);
    case 't':
        return scan_word(s, p, "true", 4);
    case 'f':
        return scan_word(s, p, "false", 5);
    default:
        if (*p != '-' && !is_digit(*p))
            return fail(s, p, "a value was expected");
        return scan_number(s, p);
    }
}

/* A key in quotes and its colon. */
static const char *scan_any_key(struct scan *s, const char *p)
{
    if (p >= s->end || *p != '"')
        return fail(s, p, "a field name was expected");
    p = scan_string(s, p + 1);
    if (!p)
        return NULL;
    p = skip_space(s, p + 1);
    if (p >= s->end || *p != ':')
        return fail(s, p, "a colon was expected");
    return skip_space(s, p + 1);
}

/* The levels that are open around a place: a bit for each in `kinds`, 1 for an object. */
struct nest {
    uint64_t kinds;
    unsigned depth;
    unsigned base; /* where the value began */
};

/* `p` is at an opening bracket; returns the place of what may be a value, or of the end. */
static const char *open_level(struct scan *s, const char *p, struct nest *n)
{
    if (n->depth == LINES_MAX_DEPTH) {
        fail(s, p, "nested too deep");
        s->code = ERR_LIMIT;
        return NULL;
    }
    n->kinds = n->kinds << 1 | (*p == '{');
    n->depth++;
    return skip_space(s, p + 1);
}

static bool at_end(const struct scan *s, const char *p, const struct nest *n)
{
    return p < s->end && *p == (n->kinds & 1 ? '}' : ']');
}

/* Behind a value: close what ends here. Returns the place of a comma, or of the end of it all. */
static const char *close_levels(struct scan *s, const char *p, struct nest *n)
{
    while (n->depth > n->base) {
        p = skip_space(s, p);
        if (p < s->end && *p == ',')
            break;
        if (!at_end(s, p, n))
            return fail(s, p, "a comma or the end of a list was expected");
        p++;
        n->depth--;
        n->kinds >>= 1;
    }
    return p;
}

/* Any value, without recursion; `depth` levels are open around it already. */
static const char *scan_value(struct scan *s, const char *p, unsigned depth)
{
    struct nest n = {.depth = depth, .base = depth};

    for (;;) {
        bool opened = p < s->end && (*p == '{' || *p == '[');

        p = opened ? open_level(s, p, &n) : scan_scalar(s, p);
        if (p && (!opened || at_end(s, p, &n))) {
            p = close_levels(s, p, &n);
            if (!p || n.depth == n.base)
                return p;
            p = skip_space(s, p + 1);
        }
        if (p && (n.kinds & 1))
            p = scan_any_key(s, p);
        if (!p)
            return NULL;
    }
}

/* ---- times ---- */

/* The number of the two digits at `p`, or 100. */
static inline unsigned two(const char *p)
{
    unsigned hi = (unsigned char)p[0] - '0', lo = (unsigned char)p[1] - '0';

    return hi > 9 || lo > 9 ? 100 : hi * 10 + lo;
}

/* "2006-01-02T", a day that exists. */
static bool date_ok(const char *p)
{
    static const unsigned char days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned hundreds = two(p), years = two(p + 2), month = two(p + 5), day = two(p + 8), last;

    if (hundreds > 99 || years > 99 || p[4] != '-' || month < 1 || month > 12 || p[7] != '-' ||
        p[10] != 'T')
        return false;
    last = days[month - 1];
    if (month == 2 && years % 4 == 0 && (years != 0 || hundreds % 4 == 0))
        last = 29;
    return day >= 1 && day <= last;
}

/* The part of a second and the zone, to the end. */
static bool zone_ok(const char *p, const char *end)
{
    if (end - p >= 2 && (*p == '.' || *p == ',') && is_digit(p[1])) {
        p += 2;
        while (p < end && is_digit(*p))
            p++;
    }
    if (end - p == 1)
        return *p == 'Z';
    return end - p == 6 && (*p == '+' || *p == '-') && two(p + 1) <= 24 && p[3] == ':' &&
           two(p + 4) <= 60;
}

/*
 * What Go's time.UnmarshalJSON takes between the quotes: RFC 3339, and also an hour of one digit,
 * a comma for the point, and offsets up to 24:60. It does not resolve escapes there.
 */
static bool time_ok(const char *p, const char *end)
{
    unsigned hour;

    if (end - p < 19 || !date_ok(p))
        return false;
    p += 11;
    hour = two(p);
    if (hour < 24)
        p += 2;
    else if (is_digit(p[0]) && p[1] == ':')
        p += 1;
    else
        return false;
    if (end - p < 7 || p[0] != ':' || two(p + 1) > 59 || p[3] != ':' || two(p + 4) > 59)
        return false;
    return zone_ok(p + 6, end);
}

enum { SAME_MINUTE = 40 };

/*
 * "2026-08-21T09:56:10.123456789Z" in the minute of the line before, the quotes left out. The
 * caller sees to it that SAME_MINUTE bytes can be read. Returns the place of the quote or NULL.
 */
static inline const char *same_minute(const struct scan *s, const char *p)
{
    unsigned i = 0;

    if (memcmp(p, s->minute, 16) != 0 || p[16] != ':' || two(p + 17) > 59)
        return NULL;
    p += 19;
    if (*p == '.') {
#if defined(__SSE2__)
        i = digits_at(p + 1);
#else
        while (i < 16 && is_digit(p[i + 1]))
            i++;
#endif
        if (i == 0)
            return NULL;
        p += i + 1;
    }
    return p[0] == 'Z' && p[1] == '"' ? p + 1 : NULL;
}

static const char *scan_time(struct scan *s, const char *p)
{
    const char *end;

    if (p >= s->end || *p != '"')
        return p < s->end && *p == 'n' ? scan_null(s, p) : fail(s, p, "`time` is not a string");
    p++;
    if (TR_LIKELY(s->end - p >= SAME_MINUTE)) {
        end = same_minute(s, p);
        if (TR_LIKELY(end != NULL))
            return end + 1;
    }
    end = scan_string(s, p);
    if (!end)
        return NULL;
    if (!time_ok(p, end))
        return fail(s, p, "`time` is not an RFC 3339 time");
    if (p[13] == ':')
        memcpy(s->minute, p, sizeof(s->minute));
    return end + 1;
}

/* ---- the other fields of a line ---- */

static const char *scan_text(struct scan *s, const char *p)
{
    if (TR_LIKELY(p < s->end && *p == '"')) {
        p = scan_string(s, p + 1);
        return p ? p + 1 : NULL;
    }
    if (p < s->end && *p == 'n')
        return scan_null(s, p);
    return fail(s, p, "a string was expected");
}

/* An integer as strconv.ParseInt(text, 10, 64) reads it, and nothing that goes on like a float. */
static const char *scan_pos(struct scan *s, const char *p)
{
    const char *from = p, *digits;
    uint64_t v = 0;
    bool minus = false;

    if (p < s->end && *p == 'n')
        return scan_null(s, p);
    if (p < s->end && *p == '-') {
        minus = true;
        p++;
    }
    digits = p;
    while (p < s->end && is_digit(*p)) {
        unsigned d = (unsigned)(*p - '0');

        if (TR_UNLIKELY(v > (INT64_MAX - 9) / 10 && (v > INT64_MAX / 10 || d > 7u + minus)))
            return fail(s, from, "`pos` does not fit 64 bits");
        v = v * 10 + d;
        p++;
    }
    if (p == digits || (*digits == '0' && p - digits > 1) ||
        (p < s->end && (*p == '.' || (*p | 0x20) == 'e')))
        return fail(s, from, "`pos` is not an integer");
    s->has_pos = true;
    s->pos = minus ? (int64_t)(0 - v) : (int64_t)v;
    return p;
}

/* At most eight digits, as they usually are, or the long way. */
static inline const char *scan_short_pos(struct scan *s, const char *p)
{
#if defined(__SSE2__)
    unsigned n;

    if (TR_UNLIKELY(s->end - p < 16))
        return scan_pos(s, p);
    n = digits_at(p);
    if (n - 1 < 8 && (*p != '0' || n == 1) && p[n] != '.' && (p[n] | 0x20) != 'e') {
        s->has_pos = true;
        s->pos = (int64_t)digits_value(p, n);
        return p + n;
    }
#endif
    return scan_pos(s, p);
}

static const char *scan_args(struct scan *s, const char *p)
{
    if (p < s->end && *p == 'n')
        return scan_null(s, p);
    if (p >= s->end || *p != '{')
        return fail(s, p, "`args` is not an object");
    p = skip_space(s, p + 1);
    if (p < s->end && *p == '}')
        return p + 1;
    for (;;) {
        p = scan_any_key(s, p);
        if (p)
            p = scan_text(s, p);
        if (!p)
            return NULL;
        p = skip_space(s, p);
        if (p < s->end && *p == '}')
            return p + 1;
        if (p >= s->end || *p != ',')
            return fail(s, p, "a comma or the end of an object was expected");
        p = skip_space(s, p + 1);
    }
}

/* ---- names ---- */

enum field { F_OTHER, F_LEVEL, F_POS, F_OUT, F_TIME, F_ARGS };

static enum field field_of(const char *name, size_t n)
{
    if (n == 3 && memcmp(name, "pos", 3) == 0)
        return F_POS;
    if (n == 3 && memcmp(name, "out", 3) == 0)
        return F_OUT;
    if (n == 4 && memcmp(name, "time", 4) == 0)
        return F_TIME;
    if (n == 4 && memcmp(name, "args", 4) == 0)
        return F_ARGS;
    if (n == 5 && memcmp(name, "level", 5) == 0)
        return F_LEVEL;
    return F_OTHER;
}

static unsigned hex4(const char *p)
{
    unsigned v = 0, i;

    for (i = 0; i < 4; i++)
        v = v << 4 | (unsigned)(is_digit(p[i]) ? p[i] - '0' : (p[i] | 0x20) - 'a' + 10);
    return v;
}

/*
 * Go matches names without regard to case, by Unicode's simple folding: of the letters in our
 * names that adds the long s (U+017F), and the name may be spelled with escapes.
 */
static enum field fold_name(const char *p, const char *end)
{
    char name[8];
    size_t n = 0;

    while (p < end && n < sizeof(name)) {
        unsigned c = (unsigned char)*p++;

        if (c == '\\' && *p == 'u') {
            c = hex4(p + 1);
            p += 5;
        } else if (c == 0xc5 && p < end && (unsigned char)*p == 0xbf) {
            c = 0x17f;
            p++;
        }
        if (c == 0x17f)
            c = 's';
        if (c >= 'A' && c <= 'Z')
            c |= 0x20;
        if (c < 'a' || c > 'z')
            return F_OTHER;
        name[n++] = (char)c;
    }
    return p == end ? field_of(name, n) : F_OTHER;
}

/* `p` begins with the usual spelling of a field's name and its colon: the place behind, or NULL. */
static inline const char *usual_key(const char *p, enum field *field)
{
#define IS(text, which)                                                                            \
    (memcmp(p, text, sizeof(text) - 1) == 0 ? (*field = (which), p + sizeof(text) - 1) : NULL)
    switch (p[1]) {
    case 'l':
        return IS("\"level\":", F_LEVEL);
    case 'p':
        return IS("\"pos\":", F_POS);
    case 'o':
        return IS("\"out\":", F_OUT);
    case 't':
        return IS("\"time\":", F_TIME);
    case 'a':
        return IS("\"args\":", F_ARGS);
    default:
        return NULL;
    }
#undef IS
}

/* A key and its colon. */
static inline const char *scan_key(struct scan *s, const char *p, enum field *field)
{
    const char *from = p + 1, *next;

    if (TR_LIKELY(s->end - p >= 8)) {
        next = usual_key(p, field);
        if (TR_LIKELY(next != NULL))
            return next;
    }
    p = scan_any_key(s, p);
    if (!p)
        return NULL;
    *field = fold_name(from, scan_string(s, from));
    return p;
}

static inline const char *scan_field(struct scan *s, enum field field, const char *p)
{
    switch (field) {
    case F_LEVEL:
    case F_OUT:
        return scan_text(s, p);
    case F_POS:
        return scan_short_pos(s, p);
    case F_TIME:
        return scan_time(s, p);
    case F_ARGS:
        return scan_args(s, p);
    case F_OTHER:
        break;
    }
    return scan_value(s, p, 2);
}

/* ---- elements ---- */

/* `p` is behind the opening brace. */
static const char *scan_object(struct scan *s, const char *p)
{
    p = skip_space(s, p);
    if (p < s->end && *p == '}')
        return p + 1;
    for (;;) {
        enum field field;

        p = scan_key(s, p, &field);
        if (!p)
            return NULL;
        p = scan_field(s, field, skip_space(s, p));
        if (!p)
            return NULL;
        p = skip_space(s, p);
        if (p < s->end && *p == '}')
            return p + 1;
        if (p >= s->end || *p != ',')
            return fail(s, p, "a comma or the end of an object was expected");
        p = skip_space(s, p + 1);
    }
}

static inline const char *scan_element(struct scan *s, const char *p)
{
    s->has_pos = false;
    if (TR_LIKELY(p < s->end && *p == '{'))
        return scan_object(s, p + 1);
    if (p < s->end && *p == 'n')
        return scan_null(s, p);
    return fail(s, p, "a line is not an object");
}

static void note_pos(struct lines_info *out, bool *any, int64_t pos)
{
    if (!*any || pos < out->pos_min)
        out->pos_min = pos;
    if (!*any || pos > out->pos_max)
        out->pos_max = pos;
    *any = true;
}

/* `p` is behind the opening bracket. */
static const char *scan_array(struct scan *s, const char *p, struct lines_info *out)
{
    bool any = false;
    const char *from;

    p = skip_space(s, p);
    from = p;
    if (p < s->end && *p == ']') {
        out->inner = view_of(p, 0);
        return p + 1;
    }
    for (;;) {
        const char *last;

        last = scan_element(s, p);
        if (!last)
            return NULL;
        out->count++;
        if (s->has_pos)
            note_pos(out, &any, s->pos);
        p = skip_space(s, last);
        if (p < s->end && *p == ',') {
            p = skip_space(s, p + 1);
            continue;
        }
        if (p >= s->end || *p != ']')
            return fail(s, p, "a comma or the end of the array was expected");
        out->inner = view_of(from, (size_t)(last - from));
        return p + 1;
    }
}

int lines_scan(struct view body, struct lines_info *out, struct err *e)
{
    struct scan s = {.begin = body.p, .end = body.p + body.n, .minute = FIRST_MINUTE};
    const char *p;

    *out = (struct lines_info){.count = 0, .inner = view_of(body.p, 0)};
    p = skip_space(&s, s.begin);
    if (p < s.end && *p == '[')
        p = scan_array(&s, p + 1, out);
    else if (p < s.end && *p == 'n')
        p = scan_null(&s, p); /* a nil slice: no lines */
    else
        p = fail(&s, p, "an array was expected");
    if (p)
        return 0;
    return err_set(e, s.code, "%s at byte %zu", s.what, (size_t)(s.bad - s.begin));
}

int lines_next(struct view *rest, struct view *element)
{
    struct scan s = {.begin = rest->p, .end = rest->p + rest->n, .minute = FIRST_MINUTE};
    const char *p, *last;

    if (rest->n == 0)
        return 0;
    p = skip_space(&s, s.begin);
    last = scan_element(&s, p);
    if (!last)
        return 0;
    *element = view_of(p, (size_t)(last - p));
    p = skip_space(&s, last);
    if (p < s.end && *p == ',')
        p = skip_space(&s, p + 1);
    *rest = view_of(p, (size_t)(s.end - p));
    return 1;
}
