/*
 * The policy: who may go where. It decides twice, on the destination as asked for, and on each
 * address that its name resolved to; what was checked is what is dialled. Default deny. Pure: no
 * I/O, no clock; immutable once made and shared by threads.
 *
 * A *rule* says who (client addresses, identities) may go where (names, literal ranges, ports).
 * Rules are asked in order; the first that fits decides. What no rule fits is denied by the rule
 * called "default". A name that a rule allows may resolve to public addresses; others (private,
 * loopback, metadata, this machine's own, embedded IPv4, ...) are refused by the rule called
 * "address" unless the rule that allowed the name lists them in its `addresses`. Literal addresses
 * of those kinds must be named by a range in `hosts`. A range opens only what it lies within (see
 * addr_range_opens). Ranges of a rule that denies hold for what names resolve to as well.
 */
#ifndef TR_POLICY_POLICY_H
#define TR_POLICY_POLICY_H

#include <stddef.h>
#include "policy/dest.h"

struct policy;

enum policy_mode {
    POLICY_ENFORCE,
    /* What would be denied passes, and is counted and audited as such; but for metadata services,
     * loopback and this machine's own addresses, which need their rule all the same. */
    POLICY_REPORT,
};

/* As configured; all texts and lists are borrowed while policy_new runs. */
struct policy_rule_opts {
    const char *name;
    bool deny;
    /* "github.com", "*.corp.example" (one label or more), "10.0.0.0/8", each perhaps with ":443",
     * ":8000-8100"; IPv6 with a port in brackets, "[2001:db8::/32]:443"; "*" is any name, of any
     * literal address nothing. Empty: anywhere, literal public addresses included. */
    const char *const *hosts;
    size_t n_hosts;
    /* "443", "8000-8100"; for hosts without one. Empty: 443, and any if the rule denies. */
    const char *const *ports;
    size_t n_ports;
    /* Ranges that a name may resolve to besides public ones; not in a rule that denies. */
    const char *const *addresses;
    size_t n_addresses;
    const char *const *from; /* ranges of clients; empty: any */
    size_t n_from;
    /* Names of clients, "*.corp.example" works, "*" is whoever has one; letter case does not
     * matter. Empty: any client. */
    const char *const *identities;
    size_t n_identities;
};

struct policy_opts {
    enum policy_mode mode;
    const struct policy_rule_opts *rules;
    size_t n_rules;
};

/* NULL and `e` ("rule NAME: hosts: "VALUE": use ...") on a rule that is not understood. */
struct policy *policy_new(const struct policy_opts *o, struct err *e) TR_MUST_USE;
void policy_free(struct policy **p); /* NULL in `*p` is fine */

/* Is that text good in the list? -1: `e` has "use ...". As src/conf's rows want them. */
int policy_check_host(const char *text, struct err *e) TR_MUST_USE;
int policy_check_port(const char *text, struct err *e) TR_MUST_USE;
int policy_check_range(const char *text, struct err *e) TR_MUST_USE;
int policy_check_identity(const char *text, struct err *e) TR_MUST_USE;

struct policy_query {
    const struct dest *dest;
    const struct sockaddr *from; /* the client's address; NULL: this program itself */
    struct view identity;        /* who the client proved to be; empty: nobody */
    /* For a check without a client: is there one who may? `from` and `identity` are not used; what
     * a rule that denies wants of them is taken as not given, of a rule that allows as given. */
    bool anyone;
};

struct policy_verdict {
    bool allow;
    bool would_deny;    /* report mode let it through; rule and reason are those of the denial */
    const char *rule;   /* name of the rule that decided; lives as long as the policy */
    const char *reason; /* for the audit entry and --explain; static */
    int index;          /* the machine's: which rule, for policy_check_address; -1: none */
};

/* On the destination as asked for. For a literal address this is all. Any thread. */
struct policy_verdict policy_decide(const struct policy *p, const struct policy_query *q);

/* On an address its name resolved to, `first` being what policy_decide said of the name. Where
 * that denied, or came from elsewhere (allow, index -1), `first` is returned. A literal's own
 * address gets the verdict of the literal. */
struct policy_verdict policy_check_address(const struct policy *p, const struct policy_query *q,
                                           const struct policy_verdict *first,
                                           const struct sockaddr *addr);

/* The addresses of this machine's interfaces, which count as ADDR_OWN from now on in the whole
 * process; they replace the ones before. Copied; any thread; called at start and now and then. */
void policy_own_addresses(const struct sockaddr *const *addrs, size_t n);

#endif
