/* tailracectl reload, drain, upgrade, log-level, config, version. */
#include <string.h>
#include "ctl/commands.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

static void show_reload(struct ctl *c, struct page *p, const json_t *json)
{
    const json_t *needs = json_object_get(json, "needs_restart");
    json_t *setting;
    size_t i;

    (void)c;
    page_addf(p, PLAIN, "reloaded: generation %" JSON_INTEGER_FORMAT, ctl_int(json, "generation"));
    page_end(p);
    json_array_foreach(needs, i, setting)
    {
        const char *name = json_string_value(setting);

        page_add(p, YELLOW, "needs a restart, or tailracectl upgrade: ");
        page_line(p, PLAIN, name ? name : "");
    }
}

int ctl_run_reload(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return ctl_show(c, "POST", "reload", show_reload);
}

static void show_drain(struct ctl *c, struct page *p, const json_t *json)
{
    (void)c;
    (void)json;
    page_line(p, PLAIN, "draining");
}

int ctl_run_drain(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return ctl_show(c, "POST", "drain", show_drain);
}

static void show_upgrade(struct ctl *c, struct page *p, const json_t *json)
{
    json_int_t pid = ctl_int(json, "pid");

    (void)c;
    page_add(p, PLAIN, "handing over");
    if (pid)
        page_addf(p, PLAIN, " to process %" JSON_INTEGER_FORMAT, pid);
    page_end(p);
}

int ctl_run_upgrade(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return ctl_show(c, "POST", "upgrade", show_upgrade);
}

static void show_level(struct ctl *c, struct page *p, const json_t *json)
{
    (void)c;
    page_line(p, PLAIN, ctl_text(json, "level"));
}

int ctl_run_log_level(struct ctl *c, int n, char **args)
{
    struct str path = STR_INIT;
    int rc;

    str_adds(&path, "log-level");
    if (n)
        ctl_add_arg(&path, "level", args[0]);
    rc = ctl_show(c, n ? "POST" : "GET", str_c(&path), show_level);
    str_fini(&path);
    return rc;
}

/* As it is: it may be kept as a file. Line ends are its own. */
static void show_config(struct ctl *c, struct page *p, const json_t *json)
{
    struct str text = STR_INIT;

    (void)c;
    (void)p;
    text_add_harmless(&text, ctl_text(json, "text"), "\n");
    fputs(str_c(&text), stdout);
    str_fini(&text);
}

int ctl_run_config(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return ctl_show(c, "GET", "config", show_config);
}

static void show_version(struct ctl *c, struct page *p, const json_t *json)
{
    (void)c;
    page_line(p, PLAIN, "tailracectl " PACKAGE_VERSION);
    page_addf(p, PLAIN,
              "tailrace %s, process %" JSON_INTEGER_FORMAT ", configuration %" JSON_INTEGER_FORMAT
              "%s",
              ctl_text(json, "version"), ctl_int(json, "pid"), ctl_int(json, "generation"),
              json_is_true(json_object_get(json, "draining")) ? ", draining" : "");
    page_end(p);
}

int ctl_run_version(struct ctl *c, int n, char **args)
{
    (void)n;
    (void)args;
    return ctl_show(c, "GET", "version", show_version);
}
