#!/bin/bash
# Installs what is missing (Debian packages, as root), builds, and runs every test there is.
#
#   tests/run.sh [--quick] [--no-install] [--build DIR]
#
#   --quick       plain build, `make check` and the integration tests only
#   --no-install  leave packages alone
#   --build DIR   where to build (default: build/tests in the source tree)
#
# OUTAGE_SECONDS, KILLS, IMAGES and SOAK_SECONDS say how long the long checks run (60, 8, 200 and 30). The last line is
# `N passed, N failed`; the exit status is 0 only when nothing failed. Output of each step is in DIR/log.
set -u
cd "$(dirname "$0")/.." || exit 2
TOP=$PWD
BUILD=$TOP/build/tests
QUICK= INSTALL=1
OUTAGE_SECONDS=${OUTAGE_SECONDS:-60}
KILLS=${KILLS:-8}
IMAGES=${IMAGES:-200}
SOAK_SECONDS=${SOAK_SECONDS:-30}
PYTHON=${PYTHON:-/usr/bin/python3}
JOBS=$(nproc)

while [ $# -gt 0 ]; do
    case $1 in
    --quick) QUICK=1 ;;
    --no-install) INSTALL= ;;
    --build) [ $# -gt 1 ] || { echo "$0: --build needs a directory" >&2; exit 2; }
        shift; mkdir -p "$1" && BUILD=$(cd "$1" && pwd) || exit 2 ;;
    -h|--help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "$0: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done

export PYTHONDONTWRITEBYTECODE=1
unset MAKEFLAGS MFLAGS TAILRACE
LOG=$BUILD/log
rm -rf "$LOG"
mkdir -p "$LOG"
BEGUN=$SECONDS

say() { printf '%4ds  %s\n' $((SECONDS - BEGUN)) "$*"; }

count() {   # count NAME PASSED FAILED
    echo "$2 $3" >>"$LOG/counts"    # a file: some of the steps run beside others
    say "$1: $2 passed, $3 failed"
}

show() {    # show NAME [LINES]: the end of a step's output
    echo "--- last lines of $LOG/$1.log"
    tail -n "${2:-60}" "$LOG/$1.log" | cut -c1-400
    echo "---"
}

quietly() { # quietly NAME LIMIT COMMAND...: its output into the log; status of the command
    local name=$1 limit=$2
    shift 2
    timeout --kill-after=20 "$limit" "$@" >"$LOG/$name.log" 2>&1 </dev/null
}

must() {    # must NAME LIMIT COMMAND...: a step that is no test; one that fails counts as a failure
    say "$1 ..."
    quietly "$@" && return 0
    show "$1"
    count "$1" 0 1
    return 1
}

finish() {
    local passed failed
    read -r passed failed < <(awk '{ p += $1; f += $2 } END { print p + 0, f + 0 }' "$LOG/counts")
    say "all done; logs in $LOG"
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
    exit
}

# --- the kinds of tests ---------------------------------------------------------------------------

# Sums up what `make check` left: a cmocka program counts with its tests, anything else as one.
make_check() { # make_check NAME BUILDDIR LIMIT [MAKE ARGUMENTS]
    local name=$1 dir=$2 limit=$3 status trs log result ok bad passed=0 failed=0
    shift 3
    say "$name ..."
    find "$dir" -name '*.trs' -delete
    quietly "$name" "$limit" make -C "$dir" -k -j"$JOBS" check "$@"
    status=$?
    if [ $status != 0 ]; then
        # Once more, alone: a test that fails only beside others on a busy machine is named, and counts as passed.
        say "$name: again, one at a time: $(grep -hoE '^(FAIL|ERROR): [^ ]*' "$LOG/$name.log" | sort -u | tr '\n' ' ')"
        quietly "$name-again" "$limit" make -C "$dir" -k -j1 recheck "$@"
        status=$?
    fi
    while IFS= read -r trs; do
        log=${trs%.trs}.log
        result=$(sed -n 's/^:test-result: *//p' "$trs" | head -n 1)
        ok=$(sum_of 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log")
        bad=$(sum_of 's/^ *\([0-9]*\) FAILED TEST.*/\1/p' "$log")
        case $result in
        PASS*|XFAIL*) [ "$ok" -gt 0 ] || ok=1 ;;
        SKIP*) ok=0 bad=0 ;;
        *)  [ "$bad" -gt 0 ] || bad=1
            echo "--- $result: $log"; tail -n 60 "$log" | cut -c1-400; echo "---" ;;
        esac
        passed=$((passed + ok)) failed=$((failed + bad))
    done < <(find "$dir" -name '*.trs' | sort)
    if [ $status != 0 ] && [ "$failed" = 0 ]; then
        show "$name"
        failed=1
    fi
    count "$name" "$passed" "$failed"
}

