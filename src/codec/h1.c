#include "codec/h1.h"

#include "base/bug.h"

/*
 * What the parser is in the middle of. Everything that is not body is taken in whole lines, so
 * that the events do not depend on how the bytes were cut.
 */
enum state {
    S_START,      /* between messages; one empty line is skipped here */
    S_START_LINE, /* looking for the end of the start line */
    S_FIELDS,     /* looking for the end of the head */
    S_FRAMING,    /* H1_HEAD was given; the caller may still set head_only */
    S_BODY,
    S_CHUNK_LINE,
    S_CHUNK,
    S_CHUNK_END,
    S_TRAILERS,
    S_BODY_CLOSE,
    S_END,
    S_DEAD,
};

enum {
    /* Nobody whom we serve sends trailers; they are checked, counted and dropped. */
    MAX_TRAILERS = 8192,
    MAX_CHUNK_DIGITS = 16,
};

/* RFC 9110 §5.6.2: tchar. */
static const bool token_char[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1,         ['&'] = 1,         ['\''] = 1,
    ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,         ['^'] = 1,         ['_'] = 1,
    ['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};

/* RFC 3986 §3.2.2 without the comma, which would make a list of the field. */
static const bool host_char[256] = {
    ['-'] = 1,         ['.'] = 1,         ['_'] = 1,         ['~'] = 1, [':'] = 1, ['['] = 1,
    [']'] = 1,         ['%'] = 1,         ['!'] = 1,         ['$'] = 1, ['&'] = 1, ['\''] = 1,
    ['('] = 1,         [')'] = 1,         ['*'] = 1,         ['+'] = 1, [';'] = 1, ['='] = 1,
    ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};

#define ONES  0x0101010101010101ULL
#define HIGHS (ONES * 0x80)
/* Non-zero if a byte of x is zero, or is less than n (at most 128). */
#define HAS_ZERO(x)    (((x)-ONES) & ~(x)&HIGHS)
#define HAS_LESS(x, n) (((x)-ONES * (n)) & ~(x)&HIGHS)

static uint64_t load8(const char *p)
{
    uint64_t x;

    memcpy(&x, p, sizeof(x));
    return x;
}

static bool all_in(const bool table[256], struct view v)
{
    size_t i;

    for (i = 0; i < v.n; i++)
        if (!table[(unsigned char)v.p[i]])
            return false;
    return true;
}

bool h1_is_token(struct view v)
{
    return v.n > 0 && all_in(token_char, v);
}

/* No byte is a control character; HTAB is one too unless `tab`. */
static bool no_controls(struct view v, bool tab)
{
    size_t i = 0;

    for (; v.n - i >= 8; i += 8) {
        uint64_t x = load8(v.p + i);

        if (HAS_LESS(x, 0x20) || HAS_ZERO(x ^ ONES * 0x7f))
            break; /* perhaps a tab: the loop below says */
    }
    for (; i < v.n; i++) {
        unsigned char c = (unsigned char)v.p[i];

        if ((c < 0x20 && !(c == '\t' && tab)) || c == 0x7f)
            return false;
    }
    return true;
}

bool h1_is_field_value(struct view v)
{
    return no_controls(v, true);
}

bool h1_is_target(struct view v)
{
    return v.n > 0 && no_controls(v, false) && !memchr(v.p, ' ', v.n) && !memchr(v.p, '#', v.n);
}

bool h1_is_host(struct view v)
{
    return all_in(host_char, v);
}

void h1_init(struct h1_parser *p, enum h1_kind kind)
{
    memset(p, 0, sizeof(*p));
    p->kind = kind;
    p->state = S_START;
}

static enum h1_event fail(struct h1_parser *p, struct err *e, int status, const char *why)
{
    err_set(e, status == 414 || status == 431 ? ERR_LIMIT : ERR_INVALID, "%s", why);
    p->state = S_DEAD;
    p->status = status;
    return H1_ERROR;
}

/* fail() for functions that return 0 or -1. */
static int refuse(struct h1_parser *p, struct err *e, int status, const char *why)
{
    fail(p, e, status, why);
    return -1;
}

static struct view trim(struct view v)
{
    while (v.n && (v.p[0] == ' ' || v.p[0] == '\t'))
        v = view_from(v, 1);
    while (v.n && (v.p[v.n - 1] == ' ' || v.p[v.n - 1] == '\t'))
        v.n--;
    return v;
}

/* ---- start lines ---- */

static int parse_version(struct h1_parser *p, struct view v, struct err *e)
{
    if (v.n == 8 && memcmp(v.p, "HTTP/1.", 7) == 0 && (v.p[7] == '0' || v.p[7] == '1')) {
        p->head.minor = v.p[7] - '0';
        return 0;
    }
    if (v.n == 8 && memcmp(v.p, "HTTP/", 5) == 0 && v.p[5] >= '0' && v.p[5] <= '9' &&
        v.p[6] == '.' && v.p[7] >= '0' && v.p[7] <= '9')
        return refuse(p, e, 505, "not HTTP/1.0 or HTTP/1.1");
    return refuse(p, e, 400, "malformed HTTP version");
}

/* RFC 9112 §3: method SP request-target SP HTTP-version, with one space each. */
static int parse_request_line(struct h1_parser *p, struct view line, struct err *e)
{
    struct h1_head *h = &p->head;
    const char *sp = line.n ? memchr(line.p, ' ', line.n) : NULL;
    struct view rest;

    if (!sp)
        return refuse(p, e, 400, "malformed request line");
    h->method = view_of(line.p, (size_t)(sp - line.p));
    if (!h1_is_token(h->method))
        return refuse(p, e, 400, "malformed method");
    rest = view_from(line, h->method.n + 1);
    sp = rest.n ? memrchr(rest.p, ' ', rest.n) : NULL;
    if (!sp)
        return refuse(p, e, 400, "malformed request line");
    h->target = view_of(rest.p, (size_t)(sp - rest.p));
    if (!h1_is_target(h->target))
        return refuse(p, e, 400, "malformed request target");
    return parse_version(p, view_from(rest, h->target.n + 1), e);
}

/* RFC 9112 §4. The space before an empty reason is often left out. */
static int parse_status_line(struct h1_parser *p, struct view line, struct err *e)
{
    struct h1_head *h = &p->head;
    int i;

    if (line.n < 12 || line.p[8] != ' ' || (line.n > 12 && line.p[12] != ' '))
        return refuse(p, e, 400, "malformed status line");
    if (parse_version(p, view_of(line.p, 8), e) != 0)
        return -1;
    for (i = 9; i < 12; i++) {
        if (line.p[i] < '0' || line.p[i] > '9')
            return refuse(p, e, 400, "malformed status");
        h->status = h->status * 10 + (line.p[i] - '0');
    }
    if (h->status < 100)
        return refuse(p, e, 400, "malformed status");
    h->reason = line.n > 13 ? view_from(line, 13) : VIEW_LIT("");
    if (!h1_is_field_value(h->reason))
        return refuse(p, e, 400, "control character in the status line");
    return 0;
}

/* ---- fields with a meaning for us ---- */

/* What was seen of them so far; the rest is in the head itself. */
struct seen {
    bool host, encoding, upgrade, expect_other;
    bool close, keep_alive, connection_upgrade;
};

static int on_content_length(struct h1_parser *p, struct view v, struct err *e)
{
    int64_t n = 0;
    size_t i;

    if (p->head.content_length >= 0)
        return refuse(p, e, 400, "more than one Content-Length");
    if (v.n == 0 || v.n > 18)
        return refuse(p, e, 400, "malformed Content-Length");
    for (i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return refuse(p, e, 400, "malformed Content-Length");
        n = n * 10 + (v.p[i] - '0');
    }
    p->head.content_length = n;
    return 0;
}

static int on_transfer_encoding(struct h1_parser *p, struct seen *seen, struct view v,
                                struct err *e)
{
    if (seen->encoding)
        return refuse(p, e, 400, "more than one Transfer-Encoding");
    seen->encoding = true;
    if (view_ieq(v, VIEW_LIT("chunked"))) {
        p->head.chunked = true;
        return 0;
    }
    if (v.n == 0 || memchr(v.p, ',', v.n))
        return refuse(p, e, 400, "Transfer-Encoding is not just chunked");
    return refuse(p, e, 501, "Transfer-Encoding is not chunked");
}

static int on_host(struct h1_parser *p, struct seen *seen, struct view v, struct err *e)
{
    if (seen->host)
        return refuse(p, e, 400, "more than one Host");
    if (!h1_is_host(v))
        return refuse(p, e, 400, "malformed Host");
    seen->host = true;
    p->head.host = v;
    return 0;
}

static void on_connection(struct seen *seen, struct view list)
{
    while (list.n) {
        const char *comma = memchr(list.p, ',', list.n);
        struct view item = comma ? view_of(list.p, (size_t)(comma - list.p)) : list;

        list = comma ? view_from(list, item.n + 1) : VIEW_NONE;
        item = trim(item);
        if (view_ieq(item, VIEW_LIT("close")))
            seen->close = true;
        else if (view_ieq(item, VIEW_LIT("keep-alive")))
            seen->keep_alive = true;
        else if (view_ieq(item, VIEW_LIT("upgrade")))
            seen->connection_upgrade = true;
    }
}

static int on_field(struct h1_parser *p, struct seen *seen, const struct h1_field *f, struct err *e)
{
    struct h1_head *h = &p->head;

    switch (f->name.n) {
    case 4:
        if (p->kind == H1_REQUEST && view_ieq(f->name, VIEW_LIT("host")))
            return on_host(p, seen, f->value, e);
        break;
    case 6:
        if (p->kind == H1_REQUEST && view_ieq(f->name, VIEW_LIT("expect"))) {
            h->expect_continue = view_ieq(f->value, VIEW_LIT("100-continue"));
            seen->expect_other |= !h->expect_continue;
        }
        break;
    case 7:
        if (view_ieq(f->name, VIEW_LIT("upgrade")) && !seen->upgrade) {
            seen->upgrade = true;
            h->upgrade_to = f->value;
        }
        break;
    case 10:
        if (view_ieq(f->name, VIEW_LIT("connection")))
            on_connection(seen, f->value);
        break;
    case 14:
        if (view_ieq(f->name, VIEW_LIT("content-length")))
            return on_content_length(p, f->value, e);
        break;
    case 17:
        if (view_ieq(f->name, VIEW_LIT("transfer-encoding")))
            return on_transfer_encoding(p, seen, f->value, e);
        break;
    default:
        break;
    }
    return 0;
}

/* RFC 9112 §5: field-name ":" OWS field-value OWS. Obsolete folding begins with a space: no name.
 */
static int parse_field(struct h1_parser *p, struct view line, struct h1_field *f, struct err *e)
{
    size_t n = 0;

    while (n < line.n && token_char[(unsigned char)line.p[n]])
        n++;
    if (n == 0 || n == line.n || line.p[n] != ':')
        return refuse(p, e, 400, "malformed field name");
    f->name = view_of(line.p, n);
    f->value = trim(view_from(line, n + 1));
    if (!h1_is_field_value(f->value))
        return refuse(p, e, 400, "control character in a field");
    return 0;
}

/* ---- head ---- */

/* RFC 9112 §6.3: one meaning only is left, or none. */
static int check_framing(struct h1_parser *p, struct err *e)
{
    const struct h1_head *h = &p->head;

    if (h->chunked && h->content_length >= 0)
        return refuse(p, e, 400, "both Content-Length and Transfer-Encoding");
    if (h->chunked && h->minor == 0)
        return refuse(p, e, 400, "Transfer-Encoding in HTTP/1.0");
    if (p->kind == H1_REQUEST) {
        if (view_is(h->method, "CONNECT") && (h->chunked || h->content_length > 0))
            return refuse(p, e, 400, "CONNECT with a body");
    } else if (h->chunked && (h->status < 200 || h->status == 204)) {
        return refuse(p, e, 400, "Transfer-Encoding in an answer without a body");
    }
    return 0;
}

/* RFC 9112 §3.2 and §9.3, RFC 9110 §7.8 and §10.1.1. */
static int check_head(struct h1_parser *p, const struct seen *seen, struct err *e)
{
    struct h1_head *h = &p->head;

    if (check_framing(p, e) != 0)
        return -1;
    if (p->kind == H1_REQUEST && h->minor == 1 && !seen->host)
        return refuse(p, e, 400, "no Host");
    if (seen->expect_other)
        return refuse(p, e, 417, "Expect is not 100-continue");
    h->expect_continue = h->expect_continue && h->minor == 1;
    h->keep_alive = !seen->close && (h->minor == 1 || seen->keep_alive);
    h->upgrade = h->minor == 1 && seen->upgrade && seen->connection_upgrade;
    if (!h->upgrade)
        h->upgrade_to = VIEW_NONE;
    return 0;
}

static void head_clear(struct h1_head *h)
{
    h->method = h->target = h->reason = h->host = h->upgrade_to = VIEW_NONE;
    h->status = h->minor = 0;
    h->n_fields = 0;
    h->content_length = -1;
    h->chunked = h->keep_alive = h->upgrade = h->expect_continue = false;
}

/* The head in `text`, whole and with the empty line: every LF in it follows a CR. */
static int parse_head(struct h1_parser *p, struct view text, struct err *e)
{
    struct h1_head *h = &p->head;
    struct seen seen = {.host = false};
    const char *lf = memchr(text.p, '\n', text.n);
    struct view line = view_of(text.p, (size_t)(lf - text.p) - 1);

    head_clear(h);
    if ((p->kind == H1_REQUEST ? parse_request_line : parse_status_line)(p, line, e) != 0)
        return -1;
    for (;;) {
        struct h1_field *f = &h->fields[h->n_fields];

        text = view_from(text, line.n + 2);
        lf = memchr(text.p, '\n', text.n);
        line = view_of(text.p, (size_t)(lf - text.p) - 1);
        if (line.n == 0)
            break;
        if (h->n_fields == H1_MAX_FIELDS)
            return refuse(p, e, 431, "too many fields");
        if (parse_field(p, line, f, e) != 0 || on_field(p, &seen, f, e) != 0)
            return -1;
        h->n_fields++;
    }
    return check_head(p, &seen, e);
}

/* A line, or the part that is there of it, got too long. */
static enum h1_event head_too_long(struct h1_parser *p, struct err *e)
{
    if (p->state == S_START_LINE)
        return fail(p, e, p->kind == H1_REQUEST ? 414 : 431, "the start line is too long");
    return fail(p, e, 431, "the head is too long");
}

/*
 * Look for the end of the head, line by line. Every byte is looked at once (p->scanned), however
 * small the pieces are.
 */
static enum h1_event next_head(struct h1_parser *p, struct view in, size_t *used, struct err *e)
{
    for (;;) {
        size_t limit = p->state == S_START_LINE ? H1_MAX_START_LINE + 2 : H1_MAX_HEAD;
        size_t n = TR_MIN(in.n, limit);
        const char *lf = n > p->scanned ? memchr(in.p + p->scanned, '\n', n - p->scanned) : NULL;
        size_t at;

        if (!lf) {
            p->scanned = n;
            return in.n >= limit ? head_too_long(p, e) : H1_MORE;
        }
        at = (size_t)(lf - in.p);
        if (at == 0 || lf[-1] != '\r')
            return fail(p, e, 400, "a line does not end in CRLF");
        p->scanned = at + 1;
        if (at >= 3 && lf[-2] == '\n')
            break;
        p->state = S_FIELDS;
    }
    *used = p->scanned;
    if (parse_head(p, view_of(in.p, p->scanned), e) != 0)
        return H1_ERROR;
    p->state = S_FRAMING;
    return H1_HEAD;
}

/* RFC 9112 §2.2: one empty line in front of a request is forgiven; some clients add it to a body.
 */
static enum h1_event next_start(struct h1_parser *p, struct view in, size_t *used, struct err *e)
{
    size_t skip = 0;
    enum h1_event ev;

    if (in.n == 0)
        return H1_MORE;
    if (p->kind == H1_REQUEST && in.p[0] == '\r') {
        if (in.n == 1)
            return H1_MORE;
        if (in.p[1] != '\n')
            return fail(p, e, 400, "malformed request line");
        skip = 2;
    }
    p->state = S_START_LINE;
    p->scanned = 0;
    ev = next_head(p, view_from(in, skip), used, e);
    *used += skip;
    return ev;
}

/* ---- bodies ---- */

/* RFC 9112 §6.3: what comes after this head. */
static void begin_body(struct h1_parser *p)
{
    const struct h1_head *h = &p->head;
    bool bare = p->kind == H1_RESPONSE &&
                (p->head_only || h->status < 200 || h->status == 204 || h->status == 304);

    p->until_close = false;
    p->left = 0;
    p->state = S_END;
    if (bare)
        return;
    if (h->chunked) {
        p->state = S_CHUNK_LINE;
    } else if (h->content_length > 0) {
        p->left = (uint64_t)h->content_length;
        p->state = S_BODY;
    } else if (p->kind == H1_RESPONSE && h->content_length < 0) {
        p->until_close = true;
        p->state = S_BODY_CLOSE;
    }
}

static enum h1_event next_body(struct h1_parser *p, struct view in, size_t *used, struct view *body)
{
    size_t n = in.n;

    if (n == 0)
        return H1_MORE;
    if (p->state != S_BODY_CLOSE) {
        n = n < p->left ? n : (size_t)p->left;
        p->left -= n;
        if (p->left == 0)
            p->state = p->state == S_BODY ? S_END : S_CHUNK_END;
    }
    *body = view_of(in.p, n);
    *used = n;
    return H1_BODY;
}

/* One line of at most `max` bytes without its CRLF: 1 and the line, 0 for more, -1 failed. */
static int take_line(struct h1_parser *p, struct view in, size_t max, struct view *line,
                     struct err *e)
{
    size_t n = TR_MIN(in.n, max + 2);
    const char *lf = n ? memchr(in.p, '\n', n) : NULL;

    if (!lf) {
        if (n < max + 2)
            return 0;
        return refuse(p, e, p->state == S_TRAILERS ? 431 : 400, "a line is too long");
    }
    if (lf == in.p || lf[-1] != '\r')
        return refuse(p, e, 400, "a line does not end in CRLF");
    *line = view_of(in.p, (size_t)(lf - in.p) - 1);
    return 1;
}

static int chunk_size(struct view line, uint64_t *size)
{
    uint64_t v = 0;
    size_t n = 0;

    while (n < line.n) {
        char c = line.p[n], l = c | 0x20;

        if (c >= '0' && c <= '9')
            v = v << 4 | (uint64_t)(c - '0');
        else if (l >= 'a' && l <= 'f')
            v = v << 4 | (uint64_t)(l - 'a' + 10);
        else
            break;
        if (++n > MAX_CHUNK_DIGITS)
            return -1;
    }
    if (n == 0 || v > INT64_MAX)
        return -1;
    *size = v;
    line = view_from(line, n);
    return line.n == 0 || (line.p[0] == ';' && no_controls(line, true)) ? 0 : -1;
}

/* RFC 9112 §7.1. Extensions are dropped. */
static enum h1_event next_chunk_line(struct h1_parser *p, struct view in, size_t *used,
                                     struct err *e)
{
    struct view line;
    int r = take_line(p, in, H1_MAX_CHUNK_LINE, &line, e);

    if (r <= 0)
        return r == 0 ? H1_MORE : H1_ERROR;
    if (chunk_size(line, &p->left) != 0)
        return fail(p, e, 400, "malformed chunk size");
    *used = line.n + 2;
    p->state = p->left ? S_CHUNK : S_TRAILERS;
    return H1_MORE;
}

static enum h1_event next_chunk_end(struct h1_parser *p, struct view in, size_t *used,
                                    struct err *e)
{
    if ((in.n >= 1 && in.p[0] != '\r') || (in.n >= 2 && in.p[1] != '\n'))
        return fail(p, e, 400, "a chunk is longer than it says");
    if (in.n < 2)
        return H1_MORE;
    *used = 2;
    p->state = S_CHUNK_LINE;
    return H1_MORE;
}

/* Fields that would change what was already decided (RFC 9110 §6.5.1). */
static bool is_framing_field(struct view name)
{
    return view_ieq(name, VIEW_LIT("content-length")) ||
           view_ieq(name, VIEW_LIT("transfer-encoding")) || view_ieq(name, VIEW_LIT("host"));
}

/* p->left counts the bytes of the trailers so far. */
static enum h1_event next_trailer(struct h1_parser *p, struct view in, size_t *used, struct err *e)
{
    struct view line;
    struct h1_field f;
    int r = take_line(p, in, MAX_TRAILERS - (size_t)p->left, &line, e);

    if (r <= 0)
        return r == 0 ? H1_MORE : H1_ERROR;
    *used = line.n + 2;
    if (line.n == 0) {
        p->state = S_END;
        return H1_MORE;
    }
    if (parse_field(p, line, &f, e) != 0)
        return H1_ERROR;
    if (is_framing_field(f.name))
        return fail(p, e, 400, "a trailer that changes the framing");
    p->left = TR_MIN(p->left + line.n + 2, (uint64_t)MAX_TRAILERS);
    return H1_MORE;
}

static enum h1_event step(struct h1_parser *p, struct view in, size_t *used, struct view *body,
                          struct err *e)
{
    switch ((enum state)p->state) {
    case S_START:
        return next_start(p, in, used, e);
    case S_START_LINE:
    case S_FIELDS:
        return next_head(p, in, used, e);
    case S_BODY:
    case S_CHUNK:
    case S_BODY_CLOSE:
        return next_body(p, in, used, body);
    case S_CHUNK_LINE:
        return next_chunk_line(p, in, used, e);
    case S_CHUNK_END:
        return next_chunk_end(p, in, used, e);
    case S_TRAILERS:
        return next_trailer(p, in, used, e);
    case S_END:
        p->state = S_START;
        return H1_END;
    case S_DEAD:
        return fail(p, e, p->status, "an earlier message was malformed");
    case S_FRAMING:
        break;
    }
    BUG("state");
}

enum h1_event h1_next(struct h1_parser *p, struct view in, size_t *used, struct view *body,
                      struct err *e)
{
    *used = 0;
    *body = VIEW_NONE;
    for (;;) {
        size_t n = 0;
        int before = p->state;
        enum h1_event ev;

        if (before == S_FRAMING)
            begin_body(p);
        ev = step(p, view_from(in, *used), &n, body, e);
        *used += n;
        /* Lines between pieces of a body say nothing to the caller: go on while they lead on. */
        if (ev != H1_MORE || (p->state == before && n == 0))
            return ev;
    }
}

bool h1_eof_ok(const struct h1_parser *p)
{
    return p->state == S_START || (p->state == S_START_LINE && p->scanned == 0) ||
           p->state == S_BODY_CLOSE;
}

struct view h1_field(const struct h1_head *head, const char *name)
{
    struct view want = view_str(name);
    size_t i;

    for (i = 0; i < head->n_fields; i++)
        if (view_ieq(head->fields[i].name, want))
            return head->fields[i].value;
    return VIEW_NONE;
}
