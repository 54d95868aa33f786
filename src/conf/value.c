#include "conf/value_priv.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/bug.h"
#include "base/view.h"
#include "base/xmem.h"

/* Larger first: a value is printed in the largest unit that leaves no rest. */
struct unit {
    const char *name;
    int64_t factor;
};
static const struct unit size_units[] = {
    {"TiB", 1LL << 40}, {"GiB", 1LL << 30}, {"MiB", 1LL << 20}, {"KiB", 1LL << 10}, {"B", 1}, {0},
};
static const struct unit duration_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {0},
};

enum { PORT_DIGITS = 5, HOST_MAX = 253 };

static const struct unit *units_of(const struct conf_row *row)
{
    if (row->type == CONF_SIZE)
        return size_units;
    return row->type == CONF_DURATION ? duration_units : NULL;
}

static void print_units(int64_t value, const struct unit *u, struct str *out)
{
    while (u->factor > 1 && (value == 0 || value % u->factor != 0))
        u++;
    str_addf(out, "%" PRId64 "%s", value / u->factor, u->name);
}

static void print_number(const struct conf_row *row, int64_t value, struct str *out)
{
    const struct unit *units = units_of(row);

    if (units)
        print_units(value, units, out);
    else
        str_addf(out, "%" PRId64, value);
}

/* "a, b or c" */
static void hint_choices(const struct conf_choice *c, struct str *out)
{
    size_t i;

    for (i = 0; c[i].name; i++) {
        if (i)
            str_adds(out, c[i + 1].name ? ", " : " or ");
        str_adds(out, c[i].name);
    }
}

static void hint_range(const struct conf_row *row, struct str *out)
{
    if (row->min == 0 && row->max == 0)
        return;
    if (row->max == INT64_MAX) {
        str_adds(out, " of at least ");
        print_number(row, row->min, out);
        return;
    }
    str_adds(out, " from ");
    print_number(row, row->min, out);
    str_adds(out, " to ");
    print_number(row, row->max, out);
}

void conf_value_hint(const struct conf_row *row, struct str *out)
{
    static const char *const hints[] = {
        [CONF_STRING] = "a text",
        [CONF_PATH] = "the path of a file or directory",
        [CONF_BOOL] = "true or false",
        [CONF_INT] = "a whole number",
        [CONF_SIZE] = "a size such as 64KiB or 10GiB",
        [CONF_DURATION] = "a duration such as 200ms, 10s, 5m or 48h",
        [CONF_ENUM] = "",
        [CONF_ADDRESS] = "an address with a port, such as 0.0.0.0:8443 or [::]:8443",
        [CONF_URL] = "a URL such as https://host.example or http://host.example:8080",
        [CONF_LIST] = "a list",
    };

    str_adds(out, "use ");
    str_adds(out, hints[row->type]);
    if (row->type == CONF_ENUM)
        hint_choices(row->choices, out);
    if (row->type == CONF_INT || units_of(row)) {
        if (units_of(row) && (row->min || row->max))
            str_addc(out, ',');
        hint_range(row, out);
    }
}

static int refuse(const struct conf_row *row, struct err *e)
{
    struct str hint = STR_INIT;

    conf_value_hint(row, &hint);
    err_set(e, ERR_INVALID, "%s", str_c(&hint));
    str_fini(&hint);
    return -1;
}

/* Digits at the start of the text; what follows them is in `*rest`. */
static int parse_digits(const char *text, int64_t *value, const char **rest)
{
    const char *p = text;

    *value = 0;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, *p - '0', value))
            return -1;
    }
    *rest = p;
    return p == text ? -1 : 0;
}

static int parse_int(const char *text, int64_t *value)
{
    bool minus = *text == '-';
    const char *rest;

    if (parse_digits(text + minus, value, &rest) < 0 || *rest)
        return -1;
    if (minus)
        *value = -*value;
    return 0;
}

/* A unit must be said, but for zero, which is the same in all. */
static int parse_units(const char *text, const struct unit *u, int64_t *value)
{
    const char *rest;

    if (parse_digits(text, value, &rest) < 0)
        return -1;
    if (*rest == '\0')
        return *value == 0 ? 0 : -1;
    if (*rest == ' ')
        rest++;
    for (; u->name; u++) {
        if (strcmp(rest, u->name) == 0)
            return __builtin_mul_overflow(*value, u->factor, value) ? -1 : 0;
    }
    return -1;
}

