/* "Did you mean": the nearest of some names to a misspelled one. */
#ifndef TR_CONF_SUGGEST_H
#define TR_CONF_SUGGEST_H

#include <stddef.h>
#include "base/view.h"

/* Insertions, deletions, replacements and swaps of neighbours between two names (the first 48
 * bytes of each). */
size_t conf_distance(const char *a, const char *b);

struct conf_guess {
    const char *wrong;
    char best[64]; /* empty: none was near enough */
    size_t distance;
};

/* Offer a name. The nearest wins, of equals the first. */
void conf_guess_offer(struct conf_guess *g, struct view name);

#endif
