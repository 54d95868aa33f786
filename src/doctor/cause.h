/*
 * What can be wrong with a deployment, each with a name that scripts may rely on, why it matters,
 * and who can change it. docs/doctor.md has the same rows, with how each shows.
 */
#ifndef TR_DOCTOR_CAUSE_H
#define TR_DOCTOR_CAUSE_H

enum cause {
    CAUSE_NONE, /* nothing is wrong */
    /* names */
    CAUSE_NAME_NOT_RESOLVED,
    CAUSE_NAME_SERVERS_SILENT,
    CAUSE_NAME_SINKHOLED,
    CAUSE_DNS_POINTS_TO_OURSELVES,
    /* TCP */
    CAUSE_FIREWALL_DROPS,
    CAUSE_CONNECTION_REFUSED,
    CAUSE_NO_ROUTE,
    CAUSE_SOME_ADDRESSES_BLOCKED,
    /* the parent proxy */
    CAUSE_PARENT_REFUSES_CONNECT,
    CAUSE_PARENT_ASKS_CREDENTIALS,
    CAUSE_PARENT_RESOLVES_NOT,
    CAUSE_PARENT_IS_NO_PROXY,
    /* TLS */
    CAUSE_MIDDLEBOX_RESIGNS,
    CAUSE_CA_MISSING,
    CAUSE_CERTIFICATE_EXPIRED,
    CAUSE_CERTIFICATE_WRONG_NAME,
    CAUSE_TLS_TOO_OLD,
    CAUSE_TLS_CUT,
    CAUSE_NOT_TLS,
    CAUSE_TLS_FAILS,
    CAUSE_CLIENT_CERTIFICATE_MISSING,
    CAUSE_CLIENT_CERTIFICATE_REFUSED,
    /* HTTP */
    CAUSE_ALPN_H2_BROKEN,
    CAUSE_HTTP_BLOCKED,
    CAUSE_HTTP_FAILS,
    CAUSE_WEBSOCKET_STRIPPED,
    CAUSE_IDLE_TUNNEL_CUT,
    CAUSE_CLOCK_SKEW,
    /* logs */
    CAUSE_TOKEN_EXPIRED,
    CAUSE_TOKEN_REFUSED,
    CAUSE_LOG_STREAM_FAILS,
    CAUSE_LINK_NOT_GIVEN,
    CAUSE_LINK_REFUSED,
    /* the policy */
    CAUSE_UPLOAD_BLOCKED,
    CAUSE_POLICY_DENIES,
    CAUSE_POLICY_DENIES_ADDRESS,
    /* this host */
    CAUSE_CONFIG_BROKEN,
    CAUSE_SPOOL_FULL,
    CAUSE_SPOOL_NOT_WRITABLE,
    CAUSE_SPOOL_ON_NETWORK,
    CAUSE_PORT_TAKEN,
    CAUSE_PORT_NOT_ALLOWED,
    CAUSE_DESCRIPTORS_FEW,
    CAUSE_OWN_CERTIFICATE_EXPIRED,
    CAUSE_OWN_CERTIFICATE_WRONG_NAME,
    CAUSE_TRUST_MISSING,
    /* the running gateway */
    CAUSE_GATEWAY_NOT_RUNNING,
    CAUSE_GATEWAY_NOT_READY,
    CAUSE_GATEWAY_PROBLEM,
    CAUSE_CONFIG_NOT_LOADED,
    CAUSES
};

struct cause_row {
    const char *name; /* "firewall_drops" */
    const char *who;  /* who changes it */
    const char *why;  /* what that means, in a sentence */
};

/* Static, with all its texts. CAUSE_NONE has a row of empty texts. */
const struct cause_row *cause_row(enum cause c);

#endif
