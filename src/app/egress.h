/* A configuration as the egress path wants it. */
#ifndef TR_APP_EGRESS_H
#define TR_APP_EGRESS_H

#include "app/options.h"
#include "policy/policy.h"

/* The rules, then egress.allow as the rule of that name, then the profile's. The caller's. NULL:
 * `e`. */
struct policy *egress_policy(const struct config *c, struct err *e) TR_MUST_USE;

#endif
