/* Small helpers over SQLite, for the files of the spool. */
#ifndef TR_SPOOL_SQL_H
#define TR_SPOOL_SQL_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/view.h"
#include <sqlite3.h>

/* Fill `e` from the error `rc`: ERR_FULL, ERR_LIMIT, ERR_INVALID or ERR_IO. Returns -1. */
int sql_error(sqlite3 *db, int rc, const char *what, struct err *e);
int sql_exec(sqlite3 *db, const char *sql, struct err *e) TR_MUST_USE;
int sql_execf(sqlite3 *db, struct err *e, const char *fmt, ...) TR_PRINTF(3, 4) TR_MUST_USE;
int sql_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **out, struct err *e) TR_MUST_USE;
/* First column of the first row; `absent` if there is none. */
int sql_int(sqlite3 *db, const char *sql, int64_t absent, int64_t *out, struct err *e) TR_MUST_USE;
bool sql_is_damage(int rc);
bool sql_is_corrupt(int rc); /* of a database that was good before */
static inline struct view sql_view(sqlite3_stmt *q, int column)
{
    const void *p = sqlite3_column_blob(q, column);

    return view_of(p, p ? (size_t)sqlite3_column_bytes(q, column) : 0);
}

#endif
