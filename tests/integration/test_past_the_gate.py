"""Ways past the gate, and what would exhaust it: protocols inside Upgrade, tunnels without end, what a reload must take back."""
import re
import signal
import socket
import threading
from pathlib import Path

import pytest
from frames import END_HEADERS, END_STREAM, H2, HEADERS, frame
from gateway import wait_for

LIMIT = 16
TUNNELS = 15        # the last tenth is for requests


class Far:
    """A destination that answers what it is told to, once it has read a head, and then keeps quiet; `heads` are those it read."""

    def __init__(self, answer=b''):
        self.answer, self.heads, self.socks = answer, [], []
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.socks.append(s)
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        got = b''
        try:
            while piece := s.recv(65536):
                got += piece
                while b'\r\n\r\n' in got:
                    head, _, got = got.partition(b'\r\n\r\n')
                    self.heads.append(head.decode())
                    s.sendall(self.answer)
        except OSError:
            pass
        s.close()

    def close(self):
        self.listener.close()
        for s in self.socks:
            s.close()


@pytest.fixture
def far_at():
    made = []

    def make(answer=b''):
        made.append(Far(answer))
        return made[-1]
    yield make
    for f in made:
        f.close()


OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
SWITCH = b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n'


def proxy_at(gateway_at, **options):
    return gateway_at('http://127.0.0.1:9', workers=1, listen={'proxy': {'address': '127.0.0.1:0'}}, **{
        'egress': {'profile': 'none'}, 'audit': {'to': 'log'},
        'rules': {'local': {'hosts': ['127.0.0.1'], 'ports': ['1-65535']}}, **options})


def send(port, text):
    s = socket.create_connection(('127.0.0.1', port), 20)
    s.sendall(text.encode())
    return s


def head_of(s):
    got = b''
    while not got.endswith(b'\r\n\r\n'):
        piece = s.recv(1)
        assert piece, got
        got += piece
    return got.decode()


def status_of(s):
    return int(head_of(s).split()[1])


def connect(gw, port):
    return send(gw.ports['proxy'], f'CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n')


# --- protocols inside others --------------------------------------------------------------------

@pytest.mark.parametrize('lines', [
    'Upgrade: h2c', 'Upgrade: foo, h2c', 'Upgrade: websocket, h2c', 'Upgrade: h2c, websocket', 'Upgrade: x\r\nUpgrade: h2c',
    'Upgrade: TLS/1.2', 'Upgrade: "h2c"'])
def test_an_upgrade_to_anything_but_websocket_is_ignored(far_at, gateway_at, lines):
    """Otherwise whole requests go to upstream that nobody has looked at: with fields that are not for clients to set."""
    far = far_at(OK)
    gw = gateway_at(f'http://127.0.0.1:{far.port}')
    with send(gw.port, 'GET /api/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n'
                       f'HTTP2-Settings: AAMAAABkAAQAAP__\r\n{lines}\r\n\r\n') as s:
        assert status_of(s) == 200
    assert not re.search(r'(?im)^(upgrade|connection|http2-settings):', far.heads[0]), far.heads


@pytest.mark.parametrize('protocol', ['h2c', 'connect-udp', 'connect-ip', 'x'])
def test_an_extended_connect_to_anything_but_websocket_is_refused(far_at, gateway_at, protocol):
    far = far_at(SWITCH)
    gw = gateway_at(f'http://127.0.0.1:{far.port}')
    with H2(gw.port) as c:
        block = c.encoder.encode([(':method', 'CONNECT'), (':protocol', protocol), (':scheme', 'http'), (':path', '/x'),
                                  (':authority', 'h')])
        c.send(frame(HEADERS, END_HEADERS, 1, block))
        assert c.answer(1)['status'] == 501
        c.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, c.block('GET', '/healthz')))
        wait_for(lambda: far.heads, what='a request upstream')
    assert [h.split()[1] for h in far.heads] == ['/healthz'], far.heads


def test_a_websocket_still_passes(far_at, gateway_at):
    far = far_at(SWITCH)
    gw = gateway_at(f'http://127.0.0.1:{far.port}')
    with send(gw.port, 'GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n') as s:
        assert status_of(s) == 101
    assert re.search(r'(?im)^upgrade: websocket', far.heads[0])


