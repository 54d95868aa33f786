#include "app/spool_export.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hmap.h"
#include "base/xmem.h"
#include "codec/lines.h"
#include "codec/zcodec.h"
#include "crypto/digest.h"
#include "logs/blob_body.h"
#include "logs/readback.h"
#include "rt/clock.h"
#include "rt/fdx.h"

struct known {
    struct hnode node;
    int64_t id;
    struct str account, key;
};

struct exporter {
    struct spool *spool;
    const char *to; /* NULL: standard output */
    FILE *index;
    struct hmap streams;
    long bad;
};

/* --- contents ----------------------------------------------------------------------------- */

static int read_piece(struct spool *s, struct spool_read *r, size_t max, struct str *out,
                      struct err *e)
{
    int rc = 0;

    spool_inspect_read(s, r);
    if (r->err.code != ERR_NONE) {
        *e = r->err;
        rc = -1;
    } else {
        rc = zframe_unpack(str_view(&r->data), max, out, e);
    }
    str_fini(&r->data);
    return rc;
}

static int blob_content(struct spool *s, const struct record *rec, struct str *out, struct err *e)
{
    uint32_t i;

    for (i = 0; i < rec->pieces; i++) {
        struct spool_read r = {.blob = rec->row.blob, .seq = i};

        if (read_piece(s, &r, BLOB_PIECE_MAX, out, e) < 0)
            return err_prefix(e, "piece %u of %u", i, rec->pieces);
    }
    if (out->n != rec->blob_size)
        return err_set(e, ERR_INVALID, "the upload has %zu bytes and should have %llu", out->n,
                       (unsigned long long)rec->blob_size);
    return 0;
}

static int lines_content(struct spool *s, const struct record *rec, uint64_t lines, struct str *out,
                         struct err *e)
{
    struct spool_read r = {.record = rec->row.id};
    struct view rest, element;
    uint64_t n = 0;

    if (read_piece(s, &r, (size_t)rec->size + 2, out, e) < 0)
        return -1;
    for (rest = str_view(out); lines_next(&rest, &element);)
        n++;
    if (n != lines || out->n != rec->size)
        return err_set(e, ERR_INVALID, "it has %llu lines of %zu bytes and should have %llu of %u",
                       (unsigned long long)n, out->n, (unsigned long long)lines, rec->size);
    return 0;
}

int spool_content(struct spool *s, const struct spool_record_row *row, struct str *out,
                  struct err *e)
{
    struct record *rec =
        row->kind >= RECORD_LINES && row->kind <= RECORD_CLOSE ? record_from_row(row) : NULL;
    int rc = 0;

    if (!rec)
        return err_set(e, ERR_INVALID,
                       row->damaged ? "it does not open: damaged, or sealed with a key that is "
                                      "not here"
                                    : "its row is not understood");
    if (rec->kind == RECORD_BLOB)
        rc = blob_content(s, rec, out, e);
    else if (rec->kind == RECORD_LINES)
        rc = lines_content(s, rec, row->lines, out, e);
    record_free(rec);
    return rc;
}

/* --- streams ------------------------------------------------------------------------------ */

static uint64_t id_hash(int64_t id)
{
    return (uint64_t)id * 0x9e3779b97f4a7c15ULL;
}

static void know_stream(void *ctx, const struct spool_stream_row *row)
{
    struct exporter *x = ctx;
    struct known *k = XNEW(struct known);

    k->id = row->id;
    str_addv(&k->account, row->account);
    str_addv(&k->key, row->key);
    hmap_insert(&x->streams, &k->node, id_hash(row->id));
}

static const struct known *find_stream(const struct exporter *x, int64_t id)
{
    struct hnode *n;

    for (n = hmap_first(&x->streams, id_hash(id)); n; n = hmap_next(n, id_hash(id))) {
        const struct known *k = hmap_entry(n, struct known, node);

        if (k->id == id)
            return k;
    }
    return NULL;
}

