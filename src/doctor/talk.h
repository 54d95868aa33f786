/* One HTTP/1.1 request after the other over a line, and their answers. */
#ifndef TR_DOCTOR_TALK_H
#define TR_DOCTOR_TALK_H

#include "codec/h1.h"
#include "doctor/line.h"

struct talk_answer {
    int status;
    int64_t date;    /* seconds since 1970 of the Date field; -1: none */
    char server[64]; /* Server, or Via; made of printable characters; "" if neither is there */
    char accept[64]; /* Sec-WebSocket-Accept */
    bool html, upgrade, keep_alive, location;
    struct str body; /* as much as is kept of it */
};

/* Begin a request: "METHOD target HTTP/1.1", Host and User-Agent. */
void talk_begin(struct str *out, const char *method, struct view target, const char *authority);
/* A field of it. `value` has been checked (h1_is_field_value). */
void talk_field(struct str *out, const char *name, const char *value);
/* The fields' end, and a body. Content-Length stands there unless the method has none. */
void talk_end(struct str *out, struct view body, bool with_length);

/* Send it and read the whole answer, interim ones left out; of one to CONNECT, and of an upgrade,
 * the head only. 0; -1: `e`. `a` is to be freed in any case. */
int talk(struct line *l, const struct str *request, struct talk_answer *a,
         struct err *e) TR_MUST_USE;
void talk_answer_fini(struct talk_answer *a);

#endif
