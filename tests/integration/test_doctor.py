"""`tailrace doctor`: each fault of docs/doctor.md is planted, found, and its cause named."""
import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from calls import Api
from gateway import BINARY, SLOW, free_port, key, wait_for
from names import Names
from parents import OddParent, pipe
from proxies import Place
from sick import TOKEN, Blackhole, Web, answer, context, doctor, reset
from standin.certs import CA
from standin.harness import Harness

HOST = 'app.harness.io'
needs_preload = pytest.mark.skipif(any(name in Path(BINARY).read_bytes() for name in (b'__asan_init', b'__tsan_init')),
                                   reason='a sanitizer wants to be loaded first')


@pytest.fixture(scope='module')
def cert(ca):
    return ca.issue('127.0.0.1', HOST)


@pytest.fixture(scope='module')
def well(ca, cert):
    """A Harness as it should be."""
    with Harness(tls=cert, store_tls=True) as far:
        yield far


@pytest.fixture
def open_(request):
    """Keeps servers until the test is over."""
    made = []
    yield lambda server: made.append(server) or server
    for server in made:
        server.close()


@pytest.fixture
def token(tmp_path):
    path = tmp_path / 'token'
    path.touch(0o600)
    path.write_text(TOKEN + '\n')
    return '--token', str(path), '--account', 'acct'


def trusted(ca, **more):
    return {'ca': ca.ca, **more}


def named(open_, ca, addresses, **more):
    """upstream: with a name server that knows `HOST`."""
    return trusted(ca, resolvers=[open_(Names({HOST: addresses})).address], **more)


def parent(open_, status, *fields):
    def refuse(self, connection, head):
        connection.sendall(answer(status, b'', *fields))
    return {'parent': open_(OddParent(refuse)).url}


# ---- all is well ----------------------------------------------------------------------------------

def test_doctor_all_is_well(tmp_path, well, ca, token):
    began = time.monotonic()
    report = doctor(tmp_path, well.url, *token, upstream=trusted(ca), harness={'url': well.url, 'upload-logs': 'follow'})
    assert time.monotonic() - began < 2 * SLOW
    assert report.causes() == [] and report.status == 0, report.text
    for flow in ['config', 'spool', 'harness', 'log-service', 'delegate-wss', 'log-stream', 'log-upload', 'clock']:
        assert report.fine(flow), (flow, report.text)
    assert report.fine('harness', 'alpn') == ['HTTP/2 is agreed on and spoken']
    # What it wrote is one line, of a stream that is closed, and the blob is gone again.
    counts = well.counts()
    mine = {name: n for name, n in counts['lines'].items() if 'tailrace-doctor/' in name}
    assert len(mine) == 1 and list(mine.values()) == [1] and not counts['streams']
    assert not any('tailrace-doctor/' in name for name in counts['blobs'])
    assert not well.state(lines=False)['store']['leaks']


def test_doctor_speaks_to_people(tmp_path, well, ca):
    out = doctor(tmp_path, well.url, plain=True, upstream=trusted(ca)).text
    assert re.search(r'^ok    log-service      http: 200 for /log-service/healthz', out, re.M)
    assert re.search(r'\n\d+ fine, \d+ to look at, 0 broken\n$', out)
    report = doctor(tmp_path, f'https://127.0.0.1:{free_port()}', plain=True, upstream=trusted(ca))
    assert report.status == 1
    assert re.search(r'^FAIL  harness .*\n        why:  .+\n        who:  firewall team\n        do:   allow TCP from '
                     r'127.0.0.1 to 127.0.0.1:\d+', report.text, re.M), report.text


def test_doctor_one_flow_alone(tmp_path, well, ca):
    report = doctor(tmp_path, well.url, '--flow', 'delegate-wss', upstream=trusted(ca))
    assert report.status == 0 and report.fine('delegate-wss')
    assert not report.fine('spool') and not report.fine('config')
    assert doctor(tmp_path, well.url, '--flow', 'nonsense').status == 2
    assert doctor(tmp_path, well.url, '--account', 'acct').status == 2
    assert doctor(tmp_path, well.url, 'more').status == 2


