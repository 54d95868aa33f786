"""The delegate's side of the SaaS: the WebSocket (HP 4.2) and an echo for every relayed call."""
import asyncio
import base64
import hashlib
import json
import time

from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType
from wsproto import events as ev
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from . import gojson

GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
PATTERN = bytes(range(256)) * 256


def pattern(offset, count):
    """Bytes of the deterministic answer body: byte n is n modulo 256."""
    start = offset % 256
    return PATTERN[start:start + count]


def echo_answer(req, digest):
    """What an echo says: everything a relay could have changed."""
    body = json.dumps({'method': req.method, 'target': req.target, 'headers': req.headers,
                       'version': req.version, 'body_sha256': digest,
                       'body_len': req.received, 'conn': req.conn_id, 'tls': req.tls,
                       'peer_cert': req.peer_cert}).encode()
    return 200, [('Content-Type', 'application/json')], body


async def echo(req):
    """Any call that is not the log service's. Query switches: respond=N bytes of the pattern,
    chunked=1, status=N, wait=seconds before the answer, h=Name:value, mirror=1 (the body comes
    back while it is being sent), trickle=seconds between pieces of 16 KiB."""
    params = gojson.query(req.query)
    status = int(params.get('status', 200))
    headers = [tuple(params['h'].split(':', 1))] if ':' in params.get('h', '') else []
    if params.get('mirror'):
        await req.start(status, headers + [('Content-Type', 'application/octet-stream')],
                        None if params.get('chunked') else req.length)
        async for piece in req.chunks():
            await req.write(piece)
        await req.finish()
        return
    digest = hashlib.sha256()
    async for piece in req.chunks():
        digest.update(piece)
    if params.get('wait'):
        await asyncio.sleep(float(params['wait']))
    if 'respond' in params:
        await respond_pattern(req, params, status, headers, digest.hexdigest())
        return
    _, more, body = echo_answer(req, digest.hexdigest())
    await req.respond(status, headers + more, body if status not in (204, 304) else b'')


async def respond_pattern(req, params, status, headers, digest):
    size, sent = int(params['respond']), 0
    await req.start(status, headers + [('Content-Type', 'application/octet-stream'),
                                       ('X-Body-Sha256', digest)],
                    None if params.get('chunked') else size)
    while sent < size and req.method != 'HEAD':
        piece = pattern(sent, min(size - sent, 16384))
        await req.write(piece)
        sent += len(piece)
        if params.get('trickle'):
            await asyncio.sleep(float(params['trickle']))
    await req.finish()


