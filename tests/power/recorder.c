/*
 * Preloaded into tailrace: keeps a record of all it does to the files below POWER_ROOT, from which
 * replay.py makes what a disk may hold after the power was cut. Each call that changes a file is
 * made and written down under one lock, so that the record is the order in which they happened.
 *
 *     POWER_ROOT   directory, absolute and without links
 *     POWER_LOG    file to append the record to; not below POWER_ROOT
 *     POWER_KILL   SIGKILL after so many changes: the record then ends where the files do
 *
 * An entry is struct entry and `size` bytes. Files are known by their inode, so that one that is
 * renamed while it is open stays the same. Kinds: P the program begins, C the file `ino` gets the
 * name that follows, M the same for a directory, W bytes at `at`, T cut or grown to `at`, G at
 * least `at` bytes long, S synced, U the name goes away, R a name becomes another (a NUL between).
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FD_MAX = 65536, MAGIC = 0x52574f50 };

struct entry {
    uint32_t magic;
    char kind;
    char unused[3];
    uint64_t ino, at;
    uint64_t size;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t inode_of[FD_MAX]; /* 0: not below POWER_ROOT; changed under the lock */
static char root[PATH_MAX];
static size_t root_n;
static int log_fd = -1;
static unsigned long kill_after, changes;

/* The next definition of a function, the C library's. */
#define REAL(name, type, ...)                                                                      \
    static type (*real)(__VA_ARGS__);                                                              \
    if (!real)                                                                                     \
    *(void **)&real = dlsym(RTLD_NEXT, #name)

static void write_entry(const struct entry *e, const void *p)
{
    struct iovec v[2] = {{(void *)(uintptr_t)e, sizeof(*e)}, {(void *)(uintptr_t)p, e->size}};
    REAL(writev, ssize_t, int, const struct iovec *, int);

    if (real(log_fd, v, 2) != (ssize_t)(sizeof(*e) + e->size)) {
        static const char text[] = "recorder: the record cannot be written\n";

        if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
            _exit(99);
        _exit(99);
    }
}

static void note(char kind, uint64_t ino, uint64_t at, const void *p, size_t n)
{
    struct entry e = {.magic = MAGIC, .kind = kind, .ino = ino, .at = at, .size = n};
    int errnum = errno;

    write_entry(&e, p);
    if (kill_after && ++changes >= kill_after)
        kill(getpid(), SIGKILL);
    errno = errnum;
}

__attribute__((constructor)) static void begin(void)
{
    const char *dir = getenv("POWER_ROOT"), *path = getenv("POWER_LOG");
    const char *after = getenv("POWER_KILL");
    int fd;

    if (!dir || !path)
        return;
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        _exit(99);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 200);
    close(fd);
    kill_after = after ? strtoul(after, NULL, 10) : 0;
    note('P', 0, 0, NULL, 0);
    root_n = strlen(dir);
    memcpy(root, dir, root_n + 1);
}

/* The part of a path below the root, "" for the root itself; NULL: elsewhere, or SQLite's index of
 * the log, which is made anew from the log. */
static const char *below(const char *path)
{
    size_t n = strlen(path);

    if (!root_n || strncmp(path, root, root_n) != 0 || (path[root_n] && path[root_n] != '/'))
        return NULL;
    if (n > 4 && strcmp(path + n - 4, "-shm") == 0)
        return NULL;
    return path[root_n] ? path + root_n + 1 : path + root_n;
}

static uint64_t inode(int fd)
{
    return fd >= 0 && fd < FD_MAX ? __atomic_load_n(&inode_of[fd], __ATOMIC_ACQUIRE) : 0;
}

/* --- names ---------------------------------------------------------------------------------- */

static int opened(int fd, const char *name, bool fresh)
{
    struct stat st;

    if (fd < 0 || fd >= FD_MAX || fstat(fd, &st) < 0)
        return fd;
    __atomic_store_n(&inode_of[fd], (uint64_t)st.st_ino, __ATOMIC_RELEASE);
    if (fresh)
        note('C', st.st_ino, 0, name, strlen(name));
    return fd;
}

