#include "logs/target.h"

#include "codec/url.h"
#include "logs/barrier.h"

static const char service[] = "/log-service";

/* The part of the path behind ".../log-service", with doubled and trailing slashes taken away at
 * its ends (HP §1.1). */
static bool find_service(struct view path, struct view *prefix, struct view *rest)
{
    size_t n = sizeof(service) - 1, i;

    for (i = 0; i + n < path.n; i++) {
        if (path.p[i + n] != '/' || memcmp(path.p + i, service, n) != 0)
            continue;
        *prefix = view_of(path.p, i + n);
        *rest = view_from(path, i + n);
        while (rest->n > 1 && rest->p[1] == '/')
            *rest = view_from(*rest, 1);
        while (rest->n > 1 && rest->p[rest->n - 1] == '/')
            rest->n--;
        return true;
    }
    return false;
}

enum target_kind target_kind(struct view method, struct view target, struct view *prefix,
                             struct view *ticket)
{
    static const struct {
        const char *method, *rest;
        enum target_kind kind;
    } calls[] = {
        {"POST", "/stream", TARGET_OPEN},           {"PUT", "/stream", TARGET_LINES},
        {"DELETE", "/stream", TARGET_CLOSE},        {"POST", "/blob", TARGET_BLOB},
        {"POST", "/blob/link/upload", TARGET_LINK},
    };
    struct view path, query, rest;
    size_t i;

    url_split_target(target, &path, &query);
    /* What stands before "/log-service" goes behind harness.url: anything but a path there would
     * name another host. */
    if (!path.n || path.p[0] != '/' || !find_service(path, prefix, &rest))
        return TARGET_OTHER;
    for (i = 0; i < ARRAY_LEN(calls); i++) {
        if (view_is(method, calls[i].method) && view_is(rest, calls[i].rest))
            return calls[i].kind;
    }
    if (view_is(method, "PUT") && view_starts(rest, VIEW_LIT("/tickets/"))) {
        *ticket = view_from(rest, sizeof("/tickets/") - 1);
        return TARGET_TICKET;
    }
    return TARGET_OTHER;
}

static bool has_control(struct view v)
{
    const uint64_t ones = 0x0101010101010101ULL, highs = ones * 0x80;
    size_t i = 0;

    for (; v.n - i >= 8; i += 8) {
        uint64_t x, del;

        memcpy(&x, v.p + i, sizeof(x));
        del = x ^ ones * 0x7f;
        if ((((x - ones * 0x20) & ~x) | ((del - ones) & ~del)) & highs)
            break; /* perhaps: the loop below says */
    }
    for (; i < v.n; i++) {
        if ((unsigned char)v.p[i] < 0x20 || v.p[i] == 0x7f)
            return true;
    }
    return false;
}

/* A ".." between slashes: the service joins paths (HP §1.11), so that such a key would name another
 * account's object. */
static bool has_dotdot(struct view v)
{
    const char *at = v.p, *end = v.p + v.n;

    while ((at = memchr(at, '.', (size_t)(end - at))) != NULL) {
        if (end - at >= 2 && at[1] == '.' && (at == v.p || at[-1] == '/') &&
            (end - at == 2 || at[2] == '/'))
            return true;
        at++;
    }
    return false;
}

static int check_name(const char *what, const struct str *name, size_t max, struct err *e)
{
    struct view v = str_view(name);

    if (!v.n)
        return err_set(e, ERR_INVALID, "no %s in query params", what);
    if (v.n > max)
        return err_set(e, ERR_INVALID, "%s is longer than %zu bytes", what, max);
    if (has_control(v))
        return err_set(e, ERR_INVALID, "%s holds a control character", what);
    if (has_dotdot(v))
        return err_set(e, ERR_INVALID, "%s holds a \"..\" segment", what);
    return 0;
}

/* As spelled, but for a raw `;`: Go's parser drops a pair that holds one (HP §1.11), its escape
 * means the same. */
static void add_spelled(struct str *out, struct view v)
{
    const char *at;

    while (v.n && (at = memchr(v.p, ';', v.n)) != NULL) {
        size_t n = (size_t)(at - v.p);

        str_add(out, v.p, n);
        str_adds(out, "%3B");
        v = view_from(v, n + 1);
    }
    str_addv(out, v);
}

