#include "conf/suggest.h"

#include <string.h>
#include "base/attrs.h"

enum { NAME_MAX_BYTES = 48 };

static size_t least(size_t a, size_t b, size_t c)
{
    size_t m = TR_MIN(a, b);

    return TR_MIN(m, c);
}

/* Optimal string alignment, three rows at a time. */
size_t conf_distance(const char *a, const char *b)
{
    size_t n = strnlen(a, NAME_MAX_BYTES), m = strnlen(b, NAME_MAX_BYTES), i, j;
    size_t rows[3][NAME_MAX_BYTES + 1];

    for (j = 0; j <= m; j++)
        rows[0][j] = j;
    for (i = 1; i <= n; i++) {
        size_t *now = rows[i % 3], *before = rows[(i + 2) % 3], *older = rows[(i + 1) % 3];

        now[0] = i;
        for (j = 1; j <= m; j++) {
            now[j] = least(before[j] + 1, now[j - 1] + 1, before[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = TR_MIN(now[j], older[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

void conf_guess_offer(struct conf_guess *g, struct view name)
{
    size_t near = (strlen(g->wrong) + 1) / 3, d;
    char text[sizeof(g->best)];

    if (name.n >= sizeof(text))
        return;
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    d = conf_distance(g->wrong, text);
    if (d > TR_MAX(near, 1) || (g->best[0] && d >= g->distance))
        return;
    memcpy(g->best, text, sizeof(text));
    g->distance = d;
}
