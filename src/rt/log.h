/*
 * The structured log: one line per event on standard error (or a file), logfmt by default, JSON on
 * request. An event is a level, a component, a constant message and typed fields:
 *
 *     log_event(LOG_WARN, "spool", "disk is full", LF_STR("path", path), LF_INT("free", n));
 *
 * error: the operator must act; warn: degraded; notice: life-cycle; info: one per conversation;
 * debug: for us. Info and above must make sense without the source. Never a token, a signature or
 * a line of a build's log. Calls keep errno, cannot fail and may come from any thread.
 */
#ifndef TR_RT_LOG_H
#define TR_RT_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/view.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_NOTICE, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_LOGFMT, LOG_JSON };
enum log_field_type { LOG_F_VIEW, LOG_F_INT, LOG_F_UINT, LOG_F_DOUBLE, LOG_F_BOOL };

struct log_field {
    const char *key;
    enum log_field_type type;
    union {
        struct view v;
        int64_t i;
        uint64_t u;
        double d;
        bool b;
    };
};

#define LF_VIEW(k, x)   ((struct log_field){.key = (k), .type = LOG_F_VIEW, .v = (x)})
#define LF_STR(k, x)    ((struct log_field){.key = (k), .type = LOG_F_VIEW, .v = view_str(x)})
#define LF_INT(k, x)    ((struct log_field){.key = (k), .type = LOG_F_INT, .i = (int64_t)(x)})
#define LF_UINT(k, x)   ((struct log_field){.key = (k), .type = LOG_F_UINT, .u = (uint64_t)(x)})
#define LF_DOUBLE(k, x) ((struct log_field){.key = (k), .type = LOG_F_DOUBLE, .d = (x)})
#define LF_BOOL(k, x)   ((struct log_field){.key = (k), .type = LOG_F_BOOL, .b = (x)})
#define LF_ERR(e)       LF_STR("error", (e)->text)

/* Set level and format; before that: info, logfmt. Any thread; takes effect at once. */
void log_configure(enum log_level level, enum log_format format);

/* Write to the file at `path` from now on (created 0640, appended), or to standard error if NULL.
 * -1: the old target stays. Call again with the same path to reopen after rotation. */
int log_open(const char *path, struct err *e) TR_MUST_USE;

/* The same in two steps, to open other things in between: -1 if it cannot be; then put the
 * descriptor in place, or give it up with log_target_discard (rt/logline.h). */
int log_prepare(const char *path, struct err *e) TR_MUST_USE;
void log_switch(int fd);

/* The level alone, as it is now, and as it is named ("error".."debug"; static). */
enum log_level log_level_now(void);
void log_set_level(enum log_level level);
const char *log_level_name(enum log_level level);

/* Parse "error".."debug" / "logfmt"|"json". -1 if unknown. */
int log_level_parse(const char *text, enum log_level *level) TR_MUST_USE;
int log_format_parse(const char *text, enum log_format *format) TR_MUST_USE;

bool log_enabled(enum log_level level);

void log_write(enum log_level level, const char *component, const char *message,
               const struct log_field *fields, size_t n);

#define log_event(level, component, message, ...)                                                  \
    do {                                                                                           \
        if (log_enabled(level)) {                                                                  \
            const struct log_field log_fields_[] = {{0}, ##__VA_ARGS__};                           \
            log_write(level, component, message, log_fields_ + 1, ARRAY_LEN(log_fields_) - 1);     \
        }                                                                                          \
    } while (0)

/*
 * For trouble that repeats: true at most once in `seconds` per place; `*suppressed` gets how many
 * were left out since. `state` is a static of the call site.
 */
struct log_rate {
    int64_t next_ns;
    uint64_t dropped;
};
bool log_rate_ok(struct log_rate *state, unsigned seconds, uint64_t *suppressed);

#endif
