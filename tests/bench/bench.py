#!/usr/bin/python3
"""The log path, and TLS relays, beside what users would run in their place: docs/bench.md says what each row means.

    TAILRACE=…/tailrace LOAD=…/tests/tools/load BUILD=<build directory> bench.py [--only L2,L9]

Each row is `bench WORKLOAD PEER ours THEIRS ratio R`. Peers take turns with tailrace, three times, and medians count;
a peer called `recorded` is a figure measured earlier, where the program is in no Debian package."""
import argparse
import http.client
import json
import os
import shutil
import socket
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / 'integration'), str(HERE)]

import peers                                        # noqa: E402
import tls_rows                                     # noqa: E402
from gateway import Gateway, key, wait_for          # noqa: E402
from standin.certs import CA                        # noqa: E402
from standin.harness import Harness                 # noqa: E402

BUILD = Path(os.environ.get('BUILD', '.'))
LOAD = os.environ.get('LOAD', str(BUILD / 'tests/tools/load'))
FLOOD = str(BUILD / 'tests/bench/flood')
REPS = 3
SETTLE = 0.25                   # after the last byte: timers, marks, checkpoints


# --- what is shared ---------------------------------------------------------------------------

class Sink:
    """The log service that only says 204."""

    def __init__(self, delay=0, port=0, tls_port=0, cert=None, key=None):
        argv = [str(BUILD / 'tests/tools/sink'), '--port', str(port), '--raw-port', '0', '--delay', str(delay)]
        if cert:
            argv += ['--tls-port', str(tls_port), '--cert', str(cert), '--key', str(key)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        ports = json.loads(self.process.stdout.readline())
        self.port, self.tls_port, self.raw_port = ports['port'], ports.get('tls_port'), ports['raw_port']
        self.url, self.tls_url = f'http://127.0.0.1:{self.port}', f'https://127.0.0.1:{self.tls_port}'

    def stats(self):
        c = http.client.HTTPConnection('127.0.0.1', self.port, timeout=10)
        try:
            c.request('GET', '/stats')
            return json.loads(c.getresponse().read())
        finally:
            c.close()

    def wait_lines(self, lines, seconds=60):
        """Until so many have arrived."""
        wait_for(lambda: self.stats()['lines'] >= lines, seconds, 0.02, what=f'{lines} lines upstream')

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


class Bench:
    def __init__(self, directory):
        self.dir = Path(directory)
        ca = CA(self.dir)
        self.ca = ca.ca
        self.cert, self.key = ca.issue('127.0.0.1')
        self.made = 0
        self.first_key = 0

    def gateway(self, url, tls=False, **options):
        self.made += 1
        options.setdefault('workers', 1)
        more = {'cert': self.cert, 'key': self.key} if tls else {}
        if url.startswith('https:'):
            options['upstream'] = {'ca': self.ca}
        spool = dict({'limit': '4GiB'}, **options.pop('spool', {}))
        return Gateway(self.dir / f'gateway{self.made}', url, log={'level': 'info'}, spool=spool, **more, **options)

    def spool_key(self):
        """The options of a sealed spool."""
        path = self.dir / 'spool.key'
        path.touch(0o600)
        path.write_text(os.urandom(32).hex())
        return {'key': str(path)}

    def flood(self, url=None, raw=None, total=10000, connections=32, keys=200, **more):
        """Its summary. No key is used twice."""
        argv = [FLOOD] + (['--url', url] if url else ['--raw', str(raw)])
        argv += ['--total', str(total), '--connections', str(connections), '--keys', str(keys),
                 '--first-key', str(self.first_key)]
        for name, value in more.items():
            argv += ['--' + name] if value is True else ['--' + name, str(value)]
        self.first_key += max(keys, connections)
        return json.loads(subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=120).stdout.splitlines()[-1])

    def load(self, url, **options):
        argv = [LOAD, '--url', url, '--kinds', 'open', '--run', f'bench{self.first_key}']
        self.first_key += 1
        for name, value in options.items():
            argv += ['--' + name.replace('_', '-'), str(value)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def result(process):
    return json.loads(process.communicate(timeout=120)[0])


def median(rows, field):
    return statistics.median(row[field] for row in rows)


def show(value, unit):
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f'{value:.{digits}f}{unit}'


def row(workload, peer, ours, theirs, unit=''):
    print(f'bench {workload} {peer} {show(ours, unit)} {show(theirs, unit)} ratio {ours / theirs:.2f}'
          if theirs else f'bench {workload} {peer} {show(ours, unit)} 0 ratio -', flush=True)


# --- L1, L2: ingest ---------------------------------------------------------------------------

def ingest_once(bench, sink, url, pid, total):
    before, lines = peers.cpu(pid), sink.stats()['lines']
    sent = bench.flood(url, total=total)
    if sent['good'] != total:
        raise AssertionError(f'{url}: {sent}')
    sink.wait_lines(lines + sent['lines'])
    time.sleep(SETTLE)
    return {'us': (peers.cpu(pid) - before) / total * 1e6, 'rate': total / sent['seconds'], 'p99': sent['p99_ms']}


def ingest(bench, name, tls, others, total):
    """CPU of the proxy for each 4 KiB PUT, with everything it does for it."""
    with Sink(cert=bench.cert, key=bench.key) as sink:
        gateway = bench.gateway(sink.tls_url if tls else sink.url, tls=tls)
        running = peers.Relays(bench.dir, sink.port, sink.tls_port, bench.cert, bench.key).start(others)
        try:
            urls = {'ours': (gateway.url, gateway.pid)}
            for p in running:
                pid = getattr(p, 'tls_pid', p.pid) if tls else p.pid
                urls[p.name] = (f'https://127.0.0.1:{p.tls_port}' if tls else f'http://127.0.0.1:{p.port}', pid)
            rows = {n: [] for n in urls}
            for url, pid in urls.values():
                ingest_once(bench, sink, url, pid, 1000)
            for _ in range(REPS):
                for n, (url, pid) in urls.items():
                    rows[n].append(ingest_once(bench, sink, url, pid, total))
            for n in rows:
                if n != 'ours':
                    row(name, n, median(rows['ours'], 'us'), median(rows[n], 'us'), 'us')
        finally:
            for p in running:
                p.stop()
            gateway.stop()


def l1(bench):
    ingest(bench, 'L1-ingest-tls', True, ['nginx', 'haproxy', 'nghttpx'], 12000)


def l2(bench):
    ingest(bench, 'L2-ingest-clear', False, ['nginx', 'haproxy', 'nghttpx', 'squid'], 12000)


# --- L3 to L5: ship with a disk queue -----------------------------------------------------------

def ship_once(bench, sink, pid, **flood):
    cpu, disk, before = peers.cpu(pid), peers.written(pid), sink.stats()
    start = time.monotonic()
    sent = bench.flood(**flood)
    sink.wait_lines(before['lines'] + sent['lines'], 90)
    took = time.monotonic() - start
    time.sleep(SETTLE)
    return {'cpu': (peers.cpu(pid) - cpu) / sent['lines'] * 1e6, 'rate': sent['lines'] / took,
            'disk': (peers.written(pid) - disk) / sent['body_bytes']}


def shipping(bench, only):
    """CPU, rate and bytes written for lines that are made durable and go on."""
    total = 10000
    with Sink() as sink:
        gateway = bench.gateway(sink.url, workers=2)
        running = [start(bench.dir, sink.raw_port) for start in (peers.shippers() if only & {'L4', 'L5'} else [])]
        rows = {'ours': []}
        try:
            ship_once(bench, sink, gateway.pid, url=gateway.url, total=1000)
            for _ in range(REPS):
                rows['ours'].append(ship_once(bench, sink, gateway.pid, url=gateway.url, total=total))
                for p in running:
                    rows.setdefault(p.name, []).append(
                        ship_once(bench, sink, p.pid, raw=p.port, total=total, connections=8))
        finally:
            for p in running:
                p.stop()
            gateway.stop()
    ours = rows.pop('ours')
    if 'L3' in only:                # Fluent Bit, filesystem storage and zstd or gzip: not in Debian
        row('L3-ship-cpu-per-Mline', 'recorded-fluent-bit-zstd', median(ours, 'cpu'), 4.68, 's')
        row('L3-ship-cpu-per-Mline', 'recorded-fluent-bit-sync-full', median(ours, 'cpu'), 7.59, 's')
    for name, theirs in rows.items():
        if 'L4' in only:
            row('L4-ship-cpu-per-Mline', name, median(ours, 'cpu'), median(theirs, 'cpu'), 's')
            row('L4-ship-lines-per-s', name, median(ours, 'rate'), median(theirs, 'rate'), '/s')
        if 'L5' in only:
            row('L5-written-per-byte', name, median(ours, 'disk'), median(theirs, 'disk'))
    if 'L5' in only:
        row('L5-written-per-byte', 'recorded-fluent-bit', median(ours, 'disk'), 0.97)


# --- L6, L7, L12: upstream --------------------------------------------------------------------

def l6_live(bench):
    """Requests upstream for each of a client's, ten a second in each stream, 50 ms away."""
    with Sink(delay=50) as sink:
        gateway = bench.gateway(sink.url)
        running = peers.Relays(bench.dir, sink.port, sink.port, bench.cert, bench.key).start(['nginx'])
        try:
            found = {}
            for name, url in [('ours', gateway.url)] + [(p.name, f'http://127.0.0.1:{p.port}') for p in running]:
                before = sink.stats()['requests']
                done = result(bench.load(url, steps=40, interval=100, seconds=6))
                time.sleep(0.6)
                asked = done['put']['done'] + done['open']['done']
                found[name] = (sink.stats()['requests'] - before) / asked
            for name in found:
                if name != 'ours':
                    row('L6-requests-per-call-live', name, found['ours'], found[name])
        finally:
            for p in running:
                p.stop()
            gateway.stop()


def outage(bench, steps, interval, seconds, delay):
    """A backlog, then its delivery beside live streams: (backlog's figures, upstream's, live p99, alone p99, seconds)."""
    port = peers.free_port()
    gateway = bench.gateway(f'http://127.0.0.1:{port}')
    try:
        backlog = result(bench.load(gateway.url, steps=steps, interval=interval, seconds=seconds))
        live = bench.load(gateway.url, steps=20, interval=200, seconds=4)
        with Sink(delay=delay, port=port) as sink:
            sink.wait_lines(1)      # it was found again: the pauses between tries are not what is measured
            start, first = time.monotonic(), sink.stats()['lines']
            sink.wait_lines(backlog['lines'], 60)
            took = (time.monotonic() - start) * backlog['lines'] / max(1, backlog['lines'] - first)
            requests = sink.stats()['requests']
            live = result(live)
        return backlog, requests, took, live
    finally:
        gateway.stop()


def l6_catching_up(bench):
    backlog, requests, _, live = outage(bench, 40, 100, 8, 50)
    calls = backlog['put']['done'] + backlog['open']['done']
    row('L6-requests-per-call-catching-up', 'relay', min(requests / calls, 1), 1.0)


def l6(bench):
    l6_live(bench)
    l6_catching_up(bench)


def l7(bench):
    """Connections upstream for 1,000 steps."""
    steps = {'steps': 1000, 'interval': 1000, 'puts': 3}
    with Sink(cert=bench.cert, key=bench.key) as sink:
        relays = peers.Relays(bench.dir, sink.port, sink.port, bench.cert, bench.key)
        clear, tls = bench.gateway(sink.url), bench.gateway(sink.tls_url)
        running = relays.start(['nginx', 'squid'])
        try:
            found = {}
            for name, url in [('ours', clear.url), ('ours-h2', tls.url)] + \
                    [(p.name, f'http://127.0.0.1:{p.port}') for p in running]:
                before = sink.stats()['connections']
                result(bench.load(url, **steps))
                time.sleep(0.5)
                found[name] = sink.stats()['connections'] - before - 1     # our own look
            for p in running:
                row('L7-connections-http1', p.name, found['ours'], found[p.name])
                row('L7-connections-http2', p.name, found['ours-h2'], found[p.name])
        finally:
            for p in running:
                p.stop()
            clear.stop()
            tls.stop()


def l12(bench):
    """How much faster than it came in a backlog is delivered, and what streams that are alive notice."""
    backlog, _, took, live = outage(bench, 200, 200, 6, 0)
    calls = backlog['put']['done']
    row('L12-catch-up-puts-per-s', 'inflow', calls / took, calls / 6, '/s')
    row('L12-live-p99-in-catch-up', 'target', live['p99_ms'], 10, 'ms')


# --- L8: compression --------------------------------------------------------------------------

class Counting(socketserver.ThreadingTCPServer):
    """Passes bytes on and counts those that go up."""
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port):
        super().__init__(('127.0.0.1', 0), None)
        self.to, self.up = port, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def finish_request(self, request, address):
        far = socket.create_connection(('127.0.0.1', self.to))
        back = threading.Thread(target=self.copy, args=(far, request, False), daemon=True)
        back.start()
        self.copy(request, far, True)
        back.join()
        far.close()

    def copy(self, a, b, up):
        try:
            while data := a.recv(1 << 18):
                if up:
                    self.up += len(data)
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def to_hub(bench):
    with Sink() as sink:
        hub = bench.gateway(sink.url)
        between = Counting(hub.port)
        edge = bench.gateway('http://127.0.0.1:%d' % between.server_address[1])
        try:
            bench.flood(edge.url, total=500, keys=20, connections=20)      # they get to know each other
            edge.wait_delivered()
            up, lines = between.up, sink.stats()['lines']
            sent = bench.flood(edge.url, total=6000, keys=20, connections=20)
            sink.wait_lines(lines + sent['lines'])
            return sent['body_bytes'] / (between.up - up)
        finally:
            edge.stop()
            between.shutdown()
            between.server_close()
            hub.stop()


