/*
 * tailracectl: asks the running tailrace, and tells it what to do, over its control socket
 * (admin/control.h). A command is a row of a table (commands.h) and a function; each calls ctl_call
 * and shows what came: tables for people, the server's JSON with --json.
 */
#ifndef TR_CTL_CTL_H
#define TR_CTL_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include "base/attrs.h"
#include "base/str.h"
#include "ctl/page.h"

/* Exit statuses. */
enum { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2, CTL_UNREACHABLE = 3 };

/* What was said on the command line (commands.c has the rows), and where it is shown. */
struct ctl {
    const char *config; /* -c; NULL: the usual one */
    const char *socket; /* --socket; NULL: as the configuration says */
    bool json, wide, all, yes, check, help;
    const char *stream, *account, *reason; /* which dead letters */
    const char *output;                    /* a file; NULL: standard output */
    const char *search, *state, *sort, *by, *limit, *last, *minutes;
    const char *from, *identity;
    struct look look;
    char *path; /* of the socket, once it is known */
};

struct ctl_answer {
    int status;
    struct str text;
    json_t *json; /* of the text; NULL: it is none */
};

/*
 * Call "GET" or "POST" /api/v1/PATH. CTL_OK: it was answered with success. Else the reason is on
 * standard error: CTL_FAILED, `a` holding the answer all the same, or CTL_UNREACHABLE. The caller
 * frees `a` in any case.
 */
int ctl_call(struct ctl *c, const char *method, const char *path, struct ctl_answer *a);
void ctl_answer_fini(struct ctl_answer *a);
/* GET, with the body of a success written to `out` as it comes. */
int ctl_fetch(struct ctl *c, const char *path, FILE *out);

/* Append "?name=value", or "&..." if there is one before, escaped; nothing if `value` is NULL. */
void ctl_add_arg(struct str *path, const char *name, const char *value);

/* Call, and show the answer: as it is with --json, else as `show` puts it on a page. */
typedef void ctl_show_fn(struct ctl *c, struct page *p, const json_t *json);
int ctl_show(struct ctl *c, const char *method, const char *path, ctl_show_fn *show);

/* In ASCII: no text in it speaks to a terminal. */
void ctl_show_json(const json_t *json);
void ctl_show_json_line(const json_t *json); /* in one line */
/* A text that may hold what clients wrote, made harmless. */
void ctl_say(FILE *out, const char *text);

/* Texts of an object; "" if it is not there or no text. */
const char *ctl_text(const json_t *object, const char *name);
json_int_t ctl_int(const json_t *object, const char *name);
/* The value at "spool.bytes"; NULL: it is not there. */
json_t *ctl_at(const json_t *object, const char *path);

#endif
