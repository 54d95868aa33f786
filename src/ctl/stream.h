/* Which stream is meant by what somebody typed. */
#ifndef TR_CTL_STREAM_H
#define TR_CTL_STREAM_H

#include "ctl/ctl.h"

/*
 * Find the one stream whose key is `key`, or has it within, of --account if that is given, and
 * append "?account=A&key=K" of it to `path`. With --account a whole key that is not known is taken
 * as it is. CTL_OK, or what is wrong is on standard error.
 */
int stream_find(struct ctl *c, const char *key, struct str *path);

#endif
