"""Interception: TLS of listed hosts ended with minted certificates, inside CONNECT and by DNS override; the rest spliced."""
import asyncio
import datetime
import json
import signal
import socket
import ssl
import subprocess

import pytest
import websockets
from calls import body_of
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from gateway import Gateway, free_port, key, wait_for
from inside import HARNESS, WAIT, Names, Origin, Tls, connect
from standin.certs import CA
from standin.harness import Harness

LOOPBACK = ['127.0.0.0/8']


class World:
    """A Harness and other origins under names of their own, and a gateway that intercepts."""

    def __init__(self, directory, **options):
        (directory / 'origin').mkdir()
        (directory / 'mint').mkdir()
        self.origin_ca = CA(directory / 'origin', 'origin CA')
        self.mint_ca = CA(directory / 'mint', 'mint CA')
        self.far = Harness(tls=self.origin_ca.issue(HARNESS))
        self.listed = Origin(self.origin_ca.issue('listed.test'))
        self.other = Origin(self.origin_ca.issue('other.test'))
        self.echo = Origin(greeting=b'hello first\n')
        # The far side of the SNI listener is at the listener's own port, and another address.
        self.sni_port = free_port()
        self.spliced = Origin(self.origin_ca.issue('spliced.test'), host='127.0.0.2', port=self.sni_port)
        self.names = Names({HARNESS: '127.0.0.1', 'listed.test': '127.0.0.1', 'other.test': '127.0.0.1',
                            'echo.test': '127.0.0.1', 'spliced.test': '127.0.0.2', 'loop.test': '127.0.0.1',
                            'private.test': '10.1.2.3', 'dead.test': '127.0.0.9'})
        self.authority = f'{HARNESS}:{self.far.port}'
        self.audit = directory / 'audit'
        hosts = [HARNESS, f'listed.test:{self.listed.port}', f'echo.test:{self.echo.port}', f'private.test:{self.listed.port}',
                 f'dead.test:{self.sni_port}']
        self.gw = Gateway(directory / 'tailrace', f'https://{HARNESS}:{self.far.port}', drain={'limit': '2s'}, **{
            'listen': {'proxy': {'address': '127.0.0.1:0'}, 'sni': {'address': f'127.0.0.1:{self.sni_port}'}},
            'upstream': {'ca': self.origin_ca.ca, 'resolvers': [self.names.address]},
            'intercept': {'ca': self.mint_ca.ca, 'key': self.mint_ca.ca_key, 'hosts': hosts},
            'rules': {'tests': {'hosts': [HARNESS, 'listed.test', 'other.test', 'echo.test', 'spliced.test', 'loop.test',
                                          'dead.test'],
                                'ports': ['1-65535'], 'addresses': LOOPBACK},
                      'closed': {'hosts': ['private.test'], 'ports': ['1-65535']}},
            'audit': {'to': 'file', 'file': str(self.audit), 'format': 'json'},
            'workers': 2, 'egress': {'profile': 'none'},
        } | options)

    @property
    def proxy(self):
        return self.gw.ports['proxy']

    def close(self):
        try:
            self.gw.close()
            assert self.far.state(lines=False)['errors'] == []
        finally:
            for thing in (self.far, self.listed, self.other, self.echo, self.spliced, self.names):
                thing.close()

    def entries(self, **want):
        """Entries of the audit trail that have these fields."""
        lines = self.audit.read_text().splitlines() if self.audit.exists() else []
        found = [json.loads(line) for line in lines]
        return [e for e in found if all(e.get(k) == v for k, v in want.items())]

    def entry(self, **want):
        """Wait for one."""
        return wait_for(lambda: self.entries(**want), what=f'an entry with {want}')[-1]

    def tls(self, name=HARNESS, authority=None, ca=None, alpn=('http/1.1',)):
        """Through CONNECT; the hello is not sent yet."""
        return Tls(connect(self.proxy, authority or self.authority), name, ca or self.mint_ca.ca, alpn)

    def sni(self, name, ca=None, alpn=('http/1.1',), local='127.0.0.1'):
        """By DNS override."""
        s = socket.create_connection(('127.0.0.1', self.sni_port), WAIT, (local, 0))
        return Tls(s, name, ca or self.mint_ca.ca, alpn)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    w = World(tmp_path_factory.mktemp('intercept'))
    yield w
    w.close()


