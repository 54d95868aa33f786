"""The whole picture: one execution of a pipeline, from the browser's click to the last log, through
tailrace as the only way between the networks; in each of the ways it can be reached, by both routes of
finished logs. docs/flows.md names these tests."""
import base64
import collections
import json
import re
import zlib
from pathlib import Path

import pytest
from world import DATABASE, ENGINE, GATE, PUBLIC, STEP, WIRES, reaches, wait_for

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
    responses = wait_for(lambda: world.control('GET', '/responses'), 60, what="the delegate's answer")
    status, body = actors.ui('GET', '/gateway/pipeline/api/pipelines/execution/%s?accountIdentifier=acct' % execution)
    return responses[0], json.loads(body)['status'], world.control('GET', '/seen')


@pytest.fixture(scope='module')
def gate(world):
    made = world.gateway()
    yield made
    made.close()


@pytest.fixture(params=WAYS)
def actors(world, gate, request):
    made = Actors(world, request.param)
    yield made
    made.close()


# --- one execution -----------------------------------------------------------------------------------

@pytest.mark.parametrize('route', ROUTES)
def test_execution(world, gate, actors, route):
    key = 'accountId:acct/pipelineId:demo/runSequence:1/way:%s/route:%s' % (actors.way, route)
    answer, state, seen = execute(world, actors, payload(key, route))
    assert answer['status'] == 'SUCCESS' and state == 'SUCCESS', answer
    the_services_talked(seen)
    the_work_was_done(world, actors, answer, key)
    gate.wait_delivered()
    the_logs_arrived(world, answer, key, route)
    the_gate_saw_it(world, gate, actors, route)


def the_services_talked(seen):
    """Who called whom at Harness, and in which order."""
    calls = collections.Counter((e['from'], e['to']) for e in seen)
    for pair in (('outside', 'gateway'), ('gateway', 'ng-core'), ('gateway', 'log-service'), ('gateway', 'pipeline'),
                 ('pipeline', 'ng-manager'), ('ng-manager', 'dbdevops'), ('ng-manager', 'scm'),
                 ('outside', 'delegate-service')):
        assert calls[pair], (pair, calls)
    assert {e['execution'] for e in seen if e['from'] != 'outside'} == {seen[1]['execution']}
    assert calls['outside', 'delegate-service'] == 2, 'fetched once, answered once'


def the_work_was_done(world, actors, answer, key):
    assert answer['engine']['lines'] == len(answer['engine']['written']) > 2
    assert answer['engine']['outcomes'].keys() >= {'open', 'lines', 'close'}
    assert world.sql("select count(*) from orders where via = '%s'" % key) == '1'
    assert 'rows 1\n' in answer['engine']['written']
    log = [(e['server'], e['status']) for e in world.repos_log()]
    assert ('git', 200) in log and ('registry', 200) in log
    assert {e['from'] for e in world.repos_log()} == {'52.1.1.2'}, 'all came from the boundary'
    assert actors.engine.event('execute')['peer'].startswith('ipv4:10.21.0.1:'), 'by the gate'
    assert actors.step.event('execute')['peer'].startswith('ipv4:10.21.0.'), 'inside the pods'


def the_logs_arrived(world, answer, key, route):
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
    assert 'acct/' + key not in state['streams'] and not state['store']['leaks'] and not state['errors']


def the_gate_saw_it(world, gate, actors, route):
    """The ledger balances, and each thing that passed left its entry."""
    assert gate.ledger()['spooled'] == 0
    entries = world.audit(gate)
    rules = {(e['kind'], e['rule']) for e in entries if e['verdict'] == 'allow'}
    assert ('forward', 'forward:orders') in rules and ('grpc', 'grpc:engine') in rules
    assert {e['asked'] for e in entries} >= {'git.forge.test:443', 'registry.forge.test:443'}
    assert all(e['verdict'] == 'allow' for e in entries), [e for e in entries if e['verdict'] != 'allow']
