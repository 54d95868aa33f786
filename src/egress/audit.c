#include "egress/audit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "rt/clock.h"
#include "rt/fdx.h"
#include "rt/logline.h"
#include "rt/metric.h"

#define SYSLOG_SOCKET "/dev/log"

enum { SYSLOG_PRIORITY = 16 * 8 + 6 }; /* local0.info */

static struct log_target file_target = LOG_TARGET_INIT;
static _Atomic int current_to = AUDIT_LOG;
static _Atomic int current_format = LOG_JSON;
static pthread_mutex_t syslog_lock = PTHREAD_MUTEX_INITIALIZER;
static int syslog_fd = -1;
static char syslog_path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

static const char *const event_names[] = {
    [AUDIT_START] = "start",
    [AUDIT_INTERVAL] = "interval",
    [AUDIT_END] = "end",
    [AUDIT_DENY] = "deny",
};

/* --- where to ----------------------------------------------------------------------------- */

/* A socket that the system log listens to, or -1 and errno. */
static int syslog_dial(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd;

    snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
        fd_close(&fd);
    return fd;
}

/* Under the lock. The system log may be restarted at any time, so this is tried again later. */
static int syslog_connect(void)
{
    if (syslog_fd < 0)
        syslog_fd = syslog_dial(syslog_path);
    return syslog_fd < 0 ? -1 : 0;
}

static const char *syslog_socket(const struct audit_opts *o)
{
    return o->file ? o->file : SYSLOG_SOCKET;
}

static int syslog_prepare(const char *path, struct err *e)
{
    int fd;

    if (strlen(path) >= sizeof(syslog_path))
        return err_set(e, ERR_INVALID, "audit.file: the path of a socket is at most %zu bytes long",
                       sizeof(syslog_path) - 1);
    fd = syslog_dial(path);
    return fd < 0 ? err_errno(e, ERR_IO, errno, "cannot reach the system log at %s", path) : fd;
}

static void syslog_switch(const char *path, int fd)
{
    pthread_mutex_lock(&syslog_lock);
    fd_close(&syslog_fd);
    syslog_fd = fd;
    memcpy(syslog_path, path, strlen(path) + 1);
    pthread_mutex_unlock(&syslog_lock);
}

int audit_prepare(const struct audit_opts *o, int *fd, struct err *e)
{
    *fd = -1;
    if (o->to == AUDIT_FILE) {
        *fd = log_target_prepare(o->file, e);
        return *fd < 0 ? err_prefix(e, "audit.file") : 0;
    }
    if (o->to == AUDIT_SYSLOG) {
        *fd = syslog_prepare(syslog_socket(o), e);
        return *fd < 0 ? -1 : 0;
    }
    return 0;
}

void audit_switch(const struct audit_opts *o, int fd)
{
    if (o->to == AUDIT_FILE)
        log_target_switch(&file_target, fd);
    else if (o->to == AUDIT_SYSLOG)
        syslog_switch(syslog_socket(o), fd);
    atomic_store(&current_format, (int)o->format);
    atomic_store(&current_to, (int)o->to);
    if (o->to != AUDIT_SYSLOG)
        syslog_switch("", -1);
}

void audit_close(void)
{
    atomic_store(&current_to, (int)AUDIT_NONE);
    syslog_switch("", -1);
}

void audit_discard(int fd)
{
    log_target_discard(fd);
}

int audit_open(const struct audit_opts *o, struct err *e)
{
    int fd;

    if (audit_prepare(o, &fd, e) < 0)
        return -1;
    audit_switch(o, fd);
    return 0;
}

