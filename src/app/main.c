#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "app/options.h"
#include "app/serve.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#define DEFAULT_CONFIG "/etc/tailrace/tailrace.yaml"

enum { EXIT_GOOD = 0, EXIT_BAD = 1, EXIT_USAGE = 2 };

static const char usage_text[] =
    "usage: tailrace serve   [-c FILE]                   run the gateway\n"
    "       tailrace check   [-c FILE] [--dump-config]   say whether a configuration is good\n"
    "       tailrace version\n"
    "\n"
    "  -c, --config FILE   the configuration (default " DEFAULT_CONFIG ")\n"
    "      --dump-config   print the effective configuration, defaults included\n"
    "  -h, --help          this text\n"
    "\n"
    "Signals: SIGHUP reloads the configuration, SIGTERM drains and ends.\n";

static int usage(FILE *out, int status)
{
    fputs(usage_text, out);
    return status;
}

static int check(const char *path, bool dump)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct config *config = NULL;
    int rc = config_load(path, &config, &errors);

    if (rc < 0)
        conf_errors_print(&errors, stderr);
    else if (dump)
        config_dump(config, stdout);
    else
        printf("%s: good\n", path);
    conf_errors_fini(&errors);
    config_free(&config);
    return rc < 0 ? EXIT_BAD : EXIT_GOOD;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"dump-config", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    const char *path = DEFAULT_CONFIG, *command = NULL;
    bool dump = false;
    int c;

    while ((c = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
        if (c == 'c')
            path = optarg;
        else if (c == 'd')
            dump = true;
        else if (c == 'h')
            return usage(stdout, EXIT_GOOD);
        else if (c == 'V')
            command = "version";
        else
            return usage(stderr, EXIT_USAGE);
    }
    if (optind < argc && !command)
        command = argv[optind++];
    if (!command && dump)
        command = "check";
    if (!command || optind < argc)
        return usage(stderr, EXIT_USAGE);
    if (strcmp(command, "serve") == 0 && !dump)
        return serve(path);
    if (strcmp(command, "check") == 0 || (strcmp(command, "serve") == 0 && dump))
        return check(path, dump);
    if (strcmp(command, "version") == 0) {
#ifdef ENABLE_FAULT_POINTS
        puts("tailrace " PACKAGE_VERSION " (with fault points: for tests only)");
#else
        puts("tailrace " PACKAGE_VERSION);
#endif
        return EXIT_GOOD;
    }
    fprintf(stderr, "tailrace: \"%s\" is no command\n", command);
    return usage(stderr, EXIT_USAGE);
}