static int set_number(const struct conf_row *row, void *field, const char *text, struct err *e)
{
    const struct unit *units = units_of(row);
    bool any = row->min == 0 && row->max == 0;
    int64_t value;

    if ((units ? parse_units(text, units, &value) : parse_int(text, &value)) < 0)
        return refuse(row, e);
    if (value < row->min || (!any && value > row->max))
        return refuse(row, e);
    if (row->type == CONF_SIZE)
        *(uint64_t *)field = (uint64_t)value;
    else
        *(int64_t *)field = value;
    return 0;
}

static int set_bool(const struct conf_row *row, void *field, const char *text, struct err *e)
{
    bool yes = strcmp(text, "true") == 0;

    if (!yes && strcmp(text, "false") != 0)
        return refuse(row, e);
    *(bool *)field = yes;
    return 0;
}

static int set_enum(const struct conf_row *row, void *field, const char *text, struct err *e)
{
    const struct conf_choice *c;

    for (c = row->choices; c->name; c++) {
        if (strcmp(c->name, text) == 0) {
            memcpy(field, &c->value, sizeof(c->value));
            return 0;
        }
    }
    return refuse(row, e);
}

static bool port_ok(struct view v)
{
    unsigned port = 0;
    size_t i;

    if (v.n == 0 || v.n > PORT_DIGITS)
        return false;
    for (i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
        port = port * 10 + (unsigned)(v.p[i] - '0');
    }
    return port <= 65535;
}

static bool literal_ok(int family, struct view v)
{
    char host[INET6_ADDRSTRLEN];
    unsigned char bytes[16];

    if (v.n == 0 || v.n >= sizeof(host))
        return false;
    memcpy(host, v.p, v.n);
    host[v.n] = '\0';
    return inet_pton(family, host, bytes) == 1;
}

/* Split "host:port" or "[host]:port" at the last colon. The port is empty if there is none. */
static bool split_port(struct view v, struct view *host, struct view *port, bool *bracketed)
{
    const char *close = v.n && v.p[0] == '[' ? memchr(v.p, ']', v.n) : NULL;
    const char *colon;

    *bracketed = close != NULL;
    if (close) {
        *host = view_of(v.p + 1, (size_t)(close - v.p) - 1);
        v = view_from(v, (size_t)(close - v.p) + 1);
        *port = v.n ? view_from(v, 1) : VIEW_NONE;
        return v.n == 0 || (v.p[0] == ':' && v.n > 1);
    }
    colon = memchr(v.p, ':', v.n);
    *host = view_of(v.p, colon ? (size_t)(colon - v.p) : v.n);
    *port = colon ? view_from(v, (size_t)(colon - v.p) + 1) : VIEW_NONE;
    return !colon || port->n > 0;
}

static bool address_ok(const char *text)
{
    struct view host, port;
    bool bracketed;

    return split_port(view_str(text), &host, &port, &bracketed) &&
           literal_ok(bracketed ? AF_INET6 : AF_INET, host) && port_ok(port);
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
}

static bool name_ok(struct view v)
{
    size_t i;

    if (v.n == 0 || v.n > HOST_MAX)
        return false;
    for (i = 0; i < v.n; i++) {
        if (!name_char(v.p[i]))
            return false;
    }
    return v.p[0] != '.' && v.p[0] != '-';
}

/* scheme://host[:port][/path]; credentials would end up in logs and dumps, so they are refused. */
static int check_url(const struct conf_row *row, const char *text, struct err *e)
{
    struct view v = view_str(text), host, port;
    size_t scheme = view_starts(v, VIEW_LIT("https://"))  ? 8
                    : view_starts(v, VIEW_LIT("http://")) ? 7
                                                          : 0;
    bool bracketed;
    size_t end;

    if (!scheme)
        return refuse(row, e);
    if (strchr(text, '@'))
        return err_set(e, ERR_INVALID, "a URL must not hold credentials");
    if (strpbrk(text, "?# \\\"<>"))
        return err_set(e, ERR_INVALID, "use a URL without query, fragment or blanks");
    v = view_from(v, scheme);
    end = strcspn(v.p, "/");
    if (!split_port(view_of(v.p, end), &host, &port, &bracketed) || (port.n && !port_ok(port)) ||
        !(bracketed ? literal_ok(AF_INET6, host) : name_ok(host)))
        return refuse(row, e);
    return 0;
}

/* Takes the text. */
static int set_text(void *field, char *text)
{
    xfree(*(char **)field);
    *(char **)field = text;
    return 0;
}

