#include <curl/curl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "conf/suggest.h"
#include "ctl/commands.h"

enum { OPTION_BASE = 256, NARROWEST = 40 };

/* --- where it is shown ------------------------------------------------------------------------ */

/* What is no terminal takes all there is, unless COLUMNS says otherwise. */
static size_t columns(bool tty)
{
    const char *said = getenv("COLUMNS");
    long n = said ? strtol(said, NULL, 10) : 0;
    struct winsize w;

    if (n <= 0 && tty && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0)
        n = w.ws_col;
    return n > 0 ? (size_t)TR_MAX(n, NARROWEST) : 0;
}

static void look_at_terminal(struct ctl *c)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    bool tty = isatty(STDOUT_FILENO);

    c->look.utf8 = text_init();
    c->look.width = c->wide ? 0 : columns(tty);
    c->look.colour = tty && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

/* --- options ---------------------------------------------------------------------------------- */

static void make_options(struct option *out, struct str *letters)
{
    size_t i;

    for (i = 0; i < OPTIONS; i++) {
        const struct ctl_option *o = &ctl_options[i];

        out[i] = (struct option){o->name, o->arg ? required_argument : no_argument, NULL,
                                 OPTION_BASE + (int)i};
        if (o->letter)
            str_addf(letters, "%c%s", o->letter, o->arg ? ":" : "");
    }
    out[OPTIONS] = (struct option){0};
}

static size_t option_index(int said)
{
    size_t i;

    if (said >= OPTION_BASE)
        return (size_t)(said - OPTION_BASE);
    for (i = 0; i < OPTIONS && ctl_options[i].letter != said; i++)
        ;
    return i;
}

static int bad_value(const struct ctl_option *o, const char *value)
{
    fprintf(stderr, "tailracectl: --%s: \"", o->name);
    ctl_say(stderr, value);
    if (o->number)
        fputs("\" is no whole number\n", stderr);
    else
        fprintf(stderr, "\" is none of: %s\n", o->values);
    return CTL_USAGE;
}

static int take_option(struct ctl *c, const struct ctl_option *o, const char *value)
{
    void *field = (char *)c + o->at;

    if (!o->arg) {
        *(bool *)field = true;
        return CTL_OK;
    }
    if (o->number && (!*value || strlen(value) > 9 || strspn(value, "0123456789") != strlen(value)))
        return bad_value(o, value);
    if (o->values && !ctl_is_one_of(o->values, value))
        return bad_value(o, value);
    *(const char **)field = value;
    return CTL_OK;
}

static int unknown_option(const char *word)
{
    struct conf_guess guess = {.wrong = word};
    size_t i;

    fputs("tailracectl: there is no option \"", stderr);
    ctl_say(stderr, word);
    fputc('"', stderr);
    for (i = 0; i < OPTIONS; i++) {
        struct str name = STR_INIT;

        str_addf(&name, "--%s", ctl_options[i].name);
        conf_guess_offer(&guess, str_view(&name));
        str_fini(&name);
    }
    fprintf(stderr, *guess.best ? "; do you mean %s?\n" : "\n", guess.best);
    return CTL_USAGE;
}

/* Those that were given, as bits, to `*given`. */
static int read_options(struct ctl *c, int argc, char **argv, unsigned *given)
{
    struct option options[OPTIONS + 1];
    struct str letters = STR_INIT;
    int said, rc = CTL_OK;

    make_options(options, &letters);
    opterr = 0;
    while (rc == CTL_OK) {
        size_t i;

        said = getopt_long(argc, argv, str_c(&letters), options, NULL);
        if (said == -1)
            break;
        i = option_index(said);
        if (said == '?' && optopt) {
            i = option_index(optopt);
            if (i < OPTIONS)
                fprintf(stderr, "tailracectl: --%s %s\n", ctl_options[i].name,
                        ctl_options[i].arg ? "needs a value" : "has no value");
            rc = i < OPTIONS ? CTL_USAGE : unknown_option(argv[optind - 1]);
        } else if (i >= OPTIONS) {
            rc = unknown_option(argv[optind - 1]);
        } else {
            *given |= 1u << i;
            rc = take_option(c, &ctl_options[i], optarg);
        }
    }
    str_fini(&letters);
    return rc;
}

/* --- the command ------------------------------------------------------------------------------ */

static int unknown_command(int n, char **words)
{
    const char *guess = ctl_command_guess(n, words);

    fputs("tailracectl: \"", stderr);
    ctl_say(stderr, words[0]);
    if (n > 1) {
        fputc(' ', stderr);
        ctl_say(stderr, words[1]);
    }
    fputs("\" is no command", stderr);
    if (guess)
        fprintf(stderr, "; do you mean %s?", guess);
    fputc('\n', stderr);
    return CTL_USAGE;
}

/* The options that go with the command are those it was given. */
static int check_options(const struct ctl_command *command, unsigned given)
{
    size_t i;

    for (i = OPT_EVERYWHERE; i < OPTIONS; i++) {
        if (!(given & 1u << i & ~command->options))
            continue;
        fprintf(stderr, "tailracectl: %s takes no --%s\n", command->name, ctl_options[i].name);
        return CTL_USAGE;
    }
    return CTL_OK;
}

static int run(struct ctl *c, unsigned given, int n, char **words)
{
    const struct ctl_command *command;
    int used = 0, rc;

    if (n == 0 && c->help) {
        ctl_help(stdout);
        return CTL_OK;
    }
    if (n == 0) {
        ctl_help(stderr);
        return CTL_USAGE;
    }
    if (strcmp(words[0], "__complete") == 0)
        return ctl_run_candidates(c, n - 1, words + 1);
    command = ctl_command_find(n, words, &used);
    if (!command)
        return unknown_command(n, words);
    if (c->help) {
        ctl_help_one(stdout, command);
        return CTL_OK;
    }
    n -= used;
    rc = check_options(command, given);
    if (rc == CTL_OK && (n < command->least || n > command->most)) {
        fprintf(stderr, "usage: tailracectl %s %s\n", command->name, command->args);
        rc = CTL_USAGE;
    }
    return rc == CTL_OK ? command->run(c, n, words + used) : rc;
}

int main(int argc, char **argv)
{
    struct ctl c = {0};
    unsigned given = 0;
    int rc = read_options(&c, argc, argv, &given);

    look_at_terminal(&c);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (rc == CTL_OK)
        rc = run(&c, given, argc - optind, argv + optind);
    curl_global_cleanup();
    xfree(c.path);
    if (rc == CTL_USAGE)
        fputs("see tailracectl --help\n", stderr);
    if (fflush(stdout) != 0 && rc == CTL_OK) {
        perror("tailracectl: cannot write");
        rc = CTL_FAILED;
    }
    return rc;
}
