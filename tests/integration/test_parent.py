"""Everything goes out by a parent proxy, if one is given: Squid, and parents that are not well."""
import asyncio
import base64
import hashlib
import http.server
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest
import websockets
from calls import Api, raw
from gateway import BINARY, free_port, key, to_yaml, wait_for
from parents import NCSA, SQUID, OddParent, Squid, audit_entries, pipe
from standin.harness import Harness

USER, WORD = 'svc-egress', 'p:ss @/%2fword#1'
KINDS = ['plain', 'basic', 'https', 'https-basic']

squid_there = pytest.mark.skipif(not SQUID or not os.path.exists(NCSA), reason='Squid is not installed')


def credentials(directory, text=f'{USER}:{WORD}\n', mode=0o600):
    path = directory / 'parent.credentials'
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.fixture(scope='module')
def squids(ca):
    """squids(kind): one Squid of each kind for all tests, started when first asked for."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = Squid(hosts={'harness.test': '127.0.0.1', 'git.test': '127.0.0.1'},
                               tls=ca.issue('127.0.0.1') if kind.startswith('https') else None,
                               users={USER: WORD} if kind.endswith('basic') else None)
        squid = made[kind]
        squid.seen = len(squid.requests())
        squid.new = lambda: squid.requests()[squid.seen:]
        return squid

    yield get
    for squid in made.values():
        squid.close()


@pytest.fixture
def world(tmp_path, gateway_at, ca):
    """world(far_url, parent, ...): a gateway with a proxy listener, an audit file, and that parent."""
    def make(far_url, parent, with_credentials=False, allow=(), **options):
        upstream = {'ca': ca.ca, 'parent': parent, **options.pop('upstream', {})}
        if with_credentials:
            upstream['parent-credentials'] = credentials(tmp_path)
        g = gateway_at(far_url, upstream=upstream, listen={'proxy': {'address': '127.0.0.1:0'}, **options.pop('listen', {})},
                       egress={**({'allow': list(allow)} if allow else {}), 'profile': 'none', **options.pop('egress', {})},
                       audit={'to': 'file', 'file': str(tmp_path / 'audit'), 'format': 'json'}, **options)
        g.proxy = f'http://127.0.0.1:{g.ports["proxy"]}'
        g.audit = lambda event=None: audit_entries(tmp_path / 'audit', event)
        return g
    return make


def curl(*args):
    done = subprocess.run(['curl', '-sS', '--max-time', '30', '-w', '\n%{http_connect} %{http_code}', *args],
                          capture_output=True, text=True, timeout=60)
    body, _, codes = done.stdout.rpartition('\n')
    connect, code = codes.split()
    return int(connect), int(code), body, done.stderr


def connect_by(gw, target, more=''):
    """CONNECT in raw: (status line, socket)."""
    s = socket.create_connection(('127.0.0.1', gw.ports['proxy']), 20)
    s.settimeout(20)
    s.sendall(f'CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n{more}'.encode())
    head = b''
    while b'\r\n\r\n' not in head:
        piece = s.recv(1)
        if not piece:
            break
        head += piece
    return head.split(b'\r\n')[0].decode(), s


def squid_lines(squid, start):
    return {(method, target) for _, method, target in squid.new() if target.startswith(start)}


def unchunk(answer):
    """The body of a chunked answer."""
    rest, out = answer.partition(b'\r\n\r\n')[2], []
    while rest:
        size, _, rest = rest.partition(b'\r\n')
        n = int(size, 16)
        if n == 0:
            break
        out.append(rest[:n])
        rest = rest[n + 2:]
    return b''.join(out)


def secrets_stay_in(gw):
    seen = gw.log() + json.dumps(gw.audit()) + gw.get('/metrics')[1]
    for secret in (WORD, base64.b64encode(f'{USER}:{WORD}'.encode()).decode(), 'p%3Ass', USER):
        assert secret not in seen


# --- Squid ----------------------------------------------------------------------------------------

@squid_there
@pytest.mark.parametrize('kind', KINDS)
def test_curl_by_tailrace_by_squid(world, squids, ca, kind):
    """The name is resolved by Squid alone; TLS of the client goes through both."""
    squid = squids(kind)
    with Harness(tls=ca.issue('harness.test')) as far:
        where = f'harness.test:{far.port}'
        gw = world('https://app.harness.io', squid.url, kind.endswith('basic'), allow=[where])
        connect, code, body, error = curl('--cacert', ca.ca, '-x', gw.proxy, f'https://{where}/api/x?y=%2f')
        assert (connect, code) == (200, 200), error
        assert json.loads(body)['target'] == '/api/x?y=%2f'
        wait_for(lambda: (200, 'CONNECT', where) in squid.new(), what='the line in Squid\'s log')
        end, = wait_for(lambda: gw.audit('end'))
        assert end['asked'] == where and end['via'] == '127.0.0.1' and end['dialled'] == f'127.0.0.1:{squid.port}'
        assert 'resolved' not in end and end['bytes_down'] > 0
        assert curl('-x', gw.proxy, 'https://harness.test:1/')[0] == 403, 'policy comes first'
        secrets_stay_in(gw)


@squid_there
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('tls', [False, True])
def test_relays_websockets_and_logs_by_squid(world, squids, ca, kind, tls):
    """Upstream mode: all of it goes by the parent; https by CONNECT (TLS in TLS with an https parent), http by
    absolute URLs, except what becomes a WebSocket."""
    squid = squids(kind)
    with Harness(tls=ca.issue('harness.test') if tls else None) as far:
        where = f'harness.test:{far.port}'
        gw = world(f'{"https" if tls else "http"}://{where}', squid.url, kind.endswith('basic'),
                   upstream={'parent-bypass': ['127.0.0.0/8']})
        big = os.urandom(300_000)
        for _ in range(2):
            answer = raw(gw.port, b'POST /api/big?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n'
                         % len(big) + big, timeout=30)
            assert answer.startswith(b'HTTP/1.1 200'), answer[:300]
        seen = far.log('api')[-1]
        fields = {k.lower(): v for k, v in seen['headers']}
        assert seen['target'] == '/api/big?a=b' and fields['host'] == where and 'proxy-authorization' not in fields

        async def echo():
            async with websockets.connect(f'ws://127.0.0.1:{gw.port}/stream/delegate/acct', max_size=1 << 22,
                                          compression=None) as ws:
                await ws.send('x' * 100_000)
                return True
        assert asyncio.run(asyncio.wait_for(echo(), 20))

        api, step = Api(gw.log_url), key()
        api.open(step)
        api.put(step, 'one', 'two')
        api.delete(step)
        gw.wait_delivered()
        api.close()
        assert gw.ledger()['delivered'] == 2
        methods = {m for _, m, _ in wait_for(lambda: squid.new())}
        targets = {t for _, _, t in squid.new()}
        if tls:
            assert methods == {'CONNECT'} and targets == {where}
        else:
            assert {m for m, t in wait_for(lambda: squid_lines(squid, f'http://{where}/api/big'))} == {'POST'}
            assert {m for m, t in squid_lines(squid, f'http://{where}/log-service/')} >= {'PUT', 'POST'}
            wait_for(lambda: ('CONNECT', where) in squid_lines(squid, where), what='the WebSocket\'s tunnel')
        secrets_stay_in(gw)


@squid_there
def test_plain_http_is_asked_for_by_absolute_url(world, squids):
    squid = squids('basic')
    with Harness() as far:
        where = f'harness.test:{far.port}'
        gw = world('https://app.harness.io', squid.url, True, allow=[where])
        _, code, body, _ = curl('-x', gw.proxy, f'http://{where}/api/x', '-H', 'X-Mine: 1')
        assert code == 200 and json.loads(body)['target'] == '/api/x'
        assert curl('-x', gw.proxy, f'http://{where}/api/y')[1] == 200
        assert wait_for(lambda: len(squid.new()) >= 2 and squid.new()) == [
            (200, 'GET', f'http://{where}/api/x'), (200, 'GET', f'http://{where}/api/y')]
        end = wait_for(lambda: gw.audit('end'))[0]
        assert end['via'] == '127.0.0.1' and end['kind'] == 'relay'
        secrets_stay_in(gw)


@squid_there
def test_bypass(world, squids, ca):
    """Names and literal addresses of parent-bypass are dialled directly, by relays, tunnels and deliveries alike."""
    squid = squids('plain')
    with Harness(tls=ca.issue('localhost', '127.0.0.1')) as far:
        gw = world(f'https://localhost:{far.port}', squid.url, allow=[f'127.0.0.1:{far.port}', f'localhost:{far.port}'],
                   rules={'here': {'hosts': ['localhost'], 'ports': [str(far.port)], 'addresses': ['127.0.0.1']}},
                   upstream={'parent-bypass': ['127.0.0.1', 'localhost']})
        for name in ('localhost', '127.0.0.1'):
            assert curl('--cacert', ca.ca, '-x', gw.proxy, f'https://{name}:{far.port}/api/x')[:2] == (200, 200)
        assert curl(f'{gw.url}/api/x')[1] == 200
        api, step = Api(gw.log_url), key()
        api.open(step)
        api.put(step, 'one')
        gw.wait_delivered()
        api.close()
        assert squid.new() == []
        ends = wait_for(lambda: len(gw.audit('end')) >= 3 and gw.audit('end'))
        assert not [e for e in ends if 'via' in e]


@squid_there
@pytest.mark.parametrize('bypass', [False, True])
def test_uploads_by_link(world, squids, bypass):
    """Both hosts of an upload: the service goes by the parent, the store only if it is not bypassed."""
    squid, step, data = squids('basic'), key(), os.urandom(50_000)
    with Harness() as far:
        gw = world(f'http://harness.test:{far.port}', squid.url, True,
                   upstream={'parent-bypass': ['127.0.0.0/8']} if bypass else {})
        api = Api(gw.log_url)
        assert 200 <= api.put_link(step, data)[0] < 300
        gw.wait_delivered()
        api.close()
        assert far.blob('acct', step) == data
        wait_for(lambda: squid_lines(squid, f'http://harness.test:{far.port}/log-service/'))
        wait_for(lambda: bypass or ('PUT', ) in {line[:1] for line in squid_lines(squid, far.store_url)})
        assert bool(squid_lines(squid, far.store_url)) == (not bypass)
        secrets_stay_in(gw)


@squid_there
@pytest.mark.parametrize('kind', ['plain', 'https-basic'])
def test_git_clones_by_tailrace_by_squid(world, squids, ca, tmp_path, kind):
    squid = squids(kind)
    git = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', '-c', 'init.defaultBranch=main']
    work, served = tmp_path / 'work', tmp_path / 'served'
    subprocess.run([*git, 'init', '-q', str(work)], check=True)
    (work / 'file').write_bytes(os.urandom(400_000))
    subprocess.run([*git, '-C', str(work), 'add', 'file'], check=True)
    subprocess.run([*git, '-C', str(work), 'commit', '-qm', 'one'], check=True)
    subprocess.run([*git, 'clone', '-q', '--bare', str(work), str(served / 'repo.git')], check=True)
    subprocess.run([*git, '-C', str(served / 'repo.git'), 'update-server-info'], check=True)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *a, **k):
            super().__init__(*a, directory=str(served), **k)

        def log_message(self, *a):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ca.issue('git.test'))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        where = f'git.test:{server.server_address[1]}'
        gw = world('https://app.harness.io', squid.url, kind.endswith('basic'), allow=[where])
        subprocess.run(['git', '-c', f'http.proxy={gw.proxy}', '-c', 'http.sslVerify=true', 'clone', '-q',
                        f'https://{where}/repo.git', str(tmp_path / 'copy')], check=True, timeout=60,
                       env=dict(os.environ, GIT_TERMINAL_PROMPT='0', GIT_SSL_CAINFO=ca.ca))
        assert (tmp_path / 'copy' / 'file').read_bytes() == (work / 'file').read_bytes()
        wait_for(lambda: (200, 'CONNECT', where) in squid.new())
    finally:
        server.shutdown()
        server.server_close()


@squid_there
def test_credentials_that_are_missing_wrong_or_renewed(world, squids, tmp_path):
    squid = squids('basic')
    with Harness() as far:
        where = f'harness.test:{far.port}'
        gw = world('https://app.harness.io', squid.url, True, allow=[where])
        (tmp_path / 'parent.credentials').write_text(f'{USER}:another-word\n')
        gw.signal(signal.SIGHUP)
        wait_for(lambda: gw.metric('config_generation') == 2)
        assert connect_by(gw, where)[0].split()[1] == '502'
        assert curl('-x', gw.proxy, f'http://{where}/api/x')[1] == 502, 'a 407 is no business of the client\'s'
        text = f'the parent 127.0.0.1:{squid.port} answered CONNECT with status 407 (it asks for credentials)'
        end = wait_for(lambda: gw.audit('end'))[0]
        assert text in end['error'] and end['end'] == 'unreachable' and end['status'] == 502
        assert text in gw.log() and 'another-word' not in gw.log()
        credentials(tmp_path)
        gw.signal(signal.SIGHUP)
        wait_for(lambda: gw.metric('config_generation') == 3)
        assert curl('-x', gw.proxy, f'http://{where}/api/x')[1] == 200
        secrets_stay_in(gw)


# --- parents that are not well --------------------------------------------------------------------

def say(*pieces, then=None):
    def behave(parent, connection, head):
        for piece in pieces:
            connection.sendall(piece)
        if then == 'wait':
            parent.over.wait(30)
    return behave


def reset(parent, connection, head):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))


ODD = {
    '407': (say(b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'), 502,
            'answered CONNECT with status 407 (it asks for credentials)'),
    '403': (say(b'HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno!'), 502, 'answered CONNECT with status 403'),
    '503': (say(b'HTTP/1.0 503 Gone\r\n\r\n'), 502, 'answered CONNECT with status 503'),
    '101': (say(b'HTTP/1.1 101 Else\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'), 502, 'status 101'),
    'garbage': (say(b'SSH-2.0-OpenSSH_9.2\r\n\r\n'), 502, 'malformed answer to CONNECT'),
    'control': (say(b'HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n'), 502, 'malformed answer to CONNECT'),
    'nothing': (say(), 502, 'closed the connection before it had answered CONNECT'),
    'cut': (say(b'HTTP/1.1 200 OK\r\nX-Half: '), 502, 'closed the connection before it had answered CONNECT'),
    'reset': (reset, 502, 'the parent 127.0.0.1'),
    'slow': (say(b'HTTP/1.1 200 OK\r\nX', then='wait'), 504, 'took longer than 700 ms to answer CONNECT'),
    'endless': (say(b'HTTP/1.1 200 OK\r\n', b'X: ' + b'y' * 200_000, then='wait'), 502, 'too long'),
    'interim': (say(b'HTTP/1.1 100 Continue\r\n\r\n' * 4000, then='wait'), 502, 'too long'),
}


@pytest.mark.parametrize('name', ODD)
def test_odd_answers_of_a_parent(world, name):
    behave, status, text = ODD[name]
    with OddParent(behave) as parent:
        gw = world('https://app.harness.io', parent.url, allow=['somewhere.test'], egress={'connect-timeout': '700ms'})
        line, s = connect_by(gw, 'somewhere.test:443')
        s.close()
        assert int(line.split()[1]) == status
        end, = wait_for(lambda: gw.audit('end'))
        assert end['error'].startswith('cannot connect to somewhere.test:443: the parent 127.0.0.1:'), end
        assert text in end['error'] and end['status'] == status and end['via'] == '127.0.0.1'
        assert end['end'] == ('timeout' if status == 504 else 'unreachable')
        assert text in gw.log()
        assert parent.heads[0] == ('CONNECT somewhere.test:443 HTTP/1.1\r\nHost: somewhere.test:443\r\n\r\n')


@pytest.mark.parametrize('mode', ['forward', 'grpc'])
def test_forwards_and_grpc_go_by_the_parent_too(world, mode):
    """Each asks it by CONNECT, and says what it made of that."""
    def behave(parent, connection, head):
        connection.sendall(b'HTTP/1.1 503 No\r\n\r\n')
    with OddParent(behave) as parent:
        to = 'db.test:5432' if mode == 'forward' else 'http://engine.test:20001'
        gw = world('https://app.harness.io', parent.url,
                   listen={'there': {'mode': mode, 'address': '127.0.0.1:0', 'to': to}})
        curl('--http2-prior-knowledge', '-d', 'x', '-H', 'Content-Type: application/grpc',
             f'http://127.0.0.1:{gw.ports["there"]}/a.B/C')
        end, = wait_for(lambda: gw.audit('end'))
        assert parent.heads[0].startswith(f'CONNECT {to.removeprefix("http://")} HTTP/1.1\r\n')
        assert 'answered CONNECT with status 503' in end['error'] and end['via'] == '127.0.0.1', end
        assert end['end'] == 'unreachable'


@pytest.mark.parametrize('pieces', [1, 3])
def test_what_follows_the_answer_is_not_lost(world, pieces):
    """A server that speaks first, whose words come with the parent's answer, an interim one before it."""
    def behave(parent, connection, head):
        out = b'HTTP/1.1 103 Hints\r\nX: y\r\n\r\nHTTP/1.1 200 Fine\r\nContent-Length: 5\r\n\r\n220 ready' + b'.' * 20_000 + b'\n'
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(out), len(out) // pieces + 1):
            connection.sendall(out[i:i + len(out) // pieces + 1])
        connection.sendall(connection.recv(100).upper())
    with OddParent(behave) as parent:
        gw = world('https://app.harness.io', parent.url, allow=['mail.test:25'])
        line, s = connect_by(gw, 'mail.test:25')
        assert line.split()[1] == '200'
        s.sendall(b'hello')
        got = b''
        while piece := s.recv(65536):
            got += piece
        s.close()
        assert got == b'220 ready' + b'.' * 20_000 + b'\nHELLO'


def test_words_before_tls_are_refused(world, ca):
    with OddParent(say(b'HTTP/1.1 200 OK\r\n\r\nhello', then='wait')) as parent:
        gw = world('https://harness.test', parent.url)
        assert curl(f'{gw.url}/api/x')[1] == 502
        end, = wait_for(lambda: gw.audit('end'))
        assert 'before TLS began' in end['error']


def test_a_parent_that_is_not_there(world):
    port = free_port()
    gw = world('https://harness.test', f'http://127.0.0.1:{port}', allow=['a.test', 'b.test:80'])
    assert connect_by(gw, 'a.test:443')[0].split()[1] == '502'
    assert curl('-x', gw.proxy, 'http://b.test/')[1] == 502
    assert curl(f'{gw.url}/api/x')[1] == 502
    ends = wait_for(lambda: len(gw.audit('end')) == 3 and gw.audit('end'))
    for end in ends:
        assert f'the parent proxy: cannot connect to 127.0.0.1:{port}: ' in end['error'] and 'refused' in end['error']
        assert end['end'] == 'unreachable' and end['status'] == 502 and end['via'] == '127.0.0.1'


def test_a_parent_whose_certificate_is_not_good(world, ca):
    """An https parent is verified as any upstream is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ca.issue('other.test'))
    with socket.create_server(('127.0.0.1', 0)) as listener:
        def serve():
            while True:
                try:
                    connection = listener.accept()[0]
                    context.wrap_socket(connection, server_side=True)
                except ssl.SSLError:
                    connection.close()
                except OSError:
                    return
        threading.Thread(target=serve, daemon=True).start()
        gw = world('https://harness.test', f'https://127.0.0.1:{listener.getsockname()[1]}', allow=['a.test'])
        assert connect_by(gw, 'a.test:443')[0].split()[1] == '502'
        end, = wait_for(lambda: gw.audit('end'))
        assert 'the parent proxy' in end['error'] and 'it is not for 127.0.0.1' in end['error']


@squid_there
def test_ends_resets_and_a_slow_reader_within_two_layers_of_tls(world, squids, ca):
    """TLS in TLS: a large answer to a client that reads late, and an upstream that dies in the middle of one."""
    squid = squids('https')
    with Harness(tls=ca.issue('harness.test')) as far:
        gw = world(f'https://harness.test:{far.port}', squid.url)
        size, body = 8 << 20, os.urandom(8 << 20)
        s = socket.create_connection(('127.0.0.1', gw.port), 20)
        s.settimeout(30)
        sender = threading.Thread(target=s.sendall, args=(
            b'POST /api/x?mirror=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n' % size + body,))
        sender.start()
        time.sleep(0.3)  # it reads late
        got = b''.join(iter(lambda: s.recv(1 << 18), b''))
        sender.join()
        s.close()
        assert body in got or len(got) > size and hashlib.sha256(unchunk(got)).digest() == hashlib.sha256(body).digest()

        async def abrupt(how):
            ws = await websockets.connect(f'ws://127.0.0.1:{gw.port}/stream/delegate/acct', compression=None)
            await ws.send('x')
            assert await ws.recv() == 'x'
            far.ws(**{how: True})
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(ws.recv(), 20)
            return ws.close_code
        for how in ('abort', 'fin'):
            assert asyncio.run(abrupt(how)) == 1006
        wait_for(lambda: gw.metric('tunnels') == 0)


# --- certificates of upstream ---------------------------------------------------------------------

def test_item_45_client_certificate_for_relays_websockets_and_logs(gateway_at, ca, tmp_path):
    mine, mine_key = ca.issue('delegate', client=True)
    with Harness(tls=ca.issue('localhost'), client_ca=ca.ca, require_client_cert=True) as far:
        gw = gateway_at(f'https://localhost:{far.port}', upstream={'ca': ca.ca, 'certificate': mine, 'key': mine_key, 'tls-min': '1.3'})
        assert curl(f'{gw.url}/api/x')[1] == 200

        async def there():
            async with websockets.connect(f'ws://127.0.0.1:{gw.port}/stream/delegate/acct', compression=None) as ws:
                await ws.send('x')
        asyncio.run(asyncio.wait_for(there(), 20))
        api, step = Api(gw.log_url), key()
        api.open(step)
        api.put(step, 'one')
        gw.wait_delivered()
        api.close()
        bare = gateway_at(f'https://localhost:{far.port}', upstream={'ca': ca.ca},
                          audit={'to': 'file', 'file': str(tmp_path / 'audit'), 'format': 'json'})
        assert curl(f'{bare.url}/api/x')[1] == 502
        end, = wait_for(lambda: audit_entries(tmp_path / 'audit', 'end'))
        assert end['end'] in ('unreachable', 'upstream') and end['error'] and end['status'] == 502, end


def self_made(directory, name, days):
    """A certificate by nobody's CA."""
    paths = directory / f'{name}.crt', directory / f'{name}.key'
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', str(days),
                    '-subj', f'/CN={name}', '-addext', f'subjectAltName=DNS:{name}', '-keyout', str(paths[1]), '-out', str(paths[0])],
                   check=True, capture_output=True)
    return str(paths[0]), str(paths[1])


