/* Configuration text: it gives errors that name the file, or a configuration whose dump loads back to the same dump. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "app/options.h"
#include "base/bug.h"
#include "base/xmem.h"
#include "fuzz/target.h"

enum { LONGEST = 16384 };

static char *dump(const struct config *c, size_t *n)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, n);

    ASSERT(out);
    conf_dump(&config_spec, c, out);
    fclose(out);
    return text;
}

static int load(struct view text, struct config *c)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    int rc = conf_load_text("fuzz.yaml", "/nonexistent", text, &config_spec, c, &errors);
    size_t i;

    ASSERT((rc == 0) == (errors.n == 0));
    for (i = 0; i < errors.n; i++)
        ASSERT(strncmp(errors.lines[i], "fuzz.yaml", 9) == 0);
    conf_errors_fini(&errors);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config first, second;
    size_t n, again_n;
    char *text, *again;

    if (size > LONGEST || load(view_of(data, size), &first) < 0)
        return 0;
    text = dump(&first, &n);
    ASSERT(load(view_of(text, n), &second) == 0);
    again = dump(&second, &again_n);
    ASSERT(n == again_n && memcmp(text, again, n) == 0);
    free(text);
    free(again);
    conf_clear(&config_spec, &first);
    conf_clear(&config_spec, &second);
    return 0;
}
