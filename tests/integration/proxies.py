"""What the tests of the proxy share: clients and destinations of raw bytes, the audit trail, a gateway in proxy mode."""
import contextlib
import json
import re
import socket
import struct
import threading

from gateway import wait_for

MB = 1 << 20


class Place:
    """Somewhere to connect to: a TCP server on a free port of `host`; each connection is given to `serve(socket)` in a thread of
    its own. `received` counts bytes that serve() puts there; `connections` are those that came."""

    def __init__(self, serve, host='127.0.0.1', port=0):
        self.serve = serve
        self.connections = []
        self.errors = []
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        self.socket = socket.create_server((host, port), family=family, backlog=1024)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, _ = self.socket.accept()
            except OSError:
                return
            self.connections.append(s)
            threading.Thread(target=self.run, args=(s,), daemon=True).start()

    def run(self, s):
        try:
            self.serve(s)
        except OSError as e:
            self.errors.append(e)

    def close(self):
        self.socket.close()
        for s in self.connections:
            s.close()


def echo(s):
    """Bytes back until the client's end, then the end."""
    with s:
        while True:
            piece = s.recv(65536)
            if not piece:
                s.shutdown(socket.SHUT_WR)
                return
            s.sendall(piece)


def keep(s):
    """Say nothing, read nothing, stay."""


def reset(s):
    """Close with a reset."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()


@contextlib.contextmanager
def place(serve=echo, **kw):
    p = Place(serve, **kw)
    try:
        yield p
    finally:
        p.close()


def read_head(s):
    """(status, head), and not a byte more; (0, ...) if the connection ended without one."""
    got = b''
    while not got.endswith(b'\r\n\r\n'):
        try:
            piece = s.recv(1)
        except ConnectionResetError:
            piece = b''
        if not piece:
            return 0, got.decode('latin-1')
        got += piece
    return int(got.split()[1]), got.decode('latin-1').removesuffix('\r\n\r\n')


def read_all(s):
    out = b''
    while True:
        piece = s.recv(1 << 20)
        if not piece:
            return out
        out += piece


def read_exactly(s, n):
    out = bytearray()
    while len(out) < n:
        piece = s.recv(min(1 << 20, n - len(out)))
        assert piece, f'{len(out)} of {n} bytes'
        out += piece
    return bytes(out)


def dial(gw, listener='proxy', timeout=20):
    return socket.create_connection(('127.0.0.1', gw.ports[listener]), timeout)


def ask(gw, target, *lines, host=None, early=b'', listener='proxy', timeout=20):
    """CONNECT: (socket, status, head)."""
    s = dial(gw, listener, timeout)
    fields = [f'CONNECT {target} HTTP/1.1', f'Host: {target if host is None else host}', *lines]
    s.sendall('\r\n'.join(fields + ['', '']).encode('latin-1') + early)
    status, head = read_head(s)
    return s, status, head


def status_of(gw, target, *lines, **kw):
    s, status, head = ask(gw, target, *lines, **kw)
    with s:
        if status != 200:
            # What is no HTTP at all is told why, in JSON; a proxy's own answers have no body.
            assert 'html' not in head.lower() and re.search(r'(?i)\r\ncontent-length: \d\d?(\r\n|$)', head), head
            assert status == 400 or re.search(r'(?i)\r\ncontent-length: 0(\r\n|$)', head), head
            assert status == 407 or 'proxy-authenticate' not in head.lower()
    return status


def tunnel(gw, target, **kw):
    """A CONNECT that must stand."""
    s, status, head = ask(gw, target, **kw)
    assert status == 200, head
    return s


def get(gw, url, *lines, method='GET', body=b'', listener='proxy', shut=False):
    """An absolute-form request, alone on its connection: (status, head, body as it came)."""
    with dial(gw, listener) as s:
        host = url.split('/')[2] if '//' in url else 'x'
        fields = [f'{method} {url} HTTP/1.1', *(lines or [f'Host: {host}']), 'Connection: close', '', '']
        s.sendall('\r\n'.join(fields).encode('latin-1') + body)
        if shut:
            s.shutdown(socket.SHUT_WR)
        status, head = read_head(s)
        try:
            return status, head, read_all(s)
        except ConnectionResetError:
            return status, head, b'reset'


class Trail:
    """An audit trail in a file, as JSON."""

    def __init__(self, path):
        self.path = path

    def entries(self, **match):
        if not self.path.exists():
            return []
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [e for e in found if all(e.get(k) == v for k, v in match.items())]

    def last(self, timeout=10, count=1, **match):
        """The last entry that matches, once there are `count`."""
        return wait_for(lambda: len(self.entries(**match)) >= count and self.entries(**match)[-1], timeout,
                        what=f'{match} in {self.entries()}')


# Everything under .example may be asked for and may lead to 127.0.0.1 and ::1; so may those addresses themselves.
RULES = {
    'local': {'hosts': ['127.0.0.1', '::1'], 'ports': ['1-65535']},
    'names': {'hosts': ['*.example'], 'ports': ['1-65535'], 'addresses': ['127.0.0.1', '::1']},
}


def proxy_at(make, names=None, trail=None, **options):
    """A gateway in proxy mode; its audit trail is `trail` of it."""
    from gateway import merge
    base = {
        'listen': {'proxy': {'address': '127.0.0.1:0'}},
        'egress': {'profile': 'none'},
        'rules': RULES,
        'workers': 1,
        'drain': {'limit': '1s'},
    }
    if names:
        base['upstream'] = {'resolvers': [names.address]}
    options = merge(base, options)
    gw = make('http://127.0.0.1:9', start=False, **options)
    path = gw.directory / 'audit.json'
    gw.options = merge({'audit': {'to': 'file', 'file': str(path), 'format': 'json'}}, gw.options)
    gw.start()
    gw.trail = Trail(path)
    return gw