# --- exhaustion ---------------------------------------------------------------------------------

def test_tunnels_have_a_limit(far_at, gateway_at):
    """Tunnels leave the server that counts connections; without a limit of their own they take every descriptor."""
    far = far_at()
    gw = proxy_at(gateway_at, limits={'connections': LIMIT, 'share': 100})
    tunnels = []
    try:
        for _ in range(TUNNELS):
            tunnels.append(connect(gw, far.port))
            assert status_of(tunnels[-1]) == 200
        with connect(gw, far.port) as s:
            assert status_of(s) == 503
        assert gw.metric('tunnels_refused_total') == 1
        assert gw.get('/readyz')[0] == 200
        tunnels.pop().close()

        def again():
            with connect(gw, far.port) as s:
                return status_of(s) == 200
        wait_for(again, what='a place that is free again')
    finally:
        for s in tunnels:
            s.close()


def test_as_many_descriptors_as_there_are_to_have(gateway_at, monkeypatch):
    """Traditionally 1,024 are given and many more may be had: 500 tunnels would do."""
    monkeypatch.setenv('TAILRACE_WRAPPER', 'prlimit --nofile=200:3000')
    gw = proxy_at(gateway_at)
    limits = Path(f'/proc/{gw.process.pid}/limits').read_text()
    assert re.search(r'(?m)^Max open files +3000 +3000 ', limits), limits
    assert re.search(r'limits.connections is more than there are.* descriptors=3000', gw.log())


# --- what a reload takes back -------------------------------------------------------------------

def reload(gw, **options):
    before = gw.metric('config_generation')
    gw.write_config(**options)
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') > before, what='the reload')


def ended(s):
    s.settimeout(15)
    try:
        return s.recv(1) == b''
    except ConnectionResetError:
        return True


def absolute(gw, port, *lines):
    return send(gw.ports['proxy'], '\r\n'.join([f'GET http://127.0.0.1:{port}/x HTTP/1.1', f'Host: 127.0.0.1:{port}', *lines,
                                                '', '']))


def test_a_reload_ends_relayed_websockets_that_it_denies(far_at, gateway_at):
    """As it ends tunnels: they last for days."""
    denied, kept = far_at(SWITCH), far_at(SWITCH)
    gw = proxy_at(gateway_at)
    upgrade = ['Connection: upgrade', 'Upgrade: websocket']
    with absolute(gw, denied.port, *upgrade) as a, absolute(gw, kept.port, *upgrade) as b:
        assert status_of(a) == status_of(b) == 101
        reload(gw, rules={'local': {'ports': [str(kept.port)]}})
        assert ended(a)
        kept.socks[0].sendall(b'x')
        assert b.recv(1) == b'x'


def test_a_reload_ends_requests_that_it_denies(far_at, gateway_at):
    far = far_at()
    gw = proxy_at(gateway_at)
    with absolute(gw, far.port) as s:
        wait_for(lambda: far.heads, what='the request')
        reload(gw, rules={'local': {'ports': ['1']}})
        assert status_of(s) == 403
    wait_for(lambda: far.socks[0].fileno() < 0, what='the end upstream')


# --- the trail ----------------------------------------------------------------------------------

def test_the_trail_does_not_depend_on_the_level_of_the_log(gateway_at):
    gw = proxy_at(gateway_at)
    reload(gw, log={'level': 'error'})
    with connect(gw, 1) as s:
        assert status_of(s) in (403, 502)
    wait_for(lambda: 'component=audit' in gw.log(), what='an entry in the log')


def test_forwards_past_the_limit_are_counted(far_at, gateway_at):
    far = far_at()
    gw = gateway_at('http://127.0.0.1:9', workers=1, limits={'connections': LIMIT, 'share': 100}, listen={
        'db': {'mode': 'forward', 'address': '127.0.0.1:0', 'to': f'127.0.0.1:{far.port}'}})
    socks = []
    try:
        for _ in range(TUNNELS):
            socks.append(send(gw.ports['db'], 'x'))
        wait_for(lambda: gw.metric('tunnels') == TUNNELS, what='all of them')
        with send(gw.ports['db'], 'x') as s:
            assert ended(s)
        assert gw.metric('tunnels_refused_total') == 1
        assert 'too many tunnels' in gw.log()
    finally:
        for s in socks:
            s.close()
