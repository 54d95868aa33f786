/*
 * Load a configuration file (YAML) into the caller's struct, as its rows say.
 *
 * The dialect is small on purpose: mappings, lists and scalars, whose types come from the rows and
 * never from YAML ("no" is a text, 010 is ten). Anchors, aliases, tags and second documents are
 * refused; so are duplicate keys, also between files. In every scalar `${NAME}` stands for an
 * environment variable, which must be set, and `$$` for a dollar sign. `include: FILE` or a list of
 * them, at the top of a file, reads further files, relative to it; what they say is merged.
 *
 * All errors are found in one go, up to CONF_ERRORS_MAX. Each is one line:
 *
 *     FILE:LINE: harness.upload-logs: "follw": use follow, googleapis or harness
 *
 * Values are shown as they are spelled in the file, never with variables expanded.
 */
#ifndef TR_CONF_LOAD_H
#define TR_CONF_LOAD_H

#include <stdio.h>
#include "base/attrs.h"
#include "base/view.h"
#include "conf/rows.h"

/* Limits: a configuration is trusted, but a wrong file given by mistake must not hang the program
 * or fill its memory. */
enum {
    CONF_ERRORS_MAX = 20,
    CONF_FILE_BYTES = 1 << 20,
    CONF_FILES_MAX = 64,
    CONF_INCLUDE_DEPTH = 8,
    CONF_DEPTH_MAX = 16,
    CONF_NODES_MAX = 20000,
    CONF_LIST_MAX = 4096,
};

/* What was wrong, sorted by file (in the order they were read) and line. */
struct conf_errors {
    size_t n;
    char *lines[CONF_ERRORS_MAX]; /* without a newline */
    size_t more;                  /* errors beyond those */
    unsigned long order[CONF_ERRORS_MAX];
};

#define CONF_ERRORS_INIT ((struct conf_errors){0})
void conf_errors_fini(struct conf_errors *errors);

/* One line each, and "... and N more errors". */
void conf_errors_print(const struct conf_errors *errors, FILE *out);

/*
 * Fill `config` (spec->size bytes, contents ignored) from the file at `path`. 0: every option has
 * its value or its default; the caller owns it and gives it back with conf_clear. -1: `errors`
 * (initialised by the caller) says why, and `config` is all zero. Reads files; any thread.
 */
int conf_load(const char *path, const struct conf_spec *spec, void *config,
              struct conf_errors *errors) TR_MUST_USE;

/* For who only needs to find something in a file that is being worked on: `config` has what is
 * right in it, and defaults for the rest; spec->check is not made. Errors are noted as above.
 * False, and `config` all zero: the file cannot be read. The caller gives it back with conf_clear.
 */
bool conf_load_anyway(const char *path, const struct conf_spec *spec, void *config,
                      struct conf_errors *errors);

/* The same as conf_load for text in memory. `name` stands for the file in errors; relative paths
 * and includes start at `directory`, which is absolute. */
int conf_load_text(const char *name, const char *directory, struct view text,
                   const struct conf_spec *spec, void *config,
                   struct conf_errors *errors) TR_MUST_USE;

/* Free what the rows own and zero the struct. All zero is fine. */
void conf_clear(const struct conf_spec *spec, void *config);

/* For spec->check: report at the line where `path` was given, or the nearest thing around it. */
void conf_complain(struct conf_check *check, const char *path, const char *fmt, ...)
    TR_PRINTF(3, 4);

/* For spec->check: a file gave it; it is not the default. */
bool conf_given(const struct conf_check *check, const char *path);

#endif
