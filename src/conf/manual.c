#include "conf/manual.h"

#include <ctype.h>
#include <string.h>
#include "conf/value_priv.h"

enum { COLUMNS = 76 };

/* ---- text ----------------------------------------------------------------------------------- */

static void add_escaped(struct str *out, char c)
{
    if (c == '\\')
        str_adds(out, "\\e");
    else if (c == '-')
        str_adds(out, "\\-");
    else
        str_addc(out, c);
}

/* A full stop between words, not one inside of "0.0.0.0:443" or after "e.g.". */
static bool ends_sentence(const char *word, size_t n)
{
    while (n > 1 && (word[n - 1] == ')' || word[n - 1] == '"'))
        n--;
    return n > 1 && (word[n - 1] == '.' || word[n - 1] == '!' || word[n - 1] == '?');
}

/* A word of a sentence; a backquote switches between roman and bold. */
static void add_word(struct str *out, const char *word, size_t n, bool *bold)
{
    size_t i;

    if (word[0] == '.' || word[0] == '\'')
        str_adds(out, "\\&");
    for (i = 0; i < n; i++) {
        if (word[i] != '`') {
            add_escaped(out, word[i]);
            continue;
        }
        *bold = !*bold;
        str_adds(out, *bold ? "\\fB" : "\\fR");
    }
}

void manual_word(struct str *out, const char *word)
{
    bool bold = false;

    add_word(out, word, strlen(word), &bold);
}

void manual_text(struct str *out, const char *text)
{
    size_t begun = out->n;
    bool bold = false, ended = false;

    while (*(text += strspn(text, " \n"))) {
        size_t n = strcspn(text, " \n");

        if (out->n > begun && (ended || out->n - begun + n >= COLUMNS)) {
            str_addc(out, '\n');
            begun = out->n;
        } else if (out->n > begun) {
            str_addc(out, ' ');
        }
        add_word(out, text, n, &bold);
        ended = ends_sentence(text, n);
        text += n;
    }
    str_addc(out, '\n');
}

/* ---- options -------------------------------------------------------------------------------- */

static bool in_group(const char *path, const char *group)
{
    size_t n = strlen(group);

    return strncmp(path, group, n) == 0 && (path[n] == '.' || path[n] == '\0');
}

/* "A duration such as ..., from 1s to 10m." */
static void add_kind(struct str *text, const struct conf_row *row)
{
    static const char words[] = "use ";
    struct str hint = STR_INIT;
    const char *p;

    if (row->type == CONF_LIST && row->paths)
        str_adds(&hint, "use a list of paths");
    else
        conf_value_hint(row, &hint);
    p = str_c(&hint) + strlen(words);
    if (row->type == CONF_ENUM)
        str_addf(text, " One of %s", p);
    else
        str_addf(text, " %c%s", toupper((unsigned char)*p), p + 1);
    if (row->unit)
        str_addf(text, " (%s)", row->unit);
    str_addc(text, '.');
    str_fini(&hint);
}

static void add_default(struct str *text, const struct conf_row *row)
{
    if (row->required)
        str_adds(text, " Must be given.");
    else if (row->name_is_deflt)
        str_adds(text, " Default: the name.");
    else if (row->deflt)
        str_addf(text, " Default: `%s`.", row->deflt);
    else
        str_addf(text, " Default: %s.", row->unset ? row->unset : "none");
}

static void add_row(struct str *out, const char *base, const struct conf_row *row)
{
    struct str text = STR_INIT;

    str_adds(out, ".It Ic ");
    manual_word(out, base);
    manual_word(out, row->path);
    str_addc(out, '\n');
    manual_text(out, row->text);
    add_kind(&text, row);
    add_default(&text, row);
    str_adds(&text, row->reloadable ? " A reload changes it." : " A change takes a restart.");
    str_adds(out, ".br\n");
    manual_text(out, str_c(&text));
    str_fini(&text);
}

/* ".Bl" and ".El" around the rows of the group; false if there are none. */
static bool add_rows(struct str *out, const struct conf_spec *spec, const char *group)
{
    bool found = false;
    size_t i;

    for (i = 0; i < spec->n_rows; i++) {
        if (!in_group(spec->rows[i].path, group))
            continue;
        if (!found)
            str_adds(out, ".Bl -tag -width Ds\n");
        found = true;
        add_row(out, "", &spec->rows[i]);
    }
    if (found)
        str_adds(out, ".El\n");
    return found;
}

static void add_section(struct str *out, const struct conf_section *s)
{
    struct str base = STR_INIT;
    size_t i;

    manual_text(out, s->text);
    str_addf(&base, "At most %zu. %s", s->max,
             s->reloadable ? "They may come and go with a reload."
                           : "One more, or one less, takes a restart.");
    manual_text(out, str_c(&base));
    str_clear(&base);
    str_addf(&base, "%s.NAME.", s->path);
    str_adds(out, ".Bl -tag -width Ds\n");
    for (i = 0; i < s->n_rows; i++)
        add_row(out, str_c(&base), &s->rows[i]);
    str_adds(out, ".El\n");
    str_fini(&base);
}

bool conf_manual(const struct conf_spec *spec, const char *group, struct str *out)
{
    bool found = add_rows(out, spec, group);
    size_t i;

    for (i = 0; i < spec->n_sections; i++) {
        if (strcmp(spec->sections[i].path, group) != 0)
            continue;
        add_section(out, &spec->sections[i]);
        found = true;
    }
    return found;
}

void conf_manual_groups(const struct conf_spec *spec, struct str *out)
{
    const char *before = "";
    size_t i;

    for (i = 0; i < spec->n_rows; i++) {
        const char *path = spec->rows[i].path;
        size_t n = strcspn(path, ".");

        if (strncmp(before, path, n) != 0 || (before[n] && before[n] != '.')) {
            str_add(out, path, n);
            str_addc(out, '\n');
        }
        before = path;
    }
    for (i = 0; i < spec->n_sections; i++)
        str_addf(out, "%s\n", spec->sections[i].path);
}
