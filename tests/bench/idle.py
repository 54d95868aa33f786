#!/usr/bin/python3
"""Idle WebSockets: many at once, silent, all alive; what one costs in memory. Rows E4 and E5 of docs/bench.md.

    TAILRACE=…/tailrace idle.py [--count 5000] [--way upstream,proxy] [--idle 5]

`upstream`: TLS is ended on both sides; `proxy`: wss through CONNECT, TLS end to end. Prints `idle WAY COUNT KB-each`."""
import argparse
import concurrent.futures
import os
import resource
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / 'integration')]

from gateway import Gateway, wait_for       # noqa: E402
from standin.certs import CA                # noqa: E402

UPGRADE = ('GET /stream/delegate/acct?token=x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
           'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
ACCEPT = (b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
          b'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n')
FRAME, ECHO = b'\x81\x81\x00\x00\x00\x00x', b'\x81\x01x'    # masked with zeros, "x"; and what comes back
WORKERS = 8


def many_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def read_head(s):
    head = b''
    while b'\r\n\r\n' not in head:
        piece = s.recv(4096)
        if not piece:
            raise ConnectionError('closed after %r' % head[:100])
        head += piece
    return head


def far_side(cert, key):
    """A server of wss that accepts every upgrade and echoes; a process of its own, until its stdin ends."""
    many_files()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = socket.create_server(('127.0.0.1', 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key_, _ in selector.select():
            s = key_.fileobj
            if s is sys.stdin:
                os._exit(0)
            try:
                if s is listener:
                    raw, _ = listener.accept()
                    raw.settimeout(20)
                    tls = context.wrap_socket(raw, server_side=True)
                    read_head(tls)
                    tls.sendall(ACCEPT)
                    selector.register(tls, selectors.EVENT_READ)
                elif s.recv(4096) == FRAME:
                    s.sendall(ECHO)
                else:
                    selector.unregister(s)
                    s.close()
            except OSError:
                if s is not listener:
                    selector.unregister(s)
                    s.close()


class FarSide:
    def __init__(self, cert, key):
        self.process = subprocess.Popen([sys.executable, __file__, '--far-side', cert, key], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        self.url = 'https://127.0.0.1:%d' % self.port

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()


def connect(gate, far, way, context):
    """One WebSocket, upgraded."""
    s = socket.create_connection(('127.0.0.1', gate.ports[way]), 30)
    s.settimeout(30)
    if way == 'proxy':
        s.sendall(b'CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n' % (far.port, far.port))
        head = read_head(s)
        assert b' 200 ' in head.split(b'\r\n')[0], head
    tls = context.wrap_socket(s, server_hostname='127.0.0.1')
    tls.sendall((UPGRADE % far.port).encode())
    head = read_head(tls)
    assert head.startswith(b'HTTP/1.1 101'), head
    return tls


def echo(s):
    s.sendall(FRAME)
    got = b''
    while len(got) < len(ECHO):
        piece = s.recv(64)
        if not piece:
            raise ConnectionError('closed')
        got += piece
    return got == ECHO


def private_kb(pid):
    """Memory of the process that is its own, anonymous: not files, not the kernel's."""
    for line in Path('/proc/%d/smaps_rollup' % pid).read_text().splitlines():
        if line.startswith('Anonymous:'):
            return int(line.split()[1])
    raise ValueError('no such line')


def measure(gate, far, way, count, idle, ca):
    """(KB for each, how many were alive at the end)."""
    context = ssl.create_default_context(cafile=ca)
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        warm = list(pool.map(lambda _: connect(gate, far, way, context), range(2 * WORKERS)))
        before = private_kb(gate.pid)
        sockets = list(pool.map(lambda _: connect(gate, far, way, context), range(count)))
        wait_for(lambda: gate.metric('tunnels') == count + len(warm), 30, what='all tunnels')
        time.sleep(idle)        # what is measured is silence
        each = (private_kb(gate.pid) - before) / count
        alive = sum(pool.map(echo, sockets))
    for s in warm + sockets:
        s.close()
    wait_for(lambda: gate.metric('tunnels') == 0, 30, what='the end of all tunnels')
    return each, alive


def gateway(directory, far, ca, **options):
    cert, key = ca.issue('127.0.0.1')
    return Gateway(directory, far.url, cert=cert, key=key, upstream={'ca': ca.ca}, log={'level': 'notice'}, workers=2,
                   listen={'proxy': {'address': '127.0.0.1:0'}}, limits={'connections': 20000}, audit={'to': 'none'},
                   rules={'far': {'hosts': ['127.0.0.1:%d' % far.port], 'addresses': ['127.0.0.0/8']}}, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=5000)
    parser.add_argument('--way', default='upstream,proxy')
    parser.add_argument('--idle', type=float, default=5)
    parser.add_argument('--far-side', nargs=2)
    args = parser.parse_args()
    many_files()
    if args.far_side:
        far_side(*args.far_side)
    with tempfile.TemporaryDirectory() as directory:
        ca = CA(directory)
        with FarSide(*ca.issue('127.0.0.1')) as far:
            for way in args.way.split(','):
                with gateway(Path(directory) / way, far, ca) as gate:
                    each, alive = measure(gate, far, way, args.count, args.idle, ca.ca)
                print('idle %s %d %.2f KB each, %d alive' % (way, args.count, each, alive), flush=True)


if __name__ == '__main__':
    main()
