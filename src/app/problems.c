#include "app/problems.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "app/certificates.h"
#include "base/xmem.h"
#include "rt/clock.h"
#include "rt/metric_look.h"

enum {
    TICK_MS = 5000,
    SLOTS = 60, /* looks that a window is made of */
    /* Series of one family that are followed; labels are ours and few, rules are the admin's. */
    SERIES_MAX = 64,
    MINUTE_S = 60,
    HOUR_S = 3600,
    DAY_S = 86400,
};

/* How much each series of a counter has grown in a window of time. Those of its first label. */
struct growth {
    const char *family;
    int window_s;
    int64_t next_ns; /* when the next slot is due */
    unsigned at;     /* the oldest slot */
    size_t n;
    struct growing {
        char *label;
        double slots[SLOTS], now;
    } * series;
};

enum growth_id { REFUSED, DENIED, WOULD_DENY, OVERLOAD, RELOADS, REJECTED, GROWTHS };

static const struct growth growths[GROWTHS] = {
    [REFUSED] = {.family = "lines_refused", .window_s = 10 * MINUTE_S},
    [DENIED] = {.family = "denied", .window_s = 10 * MINUTE_S},
    [WOULD_DENY] = {.family = "would_deny", .window_s = HOUR_S},
    [OVERLOAD] = {.family = "overload_refused", .window_s = 5 * MINUTE_S},
    [RELOADS] = {.family = "reload_failures", .window_s = 15 * MINUTE_S},
    [REJECTED] = {.family = "intercept_rejected", .window_s = HOUR_S},
};

struct problems {
    struct ev_timer *timer;
    const struct plan *plan;
    struct growth growths[GROWTHS];
    struct metric_counts acks[SLOTS]; /* of the answers to lines, over ten minutes */
    unsigned acks_at;
    int64_t acks_next_ns;
    int64_t wall_ns, mono_ns; /* of this look */
    struct state {
        int64_t since_mono, since_wall; /* the condition holds since; 0: it does not */
        char *what;                     /* what it is about; or NULL */
    } * states;                         /* by row */
};

/* --- growth ------------------------------------------------------------------------------- */

static struct growing *growing_of(struct growth *g, const char *label)
{
    size_t i;

    for (i = 0; i < g->n; i++) {
        if (strcmp(g->series[i].label, label) == 0)
            return &g->series[i];
    }
    if (g->n == SERIES_MAX)
        return NULL;
    g->series = xrealloc(g->series, (g->n + 1) * sizeof(*g->series));
    g->series[g->n] = (struct growing){.label = xstrdup(label)};
    return &g->series[g->n++];
}

static void note_value(void *ctx, const char *const *values, double value)
{
    struct growing *s = growing_of(ctx, values[0] ? values[0] : "");

    if (s)
        s->now = value;
}

static void growth_look(struct growth *g, int64_t mono_ns)
{
    size_t i;

    metric_each(g->family, note_value, g);
    if (mono_ns < g->next_ns)
        return;
    g->next_ns = mono_ns + g->window_s * NS_PER_SEC / SLOTS;
    for (i = 0; i < g->n; i++)
        g->series[i].slots[g->at] = g->series[i].now;
    g->at = (g->at + 1) % SLOTS;
}

/* Since the oldest slot. A series begins with zeros: what it has, it got since the process began.
 */
static double grown(const struct growth *g, const struct growing *s)
{
    return s->now - s->slots[g->at];
}

/* Appends the labels whose series grew by more than that, as "a and b"; true if there are any. */
static bool growing_labels(const struct growth *g, double by, struct str *what)
{
    size_t i, n = 0;

    for (i = 0; i < g->n; i++) {
        if (grown(g, &g->series[i]) <= by)
            continue;
        str_addf(what, "%s%s", n++ ? " and " : "", g->series[i].label);
    }
    return n > 0;
}

/* --- conditions: true while it holds; what it is about is appended ------------------------- */

static bool is_old(struct problems *p, struct str *what)
{
    (void)p;
    (void)what;
    return metric_total("spool_oldest_seconds") > 120;
}

static bool is_old_for_long(struct problems *p, struct str *what)
{
    (void)p;
    (void)what;
    return metric_total("spool_oldest_seconds") > HOUR_S;
}

static void add_span(struct str *out, double seconds);