def post_blob(gateway, name, text):
    """As lite-engine uploads: ask for a link, PUT to it."""
    query = f'accountID=acct&key={key(name)}'
    c = http.client.HTTPConnection('127.0.0.1', gateway.port, timeout=60)
    head = {'X-Harness-Token': 'token-1'}
    c.request('POST', f'/log-service/blob/link/upload?{query}', b'', head)
    link = json.loads(c.getresponse().read())['link']
    c.request('PUT', '/' + link.split('/', 3)[3], text, head)
    answer = c.getresponse()
    answer.read()
    c.close()
    if answer.status != 200:
        raise AssertionError(f'upload: {answer.status}')


def to_store(bench):
    text = subprocess.run([FLOOD, '--print', '--total', '1000'], stdout=subprocess.PIPE).stdout
    with Harness(store_tls=False) as far:
        gateway = bench.gateway(far.url, harness={'upload-logs': 'googleapis'})
        try:
            for n in range(4):          # the first ones prove that the store undoes gzip
                post_blob(gateway, f'blob{n}', text)
                gateway.wait_delivered(30)
            stored = far.blob('acct', key('blob3'), inflate=False)
            return len(text) / len(stored)
        finally:
            gateway.stop()


def l8(bench):
    row('L8-compression-to-hub-zstd', 'recorded-fluent-bit', to_hub(bench), 6.2, 'x')
    row('L8-compression-to-store-gzip', 'recorded-fluent-bit', to_store(bench), 5.9, 'x')


