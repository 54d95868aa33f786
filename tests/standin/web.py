"""A small HTTP/1.1 and HTTP/2 server core on asyncio, made for misbehaving on purpose.

A handler gets a Request, whose body it may read whole or in pieces, and answers through it, or
breaks the connection in one of several ways. Nothing is hidden: raw target, headers in the order
they came, the connection's number, whether it was TLS.
"""
import asyncio
import itertools
import socket
import struct
import time
from email.utils import formatdate

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

REASONS = {100: 'Continue', 101: 'Switching Protocols', 200: 'OK', 204: 'No Content',
           302: 'Found', 400: 'Bad Request', 403: 'Forbidden', 404: 'Not Found',
           413: 'Payload Too Large', 429: 'Too Many Requests', 500: 'Internal Server Error',
           502: 'Bad Gateway', 503: 'Service Unavailable', 504: 'Gateway Timeout'}
HIGH_WATER = 1 << 20        # unread body bytes after which reading from the socket pauses
MAX_HEAD = 64 * 1024
PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'


class Gone(Exception):
    """The peer went away, or the connection was broken, while a request was being handled."""


class Counters:
    """What a listener has seen of connections; shared by all connections of one port."""

    def __init__(self):
        self.tcp = self.tls = self.tls_failed = self.tls_resumed = 0
        self.h1 = self.h2 = self.h2_streams = 0
        self.now = self.peak = self.requests = self.protocol_errors = 0

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
        self.server.connections.discard(self)
        self.server.counters.now -= 1
        self.wake_all()
        for waiter in self.lost_waiters:
            if not waiter.done():
                waiter.set_result(None)

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

    def conn_close(self):
        if self.transport is not None and not self.lost:
            self.transport.close()


