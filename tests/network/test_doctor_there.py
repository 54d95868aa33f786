"""`tailrace doctor` at the boundary, beside the gateway: a whole deployment that works, and real firewalls in its way."""
import contextlib
import json

import pytest
from world import PUBLIC

BUCKET = 'storage.googleapis.com'


@pytest.fixture(scope='module')
def gate(world):
    # No lite engine runs here: a listener that leads to one would lead nowhere.
    made = world.gateway('doctor', listen={'engine': None})
    yield made
    made.close()


@pytest.fixture
def token(tmp_path):
    path = tmp_path / 'token'
    path.touch(0o600)
    path.write_text('planted-log-token')
    return '--token', str(path), '--account', 'acct'


def doctor(gate, *args):
    done = gate.command('doctor', '--json', '--timeout', '1', *args)
    assert 'planted-log-token' not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)['findings']


def broken(findings):
    return {(f['flow'], f['cause']) for f in findings if f['verdict'] == 'fail'}


@contextlib.contextmanager
def on_the_way_back(world, name, what):
    """Packets of that host are not let through."""
    rule = 'from', PUBLIC[name], what, 'priority', '10'
    world.ip('rule', 'add', *rule, at='internet')
    try:
        yield
    finally:
        world.ip('rule', 'del', *rule, at='internet')


def test_doctor_in_the_whole_picture(world, gate, token):
    status, findings = doctor(gate, *token)
    assert broken(findings) == set() and status == 0, findings
    fine = {(f['flow'], f['step']) for f in findings if f['verdict'] == 'ok'}
    assert {('gateway', 'ready'), ('log-service', 'http'), ('delegate-wss', 'websocket'), ('log-stream', 'log'),
            ('log-upload', 'link'), ('log-upload', 'put'), ('harness', 'alpn'), ('listen', 'dial'), ('egress', 'dial'),
            ('spool', 'room'), ('policy', 'flows')} <= fine


def test_doctor_a_firewall_drops_the_bucket(world, gate, token):
    with on_the_way_back(world, BUCKET, 'blackhole'):
        status, findings = doctor(gate, *token)
    assert broken(findings) == {('log-upload', 'firewall_drops')} and status == 1
    rules = [f['do'] for f in findings if f['cause'] == 'firewall_drops']
    assert all(rule.startswith(f'allow TCP from 52.1.1.2 to {BUCKET}:443') for rule in rules), rules


def test_doctor_no_way_to_harness(world, gate):
    world.ip('route', 'add', 'unreachable', PUBLIC['app.harness.io'], at='boundary')
    try:
        status, findings = doctor(gate)
    finally:
        world.ip('route', 'del', 'unreachable', PUBLIC['app.harness.io'], at='boundary')
    assert ('harness', 'no_route') in broken(findings) and status == 1
