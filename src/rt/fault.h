/*
 * Named fault points, compiled in only with --enable-fault-points. A point is armed by the
 * environment variable TAILRACE_FAULT="NAME:HIT:ACTION[,...]": at its HIT-th passing (1 is the
 * first) the ACTION happens: `kill` (SIGKILL to ourselves), `fail` (fault_point returns true and
 * the caller behaves as if the operation had failed, every time from then on), `once` (true that
 * one time), `while` (true whenever the file that TAILRACE_FAULT_WHILE names is there, whatever HIT
 * says: for faults that come and go).
 */
#ifndef TR_RT_FAULT_H
#define TR_RT_FAULT_H

#include <stdbool.h>

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#ifdef ENABLE_FAULT_POINTS
bool fault_point(const char *name);
#else
static inline bool fault_point(const char *name)
{
    (void)name;
    return false;
}
#endif

#endif
