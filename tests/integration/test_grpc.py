"""Remote calls (gRPC) through a listener of mode grpc: as a delegate calls a lite engine, and that a step container, across the
boundary. Client and server are Google's library, of which tailrace shares no code; messages are plain bytes."""
import concurrent.futures
import http.server
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time

import pytest
from frames import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, H2, HEADERS, PING, PREFACE, PUSH, REFUSED_STREAM,
                    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, sanitized, settings)
from gateway import BINARY, to_yaml, wait_for
from hpack import Decoder, Encoder

grpc = pytest.importorskip('grpc')

MB = 1 << 20
SERVICE = 'io.harness.product.ci.engine.proto.LiteEngine'
OPTIONS = [('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1), ('grpc.enable_http_proxy', 0),
           ('grpc.use_local_subchannel_pool', 1)]


class Engine(grpc.GenericRpcHandler):
    """What the server does, by the name of the method."""

    def __init__(self):
        self.calls = []                 # (method, metadata)
        self.ended = []                 # of /Hang: how it ended
        self.sent = 0                   # messages that /Pour got rid of
        self.go = threading.Event()
        self.log = []                   # what /Chat and /Take saw, in order
        self.release = threading.Event()

    def service(self, details):
        name = details.method.rsplit('/', 1)[1]
        self.calls.append((details.method, [(k, v) for k, v in details.invocation_metadata]))
        kinds = {'Echo': grpc.unary_unary_rpc_method_handler, 'Fail': grpc.unary_unary_rpc_method_handler,
                 'Refuse': grpc.unary_unary_rpc_method_handler, 'Hang': grpc.unary_unary_rpc_method_handler,
                 'Wait': grpc.unary_unary_rpc_method_handler, 'Meta': grpc.unary_unary_rpc_method_handler,
                 'Count': grpc.unary_stream_rpc_method_handler, 'Pour': grpc.unary_stream_rpc_method_handler,
                 'FailLate': grpc.unary_stream_rpc_method_handler,
                 'Sum': grpc.stream_unary_rpc_method_handler, 'Quit': grpc.stream_unary_rpc_method_handler,
                 'Chat': grpc.stream_stream_rpc_method_handler}
        if name not in kinds:
            return None
        return kinds[name](getattr(self, name), None, None)

    def Echo(self, request, context):
        return request

    def Meta(self, request, context):
        context.send_initial_metadata([('first', 'a b'), ('first-bin', bytes(range(256)))])
        context.set_trailing_metadata([('last', 'z'), ('last-bin', b'\x00\xff' * 99)])
        return json.dumps([[k, v.hex() if isinstance(v, bytes) else v] for k, v in context.invocation_metadata()]).encode()

    def Fail(self, request, context):
        context.set_trailing_metadata([('grpc-status-details-bin', b'\x08\x05\x12\x03abc')])
        context.set_details(request.decode())
        context.set_code(grpc.StatusCode.NOT_FOUND)
        return b''

    def Refuse(self, request, context):
        context.abort(grpc.StatusCode.PERMISSION_DENIED, 'not you')

    def FailLate(self, request, context):
        yield b'one'
        yield b'two'
        context.abort(grpc.StatusCode.DATA_LOSS, 'the rest is gone')

    def Hang(self, request, context):
        ended = threading.Event()
        context.add_callback(lambda: (self.ended.append(context.time_remaining()), ended.set()))
        self.go.set()
        ended.wait(30)
        return b'late'

    def Wait(self, request, context):
        self.log.append(request)
        self.release.wait(30)
        return request

    def Count(self, request, context):
        for i in range(int(request)):
            yield b'%d' % i

    def Pour(self, request, context):
        for _ in range(int(request)):
            yield bytes(MB)
            self.sent += 1

    def Sum(self, requests, context):
        return b'%d' % sum(len(r) for r in requests)

    def Quit(self, requests, context):
        next(requests)
        return b'enough'

    def Chat(self, requests, context):
        for r in requests:
            self.log.append(r)
            yield b'<' + r + b'>'
        self.log.append('end')
        yield b'bye'


def serve(engine, port=0, credentials=None, options=()):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(160), handlers=[engine], options=[*OPTIONS, *options])
    if credentials:
        bound = server.add_secure_port(f'127.0.0.1:{port}', credentials)
    else:
        bound = server.add_insecure_port(f'127.0.0.1:{port}')
    assert bound
    server.start()
    return server, bound


