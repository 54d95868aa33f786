#!/bin/sh
# Run every fuzz target over the inputs that are kept for it. For make check: the directory is that
# of the build, and $srcdir that of the sources.
top=${srcdir:-.}
status=0
runs=0
for program in tests/fuzz/fuzz_*; do
    case $program in
    *.*) continue ;;
    esac
    [ -x "$program" ] || continue
    name=${program##*/}
    corpus=$top/tests/fuzz/corpus/$name
    if [ ! -d "$corpus" ]; then
        echo "$name: no inputs in $corpus" >&2
        status=1
        continue
    fi
    "./$program" "$corpus" || status=1
    runs=$((runs + 1))
done
[ "$runs" -gt 0 ] || { echo "no fuzz target was built" >&2; exit 99; }
exit $status
