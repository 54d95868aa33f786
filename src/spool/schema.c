#include "spool/spool_priv.h"

#include "rt/fault.h"
#include <stdio.h>

/*
 * Records have one index, their id: they come in by it, are deleted by it and recovered in its
 * order. Whatever else would be indexed costs more than everything SQLite does for a record.
 * Bodies come last in their rows, so that a walk over the heads does not read long ones; `sealed`
 * may stand behind them since 0 and 1 take no byte there.
 */
static const char tables[] =
    "CREATE TABLE stream(id INTEGER PRIMARY KEY, next INTEGER NOT NULL, account BLOB, key BLOB,"
    " state BLOB, sealed INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE record(id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, number INTEGER NOT NULL,"
    " kind INTEGER NOT NULL, lines INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL,"
    " blob INTEGER NOT NULL, meta BLOB, body BLOB, sealed INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE gone(id INTEGER PRIMARY KEY);"
    "CREATE TABLE blob(id INTEGER PRIMARY KEY, record INTEGER NOT NULL);"
    "CREATE TABLE piece(id INTEGER PRIMARY KEY, data BLOB NOT NULL,"
    " sealed INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE dead(id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, number INTEGER NOT NULL,"
    " kind INTEGER NOT NULL, lines INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL,"
    " blob INTEGER NOT NULL, reason TEXT, buried_at INTEGER NOT NULL, account BLOB, key BLOB,"
    " meta BLOB, body BLOB, sealed INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE value(space TEXT NOT NULL, name BLOB NOT NULL, value BLOB,"
    " sealed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(space, name)) WITHOUT ROWID;"
    "CREATE TABLE ledger(id INTEGER PRIMARY KEY, name TEXT NOT NULL, value INTEGER NOT NULL);"
    "CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE epoch(id INTEGER PRIMARY KEY, key BLOB NOT NULL);";

/* For people with the sqlite3 shell; the program never reads them. */
static const char views[] =
    "CREATE VIEW backlog AS SELECT r.stream,"
    " CASE WHEN s.sealed THEN '(sealed)' ELSE CAST(s.account AS TEXT) END AS account,"
    " CASE WHEN s.sealed THEN '(sealed)' ELSE CAST(s.key AS TEXT) END AS key, count(*) AS records, "
    "sum(r.lines) AS lines, sum(r.size) AS bytes,"
    " sum(r.blob <> 0) AS blobs, datetime(min(r.at) / 1000000000, 'unixepoch') AS oldest,"
    " datetime(max(r.at) / 1000000000, 'unixepoch') AS newest"
    " FROM record r LEFT JOIN stream s ON s.id = r.stream WHERE r.id NOT IN gone"
    " GROUP BY r.stream ORDER BY min(r.at);"
    "CREATE VIEW dead_letters AS SELECT id,"
    " CASE WHEN sealed & 2 THEN '(sealed)' ELSE CAST(account AS TEXT) END AS account,"
    " CASE WHEN sealed & 2 THEN '(sealed)' ELSE CAST(key AS TEXT) END AS key, lines, size AS "
    "bytes, reason,"
    " datetime(at / 1000000000, 'unixepoch') AS accepted,"
    " datetime(buried_at / 1000000000, 'unixepoch') AS buried FROM dead ORDER BY id;"
    "CREATE VIEW pieces AS SELECT id >> 24 AS blob, count(*) AS pieces, sum(length(data)) AS bytes"
    " FROM piece GROUP BY id >> 24;"
    "CREATE VIEW ledger_view AS SELECT substr(name, 1, 5) AS family, substr(name, 7) AS state,"
    " value FROM ledger UNION ALL SELECT 'lines', '(missing)',"
    " sum(CASE name WHEN 'lines_accepted' THEN value WHEN 'lines_resent' THEN 0 ELSE -value END)"
    " FROM ledger WHERE name LIKE 'lines\\_%' ESCAPE '\\' UNION ALL SELECT 'blobs', '(missing)',"
    " sum(CASE name WHEN 'blobs_accepted' THEN value ELSE -value END)"
    " FROM ledger WHERE name LIKE 'blobs\\_%' ESCAPE '\\';";

static int on_wal(void *arg, sqlite3 *db, const char *name, int frames)
{
    struct spool *s = arg;

    s->wal_frames = (uint32_t)frames;
    s->vfs.log_good = s->vfs.log_end = WAL_HEAD + (int64_t)frames * FRAME_BYTES;
    return SQLITE_OK;
}

