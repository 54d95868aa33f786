#include "doctor/cause.h"

#include "base/bug.h"

#define NET     "firewall team"
#define DNS     "DNS team"
#define PROXY   "proxy team"
#define DEPLOY  "platform team"
#define ADMIN   "tailrace admin"
#define HARNESS "Harness account admin"

static const struct cause_row rows[CAUSES] = {
    [CAUSE_NONE] = {"", "", ""},
    [CAUSE_NAME_NOT_RESOLVED] = {"name_not_resolved", DNS,
                                 "the name servers that were asked say there is no such name"},
    [CAUSE_NAME_SERVERS_SILENT] = {"name_servers_silent", NET,
                                   "no name server answers: they are down, or DNS from here to "
                                   "them is dropped"},
    [CAUSE_NAME_SINKHOLED] = {"name_sinkholed", DNS,
                              "the name servers answer with an address that leads nowhere, as "
                              "filters of names do"},
    [CAUSE_DNS_POINTS_TO_OURSELVES] = {"dns_points_to_ourselves", ADMIN,
                                       "DNS override leads clients here, and this gateway asks "
                                       "the same name servers: it would connect to itself"},
    [CAUSE_FIREWALL_DROPS] = {"firewall_drops", NET,
                              "no answer at all to TCP: packets are dropped on the way, or the "
                              "host is down"},
    [CAUSE_CONNECTION_REFUSED] = {"connection_refused", NET,
                                  "the connection was reset at once: nothing listens there, or a "
                                  "firewall rejects it"},
    [CAUSE_NO_ROUTE] = {"no_route", NET, "this host or a router on the way knows no way there"},
    [CAUSE_SOME_ADDRESSES_BLOCKED] = {"some_addresses_blocked", NET,
                                      "the rule has addresses of some day in it instead of the "
                                      "name: what works now fails when DNS gives others"},
    [CAUSE_PARENT_REFUSES_CONNECT] = {"parent_refuses_connect", PROXY,
                                      "the parent proxy's own rules refuse this destination"},
    [CAUSE_PARENT_ASKS_CREDENTIALS] = {"parent_asks_credentials", ADMIN,
                                       "the parent proxy lets nobody pass without a user name and "
                                       "password that it knows"},
    [CAUSE_PARENT_RESOLVES_NOT] = {"parent_resolves_not", PROXY,
                                   "the parent proxy takes the request but cannot find or reach "
                                   "the destination itself"},
    [CAUSE_PARENT_IS_NO_PROXY] = {"parent_is_no_proxy", ADMIN,
                                  "what answers there does not speak as an HTTP proxy does"},
    [CAUSE_MIDDLEBOX_RESIGNS] = {"middlebox_resigns", PROXY,
                                 "something on the way ends TLS and shows a certificate of its "
                                 "own instead of the real one"},
    [CAUSE_CA_MISSING] = {"ca_missing", ADMIN,
                          "the certificate's issuer is none of those that this gateway trusts"},
    [CAUSE_CERTIFICATE_EXPIRED] = {"certificate_expired", "whoever runs that server",
                                   "a certificate outside its time is trusted by nobody"},
    [CAUSE_CERTIFICATE_WRONG_NAME] = {"certificate_wrong_name", "whoever runs that server",
                                      "the certificate is for other names: a wrong server, a "
                                      "wrong name in the setting, or a middlebox"},
    [CAUSE_TLS_TOO_OLD] = {"tls_too_old", "whoever runs that server",
                           "the far side speaks no version of TLS that is new enough"},
    [CAUSE_TLS_CUT] = {"tls_cut", NET,
                       "TCP is allowed, but the connection is cut as soon as TLS begins: a filter "
                       "that reads server names, or a service that speaks no TLS"},
    [CAUSE_NOT_TLS] = {"not_tls", PROXY,
                       "what answers speaks no TLS: a portal, a proxy's port, or a wrong port"},
    [CAUSE_TLS_FAILS] = {"tls_fails", "whoever runs that server",
                         "the two sides cannot agree on TLS"},
    [CAUSE_CLIENT_CERTIFICATE_MISSING] = {"client_certificate_missing", ADMIN,
                                          "the far side talks only to clients that show a "
                                          "certificate"},
    [CAUSE_CLIENT_CERTIFICATE_REFUSED] = {"client_certificate_refused", HARNESS,
                                          "the far side does not believe the certificate that "
                                          "was shown"},
    [CAUSE_ALPN_H2_BROKEN] = {"alpn_h2_broken", PROXY,
                              "HTTP/2 is agreed on and then not spoken, as by middleboxes that "
                              "copy the offer but do not know the protocol"},
    [CAUSE_HTTP_BLOCKED] = {"http_blocked", PROXY,
                            "the answer is not the service's: a page of a filter or portal"},
    [CAUSE_HTTP_FAILS] = {"http_fails", "whoever runs that server",
                          "the way is open, the service at its end does not answer as it should"},
    [CAUSE_WEBSOCKET_STRIPPED] = {"websocket_stripped", PROXY,
                                  "something on the way takes the upgrade out of the request: "
                                  "delegates show as disconnected"},
    [CAUSE_IDLE_TUNNEL_CUT] = {"idle_tunnel_cut", NET,
                               "connections without traffic are forgotten: delegates are silent "
                               "for 60 s between heartbeats, remote calls for longer"},
    [CAUSE_CLOCK_SKEW] = {"clock_skew", DEPLOY,
                          "signed links, tokens and certificates are good for a time only: a "
                          "clock that is wrong makes them bad"},
    [CAUSE_TOKEN_EXPIRED] = {"token_expired", DEPLOY,
                             "tokens of the log service are good for 48 hours"},
    [CAUSE_TOKEN_REFUSED] = {"token_refused", DEPLOY,
                             "the log service does not know this token, or not for this account"},
    [CAUSE_LOG_STREAM_FAILS] = {"log_stream_fails", "Harness support",
                                "the log service can be reached but does not do its work"},
    [CAUSE_LINK_NOT_GIVEN] = {"link_not_given", "Harness support",
                              "without a link finished logs cannot be uploaded to the bucket"},
    [CAUSE_LINK_REFUSED] = {"link_refused", PROXY,
                            "a link is good for exactly one path, query and host for an hour: a "
                            "proxy changed them, or this host's clock is wrong"},
    [CAUSE_UPLOAD_BLOCKED] = {"upload_blocked", ADMIN,
                              "the policy denies the bucket that finished logs are uploaded to"},
    [CAUSE_POLICY_DENIES] = {"policy_denies", ADMIN, "the policy denies a flow of the deployment"},
    [CAUSE_POLICY_DENIES_ADDRESS] = {"policy_denies_address", ADMIN,
                                     "the name is allowed, but names may lead to public addresses "
                                     "only unless their rule says more"},
    [CAUSE_CONFIG_BROKEN] = {"config_broken", ADMIN,
                             "a gateway does not start with it, a reload leaves the old one"},
    [CAUSE_SPOOL_FULL] = {"spool_full", ADMIN,
                          "logs that cannot be delivered at once have no place to wait in"},
    [CAUSE_SPOOL_NOT_WRITABLE] = {"spool_not_writable", ADMIN,
                                  "nothing is acknowledged that is not on disk"},
    [CAUSE_SPOOL_ON_NETWORK] = {"spool_on_network", DEPLOY,
                                "locks and syncs do not mean there what a spool needs"},
    [CAUSE_PORT_TAKEN] = {"port_taken", ADMIN, "another process listens there already"},
    [CAUSE_PORT_NOT_ALLOWED] = {"port_not_allowed", ADMIN,
                                "this host does not let this user listen there"},
    [CAUSE_DESCRIPTORS_FEW] = {"descriptors_few", DEPLOY,
                               "each connection needs a descriptor, each tunnel two or more"},
    [CAUSE_OWN_CERTIFICATE_EXPIRED] = {"own_certificate_expired", ADMIN,
                                       "clients refuse this gateway's certificate, or will soon"},
    [CAUSE_OWN_CERTIFICATE_WRONG_NAME] = {"own_certificate_wrong_name", ADMIN,
                                          "clients compare it with the name in their URL, and "
                                          "refuse this gateway"},
    [CAUSE_TRUST_MISSING] = {"trust_missing", DEPLOY,
                             "delegates and builds refuse a certificate whose issuer is not in "
                             "their trust store"},
    [CAUSE_GATEWAY_NOT_RUNNING] = {"gateway_not_running", ADMIN,
                                   "only the ways out were looked at, from this process"},
    [CAUSE_GATEWAY_NOT_READY] = {"gateway_not_ready", ADMIN,
                                 "load balancers and probes take it out of service"},
    [CAUSE_GATEWAY_PROBLEM] = {"gateway_problem", ADMIN, "the running gateway says so"},
    [CAUSE_CONFIG_NOT_LOADED] = {"config_not_loaded", ADMIN,
                                 "what was tried here is not what the gateway does"},
};

const struct cause_row *cause_row(enum cause c)
{
    ASSERT(c < CAUSES && rows[c].name);
    return &rows[c];
}
