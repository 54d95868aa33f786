"""docs/api.md tells what the API is: the same resources, the same fields, of the same kinds, and the same errors."""
import base64
import http.client
import json
import re
import subprocess
from urllib.parse import urlencode

import pytest
from api_doc import DOCUMENT, differences, resources
from asked import ask, start
from calls import Api
from gateway import Gateway, Other, key, wait_for
from names import Names
from proxies import RULES, ask as connect, place, tunnel
from standin.harness import Harness

DOCUMENTED = resources()
PASSWORD = 'correct horse'


def poisoned(far, gw, api, name):
    """A stream, one line of which upstream refuses for good."""
    assert api.open(name)[0] == 204
    assert api.put(name, 'good\n')[0] == 204
    wait_for(lambda: far.counts()['lines'].get(name) or gw.ledger('lines')['delivered'], what='the first line')
    before = gw.metric('dead_letters')
    fault = far.fault('status', 'lines', count=None, key=name, code=400, body='{"error_msg":"invalid character"}')
    assert api.put(name, 'bad\n', start=1)[0] == 204
    wait_for(lambda: gw.metric('dead_letters') == before + 1, what='the letter')
    far.clear_faults(fault)
    assert api.delete(name)[0] == 204


class Busy:
    """A gateway that has some of everything."""

    def __init__(self, directory, ca, far, names, target):
        users = directory / 'users'
        users.write_text('anna:' + subprocess.run(['openssl', 'passwd', '-6', '-salt', 'saltsalt', PASSWORD],
                                                  capture_output=True, text=True, check=True).stdout)
        users.chmod(0o640)
        cert, private = ca.issue('127.0.0.1')
        self.far = far
        self.gw = gw = Gateway(directory / 'gateway', far.url, cert=cert, key=private, workers=2, drain={'limit': '1s'},
                               listen={'admin': {'users': str(users)}, 'proxy': {'address': '127.0.0.1:0'}},
                               egress={'profile': 'none'}, rules=RULES, upstream={'resolvers': [names.address]})
        self.events = start(gw, 'events')
        self.api = api = Api(gw.log_url, ca=ca.ca)
        poisoned(far, gw, api, key('refused'))
        poisoned(far, gw, api, key('again'))
        assert api.open(key('waits'))[0] == 204
        assert api.put(key('waits'), 'one\n')[0] == 204
        self.fault = far.fault('status', 'lines', count=None, key=key('waits'), code=503)
        assert api.put(key('waits'), 'two\n', start=1)[0] == 204
        self.tunnel = tunnel(gw, f'one.example:{target.port}')
        connect(gw, 'evil.test:443')[0].close()
        wait_for(lambda: ask(gw, 'stream', account='acct', key=key('waits'))['last_error'], what='the trouble')
        wait_for(lambda: ask(gw, 'upstreams')['upstreams'][0]['last_error'], what='the trouble, told')
        self.target = f'one.example:{target.port}'

    def close(self):
        self.tunnel.close()
        self.api.close()
        self.events[0].close()
        self.far.clear_faults()
        self.gw.close()


@pytest.fixture(scope='module')
def busy(tmp_path_factory, ca):
    names = Names({'one.example': ['127.0.0.1']})
    with Harness() as far, place() as target:
        b = Busy(tmp_path_factory.mktemp('api'), ca, far, names, target)
        yield b
        b.close()
    names.close()


def of_admin(gw, method, path, user=None, **fields):
    """(status, fields, JSON) from the admin listener."""
    fields = {name.replace('_', '-'): value for name, value in fields.items()}
    if user:
        fields['Authorization'] = 'Basic ' + base64.b64encode(user.encode()).decode()
    conn = http.client.HTTPConnection('127.0.0.1', gw.ports['admin'], timeout=10)
    try:
        conn.request(method, '/api/v1/' + path, headers=fields)
        answer = conn.getresponse()
        return answer.status, answer.headers, json.loads(answer.read() or 'null')
    finally:
        conn.close()


def check(title, answer):
    """It has the fields of the document's table, and so has the example."""
    r = DOCUMENTED[title]
    assert differences(r.fields, answer) == [], title
    assert differences(r.fields, r.example) == [], f'the example of {title}'


# --- the document by itself ---------------------------------------------------------------------------

def test_what_is_told_is_what_is_there(busy):
    told = {(r.path, r.kind) for r in DOCUMENTED.values()}
    index = ask(busy.gw, '')
    assert told == {(c['path'], c['kind']) for c in index}
    assert all(set(c) == {'path', 'kind', 'text'} for c in index)
    assert {c['path'] for c in index} - {c['path'] for c in of_admin(busy.gw, 'GET', '')[2]} == {'tail', 'dead/*/export'}


