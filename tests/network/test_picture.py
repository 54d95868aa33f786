"""The whole picture: one execution of a pipeline, from the browser's click to the last log, through
tailrace as the only way between the networks; in each of the ways it can be reached, by both routes of
finished logs. docs/flows.md names these tests."""
import base64
import collections
import json
import re
import socket
from pathlib import Path

import pytest
from world import DATABASE, ENGINE, GATE, INSIDE, PUBLIC, STEP, WIRES, inside, reaches, wait_for

SECRET = 'planted-secret-Zq81'
PASSWORD = 'planted-registry-password'
AUTH = base64.b64encode(('puller:' + PASSWORD).encode()).decode()
DOCKERCFG = base64.b64encode(json.dumps(
    {'https://registry.forge.test': {'username': 'puller', 'password': PASSWORD, 'auth': AUTH}}).encode()).decode()
PLANTED = [SECRET, PASSWORD, AUTH, DOCKERCFG, 'planted-websocket-token', 'planted-delegate-token', 'planted-api-key']
WAYS = ['upstream', 'proxy', 'dns']
ROUTES = ['harness', 'googleapis']


def reach(world, way):
    """How the programs of each network get out, in one of the ways; their configuration files."""
    manager = 'https://%s:8443' % GATE if way == 'upstream' else 'https://app.harness.io'
    files = {}
    for name in ('build', 'pods'):
        leg = WIRES[name] + '.1'
        world.resolver(name, WIRES[name] + ('.54' if way == 'dns' else '.53'))
        proxy = 'http://%s:3128' % leg
        spec = {'manager': manager, 'log_url': manager + '/log-service', 'ca': str(world.trust),
                'proxy': proxy if way == 'proxy' else None, 'other_proxy': None if way == 'dns' else proxy}
        files[name] = spec
    files['build'].update(lite_engine='%s.1:20001' % WIRES['build'])
    files['pods'].update(step=STEP + ':20002',
                         database='host=%s.1 port=5432 user=postgres dbname=postgres connect_timeout=5' % WIRES['pods'])
    return files


class Actors:
    """The programs of one deployment, started for one way."""

    def __init__(self, world, way):
        self.world, self.way, self.spec = world, way, reach(world, way)
        self.engine = self.start('pods', 'lite-engine', 'lite-engine', listen=ENGINE + ':20001')
        self.step = self.start('pods', 'step', 'step', listen=STEP + ':20002')
        self.delegate = self.start('build', 'delegate', 'delegate')
        try:
            self.engine.event('listening')
            self.step.event('listening')
        except BaseException:
            self.close()
            raise

    def start(self, network, label, kind, **more):
        spec = self.world.config('%s-%s' % (label, self.way), dict(self.spec[network], **more))
        return self.world.python(network, '%s-%s' % (label, self.way), 'actors', kind, spec)

    def ui(self, method, path, *arguments):
        """The browser: curl, over HTTP/2 where it is offered. (status, body)"""
        spec = self.spec['build']
        command = ['curl', '-sS', '-X', method, '--cacert', spec['ca'], '-w', '\n%{http_code} %{http_version}',
                   '--max-time', '20', '-H', 'x-api-key: planted-api-key', *arguments]
        if spec['proxy']:
            command += ['-x', spec['proxy']]
        done = self.world.run('build', *command, spec['manager'] + path)
        assert done.returncode == 0, done.stderr
        body, _, last = done.stdout.rpartition('\n')
        return int(last.split()[0]), body

    def close(self):
        for process in (self.delegate, self.engine, self.step):
            if process in self.world.processes:
                self.world.end(process)


def payload(log_key, route, **more):
    return dict({'git': 'https://git.forge.test/orders.git', 'dockercfg': DOCKERCFG, 'secret': SECRET,
                 'sql': "create table if not exists orders (id serial, via text); insert into orders (via) values ('%s'); "
                        "select 'rows ' || count(*) from orders where via = '%s';" % (log_key, log_key),
                 'log_key': log_key, 'indirect': route == 'harness'}, **more)