@pytest.fixture
def engine():
    e = Engine()
    e.server, e.port = serve(e)
    yield e
    e.release.set()
    e.server.stop(0).wait()


@pytest.fixture
def relay(far, gateway_at, engine, tmp_path):
    return gateway_at(far.url, workers=1, audit={'to': 'file', 'file': str(tmp_path / 'audit')}, listen={'engine': {
        'mode': 'grpc', 'address': '127.0.0.1:0', 'to': f'http://127.0.0.1:{engine.port}'}})


@pytest.fixture
def channel(relay):
    with grpc.insecure_channel(f'127.0.0.1:{relay.ports["engine"]}', options=OPTIONS) as c:
        yield c


def path(name):
    return f'/{SERVICE}/{name}'


def unary(channel, name):
    return channel.unary_unary(path(name))


@pytest.fixture
def entries(tmp_path):
    """entries(n, **match): the audit entries that fit, once there are n."""
    def look(want, **match):
        with open(tmp_path / 'audit') as f:
            found = [json.loads(line) for line in f]
        found = [e for e in found if e.get('kind') == 'grpc' and all(e.get(k) == v for k, v in match.items())]
        return len(found) >= want and found
    return lambda want, **match: wait_for(lambda: look(want, **match), what=f'{want} audit entries with {match}')


def test_unary(channel, engine):
    assert unary(channel, 'Echo')(b'hello', timeout=10) == b'hello'
    assert unary(channel, 'Echo')(b'', timeout=10) == b''
    assert [m for m, _ in engine.calls] == [path('Echo')] * 2


def test_server_stream(channel):
    assert list(channel.unary_stream(path('Count'))(b'1000', timeout=20)) == [b'%d' % i for i in range(1000)]
    assert list(channel.unary_stream(path('Count'))(b'0', timeout=20)) == []


def test_client_stream(channel):
    assert channel.stream_unary(path('Sum'))(iter([b'x' * i for i in range(500)]), timeout=20) == b'124750'
    assert channel.stream_unary(path('Sum'))(iter([]), timeout=20) == b'0'


def test_bidirectional_one_by_one_and_half_close(channel, engine):
    """Each message passes by itself, and the client's end before the server's."""
    ask = queue.Queue()
    answers = channel.stream_stream(path('Chat'))(iter(ask.get, None), timeout=30)
    for i in range(20):
        ask.put(b'%d' % i)
        assert next(answers) == b'<%d>' % i
    ask.put(None)
    assert list(answers) == [b'bye']
    assert engine.log[-1] == 'end'


def test_large_messages(channel):
    data = os.urandom(16 * MB)
    assert unary(channel, 'Echo')(data, timeout=60) == data


def test_metadata_is_untouched(channel, engine):
    sent = [('x-trace', 'A b,c;d="e"'), ('x-raw-bin', bytes(range(256))), ('x-twice', '1'), ('x-twice', '2'),
            ('authorization', 'Bearer abc'), ('x-mtls-authority', 'mine')]
    text, call = unary(channel, 'Meta').with_call(b'', timeout=10, metadata=sent)
    got = json.loads(text)
    for key, value in sent:
        assert [key, value.hex() if isinstance(value, bytes) else value] in got
    assert list(map(tuple, call.initial_metadata())) == [('first', 'a b'), ('first-bin', bytes(range(256)))]
    assert list(map(tuple, call.trailing_metadata())) == [('last', 'z'), ('last-bin', b'\x00\xff' * 99)]