def test_overview_and_sections_are_the_same(busy):
    text = DOCUMENT.read_text()
    listed = set()
    for verb in ('GET', 'POST'):
        table = re.search(r'^\| `%s /api/v1/...`.*\n((?:\|.*\n)+)' % verb, text, re.M).group(1)
        cells = re.findall(r'^\| (.*?) \|', table, re.M)
        listed |= {(verb, name.partition('?')[0]) for cell in cells for name in re.findall(r'`(.*?)`', cell)}
    assert listed == {(r.method, r.target.partition('?')[0]) for r in DOCUMENTED.values()}


# --- answers ------------------------------------------------------------------------------------------

def test_reads(busy):
    gw = busy.gw
    stream = {'account': 'acct', 'key': key('waits')}
    letter = ask(gw, 'dead', limit=1)['letters'][0]['id']
    for title, args in {'status': {}, 'problems': {}, 'upstreams': {}, 'streams': {'state': 'waiting'}, 'stream': stream,
                        'tunnels': {}, 'denials': {}, 'policy/explain': {'to': busy.target}, 'listeners': {}, 'certificates': {},
                        'config': {}, 'log-level': {}, 'version': {}, 'dead': {}}.items():
        answer = ask(gw, title, **args)
        check(title, answer)
        only = next(iter(answer.values()))
        assert len(answer) > 1 or only, f'{title} has nothing to look at'
        assert {k: type(v) for k, v in of_admin(gw, 'GET', title + '?' + urlencode(args))[2].items()} == {
            k: type(v) for k, v in answer.items()}, title
    assert ask(gw, 'tunnels')['tunnels'] and ask(gw, 'denials')['denials'] and ask(gw, 'stream', **stream)['lives']
    assert ask(gw, 'stream', **stream)['last_error'] and ask(gw, 'status')['upstreams'][0]['last_error']
    assert ask(gw, 'policy/explain', to=busy.target)['addresses'] and ask(gw, 'status')['certificates']
    check('access', ask(gw, 'access'))
    assert of_admin(gw, 'GET', 'access')[2] == {'listener': 'admin', 'actions': True}
    check('tunnels added up', ask(gw, 'tunnels', by='destination'))
    assert ask(gw, 'tunnels', by='identity')['groups'][0]['name'] is None
    check('dead/ID', ask(gw, f'dead/{letter}'))


def test_a_whole_answer_has_its_length(busy):
    """Also if it is made by another thread, piece by piece."""
    for _ in range(100):
        for what in ('dead', 'streams', 'tunnels'):
            connection, answer = start(busy.gw, what)
            assert answer.headers['Content-Length'] and len(answer.read()) == int(answer.headers['Content-Length'])
            connection.close()


def test_tail(busy):
    busy.api.open(key('followed'))
    connection, answer = start(busy.gw, 'tail', account='acct', key=key('followed'))
    assert answer.headers['Content-Type'] == 'application/x-ndjson' and json.loads(answer.readline()) == {'begin': 'open'}
    busy.api.put(key('followed'), 'text\n')
    said = json.loads(answer.readline())
    assert set(said) == {'time', 'lines'} and set(said['lines'][0]) >= {'level', 'pos', 'out', 'time'}
    busy.api.delete(key('followed'))
    assert json.loads(answer.readline()) == {'end': 'closed'}
    connection.close()


def test_export(busy):
    connection, answer = start(busy.gw, f'dead/{ask(busy.gw, "dead")["letters"][0]["id"]}/export')
    assert answer.headers['Content-Type'] == 'application/json' and [line['out'] for line in json.loads(answer.read())] == ['bad\n']
    connection.close()


# --- errors -------------------------------------------------------------------------------------------

def test_errors_of_admin_listeners(busy):
    gw, user = busy.gw, f'anna:{PASSWORD}'
    action = {'X_Tailrace_Action': '1'}
    for method, path, status, fields in (
            ('POST', 'reload', 403, {'user': user}),
            ('POST', 'reload', 401, action),
            ('POST', 'reload', 401, dict(action, user='anna:wrong')),
            ('GET', 'tail?account=a&key=k', 404, {}),
            ('GET', 'dead/1/export', 404, {}),
            ('GET', 'nothing', 404, {}),
            ('GET', 'version', 421, {'Host': 'elsewhere.example'}),
            ('GET', 'reload', 405, {}),
            ('DELETE', 'reload', 405, {}),
            ('POST', 'version', 405, dict(action, user=user))):
        got, head, body = of_admin(gw, method, path, **fields)
        assert (got, set(body), type(body['error'])) == (status, {'error'}, str), (method, path, body)
        assert head['Content-Length'] and ('www-authenticate' in head) == (status == 401)
        if status == 405:
            assert head['Allow'] == {'GET': 'POST', 'DELETE': 'GET, POST', 'POST': 'GET'}[method]
    assert of_admin(gw, 'POST', 'log-level?level=debug', user=user, **action)[2] == {'level': 'debug'}


