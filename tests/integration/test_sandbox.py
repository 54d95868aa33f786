"""What the process gives up once it has started: capabilities, new privileges, files that its configuration does not name."""
import os
import pwd
import re
import signal
import subprocess
from pathlib import Path

import pytest
from gateway import BINARY, free_port, wait_for
from proxies import proxy_at, status_of

ROOT = os.geteuid() == 0


def landlock():
    """Whether this kernel has it, by its own interface."""
    import ctypes
    return ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1) > 0


needs_landlock = pytest.mark.skipif(not landlock(), reason='this kernel has no Landlock')
needs_root = pytest.mark.skipif(not ROOT, reason='only root can become another user')


def reload(gw, good=True):
    name = 'config_generation' if good else 'reload_failures_total'
    before = gw.metric(name)
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric(name) == before + 1, what=name)
    return gw.log(fresh=True)


def tasks(gw):
    """{name: /proc's status} of every thread."""
    out = []
    for task in Path(f'/proc/{gw.pid}/task').iterdir():
        out.append(dict(re.findall(r'^(\w+):\s+(.*)$', (task / 'status').read_text(), re.M)))
    return out


def test_every_thread_has_given_up_its_privileges(gw):
    threads = tasks(gw)
    assert {t['Name'] for t in threads} >= {'tailrace', 'worker-0'}
    for t in threads:
        assert t['NoNewPrivs'] == '1', t['Name']
        assert {int(t[c], 16) for c in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')} == {0}, t['Name']
        assert t['Umask'] == '0077'
    if ROOT:
        assert {int(t['CapBnd'], 16) for t in threads} == {0}
    assert gw.metric('sandbox', feature='no_capabilities') == 1
    assert gw.metric('sandbox', feature='no_new_privileges') == 1
    assert gw.metric('sandbox', feature='landlock') == 0 or landlock()
    assert 'msg=sandbox' in gw.log()


def test_off_keeps_everything(far, gateway_at):
    gw = gateway_at(far.url, sandbox='off')
    assert {t['NoNewPrivs'] for t in tasks(gw)} == {'0'}
    assert gw.metric('sandbox', feature='landlock') == 0


@pytest.fixture
def outside(tmp_path):
    """A directory that no configuration names."""
    d = tmp_path / 'outside'
    d.mkdir()
    return d


def included(gw, path):
    """The configuration with one more file, and what a reload says of it."""
    path.write_text('batch: { lines: 7 }\n')
    text = gw.config_path.read_text()
    gw.config_path.write_text(f'include: {path}\n' + text)
    return text


@needs_landlock
def test_a_file_outside_cannot_be_read(far, gateway_at, outside):
    """By the kernel, whatever the file's permissions."""
    gw = gateway_at(far.url)
    text = included(gw, outside / 'more.yaml')
    log = reload(gw, good=False)
    assert re.search(r'more\.yaml[^\n]*Permission denied', log) and 'outside of what this process may reach' in log
    gw.config_path.write_text(text)
    included(gw, gw.directory / 'more.yaml')
    reload(gw)


def test_without_a_sandbox_it_can(far, gateway_at, outside):
    gw = gateway_at(far.url, sandbox='off')
    included(gw, outside / 'more.yaml')
    reload(gw)


@needs_landlock
def test_a_reload_that_names_a_path_outside_is_refused(gateway_at, outside, tmp_path):
    gw = proxy_at(gateway_at)
    users = outside / 'users'
    users.write_text('ci:' + subprocess.run(['openssl', 'passwd', '-6', 'x'], capture_output=True, text=True).stdout)
    users.chmod(0o600)
    gw.write_config(listen={'proxy': {'users': str(users)}})
    log = reload(gw, good=False)
    assert re.search(r'error="listen\.proxy\.users: outside of what this process may reach since it started; restart, or let '
                     r'another take over: \S+/outside/users"', log)
    assert status_of(gw, 'one.test:443') == 403, 'nobody is asked for credentials: nothing has changed'
    gw.stop()
    gw.start()
    assert status_of(gw, 'one.test:443') == 407


@needs_landlock
def test_who_takes_over_by_signal_inherits_the_limits(far, gateway_at, outside):
    """Again and again, past the sixteen that the kernel can stack; a process that is started afresh has limits of its own."""
    gw = gateway_at(far.url, workers=1, drain={'limit': '200ms'})
    for _ in range(17):
        gw.take_over(True)
    assert gw.metric('sandbox', feature='landlock') > 0
    reload(gw)
    gw.write_config(audit={'to': 'file', 'file': str(outside / 'audit')})
    gw.signal(signal.SIGUSR2)
    wait_for(lambda: 'handing over failed; this process goes on' in gw.log(), what='the report')
    assert re.search(r'outside/audit: Permission denied', gw.log()) and not (outside / 'audit').exists()
    assert gw.get('/readyz')[0] == 200
    gw.take_over(False)
    assert (outside / 'audit').exists()


@needs_landlock
def test_a_link_that_comes_to_lead_outside_is_not_followed(gateway_at, outside, tmp_path):
    """The way somebody who may write to the directory of the configuration would get at other files."""
    inside = tmp_path / 'inside'
    inside.mkdir()
    for d in (inside, outside):
        (d / 'secret').write_text('user:password')
        (d / 'secret').chmod(0o600)
    gw = proxy_at(gateway_at, upstream={'parent': 'http://127.0.0.1:1', 'parent-credentials': str(inside / 'secret')})
    reload(gw)
    (inside / 'secret').unlink()
    (inside / 'secret').symlink_to(outside / 'secret')
    log = reload(gw, good=False)
    assert re.search(r'upstream\.parent-credentials: outside of what this process may reach[^"]*/outside/secret"', log)


def test_files_may_be_replaced_and_rotated(gateway_at, tmp_path):
    """New files in the directories of the old ones; and links that change, as Kubernetes mounts secrets."""
    secrets = tmp_path / 'secrets'
    for name, password in (('..1', 'one'), ('..2', 'two')):
        (secrets / name).mkdir(parents=True)
        (secrets / name / 'parent').write_text(f'user:{password}')
        (secrets / name / 'parent').chmod(0o600)
    (secrets / '..data').symlink_to('..1')
    (secrets / 'parent').symlink_to('..data/parent')
    gw = proxy_at(gateway_at, upstream={'parent': 'http://127.0.0.1:1', 'parent-credentials': str(secrets / 'parent')})
    (secrets / '..new').symlink_to('..2')
    os.rename(secrets / '..new', secrets / '..data')
    os.rename(gw.trail.path, gw.trail.path.with_suffix('.1'))
    fresh = gw.config_path.with_suffix('.new')
    fresh.write_text(gw.config_path.read_text())
    os.rename(fresh, gw.config_path)
    reload(gw)
    assert gw.trail.path.exists()


def test_required_is_seen_to(far, gateway_at):
    if landlock():
        assert gateway_at(far.url, sandbox='required').metric('sandbox', feature='landlock') > 0
    else:
        gw = gateway_at(far.url, sandbox='required', start=False)
        gw.start(wait=False)
        assert gw.process.wait(20) == 1 and 'sandbox: required' in gw.log()


def run_as(tmp_path, far, user, *, port=None, mode=0o700):
    """A gateway's files in directories of that user."""
    import shutil
    import tempfile
    d = Path(tempfile.mkdtemp(prefix='tailrace-user-'))
    who = pwd.getpwnam(user.split(':')[0])
    os.chown(d, who.pw_uid, who.pw_gid)
    return d, lambda: shutil.rmtree(d)


@needs_root
@pytest.mark.parametrize('user', ['nobody', '65534:65534'])
def test_a_user_to_become(far, gateway_at, user, tmp_path):
    """Bound as root, a low port at that; serving as somebody else, with that one's groups, and nothing of root's."""
    from gateway import Gateway
    d, remove = run_as(tmp_path, far, 'nobody')
    port = next(p for p in range(1023, 600, -1) if is_free(p))
    try:
        with Gateway(d / 'gw', far.url, start=False, user=user,
                     listen={'upstream': {'address': f'127.0.0.1:{port}'}}) as gw:
            os.chown(gw.directory, 65534, 65534)
            gw.ports = {}
            gw.start()
            assert gw.port == port
            for t in tasks(gw):
                assert set(t['Uid'].split()) == {'65534'} and set(t['Gid'].split()) == {'65534'}
                assert set(t['Groups'].split()) <= {'65534'}
                assert int(t['CapPrm'], 16) == int(t['CapEff'], 16) == int(t['CapBnd'], 16) == 0
            assert gw.metric('sandbox', feature='not_root') == 1
            assert (gw.directory / 'spool').stat().st_uid == 65534
            reload(gw)
    finally:
        remove()


def is_free(port):
    import socket
    with socket.socket() as s:
        try:
            s.bind(('127.0.0.1', port))
            return True
        except OSError:
            return False


def test_a_user_that_is_none(far, gateway_at):
    gw = gateway_at(far.url, start=False, user='no-such-user')
    gw.start(wait=False)
    assert gw.process.wait(20) == 1 and 'user: there is no user' in gw.log()
    gw.process = None


@needs_root
def test_only_root_can_become_another(far, gateway_at, tmp_path):
    config = tmp_path / 'c.yaml'
    config.write_text(f'harness: {{ url: {far.url} }}\nuser: daemon\nlisten: {{ admin: {{ address: 127.0.0.1:{free_port()} }},'
                      f' upstream: {{ address: 127.0.0.1:{free_port()} }} }}\nspool: {{ directory: /nowhere }}\n')
    with open(config) as f:
        done = subprocess.run([BINARY, 'serve', '-c', '/dev/stdin'], stdin=f, capture_output=True, text=True, timeout=20,
                              user='nobody', cwd='/')
    assert done.returncode == 1 and 'only root can become' in done.stderr


@needs_root
def test_root_is_told_to_be_another(gw):
    assert 'running as root' in gw.log()
