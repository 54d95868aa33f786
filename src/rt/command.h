/*
 * Commands: what can be asked of the running process, or told to it. Layers register commands under
 * paths; admin serves them on the control socket and on admin listeners, and answers as they say.
 * Nothing here knows what a command means, and nothing that serves commands names another layer.
 *
 * A call is answered once, at once or later, from any thread: as a whole (JSON), or as a stream of
 * pieces. Its client may leave before that; the call stays valid until it is answered.
 */
#ifndef TR_RT_COMMAND_H
#define TR_RT_COMMAND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/list.h"
#include "base/str.h"
#include "base/view.h"

enum command_kind {
    COMMAND_READ,   /* changes nothing (GET) */
    COMMAND_ACTION, /* changes something (POST); who called it is logged */
};

struct command_call;

/* The owner keeps it while it is registered. */
struct command {
    struct list link;       /* ours */
    const char *path;       /* "dead"; a part that is a star stands for any: see command_part */
    enum command_kind kind; /* one path may have one command of each kind */
    const char *text;       /* one line for the index */
    bool private;           /* shows text of logs: not for callers that may be anybody */
    /* Runs in the thread that serves commands; must not block. */
    void (*run)(void *ctx, struct command_call *call);
    void *ctx;
};

/* Any thread. */
void command_add(struct command *c);
/* It runs no more when this returns; calls that are not answered yet are its owner's to answer.
 * Only in the thread that serves commands, or when there is none. Not added: fine. */
void command_remove(struct command *c);

/* --- for commands ------------------------------------------------------------------------- */

/* Part `i` of the path, decoded: of dead/17/replay, 1 is "17". NULL: there is none. Valid, as the
 * arguments are, until the call is answered. */
const char *command_part(const struct command_call *call, size_t i);
/* The value of that argument, decoded; NULL: it was not given. */
const char *command_arg(const struct command_call *call, const char *name);
/* That argument, a number from 1 to `max`; `usual` if it was not given. 0: it is something else,
 * and the call is answered by 400. */
int64_t command_number(struct command_call *call, const char *name, int64_t usual, int64_t max);
/* Who called, for the log: "uid=0 pid=4711". */
const char *command_by(const struct command_call *call);

/* Answer with a whole JSON text (copied). Any thread. */
void command_reply(struct command_call *call, int status, struct view json);
/* The same with {"error": "..."}. */
void command_fail(struct command_call *call, int status, const char *fmt, ...) TR_PRINTF(3, 4);

/*
 * Answer with a stream. After each command_write (copied; any thread) `room` is called exactly
 * once, in the serving thread and never from within, when the next piece may come or the client is
 * gone; nothing else may be done with the call until then. command_end is the last: not `whole`
 * lets the client know that something is missing.
 */
void command_stream(struct command_call *call, const char *type, void (*room)(void *ctx),
                    void *ctx);
void command_write(struct command_call *call, struct view piece);
void command_end(struct command_call *call, bool whole);

/* The client is gone: an answer goes nowhere, but must be given. Any thread. */
bool command_abandoned(const struct command_call *call);

/* --- for who serves them ------------------------------------------------------------------ */

struct command_name {
    char *name, *value;
};

/* How an answer gets to the client. Called from any thread, in the order that commands keep. */
struct command_sink {
    void (*begin)(struct command_call *call, int status, const char *type);
    void (*write)(struct command_call *call, struct view piece);
    void (*end)(struct command_call *call, bool whole); /* the call may be freed from now on */
};

/* Embedded by who serves it, and filled before command_run; freed by command_call_fini. */
struct command_call {
    const struct command_sink *sink;
    enum command_kind kind;
    char **parts; /* heap, decoded */
    size_t n_parts;
    struct command_name *args; /* heap, decoded */
    size_t n_args;
    char *by;  /* heap */
    bool open; /* may be anybody: private commands are not there */
    void (*room)(void *ctx);
    void *room_ctx;
    atomic_bool abandoned;
};

/* Find the command and run it; answered by 404 or 405 if there is none. */
void command_run(struct command_call *call);
void command_call_fini(struct command_call *call);

/* Append all commands as a JSON array of {"path", "kind", "text"}; `open`: without private ones. */
void command_index(struct str *out, bool open);

#endif
