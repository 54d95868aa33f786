/*
 * The options of tailrace, as rows for src/conf, and the struct they fill. A configuration is
 * immutable once loaded; a reload loads another one and compares.
 */
#ifndef TR_APP_OPTIONS_H
#define TR_APP_OPTIONS_H

#include <stdio.h>
#include "conf/dump.h"
#include "conf/load.h"
#include "egress/audit.h"
#include "net/fetch.h"
#include "policy/policy.h"
#include "rt/log.h"
#include "spool/spool.h"

enum config_uploads { CONFIG_UPLOADS_FOLLOW, CONFIG_UPLOADS_GOOGLEAPIS, CONFIG_UPLOADS_HARNESS };
enum config_mode {
    CONFIG_MODE_UPSTREAM, /* the delegate's upstream: logs are terminated, the rest relayed */
    CONFIG_MODE_ADMIN,
    CONFIG_MODE_PROXY,   /* CONNECT and absolute URLs */
    CONFIG_MODE_SNI,     /* TLS for any name, as DNS override brings it: intercepted or spliced */
    CONFIG_MODE_FORWARD, /* TCP to one destination */
    CONFIG_MODE_GRPC,    /* HTTP/2 to one destination */
};
enum config_profile { CONFIG_PROFILE_NONE, CONFIG_PROFILE_HARNESS };
enum config_sandbox { CONFIG_SANDBOX_AUTO, CONFIG_SANDBOX_REQUIRED, CONFIG_SANDBOX_OFF };
enum config_tls { CONFIG_TLS_1_2, CONFIG_TLS_1_3 };

struct config_listen {
    char *name;
    enum config_mode mode;
    char *address;     /* literal, for net_addr_parse */
    char *certificate; /* NULL: in clear */
    char *key;
    char *client_ca;  /* NULL: no client certificates */
    char *public_url; /* without a trailing slash; NULL: what the client used */
    char *to;         /* FORWARD: "host:port"; GRPC: a URL */
    char *port;       /* SNI: the one that clients mean; NULL: by which they came in */
    char *users;      /* PROXY, ADMIN: file of Basic credentials; NULL: none are asked for */
    struct conf_list proxy_protocol; /* ranges of senders whose PROXY header is believed */
};

struct config_rule {
    char *name;
    int action; /* 0: allow, 1: deny */
    struct conf_list hosts, ports, addresses, from, identities;
};

struct config {
    char *harness_url; /* without a trailing slash */
    enum config_uploads upload_logs;
    bool upload_gzip;

    struct config_listen *listen;
    size_t n_listen;

    char *spool_directory;
    uint64_t spool_limit;
    enum spool_sync spool_sync;
    char *spool_key; /* NULL: new records are not sealed */
    struct conf_list spool_old_keys;
    char *ticket_key; /* <spool.directory>/ticket.key if not given */

    char *upstream_ca; /* NULL: the system's */
    char *upstream_certificate;
    char *upstream_key;
    enum config_tls upstream_tls_min;
    struct conf_list upstream_resolvers; /* ADDRESS or ADDRESS:PORT; empty: the system's */
    enum fetch_http upstream_http;
    char *upstream_parent;             /* URL of a parent proxy, without credentials; NULL: none */
    char *upstream_parent_credentials; /* file with user:password */
    struct conf_list upstream_parent_bypass;
    int64_t upstream_timeout_ms;

    enum policy_mode egress_mode;
    enum config_profile egress_profile;
    struct conf_list egress_allow;
    int64_t egress_connect_ms, egress_idle_ms;
    struct config_rule *rules;
    size_t n_rules;

    struct conf_list intercept_hosts;   /* empty: the host of harness.url, if there is a CA */
    char *intercept_ca, *intercept_key; /* NULL: nothing is intercepted */

    enum audit_to audit_to;
    char *audit_file;
    enum log_format audit_format;
    int64_t audit_interval_ms;

    int64_t batch_delay_ms;
    int64_t batch_lines;
    uint64_t batch_bytes;
    int64_t stream_idle_ms;
    int64_t stream_hold_ms;

    uint64_t memory_limit;
    uint64_t memory_connections;
    int64_t limit_connections;
    int64_t limit_streams;
    int64_t limit_share; /* percent */
    uint64_t limit_body;
    uint64_t limit_blob;
    uint64_t limit_expand;
    int64_t workers; /* 0: as many as there are CPUs */

    enum log_level log_level;
    enum log_format log_format;
    char *log_file; /* NULL: standard error */
    int64_t drain_limit_ms;

    char *control_socket; /* <spool.directory>/control.sock if not given */
    bool control_tail;    /* tailracectl tail may show lines */
    char *user;           /* to become, "NAME", "NAME:GROUP" or numbers; NULL: whoever starts it */
    enum config_sandbox sandbox;

    struct conf_list files; /* that all this was read from */
    bool debug_core_dumps;
};

/* Rows and sections, for conf_compare, conf_describe and tests. */
extern const struct conf_spec config_spec;

/* Load the file at `path`. 0: `*config` is the caller's, to be freed with config_free. -1:
 * `*config` is NULL and `errors` (CONF_ERRORS_INIT before, conf_errors_fini after) says why. */
int config_load(const char *path, struct config **config, struct conf_errors *errors) TR_MUST_USE;
void config_free(struct config **config);

/* Where the control socket is, as far as the file at `path` tells, whatever else is wrong in it:
 * the caller's. NULL: it cannot be read. `errors` as above. */
char *config_find_control(const char *path, struct conf_errors *errors);

/* One more file that must be there for a reload. */
void config_add_file(struct config *config, const char *path);

/* Write the effective configuration as YAML that loads back to the same. */
void config_dump(const struct config *config, FILE *out);

/* "upstream", "admin", ... Static. */
const char *config_mode_name(enum config_mode mode);

/* "1.2" or "1.3", as struct fetch_peer and struct tls_client_opts take it. Static. */
const char *config_tls_min(const struct config *config);

/* Append the resolvers as net_resolver_new takes them: "A,B"; nothing if none are given. */
void config_resolvers(const struct config *config, struct str *out);

#endif
