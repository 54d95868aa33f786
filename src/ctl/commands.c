#include "ctl/commands.h"

#include <string.h>
#include "conf/suggest.h"

#define BIT(id) (1u << (id))

const struct ctl_option ctl_options[OPTIONS] = {
    [OPT_CONFIG] =
        {"config", 'c', "FILE", NULL, false,
         "the gateway's configuration (default /etc/tailrace/tailrace.yaml), which tells "
         "where its control socket is",
         offsetof(struct ctl, config)},
    [OPT_SOCKET] = {"socket", 0, "PATH", NULL, false, "the control socket itself",
                    offsetof(struct ctl, socket)},
    [OPT_JSON] = {"json", 0, NULL, NULL, false, "answers as JSON, figures exact and texts whole",
                  offsetof(struct ctl, json)},
    [OPT_WIDE] = {"wide", 'w', NULL, NULL, false, "whole texts, however wide the terminal is",
                  offsetof(struct ctl, wide)},
    [OPT_HELP] = {"help", 'h', NULL, NULL, false, "say what there is to say about a command",
                  offsetof(struct ctl, help)},
    [OPT_ACCOUNT] = {"account", 0, "ID", NULL, false, "of this account only",
                     offsetof(struct ctl, account)},
    [OPT_ALL] = {"all", 0, NULL, NULL, false, "all that the other options choose",
                 offsetof(struct ctl, all)},
    [OPT_BY] = {"by", 0, "WHAT", "destination identity client rule", false,
                "added up by destination, identity, client or rule", offsetof(struct ctl, by)},
    [OPT_CHECK] = {"check", 0, NULL, NULL, false,
                   "exit status 1 if a problem is critical, for scripts",
                   offsetof(struct ctl, check)},
    [OPT_FROM] = {"from", 0, "ADDRESS", NULL, false, "as if a client of this address asked",
                  offsetof(struct ctl, from)},
    [OPT_IDENTITY] = {"identity", 0, "NAME", NULL, false, "as if a client of this name asked",
                      offsetof(struct ctl, identity)},
    [OPT_LAST] = {"last", 0, "N", NULL, true, "begin with the last N lines that are still here",
                  offsetof(struct ctl, last)},
    [OPT_LIMIT] = {"limit", 'n', "N", NULL, true, "so many at most (1000 or less)",
                   offsetof(struct ctl, limit)},
    [OPT_MINUTES] = {"minutes", 0, "N", NULL, true, "the last N minutes (default and most: 60)",
                     offsetof(struct ctl, minutes)},
    [OPT_OUTPUT] = {"output", 'o', "FILE", NULL, false, "write to this file, for its owner's eyes",
                    offsetof(struct ctl, output)},
    [OPT_REASON] = {"reason", 0, "TEXT", NULL, false, "whose reason holds this text",
                    offsetof(struct ctl, reason)},
    [OPT_SEARCH] = {"search", 0, "TEXT", NULL, false, "those that hold this text, in any case",
                    offsetof(struct ctl, search)},
    [OPT_SORT] = {"sort", 0, "BY", "age backlog name idle", false,
                  "the oldest, those with most waiting, by name, or the quietest first",
                  offsetof(struct ctl, sort)},
    [OPT_STATE] = {"state", 0, "STATE", "waiting open closed held dead all", false,
                   "those of this state: waiting, open, closed, held, dead or all",
                   offsetof(struct ctl, state)},
    [OPT_STREAM] = {"stream", 0, "KEY", NULL, false, "of this stream only",
                    offsetof(struct ctl, stream)},
    [OPT_YES] = {"yes", 0, NULL, NULL, false, "yes, I know that it cannot be undone",
                 offsetof(struct ctl, yes)},
};

enum { CHOICE = BIT(OPT_ALL) | BIT(OPT_STREAM) | BIT(OPT_ACCOUNT) | BIT(OPT_REASON), MANY = 10000 };

