/*
 * Opens spools, one for each directory named on standard input, with the code that the program
 * opens its own with, and says what is in each:
 *
 *     spool DIRECTORY
 *     error TEXT | damaged TEXT
 *     stream ID NAME
 *     lines STREAM NUMBER LINES BYTES      and so many bytes of JSON, without the brackets
 *     blob STREAM NUMBER BYTES SHA256
 *     close STREAM NUMBER
 *     dead NAME LINES BYTES                and what it holds, as of lines
 *     ledger FAMILY ACCEPTED SPOOLED MISSING
 *     end
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/zcodec.h"
#include "crypto/digest.h"
#include "logs/record.h"
#include "spool/spool.h"

enum { LINES_MAX = 64 << 20, PIECE_MAX = 1 << 20 };

struct letter {
    int64_t record;
    uint64_t lines;
    char *name;
};

struct found {
    struct record **records;
    size_t n;
    struct letter *dead;
    size_t n_dead;
};

static int on_stream(void *ctx, const struct spool_stream_row *row)
{
    (void)ctx;
    printf("stream %" PRId64 " %.*s/%.*s\n", row->id, (int)row->account.n, row->account.p,
           (int)row->key.n, row->key.p);
    return 0;
}

static int on_dead(void *ctx, const struct spool_dead_row *row)
{
    struct found *f = ctx;
    struct str name = STR_INIT;

    str_addf(&name, "%.*s/%.*s", (int)row->account.n, row->account.p, (int)row->key.n, row->key.p);
    f->dead = xrealloc(f->dead, (f->n_dead + 1) * sizeof(*f->dead));
    f->dead[f->n_dead++] = (struct letter){row->record.id, row->record.lines, str_take(&name)};
    return 0;
}

static int on_record(void *ctx, const struct spool_record_row *row)
{
    struct found *f = ctx;
    struct record *r = record_new((enum record_kind)row->kind);

    if (record_decode(r, row->meta) < 0)
        printf("damaged what is known of record %" PRId64 "\n", row->id);
    r->row.id = row->id;
    r->row.number = row->number;
    r->row.lines = row->lines;
    r->row.blob = row->blob;
    r->row.at_ns = row->stream; /* the row has no other place for it */
    f->records = xrealloc(f->records, (f->n + 1) * sizeof(*f->records));
    f->records[f->n++] = r;
    return 0;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t came = PTHREAD_COND_INITIALIZER;
static bool done;

static void on_read(struct spool_read *read)
{
    (void)read;
    pthread_mutex_lock(&lock);
    done = true;
    pthread_cond_signal(&came);
    pthread_mutex_unlock(&lock);
}

/* A body or a piece, unpacked and appended. */
static int read_wait(struct spool *s, struct spool_read *read, size_t max, struct str *out)
{
    struct err e = {0};
    int rc;

    done = false;
    read->done = on_read;
    spool_read(s, read);
    pthread_mutex_lock(&lock);
    while (!done)
        pthread_cond_wait(&came, &lock);
    pthread_mutex_unlock(&lock);
    rc = read->err.code != ERR_NONE ? -1 : zframe_unpack(str_view(&read->data), max, out, &e);
    if (rc < 0)
        printf("damaged record %" PRId64 ", blob %" PRId64 " piece %" PRIu32 ": %s\n", read->record,
               read->blob, read->seq, read->err.code != ERR_NONE ? read->err.text : e.text);
    str_fini(&read->data);
    return rc;
}

static void say_lines(struct spool *s, const struct record *r)
{
    struct spool_read read = {.record = r->row.id};
    struct str text = STR_INIT;

    if (read_wait(s, &read, LINES_MAX, &text) == 0) {
        printf("lines %" PRId64 " %" PRIu64 " %" PRIu64 " %zu\n", r->row.at_ns, r->row.number,
               r->row.lines, text.n);
        fwrite(text.p, 1, text.n, stdout);
        putchar('\n');
    }
    str_fini(&text);
}

