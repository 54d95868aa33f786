/*
 * tailracectl completion: what shells complete commands with, made from the table of commands. What
 * clients named (keys of streams) comes to the shells at run time, by `tailracectl __complete`, and
 * is data there: no script evaluates it.
 */
#include <string.h>
#include <unistd.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "ctl/commands.h"

#define GET json_object_get

enum { PATIENCE_S = 3 };

static const char levels[] = "error warn notice info debug";
static const char shells[] = "bash zsh fish";

/* --- the table, in pieces --------------------------------------------------------------------- */

static size_t first_word(const char *name)
{
    return strcspn(name, " ");
}

/* Whether it is the first command that begins with its first word. */
static bool begins(size_t i)
{
    size_t k, n = first_word(ctl_commands[i].name);

    for (k = 0; k < i; k++) {
        if (first_word(ctl_commands[k].name) == n &&
            strncmp(ctl_commands[k].name, ctl_commands[i].name, n) == 0)
            return false;
    }
    return true;
}

static const char *second_word(const char *name)
{
    const char *space = strchr(name, ' ');

    return space ? space + 1 : NULL;
}

static bool is_file(size_t option)
{
    return option == OPT_CONFIG || option == OPT_SOCKET || option == OPT_OUTPUT;
}

/* In single quotes for any of the three. */
static void put_quoted(const char *text)
{
    ASSERT(!strchr(text, '\'') && !strchr(text, '\\')); /* the table has none: see help texts */
    printf("'%s'", text);
}

static void put_help(const char *text)
{
    struct str clean = STR_INIT;

    for (; *text; text++)
        str_adds(&clean, *text == '\'' ? "\xe2\x80\x99" : (char[2]){*text, '\0'});
    put_quoted(str_c(&clean));
    str_fini(&clean);
}

static const char *live_name(enum ctl_live live)
{
    switch (live) {
    case LIVE_STREAMS:
        return "streams";
    case LIVE_DEAD:
        return "dead";
    default:
        return NULL;
    }
}

static const char *fixed_words(enum ctl_live live)
{
    return live == LIVE_LEVELS ? levels : live == LIVE_SHELLS ? shells : NULL;
}

/* --- bash and zsh: functions of the table ------------------------------------------------------
 */

static void put_first_words(void)
{
    size_t i;

    for (i = 0; i < ctl_n_commands; i++) {
        const char *name = ctl_commands[i].name;

        if (begins(i))
            printf("%s%.*s", i ? " " : "", (int)first_word(name), name);
    }
}

static void put_second_words(size_t group)
{
    size_t i, n = first_word(ctl_commands[group].name);
    bool any = false;

    for (i = group; i < ctl_n_commands; i++) {
        const char *name = ctl_commands[i].name;

        if (first_word(name) != n || strncmp(name, ctl_commands[group].name, n) != 0)
            continue;
        printf("%s%s", any ? " " : "", second_word(name));
        any = true;
    }
}

static void put_option_words(unsigned which)
{
    size_t i;

    for (i = 0; i < OPTIONS; i++) {
        if (which & 1u << i)
            printf(" --%s", ctl_options[i].name);
    }
}

/* "-o|--output|..." of the options that `chosen` says yes to. */
static void put_patterns(bool (*chosen)(size_t option))
{
    bool any = false;
    size_t i;

    for (i = 0; i < OPTIONS; i++) {
        if (!chosen(i))
            continue;
        if (ctl_options[i].letter)
            printf("%s-%c", any ? "|" : "", ctl_options[i].letter);
        printf("%s--%s", any || ctl_options[i].letter ? "|" : "", ctl_options[i].name);
        any = true;
    }
}

static bool has_value(size_t option)
{
    return ctl_options[option].arg != NULL;
}

