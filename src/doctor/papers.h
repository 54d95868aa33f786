/* Certificates that this gateway shows to its clients, or uses upstream: are they good? */
#ifndef TR_DOCTOR_PAPERS_H
#define TR_DOCTOR_PAPERS_H

#include "doctor/findings.h"

struct papers {
    const char *flow;    /* "listen.proxy" */
    const char *setting; /* "listen.proxy.certificate" */
    const char *path;    /* PEM: the certificate, then those above it */
    const char *host;    /* a name or address that clients call it by; NULL: not known */
    const char *trust;   /* PEM bundle of those who are to believe it; NULL: not to be looked at */
    bool is_ca;          /* it signs others: no name in it matters */
};

/* Its time, its names, its issuer. Rows go to `r`. */
void papers_check(struct findings *r, const struct papers *p);

#endif
