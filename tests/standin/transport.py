"""HTTP clients on asyncio that put on the wire what Go's net/http and Java's OkHttp put there.

A Transport keeps connections, chooses HTTP/2 by ALPN, goes through a proxy, and reports failures
by kind, because the real clients decide by kind whether to try again. A Body is read like a Go
buffer: what was handed to the connection is gone from it, also when the request then fails."""
import asyncio
import collections
import socket
import ssl
import struct
import weakref
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from .goaway import GoawayFilter

PIECE = 32 * 1024


class TransportError(Exception):
    """A request that got no answer. Kinds: refused, dial, tls, proxy, eof, reset, pipe, closed
    (the connection broke while the body was being written), timeout (no answer's head in time),
    deadline (the whole call's time is over), protocol, stream (HTTP/2 RST_STREAM)."""

    def __init__(self, kind, text='', reused=False, unprocessed=False):
        super().__init__('%s %s' % (kind, text))
        self.kind, self.reused, self.unprocessed = kind, reused, unprocessed


class Body:
    """Bytes to send, with a read position that a failed attempt does not put back."""

    def __init__(self, data=b''):
        self.data, self.pos = bytes(data), 0

    def __len__(self):
        return len(self.data) - self.pos

    def take(self, count=PIECE):
        piece = self.data[self.pos:self.pos + count]
        self.pos += len(piece)
        return piece


class Response:
    def __init__(self, status, headers, body, version):
        self.status, self.headers, self.body, self.version = status, headers, body, version

    def get(self, name, default=None):
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return default


def go_headers(version, host, token, length, content_type=None):
    """What Go sends, in its order (HP 9.1). `length` None: no body and no length (DELETE, GET)."""
    if version == '2':
        fields = [('x-harness-token', token)] if token else []
        if length is not None:
            fields.append(('content-length', str(length)))
        return fields + [('accept-encoding', 'gzip'), ('user-agent', 'Go-http-client/2.0')]
    fields = [('Host', host), ('User-Agent', 'Go-http-client/1.1')]
    if length is not None:
        fields.append(('Content-Length', str(length)))
    if token:
        fields.append(('X-Harness-Token', token))
    return fields + [('Accept-Encoding', 'gzip')]


def java_headers(version, host, token, length, content_type=None):
    """What OkHttp sends: the caller's headers, then those its bridge adds."""
    fields = [('X-Harness-Token', token)] if token else []
    if content_type and length:
        fields.append(('Content-Type', content_type))
    if length is not None:
        fields.append(('Content-Length', str(length)))
    if version != '2':
        fields += [('Host', host), ('Connection', 'Keep-Alive')]
    fields += [('Accept-Encoding', 'gzip'), ('User-Agent', 'okhttp/4.9.3')]
    if version == '2':
        return [(name.lower(), value) for name, value in fields]
    return fields


def _kind_of(exc):
    if isinstance(exc, ConnectionRefusedError):
        return 'refused'
    if isinstance(exc, BrokenPipeError):
        return 'pipe'
    if isinstance(exc, ConnectionResetError):
        return 'reset'
    if isinstance(exc, ssl.SSLError):
        return 'tls'
    if isinstance(exc, (EOFError, asyncio.IncompleteReadError)):
        return 'eof'
    return 'dial'


