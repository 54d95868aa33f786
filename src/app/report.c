#include "app/report.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "app/gateway.h"
#include "app/handover.h"
#include "app/history.h"
#include "base/bug.h"
#include "base/xmem.h"
#include "rt/clock.h"
#include "rt/json.h"
#include "rt/metric_look.h"
#include "rt/ready.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

enum { SECTIONS_MAX = 16, REPORT_COMMANDS = 2 };

struct section {
    const char *key;
    report_section_fn add;
    void *ctx;
};

struct report {
    struct gateway *g;
    struct command commands[REPORT_COMMANDS];
    struct section sections[SECTIONS_MAX];
    size_t n_sections;
    struct history history;
    struct ev_timer *step;
    int64_t started, loaded; /* wall */
    int64_t started_mono;
    char *not_loaded; /* why the last reload failed, or NULL */
    int statm;        /* descriptor of /proc/self/statm, or -1 */
};

/* --- parts of the status ------------------------------------------------------------------ */

static void add_not_ready(struct json *j)
{
    struct str reasons = STR_INIT;
    bool ready = ready_check(&reasons);
    struct view rest = str_view(&reasons);

    json_bool(j, "ready", ready);
    json_open(j, "not_ready", '[');
    while (rest.n) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end ? (size_t)(end - rest.p) : rest.n;

        json_text(j, NULL, view_of(rest.p, n));
        rest = view_from(rest, TR_MIN(n + 1, rest.n));
    }
    json_close(j, ']');
    str_fini(&reasons);
}

static void add_process(const struct report *r, struct json *j)
{
    const struct gateway *g = r->g;
    bool left = handover_left(g->handover);

    json_time(j, "time", clock_wall_ns());
    json_text(j, "version", view_str(PACKAGE_VERSION));
    json_int(j, "pid", getpid());
    json_time(j, "started", r->started);
    json_seconds(j, "uptime_seconds", clock_mono_ns() - r->started_mono);
    json_text(j, "state", view_str(left ? "handing over" : g->draining ? "draining" : "serving"));
    add_not_ready(j);
}

/* Do clients choose where to go, so that policy has something to say? */
static bool is_judged(const struct config *c)
{
    size_t i;

    for (i = 0; i < c->n_listen; i++) {
        if (c->listen[i].mode == CONFIG_MODE_PROXY || c->listen[i].mode == CONFIG_MODE_SNI)
            return true;
    }
    return false;
}

static void add_config(const struct report *r, struct json *j)
{
    const struct gateway *g = r->g;
    const struct config *c = g->config;
    size_t i;

    json_open(j, "config", '{');
    json_text(j, "file", view_str(g->opts->config));
    json_uint(j, "generation", g->generation);
    json_time(j, "loaded", r->loaded);
    json_text(j, "last_error", view_str(r->not_loaded));
    json_num(j, "reload_failures", metric_look("reload_failures"));
    json_text(j, "policy_mode",
              !is_judged(c) ? VIEW_NONE
                            : view_str(c->egress_mode == POLICY_REPORT ? "report" : "enforce"));
    json_open(j, "needs_restart", '[');
    for (i = 0; i < g->needs_restart.n; i++)
        json_text(j, NULL, view_str(g->needs_restart.items[i]));
    json_close(j, ']');
    json_close(j, '}');
}

static void add_account(struct json *j, const char *name, const char *family,
                        const char *const *states, size_t n)
{
    size_t i;

    json_open(j, name, '{');
    for (i = 0; i < n; i++)
        json_num(j, states[i], metric_look(family, states[i]));
    json_close(j, '}');
}

static bool balanced(const char *family)
{
    return metric_look(family, "accepted") * 2 == metric_total(family);
}

static void add_ledger(struct json *j)
{
    static const char *const lines[] = {"accepted", "delivered", "spooled", "superseded",
                                        "settled",  "late",      "refused", "dead"};
    static const char *const blobs[] = {"accepted", "delivered", "spooled",
                                        "repeated", "broken",    "dead"};

    json_open(j, "ledger", '{');
    add_account(j, "lines", "ledger_lines", lines, ARRAY_LEN(lines));
    add_account(j, "blobs", "ledger_blobs", blobs, ARRAY_LEN(blobs));
    json_num(j, "lines_resent", metric_look("lines_resent"));
    json_bool(j, "balanced", balanced("ledger_lines") && balanced("ledger_blobs"));
    json_close(j, '}');
}

static void add_spool(const struct report *r, struct json *j)
{
    double oldest = metric_look("spool_oldest_seconds");

    json_open(j, "spool", '{');
    json_num(j, "bytes", metric_look("spool_bytes"));
    json_num(j, "limit_bytes", metric_look("spool_limit_bytes"));
    json_num(j, "room_bytes", metric_look("spool_room_bytes"));
    json_num(j, "disk_free_bytes", metric_look("spool_disk_free_bytes"));
    json_num(j, "full_in_seconds", metric_look("spool_full_in_seconds"));
    if (oldest > 0)
        json_num(j, "oldest_seconds", oldest);
    else
        json_nothing(j, "oldest_seconds");
    json_bool(j, "failing", metric_look("spool_failing") > 0);
    json_bool(j, "sealed", r->g->sealing != NULL);
    json_num(j, "set_aside", metric_look("spool_set_aside"));
    json_num(j, "set_aside_bytes", metric_look("spool_set_aside_bytes"));
    json_num(j, "commits", metric_look("spool_commits"));
    json_num(j, "written_bytes", metric_look("spool_written_bytes"));
    json_close(j, '}');
}