@pytest.mark.parametrize('text', ['no such step', 'ends with a space ', 'umlaut \u00e4\u20ac, 100 %', ''])
def test_status_with_details(channel, text):
    with pytest.raises(grpc.RpcError) as e:
        unary(channel, 'Fail')(text.encode(), timeout=10)
    assert e.value.code() == grpc.StatusCode.NOT_FOUND
    assert e.value.details() == text
    assert dict(e.value.trailing_metadata())['grpc-status-details-bin'] == b'\x08\x05\x12\x03abc'


def test_trailers_only_and_unknown_method(channel):
    with pytest.raises(grpc.RpcError) as e:
        unary(channel, 'Refuse')(b'', timeout=10)
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, 'not you')
    with pytest.raises(grpc.RpcError) as e:
        unary(channel, 'Nothing')(b'', timeout=10)
    assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_status_after_messages(channel):
    answers = channel.unary_stream(path('FailLate'))(b'', timeout=10)
    assert [next(answers), next(answers)] == [b'one', b'two']
    with pytest.raises(grpc.RpcError) as e:
        next(answers)
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode.DATA_LOSS, 'the rest is gone')


def test_answer_before_the_request_is_complete(channel):
    def for_ever():
        while True:
            yield bytes(1000)
            time.sleep(0.01)
    assert channel.stream_unary(path('Quit'))(for_ever(), timeout=20) == b'enough'
    assert unary(channel, 'Echo')(b'still well', timeout=10) == b'still well'


def test_deadline_is_the_peers(channel, engine):
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as e:
        unary(channel, 'Hang')(b'', timeout=1)
    assert e.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - start < 5
    assert any(k == 'grpc-timeout' for k, _ in engine.calls[0][1]) or wait_for(lambda: engine.ended, what='its end')
    wait_for(lambda: engine.ended, what='the server to see the deadline')


def test_cancellation_reaches_the_server(channel, engine, entries):
    call = unary(channel, 'Hang').future(b'')
    assert engine.go.wait(10)
    call.cancel()
    wait_for(lambda: engine.ended, 5, what='the server to see it')
    assert unary(channel, 'Echo')(b'on the same connection', timeout=10) == b'on the same connection'
    assert entries(1, path=path('Hang'))[0]['end'] == 'client'


def test_client_gone_cancels(relay, engine):
    c = grpc.insecure_channel(f'127.0.0.1:{relay.ports["engine"]}', options=OPTIONS)
    call = unary(c, 'Hang').future(b'')
    assert engine.go.wait(10)
    c.close()
    assert call.done()
    wait_for(lambda: engine.ended, 5, what='the server to see it')


def test_a_hundred_at_once(channel, engine, relay, entries):
    calls = [unary(channel, 'Wait').future(b'%d' % i, timeout=60) for i in range(100)]
    wait_for(lambda: len(engine.log) == 100, 30, what='all of them at the server')
    engine.release.set()
    assert [c.result() for c in calls] == [b'%d' % i for i in range(100)]
    # Few connections, with the calls on them.
    assert len({e['dialled'] for e in entries(100)}) == 1


def test_more_than_upstream_takes_at_once(far, gateway_at):
    engine = Engine()
    server, port = serve(engine, options=[('grpc.max_concurrent_streams', 4)])
    gw = gateway_at(far.url, workers=1, listen={'engine': {
        'mode': 'grpc', 'address': '127.0.0.1:0', 'to': f'http://127.0.0.1:{port}'}})
    with grpc.insecure_channel(f'127.0.0.1:{gw.ports["engine"]}', options=OPTIONS) as c:
        calls = [unary(c, 'Wait').future(b'%d' % i, timeout=60) for i in range(140)]
        wait_for(lambda: len(engine.log) == 32 * 4, 20, what='what 32 connections carry')
        engine.release.set()
        assert [x.result() for x in calls] == [b'%d' % i for i in range(140)]
    assert sorted(engine.log) == sorted(b'%d' % i for i in range(140))    # each once
    server.stop(0).wait()


