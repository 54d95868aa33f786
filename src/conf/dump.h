/* What can be told about a loaded configuration and about the options there are. */
#ifndef TR_CONF_DUMP_H
#define TR_CONF_DUMP_H

#include <stdio.h>
#include "base/str.h"
#include "conf/rows.h"

/* Write the effective configuration as YAML: defaults filled in, includes merged, variables
 * expanded, paths absolute. Loading that gives the same configuration, and dumping it again the
 * same text. Options without a value are left out. */
void conf_dump(const struct conf_spec *spec, const void *config, FILE *out);
void conf_dump_text(const struct conf_spec *spec, const void *config,
                    struct str *out); /* appends */

/* Write every option with its sentence, type, limits and default: the reference of the manual, as
 * an annotated YAML skeleton. */
void conf_describe(const struct conf_spec *spec, FILE *out);

/* Called for each path that is given or a default. */
typedef void (*conf_path_fn)(void *ctx, const char *setting, enum conf_use use, const char *path);
void conf_each_path(const struct conf_spec *spec, const void *config, conf_path_fn fn, void *ctx);

/* Called for each option that differs between two configurations; items of a section that came or
 * went are reported by the path of the item. */
typedef void (*conf_changed_fn)(void *ctx, const char *path, bool reloadable);

/* Compare. Returns how many differ; `fn` may be NULL. */
size_t conf_compare(const struct conf_spec *spec, const void *old_config, const void *new_config,
                    conf_changed_fn fn, void *ctx);

#endif
