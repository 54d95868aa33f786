"""Proxy mode: what may be asked, what is answered, what the audit trail says of it."""
import hashlib
import http.server
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading

import pytest
from gateway import Gateway, free_port, wait_for
from names import Names
from parents import OddParent
from proxies import (MB, RULES, Place, ask, dial, echo, get, keep, place, proxy_at, read_all, read_exactly, read_head, status_of,
                     tunnel)
from standin.harness import Harness

OWN = next((line.split()[3].split('/')[0] for line in subprocess.run(
    ['ip', '-o', '-4', 'addr'], capture_output=True, text=True).stdout.splitlines() if ' lo ' not in line), None) \
    if os.path.exists('/sbin/ip') or os.path.exists('/usr/sbin/ip') else None

TABLE = {
    'here.example': ['127.0.0.1'],
    'both.example': ['::1', '127.0.0.1'],
    'six.example': ['::1'],
    'xn--bcher-kva.example': ['127.0.0.1'],
    'private.example': ['10.1.2.3'],
    'loop.example': ['127.0.0.2'],
    'link.example': ['169.254.1.1'],
    'metadata.example': ['169.254.169.254'],
    'cgnat.example': ['100.64.1.1'],
    'nat64.example': ['64:ff9b::a01:203'],
    'nat64-public.example': ['64:ff9b::808:808'],
    'sixtofour.example': ['2002:a01:203::1'],
    'mapped.example': ['::ffff:10.1.2.3'],
    'ula.example': ['fd00::1'],
    'metadata6.example': ['fd00:ec2::254'],
    'mixed.example': ['10.1.2.3', '127.0.0.1'],
    'turns.example': [['127.0.0.1'], ['10.1.2.3']],
    'silent.example': ['silent'],
    'elsewhere.test': ['127.0.0.1'],
}
if OWN:
    TABLE['own.example'] = [OWN]


@pytest.fixture(scope='module')
def names():
    n = Names(TABLE, ttl=1)
    yield n
    n.close()


@pytest.fixture(scope='module')
def echoes():
    with place(echo) as p:
        yield p


@pytest.fixture
def gw(gateway_at, names):
    return proxy_at(gateway_at, names)


def exchange(s, data):
    s.sendall(data)
    return read_exactly(s, len(data))


# --- what passes -----------------------------------------------------------------------------------

@pytest.mark.parametrize('host', ['127.0.0.1', 'here.example', 'HERE.eXample', 'here.example.', 'bücher.example', 'xn--bcher-kva.EXAMPLE',
                                  '2130706433', '0x7f.1', '0177.0.0.1', '[::ffff:127.0.0.1]', '127.1'])
def test_spellings_of_what_is_allowed(gw, echoes, host):
    """All lead to the same place, and the trail has one spelling for them."""
    with dial(gw) as s:
        s.sendall(f'CONNECT {host}:{echoes.port} HTTP/1.1\r\nHost: {host}:{echoes.port}\r\n\r\n'.encode())
        status, head = read_head(s)
        if status == 400 and not host.isascii():
            return  # bytes beyond ASCII are no target (RFC 9112 §3.2)
        assert status == 200, head
        assert exchange(s, b'hello') == b'hello'
    e = gw.trail.last(event='end')
    assert e['dialled'] == f'127.0.0.1:{echoes.port}' and e['verdict'] == 'allow'
    assert e['asked'] in [f'{h}:{echoes.port}' for h in ('127.0.0.1', 'here.example', 'xn--bcher-kva.example')]