def execute(world, actors, task):
    """The click, and what becomes of it: (the delegate's answer, calls seen at Harness)."""
    world.control('POST', '/forget', {})
    world.control('POST', '/payload', task)
    actors.delegate.event('connected')
    status, body = actors.ui('POST', '/gateway/pipeline/api/pipeline/execute/demo?accountIdentifier=acct')
    assert status == 200, body
    execution = json.loads(body)['data']['planExecutionId']
    responses = wait_for(world.answered, 45, what="the delegate's answer")
    status, body = actors.ui('GET', '/gateway/pipeline/api/pipelines/execution/%s?accountIdentifier=acct' % execution)
    return responses[0], json.loads(body)['status'], world.control('GET', '/seen')


@pytest.fixture(scope='module')
def gate(world):
    made = world.gateway()
    yield made
    made.close()


@pytest.fixture(scope='module', params=WAYS)
def actors(world, gate, request):
    made = Actors(world, request.param)
    yield made
    made.close()


# --- one execution -----------------------------------------------------------------------------------

@pytest.mark.parametrize('route', ROUTES)
def test_execution(world, gate, actors, route):
    key = 'accountId:acct/pipelineId:demo/runSequence:1/way:%s/route:%s' % (actors.way, route)
    before = len(world.audit(gate)), len(world.repos_log())
    answer, state, seen = execute(world, actors, payload(key, route))
    assert answer['status'] == 'SUCCESS' and state == 'SUCCESS', answer
    the_services_talked(seen)
    the_work_was_done(world, actors, answer, key, world.repos_log()[before[1]:])
    gate.wait_delivered()
    the_logs_arrived(world, answer, key, route)
    the_gate_saw_it(world, gate, before[0], actors.way)


def the_services_talked(seen):
    """Who called whom at Harness, and in which order."""
    calls = collections.Counter((e['from'], e['to']) for e in seen)
    for pair in (('outside', 'gateway'), ('gateway', 'ng-core'), ('gateway', 'log-service'), ('gateway', 'pipeline'),
                 ('pipeline', 'ng-manager'), ('ng-manager', 'dbdevops'), ('ng-manager', 'scm'),
                 ('outside', 'delegate-service')):
        assert calls[pair], (pair, calls)
    assert {e['execution'] for e in seen if e['from'] != 'outside'} == {seen[1]['execution']}
    assert calls['outside', 'delegate-service'] == 2, 'fetched once, answered once'


def the_work_was_done(world, actors, answer, key, repos):
    assert answer['engine']['lines'] == len(answer['engine']['written']) > 2
    assert answer['engine']['outcomes'].keys() >= {'open', 'lines', 'close'}
    assert world.sql("select count(*) from orders where via = '%s'" % key) == '1'
    assert 'rows 1\n' in answer['engine']['written']
    assert {(e['server'], e['status']) for e in repos} >= {('git', 200), ('registry', 200)}
    assert {e['from'] for e in repos} == {INSIDE}, 'all came from the boundary'
    assert actors.engine.event('execute')['peer'].startswith('ipv4:10.21.0.1:'), 'by the gate'
    assert actors.step.event('execute')['peer'].startswith('ipv4:10.21.0.'), 'among the pods'


def the_logs_arrived(world, answer, key, route, terminated=True):
    state = world.control('GET', '/state?lines=1')
    engine, delegate = state['records']['acct/' + key], state['records']['acct/' + key + '/delegate']
    assert engine['lines'] == answer['engine']['written']
    assert delegate['lines'] == [name + ': done\n' for name in ('git', 'image', 'engine')]
    blob = state['blobs']['acct/' + key]
    assert blob['via'] == ('put-object' if route == 'googleapis' else 'blob'), blob
    status, text = world.http('internet', world.control_port, 'GET',
                              '/blob-bytes?inflate=1&name=' + ('acct/' + key).replace('/', '%2F').replace(':', '%3A'))
    assert [json.loads(line)['out'] for line in text.splitlines()] == answer['engine']['written']
    assert 'acct/' + key + '/delegate' in state['blobs'], 'closed with a snapshot'
    assert 'acct/' + key not in state['streams'] and not state['errors']
    # lite-engine shows its token to the bucket (HP 1.9): in a tunnel nobody can take it away.
    leaks = [x for x in state['store']['leaks'] if key.replace(':', '%3A') in x['target']]
    assert bool(leaks) == (route == 'googleapis' and not terminated)


