#include "admin/events.h"

#include <string.h>
#include "base/list.h"
#include "base/str.h"
#include "base/xmem.h"
#include "rt/command.h"

enum {
    TICK_MS = 1000,
    HISTORY_TICKS = 10,
};

struct events {
    struct ev_loop *loop;
    struct ev_timer *timer; /* armed while somebody listens */
    struct command command;
    struct list clients; /* struct client */
    size_t n_clients;
    struct list asks; /* struct ask */
    struct str text;  /* what is sent when all of them are answered */
    unsigned ticks;
};

struct client {
    struct list link;
    struct events *e; /* NULL: gone */
    struct command_call *call;
    bool ready; /* it has taken what it was sent last */
};

/* A command that we run ourselves. */
struct ask {
    struct list link;
    struct events *e;     /* NULL: gone; the loop's thread only */
    struct ev_loop *loop; /* lives longer than commands do */
    const char *event;
    struct command_call call;
    struct ev_task task;
    int status;
    struct str answer;
};

/* --- those who listen ---------------------------------------------------------------------- */

static void client_end(struct client *c)
{
    if (c->e) {
        list_remove(&c->link);
        c->e->n_clients--;
    }
    command_end(c->call, true);
    xfree(c);
}

static void on_room(void *ctx)
{
    struct client *c = ctx;

    if (!c->e || command_abandoned(c->call))
        client_end(c);
    else
        c->ready = true;
}

static void send_to_all(struct events *e, struct view text)
{
    struct list *it, *tmp;

    list_each (it, tmp, &e->clients) {
        struct client *c = list_entry(it, struct client, link);

        if (!c->ready)
            continue;
        c->ready = false;
        command_write(c->call, text);
    }
}

/* Who left while nothing was on its way to him. */
static void forget_gone(struct events *e)
{
    struct list *it, *tmp;

    list_each (it, tmp, &e->clients) {
        struct client *c = list_entry(it, struct client, link);

        if (c->ready && command_abandoned(c->call))
            client_end(c);
    }
}

/* --- what they hear ------------------------------------------------------------------------ */

/* Line ends between JSON's parts would end the event's data. */
static void add_event(struct str *out, const char *event, struct view json)
{
    size_t i;

    str_addf(out, "event: %s\ndata: ", event);
    for (i = 0; i < json.n; i++)
        str_addc(out, json.p[i] == '\n' || json.p[i] == '\r' ? ' ' : json.p[i]);
    str_adds(out, "\n\n");
}

static void ask_due(struct ev_task *task)
{
    struct ask *a = container_of(task, struct ask, task);
    struct events *e = a->e;

    if (e) {
        list_remove(&a->link);
        if (a->status == 200)
            add_event(&e->text, a->event, str_view(&a->answer));
        else
            str_adds(&e->text, ": nothing to say\n\n");
        if (list_empty(&e->asks)) {
            send_to_all(e, str_view(&e->text));
            str_clear(&e->text);
        }
    }
    str_fini(&a->answer);
    command_call_fini(&a->call);
    xfree(a);
}

static struct ask *of(struct command_call *call)
{
    return container_of(call, struct ask, call);
}

static void ask_begin(struct command_call *call, int status, const char *type)
{
    (void)type;
    of(call)->status = status;
}

static void ask_write(struct command_call *call, struct view piece)
{
    str_addv(&of(call)->answer, piece);
}

static void ask_end(struct command_call *call, bool whole)
{
    struct ask *a = of(call);

    if (!whole)
        a->status = 0;
    ev_post(a->loop, &a->task);
}

static const struct command_sink sink = {ask_begin, ask_write, ask_end};

static void ask(struct events *e, const char *path, const char *last)
{
    struct ask *a = XNEW(struct ask);

    a->e = e;
    a->loop = e->loop;
    a->event = path;
    a->task.run = ask_due;
    a->call.sink = &sink;
    a->call.kind = COMMAND_READ;
    a->call.open = true;
    a->call.parts = xcalloc(1, sizeof(*a->call.parts));
    a->call.parts[a->call.n_parts++] = xstrdup(path);
    if (last) {
        a->call.args = xcalloc(1, sizeof(*a->call.args));
        a->call.args[a->call.n_args++] =
            (struct command_name){.name = xstrdup("last"), .value = xstrdup(last)};
    }
    list_append(&e->asks, &a->link);
    command_run(&a->call);
}

static void on_tick(void *ctx)
{
    struct events *e = ctx;

    forget_gone(e);
    if (!e->n_clients)
        return;
    ev_timer_arm(e->timer, TICK_MS);
    if (!list_empty(&e->asks))
        return; /* not answered yet: what would be asked for again */
    ask(e, "status", NULL);
    if (e->ticks++ % HISTORY_TICKS == 0)
        ask(e, "history", "1");
}

static void run_events(void *ctx, struct command_call *call)
{
    struct events *e = ctx;
    struct client *c;

    forget_gone(e);
    if (e->n_clients >= EVENTS_CLIENTS_MAX) {
        command_fail(call, 503, "there are %d who listen already", EVENTS_CLIENTS_MAX);
        return;
    }
    c = XNEW(struct client);
    c->e = e;
    c->call = call;
    list_append(&e->clients, &c->link);
    e->n_clients++;
    command_stream(call, "text/event-stream", on_room, c);
    command_write(call, VIEW_LIT("retry: 2000\n\n")); /* the head goes with it */
    if (!ev_timer_armed(e->timer))
        ev_timer_arm(e->timer, 0);
}

struct events *events_new(struct ev_loop *loop)
{
    struct events *e = XNEW(struct events);

    e->loop = loop;
    e->timer = ev_timer_new(loop, on_tick, e);
    list_init(&e->clients);
    list_init(&e->asks);
    e->command = (struct command){
        .path = "events",
        .text = "status each second and history each ten, as server-sent events",
        .run = run_events,
        .ctx = e,
    };
    command_add(&e->command);
    return e;
}

void events_free(struct events **ep)
{
    struct events *e = *ep;
    struct list *it, *tmp;

    *ep = NULL;
    if (!e)
        return;
    command_remove(&e->command);
    list_each (it, tmp, &e->clients) {
        struct client *c = list_entry(it, struct client, link);

        if (c->ready) {
            client_end(c);
        } else {
            list_remove(&c->link);
            c->e = NULL; /* on_room is still to come */
        }
    }
    list_each (it, tmp, &e->asks) {
        struct ask *a = list_entry(it, struct ask, link);

        list_remove(&a->link);
        a->e = NULL;
    }
    ev_timer_free(&e->timer);
    str_fini(&e->text);
    xfree(e);
}
