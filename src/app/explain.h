/*
 * Why is a destination allowed or not? What `tailrace check --explain` says of a configuration, and
 * the command policy/explain of the one that runs. Pure: whoever asks looks the name up.
 */
#ifndef TR_APP_EXPLAIN_H
#define TR_APP_EXPLAIN_H

#include "base/str.h"
#include "net/connect.h"
#include "policy/policy.h"

struct explain_address {
    char ip[NET_ADDR_TEXT];
    enum addr_class kind;
    struct policy_verdict verdict;
};

struct explain {
    const struct policy *policy;
    struct policy_query q; /* refers to the rest: don't move it */
    struct net_addr from;
    struct dest dest;
    struct policy_verdict first;     /* on the destination as asked for */
    struct policy_verdict verdict;   /* on all that is known */
    const struct net_parent *parent; /* by which it goes, and which looks the name up; or NULL */
    bool lookup;                     /* its addresses are asked for: explain_resolved */
    struct explain_address addresses[NET_RESOLVE_MAX];
    size_t n;
    struct err trouble; /* the destination is not understood, or the name has no address */
};

struct explain_ask {
    const char *to;       /* HOST:PORT */
    const char *from;     /* the client's address; NULL: no client's */
    const char *identity; /* NULL: nobody */
};

/* Decide on the destination. Policy and parent (NULL: none), and the texts of `ask`, are kept by
 * the caller while `x` is used. -1: `ask->from` is no address. */
int explain_begin(struct explain *x, const struct policy *policy, const struct net_parent *parent,
                  const struct explain_ask *ask, struct err *e) TR_MUST_USE;

/* Decide on the addresses of its name; none: `e` says why. */
void explain_resolved(struct explain *x, const struct net_addr *addrs, size_t n,
                      const struct err *e);

/* "allow", "deny", "would-deny". Static. */
const char *explain_word(const struct policy_verdict *v);

/* Append the answer of the command, as docs/api.md has it. */
void explain_report(const struct explain *x, struct str *out);

#endif