static void add_pair(struct str *out, struct view name, struct view value)
{
    if (out->n)
        str_addc(out, '&');
    add_spelled(out, name);
    str_addc(out, '=');
    add_spelled(out, value);
}

static int take_name(const char *what, struct view value, struct str *out, bool *seen,
                     struct err *e)
{
    if (*seen)
        return err_set(e, ERR_INVALID, "%s is given twice", what);
    *seen = true;
    if (url_decode(value, true, out) < 0)
        return err_set(e, ERR_INVALID, "%s is not percent-encoded properly", what);
    return 0;
}

/* Which of them the service would take is not ours to guess. */
static const char two_tokens[] = "two different tokens or API keys in the request";

static int parse_query(struct view query, struct target *t, struct view *token, struct err *e)
{
    struct view name, value;
    bool account = false, key = false;

    str_reserve(&t->query, query.n);
    str_reserve(&t->close_query, query.n);
    while (url_query_next(&query, &name, &value)) {
        if (view_is(name, "X-Harness-Token")) {
            if (token->n && !view_eq(*token, value))
                return err_set(e, ERR_INVALID, "%s", two_tokens);
            *token = value;
            continue;
        }
        add_pair(&t->close_query, name, value);
        if (view_is(name, "snapshot")) {
            t->snapshot = view_is(value, "true");
            continue;
        }
        if (barrier_param(name, value))
            t->covers = true;
        if (view_is(name, "prefix") || barrier_param(name, value))
            continue;
        add_pair(&t->query, name, value);
        if (view_is(name, "accountID") &&
            take_name("accountID", value, &t->account, &account, e) < 0)
            return -1;
        if (view_is(name, "key") && take_name("key", value, &t->key, &key, e) < 0)
            return -1;
    }
    if (!account)
        return err_set(e, ERR_INVALID, "no account ID in query params");
    if (!key)
        return err_set(e, ERR_INVALID, "no key in query params");
    return 0;
}

static bool repeats(const struct http_request *req, const char *name, struct view first)
{
    size_t i;

    for (i = 0; i < req->n_fields; i++) {
        if (view_ieq(req->fields[i].name, view_str(name)) && !view_eq(req->fields[i].value, first))
            return false;
    }
    return true;
}

/* One credential goes on: the API key if there is one, else the field, else the parameter (HP
 * §1.3). */
static int take_credential(const struct http_request *req, struct view param, struct target *t,
                           struct err *e)
{
    struct view api = http_field(req->fields, req->n_fields, "x-api-key");
    struct view field = http_field(req->fields, req->n_fields, "x-harness-token");

    if (!repeats(req, "x-api-key", api) || !repeats(req, "x-harness-token", field))
        return err_set(e, ERR_INVALID, "%s", two_tokens);
    t->cred_kind = api.n ? CRED_API_KEY : field.n ? CRED_TOKEN_HEADER : CRED_TOKEN_QUERY;
    str_addv(&t->secret, api.n ? api : field.n ? field : param);
    if (!t->secret.n)
        return err_set(e, ERR_INVALID, "no token or API key in the request");
    if (t->secret.n > CRED_MAX_SIZE)
        return err_set(e, ERR_INVALID, "the credential is longer than %d bytes", CRED_MAX_SIZE);
    return 0;
}

int target_parse(const struct http_request *req, struct target *t, struct err *e)
{
    struct view path, query, token = VIEW_NONE;

    url_split_target(req->target, &path, &query);
    if (parse_query(query, t, &token, e) < 0 || take_credential(req, token, t, e) < 0 ||
        check_name("accountID", &t->account, TARGET_MAX_ACCOUNT, e) < 0 ||
        check_name("key", &t->key, TARGET_MAX_KEY, e) < 0)
        return -1;
    if (memchr(t->account.p, '/', t->account.n))
        return err_set(e, ERR_INVALID, "accountID holds a slash");
    return 0;
}

void target_fini(struct target *t)
{
    str_fini(&t->account);
    str_fini(&t->key);
    str_fini(&t->query);
    str_fini(&t->close_query);
    if (t->secret.p)
        explicit_bzero(t->secret.p, t->secret.n);
    str_fini(&t->secret);
}
