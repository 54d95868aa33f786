"""E6 to E8: TLS ended on both sides, beside nginx and HAProxy. bench.py runs these; docs/bench.md says what they mean.

Each yields (workload, peer, ours, theirs, unit): medians of rounds in which the proxies take turns. Connections, upgrades and
first tickets are made before the account begins."""
import json
import os
import statistics
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import peers

TALK = str(Path(os.environ.get('BUILD', '.')) / 'tests/bench/talk')
OTHERS = ('nginx', 'haproxy')
REPS = 5
SETTLE = 0.25                   # after the last byte: ends of connections


class Talk:
    """A process of tests/bench/talk; its first line says that it is ready, and where."""

    def __init__(self, *argv):
        self.process = subprocess.Popen([TALK, *map(str, argv)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = self.process.stdout.readline().strip()
        if not self.first:
            raise AssertionError(f'talk {argv} ended with {self.process.wait()}')

    def go(self):
        """Do the work."""
        self.process.stdin.write('go\n')
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f'talk ended with {self.process.wait()}')
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def proxies(bench):
    """{name: (TLS port, pid)} of all, with a far end behind them."""
    with Talk('--far', '--cert', bench.cert, '--key', bench.key) as far:
        to = int(far.first)
        gateway = bench.gateway(f'https://127.0.0.1:{to}', tls=True,
                                rules={'far': {'hosts': [f'127.0.0.1:{to}'], 'addresses': ['127.0.0.0/8']}})
        running = peers.Relays(bench.dir, to, to, bench.cert, bench.key).start(OTHERS)
        try:
            yield {'tailrace': (gateway.port, gateway.pid), **{p.name: (p.tls_port, p.pid) for p in running}}
        finally:
            for p in running:
                p.stop()
            gateway.stop()


def once(kind, port, pid, total, connections, *more):
    """CPU seconds of the proxy for the whole."""
    with Talk(f'--{kind}', port, '--connections', connections, '--total', total, *more) as near:
        time.sleep(SETTLE / 2)  # ends of what was before, and of the preparations
        before = peers.cpu(pid)
        near.go()
        if kind == 'handshakes':
            time.sleep(SETTLE)
        return peers.cpu(pid) - before


def compare(all_, name, scale, unit, *work):
    """Medians of the cost of `work`, beside each peer; `scale` makes it what the row shows."""
    found = {n: [] for n in all_}
    for _ in range(REPS):
        for n, (port, pid) in all_.items():
            found[n].append(once(work[0], port, pid, *work[1:]) * scale)
    ours = statistics.median(found.pop('tailrace'))
    for n, theirs in found.items():
        yield name, n, ours, statistics.median(theirs), unit


def e6(bench):
    """An echo of 200 bytes in a WebSocket, which are two messages that pass: 32 connections, one under way in each."""
    total = 24000
    with proxies(bench) as all_:
        yield from compare(all_, 'E6-wss-echo', 1e6 / total, 'us', 'wss', total, 32)


def e7(bench):
    """A connection that shakes hands, waits for its ticket, and ends."""
    total = 600
    with proxies(bench) as all_:
        for name, more in (('E7-handshake-full', ()), ('E7-handshake-resumed', ('--resume',))):
            yield from compare(all_, name, 1e6 / total, 'us', 'handshakes', total, 4, *more)


def e8(bench):
    """Bodies, four at once, each way."""
    total = 240_000_000
    with proxies(bench) as all_:
        for name, more in (('E8-bulk-down', ()), ('E8-bulk-up', ('--up',))):
            yield from compare(all_, name, 1e9 / total, 's/GB', 'bulk', total, 4, *more)


WORKLOADS = {'E6': e6, 'E7': e7, 'E8': e8}
