/*
 * The status page: files of src/admin/page, which scripts/embed.sh makes part of the program. They
 * refer to nothing else, so the page works where there is no other network.
 */
#ifndef TR_ADMIN_SITE_H
#define TR_ADMIN_SITE_H

#include <stdbool.h>
#include <stddef.h>
#include "base/view.h"
#include "http/server.h"

struct site_file {
    const char *name; /* "page.js" */
    const unsigned char *bytes;
    size_t n;
};

/* In the generated source; the last has no name. */
extern const struct site_file site_files[];

/*
 * Serve the request if it is for a file of the page: "/" for who prefers HTML (`accept`: the Accept
 * fields joined by commas), or "/page.js". False: it is for somebody else.
 */
bool site_take(struct http_exchange *ex, const struct http_request *req, struct view path,
               struct view accept);

#endif