def curl(*args, proxy=None, ca=None):
    """(status, body) of one transfer; the status is 0 when there was no answer."""
    cmd = ['curl', '-sS', '-q', '--max-time', '20', '-w', '\n%{http_code} %{http_version}', *args]
    if proxy:
        cmd += ['--proxy', proxy]
    if ca:
        cmd += ['--cacert', ca]
    done = subprocess.run(cmd, capture_output=True, text=True, timeout=40)
    body, _, tail = done.stdout.rpartition('\n')
    return int(tail.split()[0]), body, tail.split()[1], done


def issuer_of(der):
    return x509.load_der_x509_certificate(der).issuer.rfc4514_string()


# --- the log path and relays, inside CONNECT -----------------------------------------------------

@pytest.mark.parametrize('flag, version', [('--http1.1', '1.1'), ('--http2', '2')])
def test_log_calls_are_taken_over(world, flag, version):
    name = key(f'calls{version[0]}')
    base = f'https://{world.authority}/log-service/stream?accountID=acct&key={name}'
    common = [flag, '-H', 'X-Harness-Token: token-1']
    kw = dict(proxy=f'http://127.0.0.1:{world.proxy}', ca=world.mint_ca.ca)
    assert curl('-X', 'POST', *common, base, **kw)[0] == 204
    status, _, spoken, done = curl('-X', 'PUT', *common, '--data-binary', body_of('one\n', 'two\n').decode(), base, **kw)
    assert (status, spoken) == (204, version), done.stderr
    world.gw.wait_delivered()
    assert world.far.lines('acct', name) == ['one\n', 'two\n']
    end = world.entry(kind='intercept', event='end', asked=world.authority, server_name=HARNESS, end='client')
    assert end['verdict'] == 'allow' and end['rule'] == 'tests' and end['listener'] == 'proxy'
    assert end['bytes_up'] > 400 and end['bytes_down'] > 400
    assert world.entries(kind='intercept', event='start', id=end['id'])


@pytest.mark.parametrize('flag', ['--http1.1', '--http2'])
def test_other_paths_are_relayed(world, flag):
    status, body, _, done = curl(flag, f'https://{world.authority}/gateway/ng/api/x?y=%2F1', proxy=f'http://127.0.0.1:{world.proxy}',
                                 ca=world.mint_ca.ca)
    assert status == 200, done.stderr
    seen = [r for r in world.far.log() if r['target'] == '/gateway/ng/api/x?y=%2F1']
    assert seen and dict((k.lower(), v) for k, v in seen[-1]['headers'])['host'] == world.authority
    assert world.entry(kind='relay', rule='upstream', path='/gateway/ng/api/x', listener='proxy')


def test_upload_link_leads_to_the_host_itself(world):
    name = key('linked')
    t = world.tls().handshake()
    status, text = t.get(f'/log-service/blob/link/upload?accountID=acct&key={name}', world.authority, 'POST')
    link = json.loads(text)['link']
    assert status == 200 and link.startswith(f'https://{world.authority}/')
    assert t.get(link[len(f'https://{world.authority}'):], world.authority, 'PUT', b'all of it\n')[0] == 200
    world.gw.wait_delivered()
    assert world.far.blob('acct', name) == b'all of it\n'


def test_other_listed_hosts_are_relayed(world):
    authority = f'listed.test:{world.listed.port}'
    status, body, spoken, done = curl('--http2', f'https://{authority}/a%2Fb?c=d', '-d', 'payload',
                                      proxy=f'http://127.0.0.1:{world.proxy}', ca=world.mint_ca.ca)
    assert (status, spoken) == (200, '2'), done.stderr
    assert json.loads(body) == {'path': '/a%2Fb?c=d', 'host': authority, 'body': 'payload'}
    assert world.entry(kind='relay', event='end', asked=authority, rule='tests', resolved='127.0.0.1')


