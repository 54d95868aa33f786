/* Values: from text to the field of a row, and back. */
#ifndef TR_CONF_VALUE_PRIV_H
#define TR_CONF_VALUE_PRIV_H

#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "conf/rows.h"

/* Set the field from text that has its variables expanded; a LIST gets one more element. Relative
 * paths start at `directory`. -1: the field is as before, and `e` has what to write instead. */
int conf_value_set(const struct conf_row *row, void *object, const char *text,
                   const char *directory, struct err *e) TR_MUST_USE;

/* Append the text that conf_value_set would read back; not for a LIST. False if there is none. */
bool conf_value_print(const struct conf_row *row, const void *object, struct str *out);

/* Append "use ..." for a value of the row. */
void conf_value_hint(const struct conf_row *row, struct str *out);

/* Free what the field owns and zero it. */
void conf_value_clear(const struct conf_row *row, void *object);

static inline void *conf_field(const struct conf_row *row, const void *object)
{
    return (char *)object + row->offset;
}

#endif
