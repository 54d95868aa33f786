/*
 * Credentials that clients present (HP §1.3). They are opaque: all that can be known of one is
 * whether upstream has taken it. Kept in the spool as long as a stream may need them; never shown.
 * Any thread.
 */
#ifndef TR_LOGS_CRED_H
#define TR_LOGS_CRED_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/str.h"
#include "base/view.h"
#include "rt/clock.h"
#include "spool/spool.h"

enum cred_kind { CRED_TOKEN_HEADER = 1, CRED_TOKEN_QUERY, CRED_API_KEY };

enum { CRED_MAX_SIZE = 8192 }; /* a token is a few hundred bytes; a larger one is refused */

struct creds;

struct creds *creds_new(void);
void creds_free(struct creds **c);

/* Take up what the spool holds. */
int creds_recover(struct creds *c, struct spool *spool, struct err *e) TR_MUST_USE;

/* The number of this credential of this account, made if it is new. `*fresh`: it is not in the
 * spool yet and is to be stored with cred_store in the transaction that names it; once that is
 * durable call cred_stored. 0: too many. Times are monotonic. */
uint32_t cred_intern(struct creds *c, struct view account, enum cred_kind kind, struct view value,
                     int64_t now, bool *fresh);
void cred_store(struct creds *c, uint32_t id, struct spool_txn *t);
void cred_stored(struct creds *c, uint32_t id);

/*
 * Tokens come and go with builds, so those that nothing names any more are forgotten: an hour after
 * their last use, proven ones after 48 h. Whoever names one says so at least every CREDS_TOUCH_NS
 * (cred_touch); creds_sweep, as often, drops the others and lets `t` take them out of the spool.
 */
#define CREDS_TOUCH_NS (300 * NS_PER_SEC)
void cred_touch(struct creds *c, uint32_t id, int64_t now);
void creds_sweep(struct creds *c, int64_t now, struct spool_txn *t);

/* Upstream took it, or refused it, at this monotonic time. cred_proven: true if that is news to be
 * kept by cred_store. */
bool cred_proven(struct creds *c, uint32_t id, int64_t now);
void cred_refused(struct creds *c, uint32_t id, int64_t now);
bool cred_is_proven(struct creds *c, uint32_t id, int64_t now); /* within the last 10 minutes */

bool cred_known_good(struct creds *c, uint32_t id); /* was taken once, and not refused since */

/* The credential to use for a stream that came with `id`: that one, or if it was refused the newest
 * proven one of the same account; 0 if none is known to be good. */
uint32_t cred_usable(struct creds *c, uint32_t id);

/* The same for one that was proven, and may have been forgotten since: then, too, the newest proven
 * one of the account, or `id` if there is none. */
uint32_t cred_for(struct creds *c, uint32_t id, struct view account);

/* Append the field ("X-Harness-Token: ..." or "x-api-key: ...") to `field`, or the query parameter,
 * with its `&`, to `query`. */
void cred_apply(struct creds *c, uint32_t id, struct str *field, struct str *query);

/* Kind and value, for a ticket. */
int cred_read(struct creds *c, uint32_t id, enum cred_kind *kind, struct str *value) TR_MUST_USE;

size_t creds_refused_count(struct creds *c);
size_t creds_count(struct creds *c);

#endif