/* Infinite while it does not grow. */
static bool is_full_within(double seconds, struct str *what)
{
    double s = metric_total("spool_full_in_seconds");

    if (!(s < seconds))
        return false;
    str_adds(what, "full in ");
    add_span(what, s);
    str_adds(what, " at this rate");
    return true;
}

static bool is_nearly_full(struct problems *p, struct str *what)
{
    (void)p;
    if (is_full_within(1800, what))
        return true;
    str_adds(what, "less than a fifth of its limit");
    return metric_total("spool_room_bytes") < 0.2 * metric_total("spool_limit_bytes");
}

static bool fills_soon(struct problems *p, struct str *what)
{
    (void)p;
    return is_full_within(4 * HOUR_S, what);
}

static bool spool_fails(struct problems *p, struct str *what)
{
    (void)p;
    (void)what;
    return metric_total("spool_failing") > 0;
}

static bool is_set_aside(struct problems *p, struct str *what)
{
    (void)p;
    str_addf(what, "%.0f", metric_total("spool_set_aside"));
    return metric_total("spool_set_aside") > 0;
}

static bool refuses_lines(struct problems *p, struct str *what)
{
    return growing_labels(&p->growths[REFUSED], 0, what);
}

struct ledger_sum {
    double accepted, others;
};

static void add_state(void *ctx, const char *const *values, double value)
{
    struct ledger_sum *sum = ctx;

    if (strcmp(values[0], "accepted") == 0)
        sum->accepted += value;
    else
        sum->others += value;
}

static bool is_imbalanced(struct problems *p, struct str *what)
{
    static const char *const families[] = {"ledger_lines", "ledger_blobs"};
    bool bad = false;
    size_t i;

    (void)p;
    for (i = 0; i < ARRAY_LEN(families); i++) {
        struct ledger_sum sum = {0};

        metric_each(families[i], add_state, &sum);
        if (sum.accepted == sum.others)
            continue;
        str_addf(what, "%s%s by %.0f", bad ? ", " : "", families[i],
                 fabs(sum.accepted - sum.others));
        bad = true;
    }
    return bad;
}

struct upstreams {
    double state;
    struct str *what;
    bool any;
};

/* The label of upstream_state in words. */
static const char *upstream_name(const char *label)
{
    if (strcmp(label, "harness") == 0)
        return "the log service";
    return strcmp(label, "object-store") == 0 ? "the object store" : label;
}

static void add_upstream(void *ctx, const char *const *values, double value)
{
    struct upstreams *u = ctx;

    if (value != u->state)
        return;
    str_addf(u->what, "%s%s", u->any ? " and " : "", upstream_name(values[0]));
    u->any = true;
}

static bool has_upstream(double state, struct str *what)
{
    struct upstreams u = {state, what, false};

    metric_each("upstream_state", add_upstream, &u);
    return u.any;
}

static bool is_down(struct problems *p, struct str *what)
{
    (void)p;
    return has_upstream(2, what);
}

static bool is_slow(struct problems *p, struct str *what)
{
    (void)p;
    return has_upstream(1, what);
}

static bool refuses_credentials(struct problems *p, struct str *what)
{
    double n = metric_total("credentials_refused");

    (void)p;
    str_addf(what, "%.0f %s", n, n == 1 ? "credential" : "credentials");
    return n > 0;
}

static bool has_dead_letters(struct problems *p, struct str *what)
{
    double n = metric_total("dead_letters");

    (void)p;
    str_addf(what, n == 1 ? "%.0f record" : "%.0f records", n);
    return n > 0;
}

static bool answers_slowly(struct problems *p, struct str *what)
{
    static const char *const lines[] = {"lines"};
    struct metric_counts now;
    double s;

    metric_look_counts("ack_seconds", lines, 1, &now);
    s = metric_quantile(&p->acks[p->acks_at], &now, 0.99);
    if (!isnan(s))
        str_addf(what, "%.1f s", s);
    return s > 0.5; /* false for NaN */
}

static bool denies_much(struct problems *p, struct str *what)
{
    return growing_labels(&p->growths[DENIED], p->growths[DENIED].window_s, what);
}

static bool would_deny(struct problems *p, struct str *what)
{
    return growing_labels(&p->growths[WOULD_DENY], 0, what);
}

static bool is_overloaded(struct problems *p, struct str *what)
{
    return growing_labels(&p->growths[OVERLOAD], 0, what);
}

