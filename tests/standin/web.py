"""A small HTTP/1.1 and HTTP/2 server core on asyncio, made for misbehaving on purpose.

A handler gets a Request, whose body it may read whole or in pieces, and answers through it, or
breaks the connection in one of several ways. Nothing is hidden: raw target, headers in the order
they came, the connection's number, whether it was TLS.
"""
import asyncio
import itertools
import socket
import ssl
import struct
import time
from email.utils import formatdate

HIGH_WATER = 1 << 20        # unread body bytes after which reading from the socket pauses
MAX_HEAD = 64 * 1024


class Gone(Exception):
    """The peer went away, or the connection was broken, while a request was being handled."""


class Counters:
    """What a listener has seen of connections; shared by all connections of one port."""

    def __init__(self):
        self.tcp = self.tls = self.tls_failed = self.tls_resumed = 0
        self.h1 = self.h2 = self.h2_streams = 0
        self.now = self.peak = self.requests = self.protocol_errors = self.goaways = 0

    def opened(self):
        self.now += 1
        self.peak = max(self.peak, self.now)

    def dump(self):
        return dict(vars(self))


class Request:
    """One request. `headers` keeps order and spelling; `get()` is case-insensitive, first wins."""
    __slots__ = ('method', 'target', 'path', 'query', 'headers', 'version', 'wire', 'conn_id',
                 'stream_id', 'length', 'tls', 'peer_cert', 'received', 'status', 'answered',
                 '_index', 'sent')

    def __init__(self, method, target, headers, version, wire, conn):
        self.method, self.target, self.headers, self.version = method, target, headers, version
        self.path, _, self.query = target.partition('?')
        self.wire, self.conn_id, self.stream_id = wire, conn.number, 0
        self.length, self.tls, self.peer_cert = None, conn.tls, conn.peer_cert
        self.received, self.status, self.answered, self._index = 0, 0, False, None
        self.sent = 0

    def get(self, name, default=None):
        """First value of a header, by lower-case name."""
        if self._index is None:
            index = {}
            for key, value in self.headers:
                index.setdefault(key.lower(), value)
            self._index = index
        return self._index.get(name, default)

    async def chunks(self):
        """The body in pieces as they arrive; raises Gone if it is cut short."""
        while True:
            data = await self.wire.body_piece(self)
            if not data:
                return
            self.received += len(data)
            yield data

    async def read(self):
        """The whole body."""
        first = await self.wire.body_piece(self)
        if not first:
            return b''
        self.received += len(first)
        if self.length is not None and self.received == self.length:
            # Still ask once more on HTTP/2, where the end of the stream is a flag of its own.
            if self.version != '2':
                return bytes(first)
        parts = [first]
        async for piece in self.chunks():
            parts.append(piece)
        return b''.join(parts)

    async def respond(self, status, headers=(), body=b''):
        """A whole answer with Content-Length (none for 204 and 304)."""
        self.status, self.answered = status, True
        self.sent += len(body)
        await self.wire.respond(self, status, headers, body)

    async def interim(self, status, headers=()):
        """An informational answer (1xx) before the real one."""
        await self.wire.interim(self, status, headers)

    async def start(self, status, headers=(), length=None):
        """The head of a streamed answer; `write` and `finish` follow."""
        self.status, self.answered = status, True
        await self.wire.start(self, status, headers, length)

    async def write(self, data):
        self.sent += len(data)
        await self.wire.write(self, data)

    async def finish(self):
        await self.wire.finish(self)

    def reset(self):
        """Ends the TCP connection with RST."""
        self.wire.conn_abort()

    def close(self):
        """Ends the TCP connection with FIN, without an answer (TLS: close_notify first)."""
        self.wire.conn_close()

    def corrupt(self):
        """Sends bytes that are no answer in the protocol spoken, then closes."""
        self.wire.corrupt(self)

    def rst_stream(self, code=2):
        """HTTP/2: resets this stream only. HTTP/1: the same as reset()."""
        self.wire.rst_stream(self, code)

    def goaway(self, last, code=0):
        """HTTP/2: GOAWAY with the given last stream id (None: this stream's)."""
        self.wire.goaway(self, last, code)

    async def gone(self):
        """Waits until the connection (or HTTP/2 stream) has ended."""
        await self.wire.wait_gone(self)


def rst(transport):
    """Closes a transport so that the kernel sends RST."""
    sock = transport.get_extra_info('socket')
    if sock is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        except OSError:
            pass
    transport.abort()


_date = [0, '']


def http_date():
    now = int(time.time())
    if _date[0] != now:
        _date[0], _date[1] = now, formatdate(now, usegmt=True)
    return _date[1]