def test_server_away_and_back(relay, channel, engine, entries):
    assert unary(channel, 'Echo')(b'1', timeout=10) == b'1'
    call = unary(channel, 'Hang').future(b'', timeout=30)
    assert engine.go.wait(10)
    engine.server.stop(0).wait()
    assert call.exception(20).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    with pytest.raises(grpc.RpcError) as e:
        unary(channel, 'Echo')(b'2', timeout=10)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    assert 'upstream' in e.value.details()
    assert entries(1, end='unreachable')[0]['grpc_status'] == 14
    engine.server, _ = serve(engine, engine.port)
    assert unary(channel, 'Echo')(b'3', timeout=10, wait_for_ready=True) == b'3'


def test_slow_reader_is_waited_for(relay, channel, engine):
    """Nothing is stored for it, and others go on."""
    answers = channel.unary_stream(path('Pour'))(b'200', timeout=120)
    next(answers)
    before = rss(relay.pid)
    seen = [-1]

    def stands():
        same = engine.sent == seen[-1]
        seen.append(engine.sent)
        return same
    wait_for(stands, 30, every=1, what='the server to be held back')
    assert engine.sent < 60
    assert sanitized() or rss(relay.pid) - before < 8 * MB
    assert unary(channel, 'Echo')(b'meanwhile', timeout=10) == b'meanwhile'
    assert sum(len(a) for a in answers) == 199 * MB
    assert sanitized() or rss(relay.pid) - before < 16 * MB


def test_slow_server_is_waited_for(relay, channel, engine):
    """The same upward: a server that does not read."""
    given = [0]

    def pour():
        for _ in range(100):
            given[0] += 1
            yield bytes(MB)

    before = rss(relay.pid)
    hold = threading.Event()
    engine.Sum = lambda requests, context: (hold.wait(60), b'%d' % sum(len(r) for r in requests))[1]
    call = channel.stream_unary(path('Sum')).future(pour(), timeout=120)
    seen = [-1]

    def stands():
        same = given[0] == seen[-1]
        seen.append(given[0])
        return same
    wait_for(stands, 30, every=1, what='the client to be held back')
    assert given[0] < 90
    assert sanitized() or rss(relay.pid) - before < 8 * MB
    hold.set()
    assert call.result(60) == b'%d' % (100 * MB)


def rss(pid):
    with open(f'/proc/{pid}/statm') as f:
        return int(f.read().split()[1]) * 4096


def test_passages_are_audited(relay, channel, entries):
    unary(channel, 'Echo')(b'12345', timeout=10)
    with pytest.raises(grpc.RpcError):
        unary(channel, 'Fail')(b'x', timeout=10)
    e = entries(1, path=path('Echo'))[0]
    assert (e['rule'], e['verdict'], e['status'], e['grpc_status'], e['end'], e['listener']) == (
        'grpc:engine', 'allow', 200, 0, 'done', 'engine')
    assert (e['bytes_up'], e['bytes_down']) == (10, 10)
    assert entries(1, path=path('Fail'))[0]['grpc_status'] == 5
    metrics = relay.metrics()
    assert metrics['grpc_calls_total{status="0"}'] == 1
    assert metrics['grpc_calls_total{status="5"}'] == 1


def test_tls_both_sides(far, gateway_at, ca):
    cert, key = ca.issue('127.0.0.1')
    engine = Engine()
    with open(cert, 'rb') as c, open(key, 'rb') as k:
        pair = (k.read(), c.read())
    server, port = serve(engine, credentials=grpc.ssl_server_credentials([pair]))
    gw = gateway_at(far.url, upstream={'ca': str(ca.ca)}, listen={'engine': {
        'mode': 'grpc', 'address': '127.0.0.1:0', 'to': f'https://127.0.0.1:{port}', 'certificate': str(cert), 'key': str(key)}})
    with open(ca.ca, 'rb') as f:
        trust = grpc.ssl_channel_credentials(f.read())
    with grpc.secure_channel(f'127.0.0.1:{gw.ports["engine"]}', trust, options=OPTIONS) as c:
        assert unary(c, 'Echo')(bytes(3 * MB), timeout=20) == bytes(3 * MB)
    server.stop(0).wait()


