/*
 * The machine's power is lost. A VFS under the spool's own remembers what every write replaced
 * until the file is synced. At chosen syncs, before they take effect, the files are copied and each
 * of the writes not yet synced is kept, dropped or torn by chance. Every such copy must open, hold
 * what was acknowledged at that moment and balance.
 *
 * (Not modelled: a directory entry that is lost, and a device that lies about its cache.)
 */
#include "bed.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/xmem.h"
#include "rt/fdx.h"
#include "rt/rng.h"

enum { RECORDS = 4000, LAG = 40, BURST = 12, CRASHES = 150, SECTOR = 512 };

/* --- the VFS ----------------------------------------------------------------------------- */

struct unsynced {
    struct unsynced *before;
    char name[16]; /* "db" or "wal" */
    sqlite3_int64 at;
    int n;
    char old[];
};

struct power_file {
    sqlite3_file base;
    sqlite3_file *real;
    const char *name;
};

static sqlite3_vfs power_vfs, *real_vfs;
static sqlite3_io_methods power_methods, *filled;
static struct unsynced *newest;
static void (*on_sync)(void);

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((struct power_file *)(void *)f)->real;
}

#define PASS(name, params, args)                                                                   \
    static int power_##name params                                                                 \
    {                                                                                              \
        return real_of(f)->pMethods->x##name args;                                                 \
    }
PASS(Close, (sqlite3_file *f), (real_of(f)))
PASS(Read, (sqlite3_file *f, void *p, int n, sqlite3_int64 at), (real_of(f), p, n, at))
PASS(Truncate, (sqlite3_file *f, sqlite3_int64 n), (real_of(f), n))
PASS(FileSize, (sqlite3_file *f, sqlite3_int64 *n), (real_of(f), n))
PASS(Lock, (sqlite3_file *f, int l), (real_of(f), l))
PASS(Unlock, (sqlite3_file *f, int l), (real_of(f), l))
PASS(CheckReservedLock, (sqlite3_file *f, int *out), (real_of(f), out))
PASS(FileControl, (sqlite3_file *f, int op, void *p), (real_of(f), op, p))
PASS(SectorSize, (sqlite3_file *f), (real_of(f)))
PASS(DeviceCharacteristics, (sqlite3_file *f), (real_of(f)))
PASS(ShmMap, (sqlite3_file *f, int a, int b, int c, void volatile **o), (real_of(f), a, b, c, o))
PASS(ShmLock, (sqlite3_file *f, int a, int b, int c), (real_of(f), a, b, c))
PASS(ShmUnmap, (sqlite3_file *f, int d), (real_of(f), d))

static void power_ShmBarrier(sqlite3_file *f)
{
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int power_Write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    struct power_file *pf = (struct power_file *)(void *)f;

    if (pf->name) {
        struct unsynced *u = xcalloc(1, sizeof(*u) + (size_t)n);

        u->at = at;
        u->n = n;
        snprintf(u->name, sizeof(u->name), "%s", pf->name);
        pf->real->pMethods->xRead(pf->real, u->old, n, at); /* a short read leaves zeros */
        u->before = newest;
        newest = u;
    }
    return pf->real->pMethods->xWrite(pf->real, p, n, at);
}

static void forget(const char *name)
{
    struct unsynced **u = &newest;

    while (*u) {
        struct unsynced *gone = *u;

        if (name && strcmp(gone->name, name) != 0) {
            u = &gone->before;
            continue;
        }
        *u = gone->before;
        xfree(gone);
    }
}

static int power_Sync(sqlite3_file *f, int flags)
{
    struct power_file *pf = (struct power_file *)(void *)f;

    if (pf->name) {
        if (on_sync)
            on_sync();
        forget(pf->name);
    }
    return pf->real->pMethods->xSync(pf->real, flags);
}

static int power_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
    struct power_file *pf = (struct power_file *)(void *)f;
    int rc;

    (void)v;
    memset(pf, 0, sizeof(*pf));
    pf->real = (sqlite3_file *)(void *)(pf + 1);
    pf->name = flags & SQLITE_OPEN_WAL ? "wal" : flags & SQLITE_OPEN_MAIN_DB ? "db" : NULL;
    rc = real_vfs->xOpen(real_vfs, name, pf->real, flags, out);
    pf->base.pMethods = pf->real->pMethods ? filled : NULL;
    return rc;
}

