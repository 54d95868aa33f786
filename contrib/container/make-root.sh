#!/bin/sh
# Makes the root of a container image out of an installed tailrace and this Debian system: the two
# programs, the libraries that they are linked with, the authorities' certificates, a user. No shell, no
# package manager, nothing that could be run besides.
#
#   make-root.sh INSTALLED ROOT
#
# INSTALLED is where `make install DESTDIR=INSTALLED` went (or / for an installed package); ROOT is made.
set -eu

[ $# = 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
from=${1%/} root=$2
[ -x "$from/usr/sbin/tailrace" ] || { echo "$0: no $from/usr/sbin/tailrace" >&2; exit 1; }
[ ! -e "$root" ] || { echo "$0: $root is there already" >&2; exit 1; }

umask 022
mkdir -p "$root/usr/sbin" "$root/etc/ssl/certs" "$root/etc/tailrace" "$root/var/lib/tailrace" \
    "$root/run" "$root/proc" "$root/dev" "$root/sys" "$root/usr/share/doc"
mkdir -m 1777 "$root/tmp"

for program in tailrace tailracectl; do
    install -m 755 "$from/usr/sbin/$program" "$root/usr/sbin/$program"
done

# What the loader loads, and the loader, at the paths where it looks for them.
ldd "$root/usr/sbin/tailrace" "$root/usr/sbin/tailracectl" |
    sed -n 's/^[[:space:]]*\(.* => \)\{0,1\}\(\/[^ ]*\) (0x.*/\2/p' | sort -u |
    while read -r library; do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
        # The licences of what is passed on.
        package=$(dpkg-query -S "$library" "/usr$library" 2>/dev/null | sed -n '1s/[:,].*//p') || true
        if [ -n "$package" ] && [ -e "/usr/share/doc/$package/copyright" ]; then
            mkdir -p "$root/usr/share/doc/$package"
            cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/"
        fi
    done

cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'root:x:0:0::/:/nologin\ntailrace:x:65532:65532::/var/lib/tailrace:/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\ntailrace:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
chmod 700 "$root/var/lib/tailrace"
[ "$(id -u)" != 0 ] || chown 65532:65532 "$root/var/lib/tailrace"
