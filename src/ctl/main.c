#include <curl/curl.h>
#include <getopt.h>
#include <string.h>
#include "base/xmem.h"
#include "ctl/ctl.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

static const char usage_text[] =
    "usage: tailracectl [-c FILE | --socket PATH] [--json] COMMAND\n"
    "\n"
    "  dead list    [--stream KEY] [--account ID] [--reason TEXT]\n"
    "                             records that upstream refused for good\n"
    "  dead explain ID            what happened to one, and what to do about it\n"
    "  dead export  ID [-o FILE]  its lines, or its log, as they came\n"
    "  dead replay  ID... | --all [--stream KEY] [--account ID] [--reason TEXT]\n"
    "                             send them again: into the streams' stored logs\n"
    "  dead drop    ID... | --all [...] --yes\n"
    "                             give them up\n"
    "  reload                     read the configuration again, as SIGHUP does\n"
    "  drain                      finish what is under way and end, as SIGTERM does\n"
    "  version                    of this program and of the gateway\n"
    "\n"
    "  -c, --config FILE   the gateway's configuration (default /etc/tailrace/tailrace.yaml),\n"
    "                      which tells where its control socket is\n"
    "      --socket PATH   the control socket itself\n"
    "      --json          answers as JSON\n"
    "  -h, --help          this text\n"
    "\n"
    "Exit status: 0 done, 1 the gateway refused or not all was done, 2 usage, 3 no gateway.\n";

static int usage(FILE *out, int status)
{
    fputs(usage_text, out);
    return status;
}

/* --- commands that are one call --------------------------------------------------------------- */

static int simple(struct ctl *c, const char *method, const char *path,
                  void (*show)(const json_t *json))
{
    struct ctl_answer a;
    int rc = ctl_call(c, method, path, &a);

    if (rc == CTL_OK && c->json)
        ctl_show_json(a.json);
    else if (rc == CTL_OK)
        show(a.json);
    ctl_answer_fini(&a);
    return rc;
}

static void show_reload(const json_t *json)
{
    printf("reloaded: generation %" JSON_INTEGER_FORMAT "\n", ctl_int(json, "generation"));
}

static int run_reload(struct ctl *c, int n, char **args)
{
    (void)args;
    return n ? CTL_USAGE : simple(c, "POST", "reload", show_reload);
}

static void show_drain(const json_t *json)
{
    (void)json;
    puts("draining");
}

static int run_drain(struct ctl *c, int n, char **args)
{
    (void)args;
    return n ? CTL_USAGE : simple(c, "POST", "drain", show_drain);
}

static void show_version(const json_t *json)
{
    puts("tailracectl " PACKAGE_VERSION);
    printf("tailrace %s, process %" JSON_INTEGER_FORMAT ", configuration %" JSON_INTEGER_FORMAT
           "%s\n",
           ctl_text(json, "version"), ctl_int(json, "pid"), ctl_int(json, "generation"),
           json_is_true(json_object_get(json, "draining")) ? ", draining" : "");
}

static int run_version(struct ctl *c, int n, char **args)
{
    (void)args;
    return n ? CTL_USAGE : simple(c, "GET", "version", show_version);
}

static const struct {
    const char *name;
    int (*run)(struct ctl *c, int n, char **args); /* the words behind the name */
} commands[] = {
    {"dead", ctl_dead},
    {"reload", run_reload},
    {"drain", run_drain},
    {"version", run_version},
};

/* --- options ---------------------------------------------------------------------------------- */

enum { OPT_SOCKET = 256, OPT_JSON, OPT_ALL, OPT_YES, OPT_STREAM, OPT_ACCOUNT, OPT_REASON };

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"json", no_argument, NULL, OPT_JSON},
    {"all", no_argument, NULL, OPT_ALL},
    {"yes", no_argument, NULL, OPT_YES},
    {"stream", required_argument, NULL, OPT_STREAM},
    {"account", required_argument, NULL, OPT_ACCOUNT},
    {"reason", required_argument, NULL, OPT_REASON},
    {"output", required_argument, NULL, 'o'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* 0: go on; else the exit status plus one. */
static int read_option(struct ctl *c, int option)
{
    switch (option) {
    case 'c':
        c->config = optarg;
        return 0;
    case OPT_SOCKET:
        c->socket = optarg;
        return 0;
    case OPT_JSON:
        c->json = true;
        return 0;
    case OPT_ALL:
        c->all = true;
        return 0;
    case OPT_YES:
        c->yes = true;
        return 0;
    case OPT_STREAM:
        c->stream = optarg;
        return 0;
    case OPT_ACCOUNT:
        c->account = optarg;
        return 0;
    case OPT_REASON:
        c->reason = optarg;
        return 0;
    case 'o':
        c->output = optarg;
        return 0;
    case 'h':
        return usage(stdout, CTL_OK) + 1;
    default:
        return usage(stderr, CTL_USAGE) + 1;
    }
}

static int run(struct ctl *c, int n, char **args)
{
    size_t i;

    for (i = 0; n > 0 && i < ARRAY_LEN(commands); i++) {
        if (strcmp(args[0], commands[i].name) == 0)
            return commands[i].run(c, n - 1, args + 1);
    }
    if (n > 0)
        fprintf(stderr, "tailracectl: \"%s\" is no command\n", args[0]);
    return CTL_USAGE;
}

int main(int argc, char **argv)
{
    struct ctl c = {0};
    int option, rc;

    while ((option = getopt_long(argc, argv, "c:o:h", options, NULL)) != -1) {
        rc = read_option(&c, option);
        if (rc)
            return rc - 1;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    rc = run(&c, argc - optind, argv + optind);
    curl_global_cleanup();
    xfree(c.path);
    if (rc == CTL_USAGE)
        fputs("see tailracectl --help\n", stderr);
    return rc;
}