static bool certificate_within(struct problems *p, int64_t seconds, struct str *what)
{
    int64_t at = p->plan ? certificates_first(p->plan, what) : INT64_MAX;
    int64_t left = (at - p->wall_ns) / NS_PER_SEC;

    if (at == INT64_MAX || left >= seconds)
        return false;
    if (left <= 0) {
        str_adds(what, " has expired");
        return true;
    }
    str_adds(what, " expires in ");
    add_span(what, (double)left);
    return true;
}

static bool expires(struct problems *p, struct str *what)
{
    return certificate_within(p, INT64_C(14) * DAY_S, what);
}

static bool expires_soon(struct problems *p, struct str *what)
{
    return certificate_within(p, INT64_C(2) * DAY_S, what);
}

static bool reload_failed(struct problems *p, struct str *what)
{
    return growing_labels(&p->growths[RELOADS], 0, what);
}

/* What a process can do that has not given up that feature of the metric. */
static const char *right_kept(const char *feature)
{
    static const char *const words[][2] = {
        {"landlock", "it may reach any file (landlock)"},
        {"not_root", "it runs as root (not_root)"},
        {"no_capabilities", "it keeps capabilities (no_capabilities)"},
        {"no_new_privileges", "programs it starts may gain privileges (no_new_privileges)"},
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(words[i][0], feature) == 0)
            return words[i][1];
    }
    return feature;
}

static void add_missing(void *ctx, const char *const *values, double value)
{
    struct str *what = ctx;

    if (value == 0)
        str_addf(what, "%s%s", what->n ? ", " : "", right_kept(values[0]));
}

static bool lacks_sandbox(struct problems *p, struct str *what)
{
    (void)p;
    metric_each("sandbox", add_missing, what);
    return what->n > 0;
}

static bool is_rejected(struct problems *p, struct str *what)
{
    return growing_labels(&p->growths[REJECTED], 5, what);
}

/* --- rows --------------------------------------------------------------------------------- */

enum severity { CRITICAL, WARNING, INFO };

struct row {
    const char *name;    /* of the alert */
    const char *runbook; /* NULL: the name's own section */
    bool (*holds)(struct problems *p, struct str *what);
    enum severity severity;
    int for_s;         /* it has to hold for so long before it is told */
    const char *text;  /* {what}: what it is about; {long}: for how long */
    const char *worse; /* the row that says it all, while it holds; or NULL */
};

