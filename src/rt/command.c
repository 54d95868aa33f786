#include "rt/command.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list commands = {&commands, &commands};

void command_add(struct command *c)
{
    pthread_mutex_lock(&lock);
    list_append(&commands, &c->link);
    pthread_mutex_unlock(&lock);
}

void command_remove(struct command *c)
{
    struct list *it, *tmp;

    pthread_mutex_lock(&lock);
    list_each (it, tmp, &commands) {
        if (it == &c->link)
            list_remove(it);
    }
    pthread_mutex_unlock(&lock);
}

const char *command_part(const struct command_call *call, size_t i)
{
    return i < call->n_parts ? call->parts[i] : NULL;
}

const char *command_arg(const struct command_call *call, const char *name)
{
    size_t i;

    for (i = 0; i < call->n_args; i++) {
        if (strcmp(call->args[i].name, name) == 0)
            return call->args[i].value;
    }
    return NULL;
}

int64_t command_number(struct command_call *call, const char *name, int64_t usual, int64_t max)
{
    const char *text = command_arg(call, name);
    long long n;
    char *end;

    if (!text)
        return usual;
    errno = 0;
    n = strtoll(text, &end, 10);
    if (*text >= '1' && *text <= '9' && !*end && errno == 0 && n <= max)
        return n;
    if (max == INT64_MAX)
        command_fail(call, 400, "%s: use a number from 1 on", name);
    else
        command_fail(call, 400, "%s: use a number from 1 to %lld", name, (long long)max);
    return 0;
}

const char *command_by(const struct command_call *call)
{
    return call->by ? call->by : "";
}

bool command_abandoned(const struct command_call *call)
{
    return atomic_load(&call->abandoned);
}

void command_reply(struct command_call *call, int status, struct view json)
{
    call->sink->begin(call, status, "application/json");
    call->sink->write(call, json);
    call->sink->end(call, true);
}

void command_fail(struct command_call *call, int status, const char *fmt, ...)
{
    struct str text = STR_INIT, json = STR_INIT;
    va_list ap;

    va_start(ap, fmt);
    str_vaddf(&text, fmt, ap);
    va_end(ap);
    str_adds(&json, "{\"error\":\"");
    str_add_json(&json, str_view(&text));
    str_adds(&json, "\"}\n");
    command_reply(call, status, str_view(&json));
    str_fini(&json);
    str_fini(&text);
}

void command_stream(struct command_call *call, const char *type, void (*room)(void *ctx), void *ctx)
{
    call->room = room;
    call->room_ctx = ctx;
    call->sink->begin(call, 200, type);
}

void command_write(struct command_call *call, struct view piece)
{
    call->sink->write(call, piece);
}

void command_end(struct command_call *call, bool whole)
{
    call->sink->end(call, whole);
}

/* --- serving ------------------------------------------------------------------------------ */

static bool fits(const char *pattern, const struct command_call *call)
{
    size_t i;

    for (i = 0; i < call->n_parts; i++) {
        size_t n = strcspn(pattern, "/");
        bool any = n == 1 && *pattern == '*', last = i + 1 == call->n_parts;

        if (!any && (strlen(call->parts[i]) != n || memcmp(pattern, call->parts[i], n) != 0))
            return false;
        pattern += n;
        if (*pattern != (last ? '\0' : '/'))
            return false;
        pattern += !last;
    }
    return call->n_parts > 0;
}

/* The command, or NULL with `*other` saying whether one of the other kind is there. */
static struct command *find(const struct command_call *call, bool *other)
{
    struct command *found = NULL;
    struct list *it, *tmp;

    *other = false;
    pthread_mutex_lock(&lock);
    list_each (it, tmp, &commands) {
        struct command *c = list_entry(it, struct command, link);

        if (!fits(c->path, call) || (c->private && call->open))
            continue;
        if (c->kind == call->kind && !found)
            found = c;
        *other = true;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

void command_run(struct command_call *call)
{
    bool other;
    struct command *c = find(call, &other);

    if (c)
        c->run(c->ctx, call);
    else if (other)
        command_fail(call, 405, "use %s", call->kind == COMMAND_READ ? "POST" : "GET");
    else
        command_fail(call, 404, "there is no such command");
}

void command_call_fini(struct command_call *call)
{
    size_t i;

    for (i = 0; i < call->n_parts; i++)
        xfree(call->parts[i]);
    for (i = 0; i < call->n_args; i++) {
        xfree(call->args[i].name);
        xfree(call->args[i].value);
    }
    xfree(call->parts);
    xfree(call->args);
    xfree(call->by);
}

void command_index(struct str *out, bool open)
{
    struct list *it, *tmp;
    const char *sep = "";

    str_addc(out, '[');
    pthread_mutex_lock(&lock);
    list_each (it, tmp, &commands) {
        struct command *c = list_entry(it, struct command, link);

        if (c->private && open)
            continue;
        str_addf(out, "%s{\"path\":\"%s\",\"kind\":\"%s\",\"text\":\"", sep, c->path,
                 c->kind == COMMAND_READ ? "read" : "action");
        str_add_json(out, view_str(c->text));
        str_adds(out, "\"}");
        sep = ",\n ";
    }
    pthread_mutex_unlock(&lock);
    str_adds(out, "]\n");
}
