"""`tailrace check`: the flows a policy would break, and --explain."""
import os
import socket
import subprocess

import pytest

from gateway import BINARY, to_yaml
from names import Names
from standin.certs import CA

PROXY = {'proxy': {'address': '127.0.0.1:0'}}


def run(directory, *args, **options):
    config = {'harness': {'url': 'https://app.harness.io'}, 'listen': PROXY}
    config.update(options)
    path = directory / 'tailrace.yaml'
    path.write_text(to_yaml(config))
    done = subprocess.run([BINARY, 'check', '-c', str(path), *args], capture_output=True, text=True, timeout=30)
    # What is to be set on the Harness side follows behind the verdict: test_harness_side.py.
    said = done.stdout.split('\nOn the Harness side ')[0]
    return done.returncode, said.replace(str(path), 'FILE'), done.stderr.replace(str(path), 'FILE')


@pytest.fixture
def names():
    server = Names({
        'app.harness.io': ['8.8.8.8', '2a00::1'],
        'inside.example': ['10.0.0.7'],
        'mixed.example': ['10.0.0.7', '8.8.4.4'],
        'meta.example': ['169.254.169.254'],
        'mapped.example': ['64:ff9b::a00:1'],
        'git.corp.example': ['10.2.3.4'],
    })
    yield server
    server.close()


def explain(directory, names, where, *args, **options):
    options.setdefault('upstream', {})
    options['upstream'] = {'resolvers': [names.address], **options['upstream']}
    status, out, err = run(directory, '--explain', where, *args, **options)
    assert status == 0, err
    return out.splitlines()


# ---- flows ----------------------------------------------------------------------------------------

UNKNOWN = [
    'note: flow git: delegate, build: only you know where to, and no rule and no egress.allow says so: '
    'repositories cannot be cloned',
    'note: flow artifacts: delegate, build: only you know where to, and no rule and no egress.allow says so: '
    'images and artifacts cannot be pulled or pushed',
]


def test_a_good_configuration_is_good(tmp_path):
    assert run(tmp_path, egress={'allow': ['github.com:443']}) == (0, 'FILE: good\n', '')
    assert run(tmp_path, listen={'upstream': {'address': '127.0.0.1:0'}}) == (0, 'FILE: good\n', '')


def test_flows_that_only_the_admin_knows_are_named(tmp_path):
    status, out, err = run(tmp_path)
    assert (status, err) == (0, '')
    assert out.splitlines() == [*UNKNOWN, 'FILE: good']


def test_a_required_flow_that_is_denied_is_an_error(tmp_path):
    status, out, err = run(tmp_path, egress={'allow': ['github.com']},
                           rules={'no-saas': {'action': 'deny', 'hosts': ['app.harness.io']}})
    assert status == 1
    assert err == 'FILE: its policy denies what every Harness deployment needs\n'
    lines = out.splitlines()
    assert lines[0] == ('error: flow delegate-wss: delegate to app.harness.io:443 is denied by rule no-saas '
                        '(denied by this rule): delegates show as disconnected and no task reaches them')
    assert [line.split(':')[0] for line in lines] == ['error'] * 3 + ['warning'] * 5
    assert any(line.startswith('warning: flow ui-gateway: browser to app.harness.io:443 ') for line in lines)


def test_without_the_profile_a_broken_flow_is_a_warning(tmp_path):
    status, out, err = run(tmp_path, egress={'profile': 'none', 'allow': ['github.com']})
    assert (status, err) == (0, '')
    lines = out.splitlines()
    assert lines[-1] == 'FILE: good'
    assert len(lines) == 13 and all(line.startswith('warning: flow ') for line in lines[:-1])
    assert 'by rule default (no rule allows it)' in lines[0]


def test_report_mode_says_would(tmp_path):
    status, out, _ = run(tmp_path, egress={'mode': 'report'},
                         rules={'no-ui': {'action': 'deny', 'hosts': ['static.harness.io']}})
    assert status == 0
    assert out == ('warning: flow ui-static: browser to static.harness.io:443 would be denied by rule no-ui '
                   '(denied by this rule): the UI stays blank\nFILE: good\n')


def test_googleapis_matters_unless_logs_go_through_harness(tmp_path):
    rules = {'no-google': {'action': 'deny', 'hosts': ['*.googleapis.com']}}
    _, out, _ = run(tmp_path, egress={'allow': ['github.com']}, rules=rules)
    assert 'warning: flow log-upload: delegate, lite-engine to storage.googleapis.com:443 is denied by rule ' \
           'no-google (denied by this rule): finished logs cannot be uploaded by signed link\n' in out
    assert run(tmp_path, egress={'allow': ['github.com']}, rules=rules,
               harness={'url': 'https://app.harness.io', 'upload-logs': 'harness'}) == (0, 'FILE: good\n', '')


