"""Each flow denied in turn: what `tailrace check` foretells, and that this, and nothing else, comes true.

Harness's services share one name, so they go together: a gate can take away a host, never one of the
communications with it. What check says names each flow that goes with the host."""
import contextlib
import re

import pytest
from test_picture import ROUTES, Actors, execute, payload, the_logs_arrived, the_services_talked
from world import wait_for

HARNESS_FLOWS = {'delegate-wss', 'delegate-manager', 'log-service', 'ui-gateway', 'ng-manager', 'pipeline-service',
                 'ti-service', 'dbdevops'}
KEY = 'accountId:acct/pipelineId:demo/runSequence:2/denied:'


def deny(*hosts):
    return {'not-this': {'action': 'deny', 'hosts': list(hosts)}}


@contextlib.contextmanager
def running(world, name, way, **options):
    """(gate, actors, what check said) with that configuration; all ended afterwards."""
    gate = world.gateway('denied-' + name, **options)
    actors = None
    try:
        said = gate.command('check')
        actors = Actors(world, way)
        yield gate, actors, said
    finally:
        if actors:
            actors.close()
        gate.close()


def broken(said):
    """{flow: destination} of what check foretells."""
    return {flow: where for flow, where in re.findall(r'flow (\S+): .*? to (\S+) is denied by rule not-this', said.stdout)}


def refusals(world, gate):
    return [(e['asked'], e['rule']) for e in world.audit(gate) if e['event'] == 'deny']


def curl(world, actors, url):
    spec = actors.spec['build']
    command = ['curl', '-sS', '--max-time', '10', '--cacert', spec['ca'], '-o', '/dev/null', '-w', '%{http_code} %{http_connect}']
    if spec['other_proxy']:
        command += ['-x', spec['other_proxy']]
    return world.run('build', *command, url)


# No interception here: the proxy's policy decides on the tunnels.
PLAIN = {'intercept': {}, 'listen': {'sni': None}}


@pytest.mark.parametrize('route', ROUTES)
def test_nothing_denied(world, route):
    """Or what follows would say nothing. All goes by tunnels that nobody looks into."""
    with running(world, 'nothing-' + route, 'proxy', **PLAIN) as (gate, actors, said):
        assert (said.returncode, ': good\n' in said.stdout, broken(said)) == (0, True, {}), said
        answer, state, seen = execute(world, actors, payload(KEY + 'nothing' + route, route))
        assert state == 'SUCCESS', answer
        the_services_talked(seen)
        the_logs_arrived(world, answer, KEY + 'nothing' + route, route, terminated=False)
        assert refusals(world, gate) == []
        assert gate.ledger()['accepted'] == 0, 'no log was looked into'


def test_harness_denied(world):
    """Delegate, logs and UI are gone; git and images would work."""
    with running(world, 'harness', 'proxy', rules=deny('app.harness.io'), **PLAIN) as (gate, actors, said):
        assert said.returncode == 1 and 'what every Harness deployment needs' in said.stderr
        assert broken(said) == dict.fromkeys(HARNESS_FLOWS, 'app.harness.io:443')
        world.control('POST', '/forget', {})
        assert '403' in actors.delegate.event('error')['error']
        done = curl(world, actors, 'https://app.harness.io/gateway/x')
        assert done.returncode == 56 and done.stdout == '000 403', done
        assert world.control('GET', '/seen') == []
        assert set(refusals(world, gate)) == {('app.harness.io:443', 'not-this')}
        assert gate.metric('denied_total', rule='not-this') == 2
        assert curl(world, actors, 'https://git.forge.test/orders.git/HEAD').stdout == '200 200'


@pytest.mark.parametrize('flow,host,lost,kept', [
    ('git', 'git.forge.test', 'git', 'image'), ('artifacts', 'registry.forge.test', 'image', 'git')])