static void forget_streams(struct exporter *x)
{
    size_t slot = 0;
    struct hnode *n = hmap_walk(&x->streams, &slot, NULL);

    while (n) {
        struct known *k = hmap_entry(n, struct known, node);

        n = hmap_walk(&x->streams, &slot, n);
        str_fini(&k->account);
        str_fini(&k->key);
        xfree(k);
    }
    hmap_fini(&x->streams);
}

/* --- writing ------------------------------------------------------------------------------ */

static void add_text(struct str *o, const char *name, struct view v)
{
    str_addf(o, ",\"%s\":\"", name);
    str_add_json(o, v);
    str_addc(o, '"');
}

/* The elements one a line; an element has no line feed of its own but as white space in it. */
static void as_json_lines(struct view inner, struct str *out)
{
    struct view element;
    size_t i;

    while (lines_next(&inner, &element)) {
        for (i = 0; i < element.n; i++)
            str_addc(out, element.p[i] == '\n' || element.p[i] == '\r' ? ' ' : element.p[i]);
        str_addc(out, '\n');
    }
}

/* Numbers only: nothing that a client named is part of a path. */
static void file_name(const struct spool_record_row *row, struct str *name)
{
    if (row->kind == RECORD_BLOB)
        str_addf(name, "blob-%lld", (long long)row->id);
    else
        str_addf(name, "stream-%lld.jsonl", (long long)row->stream);
}

static int write_file(const char *dir, const char *name, bool append, struct view v, struct err *e)
{
    struct str path = STR_INIT;
    FILE *f = NULL;
    int fd, rc = 0;

    str_addf(&path, "%s/%s", dir, name);
    fd = open(str_c(&path),
              O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | (append ? O_APPEND : O_EXCL), 0600);
    if (fd >= 0)
        f = fdopen(fd, "ab");
    if (!f || (v.n && fwrite(v.p, 1, v.n, f) != v.n))
        rc = err_errno(e, ERR_IO, errno, "cannot write %s", str_c(&path));
    if (f && fclose(f) != 0 && rc == 0)
        rc = err_errno(e, ERR_IO, errno, "cannot write %s", str_c(&path));
    str_fini(&path);
    return rc;
}

static int put_content(struct exporter *x, const struct spool_record_row *row,
                       const struct str *content, struct str *line, struct err *e)
{
    struct str name = STR_INIT, text = STR_INIT;
    int rc = 0;

    if (x->to) {
        file_name(row, &name);
        add_text(line, "file", str_view(&name));
        if (row->kind == RECORD_BLOB) {
            rc = write_file(x->to, str_c(&name), false, str_view(content), e);
        } else {
            as_json_lines(str_view(content), &text);
            rc = write_file(x->to, str_c(&name), true, str_view(&text), e);
        }
    } else if (row->kind == RECORD_BLOB) {
        str_adds(line, ",\"base64\":\"");
        base64_encode(content->p, content->n, line);
        str_addc(line, '"');
    } else {
        size_t i;

        str_adds(line, ",\"lines\":[");
        for (i = 0; i < content->n; i++)
            str_addc(line, content->p[i] == '\n' || content->p[i] == '\r' ? ' ' : content->p[i]);
        str_addc(line, ']');
    }
    str_fini(&name);
    str_fini(&text);
    return rc;
}

static void failed(struct exporter *x, const struct spool_record_row *row, const struct err *e,
                   struct str *line)
{
    x->bad++;
    add_text(line, "error", view_str(e->text));
    fprintf(stderr, "record %lld of stream %lld: %s\n", (long long)row->id, (long long)row->stream,
            e->text);
}

static void export_row(struct exporter *x, const struct spool_record_row *row, struct view account,
                       struct view key, struct view reason)
{
    static const char *const kinds[] = {
        [RECORD_LINES] = "lines", [RECORD_BLOB] = "blob", [RECORD_CLOSE] = "close"};
    const char *kind =
        row->kind >= RECORD_LINES && row->kind <= RECORD_CLOSE ? kinds[row->kind] : "unknown";
    struct str line = STR_INIT, content = STR_INIT;
    struct err e = {0};
    char at[25];

