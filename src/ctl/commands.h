/*
 * The commands and options of tailracectl: one table, from which come the parser, the help, the
 * completion of shells (complete.c) and, by `tailracectl help --json`, the manual page.
 */
#ifndef TR_CTL_COMMANDS_H
#define TR_CTL_COMMANDS_H

#include <stddef.h>
#include "ctl/ctl.h"

/* The options, as bits: their places in ctl_options. */
enum ctl_option_id {
    OPT_CONFIG,
    OPT_SOCKET,
    OPT_JSON,
    OPT_WIDE,
    OPT_HELP,
    OPT_EVERYWHERE, /* those above go with every command */
    OPT_ACCOUNT = OPT_EVERYWHERE,
    OPT_ALL,
    OPT_BY,
    OPT_CHECK,
    OPT_FROM,
    OPT_IDENTITY,
    OPT_LAST,
    OPT_LIMIT,
    OPT_MINUTES,
    OPT_OUTPUT,
    OPT_REASON,
    OPT_SEARCH,
    OPT_SORT,
    OPT_STATE,
    OPT_STREAM,
    OPT_YES,
    OPTIONS
};

struct ctl_option {
    const char *name;
    char letter;        /* 0: none */
    const char *arg;    /* what its value is called; NULL: it has none */
    const char *values; /* those it may have, with spaces between; NULL: any */
    bool number;        /* it must be a whole number */
    const char *help;
    size_t at; /* in struct ctl: const char *, or bool for those without value */
};

/* What the running gateway knows that completes an argument. */
enum ctl_live { LIVE_NONE, LIVE_STREAMS, LIVE_DEAD, LIVE_COMMANDS, LIVE_SHELLS, LIVE_LEVELS };

struct ctl_command {
    const char *name; /* one word or two */
    const char *args; /* "ID..."; "": none */
    const char *help; /* one line */
    const char *more; /* what else there is to know; NULL: nothing */
    int least, most;  /* how many arguments */
    unsigned options; /* that go with it, besides those that always do */
    enum ctl_live live;
    int (*run)(struct ctl *c, int n, char **args);
};

extern const struct ctl_option ctl_options[OPTIONS];
extern const struct ctl_command ctl_commands[];
extern const size_t ctl_n_commands;

/*
 * The command that these words begin with; `*used`: how many of them are its name. NULL: there is
 * none.
 */
const struct ctl_command *ctl_command_find(int n, char **words, int *used);
/* The name that was meant, perhaps, by words that name no command; NULL: no idea. */
const char *ctl_command_guess(int n, char **words);
/* Whether it stands in a list of values with spaces between. */
bool ctl_is_one_of(const char *values, const char *value);

/* help.c: the commands in the order of the table; one of them in full; all as JSON. */
void ctl_help(FILE *out);
void ctl_help_one(FILE *out, const struct ctl_command *command);
void ctl_help_json(void);

/* The functions of the rows, by file. */
int ctl_run_help(struct ctl *c, int n, char **args);       /* help.c */
int ctl_run_completion(struct ctl *c, int n, char **args); /* complete.c */
int ctl_run_candidates(struct ctl *c, int n, char **args);
int ctl_run_status(struct ctl *c, int n, char **args);  /* status.c */
int ctl_run_top(struct ctl *c, int n, char **args);     /* top.c */
int ctl_run_history(struct ctl *c, int n, char **args); /* history.c */
int ctl_run_streams(struct ctl *c, int n, char **args); /* lists.c */
int ctl_run_tunnels(struct ctl *c, int n, char **args);
int ctl_run_denials(struct ctl *c, int n, char **args);
int ctl_run_upstreams(struct ctl *c, int n, char **args);
int ctl_run_certificates(struct ctl *c, int n, char **args);
int ctl_run_listeners(struct ctl *c, int n, char **args);
int ctl_run_stream(struct ctl *c, int n, char **args);      /* stream.c */
int ctl_run_tail(struct ctl *c, int n, char **args);        /* tail.c */
int ctl_run_explain(struct ctl *c, int n, char **args);     /* policy.c */
int ctl_run_spool_stats(struct ctl *c, int n, char **args); /* spool.c */
int ctl_run_spool_verify(struct ctl *c, int n, char **args);
int ctl_run_dead_list(struct ctl *c, int n, char **args); /* dead.c */
int ctl_run_dead_explain(struct ctl *c, int n, char **args);
int ctl_run_dead_export(struct ctl *c, int n, char **args);
int ctl_run_dead_replay(struct ctl *c, int n, char **args);
int ctl_run_dead_drop(struct ctl *c, int n, char **args);
int ctl_run_reload(struct ctl *c, int n, char **args); /* actions.c */
int ctl_run_drain(struct ctl *c, int n, char **args);
int ctl_run_upgrade(struct ctl *c, int n, char **args);
int ctl_run_log_level(struct ctl *c, int n, char **args);
int ctl_run_config(struct ctl *c, int n, char **args);
int ctl_run_version(struct ctl *c, int n, char **args);

#endif
