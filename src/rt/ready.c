#include "rt/ready.h"

#include <pthread.h>
#include "base/list.h"
#include "base/xmem.h"

struct check {
    struct list link;
    char *name;
    ready_fn fn;
    void *ctx;
};

/* Held while checks run, so that one that was removed is not running any more. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list checks = {&checks, &checks};

void ready_add(const char *name, ready_fn fn, void *ctx)
{
    struct check *c = XNEW(struct check);

    c->name = xstrdup(name);
    c->fn = fn;
    c->ctx = ctx;
    pthread_mutex_lock(&lock);
    list_append(&checks, &c->link);
    pthread_mutex_unlock(&lock);
}

void ready_remove(ready_fn fn, void *ctx)
{
    struct list *it, *tmp;

    pthread_mutex_lock(&lock);
    list_each(it, tmp, &checks) {
        struct check *c = list_entry(it, struct check, link);

        if (c->fn == fn && c->ctx == ctx) {
            list_remove(&c->link);
            xfree(c->name);
            xfree(c);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}

bool ready_check(struct str *reasons)
{
    struct list *it, *tmp;
    bool ready = true;

    pthread_mutex_lock(&lock);
    list_each(it, tmp, &checks) {
        struct check *c = list_entry(it, struct check, link);
        struct err why = {.text = "not ready"};

        if (c->fn(c->ctx, &why))
            continue;
        ready = false;
        if (reasons)
            str_addf(reasons, "%s: %s\n", c->name, why.text);
    }
    pthread_mutex_unlock(&lock);
    return ready;
}
