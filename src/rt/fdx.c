#include "rt/fdx.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/xmem.h"

enum { READ_STEP = 16384 };

int fd_set_nonblock(int fd, bool on, struct err *e)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0)
        return err_errno(e, ERR_IO, errno, "cannot change descriptor %d", fd);
    return 0;
}

size_t fd_limit_raise(void)
{
    struct rlimit have;

    if (getrlimit(RLIMIT_NOFILE, &have) < 0)
        return 0;
    if (have.rlim_cur < have.rlim_max) {
        struct rlimit more = {.rlim_cur = have.rlim_max, .rlim_max = have.rlim_max};

        if (setrlimit(RLIMIT_NOFILE, &more) == 0)
            have = more;
    }
    return (size_t)have.rlim_cur;
}

static int reserved_from = INT_MAX;

size_t fd_reserve(size_t n)
{
    size_t all = fd_limit_raise();

    if (!all || all > INT_MAX)
        return 0;
    if (n > all / 4)
        n = all / 4;
    __atomic_store_n(&reserved_from, (int)(all - n), __ATOMIC_RELAXED);
    return n;
}

bool fd_is_reserved(int fd)
{
    return fd >= __atomic_load_n(&reserved_from, __ATOMIC_RELAXED);
}

void fd_close(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

/* Straight into `out`: no copy of a secret stays on the stack. */
static int read_all(int fd, const char *path, size_t max, struct str *out, struct err *e)
{
    size_t total = 0;

    for (;;) {
        ssize_t n;

        str_reserve(out, READ_STEP);
        n = read(fd, out->p + out->n, READ_STEP);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, ERR_IO, errno, "cannot read %s", path);
        out->p[out->n + (size_t)n] = '\0';
        if (n == 0)
            return 0;
        total += (size_t)n;
        if (total > max) {
            out->p[out->n] = '\0';
            return err_set(e, ERR_LIMIT, "%s is larger than %zu bytes", path, max);
        }
        out->n += (size_t)n;
    }
}

int file_read(const char *path, size_t max, struct str *out, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc;

    if (fd < 0)
        return err_errno(e, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, errno, "cannot open %s", path);
    rc = read_all(fd, path, max, out, e);
    fd_close(&fd);
    return rc;
}

int file_check_private(const char *path, struct err *e)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return err_errno(e, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, errno, "cannot open %s", path);
    if (st.st_mode & (S_IRWXO | S_IWGRP | S_IXGRP))
        return err_set(e, ERR_DENIED,
                       "%s: its permissions (%04o) let others read or change it: use chmod 640",
                       path, (unsigned)st.st_mode & 07777);
    return 0;
}

/* The service manager's own directory: an access list makes the mode 0440 there. */
static mode_t others_bits(const char *path)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    size_t n = dir ? strlen(dir) : 0;

    if (n && strncmp(path, dir, n) == 0 && path[n] == '/')
        return S_IRWXO | S_IWGRP | S_IXGRP;
    return S_IRWXO | S_IRWXG;
}

static int check_secret(int fd, const char *path, size_t max, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_errno(e, ERR_IO, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s: use a regular file", path);
    if (st.st_mode & others_bits(path))
        return err_set(e, ERR_DENIED,
                       "%s: its permissions (%04o) let others than its owner at the secret in it; "
                       "chmod 600 it",
                       path, (unsigned)st.st_mode & 07777);
    if ((size_t)st.st_size > max)
        return err_set(e, ERR_LIMIT, "%s: longer than the %zu bytes that there may be", path, max);
    return 0;
}

int secret_read(const char *path, size_t max, struct str *out, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = 0;
    size_t had = out->n;

    if (fd < 0)
        return err_errno(e, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, errno, "%s", path);
    if (check_secret(fd, path, max, e) < 0) {
        fd_close(&fd);
        return -1;
    }
    str_reserve(out, max);
    while (out->n - had < max && (n = read(fd, out->p + out->n, max - (out->n - had))) > 0)
        out->n += (size_t)n;
    out->p[out->n] = '\0';
    if (n < 0)
        err_errno(e, ERR_IO, errno, "%s", path);
    fd_close(&fd);
    return n < 0 ? -1 : 0;
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -1;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

static int sync_directory_of(const char *path)
{
    char *copy = xstrdup(path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);

    fd_close(&fd);
    xfree(copy);
    return rc;
}

int file_write_durable(const char *path, const void *p, size_t n, mode_t mode, struct err *e)
{
    struct str tmp = STR_INIT;
    int fd, rc = -1;

    str_addf(&tmp, "%s.tmp-%ld", path, (long)getpid());
    fd = open(str_c(&tmp), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) {
        err_errno(e, ERR_IO, errno, "cannot create %s", str_c(&tmp));
        goto out;
    }
    if (write_all(fd, p, n) < 0 || fsync(fd) < 0 || rename(str_c(&tmp), path) < 0) {
        err_errno(e, ERR_IO, errno, "cannot write %s", path);
        unlink(str_c(&tmp));
        goto out;
    }
    if (sync_directory_of(path) < 0) {
        err_errno(e, ERR_IO, errno, "cannot sync the directory of %s", path);
        goto out;
    }
    rc = 0;
out:
    fd_close(&fd);
    str_fini(&tmp);
    return rc;
}

int fd_keepalive(int fd)
{
    const int on = 1, idle_s = 60, interval_s = 15, tries = 5;

    if (setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof(tries)) < 0)
        return -1;
    return setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

static int make_one(const char *path, mode_t mode, struct err *e)
{
    if (mkdir(path, mode) == 0) {
        /* Or a loss of power may take it away again, with all that is synced in it. A parent that
         * may be written to but not be read cannot be synced: no reason to fail. */
        sync_directory_of(path);
        return 0;
    }
    if (errno == EEXIST)
        return 0;
    return err_errno(e, ERR_IO, errno, "cannot make directory %s", path);
}

int dir_make(const char *path, mode_t mode, struct err *e)
{
    char *copy = xstrdup(path);
    char *at;
    int rc = 0;

    for (at = copy + 1; *at && rc == 0; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        rc = make_one(copy, mode, e);
        *at = '/';
    }
    if (rc == 0)
        rc = make_one(copy, mode, e);
    xfree(copy);
    return rc;
}
