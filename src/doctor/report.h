/*
 * What was found: rows of "flow, step, verdict, what was seen" and, where something is wrong, its
 * cause and what to do. One thread writes a report; several are shown as one.
 */
#ifndef TR_DOCTOR_REPORT_H
#define TR_DOCTOR_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include "base/attrs.h"
#include "base/str.h"
#include "doctor/cause.h"

enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL };

struct report;

struct finding {
    enum verdict verdict;
    enum cause cause;
    const char *flow; /* "log-upload"; copied */
    const char *step; /* "dial"; static */
};

struct report *report_new(void); /* never NULL */
void report_free(struct report **r);

/* Add a row. Texts may hold what peers sent; tokens, signatures and log text must not be in them.
 */
void report_add(struct report *r, const struct finding *f, const char *seen, ...) TR_PRINTF(3, 4);
void report_ok(struct report *r, const char *flow, const char *step, const char *seen, ...)
    TR_PRINTF(4, 5);
/* What to do about the row that was added last. */
void report_do(struct report *r, const char *what, ...) TR_PRINTF(2, 3);
/* Who, if it is somebody else than the cause's usual one. A static text. */
void report_who(struct report *r, const char *who);

bool report_failed(const struct report *r);
/* Is there a row of that cause? */
bool report_has(const struct report *r, enum cause cause);

struct report_counts {
    unsigned n[VERDICT_FAIL + 1];
};

/* For people: rows, one line each, with why, who and do below those that are not fine. Nothing
 * speaks to a terminal. Adds to `counts`. */
void report_print(const struct report *r, FILE *out, struct report_counts *counts);
/* The rows as JSON objects, with a comma in front of each but the first of all. */
void report_json(const struct report *r, struct str *out, struct report_counts *counts);

#endif