def test_policy_looks_at_each_relay(world):
    """The name is allowed and listed, but what it resolves to is not."""
    t = world.tls('private.test', f'private.test:{world.listed.port}').handshake()
    assert t.get('/', f'private.test:{world.listed.port}')[0] == 403
    assert world.entry(kind='relay', event='deny', asked=f'private.test:{world.listed.port}', rule='address')


def test_websocket_inside(world):
    async def talk():
        context = ssl.create_default_context(cafile=world.mint_ca.ca)
        sock = connect(world.proxy, world.authority)
        uri = f'wss://{world.authority}/stream/delegate/acct?delegateId=d1&token=x'
        async with websockets.connect(uri, sock=sock, ssl=context, server_hostname=HARNESS, open_timeout=WAIT) as ws:
            world.far.ws(account='acct', send='from afar')
            assert await asyncio.wait_for(ws.recv(), WAIT) == 'from afar'
            world.far.ws(account='acct', close={'code': 4001, 'reason': 'enough'})
            with pytest.raises(websockets.ConnectionClosed) as e:
                await asyncio.wait_for(ws.recv(), WAIT)
            assert e.value.rcvd.code == 4001

    asyncio.run(talk())
    assert world.entry(kind='websocket', event='end')


@pytest.mark.parametrize('alpn', ['http/1.1', 'h2'])
def test_misdirected_requests(world, alpn):
    flag = '--http2' if alpn == 'h2' else '--http1.1'
    status, body, _, done = curl(flag, '-H', f'Host: other.test:{world.other.port}', f'https://{world.authority}/log-service/x',
                                 proxy=f'http://127.0.0.1:{world.proxy}', ca=world.mint_ca.ca)
    assert status == 421 and 'another host' in body, done.stderr
    assert world.entry(event='deny', rule='misdirected', asked=f'other.test:{world.other.port}', status=421)


def test_host_in_other_spelling(world):
    t = world.tls().handshake()
    assert t.get('/api/version', world.authority.upper())[0] == 200
    assert t.get('/api/version', f'{HARNESS}.:{world.far.port}')[0] == 200
    assert t.get('/api/version', HARNESS)[0] == 200, 'without a port it is the one of the connection'


def test_absolute_and_odd_targets(world):
    t = world.tls('listed.test', f'listed.test:{world.listed.port}').handshake()
    assert t.get('https://other.test/', f'listed.test:{world.listed.port}')[0] in (400, 421)


def test_tls_to_the_proxy_and_inside(world, tmp_path):
    """Both at once: curl's --proxy https://."""
    cert, cert_key = world.origin_ca.issue('127.0.0.1')
    gw = Gateway(tmp_path / 'tls', f'https://{world.authority}', **dict(
        world.gw.options, listen={'proxy': {'address': '127.0.0.1:0', 'certificate': cert, 'key': cert_key},
                                  'upstream': {'address': '127.0.0.1:0'}, 'admin': {'address': '127.0.0.1:0'}},
        spool={'directory': str(tmp_path / 'spool')}, audit={'to': 'log'}, harness={'url': f'https://{world.authority}'}))
    with gw:
        for flag in ('--http1.1', '--http2'):
            name = key('tls-in-tls' + flag[-1])
            status, _, _, done = curl(flag, '-X', 'PUT', '-H', 'X-Harness-Token: token-1', '--data-binary',
                                      body_of('x' * 100000 + '\n').decode(), '--proxy-cacert', world.origin_ca.ca,
                                      f'https://{world.authority}/log-service/stream?accountID=acct&key={name}',
                                      proxy=f'https://127.0.0.1:{gw.ports["proxy"]}', ca=world.mint_ca.ca)
            assert status == 204, done.stderr
        wait_for(lambda: gw.metric('passage_bytes_total', kind='intercept', direction='up') >
                 200000, what='the bytes of both')
        wait_for(lambda: gw.metric('tunnels') == 0, what='the end of both')


# --- certificates --------------------------------------------------------------------------------

