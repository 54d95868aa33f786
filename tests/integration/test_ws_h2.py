"""WebSockets over HTTP/2 (RFC 8441) at the listener, an HTTP/1.1 upgrade towards upstream: with h2 and wsproto as the client."""
import socket
import ssl
import time

import pytest
from frames import sanitized
from gateway import wait_for
from h2 import events as h2ev
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes
from wsproto import events as ev
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType

MB = 1 << 20
PATH = '/stream/delegate/acct?delegateId=d1&token=secret%2F1&sequenceNum=3'
WAIT = 20


class Connection:
    """One HTTP/2 connection; everything that comes is sorted to its streams."""

    def __init__(self, gw, ca=None):
        self.sock = socket.create_connection(('127.0.0.1', gw.port), WAIT)
        if ca:
            context = ssl.create_default_context(cafile=ca.ca)
            context.set_alpn_protocols(['h2'])
            self.sock = context.wrap_socket(self.sock, server_hostname='127.0.0.1')
            assert self.sock.selected_alpn_protocol() == 'h2'
        self.scheme = 'https' if ca else 'http'
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding='utf-8'))
        self.streams, self.settled, self.over = {}, False, None
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(256 * MB)     # a stream that is not read holds up itself only
        self.flush()
        self.until(lambda: self.settled, what='SETTINGS')

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.sock.sendall(data)

    def take(self, event):
        stream = self.streams.get(getattr(event, 'stream_id', None))
        if isinstance(event, h2ev.RemoteSettingsChanged):
            self.settled = True
        elif isinstance(event, h2ev.ConnectionTerminated):
            self.over = event.error_code
        elif stream is None:
            return
        elif isinstance(event, h2ev.ResponseReceived):
            stream.headers = dict(event.headers)
        elif isinstance(event, h2ev.DataReceived):
            stream.take(event)
        elif isinstance(event, h2ev.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2ev.StreamReset):
            stream.reset = event.error_code

    def until(self, condition, timeout=WAIT, what='the condition'):
        """Take what comes until `condition`; its value."""
        end = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            left = end - time.monotonic()
            assert left > 0, f'{what} did not come true within {timeout} s'
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except socket.timeout:
                continue
            assert data, f'the connection ended before {what}'
            for event in self.h2.receive_data(data):
                self.take(event)
            self.flush()


class Ws:
    """A WebSocket on a stream of a connection."""

    def __init__(self, conn, path=PATH, *more, wait=True):
        self.conn, self.id = conn, conn.h2.get_next_available_stream_id()
        self.frames = Frames(ConnectionType.CLIENT)
        self.headers, self.ended, self.reset = None, False, None
        self.data, self.got, self.reading, self.owed = b'', [], True, 0
        conn.streams[self.id] = self
        conn.h2.send_headers(self.id, [
            (':method', 'CONNECT'), (':protocol', 'websocket'), (':scheme', conn.scheme), (':path', path),
            (':authority', f'127.0.0.1:{conn.sock.getpeername()[1]}'), ('sec-websocket-version', '13'), *more])
        conn.flush()
        if wait:
            conn.until(lambda: self.headers, what='an answer')

    @property
    def status(self):
        return int(self.headers[':status'])

    def take(self, event):
        self.owed += event.flow_controlled_length
        if self.status != 200:
            self.data += event.data
        elif event.data:
            self.frames.receive_data(event.data)
            self.got += self.frames.events()
        if self.reading:
            self.give_back()

    def give_back(self):
        """Open the window for what was read."""
        if self.owed:
            try:
                self.conn.h2.acknowledge_received_data(self.owed, self.id)
            except StreamClosedError:
                pass
        self.owed = 0

    def stop_reading(self):
        self.reading = False

    def go_on_reading(self):
        self.reading = True
        self.give_back()
        self.conn.flush()

    def send(self, event):
        data = self.frames.send(event)
        while data:
            n = min(len(data), self.conn.h2.max_outbound_frame_size,
                    self.conn.until(lambda: self.conn.h2.local_flow_control_window(self.id), what='room'))
            self.conn.h2.send_data(self.id, data[:n])
            self.conn.flush()
            data = data[n:]

    def text(self, text, whole=True):
        self.send(ev.TextMessage(data=text, message_finished=whole))

    def event(self, kind):
        """The next event, which is of that kind."""
        event = self.conn.until(lambda: self.got and self.got[0], what=kind.__name__)
        assert isinstance(event, kind), event
        return self.got.pop(0)

    def message(self):
        """The next whole message."""
        parts = []
        while True:
            event = self.event(ev.Message)
            parts.append(event.data)
            if event.message_finished:
                return type(parts[0])().join(parts)

    def echoes(self, text):
        self.text(text)
        assert self.message() == text


def sockets(far):
    return far.state(lines=False)['ws']


def closed(far, n=0):
    return wait_for(lambda: len(sockets(far)) > n and sockets(far)[n]['closed'], what='the end of it upstream')


