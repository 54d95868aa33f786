"""The HTTP/1.1 side of the server core."""
from .web import MAX_HEAD, Connection, Gone, Request, http_date
from .web2 import H2

REASONS = {100: 'Continue', 101: 'Switching Protocols', 200: 'OK', 204: 'No Content',
           103: 'Early Hints', 302: 'Found', 400: 'Bad Request', 403: 'Forbidden', 404: 'Not Found',
           413: 'Payload Too Large', 429: 'Too Many Requests', 500: 'Internal Server Error',
           502: 'Bad Gateway', 503: 'Service Unavailable', 504: 'Gateway Timeout'}
PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'


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
        if len(self.buf) > self.limit and not self.paused:
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
                if self.served and not self.buf:
                    self.rest()
                req = await self.next_request()
                self.busy()
                if req is None:
                    break
                self.server.counters.requests += 1
                self.served += 1
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

    async def interim(self, req, status, headers):
        if self.lost:
            raise Gone()
        self.transport.write(''.join(self.head(status, headers) + ['\r\n']).encode('latin-1'))

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
        self.chunked_out = self.chunked_out and req.method != 'HEAD'
        self.transport.write(''.join(lines).encode('latin-1'))

    async def write(self, req, data):
        if self.lost:
            raise Gone()
        if data and req.method != 'HEAD':
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