def test_minted_certificate(world):
    t = world.tls(alpn=('h2', 'http/1.1')).handshake()
    der = t.tls.getpeercert(True)
    cert = x509.load_der_x509_certificate(der)
    names = cert.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert names.get_values_for_type(x509.DNSName) == [HARNESS]
    assert issuer_of(der) == 'CN=mint CA'
    now = datetime.datetime.utcnow()
    assert cert.not_valid_before < now - datetime.timedelta(minutes=30)
    assert datetime.timedelta(days=1) < cert.not_valid_after - now <= datetime.timedelta(days=7)
    assert cert.public_key().curve.name == 'secp256r1'
    assert t.tls.selected_alpn_protocol() == 'h2'
    assert world.tls(alpn=('http/1.1',)).handshake().tls.selected_alpn_protocol() == 'http/1.1'
    assert world.tls(alpn=()).handshake().tls.selected_alpn_protocol() is None
    again = world.tls().handshake().tls.getpeercert(True)
    assert x509.load_der_x509_certificate(again).serial_number == cert.serial_number, 'made once'
    assert 0 < world.gw.metrics()['certificate_expiry_seconds{name="intercept.ca"}'] < 31 * 86400


def test_openssl_verifies(world):
    done = subprocess.run(['openssl', 's_client', '-proxy', f'127.0.0.1:{world.proxy}', '-connect', world.authority,
                           '-servername', HARNESS, '-CAfile', world.mint_ca.ca, '-verify_return_error',
                           '-verify_hostname', HARNESS],
                          input='', capture_output=True, text=True, timeout=WAIT)
    assert 'Verify return code: 0 (ok)' in done.stdout or 'Verification: OK' in done.stdout, done.stdout + done.stderr


def test_unlisted_host_keeps_its_own_certificate(world):
    t = world.tls('other.test', f'other.test:{world.other.port}', ca=world.origin_ca.ca).handshake()
    assert issuer_of(t.tls.getpeercert(True)) == 'CN=origin CA'
    assert t.get('/x', 'other.test')[0] == 200
    assert world.entries(kind='tunnel', event='start', asked=f'other.test:{world.other.port}')


def test_client_without_the_ca(world):
    before = world.gw.metric('intercept_rejected_total')
    for _ in range(3):
        with pytest.raises(ssl.SSLCertVerificationError):
            world.tls(ca=world.origin_ca.ca).handshake()
    wait_for(lambda: world.gw.metric('intercept_rejected_total') == before + 3, what='the count')
    line = [s for s in world.gw.log().splitlines() if 'rejects the minted certificate' in s]
    assert line and f'host={HARNESS}' in line[0] and 'client=127.0.0.1:' in line[0] and 'install the CA' in line[0]
    assert world.entry(kind='intercept', event='end', end='rejected', asked=world.authority)
    assert world.tls().handshake().get('/api/version', world.authority)[0] == 200, 'others are not disturbed'


def test_curl_without_the_ca(world):
    before = world.gw.metric('intercept_rejected_total')
    assert curl(f'https://{world.authority}/', proxy=f'http://127.0.0.1:{world.proxy}', ca=world.origin_ca.ca)[3].returncode == 60
    wait_for(lambda: world.gw.metric('intercept_rejected_total') == before + 1, what='the count')


# --- what else may follow a CONNECT ---------------------------------------------------------------

