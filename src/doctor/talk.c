#include "doctor/talk.h"

#include <time.h>

/* More of an answer is not looked at: a portal's page may be of any size. */
enum { BODY_KEEP = 64 << 10, BODY_MAX = 1 << 20 };

void talk_begin(struct str *out, const char *method, struct view target, const char *authority)
{
    h1_write_request(out, view_str(method), target);
    talk_field(out, "Host", authority);
    talk_field(out, "User-Agent", "tailrace-doctor");
}

void talk_field(struct str *out, const char *name, const char *value)
{
    h1_write_field(out, view_str(name), view_str(value));
}

void talk_end(struct str *out, struct view body, bool with_length)
{
    char length[24];

    if (with_length) {
        snprintf(length, sizeof(length), "%zu", body.n);
        talk_field(out, "Content-Length", length);
    }
    h1_write_end(out);
    str_addv(out, body);
}

/* ---- answers ------------------------------------------------------------------------------ */

/* RFC 9110 §5.6.7, the one form that is still sent. */
static int64_t read_date(struct view v)
{
    char text[40];
    struct tm tm = {0};
    const char *end;

    if (v.n >= sizeof(text))
        return -1;
    memcpy(text, v.p ? v.p : "", v.n);
    text[v.n] = '\0';
    end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    return end && !*end ? (int64_t)timegm(&tm) : -1;
}

static void keep(char *out, size_t size, struct view v)
{
    size_t i;

    for (i = 0; i < v.n && i + 1 < size; i++)
        out[i] = (char)(v.p[i] >= ' ' && v.p[i] < 0x7f ? v.p[i] : '?');
    out[i] = '\0';
}

static void read_fields(const struct h1_head *head, struct talk_answer *a)
{
    struct view server = h1_field(head, "Server"), type = h1_field(head, "Content-Type");

    a->status = head->status;
    a->date = read_date(h1_field(head, "Date"));
    a->keep_alive = head->keep_alive;
    a->upgrade = head->upgrade;
    a->location = h1_field(head, "Location").p != NULL;
    a->html = type.n >= 9 && view_ieq(view_of(type.p, 9), VIEW_LIT("text/html"));
    keep(a->server, sizeof(a->server), server.n ? server : h1_field(head, "Via"));
    keep(a->accept, sizeof(a->accept), h1_field(head, "Sec-WebSocket-Accept"));
}

struct reading {
    struct h1_parser parser;
    bool head_only; /* of a success: the rest is a tunnel's */
    size_t total;
    bool over;
};

/* One event. 1: there may be more in what was read; 0: read on; -1. */
static int step(struct reading *r, struct line *l, struct talk_answer *a, struct err *e)
{
    struct view body;
    size_t used;
    enum h1_event event = h1_next(&r->parser, str_view(&l->in), &used, &body, e);

    if (event == H1_ERROR)
        return err_prefix(e, "no HTTP answer");
    if (event == H1_HEAD)
        read_fields(&r->parser.head, a);
    if (event == H1_BODY) {
        r->total += body.n;
        if (a->body.n + body.n <= BODY_KEEP)
            str_addv(&a->body, body);
    }
    if (used) {
        memmove(l->in.p, l->in.p + used, l->in.n - used);
        l->in.n -= used;
    }
    if (r->total > BODY_MAX) { /* what is left of it is in the way of another answer */
        a->keep_alive = false;
        r->over = true;
    }
    if (event == H1_HEAD && a->status == 101)
        r->over = true;
    if (event == H1_HEAD && r->head_only && a->status / 100 == 2)
        r->over = true;
    if (event == H1_END && a->status >= 200)
        r->over = true;
    return event != H1_MORE && !r->over;
}

int talk(struct line *l, const struct str *request, struct talk_answer *a, struct err *e)
{
    struct reading r = {.head_only = view_starts(str_view(request), VIEW_LIT("CONNECT "))};
    ssize_t got;
    int rc;

    *a = (struct talk_answer){.date = -1, .body = STR_INIT};
    h1_init(&r.parser, H1_RESPONSE);
    if (line_write(l, request->p, request->n, e) < 0)
        return -1;
    for (;;) {
        while ((rc = step(&r, l, a, e)) > 0)
            ;
        if (rc < 0 || r.over)
            return rc < 0 ? -1 : 0;
        got = line_read(l, e);
        if (got < 0)
            return -1;
        if (got == 0) {
            a->keep_alive = false;
            if (a->status && h1_eof_ok(&r.parser))
                return 0;
            return err_set(e, ERR_CLOSED, "the connection was closed before an answer");
        }
    }
}

void talk_answer_fini(struct talk_answer *a)
{
    str_fini(&a->body);
}
