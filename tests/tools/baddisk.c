/*
 * A bad disk, for LD_PRELOAD: while the program runs, what it does to files below BADDISK_DIR fails
 * or drags on as the file BADDISK_CONTROL says, which is mapped and may change at any moment. The
 * layout of that file is `struct control`, all in the machine's byte order; the tests write it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    _Atomic uint32_t write_errno; /* write, truncate, allocate; 0: works */
    _Atomic uint32_t sync_errno;
    _Atomic uint32_t read_errno;
    _Atomic uint32_t name_errno; /* create, rename, unlink */
    _Atomic uint32_t sync_ms;    /* each sync takes so much longer */
    _Atomic uint32_t short_writes;
    _Atomic uint32_t sync_times; /* so many syncs fail, then none; 0: all */
    _Atomic uint32_t only;       /* 1: the log (-wal) only, 2: the database only, 0: all files */
    _Atomic uint32_t hits;       /* calls that were made to fail */
    /* A sync that fails loses what it should have written, as a system does that drops pages which
     * it could not write; log and database only. */
    _Atomic uint32_t amnesia;
};

enum { FDS = 4096, KIND_NONE = 0, KIND_OTHER, KIND_LOG, KIND_DB };

static struct control *control;
static const char *directory;
static _Atomic unsigned char kinds[FDS];

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("BADDISK_CONTROL");
    int fd;

    directory = getenv("BADDISK_DIR");
    if (!path || !directory)
        return;
    fd = REAL(open)(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REAL(close)(fd);
    if (control == MAP_FAILED)
        control = NULL;
}

static bool ours(const char *path)
{
    return control && path && strncmp(path, directory, strlen(directory)) == 0;
}

static bool ends(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);

    return n >= m && strcmp(path + n - m, end) == 0;
}

static int note(int fd, const char *path)
{
    if (fd >= 0 && fd < FDS)
        kinds[fd] = !ours(path)          ? KIND_NONE
                    : ends(path, "-wal") ? KIND_LOG
                    : ends(path, ".db")  ? KIND_DB
                                         : KIND_OTHER;
    return fd;
}

static int kind(int fd)
{
    return control && fd >= 0 && fd < FDS ? kinds[fd] : KIND_NONE;
}

/* The error that `which` asks for on this descriptor, or 0. */
static int fails(int fd, const _Atomic uint32_t *which)
{
    uint32_t only;
    int k = kind(fd), e;

    if (k == KIND_NONE)
        return 0;
    only = control->only;
    if ((only == 1 && k != KIND_LOG) || (only == 2 && k != KIND_DB))
        return 0;
    e = (int)*which;
    if (e)
        control->hits++;
    return e;
}

#define FAIL_IF(fd, field, value)                                                                  \
    do {                                                                                           \
        int e_ = control ? fails(fd, &control->field) : 0;                                         \
                                                                                                   \
        if (e_) {                                                                                  \
            errno = e_;                                                                            \
            return value;                                                                          \
        }                                                                                          \
    } while (0)

/* --- names -------------------------------------------------------------------------------- */

static bool refused(const char *path, int flags)
{
    int e = ours(path) ? (int)control->name_errno : 0;

    if (!e || (!(flags & O_CREAT) && (flags & O_ACCMODE) == O_RDONLY))
        return false;
    control->hits++;
    errno = e;
    return true;
}

static mode_t mode_of(int flags, va_list ap)
{
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
}

#define OPEN_LIKE(name)                                                                            \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list ap;                                                                                \
        mode_t mode;                                                                               \
                                                                                                   \
        va_start(ap, flags);                                                                       \
        mode = mode_of(flags, ap);                                                                 \
        va_end(ap);                                                                                \
        if (refused(path, flags))                                                                  \
            return -1;                                                                             \
        return note(REAL(name)(path, flags, mode), path);                                          \
    }

OPEN_LIKE(open)
OPEN_LIKE(open64)

int close(int fd)
{
    if (fd >= 0 && fd < FDS)
        kinds[fd] = KIND_NONE;
    return REAL(close)(fd);
}

