/*
 * Where this process listens itself. A name that should lead away may lead here instead, where DNS
 * was made to point it at this gateway: what is sent there comes in again, and is sent again.
 */
#ifndef TR_NET_SELF_H
#define TR_NET_SELF_H

#include <stdbool.h>
#include "net/addr.h"

/* A listening descriptor came, or is about to be closed. Any thread. */
void net_self_add(int fd);
void net_self_remove(int fd);

/* Would a connection to that address come in at one of them? Not behind a translation of addresses
 * that we do not know of. Any thread. */
bool net_leads_back(const struct net_addr *to);

#endif
