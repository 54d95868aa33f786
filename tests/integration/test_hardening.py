"""Small ways in which somebody might get more than is his: files that others may read, logs that block, floods of what is
denied, a gateway that finds itself."""
import json
import os
import re
import signal
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from calls import Api
from gateway import BINARY, Gateway, free_port, key, to_yaml, wait_for
from inside import HARNESS, Names, Tls
from proxies import RULES, echo, place, proxy_at, status_of, tunnel
from standin.certs import CA


def reload(gw, good=True):
    name = 'config_generation' if good else 'reload_failures_total'
    before = gw.metric(name)
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric(name) == before + 1, what=name)


# --- the audit trail -------------------------------------------------------------------------------

def test_a_fifo_that_nobody_reads_is_told(tmp_path):
    """It would have blocked the start for ever."""
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    config = tmp_path / 'c.yaml'
    config.write_text(to_yaml({'harness': {'url': 'http://127.0.0.1:9'}, 'spool': {'directory': str(tmp_path / 'spool')},
                               'listen': {'proxy': {'address': '127.0.0.1:0'}}, 'audit': {'to': 'file', 'file': str(fifo)}}))
    done = subprocess.run([BINARY, 'serve', '-c', str(config)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and re.search(r'audit\.file: .*nobody reads this FIFO', done.stderr), done.stderr


def test_a_fifo_that_is_not_read_any_further_holds_nobody_up(gateway_at, tmp_path):
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    gw = proxy_at(gateway_at, audit={'file': str(fifo)})
    try:
        assert status_of(gw, 'denied.test:443') == 403
        entry = wait_for(lambda: read_some(reader))
        assert json.loads(entry.splitlines()[0])['asked'] == 'denied.test:443'
        while gw.metric('audit_dropped_total') == 0:
            assert status_of(gw, 'denied.test:443') == 403
    finally:
        os.close(reader)


def read_some(fd):
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b''


def test_a_reload_that_cannot_open_the_trail_leaves_the_log_alone(far, gateway_at, tmp_path):
    """All that is to be written to is opened before any of it is changed."""
    logs = tmp_path / 'logs'
    (logs / 'directory').mkdir(parents=True)
    gw = gateway_at(far.url, audit={'to': 'file', 'file': str(logs / 'audit')})
    gw.write_config(log={'file': str(logs / 'first')})
    reload(gw)
    wait_for(lambda: 'reloaded' in (logs / 'first').read_text())
    gw.write_config(log={'file': str(logs / 'second'), 'level': 'error'}, audit={'file': str(logs / 'directory')})
    reload(gw, good=False)
    wait_for(lambda: 'reload failed' in (logs / 'first').read_text())
    assert not (logs / 'second').read_text()
    gw.write_config(log={'level': 'debug'}, audit={'file': str(logs / 'audit')})
    reload(gw)
    wait_for(lambda: 'reloaded' in (logs / 'second').read_text())
    assert 'generation=3' not in (logs / 'first').read_text()


def test_a_flood_of_denials_does_not_fill_the_disk(gateway_at, tmp_path):
    """All are refused and counted; of one client so many are written at once, then twenty a second, which say how many were
    left out."""
    gw = proxy_at(gateway_at)
    for _ in range(600):
        assert status_of(gw, 'denied.test:443') == 403
    with place(echo) as p, tunnel(gw, f'127.0.0.1:{p.port}') as s:
        s.sendall(b'x')
        assert s.recv(1) == b'x'
        assert gw.trail.last(event='start'), 'what is allowed is written as ever'
    assert gw.metric('denied_total', rule='default') == 600
    suppressed = gw.metric('audit_suppressed_total')
    written = gw.trail.entries(event='deny')
    assert suppressed > 0 and len(written) + suppressed == 600 and len(written) >= 500
    assert 'so often that the audit trail leaves it out' in gw.log()
    told = sum(e.get('suppressed', 0) for e in written)

    def another():
        assert status_of(gw, 'denied.test:443') == 403
        return sum(e.get('suppressed', 0) for e in gw.trail.entries(event='deny')) > told
    wait_for(another, every=0.1, what='an entry that tells')


def test_what_lasts_inside_an_interception_has_its_bytes(tmp_path):
    """Entries of intercepted connections count while they last, too."""
    from test_intercept import World
    w = World(tmp_path, audit={'to': 'file', 'file': str(tmp_path / 'audit'), 'format': 'json', 'interval': '1s'})
    try:
        t = w.tls().handshake()
        assert t.get('/api/version', w.authority)[0] == 200
        first = w.entry(event='interval', kind='intercept')
        assert first['bytes_up'] > 300 and first['bytes_down'] > 300, first
        assert t.get('/api/version', w.authority)[0] == 200
        wait_for(lambda: w.entry(event='interval', kind='intercept')['bytes_down'] > first['bytes_down'])
        before = w.entry(event='interval', kind='intercept')
        t.close() if hasattr(t, 'close') else t.sock.close()
        end = w.entry(event='end', kind='intercept')
        assert end['bytes_up'] >= before['bytes_up'] and end['bytes_down'] >= before['bytes_down'] > 0
        assert end['bytes_up'] < 10000, 'nothing is counted twice'
    finally:
        w.close()


# --- a gateway that finds itself -------------------------------------------------------------------

@pytest.mark.parametrize('where', ['127.0.0.1', '0.0.0.0'])
def test_a_harness_that_is_this_gateway_is_told_and_not_talked_to(gateway_at, tmp_path, where):
    """DNS points the name at the gateway, for the gateway, too. Nothing goes round in circles, nothing is lost."""
    names = Names({HARNESS: '127.0.0.1'})
    sni = free_port()
    ca = CA(tmp_path, 'mint CA')
    gw = gateway_at(f'https://{HARNESS}:{sni}', workers=1, listen={'sni': {'address': f'{where}:{sni}'}}, drain={'limit': '100ms'},
                    upstream={'resolvers': [names.address], 'ca': ca.ca}, intercept={'ca': ca.ca, 'key': ca.ca_key})
    try:
        api = Api(gw.log_url)
        assert api.open(key('a'))[0] < 300 and api.put(key('a'), 'one', 'two')[0] < 300
        status, _, _ = api.request('GET', '/api/version')
        assert status == 502
        log = wait_for(lambda: 'may not be reached at address 127.0.0.1' in gw.log() and gw.log(), what='a delivery that failed')
        assert re.search(r'level=error component=egress msg="the name in harness\.url leads back to this gateway[^\n]*'
                         rf'upstream\.resolvers" address=127\.0\.0\.1:{sni}', log)
        assert gw.metric('intercept_hellos_total') == 0, 'no connection came in by the listener'
        assert gw.ledger()['spooled'] == 2
        api.close()
    finally:
        names.close()


def test_deliveries_do_not_go_to_metadata_services(gateway_at):
    """Nor uploads, wherever a link leads: they are dialled by the same hand."""
    gw = gateway_at('http://169.254.169.254', drain={'limit': '100ms'})
    api = Api(gw.log_url)
    assert api.open(key('a'))[0] < 300 and api.put(key('a'), 'one')[0] < 300
    api.close()
    wait_for(lambda: 'it may not be reached at address 169.254.169.254' in gw.log(), what='the refusal')


# --- files of secrets ------------------------------------------------------------------------------

def start_with(tmp_path, **options):
    """The exit status and what a start says that must not work."""
    config = tmp_path / 'c.yaml'
    base = {'harness': {'url': 'https://127.0.0.1:9'}, 'spool': {'directory': str(tmp_path / 'spool')},
            'listen': {'proxy': {'address': '127.0.0.1:0'}}}
    config.write_text(to_yaml({**base, **options}))
    done = subprocess.run([BINARY, 'serve', '-c', str(config)], capture_output=True, text=True, timeout=20)
    return done.returncode, done.stderr


@pytest.mark.parametrize('mode', [0o644, 0o660, 0o604])
@pytest.mark.parametrize('what', ['upstream', 'intercept', 'ticket'])
def test_keys_that_others_may_read_or_change_are_refused(tmp_path, what, mode):
    if what == 'ticket':
        path = tmp_path / 'ticket.key'
        path.write_bytes(os.urandom(32))
        options = {'ticket': {'key': str(path)}}
        name = 'ticket key'
    else:
        ca = CA(tmp_path, 'a CA')
        path = Path(ca.ca_key)
        cert = 'certificate' if what == 'upstream' else 'ca'
        options = {what: {cert: str(ca.ca), 'key': str(path)}}
        if what == 'intercept':
            options['intercept']['hosts'] = ['app.harness.test']
        name = f'{what}.key'
    path.chmod(mode)
    code, said = start_with(tmp_path, **options)
    assert code == 1 and re.search(rf'{name}: \S+: its permissions \({mode:04o}\) let others', said), said


def test_keys_that_a_group_may_read_are_fine(far, gateway_at, tmp_path):
    ca = CA(tmp_path, 'a CA')
    os.chmod(ca.ca_key, 0o640)
    (tmp_path / 'ticket').write_bytes(os.urandom(32))
    (tmp_path / 'ticket').chmod(0o440)
    gateway_at(far.url, ticket={'key': str(tmp_path / 'ticket')},
               intercept={'ca': ca.ca, 'key': ca.ca_key, 'hosts': ['app.harness.test']})


# --- the PROXY protocol ----------------------------------------------------------------------------

V2 = b'\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c' + bytes([192, 0, 2, 9, 198, 51, 100, 1]) + b'\x04\xd2\x0c\x38'


def asked(port, header):
    """The answer's first line to a request behind that header."""
    import socket
    with socket.create_connection(('127.0.0.1', port), 20) as s:
        s.sendall(header + b'GET /api/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
        got = b''
        while piece := receive(s):
            got += piece
        return got.split(b'\r\n')[0]


def receive(s):
    try:
        return s.recv(65536)
    except ConnectionResetError:
        return b''


def test_proxy_headers_at_an_upstream_listener(far, gateway_at, tmp_path):
    gw = gateway_at(far.url, listen={'upstream': {'proxy-protocol': ['127.0.0.1']}},
                    audit={'to': 'file', 'file': str(tmp_path / 'audit')})

    def clients():
        return {json.loads(line)['client'] for line in (tmp_path / 'audit').read_text().splitlines()}
    assert asked(gw.port, b'PROXY TCP4 192.0.2.7 198.51.100.1 1234 8443\r\n').startswith(b'HTTP/1.1 ')
    assert asked(gw.port, V2).startswith(b'HTTP/1.1 ')
    wait_for(lambda: clients() >= {'192.0.2.7:1234', '192.0.2.9:1234'}, what='both clients in the audit trail')
    for bad in (b'', b'PROXY TCP4 192.0.2.7\r\n', b'PROXY TCP9 1 2 3 4\r\n', V2[:12] + b'\x31' + V2[13:]):
        assert asked(gw.port, bad) == b'', bad
    gw.write_config(listen={'upstream': {'proxy-protocol': ['198.51.100.1']}})
    reload(gw)
    assert b' 400 ' in asked(gw.port, V2) + b' ', 'who is not trusted does not say who he is'


def test_proxy_headers_at_a_grpc_listener(far, gateway_at, tmp_path):
    """HTTP/2 by prior knowledge behind the header."""
    import socket

    from frames import PREFACE, settings
    gw = gateway_at(far.url, listen={'engine': {'mode': 'grpc', 'address': '127.0.0.1:0', 'to': 'http://127.0.0.1:9',
                                                'proxy-protocol': ['127.0.0.1']}},
                    audit={'to': 'file', 'file': str(tmp_path / 'audit')})

    def first(header):
        with socket.create_connection(('127.0.0.1', gw.ports['engine']), 20) as s:
            s.sendall(header + PREFACE + settings())
            return receive(s)
    for good in (b'PROXY TCP4 192.0.2.7 198.51.100.1 1234 8443\r\n', V2):
        answer = first(good)
        assert answer[3:4] == b'\x04', answer      # SETTINGS
    assert first(b'') == b'' and first(b'PROXY TCP4 192.0.2.7\r\n') == b''
