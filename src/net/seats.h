/*
 * Seats: how many client connections the process has, whatever they are for (requests, tunnels,
 * handshakes that never end), and how many each client has of them. A seat is taken for an accepted
 * descriptor and given back when it is closed; it stays with the descriptor from hand to hand. One
 * table for the process, as there is one of descriptors. Any thread.
 */
#ifndef TR_NET_SEATS_H
#define TR_NET_SEATS_H

#include <stdbool.h>
#include <stddef.h>
#include "net/addr.h"

/* `max` seats (limits.connections), `share` percent of them for one client when few are left
 * (rt/overload.h). Before the first is taken; again to change them. */
void seats_configure(size_t max, unsigned share);

enum seat_verdict { SEAT_TAKEN, SEAT_NONE, SEAT_CLIENT_FULL };

/* A seat for `fd`, which was accepted from `peer` by `listener` (kept by pointer). A client is an
 * IPv4 address or the first 64 bits of an IPv6 address: nobody has less of those. */
enum seat_verdict seat_take(int fd, const struct net_addr *peer, const char *listener);

/* `fd` is about to be closed. Nothing happens if it has no seat. */
void seat_give_back(int fd);

/* Give the seat back and close a connection that is not served, with a reset: its client knows at
 * once. */
void seat_refuse(int fd);

size_t seats_taken(void);

/* Somebody was refused for want of seats or descriptors, and room is asked for; and how many asked
 * since the last call, 64 at most, for those who have idle connections to close. */
void seats_ask_room(void);
unsigned seats_room_asked(void);

#endif
