/* What the section `intercept` and the listeners of mode sni mean: for plans and workers. */
#ifndef TR_APP_INSIDE_H
#define TR_APP_INSIDE_H

#include "app/options.h"
#include "crypto/mint.h"
#include "crypto/tls.h"
#include "egress/intercept.h"

struct inside_plan {
    struct mint *mint;    /* NULL: nothing is intercepted; so are the next two */
    struct policy *hosts; /* those of intercept.hosts, as what a policy allows */
    struct tls_ctx *tls;  /* to hosts but the one of harness.url: without our certificate */
    struct dest harness;  /* as clients ask for it */
};

/* 0, or -1 and `e`, which names the setting. inside_plan_fini in both cases. */
int inside_plan_init(struct inside_plan *p, const struct config *c, struct err *e) TR_MUST_USE;
void inside_plan_fini(struct inside_plan *p);

/* Fill what the plan says; the plan is to outlive whoever uses it. */
void inside_plan_opts(const struct inside_plan *p, struct intercept_opts *out);

/* What a listener of mode sni has as its port; 0: the one by which clients come in. */
uint16_t inside_port(const struct config_listen *l);

#endif