def test_what_the_trail_says_of_a_tunnel(gw, echoes):
    with tunnel(gw, f'here.example:{echoes.port}') as s:
        client = '127.0.0.1:%d' % s.getsockname()[1]
        started = gw.trail.last(event='start')
        assert exchange(s, b'x' * 1000) == b'x' * 1000
        assert gw.metric('tunnels') == 1
    e = gw.trail.last(event='end')
    assert e == {**started, 'time': e['time'], 'event': 'end', 'seconds': e['seconds'], 'bytes_up': 1000, 'bytes_down': 1000,
                 'end': 'client'}
    assert (e['kind'], e['listener'], e['client'], e['rule'], e['status']) == ('tunnel', 'proxy', client, 'names', 200)
    assert e['resolved'] == '127.0.0.1' and e['asked'] == f'here.example:{echoes.port}'
    wait_for(lambda: gw.metric('tunnels') == 0)
    assert gw.metric('passages_total', kind='tunnel') == 1
    assert gw.metric('passage_bytes_total', kind='tunnel', direction='up') == 1000
    assert gw.metric('passage_bytes_total', kind='tunnel', direction='down') == 1000
    assert gw.metric('connect_seconds_count') == 1
    page = gw.get('/metrics')[1]
    assert 'example' not in page and str(echoes.port) not in page, 'no destination among the labels'


def test_ids_are_of_one_passage(gw, echoes):
    for _ in range(3):
        with tunnel(gw, f'127.0.0.1:{echoes.port}') as s:
            exchange(s, b'1')
    gw.trail.last(event='end', count=3)
    starts, ends = gw.trail.entries(event='start'), gw.trail.entries(event='end')
    assert sorted(e['id'] for e in starts) == sorted(e['id'] for e in ends) and len({e['id'] for e in starts}) == 3


def test_the_family_that_answers_is_taken(gw):
    with place(echo) as p:
        with tunnel(gw, f'both.example:{p.port}') as s:
            assert exchange(s, b'four') == b'four'
    with place(echo, host='::1') as p:
        with tunnel(gw, f'six.example:{p.port}') as s:
            assert exchange(s, b'six') == b'six'
    assert gw.trail.last(event='end', count=2)['dialled'].startswith('[::1]:')


def test_of_several_addresses_only_those_allowed_are_dialled(gw, echoes):
    with tunnel(gw, f'mixed.example:{echoes.port}') as s:
        assert exchange(s, b'x') == b'x'
    e = gw.trail.last(event='end')
    assert e['resolved'] in ('127.0.0.1', '10.1.2.3,127.0.0.1') and e['dialled'] == f'127.0.0.1:{echoes.port}'


# --- what does not ---------------------------------------------------------------------------------

def denied(gw, target, rule, status=403, **match):
    before = gw.metric('denied_total', rule=rule)
    assert status_of(gw, target) == status
    e = gw.trail.last(event='deny', rule=rule, **match)
    assert e['verdict'] == 'deny' and e['reason'] and e['status'] == status and 'dialled' not in e
    assert gw.metric('denied_total', rule=rule) == before + 1
    return e


@pytest.mark.parametrize('name', [n for n in TABLE if n.endswith('.example') and n not in (
    'here.example', 'both.example', 'six.example', 'xn--bcher-kva.example', 'mixed.example', 'turns.example', 'silent.example')])
def test_names_that_lead_where_nobody_may_go(gw, name):
    e = denied(gw, f'{name}:443', 'address')
    assert e['resolved'] and e['asked'] == f'{name}:443'


LITERALS = ['10.1.2.3', '127.0.0.2', '169.254.169.254', '100.64.1.1', '0.0.0.0', '[::]', '[fe80::1]', '[64:ff9b::a01:203]',
            '[2002:a01:203::1]', '[::ffff:10.1.2.3]', '[fd00:ec2::254]', '0x0a.1.2.3', '167838211', '012.1.2.3', '10.66051', '8.8.8.8']


@pytest.mark.parametrize('literal', LITERALS + ([OWN] if OWN else []))
def test_literal_addresses_that_no_rule_names(gw, literal):
    denied(gw, f'{literal}:443', 'default')


@pytest.mark.parametrize('target', ['elsewhere.test:443', 'example:443', 'here.example.evil.test:443', 'evilexample:443'])
def test_names_that_no_rule_names(gw, names, target):
    before = len(names.asked)
    e = denied(gw, target, 'default')
    assert 'resolved' not in e and names.asked[before:] == [], 'what is denied by its name is not looked up'