def test_client_certificates_on_both_sides(far, gateway_at, ca, entries, tmp_path):
    """The listener asks for one and audits whose it was; the destination asks for ours."""
    cert, key = ca.issue('127.0.0.1')
    me, my_key = ca.issue('delegate-7', client=True)
    ours, our_key = ca.issue('gateway', client=True)
    trust, chain, private = (open(f, 'rb').read() for f in (ca.ca, cert, key))
    engine = Engine()
    server, port = serve(engine, credentials=grpc.ssl_server_credentials([(private, chain)], trust, True))
    listen = {'mode': 'grpc', 'address': '127.0.0.1:0', 'to': f'https://127.0.0.1:{port}', 'certificate': str(cert),
              'key': str(key), 'client-ca': str(ca.ca)}
    gw = gateway_at(far.url, upstream={'ca': str(ca.ca), 'certificate': str(ours), 'key': str(our_key)},
                    listen={'engine': listen}, audit={'to': 'file', 'file': str(tmp_path / 'audit')})
    mine = grpc.ssl_channel_credentials(trust, open(my_key, 'rb').read(), open(me, 'rb').read())
    with grpc.secure_channel(f'127.0.0.1:{gw.ports["engine"]}', mine, options=OPTIONS) as c:
        assert unary(c, 'Echo')(b'x', timeout=20) == b'x'
    with grpc.secure_channel(f'127.0.0.1:{gw.ports["engine"]}', grpc.ssl_channel_credentials(trust), options=OPTIONS) as c:
        with pytest.raises(grpc.RpcError) as e:
            unary(c, 'Echo')(b'x', timeout=10)
        assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    assert entries(1)[0]['identity'] == 'delegate-7'
    server.stop(0).wait()


def test_reload_leads_elsewhere(relay, channel, engine):
    """New calls go to the new destination; one that is under way ends where it began."""
    other = Engine()
    server, port = serve(other)
    call = unary(channel, 'Wait').future(b'before', timeout=30)
    wait_for(lambda: engine.log, what='the call')
    relay.write_config(listen={'engine': {'to': f'http://127.0.0.1:{port}'}})
    relay.signal(signal.SIGHUP)
    wait_for(lambda: unary(channel, 'Echo')(b'x', timeout=10) == b'x' and other.calls, what='a call at the new one')
    engine.release.set()
    assert call.result(10) == b'before'
    server.stop(0).wait()


def test_drain_lets_calls_end(relay, channel, engine):
    call = unary(channel, 'Wait').future(b'x', timeout=30)
    wait_for(lambda: engine.log, what='the call')
    relay.signal(signal.SIGTERM)
    wait_for(lambda: 'draining' in relay.log(), what='the drain')
    engine.release.set()
    assert call.result(10) == b'x'
    assert relay.process.wait(9) == 0       # not at the drain's limit


def test_upstream_that_is_no_http2(far, gateway_at):
    """The call fails, quickly and in gRPC's words."""
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.BaseHTTPRequestHandler) as old:
        threading.Thread(target=old.serve_forever, daemon=True).start()
        gw = gateway_at(far.url, listen={'engine': {'mode': 'grpc', 'address': '127.0.0.1:0',
                                                    'to': f'http://127.0.0.1:{old.server_port}'}})
        with grpc.insecure_channel(f'127.0.0.1:{gw.ports["engine"]}', options=OPTIONS) as c:
            with pytest.raises(grpc.RpcError) as e:
                unary(c, 'Echo')(b'', timeout=20)
        assert e.value.code() == grpc.StatusCode.UNAVAILABLE
        old.shutdown()


