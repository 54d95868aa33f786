#include "spool/spool_priv.h"

#include "base/bug.h"
#include "base/xmem.h"
#include <errno.h>
#include <stdio.h>

/*
 * A VFS over the system's. It counts what is written: SQLite has no counter of bytes, and the write
 * amplification of a spool is what its users ask about first. It gathers the frames of a commit:
 * SQLite writes a page of the log with two system calls, about twenty for a group of eight records,
 * and they cost more than everything else in the commit. And it lets tests make any write fail.
 *
 * Gathering changes no order that matters. The buffer is written out when the commit frame is
 * complete (the one whose header has a database size: SQLite's file format, section 4.1), hence
 * before the log's index, which is what readers go by, speaks of its frames; before every sync; and
 * before whatever does not continue it.
 */

enum {
    FRAME_HEAD = 24,
    GATHER_MAX = 120 << 10, /* the system's VFS takes 17 bits of a write's length */
};

struct shim_file {
    sqlite3_file base;
    struct spool_vfs *v;
    sqlite3_file *real; /* lies behind this struct */
    bool is_log;
    bool commit_frame; /* the page that comes now ends a transaction */
    uint8_t *gathered;
    size_t n;
    sqlite3_int64 at; /* where `gathered` belongs */
    /* A sync failed: the system has told the error once and may have dropped what it could not
     * write, and the next sync would succeed without having written it. Nothing that went through
     * this descriptor is taken for durable any more; mend.c closes it. */
    bool untrusted;
};

static struct shim_file *shim_of(sqlite3_file *f)
{
    return (struct shim_file *)(void *)f;
}

static sqlite3_file *real_of(sqlite3_file *f)
{
    return shim_of(f)->real;
}

static int last_errno(struct shim_file *sf)
{
    int errnum = 0;

    sf->real->pMethods->xFileControl(sf->real, SQLITE_FCNTL_LAST_ERRNO, &errnum);
    return errnum;
}

/* SQLite calls only ENOSPC a full disk; quotas and limits on a file's size are one for us too. The
 * error number is asked for here because nothing keeps it until the transaction is rolled back. */
static int is_it_full(struct shim_file *sf, int rc)
{
    int errnum = last_errno(sf);

    if (rc == SQLITE_FULL && errnum == 0)
        errnum = ENOSPC; /* the system's VFS forgets it then */
    atomic_store(&sf->v->why, errnum);
    return errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG ? SQLITE_FULL : rc;
}

static int write_out(struct shim_file *sf, const void *p, size_t n, sqlite3_int64 at)
{
    int rc = sf->real->pMethods->xWrite(sf->real, p, (int)n, at);

    if (rc != SQLITE_OK)
        return is_it_full(sf, rc);
    atomic_fetch_add_explicit(&sf->v->written, n, memory_order_relaxed);
    return SQLITE_OK;
}

/* After a failure the bytes are gone; SQLite gives the transaction up and writes others there. */
static int gathered_out(struct shim_file *sf)
{
    size_t n = sf->n;

    sf->n = 0;
    return n == 0 ? SQLITE_OK : write_out(sf, sf->gathered, n, sf->at);
}

/* Bytes that continue what is gathered, or begin anew. */
static int gather(struct shim_file *sf, const uint8_t *p, size_t n, sqlite3_int64 at)
{
    if (sf->n > 0 && (at != sf->at + (sqlite3_int64)sf->n || n > GATHER_MAX - sf->n)) {
        int rc = gathered_out(sf);

        if (rc != SQLITE_OK)
            return rc;
    }
    if (!sf->gathered)
        sf->gathered = xmalloc(GATHER_MAX);
    if (sf->n == 0)
        sf->at = at;
    memcpy(sf->gathered + sf->n, p, n);
    sf->n += n;
    return SQLITE_OK;
}

