#include <stdlib.h>
#include <string.h>
#include "conf/load_priv.h"

static size_t name_length(const char *p)
{
    size_t n = 0;

    while ((p[n] >= 'A' && p[n] <= 'Z') || (p[n] >= 'a' && p[n] <= 'z') || p[n] == '_' ||
           (n > 0 && p[n] >= '0' && p[n] <= '9'))
        n++;
    return n;
}

/* What follows a dollar sign; returns how much of it was used, 0 on error. */
static size_t expand_one(const char *p, struct str *out, struct err *e)
{
    char name[64];
    const char *value;
    size_t n;

    if (p[0] == '$') {
        str_addc(out, '$');
        return 1;
    }
    n = p[0] == '{' ? name_length(p + 1) : 0;
    if (n == 0 || n >= sizeof(name) || p[1 + n] != '}') {
        err_set(e, ERR_INVALID, "use ${NAME} for a variable and $$ for a dollar sign");
        return 0;
    }
    memcpy(name, p + 1, n);
    name[n] = '\0';
    value = getenv(name);
    if (!value) {
        err_set(e, ERR_INVALID, "the variable %s is not set", name);
        return 0;
    }
    str_adds(out, value);
    return n + 2;
}

int conf_expand(const char *text, struct str *out, struct err *e)
{
    size_t i;

    for (;;) {
        size_t n = strcspn(text, "$"), used;

        str_add(out, text, n);
        text += n;
        if (*text == '\0')
            break;
        used = expand_one(text + 1, out, e);
        if (used == 0)
            return -1;
        text += 1 + used;
    }
    for (i = 0; i < out->n; i++) {
        if ((unsigned char)out->p[i] < 0x20)
            return err_set(e, ERR_INVALID, "a variable in it holds control characters");
    }
    return 0;
}
