/*
 * What is wrong now, in sentences for somebody who was woken by it. The conditions are those of the
 * alerts in contrib/prometheus/rules.yml, told from the same metrics by the process itself, so that
 * the status page says what the alert meant, without Prometheus. A problem's name is the alert's,
 * and its section of the runbook is in docs/operations.md.
 *
 * An alert waits before it wakes anybody; here a problem is told when it is there, but for those
 * that come and go by themselves. In the main thread.
 */
#ifndef TR_APP_PROBLEMS_H
#define TR_APP_PROBLEMS_H

#include "ev/loop.h"
#include "rt/json.h"

struct plan;
struct problems;

/* Looks every now and then, by a timer of the loop. */
struct problems *problems_new(struct ev_loop *loop);
void problems_free(struct problems **p);

/* The configuration's, whose certificates it looks at; kept by the caller. */
void problems_configure(struct problems *p, const struct plan *plan);

/* Look once more, at the metrics as they are (collectors are not run), and append
 * [{"name", "severity", "since", "text", "runbook"}...], what is critical first. */
void problems_report(struct problems *p, const char *name, struct json *j);

/* A look, at that time (monotonic and wall), as the timer has it: for tests. */
void problems_look(struct problems *p, int64_t mono_ns, int64_t wall_ns);

#endif
