#include "ctl/status.h"

#include <string.h>
#include "ctl/commands.h"
#include "ctl/human.h"
#include "ctl/table.h"
#include "rt/clock.h"

#define GET json_object_get

enum { LABEL = 14 };

void status_now(char now[25])
{
    clock_format(clock_wall_ns(), now);
}

enum paint status_paint(const char *state)
{
    static const struct {
        const char *state;
        enum paint paint;
    } paints[] = {{"healthy", GREEN}, {"slowed", YELLOW},    {"down", RED},
                  {"critical", RED},  {"warning", YELLOW},   {"deny", RED},
                  {"allow", GREEN},   {"would-deny", YELLOW}};
    size_t i;

    for (i = 0; i < ARRAY_LEN(paints); i++) {
        if (strcmp(state, paints[i].state) == 0)
            return paints[i].paint;
    }
    return PLAIN;
}

/* --- the verdict ------------------------------------------------------------------------------ */

static size_t count_problems(const json_t *status, const char *severity)
{
    json_t *problem;
    size_t i, n = 0;

    json_array_foreach(GET(status, "problems"), i, problem) n +=
        strcmp(ctl_text(problem, "severity"), severity) == 0;
    return n;
}

static void add_verdict(struct page *p, const json_t *status)
{
    size_t critical = count_problems(status, "critical");
    size_t warnings = count_problems(status, "warning");
    const char *state = ctl_text(status, "state");

    if (critical)
        page_addf(p, RED, "%zu CRITICAL PROBLEM%s", critical, critical > 1 ? "S" : "");
    if (critical && warnings)
        page_add(p, PLAIN, ", ");
    if (warnings)
        page_addf(p, YELLOW, "%zu WARNING%s", warnings, warnings > 1 ? "S" : "");
    if (critical || warnings)
        return;
    if (strcmp(state, "draining") == 0)
        page_add(p, YELLOW, "DRAINING");
    else if (strcmp(state, "handing over") == 0)
        page_add(p, YELLOW, "HANDING OVER");
    else if (!json_is_true(GET(status, "ready")))
        page_add(p, YELLOW, "NOT READY");
    else
        page_add(p, GREEN, "ALL IS WELL");
}

static void add_not_ready(struct page *p, const json_t *status)
{
    json_t *reason;
    size_t i;

    if (json_is_true(GET(status, "ready"))) {
        page_add(p, PLAIN, ", ready");
        return;
    }
    page_add(p, YELLOW, ", not ready");
    json_array_foreach(GET(status, "not_ready"), i, reason)
    {
        page_add(p, YELLOW, i ? ", " : ": ");
        page_add(p, YELLOW, json_string_value(reason) ? json_string_value(reason) : "");
    }
}

void status_verdict(struct page *p, const json_t *status)
{
    const json_t *config = GET(status, "config");
    const char *mode = ctl_text(config, "policy_mode");
    char now[25];

    status_now(now);
    add_verdict(p, status);
    page_addf(p, DIM, "   tailrace %s, up %s, process %" JSON_INTEGER_FORMAT ", %s UTC",
              ctl_text(status, "version"), human_seconds(GET(status, "uptime_seconds")).text,
              ctl_int(status, "pid"), human_time(GET(status, "time"), now).text);
    page_end(p);
    page_add(p, PLAIN, ctl_text(status, "state"));
    add_not_ready(p, status);
    if (*mode)
        page_addf(p, strcmp(mode, "report") == 0 ? YELLOW : PLAIN, "; policy %s",
                  strcmp(mode, "report") == 0 ? "only reports" : "in force");
    page_addf(p, PLAIN, "; configuration %" JSON_INTEGER_FORMAT ": ",
              ctl_int(config, "generation"));
    page_add(p, PLAIN, ctl_text(config, "file"));
    page_end(p);
    if (*ctl_text(config, "last_error")) {
        page_add(p, RED, "the last reload failed: ");
        page_words(p, RED, ctl_text(config, "last_error"));
    }
}

