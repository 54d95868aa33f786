/*
 * Getting to one host and port as the gateway would: by its name servers, directly or through its
 * parent proxy, with its certificates; but step by step, each noting what it saw.
 */
#ifndef TR_DOCTOR_ROUTE_H
#define TR_DOCTOR_ROUTE_H

#include <stdbool.h>
#include <stdint.h>
#include "doctor/line.h"
#include "doctor/findings.h"
#include "net/connect.h"

/* What all probes share, and only read. */
struct way {
    const char *resolvers;           /* as net_resolver_new takes them; NULL: the system's */
    const struct net_parent *parent; /* NULL: none */
    const char *ca;                  /* PEM bundle; NULL: the system's */
    const char *certificate, *key;   /* of this gateway as a client; NULL: none */
    bool tls_1_3;                    /* no less */
    bool http2;                      /* may be agreed on */
    unsigned timeout_ms;             /* for each step */
    /* Does a connection to that address come in at this gateway? */
    bool (*ours)(void *ctx, const struct net_addr *a);
    void *ours_ctx;
    const char *elsewhere; /* proxy that this process's environment names, as "host:port"; NULL */
};

enum { ROUTE_ADDRESSES = 8 };

struct route {
    const struct way *way;
    struct findings *findings;
    const char *flow;
    const char *host; /* name or literal, without brackets */
    uint16_t port;
    const char *setting; /* that names it, for what to do: "harness.url" */
    bool harness;        /* the way's client certificate is for it */
    bool others;         /* its users check certificates by themselves: that is no fault here */
    enum verdict bad;    /* how bad it is if it cannot be reached: WARN or FAIL */
    bool quiet;          /* what is fine was told before */
    /* May that address of its name be dialled? NULL: any. Else a text why not goes to `why`. */
    bool (*allow)(void *ctx, const struct net_addr *a, struct str *why);
    void *allow_ctx;

    struct net_addr addrs[ROUTE_ADDRESSES];
    size_t n_addrs;
    char from[NET_ADDR_TEXT]; /* this host's address towards there; "" before it is known */
    struct line line;
    char alpn[16]; /* what TLS agreed on; "" */
    bool answered; /* it has answered a request */
    bool asked;    /* the far side asked for a client certificate */
};

/* TCP to it, or a tunnel through the parent. False: the findings say why. Can be called again. */
bool route_dial(struct route *r);
/* Ends the connection and forgets the addresses. */
void route_fini(struct route *r);

bool route_by_parent(const struct route *r);

/* Add a row of this route: of its flow, as bad as it is. */
void route_bad(struct route *r, enum cause cause, const char *step, const char *seen, ...)
    TR_PRINTF(4, 5);
/* Unless it is quiet. */
void route_ok(struct route *r, const char *step, const char *seen, ...) TR_PRINTF(3, 4);

/* "allow TCP from 10.0.0.5 to app.harness.io:443", or what else a rule has to say. */
void route_rule(struct route *r, const char *more);

#endif