class H1(Connection):
    """HTTP/1.1, one request after another; becomes H2 when the client's preface says so."""

    def __init__(self, server):
        super().__init__(server)
        self.buf = bytearray()
        self.eof = self.paused = False
        self.left = 0               # body bytes left, -1 = chunked, chunk state in `chunk`
        self.chunk = 0
        self.task = None
        self.keep = True
        self.chunked_out = False
        self.want_100 = False
        self.upgraded = None        # protocol object that takes the bytes after a 101

    def connection_made(self, transport):
        if self.server.count_handshake(transport):
            other = H2(self.server)
            transport.set_protocol(other)
            other.connection_made(transport)
            return
        self.adopt(transport)

    def data_received(self, data):
        if self.upgraded is not None:
            self.upgraded.data_received(data)
            return
        self.buf += data
        if self.task is None:
            if PREFACE.startswith(self.buf[:len(PREFACE)]):
                if len(self.buf) >= len(PREFACE):
                    self.become_h2()
                return
            self.server.counters.h1 += 1
            self.task = self.server.loop.create_task(self.run())
            return
        if len(self.buf) > HIGH_WATER and not self.paused:
            self.paused = True
            self.transport.pause_reading()
        if self.waiters:
            self.wake_all()

    def become_h2(self):
        other = H2(self.server)
        self.server.connections.discard(self)
        self.server.counters.now -= 1
        self.lost = True
        self.transport.set_protocol(other)
        other.connection_made(self.transport)
        other.data_received(bytes(self.buf))

    def eof_received(self):
        self.eof = True
        if self.upgraded is not None:
            self.upgraded.eof_received()
        self.wake_all()
        return False

    def connection_lost(self, exc):
        super().connection_lost(exc)
        if self.upgraded is not None:
            self.upgraded.connection_lost(exc)

    async def more(self):
        if self.lost or self.eof:
            raise Gone()
        if self.paused:
            self.paused = False
            self.transport.resume_reading()
        await self.wait()

    async def run(self):
        try:
            while self.keep and not self.lost:
                req = await self.next_request()
                if req is None:
                    break
                self.server.counters.requests += 1
                await self.server.handler(req)
                if self.upgraded is not None:
                    return
                if not req.answered:
                    break
                await self.skip_rest(req)
            self.conn_close()
        except Gone:
            self.conn_close()
        except Exception:                   # a bug in a handler must be seen by the test
            self.server.failed()
            self.conn_abort()

    async def skip_rest(self, req):
        """What a handler left of the body, so that the next request starts where it should."""
        if self.want_100:                   # the client never was asked for it
            self.keep = False
            return
        while self.left and await self.body_piece(req):
            pass

    async def next_request(self):
        while True:
            end = self.buf.find(b'\r\n\r\n')
            if end >= 0:
                break
            if len(self.buf) > MAX_HEAD:
                return self.bad()
            if self.lost or self.eof:
                return None
            await self.more()
        head = self.buf[:end].decode('latin-1')
        del self.buf[:end + 4]
        lines = head.split('\r\n')
        parts = lines[0].split(' ')
        if len(parts) != 3 or not parts[2].startswith('HTTP/1.'):
            return self.bad()
        headers, length, chunked = [], None, False
        self.keep, self.want_100 = parts[2] != 'HTTP/1.0', False
        for line in lines[1:]:
            name, colon, value = line.partition(':')
            if not colon or not name or name[-1] in ' \t' or name[0] in ' \t':
                return self.bad()
            value = value.strip(' \t')
            headers.append((name, value))
            low = name.lower()
            if low == 'content-length':
                if not value.isdigit() or (length is not None and length != int(value)):
                    return self.bad()
                length = int(value)
            elif low == 'transfer-encoding':
                if value.lower() != 'chunked' or chunked:
                    return self.bad()
                chunked = True
            elif low == 'connection':
                if 'close' in value.lower():
                    self.keep = False
            elif low == 'expect':
                self.want_100 = value.lower() == '100-continue'
        if chunked and length is not None:
            return self.bad()
        req = Request(parts[0], parts[1], headers, parts[2][5:], self, self)
        req.length = None if chunked else (length or 0)
        self.left, self.chunk = (-1 if chunked else (length or 0)), 0
        return req

    def bad(self):
        self.server.counters.protocol_errors += 1
        self.transport.write(b'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n'
                             b'Content-Length: 0\r\n\r\n')
        self.keep = False
        return None

    async def body_piece(self, req):
        if self.left == 0:
            return b''
        if self.want_100:
            self.want_100 = False
            self.transport.write(b'HTTP/1.1 100 Continue\r\n\r\n')
        if self.left < 0:
            return await self.chunked_piece()
        while not self.buf:
            await self.more()
        return self.take(min(self.left, len(self.buf)))

    def take(self, count):
        if count == len(self.buf):
            data, self.buf = bytes(self.buf), bytearray()
        else:
            data = bytes(self.buf[:count])
            del self.buf[:count]
        if self.left > 0:
            self.left -= count
        return data

    async def line(self):
        while True:
            end = self.buf.find(b'\r\n')
            if end >= 0:
                data = bytes(self.buf[:end])
                del self.buf[:end + 2]
                return data
            if len(self.buf) > MAX_HEAD:
                raise Gone()
            await self.more()

    async def chunked_piece(self):
        if self.chunk == 0:
            size = (await self.line()).split(b';')[0].strip()
            try:
                self.chunk = int(size, 16)
            except ValueError:
                self.bad()
                raise Gone() from None
            if self.chunk == 0:
                while await self.line():
                    pass
                self.left = 0
                return b''
        while not self.buf:
            await self.more()
        count = min(self.chunk, len(self.buf))
        data = self.take(count)
        self.chunk -= count
        if self.chunk == 0:
            if await self.line():
                self.bad()
                raise Gone()
        return data

    def head(self, status, headers):
        lines = ['HTTP/1.1 %d %s\r\nDate: %s\r\n' % (status, REASONS.get(status, 'Status'),
                                                     http_date())]
        for name, value in self.server.extra_headers:
            lines.append('%s: %s\r\n' % (name, value))
        for name, value in headers:
            lines.append('%s: %s\r\n' % (name, value))
            if name.lower() == 'connection' and value.lower() == 'close':
                self.keep = False
        return lines

    async def respond(self, req, status, headers, body):
        if self.lost:
            raise Gone()
        lines = self.head(status, headers)
        if status not in (204, 304) and status >= 200:
            lines.append('Content-Length: %d\r\n' % len(body))
        lines.append('\r\n')
        data = ''.join(lines).encode('latin-1')
        self.transport.write(data + body if req.method != 'HEAD' else data)
        if not self.can_write:
            await self.drained()

    async def start(self, req, status, headers, length):
        if self.lost:
            raise Gone()
        lines = self.head(status, headers)
        self.chunked_out = length is None and status not in (101, 204, 304)
        if self.chunked_out and req.version == '1.0':
            self.chunked_out = False
        elif self.chunked_out:
            lines.append('Transfer-Encoding: chunked\r\n')
        elif length is not None:
            lines.append('Content-Length: %d\r\n' % length)
        lines.append('\r\n')
        self.transport.write(''.join(lines).encode('latin-1'))

    async def write(self, req, data):
        if self.lost:
            raise Gone()
        if data:
            if self.chunked_out:
                data = b'%x\r\n%b\r\n' % (len(data), data)
            self.transport.write(data)
            await self.drained()

    async def finish(self, req):
        if self.lost:
            raise Gone()
        if self.chunked_out:
            self.transport.write(b'0\r\n\r\n')
            self.chunked_out = False

    def corrupt(self, req):
        if not self.lost:
            self.transport.write(b'\x00\x01nonsense that is no status line\r\n\r\n')
            self.conn_close()

    def rst_stream(self, req, code):
        self.conn_abort()

    def goaway(self, req, last, code):
        self.keep = False

    async def wait_gone(self, req):
        await self.wait_lost()


