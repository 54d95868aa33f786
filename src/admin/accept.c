/* Content negotiation for / and /metrics, as far as it is needed: types, weights, one parameter. */
#include "admin/admin.h"

#include <string.h>

enum { WEIGHT_FULL = 1000 };

struct range {
    struct view type;
    struct view version; /* the parameter, or empty */
    int weight;          /* thousandths */
};

static struct view trim(struct view v)
{
    while (v.n && (v.p[0] == ' ' || v.p[0] == '\t'))
        v = view_from(v, 1);
    while (v.n && (v.p[v.n - 1] == ' ' || v.p[v.n - 1] == '\t'))
        v.n--;
    return v;
}

/* What stands before the first `stop` outside of a quoted string; `*rest` begins after it. */
static struct view next_part(struct view *rest, char stop)
{
    bool quoted = false;
    struct view part;
    size_t i;

    for (i = 0; i < rest->n; i++) {
        char c = rest->p[i];

        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && c == stop)
            break;
    }
    part = view_of(rest->p, TR_MIN(i, rest->n));
    *rest = i < rest->n ? view_from(*rest, i + 1) : VIEW_NONE;
    return trim(part);
}

/* "0", "1", "0.75", "1.000" in thousandths; what is no weight weighs nothing. */
static int parse_weight(struct view v)
{
    int weight, digit = 100;
    size_t i;

    if (v.n == 0 || v.n > 5 || (v.p[0] != '0' && v.p[0] != '1') || (v.n > 1 && v.p[1] != '.'))
        return 0;
    weight = (v.p[0] - '0') * WEIGHT_FULL;
    for (i = 2; i < v.n; i++, digit /= 10) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return 0;
        weight += (v.p[i] - '0') * digit;
    }
    return TR_MIN(weight, WEIGHT_FULL);
}

static struct view unquote(struct view v)
{
    if (v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"')
        return view_of(v.p + 1, v.n - 2);
    return v;
}

static struct range parse_range(struct view text)
{
    struct range r = {.weight = WEIGHT_FULL};

    r.type = next_part(&text, ';');
    while (text.n) {
        struct view parameter = next_part(&text, ';');
        struct view name = next_part(&parameter, '=');

        if (view_ieq(name, VIEW_LIT("q")))
            r.weight = parse_weight(trim(parameter));
        else if (view_ieq(name, VIEW_LIT("version")))
            r.version = unquote(trim(parameter));
    }
    return r;
}

/* The weights of `wanted` (of that version, if one is said) and of text/plain; 0 if they are not
 * named. */
static int weigh(struct view accept, struct view wanted, const char *version, int *plain)
{
    int weight = 0;

    *plain = 0;
    while (accept.n) {
        struct range r = parse_range(next_part(&accept, ','));
        bool version_ok = r.version.n == 0 || view_is(r.version, version);

        if (view_ieq(r.type, wanted) && version_ok)
            weight = TR_MAX(weight, r.weight);
        else if (view_ieq(r.type, VIEW_LIT("text/plain")))
            *plain = TR_MAX(*plain, r.weight);
    }
    return weight;
}

bool admin_wants_openmetrics(struct view accept)
{
    int plain;
    int open = weigh(accept, VIEW_LIT("application/openmetrics-text"), "1.0.0", &plain);

    return open > 0 && open >= plain;
}

bool admin_wants_html(struct view accept)
{
    int plain;
    int html = weigh(accept, VIEW_LIT("text/html"), "", &plain);

    return html > 0 && html >= plain;
}
