/*
 * Commands (rt/command.h) over HTTP: reads by GET and actions by POST, below /api/v1/, arguments in
 * the query. Who may come here is for who serves it to say: control.h, listener.h.
 */
#ifndef TR_ADMIN_CALL_H
#define TR_ADMIN_CALL_H

#include <stdbool.h>
#include "base/view.h"
#include "http/server.h"

#define CALL_PREFIX "/api/v1/"
#define CALL_ACCESS "access" /* below it: call_show_access */

struct call_opts {
    const char *by; /* for the log: "uid=0 pid=4711"; copied */
    bool open;      /* anybody may be there: private commands are not */
    bool bound;     /* the exchange has a handler already, which is replaced */
};

/* Run the command at `path` (without the prefix) and answer as it says, at once or later. The
 * request's body is not looked at. In the loop's thread. */
void call_serve(struct http_exchange *ex, const struct call_opts *o, struct view path,
                struct view query);

/* Answer with the list of commands, without private ones if `open`. */
void call_show_index(struct http_exchange *ex, bool open);

/* Answer with what may be done here: the listener's name (NULL: the control socket), and whether
 * actions may be called for. */
void call_show_access(struct http_exchange *ex, const char *listener, bool actions);

/* Answer with JSON, in the way that all of /api/v1/ is answered; `extra`: one more field, or NULL.
 */
void call_reply(struct http_exchange *ex, int status, const struct h1_field *extra,
                struct view json);
/* The same with {"error": text}. */
void call_refuse(struct http_exchange *ex, int status, const struct h1_field *extra,
                 const char *text);

#endif