const struct ctl_command ctl_commands[] = {
    {"status", "", "how the gateway is, on one screen",
     "Problems stand first, each with its section of the runbook (docs/operations.md); then where "
     "every accepted line is, what waits, and how upstream takes it.",
     0, 0, BIT(OPT_CHECK), LIVE_NONE, ctl_run_status},
    {"top", "", "the same, drawn again every second",
     "Keys: s streams, t tunnels, d denials, u upstreams, q or ^C quit. When the output is no "
     "terminal it is written once.",
     0, 0, 0, LIVE_NONE, ctl_run_top},
    {"history", "", "the last hour as lines of bars", NULL, 0, 0, BIT(OPT_MINUTES), LIVE_NONE,
     ctl_run_history},
    {"streams", "", "the logs that builds write",
     "Those with records that wait, unless --state says otherwise. WAITING is in lines.", 0, 0,
     BIT(OPT_SEARCH) | BIT(OPT_STATE) | BIT(OPT_SORT) | BIT(OPT_LIMIT), LIVE_NONE, ctl_run_streams},
    {"stream", "KEY", "one of them in full",
     "KEY is a stream's whole key, or a part of it that only one stream has.", 1, 1,
     BIT(OPT_ACCOUNT), LIVE_STREAMS, ctl_run_stream},
    {"tail", "KEY", "its lines as they pass",
     "Ends with the stream, or by ^C. KEY is a stream's whole key, or a part of it that only one "
     "stream has. control.tail: false in the configuration forbids it.",
     1, 1, BIT(OPT_ACCOUNT) | BIT(OPT_LAST), LIVE_STREAMS, ctl_run_tail},
    {"upstreams", "", "where logs go, and how that takes them", NULL, 0, 0, 0, LIVE_NONE,
     ctl_run_upstreams},
    {"tunnels", "", "connections that pass", NULL, 0, 0,
     BIT(OPT_BY) | BIT(OPT_SEARCH) | BIT(OPT_LIMIT), LIVE_NONE, ctl_run_tunnels},
    {"denials", "", "who was not let through, by which rule", NULL, 0, 0,
     BIT(OPT_SEARCH) | BIT(OPT_LIMIT), LIVE_NONE, ctl_run_denials},
    {"policy explain", "HOST:PORT", "what the running policy makes of a destination", NULL, 1, 1,
     BIT(OPT_FROM) | BIT(OPT_IDENTITY), LIVE_NONE, ctl_run_explain},
    {"listeners", "", "where it listens", NULL, 0, 0, 0, LIVE_NONE, ctl_run_listeners},
    {"certificates", "", "which certificates it has, and until when", NULL, 0, 0, 0, LIVE_NONE,
     ctl_run_certificates},
    {"config", "", "the configuration that is in force, without secrets", NULL, 0, 0, 0, LIVE_NONE,
     ctl_run_config},
    {"spool stats", "", "what waits on the disk", NULL, 0, 0, 0, LIVE_NONE, ctl_run_spool_stats},
    {"spool verify", "", "is the spool sound: every record, every upload, the ledger",
     "Reads the whole spool beside the gateway, which goes on; nothing is changed. Exit status 1: "
     "something is wrong.",
     0, 0, 0, LIVE_NONE, ctl_run_spool_verify},
    {"dead list", "", "records that upstream refused for good", NULL, 0, 0,
     BIT(OPT_STREAM) | BIT(OPT_ACCOUNT) | BIT(OPT_REASON), LIVE_NONE, ctl_run_dead_list},
    {"dead explain", "ID", "what happened to one, and what to do about it", NULL, 1, 1, 0,
     LIVE_DEAD, ctl_run_dead_explain},
    {"dead export", "ID", "its lines, or its log, as they came", NULL, 1, 1, BIT(OPT_OUTPUT),
     LIVE_DEAD, ctl_run_dead_export},
    {"dead replay", "ID...|--all", "send them again: into the streams' stored logs",
     "With --all those that --stream, --account and --reason choose.", 0, MANY, CHOICE, LIVE_DEAD,
     ctl_run_dead_replay},
    {"dead drop", "ID...|--all", "give them up; needs --yes",
     "With --all those that --stream, --account and --reason choose.", 0, MANY,
     CHOICE | BIT(OPT_YES), LIVE_DEAD, ctl_run_dead_drop},
    {"log-level", "[LEVEL]", "how much it logs; with LEVEL: from now on",
     "LEVEL is error, warn, notice, info or debug, and holds until the next reload or start.", 0, 1,
     0, LIVE_LEVELS, ctl_run_log_level},
    {"reload", "", "read the configuration again, as SIGHUP does",
     "A configuration with a mistake in it changes nothing: the old one stays in force.", 0, 0, 0,
     LIVE_NONE, ctl_run_reload},
    {"upgrade", "", "start the program anew to take over, as SIGUSR2 does",
     "No connection is refused, and none ends.", 0, 0, 0, LIVE_NONE, ctl_run_upgrade},
    {"drain", "", "finish what is under way and end, as SIGTERM does", NULL, 0, 0, 0, LIVE_NONE,
     ctl_run_drain},
    {"version", "", "of this program and of the gateway", NULL, 0, 0, 0, LIVE_NONE,
     ctl_run_version},
    {"completion", "SHELL", "what bash, zsh or fish completes these commands with",
     "For this shell alone: . <(tailracectl completion bash)", 1, 1, 0, LIVE_SHELLS,
     ctl_run_completion},
    {"help", "[COMMAND]", "say what there is to say about a command",
     "With --json: all commands and options, for programs.", 0, 2, 0, LIVE_COMMANDS, ctl_run_help},
};

