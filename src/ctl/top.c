/* tailracectl top: how the gateway is, drawn again with every event it sends. */
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "base/xmem.h"
#include "ctl/call.h"
#include "ctl/commands.h"
#include "ctl/human.h"
#include "ctl/loop.h"
#include "ctl/status.h"
#include "ctl/term.h"
#include "rt/clock.h"

#define GET json_object_get

enum {
    TURN_MS = 1000,
    RETRY_MS = 1000,
    STALE_MS = 3500,   /* events come each second */
    REFRESH_MS = 1000, /* of the table below */
    BARS_TITLE = 14,
    POINTS_MAX = 360
};

/* --- the tables below ------------------------------------------------------------------------- */

static void show_streams(struct page *p, const json_t *answer, size_t rows)
{
    char now[25];

    status_now(now);
    list_streams(p, answer, now, rows);
}

static void show_denials(struct page *p, const json_t *answer, size_t rows)
{
    char now[25];

    status_now(now);
    list_denials(p, answer, now, rows);
}

static const struct pane {
    char key;
    const char *name, *path;
    void (*show)(struct page *p, const json_t *answer, size_t rows);
} panes[] = {
    {'s', "streams", "streams?state=all&sort=backlog&limit=100", show_streams},
    {'t', "tunnels", "tunnels?limit=100", list_tunnels},
    {'d', "denials", "denials?limit=100", show_denials},
    {'u', "upstreams", "upstreams", status_upstreams},
};

/* --- what is known ---------------------------------------------------------------------------- */

struct top {
    struct ctl *c;
    struct loop *loop;
    const struct pane *pane, *asked; /* NULL: nobody is asked now */
    json_t *status, *points, *list;  /* the last of each; NULL: none yet */
    struct str event;                /* the name of the one that is coming */
    int64_t heard_ms, asked_ms, connect_ms;
    bool connected, changed, quit;
    bool polls;    /* a gateway that has no events is asked for its status instead */
    char *failure; /* why nothing comes */
};

static int64_t now_ms(void)
{
    return clock_mono_ns() / NS_PER_MS;
}

static void take_json(json_t **to, json_t *json)
{
    if (!json)
        return;
    json_decref(*to);
    *to = json;
}

static void fail(struct top *t, const char *why)
{
    xfree(t->failure);
    t->failure = why ? xstrdup(why) : NULL;
}

/* --- events ----------------------------------------------------------------------------------- */

static void take_event(struct top *t, const char *data)
{
    json_t *json = json_loads(data, 0, NULL);

    t->heard_ms = now_ms();
    t->changed = true;
    if (strcmp(str_c(&t->event), "history") == 0 && json_is_array(t->points)) {
        json_array_append(t->points, json);
        if (json_array_size(t->points) > POINTS_MAX)
            json_array_remove(t->points, 0);
    } else if (strcmp(str_c(&t->event), "status") == 0 && json) {
        take_json(&t->status, json_incref(json));
        fail(t, NULL);
    }
    json_decref(json);
}

static void event_line(void *ctx, const char *text)
{
    struct top *t = ctx;

    if (strncmp(text, "event:", 6) == 0) {
        str_clear(&t->event);
        str_adds(&t->event, text + 6 + (text[6] == ' '));
    } else if (strncmp(text, "data:", 5) == 0) {
        take_event(t, text + 5 + (text[5] == ' '));
    }
}

static void events_end(void *ctx, const struct ctl_answer *answer, bool whole)
{
    struct top *t = ctx;
    const char *why = ctl_text(answer->json, "error");

    (void)whole;
    t->polls = answer->status == 404;
    t->connected = false;
    t->connect_ms = now_ms() + RETRY_MS;
    t->changed = true;
    fail(t, *why ? why : "the gateway does not answer");
}

/* --- other answers: all of their lines, put together ------------------------------------------ */

struct text_of {
    struct top *top;
    struct str text;
    void (*take)(struct top *t, json_t *json); /* NULL: it failed */
};

static void add_line(void *ctx, const char *text)
{
    struct text_of *x = ctx;

    str_adds(&x->text, text);
    str_addc(&x->text, '\n');
}

