/*
 * The commands that are about the program as a whole and its egress side: tunnels, denials,
 * policy/explain, config, certificates, listeners, problems, log-level, upgrade. docs/api.md has
 * what they answer. In the main thread.
 */
#ifndef TR_APP_COMMANDS_H
#define TR_APP_COMMANDS_H

struct gateway;
struct commands;

struct commands *commands_new(struct gateway *g); /* registers them */
/* Takes them back; what is under way is answered by 503. */
void commands_free(struct commands **c);

/* After a reload: names are looked up anew. NULL is fine. */
void commands_reloaded(struct commands *c);

/* Add "tunnels", "denied", "would_deny", "listeners", "certificates" and "problems" to the status.
 */
void commands_add_sections(struct gateway *g);

#endif
