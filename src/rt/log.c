#include "rt/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/bug.h"
#include "base/utf8.h"
#include "rt/clock.h"

/* A line is built on the stack, so that logging allocates nothing. What does not fit is cut: a peer
 * must not be able to fill the disk through the length of one field. */
enum {
    LINE_MAX_BYTES = 4096,
    LINE_TAIL = 8,    /* kept free for what closes a line: quote, brace, newline */
    VALUE_MAX = 1024, /* of one field, before escaping */
};

struct line {
    char b[LINE_MAX_BYTES];
    size_t n;
    bool full; /* something did not fit; nothing more is added */
    bool json;
};

static const char *const level_names[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn",   [LOG_NOTICE] = "notice",
    [LOG_INFO] = "info",   [LOG_DEBUG] = "debug",
};
static const char *const format_names[] = {[LOG_LOGFMT] = "logfmt", [LOG_JSON] = "json"};

static _Atomic int log_max_level = LOG_INFO;
static _Atomic int log_line_format = LOG_LOGFMT;

/* The number of the descriptor changes at most once, from standard error to one of our own; after
 * that a new target is put in its place with dup3, so no writer ever meets a closed descriptor. */
static _Atomic int log_fd = STDERR_FILENO;
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;

void log_configure(enum log_level level, enum log_format format)
{
    atomic_store_explicit(&log_max_level, (int)level, memory_order_relaxed);
    atomic_store_explicit(&log_line_format, (int)format, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_max_level, memory_order_relaxed);
}

static int parse_name(const char *text, const char *const *names, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (strcmp(text, names[i]) == 0)
            return (int)i;
    }
    return -1;
}

int log_level_parse(const char *text, enum log_level *level)
{
    int i = parse_name(text, level_names, ARRAY_LEN(level_names));

    if (i < 0)
        return -1;
    *level = (enum log_level)i;
    return 0;
}

int log_format_parse(const char *text, enum log_format *format)
{
    int i = parse_name(text, format_names, ARRAY_LEN(format_names));

    if (i < 0)
        return -1;
    *format = (enum log_format)i;
    return 0;
}

/* A new descriptor for the target. */
static int open_target(const char *path, struct err *e)
{
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640)
                  : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);

    if (fd < 0)
        return err_errno(e, ERR_IO, errno, "cannot open the log file %s",
                         path ? path : "standard error");
    return fd;
}

int log_open(const char *path, struct err *e)
{
    int rc = 0, fresh, at;

    pthread_mutex_lock(&open_lock);
    at = atomic_load(&log_fd);
    if (at == STDERR_FILENO && !path)
        goto out;
    fresh = open_target(path, e);
    if (fresh < 0) {
        rc = -1;
        goto out;
    }
    if (at == STDERR_FILENO) {
        atomic_store(&log_fd, fresh);
        goto out;
    }
    if (dup3(fresh, at, O_CLOEXEC) < 0)
        rc = err_errno(e, ERR_IO, errno, "cannot switch the log to %s", path ? path : "stderr");
    close(fresh);
out:
    pthread_mutex_unlock(&open_lock);
    return rc;
}

static void line_add(struct line *l, const char *p, size_t n)
{
    if (l->full || n > sizeof(l->b) - LINE_TAIL - l->n) {
        l->full = true;
        return;
    }
    memcpy(l->b + l->n, p, n);
    l->n += n;
}

static void line_adds(struct line *l, const char *s)
{
    line_add(l, s, strlen(s));
}

/* What closes something that was begun: uses the space kept free. */
static void line_close(struct line *l, const char *s)
{
    size_t n = strlen(s);

    ASSERT(n <= sizeof(l->b) - l->n);
    memcpy(l->b + l->n, s, n);
    l->n += n;
}

/* Add the next character of `v` at `i`, escaped as in a JSON string; returns its length in `v`. */
static size_t add_escaped(struct line *l, struct view v, size_t i)
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

static void add_text(struct line *l, struct view v)
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
static void add_double(struct line *l, double d)
{
    char num[40];

    if (isfinite(d))
        snprintf(num, sizeof(num), "%.9g", d);
    else
        snprintf(num, sizeof(num), "%s", l->json ? "null" : isnan(d) ? "NaN" : "Inf");
    line_adds(l, num);
}

static void add_value(struct line *l, const struct log_field *f)
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

/* One field with its separator; left out whole if key and a little of the value do not fit. */
static void add_field(struct line *l, const struct log_field *f)
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

/* All at once where the target takes it, so that lines of different threads stay whole. A full or
 * broken target costs the line, never the caller. */
static void put_line(const struct line *l)
{
    int fd = atomic_load_explicit(&log_fd, memory_order_relaxed);
    size_t done = 0;

    while (done < l->n) {
        ssize_t n = write(fd, l->b + done, l->n - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        done += (size_t)n;
    }
}

void log_write(enum log_level level, const char *component, const char *message,
               const struct log_field *fields, size_t n)
{
    int saved = errno;
    struct line l;
    char now[25];
    size_t i;

    l.n = 0;
    l.full = false;
    l.json = atomic_load_explicit(&log_line_format, memory_order_relaxed) == LOG_JSON;
    clock_format(clock_wall_ns(), now);
    if (l.json)
        line_adds(&l, "{");
    add_field(&l, &LF_STR("time", now));
    add_field(&l, &LF_STR("level", level_names[level]));
    add_field(&l, &LF_STR("component", component));
    add_field(&l, &LF_STR("msg", message));
    for (i = 0; i < n; i++)
        add_field(&l, &fields[i]);
    line_close(&l, l.json ? "}\n" : "\n");
    put_line(&l);
    errno = saved;
}

bool log_rate_ok(struct log_rate *state, unsigned seconds, uint64_t *suppressed)
{
    int64_t now = clock_mono_ns();
    int64_t next = __atomic_load_n(&state->next_ns, __ATOMIC_RELAXED);

    if (now >= next &&
        __atomic_compare_exchange_n(&state->next_ns, &next, now + (int64_t)seconds * NS_PER_SEC,
                                    false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        *suppressed = __atomic_exchange_n(&state->dropped, 0, __ATOMIC_RELAXED);
        return true;
    }
    __atomic_fetch_add(&state->dropped, 1, __ATOMIC_RELAXED);
    return false;
}
