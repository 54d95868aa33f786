/* tailracectl streams, tunnels, denials, upstreams, listeners, certificates. */
#include <string.h>
#include "ctl/commands.h"
#include "ctl/human.h"
#include "ctl/status.h"
#include "ctl/table.h"

#define GET json_object_get

/* Call with the options that choose; CTL_* as ctl_show. */
static int show_chosen(struct ctl *c, const char *what, ctl_show_fn *show)
{
    struct str path = STR_INIT;
    int rc;

    str_adds(&path, what);
    ctl_add_arg(&path, "search", c->search);
    ctl_add_arg(&path, "state", c->state);
    ctl_add_arg(&path, "sort", c->sort);
    ctl_add_arg(&path, "by", c->by);
    ctl_add_arg(&path, "limit", c->limit);
    rc = ctl_show(c, "GET", str_c(&path), show);
    str_fini(&path);
    return rc;
}

/* --- streams ---------------------------------------------------------------------------------- */

static void add_stream(struct table *t, const json_t *s, const char *now)
{
    const json_t *error = GET(s, "last_error");
    struct str why = STR_INIT;

    if (ctl_int(error, "status"))
        str_addf(&why, "%" JSON_INTEGER_FORMAT " ", ctl_int(error, "status"));
    str_adds(&why, ctl_text(error, "text"));
    table_add(t, PLAIN, ctl_text(s, "key"));
    table_add(t, strcmp(ctl_text(s, "state"), "held") == 0 ? YELLOW : PLAIN, ctl_text(s, "state"));
    table_add(t, PLAIN, human_count(GET(s, "backlog_lines")).text);
    table_add(t, PLAIN, human_count(GET(s, "blobs_waiting")).text);
    table_add(t, PLAIN, human_age(GET(s, "oldest"), now).text);
    table_add(t, PLAIN, human_age(GET(s, "last_call"), now).text);
    table_add(t, PLAIN, human_count(GET(s, "lines")).text);
    table_add(t, PLAIN, human_seconds(GET(s, "retry_in_seconds")).text);
    table_add(t, PLAIN, ctl_text(s, "account"));
    table_add(t, PLAIN, ctl_text(s, "route"));
    table_add(t, RED, str_c(&why));
    str_fini(&why);
}

