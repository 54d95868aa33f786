"""Both versions of HTTP, in clear and over TLS, with clients and proxies of the real world."""
import re
import shutil
import socket
import ssl
import subprocess
import time

import pytest
from calls import Api, body_of, error_of, raw
from frames import H2, sanitized
from gateway import free_port, key, wait_for

MB = 1 << 20


@pytest.fixture
def tls_gw(far, gateway_at, ca):
    cert, tls_key = ca.issue('127.0.0.1', 'localhost')
    return gateway_at(far.url, cert=cert, key=tls_key)


def request(method, target, body=b'', *fields, version='1.1'):
    lines = [f'{method} {target} HTTP/{version}', 'Host: x', 'X-Harness-Token: token-1', *fields]
    if body or method in ('PUT', 'POST'):
        lines.append(f'Content-Length: {len(body)}')
    return '\r\n'.join(lines + ['', '']).encode() + body


def statuses(data):
    return [int(x) for x in re.findall(rb'HTTP/1\.1 (\d+)', data)]


def tool(name):
    path = shutil.which(name) or shutil.which(name, path='/usr/sbin:/sbin')
    assert path, f'{name} is not installed'
    return path


def run(*args, timeout=60, **kw):
    done = subprocess.run(args, capture_output=True, timeout=timeout, **kw)
    return done.stdout.decode('utf-8', 'replace') + done.stderr.decode('utf-8', 'replace')


# --- HTTP/1.1 -------------------------------------------------------------------------------------

def test_one_connection_is_kept(gw, api):
    assert api.open(key())[0] == 204
    sock = api.conn.sock
    for i in range(50):
        assert api.put(key(), f'{i}\n', start=i)[0] == 204
        assert api.conn.sock is sock
    assert api.put_raw(key(), b'no json')[0] == 400
    assert api.conn.sock is sock, 'an error of the caller is no reason to close'
    assert api.put(key(), 'last\n', start=50)[0] == 204


def test_pipelined_calls_are_done_in_order(far, gw, api):
    assert api.open(key())[0] == 204
    data = b''.join(request('PUT', api.target('/stream', key()), body_of(f'{i}\n', start=i)) for i in range(10))
    data += request('PUT', api.target('/stream', key()), b'bad') + request('GET', '/api/echo', b'', 'Connection: close')
    got = statuses(raw(gw.port, data))
    assert got == [204] * 10 + [400, 200]
    gw.wait_delivered()
    assert far.lines('acct', key()) == [f'{i}\n' for i in range(10)]


def test_pipelined_calls_cut_anywhere(far, gw, api):
    """The same bytes in pieces of odd sizes."""
    assert api.open(key())[0] == 204
    data = b''.join(request('PUT', api.target('/stream', key()), body_of(f'{i}\n', start=i)) for i in range(5))
    with socket.create_connection(('127.0.0.1', gw.port), 10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), 37):
            s.sendall(data[at:at + 37])
        got = b''
        while got.count(b'HTTP/1.1 204') < 5:
            piece = s.recv(65536)
            assert piece
            got += piece
    gw.wait_delivered()
    assert far.lines('acct', key()) == [f'{i}\n' for i in range(5)]


def test_expect_100_continue(far, gw, api):
    body = body_of('continued\n')
    api.open(key())
    head = request('PUT', api.target('/stream', key()), body, 'Expect: 100-continue')[:-len(body)]
    with socket.create_connection(('127.0.0.1', gw.port), 10) as s:
        s.sendall(head)
        assert s.recv(1000) == b'HTTP/1.1 100 Continue\r\n\r\n'
        s.sendall(body)
        assert s.recv(1000).startswith(b'HTTP/1.1 204')
        # A body that will be refused is not asked for.
        s.sendall(request('PUT', api.target('/stream', key()), body, 'Expect: 100-continue', 'Content-Encoding: br')[:-len(body)])
        assert s.recv(1000).startswith(b'HTTP/1.1 415')
    gw.wait_delivered()
    assert far.lines('acct', key()) == ['continued\n']


