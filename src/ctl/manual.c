/*
 * Makes a manual page of its template: run while tailrace is built, never installed.
 *
 *     tailrace-manual docs/man/tailrace.yaml.5.in >tailrace.yaml.5
 *
 * A line of the template that begins with "@" is replaced:
 *
 *     @settings GROUP   the options of that group, as their rows tell of them (conf/manual.h). A
 * page that has one must have all groups, each once, so that no new one is forgotten
 *     @commands         the commands of tailracectl, each with its options (ctl/commands.h)
 *     @options          the options that go with all of them
 *     @help FILE        the options in the output of a program's --help
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "app/options.h"
#include "conf/manual.h"
#include "ctl/commands.h"

enum { LINE_MAX_BYTES = 1024 };

/* Lines of help that are indented so far go on with the text of an option. */
enum { HELP_TEXT_INDENT = 10 };

/* Status 1, with the reason on standard error. */
static int fail(const char *path, const char *what, const char *more)
{
    fprintf(stderr, "%s: %s%s\n", path, what, more);
    return 1;
}

/* --- settings --------------------------------------------------------------------------------- */

/* Has `list`, of lines, the line `text`? */
static bool has_line(const struct str *list, const char *text)
{
    const char *p = str_c(list);
    size_t n = strlen(text);

    for (; *p; p += strcspn(p, "\n") + 1) {
        if (strncmp(p, text, n) == 0 && p[n] == '\n')
            return true;
    }
    return false;
}

/* The first of all groups that `seen` does not have, or NULL. */
static const char *missing_group(const struct str *seen, struct str *name)
{
    struct str all = STR_INIT;
    const char *p;
    bool missing = false;

    conf_manual_groups(&config_spec, &all);
    for (p = str_c(&all); *p && !missing; p += strcspn(p, "\n") + 1) {
        str_clear(name);
        str_add(name, p, strcspn(p, "\n"));
        missing = !has_line(seen, str_c(name));
    }
    str_fini(&all);
    return missing ? str_c(name) : NULL;
}

/* --- commands --------------------------------------------------------------------------------- */

/* A help text, which begins small and has no full stop, as a sentence. What begins with a value and
 * a colon stays as it is. */
static void add_sentence(struct str *out, const char *help)
{
    struct str text = STR_INIT;
    size_t n = strlen(help), word = strcspn(help, " ");

    str_adds(&text, help);
    if (word == 0 || help[word - 1] != ':')
        text.p[0] = (char)toupper((unsigned char)help[0]);
    if (n > 0 && !strchr(".?", help[n - 1]))
        str_addc(&text, '.');
    manual_text(out, str_c(&text));
    str_fini(&text);
}

/* ".It Fl c , Fl -config Ar FILE" and what it does. */
static void add_option(struct str *out, const struct ctl_option *o)
{
    str_adds(out, ".It");
    if (o->letter)
        str_addf(out, " Fl %c ,", o->letter);
    str_adds(out, " Fl ");
    manual_word(out, "-");
    manual_word(out, o->name);
    if (o->arg)
        str_addf(out, " Ar %s", o->arg);
    str_addc(out, '\n');
    add_sentence(out, o->help);
}

static void add_options(struct str *out, unsigned which)
{
    size_t i;

    if (!which)
        return;
    str_adds(out, ".Bl -tag -width Ds\n");
    for (i = 0; i < OPTIONS; i++) {
        if (which & 1u << i)
            add_option(out, &ctl_options[i]);
    }
    str_adds(out, ".El\n");
}

static void add_commands(struct str *out)
{
    size_t i;

    str_adds(out, ".Bl -tag -width Ds\n");
    for (i = 0; i < ctl_n_commands; i++) {
        const struct ctl_command *command = &ctl_commands[i];

        str_adds(out, ".It Cm ");
        manual_word(out, command->name);
        if (*command->args) {
            str_adds(out, " Ar ");
            manual_word(out, command->args);
        }
        str_addc(out, '\n');
        add_sentence(out, command->help);
        if (command->more)
            manual_text(out, command->more);
        add_options(out, command->options);
    }
    str_adds(out, ".El\n");
}

/* --- what a program says to --help ------------------------------------------------------------ */

/* "-c, --config FILE   text": append ".It Fl c , Fl -config Ar FILE". Values are in capitals, texts
 * are not. Returns where the text begins. */
