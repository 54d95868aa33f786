/* Texts on a terminal: made harmless, measured, cut. All are UTF-8. */
#ifndef TR_CTL_TEXT_H
#define TR_CTL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include "base/str.h"

/*
 * Take the locale that the environment names for what characters there are, and one of UTF-8 to
 * measure them with. True: the terminal takes UTF-8, so that our own marks may be more than ASCII.
 * Once, before the others and before any thread.
 */
bool text_init(void);

/*
 * Append `text` as it may be shown: control characters (with those from U+0080 on, which terminals
 * take for escape sequences), marks that turn the direction of writing or are not seen, and bytes
 * that are no UTF-8 become question marks. `keep`: characters that may stay all the same, such as
 * "\t"; NULL: none.
 */
void text_add_harmless(struct str *out, const char *text, const char *keep);
/* The same, and the whole of each escape sequence that a build's tools colour their output with is
 * left out. */
void text_add_log(struct str *out, const char *text);

/* How many columns a harmless text takes. */
size_t text_width(const char *text);
/* How many bytes of it fit into so many columns; `*used` (may be NULL): the columns they take. */
size_t text_fit(const char *text, size_t columns, size_t *used);

/* Append a harmless text in at most `columns` columns, with `dots` in place of its middle, or of
 * its end, if it is wider. */
enum text_cut { TEXT_CUT_MIDDLE, TEXT_CUT_END };
void text_add_cut(struct str *out, const char *text, size_t columns, enum text_cut cut,
                  const char *dots);

/* Whether it holds that text, letters of ASCII in any case. "" is in all. */
bool text_has(const char *text, const char *part);

#endif
