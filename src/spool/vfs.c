#include "spool/spool_priv.h"

#include <stdio.h>
#include "base/bug.h"

/*
 * A VFS that hands everything to the system's and counts what is written: SQLite has no counter of
 * bytes, and the write amplification of a spool is what its users ask about first. The same place
 * lets tests make any write or sync fail.
 */

struct shim_file {
    sqlite3_file base;
    struct spool_vfs *v;
    sqlite3_file *real; /* lies behind this struct */
};

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((struct shim_file *)(void *)f)->real;
}

/* Whether this write or sync is the one that a test wants to fail. */
static int fault(struct spool_vfs *v)
{
    int64_t left = atomic_load_explicit(&v->fail_at, memory_order_relaxed);

    if (TR_LIKELY(left == 0))
        return SQLITE_OK;
    if (left > 1) {
        atomic_store(&v->fail_at, left - 1);
        return SQLITE_OK;
    }
    if (!atomic_load(&v->fail_stays))
        atomic_store(&v->fail_at, 0);
    return atomic_load(&v->fail_code);
}

static int shim_close(sqlite3_file *f)
{
    return real_of(f)->pMethods->xClose(real_of(f));
}

static int shim_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    return real_of(f)->pMethods->xRead(real_of(f), p, n, at);
}

static int shim_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    struct spool_vfs *v = ((struct shim_file *)(void *)f)->v;
    int rc = fault(v);

    if (rc != SQLITE_OK)
        return rc;
    rc = real_of(f)->pMethods->xWrite(real_of(f), p, n, at);
    if (rc == SQLITE_OK)
        atomic_fetch_add_explicit(&v->written, (uint64_t)n, memory_order_relaxed);
    return rc;
}

static int shim_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int shim_sync(sqlite3_file *f, int flags)
{
    struct spool_vfs *v = ((struct shim_file *)(void *)f)->v;
    int rc = fault(v);

    if (rc != SQLITE_OK)
        return rc;
    atomic_fetch_add_explicit(&v->syncs, 1, memory_order_relaxed);
    return real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int shim_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return real_of(f)->pMethods->xFileSize(real_of(f), size);
}

static int shim_lock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xLock(real_of(f), level);
}

static int shim_unlock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), level);
}

static int shim_reserved(sqlite3_file *f, int *out)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}

static int shim_control(sqlite3_file *f, int op, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int shim_sector(sqlite3_file *f)
{
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int shim_traits(sqlite3_file *f)
{
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int shim_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);
}

static int shim_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}

static void shim_shm_barrier(sqlite3_file *f)
{
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int shim_shm_unmap(sqlite3_file *f, int del)
{
    return real_of(f)->pMethods->xShmUnmap(real_of(f), del);
}

/* Version 2: without memory-mapped pages, which we do not use. */
static const sqlite3_io_methods shim_methods = {
    .iVersion = 2,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_reserved,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector,
    .xDeviceCharacteristics = shim_traits,
    .xShmMap = shim_shm_map,
    .xShmLock = shim_shm_lock,
    .xShmBarrier = shim_shm_barrier,
    .xShmUnmap = shim_shm_unmap,
};

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
    struct spool_vfs *v = vfs->pAppData;
    struct shim_file *sf = (struct shim_file *)(void *)f;
    int rc;

    sf->v = v;
    sf->real = (sqlite3_file *)(void *)(sf + 1);
    sf->real->pMethods = NULL;
    rc = v->real->xOpen(v->real, name, sf->real, flags, out);
    /* SQLite calls xClose whenever pMethods is set, also after a failure. */
    sf->base.pMethods = sf->real->pMethods ? &shim_methods : NULL;
    return rc;
}

static int shim_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    sqlite3_vfs *real = ((struct spool_vfs *)vfs->pAppData)->real;

    return real->xDelete(real, name, sync_dir);
}

static int shim_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    sqlite3_vfs *real = ((struct spool_vfs *)vfs->pAppData)->real;

    return real->xAccess(real, name, flags, out);
}

static int shim_full_path(sqlite3_vfs *vfs, const char *name, int n, char *out)
{
    sqlite3_vfs *real = ((struct spool_vfs *)vfs->pAppData)->real;

    return real->xFullPathname(real, name, n, out);
}

int spool_vfs_init(struct spool_vfs *v, struct err *e)
{
    sqlite3_vfs *real = sqlite3_vfs_find(NULL);
    int rc;

    _Static_assert(sizeof(struct shim_file) % 16 == 0 || sizeof(struct shim_file) % 8 == 0,
                   "the real file behind it must be aligned");
    if (!real)
        return err_set(e, ERR_IO, "spool: SQLite has no VFS");
    v->real = real;
    v->vfs = *real; /* time, randomness and loading are the system's; they ignore their VFS */
    v->vfs.iVersion = TR_MIN(real->iVersion, 2);
    v->vfs.szOsFile = (int)sizeof(struct shim_file) + real->szOsFile;
    v->vfs.pNext = NULL;
    v->vfs.pAppData = v;
    v->vfs.xOpen = shim_open;
    v->vfs.xDelete = shim_delete;
    v->vfs.xAccess = shim_access;
    v->vfs.xFullPathname = shim_full_path;
    snprintf(v->name, sizeof(v->name), "spool-%p", (void *)v);
    v->vfs.zName = v->name;
    rc = sqlite3_vfs_register(&v->vfs, 0);
    return rc == SQLITE_OK ? 0 : sql_error(NULL, rc, "cannot register its VFS", e);
}

void spool_vfs_fini(struct spool_vfs *v)
{
    sqlite3_vfs_unregister(&v->vfs);
}
