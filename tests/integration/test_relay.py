"""What is not the log path's: the delegate's WebSocket and every other call, through the same listener (HP §4)."""
import asyncio
import concurrent.futures
import hashlib
import json
import re
import signal
import socket
import threading
import time

import pytest
import websockets
from calls import raw
from frames import WINDOW_UPDATE, H2, frame, sanitized
from gateway import free_port, wait_for

MB = 1 << 20
POISON = ['INVALID_TOKEN', 'EXPIRED_TOKEN', 'REVOKED_TOKEN', 'Revoked Delegate Token']
TOKEN = 'eyJhbGciOiJkaXIi.secret-of-the-delegate'
QUERY = (f'delegateId=d1&delegateTokenName=default_token&delegateConnectionId=c%2Fx&token={TOKEN}&sequenceNum=3&delegateToken='
         '&version=24.01.82%20x')
CLOSES_WITHIN = 5       # seconds from the close frames to the connection's end; clients give up at 10
AGENT = [('accountId', 'acct'), ('delegateId', 'd1'), ('User-Agent', 'delegate/24.01.82')]


def ws_url(gw, path='/stream/delegate/acct'):
    return f'ws://127.0.0.1:{gw.port}{path}?{QUERY}'


def connect(gw, path='/stream/delegate/acct', **kw):
    """As the delegate's library does: no subprotocol, no compression, no pings."""
    kw.setdefault('ping_interval', None)
    kw.setdefault('compression', None)
    kw.setdefault('extra_headers', AGENT)
    return websockets.connect(ws_url(gw, path), user_agent_header=None, max_size=32 * MB, **kw)


def sockets(far):
    return far.state(lines=False)['ws']


def fields(entry):
    return {k.lower(): v for k, v in entry['headers']}


def request(method, target, body=b'', *more, length=True):
    lines = [f'{method} {target} HTTP/1.1', 'Host: gateway.example', *more]
    if length and (body or method in ('POST', 'PUT')):
        lines.append(f'Content-Length: {len(body)}')
    return '\r\n'.join(lines + ['', '']).encode('latin-1') + body


def call(gw, method, target, body=b'', *more, length=True, timeout=20):
    """(status, headers, body), raw: one call, then the connection is closed."""
    data = raw(gw.port, request(method, target, body, 'Connection: close', *more, length=length), timeout=timeout)
    head, _, rest = data.partition(b'\r\n\r\n')
    assert head, 'closed without an answer'
    lines = head.decode('latin-1').split('\r\n')
    headers = [tuple(x.split(': ', 1)) for x in lines[1:]]
    if any(k.lower() == 'transfer-encoding' for k, _ in headers):
        out = b''
        while True:
            size, _, rest = rest.partition(b'\r\n')
            n = int(size, 16)
            if n == 0:
                break
            out, rest = out + rest[:n], rest[n + 2:]
        rest = out
    return int(lines[0].split()[1]), headers, rest


# --- 36-39: the delegate's WebSocket ---------------------------------------------------------------

@pytest.mark.parametrize('path', ['/stream/delegate/acct', '/gratis/stream/delegate/acct', '/delegate-service/acct'])
def test_item_36_upgrade_passes_query_and_headers(far, gw, path):
    async def run():
        async with connect(gw, path) as ws:
            await ws.send('x')
            assert await ws.recv() == 'x'
            return ws.response_headers
    answer = asyncio.run(run())
    seen = sockets(far)[0]
    assert seen['target'] == f'{path}?{QUERY}'
    got = fields(seen)
    for name, value in AGENT:
        assert got[name.lower()] == value
    assert got['host'] == f'127.0.0.1:{far.port}'
    assert 'sec-websocket-protocol' not in got and 'sec-websocket-extensions' not in got
    assert 'sec-websocket-protocol' not in answer
    assert sum(len(k) + len(v) for k, v in answer.raw_items()) < 1000, 'the client takes 8 KiB'
    names = [k.lower() for k, _ in seen['headers']]
    assert len(names) == len(set(names)), 'nothing is doubled'


