/*
 * What each account uses of the budgets that all share: streams, bytes that wait in the spool, and
 * memory for bodies being received. One account alone may have everything; of several each has its
 * share when little is left (rt/overload.h). Any thread.
 */
#ifndef TR_LOGS_ACCOUNTS_H
#define TR_LOGS_ACCOUNTS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/view.h"
#include "rt/overload.h"

struct accounts;
struct account;

struct accounts *accounts_new(uint64_t streams_max, unsigned share); /* limits.*, percent */
void accounts_free(struct accounts **as);

/* The account of that name, to be put back; made if it is not known. */
struct account *account_get(struct accounts *as, struct view name);
void account_put(struct account **a);

/* A stream more, or OVERLOAD_STREAMS, OVERLOAD_STREAMS_SHARE: no more. `beyond`: up to an eighth
 * over the limit, whatever the share. */
bool account_add_stream(struct account *a, bool beyond, enum overload_reason *why);
void account_keep_stream(struct account *a); /* one that is in the spool already: always */
void account_drop_stream(struct account *a);
uint64_t accounts_streams(const struct accounts *as);
/* Streams are so many that those which ended should not be remembered for as long as usual. */
bool accounts_crowded(const struct accounts *as);

/* So many bytes more, or less, wait for delivery. Counted as clients sent them: what is compared
 * are accounts among each other. */
void account_shift_waiting(struct account *a, int64_t bytes);
/* Do others need what it has more than its share of? For when the spool is nearly full. */
bool account_spool_share_used(const struct account *a);

void account_shift_intake(struct account *a, int64_t bytes);
/* The same, for memory of bodies being received; `limit`: memory.limit. */
bool account_may_take_in(const struct account *a, uint64_t limit);
uint64_t accounts_intake(const struct accounts *as);

#endif