class _Stream:
    __slots__ = ('req', 'pieces', 'ended', 'reset', 'unacked', 'sent_head')

    def __init__(self):
        self.req, self.pieces, self.ended, self.reset = None, [], False, False
        self.unacked, self.sent_head = 0, False


class H2(Connection):
    """HTTP/2, a task per stream."""

    def __init__(self, server):
        super().__init__(server)
        config = h2.config.H2Configuration(
            client_side=False, header_encoding='latin-1', validate_inbound_headers=False,
            normalize_inbound_headers=False, validate_outbound_headers=False,
            normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.streams = {}
        self.flush_due = False

    def connection_made(self, transport):
        self.adopt(transport)
        self.server.counters.h2 += 1
        setting = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values={
            setting.MAX_CONCURRENT_STREAMS: self.server.max_streams,
            setting.INITIAL_WINDOW_SIZE: 1 << 20,
            setting.MAX_HEADER_LIST_SIZE: MAX_HEAD})
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window((1 << 24) - 65535)
        self.flush()

    def flush(self):
        self.flush_due = False
        if not self.lost:
            data = self.h2.data_to_send()
            if data:
                self.transport.write(data)

    def flush_soon(self):
        if not self.flush_due:
            self.flush_due = True
            self.server.loop.call_soon(self.flush)

    def data_received(self, data):
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.server.counters.protocol_errors += 1
            self.flush()
            self.conn_close()
            return
        wake = False
        for event in events:
            wake = self.on_event(event) or wake
        self.flush_soon()
        if wake:
            self.wake_all()

    def on_event(self, event):
        """Returns whether tasks waiting on this connection may have something to do."""
        if isinstance(event, h2.events.RequestReceived):
            self.begin(event)
            return False
        if isinstance(event, h2.events.DataReceived):
            stream = self.streams.get(event.stream_id)
            if stream is None:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                return False
            if event.data:
                stream.pieces.append(event.data)
            stream.unacked += event.flow_controlled_length
            return True
        if isinstance(event, h2.events.StreamEnded):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                stream.ended = True
            return True
        if isinstance(event, h2.events.StreamReset):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                stream.reset = True
            return True
        if isinstance(event, h2.events.ConnectionTerminated):
            return True
        return isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged))

    def begin(self, event):
        fields = {}
        headers = []
        for name, value in event.headers:
            if name.startswith(':'):
                fields[name] = value
            else:
                headers.append((name, value))
        if ':authority' in fields:
            headers.insert(0, ('host', fields[':authority']))
        req = Request(fields.get(':method', ''), fields.get(':path', ''), headers, '2', self, self)
        req.stream_id = event.stream_id
        length = req.get('content-length')
        req.length = int(length) if length and length.isdigit() else None
        stream = _Stream()
        stream.req, stream.ended = req, event.stream_ended is not None
        self.streams[event.stream_id] = stream
        self.server.counters.h2_streams += 1
        self.server.counters.requests += 1
        self.server.loop.create_task(self.run(stream))

    async def run(self, stream):
        req = stream.req
        try:
            await self.server.handler(req)
            if not stream.ended and not self.lost and not stream.reset:
                # As Go's server does: an answer without the body ends the stream with NO_ERROR.
                self.rst_stream(req, 0)
        except Gone:
            if not self.lost and not stream.reset:
                self.rst_stream(req, 2)
        except Exception:
            self.server.failed()
            self.conn_abort()
        finally:
            self.drop(req.stream_id)

    def drop(self, stream_id):
        stream = self.streams.pop(stream_id, None)
        if stream is not None and stream.unacked and not self.lost:
            # The stream may be gone; the connection's window has to be given back all the same.
            try:
                self.h2.acknowledge_received_data(stream.unacked, stream_id)
                self.flush_soon()
            except (h2.exceptions.ProtocolError, ValueError):
                pass

    def stream_of(self, req):
        stream = self.streams.get(req.stream_id)
        if self.lost or stream is None or stream.reset:
            raise Gone()
        return stream

    async def body_piece(self, req):
        while True:
            stream = self.stream_of(req)
            if stream.pieces:
                data = b''.join(stream.pieces)
                stream.pieces.clear()
                self.ack(req, stream)
                return data
            if stream.ended:
                return b''
            await self.wait()

    def ack(self, req, stream):
        count, stream.unacked = stream.unacked, 0
        if count:
            try:
                self.h2.acknowledge_received_data(count, req.stream_id)
            except h2.exceptions.ProtocolError:
                return
            self.flush_soon()

    def send_headers(self, req, status, headers, end):
        fields = [(':status', str(status)), ('date', http_date())]
        for name, value in itertools.chain(self.server.extra_headers, headers):
            low = name.lower()
            if low not in ('connection', 'keep-alive', 'transfer-encoding', 'upgrade'):
                fields.append((low, value))
        try:
            self.h2.send_headers(req.stream_id, fields, end_stream=end)
        except h2.exceptions.ProtocolError:
            raise Gone() from None

    async def respond(self, req, status, headers, body):
        self.stream_of(req)
        if status not in (204, 304):
            headers = list(headers) + [('content-length', str(len(body)))]
        if req.method == 'HEAD':
            body = b''
        self.send_headers(req, status, headers, not body)
        if body:
            await self.write(req, body)
            await self.finish(req)
        self.flush_soon()

    async def start(self, req, status, headers, length):
        self.stream_of(req)
        headers = list(headers)
        if length is not None:
            headers.append(('content-length', str(length)))
        self.send_headers(req, status, headers, False)
        self.flush_soon()

    async def write(self, req, data):
        view = memoryview(data)
        while view:
            self.stream_of(req)
            try:
                room = min(self.h2.local_flow_control_window(req.stream_id),
                           self.h2.max_outbound_frame_size)
                if room > 0:
                    self.h2.send_data(req.stream_id, bytes(view[:room]))
            except h2.exceptions.ProtocolError:
                raise Gone() from None
            if room > 0:
                view = view[room:]
                self.flush_soon()
                if not self.can_write:
                    await self.drained()
            else:
                self.flush()
                await self.wait()
        await self.drained()

    async def finish(self, req):
        self.stream_of(req)
        try:
            self.h2.end_stream(req.stream_id)
        except h2.exceptions.ProtocolError:
            raise Gone() from None
        self.flush_soon()

    def corrupt(self, req):
        if not self.lost:
            # A frame of type HEADERS whose block is no HPACK, on the request's stream.
            payload = b'\xff' * 20
            self.transport.write(len(payload).to_bytes(3, 'big') + b'\x01\x05' +
                                 req.stream_id.to_bytes(4, 'big') + payload)

    def rst_stream(self, req, code):
        try:
            self.h2.reset_stream(req.stream_id, error_code=code)
        except h2.exceptions.ProtocolError:
            return
        self.flush_soon()

    def goaway(self, req, last, code):
        """Written by hand: python-h2 would refuse to go on with the streams below `last`."""
        if not self.lost:
            self.flush()
            last = req.stream_id if last is None else last
            self.transport.write(b'\x00\x00\x08\x07\x00\x00\x00\x00\x00' +
                                 struct.pack('>II', last, code))

    async def wait_gone(self, req):
        while True:
            try:
                self.stream_of(req)
            except Gone:
                return
            await self.wait()


class Listener:
    """One port. It stays bound from start to end, so that a refused connection during an outage
    is refused by us and the port cannot be taken by somebody else."""

    def __init__(self, handler, tls=None, host='127.0.0.1', port=0, max_streams=250):
        self.handler, self.tls, self.host, self.max_streams = handler, tls, host, max_streams
        self.loop = asyncio.get_running_loop()
        self.counters = Counters()
        self.connections = set()
        self.numbers = itertools.count(1)
        self.extra_headers = []
        self.errors = []
        self.sock = self.accepting = None
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
        """Refuses new connections from now on; `drop` also resets the ones there are."""
        if self.sock is not None:
            self.loop.remove_reader(self.sock.fileno())
            self.sock.close()
            self.sock = None
        if drop:
            for conn in list(self.connections):
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
            await self.loop.connect_accepted_socket(lambda: H1(self), sock, ssl=self.tls)
        except (OSError, ConnectionError):
            self.counters.tls_failed += 1
