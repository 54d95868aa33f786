#include "app/spool_cmd.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "app/options.h"
#include "app/sealing.h"
#include "app/spool_export.h"
#include "base/xmem.h"
#include "rt/clock.h"
#include "spool/inspect.h"

#define DEFAULT_CONFIG "/etc/tailrace/tailrace.yaml"

enum { GOOD = 0, BAD = 1, USAGE = 2 };

static const char usage_text[] =
    "usage: tailrace spool verify [-c FILE | --directory DIR | DATABASE]\n"
    "       tailrace spool stats  [-c FILE | --directory DIR | DATABASE] [--json]\n"
    "       tailrace spool export [-c FILE | --directory DIR | DATABASE] --to DIR|-\n"
    "\n"
    "  verify   is it sound: structure, every record and upload, the ledger. Exit status 0 or 1\n"
    "  stats    what is in it\n"
    "  export   what is in it as files (DIR must be empty), or as lines of JSON (-)\n"
    "\n"
    "  -c, --config FILE   whose spool.directory is meant (default " DEFAULT_CONFIG ")\n"
    "      --directory DIR a spool's directory\n"
    "      --to DIR        export: where to; with -: on standard output\n"
    "      --json          stats: as JSON\n"
    "      DATABASE        a file, such as one that was set aside: spool.db.damaged-TIME\n"
    "      --key FILE      opens what is sealed (default: spool.key and spool.old-keys of -c)\n"
    "\n"
    "Nothing is changed, and a gateway that runs on the spool goes on.\n";

struct look {
    const char *verb, *config, *directory, *file, *to, *key;
    bool json;
    struct str path; /* of the database */
    long used_by;    /* process, 0: none */
    struct envelope *keys;
    struct spool *spool;
};

/* --- verify ------------------------------------------------------------------------------- */

struct verify {
    struct spool *spool;
    uint64_t records, bad;
    struct str content;
};

static void tell(void *ctx, const char *text)
{
    struct verify *v = ctx;

    v->bad++;
    printf("structure: %s\n", text);
}

static void verify_row(struct verify *v, const char *what, const struct spool_record_row *row)
{
    struct err e = {0};

    v->records++;
    str_clear(&v->content);
    if (spool_content(v->spool, row, &v->content, &e) == 0)
        return;
    v->bad++;
    printf("%s %" PRId64 " of stream %" PRId64 ": %s\n", what, row->id, row->stream, e.text);
}

static void verify_record(void *ctx, const struct spool_record_row *row)
{
    verify_row(ctx, "record", row);
}

static void verify_dead(void *ctx, const struct spool_dead_row *row)
{
    verify_row(ctx, "dead letter", &row->record);
}

static void expect(struct verify *v, const char *what, int64_t is, int64_t should)
{
    if (is == should)
        return;
    v->bad++;
    printf("ledger: %s is %" PRId64 " and should be %" PRId64 "\n", what, is, should);
}

static void verify_ledger(struct verify *v)
{
    struct spool_sums o;
    struct err e = {0};
    const int64_t *l = o.ledger;

    if (spool_inspect_sums(v->spool, &o, &e) < 0) {
        tell(v, e.text);
        return;
    }
    expect(v, "lines_accepted", l[LEDGER_LINES_ACCEPTED],
           l[LEDGER_LINES_DELIVERED] + l[LEDGER_LINES_SPOOLED] + l[LEDGER_LINES_SUPERSEDED] +
               l[LEDGER_LINES_SETTLED] + l[LEDGER_LINES_LATE] + l[LEDGER_LINES_REFUSED] +
               l[LEDGER_LINES_DEAD]);
    expect(v, "blobs_accepted", l[LEDGER_BLOBS_ACCEPTED],
           l[LEDGER_BLOBS_DELIVERED] + l[LEDGER_BLOBS_SPOOLED] + l[LEDGER_BLOBS_REPEATED] +
               l[LEDGER_BLOBS_BROKEN] + l[LEDGER_BLOBS_DEAD]);
    expect(v, "lines_spooled", l[LEDGER_LINES_SPOOLED], o.lines);
    expect(v, "blobs_spooled", l[LEDGER_BLOBS_SPOOLED], o.blobs);
}