void list_streams(struct page *p, const json_t *answer, const char *now, size_t rows)
{
    static const struct column columns[] = {{"STREAM", TABLE_CUT},
                                            {"STATE", 0},
                                            {"WAITING", TABLE_RIGHT},
                                            {"LOGS", TABLE_RIGHT | TABLE_FILLED},
                                            {"OLDEST", TABLE_RIGHT},
                                            {"IDLE", TABLE_RIGHT | TABLE_EXTRA},
                                            {"LINES", TABLE_RIGHT | TABLE_EXTRA},
                                            {"RETRY IN", TABLE_RIGHT | TABLE_FILLED},
                                            {"ACCOUNT", TABLE_CUT | TABLE_EXTRA},
                                            {"ROUTE", TABLE_EXTRA},
                                            {"LAST ERROR", TABLE_PROSE | TABLE_FILLED}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *s;
    size_t i;

    json_array_foreach(GET(answer, "streams"), i, s) add_stream(t, s, now);
    table_show(&t, p, rows);
}

static void show_streams(struct ctl *c, struct page *p, const json_t *answer)
{
    size_t n = json_array_size(GET(answer, "streams"));
    char now[25];

    status_now(now);
    if (n)
        list_streams(p, answer, now, 0);
    page_addf(p, DIM, "%s of %s streams", human_exact(GET(answer, "matched")).text,
              human_exact(GET(answer, "known")).text);
    if (strcmp(c->state, "waiting") == 0)
        page_add(p, DIM, " have something that waits; --state all shows all");
    if (ctl_int(answer, "matched") > (json_int_t)n)
        page_addf(p, DIM, "; %zu shown: --limit shows more", n);
    page_end(p);
}

int ctl_run_streams(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    if (!c->state) /* who searches means all */
        c->state = c->search ? "all" : "waiting";
    return show_chosen(c, "streams", show_streams);
}

/* --- tunnels ---------------------------------------------------------------------------------- */

void list_tunnels(struct page *p, const json_t *answer, size_t rows)
{
    static const struct column columns[] = {{"DESTINATION", TABLE_CUT},
                                            {"KIND", 0},
                                            {"CLIENT", 0},
                                            {"IDENTITY", TABLE_CUT | TABLE_FILLED},
                                            {"AGE", TABLE_RIGHT},
                                            {"IDLE", TABLE_RIGHT},
                                            {"UP", TABLE_RIGHT},
                                            {"DOWN", TABLE_RIGHT},
                                            {"RULE", TABLE_CUT | TABLE_EXTRA},
                                            {"LISTENER", TABLE_EXTRA},
                                            {"VIA", TABLE_CUT | TABLE_EXTRA | TABLE_FILLED},
                                            {"ID", TABLE_EXTRA}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *one, *id;
    size_t i;

    json_array_foreach(GET(answer, "tunnels"), i, one)
    {
        table_add(t, PLAIN, ctl_text(one, "destination"));
        table_add(t, PLAIN, ctl_text(one, "kind"));
        table_add(t, PLAIN, ctl_text(one, "client"));
        table_add(t, PLAIN, ctl_text(one, "identity"));
        table_add(t, PLAIN, human_seconds(GET(one, "age_seconds")).text);
        table_add(t, PLAIN, human_seconds(GET(one, "idle_seconds")).text);
        table_add(t, PLAIN, human_bytes(GET(one, "bytes_up")).text);
        table_add(t, PLAIN, human_bytes(GET(one, "bytes_down")).text);
        table_add(t, PLAIN, ctl_text(one, "rule"));
        table_add(t, PLAIN, ctl_text(one, "listener"));
        table_add(t, PLAIN, ctl_text(one, "via"));
        id = GET(one, "id");
        if (json_is_integer(id))
            table_add_int(t, json_integer_value(id));
        else
            table_add(t, PLAIN, ctl_text(one, "id"));
    }
    table_show(&t, p, rows);
}

static void list_groups(struct page *p, const json_t *groups)
{
    static const struct column columns[] = {{"NAME", TABLE_CUT},
                                            {"OPEN", TABLE_RIGHT},
                                            {"UP", TABLE_RIGHT},
                                            {"DOWN", TABLE_RIGHT},
                                            {"OLDEST", TABLE_RIGHT}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *group;
    size_t i;

    json_array_foreach(groups, i, group)
    {
        const char *name = ctl_text(group, "name");

        table_add(t, PLAIN, *name ? name : "-");
        table_add(t, PLAIN, human_count(GET(group, "open")).text);
        table_add(t, PLAIN, human_bytes(GET(group, "bytes_up")).text);
        table_add(t, PLAIN, human_bytes(GET(group, "bytes_down")).text);
        table_add(t, PLAIN, human_seconds(GET(group, "oldest_seconds")).text);
    }
    table_show(&t, p, 0);
}

static void show_tunnels(struct ctl *c, struct page *p, const json_t *answer)
{
    size_t n = json_array_size(GET(answer, "tunnels"));

    (void)c;
    if (GET(answer, "groups"))
        list_groups(p, GET(answer, "groups"));
    else if (n)
        list_tunnels(p, answer, 0);
    page_addf(p, DIM, "%s open", human_exact(GET(answer, "open")).text);
    if (n && ctl_int(answer, "matched") > (json_int_t)n)
        page_addf(p, DIM, ", %s match; %zu shown: --limit shows more",
                  human_exact(GET(answer, "matched")).text, n);
    page_end(p);
}

int ctl_run_tunnels(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return show_chosen(c, "tunnels", show_tunnels);
}

/* --- denials ---------------------------------------------------------------------------------- */

void list_denials(struct page *p, const json_t *answer, const char *now, size_t rows)
{
    static const struct column columns[] = {{"LAST", 0},
                                            {"VERDICT", 0},
                                            {"TIMES", TABLE_RIGHT},
                                            {"CLIENT", 0},
                                            {"IDENTITY", TABLE_CUT | TABLE_FILLED},
                                            {"DESTINATION", TABLE_CUT},
                                            {"RULE", TABLE_CUT},
                                            {"REASON", TABLE_PROSE},
                                            {"KIND", TABLE_EXTRA},
                                            {"LISTENER", TABLE_EXTRA}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *one;
    size_t i;

    json_array_foreach(GET(answer, "denials"), i, one)
    {
        const char *verdict = ctl_text(one, "verdict");

        table_add(t, PLAIN, human_time(GET(one, "time"), now).text);
        table_add(t, status_paint(verdict), verdict);
        table_add(t, PLAIN, human_count(GET(one, "count")).text);
        table_add(t, PLAIN, ctl_text(one, "client"));
        table_add(t, PLAIN, ctl_text(one, "identity"));
        table_add(t, PLAIN, ctl_text(one, "destination"));
        table_add(t, PLAIN, ctl_text(one, "rule"));
        table_add(t, PLAIN, ctl_text(one, "reason"));
        table_add(t, PLAIN, ctl_text(one, "kind"));
        table_add(t, PLAIN, ctl_text(one, "listener"));
    }
    table_show(&t, p, rows);
}

static void show_denials(struct ctl *c, struct page *p, const json_t *answer)
{
    char now[25];

    (void)c;
    status_now(now);
    if (json_array_size(GET(answer, "denials")))
        list_denials(p, answer, now, 0);
    page_addf(p, DIM, "%s denied", human_exact(GET(answer, "denied")).text);
    if (ctl_int(answer, "would_deny"))
        page_addf(p, DIM, ", %s would have been", human_exact(GET(answer, "would_deny")).text);
    page_add(p, DIM, " since the start");
    page_end(p);
}

int ctl_run_denials(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return show_chosen(c, "denials", show_denials);
}

/* --- what status holds, too ------------------------------------------------------------------- */

static void show_upstreams(struct ctl *c, struct page *p, const json_t *answer)
{
    (void)c;
    status_upstreams(p, answer, 0);
}

int ctl_run_upstreams(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return ctl_show(c, "GET", "upstreams", show_upstreams);
}

static void show_listeners(struct ctl *c, struct page *p, const json_t *answer)
{
    static const struct column columns[] = {
        {"LISTENER", TABLE_CUT}, {"MODE", 0}, {"ADDRESS", TABLE_CUT}, {"TLS", 0}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *l;
    size_t i;

    (void)c;
    json_array_foreach(GET(answer, "listeners"), i, l)
    {
        table_add(t, PLAIN, ctl_text(l, "name"));
        table_add(t, PLAIN, ctl_text(l, "mode"));
        table_add(t, PLAIN, ctl_text(l, "address"));
        table_add(t, PLAIN, json_is_true(GET(l, "tls")) ? "yes" : "no");
    }
    table_show(&t, p, 0);
}

int ctl_run_listeners(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return ctl_show(c, "GET", "listeners", show_listeners);
}

static void show_certificates(struct ctl *c, struct page *p, const json_t *answer)
{
    static const struct column columns[] = {
        {"CERTIFICATE", TABLE_CUT}, {"EXPIRES", 0}, {"IN", TABLE_RIGHT}, {"SUBJECT", TABLE_PROSE}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *one;
    size_t i;

    (void)c;
    json_array_foreach(GET(answer, "certificates"), i, one)
    {
        double left = json_number_value(GET(one, "expires_in_seconds"));
        struct human until = human_time(GET(one, "not_after"), NULL);

        table_add(t, PLAIN, ctl_text(one, "name"));
        table_add(t, PLAIN, until.text);
        table_add(t,
                  left < 7 * 86400    ? RED
                  : left < 30 * 86400 ? YELLOW
                                      : PLAIN,
                  left < 0 ? "expired" : human_seconds_of(left).text);
        table_add(t, PLAIN, ctl_text(one, "subject"));
    }
    if (i == 0)
        page_line(p, DIM, "no certificates");
    table_show(&t, i ? p : NULL, 0);
}

int ctl_run_certificates(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return ctl_show(c, "GET", "certificates", show_certificates);
}