def test_a_rule_that_never_comes_to_its_turn_is_named(tmp_path):
    _, out, _ = run(tmp_path, egress={'allow': ['registry.example:5000', '*.corp.example']}, rules={
        'no-git': {'action': 'deny', 'hosts': ['git.corp.example', 'registry.example']},
        'git': {'hosts': ['git.corp.example', 'github.com'], 'ports': ['22']},
    })
    assert out.splitlines() == [
        'warning: rules.git: git.corp.example:22 is denied by rule no-git (denied by this rule)',
        'warning: egress.allow: registry.example:5000 is denied by rule no-git (denied by this rule)',
        'FILE: good',
    ]


def test_errors_of_rules_have_their_line(tmp_path):
    status, out, err = run(tmp_path, rules={'git': {'hosts': ['*github.com']}})
    assert (status, out) == (1, '')
    assert err == ('FILE:9: rules.git.hosts: "*github.com": use * for whole labels at the beginning only, '
                   'such as *.corp.example\n')


# ---- explain --------------------------------------------------------------------------------------

def test_explain_a_name(tmp_path, names):
    lines = explain(tmp_path, names, 'APP.harness.io.:443')
    first, addresses = lines[0].rsplit('=', 1)
    assert first == 'verdict=allow rule=harness reason=allowed addresses'
    assert set(addresses.split(',')) == {'8.8.8.8', '2a00::1'}
    assert 'address=8.8.8.8 class=public verdict=allow rule=harness reason=allowed' in lines[1:]


def test_explain_each_address(tmp_path, names):
    allow = {'allow': ['*.example']}
    assert explain(tmp_path, names, 'inside.example:443', egress=allow) == [
        'verdict=deny rule=address reason="private address" addresses=10.0.0.7',
        'address=10.0.0.7 class=private verdict=deny rule=address reason="private address"']
    lines = explain(tmp_path, names, 'mixed.example:443', egress=allow)
    assert lines[0].startswith('verdict=allow rule=egress.allow reason=allowed addresses=')
    assert sorted(lines[1:]) == [
        'address=10.0.0.7 class=private verdict=deny rule=address reason="private address"',
        'address=8.8.4.4 class=public verdict=allow rule=egress.allow reason=allowed']
    assert explain(tmp_path, names, 'meta.example:443', egress=allow)[0] == \
        'verdict=deny rule=address reason="cloud metadata address" addresses=169.254.169.254'
    assert explain(tmp_path, names, 'mapped.example:443', egress=allow)[0] == \
        'verdict=deny rule=address reason="private address" addresses=64:ff9b::a00:1'


def test_explain_a_rule_with_addresses(tmp_path, names):
    rules = {'git': {'hosts': ['git.corp.example'], 'addresses': ['10.0.0.0/8'], 'ports': ['22']}}
    assert explain(tmp_path, names, 'git.corp.example:22', rules=rules)[0] == \
        'verdict=allow rule=git reason=allowed addresses=10.2.3.4'
    assert explain(tmp_path, names, 'git.corp.example:443', rules=rules) == [
        'verdict=deny rule=default reason="no rule allows this port" addresses=unresolved']


def test_explain_for_a_client(tmp_path, names):
    rules = {'team': {'hosts': ['git.corp.example'], 'addresses': ['10.0.0.0/8'], 'from': ['10.9.0.0/16'],
                      'identity': ['*.build.example']}}
    ask = ('git.corp.example:443', '--from', '10.9.1.1', '--identity')
    assert explain(tmp_path, names, *ask, 'a.build.example', rules=rules)[0] == \
        'verdict=allow rule=team reason=allowed addresses=10.2.3.4'
    assert explain(tmp_path, names, *ask, 'other', rules=rules)[0] == \
        'verdict=deny rule=default reason="no rule allows this client" addresses=unresolved'
    status, _, err = run(tmp_path, '--explain', 'x:1', '--from', 'here')
    assert (status, err) == (2, 'FILE: --from: use an address, such as 10.0.0.7\n')


@pytest.mark.parametrize('spelling', ['127.0.0.1', '2130706433', '0x7f.1', '0177.0.0.1', '127.1', '127.0.0.1.',
                                      '[::ffff:127.0.0.1]', '１２７.0.0.1'])
def test_explain_spellings_of_an_address(tmp_path, names, spelling):
    assert explain(tmp_path, names, spelling + ':80', egress={'allow': ['0.0.0.0/0:80']}) == [
        'verdict=deny rule=address reason="loopback address" addresses=127.0.0.1']
    assert names.asked == []


@pytest.mark.parametrize('where, reason', [
    ('user:pw@github.com:443', 'userinfo in front of a host'),
    ('github.com', 'no port'),
    ('[github.com]:443', 'brackets are for addresses of IPv6 only'),
    ('a..b:443', 'a host name with an empty label'),
    ('github.com:0', 'a port is a number from 1 to 65535'),
])
def test_explain_what_is_no_destination(tmp_path, names, where, reason):
    assert explain(tmp_path, names, where) == [
        f'verdict=deny rule=bad-authority reason="{reason}" addresses=unresolved']