def test_doctor_beside_a_gateway(far, gateway_at, tmp_path):
    gw = gateway_at(far.url, control={'socket': str(tmp_path / 'control.sock')})
    report = doctor(tmp_path, far.url, control={'socket': str(tmp_path / 'control.sock')},
                    listen={'upstream': {'address': f'127.0.0.1:{gw.port}'}},
                    spool={'directory': gw.options['spool']['directory']})
    assert report.status == 0, report.text
    assert 'it runs' in report.fine('gateway')[0]
    assert not report.fine('listen.upstream')


def test_doctor_where_listeners_lead(tmp_path, well, open_):
    port, web = free_port(), open_(Web())
    report = doctor(tmp_path, well.url, '--flow', 'listen', listen={
        'db': {'mode': 'forward', 'address': '127.0.0.1:0', 'to': f'127.0.0.1:{port}'},
        'engine': {'mode': 'grpc', 'address': '127.0.0.1:0', 'to': web.url}})
    assert f'127.0.0.1:{port}' in report.one('connection_refused')['do']
    assert str(web.port) in report.one('alpn_h2_broken')['seen']


def test_doctor_ends_when_all_is_dark(tmp_path, open_, ca):
    hole, names = open_(Blackhole()), open_(Names({HOST: ['silent'], 'x.example': ['127.0.0.1']}))
    began = time.monotonic()
    report = doctor(tmp_path, f'https://{HOST}:{hole.port}', '--idle', '1', timeout=.5,
                    upstream=trusted(ca, resolvers=[names.address], parent=f'http://127.0.0.1:{hole.port}'),
                    listen={'proxy': {'address': '127.0.0.1:0'}},
                    egress={'allow': [f'h{i}.example:443' for i in range(20)]})
    assert time.monotonic() - began < 8 * SLOW
    assert set(report.causes()) == {'firewall_drops'} and report.status == 1


def test_doctor_says_that_it_is_the_parent_that_is_not_there(tmp_path):
    at = free_port()
    report = doctor(tmp_path, f'https://{HOST}', '--flow', 'harness', upstream={'parent': f'http://127.0.0.1:{at}'})
    found = report.one('connection_refused')
    assert found['seen'].startswith(f'the parent proxy 127.0.0.1 port {at}') and f'127.0.0.1:{at}' in found['do']


# ---- names ----------------------------------------------------------------------------------------

def test_doctor_name_not_resolved(tmp_path, open_, ca):
    names = open_(Names({}))
    found = doctor(tmp_path, f'https://{HOST}', upstream=trusted(ca, resolvers=[names.address])).one('name_not_resolved')
    assert HOST in found['seen'] and names.address in found['seen'] and found['who'] == 'DNS team'


def test_doctor_name_servers_silent(tmp_path, open_, ca):
    found = doctor(tmp_path, f'https://{HOST}', timeout=.3, upstream=named(open_, ca, ['silent'])).one('name_servers_silent')
    assert 'port 53' in found['do']


def test_doctor_name_sinkholed(tmp_path, open_, ca):
    assert '0.0.0.0' in doctor(tmp_path, f'https://{HOST}', upstream=named(open_, ca, ['0.0.0.0'])).one('name_sinkholed')['seen']


def test_doctor_dns_points_to_ourselves(tmp_path, open_, ca):
    port = free_port()
    report = doctor(tmp_path, f'https://{HOST}:{port}', upstream=named(open_, ca, ['127.0.0.1']),
                    listen={'sni': {'address': f'0.0.0.0:{port}'}})
    found = report.one('dns_points_to_ourselves')
    assert 'upstream.resolvers' in found['do'] and report.causes() == ['dns_points_to_ourselves']


# ---- TCP ------------------------------------------------------------------------------------------

def test_doctor_firewall_drops(tmp_path, open_, ca):
    hole = open_(Blackhole())
    found = doctor(tmp_path, f'https://{HOST}:{hole.port}', timeout=.3, upstream=named(open_, ca, ['127.0.0.1'])).one('firewall_drops')
    assert found['do'].startswith(f'allow TCP from 127.0.0.1 to {HOST}:{hole.port}')
    assert found['who'] == 'firewall team'