static void say_lost(struct verify *v, const char *what, uint64_t lost, const struct err *e)
{
    v->bad += lost;
    if (lost)
        printf("%s: %" PRIu64 " places cannot be read: %s\n", what, lost, e->text);
}

static int verify(struct look *k)
{
    struct verify v = {.spool = k->spool};
    uint64_t lost = 0, lost_dead = 0;
    struct err e = {0};

    if (spool_inspect_check(k->spool, tell, &v, &e) < 0)
        tell(&v, e.text);
    spool_inspect_records(k->spool, verify_record, &v, &lost, &e);
    say_lost(&v, "records", lost, &e);
    spool_inspect_dead(k->spool, verify_dead, &v, &lost_dead, &e);
    say_lost(&v, "dead letters", lost_dead, &e);
    verify_ledger(&v);
    str_fini(&v.content);
    printf("%s: %s: %" PRIu64 " records read, %" PRIu64 " things wrong\n", str_c(&k->path),
           v.bad ? "damaged" : "sound", v.records, v.bad);
    return v.bad ? BAD : GOOD;
}

/* --- stats -------------------------------------------------------------------------------- */

static void print_row(const struct look *k, const char *name, int64_t value)
{
    if (k->json)
        printf(",\"%s\":%" PRId64, name, value);
    else
        printf("%-18s %" PRId64 "\n", name, value);
}

static void print_text(const struct look *k, const char *name, const char *value)
{
    struct str text = STR_INIT;

    str_add_json(&text, view_str(value));
    if (k->json)
        printf("%s\"%s\":\"%s\"", strcmp(name, "database") == 0 ? "{" : ",", name, str_c(&text));
    else
        printf("%-18s %s\n", name, value);
    str_fini(&text);
}

static int stats(struct look *k)
{
    struct spool_sums o;
    struct stat st;
    struct err e = {0};
    char oldest[25] = "";
    int i;

    if (spool_inspect_sums(k->spool, &o, &e) < 0) {
        fprintf(stderr, "%s: %s\n", str_c(&k->path), e.text);
        return BAD;
    }
    if (o.oldest_ns)
        clock_format(o.oldest_ns, oldest);
    print_text(k, "database", str_c(&k->path));
    print_row(k, "format", o.format);
    print_row(k, "used_by_process", k->used_by);
    print_row(k, "file_bytes", stat(str_c(&k->path), &st) == 0 ? (int64_t)st.st_size : 0);
    print_row(k, "streams", o.streams);
    print_row(k, "records", o.records);
    print_row(k, "lines", o.lines);
    print_row(k, "blobs", o.blobs);
    print_row(k, "bytes", o.bytes);
    print_text(k, "oldest", oldest);
    print_row(k, "dead_letters", o.dead);
    print_row(k, "dead_lines", o.dead_lines);
    print_row(k, "dead_blobs", o.dead_blobs);
    print_row(k, "loose_pieces", o.loose_pieces);
    for (i = 0; i < LEDGER_N; i++)
        print_row(k, spool_ledger_name((enum ledger_row)i), o.ledger[i]);
    if (k->json)
        puts("}");
    return GOOD;
}

/* --- export ------------------------------------------------------------------------------- */

static int export(struct look *k)
{
    const char *to = strcmp(k->to, "-") == 0 ? NULL : k->to;
    struct err e = {0};
    long bad = spool_export(k->spool, to, &e);

    if (bad < 0)
        fprintf(stderr, "tailrace spool export: %s\n", e.text);
    else if (bad > 0)
        fprintf(stderr, "%ld records or places could not be read; all else is there\n", bad);
    return bad == 0 ? GOOD : BAD;
}

/* --- the command -------------------------------------------------------------------------- */