def test_http1_is_refused(relay, entries):
    with socket.create_connection(('127.0.0.1', relay.ports['engine']), 10) as s:
        s.sendall(b'POST /x/y HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n')
        assert s.recv(100).startswith(b'HTTP/1.1 505 ')
    assert entries(1, event='deny')[0]['rule'] == 'grpc-only'


@pytest.mark.parametrize('to', [None, 'engine:20001', 'http://engine:20001/path', 'ftp://engine:1', 'http://engine:0', 'http://user@engine:1'])
def test_bad_destination(far, tmp_path, to):
    listen = {'mode': 'grpc', 'address': '127.0.0.1:0'}
    if to:
        listen['to'] = to
    file = tmp_path / 'c.yaml'
    file.write_text(to_yaml({'harness': {'url': far.url}, 'listen': {'engine': listen}}))
    r = subprocess.run([BINARY, 'check', '-c', str(file)], capture_output=True, text=True)
    assert r.returncode != 0
    assert 'listen.engine.to' in r.stdout + r.stderr


def test_nghttp(relay, far, gateway_at):
    """Plain HTTP/2 from another library, through two hops: listener to listener."""
    front = gateway_at(far.url, name='front', listen={'relay': {
        'mode': 'grpc', 'address': '127.0.0.1:0', 'to': f'http://127.0.0.1:{relay.ports["engine"]}'}})
    out = subprocess.run(['nghttp', '-v', '-d', '/etc/hostname', '-H', 'content-type: application/grpc', '-H', 'te: trailers',
                          f'http://127.0.0.1:{front.ports["relay"]}{path("Nothing")}'],
                         capture_output=True, text=True, timeout=30).stdout
    assert 'grpc-status: 12' in out
    load = subprocess.run(['h2load', '-n', '2000', '-c', '4', '-m', '50', '-H', 'content-type: application/grpc', '-H',
                           'te: trailers', '-d', '/etc/hostname', f'http://127.0.0.1:{front.ports["relay"]}{path("Nothing")}'],
                          capture_output=True, text=True, timeout=60).stdout
    assert '2000 done, 2000 succeeded' in load


# --- frames by hand, on both sides -----------------------------------------------------------------

class Upstream(threading.Thread):
    """An HTTP/2 server of frames: script(server, stream, path) is called for each request head, and answers by frames."""

    def __init__(self, script):
        super().__init__(daemon=True)
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.script = script
        self.heads, self.resets, self.bodies, self.socks = [], {}, {}, []
        self.encoder = Encoder()
        self.start()

    def run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.socks.append(sock)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        decoder, pending = Decoder(), b''
        sock.sendall(settings())
        self.encoder = Encoder()
        try:
            while len(pending) < len(PREFACE):
                pending += sock.recv(65536)
            pending = pending[len(PREFACE):]
            while True:
                while len(pending) >= 9 and len(pending) >= 9 + int.from_bytes(pending[:3], 'big'):
                    n = int.from_bytes(pending[:3], 'big')
                    self.take(sock, decoder, pending[3], pending[4], int.from_bytes(pending[5:9], 'big'), pending[9:9 + n])
                    pending = pending[9 + n:]
                piece = sock.recv(65536)
                if not piece:
                    return
                pending += piece
        except OSError:
            return

    def take(self, sock, decoder, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            sock.sendall(frame(SETTINGS, ACK))
        elif kind == RST_STREAM:
            self.resets[stream] = int.from_bytes(payload, 'big')
        elif kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b'') + payload
        elif kind in (HEADERS, CONTINUATION):
            self.block = payload if kind == HEADERS else self.block + payload
            if not flags & END_HEADERS:
                return
            fields = dict(decoder.decode(self.block))
            self.heads.append((stream, fields))
            self.script(self, sock, stream, fields[':path'])

    def answer(self, sock, stream, *fields, end=True):
        sock.sendall(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream,
                           self.encoder.encode([(':status', '200'), *fields])))

    def close(self):
        self.listener.close()
        for s in self.socks:
            s.close()


