"""The API's side of what leaves: tunnels, denials, policy/explain, the configuration, certificates, problems."""
import json
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest
from asked import UnixConnection, socket_of
from gateway import BINARY, Other, key, wait_for
from names import Names
from parents import OddParent
from proxies import RULES, ask, place, proxy_at, tunnel


def call(gw, path, method='GET', status=200):
    conn = UnixConnection(socket_of(gw))
    try:
        conn.request(method, '/api/v1/' + path)
        answer = conn.getresponse()
        text = answer.read().decode()
        assert answer.status == status, text
        assert answer.getheader('content-type') == 'application/json' and text.endswith('\n')
        return json.loads(text)
    finally:
        conn.close()


def call_any(gw, path, timeout):
    """The status, or None when there is no answer in that time."""
    conn = UnixConnection(socket_of(gw), timeout)
    try:
        conn.request('GET', '/api/v1/' + path)
        return conn.getresponse().status
    except TimeoutError:
        return None
    finally:
        conn.close()


@pytest.fixture
def names():
    n = Names({'one.example': ['127.0.0.1'], 'two.example': ['127.0.0.1'], 'inner.example': ['127.0.0.1', '10.1.2.3']})
    yield n
    n.close()


# --- tunnels ------------------------------------------------------------------------------------------

def test_tunnels_one_by_one(gateway_at, names):
    gw = proxy_at(gateway_at, names, workers=2)
    with place() as p:
        assert call(gw, 'tunnels') == {'open': 0, 'matched': 0, 'tunnels': []}
        first = tunnel(gw, f'one.example:{p.port}')
        second = tunnel(gw, f'two.example:{p.port}')
        first.sendall(b'12345')
        assert first.recv(5) == b'12345'
        found = call(gw, 'tunnels')
        assert (found['open'], found['matched']) == (2, 2)
        newest, oldest = found['tunnels']
        assert (newest['destination'], oldest['destination']) == (f'two.example:{p.port}', f'one.example:{p.port}')
        assert newest['id'] > oldest['id']
        assert oldest['kind'] == 'tunnel' and oldest['listener'] == 'proxy' and oldest['rule'] == 'names'
        assert oldest['client'] == '%s:%d' % first.getsockname() and oldest['dialled'] == f'127.0.0.1:{p.port}'
        assert oldest['identity'] is None and oldest['via'] is None
        assert (oldest['bytes_up'], oldest['bytes_down']) == (5, 5), 'as of now, not of the last look'
        assert 0 <= oldest['idle_seconds'] <= oldest['age_seconds'] < 60
        assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z', oldest['started'])
        assert call(gw, 'tunnels?limit=1')['tunnels'][0]['id'] == newest['id']
        searched = call(gw, 'tunnels?search=ONE.exa')
        assert (searched['open'], searched['matched'], len(searched['tunnels'])) == (2, 1, 1)
        assert call(gw, 'tunnels?search=nowhere')['matched'] == 0
        assert gw.metric('tunnels') == gw.metric('tunnels_by_kind', kind='tunnel') == 2
        assert call(gw, 'status')['tunnels'] == {'open': 2, 'by_kind': {'tunnel': 2}}
        first.close()
        second.close()
        wait_for(lambda: call(gw, 'tunnels')['open'] == 0)
        assert gw.metric('tunnels') == gw.metric('tunnels_by_kind', kind='tunnel') == 0


def test_tunnels_in_groups(gateway_at, names):
    gw = proxy_at(gateway_at, names, workers=2)
    with place() as p:
        open_ones = [tunnel(gw, f'{host}.example:{p.port}') for host in ('one', 'one', 'two')]
        open_ones[0].sendall(b'abc')
        assert open_ones[0].recv(3) == b'abc'
        by = call(gw, 'tunnels?by=destination')
        assert by['open'] == 3 and [(g['name'], g['open']) for g in by['groups']] == [
            (f'one.example:{p.port}', 2), (f'two.example:{p.port}', 1)]
        assert by['groups'][0]['bytes_up'] == 3 and by['groups'][0]['oldest_seconds'] >= by['groups'][1]['oldest_seconds']
        assert [(g['name'], g['open']) for g in call(gw, 'tunnels?by=client')['groups']] == [('127.0.0.1', 3)]
        assert [(g['name'], g['open']) for g in call(gw, 'tunnels?by=identity')['groups']] == [(None, 3)]
        assert [(g['name'], g['open']) for g in call(gw, 'tunnels?by=rule')['groups']] == [('names', 3)]
        assert len(call(gw, 'tunnels?by=destination&limit=1')['groups']) == 1
        assert [g['name'] for g in call(gw, 'tunnels?by=destination&search=two')['groups']] == [f'two.example:{p.port}']
        for s in open_ones:
            s.close()


