#!/bin/bash
# Build the fuzz targets with libFuzzer and sanitizers, and run each for a while: fuzz.sh SOURCE BUILD SECONDS.
# The last line is `fuzz: N targets, N findings`.
set -u
source=$1 build=$2 seconds=$3
mkdir -p "$build" && cd "$build" || exit 2
if [ ! -f Makefile ]; then
    "$source/configure" CC=clang CFLAGS="-O1 -g" --enable-fuzzing --with-sanitizer=address,undefined >configure.log 2>&1 ||
        { tail -n 20 configure.log; exit 2; }
fi
targets=$(cd "$source" && for f in tests/fuzz/fuzz_*.c; do echo "${f%.c}"; done)
make -j"$(nproc)" $targets >build.log 2>&1 || { tail -n 20 build.log; exit 2; }
n=0 findings=0
for target in $targets; do
    name=${target##*/}
    mkdir -p "new/$name" "findings/$name"
    if "./$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="findings/$name/" \
        "new/$name" "$source/tests/fuzz/corpus/$name" >"$name.log" 2>&1; then
        echo "$name: nothing found; $(grep -c . < <(ls "new/$name")) new inputs"
    else
        echo "$name: a finding in $build/findings/$name; last lines of $name.log:"
        tail -n 15 "$name.log"
        findings=$((findings + 1))
    fi
    n=$((n + 1))
done
echo "fuzz: $n targets, $findings findings"
[ "$findings" = 0 ]
