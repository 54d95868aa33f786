#include "app/passages.h"

#include "app/gateway.h"
#include "base/xmem.h"
#include "egress/denials.h"
#include "egress/tunnel_report.h"

enum {
    LIMIT_USUAL = 100,
    /* Each walks over all tunnels in the threads that serve them, and admin listeners let anybody
     * ask who reaches them. */
    ASKS_MAX = 8,
};

static unsigned asks; /* under way; the main thread's */

/* One question to all workers. */
struct asked {
    struct command_call *call;
    struct ev_loop *back;
    struct tunnel_ask ask;
    struct tunnel_part **parts; /* one for each worker, which fills it */
    unsigned n, waiting;
    struct asked_worker {
        struct ev_task task;
        struct asked *asked;
        struct worker *w;
        unsigned i;
    } workers[];
};

static void answer(struct asked *a)
{
    struct str out = STR_INIT;
    unsigned i;

    tunnel_report_join(a->parts, a->n, &a->ask, &out);
    str_addc(&out, '\n');
    command_reply(a->call, 200, str_view(&out));
    str_fini(&out);
    for (i = 0; i < a->n; i++)
        tunnel_part_free(&a->parts[i]);
    xfree(a->parts);
    xfree(a);
    asks--;
}

static void told(struct ev_task *task)
{
    struct asked *a = container_of(task, struct asked_worker, task)->asked;

    if (--a->waiting == 0)
        answer(a);
}

static void tell(struct ev_task *task)
{
    struct asked_worker *aw = container_of(task, struct asked_worker, task);

    if (aw->w->gate) /* else the worker is being taken apart */
        aw->asked->parts[aw->i] = tunnel_report_take(aw->w->gate, &aw->asked->ask);
    task->run = told;
    ev_post(aw->asked->back, task);
}

void passages_run_tunnels(void *gateway, struct command_call *call)
{
    struct gateway *g = gateway;
    struct tunnel_ask ask = {.search = command_arg(call, "search")};
    struct asked *a;
    unsigned i;

    if (tunnel_by_parse(command_arg(call, "by"), &ask.by) < 0) {
        command_fail(call, 400, "by: use destination, identity, client or rule");
        return;
    }
    ask.limit = (size_t)command_number(call, "limit", LIMIT_USUAL, TUNNEL_REPORT_MAX);
    if (!ask.limit)
        return;
    if (asks == ASKS_MAX) {
        command_fail(call, 503, "too many ask for this at once");
        return;
    }
    asks++;
    a = xcalloc(1, sizeof(*a) + g->n_workers * sizeof(a->workers[0]));
    a->call = call;
    a->back = g->loop;
    a->ask = ask;
    a->n = a->waiting = g->n_workers;
    a->parts = xcalloc(a->n, sizeof(*a->parts)); /* NOLINT(bugprone-sizeof-expression): pointers */
    for (i = 0; i < a->n; i++) {
        a->workers[i] =
            (struct asked_worker){.task = {.run = tell}, .asked = a, .w = &g->workers[i], .i = i};
        ev_post(g->workers[i].loop, &a->workers[i].task);
    }
}

void passages_run_denials(void *gateway, struct command_call *call)
{
    size_t limit = (size_t)command_number(call, "limit", DENIALS_KEPT, DENIALS_KEPT);
    struct str out = STR_INIT;

    (void)gateway;
    if (!limit)
        return;
    denials_report(&out, command_arg(call, "search"), limit);
    str_addc(&out, '\n');
    command_reply(call, 200, str_view(&out));
    str_fini(&out);
}