def test_doctor_connection_refused(tmp_path, ca):
    port = free_port()
    found = doctor(tmp_path, f'https://127.0.0.1:{port}', upstream=trusted(ca)).one('connection_refused')
    assert f'127.0.0.1:{port}' in found['do']


def test_doctor_no_route(tmp_path, ca):
    assert doctor(tmp_path, 'https://224.0.0.1', upstream=trusted(ca)).one('no_route')


def test_doctor_some_addresses_blocked(tmp_path, open_, ca, well):
    report = doctor(tmp_path, f'https://{HOST}:{well.port}', upstream=named(open_, ca, ['127.0.0.1', '127.0.0.2']))
    assert '127.0.0.2' in report.one('some_addresses_blocked', 'warn')['seen'] and report.status == 0


# ---- the parent proxy -----------------------------------------------------------------------------

def test_doctor_parent_refuses_connect(tmp_path, open_):
    found = doctor(tmp_path, f'https://{HOST}', upstream=parent(open_, '403 Forbidden')).one('parent_refuses_connect')
    assert f'allow CONNECT from 127.0.0.1 to {HOST}:443' in found['do'] and found['who'] == 'proxy team'


def test_doctor_parent_asks_credentials(tmp_path, open_):
    found = doctor(tmp_path, f'https://{HOST}',
                   upstream=parent(open_, '407 Proxy Authentication Required', 'Proxy-Authenticate: Basic realm="x"')
                   ).one('parent_asks_credentials')
    assert 'upstream.parent-credentials' in found['do']


def test_doctor_parent_resolves_not(tmp_path, open_):
    found = doctor(tmp_path, f'https://{HOST}', upstream=parent(open_, '503 Service Unavailable')).one('parent_resolves_not')
    assert f'resolve {HOST}' in found['do']


def test_doctor_parent_is_no_proxy(tmp_path, open_):
    server = open_(OddParent(lambda self, connection, head: connection.sendall(b'220 mail.example ESMTP\r\n')))
    assert doctor(tmp_path, f'https://{HOST}', upstream={'parent': server.url}).one('parent_is_no_proxy')


def test_doctor_by_a_parent_over_tls(tmp_path, open_, ca, well, token):
    """TLS within TLS, with credentials, which are not shown."""
    heads = []

    def proxy(s):
        outer = context(ca.issue('127.0.0.1')).wrap_socket(s, server_side=True)
        head = b''
        while b'\r\n\r\n' not in head:
            head += outer.recv(4096)
        heads.append(head.decode())
        outer.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
        pipe(outer, socket.create_connection(('127.0.0.1', well.port)))

    server = open_(Place(proxy))
    secret = tmp_path / 'credentials'
    secret.touch(0o600)
    secret.write_text('user:planted-password')
    report = doctor(tmp_path, f'https://{HOST}:{well.port}', *token, upstream=trusted(
        ca, parent=f'https://127.0.0.1:{server.port}', **{'parent-credentials': str(secret)}))
    assert report.status == 0 and report.fine('log-stream') and report.fine('harness', 'alpn'), report.text
    assert all(head.startswith(f'CONNECT {HOST}:{well.port} ') and 'Proxy-Authorization: Basic ' in head for head in heads)
    assert 'planted' not in report.text and 'dXNlcj' not in report.text


# ---- TLS ------------------------------------------------------------------------------------------

def test_doctor_middlebox_resigns(tmp_path, open_, ca):
    box = CA(tmp_path, 'Corp Inspection CA')
    server = open_(Web(tls=context(box.issue(HOST))))
    found = doctor(tmp_path, f'https://{HOST}:{server.port}', upstream=named(open_, ca, ['127.0.0.1'])).one('middlebox_resigns')
    assert 'Corp Inspection CA' in found['seen'] and 'upstream.ca' in found['do']
    assert server.heads == []


def test_doctor_middlebox_that_is_trusted(tmp_path, open_, ca, well):
    report = doctor(tmp_path, f'https://{HOST}:{well.port}', upstream=named(open_, ca, ['127.0.0.1']))
    assert 're-signs' in report.fine('harness', 'tls')[0] and report.status == 0


