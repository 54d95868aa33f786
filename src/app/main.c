#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "app/check.h"
#include "app/serve.h"
#include "app/spool_cmd.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#define DEFAULT_CONFIG "/etc/tailrace/tailrace.yaml"

enum { EXIT_GOOD = 0, EXIT_USAGE = 2 };

static const char usage_text[] =
    "usage: tailrace serve   [-c FILE]                   run the gateway\n"
    "       tailrace check   [-c FILE] [--dump-config]   say whether a configuration is good,\n"
    "                                                    and what its policy would break\n"
    "       tailrace check   [-c FILE] --explain HOST:PORT [--from ADDRESS] [--identity NAME]\n"
    "                                                    say what the policy makes of it\n"
    "       tailrace spool   verify|stats|export ...    look into a spool; --help says more\n"
    "       tailrace version\n"
    "\n"
    "  -c, --config FILE   the configuration (default " DEFAULT_CONFIG ")\n"
    "      --dump-config   print the effective configuration, defaults included\n"
    "      --explain HOST:PORT  whether it is allowed, by which rule, where it leads\n"
    "      --from ADDRESS  as if a client of this address asked\n"
    "      --identity NAME as if a client of this name asked\n"
    "  -h, --help          this text\n"
    "\n"
    "Signals: SIGHUP reloads the configuration, SIGTERM drains and ends.\n";

static int usage(FILE *out, int status)
{
    fputs(usage_text, out);
    return status;
}

static int version(void)
{
#ifdef ENABLE_FAULT_POINTS
    puts("tailrace " PACKAGE_VERSION " (with fault points: for tests only)");
#else
    puts("tailrace " PACKAGE_VERSION);
#endif
    return EXIT_GOOD;
}

/* Long options only are numbered from here. */
enum { OPT_DUMP = 256, OPT_EXPLAIN, OPT_FROM, OPT_IDENTITY, OPT_VERSION };

/* Read what stands before and behind the command. -1: usage. */
static int read_options(int argc, char **argv, struct check_opts *o, const char **command)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"dump-config", no_argument, NULL, OPT_DUMP},
        {"explain", required_argument, NULL, OPT_EXPLAIN},
        {"from", required_argument, NULL, OPT_FROM},
        {"identity", required_argument, NULL, OPT_IDENTITY},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, OPT_VERSION},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->path = optarg;
            break;
        case OPT_DUMP:
            o->dump = true;
            break;
        case OPT_EXPLAIN:
            o->explain = optarg;
            break;
        case OPT_FROM:
            o->from = optarg;
            break;
        case OPT_IDENTITY:
            o->identity = optarg;
            break;
        case 'h':
            *command = "help";
            break;
        case 'V':
        case OPT_VERSION:
            *command = "version";
            break;
        default:
            return -1;
        }
    }
    if (optind < argc && !*command)
        *command = argv[optind++];
    if (!*command && (o->dump || o->explain))
        *command = "check";
    if (o->dump && *command && strcmp(*command, "serve") == 0)
        *command = "check";
    return *command && optind == argc ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct check_opts o = {.path = DEFAULT_CONFIG};
    const char *command = NULL;
    bool plain;

    if (argc > 1 && strcmp(argv[1], "spool") == 0)
        return spool_cmd(argc - 1, argv + 1);
    if (read_options(argc, argv, &o, &command) < 0)
        return usage(stderr, EXIT_USAGE);
    plain = !o.dump && !o.explain && !o.from && !o.identity;
    if (strcmp(command, "help") == 0)
        return usage(stdout, EXIT_GOOD);
    if (strcmp(command, "version") == 0)
        return version();
    if (strcmp(command, "serve") == 0 && plain)
        return serve(o.path);
    if (strcmp(command, "check") == 0 && (plain || o.dump != (o.explain != NULL)))
        return check_run(&o);
    if (strcmp(command, "serve") != 0 && strcmp(command, "check") != 0)
        fprintf(stderr, "tailrace: \"%s\" is no command\n", command);
    return usage(stderr, EXIT_USAGE);
}
