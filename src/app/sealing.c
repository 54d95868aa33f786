#include "app/sealing.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include "base/xmem.h"
#include "rt/log.h"

static int load_all(const struct config *c, struct aead_key *current, struct aead_key *old,
                    struct err *e)
{
    size_t i;

    if (c->spool_key && envelope_key_load(c->spool_key, current, e) < 0)
        return err_prefix(e, "spool.key");
    for (i = 0; i < c->spool_old_keys.n; i++) {
        if (envelope_key_load(c->spool_old_keys.items[i], &old[i], e) < 0)
            return err_prefix(e, "spool.old-keys");
    }
    return 0;
}

int sealing_load(const struct config *c, struct envelope **out, struct err *e)
{
    size_t n = c->spool_old_keys.n;
    struct aead_key current, *old;
    int rc;

    *out = NULL;
    if (!c->spool_key && !n)
        return 0;
    old = xcalloc(n + 1, sizeof(*old));
    rc = load_all(c, &current, old, e);
    if (rc == 0)
        *out = envelope_new(c->spool_key ? &current : NULL, old, n);
    explicit_bzero(&current, sizeof(current));
    xfree_secret(old, (n + 1) * sizeof(*old));
    return rc;
}

void sealing_hide_memory(const struct config *c)
{
    const struct rlimit none = {0, 0};

    if (c->debug_core_dumps) {
        (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* a change of user has taken it away */
        log_event(LOG_WARN, "app",
                  "debug.core-dumps is on: a crash leaves tokens, keys and log lines on disk");
        return;
    }
    /* The limit alone is not enough: a pattern that pipes to a program ignores it. */
    if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        log_event(LOG_WARN, "app", "core dumps cannot be turned off",
                  LF_STR("error", strerror(errno)));
}
