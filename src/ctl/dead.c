/* tailracectl dead: letters that upstream refused for good. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/xmem.h"
#include "ctl/commands.h"
#include "ctl/human.h"
#include "ctl/table.h"

enum { PAGE = 1000 };

/* --- which ------------------------------------------------------------------------------------ */

/* Append one page of letters to `all`; `*from` becomes where the next begins, or 0. */
static int one_page(struct ctl *c, json_int_t *from, json_t *all)
{
    struct str path = STR_INIT;
    struct ctl_answer a;
    int rc;

    str_addf(&path, "dead?limit=%d&from=%" JSON_INTEGER_FORMAT, PAGE, *from);
    ctl_add_arg(&path, "stream", c->stream);
    ctl_add_arg(&path, "account", c->account);
    ctl_add_arg(&path, "reason", c->reason);
    rc = ctl_call(c, "GET", str_c(&path), &a);
    if (rc == CTL_OK) {
        json_array_extend(all, json_object_get(a.json, "letters"));
        *from = ctl_int(a.json, "next");
    }
    ctl_answer_fini(&a);
    str_fini(&path);
    return rc;
}

static int all_letters(struct ctl *c, json_t **out)
{
    json_int_t from = 1;
    int rc = CTL_OK;

    *out = json_array();
    while (rc == CTL_OK && from)
        rc = one_page(c, &from, *out);
    return rc;
}

/* The ids in `args`, or with --all those of the letters that --stream and others choose. */
static int chosen(struct ctl *c, int n, char **args, json_t **ids)
{
    json_t *letters = NULL, *letter;
    size_t i;
    int rc = CTL_OK, k;

    *ids = json_array();
    if (c->all) {
        rc = all_letters(c, &letters);
        json_array_foreach(letters, i, letter)
            json_array_append(*ids, json_object_get(letter, "id"));
        json_decref(letters);
    }
    for (k = 0; k < n; k++) {
        char *end;
        long long id = strtoll(args[k], &end, 10);

        if (id <= 0 || *end) {
            fprintf(stderr, "tailracectl: \"%s\" is no id of a dead letter\n", args[k]);
            rc = CTL_USAGE;
        }
        json_array_append_new(*ids, json_integer(id));
    }
    return rc;
}

/* --- list, explain, export -------------------------------------------------------------------- */

