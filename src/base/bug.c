#include "base/bug.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void bug_abort(const char *file, int line, const char *what)
{
    char text[512];
    int n = snprintf(text, sizeof(text), "tailrace: bug at %s:%d: %s\n", file, line, what);

    if (n > (int)sizeof(text))
        n = sizeof(text);
    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
        abort();
    abort();
}
