/*
 * The state of the whole process as one JSON text, and its last hour: the commands `status` and
 * `history`. All figures come from the metrics, read at one moment, so that the status page,
 * tailracectl and a scrape of that moment say the same. For the main thread.
 */
#ifndef TR_APP_REPORT_H
#define TR_APP_REPORT_H

#include <stdint.h>
#include "base/str.h"

struct gateway;
struct report;

/* The commands are there, and history begins. */
struct report *report_new(struct gateway *g);
void report_free(struct report **r);

/* A further key of the status: `add` appends its value, after the collectors have run. In the order
 * in which they are added; `key` is kept as it is. */
typedef void (*report_section_fn)(void *ctx, struct str *out);
void report_section_add(struct report *r, const char *key, report_section_fn add, void *ctx);

/* Append the JSON object, without a newline in or behind it. */
void report_status(struct report *r, struct str *out);
/* The same with the newest `last` points of the last hour. */
void report_history(struct report *r, size_t last, struct str *out);

/* A configuration was taken up; or was not, for that reason (copied). */
void report_loaded(struct report *r);
void report_not_loaded(struct report *r, const char *why);

#endif