def test_explain_looks_up_only_what_is_allowed(tmp_path, names):
    assert explain(tmp_path, names, 'inside.example:443') == [
        'verdict=deny rule=default reason="no rule allows it" addresses=unresolved']
    assert names.asked == []


def test_explain_a_name_that_does_not_exist(tmp_path, names):
    lines = explain(tmp_path, names, 'nowhere.example:443', egress={'allow': ['*.example']})
    assert lines[0] == 'verdict=allow rule=egress.allow reason=allowed addresses=unresolved'
    assert lines[1].startswith('resolving: ') and 'nowhere.example' in lines[1]


def test_explain_is_bounded_in_time(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(('127.0.0.1', 0))
        status, out, _ = run(tmp_path, '--explain', 'app.harness.io:443', egress={'connect-timeout': '200ms'},
                             upstream={'resolvers': ['127.0.0.1:%d' % silent.getsockname()[1]]})
    assert status == 0
    assert out.splitlines() == ['verdict=allow rule=harness reason=allowed addresses=unresolved',
                                'resolving: took too long']


def test_explain_behind_a_parent(tmp_path, names):
    upstream = {'parent': 'http://proxy.corp.example:3128', 'parent-bypass': ['*.corp.example']}
    allow = {'allow': ['git.corp.example', 'inside.example']}
    assert explain(tmp_path, names, 'inside.example:443', egress=allow, upstream=upstream) == [
        'verdict=allow rule=egress.allow reason=allowed addresses=unresolved']
    assert names.asked == []
    assert explain(tmp_path, names, 'git.corp.example:443', egress=allow, upstream=upstream)[0] == \
        'verdict=deny rule=address reason="private address" addresses=10.2.3.4'


def test_explain_in_report_mode(tmp_path, names):
    assert explain(tmp_path, names, 'inside.example:443', egress={'mode': 'report', 'allow': ['*.example']}) == [
        'verdict=allow rule=address reason="private address" addresses=10.0.0.7',
        'mode=report: the rule would deny it',
        'address=10.0.0.7 class=private verdict=allow rule=address reason="private address" would_deny=true']


@pytest.mark.parametrize('args', [['--explain'], ['--from', '10.0.0.1'], ['--identity', 'x'],
                                  ['--explain', 'x:1', '--dump-config']])
def test_wrong_usage(tmp_path, args):
    status, _, err = run(tmp_path, *args)
    assert status == 2 and 'usage: tailrace' in err


def test_serve_takes_none_of_it(tmp_path):
    done = subprocess.run([BINARY, 'serve', '-c', os.devnull, '--explain', 'x:1'], capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 2 and 'usage: tailrace' in done.stderr


def test_interception_is_checked(tmp_path):
    ca = CA(tmp_path)
    good = {'ca': ca.ca, 'key': ca.ca_key}
    allow = {'allow': ['github.com:443']}
    assert run(tmp_path, egress=allow, intercept=good) == (0, 'FILE: good\n', '')
    leaf, leaf_key = ca.issue('app.harness.io')
    status, _, err = run(tmp_path, egress=allow, intercept={'ca': leaf, 'key': leaf_key})
    assert status == 1 and 'intercept.ca: ' in err and 'no CA certificate' in err
    status, _, err = run(tmp_path, egress=allow, intercept={'ca': ca.ca, 'key': leaf_key})
    assert status == 1 and 'does not belong to' in err
    status, _, err = run(tmp_path, egress=allow, intercept=good, harness={'url': 'https://203.0.113.1'})
    assert status == 1 and 'intercept.hosts: missing' in err
    _, out, _ = run(tmp_path, egress=allow, intercept=dict(good, hosts=['logs.example']))
    assert out.startswith('warning: intercept.hosts: logs.example:443 is denied by rule default')
    for bad in ('*', '10.0.0.0/8', '10.0.0.1', 'a b', '*.*.x'):
        status, _, err = run(tmp_path, egress=allow, intercept=dict(good, hosts=[bad]))
        assert status == 1 and 'intercept.hosts' in err and 'use names' in err, bad


def test_override_without_resolvers(tmp_path):
    listen = {'sni': {'address': '127.0.0.1:0'}}
    options = dict(listen=listen, egress={'allow': ['github.com:443']})
    status, out, _ = run(tmp_path, **options)
    assert status == 0 and 'warning: listen.sni: upstream.resolvers is missing' in out
    assert run(tmp_path, upstream={'resolvers': ['10.0.0.53']}, **options) == (0, 'FILE: good\n', '')
    for more, complaint in (({'port': '0'}, 'use a port'), ({'certificate': '/x', 'key': '/x'}, 'mode sni has none'),
                            ({'mode': 'proxy', 'port': '443'}, 'only for listeners of mode sni')):
        status, _, err = run(tmp_path, **dict(options, listen={'sni': dict(listen['sni'], **more)}))
        assert status == 1 and complaint in err
