/* Probes of several hosts, side by side, each with findings of its own. */
#ifndef TR_DOCTOR_PROBE_H
#define TR_DOCTOR_PROBE_H

#include "doctor/logs.h"

/* What is asked of a host once TCP (and TLS) stands. */
enum {
    PROBE_HTTP = 1, /* the log service's health */
    PROBE_ANY_HTTP = 2,
    PROBE_H2 = 4,
    PROBE_WEBSOCKET = 8,
    PROBE_LOGS = 16, /* logs.token must be there */
    PROBE_IDLE = 32, /* and nothing else */
    PROBE_DIAL = 64, /* no TLS, no HTTP: TCP and nothing else */
    PROBE_RPC = 128, /* HTTP/2 and nothing else */
};

struct probe {
    struct route route; /* all but findings, addrs, from, line, alpn and asked */
    struct service service;
    unsigned what;
    struct logs_probe logs;
    unsigned idle_s;
    struct findings *findings; /* made by probes_run; the caller's afterwards */
};

/* Run them, each in a thread, to their end: each step of each has way.timeout_ms, so all of it is
 * bounded. */
void probes_run(struct probe *probes, size_t n);

#endif
