/*
 * Tickets: the gateway's own upload links (HP §1.9). A ticket seals account, key and credential
 * under a key that lives in a file of its own, so that it stays good after a restart, after the
 * close and at any age: clients take a 403 for success (HP §2.6).
 */
#ifndef TR_LOGS_TICKET_H
#define TR_LOGS_TICKET_H

#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"
#include "crypto/aead.h"
#include "logs/cred.h"

enum { TICKET_MAX = 16384 }; /* bytes of text; more was not made by us */

struct ticket {
    struct view account, key;
    struct view prefix, query; /* as the client spelled them */
    enum cred_kind kind;
    struct view secret;
};

/* Read the key file, or make one (mode 0600) if there is none. */
int ticket_key_load(const char *path, struct aead_key *key, struct err *e) TR_MUST_USE;

/* Append the ticket as base64url. */
void ticket_seal(const struct aead_key *key, const struct ticket *t, struct str *out);

/* Open it: 0 and the views of `t` point into `plain`; -1 if it is not one of ours. */
int ticket_open(const struct aead_key *key, struct view text, struct str *plain,
                struct ticket *t) TR_MUST_USE;

#endif