static void power_on(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    power_methods = (sqlite3_io_methods){
        2, power_Close, power_Read, power_Write, power_Truncate, power_Sync, power_FileSize,
        power_Lock, power_Unlock, power_CheckReservedLock, power_FileControl, power_SectorSize,
        power_DeviceCharacteristics, power_ShmMap, power_ShmLock, power_ShmBarrier, power_ShmUnmap,
        NULL, NULL};
    filled = &power_methods;
    power_vfs = *real_vfs;
    power_vfs.zName = "power";
    power_vfs.szOsFile = (int)sizeof(struct power_file) + real_vfs->szOsFile;
    power_vfs.xOpen = power_open;
    assert_int_equal(sqlite3_vfs_register(&power_vfs, 1), SQLITE_OK);
}

static void power_off(void)
{
    sqlite3_vfs_unregister(&power_vfs);
    sqlite3_vfs_register(real_vfs, 1);
    forget(NULL);
}

/* --- the history ------------------------------------------------------------------------- */

/* Records come and go in order, so that four numbers say all. */
struct moment {
    char dir[300];
    int inserted, insert_sent, deleted, delete_sent;
};

static struct bed *bed;
static struct rng rng;
static struct moment now, crashes[CRASHES];
static _Atomic int n_crashes;
static int done;
static struct spool_record records[RECORDS];

static void copy_file(const char *from, const char *to)
{
    struct str s = STR_INIT;
    struct err e;
    FILE *f;

    if (file_read(from, 64 << 20, &s, &e) == 0 && (f = fopen(to, "w"))) {
        if (s.n)
            assert_int_equal(fwrite(s.p, 1, s.n, f), s.n);
        fclose(f);
    }
    str_fini(&s);
}

static void take_back(const char *path, const struct unsynced *u, int from)
{
    int fd = open(path, O_WRONLY);

    if (fd >= 0) {
        assert_int_equal(pwrite(fd, u->old + from, (size_t)(u->n - from), u->at + from),
                         u->n - from);
        close(fd);
    }
}

/* In the writer's thread, hence at one moment of the history. */
static void maybe_crash(void)
{
    struct moment *m = &crashes[n_crashes];
    char from[600], db[400], wal[400];
    struct unsynced *u;

    if (n_crashes == CRASHES || rng_below(&rng, 4) != 0)
        return;
    m->inserted = now.inserted; /* this thread's */
    m->deleted = now.deleted;
    m->insert_sent = __atomic_load_n(&now.insert_sent, __ATOMIC_ACQUIRE);
    m->delete_sent = __atomic_load_n(&now.delete_sent, __ATOMIC_ACQUIRE);
    snprintf(m->dir, sizeof(m->dir), "%.200s/crash%d", bed->root, n_crashes);
    assert_int_equal(mkdir(m->dir, 0700), 0);
    snprintf(db, sizeof(db), "%s/spool.db", m->dir);
    snprintf(wal, sizeof(wal), "%s/spool.db-wal", m->dir);
    snprintf(from, sizeof(from), "%s/spool.db", bed->dir);
    copy_file(from, db);
    snprintf(from, sizeof(from), "%s/spool.db-wal", bed->dir);
    copy_file(from, wal);
    for (u = newest; u; u = u->before) {
        uint64_t fate = rng_below(&rng, 3);

        if (fate == 1)
            take_back(u->name[0] == 'w' ? wal : db, u, 0);
        else if (fate == 2 && u->n > SECTOR)
            take_back(u->name[0] == 'w' ? wal : db, u,
                      SECTOR * (int)rng_below(&rng, (uint64_t)(u->n / SECTOR)));
    }
    n_crashes++;
}

static void on_inserted(void *ctx, const struct err *err)
{
    (void)ctx;
    if (!err)
        now.inserted++;
    bed_add(&done, err ? 1000000 : 1);
}

static void on_deleted(void *ctx, const struct err *err)
{
    (void)ctx;
    if (!err)
        now.deleted++;
    bed_add(&done, err ? 1000000 : 1);
}

