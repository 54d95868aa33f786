#include "app/successor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/xmem.h"
#include "rt/fdx.h"
#include "rt/log.h"

/* Where the new process finds what it inherits, and lowest numbers for our copies of it. */
enum { CHANNEL_FD = 3, CONFIG_FD = 4, ABOVE = 10 };

struct successor {
    char *path, *config;
    pid_t pid; /* the newest one; 0: none, or it has ended */
};

struct successor *successor_new(const char *config_path)
{
    struct successor *s = XNEW(struct successor);
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path));

    s->path = n > 0 && n < (ssize_t)sizeof(path) ? xmemdup0(path, (size_t)n) : NULL;
    s->config = xstrdup(config_path);
    return s;
}

void successor_free(struct successor **sp)
{
    struct successor *s = *sp;

    *sp = NULL;
    if (!s)
        return;
    xfree(s->path);
    xfree(s->config);
    xfree(s);
}

/* A file in memory; its number is above what the new process uses. */
static int write_config(const struct config *config, struct err *e)
{
    int fd = memfd_create("tailrace.yaml", MFD_CLOEXEC), high;
    FILE *f;

    if (fd < 0)
        return err_errno(e, ERR_IO, errno, "no file in memory");
    high = fcntl(fd, F_DUPFD_CLOEXEC, ABOVE);
    f = high < 0 ? NULL : fdopen(fd, "w");
    if (!f) {
        fd_close(&fd);
        return err_errno(e, ERR_IO, errno, "no file in memory");
    }
    config_dump(config, f);
    fclose(f);
    return high;
}

static int spawn(struct successor *s, int channel, int config, struct err *e)
{
    char channel_text[] = "--takeover-fd=3", config_text[] = "--first-config-fd=4";
    char serve_text[] = "serve", option_text[] = "-c";
    char *argv[] = {s->path, serve_text, option_text, s->config, channel_text, NULL, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int rc;

    if (config >= 0)
        argv[5] = config_text;
    sigemptyset(&none);
    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigdelset(&all, SIGSTOP);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, channel, CHANNEL_FD);
    if (config >= 0)
        posix_spawn_file_actions_adddup2(&files, config, CONFIG_FD);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    rc = posix_spawn(&s->pid, config >= 0 ? "/proc/self/exe" : s->path, &files, &attr, argv,
                     environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return rc ? err_errno(e, ERR_IO, rc, "cannot start %s", s->path) : 0;
}

int successor_start(struct successor *s, const struct config *config, struct err *e)
{
    int pair[2], high, memory = -1, rc;

    successor_reap(s);
    if (!s->path)
        return err_set(e, ERR_IO, "the path of the program is not known (no /proc?)");
    if (config && (memory = write_config(config, e)) < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        fd_close(&memory);
        return err_errno(e, ERR_IO, errno, "no socket pair");
    }
    high = fcntl(pair[1], F_DUPFD_CLOEXEC, ABOVE);
    fd_close(&pair[1]);
    rc = high < 0 ? err_errno(e, ERR_IO, errno, "no descriptor") : spawn(s, high, memory, e);
    if (rc == 0)
        rc = fd_set_nonblock(pair[0], true, e);
    fd_close(&high);
    fd_close(&memory);
    if (rc < 0)
        fd_close(&pair[0]);
    return pair[0];
}

void successor_reap(struct successor *s)
{
    int status;

    if (s->pid <= 0 || waitpid(s->pid, &status, WNOHANG) != s->pid)
        return;
    if (status != 0) /* else it goes on as another process, under a supervisor */
        log_event(LOG_NOTICE, "handover", "the process started to take over has ended",
                  LF_INT("pid", s->pid),
                  LF_INT("status", WIFEXITED(status) ? WEXITSTATUS(status) : -1));
    s->pid = 0;
}
