#define ERR_DEFINES_THEM
#include "base/err.h"

#include <stdio.h>
#include <string.h>

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    va_list ap;

    if (!e)
        return -1;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    return -1;
}

int err_errno(struct err *e, enum err_code code, int errnum, const char *fmt, ...)
{
    va_list ap;
    size_t n;

    if (!e)
        return -1;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    n = strlen(e->text);
    snprintf(e->text + n, sizeof(e->text) - n, ": %s", strerrordesc_np(errnum));
    return -1;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    char old[sizeof(e->text)];
    va_list ap;
    size_t n;

    if (!e)
        return -1;
    memcpy(old, e->text, sizeof(old));
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    n = strlen(e->text);
    snprintf(e->text + n, sizeof(e->text) - n, ": %s", old);
    return -1;
}

const char *err_code_name(enum err_code code)
{
    static const char *const names[] = {
        [ERR_NONE] = "none",           [ERR_INVALID] = "invalid", [ERR_LIMIT] = "limit",
        [ERR_FULL] = "full",           [ERR_IO] = "io",           [ERR_NOTFOUND] = "notfound",
        [ERR_DENIED] = "denied",       [ERR_TIMEOUT] = "timeout", [ERR_CLOSED] = "closed",
        [ERR_UNAVAIL] = "unavailable",
    };

    return (size_t)code < ARRAY_LEN(names) ? names[code] : "unknown";
}