def test_http_1_0(gw, api):
    api.open(key())
    data = raw(gw.port, request('PUT', api.target('/stream', key()), body_of('a\n'), version='1.0'))
    assert statuses(data) == [204] and b'connection: close' in data.lower()
    keep = request('PUT', api.target('/stream', key()), body_of('b\n'), 'Connection: keep-alive', version='1.0')
    data = raw(gw.port, keep + request('GET', '/api/echo?respond=10&chunked=1', version='1.0'))
    assert statuses(data) == [204, 200] and b'keep-alive' in data
    assert b'transfer-encoding' not in data.lower() and data.endswith(bytes(range(10)))


def test_a_chunked_body(far, gw, api):
    api.open(key())
    body = body_of('chunked\n')
    chunks = b''.join(b'%x;ext=1\r\n%s\r\n' % (len(body[i:i + 7]), body[i:i + 7]) for i in range(0, len(body), 7))
    head = f'PUT {api.target("/stream", key())} HTTP/1.1\r\nHost: x\r\nX-Harness-Token: t\r\n' \
           'Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n'
    assert statuses(raw(gw.port, head.encode() + chunks + b'0\r\nTrailer: x\r\n\r\n')) == [204]
    gw.wait_delivered()
    assert far.lines('acct', key()) == ['chunked\n']


def test_close_is_honoured(gw, api):
    for fields in (['Connection: close'], ['Connection: foo, Close'], ['connection: CLOSE']):
        data = raw(gw.port, request('PUT', api.target('/stream', key()), b'[]', *fields))
        assert statuses(data) == [204] and b'connection: close' in data.lower()


# --- HEAD -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('path', ['/api/echo', '/api/echo?respond=1000', '/api/echo?respond=1000&chunked=1',
                                  '/log-service/blob?accountID=acct&key=none'])
def test_head_has_no_body(gw, path):
    data = raw(gw.port, request('HEAD', path) + request('GET', '/api/echo?respond=3', b'', 'Connection: close'))
    head, _, rest = data.partition(b'\r\n\r\n')
    assert rest.startswith(b'HTTP/1.1 200') and rest.endswith(b'\0\1\2'), 'the next answer follows at once'
    with H2(gw.port) as c:
        c.request(1, 'HEAD', path)
        a = c.answer(1)
        assert a['body'] == b'' and a['status'] in (200, 404) and a['heads'] == 1
        c.request(3, 'GET', '/api/echo?respond=3')
        assert c.answer(3)['body'] == b'\0\1\2'


@pytest.mark.parametrize('path', ['/', '/metrics', '/healthz', '/readyz', '/nothing'])
def test_head_of_the_admin_pages(gw, path):
    """As GET, without the body."""
    port = gw.ports['admin']
    got = raw(port, request('GET', path, b'', 'Connection: close'))
    head = raw(port, request('HEAD', path, b'', 'Connection: close'))
    assert head.endswith(b'\r\n\r\n') and statuses(head) == statuses(got)
    assert (b'content-length: 0' not in head.lower()) and b'content-length' in head.lower()
    with H2(port) as c:
        c.request(1, 'HEAD', path)
        a = c.answer(1)
        assert a['body'] == b'' and a['status'] == statuses(got)[0] and int(a['headers']['content-length']) > 0
        c.request(3, 'GET', path)
        assert c.answer(3)['body']


# --- HTTP/2 and TLS -------------------------------------------------------------------------------

def test_h2_by_prior_knowledge(far, gw, api):
    with H2(gw.port) as c:
        c.request(1, 'POST', api.target('/stream', key()), ('x-harness-token', 't'))
        assert c.answer(1)['status'] == 204
        for i in range(10):
            c.put(3 + 2 * i, api, key(), body_of(f'{i}\n', start=i))
            assert c.answer(3 + 2 * i)['status'] == 204
    gw.wait_delivered()
    assert far.lines('acct', key()) == [f'{i}\n' for i in range(10)]


def test_an_upgrade_to_h2c_is_ignored(gw, api):
    data = raw(gw.port, request('GET', '/api/echo', b'', 'Connection: Upgrade, HTTP2-Settings, close', 'Upgrade: h2c',
                                'HTTP2-Settings: AAMAAABkAAQAAP__'))
    assert statuses(data) == [200]


def handshake(port, ca, alpn=None, version=None):
    context = ssl.create_default_context(cafile=ca.ca)
    if alpn:
        context.set_alpn_protocols(alpn)
    if version:
        context.minimum_version = context.maximum_version = version
        context.set_ciphers('ALL:@SECLEVEL=0')
    with socket.create_connection(('127.0.0.1', port), 10) as s:
        with context.wrap_socket(s, server_hostname='127.0.0.1') as t:
            return t.selected_alpn_protocol(), t.version()