def test_hello_in_pieces(world):
    n = len(world.tls().hello)
    for at in [1, 2, 4, 5, 6, 9, 43, 44, n // 2, n - 1]:
        t = world.tls()
        t.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        t.sock.sendall(t.hello[:at])
        seen = world.gw.metric('intercept_hellos_total', seen='listed')
        t.sock.sendall(t.hello[at:])
        assert t.handshake(send_hello=False).get('/api/version', world.authority)[0] == 200, at
        assert world.gw.metric('intercept_hellos_total', seen='listed') == seen + 1


def test_hello_byte_by_byte_and_with_the_connect(world):
    t = world.tls()
    t.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(len(t.hello)):
        t.sock.sendall(t.hello[i:i + 1])
    assert t.handshake(send_hello=False).get('/api/version', world.authority)[0] == 200
    for part in (1, 100, None):
        t = Tls(None, HARNESS, world.mint_ca.ca)
        t.sock = connect(world.proxy, world.authority, t.hello[:part])
        t.sock.sendall(t.hello[len(t.hello[:part]):])
        assert t.handshake(send_hello=False).get('/api/version', world.authority)[0] == 200


def test_foreign_name_is_spliced_to_the_connects_own(world):
    """Judged by one name, served by another: where the CONNECT wanted, never where the hello does."""
    before = world.other.connections
    t = Tls(connect(world.proxy, f'listed.test:{world.listed.port}'), 'other.test', world.origin_ca.ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        t.handshake()                                       # the certificate is listed.test's own
    t.sock.close()
    entry = world.entry(kind='splice', event='end', asked=f'listed.test:{world.listed.port}', server_name='other.test')
    assert entry['dialled'] == f'127.0.0.1:{world.listed.port}' and world.other.connections == before


def test_no_name_is_spliced(world):
    t = Tls(connect(world.proxy, f'listed.test:{world.listed.port}'), None, world.origin_ca.ca).handshake()
    assert issuer_of(t.tls.getpeercert(True)) == 'CN=origin CA'
    t.sock.close()
    wait_for(lambda: [e for e in world.entries(kind='splice', event='end', asked=f'listed.test:{world.listed.port}')
                      if 'server_name' not in e], what='its entry')


def test_other_protocols_are_spliced(world):
    """A hello that offers no HTTP is none of ours."""
    t = world.tls('listed.test', f'listed.test:{world.listed.port}', ca=world.origin_ca.ca, alpn=('imap',)).handshake()
    assert issuer_of(t.tls.getpeercert(True)) == 'CN=origin CA'


@pytest.mark.parametrize('first', [b'SSH-2.0-x\r\n', b'\x16\x02\x00\x00', b'GET / HTTP/1.1\r\n\r\n',
                                   b'\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00'])
def test_no_tls_is_spliced(world, first):
    s = connect(world.proxy, f'echo.test:{world.echo.port}', first[:1])
    s.sendall(first[1:])
    got = b''
    while len(got) < len(b'hello first\n' + first):
        piece = s.recv(100)
        assert piece, got
        got += piece
    assert got == b'hello first\n' + first, 'not a byte more or less'
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b''
    wait_for(lambda: [e for e in world.entries(kind='splice', event='end', asked=f'echo.test:{world.echo.port}')
                      if e['bytes_up'] == len(first) and e['bytes_down'] == len(first) + 12], what='its entry')


def test_silent_client_is_spliced_in_time(world):
    """The server may be the one to speak first."""
    s = connect(world.proxy, f'echo.test:{world.echo.port}')
    assert s.recv(100) == b'hello first\n'
    assert world.gw.metric('intercept_hellos_total', seen='late') >= 1


def test_client_that_leaves_before_its_hello(world):
    for first in (b'', b'\x16', b'\x16\x03\x01\x02\x00\x01'):
        connect(world.proxy, world.authority, first).close()
    assert world.entry(kind='tunnel', event='end', asked=world.authority, end='client')


def test_splice_that_cannot_be(world):
    s = connect(world.proxy, f'dead.test:{world.sni_port}', b'SSH-2.0-x\r\n')
    with pytest.raises(ConnectionResetError):
        s.recv(1)
    assert world.entry(kind='splice', event='end', asked=f'dead.test:{world.sni_port}', end='unreachable')


# --- DNS override ---------------------------------------------------------------------------------

@pytest.mark.parametrize('flag', ['--http1.1', '--http2'])
def test_override_takes_log_calls_over(world, flag):
    """The name leads to the gateway, which finds the real one by resolvers of its own."""
    name = key('override' + flag[-1])
    url = f'https://{HARNESS}:{world.sni_port}/log-service/stream?accountID=acct&key={name}'
    common = [flag, '-H', 'X-Harness-Token: token-1', '-H', f'Host: {world.authority}', '--resolve',
              f'{HARNESS}:{world.sni_port}:127.0.0.1', url]
    assert curl('-X', 'POST', *common, ca=world.mint_ca.ca)[0] == 204
    status, _, _, done = curl('-X', 'PUT', '--data-binary', body_of('overridden\n').decode(), *common, ca=world.mint_ca.ca)
    assert status == 204, done.stderr
    world.gw.wait_delivered()
    assert world.far.lines('acct', name) == ['overridden\n']
    assert world.entry(kind='intercept', event='end', listener='sni', rule='upstream', server_name=HARNESS)


def test_override_splices_the_rest(world):
    t = world.sni('spliced.test', ca=world.origin_ca.ca).handshake()
    assert json.loads(t.get('/p', 'spliced.test')[1])['path'] == '/p'
    t.sock.close()
    e = world.entry(kind='splice', event='end', listener='sni', server_name='spliced.test')
    assert e['rule'] == 'tests' and e['dialled'] == f'127.0.0.2:{world.sni_port}' and e['bytes_up'] > 0


def test_override_denies_by_policy(world):
    with pytest.raises(ssl.SSLError, match='ACCESS_DENIED'):
        world.sni('nowhere.test').handshake()
    assert world.entry(kind='splice', event='deny', server_name='nowhere.test', rule='default')
    with pytest.raises(ssl.SSLError, match='ACCESS_DENIED'):
        world.sni('private.test').handshake()
    assert world.entry(kind='splice', event='deny', server_name='private.test', rule='address')


def test_override_never_finds_itself(world):
    with pytest.raises(ssl.SSLError, match='ACCESS_DENIED'):
        world.sni('loop.test').handshake()
    assert world.entry(event='deny', rule='loop', server_name='loop.test')


@pytest.mark.parametrize('first, reason', [
    (b'GET / HTTP/1.1\r\nHost: app.harness.test\r\n\r\n', 'not TLS'),
    (b'\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00', 'ClientHello not understood'),
    (None, 'no name in the ClientHello')])
def test_override_without_a_name(world, first, reason):
    before = world.gw.metric('denied_total', rule='no-server-name')
    if first is None:
        with pytest.raises(ssl.SSLError, match='ACCESS_DENIED'):
            world.sni(None).handshake()
    else:
        with socket.create_connection(('127.0.0.1', world.sni_port), WAIT) as s:
            s.sendall(first)
            try:
                assert s.recv(100) == b''
            except ConnectionResetError:
                pass
    assert world.entry(event='deny', rule='no-server-name', reason=reason, asked=f'127.0.0.1:{world.sni_port}')
    assert world.gw.metric('denied_total', rule='no-server-name') == before + 1


def test_override_ignores_probes(world):
    before = len(world.entries())
    for _ in range(5):
        socket.create_connection(('127.0.0.1', world.sni_port), WAIT).close()
    world.sni(HARNESS).handshake().sock.close()
    world.entry(kind='intercept', event='end', listener='sni')
    assert not [e for e in world.entries()[before:] if e['kind'] != 'intercept']


# --- life -----------------------------------------------------------------------------------------

def test_reload_and_drain(tmp_path_factory):
    directory = tmp_path_factory.mktemp('reload')
    w = World(directory)
    try:
        old = w.tls().handshake()
        assert issuer_of(old.tls.getpeercert(True)) == 'CN=mint CA'
        ws = w.tls().handshake()
        ws.run(ws.tls.write, f'GET /stream/delegate/acct HTTP/1.1\r\nHost: {w.authority}\r\nConnection: upgrade\r\n'
                             f'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n'
                             f'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n'.encode())
        assert b' 101 ' in ws.run(ws.tls.read, 65536)
        (directory / 'mint2').mkdir()
        second = CA(directory / 'mint2', 'second CA')
        w.gw.write_config(intercept={'ca': second.ca, 'key': second.ca_key, 'hosts': [HARNESS]})
        w.gw.signal(signal.SIGHUP)
        wait_for(lambda: w.gw.metric('config_generation') == 2, what='the reload')
        wait_for(lambda: issuer_of(Tls(connect(w.proxy, w.authority), HARNESS, second.ca).handshake().tls.getpeercert(True))
                 == 'CN=second CA', what='the new CA')
        t = w.tls('listed.test', f'listed.test:{w.listed.port}', ca=w.origin_ca.ca).handshake()
        assert issuer_of(t.tls.getpeercert(True)) == 'CN=origin CA', 'no longer listed'
        assert old.get('/api/version', w.authority)[0] == 200, 'what stands goes on'
        ws.run(ws.tls.write, b'\x81\x82\0\0\0\0hi')
        assert ws.run(ws.tls.read, 65536) == b'\x81\x02hi'
        # Nor may it be reached any more: what stands is told so.
        w.gw.write_config(rules={'tests': {'hosts': ['other.test']}})
        w.gw.signal(signal.SIGHUP)
        wait_for(lambda: w.gw.metric('config_generation') == 3, what='the reload')
        wait_for(lambda: old.get('/api/version', w.authority)[0] == 403, what='the refusal')
        with pytest.raises(ConnectionResetError):       # a WebSocket inside ends
            ws.run(ws.tls.read, 65536)
        assert w.entry(kind='relay', event='deny', rule='policy')
        w.gw.write_config(rules={'tests': {'hosts': [HARNESS]}})
        w.gw.signal(signal.SIGHUP)
        wait_for(lambda: old.get('/api/version', w.authority)[0] == 200, what='the permission')
        # A bad one changes nothing.
        w.gw.write_config(intercept={'ca': w.mint_ca.ca})
        w.gw.signal(signal.SIGHUP)
        wait_for(lambda: w.gw.metric('reload_failures_total') == 1, what='the refusal')
        assert 'does not belong to' in w.gw.log()
        # Idle connections and such as have said nothing do not hold the drain up.
        silent = connect(w.proxy, w.authority)
        assert w.gw.stop(timeout=10) == 0
        with pytest.raises(ConnectionResetError):
            silent.recv(1)
        assert w.entries(end='drain', kind='intercept') and w.entries(end='drain', kind='tunnel')
    finally:
        w.close()


def test_limits_and_leftovers(tmp_path_factory):
    """Clients that say nothing are bounded, do not stand in each other's way, and leave nothing behind."""
    w = World(tmp_path_factory.mktemp('limits'), limits={'connections': 16}, workers=1)
    try:
        w.tls().handshake().sock.close()                    # whatever is made once
        wait_for(lambda: w.entries(kind='intercept', event='end'), what='its end')
        before = w.gw.fds()
        silent = [socket.create_connection(('127.0.0.1', w.sni_port), WAIT) for _ in range(16)]
        wait_for(lambda: w.gw.fds() >= before + 16, what='16 of them')
        with socket.create_connection(('127.0.0.1', w.sni_port), WAIT) as s:
            assert s.recv(1) == b'', 'the 17th'
        for s in silent:
            s.close()
        for i in range(10):
            with pytest.raises(ssl.SSLCertVerificationError):
                w.tls(ca=w.origin_ca.ca).handshake()
            connect(w.proxy, w.authority, w.tls().hello[:50 + i]).close()
        wait_for(lambda: w.gw.fds() <= before + 1, what='all of them closed')
        assert w.tls().handshake().get('/api/version', w.authority)[0] == 200
    finally:
        w.close()


def test_behind_a_load_balancer(tmp_path_factory):
    """Who the client is says the PROXY header, in front of the hello."""
    w = World(tmp_path_factory.mktemp('balanced'), workers=1)
    try:
        w.gw.write_config(listen={'sni': {'proxy-protocol': ['127.0.0.1']}})
        w.gw.signal(signal.SIGHUP)
        wait_for(lambda: w.gw.metric('config_generation') == 2, what='the reload')
        for name in (HARNESS, 'spliced.test'):
            t = w.sni(name, ca=w.mint_ca.ca if name == HARNESS else w.origin_ca.ca)
            t.sock.sendall(b'PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n' + t.hello)
            t.handshake(send_hello=False)
            assert t.get('/api/version', w.authority if name == HARNESS else name)[0] == 200
            t.sock.close()
            w.entry(event='end', server_name=name, client='192.0.2.7:4711')
    finally:
        w.close()
