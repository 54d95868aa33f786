/* tailracectl spool: what the running gateway's spool holds, and whether it is sound. */
#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/xmem.h"
#include "ctl/commands.h"
#include "ctl/human.h"

#define GET json_object_get

enum { LABEL = 18 };

/* --- stats ------------------------------------------------------------------------------------ */

static void row(struct page *p, const char *name, struct human value)
{
    page_add(p, DIM, name);
    page_to(p, LABEL);
    page_line(p, PLAIN, value.text);
}

static void row_yes(struct page *p, const char *name, bool yes)
{
    static const struct human words[] = {{"no"}, {"yes"}};

    row(p, name, words[yes]);
}

static void show_stats(struct page *p, const json_t *status)
{
    static const struct human not_filling = {"not filling"};
    const json_t *spool = GET(status, "spool"), *full = GET(spool, "full_in_seconds");

    row(p, "lines", human_exact(ctl_at(status, "ledger.lines.spooled")));
    row(p, "logs", human_exact(ctl_at(status, "ledger.blobs.spooled")));
    row(p, "dead letters", human_exact(GET(status, "dead_letters")));
    row(p, "size", human_bytes(GET(spool, "bytes")));
    row(p, "limit", human_bytes(GET(spool, "limit_bytes")));
    row(p, "room", human_bytes(GET(spool, "room_bytes")));
    row(p, "disk free", human_bytes(GET(spool, "disk_free_bytes")));
    row(p, "full in", json_is_number(full) ? human_seconds(full) : not_filling);
    row(p, "oldest", human_seconds(GET(spool, "oldest_seconds")));
    row(p, "set aside", human_exact(GET(spool, "set_aside")));
    row(p, "set aside, size", human_bytes(GET(spool, "set_aside_bytes")));
    row(p, "commits", human_exact(GET(spool, "commits")));
    row(p, "written", human_bytes(GET(spool, "written_bytes")));
    row_yes(p, "sealed", json_is_true(GET(spool, "sealed")));
    row_yes(p, "can be written", !json_is_true(GET(spool, "failing")));
}

int ctl_run_spool_stats(struct ctl *c, int n, char **args)
{
    struct ctl_answer a;
    int rc = ctl_call(c, "GET", "status", &a);

    (void)n;
    (void)args;
    if (rc == CTL_OK && c->json) {
        ctl_show_json(GET(a.json, "spool"));
    } else if (rc == CTL_OK) {
        struct page *p = page_new(&c->look, c->look.width);

        show_stats(p, a.json);
        page_print(p, stdout);
        page_free(&p);
    }
    ctl_answer_fini(&a);
    return rc;
}

/* --- verify ----------------------------------------------------------------------------------- */

struct gateway {
    char *config;    /* its file: it names the spool and its key */
    struct str home; /* the directory that its paths begin in; empty: they need none */
};

static int look_at_gateway(struct ctl *c, struct gateway *g)
{
    struct ctl_answer a;
    int rc = ctl_call(c, "GET", "status", &a);

    *g = (struct gateway){.home = STR_INIT};
    if (rc == CTL_OK) {
        g->config = xstrdup(ctl_text(GET(a.json, "config"), "file"));
        if (g->config[0] != '/')
            str_addf(&g->home, "/proc/%" JSON_INTEGER_FORMAT "/cwd", ctl_int(a.json, "pid"));
    }
    ctl_answer_fini(&a);
    return rc;
}

/* The gateway's program, which is installed beside ours and knows how to read a spool. */
static char *gateway_program(void)
{
    char own[4096];
    ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
    struct str path = STR_INIT;

    own[TR_MAX(n, 0)] = '\0';
    if (strrchr(own, '/'))
        *strrchr(own, '/') = '\0';
    str_addf(&path, "%s/tailrace", own);
    return str_take(&path);
}

/* Run `tailrace spool verify -c FILE` with its standard output to `out`; its exit status, or -1. */
static int run_verify(const struct gateway *g, int out)
{
    char spool[] = "spool", verb[] = "verify", option[] = "-c";
    char *program = gateway_program(), *argv[] = {program, spool, verb, option, g->config, NULL};
    posix_spawn_file_actions_t actions;
    int rc, status = 0;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    if (g->home.n)
        posix_spawn_file_actions_addchdir_np(&actions, str_c(&g->home));
    rc = posix_spawn(&pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (rc == 0 && waitpid(pid, &status, 0) < 0)
        rc = errno;
    if (rc != 0)
        fprintf(stderr, "tailracectl: cannot run %s: %s\n", program, strerror(rc));
    xfree(program);
    return rc == 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Everything that was written to `said`, line by line. */
static json_t *lines_of(FILE *said)
{
    json_t *lines = json_array();
    char *line = NULL;
    size_t room = 0;
    ssize_t n;

    rewind(said);
    while ((n = getline(&line, &room, said)) > 0) {
        line[n - (line[n - 1] == '\n')] = '\0';
        json_array_append_new(lines, json_string(line));
    }
    xfree(line);
    return lines;
}

static int verify_as_json(const struct gateway *g)
{
    FILE *said = tmpfile();
    json_t *answer;
    int rc;

    if (!said) {
        fprintf(stderr, "tailracectl: cannot make a temporary file: %s\n", strerror(errno));
        return -1;
    }
    rc = run_verify(g, fileno(said));
    answer = json_pack("{s:b, s:o}", "sound", rc == 0, "said", lines_of(said));
    if (rc >= 0)
        ctl_show_json(answer);
    json_decref(answer);
    fclose(said);
    return rc;
}

int ctl_run_spool_verify(struct ctl *c, int n, char **args)
{
    struct gateway g;
    int rc = look_at_gateway(c, &g), status;

    (void)n;
    (void)args;
    fflush(stdout);
    if (rc == CTL_OK) {
        status = c->json ? verify_as_json(&g) : run_verify(&g, STDOUT_FILENO);
        rc = status == 0 ? CTL_OK : CTL_FAILED;
    }
    xfree(g.config);
    str_fini(&g.home);
    return rc;
}