def test_item_36_subprotocol_is_left_alone(far, gw):
    async def run():
        async with connect(gw, subprotocols=['two', 'one']) as ws:
            return ws.subprotocol
    assert asyncio.run(run()) == 'two'
    assert fields(sockets(far)[0])['sec-websocket-protocol'] == 'two, one'


def test_item_36_over_tls(far, gateway_at, ca):
    """As the delegate does, by HTTP/1.1; over HTTP/2 an upgrade is an extended CONNECT (test_ws_h2.py)."""
    cert, tls_key = ca.issue('127.0.0.1')
    gw = gateway_at(far.url, cert=cert, key=tls_key)

    async def run():
        import ssl
        context = ssl.create_default_context(cafile=ca.ca)
        async with websockets.connect(ws_url(gw).replace('ws:', 'wss:'), ssl=context, ping_interval=None) as ws:
            await ws.send('tls')
            assert await ws.recv() == 'tls'
    asyncio.run(run())


def test_item_37_frames_stay_as_they_are(far, gw):
    """Whole, in order, neither merged nor split: also large ones, fragments, control frames and odd text."""
    texts = ['', 'x', 'ü€😀', '{"eventType":"DelegateTaskEvent"' + 'x' * 10200, 'y' * 70000, 'z' * 300000]

    async def run():
        async with connect(gw) as ws:
            for text in texts:
                await ws.send(text)
            assert [await ws.recv() for _ in texts] == texts
            for text in texts:
                await ws.send(text)
                assert await ws.recv() == text
            await ws.send(['part one, ', 'part two, ', 'part three'])
            assert await ws.recv() == 'part one, part two, part three'
            await ws.send(b'\x00\xff' * 100)
            assert await ws.recv() == b'\x00\xff' * 100
            await asyncio.wait_for(await ws.ping('p'), 15)
            far.ws(event='task', count=20)
            events = [await ws.recv() for _ in range(20)]
            assert all(e.startswith('{"eventType":"DelegateTaskEvent"') and json.loads(e) for e in events)
            far.ws(send='in three frames', frames=3)
            assert await ws.recv() == 'in three frames'
    asyncio.run(run())
    got = sockets(far)[0]
    assert [m['text'] for m in got['messages'] if m['kind'] == 'text'][:6] == texts
    assert got['messages'][2 * len(texts)]['frames'] == [10, 10, 10, 0], 'fragments are kept'
    assert got['pings'] == 1


def test_item_37_frames_from_the_far_side_are_not_merged(far, gw):
    """On the wire, byte by byte: each frame's own head is there."""
    with socket.create_connection(('127.0.0.1', gw.port), 10) as s:
        s.sendall(request('GET', '/stream/delegate/acct?' + QUERY, b'', 'Connection: Upgrade', 'Upgrade: websocket',
                          'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13'))
        got = b''
        while b'\r\n\r\n' not in got:
            got += s.recv(65536)
        head, _, got = got.partition(b'\r\n\r\n')
        assert head.startswith(b'HTTP/1.1 101') and b's3pPLMBiTxaQ9kYGzzhZRbK+xOo=' in head
        far.ws(send='one', count=3)
        while len(got) < 15:
            got += s.recv(65536)
        assert got == b'\x81\x03one' * 3


@pytest.mark.parametrize('seconds', [12])
def test_item_37_silence_does_not_end_a_tunnel(far, gw, seconds):
    """Longer than any timeout of ours for requests; for hours of it there is TCP keepalive, on both sides."""
    async def run():
        async with connect(gw) as ws:
            await ws.send('before')
            assert await ws.recv() == 'before'
            wait_for(lambda: len(keepalives(gw.pid)) >= 2, what='keepalive on both sides')
            ours = keepalives(gw.pid)
            await asyncio.sleep(seconds)  # what is tested is silence itself
            await ws.send('after')
            assert await ws.recv() == 'after'
            return ours
    timers = asyncio.run(run())
    assert max(timers) < 100, timers
    assert gw.metric('http_glitches_total') == 0


