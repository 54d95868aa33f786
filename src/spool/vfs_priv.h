/* vfs.c: the system's VFS with counters, and with faults for tests. */
#ifndef TR_SPOOL_VFS_PRIV_H
#define TR_SPOOL_VFS_PRIV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include <sqlite3.h>

struct spool_vfs {
    sqlite3_vfs vfs;
    sqlite3_vfs *real;
    char name[40];
    _Atomic uint64_t written;
    _Atomic uint64_t syncs;
    /* For tests: the `fail_at`-th write or sync from now fails with `fail_code`; 0: none does. All
     * the following ones too if `fail_stays`. */
    _Atomic int64_t fail_at;
    _Atomic int fail_code;
    _Atomic bool fail_stays;
    _Atomic int why; /* errno of the last write or sync that failed */
    /* The writer's connection only: */
    bool sync_failed; /* a sync has, since the connections were opened */
    int64_t log_good; /* end of the last commit in the log that counts; -1: unknown */
    int64_t log_end;  /* end of the last commit that was written there */
};

/* A commit that failed after all of it was in the log must not come to life in a crash: overwrite
 * its first frame's head. -1: could not be done. */
int spool_vfs_forget(struct spool_vfs *v, sqlite3 *db);
int spool_vfs_init(struct spool_vfs *v, struct err *e) TR_MUST_USE;
void spool_vfs_fini(struct spool_vfs *v);

#endif