static void add_rate(struct json *j, const char *name, const struct history_point *p, double v)
{
    if (p)
        json_num(j, name, v);
    else
        json_nothing(j, name);
}

static void add_rates(const struct report *r, struct json *j)
{
    const struct history_point *p = history_newest(&r->history);

    json_open(j, "rates", '{');
    add_rate(j, "lines_in", p, p ? p->lines_in : 0);
    add_rate(j, "lines_out", p, p ? p->lines_out : 0);
    add_rate(j, "ack_p50_seconds", p, p ? p->ack_p50 : 0);
    add_rate(j, "ack_p99_seconds", p, p ? p->ack_p99 : 0);
    json_close(j, '}');
}

static void add_streams(const struct report *r, struct json *j)
{
    json_open(j, "streams", '{');
    json_num(j, "known", metric_look("streams"));
    json_num(j, "waiting", metric_look("streams_waiting"));
    json_close(j, '}');
    json_num(j, "dead_letters", metric_look("dead_letters"));
    json_num(j, "credentials_refused", metric_look("credentials_refused"));
    json_name(j, "upstreams");
    logs_upstreams(r->g->logs, j->out);
}

static void add_connections(const struct report *r, struct json *j)
{
    json_open(j, "connections", '{');
    json_num(j, "open", metric_total("connections"));
    json_int(j, "limit", gateway_first_config(r->g)->limit_connections);
    json_close(j, '}');
}

/* The second figure of statm: pages that are resident. */
static double resident_bytes(const struct report *r)
{
    char text[128], *at;
    ssize_t n = r->statm >= 0 ? pread(r->statm, text, sizeof(text) - 1, 0) : -1;

    if (n <= 0)
        return __builtin_nan("");
    text[n] = '\0';
    strtod(text, &at);
    return strtod(at, NULL) * (double)sysconf(_SC_PAGESIZE);
}

static void add_memory(const struct report *r, struct json *j)
{
    json_open(j, "memory", '{');
    json_num(j, "records_bytes", metric_look("memory_bytes"));
    json_num(j, "connections_bytes", metric_look("connection_memory_bytes"));
    json_num(j, "rss_bytes", resident_bytes(r));
    json_close(j, '}');
}

void report_status(struct report *r, struct str *out)
{
    struct json j = json_to(out);
    size_t i;

    metric_collect();
    json_open(&j, NULL, '{');
    add_process(r, &j);
    add_config(r, &j);
    add_ledger(&j);
    add_spool(r, &j);
    add_rates(r, &j);
    add_streams(r, &j);
    add_connections(r, &j);
    add_memory(r, &j);
    for (i = 0; i < r->n_sections; i++) {
        json_name(&j, r->sections[i].key);
        r->sections[i].add(r->sections[i].ctx, out);
    }
    json_close(&j, '}');
}

void report_section_add(struct report *r, const char *key, report_section_fn add, void *ctx)
{
    ASSERT(r->n_sections < SECTIONS_MAX);
    r->sections[r->n_sections++] = (struct section){key, add, ctx};
}

/* --- history ------------------------------------------------------------------------------ */

void report_history(struct report *r, size_t last, struct str *out)
{
    struct json j = json_to(out);

    history_json(&r->history, last, &j);
}

static void step_due(void *ctx)
{
    struct report *r = ctx;

    ev_timer_arm(r->step, INT64_C(1000) * HISTORY_STEP_S);
    history_step(&r->history);
}

/* --- commands ----------------------------------------------------------------------------- */

static void run_status(void *ctx, struct command_call *call)
{
    struct str out = STR_INIT;

    report_status(ctx, &out);
    str_addc(&out, '\n');
    command_reply(call, 200, str_view(&out));
    str_fini(&out);
}

static void run_history(void *ctx, struct command_call *call)
{
    int64_t n = command_number(call, "last", HISTORY_POINTS, HISTORY_POINTS);
    struct str out = STR_INIT;

    if (!n)
        return;
    report_history(ctx, (size_t)n, &out);
    str_addc(&out, '\n');
    command_reply(call, 200, str_view(&out));
    str_fini(&out);
}

/* --- life-cycle --------------------------------------------------------------------------- */

void report_loaded(struct report *r)
{
    r->loaded = clock_wall_ns();
    XFREE(r->not_loaded);
}

void report_not_loaded(struct report *r, const char *why)
{
    xfree(r->not_loaded);
    r->not_loaded = xstrdup(why);
}

struct report *report_new(struct gateway *g)
{
    static const struct command commands[REPORT_COMMANDS] = {
        {.path = "status", .text = "all figures of this moment", .run = run_status},
        {.path = "history", .text = "the last hour: last", .run = run_history},
    };
    struct report *r = XNEW(struct report);
    size_t i;

    r->g = g;
    r->started = r->loaded = clock_wall_ns();
    r->started_mono = clock_mono_ns();
    r->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    r->step = ev_timer_new(g->loop, step_due, r);
    ev_timer_arm(r->step, 0);
    for (i = 0; i < REPORT_COMMANDS; i++) {
        r->commands[i] = commands[i];
        r->commands[i].ctx = r;
        command_add(&r->commands[i]);
    }
    return r;
}

void report_free(struct report **rp)
{
    struct report *r = *rp;
    size_t i;

    if (!r)
        return;
    for (i = 0; i < REPORT_COMMANDS; i++)
        command_remove(&r->commands[i]);
    ev_timer_free(&r->step);
    if (r->statm >= 0)
        close(r->statm);
    xfree(r->not_loaded);
    XFREE(*rp);
}
