#include "ctl/call.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include "app/options.h"
#include "base/err.h"
#include "base/xmem.h"
#include "net/listen_unix.h"
#include "rt/fdx.h"

#define USUAL_CONFIG "/etc/tailrace/tailrace.yaml"
#define USUAL_SOCKET "/var/lib/tailrace/control.sock"

/* --- where it is ------------------------------------------------------------------------------ */

/* A file with mistakes in it, which somebody is at work on, still leads to the gateway that runs
 * with what it said before. */
static int from_config(struct ctl *c, const char *path)
{
    struct conf_errors errors = CONF_ERRORS_INIT;

    c->path = config_find_control(path, &errors);
    conf_errors_print(&errors, stderr);
    if (!c->path)
        fputs("tailracectl: that file does not tell where the control socket is; use --socket "
              "PATH\n",
              stderr);
    else if (errors.n)
        fputs("tailracectl: this file has mistakes; the gateway that runs is asked all the same\n",
              stderr);
    conf_errors_fini(&errors);
    return c->path ? CTL_OK : CTL_UNREACHABLE;
}

static int find_socket(struct ctl *c)
{
    if (c->path)
        return CTL_OK;
    if (c->socket)
        c->path = xstrdup(c->socket);
    else if (c->config || access(USUAL_CONFIG, F_OK) == 0)
        return from_config(c, c->config ? c->config : USUAL_CONFIG);
    else
        c->path = xstrdup(USUAL_SOCKET);
    return CTL_OK;
}

/* Says what is wrong before curl says that something is. */
static int probe(const struct ctl *c)
{
    struct err e = {0};
    int fd = net_connect_unix(c->path, &e);

    if (fd >= 0) {
        fd_close(&fd);
        return CTL_OK;
    }
    fputs("tailracectl: ", stderr);
    ctl_say(stderr, e.text);
    fputc('\n', stderr);
    if (e.code == ERR_DENIED)
        fputs("  only its owner and root may: run this as root or as the user tailrace\n", stderr);
    else if (e.code == ERR_NOTFOUND || e.code == ERR_CLOSED)
        fputs("  is tailrace running? Another socket is named by --socket PATH, another "
              "configuration by -c FILE\n",
              stderr);
    return CTL_UNREACHABLE;
}

/* A path that is too long for a socket's address leads through its directory's descriptor. */
static void set_path(CURL *curl, const char *path, int *dir)
{
    const char *slash = strrchr(path, '/');
    struct str name = STR_INIT;

    *dir = -1;
    if (slash && strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        char *parent = xmemdup0(path, (size_t)(slash - path) + 1);

        *dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
        xfree(parent);
        str_addf(&name, "/proc/self/fd/%d%s", *dir, slash);
    } else {
        str_adds(&name, path);
    }
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, str_c(&name));
    str_fini(&name);
}

/* --- calls ------------------------------------------------------------------------------------ */

static size_t take_text(char *p, size_t size, size_t n, void *ctx)
{
    struct ctl_answer *a = ctx;

    if (a->text.n + size * n > CTL_ANSWER_MAX)
        return 0;
    str_add(&a->text, p, size * n);
    return size * n;
}

struct fetch_to {
    CURL *curl;
    FILE *out;
    struct ctl_answer answer; /* of a failure */
};

static size_t take_bytes(char *p, size_t size, size_t n, void *ctx)
{
    struct fetch_to *to = ctx;
    long status = 0;

    curl_easy_getinfo(to->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 300)
        return take_text(p, size, n, &to->answer);
    return fwrite(p, size, n, to->out) * size;
}

CURL *ctl_request(struct ctl *c, const char *method, const char *path, int *dir)
{
    struct str url = STR_INIT;
    CURL *curl = curl_easy_init();

    if (!curl) {
        fputs("tailracectl: out of memory\n", stderr);
        return NULL;
    }
    str_addf(&url, "http://tailrace/api/v1/%s", path);
    set_path(curl, c->path, dir);
    curl_easy_setopt(curl, CURLOPT_URL, str_c(&url));
    curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* whatever the environment says */
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "tailracectl");
    if (strcmp(method, "POST") == 0)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
    str_fini(&url);
    return curl;
}

void ctl_say_failure(const struct ctl_answer *a)
{
    const char *why = ctl_text(a->json, "error");

    if (!*why) {
        fprintf(stderr, "tailracectl: the gateway answered %d\n", a->status);
        return;
    }
    fputs("tailracectl: ", stderr);
    ctl_say(stderr, why);
    fputc('\n', stderr);
}

/* Perform it and free it. */
static int perform(CURL *curl, int dir, struct ctl_answer *a)
{
    CURLcode rc = curl_easy_perform(curl);
    long status = 0;

    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    fd_close(&dir);
    a->status = (int)status;
    a->json = json_loadb(str_c(&a->text), a->text.n, 0, NULL);
    if (rc != CURLE_OK) {
        fprintf(stderr, "tailracectl: %s\n",
                rc == CURLE_GOT_NOTHING || rc == CURLE_PARTIAL_FILE || rc == CURLE_RECV_ERROR
                    ? "the gateway broke the answer off"
                    : curl_easy_strerror(rc));
        return CTL_UNREACHABLE;
    }
    if (status < 300)
        return CTL_OK;
    ctl_say_failure(a);
    return CTL_FAILED;
}

int ctl_reach(struct ctl *c)
{
    int rc = find_socket(c);

    return rc == CTL_OK ? probe(c) : rc;
}

int ctl_call(struct ctl *c, const char *method, const char *path, struct ctl_answer *a)
{
    int rc = ctl_reach(c), dir;
    CURL *curl;

    *a = (struct ctl_answer){.text = STR_INIT};
    if (rc != CTL_OK)
        return rc;
    curl = ctl_request(c, method, path, &dir);
    if (!curl)
        return CTL_UNREACHABLE;
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_text);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, a);
    rc = perform(curl, dir, a);
    if (rc == CTL_OK && !a->json) {
        fputs("tailracectl: the gateway's answer cannot be read\n", stderr);
        rc = CTL_FAILED;
    }
    return rc;
}

int ctl_fetch(struct ctl *c, const char *path, FILE *out)
{
    struct fetch_to to = {.out = out, .answer.text = STR_INIT};
    int rc = ctl_reach(c), dir;

    if (rc != CTL_OK)
        return rc;
    to.curl = ctl_request(c, "GET", path, &dir);
    if (!to.curl)
        return CTL_UNREACHABLE;
    curl_easy_setopt(to.curl, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(to.curl, CURLOPT_WRITEDATA, &to);
    rc = perform(to.curl, dir, &to.answer);
    ctl_answer_fini(&to.answer);
    return rc;
}

void ctl_answer_fini(struct ctl_answer *a)
{
    json_decref(a->json);
    str_fini(&a->text);
}

void ctl_add_arg(struct str *path, const char *name, const char *value)
{
    char *escaped = value ? curl_easy_escape(NULL, value, 0) : NULL;

    if (!escaped)
        return;
    str_addf(path, "%c%s=%s", path->n && memchr(path->p, '?', path->n) ? '&' : '?', name, escaped);
    curl_free(escaped);
}
