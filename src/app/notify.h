/* Telling whoever supervises us (sd_notify(3)'s protocol): one datagram to $NOTIFY_SOCKET. */
#ifndef TR_APP_NOTIFY_H
#define TR_APP_NOTIFY_H

#include <stdbool.h>

/* Is there somebody to be told? */
bool notify_wanted(void);

/* "READY=1", "STOPPING=1", "MAINPID=123"; several by newlines. Nothing happens when nobody is
 * there to be told. */
void notify(const char *state);

#endif