int schema_connect(struct spool *s, sqlite3 **db, bool reader, struct err *e)
{
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE |
                (reader ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) |
                (s->by_uri ? SQLITE_OPEN_URI : 0);
    int rc = sqlite3_open_v2(s->path, db, flags, s->vfs.name);

    if (rc != SQLITE_OK) {
        sql_error(*db, rc, "cannot open the database", e);
        sqlite3_close(*db);
        *db = NULL;
        return -1;
    }
    sqlite3_extended_result_codes(*db, 1);
    sqlite3_busy_timeout(*db, BUSY_MS);
    sqlite3_db_config(*db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(*db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_wal_autocheckpoint(*db, 0); /* the writer does it, after its callbacks */
    /* From the first commit on, those of the start included: what is not known to count is made
     * void with the next one that fails. */
    if (!reader)
        sqlite3_wal_hook(*db, on_wal, s);
    if (sql_execf(*db, e, "PRAGMA cache_size=-%d; PRAGMA temp_store=MEMORY;",
                  reader ? 1024 : 2048) < 0)
        return -1;
    return schema_shim(s, *db, e);
}

/* Tables as this format has them, over those of an older one that may not be changed. */
int schema_shim(const struct spool *s, sqlite3 *db, struct err *e)
{
    static const char *const tables_then[] = {"stream", "record", "piece", "dead", "value"};
    size_t i;

    if (!s->format || s->format >= 3)
        return 0;
    for (i = 0; i < ARRAY_LEN(tables_then); i++) {
        if (sql_execf(db, e, "CREATE TEMP VIEW %s AS SELECT *,0 AS sealed FROM main.%s",
                      tables_then[i], tables_then[i]) < 0)
            return -1;
    }
    return s->format < 2 ? sql_exec(db, "CREATE TEMP TABLE gone(id INTEGER PRIMARY KEY)", e) : 0;
}

/* Settings that the file keeps come before its first table. */
static int make(struct spool *s, struct err *e)
{
    if (sql_execf(s->db, e, "PRAGMA page_size=%d; PRAGMA auto_vacuum=NONE;", SPOOL_PAGE) < 0)
        return -1;
    if (sql_exec(s->db, "PRAGMA journal_mode=WAL; BEGIN IMMEDIATE;", e) < 0 ||
        sql_exec(s->db, tables, e) < 0 || sql_exec(s->db, views, e) < 0)
        return -1;
    return sql_execf(s->db, e, "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;",
                     SPOOL_APPLICATION_ID, SPOOL_FORMAT);
}

/* Fill `e`; 1, which says that the file is to be set aside. */
TR_PRINTF(2, 3) static int damaged(struct err *e, const char *fmt, ...)
{
    char text[160];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err_set(e, ERR_INVALID, "spool: %s", text);
    return 1;
}

/* SQLite's own check of structure, where reading all of it does not hold up the start. */
static int quick_check(struct spool *s, struct err *e)
{
    sqlite3_stmt *q = NULL;
    int64_t pages = 0;
    int rc = 0;

    if (sql_int(s->db, "PRAGMA page_count", 0, &pages, e) < 0)
        return -1;
    if (pages * SPOOL_PAGE > CHECK_MAX_BYTES)
        return 0;
    if (sql_prepare(s->db, "PRAGMA quick_check(1)", &q, e) < 0)
        return -1;
    if (sqlite3_step(q) != SQLITE_ROW)
        rc = sql_error(s->db, sqlite3_extended_errcode(s->db), "cannot check the database", e);
    else if (strcmp((const char *)sqlite3_column_text(q, 0), "ok") != 0)
        rc = damaged(e, "the database is damaged: %s", (const char *)sqlite3_column_text(q, 0));
    sqlite3_finalize(q);
    s->checked = rc == 0;
    return rc;
}

/* Version 1 deleted records at once, and up to 2 nothing was sealed. One transaction: after a crash
 * the file is as it was, or of this version. */
static int upgrade(struct spool *s, struct err *e)
{
    static const char sealed[] = "ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0;";

    if (sql_execf(s->db, e,
                  "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS gone(id INTEGER PRIMARY KEY);"
                  "DROP VIEW IF EXISTS backlog; DROP VIEW IF EXISTS dead_letters;"
                  "DROP VIEW IF EXISTS pieces; DROP VIEW IF EXISTS ledger_view;"
                  "ALTER TABLE stream %s ALTER TABLE record %s ALTER TABLE piece %s"
                  "ALTER TABLE dead %s ALTER TABLE value %s"
                  "CREATE TABLE epoch(id INTEGER PRIMARY KEY, key BLOB NOT NULL);"
                  "%s PRAGMA user_version=%d;",
                  sealed, sealed, sealed, sealed, sealed, views, SPOOL_FORMAT) < 0)
        return -1;
    fault_point("spool-upgrade");
    return sql_exec(s->db, "COMMIT", e);
}

/* 0: ours; 1: damaged or foreign; -1: cannot be read, or from a newer version. */
static int check(struct spool *s, struct err *e)
{
    int64_t application = 0, format = 0, n = 0;

    if (sql_int(s->db, "PRAGMA application_id", 0, &application, e) < 0 ||
        sql_int(s->db, "PRAGMA user_version", 0, &format, e) < 0)
        return -1;
    if (application != SPOOL_APPLICATION_ID || format < 1)
        return damaged(e, "%s is a database of something else", s->path);
    /* Going back to an older program is a mistake to be told about, not a reason to begin anew. */
    if (format > SPOOL_FORMAT)
        return err_set(e, ERR_INVALID,
                       "spool: %s has format %lld and this program knows %d: "
                       "use the newer program, or another directory",
                       s->path, (long long)format, SPOOL_FORMAT);
    if (format < SPOOL_FORMAT && upgrade(s, e) < 0)
        return -1;
    if (sql_int(
            s->db,
            "SELECT count(*) FROM sqlite_schema WHERE type='table' AND name IN"
            "('stream','record','gone','blob','piece','dead','value','ledger','counter','epoch')",
            0, &n, e) < 0)
        return -1;
    if (n != 10)
        return damaged(e, "tables are missing in %s", s->path);
    return quick_check(s, e);
}

/* Whether there is no table at all: a crash while the file was being made, or a new file. */
static int is_blank(struct spool *s, bool *blank, struct err *e)
{
    int64_t n = 0;

    if (sql_int(s->db, "SELECT count(*) FROM sqlite_schema", 0, &n, e) < 0)
        return -1;
    *blank = n == 0;
    return 0;
}

static int settings(struct spool *s, struct err *e)
{
    int64_t pages = 0;
    int rc;

    rc = sql_execf(s->db, e,
                   "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s; PRAGMA foreign_keys=OFF;"
                   "PRAGMA secure_delete=OFF; PRAGMA cell_size_check=ON;"
                   "PRAGMA locking_mode=NORMAL;",
                   s->sync == SPOOL_SYNC_FULL ? "FULL" : "NORMAL");
    if (rc < 0)
        return -1;
    if (sql_execf(s->db, e, "PRAGMA max_page_count=%u", s->max_pages) < 0)
        return -1;
    if (sql_int(s->db, "PRAGMA page_size", 0, &pages, e) < 0)
        return -1;
    if (pages != SPOOL_PAGE)
        return damaged(e, "%s has pages of %lld bytes, not %d", s->path, (long long)pages,
                       SPOOL_PAGE);
    return 0;
}

static int open_and_check(struct spool *s, bool fresh, struct err *e)
{
    bool blank = fresh;
    int rc;

    if (schema_connect(s, &s->db, false, e) < 0)
        return -1;
    if (!fresh && is_blank(s, &blank, e) < 0)
        return -1;
    if (blank) {
        if (make(s, e) < 0)
            return -1;
    } else if ((rc = check(s, e)) != 0) {
        return rc;
    }
    return settings(s, e);
}

int schema_reconnect(struct spool *s, struct err *e)
{
    int rc = schema_connect(s, &s->db, false, e);

    if (rc == 0)
        rc = settings(s, e);
    return rc < 0 && s->db && sql_is_corrupt(sqlite3_errcode(s->db)) ? 1 : rc;
}

int schema_check(struct spool *s, struct err *e)
{
    int rc;

    s->checked = false;
    rc = quick_check(s, e);
    if (rc < 0 && sql_is_corrupt(sqlite3_errcode(s->db)))
        rc = 1;
    return rc == 0 && !s->checked ? 1 : rc;
}

int schema_open(struct spool *s, bool fresh, struct err *e)
{
    int rc = open_and_check(s, fresh, e);

    if (rc < 0 && s->db && sql_is_damage(sqlite3_errcode(s->db)))
        rc = 1;
    if (rc != 0) {
        sqlite3_close(s->db);
        s->db = NULL;
    }
    return rc;
}
