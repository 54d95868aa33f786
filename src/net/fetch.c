/* Delivery's HTTP client: a fetch from its start to its end. fetch_priv.h has the words. */
#include "net/fetch.h"
#include "net/fetch_priv.h"
#include "base/bug.h"
#include "base/xmem.h"

/* A field goes to the wire as it is; one with a line end would be two. */
static bool field_is_clean(const char *field)
{
    const char *colon = strchr(field, ':');

    if (!colon || colon == field)
        return false;
    for (const char *p = field; *p; p++)
        if ((unsigned char)*p < 0x20 ? *p != '\t' : *p == 0x7f)
            return false;
    return strpbrk(field, " \t") == NULL || strpbrk(field, " \t") > colon;
}

static bool field_has_name(const char *field, const char *name)
{
    size_t n = strlen(name);

    return strncasecmp(field, name, n) == 0 && field[n] == ':';
}

static void fields_add(struct fetch *f, const char *field)
{
    struct curl_slist *more = curl_slist_append(f->fields, field);

    if (!more)
        BUG("out of memory");
    f->fields = more;
}

/* "Name:" would tell curl to leave the field out; one without value is spelled "Name;". */
static void fields_add_given(struct fetch *f, const char *field)
{
    size_t colon = (size_t)(strchr(field, ':') - field);
    struct str s = STR_INIT;

    if (field[colon + 1 + strspn(field + colon + 1, " \t")] != '\0') {
        fields_add(f, field);
        return;
    }
    str_add(&s, field, colon);
    str_addc(&s, ';');
    fields_add(f, str_c(&s));
    str_fini(&s);
}

/* curl adds these by itself unless they are given, if only to be left out. */
static const char *const uninvited[] = {"Expect", "Accept", "Content-Type"};

static int fields_copy(struct fetch *f, const char *const *fields)
{
    bool given[ARRAY_LEN(uninvited)] = {false};

    for (; fields && *fields; fields++) {
        if (!field_is_clean(*fields))
            return err_set(&f->early, ERR_INVALID, "a field of the request is malformed");
        for (size_t i = 0; i < ARRAY_LEN(uninvited); i++)
            given[i] |= field_has_name(*fields, uninvited[i]);
        fields_add_given(f, *fields);
    }
    for (size_t i = 0; i < ARRAY_LEN(uninvited); i++) {
        char none[32];

        if (given[i])
            continue;
        snprintf(none, sizeof(none), "%s:", uninvited[i]);
        fields_add(f, none);
    }
    return 0;
}

static int64_t or_else(int64_t value, int64_t def)
{
    return value ? value : def;
}

struct fetch *fetch_start(struct fetch_pool *p, const struct fetch_opts *o)
{
    struct fetch *f = XNEW(struct fetch);

    OBJ_CHECK(p, FETCH_POOL_MAGIC);
    ASSERT(o->method && o->url && o->peer && o->done);
    OBJ_INIT(f, FETCH_MAGIC);
    f->pool = p;
    f->o = *o;
    f->method = xstrdup(o->method);
    f->url = xstrdup(o->url);
    f->o.method = f->method;
    f->o.url = f->url;
    f->o.fields = NULL;
    f->o.timeout_ms = (unsigned)or_else(o->timeout_ms, FETCH_TIMEOUT_MS);
    f->o.connect_ms = (unsigned)or_else(o->connect_ms, FETCH_CONNECT_MS);
    f->o.max_answer = o->max_answer ? o->max_answer : FETCH_ANSWER_MAX;
    f->started_ns = ev_now_ns(p->loop);
    f->deadline_ns = f->started_ns + FETCH_NS(f->o.timeout_ms);
    f->r.connection = -1;
    list_init(&f->wait);
    (void)fields_copy(f, o->fields); /* an error is told from the pump */
    f->state = FETCH_S_INCOMING;
    list_append(&p->incoming, &f->link);
    p->active++;
    fetch_pool_post(p);
    return f;
}

void fetch_resume(struct fetch *f)
{
    OBJ_CHECK(f, FETCH_MAGIC);
    if (f->state != FETCH_S_RUNNING || !f->paused)
        return;
    f->paused = false;
    f->stall_ns = ev_now_ns(f->pool->loop);
    if (f->pool->in_curl) {
        f->resume = f->pool->resumed = true;
    } else {
        f->pool->in_curl++;
        curl_easy_pause(f->easy->h, CURLPAUSE_CONT);
        f->pool->in_curl--;
    }
    fetch_pool_post(f->pool);
}

void fetch_cancel(struct fetch **fp)
{
    struct fetch *f = *fp;

    if (!f)
        return;
    OBJ_CHECK(f, FETCH_MAGIC);
    ASSERT(f->state != FETCH_S_DONE && !f->dropped);
    *fp = NULL;
    f->pool->active--;
    list_remove(&f->link);
    if (f->state == FETCH_S_RUNNING && f->pool->in_curl) {
        f->dropped = true;
        list_append(&f->pool->dropped, &f->link);
        fetch_pool_post(f->pool);
        return;
    }
    fetch_free(f);
}

/* Ends it before curl has it, or after: its callback is called by the pump. */
void fetch_fail(struct fetch *f)
{
    list_remove(&f->link);
    list_remove(&f->wait);
    f->state = FETCH_S_FAILED;
    f->r.outcome = FETCH_NOT_SENT;
    f->r.err = f->early;
    list_append(&f->pool->failed, &f->link);
    fetch_pool_post(f->pool);
}

/* The outcome is set; tell and free. The slot is given back first, so that `done` can use it. */
void fetch_finish(struct fetch *f)
{
    list_remove(&f->link);
    if (f->easy)
        fetch_easy_stop(f);
    f->state = FETCH_S_DONE;
    f->pool->active--;
    f->r.body = str_view(&f->body);
    f->o.done(f->o.ctx, &f->r);
    fetch_free(f);
}

void fetch_free(struct fetch *f)
{
    list_remove(&f->link);
    list_remove(&f->wait);
    if (f->easy)
        fetch_easy_stop(f);
    if (f->host)
        fetch_host_release(f->host);
    curl_slist_free_all(f->fields);
    str_fini(&f->body);
    xfree(f->method);
    xfree(f->url);
    xfree(f->target);
    OBJ_FINI(f);
    xfree(f);
}

size_t fetch_pool_active(const struct fetch_pool *p)
{
    return p->active;
}

size_t fetch_pool_connections(const struct fetch_pool *p)
{
    return p->opened;
}
