#include "ctl/loop.h"

#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "base/list.h"
#include "base/xmem.h"
#include "ctl/call.h"
#include "rt/fdx.h"

struct loop {
    struct ctl *c;
    CURLM *multi;
    int signals;
    sigset_t before;
    struct list gets;
    bool moved; /* something came in this turn */
};

struct loop_get {
    struct list link;
    struct loop *loop;
    CURL *curl;
    int dir;
    struct loop_handler h;
    struct str line;          /* that has not ended yet */
    struct ctl_answer answer; /* of a failure */
};

struct loop *loop_open(struct ctl *c)
{
    struct loop *l = XNEW(struct loop);
    sigset_t set;
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
    size_t i;

    sigemptyset(&set);
    for (i = 0; i < ARRAY_LEN(numbers); i++)
        sigaddset(&set, numbers[i]);
    l->c = c;
    list_init(&l->gets);
    sigprocmask(SIG_BLOCK, &set, &l->before);
    l->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    l->multi = curl_multi_init();
    if (l->signals < 0 || !l->multi) {
        fputs("tailracectl: out of memory or descriptors\n", stderr);
        loop_close(&l);
    }
    return l;
}

static void get_free(struct loop_get *g)
{
    list_remove(&g->link);
    if (g->loop->multi)
        curl_multi_remove_handle(g->loop->multi, g->curl);
    curl_easy_cleanup(g->curl);
    if (g->dir >= 0)
        fd_close(&g->dir);
    str_fini(&g->line);
    ctl_answer_fini(&g->answer);
    xfree(g);
}

static void get_drop(struct loop_get *g)
{
    if (g->h.drop)
        g->h.drop(g->h.ctx);
    get_free(g);
}

void loop_close(struct loop **lp)
{
    struct loop *l = *lp;

    if (!l)
        return;
    while (!list_empty(&l->gets))
        get_drop(container_of(l->gets.next, struct loop_get, link));
    curl_multi_cleanup(l->multi);
    if (l->signals >= 0)
        fd_close(&l->signals);
    sigprocmask(SIG_SETMASK, &l->before, NULL);
    XFREE(*lp);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void take_lines(struct loop_get *g, const char *p, size_t n)
{
    while (n > 0) {
        const char *end = memchr(p, '\n', n);
        size_t part = end ? (size_t)(end - p) : n;

        str_add(&g->line, p, part);
        if (!end)
            return;
        if (g->line.n > 0 && g->line.p[g->line.n - 1] == '\r')
            g->line.p[--g->line.n] = '\0';
        g->h.line(g->h.ctx, str_c(&g->line));
        str_clear(&g->line);
        p = end + 1;
        n -= part + 1;
    }
}

static size_t take(char *p, size_t size, size_t n, void *ctx)
{
    struct loop_get *g = ctx;
    long status = 0;

    n *= size;
    g->loop->moved = true;
    if (g->line.n + g->answer.text.n + n > CTL_ANSWER_MAX)
        return 0;
    curl_easy_getinfo(g->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 300)
        str_add(&g->answer.text, p, n);
    else
        take_lines(g, p, n);
    return n;
}

bool loop_get(struct loop *l, const char *path, const struct loop_handler *h)
{
    int dir;
    CURL *curl = ctl_request(l->c, "GET", path, &dir);
    struct loop_get *g;

    if (!curl) {
        if (h->drop)
            h->drop(h->ctx);
        return false;
    }
    g = XNEW(struct loop_get);
    g->loop = l;
    g->curl = curl;
    g->dir = dir;
    g->h = *h;
    g->line = STR_INIT;
    g->answer.text = STR_INIT;
    list_append(&l->gets, &g->link);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, g);
    curl_easy_setopt(curl, CURLOPT_PRIVATE, g);
    if (curl_multi_add_handle(l->multi, curl) == CURLM_OK)
        return true;
    get_drop(g);
    return false;
}

static void get_done(struct loop_get *g, CURLcode rc)
{
    struct loop_handler h = g->h;
    struct ctl_answer answer;
    long status = 0;

    g->loop->moved = true;
    curl_easy_getinfo(g->curl, CURLINFO_RESPONSE_CODE, &status);
    if (g->line.n > 0 && rc == CURLE_OK)
        g->h.line(g->h.ctx, str_c(&g->line));
    answer = g->answer;
    g->answer = (struct ctl_answer){.text = STR_INIT};
    answer.status = (int)status;
    answer.json = json_loadb(str_c(&answer.text), answer.text.n, 0, NULL);
    get_free(g);
    h.end(h.ctx, &answer, rc == CURLE_OK);
    ctl_answer_fini(&answer);
}

static void see_to_done(struct loop *l)
{
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(l->multi, &left))) {
        CURLcode rc = m->data.result;
        char *g = NULL;

        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &g);
        get_done((struct loop_get *)(void *)g, rc);
    }
}

/* --- turns ------------------------------------------------------------------------------------ */

static int next_signal(struct loop *l)
{
    struct signalfd_siginfo info;

    return read(l->signals, &info, sizeof(info)) == (ssize_t)sizeof(info) ? (int)info.ssi_signo : 0;
}

int loop_turn(struct loop *l, bool keys, int ms)
{
    struct curl_waitfd fds[2] = {{.fd = l->signals, .events = CURL_WAIT_POLLIN},
                                 {.fd = STDIN_FILENO, .events = CURL_WAIT_POLLIN}};
    int running, signo;

    l->moved = false;
    curl_multi_perform(l->multi, &running);
    see_to_done(l);
    curl_multi_poll(l->multi, fds, keys ? 2 : 1, l->moved ? 0 : ms, NULL);
    signo = next_signal(l);
    if (signo)
        return signo;
    curl_multi_perform(l->multi, &running);
    see_to_done(l);
    return keys && fds[1].revents ? LOOP_KEY : 0;
}
