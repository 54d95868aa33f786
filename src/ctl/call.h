/* What calls are made of: for those that follow an answer as it comes (loop.h). */
#ifndef TR_CTL_CALL_H
#define TR_CTL_CALL_H

#include <curl/curl.h>
#include "ctl/ctl.h"

/* An answer that is longer is none of ours: a gateway bounds what it says. */
enum { CTL_ANSWER_MAX = 64 << 20 };

/* Find the control socket and see that somebody answers it; CTL_UNREACHABLE: what is wrong is on
 * standard error. */
int ctl_reach(struct ctl *c);
/* A request that is ready but for where its answer goes, after ctl_reach. `*dir`, if not -1, is to
 * be closed when it is done. NULL: out of memory, said. */
CURL *ctl_request(struct ctl *c, const char *method, const char *path, int *dir);
/* Say on standard error why it was answered without success. */
void ctl_say_failure(const struct ctl_answer *a);

#endif