class H1Conn:
    """One HTTP/1.1 connection; one request at a time."""
    version = '1.1'

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.reused = False
        self.broken = False

    def usable(self):
        return not (self.broken or self.reader.at_eof() or self.writer.is_closing()
                    or self.reader.exception())

    def close(self):
        self.broken = True
        self.writer.close()

    def kill(self):
        self.broken = True
        self.writer.transport.abort()

    async def exchange(self, method, target, fields, body, header_timeout, pseudo=None):
        head = '%s %s HTTP/1.1\r\n%s\r\n' % (
            method, target, ''.join('%s: %s\r\n' % field for field in fields))
        reading = asyncio.ensure_future(self.read_head())
        try:
            return await self.talk(method, head.encode('latin-1'), body, reading, header_timeout)
        except TransportError:
            self.kill()
            raise
        except (OSError, EOFError) as exc:
            self.kill()
            raise TransportError(_kind_of(exc), str(exc), self.reused) from None
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            if not reading.done():
                reading.cancel()
            elif not reading.cancelled():
                reading.exception()

    async def talk(self, method, head, body, reading, header_timeout):
        early = False
        if len(body) <= PIECE:
            self.writer.write(head + body.take())
            await self.writer.drain()
        else:
            self.writer.write(head)
            early = await self.send(body, reading)
        if not early:
            done, _ = await asyncio.wait({reading}, timeout=header_timeout)
            if not done:
                raise TransportError('timeout', 'awaiting response headers', self.reused)
        status, headers = reading.result()
        data, keep = await self.read_body(method, status, headers)
        if early or not keep:
            self.close()
        return Response(status, headers, data, '1.1')

    async def send(self, body, reading):
        """Writes a large body while watching for an answer; True if one came before the end."""
        try:
            while len(body):
                if reading.done():
                    if reading.exception() is not None:
                        raise TransportError('closed', 'during the body', self.reused)
                    return True
                self.writer.write(body.take())
                await self.writer.drain()
                await asyncio.sleep(0)
        except OSError:
            raise TransportError('closed', 'during the body', self.reused) from None
        return False

    async def read_head(self):
        while True:
            try:
                head = await self.reader.readuntil(b'\r\n\r\n')
            except asyncio.IncompleteReadError:
                raise TransportError('eof', '', self.reused) from None
            except asyncio.LimitOverrunError:
                raise TransportError('protocol', 'header too large', self.reused) from None
            lines = head[:-4].decode('latin-1').split('\r\n')
            parts = lines[0].split(' ', 2)
            if len(parts) < 2 or not parts[0].startswith('HTTP/1.') or not parts[1].isdigit():
                raise TransportError('protocol', 'malformed status line', self.reused)
            headers = []
            for line in lines[1:]:
                name, colon, value = line.partition(':')
                if not colon:
                    raise TransportError('protocol', 'malformed header', self.reused)
                headers.append((name, value.strip()))
            if not 100 <= int(parts[1]) < 200:
                return int(parts[1]), headers

    async def read_body(self, method, status, headers):
        """(body, whether the connection may be used again)"""
        low = {name.lower(): value for name, value in headers}
        keep = low.get('connection', '').lower() != 'close'
        if method == 'HEAD' or status in (204, 304):
            return b'', keep
        try:
            if low.get('transfer-encoding', '').lower() == 'chunked':
                return await self.read_chunked(), keep
            if 'content-length' in low:
                return await self.reader.readexactly(int(low['content-length'])), keep
            return await self.reader.read(), False
        except asyncio.IncompleteReadError:
            raise TransportError('eof', 'unexpected, in the body', self.reused) from None
        except ValueError:
            raise TransportError('protocol', 'bad framing', self.reused) from None

    async def read_chunked(self):
        parts = []
        while True:
            size = int((await self.reader.readuntil(b'\r\n')).split(b';')[0], 16)
            if size == 0:
                while await self.reader.readuntil(b'\r\n') != b'\r\n':
                    pass
                return b''.join(parts)
            parts.append((await self.reader.readexactly(size + 2))[:-2])


class _Flow:
    __slots__ = ('status', 'headers', 'parts', 'head', 'done', 'error', 'code')

    def __init__(self, loop):
        self.status, self.headers, self.parts = 0, [], []
        self.head, self.done = loop.create_future(), loop.create_future()
        self.error = None

    def fail(self, error):
        for future in (self.head, self.done):
            if not future.done():
                future.set_exception(error)
                future.exception()      # marked as seen; whoever waits still gets it