@pytest.mark.parametrize('query', ['by=port', 'limit=0', 'limit=-1', 'limit=9999', 'limit=x', 'limit=', 'limit=1x'])
def test_tunnels_asked_wrongly(gw, query):
    assert re.match('(by|limit): use ', call(gw, 'tunnels?' + query, status=400)['error'])


# --- denials ------------------------------------------------------------------------------------------

def test_denials(gateway_at, names):
    gw = proxy_at(gateway_at, names)
    assert call(gw, 'denials') == {'denied': 0, 'would_deny': 0, 'denials': []}
    for target in ('evil.test:443', 'evil.test:443', 'bad..example:443', 'evil.test:443'):
        ask(gw, target)[0].close()
    found = call(gw, 'denials')
    assert found['denied'] == 4 == gw.metric('denied_total') == call(gw, 'status')['denied'] and found['would_deny'] == 0
    assert sum(d['count'] for d in found['denials']) == found['denied']
    newest = found['denials'][0]
    assert (newest['destination'], newest['rule'], newest['count']) == ('evil.test:443', 'default', 3)
    assert newest['client'] == '127.0.0.1' and newest['listener'] == 'proxy' and newest['kind'] == 'tunnel'
    assert newest['verdict'] == 'deny' and newest['reason'] and newest['identity'] is None
    assert call(gw, 'denials?limit=1')['denials'] == [newest]
    assert call(gw, 'denials?search=EVIL')['denials'] == [newest]
    assert call(gw, 'denials?search=bad..exa')['denials'][0]['rule'] == 'bad-authority'


def test_one_client_cannot_push_out_the_denials_of_others(gateway_at, names):
    gw = proxy_at(gateway_at, names, listen={'proxy': {'address': '127.0.0.1:0', 'proxy-protocol': ['127.0.0.1']}})
    with socket.create_connection(('127.0.0.1', gw.ports['proxy'])) as s:
        s.sendall(b'PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\nCONNECT quiet.test:443 HTTP/1.1\r\nHost: quiet.test:443\r\n\r\n')
        assert b' 403 ' in s.recv(4096)
    with socket.create_connection(('127.0.0.1', gw.ports['proxy'])) as s:
        s.sendall(b'PROXY TCP4 192.0.2.8 192.0.2.1 5000 80\r\n')
        for i in range(300):
            s.sendall(b'GET http://n%d.test/ HTTP/1.1\r\nHost: n%d.test\r\n\r\n' % (i, i))
            assert b' 403 ' in s.recv(4096)
    found = call(gw, 'denials')
    assert found['denied'] == 301
    by_client = [d['client'] for d in found['denials']]
    assert by_client.count('192.0.2.7') == 1 and by_client.count('192.0.2.8') == 64


def agree(parent, connection, head):
    connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
    while connection.recv(100):
        pass


def test_would_deny_is_told_at_once(gateway_at, names):
    with OddParent(agree) as parent:
        gw = proxy_at(gateway_at, names, egress={'mode': 'report'}, upstream={'parent': parent.url})
        s = tunnel(gw, 'elsewhere.test:443')
        found = call(gw, 'denials')
        assert (found['denied'], found['would_deny']) == (0, 1) and found['denials'][0]['verdict'] == 'would-deny'
        assert 'TailraceWouldDeny' in [x['name'] for x in call(gw, 'problems')['problems']]
        s.close()


# --- policy/explain -----------------------------------------------------------------------------------

def test_explain_asks_the_running_policy(gateway_at, names):
    gw = proxy_at(gateway_at, names)
    told = call(gw, 'policy/explain?to=INNER.example.:443&from=192.0.2.1')
    assert told['destination'] == 'inner.example:443' and (told['verdict'], told['rule']) == ('allow', 'names')
    assert told['parent'] is None and told['resolving'] is None
    by = {a['address']: (a['class'], a['verdict'], a['rule']) for a in told['addresses']}
    assert by == {'127.0.0.1': ('loopback', 'allow', 'names'), '10.1.2.3': ('private', 'deny', 'address')}
    denied = call(gw, 'policy/explain?to=evil.test:443')
    assert (denied['verdict'], denied['rule'], denied['addresses']) == ('deny', 'default', [])
    literal = call(gw, 'policy/explain?to=0x7f.1:22')
    assert literal['destination'] == '127.0.0.1:22' and literal['addresses'][0]['class'] == 'loopback'
    missing = call(gw, 'policy/explain?to=missing.example:443')
    assert missing['addresses'] == [] and missing['resolving']
    gw.write_config(egress={'allow': ['evil.test:443']})
    call(gw, 'reload', 'POST')
    names.table['evil.test'] = ['203.0.113.9']
    allowed = call(gw, 'policy/explain?to=evil.test:443')
    assert (allowed['verdict'], allowed['rule']) == ('deny', 'address') and allowed['addresses'][0]['class'] == 'reserved'


