#!/usr/bin/python3
"""Streams come and go for as long as it is asked for: most over HTTP/1.1, each with a connection of its own, some over TLS
and over HTTP/2, uploads by both routes; relays and tunnels beside them. What the gateway holds at the end, in memory,
descriptors and on disk, must be what it held after two minutes, and after the load has gone nothing of it may be left.

    TAILRACE=…/tailrace LOAD=…/tests/tools/load SINK=…/tests/tools/sink soak.py [--seconds 900] [--rate 260]"""
import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from runs import Gateway, Load, balance, ledgers, progress, wait_for  # noqa: E402
from calls import body_of                                              # noqa: E402
from frames import H2                                                  # noqa: E402
from standin.certs import CA                                           # noqa: E402

SINK = os.environ.get('SINK', 'tests/tools/sink')
WANTED = 200000 / 900           # streams in a second
BASE = 120                      # seconds after which the level is taken
WINDOW = 10                     # seconds of samples in a level: a median, since load is not even
STEP_S = 0.45                   # what a step of the load client takes besides its calls: set by --interval
INTERVAL_MS = 100
KINDS = 'le-blob,le-link,delegate,le-blob'
ALLOWED = {'near': {'hosts': ['127.0.0.1'], 'ports': ['1-65535'], 'addresses': ['127.0.0.0/8']}}


class Far:
    """The log service that takes everything, and the other end of tunnels."""

    def __init__(self):
        self.process = subprocess.Popen([SINK, '--port', '0', '--raw-port', '0'], stdout=subprocess.PIPE, text=True)
        ports = json.loads(self.process.stdout.readline())
        self.url, self.raw_port = f'http://127.0.0.1:{ports["port"]}', ports['raw_port']

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Worker(threading.Thread):
    """Does one thing again and again, at most `rate` times a second, until it is stopped."""

    def __init__(self, rate, one):
        super().__init__(daemon=True)
        self.rate, self.one, self.done, self.stopped, self.failure = rate, one, 0, threading.Event(), None

    def run(self):
        due = time.monotonic()
        while not self.stopped.wait(max(0, due - time.monotonic())):
            try:
                self.one(self.done)
            except Exception as e:      # pylint: disable=broad-except
                self.failure = self.failure or f'{type(e).__name__}: {e}'
            self.done += 1
            due = max(due + 1 / self.rate, time.monotonic())

    def stop(self):
        self.stopped.set()
        self.join(30)


class H2Steps:
    """Whole steps over HTTP/2, a hundred on each connection."""

    def __init__(self, gateway):
        self.gateway, self.h2, self.id = gateway, None, 1

    def call(self, method, path, key, body=None):
        target = f'{path}?accountID=acct&key={key}'
        self.h2.request(self.id, method, target, ('x-harness-token', 'token-1'), body=body)
        status = self.h2.answer(self.id)['status']
        self.h2.answers.clear()
        assert status == 204, (method, path, status)
        self.id += 2

    def one(self, n):
        if n % 100 == 0:
            if self.h2:
                self.h2.sock.close()
            self.h2, self.id = H2(self.gateway.port), 1
        key = f'soak-h2-{n}'
        self.call('POST', '/stream', key)
        for i in range(2):
            self.call('PUT', '/stream', key, body_of('one\n', 'two\n', start=2 * i))
        self.call('POST', '/blob', key, b'one\ntwo\n' * 2)
        self.call('DELETE', '/stream', key)


def relay(gateway):
    def one(n):
        c = http.client.HTTPConnection('127.0.0.1', gateway.port, timeout=10)
        try:
            c.request('GET', f'/gateway/api/version?n={n}')
            answer = c.getresponse()
            assert answer.status == 200 and answer.read()
        finally:
            c.close()
    return one


def tunnel(gateway, port):
    """By CONNECT: some bytes, then the end; every tenth breaks off instead."""
    def one(n):
        with socket.create_connection(('127.0.0.1', gateway.ports['proxy']), 10) as s:
            s.sendall(b'CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n' % (port, port))
            assert s.recv(1000).startswith(b'HTTP/1.1 200'), 'no tunnel'
            s.sendall(b'x' * 30000 + b'\n')
            if n % 10:
                s.shutdown(socket.SHUT_WR)
                while s.recv(1000):
                    pass
    return one


class Levels:
    """Memory, descriptors and bytes of the spool's directory, once a second."""

    def __init__(self, gateway, spool):
        self.gateway, self.spool = gateway, spool
        self.samples, self.done = [], threading.Event()
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def look(self):
        kb, fds = self.gateway.rss_kb(), self.gateway.fds()
        size = sum(f.stat().st_size for f in self.spool.rglob('*') if f.is_file())
        return time.monotonic() - self.began, kb / 1024, fds, size / (1 << 20)

    def run(self):
        while not self.done.wait(1):
            try:
                self.samples.append(self.look())
            except OSError:             # a file that went meanwhile, or the end
                pass

    def level(self, at):
        """(memory, descriptors, spool): the medians of the seconds before `at`."""
        rows = [s for s in self.samples if at - WINDOW <= s[0] <= at] or self.samples[-1:]
        return tuple(statistics.median(r[i] for r in rows) for i in (1, 2, 3))

    def stop(self):
        self.done.set()
        self.thread.join()


class Verdict:
    def __init__(self):
        self.faults = []

    def check(self, good, text):
        if not good:
            self.faults.append(text)
            progress('WRONG: ' + text)


def within(a, b, least):
    """B is not more than 5 % above or below A; what is a few units anyway may differ by `least`."""
    return abs(b - a) <= max(0.05 * a, least)