def keepalives(pid):
    """Seconds until TCP keepalive speaks, of the established connections of a process."""
    import os
    inodes = set()
    for fd in os.listdir(f'/proc/{pid}/fd'):
        found = re.match(r'socket:\[(\d+)\]', os.readlink(f'/proc/{pid}/fd/{fd}'))
        if found:
            inodes.add(found.group(1))
    out = []
    for line in open('/proc/net/tcp').read().splitlines()[1:]:
        column = line.split()
        if column[9] in inodes and column[3] == '01':
            kind, ticks = column[5].split(':')
            if kind == '02':
                out.append(int(ticks, 16) / 100)
    return out


def test_item_37_only_silence_beyond_the_limit_ends_a_tunnel(far, gateway_at):
    """The limit (two hours unless the admin says otherwise) counts from the last byte of either direction."""
    gw = gateway_at(far.url, egress={'idle-timeout': '3s'})

    async def run():
        async with connect(gw) as silent, connect(gw) as hears, connect(gw) as speaks:
            for ws in (silent, hears, speaks):
                await ws.send('hello')
                assert await ws.recv() == 'hello'
            began, number = time.monotonic(), [s['id'] for s in sockets(far)]
            while time.monotonic() - began < 6.5:
                far.ws(id=number[1], send='from far')       # one direction is enough
                await speaks.send('x')
                assert await hears.recv() == 'from far' and await speaks.recv() == 'x'
                await asyncio.sleep(0.5)  # the pace of the traffic
                if time.monotonic() - began < 2.5:
                    assert gw.metric('tunnels') == 3
            assert gw.metric('tunnels') == 2
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(silent.recv(), 5)
    asyncio.run(run())
    wait_for(lambda: [s for s in sockets(far) if s['closed']], what='the end upstream')


@pytest.mark.parametrize('code,reason', [(1000, ''), (1001, 'going away'), (1011, 'unexpected'), (4000, 'own ü')])
def test_item_38_close_codes_go_both_ways(far, gw, code, reason):
    async def from_client():
        ws = await connect(gw)
        await asyncio.wait_for(ws.close(code, reason), CLOSES_WITHIN)
        return ws.close_code

    async def from_far():
        ws = await connect(gw)
        far.ws(close={'code': code, 'reason': reason})
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(ws.recv(), CLOSES_WITHIN)
        return ws.close_code, ws.close_reason
    assert asyncio.run(from_client()) == code
    wait_for(lambda: sockets(far)[0]['closed'])
    assert (sockets(far)[0]['closed']['code'], sockets(far)[0]['closed']['reason'] or '') == (code, reason)
    assert asyncio.run(from_far()) == (code, reason)
    wait_for(lambda: gw.metric('tunnels') == 0)


def test_item_38_an_abrupt_end_of_the_client_reaches_upstream(far, gw):
    async def run():
        ws = await connect(gw)
        await ws.send('x')
        assert await ws.recv() == 'x'
        assert gw.metric('tunnels') == 1
        ws.transport.abort()
    asyncio.run(run())
    wait_for(lambda: sockets(far)[0]['closed'])
    assert sockets(far)[0]['closed']['how'] in ('abrupt', 'lost', 'fin')
    wait_for(lambda: gw.metric('tunnels') == 0)


@pytest.mark.parametrize('how', ['abort', 'fin'])
def test_item_38_an_abrupt_end_of_upstream_reaches_the_client(far, gw, how):
    async def run():
        ws = await connect(gw)
        far.ws(**{how: True})
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(ws.recv(), 15)
        return ws.close_code
    assert asyncio.run(run()) == 1006
    wait_for(lambda: gw.metric('tunnels') == 0)


def test_item_38_outage_and_return(far, gw):
    """While upstream is away the upgrade is refused at once, in words that harm no delegate; then it works again."""
    far.stop()

    async def refused():
        with pytest.raises(websockets.InvalidStatusCode) as e:
            await connect(gw)
        return e.value.status_code
    assert asyncio.run(refused()) == 502
    far.start()

    async def works():
        async with connect(gw) as ws:
            await ws.send('again')
            assert await ws.recv() == 'again'
    asyncio.run(works())


def test_item_38_hundred_delegates(far, gw):
    async def one(i):
        async with connect(gw) as ws:
            for n in range(10):
                await ws.send(f'{i} {n}')
                assert await ws.recv() == f'{i} {n}'

    async def run():
        await asyncio.gather(*[one(i) for i in range(100)])
    asyncio.run(run())
    wait_for(lambda: gw.metric('tunnels') == 0)