    clock_format(row->at_ns, at);
    str_addf(&line, "{\"record\":%lld,\"stream\":%lld,\"number\":%llu,\"kind\":\"%s\",\"n\":%llu",
             (long long)row->id, (long long)row->stream, (unsigned long long)row->number, kind,
             (unsigned long long)row->lines);
    add_text(&line, "at", view_str(at));
    add_text(&line, "account", account);
    add_text(&line, "key", key);
    if (reason.p)
        add_text(&line, "dead", reason);
    if (spool_content(x->spool, row, &content, &e) < 0 ||
        (row->kind != RECORD_CLOSE && put_content(x, row, &content, &line, &e) < 0))
        failed(x, row, &e, &line);
    str_adds(&line, "}\n");
    if (fwrite(line.p, 1, line.n, x->index) != line.n)
        x->bad++;
    str_fini(&content);
    str_fini(&line);
}

static void export_record(void *ctx, const struct spool_record_row *row)
{
    struct exporter *x = ctx;
    const struct known *k = find_stream(x, row->stream);

    export_row(x, row, k ? str_view(&k->account) : VIEW_LIT(""),
               k ? str_view(&k->key) : VIEW_LIT(""), VIEW_NONE);
}

static void export_dead(void *ctx, const struct spool_dead_row *row)
{
    export_row(ctx, &row->record, row->account, row->key,
               row->reason.p ? row->reason : VIEW_LIT(""));
}

/* --- the whole ---------------------------------------------------------------------------- */

static int is_empty_directory(const char *path, struct err *e)
{
    DIR *d = opendir(path);
    struct dirent *ent;
    unsigned n = 0;

    if (!d)
        return err_errno(e, ERR_IO, errno, "cannot open %s", path);
    while ((ent = readdir(d)) != NULL)
        n += strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0;
    closedir(d);
    return n ? err_set(e, ERR_INVALID, "%s is not empty: choose another directory", path) : 0;
}

static int open_index(struct exporter *x, struct err *e)
{
    struct str path = STR_INIT;
    int fd, rc = 0;

    if (!x->to) {
        x->index = stdout;
        return 0;
    }
    if (dir_make(x->to, 0700, e) < 0 || is_empty_directory(x->to, e) < 0)
        return -1;
    str_addf(&path, "%s/index.jsonl", x->to);
    fd = open(str_c(&path), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    x->index = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (!x->index)
        rc = err_errno(e, ERR_IO, errno, "cannot write %s", str_c(&path));
    str_fini(&path);
    return rc;
}

static void say_lost(const char *what, uint64_t lost, const struct err *e)
{
    if (lost)
        fprintf(stderr, "%s: %llu places cannot be read: %s\n", what, (unsigned long long)lost,
                e->text);
}

long spool_export(struct spool *s, const char *to, struct err *e)
{
    struct exporter x = {.spool = s, .to = to, .streams = HMAP_INIT};
    uint64_t streams = 0, records = 0, dead = 0;
    struct err why = {0};
    int rc;

    if (open_index(&x, e) < 0)
        return -1;
    spool_inspect_streams(s, know_stream, &x, &streams, &why);
    say_lost("streams", streams, &why);
    spool_inspect_records(s, export_record, &x, &records, &why);
    say_lost("records", records, &why);
    spool_inspect_dead(s, export_dead, &x, &dead, &why);
    say_lost("dead letters", dead, &why);
    /* cppcheck-suppress useClosedFile ; one or the other */
    rc = to ? fclose(x.index) : fflush(x.index);
    forget_streams(&x);
    if (rc != 0)
        return err_errno(e, ERR_IO, errno, "cannot write");
    return x.bad + (long)(streams + records + dead);
}
