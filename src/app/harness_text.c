/* What is to be set on the Harness side, for people: listener by listener, then certificates. */
#include <string.h>
#include "app/harness_side_priv.h"
#include "codec/url.h"

/* ---- settings ----------------------------------------------------------------------------- */

static void print_setting(const struct side_setting *row, FILE *out)
{
    fprintf(out, "    %s%s=%s", row->asked ? "# " : "", row->env, str_c(&row->value));
    if (!row->helm)
        fputs("  (Helm: in custom_envs)\n", out);
    else if (*row->helm)
        fprintf(out, "  (Helm: %s%s)\n", row->helm, row->asked ? ", in base64" : "");
    else
        fputs("  (Helm: made by the chart)\n", out);
}

/* Those of authorities and client certificates are told with what belongs to them. */
static bool is_of_files(const struct side_setting *row)
{
    return !row->env || strstr(row->env, "_PATH") != NULL;
}

static void print_settings(const struct harness_side *s, const struct side_choice *choice,
                           FILE *out)
{
    struct side_settings settings;
    size_t i;

    side_settings_init(&settings, s, choice);
    fputs("  delegate, in its environment:\n", out);
    for (i = 0; i < settings.n; i++) {
        if (!is_of_files(&settings.rows[i]))
            print_setting(&settings.rows[i], out);
    }
    for (i = 0; i < settings.n; i++) {
        if (settings.rows[i].env && strstr(settings.rows[i].env, "_CLIENT_CERTIFICATE_"))
            print_setting(&settings.rows[i], out);
    }
    side_settings_fini(&settings);
}

/* HP §4.6. */
static void print_client_certificate(FILE *out)
{
    fputs("    and its client certificate in these files (Helm: mTLS.secretName, a secret with "
          "client.crt and client.key)\n",
          out);
}

static void print_place_notes(const struct side_place *p, FILE *out)
{
    if (p->loopback)
        fprintf(out, "  note: %s is reached from this host only\n", str_c(&p->host));
    if (p->expired)
        fprintf(out, "  note: %s has expired: clients will refuse it\n", p->l->certificate);
    if (p->misnamed)
        fprintf(out, "  note: %s is not for the name %s: clients will refuse it\n",
                p->l->certificate, str_c(&p->host));
}

/* ---- ways --------------------------------------------------------------------------------- */

/* HP §4.7, §3.1 (where pods get the address of the log service from), §2.1 (VMs: from the request
 * that sets them up). */
static void print_upstream(const struct harness_side *s, const struct side_place *p, FILE *out)
{
    const struct side_choice choice = {.upstream = p};

    fprintf(out, "listen.%s: %s in place of %s\n", p->l->name, str_c(&p->url), s->c->harness_url);
    print_settings(s, &choice, out);
    if (p->l->client_ca)
        print_client_certificate(out);
    fprintf(
        out,
        "    a path behind the host that it has now, such as /gratis, stays behind this one\n"
        "  build pods and VMs have the log service's address from Harness: with the account's "
        "feature flag\n    CI_OVERRIDE_SERVICE_URLS it follows their delegate's; see that a pod "
        "has\n    HARNESS_LOG_SERVICE_ENDPOINT=%s/log-service; else they need DNS or a proxy\n",
        str_c(&p->url));
    if (p->l->client_ca) /* HP §2.1 */
        fputs("    and they show a client certificate only where Harness gives them one: else they "
              "need a\n    listener without client-ca\n",
              out);
    fprintf(out,
            "  another tailrace in front of this one (an edge), in its configuration:\n"
            "    harness.url: %s%s%s\n",
            str_c(&p->url), p->cert == CERT_PRIVATE ? "; upstream.ca: the authority below" : "",
            p->l->client_ca ? "; upstream.certificate, upstream.key: its own" : "");
    if (p->cert == CERT_NONE)
        fputs("  note: in clear, tokens too: for a trial, or with a TLS terminator in front "
              "(public-url)\n",
              out);
    print_place_notes(p, out);
}

