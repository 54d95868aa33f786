/* What a policy is made of: shared by its making (rules.c) and its use (policy.c). */
#ifndef TR_POLICY_POLICY_PRIV_H
#define TR_POLICY_POLICY_PRIV_H

#include "base/hmap.h"
#include "policy/policy.h"

struct ports {
    uint16_t first, last; /* both 0: none given */
};

/* One element of a rule's hosts. */
enum pattern_kind {
    PATTERN_NAME,   /* github.com */
    PATTERN_SUFFIX, /* *.corp.example: `name` is corp.example */
    PATTERN_RANGE,
    PATTERN_ANY_NAME, /* * */
};
struct pattern {
    enum pattern_kind kind;
    char name[DEST_HOST_MAX + 3];
    struct addr_range range;
    struct ports ports;
};

/* "use ..." in `e` on -1. */
int pattern_parse(const char *text, struct pattern *out, struct err *e) TR_MUST_USE;
int ports_parse(struct view text, struct ports *out, struct err *e) TR_MUST_USE;

/* A range in a rule's hosts. */
struct rule_range {
    struct addr_range range;
    struct ports ports;
};

struct rule {
    char *name;
    bool deny;
    struct ports *ports; /* never empty */
    size_t n_ports;
    struct rule_range *ranges;
    size_t n_ranges;
    struct addr_range *addresses, *from;
    size_t n_addresses, n_from;
    char **identities;
    size_t n_identities;
};

/* A rule that names a place; its own ports if none are given here. */
struct entry {
    size_t rule;
    struct ports ports;
};

/*
 * Everything that rules name, once each, and which rules name it, in their order. A query looks up
 * the few places that fit it: its name, what follows each of its dots, and the two that always fit;
 * or the address cut at each length of prefix that any rule has.
 */
struct place {
    struct hnode node;
    enum pattern_kind kind; /* NAME, SUFFIX, RANGE */
    char *name;
    struct addr_range range;
    struct entry *entries;
    size_t n, cap;
};

struct policy {
    enum policy_mode mode;
    struct rule *rules;
    size_t n_rules;
    struct hmap places;
    struct place any_name; /* "*" */
    struct place anywhere; /* rules without hosts */
    bool prefix4[33], prefix6[129];
};

/* The place of that name (NAME or SUFFIX), or NULL. */
struct place *place_by_name(const struct policy *p, enum pattern_kind kind, struct view name);
/* The place of that range, bits behind its prefix being zero, or NULL. */
struct place *place_by_range(const struct policy *p, const struct addr_range *r);

/* An address as the range of it alone (family 0: no address of IP), and that range one bit wider.
 */
struct addr_range addr_range_of(const struct sockaddr *a);
void addr_range_widen(struct addr_range *r);

/* The same address, whatever the ports? */
bool addr_same(const struct sockaddr *a, const struct sockaddr *b);

#endif