static void text_free(void *ctx)
{
    struct text_of *x = ctx;

    str_fini(&x->text);
    xfree(x);
}

static void text_end(void *ctx, const struct ctl_answer *answer, bool whole)
{
    struct text_of *x = ctx;
    struct top *t = x->top;
    json_t *json = NULL;

    if (whole && answer->status < 300)
        json = json_loadb(str_c(&x->text), x->text.n, 0, NULL);
    x->take(t, json);
    t->changed = true;
    text_free(x);
}

static bool ask(struct top *t, const char *path, void (*take)(struct top *t, json_t *json))
{
    struct text_of *x = XNEW(struct text_of);
    struct loop_handler h = {add_line, text_end, text_free, x};

    x->top = t;
    x->text = STR_INIT;
    x->take = take;
    return loop_get(t->loop, path, &h);
}

static void take_history(struct top *t, json_t *json)
{
    json_t *points = GET(json, "points");

    if (points)
        take_json(&t->points, json_incref(points));
    json_decref(json);
}

static void take_status(struct top *t, json_t *json)
{
    t->connected = false;
    t->connect_ms = now_ms() + RETRY_MS;
    if (!json) {
        t->polls = false;
        return;
    }
    t->heard_ms = now_ms();
    take_json(&t->status, json);
    fail(t, NULL);
}

static void take_list(struct top *t, json_t *json)
{
    if (t->asked == t->pane)
        take_json(&t->list, json);
    else
        json_decref(json);
    t->asked = NULL;
}

/* --- the screen ------------------------------------------------------------------------------- */

static void add_failure(struct page *p, const struct top *t)
{
    int64_t silent = now_ms() - t->heard_ms;

    if (!t->failure && silent < STALE_MS)
        return;
    page_addf(p, RED, "no news for %s", human_seconds_of((double)silent / 1000).text);
    if (t->failure) {
        page_add(p, RED, ": ");
        page_add(p, RED, t->failure);
    }
    page_end(p);
}

static void add_bars(struct page *p, const struct top *t, const char *title, const char *name)
{
    page_add(p, DIM, title);
    page_to(p, BARS_TITLE);
    history_bars(p, t->points, name,
                 page_width(p) > BARS_TITLE ? page_width(p) - BARS_TITLE : POINTS_MAX);
    page_end(p);
}

static void add_pane(struct page *p, const struct top *t, size_t rows)
{
    page_line(p, BOLD, t->pane->name);
    if (t->list)
        t->pane->show(p, t->list, rows);
}

static void add_keys(struct page *p, const struct top *t)
{
    size_t i;

    page_add(p, DIM, "q quit");
    for (i = 0; i < ARRAY_LEN(panes); i++)
        page_addf(p, t->pane == &panes[i] ? BOLD : DIM, "  %c %s", panes[i].key, panes[i].name);
    page_end(p);
}

/* In `lines` lines, the last of which is for the keys; 0: as many as it takes, without those. */
static struct page *make_page(const struct top *t, const struct look *look, size_t lines)
{
    struct page *p = page_new(look, look->width);
    bool roomy = lines == 0 || lines >= 40;

    add_failure(p, t);
    if (t->status) {
        status_verdict(p, t->status);
        status_problems(p, t->status, roomy ? SIZE_MAX : 3, false);
        page_end(p);
        if (roomy)
            status_figures(p, t->status);
        else
            status_short(p, t->status);
        page_end(p);
        if (json_array_size(t->points)) {
            add_bars(p, t, "lines in", "lines_in");
            add_bars(p, t, "they wait", "spooled_lines");
            page_end(p);
        }
        if (t->pane->key != 'u') {
            status_upstreams(p, t->status, roomy ? 0 : 3);
            page_end(p);
        }
    }
    add_pane(p, t, lines > page_lines(p) + 3 ? lines - page_lines(p) - 3 : lines ? 1 : 20);
    return p;
}

