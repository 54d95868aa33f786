"""The Helm chart and the plain manifests: values against their schema, and whether what they render to holds together, down
to a configuration that the program takes. Where there is no helm, the renderings that are kept stand in for it."""
import copy
import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
import render
import yaml
from gateway import BINARY
from standin.certs import CA
from tree import TOP

CHART = render.CHART
jsonschema = pytest.importorskip('jsonschema')
values = yaml.safe_load((CHART / 'values.yaml').read_text())
full = yaml.safe_load((render.HERE / 'values-full.yaml').read_text())
schema = json.loads((CHART / 'values.schema.json').read_text())
RENDERED = (render.FULL, render.PLAIN, render.CONFINED, render.NOTES)


def merged(base, over):
    out = copy.deepcopy(base)
    for name, item in over.items():
        out[name] = merged(out[name], item) if isinstance(item, dict) and isinstance(out.get(name), dict) else item
    return out


def documents(path):
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


def the(kind, path, name=None):
    found = [d for d in documents(path) if d['kind'] == kind and name in (None, d['metadata']['name'])]
    assert len(found) == 1, (kind, name, len(found))
    return found[0]


def test_values_fit_their_schema():
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    jsonschema.validate(merged(values, full), schema)


def test_the_schema_knows_every_value():
    def names(v, s, at=''):
        for name, item in v.items():
            assert name in s['properties'], at + name
            if isinstance(item, dict) and 'properties' in s['properties'][name]:
                names(item, s['properties'][name], f'{at}{name}.')
    names(values, schema)


@pytest.mark.parametrize('wrong', [
    {'replica': 2}, {'replicas': 0}, {'harness': {'url': 'app.harness.io'}}, {'harness': {'uploadLogs': 'bucket'}},
    {'tls': {'secret': 'x'}}, {'listeners': {'upstream': {'port': 443}}}, {'spoolKey': {'key': 'short'}},
    {'parent': {'url': 'http://user:password@proxy:3128'}}, {'parent': {'credentials': {'credentials': 'no colon'}}},
    {'imagePullSecrets': ['registry']}, {'spool': {'limit': '10Gi'}}, {'persistence': {'size': '10GiB'}},
    {'moreListeners': {'admin': {'port': 9000}}}, {'moreListeners': {'sni': {'port': 443}}},
    {'moreListeners': {'a_b': {'port': 4430}}}, {'moreListeners': {'sni': {'port': 4430, 'options': {'address': '0.0.0.0:1'}}}},
    {'users': {'admin': {'users': 'no colon'}}}, {'clientCa': {'secretName': 'x'}}, {'interceptCa': {'pem': 'x'}},
    {'networkPolicy': {'confine': {'namespaces': 'builds'}}}, {'image': {'pullPolicy': 'Sometimes'}},
], ids=json.dumps)
def test_values_that_are_wrong_are_refused(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(values, wrong), schema)


def test_every_value_is_used():
    text = ''.join(p.read_text() for p in (CHART / 'templates').iterdir())
    for name, item in values.items():
        assert re.search(rf'\.Values\.{name}\b', text), name
        if isinstance(item, dict) and schema['properties'][name].get('additionalProperties') is False:
            for inner in item:
                assert re.search(rf'\.{inner}\b', text), f'{name}.{inner}'


@pytest.mark.parametrize('path', RENDERED, ids=lambda p: p.name)
def test_renderings_are_of_this_chart(path):
    """Else: tests/packages/render.py, with helm."""
    assert f'sources: {render.digest(*render.sources(path))}\n' in path.read_text()
    if shutil.which('helm'):
        assert path.read_text() == render.rendered(path)