int unlink(const char *path)
{
    return refused(path, O_CREAT) ? -1 : REAL(unlink)(path);
}

int rename(const char *from, const char *to)
{
    return refused(from, O_CREAT) ? -1 : REAL(rename)(from, to);
}

/* --- what was there before, until a sync ------------------------------------------------- */

struct before {
    struct before *next;
    off_t at;
    size_t n;
    char data[];
};

static struct before *unsynced[KIND_DB + 1]; /* newest first; one thread writes each file */

static void remember(int fd, off_t at, size_t n)
{
    int k = kind(fd);
    struct before *b;
    ssize_t got;

    if (!k || !control->amnesia || (k != KIND_LOG && k != KIND_DB))
        return;
    b = calloc(1, sizeof(*b) + n);
    got = REAL(pread)(fd, b->data, n, at);
    (void)got; /* behind the end: zeros */
    b->at = at;
    b->n = n;
    b->next = unsynced[k];
    unsynced[k] = b;
}

static void forget(int fd, bool lose)
{
    int k = kind(fd);

    while (unsynced[k]) {
        struct before *b = unsynced[k];

        unsynced[k] = b->next;
        if (lose && REAL(pwrite)(fd, b->data, b->n, b->at) < 0)
            abort();
        free(b);
    }
}

/* --- writes ------------------------------------------------------------------------------- */

static size_t shortened(int fd, size_t n)
{
    return kind(fd) && control->short_writes && n > 1 ? n / 2 : n;
}

ssize_t write(int fd, const void *p, size_t n)
{
    FAIL_IF(fd, write_errno, -1);
    return REAL(write)(fd, p, shortened(fd, n));
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    FAIL_IF(fd, write_errno, -1);
    remember(fd, at, n);
    return REAL(pwrite)(fd, p, shortened(fd, n), at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
    FAIL_IF(fd, write_errno, -1);
    remember(fd, at, n);
    return REAL(pwrite64)(fd, p, shortened(fd, n), at);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    FAIL_IF(fd, write_errno, -1);
    return REAL(writev)(fd, v, n);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    FAIL_IF(fd, write_errno, -1);
    return REAL(pwritev)(fd, v, n, at);
}

int ftruncate(int fd, off_t size)
{
    FAIL_IF(fd, write_errno, -1);
    return REAL(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    FAIL_IF(fd, write_errno, -1);
    return REAL(ftruncate64)(fd, size);
}

int posix_fallocate(int fd, off_t at, off_t n)
{
    int e = control ? fails(fd, &control->write_errno) : 0;

    return e ? e : REAL(posix_fallocate)(fd, at, n);
}

int posix_fallocate64(int fd, off64_t at, off64_t n)
{
    int e = control ? fails(fd, &control->write_errno) : 0;

    return e ? e : REAL(posix_fallocate64)(fd, at, n);
}

/* --- syncs and reads ---------------------------------------------------------------------- */

/* 0, or the error that this one is to fail with. */
static int sync_error(int fd)
{
    uint32_t ms, times;
    int e;

    if (!kind(fd))
        return 0;
    ms = control->sync_ms;
    if (ms) {
        struct timespec ts = {ms / 1000, (long)(ms % 1000) * 1000000};

        nanosleep(&ts, NULL);
    }
    e = fails(fd, &control->sync_errno);
    times = control->sync_times;
    if (e && times) {
        control->sync_times = times - 1;
        if (times == 1)
            control->sync_errno = 0;
    }
    forget(fd, e != 0);
    return e;
}

int fsync(int fd)
{
    int e = sync_error(fd);

    errno = e;
    return e ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    int e = sync_error(fd);

    errno = e;
    return e ? -1 : REAL(fdatasync)(fd);
}

ssize_t read(int fd, void *p, size_t n)
{
    FAIL_IF(fd, read_errno, -1);
    return REAL(read)(fd, p, n);
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
    FAIL_IF(fd, read_errno, -1);
    return REAL(pread)(fd, p, n, at);
}

ssize_t pread64(int fd, void *p, size_t n, off64_t at)
{
    FAIL_IF(fd, read_errno, -1);
    return REAL(pread64)(fd, p, n, at);
}