const size_t ctl_n_commands = ARRAY_LEN(ctl_commands);

/* How many of the words are this command's name; 0: they are not. */
static int words_of(const struct ctl_command *command, int n, char **words)
{
    const char *space = strchr(command->name, ' ');
    size_t first = space ? (size_t)(space - command->name) : strlen(command->name);

    if (n < 1 || strlen(words[0]) != first || strncmp(words[0], command->name, first) != 0)
        return 0;
    if (!space)
        return 1;
    return n > 1 && strcmp(words[1], space + 1) == 0 ? 2 : 0;
}

const struct ctl_command *ctl_command_find(int n, char **words, int *used)
{
    size_t i;

    for (i = 0; i < ctl_n_commands; i++) {
        *used = words_of(&ctl_commands[i], n, words);
        if (*used)
            return &ctl_commands[i];
    }
    return NULL;
}

const char *ctl_command_guess(int n, char **words)
{
    struct conf_guess one = {.wrong = words[0]}, two;
    struct str both = STR_INIT;
    const char *found = NULL;
    size_t i;

    str_addf(&both, "%s %s", words[0], n > 1 ? words[1] : "");
    two = (struct conf_guess){.wrong = str_c(&both)};
    for (i = 0; i < ctl_n_commands; i++) {
        const char *name = ctl_commands[i].name, *space = strchr(name, ' ');

        conf_guess_offer(space ? &two : &one, view_str(name));
        /* "polcy", "spool": the first word alone */
        if (space)
            conf_guess_offer(&one, view_of(name, (size_t)(space - name)));
    }
    for (i = 0; i < ctl_n_commands && !found; i++) {
        const char *name = ctl_commands[i].name;

        if (*two.best ? strcmp(name, two.best) == 0
                      : *one.best && strncmp(name, one.best, strlen(one.best)) == 0)
            found = name;
    }
    str_fini(&both);
    return found;
}

bool ctl_is_one_of(const char *values, const char *value)
{
    size_t n = strlen(value);

    while (*values) {
        size_t one = strcspn(values, " ");

        if (one == n && memcmp(values, value, n) == 0)
            return true;
        values += one + strspn(values + one, " ");
    }
    return false;
}