/* The function that tells the words of each place: what bash and zsh have in common. */
static void put_words_function(void)
{
    size_t i;

    puts("_tailracectl_words()\n{\n    case \"$1\" in");
    fputs("    commands) echo '", stdout);
    put_first_words();
    puts("' ;;");
    fputs("    options) echo '", stdout);
    put_option_words((1u << OPT_EVERYWHERE) - 1);
    puts("' ;;");
    for (i = 0; i < ctl_n_commands; i++) {
        const struct ctl_command *command = &ctl_commands[i];

        if (second_word(command->name) && begins(i)) {
            printf("    'group %.*s') echo '", (int)first_word(command->name), command->name);
            put_second_words(i);
            puts("' ;;");
        }
        if (command->options) {
            printf("    'options %s') echo '", command->name);
            put_option_words(command->options);
            puts("' ;;");
        }
        if (live_name(command->live))
            printf("    'live %s') echo '%s' ;;\n", command->name, live_name(command->live));
        if (fixed_words(command->live))
            printf("    'words %s') echo '%s' ;;\n", command->name, fixed_words(command->live));
    }
    for (i = 0; i < OPTIONS; i++) {
        if (ctl_options[i].values)
            printf("    'values --%s') echo '%s' ;;\n", ctl_options[i].name, ctl_options[i].values);
    }
    puts("    esac\n}\n");
}

/* Reads `words` up to the one that is written now: sets command, group, arguments and gateway. */
static void put_walk_function(const char *first)
{
    printf("_tailracectl_walk()\n{\n"
           "    local i word\n"
           "    command='' group='' arguments=0 gateway=()\n"
           "    for ((i = %s; i < count; i++)); do\n"
           "        word=${words[i]}\n"
           "        case \"$word\" in\n"
           "        -c|--config|--socket)\n"
           "            gateway+=(\"$word\" \"${words[i+1]}\")\n"
           "            i=$((i + 1)) ;;\n"
           "        --config=*|--socket=*)\n"
           "            gateway+=(\"$word\") ;;\n"
           "        ",
           first);
    put_patterns(has_value);
    printf(")\n"
           "            i=$((i + 1)) ;;\n"
           "        -*) ;;\n"
           "        *)\n"
           "            if [[ -n $group ]]; then\n"
           "                command=\"$group $word\" group=''\n"
           "            elif [[ -n $command ]]; then\n"
           "                arguments=$((arguments + 1))\n"
           "            elif [[ -n $(_tailracectl_words \"group $word\") ]]; then\n"
           "                group=$word\n"
           "            else\n"
           "                command=$word\n"
           "            fi ;;\n"
           "        esac\n"
           "    done\n"
           "}\n\n");
}

static void put_bash_answers(void)
{
    puts("# Offers the words, given one in an argument, that begin with what is there.\n"
         "_tailracectl_offer()\n"
         "{\n"
         "    local word\n"
         "    for word in \"$@\"; do\n"
         "        [[ $word == \"$current\"* ]] && COMPREPLY+=(\"${word#\"$before\"}\")\n"
         "    done\n"
         "}\n\n"
         "# Offers what the gateway knows. It holds what clients wrote: quoted, never evaluated.\n"
         "_tailracectl_ask()\n"
         "{\n"
         "    local word quoted\n"
         "    while IFS= read -r word; do\n"
         "        word=${word#\"$before\"}\n"
         "        printf -v quoted %q \"$word\"\n"
         "        COMPREPLY+=(\"$quoted\")\n"
         "    done < <(\"${COMP_WORDS[0]}\" \"${gateway[@]}\" __complete \"$1\" \"$current\" "
         "2>/dev/null)\n"
         "}\n\n"
         "_tailracectl_files()\n"
         "{\n"
         "    local word\n"
         "    while IFS= read -r word; do\n"
         "        COMPREPLY+=(\"$word\")\n"
         "    done < <(compgen -f -- \"${current#\"$before\"}\")\n"
         "    compopt -o filenames 2>/dev/null\n"
         "}\n");
}

