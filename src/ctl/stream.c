/* tailracectl stream: one in full. */
#include "ctl/stream.h"

#include <stdint.h>
#include <string.h>
#include "base/xmem.h"
#include "ctl/commands.h"
#include "ctl/human.h"
#include "ctl/status.h"
#include "ctl/table.h"

#define GET json_object_get

enum { SHOWN = 8, LABEL = 14 };

/* --- which ------------------------------------------------------------------------------------ */

struct match {
    const json_t *one; /* the first */
    size_t n;
};

/* Those with this key, or with it within; of the account if one is given. */
static struct match matching(struct ctl *c, const json_t *streams, const char *key, bool whole)
{
    struct match m = {0};
    json_t *s;
    size_t i;

    json_array_foreach(streams, i, s)
    {
        const char *its = ctl_text(s, "key");

        if (c->account && strcmp(ctl_text(s, "account"), c->account) != 0)
            continue;
        if (whole ? strcmp(its, key) != 0 : !text_has(its, key))
            continue;
        if (m.n++ == 0)
            m.one = s;
    }
    return m;
}

static void say_matches(struct ctl *c, const json_t *streams, const char *key)
{
    size_t i, shown = 0;
    json_t *s;

    fputs("tailracectl: more than one stream has that in its key:\n", stderr);
    json_array_foreach(streams, i, s)
    {
        if (!text_has(ctl_text(s, "key"), key) ||
            (c->account && strcmp(ctl_text(s, "account"), c->account) != 0))
            continue;
        if (shown++ == SHOWN) {
            fputs("  ...\n", stderr);
            return;
        }
        fputs("  ", stderr);
        ctl_say(stderr, ctl_text(s, "key"));
        fputs("  --account ", stderr);
        ctl_say(stderr, ctl_text(s, "account"));
        fputc('\n', stderr);
    }
}

static int choose(struct ctl *c, const json_t *streams, const char *key, struct str *path)
{
    struct match m = matching(c, streams, key, true);

    if (m.n == 0)
        m = matching(c, streams, key, false);
    if (m.n > 1) {
        say_matches(c, streams, key);
        return CTL_FAILED;
    }
    if (m.n == 0 && !c->account) {
        fputs("tailracectl: no stream has that in its key; tailracectl streams --state all shows "
              "them\n",
              stderr);
        return CTL_FAILED;
    }
    ctl_add_arg(path, "account", m.n ? ctl_text(m.one, "account") : c->account);
    ctl_add_arg(path, "key", m.n ? ctl_text(m.one, "key") : key);
    return CTL_OK;
}

int stream_find(struct ctl *c, const char *key, struct str *path)
{
    struct str search = STR_INIT;
    struct ctl_answer a;
    int rc;

    str_adds(&search, "streams");
    ctl_add_arg(&search, "search", key);
    ctl_add_arg(&search, "state", "all");
    ctl_add_arg(&search, "limit", "1000");
    rc = ctl_call(c, "GET", str_c(&search), &a);
    if (rc == CTL_OK)
        rc = choose(c, GET(a.json, "streams"), key, path);
    ctl_answer_fini(&a);
    str_fini(&search);
    return rc;
}

/* --- in full ---------------------------------------------------------------------------------- */

static void row(struct page *p, const char *name, const char *text)
{
    page_add(p, DIM, name);
    page_to(p, LABEL);
    page_line(p, PLAIN, text);
}

static void show_waiting(struct page *p, const json_t *s, const char *now)
{
    page_add(p, DIM, "waiting");
    page_to(p, LABEL);
    page_addf(p, PLAIN, "%s lines (%s, records: %s), logs: %s",
              human_exact(GET(s, "backlog_lines")).text, human_bytes(GET(s, "backlog_bytes")).text,
              human_exact(GET(s, "backlog_records")).text,
              human_exact(GET(s, "blobs_waiting")).text);
    if (json_is_string(GET(s, "oldest")))
        page_addf(p, PLAIN, "; the oldest for %s", human_age(GET(s, "oldest"), now).text);
    page_end(p);
    page_add(p, DIM, "under way");
    page_to(p, LABEL);
    page_add(p, PLAIN, json_is_true(GET(s, "in_flight")) ? "a request" : "nothing");
    if (json_is_number(GET(s, "retry_in_seconds")))
        page_addf(p, YELLOW, "; tries again in %s", human_seconds(GET(s, "retry_in_seconds")).text);
    page_end(p);
}

