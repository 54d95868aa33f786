/*
 * tailracectl: asks the running tailrace, and tells it what to do, over its control socket
 * (admin/control.h). A command is a row of a table (main.c) and a function; each calls ctl_call and
 * shows what came: tables for people, the server's JSON with --json.
 */
#ifndef TR_CTL_CTL_H
#define TR_CTL_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include "base/attrs.h"
#include "base/str.h"

/* Exit statuses. */
enum { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2, CTL_UNREACHABLE = 3 };

struct ctl {
    const char *config; /* -c; NULL: the usual one */
    const char *socket; /* --socket; NULL: as the configuration says */
    bool json, all, yes;
    const char *stream, *account, *reason; /* which dead letters */
    const char *output;                    /* a file; NULL: standard output */
    char *path;                            /* of the socket, once it is known */
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

/* In ASCII: no text in it speaks to a terminal. */
void ctl_show_json(const json_t *json);
/* A text that may hold what clients wrote, without control characters. */
void ctl_say(FILE *out, const char *text);

/* Texts of an object; "" if it is not there or no text. */
const char *ctl_text(const json_t *object, const char *name);
json_int_t ctl_int(const json_t *object, const char *name);

/* A table for people: columns as wide as what stands in them, numbers to the right. */
struct ctl_table;
struct ctl_table *ctl_table_new(const char *const *heads, size_t n);
void ctl_table_add(struct ctl_table *t, const char *text); /* the next cell, row by row; copied */
void ctl_table_add_int(struct ctl_table *t, json_int_t value);
void ctl_table_show(struct ctl_table **t); /* and free it */

/* dead.c: `args` are the words behind "dead". */
int ctl_dead(struct ctl *c, int n, char **args);

#endif
