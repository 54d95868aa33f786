/*
 * Request targets, queries, percent-encoding and authorities (RFC 3986), as the Harness log service
 * reads them (HP §1.11).
 */
#ifndef TR_CODEC_URL_H
#define TR_CODEC_URL_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"

/* Split an origin-form target at its first `?`; without one `query` has .p NULL. */
void url_split_target(struct view target, struct view *path, struct view *query);

/*
 * Walk a query: `*rest` starts as the whole query. 1: `name` and `value` are the next pair, as
 * spelled; 0: no more. Pairs are separated by `&` only; a `;` belongs to the value (HP §7 item 8).
 */
int url_query_next(struct view *rest, struct view *name, struct view *value);

/* Append the decoded bytes: %XX, and `+` as a space when `plus`. -1, appending nothing, on a broken
 * escape. */
int url_decode(struct view in, bool plus, struct str *out) TR_MUST_USE;

/* Append `in` with everything escaped but unreserved characters. */
void url_encode(struct view in, struct str *out);

struct url {
    bool https;
    struct view host; /* without brackets */
    uint16_t port;    /* the scheme's when not given */
    bool port_given;
    struct view authority; /* as spelled, for Host */
    struct view path;      /* with its leading slash and query; "/" if empty */
};

/*
 * An absolute http or https URL. Userinfo, fragments and a query right behind the host are refused.
 * Views point into `text`.
 */
int url_parse(struct view text, struct url *out, struct err *e) TR_MUST_USE;

/*
 * "host", "host:port", "[v6]:port"; port `def` when not given. Host of at most 253 bytes of
 * letters, digits, '-', '.', '_' or a literal. A dot at the end (the root) is kept: who compares
 * names drops it first.
 */
int url_parse_authority(struct view text, uint16_t def, struct view *host, uint16_t *port,
                        struct err *e) TR_MUST_USE;

#endif
