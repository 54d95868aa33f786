#!/bin/bash
# Build the fuzz targets with libFuzzer and sanitizers, and run each for a while, several at once:
# fuzz.sh SOURCE BUILD SECONDS JOBS [TARGET...]. TARGET: as conf or fuzz_conf; all when there is none.
# The last line is `fuzz: N targets, N findings`.
set -u
source=$1 build=$2 seconds=$3 jobs=$4
shift 4
mkdir -p "$build" && cd "$build" || exit 2
if [ ! -f Makefile ]; then
    "$source/configure" CC=clang CFLAGS="-O1 -g" --enable-fuzzing --with-sanitizer=address,undefined >configure.log 2>&1 ||
        { tail -n 20 configure.log; exit 2; }
fi
if [ $# -gt 0 ]; then
    targets=$(for name; do echo "tests/fuzz/fuzz_${name#fuzz_}"; done)
else
    targets=$(cd "$source" && for f in tests/fuzz/fuzz_*.c; do echo "${f%.c}"; done)
fi
make -j"$(nproc)" $targets >build.log 2>&1 || { tail -n 20 build.log; exit 2; }

# Standard output of a target goes where its findings do: some of what is fuzzed speaks.
one() {
    local target=$1 name=${1##*/}
    mkdir -p "new/$name" "findings/$name"
    rm -f "$name.ok"
    if "./$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="findings/$name/" \
        "new/$name" "$source/tests/fuzz/corpus/$name" >"$name.log" 2>&1 </dev/null; then
        touch "$name.ok"
        echo "$name: nothing found; $(grep -oE '^Done [0-9]+ runs' "$name.log" | cut -d' ' -f2) runs," \
            "$(find "new/$name" -type f | grep -c .) new inputs"
    else
        echo "$name: a finding in $build/findings/$name; last lines of $name.log:"
        tail -n 15 "$name.log" | cut -c1-400
    fi
}

export UBSAN_OPTIONS=print_stacktrace=1
n=0 running=0 findings=0
for target in $targets; do
    if [ "$running" -ge "$jobs" ]; then
        wait -n
        running=$((running - 1))
    fi
    one "$target" &
    running=$((running + 1)) n=$((n + 1))
done
wait
for target in $targets; do
    [ -e "${target##*/}.ok" ] || findings=$((findings + 1))
done
echo "fuzz: $n targets, $findings findings"
[ "$findings" = 0 ]
