/*
 * Arrays of log lines (HP §1.7): check that a body is what the server's decoder accepts, count its
 * elements, find the range of `pos`, and splice several into one without re-encoding. The server
 * decodes with Go's encoding/json into
 * []*struct{level string; pos int; out string; time RFC3339; args map[string]string}: exactly one
 * JSON value is read, bytes after it are ignored; unknown fields, null and missing fields are fine;
 * field names match without regard to case; invalid UTF-8 is replaced; a wrong type is an error.
 */
#ifndef TR_CODEC_LINES_H
#define TR_CODEC_LINES_H

#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"

enum {
    LINES_MAX_DEPTH = 64, /* nesting without end; Go's own limit is 10,000 */
};

struct lines_info {
    uint64_t count;  /* elements, nulls included */
    int64_t pos_min; /* of the `pos` fields; both 0 when there are none */
    int64_t pos_max;
    struct view inner; /* between `[` and `]`, white space around it trimmed; empty array: empty */
};

/*
 * 0, or -1 with `e` saying what is wrong and at which byte (never quoting the text): ERR_INVALID,
 * or ERR_LIMIT when nested too deep. A single pass, of about 1 to 3 GB/s. A top-level null is what
 * Go takes for an empty array.
 */
int lines_scan(struct view body, struct lines_info *out, struct err *e) TR_MUST_USE;

/*
 * Walk the elements of an `inner` that lines_scan accepted: 1 and the next element's bytes, or 0.
 * `*rest` starts as inner.
 */
int lines_next(struct view *rest, struct view *element);

#endif
