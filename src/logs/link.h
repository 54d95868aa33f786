/* Signed links (HP §1.9): what the log service's answer holds, and what the object store says to
 * those who follow one. Pure functions. */
#ifndef TR_LOGS_LINK_H
#define TR_LOGS_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/str.h"
#include "base/view.h"

enum { LINK_MAX = 16 * 1024 }; /* a signed link is some 500 bytes; what is larger is none */

/* The `link` of a JSON answer, decoded, appended to `out`. -1: there is none that could be followed
 * byte for byte (RFC 3986: printable ASCII, http or https). */
int link_of_answer(struct view body, struct str *out) TR_MUST_USE;

/* Scheme, host and port of both URLs are the same. */
bool link_same_place(struct view a, struct view b);

/* Does this answer of the store mean that another link might do: 401, 403, or 400 that speaks
 * of expiry? */
bool link_is_refused(int status, struct view body);

/* Does an x-goog-hash field agree with the bytes that were sent? Where it names a crc32c that
 * decides; otherwise md5, if the body is at hand (`whole`; .p NULL: it is not). True also when
 * there is nothing to compare. */
bool goog_hash_agrees(struct view field, uint32_t crc, struct view whole);

#endif
