/* Adding to a list of errors. */
#ifndef TR_CONF_ERRORS_PRIV_H
#define TR_CONF_ERRORS_PRIV_H

#include "conf/load.h"

/* Takes `line`. Errors are kept sorted by `order`, equals as they come; past the limit they are
 * counted only. */
void conf_errors_add(struct conf_errors *errors, unsigned long order, char *line);

#endif
