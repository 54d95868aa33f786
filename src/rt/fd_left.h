/* What a process leaves open when it ends, in builds for tests (--enable-fault-points) only: a
 * descriptor that nobody closed is a leak of a process that does not end. */
#ifndef TR_RT_FD_LEFT_H
#define TR_RT_FD_LEFT_H

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#ifdef ENABLE_FAULT_POINTS
/* At the very beginning: what is open now is somebody else's. */
void fd_left_begin(void);
/* At the very end: an error in the log for each descriptor that is open and was not, but for log
 * files, which stay open until the process is gone. */
void fd_left_end(void);
#else
static inline void fd_left_begin(void)
{
}
static inline void fd_left_end(void)
{
}
#endif

#endif