static void put_bash(void)
{
    puts("# Completion of tailracectl for bash; made by: tailracectl completion bash\n");
    put_words_function();
    put_walk_function("1");
    put_bash_answers();
    fputs("_tailracectl()\n"
          "{\n"
          "    local line=${COMP_LINE:0:COMP_POINT} current='' before='' option='' count\n"
          "    local command group arguments IFS=$' \\t\\n'\n"
          "    local -a words gateway\n"
          "    COMPREPLY=()\n"
          "    # Whole words, as they will be read: bash itself breaks them at colons.\n"
          "    read -a words <<<\"$line\"\n"
          "    count=${#words[@]}\n"
          "    if [[ $line != *[[:space:]] ]] && ((count > 1)); then\n"
          "        count=$((count - 1))\n"
          "        current=${words[count]}\n"
          "    fi\n"
          "    # What bash takes for a word of its own, and leaves as it is.\n"
          "    [[ $COMP_WORDBREAKS == *:* && $current == *:* ]] && before=${current%:*}:\n"
          "    [[ $COMP_WORDBREAKS == *=* && $current == -*=* ]] && before=${current%%=*}=\n"
          "    _tailracectl_walk\n"
          "    option=${words[count-1]}\n"
          "    if [[ $current == --*=* ]]; then\n"
          "        option=${current%%=*} current=${current#*=} before=''\n"
          "    fi\n"
          "    case \"$option\" in\n"
          "    -c|-o|--config|--socket|--output)\n"
          "        _tailracectl_files\n"
          "        return ;;\n"
          "    ",
          stdout);
    put_patterns(has_value);
    puts(")\n"
         "        _tailracectl_offer $(_tailracectl_words \"values $option\")\n"
         "        return ;;\n"
         "    esac\n"
         "    if [[ $current == -* ]]; then\n"
         "        _tailracectl_offer $(_tailracectl_words \"options $command\") \\\n"
         "            $(_tailracectl_words options)\n"
         "    elif [[ -n $group ]]; then\n"
         "        _tailracectl_offer $(_tailracectl_words \"group $group\")\n"
         "    elif [[ -z $command || ( $command == help && $arguments == 0 ) ]]; then\n"
         "        _tailracectl_offer $(_tailracectl_words commands)\n"
         "    elif [[ $command == help ]]; then\n"
         "        _tailracectl_offer $(_tailracectl_words \"group ${words[count-1]}\")\n"
         "    elif [[ -n $(_tailracectl_words \"live $command\") ]]; then\n"
         "        _tailracectl_ask \"$(_tailracectl_words \"live $command\")\"\n"
         "    else\n"
         "        _tailracectl_offer $(_tailracectl_words \"words $command\")\n"
         "    fi\n"
         "}\n\n"
         "complete -F _tailracectl tailracectl");
}

/* --- zsh ---------------------------------------------------------------------------------------
 */

static void put_zsh_described(void)
{
    size_t i;

    puts("_tailracectl_described()\n{\n    local -a described\n    case \"$1\" in");
    puts("    '') described=(");
    for (i = 0; i < ctl_n_commands; i++) {
        const char *name = ctl_commands[i].name;
        struct str entry = STR_INIT;

        if (!begins(i))
            continue;
        str_addf(&entry, "%.*s:%s", (int)first_word(name), name,
                 second_word(name) ? "..." : ctl_commands[i].help);
        fputs("        ", stdout);
        put_help(str_c(&entry));
        putchar('\n');
        str_fini(&entry);
    }
    puts("        ) ;;");
    for (i = 0; i < ctl_n_commands; i++) {
        const char *name = ctl_commands[i].name;
        size_t k, n = first_word(name);

        if (!second_word(name) || !begins(i))
            continue;
        printf("    %.*s) described=(\n", (int)n, name);
        for (k = i; k < ctl_n_commands; k++) {
            struct str entry = STR_INIT;

            if (strncmp(ctl_commands[k].name, name, n + 1) != 0)
                continue;
            str_addf(&entry, "%s:%s", second_word(ctl_commands[k].name), ctl_commands[k].help);
            fputs("        ", stdout);
            put_help(str_c(&entry));
            putchar('\n');
            str_fini(&entry);
        }
        puts("        ) ;;");
    }
    puts("    esac\n    _describe -t commands 'command' described\n}\n");
}

static void put_zsh(void)
{
    puts("#compdef tailracectl\n"
         "# Completion of tailracectl for zsh; made by: tailracectl completion zsh\n");
    put_words_function();
    put_zsh_described();
    put_walk_function("2");
    puts("_tailracectl()\n"
         "{\n"
         "    local command group arguments count=$CURRENT option=${words[CURRENT-1]}\n"
         "    local -a gateway found\n"
         "    _tailracectl_walk\n"
         "    case \"$option\" in\n"
         "    -c|-o|--config|--socket|--output)\n"
         "        _files\n"
         "        return ;;");
    fputs("    ", stdout);
    put_patterns(has_value);
    puts(")\n"
         "        compadd -- $(_tailracectl_words \"values $option\")\n"
         "        return ;;\n"
         "    esac\n"
         "    if [[ $PREFIX == -* ]]; then\n"
         "        compadd -- $(_tailracectl_words \"options $command\") $(_tailracectl_words "
         "options)\n"
         "    elif [[ -n $group || -z $command ]]; then\n"
         "        _tailracectl_described \"$group\"\n"
         "    elif [[ $command == help ]]; then\n"
         "        ((arguments)) && group=$option\n"
         "        _tailracectl_described \"$group\"\n"
         "    elif [[ -n $(_tailracectl_words \"live $command\") ]]; then\n"
         "        found=(\"${(@f)$(tailracectl \"${gateway[@]}\" __complete \\\n"
         "            \"$(_tailracectl_words \"live $command\")\" \"${(Q)PREFIX}\" "
         "2>/dev/null)}\")\n"
         "        compadd -a found\n"
         "    else\n"
         "        compadd -- $(_tailracectl_words \"words $command\")\n"
         "    fi\n"
         "}\n\n"
         "# Loaded by the completion system, which means it to run, or sourced.\n"
         "if [[ ${funcstack[1]} == _tailracectl ]]; then\n"
         "    _tailracectl \"$@\"\n"
         "else\n"
         "    compdef _tailracectl tailracectl\n"
         "fi");
}

