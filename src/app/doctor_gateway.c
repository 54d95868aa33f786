#include <jansson.h>
#include <sys/stat.h>
#include <time.h>
#include "app/doctor_priv.h"
#include "doctor/talk.h"
#include "net/listen_unix.h"
#include "rt/fdx.h"

/* GET of that path over the control socket; the JSON is the caller's. NULL: it gave none. */
static json_t *get(const struct doctor *d, const char *path)
{
    struct line line = LINE_INIT;
    struct str request = STR_INIT;
    struct talk_answer a = {.body = STR_INIT};
    json_t *json = NULL;

    line.fd = net_connect_unix(d->config->control_socket, NULL);
    if (line.fd >= 0 && fd_set_nonblock(line.fd, true, NULL) == 0) {
        talk_begin(&request, "GET", view_str(path), "tailrace");
        talk_end(&request, VIEW_NONE, false);
        line_allow(&line, d->timeout_ms);
        if (talk(&line, &request, &a, NULL) == 0 && a.status == 200)
            json = json_loadb(str_c(&a.body), a.body.n, 0, NULL);
    }
    talk_answer_fini(&a);
    str_fini(&request);
    line_close(&line);
    return json;
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "";
}

static void tell_ready(const json_t *status, struct findings *r)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_GATEWAY_NOT_READY, "gateway", "ready"};
    const json_t *reasons = json_object_get(status, "not_ready");
    struct str text = STR_INIT;
    size_t i;
    const json_t *reason;

    if (!json_is_false(json_object_get(status, "ready"))) {
        findings_ok(r, "gateway", "ready", "it runs (version %s) and is ready",
                    text_of(status, "version"));
        return;
    }
    json_array_foreach(reasons, i, reason)
    {
        str_addf(&text, "%s%s", i ? "; " : "", json_string_value(reason));
    }
    findings_add(r, &f, "it runs but is not ready: %s",
                 text.n ? str_c(&text) : "it does not say why");
    findings_do(r, "see docs/operations.md, and what is wrong below");
    str_fini(&text);
}

static void tell_problems(const json_t *status, struct findings *r)
{
    struct finding f = {VERDICT_FAIL, CAUSE_GATEWAY_PROBLEM, "gateway", "problem"};
    const json_t *problem, *problems = json_object_get(status, "problems");
    size_t i;

    json_array_foreach(problems, i, problem)
    {
        f.verdict =
            strcmp(text_of(problem, "severity"), "critical") == 0 ? VERDICT_FAIL : VERDICT_WARN;
        findings_add(r, &f, "%s: %s", text_of(problem, "name"), text_of(problem, "text"));
        findings_do(r, "docs/operations.md%s", text_of(problem, "runbook"));
    }
}

/* Is what it runs with the file that we have read, as it is now? */
static void tell_config(const struct doctor *d, const json_t *status, struct findings *r)
{
    const struct finding f = {VERDICT_WARN, CAUSE_CONFIG_NOT_LOADED, "gateway", "config"};
    const json_t *config = json_object_get(status, "config");
    const char *file = text_of(config, "file"), *loaded = text_of(config, "loaded");
    struct stat ours, theirs;
    struct tm tm = {0};

    if (stat(d->config_path, &ours) < 0)
        return;
    if (*file && stat(file, &theirs) == 0 &&
        (ours.st_dev != theirs.st_dev || ours.st_ino != theirs.st_ino)) {
        findings_add(r, &f, "it runs with %s, this looked at %s", file, d->config_path);
        findings_do(r, "tailrace doctor -c %s", file);
        return;
    }
    if (!strptime(loaded, "%Y-%m-%dT%H:%M:%S", &tm) || ours.st_mtime <= timegm(&tm))
        return;
    findings_add(r, &f, "%s was changed after it was loaded (%s)", d->config_path, loaded);
    findings_do(r, "tailracectl reload");
}

/* One that is there, but does not tell: an older version, or one that is starting. */
static void tell_little(struct doctor *d, struct findings *r)
{
    const struct finding f = {VERDICT_WARN, CAUSE_GATEWAY_NOT_READY, "gateway", "ready"};
    json_t *version = get(d, "/api/v1/version");

    if (version) {
        findings_ok(r, "gateway", "ready", "it runs (version %s)", text_of(version, "version"));
    } else {
        findings_add(r, &f, "something listens at %s, but does not answer",
                     d->config->control_socket);
        findings_do(r, "look at the gateway's log");
    }
    json_decref(version);
}

static void tell_unreached(struct doctor *d, const struct err *e, struct findings *r)
{
    const struct finding f = {VERDICT_WARN, CAUSE_GATEWAY_NOT_RUNNING, "gateway", "control"};

    d->running = e->code == ERR_DENIED;
    findings_add(r, &f, "%s", e->text);
    if (d->running)
        findings_do(r, "run this as root or as whom tailrace runs as, to hear from it, too");
    else
        findings_do(r,
                    "if it should run: systemctl start tailrace; if it does: is -c the file that "
                    "it runs with?");
}

void doctor_ask_gateway(struct doctor *d, struct findings *r)
{
    struct findings *out = doctor_wants(d, "gateway") ? r : findings_new();
    struct err e;
    json_t *status;
    uid_t uid;
    int fd = net_connect_unix(d->config->control_socket, &e);

    if (fd < 0) {
        tell_unreached(d, &e, out);
    } else {
        if (net_unix_peer(fd, &uid, &d->pid) < 0)
            d->pid = 0;
        fd_close(&fd);
        d->running = true;
        status = get(d, "/api/v1/status");
        if (status) {
            tell_ready(status, out);
            tell_problems(status, out);
            tell_config(d, status, out);
        } else {
            tell_little(d, out);
        }
        json_decref(status);
    }
    if (out != r)
        findings_free(&out);
}
