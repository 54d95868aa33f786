#include "spool/spool_priv.h"

static enum err_code code_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return ERR_FULL;
    case SQLITE_TOOBIG:
        return ERR_LIMIT;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_RANGE:
        return ERR_INVALID;
    default:
        return ERR_IO;
    }
}

int sql_error(sqlite3 *db, int rc, const char *what, struct err *e)
{
    /* SQLite's texts name tables and causes, never values. */
    return err_set(e, code_of(rc), "spool: %s: %s", what,
                   db && sqlite3_extended_errcode(db) == rc ? sqlite3_errmsg(db)
                                                            : sqlite3_errstr(rc));
}

bool sql_is_damage(int rc)
{
    rc &= 0xff;
    /* Our statements have no errors of their own: a plain error means a schema that is not ours. */
    return rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB || rc == SQLITE_ERROR;
}

bool sql_is_corrupt(int rc)
{
    rc &= 0xff;
    return rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB;
}

int sql_exec(sqlite3 *db, const char *sql, struct err *e)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? 0 : sql_error(db, sqlite3_extended_errcode(db), "cannot prepare", e);
}

int sql_execf(sqlite3 *db, struct err *e, const char *fmt, ...)
{
    struct str sql = STR_INIT;
    va_list ap;
    int rc;

    va_start(ap, fmt);
    str_vaddf(&sql, fmt, ap);
    va_end(ap);
    rc = sql_exec(db, str_c(&sql), e);
    str_fini(&sql);
    return rc;
}

int sql_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **out, struct err *e)
{
    int rc = sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);

    return rc == SQLITE_OK ? 0 : sql_error(db, sqlite3_extended_errcode(db), "cannot prepare", e);
}

int sql_int(sqlite3 *db, const char *sql, int64_t absent, int64_t *out, struct err *e)
{
    sqlite3_stmt *q = NULL;
    int rc;

    if (sql_prepare(db, sql, &q, e) < 0)
        return -1;
    rc = sqlite3_step(q);
    *out = rc == SQLITE_ROW ? sqlite3_column_int64(q, 0) : absent;
    if (rc == SQLITE_ROW)
        rc = SQLITE_DONE;
    if (rc != SQLITE_DONE)
        sql_error(db, sqlite3_extended_errcode(db), "cannot read", e);
    sqlite3_finalize(q);
    return rc == SQLITE_DONE ? 0 : -1;
}