class Connection(asyncio.Protocol):
    """Base of both protocols: transport, flow control towards the peer, life."""

    def __init__(self, server):
        self.server = server
        self.transport = None
        self.number = 0
        self.tls = False
        self.peer_cert = None
        self.lost = False
        self.can_write = True
        self.waiters = []
        self.lost_waiters = []
        self.served = 0             # requests taken on this connection
        self.limit = HIGH_WATER     # unread bytes after which reading pauses
        self.timer = None

    def adopt(self, transport):
        self.transport = transport
        self.number = next(self.server.numbers)
        tls = transport.get_extra_info('ssl_object')
        self.tls = tls is not None
        if tls is not None:
            cert = tls.getpeercert()
            self.peer_cert = cert.get('subject') if cert else None
        self.server.connections.add(self)
        self.server.counters.opened()

    def connection_lost(self, exc):
        if self.lost:
            return
        self.lost = True
        self.busy()
        self.server.connections.discard(self)
        self.server.counters.now -= 1
        self.wake_all()
        for waiter in self.lost_waiters:
            if not waiter.done():
                waiter.set_result(None)

    def rest(self):
        """Between requests: the connection may be closed for being idle, or for its age."""
        limit = self.server.max_requests
        if limit and self.served >= limit:
            self.conn_close()
        elif self.server.idle_timeout and not self.lost:
            self.busy()
            self.timer = self.server.loop.call_later(self.server.idle_timeout, self.conn_close)

    def busy(self):
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def wake_all(self):
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self):
        """Until something changed: data, room to write, or the end."""
        waiter = self.server.loop.create_future()
        self.waiters.append(waiter)
        await waiter

    async def drained(self):
        while not self.can_write and not self.lost:
            await self.wait()
        if self.lost:
            raise Gone()

    async def wait_lost(self):
        if not self.lost:
            waiter = self.server.loop.create_future()
            self.lost_waiters.append(waiter)
            await waiter

    def pause_writing(self):
        self.can_write = False

    def resume_writing(self):
        self.can_write = True
        self.wake_all()

    def conn_abort(self):
        if self.transport is not None and not self.lost:
            rst(self.transport)

    def slow_down(self):
        """Lets the peer feel a reader that does not keep up, as far as this side can."""
        self.limit = 4096
        sock = self.transport.get_extra_info('socket')
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)

    def conn_close(self):
        if self.transport is not None and not self.lost:
            self.transport.close()


class Listener:
    """One port. It stays bound from start to end, so that a refused connection during an outage
    is refused by us and the port cannot be taken by somebody else."""

    def __init__(self, handler, tls=None, host='127.0.0.1', port=0, max_streams=250):
        from .web1 import H1                # it needs this module's names itself
        self.protocol = H1
        self.handler, self.tls, self.host, self.max_streams = handler, tls, host, max_streams
        self.loop = asyncio.get_running_loop()
        self.counters = Counters()
        self.connections = set()
        self.numbers = itertools.count(1)
        self.extra_headers = []
        self.errors = []
        self.sock = self.accepting = None
        self.idle_timeout = None            # seconds a connection may wait for a request
        self.max_requests = None            # requests per connection, then FIN unannounced
        self.stall_accept = False           # accept, but never speak (a dead middlebox)
        self.placeholder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.placeholder.bind((host, port))
        self.port = self.placeholder.getsockname()[1]

    def failed(self):
        import traceback
        self.errors.append(traceback.format_exc())

    def count_handshake(self, transport):
        """Called at the start of a connection; returns whether ALPN chose HTTP/2."""
        tls = transport.get_extra_info('ssl_object')
        if tls is None:
            return False
        self.counters.tls += 1
        if tls.session_reused:
            self.counters.tls_resumed += 1
        return tls.selected_alpn_protocol() == 'h2'

    def open(self):
        if self.sock is not None:
            return
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((self.host, self.port))
        self.sock.listen(1024)
        self.sock.setblocking(False)
        self.loop.add_reader(self.sock.fileno(), self.accept)

    def shut(self, drop=True):
        """Refuses new connections from now on; `drop` also resets the ones there are, or, as
        'requests', those but the upgraded ones."""
        if self.sock is not None:
            self.loop.remove_reader(self.sock.fileno())
            self.sock.close()
            self.sock = None
        if drop:
            for conn in list(self.connections):
                if drop != 'requests' or getattr(conn, 'upgraded', None) is None:
                    conn.conn_abort()

    def alert(self, on):
        """TLS handshakes fail with an alert from now on, or work again; what is there is reset."""
        self.tls.sni_callback = (lambda *_: ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE) if on else None
        for conn in list(self.connections) if on else ():
            conn.conn_abort()

    def accept(self):
        for _ in range(64):
            try:
                sock, _addr = self.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            self.counters.tcp += 1
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.loop.create_task(self.adopt(sock))

    async def adopt(self, sock):
        if self.stall_accept:
            while self.stall_accept:
                await asyncio.sleep(0.05)
            sock.close()
            return
        try:
            await self.loop.connect_accepted_socket(lambda: self.protocol(self), sock, ssl=self.tls)
        except (OSError, ConnectionError):
            self.counters.tls_failed += 1