class Socket:
    """One delegate connection after its upgrade. Takes the bytes of the H1 connection."""

    def __init__(self, owner, req, number):
        self.owner, self.number, self.wire = owner, number, req.wire
        self.frames = Frames(ConnectionType.SERVER)
        self.info = {
            'id': number, 'path': req.path, 'query': req.query, 'headers': req.headers,
            'target': req.target, 'account': req.path.rstrip('/').rsplit('/', 1)[-1],
            'opened': time.time(), 'open': True, 'messages': [], 'pings': 0, 'pongs': 0,
            'closed': None}
        self.parts, self.kind, self.sizes, self.size = [], None, [], 0
        self.close_sent = False

    def data_received(self, data):
        try:
            self.frames.receive_data(data)
            for event in self.frames.events():
                self.on_event(event)
        except (RemoteProtocolError, LocalProtocolError) as exc:
            self.info['error'] = str(exc)
            self.wire.conn_abort()

    def eof_received(self):
        self.done({'how': 'fin'})

    def connection_lost(self, exc):
        self.done({'how': 'abrupt' if exc else 'lost'})

    def done(self, how):
        if self.info['open']:
            self.info['open'], self.info['closed'] = False, how
            self.info['ended'] = time.time()

    def on_event(self, event):
        if isinstance(event, (ev.TextMessage, ev.BytesMessage)):
            self.on_data(event)
        elif isinstance(event, ev.Ping):
            self.info['pings'] += 1
            self.send(event.response())
        elif isinstance(event, ev.Pong):
            self.info['pongs'] += 1
        elif isinstance(event, ev.CloseConnection):
            self.done({'how': 'close', 'code': event.code, 'reason': event.reason})
            if not self.close_sent:
                self.send(event.response())
            self.wire.conn_close()

    def on_data(self, event):
        """Collects a message and the sizes of its frames, whose boundaries a relay must keep."""
        self.parts.append(event.data)
        self.size += len(event.data) if isinstance(event, ev.BytesMessage) \
            else len(event.data.encode())
        if event.frame_finished:
            self.sizes.append(self.size)
            self.size = 0
        if not event.message_finished:
            return
        text = isinstance(event, ev.TextMessage)
        data = ''.join(self.parts) if text else b''.join(self.parts)
        message = {'at': time.time(), 'kind': 'text' if text else 'binary',
                   'frames': self.sizes}
        message['text' if text else 'base64'] = data if text else base64.b64encode(data).decode()
        self.info['messages'].append(message)
        self.parts, self.sizes = [], []
        if text:
            self.answer(data)
        elif self.owner.app.options.ws_echo:
            self.send(ev.BytesMessage(data=data))

    def answer(self, text):
        """A heartbeat gets its response (HP 4.2), anything else comes back as it is."""
        try:
            params = json.loads(text)
        except ValueError:
            params = None
        if isinstance(params, dict) and 'lastHeartBeat' in params:
            self.text(json.dumps(
                {'eventType': 'DelegateHeartbeatResponseStreaming',
                 'delegateId': params.get('delegateId'), 'status': 'ENABLED',
                 'responseSentAt': int(time.time() * 1000)}, separators=(',', ':')))
        elif self.owner.app.options.ws_echo:
            self.text(text)

    def text(self, text, pieces=1):
        """A text message in `pieces` frames."""
        if pieces <= 1:
            self.send(ev.TextMessage(data=text))
            return
        step = max(1, -(-len(text) // pieces))
        cuts = [text[pos:pos + step] for pos in range(0, len(text), step)]
        for index, cut in enumerate(cuts):
            self.send(ev.TextMessage(data=cut, message_finished=index == len(cuts) - 1))

    def send(self, event):
        if not self.wire.lost:
            try:
                self.wire.transport.write(self.frames.send(event))
            except LocalProtocolError as exc:
                self.info['error'] = str(exc)

    def close(self, code, reason):
        self.close_sent = True
        self.send(ev.CloseConnection(code=code, reason=reason))


def task_event(kind, account, delegate_id, number):
    """A server event; the delegate recognises it by how the text begins."""
    return json.dumps({'eventType': kind, 'accountId': account, 'delegateId': delegate_id,
                       'delegateTaskId': 'task%d' % number, 'sync': False},
                      separators=(',', ':'))


class Delegates:
    """All delegate sockets, open and gone."""

    def __init__(self, app):
        self.app, self.sockets, self.tasks = app, [], 0
        self.refused = []

    def dump(self):
        return [sock.info for sock in self.sockets]

    async def upgrade(self, req, entry):
        key = req.get('sec-websocket-key')
        if (req.version != '1.1' or req.method != 'GET' or key is None
                or (req.get('upgrade') or '').lower() != 'websocket'
                or 'upgrade' not in (req.get('connection') or '').lower()
                or req.get('sec-websocket-version') != '13'):
            await req.respond(400, [('Connection', 'close')], b'not a WebSocket upgrade\n')
            return
        accept = base64.b64encode(hashlib.sha1(key.encode('latin-1') + GUID).digest()).decode()
        headers = [('Upgrade', 'websocket'), ('Connection', 'Upgrade'),
                   ('Sec-WebSocket-Accept', accept)]
        protocol = req.get('sec-websocket-protocol')
        if protocol:
            headers.append(('Sec-WebSocket-Protocol', protocol.split(',')[0].strip()))
        headers += [tuple(pair) for pair in self.app.options.ws_headers]
        sock = Socket(self, req, len(self.sockets) + 1)
        self.sockets.append(sock)
        entry['ws'] = sock.number
        await req.start(101, headers)
        wire = req.wire
        wire.upgraded = sock
        if wire.buf:
            data, wire.buf = bytes(wire.buf), bytearray()
            sock.data_received(data)

    def chosen(self, spec):
        found = [s for s in self.sockets if s.info['open']
                 and spec.get('account', s.info['account']) == s.info['account']
                 and spec.get('id', s.number) == s.number]
        if not found:
            raise ValueError('no such open socket')
        return found

    async def order(self, spec):
        """What a test tells the sockets to do; see README.md."""
        chosen = self.chosen(spec)
        for sock in chosen:
            for _ in range(spec.get('count', 1)):
                await self.one_order(sock, spec)
        return {'sockets': [sock.number for sock in chosen]}

    async def one_order(self, sock, spec):
        pieces = spec.get('frames', 1)
        if 'event' in spec:
            kind = {'task': 'DelegateTaskEvent', 'abort': 'DelegateTaskAbortEvent',
                    'heartbeat': 'DelegateHeartbeatResponseStreaming'}[spec['event']]
            self.tasks += 1
            sock.text(task_event(kind, sock.info['account'],
                                 gojson.query(sock.info['query']).get('delegateId'), self.tasks),
                      pieces)
        if 'send' in spec:
            sock.text(spec['send'], pieces)
        if 'binary' in spec:
            sock.send(ev.BytesMessage(data=base64.b64decode(spec['binary'])))
        if 'raw' in spec:
            sock.wire.transport.write(base64.b64decode(spec['raw']))
        if spec.get('ping'):
            sock.send(ev.Ping(payload=b'standin'))
        if 'close' in spec:
            sock.close(spec['close'].get('code', 1000), spec['close'].get('reason', ''))
        if spec.get('fin'):
            sock.wire.conn_close()
        if spec.get('abort'):
            sock.wire.conn_abort()
        if spec.get('every'):
            await asyncio.sleep(spec['every'])