@pytest.fixture
def between(far, gateway_at):
    """between(script): (an upstream that does so, a gateway with a listener `engine` to it)."""
    made = []

    def make(script):
        up = Upstream(script)
        made.append(up)
        return up, gateway_at(far.url, workers=1, listen={'engine': {
            'mode': 'grpc', 'address': '127.0.0.1:0', 'to': f'http://127.0.0.1:{up.port}'}})
    yield make
    for up in made:
        up.close()


GRPC = [('content-type', 'application/grpc'), ('te', 'trailers')]


def test_codes_of_resets_pass_both_ways(between):
    up, gw = between(lambda up, sock, stream, path: path == '/reset' and sock.sendall(
        frame(RST_STREAM, 0, stream, b'\0\0\0\x0b')))
    with H2(gw.ports['engine']) as c:
        c.request(1, 'POST', '/reset', *GRPC, body=b'x')
        c.read(lambda: 1 in c.resets)
        assert c.resets[1] == 11
        c.send(frame(HEADERS, END_HEADERS, 3, c.block('POST', '/hold', *GRPC)))
        wait_for(lambda: len(up.heads) == 2, what='the call upstream')
        c.send(frame(RST_STREAM, 0, 3, b'\0\0\0\x0d'))
        wait_for(lambda: up.resets.get(up.heads[1][0]) == 13, what='the code upstream')
        assert not c.goaway and len(up.socks) == 1


def test_heads_pass_untouched(between):
    up, gw = between(lambda up, sock, stream, path: up.answer(sock, stream, ('content-type', 'application/grpc'), ('x-b', ' y '),
                                                              ('grpc-status', '3'), ('grpc-message', 'spaced ')))
    with H2(gw.ports['engine']) as c:
        big = 'v' * 50000
        head = c.block('POST', '/pkg.Svc/M?q=1', ('grpc-timeout', '10S'), ('grpc-encoding', 'gzip'), ('x-tok-bin', 'AAEC'),
                       ('x-big', big), *GRPC)
        c.send(frame(HEADERS, END_STREAM, 1, head[:16000]))
        parts = [head[i:i + 16000] for i in range(16000, len(head), 16000)]
        for i, part in enumerate(parts):
            c.send(frame(CONTINUATION, END_HEADERS if i == len(parts) - 1 else 0, 1, part))
        a = c.answer(1)
    fields = up.heads[0][1]
    assert fields[':path'] == '/pkg.Svc/M?q=1'
    assert fields[':authority'] == f'127.0.0.1:{up.port}'
    assert (fields['te'], fields['grpc-timeout'], fields['grpc-encoding'], fields['x-tok-bin'], fields['x-big']) == (
        'trailers', '10S', 'gzip', 'AAEC', big)
    assert a['headers'] == {':status': '200', 'content-type': 'application/grpc', 'x-b': ' y ', 'grpc-status': '3',
                            'grpc-message': 'spaced '}
    assert a['heads'] == 1 and a['body'] == b''


def test_refused_is_repeated_once_and_others_never(between):
    seen = []

    def script(up, sock, stream, path):
        seen.append(path)
        if path == '/once' and seen.count('/once') == 2:
            up.answer(sock, stream, ('grpc-status', '0'))
        elif path == '/lost':
            sock.close()
        else:
            sock.sendall(frame(RST_STREAM, 0, stream, b'\0\0\0\x07'))
    up, gw = between(script)
    with H2(gw.ports['engine']) as c:
        c.request(1, 'POST', '/once', *GRPC, body=b'x')
        assert c.answer(1)['headers']['grpc-status'] == '0'
        c.request(3, 'POST', '/never', *GRPC, body=b'x')
        c.read(lambda: 3 in c.resets)
        assert c.resets[3] == REFUSED_STREAM
        c.request(5, 'POST', '/lost', *GRPC, body=b'x')
        assert c.answer(5)['headers']['grpc-status'] == '14'
        c.request(7, 'POST', '/lost', ('content-type', 'text/plain'), body=b'x')
        assert c.answer(7)['status'] == 502
    assert [seen.count(p) for p in ('/once', '/never', '/lost')] == [2, 2, 2]