sum_of() { sed -n "$1" "$2" | awk '{ n += $1 } END { print n + 0 }'; }

pytest_totals() { # pytest_totals LOGFILE STATUS -> "PASSED FAILED"
    local line passed failed errors
    line=$(grep -E '^(=+ )?[0-9]+ (passed|failed|error|skipped|xfailed).* in [0-9.]+s' "$1" | tail -n 1)
    passed=$(grep -oE '[0-9]+ (passed|xfailed)' <<<"$line" | awk '{ n += $1 } END { print n + 0 }')
    failed=$(grep -oE '[0-9]+ (failed|xpassed)' <<<"$line" | awk '{ n += $1 } END { print n + 0 }')
    errors=$(grep -oE '[0-9]+ errors?' <<<"$line" | awk '{ n += $1 } END { print n + 0 }')
    failed=$((failed + errors))
    # An exit status that no counted failure explains (a crash, a time limit, nothing collected) is a failure.
    [ "$2" = 0 ] || [ "$failed" -gt 0 ] || failed=1
    echo "$passed $failed"
}

run_pytest() { # run_pytest NAME LIMIT BINARY ARGUMENTS...
    local name=$1 limit=$2 binary=$3 status totals
    local at_once=$((JOBS * 3)) # they wait more than they work
    shift 3
    [ "$JOBS" = 1 ] && at_once=1
    say "$name ..."
    TAILRACE=$binary quietly "$name" "$limit" "$PYTHON" -m pytest -q -o cache_dir="$BUILD/cache-$name" -n "$at_once" "$@"
    status=$?
    totals=$(pytest_totals "$LOG/$name.log" $status)
    if [ $status = 1 ]; then
        # As above: what fails beside others is tried once more alone, and named.
        say "$name: again, one at a time: $(grep -oE '^(FAILED|ERROR) [^ ]*' "$LOG/$name.log" | sort -u | tr '\n' ' ')"
        show "$name" 60
        TAILRACE=$binary quietly "$name-again" "$limit" "$PYTHON" -m pytest -q -o cache_dir="$BUILD/cache-$name" --lf "$@"
        status=$?
        name=$name-again
        totals="$(( ${totals% *} + $(pytest_totals "$LOG/$name.log" $status | cut -d' ' -f1) )) $(
            pytest_totals "$LOG/$name.log" $status | cut -d' ' -f2)"
    fi
    [ $status = 0 ] || show "$name" 150
    count "$name" $totals
    grep -E '^SKIPPED ' "$LOG/$name.log" | cut -c1-200
}

# A check of its own behind a make target: one test, or as many as its last line `N passed, N failed` says.
named_check() { # named_check TARGET LIMIT [MAKE ARGUMENTS]
    local target=$1 limit=$2 status last
    shift 2
    if ! make -C "$BUILD/plain" -n "$target" >/dev/null 2>&1; then
        say "$target: no such target here, skipped"
        return 0
    fi
    say "$target ..."
    quietly "$target" "$limit" make -C "$BUILD/plain" --no-print-directory "$target" "$@"
    status=$?
    last=$(grep -v '^make' "$LOG/$target.log" | tail -n 1)
    say "$target: $last"
    [ $status = 0 ] || show "$target" 100
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        local passed=${BASH_REMATCH[1]} failed=${BASH_REMATCH[2]}
        [ $status = 0 ] || [ "$failed" -gt 0 ] || failed=1
        count "$target" "$passed" "$failed"
    elif [ $status = 0 ]; then
        count "$target" 1 0
    else
        count "$target" 0 1
    fi
}

build() { # build NAME CONFIGURE-ARGUMENTS...: configures and builds everything, tests included
    local name=$1
    shift
    rm -rf "${BUILD:?}/$name"
    mkdir -p "$BUILD/$name"
    must "configure-$name" 300 env -C "$BUILD/$name" "$TOP/configure" "$@" || return 1
    must "build-$name" 1200 make -C "$BUILD/$name" -j"$JOBS" all
}

# --- the run ----------------------------------------------------------------------------------------