static void show_letters(struct page *p, const json_t *letters)
{
    static const struct column columns[] = {{"ID", TABLE_RIGHT},
                                            {"KIND", 0},
                                            {"LINES", TABLE_RIGHT},
                                            {"BYTES", TABLE_RIGHT | TABLE_EXTRA},
                                            {"BURIED", TABLE_EXTRA},
                                            {"STATUS", TABLE_RIGHT},
                                            {"REPLAYS", TABLE_RIGHT | TABLE_EXTRA},
                                            {"STREAM", TABLE_CUT}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *letter;
    size_t i;

    json_array_foreach(letters, i, letter)
    {
        table_add_int(t, ctl_int(letter, "id"));
        table_add(t, PLAIN, ctl_text(letter, "kind"));
        table_add(t, PLAIN, human_count(json_object_get(letter, "lines")).text);
        table_add(t, PLAIN, human_bytes(json_object_get(letter, "bytes")).text);
        table_add(t, PLAIN, ctl_text(letter, "buried"));
        table_add_int(t, ctl_int(letter, "status"));
        table_add_int(t, ctl_int(letter, "replays"));
        table_add(t, PLAIN, ctl_text(letter, "key"));
    }
    table_show(&t, p, 0);
}

int ctl_run_dead_list(struct ctl *c, int n, char **args)
{
    json_t *letters;
    int rc = all_letters(c, &letters);

    (void)n;
    (void)args;
    if (rc == CTL_OK && c->json)
        ctl_show_json(letters);
    else if (rc == CTL_OK && json_array_size(letters) == 0)
        puts("no dead letters");
    else if (rc == CTL_OK) {
        struct page *p = page_new(&c->look, c->look.width);

        show_letters(p, letters);
        page_print(p, stdout);
        page_free(&p);
    }
    json_decref(letters);
    return rc;
}

static void say_line(const char *text)
{
    ctl_say(stdout, text ? text : "");
    putchar('\n');
}

int ctl_run_dead_explain(struct ctl *c, int n, char **args)
{
    struct str path = STR_INIT;
    struct ctl_answer a;
    json_t *text;
    size_t i;
    int rc;

    (void)n;
    str_addf(&path, "dead/%s", args[0]);
    rc = ctl_call(c, "GET", str_c(&path), &a);
    if (rc == CTL_OK && c->json) {
        ctl_show_json(a.json);
    } else if (rc == CTL_OK) {
        json_array_foreach(json_object_get(a.json, "explanation"), i, text)
            say_line(json_string_value(text));
        say_line(ctl_text(a.json, "advice"));
    }
    ctl_answer_fini(&a);
    str_fini(&path);
    return rc;
}

/* A file that is begun is for its owner's eyes: it holds a build's log. */
static FILE *open_output(const char *path)
{
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : STDOUT_FILENO;
    FILE *out = fd < 0 ? NULL : path ? fdopen(fd, "wb") : stdout;

    if (!out)
        fprintf(stderr, "tailracectl: cannot write %s: %s\n", path, strerror(errno));
    return out;
}

int ctl_run_dead_export(struct ctl *c, int n, char **args)
{
    struct str path = STR_INIT;
    FILE *out = open_output(c->output);
    int rc = CTL_FAILED, closed;

    (void)n;
    if (!out)
        return rc;
    str_addf(&path, "dead/%s/export", args[0]);
    rc = ctl_fetch(c, str_c(&path), out);
    str_fini(&path);
    /* cppcheck-suppress useClosedFile ; one or the other */
    closed = c->output ? fclose(out) : fflush(out);
    if (closed == 0)
        return rc;
    fprintf(stderr, "tailracectl: cannot write: %s\n", strerror(errno));
    return CTL_FAILED;
}

/* --- replay, drop ----------------------------------------------------------------------------- */

/* "17: settled", or "17: failed: answered 400: the body was not understood". */
static void show_result(json_int_t id, const json_t *json)
{
    const char *said = ctl_text(json, "said");
    bool failed = strcmp(ctl_text(json, "result"), "failed") == 0;

    printf("%" JSON_INTEGER_FORMAT ": %s", id, ctl_text(json, "result"));
    if (failed && ctl_int(json, "status"))
        printf(": answered %" JSON_INTEGER_FORMAT, ctl_int(json, "status"));
    if (failed && *said) {
        fputs(": ", stdout);
        ctl_say(stdout, said);
    }
    putchar('\n');
    fflush(stdout);
}

static json_t *result_of(const struct ctl_answer *a, json_int_t id)
{
    json_t *r = json_is_object(a->json) ? json_copy(a->json) : json_object();

    json_object_set_new(r, "id", json_integer(id));
    if (!json_object_get(r, "result"))
        json_object_set_new(r, "result", json_string("refused"));
    return r;
}

/* One letter after the other, in their order: what is replayed is appended. */
static int act(struct ctl *c, const char *action, const json_t *ids)
{
    json_t *results = json_array(), *id;
    int rc = CTL_OK, one = CTL_OK;
    size_t i;

    for (i = 0; i < json_array_size(ids) && one != CTL_UNREACHABLE; i++) {
        struct str path = STR_INIT;
        struct ctl_answer a;

        id = json_array_get(ids, i);
        str_addf(&path, "dead/%" JSON_INTEGER_FORMAT "/%s", json_integer_value(id), action);
        one = ctl_call(c, "POST", str_c(&path), &a);
        json_array_append_new(results, result_of(&a, json_integer_value(id)));
        if (one == CTL_OK && !c->json)
            show_result(json_integer_value(id), a.json);
        if (one == CTL_OK && strcmp(ctl_text(a.json, "result"), "failed") == 0)
            one = CTL_FAILED;
        else if (one == CTL_FAILED)
            fprintf(stderr, "  letter %" JSON_INTEGER_FORMAT " stays as it is\n",
                    json_integer_value(id));
        rc = TR_MAX(rc, one);
        ctl_answer_fini(&a);
        str_fini(&path);
    }
    if (c->json)
        ctl_show_json(results);
    else if (i == 0)
        puts("no dead letters");
    json_decref(results);
    return rc;
}

static int act_on_chosen(struct ctl *c, const char *action, int n, char **args)
{
    json_t *ids;
    int rc;

    if (c->all ? n > 0 : n == 0) {
        fprintf(stderr, "usage: tailracectl dead %s ID...|--all\n", action);
        return CTL_USAGE;
    }
    rc = chosen(c, n, args, &ids);
    if (rc == CTL_OK)
        rc = act(c, action, ids);
    json_decref(ids);
    return rc;
}

int ctl_run_dead_replay(struct ctl *c, int n, char **args)
{
    return act_on_chosen(c, "replay", n, args);
}

int ctl_run_dead_drop(struct ctl *c, int n, char **args)
{
    if (!c->yes) {
        fputs("tailracectl: what is dropped cannot be had back; say --yes\n", stderr);
        return CTL_USAGE;
    }
    return act_on_chosen(c, "drop", n, args);
}
