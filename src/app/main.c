#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "app/check.h"
#include "app/doctor.h"
#include "app/serve.h"
#include "app/spool_cmd.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#define DEFAULT_CONFIG "/etc/tailrace/tailrace.yaml"

enum { EXIT_GOOD = 0, EXIT_USAGE = 2 };

static const char usage_text[] =
    "usage: tailrace serve   [-c FILE] [--takeover]      run the gateway\n"
    "       tailrace check   [-c FILE] [--dump-config]   say whether a configuration is good,\n"
    "                                                    what its policy would break, and what to\n"
    "                                                    set on the Harness side\n"
    "       tailrace check   [-c FILE] --harness-side env|yaml [--address NAME] ...\n"
    "                                                    print that for machines, and nothing "
    "else\n"
    "       tailrace check   [-c FILE] --explain HOST:PORT [--from ADDRESS] [--identity NAME]\n"
    "                                                    say what the policy makes of it\n"
    "       tailrace doctor  [-c FILE] ...               say which flows of the deployment work "
    "from\n"
    "                                                    here, and why others do not; --help says "
    "more\n"
    "       tailrace spool   verify|stats|export ...    look into a spool; --help says more\n"
    "       tailrace version\n"
    "\n"
    "  -c, --config FILE   the configuration (default " DEFAULT_CONFIG ")\n"
    "      --takeover      take over from the running process: no connection is refused, none "
    "ends\n"
    "      --dump-config   print the effective configuration, defaults included\n"
    "      --explain HOST:PORT  whether it is allowed, by which rule, where it leads\n"
    "      --from ADDRESS  as if a client of this address asked\n"
    "      --identity NAME as if a client of this name asked\n"
    "      --harness-side FORM  env: the environment of delegates; yaml: values of their Helm "
    "chart\n"
    "      --address NAME  how clients call this host\n"
    "      --listener NAME for clients of this listener only\n"
    "      --no-proxy A,B  what else is to go into NO_PROXY\n"
    "  -h, --help          this text\n"
    "\n"
    "Signals: SIGHUP reloads the configuration, SIGTERM drains and ends, SIGUSR2 starts the "
    "program\n"
    "anew to take over.\n";

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
enum {
    OPT_DUMP = 256,
    OPT_EXPLAIN,
    OPT_FROM,
    OPT_IDENTITY,
    OPT_HARNESS_SIDE,
    OPT_ADDRESS,
    OPT_LISTENER,
    OPT_NO_PROXY,
    OPT_VERSION,
    OPT_TAKEOVER,
    OPT_TAKEOVER_FD,
    OPT_FIRST_CONFIG
};

struct options {
    struct check_opts check;
    struct serve_opts serve;
    const char *command;
};

/* A descriptor's number, from the process that started us; -1: it is none. */
static int fd_number(const char *text)
{
    char *end;
    long n = strtol(text, &end, 10);

    return *text && !*end && n > 2 && n < 1024 ? (int)n : -1;
}

/* One that is `serve`'s alone. -1: usage. */
static int take_serve_option(int option, struct serve_opts *o)
{
    o->takeover = true;
    if (option == OPT_TAKEOVER)
        return 0;
    if (option == OPT_TAKEOVER_FD)
        return (o->channel = fd_number(optarg)) < 0 ? -1 : 0;
    if (option == OPT_FIRST_CONFIG)
        return (o->first_config = fd_number(optarg)) < 0 ? -1 : 0;
    return -1;
}

/* One of those about the Harness side. -1: usage. */
static int take_side_option(int option, struct harness_side_opts *o)
{
    switch (option) {
    case OPT_HARNESS_SIDE:
        return harness_form_parse(optarg, &o->form);
    case OPT_ADDRESS:
        o->address = optarg;
        return 0;
    case OPT_LISTENER:
        o->listener = optarg;
        return 0;
    default:
        o->no_proxy = optarg;
        return 0;
    }
}

static int take_option(int option, struct options *all)
{
    struct check_opts *o = &all->check;

    switch (option) {
    case 'c':
        o->path = all->serve.config = optarg;
        return 0;
    case OPT_DUMP:
        o->dump = true;
        return 0;
    case OPT_EXPLAIN:
        o->explain = optarg;
        return 0;
    case OPT_FROM:
        o->from = optarg;
        return 0;
    case OPT_IDENTITY:
        o->identity = optarg;
        return 0;
    case OPT_HARNESS_SIDE:
    case OPT_ADDRESS:
    case OPT_LISTENER:
    case OPT_NO_PROXY:
        return take_side_option(option, &o->side);
    case 'h':
        all->command = "help";
        return 0;
    case 'V':
    case OPT_VERSION:
        all->command = "version";
        return 0;
    default:
        return take_serve_option(option, &all->serve);
    }
}

/* Read what stands before and behind the command. -1: usage. */
static int read_options(int argc, char **argv, struct options *all)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"dump-config", no_argument, NULL, OPT_DUMP},
        {"explain", required_argument, NULL, OPT_EXPLAIN},
        {"from", required_argument, NULL, OPT_FROM},
        {"identity", required_argument, NULL, OPT_IDENTITY},
        {"harness-side", required_argument, NULL, OPT_HARNESS_SIDE},
        {"address", required_argument, NULL, OPT_ADDRESS},
        {"listener", required_argument, NULL, OPT_LISTENER},
        {"no-proxy", required_argument, NULL, OPT_NO_PROXY},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, OPT_VERSION},
        {"takeover", no_argument, NULL, OPT_TAKEOVER},
        {"takeover-fd", required_argument, NULL, OPT_TAKEOVER_FD},
        {"first-config-fd", required_argument, NULL, OPT_FIRST_CONFIG},
        {NULL, 0, NULL, 0},
    };
    const struct check_opts *o = &all->check;
    const char **command = &all->command;
    int c;

    while ((c = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
        if (take_option(c, all) < 0)
            return -1;
    }
    if (optind < argc && !*command)
        *command = argv[optind++];
    if (!*command && (o->dump || o->explain))
        *command = "check";
    if (o->dump && *command && strcmp(*command, "serve") == 0)
        *command = "check";
    return *command && optind == argc ? 0 : -1;
}

/* What may be asked of each command together. */
static int run(const struct options *all)
{
    const struct check_opts *o = &all->check;
    const bool side =
        o->side.form != HARNESS_TEXT || o->side.address || o->side.listener || o->side.no_proxy;
    const bool plain = !o->dump && !o->explain && !o->from && !o->identity;

    if (strcmp(all->command, "serve") == 0 && plain && !side)
        return serve(&all->serve);
    if (strcmp(all->command, "check") == 0 &&
        ((plain && !all->serve.takeover) || (!side && o->dump != (o->explain != NULL))))
        return check_run(o);
    if (strcmp(all->command, "serve") != 0 && strcmp(all->command, "check") != 0)
        fprintf(stderr, "tailrace: \"%s\" is no command\n", all->command);
    return usage(stderr, EXIT_USAGE);
}

int main(int argc, char **argv)
{
    struct options all = {
        .check = {.path = DEFAULT_CONFIG},
        .serve = {.config = DEFAULT_CONFIG, .channel = -1, .first_config = -1},
    };

    if (argc > 1 && strcmp(argv[1], "spool") == 0)
        return spool_cmd(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "doctor") == 0)
        return doctor_cmd(argc - 1, argv + 1);
    if (read_options(argc, argv, &all) < 0)
        return usage(stderr, EXIT_USAGE);
    if (strcmp(all.command, "help") == 0)
        return usage(stdout, EXIT_GOOD);
    if (strcmp(all.command, "version") == 0)
        return version();
    return run(&all);
}