def test_doctor_ca_missing(tmp_path, well):
    found = doctor(tmp_path, well.url).one('ca_missing')
    assert 'stand-in CA' in found['seen'] and 'upstream.ca' in found['do']


def test_doctor_certificate_expired(tmp_path, open_, ca):
    server = open_(Web(tls=context(ca.issue('127.0.0.1', expired=True))))
    assert doctor(tmp_path, server.url, upstream=trusted(ca)).one('certificate_expired')


def test_doctor_certificate_wrong_name(tmp_path, open_, ca):
    server = open_(Web(tls=context(ca.issue('other.example'))))
    assert 'other.example' in doctor(tmp_path, server.url, upstream=trusted(ca)).one('certificate_wrong_name')['seen']


def test_doctor_tls_too_old(tmp_path, open_, ca, cert):
    server = open_(Web(tls=context(cert, maximum_version=ssl.TLSVersion.TLSv1_2)))
    found = doctor(tmp_path, server.url, upstream=trusted(ca, **{'tls-min': '1.3'})).one('tls_too_old')
    assert 'TLSv1.2' in found['seen'] and 'upstream.tls-min' in found['do']


def test_doctor_tls_cut(tmp_path, open_, ca):
    server = open_(Web(lambda s, head: None))
    server.talk = lambda s: s.recv(100) and reset(s)
    server.serve = server.talk
    found = doctor(tmp_path, f'https://127.0.0.1:{server.port}', upstream=trusted(ca)).one('tls_cut')
    assert 'SNI' in found['do'] and found['who'] == 'firewall team'


def test_doctor_not_tls(tmp_path, open_, ca):
    server = open_(Web())
    server.serve = lambda s: s.recv(100) and s.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n')
    assert doctor(tmp_path, f'https://127.0.0.1:{server.port}', upstream=trusted(ca)).one('not_tls')


def test_doctor_tls_fails(tmp_path, open_, ca):
    server = open_(Web(tls=context(ca.issue('127.0.0.1', client=True))))
    assert 'purpose' in doctor(tmp_path, server.url, upstream=trusted(ca)).one('tls_fails')['seen']


@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_doctor_client_certificate_missing(tmp_path, open_, ca, cert, version):
    server = open_(Web(tls=context(cert, client_ca=ca.ca, maximum_version=version)))
    found = doctor(tmp_path, server.url, upstream=trusted(ca)).one('client_certificate_missing')
    assert 'upstream.certificate' in found['do']


def test_doctor_client_certificate_refused(tmp_path, open_, ca, cert):
    server = open_(Web(tls=context(cert, client_ca=ca.ca)))
    own = CA(tmp_path, 'unknown').issue('gateway', client=True)
    report = doctor(tmp_path, server.url, upstream=trusted(ca, certificate=own[0], key=own[1]))
    assert own[0] in report.one('client_certificate_refused')['seen']


# ---- HTTP -----------------------------------------------------------------------------------------

def test_doctor_alpn_h2_broken(tmp_path, open_, ca, cert):
    server = open_(Web(tls=context(cert, alpn=('h2', 'http/1.1'))))
    report = doctor(tmp_path, server.url, '--flow', 'harness', upstream=trusted(ca))
    assert 'upstream.http' in report.one('alpn_h2_broken')['do'] and report.fine('log-service')


def test_doctor_http_blocked(tmp_path, open_, ca, cert):
    server = open_(Web(lambda head: answer('302 Found', b'', 'Location: http://portal.corp.example/', 'Server: Portal'),
                       context(cert)))
    assert 'Portal' in doctor(tmp_path, server.url, upstream=trusted(ca)).one('http_blocked')['seen']


def test_doctor_http_fails(tmp_path, open_, ca, cert):
    server = open_(Web(lambda head: answer('503 Service Unavailable'), context(cert)))
    assert '503' in doctor(tmp_path, server.url, upstream=trusted(ca)).one('http_fails')['seen']


def test_doctor_websocket_stripped(tmp_path, open_, ca, cert):
    server = open_(Web(tls=context(cert)))
    report = doctor(tmp_path, server.url, upstream=trusted(ca))
    assert 'Upgrade: websocket' in report.one('websocket_stripped')['do']
    assert report.causes() == ['websocket_stripped']


