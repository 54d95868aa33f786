/* The body of a PUT /stream as records: checked, cut into deliverable parts, compressed. Pure: may
 * run in a pool thread. */
#ifndef TR_LOGS_BODY_H
#define TR_LOGS_BODY_H

#include "base/attrs.h"
#include "base/err.h"
#include "base/list.h"
#include "base/view.h"
#include "logs/record.h"

struct body_rules {
    uint64_t lines, bytes; /* most of one record, so that it can be delivered as one request */
    const struct call_part *parts; /* an edge's delivery: one record for each part */
    size_t n_parts;
    bool keep_text; /* leave the text in memory for delivery */
    int64_t at_ns;
};

/* Append records (struct record.link) to `records`; `*lines` is their number of elements. -1: not
 * an array of lines (HP §1.7). */
int body_to_records(struct view body, const struct body_rules *rules, struct list *records,
                    uint64_t *lines, struct err *e) TR_MUST_USE;

/* Parse a Tailrace-Delivery field: "EDGE-LIFE NUMBER:LINES,...". `*parts` is the caller's. -1: not
 * understood. */
int body_parse_delivery(struct view field, uint64_t *edge, uint64_t *life, struct call_part **parts,
                        size_t *n) TR_MUST_USE;

#endif
