/* How answers are shown. */
#include <string.h>
#include "base/xmem.h"
#include "ctl/ctl.h"

void ctl_say(FILE *out, const char *text)
{
    struct str clean = STR_INIT;

    text_add_harmless(&clean, text, NULL);
    fputs(str_c(&clean), out);
    str_fini(&clean);
}

static void put_json(const json_t *json, size_t flags)
{
    char *text =
        json_dumps(json, flags | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    const char *at;

    for (at = text ? text : ""; *at; at++) {
        if (*at == 0x7f) /* the one of ASCII that jansson lets through */
            fputs("\\u007f", stdout);
        else
            putchar(*at);
    }
    putchar('\n');
    xfree(text);
}

void ctl_show_json(const json_t *json)
{
    put_json(json, JSON_INDENT(2));
}

void ctl_show_json_line(const json_t *json)
{
    put_json(json, JSON_COMPACT);
}

int ctl_show(struct ctl *c, const char *method, const char *path, ctl_show_fn *show)
{
    struct ctl_answer a;
    int rc = ctl_call(c, method, path, &a);

    if (rc == CTL_OK && c->json) {
        ctl_show_json(a.json);
    } else if (rc == CTL_OK) {
        struct page *p = page_new(&c->look, c->look.width);

        show(c, p, a.json);
        page_print(p, stdout);
        page_free(&p);
    }
    ctl_answer_fini(&a);
    return rc;
}

const char *ctl_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "";
}

json_int_t ctl_int(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

json_t *ctl_at(const json_t *object, const char *path)
{
    const char *dot = strchr(path, '.');
    char *name;
    json_t *in;

    if (!dot)
        return json_object_get(object, path);
    name = xmemdup0(path, (size_t)(dot - path));
    in = json_object_get(object, name);
    xfree(name);
    return ctl_at(in, dot + 1);
}
