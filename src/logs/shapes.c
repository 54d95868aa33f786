#include "logs/shapes.h"

#include <pthread.h>
#include <stdlib.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "rt/clock.h"
#include "rt/log.h"
#include "rt/metric.h"

#define SPACE "shape" /* of values in the spool */

#define PAUSE_FIRST (60 * NS_PER_SEC) /* after a trial that told nothing */
#define PAUSE_MOST  (3600 * NS_PER_SEC)

struct shape {
    char *text;
    size_t text_n;
    enum shape_state state;
    unsigned unsure;    /* trials in a row that told nothing */
    int64_t not_before; /* the next one */
};

struct shapes {
    pthread_mutex_t lock;
    struct shape *all[SHAPES_MAX];
    size_t n;
    struct metric *count[SHAPE_STATES];
};

static const char *const state_names[SHAPE_STATES] = {
    [SHAPE_UNKNOWN] = "unknown",
    [SHAPE_TRYING] = "trying",
    [SHAPE_TRUSTED] = "trusted",
    [SHAPE_REFUSED] = "refused",
};

struct shapes *shapes_new(void)
{
    struct metric_family *f = metric_family(METRIC_GAUGE, "gzip_shapes", "state",
                                            "Kinds of signed upload links, by whether the object "
                                            "store behind them takes gzip.");
    struct shapes *s = XNEW(struct shapes);
    int i;

    pthread_mutex_init(&s->lock, NULL);
    for (i = 0; i < SHAPE_STATES; i++) {
        s->count[i] = metric_series(f, state_names[i]);
        metric_set(s->count[i], 0);
    }
    return s;
}

void shapes_free(struct shapes **sp)
{
    struct shapes *s = *sp;
    size_t i;

    if (!s)
        return;
    for (i = 0; i < s->n; i++) {
        xfree(s->all[i]->text);
        xfree(s->all[i]);
    }
    pthread_mutex_destroy(&s->lock);
    XFREE(*sp);
}

/* --- the table: with the lock held ---------------------------------------------------------- */

static struct shape *find(const struct shapes *s, struct view text)
{
    size_t i;

    for (i = 0; i < s->n; i++) {
        if (view_eq(view_of(s->all[i]->text, s->all[i]->text_n), text))
            return s->all[i];
    }
    return NULL;
}

static struct shape *find_or_add(struct shapes *s, struct view text)
{
    struct shape *sh = find(s, text);

    if (sh || s->n == SHAPES_MAX)
        return sh;
    sh = XNEW(struct shape);
    sh->text = xmemdup0(text.p, text.n);
    sh->text_n = text.n;
    s->all[s->n++] = sh;
    metric_shift(s->count[SHAPE_UNKNOWN], 1);
    return sh;
}

static void set_state(struct shapes *s, struct shape *sh, enum shape_state state)
{
    metric_shift(s->count[sh->state], -1);
    sh->state = state;
    metric_shift(s->count[state], 1);
}

/* --- recovery ------------------------------------------------------------------------------- */

static int recover_one(void *ctx, struct view name, struct view value)
{
    struct shapes *s = ctx;
    struct shape *sh;

    if (value.n != 1 || (value.p[0] != SHAPE_TRUSTED && value.p[0] != SHAPE_REFUSED))
        return 0;
    sh = find_or_add(s, name);
    if (sh)
        set_state(s, sh, (enum shape_state)value.p[0]);
    return 0;
}

int shapes_recover(struct shapes *s, struct spool *spool, struct err *e)
{
    int rc;

    pthread_mutex_lock(&s->lock);
    rc = spool_each_value(spool, SPACE, recover_one, s, e);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static void stored(void *ctx, const struct err *err)
{
    (void)ctx;
    if (err)
        log_event(LOG_INFO, "delivery", "what was learnt about an object store could not be kept",
                  LF_ERR(err));
}

static void store(struct spool *spool, struct view shape, enum shape_state state)
{
    struct spool_txn *t = spool_txn_new();
    char value = (char)state;

    spool_txn_value(t, SPACE, shape, view_of(&value, 1));
    spool_submit(spool, t, stored, NULL);
}

/* --- shapes of links ------------------------------------------------------------------------ */

struct names {
    struct view of[SHAPE_NAMES_MAX];
    size_t n;
};

static bool is_list_of_headers(struct view query_name)
{
    return view_ieq(query_name, VIEW_LIT("X-Amz-SignedHeaders")) ||
           view_ieq(query_name, VIEW_LIT("X-Goog-SignedHeaders"));
}

/* Lower case, and nothing that could not be a header's name: the shape is shown in the log. */
static int names_lower(struct str *list)
{
    size_t i;

    for (i = 0; i < list->n; i++) {
        char c = list->p[i];

        if (c >= 'A' && c <= 'Z')
            list->p[i] = (char)(c + ('a' - 'A'));
        else if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' &&
                 c != ';')
            return -1;
    }
    return 0;
}

