/* `tailrace serve`: start-up, reload, drain. */
#ifndef TR_APP_SERVE_H
#define TR_APP_SERVE_H

/* Runs until told to end; returns the exit status. `config_path` is read again at SIGHUP. */
int serve(const char *config_path);

#endif