/* --- fish --------------------------------------------------------------------------------------
 */

static void put_fish_option(const struct ctl_option *o, const struct ctl_command *command,
                            bool files)
{
    fputs("complete -c tailracectl", stdout);
    if (command)
        printf(" -n '__tailracectl_is \"%s\"'", command->name);
    printf(" -l %s", o->name);
    if (o->letter)
        printf(" -s %c", o->letter);
    if (o->arg)
        fputs(files ? " -r -F" : " -x", stdout);
    if (o->values)
        printf(" -a '%s'", o->values);
    fputs(" -d ", stdout);
    put_help(o->help);
    putchar('\n');
}

static void put_fish_command(size_t i)
{
    const struct ctl_command *command = &ctl_commands[i];
    const char *second = second_word(command->name);
    int first = (int)first_word(command->name);
    size_t k;

    if (begins(i)) {
        printf("complete -c tailracectl -n '__tailracectl_is \"\"' -a '%.*s' -d ", first,
               command->name);
        put_help(second ? "..." : command->help);
        putchar('\n');
    }
    if (second) {
        printf("complete -c tailracectl -n '__tailracectl_is \"%.*s\"' -a '%s' -d ", first,
               command->name, second);
        put_help(command->help);
        putchar('\n');
    }
    if (fixed_words(command->live))
        printf("complete -c tailracectl -n '__tailracectl_is \"%s\"' -a '%s'\n", command->name,
               fixed_words(command->live));
    if (command->live == LIVE_COMMANDS) {
        printf("complete -c tailracectl -n '__tailracectl_is \"%s\"' -a '", command->name);
        put_first_words();
        puts("'");
    }
    if (live_name(command->live))
        printf("complete -c tailracectl -n '__tailracectl_is \"%s\"' -a "
               "'(__tailracectl_live %s)'\n",
               command->name, live_name(command->live));
    for (k = OPT_EVERYWHERE; k < OPTIONS; k++) {
        if (command->options & 1u << k)
            put_fish_option(&ctl_options[k], command, is_file(k));
    }
}

