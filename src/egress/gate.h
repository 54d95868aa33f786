/*
 * The gate: what everything that leaves passes, whichever way it came in. For each *passage* it
 * asks the policy, dials only what was checked (directly or by the parent proxy), counts, and
 * writes the audit trail. One gate for each worker, for its loop's thread.
 */
#ifndef TR_EGRESS_GATE_H
#define TR_EGRESS_GATE_H

#include <stdbool.h>
#include "egress/audit.h"
#include "net/connect.h"
#include "policy/policy.h"

struct gate;
struct passage;

/* What a configuration means here; immutable, kept by the caller while passages use it (until the
 * program ends: see struct plan). */
struct gate_settings {
    const struct policy *policy;
    const struct net_parent *parent; /* NULL: none */
    unsigned connect_ms;             /* resolve, dial and, through a parent, its answer; 0: 10 s */
    unsigned idle_ms;                /* of a tunnel without a byte either way; 0: 2 h */
    unsigned audit_interval_ms;      /* 0: 10 min */
};

struct gate *gate_new(struct ev_loop *loop, struct net_resolver *resolver,
                      const struct gate_settings *s);
/* For new passages, and for dials under way: a policy that is another by now decides again. */
void gate_configure(struct gate *g, const struct gate_settings *s);
void gate_recheck(struct gate *g); /* see passage_on_revoked */
void gate_free(struct gate **g);   /* after all passages have ended */
/* Does what should go to harness.url come back to us there? Says so in the log. Any thread. */
bool gate_leads_back(const struct net_addr *to);

const struct gate_settings *gate_settings_of(const struct gate *g);
struct ev_loop *gate_loop(const struct gate *g);
size_t gate_passages(const struct gate *g);

struct passage_opts {
    const char *kind;            /* static; see struct audit_entry */
    const char *listener;        /* its name; lives as long as the plan */
    const struct net_addr *from; /* copied */
    struct view identity;        /* copied */
    struct view authority;       /* where to, as asked for */
    uint16_t port;               /* when the authority has none; 0: it must have one */
    /* The admin fixed the destination (harness.url, a forward): it is allowed by itself, under this
     * rule's name (static or plan's); addresses of any class. NULL: the policy decides. */
    const char *fixed_rule;
    /* It is refused without asking the policy, by a rule of that name (static). NULL: it is asked.
     */
    const char *refused_by;
};

/*
 * Ask to pass. Never NULL; look at passage_verdict: if it denies, answer the client and end the
 * passage (the entry is AUDIT_DENY, `denied_total{rule}` counts it). An authority that is not
 * understood is denied by the rule "bad-authority".
 */
struct passage *passage_open(struct gate *g, const struct passage_opts *o);
const struct policy_verdict *passage_verdict(const struct passage *p);
const char *passage_asked(const struct passage *p); /* for a log line */
/* NULL if it was not understood, or once the passage has started. */
const struct dest *passage_dest(const struct passage *p);

/* It may not pass after all, by a rule of that name; both static. */
void passage_deny(struct passage *p, const char *rule, const char *reason);

/* Who asked, and by which listener: fills listener, from and identity, all borrowed. */
void passage_asker(const struct passage *p, struct passage_opts *out);

/* For the entries. */
void passage_set_kind(struct passage *p, const char *kind); /* static; once it is known better */
void passage_set_request(struct passage *p, struct view method, struct view target);
void passage_set_server_name(struct passage *p, struct view name);
void passage_set_status(struct passage *p, int status);
void passage_set_grpc_status(struct passage *p, int status);
/* It uses a connection to that peer that somebody else made. */
void passage_reached(struct passage *p, const struct net_addr *peer, const char *via);
void passage_upgraded(struct passage *p); /* a relay became a WebSocket: as passage_started */
void passage_started(struct passage *p);  /* a tunnel stands: AUDIT_START, intervals from now on */
void passage_add(struct passage *p, uint64_t up, uint64_t down); /* bytes that went through */
void passage_active(struct passage *p, int64_t mono_ns);         /* when the last one did */

/* The check for net_connect_opts.allow and http_call_opts.allow, with the passage as ctx. Remembers
 * what was resolved, and counts a refusal. */
bool passage_allow(void *ctx, const struct net_addr *addr);

/* A dial with that check failed with `e`: was it the policy? The verdict is then a denial. */
bool passage_denied(struct passage *p, const struct err *e);

/* The parent proxy by which it goes, or NULL; noted for the entries. Only when allowed, and before
 * it has started. */
const struct net_parent *passage_parent(struct passage *p);

/* What went wrong with upstream, for the entry that ends it. */
void passage_failed(struct passage *p, const struct err *e);

/* Dial the destination, in clear unless `tls` (then verified as the name that was asked for). `fn`
 * as in net/connect.h; when policy refused all addresses passage_verdict says so afterwards.
 * Cancelled by passage_end. */
void passage_dial(struct passage *p, struct tls_ctx *tls, struct view alpn, net_connected_fn fn,
                  void *ctx);

/* Would that policy still let it pass, to the address that was dialled? (After a reload; the name
 * is not resolved again.) */
bool passage_still_allowed(const struct passage *p, const struct policy *policy);

/* `fn` is called before an entry is written while it lasts, to bring its bytes up to date by
 * passage_add; it must not end the passage. */
void passage_on_look(struct passage *p, void (*fn)(void *ctx), void *ctx);

/* `fn` is called by gate_recheck when the gate's policy would not let it pass any more; it may end
 * this passage, and no other. */
void passage_on_revoked(struct passage *p, void (*fn)(void *ctx), void *ctx);

/* A tunnel as it is told about; all of it the passage's, for the call only. What is NULL is not
 * known, or there is none. */
struct passage_shown {
    uint64_t id;
    const char *kind, *listener;
    const struct net_addr *from;
    const char *identity, *destination, *dialled, *via, *rule;
    uint64_t up, down;
    int64_t start_wall_ns, start_mono_ns, active_mono_ns;
};
/* `fn` for each tunnel that stands, the newest first; it must not end any. Own thread. */
void gate_each_tunnel(struct gate *g, void (*fn)(void *ctx, const struct passage_shown *p),
                      void *ctx);

unsigned passage_idle_ms(const struct passage *p); /* the gate's, for tunnels */

/* Over: writes the last entry and frees. `why` is static: "client", "upstream", "idle", "drain",
 * "refused", "denied", "unreachable", "timeout", "error", "policy" (a reload denies it), "rejected"
 * (the client did not believe a minted certificate). */
void passage_end(struct passage **p, const char *why);

#endif