static void send(int i, struct spool_stream *st)
{
    static char body[700];
    struct spool_txn *t = spool_txn_new();

    records[i] = (struct spool_record){.kind = i, .lines = 1, .body = view_of(body, sizeof(body))};
    spool_txn_record(t, st, &records[i]);
    spool_txn_ledger(t, LEDGER_LINES_ACCEPTED, 1);
    spool_txn_ledger(t, LEDGER_LINES_SPOOLED, 1);
    __atomic_store_n(&now.insert_sent, i + 1, __ATOMIC_RELEASE);
    spool_submit(bed->s, t, on_inserted, NULL);
    if (i < LAG)
        return;
    t = spool_txn_new();
    spool_txn_delete(t, records[i - LAG].id);
    spool_txn_ledger(t, LEDGER_LINES_SPOOLED, -1);
    spool_txn_ledger(t, LEDGER_LINES_DELIVERED, 1);
    __atomic_store_n(&now.delete_sent, i - LAG + 1, __ATOMIC_RELEASE);
    spool_submit(bed->s, t, on_deleted, NULL);
}

static void run_history(void)
{
    struct spool_stream st = {0};
    int i;

    bed_open(bed);
    bed_stream(bed, &st, "k");
    on_sync = maybe_crash;
    for (i = 0; i < RECORDS && n_crashes < CRASHES; i++) {
        send(i, &st);
        if (i % BURST == BURST - 1)
            bed_wait(&done, i + 1 + (i < LAG ? 0 : i + 1 - LAG));
    }
    bed_wait(&done, i + i - LAG);
    bed_close(bed);
    on_sync = NULL;
}

/* --- the verdict ------------------------------------------------------------------------- */

struct found {
    int first, n;
    bool gap;
    uint64_t next;
};

static int find_record(void *ctx, const struct spool_record_row *row)
{
    struct found *f = ctx;

    if (f->n == 0)
        f->first = row->kind;
    f->gap = f->gap || row->kind != f->first + f->n || row->number != (uint64_t)row->kind;
    f->n++;
    return 0;
}

static int find_stream(void *ctx, const struct spool_stream_row *row)
{
    ((struct found *)ctx)->next = row->next;
    return 0;
}

static void judge(const struct moment *m, bool acks_hold)
{
    struct bed b = {.opts = {.directory = m->dir, .limit = 64 << 20}};
    struct found f = {0};
    int64_t ledger[LEDGER_N];
    int end;

    bed_open_only(&b);
    if (b.note.n)
        fail_msg("%s: %s", m->dir, str_c(&b.note));
    assert_int_equal(spool_each_stream(b.s, find_stream, &f, &b.err), 0);
    assert_int_equal(spool_each_record(b.s, find_record, &f, &b.err), 0);
    assert_false(f.gap);
    end = f.n ? f.first + f.n : (int)f.next;
    assert_true(f.next >= (uint64_t)end);
    assert_true(end <= m->insert_sent);
    if (f.n)
        assert_true(f.first <= m->delete_sent);
    if (acks_hold) {
        if (end < m->inserted)
            fail_msg("%d were acknowledged, %d are there", m->inserted, end);
        assert_true(f.n == 0 || f.first >= m->deleted);
    }
    spool_ledger(b.s, ledger);
    assert_int_equal(ledger[LEDGER_LINES_SPOOLED], f.n);
    assert_int_equal(ledger[LEDGER_LINES_ACCEPTED], end);
    assert_int_equal(ledger[LEDGER_LINES_DELIVERED], end - f.n);
    bed_close(&b);
    str_fini(&b.note);
}

static void lose_power(struct bed *b, enum spool_sync sync, uint64_t seed)
{
    int i;

    bed = b;
    memset(&now, 0, sizeof(now));
    n_crashes = 0;
    done = 0;
    rng_seed(&rng, seed);
    b->opts.sync = sync;
    b->opts.limit = 1 << 20; /* checkpoints often */
    power_on();
    run_history();
    power_off();
    assert_true(n_crashes >= (sync == SPOOL_SYNC_FULL ? CRASHES / 2 : 5));
    for (i = 0; i < n_crashes; i++)
        judge(&crashes[i], sync == SPOOL_SYNC_FULL);
}

static void acknowledged_records_survive_power_loss(void **state)
{
    lose_power(*state, SPOOL_SYNC_FULL, 1);
}

static void without_sync_the_books_still_balance(void **state)
{
    lose_power(*state, SPOOL_SYNC_NORMAL, 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bed_setup, bed_teardown)
    const struct CMUnitTest tests[] = {
        T(acknowledged_records_survive_power_loss),
        T(without_sync_the_books_still_balance),
    };

    return cmocka_run_group_tests_name("spool power", tests, NULL, NULL);
}
