"""tailracectl and the gateway itself: each command, and that what it shows is what is."""
import contextlib
import json
import os
import re
import subprocess

import pytest

from calls import TOKEN, Api
from gateway import key, wait_for
from proxies import RULES, echo, place, read_exactly, status_of, tunnel
from shared import far, gw, pair_at  # noqa: F401
from standin_gateway import CTL
from terminal import Terminal


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    """With a proxy that lets 127.0.0.1 pass."""
    with pair_at(tmp_path_factory.mktemp('ctl'), listen={'proxy': {'address': '127.0.0.1:0'}}, rules=RULES) as both:
        yield both


@pytest.fixture
def api(gw):  # noqa: F811
    a = Api(gw.log_url)
    yield a
    a.close()


def ctl(gw, *words, code=0, columns=None, **env):  # noqa: F811
    done = subprocess.run([CTL, '-c', str(gw.config_path), *map(str, words)], capture_output=True, text=True, timeout=30,
                          stdin=subprocess.DEVNULL, check=False,
                          env={**os.environ, 'LC_ALL': 'C.UTF-8', **({'COLUMNS': str(columns)} if columns else {}), **env})
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout


def as_json(gw, *words):  # noqa: F811
    return json.loads(ctl(gw, '--json', *words))


def held_up(far, api, name, *texts):  # noqa: F811
    """A stream whose lines do not leave."""
    far.fault('status', 'lines', count=None, key=name, code=500, body='')
    assert api.open(name)[0] == 204 and api.put(name, *texts)[0] == 204


def test_status(far, gw, api):  # noqa: F811
    name = key('status')
    held_up(far, api, name, 'a\n', 'b\n')
    found = wait_for(lambda: [x for x in [as_json(gw, 'status')] if x['streams']['waiting']], what='the stream')[0]
    ledger = gw.ledger()
    assert found['ledger']['lines'] == ledger and found['pid'] == gw.pid
    out = ctl(gw, 'status', columns=80)
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(rf'accepted +{ledger["accepted"]} ', out) and re.search(rf'spooled +{ledger["spooled"]} ', out)
    assert f'process {gw.pid}' in out and f'127.0.0.1:{gw.ports["proxy"]}' in out
    ctl(gw, 'status', '--check')


def test_streams_and_one_of_them(far, gw, api):  # noqa: F811
    name = key('waits')
    held_up(far, api, name, 'a\n', 'b\n')
    assert api.open(key('rests'))[0] == 204
    out = ctl(gw, 'streams', columns=100)
    assert 'level6:waits' in out and 'level6:rests' not in out
    assert 'level6:rests' in ctl(gw, 'streams', '--state', 'all') and 'level6:rests' in ctl(gw, 'streams', '--search', 'RESTS')
    one, = as_json(gw, 'streams', '--search', 'waits')['streams']
    assert one['key'] == name and one['backlog_lines'] == 2
    out = ctl(gw, 'stream', 'level6:waits', columns=80)
    assert name in out.replace('\n', '') and re.search(r'waiting +2 lines', out)
    assert as_json(gw, 'stream', name, '--account', 'acct')['key'] == name
    ctl(gw, 'stream', 'nobody has this', code=1)


def test_tail(far, gw, api):  # noqa: F811
    name = key('tail')
    assert api.open(name)[0] == 204
    with Terminal([CTL, '-c', str(gw.config_path), 'tail', 'level6:tail']) as t:
        n = 0

        def arrived(t):
            nonlocal n          # lines that pass before it listens are not shown: write until one is
            if 'line ' not in t.shown():
                assert api.put(name, f'line {n} \x1b[31mred\x1b[0m \x1b]0;x\x07\n', start=n)[0] == 204
                n += 1
            return 'line ' in t.shown()
        t.wait(arrived)
        assert 'red ?]0;x?' in t.shown()
        assert api.put(name, 'the last\n', start=n)[0] == 204
        assert api.delete(name)[0] == 204
        assert t.end() == 0 and t.shown().rstrip().endswith('the last')


