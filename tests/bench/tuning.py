#!/usr/bin/env python3
"""What options do, as docs/tuning.md tells: the same small load on a gateway with one option at several values, in turns.

    make bench-tuning [ROUNDS=3]

Prints one line for each value: medians over the rounds of what clients waited (ms), requests upstream for each of a client's, bytes
written to the disk for each byte of logs, and CPU of the gateway for a PUT (microseconds)."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / 'integration'), str(HERE.parent)]

from gateway import Gateway         # noqa: E402

BUILD = Path(os.environ['BUILD'])
TICKS = os.sysconf('SC_CLK_TCK')

# name, options, load: steps at once and milliseconds between the PUTs of one.
VARIANTS = {
    'spool.sync': [('full', {'spool': {'sync': 'full'}}), ('normal', {'spool': {'sync': 'normal'}})],
    'spool.key': [('none', {}), ('sealed', {'spool': {'key': 'KEY'}})],
    'batch.delay': [(f'{ms}ms', {'batch': {'delay': f'{ms}ms'}}) for ms in (190, 100, 0)],
    'workers': [(str(n), {'workers': n}) for n in (1, 2)],
    'upstream.http': [(v, {'upstream': {'http': v}}) for v in ('auto', '1.1')],
}


class Sink:
    def __init__(self):
        self.process = subprocess.Popen([str(BUILD / 'tests/tools/sink'), '--port', '0', '--delay', '20'], stdout=subprocess.PIPE,
                                        text=True)
        self.port = json.loads(self.process.stdout.readline())['port']
        self.url = f'http://127.0.0.1:{self.port}'

    def requests(self):
        with urllib.request.urlopen(self.url + '/stats', timeout=10) as page:
            return json.load(page)['requests']

    def close(self):
        self.process.terminate()
        self.process.wait()


def cpu(pid):
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def written(pid):
    return int(Path(f'/proc/{pid}/io').read_text().split('\nwrite_bytes: ')[1].split()[0])


def once(directory, options, seconds):
    if options.get('spool', {}).get('key'):
        key = directory / 'key'
        key.touch(0o600)
        key.write_text(os.urandom(32).hex())
        options = {'spool': dict(options['spool'], key=str(key))}
    sink = Sink()
    with Gateway(directory / 'gateway', sink.url, **{'workers': 1, 'log': {'level': 'notice'}, **options}) as gateway:
        before = sink.requests(), cpu(gateway.pid), written(gateway.pid)
        done = subprocess.run([str(BUILD / 'tests/tools/load'), '--url', gateway.url, '--steps', '100', '--interval', '100',
                               '--seconds', str(seconds), '--kinds', 'open', '--ack', os.devnull], capture_output=True, text=True,
                              timeout=60, check=True)
        gateway.wait_delivered()
        sent = json.loads(done.stdout.splitlines()[-1])
        puts = sent['put']['done']
        result = {'p50_ms': sent['p50_ms'], 'p99_ms': sent['p99_ms'], 'requests': (sink.requests() - before[0]) / puts,
                  'written': (written(gateway.pid) - before[2]) / sent['bytes'],
                  'cpu_us': (cpu(gateway.pid) - before[1]) / puts * 1e6}
    sink.close()
    return result


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--rounds', type=int, default=3)
    options.add_argument('--seconds', type=int, default=3)
    options.add_argument('--only', default='')
    args = options.parse_args()
    for setting, values in VARIANTS.items():
        if args.only and setting not in args.only.split(','):
            continue
        rows = {name: [] for name, _ in values}
        for _ in range(args.rounds):
            for name, more in values:
                with tempfile.TemporaryDirectory(dir='/var/tmp') as directory:
                    rows[name].append(once(Path(directory), more, args.seconds))
        for name, results in rows.items():
            middle = {k: round(statistics.median(r[k] for r in results), 3) for k in results[0]}
            print(f'tuning {setting}={name}', ' '.join(f'{k} {v}' for k, v in middle.items()), flush=True)


if __name__ == '__main__':
    started = time.monotonic()
    main()
    print(f'took {time.monotonic() - started:.0f} s')