@pytest.mark.parametrize('target', ['here.example', 'here.example:', 'here.example:0', 'here.example:65536', 'here.example:443x',
                                    'here..example:443', '.here.example:443', '[here.example]:443', '[127.0.0.1]:443',
                                    'user@here.example:443', 'user:pw@here.example:443', 'here.example:443/x', '[::1:443', ':443',
                                    'http://here.example:443', '1.2.3.4.5:443', '256.1.1.1:443', '[fe80::1%25eth0]:443',
                                    'here.example:+443', 'a' * 64 + '.example:443', 'here_.example:443\\'])
def test_targets_that_are_none(gw, target):
    assert status_of(gw, target, host='x') == 400
    text = gw.trail.path.read_text() if gw.trail.path.exists() else ''
    assert 'pw@' not in text and 'user' not in text


@pytest.mark.parametrize('host', ['other.example:443', 'here.example:444', '127.0.0.1', 'here.example:443 other.example', 'evil@here.example:443'])
def test_a_host_that_disagrees(gw, host):
    assert status_of(gw, 'here.example:443', host=host) == 400
    if '@' not in host and ' ' not in host:
        assert gw.trail.last(event='deny', rule='bad-host')['status'] == 400


def test_a_host_in_another_spelling_agrees(gw, echoes):
    for host in (f'HERE.example.:{echoes.port}', 'here.example', f'here.example:{echoes.port}'):
        assert status_of(gw, f'here.example:{echoes.port}', host=host) == 200


def test_a_name_that_resolves_differently_the_second_time(gw, echoes):
    """What was checked is what is dialled; the next look-up is checked anew."""
    with tunnel(gw, f'turns.example:{echoes.port}') as s:
        assert exchange(s, b'x') == b'x'
    assert gw.trail.last(event='end')['dialled'] == f'127.0.0.1:{echoes.port}'

    def turned():
        return status_of(gw, f'turns.example:{echoes.port}') == 403
    wait_for(turned, what='the name to turn', every=0.3)
    e = gw.trail.last(event='deny', rule='address')
    assert e['resolved'] == '10.1.2.3'


def test_nobody_is_asked_for_credentials(gw):
    s, status, head = ask(gw, 'elsewhere.test:443')
    s.close()
    assert status == 403 and 'authenticate' not in head.lower()


def test_paths_and_https_urls_are_not_for_a_proxy(gw, echoes):
    for url in ('/path', f'https://here.example:{echoes.port}/', 'ftp://here.example/', '*'):
        assert get(gw, url)[0] == 400
    assert echoes_untouched(gw)


def echoes_untouched(gw):
    return all(e['event'] == 'deny' for e in gw.trail.entries())


# --- destinations that fail ------------------------------------------------------------------------

def test_unreachable(gw):
    port = free_port()
    assert status_of(gw, f'127.0.0.1:{port}') == 502
    e = gw.trail.last(event='end')
    assert (e['end'], e['status'], e['bytes_up']) == ('unreachable', 502, 0) and 'dialled' not in e


def test_a_name_that_is_none(gw):
    assert status_of(gw, 'nowhere.example:443') == 502
    assert gw.trail.last(event='end')['end'] == 'unreachable'


def test_a_name_server_that_is_silent_is_a_504(gateway_at, names):
    gw = proxy_at(gateway_at, names, egress={'connect-timeout': '300ms'})
    assert status_of(gw, 'silent.example:443') == 504
    assert gw.trail.last(event='end')['end'] == 'timeout'