def test_tail_is_for_those_allowed(far, gateway_at):  # noqa: F811
    gw = gateway_at(far.url, control={'tail': False})  # noqa: F811
    with contextlib.closing(Api(gw.log_url)) as api:
        assert api.open(key())[0] == 204
        done = subprocess.run([CTL, '-c', str(gw.config_path), 'tail', 'step'], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1 and 'control.tail' in done.stderr


def test_every_command_answers_in_json(far, gateway_at):  # noqa: F811
    """All that `help` lists; what goes on for ever or ends the gateway comes last."""
    gw = gateway_at(far.url)  # noqa: F811
    name = key('json')
    with contextlib.closing(Api(gw.log_url)) as api:
        assert api.open(name)[0] == 204
        far.fault('status', 'lines', count=None, key=name, code=400, body='{"error_msg":"invalid character"}')
        for i in range(2):
            assert api.put(name, 'bad\n', start=i)[0] == 204
        letters = wait_for(lambda: len(as_json(gw, 'dead', 'list')) == 2 and as_json(gw, 'dead', 'list'), what='the letters')
        far.clear_faults()
        assert api.delete(name)[0] == 204
        gw.wait_delivered()
    first, second = (str(letter['id']) for letter in letters)
    arguments = {'stream': [name], 'policy explain': ['a.example:443'], 'dead explain': [first], 'dead export': [first],
                 'dead replay': [first], 'dead drop': [second, '--yes']}
    names = [c['name'] for c in as_json(gw, 'help')['commands']]
    others = ['tail', 'completion', 'upgrade', 'drain']      # shell text; test_tail; and these end it
    assert set(others) < set(names) and len(names) == len(set(names)) > 20
    for command in [n for n in names if n not in others] + ['drain']:
        assert isinstance(as_json(gw, *command.split(), *arguments.get(command, [])), (dict, list)), command


def test_denials_and_policy(gw):  # noqa: F811
    assert status_of(gw, 'nowhere.test:443') == 403
    found = wait_for(lambda: as_json(gw, 'denials', '--search', 'nowhere')['denials'], what='the denial')
    assert found[0]['destination'] == 'nowhere.test:443' and found[0]['verdict'] == 'deny'
    assert 'nowhere.test:443' in ctl(gw, 'denials', columns=100)
    out = ctl(gw, 'policy', 'explain', 'nowhere.test:443')
    assert out.startswith('deny') and 'no rule allows it' in out
    assert ctl(gw, 'policy', 'explain', 'app.harness.io:443', '--from', '127.0.0.1').startswith('allow')
    assert 'bad-authority' in ctl(gw, 'policy', 'explain', 'no port')


def test_tunnels(gw):  # noqa: F811
    with place(echo) as p, tunnel(gw, f'127.0.0.1:{p.port}') as s:
        s.sendall(b'x' * 3000)
        read_exactly(s, 3000)
        one, = as_json(gw, 'tunnels', '--search', str(p.port))['tunnels']
        assert one['destination'] == f'127.0.0.1:{p.port}' and one['rule'] == 'local'
        out = ctl(gw, 'tunnels', columns=100)
        assert f'127.0.0.1:{p.port}' in out and out.endswith('1 open\n') and 'RULE' in out
        for by in ('destination', 'identity', 'client', 'rule'):
            group, = as_json(gw, 'tunnels', '--by', by)['groups']
            assert group['open'] == 1 and ctl(gw, 'tunnels', '--by', by).endswith('1 open\n')
    wait_for(lambda: ctl(gw, 'tunnels') == '0 open\n', what='the end of the tunnel')


def test_what_it_is_set_to(gw):  # noqa: F811
    names = {listener['name'] for listener in as_json(gw, 'listeners')['listeners']}
    assert names == {'upstream', 'admin', 'proxy'} and str(gw.ports['admin']) in ctl(gw, 'listeners')
    assert ctl(gw, 'certificates') == 'no certificates\n'
    text = ctl(gw, 'config')
    assert text == as_json(gw, 'config')['text'] and f'directory: {gw.directory}/spool' in text
    assert '127.0.0.1' in ctl(gw, 'upstreams') and as_json(gw, 'upstreams')['upstreams'][0]['kind'] == 'log-service'
    assert ctl(gw, 'log-level') == 'debug\n'
    assert ctl(gw, 'log-level', 'info') == 'info\n' and ctl(gw, 'log-level') == 'info\n'
    ctl(gw, 'log-level', 'loud', code=1)
    assert ctl(gw, 'reload').startswith('reloaded: generation ')
    assert ctl(gw, 'log-level') == 'debug\n'
    assert f'process {gw.pid}' in ctl(gw, 'version')


@pytest.mark.parametrize('mistake', ['limt: 1\n', 'log: [\n', 'log: { level: "${NOT_SET_HERE}" }\n'])
def test_a_file_with_a_mistake_leads_to_the_gateway_all_the_same(far, gateway_at, mistake):  # noqa: F811
    gw = gateway_at(far.url, control={'socket': '@'}, start=False)  # noqa: F811
    gw.options['control']['socket'] = str(gw.directory / 'c.sock')
    gw.start()
    good = gw.config_path.read_text()
    if mistake.endswith('[\n'):       # no YAML: nothing of it can be read, the socket must be named
        gw.config_path.write_text(mistake)
        ctl(gw, 'status', code=3)
        ctl(gw, '--socket', gw.directory / 'c.sock', 'status')
        return
    gw.config_path.write_text(good.replace('log:\n  level: "debug"\n', '') + mistake)
    done = subprocess.run([CTL, '-c', str(gw.config_path), '--json', 'status'], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 and json.loads(done.stdout)['pid'] == gw.pid
    assert f'{gw.config_path}:' in done.stderr and 'asked all the same' in done.stderr
    ctl(gw, 'reload', code=1)
    assert as_json(gw, 'status')['config']['last_error']


def test_the_spool(far, gw, api):  # noqa: F811
    held_up(far, api, key('spool'), 'a\n')
    found = as_json(gw, 'spool', 'stats')
    assert found['limit_bytes'] == 512 << 20 and found['commits'] > 0
    assert '512 MiB' in ctl(gw, 'spool', 'stats')
    assert 'sound' in ctl(gw, 'spool', 'verify') and as_json(gw, 'spool', 'verify')['sound'] is True


def test_history_and_top(gw):  # noqa: F811
    found = as_json(gw, 'history')
    assert found['step_seconds'] == 10 and len(found['points']) <= 360
    ctl(gw, 'history', columns=80)
    with Terminal([CTL, '-c', str(gw.config_path), 'top'], env={'LC_ALL': 'C.UTF-8'}) as t:
        t.wait(lambda t: f'process {gw.pid}' in t.shown() and 'LAST OK' in t.shown())
        first = t.shown()
        t.wait(lambda t: t.shown() != first)
        assert len(t.screen) == 24 and not t.too_wide
        t.press('q')
        assert t.end() == 0 and not t.alternate and t.has_echo(), t.raw[-3000:]


@pytest.mark.upgrade
def test_upgrade_and_drain(far, gateway_at):  # noqa: F811
    gw = gateway_at(far.url)  # noqa: F811
    ctl(gw, 'upgrade')
    pid = wait_for(lambda: re.search(r'"handing over" pid=(\d+)', gw.log()), what='the new process').group(1)
    wait_for(lambda: f'process {pid}' in subprocess.run([CTL, '-c', str(gw.config_path), 'version'], capture_output=True,
                                                         text=True, check=False).stdout, what='the new one answers')
    assert gw.process.wait(20) == 0
    assert ctl(gw, 'drain') == 'draining\n'
    wait_for(lambda: not os.path.exists(f'/proc/{pid}') or open(f'/proc/{pid}/stat').read().split()[2] == 'Z', what='the end')
    ctl(gw, 'status', code=3)
