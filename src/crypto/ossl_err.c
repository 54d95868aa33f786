#include "crypto/ossl_err.h"

#include <stdio.h>
#include <string.h>
#include <openssl/err.h>

const char *ossl_reason(void)
{
    static _Thread_local char text[128];
    unsigned long code = ERR_peek_error();
    const char *reason;

    if (!code)
        return "no reason given";
    if (ERR_SYSTEM_ERROR(code))
        return strerrordesc_np(ERR_GET_REASON(code));
    reason = ERR_reason_error_string(code);
    if (reason)
        return reason;
    snprintf(text, sizeof(text), "OpenSSL error %#lx", code);
    return text;
}

int ossl_err(struct err *e, enum err_code code, const char *fmt, ...)
{
    va_list ap;
    size_t n;

    if (e) {
        e->code = code;
        va_start(ap, fmt);
        vsnprintf(e->text, sizeof(e->text), fmt, ap);
        va_end(ap);
        n = strlen(e->text);
        snprintf(e->text + n, sizeof(e->text) - n, ": %s", ossl_reason());
    }
    ERR_clear_error();
    return -1;
}
