#include "doctor/findings.h"

#include <stdarg.h>
#include "base/xmem.h"

struct row {
    struct finding f;
    char *flow; /* f.flow */
    const char *who;
    struct str seen, action;
};

struct findings {
    struct row *rows;
    size_t n;
};

struct findings *findings_new(void)
{
    return XNEW(struct findings);
}

void findings_free(struct findings **rp)
{
    struct findings *r = *rp;

    *rp = NULL;
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++) {
        xfree(r->rows[i].flow);
        str_fini(&r->rows[i].seen);
        str_fini(&r->rows[i].action);
    }
    xfree(r->rows);
    xfree(r);
}

static struct row *row_new(struct findings *r, const struct finding *f)
{
    r->rows = xrealloc(r->rows, (r->n + 1) * sizeof(*r->rows));
    r->rows[r->n] = (struct row){.f = *f, .seen = STR_INIT, .action = STR_INIT};
    r->rows[r->n].f.flow = r->rows[r->n].flow = xstrdup(f->flow);
    return &r->rows[r->n++];
}

void findings_add(struct findings *r, const struct finding *f, const char *seen, ...)
{
    va_list ap;

    va_start(ap, seen);
    str_vaddf(&row_new(r, f)->seen, seen, ap);
    va_end(ap);
}

void findings_ok(struct findings *r, const char *flow, const char *step, const char *seen, ...)
{
    va_list ap;

    va_start(ap, seen);
    str_vaddf(&row_new(r, &(struct finding){.flow = flow, .step = step})->seen, seen, ap);
    va_end(ap);
}

void findings_do(struct findings *r, const char *what, ...)
{
    va_list ap;

    va_start(ap, what);
    str_vaddf(&r->rows[r->n - 1].action, what, ap);
    va_end(ap);
}

void findings_who(struct findings *r, const char *who)
{
    r->rows[r->n - 1].who = who;
}

bool findings_failed(const struct findings *r)
{
    for (size_t i = 0; i < r->n; i++) {
        if (r->rows[i].f.verdict == VERDICT_FAIL)
            return true;
    }
    return false;
}

bool findings_has(const struct findings *r, enum cause cause)
{
    for (size_t i = 0; i < r->n; i++) {
        if (r->rows[i].f.cause == cause)
            return true;
    }
    return false;
}

/* ---- showing it --------------------------------------------------------------------------- */

static const char *const verdict_names[] = {"ok", "warn", "FAIL"};

static const char *who_of(const struct row *row)
{
    return row->who ? row->who : cause_row(row->f.cause)->who;
}

/* Plain ASCII only: a certificate's names, and what proxies answer, are theirs to choose. */
static void say(FILE *out, const char *text)
{
    for (; *text; text++)
        fputc(*text >= ' ' && *text < 0x7f ? *text : '?', out);
}

static void print_more(FILE *out, const char *what, const char *text)
{
    if (!*text)
        return;
    fprintf(out, "        %-5s ", what);
    say(out, text);
    fputc('\n', out);
}

void findings_print(const struct findings *r, FILE *out, struct findings_counts *counts)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct row *row = &r->rows[i];

        counts->n[row->f.verdict]++;
        fprintf(out, "%-5s %-16s ", verdict_names[row->f.verdict], row->f.flow);
        say(out, row->f.step);
        fputs(": ", out);
        say(out, str_c(&row->seen));
        fputc('\n', out);
        if (row->f.verdict == VERDICT_OK)
            continue;
        print_more(out, "why:", cause_row(row->f.cause)->why);
        print_more(out, "who:", who_of(row));
        print_more(out, "do:", str_c(&row->action));
    }
}

/* An empty text is null. */
static void add_text(struct json *j, const char *name, const char *text)
{
    json_text(j, name, *text ? view_str(text) : (struct view){0});
}

void findings_json(const struct findings *r, struct json *j, struct findings_counts *counts)
{
    static const char *const names[] = {"ok", "warn", "fail"};

    for (size_t i = 0; i < r->n; i++) {
        const struct row *row = &r->rows[i];

        counts->n[row->f.verdict]++;
        json_open(j, NULL, '{');
        add_text(j, "verdict", names[row->f.verdict]);
        add_text(j, "flow", row->f.flow);
        add_text(j, "step", row->f.step);
        add_text(j, "seen", str_c(&row->seen));
        add_text(j, "cause", cause_row(row->f.cause)->name);
        add_text(j, "why", row->f.cause ? cause_row(row->f.cause)->why : "");
        add_text(j, "who", row->f.cause ? who_of(row) : "");
        add_text(j, "do", str_c(&row->action));
        json_close(j, '}');
    }
}
