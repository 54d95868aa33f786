/* tailracectl tail: a stream's lines as they pass. */
#include <signal.h>
#include <string.h>
#include <strings.h>
#include "ctl/call.h"
#include "ctl/commands.h"
#include "ctl/loop.h"
#include "ctl/stream.h"

#define GET json_object_get

struct tail {
    struct ctl *c;
    bool ended; /* the stream */
    int rc;     /* -1: goes on */
};

static void say_missed(json_int_t n)
{
    fflush(stdout);
    fprintf(stderr, "tailracectl: %" JSON_INTEGER_FORMAT " lines were missed here\n", n);
}

/* One line of a build's log; its own line end or ours. */
static void show_line(struct tail *t, const json_t *line)
{
    const char *level = ctl_text(line, "level");
    struct str text = STR_INIT;
    bool red = t->c->look.colour && (strcasecmp(level, "error") == 0);

    text_add_log(&text, ctl_text(line, "out"));
    if (text.n && text.p[text.n - 1] == '\n')
        text.p[--text.n] = '\0';
    printf("%s%s%s\n", red ? "\033[31m" : "", str_c(&text), red ? "\033[0m" : "");
    str_fini(&text);
}

static void show_record(struct tail *t, const json_t *record)
{
    const json_t *lines = GET(record, "lines");
    json_t *line;
    size_t i;

    if (json_is_array(lines)) {
        json_array_foreach(lines, i, line) show_line(t, line);
    } else if (GET(record, "out")) {
        show_line(t, record);
    }
}

/* It may be opened again: a step that is tried once more has the same key. */
static void say_closed(void)
{
    fputs("tailracectl: this stream is closed; waiting for it to be opened again (^C ends this)\n",
          stderr);
}

static void take_line(void *ctx, const char *text)
{
    struct tail *t = ctx;
    json_t *record = json_loads(text, 0, NULL);

    if (GET(record, "end"))
        t->ended = true;
    if (t->c->json && record) {
        ctl_show_json_line(record);
    } else if (strcmp(ctl_text(record, "begin"), "closed") == 0) {
        say_closed();
    } else if (json_is_integer(GET(record, "missed"))) {
        say_missed(ctl_int(record, "missed"));
    } else if (record) {
        show_record(t, record);
    }
    json_decref(record);
    /* Whoever reads it (head, less) may have enough. */
    if (fflush(stdout) != 0)
        t->rc = CTL_OK;
}

static void take_end(void *ctx, const struct ctl_answer *answer, bool whole)
{
    struct tail *t = ctx;

    t->rc = CTL_OK;
    if (answer->status >= 300) {
        ctl_say_failure(answer);
        t->rc = CTL_FAILED;
    } else if (!whole && !t->ended) {
        fputs("tailracectl: the gateway broke the answer off\n", stderr);
        t->rc = CTL_UNREACHABLE;
    }
}

static int follow(struct ctl *c, const char *path)
{
    struct tail t = {.c = c, .rc = -1};
    struct loop_handler h = {take_line, take_end, NULL, &t};
    struct loop *l = loop_open(c);
    int signo = 0;

    if (!l || !loop_get(l, path, &h))
        t.rc = CTL_FAILED;
    while (t.rc < 0 && !signo) {
        signo = loop_turn(l, false, 60000);
        if (signo == SIGTSTP)
            raise(SIGSTOP);
        if (signo == SIGTSTP || signo == SIGWINCH)
            signo = 0;
    }
    loop_close(&l);
    /* ^C is how one leaves; what else ends us does so as ever. */
    if (signo && signo != SIGINT)
        raise(signo);
    return TR_MAX(t.rc, CTL_OK);
}

int ctl_run_tail(struct ctl *c, int n, char **args)
{
    struct str path = STR_INIT;
    int rc;

    (void)n;
    str_adds(&path, "tail");
    rc = stream_find(c, args[0], &path);
    ctl_add_arg(&path, "last", c->last);
    if (rc == CTL_OK)
        rc = follow(c, str_c(&path));
    str_fini(&path);
    return rc;
}
