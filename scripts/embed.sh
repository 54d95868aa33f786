#!/bin/sh
# embed.sh FILE...: write a C source with these files as struct site_file (src/admin/site.h).
set -eu

printf '/* Made by scripts/embed.sh; not to be changed. */\n#include "admin/site.h"\n\n'
i=0
for file; do
    printf 'static const unsigned char file_%d[] = {\n' "$i"
    od -An -v -tu1 "$file" | sed 's/^ *//; s/  */,/g; s/$/,/'
    printf '};\n\n'
    i=$((i + 1))
done
printf 'const struct site_file site_files[] = {\n'
i=0
for file; do
    printf '    {"%s", file_%d, sizeof(file_%d)},\n' "$(basename "$file")" "$i" "$i"
    i=$((i + 1))
done
printf '    {0},\n};\n'