def test_item_39_secrets_stay_out_of_log_and_metrics(far, gw):
    async def run():
        ws = await connect(gw)
        await ws.send('x')
        far.ws(abort=True)
        with pytest.raises(websockets.ConnectionClosed):
            while True:
                await ws.recv()
    asyncio.run(run())
    call(gw, 'GET', f'/api/x?token={TOKEN}', b'', f'Authorization: Delegate {TOKEN}', f'X-Harness-Token: {TOKEN}')
    far.stop()
    call(gw, 'GET', f'/api/x?token={TOKEN}', b'', f'Authorization: Delegate {TOKEN}')
    call(gw, 'GET', f'/log-service/stream?accountID=acct&key=k&X-Harness-Token={TOKEN}')
    for target in (f'http://app.harness.io/api/x?token={TOKEN}', f'http://user:{TOKEN}@x/', f'http://x y/?{TOKEN}',
                   f'*?token={TOKEN}'):
        call(gw, 'GET', target)
    call(gw, 'CONNECT', f'app.harness.io/?token={TOKEN}')
    for text in (gw.log(), gw.get('/metrics')[1]):
        assert 'secret-of-the-delegate' not in text
    assert 'asked=app.harness.io' in gw.log(), 'what was asked for is told all the same'
    far.start()


# --- 40: poison ------------------------------------------------------------------------------------

def test_item_40_nothing_of_ours_holds_a_poison_string(far, gw):
    answers = []
    far.stop()
    for target in ('/api/x', '/stream/delegate/a', '/log-service/stream?accountID=a&key=k', '/x'):
        for token in POISON:
            status, _, body = call(gw, 'GET', target, b'', f'Authorization: {token}', f'X-Harness-Token: {token}')
            assert status == 502 and json.loads(body)['error_msg']
            answers.append(body.decode())
    far.start()
    for token in POISON:
        escaped = token.replace(' ', '%20')
        for method, target in (('PUT', f'/log-service/stream?accountID={escaped}%00&key={escaped}'),
                               ('PUT', f'/log-service/stream?accountID=a&key={escaped}'), ('PUT', f'/log-service/tickets/{escaped}'),
                               ('GET', f'*{escaped}')):
            _, _, body = call(gw, method, target, token.encode(), f'X-Harness-Token: {token}')
            answers.append(body.decode())
    answers.append(raw(gw.port, f'{POISON[0]}({POISON[1]} HTTP/1.1\r\n\r\n'.encode()).decode())
    assert len([a for a in answers if 'error_msg' in a]) > 20
    for word in POISON:
        assert not [a for a in answers if word in a]
        assert word not in gw.log() and word not in gw.get('/metrics')[1]


# --- 41: managers' calls ---------------------------------------------------------------------------

@pytest.mark.once
def test_item_41_an_answer_may_take_its_time(far, gw):
    """Longer than any timeout of the log path; the limit, 330 s, is tested by tests/unit/http/test_client.c."""
    began = time.monotonic()
    status, _, body = call(gw, 'GET', '/api/x?wait=12&respond=5', timeout=30)
    assert status == 200 and body == bytes(range(5)) and time.monotonic() - began >= 12


class DyingServer:
    """Answers one request of each connection, waits for a second one and dies."""

    def __init__(self):
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.requests, self.connections, self.over = [], 0, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def read(self, s):
        data = b''
        while b'\r\n\r\n' not in data:
            piece = s.recv(65536)
            if not piece:
                return None
            data += piece
        self.requests.append(data.split(b' ')[0].decode())
        return data

    def serve(self, s):
        with s:
            if self.read(s):
                s.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
                self.read(s)

    def close(self):
        self.over = True
        self.listener.close()


@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'PATCH'])
def test_item_41_no_replay_on_a_dead_pooled_connection(gateway_at, method):
    """The far side may have executed it: it is not ours to send it twice."""
    server = DyingServer()
    try:
        gw = gateway_at(f'http://127.0.0.1:{server.port}', workers=1)
        assert call(gw, 'GET', '/api/first')[0] == 200
        status, _, body = call(gw, method, '/api/second', b'' if method == 'DELETE' else b'body')
        assert status == 502 and json.loads(body)['error_msg']
        assert server.requests.count(method) == 1 and server.connections == 1
        assert call(gw, 'GET', '/api/third')[0] == 200
    finally:
        server.close()


