#!/bin/bash
# A whole build under clang's static analyzer: scan-build.sh SOURCE BUILD JOBS. The build directory is made anew. The
# last line is `scan-build: N findings`; reports of findings are in BUILD/report.
set -u
source=$1 build=$2 jobs=$3
scan=$(command -v scan-build || command -v scan-build-14) ||
    { echo "scan-build is not here: tests/deps.sh install test" >&2; exit 77; }
rm -rf "$build"
mkdir -p "$build/report" && cd "$build" || exit 2
"$scan" --use-cc=clang "$source/configure" --disable-dependency-tracking >configure.log 2>&1 ||
    { tail -n 20 configure.log; exit 2; }
"$scan" --use-cc=clang -o report --status-bugs make -j"$jobs" >build.log 2>&1
status=$?
grep -E ' warning: ' build.log | sort -u
findings=$(grep -cE ' warning: ' < <(sort -u build.log))
[ "$status" = 0 ] || [ "$findings" -gt 0 ] || { tail -n 20 build.log; findings=1; }
echo "scan-build: $findings findings"
[ "$findings" = 0 ]
