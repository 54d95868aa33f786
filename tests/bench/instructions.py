#!/usr/bin/python3
"""Instructions in user space for each PUT, by callgrind: a figure that other work on the machine hardly changes.

    BUILD=<build directory> instructions.py [--total 3000] [--keys 8] [--tls] [--sealed] [--top 30] [--keep DIRECTORY]

Groups and deliveries are not those of a fast machine, as everything is fifty times slower: their sizes are printed, and
only runs with the same ones can be compared."""
import argparse
import os
import re
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get('BUILD', '.'))
os.environ.setdefault('TAILRACE', str(BUILD / 'tailrace'))

import bench                                        # noqa: E402 (it sets the path for what follows)

# What was under way when counting began: callgrind counts all they call as their own.
BELOW = {'clone', 'start_thread', 'worker_main', 'main', 'serve', 'writer_main', '(below', '__libc_start_main@@GLIBC_2.34',
         '__libc_start_call_main', 'ev_loop_run', '0x000000000001ab70'}
FUNCTION = re.compile(r'^\s*([\d,]+) \(\s*[\d.]+%\)\s+(\S+):(\S+)(?: \[(.*)\])?$')


def control(pid, *what):
    subprocess.run(['callgrind_control', *what, str(pid)], check=True, stdout=subprocess.DEVNULL)


def annotate(path):
    """[(instructions, object, function)], largest first."""
    text = subprocess.run(['callgrind_annotate', '--threshold=100', '--auto=no', '--show-percs=yes', str(path)],
                          stdout=subprocess.PIPE, text=True).stdout
    rows = (FUNCTION.match(line) for line in text.splitlines())
    return [(int(m[1].replace(',', '')), os.path.basename(m[4] or m[2]), m[3]) for m in rows
            if m and m[3] not in BELOW]


def measure(b, args, out):
    with bench.Sink(cert=b.cert, key=b.key) as sink:
        os.environ['TAILRACE_WRAPPER'] = f'valgrind --fair-sched=yes --tool=callgrind --callgrind-out-file={out}/callgrind'
        gateway = b.gateway(sink.tls_url if args.tls else sink.url, tls=args.tls,
                            spool=b.spool_key() if args.sealed else {})
        flood = dict(url=gateway.url, keys=args.keys, connections=min(args.connections, args.keys))
        b.flood(total=300, **flood)
        gateway.wait_delivered()
        control(gateway.pid, '-z')
        before, commits = sink.stats()['requests'], gateway.metrics()
        b.flood(total=args.total, **flood)
        gateway.wait_delivered()
        control(gateway.pid, '-d')
        requests, after = sink.stats()['requests'] - before - 1, gateway.metrics()
        gateway.stop()
    return requests, after['spool_commits_total'] - commits['spool_commits_total']


def main():
    a = argparse.ArgumentParser()
    a.add_argument('--total', type=int, default=3000)
    a.add_argument('--keys', type=int, default=8)
    a.add_argument('--connections', type=int, default=32)
    a.add_argument('--top', type=int, default=30)
    a.add_argument('--tls', action='store_true')
    a.add_argument('--sealed', action='store_true', help='with spool.key')
    a.add_argument('--keep', help='a directory for what callgrind writes')
    args = a.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        out = Path(args.keep or directory)
        out.mkdir(exist_ok=True)
        for old in out.glob('callgrind*'):
            old.unlink()
        requests, commits = measure(bench.Bench(directory), args, out)
        rows = annotate(out / 'callgrind.1')
    n = args.total
    objects = {}
    for count, where, _ in rows:
        objects[where] = objects.get(where, 0) + count
    print(f'{sum(objects.values()) / n:.0f} instructions for each PUT, {n / requests:.1f} PUTs in a delivery, '
          f'{n / commits:.1f} in a commit')
    for where, count in sorted(objects.items(), key=lambda x: -x[1])[:12]:
        print(f'{count / n:10.0f} {where}')
    print()
    for count, where, function in rows[:args.top]:
        print(f'{count / n:10.0f} {where} {function}')


if __name__ == '__main__':
    main()