@pytest.mark.parametrize('way', ['proxy', 'dns', 'upstream'])
def test_git_and_artifacts_denied(world, way, flow, host, lost, kept):
    """Only the admin knows where these are: check compares the rules with one another."""
    with running(world, '%s-%s' % (flow, way), way, rules=deny(host)) as (gate, actors, said):
        assert said.returncode == 0
        assert 'warning: egress.allow: %s:443 is denied by rule not-this' % host in said.stdout
        assert broken(said) == {}
        answer, state, _ = execute(world, actors, payload(KEY + flow + way, 'harness'))
        assert state == 'FAILED' and answer[lost] == 'FAILED' and answer[kept] != 'FAILED', answer
        assert answer['engine']['status'] == 'SUCCESS'
        assert set(refusals(world, gate)) == {(host + ':443', 'not-this')}
        assert not [e for e in world.audit(gate) if e['asked'] == host + ':443' and e['verdict'] == 'allow']


def test_bucket_denied(world):
    """Steps that upload by signed link fail; with Upload Logs via Harness none does."""
    with running(world, 'bucket', 'proxy', rules=deny('storage.googleapis.com'), **PLAIN) as (gate, actors, said):
        assert said.returncode == 0 and broken(said) == {'log-upload': 'storage.googleapis.com:443'}
        answer, state, _ = execute(world, actors, payload(KEY + 'bucket', 'googleapis', skip=['git', 'image'], speed=20))
        assert state == 'FAILED' and 'upload' in answer['engine_error'], answer
        assert {r for r in refusals(world, gate)} == {('storage.googleapis.com:443', 'not-this')}
        answer, state, _ = execute(world, actors, payload(KEY + 'bucket2', 'harness', skip=['git', 'image']))
        assert state == 'SUCCESS', answer


@pytest.mark.parametrize('flow,host', [('ui-static', 'static.harness.io'), ('delegate-mtls', 'account.agent.harness.io'),
                                       ('delegate-logging', 'logging.googleapis.com')])
def test_a_host_of_the_profile_denied(world, flow, host):
    with running(world, flow, 'proxy', rules=deny(host), **PLAIN) as (gate, actors, said):
        assert said.returncode == 0 and broken(said) == {flow: host + ':443'}
        assert curl(world, actors, 'https://%s/' % host).stdout == '000 403'
        assert refusals(world, gate) == [(host + ':443', 'not-this')]
        actors.delegate.event('connected')


@pytest.mark.parametrize('listener,error', [('engine', 'engine'), ('orders', 'psql')])
def test_a_listener_between_networks_taken_away(world, listener, error):
    """Delegate to lite engine, step to database: the admin's own listeners, which no profile knows. Without
    them there is no way, and nothing else suffers."""
    with running(world, listener, 'upstream', listen={listener: None}) as (gate, actors, said):
        assert said.returncode == 0 and broken(said) == {}
        answer, state, _ = execute(world, actors, payload(KEY + listener, 'harness', patience=4))
        assert state == 'FAILED' and answer['git'] != 'FAILED' and answer['image'] != 'FAILED', answer
        assert answer['engine'] == 'FAILED'
        assert world.sql("select count(*) from orders where via = '%s'" % (KEY + listener)) == '0'


def test_what_nobody_allowed_is_denied_by_default(world):
    with running(world, 'default', 'proxy', **PLAIN) as (gate, actors, said):
        assert said.returncode == 0 and ': good\n' in said.stdout, said
        assert curl(world, actors, 'https://unlisted.forge.test/').stdout == '000 403'
        assert refusals(world, gate) == [('unlisted.forge.test:443', 'default')]
        done = gate.command('check', '--explain', 'unlisted.forge.test:443', '--from', '10.20.0.2')
        assert done.stdout.startswith('verdict=deny rule=default reason='), done
        done = gate.command('check', '--explain', 'git.forge.test:443')
        assert done.stdout.startswith('verdict=allow rule=egress.allow reason=') and 'addresses=140.82.121.3' in done.stdout


def test_a_gate_that_only_reports_breaks_nothing(world):
    with running(world, 'report', 'proxy', rules=deny('git.forge.test'), egress={'mode': 'report'},
                 **PLAIN) as (gate, actors, said):
        assert 'would be denied by rule not-this' in said.stdout
        answer, state, _ = execute(world, actors, payload(KEY + 'report', 'harness', skip=['image', 'engine']))
        assert state == 'SUCCESS', answer
        wait_for(lambda: [e for e in world.audit(gate) if e['verdict'] == 'would-deny' and e['rule'] == 'not-this'],
                 what='an entry')
        assert gate.metric('denied_total', rule='not-this') >= 0