def test_what_a_reload_does_not_change_is_told_as_it_is(gateway_at, names):
    gw = proxy_at(gateway_at, names)
    gw.write_config(upstream={'resolvers': ['127.0.0.1:9']}, limits={'connections': 77})
    assert set(call(gw, 'reload', 'POST')['needs_restart']) == {'upstream.resolvers', 'limits.connections'}
    assert call(gw, 'policy/explain?to=one.example:443')['addresses'], 'tunnels ask these name servers still'
    assert call(gw, 'status')['connections']['limit'] == 16000


def test_explain_by_identity_and_parent(gateway_at, names):
    gw = proxy_at(gateway_at, names, upstream={'parent': 'http://127.0.0.1:9', 'parent-bypass': ['one.example']},
                  rules={'names': dict(RULES['names'], identity=['*.corp'])})
    assert call(gw, 'policy/explain?to=two.example:1')['verdict'] == 'deny'
    told = call(gw, 'policy/explain?to=two.example:1&identity=a.corp')
    assert (told['verdict'], told['parent'], told['addresses']) == ('allow', '127.0.0.1:9', [])
    told = call(gw, 'policy/explain?to=one.example:1&identity=a.corp')
    assert (told['parent'], told['addresses'][0]['address']) == (None, '127.0.0.1')


def test_explain_asked_wrongly(gw):
    assert call(gw, 'policy/explain', status=400)['error'].startswith('to: missing')
    assert call(gw, 'policy/explain?to=a.example:1&from=me', status=400)['error'].startswith('from: use an address')
    told = call(gw, 'policy/explain?to=a%20b')
    assert (told['verdict'], told['rule'], told['destination']) == ('deny', 'bad-authority', None)