@pytest.fixture(params=['clear', 'tls'])
def conn(request, far, gateway_at, ca):
    if request.param == 'tls':
        cert, key = ca.issue('127.0.0.1')
        gw = gateway_at(far.url, cert=cert, key=key, workers=1)
    else:
        gw = gateway_at(far.url, workers=1)
    with Connection(gw, ca if request.param == 'tls' else None) as c:
        c.gw = gw
        yield c


@pytest.fixture
def clear(gw):
    with Connection(gw) as c:
        yield c


def test_the_handshake_is_translated(far, conn):
    """What is 200 to an extended CONNECT here was a 101 to an upgrade there (RFC 8441 §5)."""
    assert conn.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
    ws = Ws(conn, PATH, ('accountid', 'acct'), ('user-agent', 'delegate/24'), ('sec-websocket-protocol', 'two, one'))
    assert ws.status == 200 and ws.headers['sec-websocket-protocol'] == 'two'
    assert not {'connection', 'upgrade', 'sec-websocket-accept'} & set(ws.headers)
    seen = sockets(far)[0]
    assert seen['target'] == PATH
    got = {k.lower(): v for k, v in seen['headers']}
    assert (got['upgrade'].lower(), got['connection'].lower()) == ('websocket', 'upgrade')
    assert got['accountid'] == 'acct' and got['user-agent'] == 'delegate/24' and got['host'] == f'127.0.0.1:{far.port}'
    assert got['sec-websocket-version'] == '13' and len(got['sec-websocket-key']) == 24
    assert [k for k, _ in seen['headers'] if k.startswith(':')] == []
    assert len(seen['headers']) == len(got), 'nothing is doubled'
    assert 'secret' not in conn.gw.log()


def test_frames_go_both_ways_as_they_are(far, conn):
    ws = Ws(conn)
    for text in ('', 'x', 'ü€😀', '{"eventType":"DelegateTaskEvent"' + 'x' * 10200):
        ws.echoes(text)
    ws.text('part one, ', whole=False)
    ws.text('part two', whole=True)
    assert ws.message() == 'part one, part two'
    ws.send(ev.BytesMessage(data=b'\0\xff' * 100))
    assert ws.message() == b'\0\xff' * 100
    far.ws(event='task', count=20)
    assert all(ws.message().startswith('{"eventType":"DelegateTaskEvent"') for _ in range(20))
    assert sockets(far)[0]['messages'][4]['frames'] == [10, 8], 'fragments are kept'
    assert conn.gw.metric('tunnels') == 1


def test_large_frames_go_both_ways(far, conn):
    """Larger than every window on the way, there and back."""
    ws = Ws(conn)
    for size in (70000, 300000, 3 * MB):
        ws.echoes('z' * size)
    far.ws(send='y' * (2 * MB))
    assert ws.message() == 'y' * (2 * MB)
    assert [m['frames'] for m in sockets(far)[0]['messages']] == [[70000], [300000], [3 * MB]]


def test_pings_and_pongs(far, clear):
    ws = Ws(clear)
    ws.send(ev.Ping(payload=b'ours'))
    assert ws.event(ev.Pong).payload == b'ours'
    far.ws(ping=True)
    ping = ws.event(ev.Ping)
    assert ping.payload == b'standin'
    ws.send(ping.response())
    wait_for(lambda: sockets(far)[0]['pongs'] == 1)
    assert sockets(far)[0]['pings'] == 1


@pytest.mark.parametrize('code,reason', [(1000, ''), (1001, 'going away'), (1011, 'unexpected'), (4000, 'own ü')])
def test_close_codes_go_both_ways(far, clear, code, reason):
    ws = Ws(clear)
    ws.send(ev.CloseConnection(code=code, reason=reason))
    assert ws.event(ev.CloseConnection).code == code
    clear.until(lambda: ws.ended or ws.reset is not None, what='the end of the stream')
    assert ws.ended and ws.reset is None, 'a clean end is no reset'
    assert (closed(far)['code'], closed(far)['reason'] or '') == (code, reason)
    clear.h2.end_stream(ws.id)
    clear.flush()
    ws = Ws(clear)
    far.ws(close={'code': code, 'reason': reason})
    event = ws.event(ev.CloseConnection)
    assert (event.code, event.reason or '') == (code, reason)
    ws.send(event.response())
    clear.until(lambda: ws.ended, what='the end of the stream')
    assert closed(far, 1)['code'] == code


@pytest.mark.parametrize('how', ['reset', 'connection'])
def test_an_abrupt_end_of_the_client_reaches_upstream(far, gw, clear, how):
    ws, other = Ws(clear), Ws(clear)
    ws.echoes('x')
    other.echoes('x')
    wait_for(lambda: gw.metric('tunnels') == 2)
    if how == 'reset':
        clear.h2.reset_stream(ws.id, ErrorCodes.CANCEL)
        clear.flush()
        assert closed(far)['how'] in ('abrupt', 'lost', 'fin')
        other.echoes('the connection goes on, and so does its other stream')
        assert sockets(far)[1]['open']
        wait_for(lambda: gw.metric('tunnels') == 1)
    else:
        clear.sock.close()
        assert {closed(far, n)['how'] for n in (0, 1)} <= {'abrupt', 'lost', 'fin'}
        wait_for(lambda: gw.metric('tunnels') == 0)