def the_gate_saw_it(world, gate, before, way):
    """The ledger balances, and each thing that passed left its entry, with where it led."""
    assert gate.ledger()['spooled'] == 0
    entries = world.audit(gate)[before:]
    assert all(e['verdict'] == 'allow' for e in entries), [e for e in entries if e['verdict'] != 'allow']
    assert ('forward', 'forward:orders') in {(e['kind'], e['rule']) for e in entries}
    opened = [e for e in entries if e['kind'] == 'intercept']
    assert {e['server_name'] for e in opened} == ({'app.harness.io'} if way != 'upstream' else set())
    assert ('grpc', 'grpc:engine') in {(e['kind'], e['rule']) for e in entries}
    led = {e['asked']: e['dialled'] for e in entries if e.get('dialled')}
    for name in ('git.forge.test', 'registry.forge.test'):
        assert led[name + ':443'] == PUBLIC[name] + ':443'
    assert led['db.corp.test:5432'] == DATABASE + ':5432'


# --- each path by itself -------------------------------------------------------------------------------

@pytest.mark.parametrize('path,service', [
    ('/gateway/ng/api/projects', 'gateway'), ('/ng/api/user/currentUser', 'ng-core'),
    ('/pipeline-service/api/x', 'pipeline'), ('/ng-manager/api/x', 'ng-manager'),
    ('/dbdevops/v1/x', 'dbdevops'), ('/scm/x', 'scm')])
def test_service_of_the_platform(world, gate, actors, path, service):
    """What one Harness service calls by name another may be asked from outside, too: the path is kept."""
    world.control('POST', '/forget', {})
    status, body = actors.ui('GET', path + '?q=%2Fa%20b&c=+')
    assert (status, json.loads(body)['service']) == (200, service)
    entry = world.control('GET', '/seen')[0]
    assert (entry['to'], entry['target']) == (service, path + '?q=%2Fa%20b&c=+')


def test_log_service_healthz(world, gate, actors):
    assert actors.ui('GET', '/log-service/healthz')[0] == 200


def test_token_of_the_log_service(world, gate, actors):
    """Not a call about a stream: it is relayed."""
    status, body = actors.ui('GET', '/log-service/token?accountID=acct')
    assert status == 200 and len(body) == 16


def test_older_websocket_path(world, gate, actors):
    """One document of Harness has the delegate's socket at /delegate-service/."""
    assert actors.ui('GET', '/delegate-service/acct', '--http1.1')[0] == 400, 'answered by the far side: no upgrade'


def test_certificates(world, gate, actors):
    """What is terminated shows a certificate of the company's, what passes through shows its own."""
    spec = actors.spec['build']
    issuer = actors.delegate.event('connected')['issuer']
    assert 'corporate CA' in issuer
    command = ['openssl', 's_client', '-verify_return_error', '-CAfile', world.outside.ca, '-servername', 'git.forge.test']
    if spec['other_proxy']:
        command += ['-proxy', spec['other_proxy'].removeprefix('http://')]
    done = world.run('build', *command, '-connect', 'git.forge.test:443')
    assert 'issuer=CN = internet CA' in done.stdout and 'Verify return code: 0' in done.stdout, done.stdout + done.stderr


# --- CONNECT by itself (HP §7 item 44) -------------------------------------------------------------------

def proxy_answer(world, request):
    """What the proxy says to a request's head, and what follows it until the end."""
    s = inside(world.ns('build'), lambda: socket.create_connection((WIRES['build'] + '.1', 3128), 10))
    with s:
        s.sendall(request)
        got = b''
        while True:
            piece = s.recv(65536)
            if not piece:
                return got
            got += piece
            if got.startswith(b'HTTP/1.1 200') and b'\r\n\r\n' in got:
                return got


@pytest.mark.parametrize('authority', ['app.harness.io:443', 'vanity.harness.io:8443', 'APP.Harness.IO.:443'])
def test_item_44_connect_without_credentials(world, gate, authority):
    """443 and 8443, and nothing is asked of the client."""
    got = proxy_answer(world, ('CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n' % (authority, authority)).encode())
    head, _, rest = got.partition(b'\r\n\r\n')
    assert head.startswith(b'HTTP/1.1 200') and rest == b''
    assert b'content-length' not in head.lower() and b'transfer-encoding' not in head.lower()