if [ -n "$INSTALL" ]; then
    must packages 1200 tests/deps.sh install test || finish
fi
must autogen 300 ./autogen.sh || finish

build plain --prefix=/usr --sysconfdir=/etc --enable-werror --enable-fault-points CFLAGS="-O2 -g" || finish
rm -rf "$BUILD/root"
must install 120 make -C "$BUILD/plain" install DESTDIR="$BUILD/root" || finish
INSTALLED=$BUILD/root/usr/sbin/tailrace
export TAILRACE_BUILD=$BUILD/plain     # what tests of the documentation ask for the targets of make

if [ -n "$QUICK" ]; then
    make_check check "$BUILD/plain" 900
    run_pytest standin 600 "$INSTALLED" tests/standin
    run_pytest integration 1500 "$INSTALLED" tests/integration
    JOBS=1 run_pytest network 400 "$INSTALLED" -rs tests/network
    JOBS=1 run_pytest systemd 200 "$INSTALLED" -rs tests/systemd
    run_pytest docs 300 "$INSTALLED" tests/docs
    JOBS=1 run_pytest page 200 "$INSTALLED" tests/page
    finish
fi

# Reports of the sanitizers reach a gateway's log, where the tests look for them.
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=second_deadlock_stack=1:history_size=4:suppressions=$TOP/tests/tsan.supp

# Two things at a time: tests of a running gateway wait more than they work, unit tests and compilers work.
plain_tests() {
    run_pytest standin 600 "$INSTALLED" tests/standin
    run_pytest integration 1500 "$INSTALLED" tests/integration
}
plain_tests &
plain=$!
build asan --prefix=/usr --enable-werror --enable-fault-points --with-sanitizer=address,undefined CFLAGS="-O1 -g"
build tsan --prefix=/usr --enable-werror --enable-fault-points --with-sanitizer=thread CFLAGS="-O1 -g"

# The explorer sees every state in the plain build; elsewhere a part of them shows what there is to see.
A_PART='short step*'
working_tests() {
    make_check check "$BUILD/plain" 900
    EXPLORE_ONLY=$A_PART make_check check-asan "$BUILD/asan" 1200
    EXPLORE_ONLY=$A_PART make_check check-tsan "$BUILD/tsan" 1200
    named_check analyze 900
    named_check check-break 1800
}
waiting_tests() {
    SLOW=2 run_pytest integration-asan 2400 "$BUILD/asan/tailrace" tests/integration -m "not once"
    # Not with the thread sanitizer: what starts the program inside a sandbox, which it cannot, and takeovers and
    # budgets, which run out of time at its pace.
    SLOW=4 run_pytest integration-tsan 2400 "$BUILD/tsan/tailrace" tests/integration -m "not once and not upgrade" \
        --ignore tests/integration/test_sandbox.py --ignore tests/integration/test_takeover.py \
        --ignore tests/integration/test_overload.py
    run_pytest docs 300 "$INSTALLED" tests/docs
    JOBS=1 run_pytest page 300 "$INSTALLED" tests/page
    JOBS=1 run_pytest packages 600 "$INSTALLED" -rs tests/packages
    # What the compiler makes of the sources is seen above; here it is to be quick.
    if EXPLORE_ONLY=$A_PART must distcheck 1800 make -C "$BUILD/plain" -j"$JOBS" distcheck \
        DISTCHECK_CONFIGURE_FLAGS=CFLAGS=-O0; then
        count distcheck 1 0
    fi
}
working_tests &
wait $plain
waiting_tests
wait

# These wait for time-outs most of the time, their own or a service's.
quiet_tests() {
    JOBS=1 run_pytest network 400 "$INSTALLED" -rs tests/network   # needs root; says what it skips otherwise
    JOBS=1 run_pytest systemd 200 "$INSTALLED" -rs tests/systemd   # so does this
    named_check check-crash 900 KILLS="$KILLS"
}
quiet_tests &
named_check check-faults 600
named_check check-power 300 IMAGES="$IMAGES"
if must demo 600 contrib/demo.sh --seconds 15 --outage 4; then
    say "$(tail -n 1 "$LOG/demo.log")"
    count demo 1 0
fi
wait

# Alone, since they look at the clock, or at memory over time.
named_check check-outage 600 SECONDS="$OUTAGE_SECONDS"
named_check check-soak 1200 SECONDS="$SOAK_SECONDS"
finish
