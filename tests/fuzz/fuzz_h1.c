/*
 * HTTP/1.1 messages. The first byte says which kind, the second how the input is cut.
 *
 * Oracle: however it is cut, the events are the same; a head that was taken can be written with the
 * writers and is then read as the same; framing is never ambiguous.
 */
#include "fuzz/target.h"

#include <stdlib.h>
#include "codec/h1.h"

struct log {
    struct str text;
    bool in_body;
};

static void add_view(struct log *l, struct view v)
{
    str_addf(&l->text, "[%zu:", v.n);
    str_addv(&l->text, v);
    str_addc(&l->text, ']');
}

static void add_head(struct log *l, const struct h1_head *h)
{
    size_t i;

    str_addf(&l->text, "head %d %d %lld %d%d%d%d", h->status, h->minor,
             (long long)h->content_length, h->chunked, h->keep_alive, h->upgrade,
             h->expect_continue);
    add_view(l, h->method);
    add_view(l, h->target);
    add_view(l, h->reason);
    add_view(l, h->host);
    add_view(l, h->upgrade_to);
    for (i = 0; i < h->n_fields; i++) {
        add_view(l, h->fields[i].name);
        add_view(l, h->fields[i].value);
    }
}

static size_t count_fields(const struct h1_head *h, const char *name)
{
    size_t i, n = 0;

    for (i = 0; i < h->n_fields; i++)
        n += view_ieq(h->fields[i].name, view_str(name));
    return n;
}

static void check_framing(const struct h1_parser *p)
{
    const struct h1_head *h = &p->head;

    ASSERT(!(h->chunked && h->content_length >= 0));
    ASSERT(count_fields(h, "content-length") == (h->content_length >= 0));
    ASSERT(count_fields(h, "transfer-encoding") == h->chunked);
    ASSERT(h->n_fields <= H1_MAX_FIELDS);
    if (p->kind == H1_REQUEST)
        ASSERT(count_fields(h, "host") <= 1 && (h->minor == 0 || h->host.p));
}

/* Written and read again. The writers speak 1.1 only. */
static void check_writers(const struct h1_parser *p)
{
    static struct h1_parser again;
    const struct h1_head *h = &p->head;
    struct str text = STR_INIT;
    struct view body;
    size_t used, i;

    if (h->minor == 0)
        return;
    if (p->kind == H1_REQUEST)
        h1_write_request(&text, h->method, h->target);
    else
        h1_write_status(&text, h->status);
    for (i = 0; i < h->n_fields; i++)
        h1_write_field(&text, h->fields[i].name, h->fields[i].value);
    h1_write_end(&text);
    h1_init(&again, p->kind);
    /* Only its length may stand in the way: a space was added behind each colon. */
    if (text.n <= H1_MAX_HEAD && h->target.n < H1_MAX_START_LINE - 300) {
        ASSERT(h1_next(&again, str_view(&text), &used, &body, NULL) == H1_HEAD);
        ASSERT(used == text.n);
        ASSERT(view_eq(again.head.target, h->target) && again.head.n_fields == h->n_fields);
        ASSERT(again.head.content_length == h->content_length && again.head.chunked == h->chunked &&
               again.head.keep_alive == h->keep_alive);
        for (i = 0; i < h->n_fields; i++)
            ASSERT(view_eq(again.head.fields[i].value, h->fields[i].value));
    }
    str_fini(&text);
}

static void on_event(struct log *l, struct h1_parser *p, enum h1_event ev, struct view body)
{
    if (ev == H1_MORE)
        return;
    if (ev != H1_BODY) {
        str_addf(&l->text, "\n%d ", ev);
        l->in_body = false;
    } else if (!l->in_body) {
        str_adds(&l->text, "\nbody ");
        l->in_body = true;
    }
    if (ev == H1_BODY) {
        ASSERT(body.n > 0);
        str_addv(&l->text, body);
    } else if (ev == H1_HEAD) {
        check_framing(p);
        check_writers(p);
        add_head(l, &p->head);
    } else if (ev == H1_ERROR) {
        ASSERT(p->status >= 400 && p->status <= 599);
        str_addf(&l->text, "%d", p->status);
    }
}

/* Each piece at the end of a block of its own; what is not used is given again. */
static void run(enum h1_kind kind, bool head_only, struct view in, unsigned cut, struct log *l)
{
    struct h1_parser p;
    size_t off = 0, given = 0;
    enum h1_event ev = H1_MORE;

    h1_init(&p, kind);
    p.head_only = head_only;
    while (ev != H1_ERROR && given < in.n) {
        size_t step = cut ? 1 + (given * 7 + cut) % cut : in.n, n, used;
        char *copy;

        given = TR_MIN(given + step, in.n);
        n = given - off;
        copy = malloc(n ? n : 1);
        ASSERT(copy != NULL);
        memcpy(copy, in.p + off, n);
        for (size_t at = 0;; at += used) {
            struct view body;

            ev = h1_next(&p, view_of(copy + at, n - at), &used, &body, NULL);
            ASSERT(used <= n - at);
            on_event(l, &p, ev, body);
            off += used;
            if (ev == H1_MORE || ev == H1_ERROR)
                break;
        }
        free(copy);
    }
    str_addf(&l->text, "\n%s", ev == H1_ERROR ? "" : h1_eof_ok(&p) ? "eof" : "cut");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    uint8_t kind = fuzz_byte(&in), cut = fuzz_byte(&in);
    struct log whole = {STR_INIT, false}, pieces = {STR_INIT, false};

    run(kind & 1 ? H1_RESPONSE : H1_REQUEST, kind & 2, in, 0, &whole);
    run(kind & 1 ? H1_RESPONSE : H1_REQUEST, kind & 2, in, cut + 1u, &pieces);
    ASSERT(view_eq(str_view(&whole.text), str_view(&pieces.text)));
    str_fini(&whole.text);
    str_fini(&pieces.text);
    return 0;
}
