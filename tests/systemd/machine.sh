#!/bin/bash
# Becomes the first process of a machine in namespaces of its own (mount, pid, uts, ipc, cgroup; the
# network is the caller's): Debian's systemd, on this system's files with a layer over them that is
# lost at the end, with as few units as the gateway's need.
#   machine.sh DIRECTORY CONSOLE: an empty directory to mount on, a terminal for what systemd says
set -e
dir=$1 console=$2 root=$1/root
mount --make-rprivate /
mount -t tmpfs -o mode=755 layer "$dir"
mkdir "$dir/upper" "$dir/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" machine "$root"

# As in a container: of the kernel nothing can be set from in here.
mount -t proc proc "$root/proc"
mount -o bind,ro "$root/proc/sys" "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for place in run tmp etc/systemd/system usr/lib/systemd/system; do
    mkdir -p "$root/$place"
    mount -t tmpfs -o mode=755 tmpfs "$root/$place"
done
chmod 1777 "$root/tmp"
mount -t tmpfs -o mode=755,nosuid dev "$root/dev"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<DEVICES
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
DEVICES
mkdir -m 1777 "$root/dev/shm"
mkdir "$root/dev/pts" "$root/dev/mqueue" "$root/dev/hugepages"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
touch "$root/dev/console"
mount --bind "$console" "$root/dev/console"

units=$root/usr/lib/systemd/system
for name in sysinit basic multi-user sockets paths timers slices local-fs network network-online nss-lookup \
    shutdown umount exit; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$name" >"$units/$name.target"
done

cd "$root"
mkdir -p before
pivot_root . before
umount -l /before
mount --make-rshared /      # as a system's is: credentials are mounted in one namespace and seen in the next
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=other SYSTEMD_GENERATOR_PATH=/nowhere \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --log-level=info --show-status=no \
    </dev/null >/dev/null 2>&1
