#include "logs/barrier.h"

#include "base/xmem.h"
#include "codec/url.h"
#include "logs/logs_priv.h"

struct barrier {
    struct shard *owner;
    struct stream *stream;
    unsigned waiting; /* shards that have not reported yet */
};

/* One shard's part in a barrier. */
struct watch {
    struct ev_task task;
    struct list link; /* shard.barriers */
    struct shard *sh;
    struct barrier *barrier;
    int64_t before; /* record id of the close */
    struct str account, prefix, keys;
    bool by_prefix;
    const struct stream *blocker; /* one that was found busy: asked first the next time */
};

/* A parameter that lists keys; its spelling is not known for certain (HP §8). */
static bool lists_keys(struct view name)
{
    size_t i;

    if (view_is(name, "key"))
        return false;
    for (i = 0; i + 3 <= name.n; i++) {
        if (strncasecmp(name.p + i, "key", 3) == 0)
            return true;
    }
    return false;
}

bool barrier_param(struct view name, struct view value)
{
    return lists_keys(name) || (view_is(name, "prefix") && view_is(value, "true"));
}

static void watch_fill(struct watch *w, const struct stream *s, const struct record *close)
{
    struct view rest = str_view(&close->query), name, value;

    str_addv(&w->account, s->account_v);
    str_addv(&w->prefix, s->key_v);
    while (url_query_next(&rest, &name, &value)) {
        if (view_is(name, "prefix") && view_is(value, "true"))
            w->by_prefix = true;
        if (lists_keys(name)) {
            str_addc(&w->keys, ',');
            if (url_decode(value, true, &w->keys) < 0)
                str_addc(&w->keys, ',');
        }
    }
    str_addc(&w->keys, ',');
}

static void watch_free(struct watch *w)
{
    list_remove(&w->link);
    str_fini(&w->account);
    str_fini(&w->prefix);
    str_fini(&w->keys);
    xfree(w);
}

static bool listed(const struct watch *w, struct view key)
{
    struct view keys = str_view(&w->keys);
    size_t i;

    for (i = 0; i + key.n + 2 <= keys.n; i++) {
        if (keys.p[i] == ',' && keys.p[i + 1 + key.n] == ',' &&
            memcmp(keys.p + i + 1, key.p, key.n) == 0)
            return true;
    }
    return false;
}

static bool older_in(const struct list *head, int64_t before)
{
    const struct list *it;

    for (it = head->next; it != head; it = it->next) {
        const struct record *r = list_entry(it, struct record, link);

        /* One whose commit is under way came later: this shard would have heard of it before the
         * close's owner did. */
        if (r->state != RECORD_COMMITTING && r->row.id < before)
            return true;
    }
    return false;
}

static bool busy(const struct watch *w, const struct stream *s)
{
    const struct list *it;

    if (older_in(&s->blobs, w->before))
        return true;
    for (it = s->lives.next; it != &s->lives; it = it->next) {
        if (queue_older(&list_entry(it, struct life, link)->lines, w->before))
            return true;
    }
    return false;
}

static bool satisfied(struct watch *w)
{
    struct hnode *n = NULL;
    size_t slot = 0;

    if (w->blocker && busy(w, w->blocker))
        return false;
    w->blocker = NULL;
    while ((n = hmap_walk(&w->sh->streams, &slot, n)) != NULL) {
        const struct stream *s = hmap_entry(n, struct stream, place.node);

        if (s == w->barrier->stream || !view_eq(s->account_v, str_view(&w->account)))
            continue;
        if (((w->by_prefix && view_starts(s->key_v, str_view(&w->prefix))) ||
             listed(w, s->key_v)) &&
            busy(w, s)) {
            w->blocker = s;
            return false;
        }
    }
    return true;
}

/* In the loop of the close's owner. */
static void reported(struct ev_task *task)
{
    struct watch *w = container_of(task, struct watch, task);
    struct barrier *b = w->barrier;

    watch_free(w);
    if (--b->waiting == 0) {
        stream_barrier_passed(b->stream, shard_now(b->owner));
        xfree(b);
    }
}

/* A shard that stops reports no more: the close's owner may be gone. The next start asks again. */
static void watch_check(struct watch *w)
{
    if (w->sh->stopping || !satisfied(w))
        return;
    list_remove(&w->link);
    w->task.run = reported;
    ev_post(w->barrier->owner->loop, &w->task);
}

/* In the loop of the shard that watches. */
static void watch_begin(struct ev_task *task)
{
    struct watch *w = container_of(task, struct watch, task);

    list_append(&w->sh->barriers, &w->link);
    watch_check(w);
}

void barrier_ask(struct stream_env *env, struct stream *s, struct record *close)
{
    struct shard *sh = container_of(env, struct shard, env);
    struct barrier *b;
    unsigned i;

    if (sh->stopping && !sh->still)
        return;
    b = XNEW(struct barrier);
    b->owner = sh;
    b->stream = s;
    b->waiting = sh->logs->n_shards;
    for (i = 0; i < sh->logs->n_shards; i++) {
        struct watch *w = XNEW(struct watch);

        list_init(&w->link);
        w->sh = sh->logs->shards[i];
        w->barrier = b;
        w->before = close->row.id;
        watch_fill(w, s, close);
        w->task.run = watch_begin;
        ev_post(w->sh->loop, &w->task);
    }
}

static void check_run(struct ev_task *task)
{
    struct shard *sh = container_of(task, struct shard, barrier_task);
    struct list *it, *tmp;

    sh->barrier_due = false;
    list_each (it, tmp, &sh->barriers)
        watch_check(list_entry(it, struct watch, link));
}

void barrier_check(struct shard *sh)
{
    if (list_empty(&sh->barriers) || sh->barrier_due || sh->stopping)
        return;
    sh->barrier_due = true;
    sh->barrier_task.run = check_run;
    ev_defer(sh->loop, &sh->barrier_task);
}

void barrier_forget(struct shard *sh, const struct stream *s)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sh->barriers) {
        struct watch *w = list_entry(it, struct watch, link);

        if (w->blocker == s)
            w->blocker = NULL;
    }
}

void barrier_free_all(struct shard *sh)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sh->barriers)
        watch_free(list_entry(it, struct watch, link));
}