def test_doctor_upgrade_that_is_refused_is_none_that_is_stripped(tmp_path, open_, ca, cert):
    def reply(head):
        return answer('400 Bad Request' if b'Upgrade: websocket' in head else '200 OK')
    report = doctor(tmp_path, open_(Web(reply, context(cert))).url, upstream=trusted(ca))
    assert "delegate's token" in report.fine('delegate-wss')[0] and report.status == 0


def test_doctor_idle_tunnel_cut(tmp_path, open_, ca, cert):
    def idle(s):
        if threading.Event().wait(.4):
            return
        reset(s)
    server = open_(Web())
    server.serve = idle
    url = f'http://127.0.0.1:{server.port}'
    found = doctor(tmp_path, url, '--flow', 'idle', '--idle', '2').one('idle_tunnel_cut')
    assert 'after 0.' in found['seen'] and '300 s' in found['do']
    assert doctor(tmp_path, open_(Web()).url, '--flow', 'idle', '--idle', '1').status == 0


def test_doctor_clock_skew(tmp_path, open_, ca, cert):
    server = open_(Web(lambda head: answer(date=time.time() - 3600), context(cert)))
    found = doctor(tmp_path, server.url, '--flow', 'log-service', upstream=trusted(ca)).one('clock_skew')
    assert re.search(r'36\d\d s ahead of', found['seen'])


# ---- logs -----------------------------------------------------------------------------------------

@pytest.fixture
def fault(well):
    yield well
    well.clear_faults()
    well.tokens(clear=True)


def logs(tmp_path, far, ca, token, uploads='follow'):
    return doctor(tmp_path, far.url, '--flow', 'log-stream', *token, upstream=trusted(ca),
                  harness={'url': far.url, 'upload-logs': uploads})


def test_doctor_token_that_others_can_read(tmp_path, well, token):
    os.chmod(token[1], 0o644)
    report = doctor(tmp_path, well.url, *token)
    assert report.status == 2 and 'token' in report.err


def test_doctor_token_expired(tmp_path, fault, ca, token):
    fault.tokens(expired=[TOKEN])
    assert logs(tmp_path, fault, ca, token).one('token_expired')


def test_doctor_token_refused(tmp_path, fault, ca, token):
    fault.tokens(accounts={TOKEN: 'other'})
    assert '--account' in logs(tmp_path, fault, ca, token).one('token_refused')['do']


def test_doctor_log_stream_fails(tmp_path, fault, ca, token):
    fault.fault('ok_on_error', 'lines')
    assert '200' in logs(tmp_path, fault, ca, token).one('log_stream_fails')['seen']


def test_doctor_link_not_given(tmp_path, fault, ca, token):
    fault.fault('status', 'link', code=500)
    assert logs(tmp_path, fault, ca, token).one('link_not_given')


def test_doctor_link_refused(tmp_path, fault, ca, token):
    fault.fault('status', 'put-object', code=403)
    report = logs(tmp_path, fault, ca, token)
    assert report.one('link_refused')['flow'] == 'log-upload' and report.fine('log-stream')


# ---- the policy -----------------------------------------------------------------------------------

PROXY = {'proxy': {'address': '127.0.0.1:0'}}


def test_doctor_upload_blocked(tmp_path, well, ca):
    report = doctor(tmp_path, well.url, '--flow', 'policy', listen=PROXY, harness={'url': well.url, 'upload-logs': 'follow'},
                    rules={'no-buckets': {'action': 'deny', 'hosts': ['*.googleapis.com']}})
    found = report.one('upload_blocked')
    assert 'rules.no-buckets' in found['do'] and 'storage.googleapis.com:443' in found['seen']


def test_doctor_policy_denies(tmp_path, well):
    report = doctor(tmp_path, well.url, '--flow', 'policy', listen=PROXY,
                    rules={'none': {'action': 'deny', 'hosts': ['127.0.0.1']}})
    assert any(f['cause'] == 'policy_denies' and f['flow'] == 'delegate-wss' for f in report.findings)
    assert report.one('policy_denies')