@pytest.mark.parametrize('what', ['expired', 'name', 'authority'])
@pytest.mark.parametrize('by', ['directly', 'by-parent'])
def test_certificates_that_are_not_good(gateway_at, ca, tmp_path, what, by):
    pair, text = {
        'expired': lambda: (ca.issue('localhost', expired=True), 'certificate has expired; it was valid until 20'),
        'name': lambda: (ca.issue('other.test'), 'it is not for localhost; its subject is /CN=other.test'),
        'authority': lambda: (self_made(tmp_path, 'localhost', 5), 'self-signed certificate'),
    }[what]()

    def behave(parent, connection, head):
        with socket.create_connection(('127.0.0.1', far.port)) as other:
            connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
            pipe(connection, other)
    with Harness(tls=pair) as far, OddParent(behave) as parent:
        gw = gateway_at(f'https://localhost:{far.port}',
                        upstream={'ca': ca.ca, **({'parent': parent.url} if by == 'by-parent' else {})},
                        audit={'to': 'file', 'file': str(tmp_path / 'audit'), 'format': 'json'})
        _, code, body, _ = curl(f'{gw.url}/api/x')
        assert code == 502 and 'upstream cannot be reached' in body and 'certificate' not in body
        end, = wait_for(lambda: audit_entries(tmp_path / 'audit', 'end'))
        assert text in end['error'] and end['end'] == 'unreachable' and end['status'] == 502, end
        assert f'cannot connect to localhost:{far.port}: ' in end['error']
        assert ('by the parent' in end['error']) == (by == 'by-parent')
        assert text in gw.log()


