/*
 * What was found: rows of "flow, step, verdict, what was seen" and, where something is wrong, its
 * cause and what to do. One thread writes each; several are shown as one.
 */
#ifndef TR_DOCTOR_FINDINGS_H
#define TR_DOCTOR_FINDINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include "base/attrs.h"
#include "base/str.h"
#include "doctor/cause.h"
#include "rt/json.h"

enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL };

struct findings;

struct finding {
    enum verdict verdict;
    enum cause cause;
    const char *flow; /* "log-upload"; copied */
    const char *step; /* "dial"; static */
};

struct findings *findings_new(void); /* never NULL */
void findings_free(struct findings **r);

/* Add a row. Texts may hold what peers sent; tokens, signatures and log text must not be in them.
 */
void findings_add(struct findings *r, const struct finding *f, const char *seen, ...)
    TR_PRINTF(3, 4);
void findings_ok(struct findings *r, const char *flow, const char *step, const char *seen, ...)
    TR_PRINTF(4, 5);
/* What to do about the row that was added last. */
void findings_do(struct findings *r, const char *what, ...) TR_PRINTF(2, 3);
/* Who, if it is somebody else than the cause's usual one. A static text. */
void findings_who(struct findings *r, const char *who);

bool findings_failed(const struct findings *r);
/* Is there a row of that cause? */
bool findings_has(const struct findings *r, enum cause cause);

struct findings_counts {
    unsigned n[VERDICT_FAIL + 1];
};

/* For people: rows, one line each, with why, who and do below those that are not fine. Nothing
 * speaks to a terminal. Adds to `counts`. */
void findings_print(const struct findings *r, FILE *out, struct findings_counts *counts);
/* The rows as JSON objects, into an array that is open. */
void findings_json(const struct findings *r, struct json *j, struct findings_counts *counts);

#endif