def test_doctor_policy_denies_address(tmp_path, open_, well):
    names = open_(Names({'git.corp.example': ['10.1.2.3']}))
    report = doctor(tmp_path, well.url, '--flow', 'egress', listen=PROXY, egress={'allow': ['git.corp.example:443']},
                    upstream={'resolvers': [names.address]})
    assert 'addresses' in report.one('policy_denies_address')['do']


def test_doctor_tries_no_port_that_nobody_named(tmp_path, open_, well):
    """A rule for all ports names none: no fault is made up of it."""
    names, port = open_(Names({'a.example': ['127.0.0.1'], 'b.example': ['127.0.0.1']})), free_port()
    rules = {'any': {'hosts': ['a.example'], 'ports': ['1-442', '444-65535'], 'addresses': ['127.0.0.1']},
             'one': {'hosts': ['b.example'], 'ports': ['8000-8002', str(port)], 'addresses': ['127.0.0.1']}}
    report = doctor(tmp_path, well.url, '--flow', 'egress', listen=PROXY, rules=rules, upstream={'resolvers': [names.address]})
    assert f'127.0.0.1 to b.example:{port} ' in report.one('connection_refused')['do'] and 'a.example' not in report.text


# ---- this host ------------------------------------------------------------------------------------

def test_doctor_config_broken(tmp_path, well):
    assert 'tailrace.yaml' in doctor(tmp_path, well.url, nonsense='x').one('config_broken')['seen']


def test_doctor_spool_full(tmp_path, well, ca):
    # A database whose header says that 2,000 pages of 4 KiB are in use (fileformat2, 1.3).
    header = bytearray(100)
    header[0:16] = b'SQLite format 3\0'
    header[16:18] = (4096).to_bytes(2, 'big')
    header[28:32] = (2000).to_bytes(4, 'big')
    (tmp_path / 'spool.db').write_bytes(bytes(header))
    report = doctor(tmp_path, well.url, '--flow', 'spool', spool={'directory': str(tmp_path), 'limit': '8MiB'}, limits={'blob': '1MiB'})
    assert 'spool.limit' in report.one('spool_full')['do']


def test_doctor_spool_not_writable(tmp_path, well):
    (tmp_path / 'file').touch()
    assert doctor(tmp_path, well.url, '--flow', 'spool', spool={'directory': str(tmp_path / 'file')}).one('spool_not_writable')


# A file system that says it is NFS, for LD_PRELOAD.
NFS = """
#include <dlfcn.h>
#include <sys/vfs.h>
int statfs(const char *path, struct statfs *fs)
{
    int (*theirs)(const char *, struct statfs *) = dlsym(RTLD_NEXT, "statfs");
    int rc = theirs(path, fs);
    fs->f_type = 0x6969;
    return rc;
}
"""


@needs_preload
def test_doctor_spool_on_network(tmp_path, well):
    library = tmp_path / 'nfs.so'
    subprocess.run(['cc', '-D_GNU_SOURCE', '-shared', '-fPIC', '-xc', '-', '-o', library, '-ldl'], input=NFS, text=True, check=True)
    (tmp_path / 'spool').mkdir()
    report = doctor(tmp_path, well.url, '--flow', 'spool', before=['env', f'LD_PRELOAD={library}'],
                    spool={'directory': str(tmp_path / 'spool')})
    found = report.one('spool_on_network')
    assert found['who'] == 'platform team' and 'NFS' in found['seen'] and 'local disk' in found['do']


def test_doctor_port_taken(tmp_path, well):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        at = '127.0.0.1:%d' % taken.getsockname()[1]
        found = doctor(tmp_path, well.url, '--flow', 'listen', listen={'upstream': {'address': at}}).one('port_taken')
        assert at in found['seen'] and f'process {os.getpid()} ' in found['seen']


def test_doctor_port_not_allowed(tmp_path, well):
    found = doctor(tmp_path, well.url, '--flow', 'listen', listen={'upstream': {'address': '192.0.2.1:8080'}}).one('port_not_allowed')
    assert 'listen.upstream.address' in found['do']