void status_problems(struct page *p, const json_t *status, size_t most, bool full)
{
    const json_t *problems = GET(status, "problems");
    json_t *problem;
    size_t i;

    json_array_foreach(problems, i, problem)
    {
        const char *severity = ctl_text(problem, "severity");

        if (i == most) {
            page_addf(p, DIM, "  and %zu more: tailracectl status", json_array_size(problems) - i);
            page_end(p);
            return;
        }
        page_add(p, status_paint(severity), severity);
        page_to(p, 10);
        page_add(p, BOLD, ctl_text(problem, "name"));
        if (!full) {
            page_add(p, PLAIN, ": ");
            page_line(p, PLAIN, ctl_text(problem, "text"));
            continue;
        }
        page_end(p);
        page_to(p, 10);
        page_words(p, PLAIN, ctl_text(problem, "text"));
        page_to(p, 10);
        page_addf(p, DIM, "see docs/operations.md%s", ctl_text(problem, "runbook"));
        page_end(p);
    }
}

/* --- the ledger ------------------------------------------------------------------------------- */

static void ledger_row(struct table *t, const json_t *ledger, const char *state)
{
    const json_t *lines = GET(GET(ledger, "lines"), state);
    const json_t *blobs = GET(GET(ledger, "blobs"), state);
    bool bad = strcmp(state, "dead") == 0;

    table_add(t, PLAIN, state);
    table_add(t, bad && json_number_value(lines) > 0 ? RED : PLAIN,
              lines ? human_exact(lines).text : "");
    table_add(t, bad && json_number_value(blobs) > 0 ? RED : PLAIN,
              blobs ? human_exact(blobs).text : "");
}

static void add_ledger(struct page *p, const json_t *ledger)
{
    static const struct column columns[] = {
        {"LEDGER", 0}, {"LINES", TABLE_RIGHT}, {"LOGS", TABLE_RIGHT}};
    static const char *const states[] = {"accepted", "delivered", "spooled",  "superseded",
                                         "settled",  "late",      "repeated", "broken",
                                         "refused",  "dead"};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    size_t i;

    for (i = 0; i < ARRAY_LEN(states); i++)
        ledger_row(t, ledger, states[i]);
    table_show(&t, p, 0);
    if (json_is_false(GET(ledger, "balanced")))
        page_line(p, RED, "THE LEDGER DOES NOT BALANCE");
}

/* --- the spool and the rest ------------------------------------------------------------------- */

static void label(struct page *p, const char *text)
{
    page_add(p, DIM, text);
    page_to(p, LABEL);
}

static void add_spool(struct page *p, const json_t *status)
{
    const json_t *spool = GET(status, "spool");
    const json_t *full = GET(spool, "full_in_seconds");

    label(p, "SPOOL");
    page_addf(p, PLAIN, "%s of %s", human_bytes(GET(spool, "bytes")).text,
              human_bytes(GET(spool, "limit_bytes")).text);
    if (json_is_true(GET(spool, "failing")))
        page_add(p, RED, ", CANNOT BE WRITTEN");
    if (json_is_true(GET(spool, "sealed")))
        page_add(p, PLAIN, ", sealed");
    page_end(p);
    label(p, "full in");
    if (json_is_number(full))
        page_add(p, json_number_value(full) < 3600 ? RED : YELLOW, human_seconds(full).text);
    else
        page_add(p, PLAIN, "not filling");
    page_addf(p, PLAIN, "; disk free %s", human_bytes(GET(spool, "disk_free_bytes")).text);
    page_end(p);
    label(p, "oldest");
    page_add(p, PLAIN,
             json_is_number(GET(spool, "oldest_seconds"))
                 ? human_seconds(GET(spool, "oldest_seconds")).text
                 : "nothing waits");
    page_end(p);
    if (ctl_int(spool, "set_aside") > 0) {
        label(p, "set aside");
        page_addf(p, YELLOW, "%s damaged, %s", human_count(GET(spool, "set_aside")).text,
                  human_bytes(GET(spool, "set_aside_bytes")).text);
        page_end(p);
    }
}

static void add_rates(struct page *p, const json_t *status)
{
    const json_t *rates = GET(status, "rates");

    label(p, "LINES A SEC.");
    if (!json_is_number(GET(rates, "lines_in"))) {
        page_line(p, PLAIN, "known 10 s after the start");
        return;
    }
    page_addf(p, PLAIN, "%s in, %s out", human_rate(GET(rates, "lines_in")).text,
              human_rate(GET(rates, "lines_out")).text);
    page_end(p);
    label(p, "answers");
    page_addf(p, PLAIN, "half in %s, 99%% in %s", human_seconds(GET(rates, "ack_p50_seconds")).text,
              human_seconds(GET(rates, "ack_p99_seconds")).text);
    page_end(p);
}