static int open_it(int dirfd, const char *path, int flags, mode_t mode)
{
    const char *name = path[0] == '/' ? below(path) : NULL;
    bool fresh;
    int fd;
    REAL(openat, int, int, const char *, int, ...);

    if (!name)
        return real(dirfd, path, flags, mode);
    pthread_mutex_lock(&lock);
    fresh = (flags & O_CREAT) && access(path, F_OK) < 0;
    fd = opened(real(dirfd, path, flags, mode), name, fresh);
    if (fd >= 0 && !fresh && (flags & O_TRUNC))
        note('T', inode(fd), 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE_OF(flags, mode)                                                                       \
    do {                                                                                           \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode = (flags) & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;                           \
        va_end(ap);                                                                                \
    } while (0)

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...);                                                    \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        mode_t mode;                                                                               \
        MODE_OF(flags, mode);                                                                      \
        return open_it(AT_FDCWD, path, flags, mode);                                               \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                               \
    int name(int dirfd, const char *path, int flags, ...);                                         \
    int name(int dirfd, const char *path, int flags, ...)                                          \
    {                                                                                              \
        mode_t mode;                                                                               \
        MODE_OF(flags, mode);                                                                      \
        return open_it(dirfd, path, flags, mode);                                                  \
    }
OPENAT(openat)
OPENAT(openat64)

/* What _FORTIFY_SOURCE makes of them. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dirfd, const char *path, int flags);
int __openat64_2(int dirfd, const char *path, int flags);

int __open_2(const char *path, int flags)
{
    return open_it(AT_FDCWD, path, flags, 0);
}

int __open64_2(const char *path, int flags)
{
    return open_it(AT_FDCWD, path, flags, 0);
}

int __openat_2(int dirfd, const char *path, int flags)
{
    return open_it(dirfd, path, flags, 0);
}

int __openat64_2(int dirfd, const char *path, int flags)
{
    return open_it(dirfd, path, flags, 0);
}

int close(int fd)
{
    REAL(close, int, int);

    if (inode(fd))
        __atomic_store_n(&inode_of[fd], 0, __ATOMIC_RELEASE);
    return real(fd);
}

int mkdir(const char *path, mode_t mode)
{
    const char *name = below(path);
    struct stat st;
    int rc;
    REAL(mkdir, int, const char *, mode_t);

    if (!name)
        return real(path, mode);
    pthread_mutex_lock(&lock);
    rc = real(path, mode);
    if (rc == 0 && stat(path, &st) == 0)
        note('M', st.st_ino, 0, name, strlen(name));
    pthread_mutex_unlock(&lock);
    return rc;
}

int unlink(const char *path)
{
    const char *name = below(path);
    int rc;
    REAL(unlink, int, const char *);

    if (!name)
        return real(path);
    pthread_mutex_lock(&lock);
    rc = real(path);
    if (rc == 0)
        note('U', 0, 0, name, strlen(name));
    pthread_mutex_unlock(&lock);
    return rc;
}

int rename(const char *from, const char *to)
{
    const char *a = below(from), *b = below(to);
    char names[2 * PATH_MAX];
    int n, rc;
    REAL(rename, int, const char *, const char *);

    if (!a || !b)
        return real(from, to);
    pthread_mutex_lock(&lock);
    rc = real(from, to);
    n = snprintf(names, sizeof(names), "%s%c%s", a, 0, b);
    if (rc == 0)
        note('R', 0, 0, names, (size_t)n);
    pthread_mutex_unlock(&lock);
    return rc;
}

/* --- bytes ---------------------------------------------------------------------------------- */

/* Of calls that were made: what came of them goes into the record. */
static ssize_t written(int fd, const struct iovec *v, int n, off_t at, ssize_t rc)
{
    size_t have = 0, want = rc > 0 ? (size_t)rc : 0;
    char *all;
    int i;

    if (!want)
        return rc;
    all = malloc(want);
    for (i = 0; i < n && have < want; i++) {
        size_t part = v[i].iov_len < want - have ? v[i].iov_len : want - have;

        memcpy(all + have, v[i].iov_base, part);
        have += part;
    }
    note('W', inode(fd), (uint64_t)at, all, want);
    free(all);
    return rc;
}

/* Where a write without an offset goes. */
static off_t position(int fd)
{
    return lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
}

ssize_t write(int fd, const void *p, size_t n)
{
    struct iovec v = {(void *)(uintptr_t)p, n};
    ssize_t rc;
    off_t at;
    REAL(write, ssize_t, int, const void *, size_t);

    if (!inode(fd))
        return real(fd, p, n);
    pthread_mutex_lock(&lock);
    at = position(fd);
    rc = written(fd, &v, 1, at, real(fd, p, n));
    pthread_mutex_unlock(&lock);
    return rc;
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    ssize_t rc;
    off_t at;
    REAL(writev, ssize_t, int, const struct iovec *, int);

    if (!inode(fd))
        return real(fd, v, n);
    pthread_mutex_lock(&lock);
    at = position(fd);
    rc = written(fd, v, n, at, real(fd, v, n));
    pthread_mutex_unlock(&lock);
    return rc;
}

/* The 64-bit names are the same functions here. */
#define PWRITE(name)                                                                               \
    ssize_t name(int fd, const void *p, size_t n, off_t at);                                       \
    ssize_t name(int fd, const void *p, size_t n, off_t at)                                        \
    {                                                                                              \
        struct iovec v = {(void *)(uintptr_t)p, n};                                                \
        ssize_t rc;                                                                                \
        REAL(name, ssize_t, int, const void *, size_t, off_t);                                     \
        if (!inode(fd))                                                                            \
            return real(fd, p, n, at);                                                             \
        pthread_mutex_lock(&lock);                                                                 \
        rc = written(fd, &v, 1, at, real(fd, p, n, at));                                           \
        pthread_mutex_unlock(&lock);                                                               \
        return rc;                                                                                 \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define PWRITEV(name)                                                                              \
    ssize_t name(int fd, const struct iovec *v, int n, off_t at);                                  \
    ssize_t name(int fd, const struct iovec *v, int n, off_t at)                                   \
    {                                                                                              \
        ssize_t rc;                                                                                \
        REAL(name, ssize_t, int, const struct iovec *, int, off_t);                                \
        if (!inode(fd))                                                                            \
            return real(fd, v, n, at);                                                             \
        pthread_mutex_lock(&lock);                                                                 \
        rc = written(fd, v, n, at, real(fd, v, n, at));                                            \
        pthread_mutex_unlock(&lock);                                                               \
        return rc;                                                                                 \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

#define TRUNCATE(name)                                                                             \
    int name(int fd, off_t size);                                                                  \
    int name(int fd, off_t size)                                                                   \
    {                                                                                              \
        int rc;                                                                                    \
        REAL(name, int, int, off_t);                                                               \
        if (!inode(fd))                                                                            \
            return real(fd, size);                                                                 \
        pthread_mutex_lock(&lock);                                                                 \
        rc = real(fd, size);                                                                       \
        if (rc == 0)                                                                               \
            note('T', inode(fd), (uint64_t)size, NULL, 0);                                         \
        pthread_mutex_unlock(&lock);                                                               \
        return rc;                                                                                 \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define FALLOCATE(name)                                                                            \
    int name(int fd, off_t at, off_t n);                                                           \
    int name(int fd, off_t at, off_t n)                                                            \
    {                                                                                              \
        int rc;                                                                                    \
        REAL(name, int, int, off_t, off_t);                                                        \
        if (!inode(fd))                                                                            \
            return real(fd, at, n);                                                                \
        pthread_mutex_lock(&lock);                                                                 \
        rc = real(fd, at, n);                                                                      \
        if (rc == 0)                                                                               \
            note('G', inode(fd), (uint64_t)(at + n), NULL, 0);                                     \
        pthread_mutex_unlock(&lock);                                                               \
        return rc;                                                                                 \
    }
FALLOCATE(posix_fallocate)
FALLOCATE(posix_fallocate64)

#define SYNC(name)                                                                                 \
    int name(int fd)                                                                               \
    {                                                                                              \
        int rc;                                                                                    \
        REAL(name, int, int);                                                                      \
        if (!inode(fd))                                                                            \
            return real(fd);                                                                       \
        pthread_mutex_lock(&lock);                                                                 \
        rc = real(fd);                                                                             \
        if (rc == 0)                                                                               \
            note('S', inode(fd), 0, NULL, 0);                                                      \
        pthread_mutex_unlock(&lock);                                                               \
        return rc;                                                                                 \
    }
SYNC(fsync)
SYNC(fdatasync)