static char *absolute(const char *text, const char *directory)
{
    struct str path = STR_INIT;

    if (text[0] != '/') {
        while (text[0] == '.' && text[1] == '/')
            text += 2;
        str_addf(&path, "%s/", strcmp(directory, "/") == 0 ? "" : directory);
    }
    str_adds(&path, text);
    return str_take(&path);
}

/* Where the service manager put that credential, or NULL. Its names have no slash in them. */
static char *credential(const char *name, struct err *e)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    struct str path = STR_INIT;

    if (!name[0] || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        err_set(e, ERR_INVALID, "use credential:NAME with the name of a LoadCredential= setting");
        return NULL;
    }
    if (!dir || dir[0] != '/') {
        err_set(e, ERR_INVALID,
                "there are no credentials: CREDENTIALS_DIRECTORY is not set, use "
                "LoadCredential=%s in the unit",
                name);
        return NULL;
    }
    str_addf(&path, "%s/%s", dir, name);
    return str_take(&path);
}

static char *path_of(const char *text, const char *directory, struct err *e)
{
    static const char prefix[] = "credential:";

    if (strncmp(text, prefix, sizeof(prefix) - 1) == 0)
        return credential(text + sizeof(prefix) - 1, e);
    return absolute(text, directory);
}

static int set_path(void *field, const char *text, const char *directory, struct err *e)
{
    char *path = path_of(text, directory, e);

    return path ? set_text(field, path) : -1;
}

static int add_element(const struct conf_row *row, void *field, const char *text,
                       const char *directory, struct err *e)
{
    struct conf_list *list = field;
    char *item = row->paths ? path_of(text, directory, e) : xstrdup(text);

    if (!item)
        return -1;
    list->items = xrealloc(list->items, (list->n + 1) * sizeof(*list->items));
    list->items[list->n++] = item;
    return 0;
}

int conf_value_set(const struct conf_row *row, void *object, const char *text,
                   const char *directory, struct err *e)
{
    void *field = conf_field(row, object);

    if (*text == '\0')
        return err_set(e, ERR_INVALID, "must not be empty");
    if (row->check && row->check(text, e) < 0)
        return -1;
    switch (row->type) {
    case CONF_STRING:
        return set_text(field, xstrdup(text));
    case CONF_PATH:
        return set_path(field, text, directory, e);
    case CONF_BOOL:
        return set_bool(row, field, text, e);
    case CONF_INT:
    case CONF_SIZE:
    case CONF_DURATION:
        return set_number(row, field, text, e);
    case CONF_ENUM:
        return set_enum(row, field, text, e);
    case CONF_ADDRESS:
        return address_ok(text) ? set_text(field, xstrdup(text)) : refuse(row, e);
    case CONF_URL:
        return check_url(row, text, e) < 0 ? -1 : set_text(field, xstrdup(text));
    case CONF_LIST:
        return add_element(row, field, text, directory, e);
    }
    BUG("unknown type of option");
}

static void print_enum(const struct conf_row *row, const void *field, struct str *out)
{
    const struct conf_choice *c;
    int value;

    memcpy(&value, field, sizeof(value));
    for (c = row->choices; c->name; c++) {
        if (c->value == value) {
            str_adds(out, c->name);
            return;
        }
    }
    BUG("an option has a value that is not one of its choices");
}

bool conf_value_print(const struct conf_row *row, const void *object, struct str *out)
{
    const void *field = conf_field(row, object);
    const char *text;

    switch (row->type) {
    case CONF_STRING:
    case CONF_PATH:
    case CONF_ADDRESS:
    case CONF_URL:
        text = *(char *const *)field;
        if (text)
            str_adds(out, text);
        return text != NULL;
    case CONF_BOOL:
        str_adds(out, *(const bool *)field ? "true" : "false");
        return true;
    case CONF_INT:
    case CONF_DURATION:
        print_number(row, *(const int64_t *)field, out);
        return true;
    case CONF_SIZE:
        print_number(row, (int64_t) * (const uint64_t *)field, out);
        return true;
    case CONF_ENUM:
        print_enum(row, field, out);
        return true;
    case CONF_LIST:
        break;
    }
    BUG("a list has no text");
}

void conf_value_clear(const struct conf_row *row, void *object)
{
    void *field = conf_field(row, object);
    struct conf_list *list = field;

    switch (row->type) {
    case CONF_STRING:
    case CONF_PATH:
    case CONF_ADDRESS:
    case CONF_URL:
        XFREE(*(char **)field);
        return;
    case CONF_LIST:
        while (list->n)
            xfree(list->items[--list->n]);
        XFREE(list->items);
        return;
    default:
        return;
    }
}