def test_the_clients_half_close_reaches_upstream(far, gw, clear):
    """END_STREAM without a close frame stands for a FIN (RFC 8441 §5)."""
    ws = Ws(clear)
    ws.echoes('x')
    clear.h2.end_stream(ws.id)
    clear.flush()
    assert closed(far)['how'] == 'fin'
    clear.until(lambda: ws.ended or ws.reset is not None, what='the end of the stream')
    wait_for(lambda: gw.metric('tunnels') == 0)


@pytest.mark.parametrize('how', ['abort', 'fin'])
def test_an_abrupt_end_of_upstream_reaches_the_client(far, gw, clear, how):
    ws = Ws(clear)
    ws.echoes('x')
    far.ws(id=1, **{how: True})
    clear.until(lambda: ws.ended or ws.reset is not None, what='the end of the stream')
    assert not [e for e in ws.got if isinstance(e, ev.CloseConnection)], 'nobody has sent one'
    assert (ws.reset is not None) if how == 'abort' else ws.ended
    Ws(clear).echoes('the connection goes on')
    assert clear.over is None
    if how == 'fin':
        clear.h2.end_stream(ws.id)  # until then the client might have had more to say
        clear.flush()
    wait_for(lambda: gw.metric('tunnels') == 1)


def test_a_reader_that_stops_holds_up_itself_only(far, gw, clear):
    """Upstream sends 48 MB: they wait there, not here; then all of them come."""
    slow, quick = Ws(clear, PATH), Ws(clear, PATH.replace('acct', 'other'))
    slow.echoes('x')
    quick.echoes('x')
    before = gw.rss_kb(peak=True)
    slow.stop_reading()
    for n in range(24):
        far.ws(account='acct', send=chr(ord('a') + n) * (2 * MB))
    clear.until(lambda: clear.h2.remote_flow_control_window(slow.id) == 0, what='a full window')
    for n in range(50):
        quick.echoes(f'{n} ' + 'x' * 5000)
    assert slow.owed <= 65535, 'the window is kept to'
    if not sanitized():
        grown = (gw.rss_kb(peak=True) - before) / 1024
        assert grown < 8, f'{grown:.0f} MiB'
    slow.go_on_reading()
    for n in range(24):
        assert slow.message() == chr(ord('a') + n) * (2 * MB)
    slow.echoes('and the other way')


def test_streams_of_a_connection_are_sockets_of_their_own(far, gw, clear):
    one, two = Ws(clear, PATH), Ws(clear, PATH.replace('acct', 'other'))
    assert [s['account'] for s in sockets(far)] == ['acct', 'other']
    assert sockets(far)[0]['headers'] != sockets(far)[1]['headers'], 'each has a key of its own'
    for n in range(20):
        one.text(f'one {n}')
        two.text(f'two {n}' * 3000)
    assert [two.message() for _ in range(20)] == [f'two {n}' * 3000 for n in range(20)]
    assert [one.message() for _ in range(20)] == [f'one {n}' for n in range(20)]
    far.ws(account='acct', close={'code': 1000})
    assert one.event(ev.CloseConnection).code == 1000
    two.echoes('still there')
    assert gw.metric('http_connections', protocol='h2') >= 1


@pytest.mark.parametrize('code', [401, 403, 404, 503])
def test_a_refused_handshake_arrives_as_it_is(far, gw, clear, code):
    far.fault('status', 'ws', code=code, body='{"why": "not you"}', headers={'Content-Type': 'application/json', 'X-Why': 'no'})
    ws = Ws(clear)
    clear.until(lambda: ws.ended, what='the end of the answer')
    assert ws.status == code and ws.headers['x-why'] == 'no' and ws.data == b'{"why": "not you"}'
    assert ws.reset in (None, ErrorCodes.NO_ERROR)
    assert gw.metric('tunnels') == 0 and sockets(far) == []
    Ws(clear).echoes('the next one is taken')


def test_frames_sent_before_a_refusal_disturb_nothing(far, clear):
    """A client need not wait for the answer; what it sent is dropped with it."""
    far.fault('status', 'ws', code=403, body='no')
    ws = Ws(clear, PATH, wait=False)
    ws.text('early')
    clear.until(lambda: ws.ended, what='the end of the answer')
    assert ws.status == 403 and ws.data == b'no'
    Ws(clear).echoes('the next one is taken')
    assert clear.over is None


def test_frames_sent_before_the_answer_arrive(far, clear):
    far.fault('delay', 'ws', seconds=0.3)
    ws = Ws(clear, PATH, wait=False)
    ws.text('early')
    assert ws.message() == 'early' and ws.status == 200


def test_upstream_away_is_a_502(far, clear):
    far.stop()
    ws = Ws(clear)
    clear.until(lambda: ws.ended, what='the end of the answer')
    assert ws.status == 502 and b'error_msg' in ws.data
    far.start()
    Ws(clear).echoes('again')
