/* A configuration as the log path wants it. */
#ifndef TR_APP_SETTINGS_H
#define TR_APP_SETTINGS_H

#include "app/options.h"
#include "app/parent.h"
#include "logs/settings.h"

/* The caller's (or logs_new's, logs_configure's). `parent`, NULL: none, must outlive its use. */
struct logs_settings *settings_from_config(const struct config *c, struct parent *parent);

#endif