/* HP §4.5: a delegate may not answer a proxy that asks, and exports no http_proxy then. */
static void print_proxy_users(const struct side_place *p, FILE *out)
{
    if (p->l->users)
        fprintf(out,
                "  note: listen.%s.users asks for a name and a password, which not every version "
                "of the delegate\n    gives; rules can tell clients by address instead (from:)\n",
                p->l->name);
    if (p->l->client_ca)
        fprintf(out,
                "  note: listen.%s.client-ca asks for a certificate: delegates show none to a "
                "proxy\n",
                p->l->name);
    else if (p->l->certificate)
        fputs("  note: TLS to the proxy itself is not known to work with delegates: have them a "
              "listener without a certificate\n",
              out);
}

/* HP §3.1 (pods), §2.5 (VMs; some pools leave Harness's names out), §5 (the API server). */
static void print_proxy(const struct harness_side *s, const struct side_place *p, FILE *out)
{
    const struct side_choice choice = {.proxy = p};

    fprintf(out, "listen.%s: the proxy %s\n", p->l->name, str_c(&p->url));
    print_settings(s, &choice, out);
    if (s->c->upstream_certificate && !s->c->intercept_ca)
        print_client_certificate(out);
    fputs("    in NO_PROXY: names, suffixes and addresses, no ranges; add the address of the "
          "cluster's API server\n    and hosts inside (--no-proxy A,B)\n"
          "  build pods get http_proxy, https_proxy and no_proxy from their delegate\n"
          "  build VMs need them in the environment of the stage:\n",
          out);
    fprintf(out, "    https_proxy=%s\n    http_proxy=%s\n    no_proxy=%s\n", str_c(&p->url),
            str_c(&p->url), str_c(&s->no_proxy));
    fputs("    without .harness.io in no_proxy, which some pools put there by themselves\n", out);
    if (!s->c->intercept_ca)
        fputs("  note: without intercept.ca logs go to Harness as they are, by tunnels: nothing is "
              "kept safe here\n",
              out);
    print_proxy_users(p, out);
    print_place_notes(p, out);
}

/* The names to be pointed here: those that are intercepted and the one that delegates talk to. */
static void print_names(const struct harness_side *s, FILE *out)
{
    const struct conf_list *hosts = &s->c->intercept_hosts;
    struct url u;
    struct err e;
    bool listed = false;
    size_t i;

    for (i = 0; i < hosts->n; i++) {
        const char *colon = strchr(hosts->items[i], ':');
        size_t n = colon ? (size_t)(colon - hosts->items[i]) : strlen(hosts->items[i]);

        fprintf(out, "    %.*s\n", (int)n, hosts->items[i]);
        listed = listed || (url_parse(view_str(s->c->harness_url), &u, &e) == 0 && u.host.n == n &&
                            memcmp(u.host.p, hosts->items[i], n) == 0);
    }
    if (!listed && url_parse(view_str(s->c->harness_url), &u, &e) == 0)
        fprintf(out, "    %.*s\n", (int)u.host.n, u.host.p);
    /* Where TLS is ended, links for uploads are this gateway's, and nobody goes to the bucket. */
    if (!s->c->intercept_ca && s->c->upload_logs != CONFIG_UPLOADS_HARNESS)
        fputs("    storage.googleapis.com\n", out);
}

static void print_sni(const struct harness_side *s, const struct side_place *p, FILE *out)
{
    fprintf(out,
            "listen.%s: clients that are told nothing, by DNS\n"
            "  in the DNS that they ask, these names lead to %s:\n",
            p->l->name, str_c(&p->host));
    print_names(s, out);
    fputs("    and others that rules allow, where there is no way out but this one\n", out);
    if (strcmp(str_c(&p->port), "443") != 0)
        fprintf(out, "  note: clients go to port 443: have it mapped to %s\n", p->l->address);
    fputs("  delegates, build pods and VMs keep the URLs that they have; no proxy for these "
          "names\n",
          out);
    if (!s->c->intercept_ca)
        fputs("  note: without intercept.ca logs go to Harness as they are: nothing is kept safe "
              "here\n",
              out);
    print_place_notes(p, out);
}

