#include "rt/logline.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/bug.h"
#include "base/utf8.h"

enum {
    LINE_TAIL = 8,    /* kept free for what closes a line: quote, brace, newline */
    VALUE_MAX = 1024, /* of one field, before escaping */
};

static int check_kind(int fd, const char *path, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_errno(e, ERR_IO, errno, "cannot look at the log file %s", path);
    if (S_ISBLK(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is a block device: use a file", path);
    return 0;
}

int log_target_prepare(const char *path, struct err *e)
{
    const int how = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd;

    if (!path)
        return STDERR_FILENO;
    fd = open(path, how | O_EXCL, 0640);
    if (fd >= 0)
        (void)fchmod(fd, 0640); /* whatever the umask: those who read logs are a group */
    else if (errno == EEXIST)
        fd = open(path, how, 0640);
    if (fd < 0 && errno == ENXIO)
        return err_set(e, ERR_IO, "cannot open the log file %s: nobody reads this FIFO", path);
    if (fd < 0)
        return err_errno(e, ERR_IO, errno, "cannot open the log file %s", path);
    if (check_kind(fd, path, e) == 0)
        return fd;
    close(fd);
    return -1;
}

void log_target_discard(int fd)
{
    if (fd > STDERR_FILENO)
        close(fd);
}

void log_target_switch(struct log_target *t, int fd)
{
    int at;

    pthread_mutex_lock(&t->lock);
    at = atomic_load(&t->fd);
    if (at == STDERR_FILENO) {
        atomic_store(&t->fd, fd);
    } else {
        (void)dup3(fd, at, O_CLOEXEC); /* both are open and differ: it cannot fail */
        log_target_discard(fd);
    }
    pthread_mutex_unlock(&t->lock);
}

int log_target_open(struct log_target *t, const char *path, struct err *e)
{
    int fd = log_target_prepare(path, e);

    if (fd < 0)
        return -1;
    log_target_switch(t, fd);
    return 0;
}

static void line_add(struct log_line *l, const char *p, size_t n)
{
    if (l->full || n > sizeof(l->b) - LINE_TAIL - l->n) {
        l->full = true;
        return;
    }
    memcpy(l->b + l->n, p, n);
    l->n += n;
}

static void line_adds(struct log_line *l, const char *s)
{
    line_add(l, s, strlen(s));
}

/* What closes something that was begun: uses the space kept free. */
static void line_close(struct log_line *l, const char *s)
{
    size_t n = strlen(s);

    ASSERT(n <= sizeof(l->b) - l->n);
    memcpy(l->b + l->n, s, n);
    l->n += n;
}

/* Add the next character of `v` at `i`, escaped as in a JSON string; returns its length in `v`. */
static size_t add_escaped(struct log_line *l, struct view v, size_t i)
{
    unsigned char c = (unsigned char)v.p[i];
    char esc[8];
    size_t len;

    if (c == '"' || c == '\\') {
        line_add(l, (const char[]){'\\', (char)c}, 2);
        return 1;
    }
    if (c == '\n' || c == '\r' || c == '\t') {
        line_adds(l, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        return 1;
    }
    if (c < 0x20 || c == 0x7f) {
        snprintf(esc, sizeof(esc), "\\u%04x", c);
        line_adds(l, esc);
        return 1;
    }
    len = utf8_length(v.p + i, v.n - i);
    if (len)
        line_add(l, v.p + i, len);
    else
        line_adds(l, "\xef\xbf\xbd");
    return len ? len : 1;
}

static bool needs_quotes(struct view v)
{
    size_t i;

    for (i = 0; i < v.n; i++) {
        unsigned char c = (unsigned char)v.p[i];

        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 0x7f)
            return true;
    }
    return v.n == 0;
}

static void add_text(struct log_line *l, struct view v)
{
    bool cut = v.n > VALUE_MAX;
    size_t i = 0;

    if (cut)
        v.n = VALUE_MAX;
    if (!l->json && !cut && !needs_quotes(v)) {
        line_add(l, v.p, v.n);
        return;
    }
    line_add(l, "\"", 1);
    if (l->full)
        return;
    while (i < v.n && !l->full)
        i += add_escaped(l, v, i);
    if (cut)
        line_adds(l, "...");
    line_close(l, "\"");
}

/* JSON has no word for these; logfmt readers know them as text. */
static void add_double(struct log_line *l, double d)
{
    char num[40];

    if (isfinite(d))
        snprintf(num, sizeof(num), "%.9g", d);
    else
        snprintf(num, sizeof(num), "%s", l->json ? "null" : isnan(d) ? "NaN" : "Inf");
    line_adds(l, num);
}

static void add_value(struct log_line *l, const struct log_field *f)
{
    char num[32];

    switch (f->type) {
    case LOG_F_VIEW:
        add_text(l, f->v);
        return;
    case LOG_F_INT:
        snprintf(num, sizeof(num), "%" PRId64, f->i);
        line_adds(l, num);
        return;
    case LOG_F_UINT:
        snprintf(num, sizeof(num), "%" PRIu64, f->u);
        line_adds(l, num);
        return;
    case LOG_F_DOUBLE:
        add_double(l, f->d);
        return;
    case LOG_F_BOOL:
        line_adds(l, f->b ? "true" : "false");
        return;
    }
    BUG("unknown type of log field");
}

void log_line_field(struct log_line *l, const struct log_field *f)
{
    size_t key = strlen(f->key);

    if (l->full || l->n + key + 40 > sizeof(l->b) - LINE_TAIL) {
        l->full = true;
        return;
    }
    if (l->json) {
        line_adds(l, l->n > 1 ? ",\"" : "\"");
        line_add(l, f->key, key);
        line_adds(l, "\":");
    } else {
        if (l->n)
            line_adds(l, " ");
        line_add(l, f->key, key);
        line_adds(l, "=");
    }
    add_value(l, f);
}

void log_line_begin(struct log_line *l, enum log_format format)
{
    l->n = 0;
    l->full = false;
    l->json = format == LOG_JSON;
    if (l->json)
        line_adds(l, "{");
}

void log_line_end(struct log_line *l)
{
    line_close(l, l->json ? "}\n" : "\n");
}

int log_target_put(struct log_target *t, const struct log_line *l)
{
    int fd = atomic_load_explicit(&t->fd, memory_order_relaxed);
    size_t done = 0;

    while (done < l->n) {
        ssize_t n = write(fd, l->b + done, l->n - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}
