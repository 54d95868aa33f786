#include "net/listen_unix.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/str.h"
#include "base/xmem.h"
#include "rt/fdx.h"

enum { CONNECT_S = 2 };

/* Where a socket's file is: its directory, opened, and an address that leads through it, since a
 * path may be longer than an address. */
struct place {
    int dir;
    const char *name;
    struct sockaddr_un at;
};

static int place_name(struct place *p, const char *name, struct err *e)
{
    int n = snprintf(p->at.sun_path, sizeof(p->at.sun_path), "/proc/self/fd/%d/%s", p->dir, name);

    p->at.sun_family = AF_UNIX;
    if (n < 0 || (size_t)n >= sizeof(p->at.sun_path))
        return err_set(e, ERR_INVALID, "%s: too long for a socket's name", name);
    return 0;
}

static int place_open(struct place *p, const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? xmemdup0(path, TR_MAX((size_t)(slash - path), (size_t)1)) : xstrdup(".");

    p->name = slash ? slash + 1 : path;
    p->dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (p->dir < 0)
        err_errno(e,
                  errno == ENOENT   ? ERR_NOTFOUND
                  : errno == EACCES ? ERR_DENIED
                                    : ERR_IO,
                  errno, "cannot open %s", dir);
    xfree(dir);
    if (p->dir < 0)
        return -1;
    if (place_name(p, p->name, e) == 0)
        return 0;
    fd_close(&p->dir);
    return -1;
}

int net_unix_peer(int fd, uid_t *uid, pid_t *pid)
{
    struct ucred cred;
    socklen_t n = sizeof(cred);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0)
        return -1;
    *uid = cred.uid;
    *pid = cred.pid;
    return 0;
}

static int connect_at(const struct place *p, const char *path, struct err *e)
{
    const struct timeval patience = {.tv_sec = CONNECT_S};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    /* Whose queue is full, as of a process that stands still, would let us wait for ever. */
    if (fd >= 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&p->at, sizeof(p->at)) == 0)
        return fd;
    err_errno(e,
              errno == ENOENT         ? ERR_NOTFOUND
              : errno == EACCES       ? ERR_DENIED
              : errno == ECONNREFUSED ? ERR_CLOSED
                                      : ERR_IO,
              errno, "cannot connect to %s", path);
    fd_close(&fd);
    return -1;
}

int net_connect_unix(const char *path, struct err *e)
{
    struct place p;
    int fd;

    if (place_open(&p, path, e) < 0)
        return -1;
    fd = connect_at(&p, path, e);
    fd_close(&p.dir);
    return fd;
}

/* 0: the name may be taken. */
static int check_free(const struct place *p, const char *path, bool replace, struct err *e)
{
    struct err why = {0};
    struct stat st;
    uid_t uid;
    pid_t pid = 0;
    int fd;

    if (fstatat(p->dir, p->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is there and no socket", path);
    if (replace)
        return 0;
    fd = connect_at(p, path, &why);
    if (fd < 0)
        return why.code == ERR_CLOSED || why.code == ERR_NOTFOUND ? 0 : (*e = why, -1);
    net_unix_peer(fd, &uid, &pid);
    fd_close(&fd);
    return err_set(e, ERR_UNAVAIL, "%s is in use by process %ld", path, (long)pid);
}

/* The name appears when the socket listens: nobody ever finds one there that refuses him. */
static int listen_at(struct place *p, const char *path, int backlog, struct err *e)
{
    struct str name = STR_INIT;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    str_addf(&name, ".%s.%ld", p->name, (long)getpid());
    if (fd < 0 || place_name(p, str_c(&name), e) < 0) {
        if (fd < 0)
            err_errno(e, ERR_IO, errno, "cannot make a socket for %s", path);
        goto fail;
    }
    unlinkat(p->dir, str_c(&name), 0);
    /* The file's mode, less the umask, is the socket's as of the bind. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&p->at, sizeof(p->at)) < 0) {
        err_errno(e, errno == EACCES ? ERR_DENIED : ERR_IO, errno, "cannot listen at %s", path);
        goto fail;
    }
    if (listen(fd, backlog) == 0 && renameat(p->dir, str_c(&name), p->dir, p->name) == 0) {
        str_fini(&name);
        return fd;
    }
    err_errno(e, ERR_IO, errno, "cannot listen at %s", path);
    unlinkat(p->dir, str_c(&name), 0);
fail:
    str_fini(&name);
    fd_close(&fd);
    return -1;
}

int net_listen_unix(const char *path, int backlog, bool replace, struct err *e)
{
    struct place p;
    int fd = -1;

    if (place_open(&p, path, e) < 0)
        return -1;
    if (check_free(&p, path, replace, e) == 0)
        fd = listen_at(&p, path, backlog, e);
    fd_close(&p.dir);
    return fd;
}

int net_unix_name(const char *path, struct net_unix_name *out)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return -1;
    *out = (struct net_unix_name){st.st_dev, st.st_ino};
    return 0;
}

void net_unix_unlink(const char *path, const struct net_unix_name *name)
{
    struct net_unix_name now;

    if (net_unix_name(path, &now) == 0 && now.dev == name->dev && now.ino == name->ino)
        unlink(path);
}