static void put_fish(void)
{
    size_t i;

    puts("# Completion of tailracectl for fish; made by: tailracectl completion fish\n");
    fputs("# The words so far that are neither options nor their values.\n"
          "function __tailracectl_plain\n"
          "    set -l skip 1\n"
          "    for word in (commandline -opc)\n"
          "        if test $skip = 1\n"
          "            set skip 0\n"
          "            continue\n"
          "        end\n"
          "        switch $word\n"
          "            case",
          stdout);
    for (i = 0; i < OPTIONS; i++) {
        if (!ctl_options[i].arg)
            continue;
        if (ctl_options[i].letter)
            printf(" -%c", ctl_options[i].letter);
        printf(" --%s", ctl_options[i].name);
    }
    puts("\n"
         "                set skip 1\n"
         "            case '-*'\n"
         "            case '*'\n"
         "                printf '%s\\n' $word\n"
         "        end\n"
         "    end\n"
         "end\n\n"
         "# Whether the command so far is this: \"\", \"dead\", \"dead list\", \"status\".\n"
         "function __tailracectl_is\n"
         "    set -l plain (__tailracectl_plain)\n"
         "    set -l wanted (string split -n ' ' -- $argv[1])\n"
         "    set -l n (count $wanted)");
    fputs("    if test $n = 0\n"
          "        test (count $plain) = 0\n"
          "        return\n"
          "    end\n"
          "    if contains -- $argv[1]",
          stdout);
    for (i = 0; i < ctl_n_commands; i++) {
        if (second_word(ctl_commands[i].name) && begins(i))
            printf(" %.*s", (int)first_word(ctl_commands[i].name), ctl_commands[i].name);
    }
    puts("\n"
         "        test (count $plain) = 1; and test \"$plain[1]\" = \"$argv[1]\"\n"
         "        return\n"
         "    end\n"
         "    test (count $plain) -ge $n; and test \"$plain[1..$n]\" = \"$wanted\"\n"
         "end\n\n"
         "function __tailracectl_live\n"
         "    set -l words (commandline -opc)\n"
         "    set -l gateway\n"
         "    for i in (seq 2 (count $words))\n"
         "        switch $words[$i]\n"
         "            case -c --config --socket\n"
         "                set -a gateway $words[$i] $words[(math $i + 1)]\n"
         "            case '--config=*' '--socket=*'\n"
         "                set -a gateway $words[$i]\n"
         "        end\n"
         "    end\n"
         "    tailracectl $gateway __complete $argv[1] (commandline -ct) 2>/dev/null\n"
         "end\n\n"
         "complete -c tailracectl -f");
    for (i = 0; i < OPT_EVERYWHERE; i++)
        put_fish_option(&ctl_options[i], NULL, is_file(i));
    for (i = 0; i < ctl_n_commands; i++)
        put_fish_command(i);
}

int ctl_run_completion(struct ctl *c, int n, char **args)
{
    (void)c;
    (void)n;
    if (strcmp(args[0], "bash") == 0)
        put_bash();
    else if (strcmp(args[0], "zsh") == 0)
        put_zsh();
    else if (strcmp(args[0], "fish") == 0)
        put_fish();
    else {
        fprintf(stderr, "tailracectl: shells are: %s\n", shells);
        return CTL_USAGE;
    }
    return CTL_OK;
}

/* --- candidates --------------------------------------------------------------------------------
 */

/* A name that is not what it looks like is nobody's to choose by its looks. */
static bool is_plain(const char *text)
{
    struct str clean = STR_INIT;
    bool plain;

    text_add_harmless(&clean, text, NULL);
    plain = strcmp(str_c(&clean), text) == 0;
    str_fini(&clean);
    return plain;
}

/* Keys that begin so; if none does, the one that has it within. */
static void put_keys(const json_t *streams, const char *prefix)
{
    const char *within = NULL;
    size_t i, n = strlen(prefix), begin = 0, hold = 0;
    json_t *s;

    json_array_foreach(streams, i, s)
    {
        const char *key = ctl_text(s, "key");

        if (!is_plain(key))
            continue;
        if (strncmp(key, prefix, n) == 0) {
            puts(key);
            begin++;
        } else if (text_has(key, prefix)) {
            within = key;
            hold++;
        }
    }
    if (begin == 0 && hold == 1)
        puts(within);
}

static void put_ids(const json_t *letters, const char *prefix)
{
    size_t i;
    json_t *letter;

    json_array_foreach(letters, i, letter)
    {
        char id[32];

        snprintf(id, sizeof(id), "%" JSON_INTEGER_FORMAT, ctl_int(letter, "id"));
        if (strncmp(id, prefix, strlen(prefix)) == 0)
            puts(id);
    }
}

int ctl_run_candidates(struct ctl *c, int n, char **args)
{
    bool streams = n == 2 && strcmp(args[0], "streams") == 0;
    struct str path = STR_INIT;
    struct ctl_answer a;
    int rc;

    if (n != 2 || (!streams && strcmp(args[0], "dead") != 0))
        return CTL_USAGE;
    alarm(PATIENCE_S); /* somebody waits at a prompt */
    str_adds(&path, streams ? "streams?state=all" : "dead");
    if (streams)
        ctl_add_arg(&path, "search", args[1]);
    ctl_add_arg(&path, "limit", "1000");
    rc = ctl_call(c, "GET", str_c(&path), &a);
    if (rc == CTL_OK && streams)
        put_keys(GET(a.json, "streams"), args[1]);
    else if (rc == CTL_OK)
        put_ids(GET(a.json, "letters"), args[1]);
    ctl_answer_fini(&a);
    str_fini(&path);
    return rc;
}