/* HP §3.3: gRPC of delegates is in clear and never goes by a proxy. */
static void print_onward(const struct side_place *p, FILE *out)
{
    const bool grpc = p->l->mode == CONFIG_MODE_GRPC;

    fprintf(out, "listen.%s: %s are told %s%s%s:%s in place of %s\n", p->l->name,
            grpc ? "callers of the lite engine" : "programs",
            strchr(str_c(&p->host), ':') ? "[" : "", str_c(&p->host),
            strchr(str_c(&p->host), ':') ? "]" : "", str_c(&p->port), p->l->to);
    if (grpc && p->l->certificate)
        fputs("  note: delegates speak gRPC in clear: they cannot use a listener with a "
              "certificate\n",
              out);
    print_place_notes(p, out);
}

/* ---- certificates ------------------------------------------------------------------------- */

static bool has_such(const struct harness_side *s, size_t i, enum side_cert cert)
{
    const struct side_place *p = &s->places[i];

    return side_is_asked_for(s, p) && p->l->mode != CONFIG_MODE_ADMIN && p->cert == cert;
}

/* Listeners may share a certificate: the first of them speaks for all. */
static bool is_first_such(const struct harness_side *s, size_t i, enum side_cert cert)
{
    size_t k;

    if (!has_such(s, i, cert))
        return false;
    for (k = 0; k < i; k++) {
        if (has_such(s, k, cert) &&
            strcmp(s->places[k].l->certificate, s->places[i].l->certificate) == 0)
            return false;
    }
    return true;
}

static bool any_intercepts(const struct harness_side *s)
{
    size_t i;

    for (i = 0; i < s->c->n_listen; i++) {
        if (side_is_asked_for(s, &s->places[i]) && side_intercepts(s, &s->places[i]))
            return true;
    }
    return false;
}

/* A file of ours, or what its owner has to find. False: there is none. */
static bool print_authorities(const struct harness_side *s, FILE *out)
{
    struct str text = STR_INIT;
    bool any;
    size_t i;

    for (i = 0; i < s->c->n_listen; i++) {
        const struct side_place *p = &s->places[i];

        if (!is_first_such(s, i, CERT_PRIVATE))
            continue;
        str_addf(&text, "  listen.%s: ", p->l->name);
        if (p->issuer.n)
            str_addf(&text, "the authority \"%s\", which signed %s and is not in that file\n",
                     str_c(&p->issuer), p->l->certificate);
        else
            str_addf(&text, "%s, which has its authority in it\n", p->l->certificate);
    }
    if (any_intercepts(s))
        str_addf(&text,
                 "  intercept.ca: %s, which signs what is shown for hosts that are "
                 "intercepted\n",
                 s->c->intercept_ca);
    any = text.n > 0;
    if (any)
        fprintf(out, "\ncertificates that clients do not believe until they are told to:\n%s",
                str_c(&text));
    str_fini(&text);
    return any;
}

/* HP §4.5, §4.7, §3.1, §2.1: one bundle, since in images it takes the place of the authorities
 * there. ADDITIONAL_CERTS_PATH and CI_MOUNT_VOLUMES are how it was done before DESTINATION_CA_PATH
 * (shared_certificates of the chart). */
