/*
 * Makes a manual page of its template: run while tailrace is built, never installed.
 *
 *     tailrace-manual docs/man/tailrace.yaml.5.in >tailrace.yaml.5
 *
 * A line of the template that begins with "@" is replaced: "@settings GROUP" by the options of that
 * group as their rows tell of them (conf/manual.h). A page with settings must have all groups, each
 * once, so that a new one cannot be forgotten.
 */
#include <stdio.h>
#include <string.h>
#include "app/options.h"
#include "conf/manual.h"

enum { LINE_MAX_BYTES = 1024 };

static const char settings_word[] = "@settings ";

/* Status 1, with the reason on standard error. */
static int fail(const char *path, const char *what, const char *more)
{
    fprintf(stderr, "%s: %s%s\n", path, what, more);
    return 1;
}

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

static int make_page(const char *path, FILE *in)
{
    struct str page = STR_INIT, seen = STR_INIT, name = STR_INIT;
    char line[LINE_MAX_BYTES];
    int rc = 0;

    while (rc == 0 && fgets(line, sizeof(line), in)) {
        const char *group = line + sizeof(settings_word) - 1;

        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '@') {
            str_addf(&page, "%s\n", line);
            continue;
        }
        if (strncmp(line, settings_word, sizeof(settings_word) - 1) != 0)
            rc = fail(path, "unknown line: ", line);
        else if (has_line(&seen, group))
            rc = fail(path, "twice: ", line);
        else if (!conf_manual(&config_spec, group, &page))
            rc = fail(path, "no such settings: ", line);
        str_addf(&seen, "%s\n", group);
    }
    if (rc == 0 && seen.n > 0 && missing_group(&seen, &name))
        rc = fail(path, "missing: ", missing_group(&seen, &name));
    if (rc == 0 && fwrite(str_c(&page), 1, page.n, stdout) != page.n)
        rc = fail(path, "cannot write", "");
    str_fini(&page);
    str_fini(&seen);
    str_fini(&name);
    return rc;
}

int main(int argc, char **argv)
{
    FILE *in = argc == 2 ? fopen(argv[1], "re") : NULL;
    int rc;

    if (!in)
        return fail("tailrace-manual", "use: tailrace-manual TEMPLATE", "");
    rc = make_page(argv[1], in);
    fclose(in);
    return rc == 0 && fflush(stdout) != 0 ? fail(argv[1], "cannot write", "") : rc;
}