static void draw(struct top *t)
{
    size_t lines, columns, i;
    struct look look = t->c->look;
    struct page *p, *shown;

    term_size(&lines, &columns);
    look.width = columns;
    p = make_page(t, &look, lines);
    shown = page_new(&look, columns);
    for (i = 0; i < lines - 1; i++) {
        if (i < page_lines(p))
            page_copy_line(shown, p, i);
        page_end(shown);
    }
    add_keys(shown, t);
    term_draw(shown, lines);
    page_free(&p);
    page_free(&shown);
    t->changed = false;
}

/* --- turns ------------------------------------------------------------------------------------ */

static void connect_again(struct top *t)
{
    struct loop_handler h = {event_line, events_end, NULL, t};

    if (t->connected || now_ms() < t->connect_ms)
        return;
    t->connected = t->polls ? ask(t, "status", take_status) : loop_get(t->loop, "events", &h);
    ask(t, "history", take_history);
}

static void ask_again(struct top *t)
{
    if (t->asked || !(t->connected || t->polls) || now_ms() < t->asked_ms + REFRESH_MS)
        return;
    t->asked_ms = now_ms();
    t->asked = t->pane;
    if (!ask(t, t->pane->path, take_list))
        t->asked = NULL;
}

static void press(struct top *t, int key)
{
    size_t i;

    if (key == 'q' || key == 'Q' || key == 4)
        t->quit = true;
    for (i = 0; i < ARRAY_LEN(panes); i++) {
        if (panes[i].key != key || t->pane == &panes[i])
            continue;
        t->pane = &panes[i];
        json_decref(t->list);
        t->list = NULL;
        t->asked_ms = 0;
        t->changed = true;
    }
}

static void press_keys(struct top *t)
{
    char keys[TERM_KEYS];
    size_t n = term_keys(keys), i;

    for (i = 0; i < n; i++)
        press(t, keys[i]);
}

/* The signal that ends it, or 0. */
static int take_signal(struct top *t, int signo)
{
    if (signo == SIGWINCH) {
        t->changed = true;
        return 0;
    }
    if (signo == SIGTSTP) {
        term_leave();
        raise(SIGSTOP); /* until somebody says fg */
        term_enter();
        t->changed = true;
        return 0;
    }
    return signo;
}

static int watch(struct top *t)
{
    int signo = 0, what;

    term_enter();
    while (!t->quit && !signo) {
        connect_again(t);
        ask_again(t);
        what = loop_turn(t->loop, true, TURN_MS);
        if (what == LOOP_KEY)
            press_keys(t);
        else if (what > 0)
            signo = take_signal(t, what);
        if (t->changed || now_ms() > t->heard_ms + STALE_MS)
            draw(t);
    }
    term_leave();
    return signo;
}

/* Not on a terminal: once. */
static int once(struct top *t)
{
    struct ctl_answer a;
    int rc = ctl_call(t->c, "GET", "status", &a);
    struct page *p;

    t->status = json_incref(a.json);
    ctl_answer_fini(&a);
    if (rc == CTL_OK && t->c->json) {
        ctl_show_json(t->status);
        return rc;
    }
    if (rc == CTL_OK) {
        rc = ctl_call(t->c, "GET", t->pane->path, &a);
        t->list = json_incref(a.json);
        ctl_answer_fini(&a);
    }
    if (rc == CTL_OK) {
        p = make_page(t, &t->c->look, 0);
        page_print(p, stdout);
        page_free(&p);
    }
    return rc;
}

static int live(struct top *t)
{
    int rc = ctl_reach(t->c), signo;

    if (rc != CTL_OK)
        return rc;
    t->loop = loop_open(t->c);
    if (!t->loop)
        return CTL_FAILED;
    signo = watch(t);
    loop_close(&t->loop);
    /* ^C is how one leaves; what else ends us does so as ever, but with the terminal as it was. */
    if (signo && signo != SIGINT)
        raise(signo);
    return CTL_OK;
}

int ctl_run_top(struct ctl *c, int n, char **args)
{
    struct top t = {.c = c, .pane = &panes[0], .heard_ms = now_ms(), .event = STR_INIT};
    int rc;

    (void)n;
    (void)args;
    rc = term_is_there() && !c->json ? live(&t) : once(&t);
    json_decref(t.status);
    json_decref(t.points);
    json_decref(t.list);
    str_fini(&t.event);
    xfree(t.failure);
    return rc;
}