class H2Conn:
    """One HTTP/2 connection with Go's settings; many requests at once."""
    version = '2'

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.loop = asyncio.get_running_loop()
        self.reused = self.broken = self.draining = False
        self.flows, self.waiters = {}, []
        self.filter = GoawayFilter()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding='latin-1', validate_outbound_headers=False,
            normalize_outbound_headers=False))
        codes = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values={
            codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: 4194304,
            codes.MAX_FRAME_SIZE: 16384, codes.MAX_HEADER_LIST_SIZE: 10485760})
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 30)
        self.flush()
        self.task = asyncio.ensure_future(self.run())

    def flush(self):
        data = self.h2.data_to_send()
        if data and not self.writer.is_closing():
            self.writer.write(data)

    def usable(self):
        return not (self.broken or self.draining or self.reader.at_eof()
                    or self.writer.is_closing())

    def close(self):
        self.broken = True
        self.writer.close()

    kill = close

    async def run(self):
        error = TransportError('eof', '', True)
        try:
            while True:
                data = await self.reader.read(65536)
                if not data:
                    break
                data, goaways = self.filter.feed(data)
                for event in self.h2.receive_data(data):
                    self.on_event(event)
                for last in goaways:
                    self.on_goaway(last)
                self.flush()
                self.wake()
        except OSError as exc:
            error = TransportError(_kind_of(exc), str(exc), True)
        except h2.exceptions.ProtocolError as exc:
            error = TransportError('protocol', type(exc).__name__, True)
            self.flush()
        finally:
            self.broken = True
            self.writer.close()
            for flow in list(self.flows.values()):
                flow.fail(error)
            self.wake()

    def wake(self):
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self):
        waiter = self.loop.create_future()
        self.waiters.append(waiter)
        await waiter

    def on_goaway(self, last):
        """Streams above `last` were not looked at and go to another connection."""
        self.draining = True
        for number, flow in list(self.flows.items()):
            if number > last:
                flow.fail(TransportError('stream', 'goaway', True, unprocessed=True))

    def on_event(self, event):
        flow = self.flows.get(getattr(event, 'stream_id', None))
        if flow is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            flow.headers = [(k, v) for k, v in event.headers if not k.startswith(':')]
            flow.status = int(dict(event.headers)[':status'])
            if not flow.head.done():
                flow.head.set_result(None)
        elif isinstance(event, h2.events.DataReceived):
            flow.parts.append(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            if not flow.done.done():
                flow.done.set_result(None)
        elif isinstance(event, h2.events.StreamReset):
            refused = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
            if flow.head.done() and event.error_code == 0:
                if not flow.done.done():
                    flow.done.set_result(None)
            flow.fail(TransportError('stream', str(int(event.error_code)), True, refused))

    async def exchange(self, method, target, fields, body, header_timeout, pseudo=None):
        while (self.h2.open_outbound_streams
               >= self.h2.remote_settings.max_concurrent_streams):
            await self.wait()
            if not self.usable():
                break
        if not self.usable():
            raise TransportError('stream', 'connection is draining', True, unprocessed=True)
        number = self.h2.get_next_available_stream_id()
        flow = self.flows[number] = _Flow(self.loop)
        try:
            self.h2.send_headers(number, pseudo + fields, end_stream=not len(body))
            self.flush()
            await self.send(number, flow, body)
            done, _ = await asyncio.wait({flow.head}, timeout=header_timeout)
            if not done:
                raise TransportError('timeout', 'awaiting response headers', True)
            flow.head.result()
            await flow.done
            return Response(flow.status, flow.headers, b''.join(flow.parts), '2')
        except h2.exceptions.ProtocolError as exc:
            raise TransportError('protocol', type(exc).__name__, True) from None
        finally:
            self.flows.pop(number, None)
            flow.head.cancel()
            if not flow.done.done():
                self.cancel(number)

    def cancel(self, number):
        if self.broken:
            return
        try:
            self.h2.reset_stream(number, error_code=h2.errors.ErrorCodes.CANCEL)
            self.flush()
        except h2.exceptions.ProtocolError:
            pass

    async def send(self, number, flow, body):
        while len(body):
            if flow.done.done() or flow.head.done():
                return                      # answered, or failed, before the end
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                await self.wait()
                continue
            piece = body.take(room)
            self.h2.send_data(number, piece, end_stream=not len(body))
            self.flush()
            try:
                await self.writer.drain()
            except OSError as exc:
                raise TransportError(_kind_of(exc), str(exc), True) from None


class Transport:
    """Connections to any number of hosts.

    ca: file that certifies the servers; cert: (file, key) of a client certificate; h2: offer it
    by ALPN; per_host: idle HTTP/1 connections kept; proxy: URL of an HTTP proxy (CONNECT for
    https, absolute form for http); resolve: {host: address or (address, port)}; headers: the
    function that makes the header set; replay: OkHttp's repeat on a broken pooled connection."""

    def __init__(self, ca=None, cert=None, h2=True, per_host=2, proxy=None, resolve=None,
                 headers=go_headers, header_timeout=10.0, dial_timeout=30.0, replay=False,
                 insecure=False):
        self.h2, self.per_host, self.proxy, self.resolve = h2, per_host, proxy, resolve or {}
        self.headers, self.header_timeout, self.replay = headers, header_timeout, replay
        self.dial_timeout = dial_timeout
        self.context = ssl.create_default_context(cafile=ca)
        if insecure:
            self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        if cert:
            self.context.load_cert_chain(*cert)
        if h2:
            self.context.set_alpn_protocols(['h2', 'http/1.1'])
        self.idle = collections.defaultdict(list)       # origin -> idle HTTP/1 connections
        self.shared = {}                                # origin -> HTTP/2 connection
        self.dialled = 0
        self.live = weakref.WeakSet()
        self.locks = collections.defaultdict(asyncio.Lock)

    async def request(self, method, url, token=None, body=None, timeout=None, content_type=None,
                      length=True):
        """One call, with the repeats that the real transport does unseen. `body` is a Body;
        length=False leaves out Content-Length when there is no body."""
        body = body or Body()
        start = body.pos
        work = self.attempts(method, url, token, body, content_type, length, start)
        if timeout is None:
            return await work
        try:
            return await asyncio.wait_for(work, timeout)
        except asyncio.TimeoutError:
            raise TransportError('deadline', 'context deadline exceeded') from None

    async def attempts(self, method, url, token, body, content_type, length, start):
        for attempt in range(6):
            try:
                return await self.once(method, url, token, body, content_type, length)
            except TransportError as exc:
                again = exc.unprocessed or (self.replay and attempt == 0 and exc.reused
                                            and exc.kind in ('eof', 'reset', 'pipe', 'closed'))
                if not again or attempt == 5:
                    raise
                body.pos = start        # such a repeat starts from a copy of the body

    async def once(self, method, url, token, body, content_type, length):
        parts = urlsplit(url)
        tls = parts.scheme == 'https'
        host = parts.hostname
        port = parts.port or (443 if tls else 80)
        # The target is cut out of the URL as it is: urlsplit must not touch its escapes.
        target = '/' + url.split('://', 1)[1].partition('/')[2]
        conn = await self.connection(tls, host, port)
        count = len(body) if len(body) or length else None
        fields = self.headers(conn.version, parts.netloc, token, count, content_type)
        pseudo = None
        if conn.version == '2':
            pseudo = [(':authority', parts.netloc), (':method', method), (':path', target),
                      (':scheme', parts.scheme)]
        elif self.proxy and not tls:
            target = url
        try:
            answer = await conn.exchange(method, target, fields, body, self.header_timeout, pseudo)
        finally:
            self.release(tls, host, port, conn)
        return answer

    def release(self, tls, host, port, conn):
        if conn.version == '2':
            if conn.draining and not conn.flows:
                conn.close()
            return
        idle = self.idle[(tls, host, port)]
        if conn.usable() and len(idle) < self.per_host:
            conn.reused = True
            idle.append(conn)
        else:
            conn.close()

    async def connection(self, tls, host, port):
        origin = (tls, host, port)
        idle = self.idle[origin]
        while idle:
            conn = idle.pop()
            if conn.usable():
                return conn
            conn.close()
        shared = self.shared.get(origin)
        if shared is not None and shared.usable():
            return shared
        if tls and self.h2:                 # one dial at a time: the others share its connection
            async with self.locks[origin]:
                shared = self.shared.get(origin)
                if shared is not None and shared.usable():
                    return shared
                return await self.dial_errors(tls, host, port)
        return await self.dial_errors(tls, host, port)

    async def dial_errors(self, tls, host, port):
        try:
            return await asyncio.wait_for(self.dial(tls, host, port), self.dial_timeout)
        except asyncio.TimeoutError:
            raise TransportError('timeout', 'dial') from None
        except (OSError, EOFError) as exc:
            raise TransportError(_kind_of(exc), type(exc).__name__) from None

    async def dial(self, tls, host, port):
        self.dialled += 1
        origin = (tls, host, port)
        address = self.resolve.get(host, host)
        if self.proxy:
            via = urlsplit(self.proxy)
            reader, writer = await asyncio.open_connection(via.hostname, via.port, limit=1 << 17)
            if tls:
                await self.tunnel(reader, writer, host, port)
                await writer.start_tls(self.context, server_hostname=host)
        else:
            if isinstance(address, (tuple, list)):
                address, port = address
            reader, writer = await asyncio.open_connection(
                address, port, limit=1 << 17, ssl=self.context if tls else None,
                server_hostname=host if tls else None)
        session = writer.get_extra_info('ssl_object')
        if session is not None and session.selected_alpn_protocol() == 'h2':
            conn = self.shared[origin] = H2Conn(reader, writer)
        else:
            conn = H1Conn(reader, writer)
        self.live.add(conn)
        return conn

    @staticmethod
    async def tunnel(reader, writer, host, port):
        writer.write(('CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: Go-http-client/1.1'
                      '\r\n\r\n' % (host, port, host, port)).encode())
        head = await reader.readuntil(b'\r\n\r\n')
        if b' 200' not in head.split(b'\r\n')[0]:
            writer.close()
            raise TransportError('proxy', head.split(b'\r\n')[0].decode('latin-1'))

    def close(self):
        """Closes every connection kept."""
        for conns in self.idle.values():
            for conn in conns:
                conn.close()
        for conn in self.shared.values():
            conn.close()
        self.idle.clear()
        self.shared.clear()

    def abort(self):
        """As the process dying: every connection is reset."""
        for conn in list(self.live):
            sock = conn.writer.get_extra_info('socket')
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            conn.writer.transport.abort()
        self.idle.clear()
        self.shared.clear()