def test_explain_when_the_gateway_ends(gateway_at):
    """A name server that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(('127.0.0.1', 0))
        gw = gateway_at('http://127.0.0.1:9', egress={'allow': ['slow.example:443'], 'connect-timeout': '1m'},
                        upstream={'resolvers': ['127.0.0.1:%d' % silent.getsockname()[1]]})
        conn = UnixConnection(socket_of(gw))
        conn.request('GET', '/api/v1/policy/explain?to=slow.example:443')
        silent.settimeout(10)
        silent.recv(512)
        more = [UnixConnection(socket_of(gw)) for _ in range(31)]
        for other in more:
            other.request('GET', '/api/v1/policy/explain?to=slow.example:443')
        wait_for(lambda: call_any(gw, 'policy/explain?to=slow.example:443', timeout=0.2) == 503, what='the bound')
        assert gw.stop() == 0
        for other in more:
            other.close()
        conn.close()


# --- the configuration, certificates, listeners -------------------------------------------------------

def test_config_is_what_the_dump_says(gw):
    told = call(gw, 'config')
    dump = subprocess.run([BINARY, 'check', '--dump-config', '-c', str(gw.config_path)], capture_output=True, text=True)
    assert told['text'] == dump.stdout and told['generation'] == 1 and told['file'] == str(gw.config_path)
    gw.write_config(stream={'idle': '77s'}, memory={'limit': '32MiB'})
    answer = call(gw, 'reload', 'POST')
    assert answer == {'generation': 2, 'needs_restart': ['memory.limit']}
    told = call(gw, 'config')
    assert told['generation'] == 2 and 'idle: 77s' in told['text']
    assert call(gw, 'reload', 'POST') == {'generation': 3, 'needs_restart': ['memory.limit']}, 'it still does'
    assert call(gw, 'status')['config']['needs_restart'] == ['memory.limit']
    gw.write_config(memory={'limit': '64MiB'})
    assert call(gw, 'reload', 'POST') == {'generation': 4, 'needs_restart': []}


def test_certificates_and_listeners(gateway_at, far, ca):
    cert, private = ca.issue('127.0.0.1')
    gw = gateway_at(far.url, cert=cert, key=private)
    found = call(gw, 'certificates')['certificates']
    assert [c['name'] for c in found] == ['listen.upstream']
    assert found[0]['subject'].startswith('CN=')
    assert abs(found[0]['expires_in_seconds'] - gw.metrics()['certificate_expiry_seconds{name="listen.upstream"}']) < 5
    status = call(gw, 'status')
    assert status['certificates'][0]['not_after'] == found[0]['not_after'] and len(status['listeners']) == 2
    listeners = {item['name']: item for item in call(gw, 'listeners')['listeners']}
    assert listeners['upstream'] == {'name': 'upstream', 'mode': 'upstream', 'address': f'127.0.0.1:{gw.port}', 'tls': True}
    assert listeners['admin']['mode'] == 'admin' and not listeners['admin']['tls']


# --- the log's level, upgrade -------------------------------------------------------------------------

def test_log_level_until_the_next_reload(gw):
    assert call(gw, 'log-level') == {'level': 'debug'}
    assert call(gw, 'log-level?level=error', 'POST') == {'level': 'error'}
    assert call(gw, 'log-level') == {'level': 'error'}
    assert re.search(r"the log's level is changed.*level=error by=\"uid=\d+ pid=\d+\"", gw.log())
    assert call(gw, 'log-level?level=loud', 'POST', status=400)['error'].startswith('level: use error, warn')
    assert call(gw, 'log-level', 'POST', status=400)
    call(gw, 'reload', 'POST')
    assert call(gw, 'log-level') == {'level': 'debug'}


@pytest.mark.upgrade
def test_upgrade(gw):
    gw.log_from = gw.log_path.stat().st_size
    old = gw.process
    assert call(gw, 'upgrade', 'POST', status=202) == {'upgrading': True}
    pid = wait_for(lambda: re.search(r'"handing over" pid=(\d+)', gw.log(fresh=True)), what='the new process')
    gw.before.append(old)
    gw.process = Other(int(pid.group(1)))
    gw.taken_over()
    assert call(gw, 'version')['pid'] == int(pid.group(1))


# --- problems -----------------------------------------------------------------------------------------

def problems(gw):
    return {p['name']: p for p in call(gw, 'problems')['problems']}


def test_no_problems_on_a_quiet_day(gw, api):
    api.open(key())
    gw.wait_delivered()
    assert [p for p in problems(gw).values() if p['severity'] != 'info'] == []


def test_problem_upstream_down(gw, api, far):
    api.open(key())
    gw.wait_delivered()
    far.stop()
    api.put(key(), 'one')
    found = wait_for(lambda: problems(gw).get('TailraceUpstreamDown'), what='the problem')
    assert found['severity'] == 'warning' and found['runbook'] == '#tailraceupstreamdown'
    assert 'waits in the spool' in found['text'] and '{' not in found['text']
    assert time.time() - 60 < time.mktime(time.strptime(found['since'][:19], '%Y-%m-%dT%H:%M:%S')) - time.timezone < time.time() + 5
    assert 'Upstream, the log service, has been down for' in found['text']
    far.start()
    wait_for(lambda: 'TailraceUpstreamDown' not in problems(gw), what='its end')


def test_problem_reload_failed(gw):
    good = gw.config_path.read_text()
    gw.config_path.write_text(good + '\nnonsense: yes\n')
    assert 'error' in call(gw, 'reload', 'POST', status=409)
    assert problems(gw)['TailraceReloadFailed']['severity'] == 'warning'
    gw.config_path.write_text(good)


def test_problem_certificate(gateway_at, far, ca):
    cert, private = ca.issue('127.0.0.1', expired=True)
    gw = gateway_at(far.url, cert=cert, key=private)
    found = problems(gw)
    assert found['TailraceCertificateExpiresSoon']['severity'] == 'critical'
    assert list(found) == [p['name'] for p in call(gw, 'status')['problems']], 'the status has the same'
    assert 'listen.upstream has expired' in found['TailraceCertificateExpiresSoon']['text']
    assert 'TailraceCertificateExpires' not in found, 'the worse one says it'


def test_problems_are_the_alerts(gw):
    """Each problem is an alert of that name, and its section of the runbook is there."""
    root = Path(__file__).resolve().parents[2]
    source = (root / 'src/app/problems.c').read_text()
    names = re.findall(r'\.name = "(\w+)"', source)
    alerts = re.findall(r'alert: (\w+)', (root / 'contrib/prometheus/rules.yml').read_text())
    assert set(names) == set(alerts) - {'TailraceDown'} and len(names) == len(set(names))
    sections = {'#' + s.lower() for s in re.findall(r'^### (\w+)$', (root / 'docs/operations.md').read_text(), re.M)}
    books = dict(re.findall(r'\.name = "(\w+)",\s+(?:\.runbook = "(\w+)")?', source))
    assert {'#' + (book or name.lower()) for name, book in books.items()} <= sections