/* What is critical first: it wakes somebody by its alert. */
static const struct row rows[] = {
    {.name = "TailraceLedgerImbalance",
     .holds = is_imbalanced,
     .for_s = MINUTE_S,
     .text = "The ledger does not balance: {what}. A line or log is unaccounted for. This must "
             "never happen; keep the spool's directory and the log as they are, and report it."},
    {.name = "TailraceSpoolFailing",
     .holds = spool_fails,
     .text =
         "Records have not been made durable for {long}: the spool's disk is full, read-only or "
         "fails. Calls are passed on to Harness directly, or refused. Look at the disk; don't "
         "restart."},
    {.name = "TailraceLinesRefused",
     .holds = refuses_lines,
     .text = "Log lines were refused in the last 10 minutes ({what}): older clients do not repeat "
             "them, and they miss in live logs."},
    {.name = "TailraceSpoolNearlyFull",
     .runbook = "tailracespoolfillssoon",
     .holds = is_nearly_full,
     .for_s = 30,
     .text = "The spool has little room left: {what}. From nine tenths on lines are "
             "refused. Free room on its disk, or see why upstream does not take what waits."},
    {.name = "TailraceOldestUndeliveredForLong",
     .runbook = "tailraceoldestundelivered",
     .holds = is_old_for_long,
     .text = "A record has waited for its delivery for more than an hour. Its log looks empty in "
             "Harness, and the token that it came with expires after 48 hours."},
    {.name = "TailraceCertificateExpiresSoon",
     .runbook = "tailracecertificateexpires",
     .holds = expires_soon,
     .text = "The certificate of {what}. Clients refuse an expired one: put the new one in place "
             "and reload."},
    {.name = "TailraceUpstreamDown",
     .holds = is_down,
     .severity = WARNING,
     .text = "Upstream, {what}, has been down for {long}. Builds go on and do not notice: what "
             "they send waits in the spool while it has room, and is delivered as soon as upstream "
             "is back."},
    {.name = "TailraceOldestUndelivered",
     .holds = is_old,
     .severity = WARNING,
     .worse = "TailraceOldestUndeliveredForLong",
     .text = "A record has waited for its delivery for more than two minutes. Clients were "
             "answered all the same; steps look as if they had no log in Harness."},
    {.name = "TailraceSpoolFillsSoon",
     .holds = fills_soon,
     .for_s = 2 * MINUTE_S,
     .severity = WARNING,
     .worse = "TailraceSpoolNearlyFull",
     .text = "The spool fills up: {what}. From nine tenths on lines are refused."},
    {.name = "TailraceSpoolSetAside",
     .holds = is_set_aside,
     .severity = WARNING,
     .text = "Damaged databases lie beside the spool: {what}. What waited in them was not "
             "delivered; it can be exported."},
    {.name = "TailraceDeadLetters",
     .holds = has_dead_letters,
     .severity = WARNING,
     .text = "Upstream will never take {what} as sent. What is dead is kept until somebody replays "
             "or drops it: tailracectl dead list."},
    {.name = "TailraceCredentialRefused",
     .holds = refuses_credentials,
     .severity = WARNING,
     .text =
         "The log service has refused {what} for {long}. What came with them is held until a newer "
         "one of the account is taken."},
    {.name = "TailraceUpstreamSlow",
     .runbook = "tailraceupstreamdown",
     .holds = is_slow,
     .severity = WARNING,
     .for_s = 30 * MINUTE_S,
     .text = "Upstream, {what}, has been slowed down for {long}: it fails now and then, and gets "
             "less at a time than it could."},
    {.name = "TailraceSlowAnswers",
     .holds = answers_slowly,
     .severity = WARNING,
     .text = "One line call in a hundred was answered after {what} or more in the last 10 "
             "minutes. The spool's disk is slow, or there is more load than CPU."},
    {.name = "TailraceOverload",
     .holds = is_overloaded,
     .severity = WARNING,
     .text = "Connections or calls were refused in the last 5 minutes, since a budget is used up: "
             "{what}."},
    {.name = "TailraceDenials",
     .holds = denies_much,
     .severity = WARNING,
     .text = "More than one request a second was denied over the last 10 minutes, by rule {what}: "
             "a build needs what the policy does not allow, or somebody looks around."},
    {.name = "TailraceWouldDeny",
     .holds = would_deny,
     .severity = WARNING,
     .text = "Mode report: in the last hour requests passed that would have been denied, by rule "
             "{what}. The policy is not ready to be enforced."},
    {.name = "TailraceCertificateExpires",
     .holds = expires,
     .severity = WARNING,
     .worse = "TailraceCertificateExpiresSoon",
     .text = "The certificate of {what}. Put the new one in place and reload."},
    {.name = "TailraceReloadFailed",
     .holds = reload_failed,
     .severity = WARNING,
     .text = "A reload in the last 15 minutes changed nothing, since the configuration has an "
             "error: the one before is in force. tailrace check names the line."},
    {.name = "TailraceInterceptRejected",
     .holds = is_rejected,
     .severity = WARNING,
     .text = "Clients did not believe intercepted certificates, more than five times in the last "
             "hour: they lack the CA of intercept.ca, or expect another certificate."},
    {.name = "TailraceSandboxMissing",
     .holds = lacks_sandbox,
     .severity = INFO,
     .text = "It has more rights than it needs: {what}."},
};

static const char *const severity_names[] = {
    [CRITICAL] = "critical",
    [WARNING] = "warning",
    [INFO] = "info",
};

/* --- looking ------------------------------------------------------------------------------ */

static void look_at_acks(struct problems *p)
{
    static const char *const lines[] = {"lines"};

    if (p->mono_ns < p->acks_next_ns)
        return;
    p->acks_next_ns = p->mono_ns + INT64_C(10) * MINUTE_S * NS_PER_SEC / SLOTS;
    metric_look_counts("ack_seconds", lines, 1, &p->acks[p->acks_at]);
    p->acks_at = (p->acks_at + 1) % SLOTS;
}

static void look_at(struct problems *p, size_t i)
{
    struct state *s = &p->states[i];
    struct str what = STR_INIT;
    bool holds = rows[i].holds(p, &what);

    XFREE(s->what);
    if (!holds) {
        s->since_mono = 0;
        str_fini(&what);
        return;
    }
    s->what = str_take(&what);
    if (s->since_mono)
        return;
    s->since_mono = p->mono_ns;
    s->since_wall = p->wall_ns;
}

