"""`tailrace check --harness-side`: what it prints is enough for a delegate and a lite engine to get their logs through."""
import asyncio
import json
import subprocess

import pytest
import yaml
from gateway import BINARY, free_port, key
from inside import HARNESS, Names
from standin.certs import CA
from standin.clients import JavaDelegateClient, LegacyClient
from standin.harness import Harness
from standin.transport import Body

LINES = ['one\n', 'two\n', 'three\n']


def side(gw, form, *args):
    done = subprocess.run([BINARY, 'check', '-c', str(gw.config_path), '--harness-side', form, *args],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def environment(gw, *args):
    """As `docker run --env-file` reads it."""
    lines = side(gw, 'env', *args)[0].splitlines()
    return dict(line.split('=', 1) for line in lines if line and not line.startswith('#'))


def proxy_of(env):
    return '{PROXY_SCHEME}://{PROXY_HOST}:{PROXY_PORT}'.format(**env) if 'PROXY_HOST' in env else None


async def work(env, ca, resolve, lite_url):
    """What a delegate does with this environment, and the lite engine of a pod that it starts."""
    how = dict(ca=ca, proxy=proxy_of(env), resolve=resolve)
    delegate = JavaDelegateClient(env['LOG_STREAMING_SERVICE_URL'], 'token', speed=10, hurry=1, **how)
    # The check at its start (HP 4.1).
    answer = await delegate.transport.request('GET', env['MANAGER_HOST_AND_PORT'] + '/api/account/acct/status', 'token', Body(), 10)
    assert answer.status == 200
    step = delegate.step('acct', key('delegate'))
    await step.open()
    for line in LINES:
        step.write(line)
    await step.close()
    engine = LegacyClient(lite_url, 'token', speed=10, hurry=1, **how)
    pod = engine.step('acct', key('pod'))
    await pod.run([line.rstrip() for line in LINES], 1000)
    assert pod.blob_ok and not pod.failed and not step.failed
    for client in (delegate, engine):
        client.close_connections()


def arrived(far, gw):
    """The delegate's lines, and the pod's finished log; its live lines may have been overtaken by that."""
    far.wait(lambda h: h.lines('acct', key('delegate')) == LINES, timeout=20)
    blob = far.wait(lambda h: h.blob('acct', key('pod')), timeout=20)
    assert [json.loads(row)['out'] for row in blob.splitlines()] == LINES
    gw.wait_delivered()
    assert gw.ledger()['accepted'] >= len(LINES) and gw.ledger('blobs')['delivered'] == 1


def test_upstream(far, gateway_at, tmp_path):
    ca = CA(tmp_path)
    cert, cert_key = ca.issue('127.0.0.1')
    gw = gateway_at(far.url, cert=cert, key=cert_key)
    gw.write_config(listen={'upstream': {'address': f'127.0.0.1:{gw.port}'}})
    env = environment(gw)
    assert env['MANAGER_HOST_AND_PORT'] == gw.url
    asyncio.run(work(env, ca.ca, None, env['MANAGER_HOST_AND_PORT'] + '/log-service'))
    arrived(far, gw)


@pytest.fixture
def world(tmp_path, gateway_at):
    """A Harness by its name, and a gateway that is its proxy and what DNS says it is."""
    (tmp_path / 'mint').mkdir()
    (tmp_path / 'origin').mkdir()
    mint, origin = CA(tmp_path / 'mint', 'mint'), CA(tmp_path / 'origin', 'origin')
    far = Harness(tls=origin.issue(HARNESS))
    names = Names({HARNESS: '127.0.0.1'})
    gw = gateway_at(
        f'https://{HARNESS}:{far.port}',
        listen={'proxy': {'address': f'127.0.0.1:{free_port()}'}, 'sni': {'address': f'127.0.0.1:{free_port()}', 'port': str(far.port)}},
        upstream={'ca': origin.ca, 'resolvers': [names.address]}, intercept={'ca': mint.ca, 'key': mint.ca_key},
        rules={'tests': {'hosts': [HARNESS], 'ports': [str(far.port)], 'addresses': ['127.0.0.0/8']}})
    yield gw, far, mint
    assert far.state(lines=False)['errors'] == []
    far.close()
    names.close()


@pytest.mark.parametrize('way', ['proxy', 'sni'])
def test_proxy_and_dns(world, way):
    """Both with the interception that the certificates are told of."""
    gw, far, mint = world
    env = environment(gw, '--listener', way)
    assert ('PROXY_HOST' in env) == (way == 'proxy')
    assert env['MANAGER_HOST_AND_PORT'] == f'https://{HARNESS}:{far.port}'
    assert 'DESTINATION_CA_PATH' in env
    resolve = {} if way == 'proxy' else {HARNESS: ('127.0.0.1', gw.ports['sni'])}
    asyncio.run(work(env, mint.ca, resolve, env['MANAGER_HOST_AND_PORT'] + '/log-service'))
    arrived(far, gw)
    if way == 'proxy':
        left_out = env['NO_PROXY'].split(',')
        assert '127.0.0.1' in left_out and '169.254.169.254' in left_out
        assert not any(HARNESS.endswith(item) for item in left_out)


def test_both_forms_say_the_same(world):
    gw = world[0]
    env = environment(gw, '--address', 'gw.corp.example', '--no-proxy', '10.96.0.1')
    text, err = side(gw, 'yaml', '--address', 'gw.corp.example', '--no-proxy', '10.96.0.1')
    values = yaml.safe_load(text)
    custom = {item['name']: item['value'] for item in values['custom_envs']}
    assert err.count('warning') == err.count('\n') or 'note: flow' in err
    assert values['managerEndpoint'] == env['MANAGER_HOST_AND_PORT']
    assert (values['proxyHost'], values['proxyPort'], values['noProxy']) == ('gw.corp.example', env['PROXY_PORT'], env['NO_PROXY'])
    assert '10.96.0.1' in env['NO_PROXY'].split(',') and 'gw.corp.example' in env['NO_PROXY'].split(',')
    assert values['destinationCaPath'] == env['DESTINATION_CA_PATH']
    assert values['delegateCustomCa'] == values['upgraderCustomCa'] == {'secretName': 'tailrace-ca'}
    assert custom['TI_SERVICE_URL'] == env['TI_SERVICE_URL']


def run(path, *args):
    done = subprocess.run([BINARY, 'check', '-c', str(path), *args], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


def test_only_that_on_standard_output(tmp_path):
    """Warnings and what is missing go to standard error; a configuration that is not good gives nothing."""
    path = tmp_path / 'tailrace.yaml'
    good = 'harness: { url: "https://app.harness.io" }\nlisten: { proxy: { address: "0.0.0.0:3128" } }\n'
    path.write_text(good)
    status, out, err = run(path, '--harness-side', 'env')
    assert status == 0 and all(line.startswith('#') or '=' in line for line in out.splitlines())
    assert 'note: flow git' in err and 'use --address NAME' in err and 'PROXY_HOST=GATEWAY\n' in out
    status, out, err = run(path, '--harness-side', 'env', '--address', 'gw.corp.example')
    assert status == 0 and 'GATEWAY' not in out and '--address' not in err
    path.write_text(good + 'rules: { no: { action: deny, hosts: [ app.harness.io ] } }\n')
    status, out, err = run(path, '--harness-side', 'env')
    assert (status, out) == (1, '') and 'what every Harness deployment needs' in err


@pytest.mark.parametrize('args', [('--harness-side', 'json'), ('--address', 'a:1'), ('--listener', 'none'), ('--no-proxy', '10.0.0.0/8'),
                                  ('--harness-side', 'env', '--dump-config'), ('--address', 'x', '--explain', 'a:1')])
def test_options_that_make_no_sense(tmp_path, args):
    path = tmp_path / 'tailrace.yaml'
    path.write_text('harness: { url: "https://app.harness.io" }\nlisten: { upstream: { address: "0.0.0.0:8443" } }\n')
    status, out, err = run(path, *args)
    assert (status, out) == (2, '') and err


def test_a_certificate_that_has_expired_is_told(tmp_path):
    ca = CA(tmp_path, 'corp CA')
    path = tmp_path / 'tailrace.yaml'
    for expired in (True, False):
        cert, secret = ca.issue('gw.corp.example', expired=expired)
        path.write_text('harness: { url: "https://app.harness.io" }\n'
                        f'listen: {{ upstream: {{ address: "0.0.0.0:8443", certificate: "{cert}", key: "{secret}" }} }}\n')
        status, out, _ = run(path)
        assert status == 0 and (f'note: {cert} has expired' in out) == expired