def test_item_41_nothing_is_repeated_when_upstream_dies_in_the_middle(far, gw):
    for where in ('before', 'mid_body', 'after'):
        far.clear_log()
        far.fault('reset', 'api', where=where)
        status, _, _ = call(gw, 'POST', '/api/x', b'x' * 1000)
        assert status == 502
        assert len(far.log('api')) == 1


# --- 42: bodies -------------------------------------------------------------------------------------

ODD = ['/api/a%2Fb%2fc?x=%zz&y=a+b;c&&=&%', "/api/~!$&'()*+,;=:@/..//./%2e%2e?q=[]{}|^`\\\"<>", '/api/?', '/api', '/',
       '//api//x/', '/api/%00%0a%ff?%00', '/api/ü€?é=\xff', '/api/x?url=http://other.example/?a=b', '/api/' + 'x' * 8000]


@pytest.mark.parametrize('target', ODD)
def test_item_42_path_and_query_are_byte_exact(far, gw, target):
    data = target.encode('utf-8') if '€' in target else target.encode('latin-1')
    status, _, _ = call(gw, 'GET', data.decode('latin-1'))
    assert status == 200
    assert far.log('api')[-1]['target'].encode('latin-1') == data


@pytest.mark.parametrize('kind', ['application/x-kryo-v2', 'application/x-protobuf', 'multipart/form-data; boundary=x',
                                  'application/json; charset=UTF-8', 'application/x-www-form-urlencoded'])
@pytest.mark.parametrize('chunked', [False, True])
def test_item_42_bodies_are_byte_identical(far, gw, kind, chunked):
    body = bytes(range(256)) * 40 + b'\r\n\r\n0\r\n\r\n'
    sent = b'%x\r\n%s\r\n3\r\nend\r\n0\r\n\r\n' % (len(body), body) if chunked else body
    more = ['Transfer-Encoding: chunked'] if chunked else []
    status, headers, got = call(gw, 'POST', '/api/x?mirror=1', sent, f'Content-Type: {kind}', 'Content-Encoding: whatever', *more,
                                length=not chunked)
    assert status == 200 and got == body + (b'end' if chunked else b'')
    seen = fields(far.log('api')[-1])
    assert seen['content-type'] == kind and seen['content-encoding'] == 'whatever'
    assert ('transfer-encoding' in seen) == chunked


def test_item_42_answers_keep_their_status_and_fields(far, gw):
    for status in (200, 201, 204, 301, 302, 304, 400, 401, 403, 404, 409, 429, 500, 503):
        got, headers, body = call(gw, 'GET', f'/api/x?status={status}&h=X-Odd:%C3%BC%20%22quoted%22')
        assert got == status
        assert ('X-Odd', 'ü "quoted"') in headers
        assert len([k for k, _ in headers if k.lower() == 'date']) == 1
    got, headers, body = call(gw, 'GET', '/api/x?respond=100000&chunked=1')
    assert hashlib.sha256(body).hexdigest() == hashlib.sha256((bytes(range(256)) * 400)[:100000]).hexdigest()


