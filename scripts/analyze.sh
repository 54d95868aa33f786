#!/bin/bash
# Static analysis of src: clang-tidy (with the engine of scan-build) and cppcheck, in a build directory that is configured
# (for config.h): analyze.sh SOURCE BUILD JOBS [FILE...]. FILE: as src/base/str.c; all when there is none.
#
# NODES: how many states of one function the engine looks at before it leaves it. With 60000 it finds all of the 29 places
# that it named in these sources before the first of them was mended, in a third of the time that its own 225000 take.
#
# What is found is mended, or suppressed at its line with the reason: `// NOLINT(check): why`, or for cppcheck
# `// cppcheck-suppress id ; why`. The last line is `analyze: N files, N findings`.
set -u
source=$1 build=$2 jobs=$3
shift 3
for tool in clang-tidy cppcheck; do
    command -v $tool >/dev/null || { echo "$tool is not here: tests/deps.sh install test" >&2; exit 77; }
done
cd "$source" || exit 2
if [ $# -gt 0 ]; then files=$(printf '%s\n' "$@"); else files=$(find src -name '*.c' | sort); fi
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
cat >"$work/macros.cfg" <<'END'
<?xml version="1.0"?>
<def format="2">
  <define name="json_array_foreach(a, i, v)" value="for (i = 0; i &lt; json_array_size(a) &amp;&amp; (v = json_array_get(a, i)); i++)"/>
  <define name="json_object_foreach(o, k, v)" value="for (k = json_next(o, 0); k &amp;&amp; (v = json_value(o, k)); k = json_next(o, k))"/>
</def>
END
export FLAGS="-std=gnu11 -Isrc -I$build -D_GNU_SOURCE -DHAVE_CONFIG_H -Wno-unknown-warning-option \
    -Xclang -analyzer-config -Xclang max-nodes=${NODES:-60000}"

# One file in a process: several in one confuse its checks of va_list.
xargs -P "$jobs" -I{} sh -c 'clang-tidy --quiet "$1" -- $FLAGS 2>/dev/null' - {} <<<"$files" >"$work/tidy"
cppcheck --quiet -j "$jobs" --std=c11 --enable=warning,performance,portability --inline-suppr \
    --library="$work/macros.cfg" -Isrc -D_GNU_SOURCE \
    --template='{file}:{line}:{column}: {severity}: {message} [{id}]' $files >/dev/null 2>"$work/cppcheck"

# The way to a finding is long: it is shown for FILE only.
mark='^[^ ]+:[0-9]+:[0-9]+: (warning|error|performance|portability)'
sed -i "s#$PWD/##" "$work/tidy"
if [ $# -gt 0 ]; then cat "$work/tidy"; else grep -E "$mark" "$work/tidy" | sort -u; fi
cat "$work/cppcheck"
# A header's finding is told once for each file that includes it.
findings=$(grep -hE "$mark" "$work/tidy" "$work/cppcheck" | sort -u | wc -l)
echo "analyze: $(wc -l <<<"$files") files, $findings findings"
[ "$findings" = 0 ]