# --- L9, L10: waiting -------------------------------------------------------------------------

def l9(bench):
    """What clients wait for an answer: 200 steps, a PUT a second each."""
    steps = {'steps': 200, 'interval': 1000, 'seconds': 8}
    with Sink() as sink:
        gateway = bench.gateway(sink.url)
        try:
            direct = result(bench.load(sink.url, **steps))
            up = result(bench.load(gateway.url, **steps))
        finally:
            gateway.stop()
    gateway = bench.gateway(f'http://127.0.0.1:{peers.free_port()}')
    try:
        down = result(bench.load(gateway.url, **steps))
    finally:
        gateway.kill()
    for q in ('p50', 'p99'):
        row(f'L9-ack-{q}-upstream-up', 'direct', up[q + '_ms'], direct[q + '_ms'], 'ms')
        row(f'L9-ack-{q}-upstream-down', 'direct-up', down[q + '_ms'], direct[q + '_ms'], 'ms')
    row('L9-ack-p99-upstream-up', 'recorded-direct-tls', up['p99_ms'], 5.3, 'ms')


class Arrivals(ThreadingHTTPServer):
    """Notes when each marked line arrives."""
    daemon_threads = True

    def __init__(self):
        self.seen = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'
            disable_nagle_algorithm = True

            def take(self):
                body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
                now = time.monotonic()
                for word in body.split(b'mark-')[1:]:
                    outer.seen[int(word.split(b' ', 1)[0])] = now
                self.send_response(200 if self.command == 'GET' else 204)
                if self.command == 'GET':
                    self.send_header('Content-Length', '2')
                self.end_headers()
                if self.command == 'GET':
                    self.wfile.write(b'{}')

            do_GET = do_PUT = do_POST = do_DELETE = take

            def log_message(self, *args):
                pass

        super().__init__(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def live(far, port, streams, interval, count):
    """Milliseconds from the first byte of a PUT to its arrival upstream."""
    c = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
    sent = {}
    for n in range(count):
        mark = len(far.seen) + 1000000 + n * 7 + port
        body = json.dumps([{'level': 'info', 'pos': n, 'out': f'mark-{mark} \n', 'time': '2026-01-01T00:00:00Z'}])
        sent[mark] = time.monotonic()
        c.request('PUT', f'/log-service/stream?accountID=acct&key={key(f"{port}-{streams}-{n % streams}")}', body,
                  {'X-Harness-Token': 'token-1'})
        c.getresponse().read()
        time.sleep(max(0, sent[mark] + interval - time.monotonic()))
    wait_for(lambda: all(m in far.seen for m in sent), 10, what='the last line')
    c.close()
    return sorted((far.seen[m] - sent[m]) * 1000 for m in sent)


def l10(bench):
    far = Arrivals()
    port = far.server_address[1]
    gateway = bench.gateway(f'http://127.0.0.1:{port}')
    try:
        live(far, gateway.port, 4, 0.05, 8)
        for name, streams, interval, count in (('quiet', 20, 0.1, 60), ('busy', 1, 0.1, 40)):
            direct = live(far, port, streams, interval, count)
            ours = live(far, gateway.port, streams, interval, count)
            for q in (50, 99):
                at = min(len(ours) - 1, len(ours) * q // 100)
                row(f'L10-live-{name}-p{q}', 'direct', ours[at], direct[at], 'ms')
    finally:
        gateway.stop()
        far.shutdown()
        far.server_close()


# --- L11, L13: memory -------------------------------------------------------------------------

def l11(bench):
    """Memory with 10,000 streams open, each with lines."""
    with Sink() as sink:
        gateway = bench.gateway(sink.url)
        try:
            sent = bench.flood(gateway.url, total=10000, keys=10000, connections=64, open=True)
            sink.wait_lines(sent['lines'])
            time.sleep(1)
            now, peak = gateway.rss_kb() / 1024, gateway.rss_kb(peak=True) / 1024
        finally:
            gateway.stop()
    row('L11-memory-10000-streams', 'target', now, 32 + 64, 'MB')
    row('L11-memory-peak', 'recorded-fluent-bit', peak, 104, 'MB')


def l13(bench):
    """What a blob of 50 MB needs beside what is in use without it."""
    text = b''.join([b'%07d a line of a log that is finished and long\n' % n for n in range(1000)]) * 1000
    with Harness() as far:
        gateway = bench.gateway(far.url, harness={'upload-logs': 'harness'})
        try:
            post_blob(gateway, 'small', text[:1 << 20])
            gateway.wait_delivered(30)
            before = gateway.rss_kb()
            Path(f'/proc/{gateway.pid}/clear_refs').write_text('5')
            post_blob(gateway, 'large', text)
            gateway.wait_delivered(60)
            grown = (gateway.rss_kb(peak=True) - before) / 1024
            whole = far.blob('acct', key('large')) == text
        finally:
            gateway.stop()
    row('L13-blob-50MB-memory', 'target' if whole else 'LOST', grown, 2, 'MB')


# --- all --------------------------------------------------------------------------------------

WORKLOADS = {'L1': l1, 'L2': l2, 'L3': shipping, 'L4': shipping, 'L5': shipping, 'L6': l6, 'L7': l7, 'L8': l8,
             'L9': l9, 'L10': l10, 'L11': l11, 'L12': l12, 'L13': l13, **tls_rows.WORKLOADS}


def run_one(name, bench, only):
    run = WORKLOADS[name]
    if run is shipping:
        run(bench, only)
    elif name in tls_rows.WORKLOADS:
        for made in run(bench):
            row(*made)
    else:
        run(bench)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--only', default='', help='L2,L9: only these')
    only = {w for w in parser.parse_args().only.split(',') if w} or set(WORKLOADS)
    directory = tempfile.mkdtemp(prefix='bench-')
    bench, done, bad = Bench(directory), set(), 0
    start = time.monotonic()
    try:
        for name, run in WORKLOADS.items():
            if name not in only or run in done:
                continue
            done.add(run)
            try:
                run_one(name, bench, only)
            except Exception as e:              # the others are worth having
                bad += 1
                print(f'bench: {name}: {type(e).__name__}: {e}', flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print('bench: %.0f s' % (time.monotonic() - start))
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
