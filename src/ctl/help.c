/* tailracectl --help, and what else tells of the table of commands. */
#include <string.h>
#include "ctl/commands.h"

enum { NAMES_WIDTH = 28, OPTIONS_WIDTH = 22, TEXT_WIDTH = 78 };

/* A name and a text beside it, wrapped under its beginning. */
static void add_entry(struct page *p, size_t column, const char *name, const char *text)
{
    page_add(p, PLAIN, name);
    page_to(p, column);
    page_words(p, PLAIN, text);
}

static void option_name(struct str *out, const struct ctl_option *o)
{
    if (o->letter)
        str_addf(out, "  -%c, ", o->letter);
    else
        str_adds(out, "      ");
    str_addf(out, "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

static void add_options(struct page *p, unsigned which)
{
    size_t i;

    for (i = 0; i < OPTIONS; i++) {
        struct str name = STR_INIT;

        if (!(which & 1u << i))
            continue;
        option_name(&name, &ctl_options[i]);
        add_entry(p, OPTIONS_WIDTH, str_c(&name), ctl_options[i].help);
        str_fini(&name);
    }
}

static void show(struct page *p, FILE *out)
{
    page_print(p, out);
    page_free(&p);
}

void ctl_help(FILE *out)
{
    static const struct look plain = {0};
    struct page *p = page_new(&plain, TEXT_WIDTH);
    size_t i;

    page_line(p, PLAIN, "usage: tailracectl [-c FILE | --socket PATH] [--json] COMMAND");
    page_end(p);
    for (i = 0; i < ctl_n_commands; i++) {
        const struct ctl_command *command = &ctl_commands[i];
        struct str name = STR_INIT;

        str_addf(&name, "  %s %s", command->name, command->args);
        add_entry(p, NAMES_WIDTH, str_c(&name), command->help);
        str_fini(&name);
    }
    page_end(p);
    add_options(p, (1u << OPT_EVERYWHERE) - 1);
    page_end(p);
    page_words(p, PLAIN,
               "Exit status: 0 done, 1 the gateway refused or not all was done, 2 usage, 3 no "
               "gateway. `tailracectl help COMMAND` says more.");
    show(p, out);
}

void ctl_help_one(FILE *out, const struct ctl_command *command)
{
    static const struct look plain = {0};
    struct page *p = page_new(&plain, TEXT_WIDTH);

    page_addf(p, PLAIN, "usage: tailracectl %s%s%s%s", command->name,
              command->options ? " [OPTION]..." : "", *command->args ? " " : "", command->args);
    page_end(p);
    page_end(p);
    page_add(p, PLAIN, "  ");
    page_words(p, PLAIN, command->help);
    if (command->more) {
        page_add(p, PLAIN, "  ");
        page_words(p, PLAIN, command->more);
    }
    page_end(p);
    add_options(p, command->options | ((1u << OPT_EVERYWHERE) - 1));
    show(p, out);
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *options_json(unsigned which)
{
    json_t *list = json_array();
    size_t i;

    for (i = 0; i < OPTIONS; i++) {
        const struct ctl_option *o = &ctl_options[i];
        char letter[2] = {o->letter, '\0'};

        if (which & 1u << i)
            json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:o, s:s}", "name", o->name,
                                                  "letter", text_or_null(o->letter ? letter : NULL),
                                                  "arg", text_or_null(o->arg), "values",
                                                  text_or_null(o->values), "help", o->help));
    }
    return list;
}

void ctl_help_json(void)
{
    json_t *list = json_array(), *all;
    size_t i;

    for (i = 0; i < ctl_n_commands; i++) {
        const struct ctl_command *command = &ctl_commands[i];

        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o, s:o}", "name", command->name,
                                              "args", command->args, "help", command->help, "more",
                                              text_or_null(command->more), "options",
                                              options_json(command->options)));
    }
    all = json_pack("{s:o, s:o}", "commands", list, "options",
                    options_json((1u << OPT_EVERYWHERE) - 1));
    ctl_show_json(all);
    json_decref(all);
}

int ctl_run_help(struct ctl *c, int n, char **args)
{
    const struct ctl_command *command;
    const char *guess;
    int used = 0;

    if (c->json) {
        ctl_help_json();
        return CTL_OK;
    }
    if (n == 0) {
        ctl_help(stdout);
        return CTL_OK;
    }
    command = ctl_command_find(n, args, &used);
    if (!command) {
        guess = ctl_command_guess(n, args);
        fprintf(stderr, "tailracectl: there is no such command%s%s\n", guess ? "; see " : "",
                guess ? guess : "");
        return CTL_USAGE;
    }
    ctl_help_one(stdout, command);
    return CTL_OK;
}