def test_alpn(tls_gw, ca):
    assert handshake(tls_gw.port, ca, ['h2', 'http/1.1']) == ('h2', 'TLSv1.3')
    assert handshake(tls_gw.port, ca, ['http/1.1', 'h2'])[0] in ('h2', 'http/1.1')
    assert handshake(tls_gw.port, ca, ['http/1.1'])[0] == 'http/1.1'
    assert handshake(tls_gw.port, ca)[0] is None
    assert tls_gw.metric('http_glitches_total', kind='handshake') == 0


def test_tls_1_2_is_the_least(tls_gw, ca):
    assert handshake(tls_gw.port, ca, ['h2'], ssl.TLSVersion.TLSv1_2) == ('h2', 'TLSv1.2')
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(tls_gw.port, ca, None, old)
    assert tls_gw.metric('http_glitches_total', kind='handshake') >= 2


def test_clear_text_to_a_tls_port(tls_gw, ca):
    assert b'204' not in raw(tls_gw.port, request('GET', '/api/echo'))
    wait_for(lambda: tls_gw.metric('http_glitches_total', kind='handshake') >= 1)
    assert handshake(tls_gw.port, ca, ['h2'])[0] == 'h2'


def test_a_client_certificate_where_one_is_asked_for(far, gateway_at, ca, tmp_path):
    cert, tls_key = ca.issue('127.0.0.1')
    mine, mine_key = ca.issue('pod', client=True)
    gw = gateway_at(far.url, cert=cert, key=tls_key, listen={'upstream': {'client-ca': ca.ca}})
    url = f'{gw.url}/api/echo'
    assert run(tool('curl'), '-sS', '--cacert', ca.ca, '--cert', mine, '--key', mine_key, '-o', '/dev/null', '-w', '%{http_code}',
               url) == '200'
    assert 'curl: (' in run(tool('curl'), '-sS', '--cacert', ca.ca, '-o', '/dev/null', url)


# --- tools of the real world ----------------------------------------------------------------------

def h2load(*args):
    text = run(tool('h2load'), *args, timeout=120)
    found = re.search(r'requests: (\d+) total.*?(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored', text)
    assert found, text
    return [int(x) for x in found.groups()], text


@pytest.mark.parametrize('clear', [True, False])
def test_h2load_with_a_hundred_streams(far, gw, tls_gw, api, tmp_path, clear):
    here = gw if clear else tls_gw
    (tmp_path / 'body').write_bytes(body_of('loaded\n'))
    api.open(key())
    target = Api(here.log_url).target('/stream', key())
    (total, done, good, failed, errored), text = h2load(
        '-n', '3000', '-c', '3', '-m', '100', '-t', '1', '-d', str(tmp_path / 'body'), '-H', ':method: PUT',
        '-H', 'x-harness-token: token-1', here.url + target)
    assert (total, done, good, failed, errored) == (3000, 3000, 3000, 0, 0), text
    assert here.metric('client_requests_total', call='lines', code='204') == 3000
    here.ledger()


def test_h2load_over_http1(gw, tmp_path):
    (total, done, good, failed, errored), text = h2load('--h1', '-n', '2000', '-c', '20', '-t', '1', gw.url + '/api/echo?respond=100')
    assert (done, good, failed, errored) == (2000, 2000, 0, 0), text


@pytest.mark.parametrize('version', ['--http1.0', '--http1.1', '--http2', '--http2-prior-knowledge'])
def test_curl(far, gw, tls_gw, ca, api, tmp_path, version):
    here = gw if version == '--http2-prior-knowledge' else tls_gw
    (tmp_path / 'body').write_bytes(body_of('curled\n'))
    name = key('curl')
    for method, more in (('POST', []), ('PUT', ['--data-binary', f'@{tmp_path}/body']), ('DELETE', [])):
        out = run(tool('curl'), '-sS', version, '--cacert', ca.ca, '-X', method, '-H', 'X-Harness-Token: token-1', '-w', '%{http_code}',
                  *more, here.url + Api(here.log_url).target('/stream', name))
        assert out == '204', (method, out)
    wait_for(lambda: far.lines('acct', name) == ['curled\n'])