def test_item_42_twenty_megabytes_there_and_back_in_bounded_memory(far, gw):
    """Both ways at once, with a reader that is slow to begin with: what it does not take is not taken from upstream."""
    call(gw, 'GET', '/api/warm')
    before, size = gw.rss_kb(), 20 * MB
    body = bytes(range(256)) * (size // 256)
    with socket.create_connection(('127.0.0.1', gw.port), 60) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sender = threading.Thread(target=lambda: s.sendall(request('POST', '/api/x?mirror=1', body, 'Connection: close')))
        sender.start()
        time.sleep(0.5)  # the reader is slow
        digest, got, head = hashlib.sha256(), 0, b''
        while b'\r\n\r\n' not in head:
            head += s.recv(65536)
        first = head.partition(b'\r\n\r\n')[2]
        digest.update(first)
        got = len(first)
        while True:
            piece = s.recv(1 << 18)
            if not piece:
                break
            digest.update(piece)
            got += len(piece)
        sender.join()
    assert got == size and digest.hexdigest() == hashlib.sha256(body).hexdigest()
    if not sanitized():
        assert (gw.rss_kb(peak=True) - before) / 1024 < 12


def test_item_42_a_slow_upstream_holds_its_sender_back_and_nobody_else(far, gateway_at):
    gw = gateway_at(far.url, drain={'limit': '1s'})
    far.fault('slow_body', 'api', rate=20000)
    before = gw.rss_kb()
    with socket.create_connection(('127.0.0.1', gw.port), 20) as s:
        s.sendall(request('POST', '/api/x', b'', f'Content-Length: {50 * MB}', length=False))
        s.settimeout(1)
        sent = 0
        try:
            while sent < 50 * MB:
                sent += s.send(b'x' * 65536)
        except socket.timeout:
            pass
        assert sent < 20 * MB
        assert call(gw, 'GET', '/api/other')[0] == 200, 'long before the slow one is through'
    if not sanitized():
        assert (gw.rss_kb(peak=True) - before) / 1024 < 12
    far.clear_faults()


@pytest.mark.parametrize('status', [413, 401, 200])
def test_item_42_early_answers_reach_the_client(far, gw, status):
    """Upstream answers before it has read the body, as a proxy does that refuses it."""
    far.fault('status', 'api', code=status, when='before_body', body='early')
    with socket.create_connection(('127.0.0.1', gw.port), 10) as s:
        s.sendall(request('POST', '/api/x', b'', f'Content-Length: {10 * MB}', length=False) + b'x' * 100000)
        got = b''
        while b'early' not in got:
            piece = s.recv(65536)
            assert piece, got
            got += piece
    assert got.startswith(b'HTTP/1.1 %d' % status)


def test_item_42_a_cut_answer_is_not_passed_for_a_whole_one(far, gw):
    far.fault('corrupt', 'api', mode='truncated', size=100000)
    with socket.create_connection(('127.0.0.1', gw.port), 10) as s:
        s.sendall(request('GET', '/api/x'))
        got, reset = b'', False
        try:
            while True:
                piece = s.recv(65536)
                if not piece:
                    break
                got += piece
        except ConnectionResetError:
            reset = True
    assert reset or not got or got.startswith(b'HTTP/1.1 502'), got[:200]


@pytest.mark.parametrize('mode', ['protocol', 'header'])
def test_item_42_an_answer_that_is_none_is_a_502(far, gw, mode):
    far.fault('corrupt', 'api', mode=mode)
    status, _, body = call(gw, 'GET', '/api/x')
    assert status == 502 and json.loads(body)['error_msg']
    assert call(gw, 'GET', '/api/y')[0] == 200


def test_item_42_interim_answers_are_no_answers(far, gw):
    far.fault('interim', 'api', code=103, seconds=0.1)
    assert call(gw, 'GET', '/api/x')[0] == 200


# --- 43-45: names, fields and destinations -----------------------------------------------------------------------

@pytest.mark.parametrize('path', ['/gratis/api/x', '/log-service/healthz', '/gratis/log-service/token', '/ti-service/x', '/verification/x',
                                  '/cv/api/x', '/stream/x', '/api/x', '/pipeline/api/x', '/public/x', '/storage/x'])
def test_item_43_prefixes_and_host(far, gw, path):
    call(gw, 'GET', f'{path}?accountID=acct')
    seen = far.log()[-1]
    assert seen['target'] == f'{path}?accountID=acct'
    assert [v for k, v in seen['headers'] if k.lower() == 'host'] == [f'127.0.0.1:{far.port}']
    got = fields(seen)
    assert not [k for k in got if k.startswith('x-forwarded') or k in ('via', 'forwarded')], 'scripts are made from such'


def test_item_43_sni_and_certificate_of_upstream(gateway_at, ca):
    from standin.harness import Harness
    with Harness(tls=ca.issue('localhost')) as far:
        gw = gateway_at(f'https://localhost:{far.port}', upstream={'ca': ca.ca})
        status, _, body = call(gw, 'GET', '/api/x')
        assert status == 200 and json.loads(body)['tls'] is True
        assert dict(json.loads(body)['headers'])['Host'] == f'localhost:{far.port}'
        stranger = gateway_at(f'https://127.0.0.1:{far.port}', upstream={'ca': ca.ca})
        assert call(stranger, 'GET', '/api/x')[0] == 502, 'the certificate is not for that name'
        other = gateway_at(f'https://localhost:{far.port}')
        assert call(other, 'GET', '/api/x')[0] == 502, 'nobody we trust signed it'


@pytest.mark.parametrize('mutual', [False, True])
def test_tls_sessions_with_upstream_are_resumed(gateway_at, ca, mutual):
    """Connections that cannot be kept cost no full handshake each; a new configuration begins anew."""
    from standin.harness import Harness
    mine, mine_key = ca.issue('delegate', client=True)
    own = {'certificate': mine, 'key': mine_key} if mutual else {}
    with Harness(tls=ca.issue('localhost'), max_requests=1, **({'client_ca': ca.ca, 'require_client_cert': True} if mutual else {})) as far:
        gw = gateway_at(f'https://localhost:{far.port}', upstream={'ca': ca.ca, **own}, workers=1)

        def calls(n):
            before = far.state(lines=False)['connections']['main']
            for _ in range(n):
                status, _, body = call(gw, 'GET', '/api/x')
                assert status == 200 and ('delegate' in json.dumps(json.loads(body)['peer_cert'])) == mutual
            after = far.state(lines=False)['connections']['main']
            return after['tls'] - before['tls'], after['tls_resumed'] - before['tls_resumed']
        assert calls(6) == (6, 5)
        gw.signal(signal.SIGHUP)
        wait_for(lambda: gw.metric('config_generation') == 2)
        new, resumed = calls(6)
        assert new == 6 and resumed >= 5


def connect_answer(gw, authority):
    """What the proxy says to a CONNECT: (head, what follows it until the end)."""
    with socket.create_connection(('127.0.0.1', gw.ports['proxy']), 10) as s:
        s.sendall(f'CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n'.encode())
        got = b''
        while not (got.startswith(b'HTTP/1.1 200') and b'\r\n\r\n' in got):
            piece = s.recv(65536)
            if not piece:
                break
            got += piece
    head, _, rest = got.partition(b'\r\n\r\n')
    return head, rest


def test_item_44_connect_to_what_is_listed(far, gateway_at):
    """No credentials; what is not listed gets no page. With the real names and ports: tests/network."""
    gw = gateway_at(far.url, listen={'proxy': {'address': '127.0.0.1:0'}},
                    rules={'far': {'hosts': [f'127.0.0.1:{far.port}'], 'addresses': ['127.0.0.0/8']}})
    head, rest = connect_answer(gw, f'127.0.0.1:{far.port}')
    assert head.startswith(b'HTTP/1.1 200') and rest == b''
    assert b'content-length' not in head.lower() and b'transfer-encoding' not in head.lower()
    for other in (f'127.0.0.1:{gw.ports["admin"]}', f'localhost:{far.port}', 'app.harness.io.other.example:443'):
        head, rest = connect_answer(gw, other)
        assert head.startswith(b'HTTP/1.1 403') and rest == b'', (other, head, rest)
        assert b'content-type' not in head.lower() and b'proxy-authenticate' not in head.lower()


def test_item_45_client_certificate_upstream_and_no_mtls_fields_from_clients(gateway_at, ca):
    from standin.harness import Harness
    mine, mine_key = ca.issue('delegate', client=True)
    with Harness(tls=ca.issue('localhost'), client_ca=ca.ca, require_client_cert=True) as far:
        gw = gateway_at(f'https://localhost:{far.port}', upstream={'ca': ca.ca, 'certificate': mine, 'key': mine_key})
        status, _, body = call(gw, 'GET', '/api/x', b'', 'X-Harness-MTLS-Authority: forged', 'X-Client-mTLS: forged', 'X-Other: kept')
        answer = json.loads(body)
        assert status == 200 and 'delegate' in json.dumps(answer['peer_cert'])
        names = {k.lower() for k, _ in answer['headers']}
        assert 'x-other' in names and not [n for n in names if 'mtls' in n]


def test_hop_by_hop_fields_end_here(far, gw):
    status, headers, _ = call(gw, 'GET', '/api/x?h=Keep-Alive:timeout=5', b'', 'Keep-Alive: timeout=9', 'Proxy-Connection: keep-alive',
                              'TE: trailers', 'X-Private: 1', 'Proxy-Authorization: Basic c2VjcmV0', 'X-Public: 2', 'Upgrade: nothing')
    names = fields(far.log('api')[-1])
    assert 'x-public' in names
    assert not {'keep-alive', 'proxy-connection', 'te', 'proxy-authorization', 'upgrade'} & set(names)
    assert 'keep-alive' not in {k.lower() for k, _ in headers}
    raw(gw.port, request('GET', '/api/y', b'', 'Connection: close, X-Private', 'X-Private: 1', 'X-Public: 2'))
    names = fields(far.log('api')[-1])
    assert 'x-public' in names and 'x-private' not in names, 'what Connection names is for this hop only'


# --- 46-48: delegates and runners ------------------------------------------------------------------

@pytest.mark.parametrize('prefix', ['', '/gratis'])
def test_item_46_connectivity_check(far, gw, prefix):
    """What a delegate's start script asks, with curl, before anything else."""
    import subprocess
    done = subprocess.run(['curl', '-sS', '--connect-timeout', '10', '-o', '/dev/null', '-w', '%{http_code}',
                           f'{gw.url}{prefix}/api/account/acct/status'], capture_output=True, timeout=30)
    assert done.stdout == b'200'
    assert far.log('api')[-1]['target'] == f'{prefix}/api/account/acct/status'


def test_item_47_polling_is_served_over_kept_connections(far, gw):
    """Twenty runners of a hundred polls each: one connection of each runner, and few upstream."""
    def runner(i):
        import http.client
        conn = http.client.HTTPConnection('127.0.0.1', gw.port, timeout=20)
        conn.connect()
        kept = conn.sock
        for n in range(100):
            conn.request('GET', f'/api/agent/delegates/{i}/task-events?accountId=acct')
            answer = conn.getresponse()
            answer.read()
            assert answer.status == 200
            assert conn.sock is kept, 'a runner keeps its connection, too'
        conn.close()
    before = far.state(lines=False)['connections']['main']['h1']
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        list(pool.map(runner, range(20)))
    assert far.state(lines=False)['connections']['main']['h1'] - before <= 60


def test_item_47_a_restart_loses_no_more_than_what_is_in_flight(far, gw):
    assert call(gw, 'GET', '/api/x')[0] == 200
    gw.stop()
    gw.start()
    assert call(gw, 'GET', '/api/x')[0] == 200


def test_item_48_http2_without_resets(far, gw):
    with H2(gw.port) as c:
        c.send(frame(WINDOW_UPDATE, 0, 0, b'\x01\0\0\0'))
        for i in range(100):
            c.request(2 * i + 1, 'POST', '/api/x?mirror=1', body=bytes([i]) * 1000)
        c.read(lambda: len([a for a in c.answers.values() if a['ended']]) == 100, 20)
        assert c.resets == {} and c.goaway is None
        assert all(c.answers[2 * i + 1]['body'] == bytes([i]) * 1000 for i in range(100))
        far.fault('status', 'api', code=500, count=3)
        for i in range(100, 104):
            c.request(2 * i + 1, 'GET', '/api/x')
            c.answer(2 * i + 1)
        far.stop()
        c.request(401, 'GET', '/api/x')
        assert c.answer(401)['status'] == 502, 'no reset: an answer'
        far.start()
        assert c.resets == {}


def test_a_name_that_does_not_exist_is_a_502(gateway_at):
    gw = gateway_at(f'http://127.0.0.1:{free_port()}')
    status, headers, body = call(gw, 'GET', '/api/x')
    assert status == 502 and json.loads(body)['error_msg'] and dict(headers)['Content-Type'] == 'application/json'
    assert gw.metric('relay_requests_total', code='502') == 1
