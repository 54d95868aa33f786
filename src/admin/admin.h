/*
 * The pages that the admin listener and the control socket have, as a service for the HTTP server:
 * GET / (the status page, or what there is), /metrics, /healthz and /readyz. Everything shown is
 * registered in rt (metric.h, ready.h) by whoever knows it; nothing here names another layer.
 */
#ifndef TR_ADMIN_ADMIN_H
#define TR_ADMIN_ADMIN_H

#include "base/str.h"
#include "base/view.h"
#include "http/server.h"

/* Answers every exchange at once. Static; any number of servers and threads may share it. */
const struct http_service *admin_service(void);

struct admin_response {
    int status;
    const char *content_type; /* static */
    const char *allow;        /* value of the Allow field, or NULL; static */
    struct str body;
};

/*
 * The answer to a request, without the HTTP around it. `target` is origin-form; its query is
 * ignored. `accept`: the Accept fields joined by commas, or empty. `out` is filled; the caller
 * frees the body with str_fini. HEAD is answered like GET; leaving the body out is the server's.
 */
void admin_respond(struct view method, struct view target, struct view accept,
                   struct admin_response *out);

/* Whether an Accept value prefers OpenMetrics 1.0 to Prometheus' own text (RFC 9110 §12.5.1): it
 * must name it, with a weight not less than that of text/plain. */
bool admin_wants_openmetrics(struct view accept);

/* Whether it prefers HTML to plain text: it must name text/html, as browsers do and curl does not.
 */
bool admin_wants_html(struct view accept);

#endif
