/* The certificates that a configuration shows to others, and until when they are good: the
 * listeners', the one towards upstream, and the CA of interception. */
#ifndef TR_APP_CERTIFICATES_H
#define TR_APP_CERTIFICATES_H

#include "base/str.h"
#include "rt/json.h"

struct plan;

/* Set certificate_expiry_seconds{name}. */
void certificates_measure(const struct plan *p);

/* Append [{"name", "subject", "not_after", "expires_in_seconds"}...]. not_after is
 * that of the first certificate of its chain to expire. */
void certificates_report(const struct plan *p, const char *name, struct json *j);

/* The one that expires first: its time in ns, and the setting it belongs to into `name`;
 * INT64_MAX: there are none. */
int64_t certificates_first(const struct plan *p, struct str *name);

#endif