static int names_split(struct names *names, struct view list)
{
    while (list.n) {
        const char *end = memchr(list.p, ';', list.n);
        size_t n = end ? (size_t)(end - list.p) : list.n;

        if (n == 0 || names->n == SHAPE_NAMES_MAX)
            return -1;
        names->of[names->n++] = view_of(list.p, n);
        list = view_from(list, end ? n + 1 : n);
    }
    return 0;
}

static int name_order(const void *a, const void *b)
{
    const struct view *x = a, *y = b;
    int c = memcmp(x->p, y->p, TR_MIN(x->n, y->n));

    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* The list of signed headers, decoded, into `list`. -1: malformed, or there are two. */
static int signed_headers(struct view query, struct str *list)
{
    struct view name, value;
    bool seen = false;

    while (url_query_next(&query, &name, &value)) {
        if (!is_list_of_headers(name))
            continue;
        if (seen || url_decode(value, true, list) < 0)
            return -1;
        seen = true;
    }
    return names_lower(list);
}

int shape_of_link(struct view link, struct str *out)
{
    struct names names = {.n = 0};
    struct str list = STR_INIT;
    struct view path, query;
    struct url url;
    size_t i;
    int rc = -1;

    if (url_parse(link, &url, NULL) < 0)
        return -1;
    url_split_target(url.path, &path, &query);
    if (signed_headers(query, &list) < 0 || names_split(&names, str_view(&list)) < 0)
        goto out;
    qsort(names.of, names.n, sizeof(names.of[0]), name_order);
    for (i = 0; i < url.authority.n; i++) {
        char c = url.authority.p[i];

        str_addc(out, c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c);
    }
    str_addc(out, ' ');
    for (i = 0; i < names.n; i++) {
        if (i)
            str_addc(out, ';');
        str_addv(out, names.of[i]);
    }
    rc = 0;
out:
    str_fini(&list);
    return rc;
}

/* --- asking and telling --------------------------------------------------------------------- */

enum shape_use shapes_ask(struct shapes *s, struct view shape, bool may_try, int64_t now)
{
    enum shape_use use = SHAPE_PLAIN;
    struct shape *sh;

    pthread_mutex_lock(&s->lock);
    sh = find_or_add(s, shape);
    if (sh && sh->state == SHAPE_TRUSTED) {
        use = SHAPE_GZIP;
    } else if (sh && sh->state == SHAPE_UNKNOWN && may_try && now >= sh->not_before) {
        set_state(s, sh, SHAPE_TRYING);
        use = SHAPE_TRY;
    }
    pthread_mutex_unlock(&s->lock);
    return use;
}

static void pause_trials(struct shape *sh, int64_t now)
{
    int64_t pause = PAUSE_FIRST;
    unsigned i;

    for (i = 0; i < sh->unsure && pause < PAUSE_MOST; i++)
        pause *= 2;
    sh->unsure++;
    sh->not_before = now + TR_MIN(pause, PAUSE_MOST);
}

/* True: the shape's state is to be kept. */
static bool learn(struct shapes *s, struct shape *sh, enum shape_verdict v, int64_t now)
{
    switch (v) {
    case SHAPE_EQUAL:
        if (sh->state != SHAPE_TRYING)
            return false;
        set_state(s, sh, SHAPE_TRUSTED);
        return true;
    case SHAPE_DIFFERENT:
        if (sh->state == SHAPE_REFUSED)
            return false;
        set_state(s, sh, SHAPE_REFUSED);
        return true;
    case SHAPE_UNSURE:
    case SHAPE_UNTRIED:
        if (sh->state != SHAPE_TRYING)
            return false;
        set_state(s, sh, SHAPE_UNKNOWN);
        if (v == SHAPE_UNSURE)
            pause_trials(sh, now);
        return false;
    }
    BUG("no such verdict");
}

void shapes_tell(struct shapes *s, struct view shape, enum shape_verdict v, struct spool *spool,
                 int64_t now)
{
    enum shape_state state = SHAPE_UNKNOWN;
    struct shape *sh;
    bool keep;

    pthread_mutex_lock(&s->lock);
    sh = find(s, shape);
    keep = sh && learn(s, sh, v, now);
    if (sh)
        state = sh->state;
    pthread_mutex_unlock(&s->lock);
    if (!keep)
        return;
    if (state == SHAPE_TRUSTED)
        log_event(LOG_NOTICE, "delivery",
                  "the object store reads gzip uploads back right; they are sent compressed",
                  LF_VIEW("store", shape));
    else
        log_event(LOG_NOTICE, "delivery",
                  "the object store does not serve gzip uploads as they were; they are sent plain",
                  LF_VIEW("store", shape));
    if (spool)
        store(spool, shape, state);
}

enum shape_state shapes_state(struct shapes *s, struct view shape)
{
    enum shape_state state = SHAPE_UNKNOWN;
    struct shape *sh;

    pthread_mutex_lock(&s->lock);
    sh = find(s, shape);
    if (sh)
        state = sh->state;
    pthread_mutex_unlock(&s->lock);
    return state;
}