static void say_blob(struct spool *s, const struct record *r)
{
    struct str all = STR_INIT;
    uint8_t md[32];
    uint32_t i;

    for (i = 0; i < r->pieces; i++) {
        struct spool_read read = {.blob = r->row.blob, .seq = i};

        if (read_wait(s, &read, PIECE_MAX, &all) < 0)
            break;
    }
    if (i == r->pieces && all.n == r->blob_size) {
        sha256(all.p, all.n, md);
        printf("blob %" PRId64 " %" PRIu64 " %zu ", r->row.at_ns, r->row.number, all.n);
        for (i = 0; i < sizeof(md); i++)
            printf("%02x", md[i]);
        putchar('\n');
    } else {
        printf("damaged the upload of record %" PRId64 " has %zu of %" PRIu64 " bytes\n", r->row.id,
               all.n, r->blob_size);
    }
    str_fini(&all);
}

static void say_ledger(struct spool *s)
{
    int64_t now[LEDGER_N], missing[2];

    spool_ledger(s, now);
    missing[0] = now[LEDGER_LINES_ACCEPTED] - now[LEDGER_LINES_DELIVERED] -
                 now[LEDGER_LINES_SPOOLED] - now[LEDGER_LINES_SUPERSEDED] -
                 now[LEDGER_LINES_SETTLED] - now[LEDGER_LINES_LATE] - now[LEDGER_LINES_REFUSED] -
                 now[LEDGER_LINES_DEAD];
    missing[1] = now[LEDGER_BLOBS_ACCEPTED] - now[LEDGER_BLOBS_DELIVERED] -
                 now[LEDGER_BLOBS_SPOOLED] - now[LEDGER_BLOBS_REPEATED] - now[LEDGER_BLOBS_BROKEN] -
                 now[LEDGER_BLOBS_DEAD];
    printf("ledger lines %" PRId64 " %" PRId64 " %" PRId64 "\n", now[LEDGER_LINES_ACCEPTED],
           now[LEDGER_LINES_SPOOLED], missing[0]);
    printf("ledger blobs %" PRId64 " %" PRId64 " %" PRId64 "\n", now[LEDGER_BLOBS_ACCEPTED],
           now[LEDGER_BLOBS_SPOOLED], missing[1]);
}

static void say_records(struct spool *s, const struct found *f)
{
    size_t i;

    for (i = 0; i < f->n; i++) {
        const struct record *r = f->records[i];

        if (r->kind == RECORD_LINES)
            say_lines(s, r);
        else if (r->kind == RECORD_BLOB)
            say_blob(s, r);
        else
            printf("close %" PRId64 " %" PRIu64 "\n", r->row.at_ns, r->row.number);
    }
}

static void say_dead(struct spool *s, const struct found *f)
{
    size_t i;

    for (i = 0; i < f->n_dead; i++) {
        struct spool_read read = {.record = f->dead[i].record};
        struct str text = STR_INIT;

        if (read_wait(s, &read, LINES_MAX, &text) == 0) {
            printf("dead %s %" PRIu64 " %zu\n", f->dead[i].name, f->dead[i].lines, text.n);
            fwrite(text.p, 1, text.n, stdout);
            putchar('\n');
        }
        str_fini(&text);
        xfree(f->dead[i].name);
    }
    xfree(f->dead);
}

static void look(const char *directory, uint64_t limit)
{
    struct spool_opts o = {.directory = directory, .limit = limit, .sync = SPOOL_SYNC_FULL};
    struct str note = STR_INIT;
    struct found f = {0};
    struct err e = {0};
    struct spool *s = spool_open(&o, &note, &e);
    size_t i;

    printf("spool %s\n", directory);
    if (note.n)
        printf("damaged %s\n", str_c(&note));
    if (!s || spool_each_stream(s, on_stream, NULL, &e) < 0 ||
        spool_each_record(s, on_record, &f, &e) < 0 || spool_each_dead(s, on_dead, &f, &e) < 0 ||
        spool_start(s, &e) < 0) {
        printf("error %s\n", e.text);
    } else {
        say_records(s, &f);
        say_dead(s, &f);
        say_ledger(s);
    }
    for (i = 0; i < f.n; i++)
        record_free(f.records[i]);
    xfree(f.records);
    str_fini(&note);
    spool_close(&s);
    puts("end"); /* whoever reads this may take the files away */
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[4096];

    if (argc != 2) {
        fputs("look LIMIT: directories on standard input\n", stderr);
        return 2;
    }
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        look(line, strtoull(argv[1], NULL, 10));
    }
    return 0;
}