static const char *add_help_head(struct str *out, const char *p)
{
    str_adds(out, ".It");
    while (p[0] == '-' || isupper((unsigned char)p[0])) {
        bool flag = p[0] == '-';
        size_t n = strcspn(p, flag ? " ," : " ");
        struct str word = STR_INIT;

        str_add(&word, p + flag, n - flag);
        str_adds(out, flag ? " Fl " : " Ar ");
        manual_word(out, str_c(&word));
        str_fini(&word);
        p += n;
        if (*p == ',') {
            str_adds(out, " ,");
            p++;
        }
        p += strspn(p, " ");
        if (!flag)
            break;
    }
    str_addc(out, '\n');
    return p;
}

/* Append what was gathered of an option's text, and forget it. */
static void end_help(struct str *out, struct str *text)
{
    if (text->n)
        add_sentence(out, str_c(text));
    str_clear(text);
}

/* The options that begin lines of `in`; a line that is indented further goes on with the text. */
static void add_help(struct str *out, FILE *in)
{
    struct str text = STR_INIT;
    char line[LINE_MAX_BYTES];
    bool inside = false;

    str_adds(out, ".Bl -tag -width Ds\n");
    while (fgets(line, sizeof(line), in)) {
        size_t indent = strspn(line, " ");
        const char *p = line + indent;

        line[strcspn(line, "\n")] = '\0';
        if (indent && p[0] == '-') {
            end_help(out, &text);
            p = add_help_head(out, p);
            inside = true;
        } else if (indent < HELP_TEXT_INDENT) {
            inside = false;
        }
        if (inside)
            str_addf(&text, "%s%s", text.n ? " " : "", p);
    }
    end_help(out, &text);
    str_adds(out, ".El\n");
    str_fini(&text);
}

/* --- the page --------------------------------------------------------------------------------- */

struct page_made {
    const char *path; /* of the template */
    struct str text;
    struct str groups; /* of settings that it has so far, one on each line */
};

static int replace_help(struct page_made *page, const char *path)
{
    FILE *in = fopen(path, "re");

    if (!in)
        return fail(page->path, "cannot read ", path);
    add_help(&page->text, in);
    fclose(in);
    return 0;
}

/* A line that begins with "@", without that. */
static int replace_line(struct page_made *page, const char *line)
{
    static const char settings[] = "settings ", help[] = "help ";
    const char *group = line + sizeof(settings) - 1;

    if (strcmp(line, "commands") == 0) {
        add_commands(&page->text);
        return 0;
    }
    if (strcmp(line, "options") == 0) {
        add_options(&page->text, (1u << OPT_EVERYWHERE) - 1);
        return 0;
    }
    if (strncmp(line, help, sizeof(help) - 1) == 0)
        return replace_help(page, line + sizeof(help) - 1);
    if (strncmp(line, settings, sizeof(settings) - 1) != 0)
        return fail(page->path, "unknown line: @", line);
    if (has_line(&page->groups, group))
        return fail(page->path, "twice: @", line);
    if (!conf_manual(&config_spec, group, &page->text))
        return fail(page->path, "no such settings: @", line);
    str_addf(&page->groups, "%s\n", group);
    return 0;
}

static int make_page(struct page_made *page, FILE *in)
{
    struct str name = STR_INIT;
    char line[LINE_MAX_BYTES];
    int rc = 0;

    while (rc == 0 && fgets(line, sizeof(line), in)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '@')
            rc = replace_line(page, line + 1);
        else
            str_addf(&page->text, "%s\n", line);
    }
    if (rc == 0 && page->groups.n > 0 && missing_group(&page->groups, &name))
        rc = fail(page->path, "missing settings: ", str_c(&name));
    str_fini(&name);
    return rc;
}

int main(int argc, char **argv)
{
    FILE *in = argc == 2 ? fopen(argv[1], "re") : NULL;
    struct page_made page = {.path = argv[1]};
    int rc;

    if (!in)
        return fail("tailrace-manual", "use: tailrace-manual TEMPLATE", "");
    rc = make_page(&page, in);
    fclose(in);
    if (rc == 0 &&
        (fwrite(str_c(&page.text), 1, page.text.n, stdout) != page.text.n || fflush(stdout) != 0))
        rc = fail(argv[1], "cannot write", "");
    str_fini(&page.text);
    str_fini(&page.groups);
    return rc;
}