def test_helm_has_nothing_to_say():
    if not shutil.which('helm'):
        pytest.skip('helm is not installed')
    for more in ([], ['-f', str(render.HERE / 'values-full.yaml')]):
        done = subprocess.run(['helm', 'lint', '--strict', str(CHART), *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_alerts_and_dashboard_are_rendered_as_they_are():
    if not shutil.which('helm'):
        pytest.skip('helm is not installed')
    text = render.helm('--set', 'prometheusRule.enabled=true,dashboard.enabled=true',
                       '--show-only', 'templates/monitoring.yaml')
    made = {d['kind']: d for d in yaml.safe_load_all(text) if d}
    rule, dashboard = made['PrometheusRule'], made['ConfigMap']
    assert rule['spec'] == yaml.safe_load((CHART / 'files' / 'rules.yml').read_text())
    board = (CHART / 'files' / 'tailrace-dashboard.json').read_text()
    assert json.loads(dashboard['data']['tailrace.json']) == json.loads(board)


def test_the_chart_carries_the_alerts_and_the_dashboard():
    for name, original in (('rules.yml', 'prometheus'), ('tailrace-dashboard.json', 'grafana')):
        assert (CHART / 'files' / name).read_bytes() == (TOP / 'contrib' / original / name).read_bytes(), name


def test_versions_agree():
    version = re.search(r'AC_INIT\(\[tailrace\], \[([\d.]+)\]', (TOP / 'configure.ac').read_text()).group(1)
    chart = yaml.safe_load((CHART / 'Chart.yaml').read_text())
    assert chart['appVersion'] == version
    assert (TOP / 'debian' / 'changelog').read_text().startswith(f'tailrace ({version})')
    assert f'Version:        {version}\n' in (TOP / 'contrib' / 'rpm' / 'tailrace.spec').read_text()


@pytest.mark.parametrize('path', (render.FULL, render.PLAIN), ids=lambda p: p.name)
class TestRendered:
    def test_the_pod_may_do_little(self, path):
        pod = the('StatefulSet', path)['spec']['template']['spec']
        container, = pod['containers']
        assert container['securityContext'] == {'allowPrivilegeEscalation': False, 'readOnlyRootFilesystem': True,
                                                'capabilities': {'drop': ['ALL']}}
        assert pod['securityContext']['runAsNonRoot'] and pod['securityContext']['runAsUser'] > 1000
        assert pod['securityContext']['seccompProfile'] == {'type': 'RuntimeDefault'}
        assert pod['automountServiceAccountToken'] is False
        assert all(m['name'] == 'spool' or m['readOnly'] for m in container['volumeMounts'])
        assert pod['terminationGracePeriodSeconds'] > 60

    def test_volumes_names_and_ports_lead_somewhere(self, path):
        stateful = the('StatefulSet', path)
        pod = stateful['spec']['template']['spec']
        container, = pod['containers']
        claims = {c['metadata']['name'] for c in stateful['spec']['volumeClaimTemplates']}
        assert {m['name'] for m in container['volumeMounts']} == {v['name'] for v in pod['volumes']} | claims
        made = {(d['kind'], d['metadata']['name']) for d in documents(path)}
        for v in pod['volumes']:
            if 'configMap' in v:
                assert ('ConfigMap', v['configMap']['name']) in made
            else:
                name = v['secret']['secretName']
                assert ('Secret', name) in made or name in (full['tls']['secretName'], full['ticket']['secretName'],
                                                            full['users']['admin']['secretName'])
                assert v['secret']['defaultMode'] == 0o440
        ports = {p['name']: p['containerPort'] for p in container['ports']}
        for probe in ('startupProbe', 'livenessProbe', 'readinessProbe'):
            assert container[probe]['httpGet']['port'] in ports
        labels = stateful['spec']['template']['metadata']['labels']
        services = [d for d in documents(path) if d['kind'] == 'Service']
        for s in services:
            assert s['spec']['selector'].items() <= labels.items()
            assert all(p['targetPort'] in ports for p in s['spec']['ports'])
        assert stateful['spec']['serviceName'] in [s['metadata']['name'] for s in services]
        assert stateful['spec']['selector']['matchLabels'].items() <= labels.items()
        assert the('PodDisruptionBudget', path)['spec']['selector']['matchLabels'].items() <= labels.items()
        assert the('NetworkPolicy', path, 'tailrace')['spec']['podSelector']['matchLabels'].items() <= labels.items()
        assert pod['serviceAccountName'] == the('ServiceAccount', path)['metadata']['name']

    def test_its_clients_always_get_the_same_gateway(self, path):
        assert the('Service', path, 'tailrace')['spec']['sessionAffinity'] == 'ClientIP'

    def test_the_program_takes_the_configuration(self, path, tmp_path):
        """With files where the Secrets would be mounted, and nothing read from anywhere else."""
        done = in_the_pod(path, tmp_path, 'tailrace', 'check')
        assert done.returncode == 0, done.stdout + done.stderr
        config = yaml.safe_load(configuration(path))
        assert config['spool']['directory'].startswith('/var/lib/tailrace')
        mounts = {m['mountPath'] for m in
                  the('StatefulSet', path)['spec']['template']['spec']['containers'][0]['volumeMounts']}
        named = re.findall(r'(?<=: )/\S+$', configuration(path), re.M)
        for name in named:
            assert any(name.startswith(m + '/') for m in mounts), name
        for mount in mounts - {'/etc/tailrace'}:
            assert any(name.startswith(mount + '/') for name in named), mount

    def test_what_the_notes_tell_to_do_next_works(self, path, tmp_path):
        text = documents(render.NOTES)[(render.PLAIN, render.FULL).index(path)]['text']
        commands = [shlex.split(c) for c in re.findall(r'kubectl -n tailrace exec tailrace-0 -- (.*)', text)]
        assert [c[:2] for c in commands] == [['tailrace', 'check'], ['tailrace', 'doctor'], ['tailrace', 'check'],
                                             ['tailracectl', 'status']]
        side = in_the_pod(path, tmp_path, *commands[2])
        assert side.returncode == 0, side.stderr
        address = re.search(r'tailrace will be at (\S+)\n', text).group(1)
        assert yaml.safe_load(side.stdout)['managerEndpoint'] == address
        service = the('Service', path, 'tailrace')
        assert address.partition('://')[2] == 'tailrace.tailrace.svc:%d' % service['spec']['ports'][0]['port']
        admin = the('Service', path, 'tailrace-each')['spec']['ports'][0]['port']
        assert f'port-forward tailrace-0 {admin}\n' in text and f'http://127.0.0.1:{admin}/' in text


def configuration(path):
    return the('ConfigMap', path, 'tailrace')['data']['tailrace.yaml']


def in_the_pod(path, tmp_path, program, *args):
    """The program with the configuration, the environment and, elsewhere, the files that it has in the pod."""
    secrets = tmp_path / 'secrets'
    ca = CA(tmp_path)
    for directory, pair in (('tls', ca.issue('tailrace.tailrace.svc')), ('client', ca.issue('localhost')),
                            ('intercept', (ca.ca, ca.ca_key))):
        (secrets / directory).mkdir(parents=True)
        for source, target in zip(pair, ('tls.crt', 'tls.key')):
            shutil.copy(source, secrets / directory / target)
    users = next(d for d in documents(render.FULL) if d['metadata']['name'] == 'tailrace-users-proxy')['stringData']['users']
    for name, content in (('spool/spool.key', '00' * 32), ('ticket/ticket.key', 'k' * 32), ('parent/credentials', 'user:word'),
                          ('users-proxy/users', users), ('users-admin/users', users)):
        (secrets / name).parent.mkdir()
        (secrets / name).write_text(content)
    for f in secrets.rglob('*'):
        if f.is_file():
            f.chmod(0o440)
    text = configuration(path).replace('/run/secrets/tailrace', str(secrets))
    text = re.sub(r'/etc/tailrace-ca/\w+/ca.pem', ca.ca, text)
    (tmp_path / 'tailrace.yaml').write_text(text.replace('/var/lib/tailrace', str(tmp_path)))
    container, = the('StatefulSet', path)['spec']['template']['spec']['containers']
    env = dict({e['name']: e['value'].replace('/run/secrets/tailrace', str(secrets)) for e in container['env']},
               PATH=os.environ['PATH'])
    command, *rest = args
    return subprocess.run([BINARY.removesuffix('tailrace') + program, command, '-c', str(tmp_path / 'tailrace.yaml'), *rest],
                          capture_output=True, text=True, env=env, timeout=60)


def test_a_renewed_configuration_rolls_the_pods():
    digests = {the('StatefulSet', p)['spec']['template']['metadata']['annotations']['checksum/config']
               for p in (render.FULL, render.PLAIN)}
    assert len(digests) == 2


@pytest.mark.parametrize('path, namespace', [(render.FULL, 'builds'), (render.FULL, 'harness-delegate'),
                                             (render.CONFINED, 'builds')])
def test_confined_pods_have_one_way_out(path, namespace):
    policy, = [d for d in documents(path) if d['metadata'].get('namespace') == namespace]
    assert policy['spec']['podSelector'] in ({}, None) and policy['spec']['policyTypes'] == ['Egress']
    gateway = the('StatefulSet', render.PLAIN)['spec']['template']['metadata']['labels']
    for rule in policy['spec']['egress']:
        assert rule['to'], 'a rule without destinations is a way to everywhere'
        for peer in rule['to']:
            assert 'ipBlock' not in peer or peer['ipBlock']['cidr'].endswith('/32')
            assert peer.get('podSelector') is not None or 'ipBlock' in peer
    first = policy['spec']['egress'][0]
    more = {v['port'] for v in full['moreListeners'].values()} if path == render.FULL else set()
    assert first['to'][0]['podSelector']['matchLabels'].items() <= gateway.items()
    assert {p['port'] for p in first['ports']} == {8443, 3128} | more


def test_the_monitor_finds_the_port_of_each_gateway():
    monitor = the('ServiceMonitor', render.FULL)
    wanted = monitor['spec']['selector']['matchLabels'].items()
    found = [d for d in documents(render.FULL) if d['kind'] == 'Service' and wanted <= d['metadata']['labels'].items()]
    assert [s['metadata']['name'] for s in found] == ['tailrace-each'] and found[0]['spec']['clusterIP'] == 'None'
    assert {e['port'] for e in monitor['spec']['endpoints']} <= {p['name'] for p in found[0]['spec']['ports']}
    assert [e['path'] for e in monitor['spec']['endpoints']] == ['/metrics']


def test_inline_secrets_are_made_and_named_ones_are_not():
    made = {d['metadata']['name']: d for d in documents(render.FULL) if d['kind'] == 'Secret'}
    assert set(made) == {f'tailrace-{name}' for name in ('client', 'spool-key', 'parent', 'intercept', 'users-proxy')}
    assert made['tailrace-parent']['stringData']['credentials'] == 'user:password'
    assert the('StatefulSet', render.FULL)['spec']['template']['spec']['imagePullSecrets'] == [{'name': 'registry'}]