static void add_counts(struct page *p, const json_t *status)
{
    json_int_t dead = ctl_int(status, "dead_letters");

    label(p, "STREAMS");
    page_addf(p, PLAIN, "%s known, %s waiting", human_count(ctl_at(status, "streams.known")).text,
              human_count(ctl_at(status, "streams.waiting")).text);
    page_end(p);
    label(p, "dead letters");
    page_add(p, dead ? RED : PLAIN, human_count(GET(status, "dead_letters")).text);
    page_end(p);
    label(p, "TUNNELS");
    page_addf(p, PLAIN, "%s open; %s denied", human_count(ctl_at(status, "tunnels.open")).text,
              human_count(GET(status, "denied")).text);
    if (ctl_int(status, "would_deny"))
        page_addf(p, YELLOW, ", %s would be", human_count(GET(status, "would_deny")).text);
    page_end(p);
    label(p, "CONNECTIONS");
    page_addf(p, PLAIN, "%s of %s", human_exact(ctl_at(status, "connections.open")).text,
              human_exact(ctl_at(status, "connections.limit")).text);
    page_end(p);
    label(p, "MEMORY");
    page_add(p, PLAIN, human_bytes(ctl_at(status, "memory.rss_bytes")).text);
    page_end(p);
}

void status_figures(struct page *p, const json_t *status)
{
    struct page *left = page_new(page_look(p), page_width(p));
    struct page *right = page_new(page_look(p), page_width(p));

    add_ledger(left, GET(status, "ledger"));
    add_spool(right, status);
    add_rates(right, status);
    add_counts(right, status);
    page_beside(p, left, right, 4);
    page_free(&left);
    page_free(&right);
}

/* "lines 12 = delivered 9 + spooled 3": of the other states those that have any. */
static void short_ledger(struct page *p, const json_t *lines)
{
    static const char *const others[] = {"superseded", "settled", "late", "refused", "dead"};
    size_t i;

    label(p, "lines");
    page_addf(p, PLAIN, "%s = delivered %s + spooled %s", human_count(GET(lines, "accepted")).text,
              human_count(GET(lines, "delivered")).text, human_count(GET(lines, "spooled")).text);
    for (i = 0; i < ARRAY_LEN(others); i++) {
        const json_t *n = GET(lines, others[i]);

        if (json_number_value(n) > 0)
            page_addf(p, strcmp(others[i], "dead") == 0 ? RED : PLAIN, " + %s %s", others[i],
                      human_count(n).text);
    }
    page_end(p);
}

void status_short(struct page *p, const json_t *status)
{
    const json_t *spool = GET(status, "spool"), *rates = GET(status, "rates");

    short_ledger(p, ctl_at(status, "ledger.lines"));
    label(p, "spool");
    page_addf(p, PLAIN, "%s of %s, oldest %s, full in %s", human_bytes(GET(spool, "bytes")).text,
              human_bytes(GET(spool, "limit_bytes")).text,
              human_seconds(GET(spool, "oldest_seconds")).text,
              human_seconds(GET(spool, "full_in_seconds")).text);
    page_end(p);
    label(p, "lines a sec.");
    page_addf(p, PLAIN, "%s in, %s out; answers: half within %s, 99%% within %s",
              human_rate(GET(rates, "lines_in")).text, human_rate(GET(rates, "lines_out")).text,
              human_seconds(GET(rates, "ack_p50_seconds")).text,
              human_seconds(GET(rates, "ack_p99_seconds")).text);
    page_end(p);
    label(p, "streams");
    page_addf(p, PLAIN, "%s, %s wait; tunnels %s; denied %s",
              human_count(ctl_at(status, "streams.known")).text,
              human_count(ctl_at(status, "streams.waiting")).text,
              human_count(ctl_at(status, "tunnels.open")).text,
              human_count(GET(status, "denied")).text);
    page_end(p);
}

/* --- upstreams, listeners --------------------------------------------------------------------- */

