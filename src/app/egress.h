/* A configuration as the egress path wants it. */
#ifndef TR_APP_EGRESS_H
#define TR_APP_EGRESS_H

#include "app/options.h"
#include "base/str.h"
#include "policy/flows.h"
#include "policy/policy.h"

/* The rules, then egress.allow as the rule of that name, then the profile's. The caller's. NULL:
 * `e`; the rows have refused all that can be wrong with rules before. */
struct policy *egress_policy(const struct config *c, struct err *e) TR_MUST_USE;

/* What upstream.parent-bypass means, as a policy: what it allows (policy_decide) is dialled
 * directly, by any port. The caller's. NULL: `e`. */
struct policy *egress_bypass(const struct config *c, struct err *e) TR_MUST_USE;

/* What the flows depend on; harness_host goes into `host`, which the caller frees. */
int egress_flows_setting(const struct config *c, struct str *host, struct flows_setting *out,
                         struct err *e) TR_MUST_USE;

/* Is anything asked of the policy at all: is there a listener whose clients choose where to? */
bool egress_is_used(const struct config *c);

/* Tell the policy this machine's addresses as they are now. Any thread, but one at a time. */
void egress_own_addresses(void);

#endif
