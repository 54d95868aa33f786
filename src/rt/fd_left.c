#include "rt/fd_left.h"

#ifdef ENABLE_FAULT_POINTS

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include "rt/log.h"

/* Asked for one by one: /proc may be out of reach by then (Landlock). */
enum { LOOKED_AT = 16384 };

static bool was_open[LOOKED_AT];

static const char *kind_of(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return "unknown";
    if (S_ISSOCK(st.st_mode))
        return "socket";
    if (S_ISFIFO(st.st_mode))
        return "pipe";
    if (S_ISREG(st.st_mode))
        return "file";
    return S_ISDIR(st.st_mode) ? "directory" : "other"; /* epoll, eventfd, a device */
}

void fd_left_begin(void)
{
    int fd;

    for (fd = 0; fd < LOOKED_AT; fd++)
        was_open[fd] = fcntl(fd, F_GETFD) >= 0;
}

void fd_left_end(void)
{
    int fd, flags;

    for (fd = 0; fd < LOOKED_AT; fd++) {
        if (was_open[fd])
            continue;
        flags = fcntl(fd, F_GETFL);
        if (flags >= 0 && !(flags & O_APPEND))
            log_event(LOG_ERROR, "bug", "a descriptor was left open", LF_INT("fd", fd),
                      LF_STR("kind", kind_of(fd)));
    }
}

#endif