@pytest.mark.parametrize('authority', ['unlisted.forge.test:443', 'app.harness.io:22', 'app.harness.io.forge.test:443',
                                       '10.22.0.5:5432', '169.254.169.254:80', '127.0.0.1:9464', '52.1.1.2:3128'])
def test_item_44_other_destinations_are_refused(world, gate, authority):
    got = proxy_answer(world, ('CONNECT %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n'
                               % (authority, authority)).encode())
    head, _, body = got.partition(b'\r\n\r\n')
    assert head.startswith(b'HTTP/1.1 403'), got
    assert b'<' not in body and b'html' not in head.lower() and len(body) < 200
    assert b'proxy-authenticate' not in head.lower()


def test_item_44_and_45_client_certificate_through_a_tunnel(world, gate):
    """With a tunnel nothing changes for mTLS: the delegate's certificate reaches Harness (HP 4.6)."""
    cert, key = world.corp.issue('delegate', client=True)
    spec = reach(world, 'proxy')['build']
    command = ['curl', '-sS', '--max-time', '10', '--cacert', spec['ca'], '-x', spec['proxy']]
    url = 'https://vanity.harness.io:8443/ng/api/x'
    done = world.run('build', *command, '--cert', cert, '--key', key, url)
    assert json.loads(done.stdout)['service'] == 'ng-core', done
    assert world.run('build', *command, url).returncode != 0, 'without one: refused by the far side'


# --- there is no other way ---------------------------------------------------------------------------------

@pytest.mark.parametrize('network,address,port', [
    ('build', PUBLIC['app.harness.io'], 443), ('pods', PUBLIC['app.harness.io'], 443),
    ('pods', PUBLIC['storage.googleapis.com'], 443), ('build', PUBLIC['git.forge.test'], 443),
    ('build', ENGINE, 20001), ('build', STEP, 20002), ('pods', DATABASE, 5432), ('data', PUBLIC['app.harness.io'], 443),
    ('internet', '10.20.0.2', 22), ('internet', DATABASE, 5432)])
def test_no_way_around_the_boundary(world, gate, network, address, port):
    assert not reaches(world.ns(network), address, port)


def test_the_boundary_itself_reaches_everything(world):
    """Or the test above would say nothing."""
    for address, port in ((PUBLIC['app.harness.io'], 443), (PUBLIC['storage.googleapis.com'], 443),
                          (PUBLIC['git.forge.test'], 443), (DATABASE, 5432)):
        assert reaches(world.ns('boundary'), address, port), (address, port)


def test_names_of_the_internet_are_not_known_inside(world, gate):
    for network in ('build', 'pods'):
        world.resolver(network, WIRES[network] + '.53')
        assert world.run(network, 'getent', 'ahostsv4', 'app.harness.io').returncode == 2
        assert world.run(network, 'getent', 'ahostsv4', GATE).stdout.startswith(WIRES[network] + '.1 ')


# --- what must stay in -----------------------------------------------------------------------------------------

def test_nothing_planted_is_anywhere(world, gate):
    """The last of the runs above has gone through: its task carried a secret and a registry's credential."""
    assert any(e['authorization'] == 'Basic ' + AUTH for e in world.repos_log()), 'it was used'
    assert world.sql('select count(*) from orders') > '0', 'there was a run'
    places = {'log': gate.log().encode(), 'audit': (gate.directory / 'audit').read_bytes()}
    for path in ('/metrics', '/', '/status', '/status.json', '/streams'):
        places[path] = gate.get(path)[1].encode()
    for file in Path(gate.options['spool']['directory']).rglob('*'):
        if file.is_file():
            places[str(file)] = file.read_bytes()
    assert len(places['audit']) > 1000 and len(places['/metrics']) > 1000 and len(places) > 6
    for word in PLANTED:
        forms = {word, base64.b64encode(word.encode()).decode().rstrip('=')}
        for name, data in places.items():
            assert not [f for f in forms if f.encode() in data], (word[:12], name)
    log = json.dumps(world.control('GET', '/state?lines=1')['records'])
    assert 'psql with password **************' in log and SECRET not in log


def test_audit_entries_have_no_query(world, gate):
    entries = world.audit(gate)
    assert entries and not [e for e in entries if '?' in e.get('path', '')]
    assert not re.search(r'token=|X-Amz-Signature|sequenceNum', json.dumps(entries))