static void print_bundle(const struct harness_side *s, FILE *out)
{
    size_t i;

    fputs("  one file of them, behind the public ones, since it takes the place of what images "
          "have:\n    cat /etc/ssl/certs/ca-certificates.crt",
          out);
    if (any_intercepts(s))
        fprintf(out, " %s", s->c->intercept_ca);
    for (i = 0; i < s->c->n_listen; i++) {
        const struct side_place *p = &s->places[i];

        if (is_first_such(s, i, CERT_PRIVATE) && p->issuer.n)
            fprintf(out, " AUTHORITY-OF-%s.pem", p->l->name);
        else if (is_first_such(s, i, CERT_PRIVATE))
            fprintf(out, " %s", p->l->certificate);
    }
    fputs(" > " CA_FILE "\n"
          "  delegate: that file in " DELEGATE_CA_DIR "\n"
          "    kubectl create secret generic " CA_SECRET " --from-file=" CA_FILE "\n"
          "    Helm: delegateCustomCa.secretName and upgraderCustomCa.secretName: " CA_SECRET "\n"
          "  build pods, by their delegate:\n"
          "    DESTINATION_CA_PATH=" CA_IN_IMAGES "  (Helm: destinationCaPath)\n"
          "    before delegate 23.10.81202: ADDITIONAL_CERTS_PATH=FILE and "
          "CI_MOUNT_VOLUMES=FILE:PATH,FILE:PATH\n"
          "  build VMs: in the authorities of their image; their programs check them, and cannot "
          "be told not to\n",
          out);
}

static void print_unread(const struct harness_side *s, FILE *out)
{
    size_t i;

    for (i = 0; i < s->c->n_listen; i++) {
        const struct side_place *p = &s->places[i];

        if (is_first_such(s, i, CERT_UNREAD))
            fprintf(out,
                    "\nnote: listen.%s: %s cannot be read here, and a gateway that cannot does not "
                    "start; if its authority is not a public one, clients must be told to believe "
                    "it\n",
                    p->l->name, p->l->certificate);
    }
}

/* ---- all ---------------------------------------------------------------------------------- */

static void print_place(const struct harness_side *s, const struct side_place *p, FILE *out)
{
    fputc('\n', out);
    if (p->l->mode == CONFIG_MODE_UPSTREAM)
        print_upstream(s, p, out);
    else if (p->l->mode == CONFIG_MODE_PROXY)
        print_proxy(s, p, out);
    else if (p->l->mode == CONFIG_MODE_SNI)
        print_sni(s, p, out);
    else
        print_onward(p, out);
}

/* HP §5: the setting is the account's. Where the log API is not ended here, only that keeps clients
 * from going to the bucket, which the policy has closed. */
static void print_account(const struct harness_side *s, FILE *out)
{
    bool passes = false;
    size_t i;

    for (i = 0; i < s->c->n_listen; i++) {
        passes = passes || ((s->c->listen[i].mode == CONFIG_MODE_PROXY ||
                             s->c->listen[i].mode == CONFIG_MODE_SNI) &&
                            side_is_asked_for(s, &s->places[i]));
    }
    if (s->c->upload_logs == CONFIG_UPLOADS_HARNESS && passes && !s->c->intercept_ca)
        fputs("\naccount settings: turn on Upload Logs via Harness: googleapis.com is closed here "
              "(harness.upload-logs)\n",
              out);
}

void side_print_text(const struct harness_side *s, FILE *out)
{
    size_t i;

    fputs("\nOn the Harness side (--harness-side env or yaml: for machines; --address NAME: how "
          "clients call this host)\n",
          out);
    for (i = 0; i < s->c->n_listen; i++) {
        if (s->c->listen[i].mode != CONFIG_MODE_ADMIN && side_is_asked_for(s, &s->places[i]))
            print_place(s, &s->places[i], out);
    }
    print_account(s, out);
    if (print_authorities(s, out))
        print_bundle(s, out);
    print_unread(s, out);
    if (harness_side_has_gaps(s))
        fputs("\nnote: " HOST_UNKNOWN " stands for the name by which clients reach this host, and "
              "is not known here: --address NAME puts it in\n",
              out);
}