def test_nghttp(far, gw, api, tmp_path):
    (tmp_path / 'body').write_bytes(body_of('nghttp\n'))
    api.open(key('nghttp'))
    text = run(tool('nghttp'), '-v', '-d', str(tmp_path / 'body'), '-H', ':method: PUT', '-H', 'x-harness-token: token-1',
               gw.url + api.target('/stream', key('nghttp')))
    assert ':status: 204' in text, text
    wait_for(lambda: far.lines('acct', key('nghttp')) == ['nghttp\n'])
    text = run(tool('nghttp'), '-v', '-m', '20', gw.url + '/api/echo?respond=300000')
    assert text.count(':status: 200') == 20 and 'error_code=' in text and text.count('ERROR') == text.count('NO_ERROR')


# --- proxies in front -----------------------------------------------------------------------------

@pytest.fixture
def proxy(tmp_path):
    """Starts a proxy in the foreground; ended by its process."""
    started = []

    def start(port, *args):
        log = open(tmp_path / 'proxy.log', 'ab')
        started.append(subprocess.Popen(args, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=tmp_path))

        def up():
            assert started[-1].poll() is None, (tmp_path / 'proxy.log').read_text()
            with socket.socket() as s:
                return s.connect_ex(('127.0.0.1', port)) == 0
        wait_for(up, what=args[0])
    yield start
    for p in started:
        p.terminate()
        try:
            p.wait(10)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()


NGINX = '''
daemon off; master_process off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_max_body_size 64m;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream gate {{ server 127.0.0.1:{to}; keepalive 16; }}
  map $http_upgrade $conn {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};
    location / {{ proxy_pass http://gate; proxy_http_version 1.1; proxy_set_header Host $http_host;
                  proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $conn; }}
  }}
}}
'''

HAPROXY = '''
global
  maxconn 500
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind 127.0.0.1:{port} ssl crt {pem} alpn h2,http/1.1
  default_backend gate
backend gate
  server g 127.0.0.1:{to}{proto}
'''


def in_front(kind, gw, ca, proxy, tmp_path):
    """A TLS terminator in front of `gw`; its port."""
    port = free_port()
    cert, tls_key = ca.issue('127.0.0.1')
    if kind == 'nginx':
        (tmp_path / 'nginx.conf').write_text(NGINX.format(dir=tmp_path, to=gw.port, port=port, cert=cert, key=tls_key))
        proxy(port, tool('nginx'), '-p', str(tmp_path), '-c', str(tmp_path / 'nginx.conf'))
        return port
    pem = tmp_path / 'front.pem'
    pem.write_bytes(open(cert, 'rb').read() + open(tls_key, 'rb').read())
    proto = ' proto h2' if kind == 'haproxy-h2' else ''
    (tmp_path / 'haproxy.cfg').write_text(HAPROXY.format(port=port, pem=pem, to=gw.port, proto=proto))
    proxy(port, tool('haproxy'), '-db', '-f', str(tmp_path / 'haproxy.cfg'))
    return port


@pytest.mark.parametrize('kind', ['nginx', 'haproxy', 'haproxy-h2'])
def test_behind_a_proxy(far, gateway_at, ca, proxy, tmp_path, kind):
    """Whole steps through a real TLS terminator; upload links are made with public-url."""
    port = free_port()  # is taken only by what in_front starts
    gw = gateway_at(far.url, listen={'upstream': {'public-url': f'https://127.0.0.1:{port}'}})
    port = in_front(kind, gw, ca, proxy, tmp_path)
    gw.write_config(listen={'upstream': {'public-url': f'https://127.0.0.1:{port}'}})
    gw.signal(1)
    wait_for(lambda: gw.metric('config_generation') == 2)
    api = Api(f'https://127.0.0.1:{port}/log-service', ca=ca.ca)
    assert api.open(key())[0] == 204
    for i in range(20):
        assert api.put(key(), f'{i}\n', start=i)[0] == 204
    big = b'{"out":"%s\\n"}\n' % (b'x' * 100) * 30000
    status, text, _ = api.put_link(key(), big)
    assert status == 200, text
    assert api.put_raw(key(), b'[{')[0] == 400
    wait_for(lambda: far.lines('acct', key()) == [f'{i}\n' for i in range(20)])
    assert api.delete(key())[0] == 204
    wait_for(lambda: far.blob('acct', key()) == big, timeout=30)
    (total, done, good, failed, errored), text = h2load(
        '-n', '500', '-c', '2', '-m', '50', '-t', '1', f'https://127.0.0.1:{port}/api/echo?respond=500')
    assert (good, failed, errored) == (500, 0, 0), text
    api.close()
    assert gw.metric('http_glitches_total', kind='bad_request') == 0


