/* The writer's statements, prepared once for each connection. */
#ifndef TR_SPOOL_STATEMENTS_PRIV_H
#define TR_SPOOL_STATEMENTS_PRIV_H

#define SPOOL_STATEMENTS(X)                                                                        \
    X(BEGIN, "BEGIN IMMEDIATE")                                                                    \
    X(COMMIT, "COMMIT")                                                                            \
    X(STREAM_ADD, "INSERT INTO stream VALUES(?1,?2,?3,?4,?5,?6)")                                  \
    X(STREAM_STATE, "UPDATE stream SET next=?2,state=?5 WHERE id=?1")                              \
    X(STREAM_NEXT, "UPDATE stream SET next=?2 WHERE id=?1")                                        \
    X(STREAM_DROP, "DELETE FROM stream WHERE id=?1")                                               \
    X(RECORD_ADD, "INSERT INTO record VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)")                 \
    X(RECORD_WHAT, "SELECT stream,number,blob,size FROM record WHERE id=?1")                       \
    X(RECORD_DELETE, "DELETE FROM record WHERE id=?1")                                             \
    X(GONE_ADD, "INSERT OR IGNORE INTO gone VALUES(?1)")                                           \
    X(SWEEP, "DELETE FROM record WHERE id IN gone")                                                \
    X(SWEPT, "DELETE FROM gone")                                                                   \
    X(DEAD_WHAT, "SELECT blob FROM dead WHERE id=?1")                                              \
    X(DEAD_DELETE, "DELETE FROM dead WHERE id=?1")                                                 \
    X(DEAD_ADD, "INSERT INTO dead SELECT r.id,r.stream,r.number,r.kind,r.lines,r.at,r.size,"       \
                "r.blob,?2,?3,s.account,s.key,r.meta,r.body,r.sealed+2*coalesce(s.sealed,0) "      \
                "FROM record r LEFT JOIN stream s ON s.id=r.stream WHERE r.id=?1 AND r.id NOT IN " \
                "gone")                                                                            \
    X(BLOB_ADD, "INSERT INTO blob VALUES(?1,?2)")                                                  \
    X(BLOB_DELETE, "DELETE FROM blob WHERE id=?1")                                                 \
    X(BLOB_SIZE, "SELECT coalesce(sum(length(data)-28*sealed),0) FROM piece "                      \
                 "WHERE id BETWEEN ?1 AND ?2")                                                     \
    X(PIECE_ADD, "INSERT OR REPLACE INTO piece VALUES(?1,?2,?3)")                                  \
    X(PIECES_DELETE, "DELETE FROM piece WHERE id BETWEEN ?1 AND ?2")                               \
    X(VALUE_SET, "INSERT OR REPLACE INTO value VALUES(?1,?2,?3,?4)")                               \
    X(VALUE_DELETE, "DELETE FROM value WHERE space=?1 AND name=?2")                                \
    X(LEDGER_SET, "UPDATE ledger SET value=?2 WHERE id=?1")                                        \
    X(COUNTER_SET, "INSERT OR REPLACE INTO counter VALUES(?1,?2)")                                 \
    X(PAGES, "PRAGMA page_count")                                                                  \
    X(PAGES_FREE, "PRAGMA freelist_count")                                                         \
    X(OLDEST, "SELECT at FROM record WHERE id NOT IN gone ORDER BY id LIMIT 1")

enum spool_statement {
#define X(name, sql) ST_##name,
    SPOOL_STATEMENTS(X)
#undef X
        ST_N
};

#endif