def test_doctor_descriptors_few(tmp_path, well):
    report = doctor(tmp_path, well.url, '--flow', 'host', before=['prlimit', '--nofile=1024:1024'])
    assert 'LimitNOFILE=' in report.one('descriptors_few', 'warn')['do']


def own(tmp_path, url, cert, *args, **more):
    listen = {'upstream': {'address': '127.0.0.1:0', 'certificate': cert[0], 'key': cert[1], **more}}
    return doctor(tmp_path, url, '--flow', 'listen', *args, listen=listen)


def test_doctor_own_certificate_expired(tmp_path, well, ca):
    assert own(tmp_path, well.url, ca.issue('gw.example', expired=True)).one('own_certificate_expired')


def test_doctor_own_certificate_wrong_name(tmp_path, well, ca):
    report = own(tmp_path, well.url, ca.issue('gw.example'), **{'public-url': 'https://logs.example'})
    assert 'logs.example' in report.one('own_certificate_wrong_name')['seen']


def test_doctor_trust_missing(tmp_path, well, ca):
    other = CA(tmp_path, 'what delegates trust')
    assert own(tmp_path, well.url, ca.issue('gw.example'), '--trust', other.ca).one('trust_missing')['who'] == 'platform team'
    assert own(tmp_path, well.url, ca.issue('gw.example'), '--trust', ca.ca).status == 0


# ---- the gateway ----------------------------------------------------------------------------------

class Control:
    """A control socket that answers what it is told to."""

    def __init__(self, path, status):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        self.body = json.dumps(status).encode()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                s, _ = self.socket.accept()
            except OSError:
                return
            with s:
                if s.recv(4096):
                    s.sendall(answer('200 OK', self.body))

    def close(self):
        self.socket.close()


def test_doctor_gateway_not_running(tmp_path, well):
    report = doctor(tmp_path, well.url, '--flow', 'gateway')
    assert report.one('gateway_not_running', 'warn') and report.status == 0


def test_doctor_gateway_not_ready(tmp_path, well, open_):
    open_(Control(tmp_path / 'control.sock', {'version': '1', 'ready': False, 'not_ready': ['spool'], 'problems': []}))
    assert 'spool' in doctor(tmp_path, well.url, '--flow', 'gateway').one('gateway_not_ready')['seen']


def test_doctor_gateway_problem(tmp_path, far, gateway_at):
    """One that a gateway has: nobody answers where its logs go."""
    gw = gateway_at(far.url)
    far.stop()
    with contextlib.closing(Api(gw.log_url)) as api:
        assert api.open(key())[0] == 204 and api.put(key(), 'a\n')[0] == 204
    wait_for(lambda: gw.metric('upstream_state', upstream='harness') == 2, what='an upstream that is down')
    done = subprocess.run([BINARY, 'doctor', '-c', str(gw.config_path), '--json', '--flow', 'gateway'],
                          capture_output=True, text=True, timeout=60, check=False)
    found = [f for f in json.loads(done.stdout)['findings'] if f['cause'] == 'gateway_problem']
    down, = [f for f in found if 'TailraceUpstreamDown' in f['seen']]
    assert 'docs/operations.md#tailraceupstreamdown' in down['do']


def test_doctor_config_not_loaded(tmp_path, well, open_):
    open_(Control(tmp_path / 'control.sock', {'version': '1', 'ready': True, 'problems': [], 'config': {
        'file': str(tmp_path / 'tailrace.yaml'), 'loaded': '2020-01-01T00:00:00.000Z'}}))
    assert 'reload' in doctor(tmp_path, well.url, '--flow', 'gateway').one('config_not_loaded', 'warn')['do']


# ---- the table ------------------------------------------------------------------------------------

def test_doctor_is_documented():
    root = Path(__file__).resolve().parents[2]
    rows = re.findall(r'^\| `(\w+)` \|.*\| `(test_doctor_\w+)` \|$', (root / 'docs/doctor.md').read_text(), re.M)
    names = re.findall(r'\] = \{\s*"(\w+)"', (root / 'src/doctor/cause.c').read_text())
    assert [cause for cause, _ in rows] == names
    assert [cause for cause, test in rows if test != f'test_doctor_{cause}' or test not in globals()] == []