@pytest.mark.parametrize('call', [
    'streams?limit=0', 'streams?limit=1001', 'streams?limit=5x', 'streams?limit=', 'streams?state=x', 'streams?sort=x', 'streams?from=x',
    'streams?search=' + 257 * 'x', 'stream?account=a', 'tunnels?by=x', 'tunnels?limit=1001', 'denials?limit=257', 'policy/explain',
    'policy/explain?to=a:1&from=me', 'history?last=0', 'history?last=361', 'history?last=-1', 'dead?limit=0', 'dead?limit=x',
    'dead?from=0', 'dead/x', 'tail?key=k', 'tail?account=a&key=k&last=0', 'tail?account=a&key=k&last=10001', 'version?a=%zz',
    'a/b/c/d/e/f/g/h/i', 'version?' + '&'.join(f'a{i}=' for i in range(17))])
def test_wrong_arguments(busy, call):
    path, _, query = call.partition('?')
    assert ask(busy.gw, call if query else path, status=400)['error']


def test_errors_of_the_control_socket(busy):
    gw = busy.gw
    for what in ('stream?account=a&key=none', 'tail?account=a&key=none', 'dead/999999', 'dead/999999/export', 'nothing'):
        assert ask(gw, what, status=404)['error']
    assert ask(gw, 'dead/999999/replay', 'POST', 404)['error'] and ask(gw, 'dead/999999/drop', 'POST', 404)['error']
    assert ask(gw, 'log-level', 'POST', 400, level='x')['error'] and ask(gw, 'log-level', 'POST', 400)['error']
    good = gw.config_path.read_text()
    gw.config_path.write_text(good + 'nonsense: 1\n')
    assert 'nonsense' in ask(gw, 'reload', 'POST', 409)['error']
    assert 'nonsense' in ask(gw, 'status')['config']['last_error']
    gw.config_path.write_text(good)


# --- actions, and what takes its time -----------------------------------------------------------------

def test_actions(busy):
    gw = busy.gw
    first, second = (letter['id'] for letter in ask(gw, 'dead')['letters'])
    gw.write_config(memory={'limit': '32MiB'})
    for title, answer in {'reload': ask(gw, 'reload', 'POST'),
                          'log-level, another one': ask(gw, 'log-level', 'POST', level='debug'),
                          'dead/ID/replay': ask(gw, f'dead/{first}/replay', 'POST'),
                          'dead/ID/drop': ask(gw, f'dead/{second}/drop', 'POST')}.items():
        check(title, answer)
    assert ask(gw, 'status')['config']['needs_restart'] == ['memory.limit']
    assert ask(gw, 'dead') == {'letters': [], 'next': None}


def test_events_and_history(busy):
    """The first point is there after ten seconds."""
    seen = {}
    answer = busy.events[1]
    assert answer.headers['Content-Type'] == 'text/event-stream'
    while set(seen) != {'status', 'history'}:
        line = answer.readline().decode()
        assert line and (line == '\n' or re.match(r'retry: |event: |data: |: ', line)), line
        if line.startswith('event: '):
            data = answer.readline().decode()
            seen[line.split()[1]] = json.loads(data.removeprefix('data: '))
    check('status', seen['status'])
    assert differences(DOCUMENTED['history'].fields, seen['history']) == []
    wait_for(lambda: ask(busy.gw, 'history')['points'], every=0.2, what='a point')
    check('history', ask(busy.gw, 'history', last=1))
    assert ask(busy.gw, 'status')['rates']['lines_in'] is not None


@pytest.mark.upgrade
def test_upgrade_and_drain(busy):
    gw = busy.gw
    gw.log_from = gw.log_path.stat().st_size
    check('upgrade', ask(gw, 'upgrade', 'POST', 202))
    pid = wait_for(lambda: re.search(r'"handing over" pid=(\d+)', gw.log(fresh=True)), what='the new process').group(1)
    gw.before.append(gw.process)
    gw.process = Other(int(pid))
    gw.taken_over()
    check('drain', ask(gw, 'drain', 'POST', 202))
