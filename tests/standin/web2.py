"""The HTTP/2 side of the server core, on python-h2."""
import itertools
import struct

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from .goaway import GoawayFilter
from .web import MAX_HEAD, Connection, Gone, Request, http_date


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
        self.filter = GoawayFilter(skip=24)
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
        data, goaways = self.filter.feed(data)
        self.server.counters.goaways += len(goaways)
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
        self.served += 1
        self.busy()
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
            if not self.streams and not self.lost:
                self.flush()
                self.rest()

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

    async def interim(self, req, status, headers):
        self.stream_of(req)
        self.send_headers(req, status, headers, False)
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
