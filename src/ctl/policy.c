/* tailracectl policy explain: what the running policy makes of a destination. */
#include <string.h>
#include "ctl/commands.h"
#include "ctl/status.h"
#include "ctl/table.h"

#define GET json_object_get

static void show_addresses(struct page *p, const json_t *addresses)
{
    static const struct column columns[] = {
        {"ADDRESS", 0}, {"CLASS", 0}, {"VERDICT", 0}, {"RULE", TABLE_CUT}, {"REASON", TABLE_PROSE}};
    struct table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *a;
    size_t i;

    json_array_foreach(addresses, i, a)
    {
        const char *verdict = ctl_text(a, "verdict");

        table_add(t, PLAIN, ctl_text(a, "address"));
        table_add(t, PLAIN, ctl_text(a, "class"));
        table_add(t, status_paint(verdict), verdict);
        table_add(t, PLAIN, ctl_text(a, "rule"));
        table_add(t, PLAIN, ctl_text(a, "reason"));
    }
    table_show(&t, p, 0);
}

static void show_verdict(struct ctl *c, struct page *p, const json_t *answer)
{
    const char *verdict = ctl_text(answer, "verdict"), *rule = ctl_text(answer, "rule");

    (void)c;
    page_add(p, status_paint(verdict), verdict);
    if (*rule) {
        page_add(p, PLAIN, ", by ");
        page_add(p, BOLD, rule);
    }
    page_add(p, PLAIN, *ctl_text(answer, "reason") ? ": " : "");
    page_words(p, PLAIN, ctl_text(answer, "reason"));
    if (*ctl_text(answer, "resolving")) {
        page_add(p, YELLOW, "but it has no address now: ");
        page_words(p, YELLOW, ctl_text(answer, "resolving"));
    }
    if (json_array_size(GET(answer, "addresses"))) {
        page_end(p);
        show_addresses(p, GET(answer, "addresses"));
    }
    if (*ctl_text(answer, "parent")) {
        page_end(p);
        page_add(p, PLAIN, "by way of the proxy ");
        page_line(p, PLAIN, ctl_text(answer, "parent"));
    }
}

int ctl_run_explain(struct ctl *c, int n, char **args)
{
    struct str path = STR_INIT;
    int rc;

    (void)n;
    str_adds(&path, "policy/explain");
    ctl_add_arg(&path, "to", args[0]);
    ctl_add_arg(&path, "from", c->from);
    ctl_add_arg(&path, "identity", c->identity);
    rc = ctl_show(c, "GET", str_c(&path), show_verdict);
    str_fini(&path);
    return rc;
}