/* One datagram in the form that local programs use (RFC 3164 without host). Never waits. */
static int syslog_put(const struct log_line *l)
{
    char head[64];
    struct msghdr msg = {0};
    struct iovec iov[2];
    int n, rc = -1, tries;

    n = snprintf(head, sizeof(head), "<%d>tailrace[%d]: ", SYSLOG_PRIORITY, (int)getpid());
    iov[0] = (struct iovec){head, (size_t)n};
    iov[1] = (struct iovec){(void *)(uintptr_t)l->b, l->n - 1};
    msg.msg_iov = iov;
    msg.msg_iovlen = 2;
    pthread_mutex_lock(&syslog_lock);
    for (tries = 0; rc < 0 && tries < 2; tries++) {
        if (syslog_connect() < 0)
            break;
        rc = sendmsg(syslog_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
        if (rc < 0 && errno == EAGAIN)
            break;
        if (rc < 0)
            fd_close(&syslog_fd); /* it was restarted: once more */
    }
    pthread_mutex_unlock(&syslog_lock);
    return rc;
}

static void dropped(const char *to)
{
    static struct log_rate rate;
    uint64_t left_out;

    metric_add(metric_series(metric_family(METRIC_COUNTER, "audit_dropped", "",
                                           "Audit entries that could not be written")),
               1);
    if (log_rate_ok(&rate, 10, &left_out))
        log_event(LOG_ERROR, "audit", "an audit entry could not be written; check its target",
                  LF_STR("to", to), LF_UINT("suppressed", left_out));
}

/* --- entries ------------------------------------------------------------------------------ */

enum { MAX_FIELDS = 32, DATE_LEN = 25 };

struct fields {
    struct log_field f[MAX_FIELDS];
    size_t n;
};

static void add(struct fields *f, struct log_field field)
{
    if (field.type == LOG_F_VIEW && field.v.n == 0)
        return;
    f->f[f->n++] = field;
}

static void add_text(struct fields *f, const char *key, const char *text)
{
    if (text)
        add(f, LF_STR(key, text));
}

/* What everybody is asked by the audit: who, where to, what came of it. */
static void fill(struct fields *f, const struct audit_entry *a, char start[DATE_LEN])
{
    int64_t us;
    add(f, LF_STR("event", event_names[a->event]));
    add(f, LF_UINT("id", a->id));
    add_text(f, "kind", a->kind);
    add_text(f, "listener", a->listener);
    add_text(f, "client", a->client);
    add(f, LF_VIEW("identity", a->identity));
    add_text(f, "asked", a->asked);
    add(f, LF_VIEW("server_name", a->server_name));
    add(f, LF_VIEW("method", a->method));
    add(f, LF_VIEW("path", a->path));
    add_text(f, "resolved", a->resolved);
    add_text(f, "dialled", a->dialled);
    add_text(f, "via", a->via);
    add_text(f, "verdict", a->verdict);
    add_text(f, "rule", a->rule);
    add_text(f, "reason", a->reason);
    if (a->suppressed)
        add(f, LF_UINT("suppressed", a->suppressed));
    if (strcmp(a->kind, "grpc") == 0 && a->grpc_status >= 0)
        add(f, LF_INT("grpc_status", a->grpc_status));
    if (a->status)
        add(f, LF_INT("status", a->status));
    clock_format(a->start_ns, start);
    add(f, LF_STR("start", start));
    if (a->event == AUDIT_START || a->event == AUDIT_DENY)
        return;
    us = a->duration_ns / 1000;
    add(f, LF_DOUBLE("seconds", (double)us / 1e6));
    add(f, LF_UINT("bytes_up", a->bytes_up));
    add(f, LF_UINT("bytes_down", a->bytes_down));
    add_text(f, "end", a->end);
    add_text(f, "error", a->error);
}

void audit_write(const struct audit_entry *a)
{
    enum audit_to to = (enum audit_to)atomic_load_explicit(&current_to, memory_order_relaxed);
    char start[DATE_LEN], now[DATE_LEN];
    struct fields f = {.n = 0};
    struct log_line line;
    size_t i;

    if (to == AUDIT_NONE)
        return;
    fill(&f, a, start);
    if (to == AUDIT_LOG) { /* whatever log.level says: it is not chatter */
        log_write(LOG_INFO, "audit", event_names[a->event], f.f + 1, f.n - 1);
        return;
    }
    log_line_begin(&line, (enum log_format)atomic_load(&current_format));
    clock_format(clock_wall_ns(), now);
    log_line_field(&line, &LF_STR("time", now));
    for (i = 0; i < f.n; i++)
        log_line_field(&line, &f.f[i]);
    log_line_end(&line);
    if ((to == AUDIT_FILE ? log_target_put(&file_target, &line) : syslog_put(&line)) < 0)
        dropped(to == AUDIT_FILE ? "file" : "syslog");
}