static void last_error(struct table *t, const json_t *error, const char *now)
{
    struct str text = STR_INIT;

    if (json_is_object(error))
        str_addf(&text, "%s ago: %s", human_age(GET(error, "time"), now).text,
                 ctl_text(error, "text"));
    table_add(t, PLAIN, str_c(&text));
    str_fini(&text);
}

void status_upstreams(struct page *p, const json_t *status, size_t rows)
{
    static const struct column columns[] = {{"UPSTREAM", TABLE_CUT},
                                            {"KIND", TABLE_EXTRA},
                                            {"STATE", 0},
                                            {"BUSY", TABLE_RIGHT},
                                            {"LIMIT", TABLE_RIGHT},
                                            {"RETRY IN", TABLE_RIGHT | TABLE_FILLED},
                                            {"LAST OK", TABLE_RIGHT},
                                            {"LAST ERROR", TABLE_PROSE | TABLE_FILLED}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *u;
    size_t i;
    char now[25];

    status_now(now);
    json_array_foreach(GET(status, "upstreams"), i, u)
    {
        table_add(t, PLAIN, ctl_text(u, "host"));
        table_add(t, PLAIN, ctl_text(u, "kind"));
        table_add(t, status_paint(ctl_text(u, "state")), ctl_text(u, "state"));
        table_add(t, PLAIN, human_count(GET(u, "in_flight")).text);
        table_add(t, PLAIN, human_count(GET(u, "limit")).text);
        table_add(t, PLAIN, human_seconds(GET(u, "waiting_for_seconds")).text);
        table_add(t, PLAIN, human_age(GET(u, "last_success"), now).text);
        last_error(t, GET(u, "last_error"), now);
    }
    table_show(&t, p, rows);
}

void status_listeners(struct page *p, const json_t *status)
{
    struct str text = STR_INIT;
    json_t *l;
    size_t i;

    if (json_array_size(GET(status, "listeners")) == 0)
        return;
    page_add(p, DIM, "LISTENING ");
    json_array_foreach(GET(status, "listeners"), i, l)
        str_addf(&text, "%s%s %s%s", i ? ", " : "", ctl_text(l, "name"), ctl_text(l, "address"),
                 json_is_true(GET(l, "tls")) ? " (TLS)" : "");
    page_words(p, PLAIN, str_c(&text));
    str_fini(&text);
}

static void add_certificate(struct page *p, const json_t *status)
{
    const json_t *first = NULL;
    json_t *one;
    double left = 0;
    size_t i;

    json_array_foreach(GET(status, "certificates"), i, one)
    {
        if (!first || json_number_value(GET(one, "expires_in_seconds")) < left) {
            first = one;
            left = json_number_value(GET(one, "expires_in_seconds"));
        }
    }
    if (!first)
        return;
    page_add(p, DIM, "CERTIFICATES ");
    page_addf(p,
              left < 7 * 86400    ? RED
              : left < 30 * 86400 ? YELLOW
                                  : PLAIN,
              left < 0 ? "%s has expired%s" : "the first to expire is %s, in %s",
              ctl_text(first, "name"), left < 0 ? "" : human_seconds_of(left).text);
    page_end(p);
}

/* --- the command ------------------------------------------------------------------------------ */

static void show_status(struct ctl *c, struct page *p, const json_t *status)
{
    (void)c;
    status_verdict(p, status);
    page_end(p);
    if (json_array_size(GET(status, "problems"))) {
        status_problems(p, status, SIZE_MAX, true);
        page_end(p);
    }
    status_figures(p, status);
    page_end(p);
    status_upstreams(p, status, 0);
    page_end(p);
    status_listeners(p, status);
    add_certificate(p, status);
}

int ctl_run_status(struct ctl *c, int n, char **args)
{
    struct ctl_answer a;
    int rc = ctl_call(c, "GET", "status", &a);

    (void)n;
    (void)args;
    if (rc == CTL_OK && c->json) {
        ctl_show_json(a.json);
    } else if (rc == CTL_OK) {
        struct page *p = page_new(&c->look, c->look.width);

        show_status(c, p, a.json);
        page_print(p, stdout);
        page_free(&p);
    }
    if (rc == CTL_OK && c->check && count_problems(a.json, "critical"))
        rc = CTL_FAILED;
    ctl_answer_fini(&a);
    return rc;
}
