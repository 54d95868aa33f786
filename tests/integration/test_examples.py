"""The configurations in conf/: each is good as it is, is installed, and is spoken of where people look for it."""
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from gateway import BINARY
from standin.certs import CA

pytestmark = pytest.mark.once
TOP = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(p.name for p in (TOP / 'conf').glob('*.yaml'))
WAYS = {'minimal': ['upstream'], 'upstream': ['upstream'], 'proxy': ['proxy'], 'dns-override': ['sni'], 'forward': ['database', 'lite-engine'],
        'edge': ['upstream'], 'hub': ['upstream', 'edges'], 'mtls': ['upstream', 'pods'], 'parent-proxy': ['upstream', 'proxy']}


@pytest.fixture(scope='module')
def etc(tmp_path_factory):
    """A directory with the examples and all files that they name."""
    here = tmp_path_factory.mktemp('etc')
    (here / 'tls').mkdir()
    ca = CA(here)
    cert, cert_key = ca.issue('tailrace.corp.example')
    for name in EXAMPLES:
        shutil.copy(TOP / 'conf' / name, here)
        for file in re.findall(r'tls/[\w.-]+', (here / name).read_text()):
            source = {'intercept.pem': ca.ca, 'intercept.key': ca.ca_key}.get(file[4:]) \
                or (cert_key if file.endswith('.key') else ca.ca if file.endswith('ca.pem') else cert)
            shutil.copy(source, here / file)
    (here / 'parent.secret').touch(0o600)
    (here / 'parent.secret').write_text('user:password\n')
    return here


def check(etc, name, *args):
    env = {k: v for k, v in os.environ.items() if k != 'SSL_CERT_FILE'}
    return subprocess.run([BINARY, 'check', '-c', str(etc / name), *args], capture_output=True, text=True, timeout=30, env=env)


@pytest.mark.parametrize('name', EXAMPLES)
def test_is_good(etc, name):
    done = check(etc, name)
    assert (done.returncode, done.stderr) == (0, '')
    assert f'{etc}/{name}: good\n' in done.stdout
    assert 'warning' not in done.stdout and 'is denied' not in done.stdout


@pytest.mark.parametrize('name', WAYS)
def test_says_what_to_set_for_each_listener(etc, name):
    out = check(etc, name + '.yaml').stdout
    assert re.findall(r'^listen\.([\w-]+): ', out, re.M) == WAYS[name]
    values = check(etc, name + '.yaml', '--harness-side', 'yaml', '--address', 'tailrace.corp.example')
    assert values.returncode == 0 and 'GATEWAY' not in values.stdout
    loaded = yaml.safe_load(values.stdout) or {}
    assert ('managerEndpoint' in loaded) == (name != 'forward')
    assert ('proxyHost' in loaded) == ('proxy' in name)


def test_every_example_has_a_way():
    assert {name.removesuffix('.yaml') for name in EXAMPLES} == {*WAYS, 'tailrace'}


@pytest.mark.parametrize('name', EXAMPLES)
def test_is_installed_and_named(name):
    assert f'conf/{name} ' in (TOP / 'conf/Makefile.inc').read_text().replace('\n', ' \n')
    assert f'({name})' in (TOP / 'conf/README.md').read_text()


@pytest.mark.parametrize('name', EXAMPLES)
def test_each_section_has_its_why(name):
    """A comment stands in front of the file, and in or in front of each section but the plainest."""
    text = (TOP / 'conf' / name).read_text()
    assert text.startswith('# ')
    if name in ('minimal.yaml', 'tailrace.yaml'):
        return
    for section in re.split(r'^(?=[a-z])', text, flags=re.M)[1:]:
        before = text[:text.index(section)].rstrip('\n').rsplit('\n', 1)[-1]
        assert '#' in section or before.startswith('#'), section
