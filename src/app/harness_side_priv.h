/* What harness_side.c finds out and harness_text.c tells. */
#ifndef TR_APP_HARNESS_SIDE_PRIV_H
#define TR_APP_HARNESS_SIDE_PRIV_H

#include "app/harness_side.h"
#include "base/str.h"

/* What stands for what is not known here. */
#define HOST_UNKNOWN "GATEWAY"
#define PORT_UNKNOWN "PORT"

/* The secrets that the values name, and the file for the first. */
#define CA_SECRET     "tailrace-ca"
#define CA_FILE       "tailrace-ca.pem"
#define CLIENT_SECRET "tailrace-client"

/* Where the delegate looks for authorities (HP §4.5), and where the chart puts its client
 * certificate; the Go runner looks there by itself (HP §4.4). */
#define DELEGATE_CA_DIR  "/opt/harness-delegate/ca-bundle/"
#define CLIENT_CERT_FILE "/etc/mtls/client.crt"
#define CLIENT_KEY_FILE  "/etc/mtls/client.key"

/* Where images of build steps look for authorities: git clone, Debian and Alpine, image builds. The
 * delegate puts what is in DELEGATE_CA_DIR there (Harness's page on build farms with self-signed
 * certificates; values.yaml of the chart), in place of what the images have. */
#define CA_IN_IMAGES                                                                               \
    "/etc/ssl/certs/ca-bundle.crt,/etc/ssl/certs/ca-certificates.crt,"                             \
    "/kaniko/ssl/certs/additional-ca-cert-bundle.crt"

enum side_cert {
    CERT_NONE,    /* in clear */
    CERT_PUBLIC,  /* clients believe it without being told */
    CERT_PRIVATE, /* they do not */
    CERT_UNREAD,  /* the file cannot be read */
    CERT_FRONT,   /* it is that of a TLS terminator in front: public-url */
};

/* A listener as its clients see it. */
struct side_place {
    const struct config_listen *l;
    struct str host;   /* without brackets */
    struct str port;   /* in decimal */
    struct str url;    /* "https://host:port" */
    struct str issuer; /* who signed the certificate, when that is not in its file */
    enum side_cert cert;
    bool gap;      /* a placeholder stands in it */
    bool loopback; /* only this host gets there */
    bool expired;  /* its certificate is */
    bool misnamed; /* its certificate is not for `host` */
};

struct side_setting {
    const char *env;  /* NULL: a value of the chart only */
    const char *helm; /* its name in the chart, "a.b" is b under a; NULL: in custom_envs;
                         "": the chart makes it by itself */
    struct str value;
    bool asked; /* only the admin knows: a comment, with `value` as an example */
};

enum { SETTINGS_MAX = 16 };
struct side_settings {
    struct side_setting rows[SETTINGS_MAX];
    size_t n;
};

/* The listeners that settings are for; each may be NULL. */
struct side_choice {
    const struct side_place *upstream, *proxy, *sni;
};

struct harness_side {
    const struct config *c;
    const struct harness_side_opts *o;
    struct side_place *places; /* as c->listen */
    struct str no_proxy;
};

void side_settings_init(struct side_settings *out, const struct harness_side *s,
                        const struct side_choice *choice);
void side_settings_fini(struct side_settings *s);

bool side_is_asked_for(const struct harness_side *s, const struct side_place *p);

/* Is TLS of clients that come by this listener ended with certificates of intercept.ca? */
bool side_intercepts(const struct harness_side *s, const struct side_place *p);

/* Do clients of these have to be given an authority to trust? */
bool side_needs_ca(const struct harness_side *s, const struct side_choice *choice);

/* harness_text.c */
void side_print_text(const struct harness_side *s, FILE *out);

#endif
