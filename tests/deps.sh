#!/bin/bash
# Debian packages that building, the demo and the tests need, and nothing else.
#
#   tests/deps.sh list    SET     prints the packages of SET
#   tests/deps.sh missing SET     prints those that are not installed
#   tests/deps.sh install SET     installs those; without root it prints the command and exits 1
#
# SET is build, package or demo (build included), test (all of these included) or bench (more peers to compare with).
# Nothing is started: a service that comes with a package (nginx, haproxy) is only there to be run by a test, on a port of
# its own, as a plain process.
set -u

build="autoconf automake make gcc libc6-dev pkg-config xz-utils python3
    libevent-dev libssl-dev libnghttp2-dev libcurl4-openssl-dev libzstd-dev zlib1g-dev
    libjansson-dev libsqlite3-dev libc-ares-dev libyaml-dev libxxhash-dev libidn2-dev libcrypt-dev libcmocka-dev ca-certificates"
package="debhelper fakeroot"
demo="python3-h2 python3-wsproto python3-websockets python3-cryptography python3-zstandard"
test="clang clang-tidy clang-tools cppcheck libclang-rt-14-dev llvm curl nghttp2-client nginx haproxy sqlite3 zstd procps git patch
    python3-pytest python3-pytest-xdist python3-h11 python3-yaml python3-crcmod python3-grpcio
    iproute2 postgresql-15 postgresql-client-15 squid-openssl systemd libseccomp2 chromium
    lintian rpm prometheus python3-jsonschema systemd-container logrotate mandoc man-db zsh fish"
bench="nghttp2-proxy syslog-ng-core"

packages_of() {
    case $1 in
    build) echo $build ;;
    package) echo $build $package ;;
    demo) echo $build $demo ;;
    test) echo $build $package $demo $test ;;
    bench) echo $build $package $demo $test $bench ;;
    *) echo "$0: no set named '$1': use build, package, demo, test or bench" >&2; exit 2 ;;
    esac
}

missing_of() {
    local package
    for package in $(packages_of "$1"); do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# Debian asks this file before it starts a service; 101 means no.
POLICY=/usr/sbin/policy-rc.d

install_of() {
    local missing made= status
    missing=$(missing_of "$1" | tr '\n' ' ')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "These Debian packages are missing. As root:" >&2
        echo "    apt-get install --no-install-recommends $missing" >&2
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    if [ ! -e $POLICY ]; then
        printf '#!/bin/sh\nexit 101\n' >$POLICY && chmod 755 $POLICY && made=1
        trap 'rm -f $POLICY' EXIT
    fi
    echo "installing $missing"
    apt-get update -q && apt-get install -q -y --no-install-recommends $missing </dev/null
    status=$?
    [ -z "$made" ] || rm -f $POLICY
    return $status
}

if ! command -v dpkg-query >/dev/null; then
    echo "$0: this is no Debian system; install the counterparts of: $(packages_of "${2:-build}")" >&2
    exit 1
fi
case ${1:-} in
list) packages_of "${2:-build}" | tr ' ' '\n' ;;
missing) missing_of "${2:-build}" ;;
install) install_of "${2:-build}" ;;
*) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