# --- configuration --------------------------------------------------------------------------------

@pytest.mark.parametrize('text,mode,why', [
    (f'{USER}:{WORD}\n', 0o640, 'its permissions (0640) let others than its owner at the secret in it; chmod 600 it'),
    (f'{USER}:{WORD}\n', 0o604, 'its permissions (0604)'),
    (f'{USER}{WORD.replace(":", "")}\n', 0o600, 'use one line with user:password'),
    (f':{WORD}\n', 0o600, 'use one line with user:password'),
    (f'{USER}:{WORD}\nmore\n', 0o600, 'use one line with user:password'),
    ('', 0o600, 'empty'),
    ('a:' + 'x' * 2000, 0o600, 'longer than'),
    (None, 0o600, 'No such file'),
], ids=['group', 'others', 'no-colon', 'no-user', 'two-lines', 'empty', 'long', 'missing'])
def test_check_refuses_unusable_credentials(tmp_path, text, mode, why):
    path = credentials(tmp_path, text or '', mode)
    if text is None:
        os.unlink(path)
    config = {'harness': {'url': 'https://app.harness.io'}, 'listen': {'upstream': {'address': '127.0.0.1:0'}},
              'upstream': {'parent': 'http://proxy.test', 'parent-credentials': path}}
    (tmp_path / 'c.yaml').write_text(to_yaml(config))
    done = subprocess.run([BINARY, 'check', '-c', str(tmp_path / 'c.yaml')], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f'upstream.parent-credentials: {path}: ' in done.stderr and why in done.stderr
    assert WORD not in done.stderr and USER not in done.stderr


@pytest.mark.parametrize('url', ['http://proxy.test/x', 'http://user:word@proxy.test', 'socks5://proxy.test'])
def test_check_refuses_odd_parents(tmp_path, url):
    config = {'harness': {'url': 'https://app.harness.io'}, 'listen': {'upstream': {'address': '127.0.0.1:0'}},
              'upstream': {'parent': url}}
    (tmp_path / 'c.yaml').write_text(to_yaml(config))
    done = subprocess.run([BINARY, 'check', '-c', str(tmp_path / 'c.yaml')], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and re.search(r'c.yaml:\d+: upstream.parent: ', done.stderr), done.stderr
