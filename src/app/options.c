#include "app/options.h"

#include <arpa/inet.h>
#include <string.h>
#include "base/xmem.h"
#include "codec/url.h"
#include "policy/dest.h"

#define SECONDS (INT64_C(1000))
#define MINUTES (60 * SECONDS)
#define HOURS   (60 * MINUTES)
#define KIB     (INT64_C(1) << 10)
#define MIB     (INT64_C(1) << 20)
#define TIB     (INT64_C(1) << 40)

enum {
    LISTEN_MAX = 32,
    RULES_MAX = 1000,
    /* Live lines are never held back longer to fill a batch: SaaS closes streams by itself half a
     * second after the step. */
    BATCH_DELAY_MAX_MS = 200,
};

static const struct conf_choice uploads[] = {
    {"follow", CONFIG_UPLOADS_FOLLOW},
    {"googleapis", CONFIG_UPLOADS_GOOGLEAPIS},
    {"harness", CONFIG_UPLOADS_HARNESS},
    {0},
};
static const struct conf_choice modes[] = {
    {"upstream", CONFIG_MODE_UPSTREAM},
    {"admin", CONFIG_MODE_ADMIN},
    {"proxy", CONFIG_MODE_PROXY},
    {"sni", CONFIG_MODE_SNI},
    {"forward", CONFIG_MODE_FORWARD},
    {"grpc", CONFIG_MODE_GRPC},
    {0},
};
static const struct conf_choice policy_modes[] = {
    {"enforce", POLICY_ENFORCE},
    {"report", POLICY_REPORT},
    {0},
};
static const struct conf_choice profiles[] = {
    {"harness", CONFIG_PROFILE_HARNESS},
    {"none", CONFIG_PROFILE_NONE},
    {0},
};
static const struct conf_choice actions[] = {{"allow", 0}, {"deny", 1}, {0}};
static const struct conf_choice audit_targets[] = {
    {"log", AUDIT_LOG}, {"file", AUDIT_FILE}, {"syslog", AUDIT_SYSLOG}, {"none", AUDIT_NONE}, {0},
};
static const struct conf_choice syncs[] = {
    {"full", SPOOL_SYNC_FULL},
    {"normal", SPOOL_SYNC_NORMAL},
    {0},
};
static const struct conf_choice tls_versions[] = {
    {"1.2", CONFIG_TLS_1_2},
    {"1.3", CONFIG_TLS_1_3},
    {0},
};
static const struct conf_choice sandboxes[] = {
    {"auto", CONFIG_SANDBOX_AUTO},
    {"required", CONFIG_SANDBOX_REQUIRED},
    {"off", CONFIG_SANDBOX_OFF},
    {0},
};
static const struct conf_choice http_versions[] = {
    {"auto", FETCH_HTTP_AUTO},
    {"1.1", FETCH_HTTP_1_1},
    {"2", FETCH_HTTP_2},
    {0},
};
static const struct conf_choice levels[] = {
    {"error", LOG_ERROR}, {"warn", LOG_WARN},   {"notice", LOG_NOTICE},
    {"info", LOG_INFO},   {"debug", LOG_DEBUG}, {0},
};
static const struct conf_choice formats[] = {{"logfmt", LOG_LOGFMT}, {"json", LOG_JSON}, {0}};

