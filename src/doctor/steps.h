/* What is asked of a host once it is reached, each on a connection of its own. */
#ifndef TR_DOCTOR_STEPS_H
#define TR_DOCTOR_STEPS_H

#include "base/view.h"
#include "doctor/route.h"
#include "doctor/talk.h"

/* How a service is asked. */
struct service {
    bool https;
    const char *authority; /* for Host */
    const char *base;      /* the path in front of all others; "" or "/gratis" */
    const char *account;   /* NULL: not known */
};

/* A new connection, with TLS if it is https. False: the findings say why. */
bool step_connect(struct route *r, bool https, struct view alpn);

/* One request, on a connection that is there. False: no answer, and the report says why. */
bool step_ask(struct route *r, const char *step, const struct str *request, struct talk_answer *a);

/* GET of a path below base that every log service answers, and how this host's clock is by the
 * answer's Date. */
bool step_http(struct route *r, const struct service *s, const char *path);
/* GET / of whatever service: any answer that is not a filter's will do. */
bool step_any_http(struct route *r, const struct service *s);
/* HTTP/2, if TLS agrees on it (in clear: by prior knowledge). */
bool step_h2(struct route *r, const struct service *s);
/* The delegate's upgrade to WebSocket (HP §4.2), without a delegate's token. */
bool step_websocket(struct route *r, const struct service *s);
/* Does a connection without traffic still work after so long? */
bool step_idle(struct route *r, const struct service *s, unsigned seconds);

#endif