def test_a_destination_that_does_not_accept_is_a_504(gateway_at, names):
    """A listener whose queue is full drops what knocks."""
    gw = proxy_at(gateway_at, names, egress={'connect-timeout': '500ms'})
    with socket.socket() as full:
        full.bind(('127.0.0.1', 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            f = socket.socket()
            f.setblocking(False)
            f.connect_ex(full.getsockname())
            fillers.append(f)
        assert status_of(gw, '127.0.0.1:%d' % full.getsockname()[1]) == 504
        for f in fillers:
            f.close()


def test_a_client_that_leaves_while_it_waits(gateway_at, names):
    gw = proxy_at(gateway_at, names, egress={'connect-timeout': '20s'})
    with dial(gw) as s:
        s.sendall(b'CONNECT silent.example:443 HTTP/1.1\r\nHost: silent.example:443\r\n\r\n')
        wait_for(lambda: 'silent.example' in names.asked)
    e = gw.trail.last(event='end')
    assert e['end'] == 'client' and 'status' not in e


# --- report mode -----------------------------------------------------------------------------------

def answer_and_echo(parent, connection, head):
    connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
    echo(connection)


def test_report_mode_lets_pass_and_says_so(gateway_at, names, echoes):
    """By a parent, for here every destination is this machine, which report mode opens to nobody."""
    with OddParent(answer_and_echo) as parent:
        gw = proxy_at(gateway_at, names, egress={'mode': 'report'}, upstream={'parent': parent.url})
        with tunnel(gw, 'elsewhere.test:443') as s:
            assert exchange(s, b'x') == b'x'
        e = gw.trail.last(event='end')
        assert e['verdict'] == 'would-deny' and e['rule'] == 'default'
        with tunnel(gw, f'127.0.0.1:{echoes.port}') as s:
            exchange(s, b'x')
        assert gw.trail.last(event='end', count=2)['verdict'] == 'allow'
    assert gw.metric('denied_total') == 0 and gw.metric('would_deny_total', rule='default') == 1
    assert status_of(gw, 'user@here.example:443') == 400, 'what is not understood cannot pass'


def test_report_mode_lets_addresses_pass(gateway_at, names):
    """A name that is allowed, an address that is not: it is dialled, whether it can be reached or not."""
    gw = proxy_at(gateway_at, names, egress={'mode': 'report', 'connect-timeout': '200ms'})
    assert status_of(gw, 'private.example:9') in (200, 502, 504)
    e = gw.trail.last(event='end')
    assert (e['verdict'], e['rule']) == ('would-deny', 'address')


@pytest.mark.parametrize('target', ['metadata.example:80', 'metadata6.example:80', '169.254.169.254:80', '[fd00:ec2::254]:80',
                                    '168.63.129.16:80', 'elsewhere.test:{port}', 'here.example:{port}', 'loop.example:{port}',
                                    '127.0.0.1:{port}', '0.0.0.0:{port}', '[::1]:{port}', '[::ffff:127.0.0.1]:{port}',
                                    pytest.param('own.example:{port}', marks=pytest.mark.skipif(not OWN, reason='no address'))])
def test_report_mode_opens_neither_metadata_nor_ourselves(reporting, echoes, target):
    """What a rule opens in so many words is open; nothing else there is, in any mode."""
    before = len(echoes.connections)
    target = target.format(port=echoes.port)
    assert status_of(reporting, target) == 403
    e = reporting.trail.last(event='deny', asked=target.replace('[::ffff:127.0.0.1]', '127.0.0.1'))
    assert (e['verdict'], e['rule']) == ('deny', 'address') and len(echoes.connections) == before


@pytest.fixture(scope='module')
def reporting(tmp_path_factory, names):
    made = []

    def make(url, **options):
        made.append(Gateway(tmp_path_factory.mktemp('reporting'), url, **options))
        return made[0]
    gw = proxy_at(make, names, egress={'mode': 'report'}, rules={'local': {'hosts': ['192.0.2.1']},
                                                               'names': {'hosts': ['*.example'], 'addresses': ['192.0.2.1']}})
    yield gw
    gw.close()


# --- absolute URLs ---------------------------------------------------------------------------------

@pytest.fixture
def web():
    with Harness() as far:
        yield far
        assert far.state(lines=False)['errors'] == []


def seen(web):
    return web.log()[-1]


def test_absolute_urls_are_relayed_byte_for_byte(gw, web):
    status, head, body = get(gw, f'http://here.example:{web.port}/api/x%2Fy/..;/z?a=%20b&c=d', 'Host: ignored.test', 'X-One: 1',
                             'Proxy-Connection: keep-alive', 'Proxy-Authorization: Basic c2VjcmV0')
    assert status == 200
    e = seen(web)
    fields = [(k.lower(), v) for k, v in e['headers']]
    assert e['target'] == '/api/x%2Fy/..;/z?a=%20b&c=d'
    assert [v for k, v in fields if k == 'host'] == [f'here.example:{web.port}'], 'the target counts (RFC 9112 §3.2.2)'
    assert 'proxy-authorization' not in dict(fields) and 'proxy-connection' not in dict(fields)
    a = gw.trail.last(event='end')
    assert (a['kind'], a['method'], a['path'], a['status']) == ('relay', 'GET', '/api/x%2Fy/..;/z', 200)
    assert 'c=d' not in gw.trail.path.read_text(), 'never a query'


def test_urls_whose_host_is_denied(gw, web):
    for host in ('elsewhere.test', '10.1.2.3'):
        status, head, body = get(gw, f'http://{host}:{web.port}/api/x')
        assert (status, body) == (403, b'')
        assert gw.trail.last(event='deny', rule='default')['path'] == '/api/x'
    status, _, body = get(gw, f'http://private.example:{web.port}/api/x')
    assert status == 403
    assert gw.trail.last(event='deny', rule='address')['resolved'] == '10.1.2.3'
    assert web.log() == []


def test_urls_without_a_path_and_port(gw, web):
    assert get(gw, f'http://here.example:{web.port}')[0] in (200, 404)
    assert seen(web)['target'] == '/'


SMUGGLED = [
    'Content-Length: 5\r\nTransfer-Encoding: chunked',
    'Content-Length: 5\r\nContent-Length: 6',
    'Content-Length: 5, 6',
    'Content-Length: +5',
    'Content-Length: 0x5',
    'Transfer-Encoding: chunked, identity',
    'Transfer-Encoding: xchunked',
    'Transfer-Encoding : chunked',
    ' Transfer-Encoding: chunked',
    'X: 1\r\n Transfer-Encoding: chunked',
    'X: 1\r\n\tfolded',
    'Host: here.example\r\nHost: other.example',
    'X\x00Y: 1',
    'X: a\rb',
    'X Y: 1',
    ': 1',
]


@pytest.mark.parametrize('lines', SMUGGLED)
def test_smuggling_by_fields(gw, web, lines):
    with dial(gw) as s:
        head = f'POST http://here.example:{web.port}/api/x HTTP/1.1\r\n'
        if not lines.startswith('Host'):
            head += 'Host: here.example\r\n'
        s.sendall((head + lines + '\r\n\r\n').encode('latin-1') + b'0\r\n\r\nGET http://here.example/api/smuggled HTTP/1.1\r\n\r\n')
        status, _ = read_head(s)
        assert status in (400, 501)
        assert read_all(s) is not None, 'and the connection ends'
    assert web.log() == []


@pytest.mark.parametrize('chunks', [b'5\nhello\r\n0\r\n\r\n', b'5;x\rhello\r\n0\r\n\r\n', b' 5\r\nhello\r\n0\r\n\r\n', b'-5\r\nhello\r\n0\r\n\r\n',
                                    b'0x5\r\nhello\r\n0\r\n\r\n', b'5\r\nhelloX\r\n0\r\n\r\n', b'fffffffffffffffff\r\nx', b'\r\n0\r\n\r\n',
                                    b'5\r\nhello0\r\n\r\n'])
def test_smuggling_by_chunks(gw, web, chunks):
    with dial(gw) as s:
        s.sendall(f'POST http://here.example:{web.port}/api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n'.encode() + chunks)
        status = read_head(s)[0]
        assert status in (0, 400, 502), status
    assert [e for e in web.log() if e['status'] == 200] == []


def test_keep_alive_requests_to_different_hosts(gw, web):
    """Each is judged by itself."""
    with dial(gw) as s:
        for url, want in ((f'http://here.example:{web.port}/api/1', 200), ('http://elsewhere.test/', 403),
                          (f'http://127.0.0.1:{web.port}/api/2', 200)):
            s.sendall(f'GET {url} HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
            status, head = read_head(s)
            assert status == want
            read_exactly(s, int(re.search(r'(?i)content-length: (\d+)', head).group(1)))


# --- real clients ----------------------------------------------------------------------------------

def curl(gw, *args, scheme='http', timeout=60):
    return subprocess.run(['curl', '-sS', '-m', str(timeout - 5), '-x', f'{scheme}://127.0.0.1:{gw.ports["proxy"]}', *args],
                          capture_output=True, timeout=timeout)


def test_curl_through_a_tunnel_with_tls(gateway_at, names, ca, tmp_path):
    """TLS is the client's and the server's own: the certificate is the server's."""
    with Harness(tls=ca.issue('here.example')) as far:
        gw = proxy_at(gateway_at, names)
        done = curl(gw, '--cacert', ca.ca, '-w', '%{http_connect} %{http_code}', '-o', os.devnull, f'https://here.example:{far.port}/api/x')
        assert done.stdout == b'200 200', done.stderr
        assert far.log()[-1]['target'] == '/api/x'
    e = gw.trail.last(event='end')
    assert e['bytes_up'] > 300 and e['bytes_down'] > 600


def test_curl_plain_and_denied(gw, web):
    done = curl(gw, '-w', '%{http_code}', '-o', os.devnull, f'http://here.example:{web.port}/api/x')
    assert done.stdout == b'200'
    done = curl(gw, '-w', '%{http_connect}', '-o', os.devnull, 'https://elsewhere.test/')
    assert done.returncode == 56 and done.stdout == b'403'


def test_openssl_s_client_through_the_proxy(gateway_at, names, ca):
    with Harness(tls=ca.issue('here.example')) as far:
        gw = proxy_at(gateway_at, names)
        done = subprocess.run(['openssl', 's_client', '-proxy', f'127.0.0.1:{gw.ports["proxy"]}', '-connect', f'here.example:{far.port}',
                               '-CAfile', ca.ca, '-verify_return_error', '-servername', 'here.example'],
                              input=b'', capture_output=True, timeout=30)
        assert b'Verify return code: 0 (ok)' in done.stdout, done.stderr


class GitHandler(http.server.BaseHTTPRequestHandler):
    """git-http-backend behind a small HTTP server."""
    protocol_version = 'HTTP/1.1'
    root = None

    def log_message(self, *args):
        pass

    def serve(self):
        path, _, query = self.path.partition('?')
        body = b''
        if self.headers.get('Transfer-Encoding') == 'chunked':
            while n := int(self.rfile.readline(), 16):
                body += self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        env = dict(os.environ, GIT_PROJECT_ROOT=self.root, GIT_HTTP_EXPORT_ALL='1', PATH_INFO=path, QUERY_STRING=query,
                   REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get('Content-Type', ''), REMOTE_USER='ci',
                   CONTENT_LENGTH=str(len(body)), GIT_PROTOCOL=self.headers.get('Git-Protocol', ''),
                   HTTP_CONTENT_ENCODING=self.headers.get('Content-Encoding', ''),
                   GIT_CONFIG_COUNT='1', GIT_CONFIG_KEY_0='safe.directory', GIT_CONFIG_VALUE_0='*')
        out = subprocess.run(['git', 'http-backend'], input=body, env=env, capture_output=True).stdout
        head, _, rest = out.partition(b'\r\n\r\n')
        fields = [line.split(': ', 1) for line in head.decode().split('\r\n')]
        status = [v for k, v in fields if k == 'Status']
        self.send_response(int(status[0].split()[0]) if status else 200)
        for k, v in fields:
            if k != 'Status':
                self.send_header(k, v)
        self.send_header('Content-Length', str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)

    do_GET = do_POST = serve


@pytest.fixture
def git_server(tmp_path, ca):
    root = tmp_path / 'git'
    root.mkdir()
    subprocess.run(['git', 'init', '-q', '--bare', str(root / 'code.git')], check=True)
    subprocess.run(['git', '-C', str(root / 'code.git'), 'config', 'http.receivepack', 'true'], check=True)
    handler = type('Handler', (GitHandler,), {'root': str(root)})
    servers = []
    for tls in (False, True):
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*ca.issue('here.example'))
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
    yield {'http': servers[0].server_port, 'https': servers[1].server_port}
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_git_clones_and_pushes(gw, git_server, ca, tmp_path, scheme):
    env = dict(os.environ, HOME=str(tmp_path), http_proxy=f'http://127.0.0.1:{gw.ports["proxy"]}', https_proxy=f'http://127.0.0.1:{gw.ports["proxy"]}',
               no_proxy='', GIT_SSL_CAINFO=ca.ca, GIT_TERMINAL_PROMPT='0', GIT_AUTHOR_NAME='ci', GIT_AUTHOR_EMAIL='ci@x', GIT_COMMITTER_NAME='ci',
               GIT_COMMITTER_EMAIL='ci@x')
    url = f'{scheme}://here.example:{git_server[scheme]}/code.git'

    def git(*args, cwd=tmp_path):
        done = subprocess.run(['git', *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    git('clone', '-q', url, 'work')
    big = os.urandom(3 * MB)
    (tmp_path / 'work' / 'big').write_bytes(big)
    git('add', '.', cwd=tmp_path / 'work')
    git('commit', '-q', '-m', 'a file', cwd=tmp_path / 'work')
    git('push', '-q', 'origin', 'HEAD:refs/heads/main', cwd=tmp_path / 'work')
    git('clone', '-q', '-b', 'main', url, 'again')
    assert (tmp_path / 'again' / 'big').read_bytes() == big
    assert {e['kind'] for e in gw.trail.entries()} == ({'relay'} if scheme == 'http' else {'tunnel'})


def test_websockets_by_connect(gw, web):
    """A WebSocket library of its own on both sides; the tunnel is the proxy's."""
    import asyncio

    import websockets

    async def run():
        sock = tunnel(gw, f'here.example:{web.port}')
        sock.setblocking(False)
        async with websockets.connect(f'ws://here.example:{web.port}/stream/delegate/acct', sock=sock, compression=None,
                                      ping_interval=None, max_size=None) as ws:
            for text in ('a', 'b' * 70000, 'c' * MB):
                await ws.send(text)
                assert await ws.recv() == text
    asyncio.run(run())
    assert gw.trail.last(event='end')['end'] in ('client', 'upstream')


# --- who the client is -----------------------------------------------------------------------------

def test_identity_by_client_certificate(gateway_at, names, ca, echoes):
    rules = {'runners': {**RULES['local'], 'identity': ['ci-runner', '*.runners.example']}}
    cert, key = ca.issue('127.0.0.1')
    gw = proxy_at(gateway_at, names, rules=rules, listen={'proxy': {'certificate': cert, 'key': key, 'client-ca': ca.ca}})
    gw.options['rules'] = rules
    gw.write_config()
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') == 2)

    def connect(name):
        mine, mine_key = ca.issue(name, client=True)
        context = ssl.create_default_context(cafile=ca.ca)
        context.load_cert_chain(mine, mine_key)
        s = context.wrap_socket(dial(gw), server_hostname='127.0.0.1')
        s.sendall(f'CONNECT 127.0.0.1:{echoes.port} HTTP/1.1\r\nHost: 127.0.0.1:{echoes.port}\r\n\r\n'.encode())
        return s, read_head(s)[0]
    for name, want in (('ci-runner', 200), ('a.runners.example', 200), ('stranger', 403)):
        s, status = connect(name)
        with s:
            assert status == want, name
            if status == 200:
                assert exchange(s, b'x' * 100000) == b'x' * 100000
    assert gw.trail.last(event='end', identity='ci-runner')['rule'] == 'runners'
    assert gw.trail.last(event='deny', identity='stranger')['rule'] == 'default'
    with pytest.raises((ssl.SSLError, ConnectionError)):
        context = ssl.create_default_context(cafile=ca.ca)
        with context.wrap_socket(dial(gw), server_hostname='127.0.0.1') as s:
            s.sendall(f'CONNECT 127.0.0.1:{echoes.port} HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
            assert s.recv(100)


def test_from_is_the_address_of_the_proxy_header(gateway_at, names, echoes):
    rules = {'local': {**RULES['local'], 'from': ['192.0.2.0/24']}, 'names': {'hosts': ['nothing.example']}}
    gw = proxy_at(gateway_at, names, rules=rules, listen={'proxy': {'proxy-protocol': ['127.0.0.1']}})

    def status(header):
        with dial(gw) as s:
            s.sendall(header + f'CONNECT 127.0.0.1:{echoes.port} HTTP/1.1\r\nHost: 127.0.0.1:{echoes.port}\r\n\r\n'.encode())
            return read_head(s)[0]
    assert status(b'PROXY TCP4 192.0.2.7 198.51.100.1 1234 3128\r\n') == 200
    assert gw.trail.last(event='end')['client'] == '192.0.2.7:1234'
    assert status(b'PROXY TCP4 203.0.113.7 198.51.100.1 1234 3128\r\n') == 403
    assert status(b'\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c' + bytes([192, 0, 2, 9, 198, 51, 100, 1]) + b'\x04\xd2\x0c\x38') == 200
    assert status(b'') == 0, 'a trusted sender without a header is not served'
    gw.options['listen']['proxy']['proxy-protocol'] = ['198.51.100.1']
    gw.write_config()
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') == 2)
    assert status(b'') == 403, 'no longer trusted: it is the client'
    assert status(b'PROXY TCP4 192.0.2.7 198.51.100.1 1234 3128\r\n') == 400


# --- early bytes -----------------------------------------------------------------------------------

def test_bytes_behind_connect_come_first(gw, echoes):
    s, status, _ = ask(gw, f'127.0.0.1:{echoes.port}', early=b'early bytes')
    with s:
        assert status == 200
        s.sendall(b' and late ones')
        want = b'early bytes and late ones'
        assert read_exactly(s, len(want)) == want
    assert gw.trail.last(event='end')['bytes_up'] == len(want)


def test_many_bytes_behind_connect_are_held_in_bounds(gateway_at, names, echoes):
    """They wait in the client's socket, not in memory, until the destination stands; then all of them pass."""
    gw = proxy_at(gateway_at, names, egress={'connect-timeout': '1s'})
    data = os.urandom(8 * MB)
    with dial(gw) as s:
        s.sendall(f'CONNECT 127.0.0.1:{echoes.port} HTTP/1.1\r\nHost: 127.0.0.1:{echoes.port}\r\n\r\n'.encode() + data[:50000])
        sender = threading.Thread(target=lambda: s.sendall(data[50000:]))
        sender.start()
        assert read_head(s)[0] == 200
        got = read_exactly(s, len(data))
        sender.join()
        assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()


def test_http2_by_prior_knowledge_is_answered(gw):
    """A proxy listener hands connections over, which HTTP/2 has no way to; nothing hangs."""
    with dial(gw) as s:
        s.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + b'\0\0\0\4\0\0\0\0\0')
        assert s.recv(100), 'SETTINGS, or the end'


def test_json_of_the_trail_is_strict(gw):
    status_of(gw, 'odd"name\\.example:443', host='x')
    status_of(gw, 'elsewhere.test:443')
    gw.trail.last(event='deny', rule='default')
    for line in gw.trail.path.read_text().splitlines():
        json.loads(line)