# --- sizes ----------------------------------------------------------------------------------------

@pytest.mark.parametrize('version', ['1.1', '2'])
def test_a_body_of_32_megabytes_passes(far, gw, api, version):
    """A flush carries all pending lines without a cap (HP §9.1)."""
    assert api.open(key())[0] == 204
    lines = ['z' * 1000 + '\n'] * 31000
    body = body_of(*lines)
    assert len(body) > 32 * MB
    if version == '1.1':
        assert api.put_raw(key(), body)[0] == 204
    else:
        assert run(tool('curl'), '-sS', '--http2-prior-knowledge', '-X', 'PUT', '-H', 'X-Harness-Token: token-1', '-w', '%{http_code}',
                   '--data-binary', '@-', gw.url + api.target('/stream', key()), input=body) == '204'
    wait_for(lambda: far.counts()['lines'].get('acct/' + key()) == len(lines), timeout=60)
    assert gw.ledger()['accepted'] == len(lines)


def test_a_thousand_streams_stay_within_the_budget(far, gateway_at):
    """Upstream is away, a thousand steps write on: bodies in memory are bounded, the rest waits on disk."""
    gw = gateway_at(far.url, memory={'limit': '8MiB'}, spool={'limit': '1GiB'})
    api = Api(gw.log_url)
    names = [key(f's{i}') for i in range(1000)]
    for name in names:
        assert api.open(name)[0] == 204
    wait_for(lambda: gw.metric('upstream_requests_total', call='open', code='204') == 1000, 60, what='the opens upstream')
    far.stop()
    before = gw.rss_kb()
    text = ''.join(f'{i:08x}' for i in range(2000)) + '\n'
    for i in range(3):
        for name in names:
            assert api.put(name, text + f'{i}\n', start=i)[0] == 204
    assert gw.ledger()['spooled'] == 3000
    assert gw.metric('memory_bytes') <= 12 * MB, 'the limit, and what is being offered'
    if not sanitized():
        grown = (gw.rss_kb() - before) / 1024
        assert grown < 48, f'48 MB of lines wait, and {grown:.0f} MiB more are in memory'
    far.start()
    gw.wait_delivered(90)
    assert all(n == 3 for name, n in far.counts()['lines'].items()), 'each line once'
    assert len(far.counts()['lines']) == 1000
    api.close()


def test_a_thousand_connections_at_once(far, gw, api):
    """Idle ones cost little, and none is in the way of the others."""
    api.open(key())
    before, socks = gw.rss_kb(), []
    try:
        for _ in range(1000):
            s = socket.create_connection(('127.0.0.1', gw.port), 10)
            s.sendall(request('PUT', api.target('/stream', key()), b'[]'))
            socks.append(s)
        for s in socks:
            assert s.recv(1000).startswith(b'HTTP/1.1 204')
        began = time.monotonic()
        assert api.put(key(), 'a\n')[0] == 204
        assert time.monotonic() - began < 10, 'as long as clients wait (HP §2.4)'
        if not sanitized():
            assert (gw.rss_kb() - before) / 1024 < 32
    finally:
        for s in socks:
            s.close()
    wait_for(lambda: gw.metric('http_connections', protocol='http/1.1') < 10)


def test_connections_beyond_the_limit_are_closed_and_counted(far, gateway_at):
    gw = gateway_at(far.url, limits={'connections': 16}, workers=1)
    socks = []
    for _ in range(40):
        try:
            socks.append(socket.create_connection(('127.0.0.1', gw.port), 5))
        except ConnectionResetError:    # as soon as that
            pass
    try:
        wait_for(lambda: gw.metric('overload_refused_total') >= 20)
    finally:
        for s in socks:
            s.close()
    wait_for(lambda: gw.metric('http_connections') <= 2)
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    api.close()
