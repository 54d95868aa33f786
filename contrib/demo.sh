#!/bin/bash
# tailrace at work, on this machine alone: builds it, puts it in front of a stand-in Harness on loopback, and
# ships the output of that very build as the logs of 120 concurrent steps, with upstream cut off in the middle.
#
#   contrib/demo.sh [--keep] [--steps N] [--seconds N] [--outage N]
#
#   --keep       leave tailrace and the stand-in running, and say where
#   --steps N    concurrent steps (120)
#   --seconds N  how long they print (40)
#   --outage N   seconds without upstream (10)
#
# Needs Debian 12; installs missing packages (as root; else it prints the command and exits 1). Everything it
# makes is in build/demo. The last line is `demo: N lines in, N stored, 0 lost`, and it exits 0 only when that is true.
set -u
cd "$(dirname "$0")/.." || exit 2
TOP=$PWD
DIR=$TOP/build/demo
OPTIONS=()
PYTHON=${PYTHON:-/usr/bin/python3}
BEGUN=$SECONDS
DRIVER=

while [ $# -gt 0 ]; do
    case $1 in
    --keep) OPTIONS+=("$1") ;;
    --steps|--seconds|--outage)
        [[ ${2:-} =~ ^[0-9]+$ ]] || { echo "$0: $1 needs a number" >&2; exit 2; }
        OPTIONS+=("$1" "$2"); shift ;;
    -h|--help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "$0: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done

say() { printf 'demo: %s\n' "$*"; }

# Ends the processes whose pids are in a file that the driver left (it removes run/pids when it has ended them itself).
end_those_in() {
    local pid
    [ -f "$1" ] || return 0
    while read -r pid; do
        # Only what is still ours: pids are used again.
        grep -qaE 'tailrace|standin' "/proc/$pid/cmdline" 2>/dev/null && kill "$pid" 2>/dev/null
    done <"$1"
    rm -f "$1"
}

interrupted() {
    trap '' INT TERM
    if [ -n "$DRIVER" ]; then
        kill -TERM "$DRIVER" 2>/dev/null
        wait "$DRIVER" 2>/dev/null
    fi
    end_those_in "$DIR/run/pids"
    exit 130
}

build() { # the whole build, its output into build.log
    local configure=("$TOP/configure" CFLAGS="-O2 -g")
    {
        echo '$ ./autogen.sh' && ./autogen.sh &&
        echo '$ ./configure' && cd "$DIR/obj" && "${configure[@]}" &&
        echo '$ make V=1' && make V=1 -j"$(nproc)" all &&
        echo '$ make V=1 check TESTS=' && make V=1 -j"$(nproc)" check TESTS=
    } >"$DIR/build.log" 2>&1 </dev/null
}

tests/deps.sh install demo || exit 1
end_those_in "$DIR/run/kept"            # of an earlier --keep
mkdir -p "$DIR" && rm -rf "$DIR/obj" && mkdir "$DIR/obj" || exit 1
say "building in build/demo ..."
if ! (build); then
    tail -n 40 "$DIR/build.log"
    say "the build failed; all of its output is in build/demo/build.log"
    exit 1
fi
say "built in $((SECONDS - BEGUN)) s; its output is what the steps will print"

trap interrupted INT TERM
export PYTHONDONTWRITEBYTECODE=1
"$PYTHON" contrib/demo/drive.py --tailrace "$DIR/obj/tailrace" --text "$DIR/build.log" --directory "$DIR/run" \
    ${OPTIONS[@]+"${OPTIONS[@]}"} &
DRIVER=$!
wait "$DRIVER"
STATUS=$?
trap - INT TERM
end_those_in "$DIR/run/pids"
exit $STATUS