static bool is_literal(const char *host)
{
    unsigned char bytes[16];

    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

/* A port in decimal. */
static bool is_port(const char *p)
{
    unsigned long port = 0;
    size_t i;

    for (i = 0; i < 6 && p[i] >= '0' && p[i] <= '9'; i++)
        port = port * 10 + (unsigned long)(p[i] - '0');
    return i > 0 && p[i] == '\0' && port > 0 && port <= 65535;
}

static int check_port(const char *value, struct err *e)
{
    return is_port(value) ? 0 : err_set(e, ERR_INVALID, "use a port, such as 443");
}

/* Take the brackets off "[v6]". False if they do not match or hold no IPv6 address. */
static bool unbracket(char *host)
{
    size_t n = strlen(host);
    unsigned char bytes[16];

    if (host[0] != '[')
        return strchr(host, ':') == NULL;
    if (host[n - 1] != ']')
        return false;
    host[n - 1] = '\0';
    memmove(host, host + 1, n - 1);
    return inet_pton(AF_INET6, host, bytes) == 1;
}

static int check_resolver(const char *value, struct err *e)
{
    char *host = xstrdup(value), *colon = strrchr(host, ':');
    bool ok = is_literal(host);

    if (!ok && colon && is_port(colon + 1)) {
        *colon = '\0';
        ok = unbracket(host) && is_literal(host);
    }
    xfree(host);
    if (!ok)
        return err_set(e, ERR_INVALID, "use an address, such as 10.0.0.53 or 10.0.0.53:53");
    return 0;
}

/* A name or "*.name", perhaps with :PORT. */
static int check_intercepted(const char *text, struct err *e)
{
    const char *name = strncmp(text, "*.", 2) == 0 ? text + 2 : text;
    struct dest d;

    if (strchr(name, '*') || dest_parse(view_str(name), 443, &d, e) < 0 || d.literal)
        return err_set(e, ERR_INVALID,
                       "use names, such as app.harness.io, *.corp.example or x.example:8443");
    return policy_check_host(text, e);
}

#define ROW(type, field, path, ...) CONF_ROW(type, struct config, field, path, __VA_ARGS__)
#define LISTEN(type, field, path, ...)                                                             \
    CONF_ROW(type, struct config_listen, field, path, __VA_ARGS__)

static const struct conf_row rows[] = {
    ROW(URL, harness_url, "harness.url", .required = true,
        .text = "Where Harness is, such as https://app.harness.io or a vanity host; at an edge, "
                "the hub."),
    ROW(ENUM, upload_logs, "harness.upload-logs", .choices = uploads, .deflt = "follow",
        .reloadable = true,
        .text = "Where finished logs go: as the client asked for, always to the bucket by a "
                "signed link, or always through Harness (the account setting \"Upload Logs via "
                "Harness\")."),
    ROW(BOOL, upload_gzip, "harness.upload-gzip", .deflt = "true", .reloadable = true,
        .text = "Compress logs for the bucket, where they were found to read back right."),

    ROW(PATH, spool_directory, "spool.directory", .deflt = "/var/lib/tailrace",
        .use = CONF_USE_DIRECTORY,
        .text = "Where accepted records wait for their delivery; on a local file system."),
    ROW(SIZE, spool_limit, "spool.limit", .deflt = "10GiB", .min = 1 * MIB, .max = 64 * TIB,
        .text = "How large the spool may become."),
    ROW(ENUM, spool_sync, "spool.sync", .choices = syncs, .deflt = "full",
        .text = "What an acknowledged record survives: full, a loss of power; normal, a crash of "
                "the program."),

    ROW(PATH, spool_key, "spool.key",
        .text =
            "A file with the key that seals what waits in the spool (AES-256-GCM): `openssl rand "
            "-hex 32`, for its owner's eyes only.",
        .unset = "none, it is not sealed"),
    ROW(LIST, spool_old_keys, "spool.old-keys", .paths = true,
        .text = "Files of earlier keys; what they sealed is opened, and at the start sealed by "
                "spool.key. They may go once the gateway has started with a new one."),

    ROW(PATH, ticket_key, "ticket.key",
        .text = "The key that seals upload links; made if it is missing. Gateways of a group "
                "share it.",
        .unset = "ticket.key in spool.directory"),

    ROW(PATH, upstream_ca, "upstream.ca", .text = "Certificates (PEM) to verify upstream by.",
        .unset = "the system's"),
    ROW(PATH, upstream_certificate, "upstream.certificate",
        .text = "Client certificate (PEM) to present upstream, as <vanity>:8443 asks for."),
    ROW(PATH, upstream_key, "upstream.key", .text = "The key of upstream.certificate (PEM)."),
    ROW(ENUM, upstream_tls_min, "upstream.tls-min", .choices = tls_versions, .deflt = "1.2",
        .text = "The oldest version of TLS to speak upstream."),
    ROW(LIST, upstream_resolvers, "upstream.resolvers", .check = check_resolver,
        .text = "Name servers to ask; needed where DNS points upstream's name at this gateway.",
        .unset = "the system's"),
    ROW(ENUM, upstream_http, "upstream.http", .choices = http_versions, .deflt = "auto",
        .text = "Version of HTTP to deliver with."),
    ROW(DURATION, upstream_timeout_ms, "upstream.timeout", .deflt = "30s", .min = 1 * SECONDS,
        .max = 10 * MINUTES, .text = "How long one delivery may take before it is repeated."),

    ROW(URL, upstream_parent, "upstream.parent", .reloadable = true,
        .text = "A proxy that everything goes out by, such as http://proxy.corp.example:3128; "
                "https for TLS to it. Without a port: 3128, https: 443.",
        .unset = "none, everything is dialled directly"),
    ROW(PATH, upstream_parent_credentials, "upstream.parent-credentials", .reloadable = true,
        .text = "A file with user:password for upstream.parent, for its owner's eyes only; read "
                "again at each reload."),
    ROW(LIST, upstream_parent_bypass, "upstream.parent-bypass", .check = policy_check_host,
        .reloadable = true,
        .text = "Names (*.corp.example) and ranges of addresses that are dialled directly."),

    ROW(ENUM, egress_mode, "egress.mode", .choices = policy_modes, .deflt = "enforce",
        .reloadable = true, .text = "Refuse what no rule allows, or let it pass and report it."),
    ROW(ENUM, egress_profile, "egress.profile", .choices = profiles, .deflt = "harness",
        .reloadable = true,
        .text = "Rules that come with the program: what a Harness deployment needs."),
    ROW(LIST, egress_allow, "egress.allow", .check = policy_check_host, .reloadable = true,
        .text = "Destinations to allow besides: github.com:443, \"*.corp.example:443\", "
                "10.0.0.0/8:5432."),
    ROW(DURATION, egress_connect_ms, "egress.connect-timeout", .deflt = "10s", .min = 100,
        .max = 5 * MINUTES, .reloadable = true,
        .text = "How long a destination may take to be resolved and reached."),
    ROW(DURATION, egress_idle_ms, "egress.idle-timeout", .deflt = "2h", .min = 1 * SECONDS,
        .max = INT64_C(7) * 24 * HOURS, .reloadable = true,
        .text = "A tunnel without a byte either way for so long is ended; an hour or more, or "
                "delegates' WebSockets suffer."),

    ROW(LIST, intercept_hosts, "intercept.hosts", .check = check_intercepted, .reloadable = true,
        .text = "Hosts whose TLS is ended here by certificates of intercept.ca, each perhaps with "
                ":PORT (else 443 and the port of harness.url).",
        .unset = "the one of harness.url, if there is an intercept.ca"),
    ROW(PATH, intercept_ca, "intercept.ca", .reloadable = true,
        .text = "Certificate (PEM) of the CA that clients trust for this.",
        .unset = "none, nothing is intercepted"),
    ROW(PATH, intercept_key, "intercept.key", .reloadable = true,
        .text = "The key of intercept.ca (PEM)."),

    ROW(ENUM, audit_to, "audit.to", .choices = audit_targets, .deflt = "log", .reloadable = true,
        .text = "Where the audit trail goes: into the log, a file of its own, syslog, or nowhere."),
    ROW(PATH, audit_file, "audit.file", .use = CONF_USE_APPEND, .reloadable = true,
        .text = "The file for audit.to: file; reopened at a reload."),
    ROW(ENUM, audit_format, "audit.format", .choices = formats, .deflt = "json", .reloadable = true,
        .text = "How an entry in a file or syslog is written."),
    ROW(DURATION, audit_interval_ms, "audit.interval", .deflt = "10m", .min = 1 * SECONDS,
        .max = 24 * HOURS, .reloadable = true,
        .text = "A long tunnel or relay leaves an entry this often."),

    ROW(DURATION, batch_delay_ms, "batch.delay", .deflt = "190ms", .min = 0,
        .max = BATCH_DELAY_MAX_MS, .reloadable = true,
        .text = "From one delivery of a stream's lines to its next: lines of a busy stream gather "
                "so long; those of a quiet one, and a stream's last, go at once."),
    ROW(INT, batch_lines, "batch.lines", .deflt = "1000", .min = 1, .max = 10000,
        .reloadable = true, .unit = "lines", .text = "Lines in one delivery at most."),
    ROW(SIZE, batch_bytes, "batch.bytes", .deflt = "128KiB", .min = 1 * KIB, .max = 16 * MIB,
        .reloadable = true,
        .text = "Bytes in one delivery at most; a single larger call is delivered alone."),
    ROW(DURATION, stream_idle_ms, "stream.idle", .deflt = "10m", .min = 1 * SECONDS,
        .max = 48 * HOURS, .reloadable = true,
        .text = "A stream without a call for so long has ended: SaaS closes many without passing "
                "here."),
    ROW(DURATION, stream_hold_ms, "stream.hold", .deflt = "60s", .min = 0, .max = 10 * MINUTES,
        .reloadable = true,
        .text = "An open so soon after a close is held until its first lines come: it may be late, "
                "and an open wipes."),

    ROW(SIZE, memory_limit, "memory.limit", .deflt = "64MiB", .min = 1 * MIB, .max = 1 * TIB,
        .text = "Memory for records that wait for delivery, the rest is read from the spool; and "
                "as much for bodies that are being received."),
    ROW(SIZE, memory_connections, "memory.connections", .deflt = "256MiB", .min = 1 * MIB,
        .max = 1 * TIB,
        .text = "Memory that connections hold for peers who do not take what is sent, tunnels "
                "included; past it those are ended."),
    ROW(INT, limit_connections, "limits.connections", .deflt = "16000", .min = 16, .max = 1000000,
        .unit = "connections",
        .text = "Client connections at a time, tunnels included, over all listeners."),
    ROW(INT, limit_streams, "limits.streams", .deflt = "100000", .min = 16, .max = 100000000,
        .unit = "streams",
        .text = "Log streams known at a time, those included that have ended and are remembered."),
    ROW(INT, limit_share, "limits.share", .deflt = "50", .min = 1, .max = 100, .unit = "percent",
        .text = "The last tenth of connections is for client addresses that have less "
                "than this share of them, that of streams, spool and memory for such accounts."),
    ROW(SIZE, limit_body, "limits.body", .deflt = "64MiB", .min = 32 * MIB, .max = 1024 * MIB,
        .reloadable = true, .text = "The largest body of lines in one call."),
    ROW(SIZE, limit_blob, "limits.blob", .deflt = "1GiB", .min = 1 * MIB, .max = 1 * TIB,
        .reloadable = true, .text = "The largest finished log; at most spool.limit."),
    ROW(SIZE, limit_expand, "limits.expand", .deflt = "64MiB", .min = 32 * MIB, .max = 1 * TIB,
        .reloadable = true, .text = "What a compressed body of lines may expand to."),
    ROW(INT, workers, "workers", .deflt = "0", .min = 0, .max = 256, .unit = "threads",
        .text = "Threads that serve connections; 0: one for each CPU."),

    ROW(ENUM, log_level, "log.level", .choices = levels, .deflt = "info", .reloadable = true,
        .text = "What is logged: this level and those above it."),
    ROW(ENUM, log_format, "log.format", .choices = formats, .deflt = "logfmt", .reloadable = true,
        .text = "How a line of the log is written."),
    ROW(PATH, log_file, "log.file", .use = CONF_USE_APPEND, .reloadable = true,
        .text = "File to log to, reopened at a reload.", .unset = "standard error"),
    ROW(DURATION, drain_limit_ms, "drain.limit", .deflt = "30s", .min = 0, .max = 1 * HOURS,
        .reloadable = true, .text = "How long a shutdown waits for connections to end."),

    ROW(PATH, control_socket, "control.socket", .use = CONF_USE_SOCKET,
        .text = "Where tailracectl reaches this process; who can open it may do everything.",
        .unset = "control.sock in spool.directory"),
    ROW(BOOL, control_tail, "control.tail", .deflt = "true", .reloadable = true,
        .text = "Show lines of streams as they pass to who asks on the control socket (tailracectl "
                "tail)."),
    ROW(STRING, user, "user", .text = "Whom to become once started as root, NAME or NAME:GROUP.",
        .unset = "whoever starts it"),
    ROW(ENUM, sandbox, "sandbox", .choices = sandboxes, .deflt = "auto",
        .text = "Reach only the files that this configuration names, as far as the kernel can see "
                "to it; required: or do not start; off: keep every right."),

    ROW(BOOL, debug_core_dumps, "debug.core-dumps", .deflt = "false",
        .text = "Let a crash leave a core dump, in which there are tokens, keys and log lines; and "
                "let debuggers of the same user in."),
};

static const struct conf_row listen_rows[] = {
    LISTEN(ENUM, mode, "mode", .choices = modes, .name_is_deflt = true,
           .text = "What the listener is for."),
    LISTEN(ADDRESS, address, "address", .required = true, .text = "Where to listen."),
    LISTEN(PATH, certificate, "certificate", .reloadable = true,
           .text = "Certificate chain (PEM) to serve TLS with.", .unset = "none, it is in clear"),
    LISTEN(PATH, key, "key", .reloadable = true, .text = "The key of the certificate (PEM)."),
    LISTEN(PATH, client_ca, "client-ca", .reloadable = true,
           .text = "Certificates (PEM) that clients must have theirs from.",
           .unset = "none, they need none"),
    LISTEN(URL, public_url, "public-url", .reloadable = true,
           .text = "What clients call this listener, where a TLS terminator stands in front; "
                   "upload links are made with it. Mode admin: the name that browsers come by.",
           .unset = "the name that each client used"),
    LISTEN(STRING, to, "to", .reloadable = true,
           .text = "Where everything goes, mode forward: db.corp.example:5432; mode grpc: a URL."),
    LISTEN(STRING, port, "port", .check = check_port, .reloadable = true,
           .text =
               "Mode sni: the port that its clients mean, where a mapping makes it another than "
               "the one they come in by.",
           .unset = "that one"),
    LISTEN(PATH, users, "users", .reloadable = true,
           .text = "File of user:hash lines (crypt). Mode proxy: to ask clients for; delegates may "
                   "not be able to answer. Mode admin: who may act, not only read.",
           .unset = "none: a proxy asks nobody, on admin nobody may act"),
    LISTEN(LIST, proxy_protocol, "proxy-protocol", .check = policy_check_range, .reloadable = true,
           .text = "Ranges of load balancers that tell the client's address by the PROXY protocol.",
           .unset = "none is believed"),
};

#define RULE(type, field, path, ...) CONF_ROW(type, struct config_rule, field, path, __VA_ARGS__)

static const struct conf_row rule_rows[] = {
    RULE(ENUM, action, "action", .choices = actions, .deflt = "allow", .reloadable = true,
         .text = "What happens to what fits."),
    RULE(LIST, hosts, "hosts", .check = policy_check_host, .reloadable = true,
         .text = "Destinations: names, \"*.corp.example\", ranges of addresses, each perhaps with "
                 ":PORT; \"*\" is any name.",
         .unset = "anywhere"),
    RULE(LIST, ports, "ports", .check = policy_check_port, .reloadable = true,
         .text = "Ports, 443 or 8000-8100, for hosts without one.",
         .unset = "443, and any if it denies"),
    RULE(
        LIST, addresses, "addresses", .check = policy_check_range, .reloadable = true,
        .text =
            "Ranges that the names may resolve to besides public addresses; a cloud's metadata and "
            "this machine's own address must be named as they are."),
    RULE(LIST, from, "from", .check = policy_check_range, .reloadable = true,
         .text = "Ranges of client addresses.", .unset = "any"),
    RULE(LIST, identities, "identity", .check = policy_check_identity, .reloadable = true,
         .text = "Names of clients, by certificate or credential.", .unset = "any"),
};

static const struct conf_section sections[] = {
    CONF_SECTION(struct config, listen, n_listen, struct config_listen, name, "listen", listen_rows,
                 .max = LISTEN_MAX, .text = "The listeners, each under a name of its own."),
    CONF_SECTION(struct config, rules, n_rules, struct config_rule, name, "rules", rule_rows,
                 .max = RULES_MAX, .reloadable = true,
                 .text = "Rules of the policy, asked in this order, before egress.allow and the "
                         "profile; each under a name of its own."),
};

/* ---- what options must keep to together -------------------------------------------------- */

/* Paths come with each request, so the URLs of peers are origins. Takes a single slash away. */
static void check_origin(struct conf_check *c, const char *path, char *url)
{
    char *slash = url ? strchr(strstr(url, "://") + 3, '/') : NULL;

    if (!slash)
        return;
    if (slash[1] != '\0')
        conf_complain(c, path, "\"%s\": use a URL without a path", url);
    *slash = '\0';
}

static void check_pair(struct conf_check *c, const char *base, const char *certificate,
                       const char *key)
{
    struct str path = STR_INIT;

    if (!certificate == !key)
        return;
    str_addf(&path, "%s.%s", base, key ? "certificate" : "key");
    conf_complain(c, str_c(&path), "missing: a certificate and its key go together");
    str_fini(&path);
}

/* A name or literal, and a port. */
static bool is_destination(const char *value)
{
    struct dest d;
    struct err e;

    return dest_parse(view_str(value), 0, &d, &e) == 0;
}

static void check_grpc_to(const struct config_listen *l, struct conf_check *c, const char *path)
{
    struct dest d;
    struct url u;
    struct err e;

    if (url_parse(view_str(l->to), &u, &e) < 0 || dest_parse(u.authority, u.port, &d, &e) < 0)
        conf_complain(c, path, "\"%s\": use a URL, such as http://10.0.0.7:20001: %s", l->to,
                      e.text);
    else if (u.path.n > 1)
        conf_complain(c, path, "\"%s\": use a URL without a path", l->to);
}

static void check_to(const struct config_listen *l, struct conf_check *c, const char *path)
{
    bool forward = l->mode == CONFIG_MODE_FORWARD, grpc = l->mode == CONFIG_MODE_GRPC;

    if (l->to && !forward && !grpc)
        conf_complain(c, path, "only for listeners of mode forward and grpc");
    else if (!l->to && (forward || grpc))
        conf_complain(c, path, "missing: where to, such as db.corp.example:5432");
    else if (grpc)
        check_grpc_to(l, c, path);
    else if (forward && !is_destination(l->to))
        conf_complain(c, path, "\"%s\": use HOST:PORT", l->to);
    if (forward && l->certificate)
        conf_complain(c, path, "a forward passes bytes untouched: no certificate");
}

static void check_sni(const struct config_listen *l, struct conf_check *c, struct str *path)
{
    size_t base = path->n;

    str_adds(path, ".certificate");
    if (l->certificate && l->mode == CONFIG_MODE_SNI)
        conf_complain(c, str_c(path), "mode sni has none: they are minted, or not ours");
    path->n = base;
    str_adds(path, ".port");
    if (l->port && l->mode != CONFIG_MODE_SNI)
        conf_complain(c, str_c(path), "only for listeners of mode sni");
    path->n = base;
}

static void check_listener(const struct config *cf, struct conf_check *c, size_t i)
{
    const struct config_listen *l = &cf->listen[i];
    struct str path = STR_INIT;
    size_t k, base;

    str_addf(&path, "listen.%s", l->name);
    base = path.n;
    check_pair(c, str_c(&path), l->certificate, l->key);
    check_sni(l, c, &path);
    str_adds(&path, ".client-ca");
    if (l->client_ca && !l->certificate)
        conf_complain(c, str_c(&path), "needs TLS: give a certificate and its key");
    path.n = base;
    str_adds(&path, ".public-url");
    if (l->public_url && l->mode != CONFIG_MODE_UPSTREAM && l->mode != CONFIG_MODE_ADMIN)
        conf_complain(c, str_c(&path), "only for listeners of mode upstream and admin");
    check_origin(c, str_c(&path), l->public_url);
    path.n = base;
    str_adds(&path, ".users");
    if (l->users && l->mode != CONFIG_MODE_PROXY && l->mode != CONFIG_MODE_ADMIN)
        conf_complain(c, str_c(&path), "only for listeners of mode proxy and admin");
    path.n = base;
    str_adds(&path, ".proxy-protocol");
    if (l->proxy_protocol.n && l->mode == CONFIG_MODE_ADMIN)
        conf_complain(c, str_c(&path), "not for listeners of mode admin");
    path.n = base;
    str_adds(&path, ".to");
    check_to(l, c, str_c(&path));
    path.n = base;
    str_adds(&path, ".address");
    for (k = 0; k < i; k++) {
        size_t n = strlen(l->address);

        if (strcmp(cf->listen[k].address, l->address) == 0 && strcmp(l->address + n - 2, ":0") != 0)
            conf_complain(c, str_c(&path), "\"%s\": listen.%s has this address already", l->address,
                          cf->listen[k].name);
    }
    str_fini(&path);
}

static void check_listeners(const struct config *cf, struct conf_check *c)
{
    bool serves = false;
    size_t i;

    for (i = 0; i < cf->n_listen; i++) {
        check_listener(cf, c, i);
        serves = serves || cf->listen[i].mode != CONFIG_MODE_ADMIN;
    }
    if (!serves)
        conf_complain(c, "listen",
                      "nothing would be served: give a listener of mode upstream or "
                      "proxy");
}

static bool is_https(const char *url)
{
    return url && strncmp(url, "https:", 6) == 0;
}

/* Is TLS spoken with anybody that upstream.certificate is for? */
static bool shows_certificate(const struct config *cf)
{
    bool shown = is_https(cf->harness_url);
    size_t i;

    for (i = 0; i < cf->n_listen && !shown; i++)
        shown = cf->listen[i].mode == CONFIG_MODE_GRPC && is_https(cf->listen[i].to);
    return shown;
}

static void check_upstream(struct config *cf, struct conf_check *c)
{
    check_origin(c, "harness.url", cf->harness_url);
    check_origin(c, "upstream.parent", cf->upstream_parent);
    check_pair(c, "upstream", cf->upstream_certificate, cf->upstream_key);
    if (cf->upstream_certificate && !shows_certificate(cf))
        conf_complain(c, "upstream.certificate", "is never shown: harness.url is not https");
}

static void check_rule(const struct config_rule *r, struct conf_check *c)
{
    /* What denials are called that no rule of the configuration made. */
    static const char *const taken[] = {"default", "address", "bad-authority"};
    struct str path = STR_INIT;
    size_t i;

    str_addf(&path, "rules.%s", r->name);
    for (i = 0; i < ARRAY_LEN(taken); i++) {
        if (strcmp(r->name, taken[i]) == 0)
            conf_complain(c, str_c(&path),
                          "use another name: this one stands for built-in denials");
    }
    str_adds(&path, ".addresses");
    if (r->action != 0 && r->addresses.n)
        conf_complain(c, str_c(&path), "a rule that denies has none; use a range in hosts");
    str_fini(&path);
}

static void check_egress(struct config *cf, struct conf_check *c)
{
    size_t i;

    for (i = 0; i < cf->n_rules; i++)
        check_rule(&cf->rules[i], c);
    check_pair(c, "intercept", cf->intercept_ca, cf->intercept_key);
    if (cf->intercept_hosts.n && !cf->intercept_ca)
        conf_complain(c, "intercept.hosts", "needs intercept.ca and intercept.key");
    if (cf->upstream_parent_credentials && !cf->upstream_parent)
        conf_complain(c, "upstream.parent-credentials", "needs upstream.parent");
    if (cf->upstream_parent_bypass.n && !cf->upstream_parent)
        conf_complain(c, "upstream.parent-bypass", "needs upstream.parent");
    if (cf->audit_to == AUDIT_FILE && !cf->audit_file)
        conf_complain(c, "audit.file", "missing: audit.to is file");
}

static void check_limits(struct config *cf, struct conf_check *c)
{
    if (cf->limit_blob > cf->spool_limit) {
        if (conf_given(c, "limits.blob"))
            conf_complain(c, "limits.blob", "more than spool.limit: such a blob could not be kept");
        cf->limit_blob = cf->spool_limit;
    }
}

/* What stands in the spool's directory unless it was told to be elsewhere. */
static void default_beside_spool(const struct config *cf, char **path, const char *name)
{
    struct str out = STR_INIT;

    if (*path)
        return;
    str_addf(&out, "%s/%s", cf->spool_directory, name);
    *path = str_take(&out);
}

static void check_all(void *config, struct conf_check *c)
{
    struct config *cf = config;

    check_upstream(cf, c);
    check_listeners(cf, c);
    check_egress(cf, c);
    check_limits(cf, c);
    default_beside_spool(cf, &cf->ticket_key, "ticket.key");
    default_beside_spool(cf, &cf->control_socket, "control.sock");
}

const struct conf_spec config_spec = {
    .rows = rows,
    .n_rows = ARRAY_LEN(rows),
    .sections = sections,
    .n_sections = ARRAY_LEN(sections),
    .size = sizeof(struct config),
    .files_offset = offsetof(struct config, files),
    .check = check_all,
};

int config_load(const char *path, struct config **config, struct conf_errors *errors)
{
    *config = XNEW(struct config);
    if (conf_load(path, &config_spec, *config, errors) == 0)
        return 0;
    XFREE(*config);
    return -1;
}

char *config_find_control(const char *path, struct conf_errors *errors)
{
    struct config *config = XNEW(struct config);
    char *found = NULL;

    if (conf_load_anyway(path, &config_spec, config, errors)) {
        default_beside_spool(config, &config->control_socket, "control.sock");
        found = xstrdup(config->control_socket);
    }
    config_free(&config);
    return found;
}

void config_free(struct config **config)
{
    if (!*config)
        return;
    conf_clear(&config_spec, *config);
    XFREE(*config);
}

void config_add_file(struct config *config, const char *path)
{
    struct conf_list *l = &config->files;

    l->items = xrealloc(l->items, (l->n + 1) * sizeof(*l->items));
    l->items[l->n++] = xstrdup(path);
}

void config_dump(const struct config *config, FILE *out)
{
    conf_dump(&config_spec, config, out);
}

const char *config_mode_name(enum config_mode mode)
{
    const struct conf_choice *c;

    for (c = modes; c->name && c->value != (int)mode; c++)
        ;
    return c->name;
}

const char *config_tls_min(const struct config *config)
{
    return config->upstream_tls_min == CONFIG_TLS_1_3 ? "1.3" : "1.2";
}

void config_resolvers(const struct config *config, struct str *out)
{
    size_t i;

    for (i = 0; i < config->upstream_resolvers.n; i++)
        str_addf(out, "%s%s", i ? "," : "", config->upstream_resolvers.items[i]);
}
