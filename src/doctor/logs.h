/*
 * A log as a build writes it (HP §1, §2.2): a stream opened, written to, uploaded, closed, with a
 * given token. It has a name of its own, below "tailrace-doctor/", so that nobody's log is touched,
 * and what it uploads is deleted again.
 */
#ifndef TR_DOCTOR_LOGS_H
#define TR_DOCTOR_LOGS_H

#include "doctor/steps.h"

struct logs_probe {
    const char *token; /* of the log service; a field's value */
    bool by_link;      /* finished logs go to the bucket by a signed link; else through Harness */
};

/* All of it. `r` reaches harness.url. */
bool step_logs(struct route *r, const struct service *s, const struct logs_probe *p);

#endif
