/*
 * The control socket and the admin pages: a request whose target and Accept field are the input.
 * The first byte chooses.
 *
 * Oracle: it is answered with a status; a command sees as many parts as its path has, none of them
 * empty.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "admin/admin.h"
#include "admin/control.h"
#include "fuzz/turns.h"
#include "net/listen_unix.h"
#include "rt/command.h"

enum { TURNS_MAX = 2000 };

static struct turns turns;
static struct control *control;
static char dir[] = "/tmp/fuzz_control.XXXXXX";
static char path[64];

static void run_echo(void *ctx, struct command_call *call)
{
    const char *arg = command_arg(call, "a");
    const char *part = command_part(call, 1);

    (void)ctx;
    ASSERT(part && *part && !command_part(call, 2));
    if (arg && *arg == 'f')
        command_fail(call, 400, "no: %s", arg);
    else
        command_reply(call, 200, VIEW_LIT("{}"));
}

static struct command commands[] = {
    {.path = "echo/*", .kind = COMMAND_READ, .text = "echo", .run = run_echo},
    {.path = "echo/*", .kind = COMMAND_ACTION, .text = "echo", .run = run_echo},
};

static void end(void)
{
    control_close(&control);
    rmdir(dir);
}

static void begin(void)
{
    struct control_opts o = {.path = path};
    struct err e;

    if (control)
        return;
    turns_init(&turns);
    ASSERT(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/socket", dir);
    command_add(&commands[0]);
    command_add(&commands[1]);
    control = control_open(turns.loop, &o, &e);
    ASSERT(control != NULL);
    atexit(end);
}

static bool is_target(struct view in)
{
    return h1_is_target(in) && in.p[0] == '/';
}

static void try_socket(struct view in, bool post)
{
    struct str req = STR_INIT;
    struct err e;
    size_t got = 0;
    int fd, i;

    if (!is_target(in) || in.n > 4000)
        return;
    begin();
    fd = net_connect_unix(path, &e);
    ASSERT(fd >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    str_addf(&req, "%s /api/v1", post ? "POST" : "GET");
    str_addv(&req, in);
    str_adds(&req, " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    turns_send(fd, str_view(&req));
    for (i = 0; i < TURNS_MAX && !got; i++) {
        turns_run(&turns, 2);
        got = turns_drain(fd);
    }
    ASSERT(got > 0);
    close(fd);
    turns_run(&turns, 3);
    str_fini(&req);
}

static void try_page(struct view in)
{
    const char *nl = in.n ? memchr(in.p, '\n', in.n) : NULL;
    struct view target = nl ? view_of(in.p, (size_t)(nl - in.p)) : in;
    struct view accept = nl ? view_from(in, target.n + 1) : VIEW_NONE;
    struct admin_response r = {0};

    admin_respond(VIEW_LIT("GET"), target, accept, &r);
    ASSERT(r.status == 200 || r.status == 404 || r.status == 503);
    str_fini(&r.body);
    admin_wants_openmetrics(accept);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    uint8_t which = fuzz_byte(&in);

    if (which & 1)
        try_page(in);
    else
        try_socket(in, which & 2);
    return 0;
}