static void show_lives(struct page *p, const json_t *lives, const char *now)
{
    static const struct column columns[] = {{"LIFE SINCE", 0},
                                            {"CLOSED", 0},
                                            {"OPEN UPSTREAM", 0},
                                            {"DELIVERED", TABLE_RIGHT},
                                            {"WAITING", TABLE_RIGHT},
                                            {"KEPT", TABLE_RIGHT},
                                            {"LOG", 0},
                                            {"STATE", 0}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *one;
    size_t i;

    json_array_foreach(lives, i, one)
    {
        table_add(t, PLAIN, human_time(GET(one, "since"), now).text);
        table_add(t, PLAIN, human_time(GET(one, "closed"), now).text);
        table_add(t, PLAIN, ctl_text(one, "open_upstream"));
        table_add(t, PLAIN, human_count(GET(one, "lines_delivered")).text);
        table_add(t, PLAIN, human_count(GET(one, "lines_waiting")).text);
        table_add(t, PLAIN, human_count(GET(one, "lines_kept_for_the_end")).text);
        table_add(t, PLAIN, json_is_true(GET(one, "log_stored")) ? "stored" : "-");
        table_add(t, PLAIN,
                  json_is_true(GET(one, "done"))      ? "done"
                  : json_is_true(GET(one, "closing")) ? "closing"
                  : json_is_true(GET(one, "ended"))   ? "ended"
                                                      : "open");
    }
    table_show(&t, p, 0);
}

static bool is_shown(const char *name)
{
    return ctl_is_one_of("account key state route opened last_call oldest backlog_lines "
                         "backlog_records backlog_bytes blobs_waiting in_flight "
                         "retry_in_seconds last_error lines lives",
                         name);
}

/* What else the gateway tells, as it tells it. */
static void show_more(struct page *p, const json_t *s)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)s, name, value)
    {
        char *text;

        if (is_shown(name) || (json_is_array(value) && json_array_size(value) == 0))
            continue;
        text =
            json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_PRESERVE_ORDER);
        row(p, name, text ? text : ctl_text(s, name));
        xfree(text);
    }
}

static void show_stream(struct ctl *c, struct page *p, const json_t *s)
{
    const json_t *error = GET(s, "last_error");
    char now[25];

    (void)c;
    status_now(now);
    page_words(p, BOLD, ctl_text(s, "key"));
    row(p, "account", ctl_text(s, "account"));
    row(p, "state", ctl_text(s, "state"));
    row(p, "opened", human_time(GET(s, "opened"), now).text);
    row(p, "last call", human_time(GET(s, "last_call"), now).text);
    row(p, "lines", human_exact(GET(s, "lines")).text);
    show_waiting(p, s, now);
    row(p, "logs go by", ctl_text(s, "route"));
    if (json_is_object(error)) {
        page_add(p, DIM, "last error");
        page_to(p, LABEL);
        page_addf(p, RED, "%s: ", human_time(GET(error, "time"), now).text);
        if (ctl_int(error, "status"))
            page_addf(p, RED, "%" JSON_INTEGER_FORMAT " ", ctl_int(error, "status"));
        page_words(p, RED, ctl_text(error, "text"));
    }
    show_more(p, s);
    if (json_array_size(GET(s, "lives")) > 0) {
        page_end(p);
        show_lives(p, GET(s, "lives"), now);
    }
}

int ctl_run_stream(struct ctl *c, int n, char **args)
{
    struct str path = STR_INIT;
    int rc;

    (void)n;
    str_adds(&path, "stream");
    rc = stream_find(c, args[0], &path);
    if (rc == CTL_OK)
        rc = ctl_show(c, "GET", str_c(&path), show_stream);
    str_fini(&path);
    return rc;
}
