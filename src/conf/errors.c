#include "conf/load.h"

#include <string.h>
#include "base/xmem.h"
#include "conf/errors_priv.h"

void conf_errors_fini(struct conf_errors *errors)
{
    while (errors->n)
        xfree(errors->lines[--errors->n]);
    errors->more = 0;
}

void conf_errors_print(const struct conf_errors *errors, FILE *out)
{
    size_t i;

    for (i = 0; i < errors->n; i++)
        fprintf(out, "%s\n", errors->lines[i]);
    if (errors->more)
        fprintf(out, "... and %zu more error%s\n", errors->more, errors->more == 1 ? "" : "s");
}

void conf_errors_add(struct conf_errors *errors, unsigned long order, char *line)
{
    size_t at = errors->n;

    if (errors->n == CONF_ERRORS_MAX) {
        errors->more++;
        xfree(line);
        return;
    }
    while (at > 0 && errors->order[at - 1] > order)
        at--;
    memmove(errors->lines + at + 1, errors->lines + at, (errors->n - at) * sizeof(*errors->lines));
    memmove(errors->order + at + 1, errors->order + at, (errors->n - at) * sizeof(*errors->order));
    errors->lines[at] = line;
    errors->order[at] = order;
    errors->n++;
}
