#include "app/doctor_priv.h"

#include "app/egress.h"
#include "policy/flows.h"

struct denied {
    const struct doctor *d;
    struct findings *findings;
};

/* Whether a part of Harness is used that is not for everybody, only the admin knows. */
static void on_denied(void *ctx, const struct flow *f, const char *destination,
                      const struct policy_verdict *v)
{
    const struct denied *x = ctx;
    const bool upload = strcmp(f->name, "log-upload") == 0;
    const bool ours = x->d->config->egress_profile == CONFIG_PROFILE_HARNESS;
    const struct finding finding = {
        .verdict = ours && (f->required || upload) && !v->would_deny ? VERDICT_FAIL : VERDICT_WARN,
        .cause = upload ? CAUSE_UPLOAD_BLOCKED : CAUSE_POLICY_DENIES,
        .flow = f->name,
        .step = "policy",
    };

    findings_add(x->findings, &finding, "%s %s by rule %s (%s): %s", destination,
                 v->would_deny ? "would be denied" : "is denied", v->rule, v->reason, f->breaks);
    if (strcmp(v->rule, "default") == 0)
        findings_do(x->findings, "egress.allow: [\"%s\"], or egress.profile: harness", destination);
    else
        findings_do(x->findings, "take it out of rules.%s, or allow %s by a rule before that",
                    v->rule, destination);
    if (upload)
        findings_do(x->findings, "; or upload through Harness alone: harness.upload-logs: harness");
}

void doctor_check_policy(const struct doctor *d, const struct policy *p, struct findings *r)
{
    struct denied x = {.d = d, .findings = r};
    struct str host = STR_INIT;
    struct flows_setting setting;

    if (!egress_is_used(d->config) || !doctor_wants(d, "policy"))
        return;
    if (egress_flows_setting(d->config, &host, &setting, NULL) == 0 &&
        flows_broken(p, &setting, on_denied, &x) == 0)
        findings_ok(r, "policy", "flows", "every flow of a Harness deployment is allowed");
    str_fini(&host);
}