static int read_options(struct look *k, int argc, char **argv)
{
    enum { OPT_DIRECTORY = 256, OPT_JSON, OPT_TO, OPT_KEY };
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"directory", required_argument, NULL, OPT_DIRECTORY},
        {"json", no_argument, NULL, OPT_JSON},
        {"key", required_argument, NULL, OPT_KEY},
        {"to", required_argument, NULL, OPT_TO},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        if (c == 'c')
            k->config = optarg;
        else if (c == OPT_DIRECTORY)
            k->directory = optarg;
        else if (c == OPT_JSON)
            k->json = true;
        else if (c == OPT_KEY)
            k->key = optarg;
        else if (c == OPT_TO)
            k->to = optarg;
        else if (c == 'h')
            k->verb = "help";
        else
            return -1;
    }
    if (k->verb)
        return 0;
    if (optind < argc)
        k->verb = argv[optind++];
    if (optind < argc)
        k->file = argv[optind++];
    if (!k->verb || optind < argc || !!k->config + !!k->directory + !!k->file > 1)
        return -1;
    return (strcmp(k->verb, "export") == 0) == (k->to != NULL) ? 0 : -1;
}

/* Whoever looks into a spool without its key still sees what is not sealed. */
static int take_key(struct look *k)
{
    struct aead_key key;
    struct err e = {0};
    int rc = envelope_key_load(k->key, &key, &e);

    if (rc < 0)
        fprintf(stderr, "tailrace spool: %s\n", e.text);
    else
        k->keys = envelope_new(NULL, &key, 1);
    explicit_bzero(&key, sizeof(key));
    return rc;
}

static int find(struct look *k)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct config *c = NULL;
    struct err e = {0};
    int rc = 0;

    if (k->key && take_key(k) < 0)
        return -1;

    if (k->file) {
        str_adds(&k->path, k->file);
        return 0;
    }
    if (k->directory) {
        k->used_by = spool_used_by(k->directory);
        str_addf(&k->path, "%s/spool.db", k->directory);
        return 0;
    }
    if (config_load(k->config ? k->config : DEFAULT_CONFIG, &c, &errors) < 0) {
        conf_errors_print(&errors, stderr);
        conf_errors_fini(&errors);
        return -1;
    }
    conf_errors_fini(&errors);
    k->used_by = spool_used_by(c->spool_directory);
    str_addf(&k->path, "%s/spool.db", c->spool_directory);
    if (!k->key)
        rc = sealing_load(c, &k->keys, &e);
    if (rc < 0)
        fprintf(stderr, "tailrace spool: %s\n", e.text);
    config_free(&c);
    return rc;
}

static int run(struct look *k, int (*verb)(struct look *k))
{
    struct str note = STR_INIT;
    struct err e = {0};
    int rc = BAD;

    if (find(k) < 0)
        return BAD;
    k->spool = spool_inspect(str_c(&k->path), k->keys ? envelope_box(k->keys) : NULL, &note, &e);
    if (note.n)
        fprintf(stderr, "%s: %s\n", str_c(&k->path), str_c(&note));
    if (k->used_by)
        fprintf(stderr,
                "note: process %ld has this spool open; what changes meanwhile may be "
                "missing\n",
                k->used_by);
    if (k->spool)
        rc = verb(k);
    else
        fprintf(stderr, "tailrace spool: %s\n", e.text);
    spool_inspect_end(&k->spool);
    envelope_free(&k->keys);
    str_fini(&note);
    return rc;
}

int spool_cmd(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(struct look *k);
    } verbs[] = {{"verify", verify}, {"stats", stats}, {"export", export}};
    struct look k = {0};
    int rc = USAGE;
    size_t i;

    if (read_options(&k, argc, argv) < 0) {
        fputs(usage_text, stderr);
        return USAGE;
    }
    if (strcmp(k.verb, "help") == 0) {
        fputs(usage_text, stdout);
        return GOOD;
    }
    for (i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(k.verb, verbs[i].name) == 0)
            break;
    }
    if (i < ARRAY_LEN(verbs))
        rc = run(&k, verbs[i].run);
    else
        fputs(usage_text, stderr);
    str_fini(&k.path);
    return rc;
}