def test_lost_in_the_middle_is_told_by_trailers(between):
    def script(up, sock, stream, path):
        up.answer(sock, stream, ('content-type', 'application/grpc'), end=False)
        sock.sendall(frame(DATA, 0, stream, b'\0\0\0\0\2hi'))
        sock.close()
    up, gw = between(script)
    with H2(gw.ports['engine']) as c:
        c.request(1, 'POST', '/x', *GRPC, body=b'x')
        a = c.answer(1)
        assert (a['body'], a['headers']['grpc-status'], a['heads']) == (b'\0\0\0\0\2hi', '14', 2)
        c.request(3, 'POST', '/x', body=b'x')     # not gRPC: cut short must not look like the whole
        c.read(lambda: 3 in c.resets)
        assert 3 in c.resets


def test_many_deadlines_at_once_do_not_cost_the_connection(between):
    up, gw = between(lambda *a: None)
    with H2(gw.ports['engine']) as c:
        for at in range(1, 601, 200):
            for stream in range(at, at + 200, 2):
                c.send(frame(HEADERS, END_HEADERS, stream, c.block('POST', '/hold', *GRPC)))
            wait_for(lambda: len(up.heads) >= (at + 199) // 2, what='the calls upstream')
            for stream in range(at, at + 200, 2):
                c.send(frame(RST_STREAM, 0, stream, b'\0\0\0\x08'))
        wait_for(lambda: len(up.resets) == 300, what='the resets upstream')
        c.send(frame(PING, 0, 0, b'12345678'))
        c.read(lambda: c.pings)
        assert c.pings == 1 and c.goaway is None


@pytest.mark.parametrize('head', [
    [(':method', 'CONNECT'), (':authority', 'db:5432')],
    [(':method', 'CONNECT'), (':protocol', 'websocket'), (':scheme', 'http'), (':authority', 'x'), (':path', '/ws')],
    [(':method', 'OPTIONS'), (':scheme', 'http'), (':authority', 'x'), (':path', '*')],
])
def test_what_leads_elsewhere_is_refused(between, head):
    up, gw = between(lambda *a: None)
    with H2(gw.ports['engine']) as c:
        c.send(frame(HEADERS, END_HEADERS, 1, c.encoder.encode(head)))
        c.read(lambda: 1 in c.resets or c.answers.get(1, {}).get('status'))
        assert 1 in c.resets or c.answers[1]['status'] == 400
        c.request(3, 'POST', '/x', *GRPC, body=b'x')
        wait_for(lambda: up.heads, what='the next call')
        assert len(up.heads) == 1


@pytest.mark.parametrize('bad', [
    frame(HEADERS, END_HEADERS | END_STREAM, 1, b'\x00\x07:status\x03abc'),
    frame(HEADERS, END_HEADERS | END_STREAM, 1, b'\x88\x00\x0aconnection\x05close'),
    frame(DATA, END_STREAM, 1, b'before any head'),
    frame(HEADERS, END_HEADERS | END_STREAM, 1, b'\xff\xff\xff\xff\xff\xff'),
    frame(WINDOW_UPDATE, 0, 1, b'\0\0\0\0'),
    frame(PUSH, END_HEADERS, 1, b'\0\0\0\2\x82\x87\x84\x01\x01h'),
    b'\xff' * 100,
], ids=['status', 'field', 'data', 'hpack', 'window', 'push', 'noise'])
def test_nonsense_from_upstream_ends_the_call(between, bad):
    up, gw = between(lambda up, sock, stream, path: sock.sendall(bad))
    with H2(gw.ports['engine']) as c:
        c.request(1, 'POST', '/x', *GRPC, body=b'x')
        c.read(lambda: 1 in c.resets or c.answers.get(1, {}).get('ended'))
        assert 1 in c.resets or c.answers[1]['headers']['grpc-status'] == '14'
        assert not c.closed
