/*
 * Which files a gateway with some configuration has to reach, and nothing else: for the kernel to
 * keep it to them (app/sandbox.h), and for a reload to be told from before whether it can work.
 *
 * Files are replaced, not rewritten: certificates are renamed into place, logs are rotated,
 * Kubernetes moves a symbolic link. A rule for a file would hold for the one that is gone. So it
 * is the directory that may be reached, and if the file is a symbolic link, the directory of what
 * it leads to as well; only in directories that many share (/etc, /tmp, ...) it is the file.
 */
#ifndef TR_APP_REACH_H
#define TR_APP_REACH_H

#include <stdbool.h>
#include <stddef.h>
#include "app/options.h"

enum reach_how {
    REACH_READ = 1,    /* files, and what a directory has in it */
    REACH_WRITE = 2,   /* files; make, rename and remove them */
    REACH_SOCKET = 4,  /* make and remove sockets */
    REACH_EXECUTE = 8, /* programs */
};

struct reach_place {
    char *path; /* real: absolute, without symbolic links */
    unsigned how;
};

struct reach {
    struct reach_place *places;
    size_t n;
};
#define REACH_INIT ((struct reach){0})

/* Add what `c` needs to `r`; what does not exist is left out. As `root` the files of /etc that are
 * wanted are named one by one, as it holds secrets that root may read; else it is /etc, where
 * resolv.conf is replaced when the network changes. Looks at the file system. */
void reach_add(struct reach *r, const struct config *c, bool root);
void reach_fini(struct reach *r);

/* May it be reached so? `real` has no symbolic links. */
bool reach_covers(const struct reach *r, const char *real, unsigned how);

/* 0 if every file that `c` names can be reached; else -1, and `e` has the setting, the path and
 * what to do. Files that are missing are left for those to complain about who open them. */
int reach_check(const struct reach *r, const struct config *c, struct err *e) TR_MUST_USE;

#endif
