#include "http/message.h"

#include "base/attrs.h"

struct view http_field(const struct h1_field *fields, size_t n, const char *name)
{
    struct view wanted = view_str(name);

    for (size_t i = 0; i < n; i++) {
        if (view_ieq(fields[i].name, wanted))
            return fields[i].value;
    }
    return VIEW_NONE;
}

/* Cut the next element of a comma-separated list off `*rest`; false at the end. */
static bool list_element(struct view *rest, struct view *out)
{
    const char *comma;
    struct view v;

    if (!rest->n)
        return false;
    comma = memchr(rest->p, ',', rest->n);
    v = view_of(rest->p, comma ? (size_t)(comma - rest->p) : rest->n);
    *rest = view_from(*rest, comma ? v.n + 1 : v.n);
    while (v.n && (v.p[0] == ' ' || v.p[0] == '\t'))
        v = view_from(v, 1);
    while (v.n && (v.p[v.n - 1] == ' ' || v.p[v.n - 1] == '\t'))
        v.n--;
    *out = v;
    return true;
}

static bool list_has(struct view list, struct view token)
{
    struct view element;

    while (list_element(&list, &element)) {
        if (element.n && view_ieq(element, token))
            return true;
    }
    return false;
}

bool http_field_has_token(const struct h1_field *fields, size_t n, const char *name,
                          const char *token)
{
    struct view wanted = view_str(name);

    for (size_t i = 0; i < n; i++) {
        if (view_ieq(fields[i].name, wanted) && list_has(fields[i].value, view_str(token)))
            return true;
    }
    return false;
}

static bool is_always_hop(struct view name)
{
    static const struct view names[] = {
        {"connection", 10}, {"keep-alive", 10}, {"te", 2}, {"transfer-encoding", 17},
        {"upgrade", 7},     {"http2-settings", 14},
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (view_ieq(name, names[i]))
            return true;
    }
    return name.n >= 6 && strncasecmp(name.p, "proxy-", 6) == 0;
}

bool http_is_hop_field(const struct h1_field *fields, size_t n, struct view name)
{
    if (is_always_hop(name))
        return true;
    for (size_t i = 0; i < n; i++) {
        if (fields[i].name.n == 10 && view_ieq(fields[i].name, VIEW_LIT("connection")) &&
            list_has(fields[i].value, name))
            return true;
    }
    return false;
}
