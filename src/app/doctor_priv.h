/* The parts of `tailrace doctor`. */
#ifndef TR_APP_DOCTOR_PRIV_H
#define TR_APP_DOCTOR_PRIV_H

#include <sys/types.h>
#include "app/options.h"
#include "doctor/probe.h"
#include "doctor/findings.h"

struct doctor {
    const char *config_path;
    const char *account;
    const char *trust; /* PEM bundle of delegates; NULL: not given */
    const char *flow;  /* only this one; NULL: all */
    unsigned idle_s;   /* 0: idle connections are not tried */
    unsigned timeout_ms;
    bool json;
    struct str token; /* empty: none was given */

    struct config *config;
    bool running; /* a gateway answers at the control socket */
    pid_t pid;    /* its process; 0: not known */
};

/* Is that one asked for? Listeners' flows are "listen.NAME", and "listen" means all. */
bool doctor_wants(const struct doctor *d, const char *flow);

/* doctor_gateway.c: what the running gateway says of itself. Sets d->running. */
void doctor_ask_gateway(struct doctor *d, struct findings *r);

/* doctor_host.c: the spool's place, ports, descriptors, certificates. */
void doctor_check_host(const struct doctor *d, struct findings *r);

/* doctor_ports.c: where that address of a listener is taken by another process, or may not be
 * listened at. */
void doctor_check_port(const struct config_listen *l, const char *flow, struct findings *r);

/* doctor_policy.c: flows that the policy denies. */
void doctor_check_policy(const struct doctor *d, const struct policy *p, struct findings *r);

/* doctor_ways.c: probe all hosts that the configuration means, side by side. Reports are put at the
 * end of `out`, in a fixed order; the caller frees them and the array. */
struct doctor_reports {
    struct findings **items;
    size_t n;
};
int doctor_probe(const struct doctor *d, const struct policy *p, struct doctor_reports *out,
                 struct err *e) TR_MUST_USE;

#endif
