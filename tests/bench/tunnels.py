#!/usr/bin/python3
"""Tunnels by CONNECT beside other proxies: rows E1 to E3 of docs/bench.md.

    TAILRACE=…/tailrace tunnels.py [--only E1,E3] [--gigabytes 2] [--tunnels 4000] [--echoes 60000]

`bench E1-… PEER ours THEIRS ratio R`, as bench.py prints it: CPU of the proxy's process. HAProxy knows no CONNECT: it
passes TCP to one place, with no policy, and so shows what passing bytes costs."""
import argparse
import multiprocessing
import selectors
import shutil
import socket
import statistics
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / 'integration'), str(HERE)]

import peers                                # noqa: E402
from bench import row                       # noqa: E402
from gateway import Gateway                 # noqa: E402

REPS = 3
PIECE = 1 << 20
ALLOWED = {'near': {'hosts': ['127.0.0.1'], 'ports': ['1-65535']}}


# --- where it goes: a process of its own ------------------------------------------------------

def pour(listener, size):
    """To each who connects: that many bytes, then the end."""
    with tempfile.TemporaryFile() as f:
        f.truncate(PIECE)

        def one(s):
            with s:
                left = size
                try:
                    while left > 0:
                        left -= s.sendfile(f, 0, min(PIECE, left))
                except OSError:
                    pass
        while True:
            threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()


def echo(listener):
    """Bytes back, as they come."""
    sel = selectors.DefaultSelector()
    listener.setblocking(False)
    sel.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in sel.select():
            if key.fileobj is listener:
                try:
                    s, _ = listener.accept()
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sel.register(s, selectors.EVENT_READ)
                except BlockingIOError:
                    pass
                continue
            try:
                data = key.fileobj.recv(65536)
                if data:
                    key.fileobj.send(data)
                    continue
            except OSError:
                pass
            sel.unregister(key.fileobj)
            key.fileobj.close()


class Place:
    def __init__(self, serve, *args):
        self.socket = socket.create_server(('127.0.0.1', 0), backlog=4096)
        self.port = self.socket.getsockname()[1]
        self.process = multiprocessing.get_context('fork').Process(target=serve, args=(self.socket, *args), daemon=True)
        self.process.start()

    def close(self):
        self.process.kill()
        self.process.join()
        self.socket.close()


# --- who passes it on -------------------------------------------------------------------------

class Ours:
    name, connect = 'tailrace', True

    def __init__(self, directory, to):
        self.gateway = Gateway(directory / f'gateway{to}', 'http://127.0.0.1:9', listen={'proxy': {'address': '127.0.0.1:0'}},
                               egress={'profile': 'none'}, rules=ALLOWED, workers=1, log={'level': 'notice'}, drain={'limit': '0s'},
                               audit={'to': 'file', 'file': str(directory / f'audit{to}')})
        self.port, self.pid, self.stop = self.gateway.ports['proxy'], self.gateway.pid, self.gateway.stop


def haproxy(directory, to):
    port = peers.free_port()
    path = directory / 'haproxy.cfg'
    path.write_text(f'''global
 nbthread 1
 maxconn 2000
 tune.pipesize 1048576
defaults
 mode tcp
 option splice-auto
 timeout client 60s
 timeout server 60s
 timeout connect 5s
listen all
 bind 127.0.0.1:{port} backlog 4096
 server s 127.0.0.1:{to}
''')
    p = peers.Peer('haproxy', [peers.find('haproxy'), '-db', '-f', str(path)], port, directory=directory)
    p.connect = False
    return p


def squid(directory, to):
    port, home = peers.free_port(), directory / 'squid'
    home.mkdir(exist_ok=True)
    home.chmod(0o777)
    path = directory / 'squid.conf'
    path.write_text(f'''http_port 127.0.0.1:{port}
http_access allow all
cache deny all
access_log {home}/access.log
cache_store_log none
cache_log {home}/cache.log
pid_filename none
coredump_dir {home}
max_filedescriptors 8192
shutdown_lifetime 0 seconds
pinger_enable off
''')
    p = peers.Peer('squid', [peers.find('squid'), '-N', '-f', str(path)], port, directory=directory)
    p.connect = True
    return p