void problems_look(struct problems *p, int64_t mono_ns, int64_t wall_ns)
{
    size_t i;

    p->mono_ns = mono_ns;
    p->wall_ns = wall_ns;
    for (i = 0; i < GROWTHS; i++)
        growth_look(&p->growths[i], mono_ns);
    look_at_acks(p);
    for (i = 0; i < ARRAY_LEN(rows); i++)
        look_at(p, i);
}

static void on_tick(void *ctx)
{
    struct problems *p = ctx;

    metric_collect();
    problems_look(p, clock_mono_ns(), clock_wall_ns());
    ev_timer_arm(p->timer, TICK_MS);
}

struct problems *problems_new(struct ev_loop *loop)
{
    struct problems *p = XNEW(struct problems);

    memcpy(p->growths, growths, sizeof(growths));
    p->states = xcalloc(ARRAY_LEN(rows), sizeof(*p->states));
    p->timer = ev_timer_new(loop, on_tick, p);
    ev_timer_arm(p->timer, TICK_MS);
    return p;
}

void problems_configure(struct problems *p, const struct plan *plan)
{
    p->plan = plan;
}

void problems_free(struct problems **pp)
{
    struct problems *p = *pp;
    size_t i, k;

    *pp = NULL;
    if (!p)
        return;
    ev_timer_free(&p->timer);
    for (i = 0; i < GROWTHS; i++) {
        for (k = 0; k < p->growths[i].n; k++)
            xfree(p->growths[i].series[k].label);
        xfree(p->growths[i].series);
    }
    for (i = 0; i < ARRAY_LEN(rows); i++)
        xfree(p->states[i].what);
    xfree(p->states);
    xfree(p);
}

/* --- telling ------------------------------------------------------------------------------ */

/* "1 s", "12 s", "5 min", "3 h 20 min", "4 days". */
static void add_span(struct str *out, double seconds)
{
    long long s = seconds > 0 ? (long long)seconds : 0;

    if (s < INT64_C(2) * MINUTE_S)
        str_addf(out, "%lld s", TR_MAX(s, 1LL));
    else if (s < INT64_C(2) * HOUR_S)
        str_addf(out, "%lld min", s / MINUTE_S);
    else if (s < INT64_C(2) * DAY_S)
        str_addf(out, "%lld h %lld min", s / HOUR_S, s % HOUR_S / MINUTE_S);
    else
        str_addf(out, "%lld days", s / DAY_S);
}

static void add_sentence(struct str *out, const char *text, const struct state *s, int64_t now)
{
    const char *brace;

    while ((brace = strchr(text, '{')) != NULL) {
        str_add(out, text, (size_t)(brace - text));
        if (strncmp(brace, "{what}", 6) == 0)
            str_adds(out, s->what ? s->what : "");
        else
            add_span(out, (double)(now - s->since_mono) / NS_PER_SEC);
        text = strchr(brace, '}') + 1;
    }
    str_adds(out, text);
}

static bool is_told(const struct problems *p, size_t i)
{
    const struct state *s = &p->states[i];
    size_t k;

    if (!s->since_mono || p->mono_ns - s->since_mono < rows[i].for_s * NS_PER_SEC)
        return false;
    for (k = 0; rows[i].worse && k < ARRAY_LEN(rows); k++) {
        if (strcmp(rows[k].name, rows[i].worse) == 0 && p->states[k].since_mono)
            return false;
    }
    return true;
}

static void add_runbook(struct json *j, const struct row *r)
{
    struct str link = STR_INIT;
    const char *c;

    str_addc(&link, '#');
    for (c = r->runbook ? r->runbook : r->name; *c; c++)
        str_addc(&link, (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c));
    json_text(j, "runbook", str_view(&link));
    str_fini(&link);
}

static void tell(const struct problems *p, size_t i, struct json *j)
{
    struct str text = STR_INIT;

    add_sentence(&text, rows[i].text, &p->states[i], p->mono_ns);
    json_open(j, NULL, '{');
    json_text(j, "name", view_str(rows[i].name));
    json_text(j, "severity", view_str(severity_names[rows[i].severity]));
    json_time(j, "since", p->states[i].since_wall);
    json_text(j, "text", str_view(&text));
    add_runbook(j, &rows[i]);
    json_close(j, '}');
    str_fini(&text);
}

void problems_report(struct problems *p, const char *name, struct json *j)
{
    size_t i;

    problems_look(p, clock_mono_ns(), clock_wall_ns());
    json_open(j, name, '[');
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        if (is_told(p, i))
            tell(p, i, j);
    }
    json_close(j, ']');
}
