/*
 * The flows of a Harness deployment (HP §4, §5): what it needs to reach, from where, and what stops
 * working without it. From them the `harness` profile is made, and by them `tailrace check` tells
 * what a policy would break.
 */
#ifndef TR_POLICY_FLOWS_H
#define TR_POLICY_FLOWS_H

#include "base/str.h"
#include "policy/policy.h"

struct flow {
    const char *name;        /* "delegate-wss" */
    const char *who;         /* "delegate", "lite-engine", "browser", ... */
    const char *destination; /* "app.harness.io:443"; "%h": the host and port of harness.url;
                                NULL: only the admin knows (git, artifacts) */
    const char *breaks;      /* what its users see if it is denied */
    bool required;           /* for every deployment; else only if that part is used */
    bool example;            /* the destination is one of many, in their form */
    bool googleapis;         /* needed only while logs may go to the bucket (upload-logs) */
};
extern const struct flow flows[];
extern const size_t n_flows;

struct flows_setting {
    const char *harness_host;
    uint16_t harness_port;
    bool googleapis; /* upload-logs is not `harness` */
};

/* The rules of the `harness` profile (names "harness", "harness-mtls", "googleapis", "ui",
 * ...) go to `rules`, which has room for FLOWS_MAX_RULES, and their number is returned; texts live
 * as long as the `flows_profile`. `s` is not kept; a harness_host that is no name or literal makes
 * policy_new fail. */
enum { FLOWS_MAX_RULES = 16 };
struct flows_profile;
struct flows_profile *flows_profile_new(const struct flows_setting *s);
size_t flows_profile_rules(const struct flows_profile *p, struct policy_rule_opts *rules);
void flows_profile_free(struct flows_profile **p);

/* Ask the policy about every flow that the setting needs; `fn` for each that it denies to every
 * client (report mode: would deny). Returns how many. Flows without a destination are not asked. */
size_t flows_broken(const struct policy *p, const struct flows_setting *s,
                    void (*fn)(void *ctx, const struct flow *f, const char *destination,
                               const struct policy_verdict *v),
                    void *ctx);

#endif
