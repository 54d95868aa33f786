#include "rt/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include "rt/clock.h"
#include "rt/logline.h"

static const char *const level_names[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn",   [LOG_NOTICE] = "notice",
    [LOG_INFO] = "info",   [LOG_DEBUG] = "debug",
};
static const char *const format_names[] = {[LOG_LOGFMT] = "logfmt", [LOG_JSON] = "json"};

static _Atomic int log_max_level = LOG_INFO;
static _Atomic int log_line_format = LOG_LOGFMT;

static struct log_target log_target = LOG_TARGET_INIT;

void log_configure(enum log_level level, enum log_format format)
{
    atomic_store_explicit(&log_max_level, (int)level, memory_order_relaxed);
    atomic_store_explicit(&log_line_format, (int)format, memory_order_relaxed);
}

enum log_level log_level_now(void)
{
    return (enum log_level)atomic_load_explicit(&log_max_level, memory_order_relaxed);
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_max_level, (int)level, memory_order_relaxed);
}

const char *log_level_name(enum log_level level)
{
    return level_names[level];
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

int log_open(const char *path, struct err *e)
{
    return log_target_open(&log_target, path, e);
}

int log_prepare(const char *path, struct err *e)
{
    return log_target_prepare(path, e);
}

void log_switch(int fd)
{
    log_target_switch(&log_target, fd);
}

void log_write(enum log_level level, const char *component, const char *message,
               const struct log_field *fields, size_t n)
{
    int saved = errno;
    struct log_line l;
    char now[25];
    size_t i;

    log_line_begin(&l,
                   (enum log_format)atomic_load_explicit(&log_line_format, memory_order_relaxed));
    clock_format(clock_wall_ns(), now);
    log_line_field(&l, &LF_STR("time", now));
    log_line_field(&l, &LF_STR("level", level_names[level]));
    log_line_field(&l, &LF_STR("component", component));
    log_line_field(&l, &LF_STR("msg", message));
    for (i = 0; i < n; i++)
        log_line_field(&l, &fields[i]);
    log_line_end(&l);
    (void)log_target_put(&log_target, &l);
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