static int log_write(struct shim_file *sf, const uint8_t *p, size_t n, sqlite3_int64 at)
{
    int rc;

    if (n != FRAME_HEAD && n != SPOOL_PAGE) { /* the log's head, or something unknown */
        rc = gathered_out(sf);
        if (at == 0)
            sf->v->log_good = sf->v->log_end = 0; /* it starts over */
        return rc == SQLITE_OK ? write_out(sf, p, n, at) : rc;
    }
    rc = gather(sf, p, n, at);
    if (rc != SQLITE_OK)
        return rc;
    if (n == FRAME_HEAD) {
        sf->commit_frame = (p[4] | p[5] | p[6] | p[7]) != 0;
        return SQLITE_OK;
    }
    if (!sf->commit_frame)
        return SQLITE_OK;
    rc = gathered_out(sf);
    if (rc == SQLITE_OK)
        sf->v->log_end = at + (sqlite3_int64)n;
    return rc;
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
    struct shim_file *sf = shim_of(f);

    gathered_out(sf);
    XFREE(sf->gathered);
    return real_of(f)->pMethods->xClose(real_of(f));
}

static int shim_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    int rc = gathered_out(shim_of(f));

    if (rc == SQLITE_OK)
        rc = real_of(f)->pMethods->xRead(real_of(f), p, n, at);
    /* SQLite would call the database malformed: a read that failed is no reason to set it aside. */
    return rc == SQLITE_IOERR_CORRUPTFS ? SQLITE_IOERR_READ : rc;
}

static int shim_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    struct shim_file *sf = shim_of(f);
    int rc = fault(sf->v);

    if (rc != SQLITE_OK)
        return rc;
    return sf->is_log ? log_write(sf, p, (size_t)n, at) : write_out(sf, p, (size_t)n, at);
}

static int shim_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    int rc = gathered_out(shim_of(f));

    return rc == SQLITE_OK ? real_of(f)->pMethods->xTruncate(real_of(f), size) : rc;
}

static int shim_sync(sqlite3_file *f, int flags)
{
    struct shim_file *sf = shim_of(f);
    struct spool_vfs *v = sf->v;
    int rc = sf->untrusted ? SQLITE_IOERR_FSYNC : gathered_out(sf);

    if (rc != SQLITE_OK)
        return rc;
    atomic_fetch_add_explicit(&v->syncs, 1, memory_order_relaxed);
    rc = fault(v);
    if (rc == SQLITE_OK) {
        rc = sf->real->pMethods->xSync(sf->real, flags);
        if (rc != SQLITE_OK)
            rc = is_it_full(sf, rc);
    }
    if (rc != SQLITE_OK)
        sf->untrusted = v->sync_failed = true;
    return rc;
}

static int shim_size(sqlite3_file *f, sqlite3_int64 *size)
{
    int rc = gathered_out(shim_of(f));

    return rc == SQLITE_OK ? real_of(f)->pMethods->xFileSize(real_of(f), size) : rc;
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
    int rc = real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);

    return rc == SQLITE_IOERR_SHMSIZE ? SQLITE_FULL : rc; /* the log's index cannot grow */
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
    struct shim_file *sf = shim_of(f);
    int rc;

    memset(sf, 0, sizeof(*sf));
    sf->v = v;
    sf->is_log = (flags & SQLITE_OPEN_WAL) != 0;
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

int spool_vfs_forget(struct spool_vfs *v, sqlite3 *db)
{
    static const uint8_t nothing[32];
    sqlite3_file *log = NULL;
    size_t n = v->log_good == 0 ? sizeof(nothing) : FRAME_HEAD;
    int rc;

    if (v->log_good < 0 || v->log_end <= v->log_good)
        return 0;
    rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (rc != SQLITE_OK || !log || !log->pMethods)
        return -1;
    shim_of(log)->n = 0;
    if (write_out(shim_of(log), nothing, n, v->log_good) != SQLITE_OK)
        return -1;
    v->log_end = v->log_good;
    return 0;
}

int spool_vfs_init(struct spool_vfs *v, struct err *e)
{
    sqlite3_vfs *real = sqlite3_vfs_find(NULL);
    int rc;

    _Static_assert(sizeof(struct shim_file) % sizeof(void *) == 0, "the real file lies behind it");
    if (!real)
        return err_set(e, ERR_IO, "spool: SQLite has no VFS");
    v->real = real;
    v->log_good = -1;
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