def others(directory, to):
    for make in (haproxy, squid):
        if not peers.find(make.__name__):
            print(f'bench: {make.__name__} is not installed: skipped', flush=True)
            continue
        p = make(directory, to)
        if p.ready:
            yield p
        else:
            print(f'bench: {p.name} does not start here: skipped', flush=True)
            p.stop()


def open_tunnel(proxy, to):
    s = socket.create_connection(('127.0.0.1', proxy.port), 30)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if proxy.connect:
        s.sendall(b'CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n' % (to, to))
        head = b''
        while not head.endswith(b'\r\n\r\n'):
            piece = s.recv(1)
            assert piece, head
            head += piece
        assert head[9:12] == b'200', head
    return s


def compare(name, directory, place, work, unit):
    """Medians of what `work` says of each, in turns."""
    proxies = [Ours(directory, place.port), *others(directory, place.port)]
    found = {p.name: [] for p in proxies}
    try:
        for p in proxies:
            work(p, place.port, True)       # warm
        for _ in range(REPS):
            for p in proxies:
                found[p.name].append(work(p, place.port, False))
    finally:
        for p in proxies:
            p.stop()
    ours = statistics.median(found['tailrace'])
    for p in proxies[1:]:
        row(name, p.name, ours, statistics.median(found[p.name]), unit)


# --- the workloads ----------------------------------------------------------------------------

def bulk(directory, o):
    """E1: CPU seconds for each GB that comes down eight tunnels at once."""
    tunnels = 8
    size = int(o.gigabytes * 1e9) // tunnels

    def drink(proxy, to, sizes):
        with open_tunnel(proxy, to) as s:
            n, room = 0, bytearray(PIECE)
            while got := s.recv_into(room, PIECE):
                n += got
            sizes.append(n)

    def work(proxy, to, warm):
        sizes = []
        threads = [threading.Thread(target=drink, args=(proxy, to, sizes)) for _ in range(1 if warm else tunnels)]
        before = peers.cpu(proxy.pid)
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert set(sizes) == {size}, sizes
        return (peers.cpu(proxy.pid) - before) / (sum(sizes) / 1e9)
    place = Place(pour, size)
    compare('E1-bulk', directory, place, work, 's/GB')
    place.close()


def set_up(directory, o):
    """E2: CPU for a short tunnel: CONNECT, sixteen bytes there and back, the end; eight at once."""
    def client(proxy, to, count):
        for _ in range(count):
            with open_tunnel(proxy, to) as s:
                s.sendall(b'sixteen bytes...')
                assert s.recv(16) == b'sixteen bytes...'

    def work(proxy, to, warm):
        count = 100 if warm else o.tunnels // 8
        threads = [threading.Thread(target=client, args=(proxy, to, count)) for _ in range(8)]
        before = peers.cpu(proxy.pid)
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return (peers.cpu(proxy.pid) - before) / (8 * count) * 1e6
    place = Place(echo)
    compare('E2-set-up', directory, place, work, 'us')
    place.close()


def small(directory, o):
    """E3: CPU for an echo of 200 bytes, which are two messages that pass; 32 tunnels, one message under way in each."""
    def work(proxy, to, warm):
        sel = selectors.DefaultSelector()
        message = b'm' * 200
        tunnels = [open_tunnel(proxy, to) for _ in range(32)]
        for s in tunnels:
            sel.register(s, selectors.EVENT_READ)
            s.send(message)
        left = 1000 if warm else o.echoes
        before = peers.cpu(proxy.pid)
        while left > 0:
            for key, _ in sel.select():
                assert key.fileobj.recv(400) == message
                left -= 1
                key.fileobj.send(message)
        used = peers.cpu(proxy.pid) - before
        for s in tunnels:
            s.close()
        return used / o.echoes * 1e6
    place = Place(echo)
    compare('E3-small-messages', directory, place, work, 'us')
    place.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--only', default='E1,E2,E3')
    parser.add_argument('--gigabytes', type=float, default=2)
    parser.add_argument('--tunnels', type=int, default=4000)
    parser.add_argument('--echoes', type=int, default=60000)
    o = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix='bench-'))
    directory.chmod(0o755)
    try:
        for name, run in (('E1', bulk), ('E2', set_up), ('E3', small)):
            if name in o.only.split(','):
                run(directory, o)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == '__main__':
    sys.exit(main())