def nothing_left(gateway, before, args, verdict):
    """The load has gone: streams are forgotten after their time, connections and what waits are no more."""
    def gone():
        m = gateway.metrics()
        return m['streams'] == 0 and gateway.metric('connections') <= 2 and m.get('tunnels', 0) == 0
    try:
        gateway.wait_delivered(30)
        wait_for(gone, args.idle + 20, 0.5, what='the end of streams, connections and tunnels')
        wait_for(lambda: gateway.fds() <= before + 40, 90, 0.5, what='the end of descriptors')
    except AssertionError as e:
        verdict.check(False, f'{e}: {gateway.fds()} descriptors, were {before}; {gateway.metrics()}')
    verdict.check(gateway.metric('overload_refused_total') == 0, 'something was refused')
    for name, ledger in zip(('lines', 'blobs'), ledgers(gateway)):
        verdict.check(balance(ledger) == 0 and not ledger.get('dead') and not ledger.get('refused'),
                      f'the ledger of {name}: {ledger}')


def loads(args, plain, tls, ca):
    """The load clients: most in clear, a tenth over TLS, in rounds of steps that each take about STEP_S."""
    def load(url, rate, name, **more):
        return Load(url, '/dev/null', steps=max(2, int(rate * STEP_S)), interval=INTERVAL_MS, lines=4, bytes=1200, puts=3,
                    seconds=args.seconds, again=True, reconnect=True, kinds=KINDS, run=name, **more)
    return [load(plain, args.rate * 0.85, 'plain'), load(tls, args.rate * 0.1, 'tls', ca=ca)]


def watch(args, levels, gateway, others, verdict):
    """Print a sample every half a minute."""
    every = 30 if args.seconds > 60 else 5
    while time.monotonic() - levels.began < args.seconds:
        time.sleep(min(every, max(0.1, args.seconds - (time.monotonic() - levels.began))))
        at, mb, fds, spool = levels.look()
        progress('%4d s: memory %.1f MiB, descriptors %d, spool %.1f MiB, streams known %d, relays and tunnels %d'
                 % (at, mb, fds, spool, gateway.metric('streams'), sum(w.done for w in others)))
        if gateway.process.poll() is not None:
            verdict.check(False, 'the gateway has ended')
            return


def run(args, directory, verdict):
    (directory / 'ca').mkdir(exist_ok=True)
    ca, far = CA(directory / 'ca'), Far()
    cert, key = ca.issue('127.0.0.1')
    listen = {'tls': {'mode': 'upstream', 'address': '127.0.0.1:0', 'certificate': str(cert), 'key': str(key)},
              'proxy': {'address': '127.0.0.1:0'}}
    options = {'listen': listen, 'log': {'level': 'notice'}, 'stream': {'idle': f'{args.idle}s', 'hold': '0s'},
               'harness': {'upload-gzip': False}, 'rules': ALLOWED, 'audit': {'to': 'none'}}
    try:
        with Gateway(directory / 'gateway', far.url, **options) as gateway:
            before = gateway.fds()
            levels = Levels(gateway, directory / 'gateway' / 'spool')
            running = loads(args, gateway.url, 'https://127.0.0.1:%d' % gateway.ports['tls'], ca.ca)
            h2 = Worker(args.rate * 0.05, H2Steps(gateway).one)
            others = [Worker(10, relay(gateway)), Worker(10, tunnel(gateway, far.raw_port))]
            for w in [h2, *others]:
                w.start()
            watch(args, levels, gateway, others, verdict)
            end = time.monotonic() - levels.began
            results = [load.result(60) for load in running]
            for w in [h2, *others]:
                w.stop()
                verdict.check(not w.failure, w.failure)
            levels.stop()
            for r in results:
                verdict.check(not r['failed'] and not r['steps_failed'], f'calls failed: {r}')
            streams = sum(r['steps'] for r in results) + h2.done
            seconds = max(r['seconds'] for r in results)
            nothing_left(gateway, before, args, verdict)
            progress('put p99 %.1f ms; relays %d, tunnels %d, over HTTP/2 %d, over TLS %d'
                     % (results[0]['p99_ms'], others[0].done, others[1].done, h2.done, results[1]['steps']))
    finally:
        far.stop()
    verdict.check(streams >= args.seconds * WANTED * args.least, f'only {streams} streams in {seconds:.0f} s')
    a, b = levels.level(args.base), levels.level(end)
    good = within(a[0], b[0], 1) and within(a[1], b[1], 12) and within(a[2], b[2], 1)
    line = ('soak: %d streams in %.0f s, memory %.1f -> %.1f MiB, descriptors %d -> %d, spool %.1f -> %.1f MiB: %s'
            % (streams, seconds, a[0], b[0], a[1], b[1], a[2], b[2], 'within 5 %' if good else 'NOT within 5 %'))
    return line, good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--seconds', type=int, default=900)
    parser.add_argument('--rate', type=float, default=260, help='streams a second to try for')
    parser.add_argument('--least', type=float, default=1, help='of 222 streams a second that must have been had')
    parser.add_argument('--keep', help='work in this directory and leave it')
    args = parser.parse_args()
    # A short run has its level taken at a third; what is remembered of streams must have its level by then.
    args.base = BASE if args.seconds >= 2 * BASE else max(WINDOW, args.seconds // 2)
    args.idle = min(60, max(2, args.base // 4))
    directory = Path(args.keep or tempfile.mkdtemp(prefix='soak-'))
    directory.mkdir(parents=True, exist_ok=True)
    verdict = Verdict()
    try:
        line, good = run(args, directory, verdict)
    finally:
        if not args.keep:
            shutil.rmtree(directory, ignore_errors=True)
    print(line)
    return 0 if good and not verdict.faults else 1


if __name__ == '__main__':
    sys.exit(main())
